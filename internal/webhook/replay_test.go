package webhook

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
	"wagate/internal/store"
)

// replay lets every notification in a state wait again, and gives how many there were.
func replay(t *testing.T, r *Receiver, state store.NotificationState, notices bool) int {
	t.Helper()
	done, err := r.deps.Store.ReplayByState(t.Context(), store.ReplayFilter{State: state, Notices: notices})
	if err != nil || done.Next != uuid.Nil {
		t.Fatalf("%+v, %v", done, err)
	}
	return done.N
}

func counts(t *testing.T, r *Receiver) store.NotificationCounts {
	t.Helper()
	c, err := r.deps.Store.CountNotifications(t.Context(), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A day without a partition stands for any trouble of the database that somebody mends.
func TestWhatWasSetAsideIsAppliedOnceItsCauseIsGone(t *testing.T) {
	pool := pgtest.New(t)
	ids := putMessages(t, pool, 3)
	r := receiver(t, pool)
	today := time.Now().UTC().Format("20060102")
	for _, partition := range []string{"message_events_default", "message_events_p" + today} {
		exec(t, pool, `ALTER TABLE message_events DETACH PARTITION `+partition)
		exec(t, pool, `DROP TABLE `+partition)
	}
	for i, id := range ids {
		take(t, r, notification(status(fmt.Sprintf("wamid.%d", i), "delivered", cloudapi.Token(id.String(), 1), i)))
	}
	take(t, r, []byte(`{"object":`), change("100", "user_preferences", `{"user_preferences":[{"wa_id":"551187654321","category":"marketing_messages","value":"stop","timestamp":1800000000}]}`))
	drain(t, r)
	if c := counts(t, r); c != (store.NotificationCounts{SetAside: 4, Applied: 1}) {
		t.Fatalf("%+v; the others are not applied beside those set aside", c)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'delivered'`); n != 0 {
		t.Fatalf("%d delivered", n)
	}

	if n := replay(t, r, store.NotificationSetAside, false); n != 4 {
		t.Errorf("%d replayed", n)
	}
	drain(t, r)
	if c := counts(t, r); c != (store.NotificationCounts{SetAside: 4, Applied: 1}) {
		t.Errorf("%+v; the cause is still there", c)
	}
	exec(t, pool, `SELECT wagate_ensure_partitions(7)`)
	if n := replay(t, r, store.NotificationSetAside, false); n != 4 {
		t.Errorf("%d replayed", n)
	}
	drain(t, r)
	if c := counts(t, r); c != (store.NotificationCounts{SetAside: 1, Applied: 4}) {
		t.Errorf("%+v; want all applied but what is no JSON", c)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'delivered' AND delivered_at IS NOT NULL`); n != 3 {
		t.Errorf("%d of 3 delivered", n)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events`); n != 3 {
		t.Errorf("%d events for 3 statuses", n)
	}
}

// Statuses whose message is found later than a minute after them, e.g. after a restore.
func TestUnmatchedStatusesFindTheirMessageAtAReplay(t *testing.T) {
	pool := pgtest.New(t)
	ids := putMessages(t, pool, 2)
	r := receiver(t, pool)
	exec(t, pool, `CREATE TABLE away AS SELECT * FROM messages WHERE id = $1`, ids[1])
	exec(t, pool, `DELETE FROM messages WHERE id = $1`, ids[1])
	take(t, r, notification(status("wamid.0", "read", cloudapi.Token(ids[0].String(), 1), 3), status("wamid.1", "read", cloudapi.Token(ids[1].String(), 1), 3)))
	drain(t, r)
	if c := counts(t, r); c != (store.NotificationCounts{Unmatched: 1}) {
		t.Fatalf("%+v", c)
	}
	exec(t, pool, `INSERT INTO messages SELECT * FROM away`)
	if n := replay(t, r, store.NotificationUnmatched, false); n != 1 {
		t.Errorf("%d replayed", n)
	}
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '1 second'`)
	drain(t, r)
	if c := counts(t, r); c != (store.NotificationCounts{Applied: 1}) {
		t.Errorf("%+v", c)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'read'`); n != 2 {
		t.Errorf("%d of 2 read", n)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events`); n != 2 {
		t.Errorf("%d events for 2 statuses", n)
	}
}

// everything gives all that statuses and failures of them leave behind.
func everything(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	return scalar[string](t, pool, `SELECT concat_ws(E'\n',
		(SELECT string_agg(to_jsonb(m)::text, E'\n' ORDER BY id) FROM messages m), (SELECT string_agg(to_jsonb(e)::text, E'\n' ORDER BY id) FROM message_events e),
		(SELECT string_agg(to_jsonb(w)::text, E'\n' ORDER BY wamid) FROM wamids w), (SELECT string_agg(to_jsonb(p)::text, E'\n' ORDER BY scope, value) FROM pauses p),
		(SELECT string_agg(to_jsonb(s)::text, E'\n' ORDER BY wa_id) FROM suppressions s), (SELECT count(*) FROM river_job))`)
}

// Statuses of every kind leave the same behind however often they are applied: a failure that was followed by a new try, one
// that paused, and one that suppressed too. With notices asked for as well, for they are not among those.
func TestAppliedStatusesReplayedChangeNothing(t *testing.T) {
	for _, notices := range []bool{false, true} {
		pool := pgtest.New(t)
		ids := accepted(t, pool, 6)
		exec(t, pool, `UPDATE messages SET category = 'marketing'`)
		r := receiver(t, pool)
		now := int(time.Now().Unix() - 1_800_000_000)
		opaque := func(i int) string { return cloudapi.Token(ids[i].String(), 1) }
		wamid := func(i int) string { return "wamid." + ids[i].String() }
		for _, body := range [][]byte{
			notification(status(wamid(0), "sent", opaque(0), 1), status(wamid(0), "delivered", opaque(0), 2)), notification(status(wamid(0), "read", opaque(0), 3)),
			notification(status("wamid.second", "sent", opaque(1), 1), status(wamid(1), "sent", opaque(1), 1)),
			notification(status(wamid(2), "sent", opaque(2), 1)), notification(failure(wamid(2), opaque(2), 131000, now)),
			notification(failure(wamid(3), opaque(3), 130429, now)), notification(failure(wamid(4), opaque(4), 131050, now)), notification(failure(wamid(5), opaque(5), 131042, now)),
		} {
			take(t, r, body)
			drain(t, r)
		}
		before := everything(t, pool)
		if n := scalar[int](t, pool, `SELECT (SELECT count(*) FROM pauses) * 100 + (SELECT count(*) FROM suppressions) * 10 + (SELECT count(*) FROM river_job)`); n != 212 {
			t.Fatalf("%d pauses, suppressions and jobs, want 212:\n%s", n, before)
		}
		if n := replay(t, r, store.NotificationApplied, notices); n != 8 {
			t.Errorf("%d replayed", n)
		}
		exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '1 second'`)
		drain(t, r)
		if c := counts(t, r); c != (store.NotificationCounts{Applied: 8}) {
			t.Errorf("%+v", c)
		}
		if after := everything(t, pool); after != before {
			t.Errorf("notices %v: before the replay\n%s\nafter it\n%s", notices, before, after)
		}
	}
}

// What a notification says beside statuses was true then. Who replays it does it again only by asking for that.
func TestNoticesAreDoneAgainOnlyWhenAskedFor(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	userWrote := time.Now().Add(-30 * time.Hour).Truncate(time.Second)
	take(t, r,
		change("100", "account_update", `{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}`),
		change("100", "user_preferences", `{"user_preferences":[{"wa_id":"551187654321","category":"marketing_messages","value":"stop","timestamp":1800000000}]}`),
		change("100", "messages", fmt.Sprintf(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":"1001"},
			"messages":[{"from":"12025550101","id":"wamid.in.1","timestamp":"%d","type":"text","text":{"body":"hi"}}]}`, userWrote.Unix())))
	drain(t, r)
	state := func() string {
		return scalar[string](t, pool, `SELECT concat((SELECT count(*) FROM pauses), ' ', (SELECT count(*) FROM suppressions), ' ', (SELECT count(*) FROM service_windows))`)
	}
	if got := state(); got != "1 1 1" {
		t.Fatalf("pauses, suppressions, windows: %s", got)
	}
	// Since then an operator has lifted the pause, the user wants marketing again, and the window has ended.
	exec(t, pool, `DELETE FROM pauses`)
	exec(t, pool, `DELETE FROM suppressions`)
	exec(t, pool, `DELETE FROM service_windows`)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '29 hours'`)

	replay(t, r, store.NotificationApplied, false)
	drain(t, r)
	if got := state(); got != "0 0 0" {
		t.Errorf("done again without being asked for: %s", got)
	}
	replay(t, r, store.NotificationApplied, true)
	drain(t, r)
	if got := state(); got != "1 1 1" {
		t.Errorf("not done again: %s", got)
	}
	if until := scalar[time.Time](t, pool, `SELECT until FROM service_windows`); !until.Equal(userWrote.Add(24 * time.Hour)) {
		t.Errorf("a window is open until %v, 24 hours after the user wrote is %v", until, userWrote.Add(24*time.Hour))
	}
	if c := counts(t, r); c != (store.NotificationCounts{Applied: 3}) {
		t.Errorf("%+v", c)
	}
}
