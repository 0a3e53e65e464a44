package webhook

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/pgtest"
)

func TestWhatCannotBeReadIsSetAside(t *testing.T) {
	pool := pgtest.New(t)
	ids := putMessages(t, pool, 2)
	r := receiver(t, pool)
	var sets []outcome
	r.applied = func(done outcome) { sets = append(sets, done) }
	take(t, r, notification(status("wamid.1", "sent", cloudapi.Token(ids[0].String(), 1), 1)), []byte(`{"object":`), []byte(`[]`),
		notification(status("wamid.2", "sent", cloudapi.Token(ids[1].String(), 1), 1)))
	drain(t, r)
	if len(sets) == 0 || len(sets[0].finished) != 4 || sets[0].aside != 2 {
		t.Errorf("not one set of four with two set aside: %+v", sets)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NOT NULL AND attempts = 1 AND error = $1`, cloudapi.ErrNotNotification.Error()); n != 2 {
		t.Errorf("%d set aside with their reason", n)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'sent'`); n != 2 {
		t.Errorf("%d of the two beside them applied", n)
	}
}

// What a stranger may write into a user's name, a template or an error is no reason for the database to refuse it.
func TestHostileTextsAreApplied(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	bodies := hostile()
	exec(t, pool, `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, try, slot_at)
		VALUES ($1, '200', '100', '+16505551234', 'text', 3, 'sending', 1, now())`, hostileID)
	for i := range 6 {
		exec(t, pool, `INSERT INTO wamids (wamid, message_id) VALUES ('wamid.' || $1::int, $2)`, i+1, hostileID)
	}
	take(t, r, bodies...)
	drain(t, r)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '61 seconds' WHERE processed_at IS NULL`)
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NOT NULL AND (error IS NULL OR error LIKE 'no message for %')`); n != len(bodies) {
		t.Errorf("%d of %d applied; %s", n, len(bodies), scalar[string](t, pool, `SELECT string_agg(DISTINCT error, ', ') FROM webhook_raw`))
	}
	if !scalar[bool](t, pool, `SELECT status = 'played' AND read_at < now() + interval '1 day' FROM messages`) {
		t.Error(scalar[string](t, pool, `SELECT to_jsonb(m)::text FROM messages m`))
	}
}

// A constraint stands for whatever the database may refuse of one notification's data.
func TestWhatCannotBeAppliedDoesNotStopTheOthers(t *testing.T) {
	for code, wantAttempts := range map[string]int{"23514": 1, "P0001": maxAttempts} {
		pool := pgtest.New(t)
		ids := putMessages(t, pool, 5)
		exec(t, pool, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.wamid = 'wamid.2' THEN RAISE EXCEPTION 'wamid.2 is refused' USING ERRCODE = '%s'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON message_events FOR EACH ROW EXECUTE FUNCTION refuse()`, code))
		r := receiver(t, pool)
		for i, id := range ids {
			take(t, r, notification(status(fmt.Sprintf("wamid.%d", i), "sent", cloudapi.Token(id.String(), 1), i)))
		}
		for range wantAttempts {
			drain(t, r)
			exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '1 hour' WHERE processed_at IS NULL`)
		}
		if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'sent'`); n != 4 {
			t.Errorf("%s: %d of 4 applied", code, n)
		}
		if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, ids[2]); got != "sending" {
			t.Errorf("%s: the refused one is %s", code, got)
		}
		if !scalar[bool](t, pool, `SELECT count(*) = 1 AND min(attempts) = $1 AND min(error) = $2 FROM webhook_raw WHERE error IS NOT NULL AND processed_at IS NOT NULL`,
			wantAttempts, "database error "+code) {
			t.Errorf("%s: not set aside after %d attempts", code, wantAttempts)
		}
	}
}

func TestAStatusBeforeOurOwnRecord(t *testing.T) {
	pool := pgtest.New(t)
	ids := putMessages(t, pool, 2)
	r := receiver(t, pool)
	// One with our token, and one by a wamid that nobody recorded yet.
	take(t, r, notification(status("wamid.0", "delivered", cloudapi.Token(ids[0].String(), 1), 2), status("wamid.1", "delivered", "the caller's", 2)))
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT status = 'delivered' AND wamid = 'wamid.0' AND slot_at IS NULL FROM messages WHERE id = $1`, ids[0]) {
		t.Error("not settled by the token")
	}
	if !scalar[bool](t, pool, `SELECT processed_at IS NULL AND attempts = 1 FROM webhook_raw`) {
		t.Error("not kept for later")
	}
	exec(t, pool, `INSERT INTO wamids VALUES ('wamid.1', $1)`, ids[1])
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '2 seconds'`)
	drain(t, r)
	if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, ids[1]); got != "delivered" {
		t.Errorf("matched later: %s", got)
	}
	if !scalar[bool](t, pool, `SELECT processed_at IS NOT NULL AND attempts = 2 AND error IS NULL FROM webhook_raw`) {
		t.Error("not finished")
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events`); n != 2 {
		t.Errorf("%d events for two statuses applied in two attempts", n)
	}

	// What nobody ever records ends after a minute.
	take(t, r, notification(status("wamid.stranger", "sent", "", 2)))
	drain(t, r)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '61 seconds' WHERE processed_at IS NULL`)
	drain(t, r)
	if !scalar[bool](t, pool, `SELECT count(*) = 1 FROM webhook_raw WHERE processed_at IS NOT NULL AND error = 'no message for 1 of 1 statuses'`) {
		t.Error("the stranger still waits")
	}
}

func TestEachPostedTwiceAndInReverseGivesTheSameState(t *testing.T) {
	pool := pgtest.New(t)
	const n = 40
	state := func(reverse bool) string {
		ids := putMessages(t, pool, n)
		r := receiver(t, pool)
		var bodies [][]byte
		for i, id := range ids {
			opaque, wamid := cloudapi.Token(id.String(), 1), "wamid."+id.String()
			for k, word := range []string{"sent", "delivered", "read", "failed"}[:1+i%4] {
				bodies = append(bodies, notification(status(wamid, word, opaque, i+k)))
			}
		}
		if reverse {
			slices.Reverse(bodies)
			bodies = slices.Concat(bodies, bodies)
		}
		for i, body := range bodies {
			take(t, r, body)
			if reverse && i%17 == 0 {
				drain(t, r)
			}
		}
		drain(t, r)
		return scalar[string](t, pool, `SELECT string_agg((to_jsonb(m) - 'id' - 'created_at' - 'wamid' - 'slot_at')::text, E'\n' ORDER BY id) FROM messages m WHERE id = ANY($1)`, ids)
	}
	if once, twice := state(false), state(true); once != twice || !strings.Contains(once, `"read"`) {
		t.Errorf("once and in order:\n%s\ntwice and in reverse:\n%s", once, twice)
	}
}

func TestTwoAppliersAtOnce(t *testing.T) {
	pool := pgtest.New(t)
	const messages, appliers = 500, 2
	ids := putMessages(t, pool, messages)
	a := receiver(t, pool)
	// 2,000 statuses; those of one message lie in four notifications, so that both appliers come to every message.
	for start := range messages / 10 {
		for k, word := range []string{"read", "sent", "delivered", "sent"} {
			var set []string
			for i := range 10 {
				id := ids[(start*10+i*37+k*131)%messages]
				set = append(set, status("wamid."+id.String(), word, cloudapi.Token(id.String(), 1), k))
			}
			take(t, a, notification(set...))
		}
	}
	receivers := []*Receiver{a, receiver(t, pool)}
	var wg sync.WaitGroup
	for _, r := range receivers {
		wg.Go(func() {
			for {
				set, _, err := r.applySet(t.Context(), 7)
				if err != nil {
					t.Error(err)
					return
				}
				if len(set) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events`); n != 4*messages {
		t.Errorf("%d events", n)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL OR attempts <> 1 OR error IS NOT NULL`); n != 0 {
		t.Errorf("%d notifications not applied once", n)
	}
	wrong := scalar[int](t, pool, `SELECT count(*) FROM messages m WHERE status <> (SELECT CASE
		WHEN bool_or(kind = 'status.read') THEN 'read' WHEN bool_or(kind = 'status.delivered') THEN 'delivered' WHEN bool_or(kind = 'status.sent') THEN 'sent'
		ELSE 'sending' END FROM message_events e WHERE e.message_id = m.id)`)
	if wrong != 0 {
		t.Errorf("%d messages do not stand where their events say", wrong)
	}
}

// The real payloads live beside the repository while it is worked on; they need not be there.
func TestRealPayloadsAreAllTakenIn(t *testing.T) {
	files, err := filepath.Glob("../../../shared/cases/webhooks/*.json")
	if err != nil {
		t.Fatal(err)
	}
	pool := pgtest.New(t)
	r := receiver(t, pool)
	bodies := [][]byte{notification(), []byte(`{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"security","value":{"event":"PIN_CHANGED"}}]}]}`)}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	take(t, r, bodies...)
	t.Logf("%d real payloads", len(files))
	drain(t, r)
	exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '61 seconds' WHERE processed_at IS NULL`)
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NOT NULL`); n != len(bodies) {
		t.Errorf("%d of %d processed", n, len(bodies))
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE body = ANY($1::bytea[])`, bodies); n != len(bodies) {
		t.Errorf("%d of %d kept byte for byte", n, len(bodies))
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE error IS NOT NULL AND error NOT LIKE 'no message for %'`); n != 0 {
		t.Errorf("%d set aside", n)
	}
}

// A notification that keeps the database busy for longer than a set may take is found out, and set aside alone.
func TestWhatTakesTooLongDoesNotStopTheOthers(t *testing.T) {
	pool := pgtest.New(t)
	ids := putMessages(t, pool, 5)
	exec(t, pool, `CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.wamid = 'wamid.2' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
		CREATE TRIGGER dawdle BEFORE INSERT ON message_events FOR EACH ROW EXECUTE FUNCTION dawdle()`)
	r := receiver(t, pool)
	r.applyWait = time.Second
	for i, id := range ids {
		take(t, r, notification(status(fmt.Sprintf("wamid.%d", i), "sent", cloudapi.Token(id.String(), 1), i)))
	}
	for range 5 * maxAttempts {
		drain(t, r)
		exec(t, pool, `UPDATE webhook_raw SET received_at = received_at - interval '1 hour' WHERE processed_at IS NULL`)
		if scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE processed_at IS NULL`) == 0 {
			break
		}
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE status = 'sent'`); n != 4 {
		t.Errorf("%d of 4 applied", n)
	}
	if !scalar[bool](t, pool, `SELECT count(*) = 1 AND min(attempts) = $1 AND min(error) = $2 FROM webhook_raw WHERE error IS NOT NULL AND processed_at IS NOT NULL`, maxAttempts, errTooLong.Error()) {
		t.Error("not set aside alone: " + scalar[string](t, pool, `SELECT coalesce(string_agg(concat_ws(' ', attempts, error, processed_at), ', '), '') FROM webhook_raw`))
	}
}
