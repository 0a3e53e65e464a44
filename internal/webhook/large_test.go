package webhook

import (
	"slices"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

// Meta sends up to 1,000 statuses at once, and up to 3 MB.
const (
	manyStatuses = 1000
	largeBody    = 3 << 20
)

// padded makes a status longer, by about so many bytes of members that nobody reads.
func padded(status string, bytes int) string {
	const part = `\u00e4}],`
	return strings.TrimSuffix(status, "}") + `,"profile":{"names":["` + strings.Repeat(part, bytes/len(part)) + `"]},"statuses":[{"id":"wamid.inner","status":"failed"}]}`
}

func TestALargeNotificationIsAppliedInFull(t *testing.T) {
	pool := pgtest.New(t)
	state := func(times int, order func([][]byte)) []string {
		ids := putMessages(t, pool, manyStatuses)
		r := receiver(t, pool)
		var sent, later []string
		for i, id := range ids {
			opaque, wamid := cloudapi.Token(id.String(), 1), "wamid."+id.String()
			sent = append(sent, status(wamid, "sent", opaque, i))
			// Of four messages one each stays sent, is delivered, read, and has failed.
			later = append(later, padded(status(wamid, []string{"sent", "delivered", "read", "failed"}[i%4], opaque, 2000+i), largeBody/manyStatuses-300))
		}
		bodies := [][]byte{notification(sent...), notification(later...)}
		if n := len(bodies[1]); n < largeBody*9/10 || n > cloudapi.MaxNotification {
			t.Fatalf("the large one has %d bytes", n)
		}
		order(bodies)
		for range times {
			for _, body := range bodies {
				before := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw`)
				take(t, r, body)
				if !scalar[bool](t, pool, `SELECT count(*) = $1 AND bool_or(body = $2) FROM webhook_raw`, before+1, body) {
					t.Fatal("answered with 200 and not kept")
				}
			}
		}
		drain(t, r)
		if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL OR error IS NOT NULL OR attempts <> 1`); n != 0 {
			t.Fatalf("%d notifications were not applied at once", n)
		}
		if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = ANY($1)`, ids); n != 2*times*manyStatuses {
			t.Errorf("%d events of %d statuses posted %d times", n, 2*manyStatuses, times)
		}
		for i, word := range []string{"sent", "delivered", "read", "failed"} {
			mine := slices.Collect(func(yield func(string) bool) {
				for n := i; n < len(ids) && yield(ids[n].String()); n += 4 {
				}
			})
			if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE id = ANY($1::uuid[]) AND status = $2`, mine, word); n != manyStatuses/4 {
				t.Errorf("%d of %d messages are %s", n, manyStatuses/4, word)
			}
		}
		return strings.Split(scalar[string](t, pool, `SELECT string_agg((to_jsonb(m) - 'id' - 'created_at' - 'wamid' - 'slot_at')::text, E'\n' ORDER BY id) FROM messages m WHERE id = ANY($1)`, ids), "\n")
	}
	once := state(1, func([][]byte) {})
	twice := state(2, slices.Reverse[[][]byte])
	for i := range once {
		if once[i] != twice[i] {
			t.Fatalf("once and in order:\n%s\ntwice and in reverse:\n%s", once[i], twice[i])
		}
	}
}
