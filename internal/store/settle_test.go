package store

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Without evidence that a lost message would have been heard of, on_unknown does not decide; but it does in the end.
func TestSettlingWaitsForEvidence(t *testing.T) {
	type situation struct {
		name      string
		onUnknown string
		// set prepares the database; the message became unknown 60 s ago, which is when its deadline was, too.
		set      string
		accepted time.Duration // ago; 0: nothing was
		waits    string
		status   string
	}
	heard := func(ago string) string {
		return `INSERT INTO phone_hearings VALUES ('200', clock_timestamp() - interval '` + ago + `')`
	}
	raw := func(ago, processed, attempts string) string {
		return `INSERT INTO webhook_raw (id, app_id, body, received_at, processed_at, attempts)
			VALUES (wagate_uuid_floor(now()), '1', '', clock_timestamp() - interval '` + ago + `', ` + processed + `, ` + attempts + `);`
	}
	held := func(template, ago string) string {
		return `INSERT INTO held_by_meta VALUES ('200', '` + template + `', clock_timestamp() - interval '` + ago + `');`
	}
	for _, c := range []situation{
		{name: "heard since", onUnknown: "resend", set: heard("1 s"), status: "queued"},
		{name: "heard since, fail", onUnknown: "fail", set: heard("1 s"), status: "failed"},
		{name: "never heard", onUnknown: "resend", waits: "webhooks_silent", status: "unknown"},
		{name: "never heard, fail", onUnknown: "fail", waits: "webhooks_silent", status: "unknown"},
		{name: "never heard, hold needs no evidence", onUnknown: "hold", status: "unknown"},
		{name: "heard before it was unknown only", onUnknown: "resend", set: heard("61 s"), waits: "webhooks_silent", status: "unknown"},
		{name: "silent since others were accepted", onUnknown: "resend", set: heard("50 s"), accepted: 40 * time.Second, waits: "webhooks_silent", status: "unknown"},
		{name: "heard after others were accepted", onUnknown: "resend", set: heard("30 s"), accepted: 40 * time.Second, status: "queued"},
		{name: "a notification is not applied yet", onUnknown: "resend", set: raw("2 s", "NULL", "0") + heard("1 s"), waits: "webhooks_waiting", status: "unknown"},
		{name: "a notification came just now", onUnknown: "resend", set: raw("0 s", "NULL", "0") + heard("1 s"), status: "queued"},
		{name: "a notification waits for its message", onUnknown: "resend", set: raw("2 s", "NULL", "1") + `UPDATE webhook_raw SET error = 'no message for 1 of 1 statuses';` + heard("1 s"), status: "queued"},
		{name: "a notification waits for the answer to its try", onUnknown: "resend", set: raw("2 s", "NULL", "1") + heard("1 s"), waits: "webhooks_waiting", status: "unknown"},
		{name: "a notification was not applied yet, for an error", onUnknown: "resend", set: raw("2 s", "NULL", "1") + `UPDATE webhook_raw SET error = 'database error P0001';` + heard("1 s"), waits: "webhooks_waiting", status: "unknown"},
		{name: "a notification was set aside", onUnknown: "resend", set: raw("2 s", "now()", "5") + heard("1 s"), status: "queued"},
		{name: "Meta holds the template", onUnknown: "resend", set: held("offer", "600 s") + heard("1 s"), waits: "held_by_meta", status: "unknown"},
		{name: "Meta held the template, long ago", onUnknown: "resend", set: held("offer", "4300 s") + heard("1 s"), status: "queued"},
		{name: "Meta holds another template", onUnknown: "resend", set: held("other", "1 s") + heard("1 s"), status: "queued"},
		{name: "silent for long", onUnknown: "resend", set: `UPDATE messages SET unknown_at = unknown_at - interval '240 s'`, status: "queued"},
		{name: "held for long", onUnknown: "resend", set: held("offer", "1 s") + `UPDATE messages SET unknown_at = unknown_at - interval '4140 s'`, status: "queued"},
		{name: "resent twice already", onUnknown: "resend", set: heard("1 s") + `;UPDATE messages SET settle_resends = 2`, status: "unknown"},
		{name: "resent once already", onUnknown: "resend", set: heard("1 s") + `;UPDATE messages SET settle_resends = 1`, status: "queued"},
		{name: "heard again after silence", onUnknown: "resend", set: heard("1 s") + `;UPDATE messages SET settle_waits = 'webhooks_silent'`, waits: "webhooks_late", status: "unknown"},
		{name: "heard for a while after silence", onUnknown: "resend", set: heard("1 s") + `;UPDATE messages SET settle_waits = 'webhooks_late'`, status: "queued"},
		{name: "another worker owns the WABA", onUnknown: "resend", status: "unknown",
			set: heard("1 s") + `;INSERT INTO leases VALUES ('100', 'other', 1, clock_timestamp() + interval '5 s')`},
		{name: "another worker owned the WABA", onUnknown: "resend", status: "queued",
			set: heard("1 s") + `;INSERT INTO leases VALUES ('100', 'other', 1, clock_timestamp() - interval '1 s')`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, pool := decidable(t)
			columns := unknownColumns()
			columns["on_unknown"], columns["template_name"] = "'"+c.onUnknown+"'", "'offer'"
			columns["unknown_at"], columns["settle_by"] = "clock_timestamp() - interval '60.8 s'", "clock_timestamp() - interval '0.8 s'"
			id := putMessage(t, pool, columns)
			if c.set != "" {
				if _, err := pool.Exec(t.Context(), c.set, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
			}
			p := Patience{WorkerID: "me", After: time.Minute, Grace: 500 * time.Millisecond, Limit: 10}
			if c.accepted > 0 {
				p.Accepted = map[string]time.Time{"200": time.Now().Add(-c.accepted)}
			}
			for range 2 { // nothing more follows at once
				settleOnce(t, s, p)
			}
			got := scalar[string](t, pool, `SELECT concat_ws('|', status, coalesce(settle_waits, '')) FROM messages WHERE id = $1`, id)
			if want := c.status + "|" + c.waits; got != want {
				t.Fatalf("%s, want %s", got, want)
			}
			if n, want := scalar[int](t, pool, `SELECT settle_resends FROM messages WHERE id = $1`, id), strings.Count(c.set, "resends = 1")+1; c.status == "queued" && n != want {
				t.Errorf("%d resends are counted, want %d", n, want)
			}
			put := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = $1 AND kind = 'settle_put_off'`, id)
			if want := map[bool]int{true: 1}[c.waits != ""]; put != want {
				t.Errorf("%d events say that it was put off, want %d", put, want)
			}
			again := map[bool]int{true: 60, false: 15}[c.waits == "webhooks_late"]
			if c.waits != "" && !scalar[bool](t, pool, `SELECT settle_by BETWEEN clock_timestamp() + make_interval(secs => $2 - 5) AND clock_timestamp() + make_interval(secs => $2) FROM messages WHERE id = $1`, id, again) {
				t.Errorf("it is not looked at again in %d s", again)
			}
			// What was put off is decided when its time is over, and told once only.
			if c.waits == "webhooks_silent" {
				if _, err := pool.Exec(t.Context(), `UPDATE messages SET settle_by = clock_timestamp() - interval '1 s'`); err != nil {
					t.Fatal(err)
				}
				settleOnce(t, s, p)
				if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = $1 AND kind = 'settle_put_off'`, id); n != 1 {
					t.Errorf("told %d times", n)
				}
				if _, err := pool.Exec(t.Context(), `UPDATE messages SET settle_by = clock_timestamp() - interval '1 s', unknown_at = unknown_at - interval '240 s'`); err != nil {
					t.Fatal(err)
				}
				settleOnce(t, s, p)
				if status := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, id); status == "unknown" {
					t.Error("it is unknown for ever")
				}
			}
		})
	}
}

func settleOnce(t *testing.T, s *Store, p Patience) {
	t.Helper()
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		_, err := s.SettleUnknown(t.Context(), tx, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
