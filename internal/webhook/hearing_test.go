package webhook

import (
	"testing"

	"wagate/internal/pgtest"
)

// What is heard of a phone number says that its webhooks arrive: statuses of any message do, for numbers that are ours.
func TestAStatusSaysThatItsPhoneNumberIsHeard(t *testing.T) {
	pool := pgtest.New(t)
	r := receiver(t, pool)
	putMessages(t, pool, 1)
	phone := scalar[string](t, pool, `SELECT phone_number_id FROM messages`)
	exec(t, pool, `INSERT INTO wabas (waba_id) VALUES ('100') ON CONFLICT DO NOTHING`)
	exec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ($1, '100') ON CONFLICT DO NOTHING`, phone)
	take(t, r, notification(status("wamid.of-another", "sent", "", 1)))
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM phone_hearings h JOIN webhook_raw w ON w.received_at = h.heard_at WHERE h.phone_number_id = $1`, phone); n != 1 {
		t.Fatalf("%d hearings of the phone number", n)
	}
	// One that is a moment newer changes nothing, one that is much newer does.
	for _, c := range []struct {
		ago   string
		moved bool
	}{{"0.2 s", false}, {"3 s", true}} {
		exec(t, pool, `UPDATE phone_hearings SET heard_at = clock_timestamp() - $1::text::interval`, c.ago)
		was := scalar[string](t, pool, `SELECT heard_at::text FROM phone_hearings`)
		take(t, r, notification(status("wamid.of-another", "delivered", "", 2)))
		drain(t, r)
		if is := scalar[string](t, pool, `SELECT heard_at::text FROM phone_hearings`); (is != was) != c.moved {
			t.Errorf("heard %s before: moved from %s to %s, want %v", c.ago, was, is, c.moved)
		}
	}
	exec(t, pool, `DELETE FROM phone_hearings`)
	exec(t, pool, `DELETE FROM phone_numbers`)
	take(t, r, notification(status("wamid.of-another", "read", "", 3)))
	drain(t, r)
	if n := scalar[int](t, pool, `SELECT count(*) FROM phone_hearings`); n != 0 {
		t.Errorf("%d hearings of a phone number that is not ours", n)
	}
}
