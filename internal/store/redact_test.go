package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
)

// Whatever ends a message: the content goes with it where it has to, and only there.
func TestContentGoesWithTheStatusThatEndsItsMessage(t *testing.T) {
	s, pool := decidable(t)
	noJob := func(context.Context, pgx.Tx, []Again) error { return nil }
	outcome := func(status string) func(*testing.T, *Store, *pgxpool.Pool, uuid.UUID) {
		return func(t *testing.T, s *Store, _ *pgxpool.Pool, id uuid.UUID) {
			err := s.InTx(t.Context(), func(tx pgx.Tx) error {
				return s.RecordOutcomes(t.Context(), tx, []Outcome{{ID: id, Try: 1, Status: status, Event: "try." + status, At: base, SettleBy: base.Add(time.Hour)}}, nil)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	webhook := func(word string) func(*testing.T, *Store, *pgxpool.Pool, uuid.UUID) {
		return func(t *testing.T, s *Store, _ *pgxpool.Pool, id uuid.UUID) {
			st := token(id, 1, word, 0)
			err := s.InTx(t.Context(), func(tx pgx.Tx) error {
				_, err := s.ApplyStatuses(t.Context(), tx, []Status{st}, nil)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	sending := map[string]string{"status": "'sending'", "try": "1", "slot_at": "now()"}
	unknown := map[string]string{"status": "'unknown'", "try": "1", "unknown_at": "now() - interval '2 days'", "settle_by": "now() - interval '1 day'", "on_unknown": "'fail'"}
	waiting := map[string]string{"expires_at": "now() - interval '1 s'"}
	for _, tt := range []struct {
		name string
		row  map[string]string
		end  func(*testing.T, *Store, *pgxpool.Pool, uuid.UUID)
		want string // status after it
		ends bool
	}{
		{"refused", sending, outcome("failed"), "failed", true},
		{"accepted", sending, outcome("accepted"), "accepted", false},
		{"unknown", sending, outcome("unknown"), "unknown", false},
		{"delivered", sending, webhook("delivered"), "delivered", true},
		{"read", sending, webhook("read"), "read", true},
		{"sent", sending, webhook("sent"), "sent", false},
		{"failed by webhook", sending, webhook("failed"), "failed", true},
		{"settled as failed", unknown, func(t *testing.T, s *Store, _ *pgxpool.Pool, id uuid.UUID) {
			if _, err := s.settleNow(t.Context(), id, DecideFailed); err != nil {
				t.Fatal(err)
			}
		}, "failed", true},
		{"settled as sent", unknown, func(t *testing.T, s *Store, _ *pgxpool.Pool, id uuid.UUID) {
			if _, err := s.settleNow(t.Context(), id, DecideSent); err != nil {
				t.Fatal(err)
			}
		}, "sent", false},
		{"settled by its deadline", unknown, func(t *testing.T, s *Store, _ *pgxpool.Pool, _ uuid.UUID) {
			settleOnce(t, s, Patience{WorkerID: "w", After: time.Minute, Limit: 10})
		}, "failed", true},
		{"expired", waiting, func(t *testing.T, s *Store, _ *pgxpool.Pool, _ uuid.UUID) {
			if n, err := s.Expire(t.Context(), time.Now().Add(-time.Hour), time.Now(), 10); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}, "expired", true},
		{"cancelled", waiting, func(t *testing.T, s *Store, _ *pgxpool.Pool, id uuid.UUID) {
			if ok, err := s.Cancel(t.Context(), id, base, noJob); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}, "cancelled", true},
		{"cancelled by a filter", waiting, func(t *testing.T, s *Store, _ *pgxpool.Pool, _ uuid.UUID) {
			if n, _, err := s.CancelMany(t.Context(), CancelFilter{}, time.Now().Add(time.Hour), time.Minute, noJob); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}, "cancelled", true},
	} {
		for _, rule := range []struct {
			name, category, pricing string
			atFinal, goes           bool
		}{
			{"utility", "'utility'", "NULL", false, false}, {"nobody said", "NULL", "NULL", false, false},
			{"authentication", "'authentication'", "NULL", false, true}, {"priced so", "NULL", "'authentication_international'", false, true},
			{"all", "'marketing'", "NULL", true, true},
		} {
			t.Run(tt.name+", "+rule.name, func(t *testing.T) {
				if _, err := pool.Exec(t.Context(), `DELETE FROM messages`); err != nil {
					t.Fatal(err)
				}
				s.RedactAtFinal(rule.atFinal)
				columns := map[string]string{"body": "'{}'", "category": rule.category, "pricing_category": rule.pricing}
				for name, value := range tt.row {
					columns[name] = value
				}
				id := putMessage(t, pool, columns)
				tt.end(t, s, pool, id)
				got := scalar[string](t, pool, `SELECT concat_ws(' ', status, (body IS NULL)::text, (redacted_at IS NOT NULL)::text) FROM messages WHERE id = $1`, id)
				gone := tt.ends && rule.goes
				if want := fmt.Sprintf("%s %t %t", tt.want, gone, gone); got != want {
					t.Errorf("it is %q, want %q", got, want)
				}
			})
		}
	}
}

// A message whose content is gone is not sent again because a webhook says that it has failed.
func TestNoNewTryWithoutContent(t *testing.T) {
	s, pool := decidable(t)
	id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1", "accepted_at": "now() - interval '2 days'", "body": "'{}'"})
	if r, err := s.Redact(t.Context(), RedactContent, time.Now().Add(time.Hour), 10); err != nil || r.Redacted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	st := token(id, 1, "failed", 0)
	st.Errors = []StatusError{{Code: 131000, Title: "Something went wrong"}}
	if applied := applyAgain(t.Context(), t, pool, st); len(applied.Redos) != 0 || len(applied.Failures) != 1 {
		t.Errorf("%+v", applied)
	}
	if status := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, id); status != "failed" {
		t.Errorf("it is %s", status)
	}
}

func TestRedactGoesOnWhereItEnded(t *testing.T) {
	s, pool := decidable(t)
	now := time.Now()
	old := func(ago time.Duration, columns map[string]string) uuid.UUID {
		t.Helper()
		columns["body"], columns["wa_id"], columns["wamid"] = "'{}'", "'16505551234'", "'wamid.x'"
		return putAt(t, pool, now.Add(-ago), columns)
	}
	var ended []uuid.UUID
	for i := range 7 {
		ended = append(ended, old(time.Duration(100-i)*time.Hour, map[string]string{"status": "'delivered'"}))
	}
	open := old(99*time.Hour+time.Minute, map[string]string{"status": "'unknown'"})
	fresh := old(98*time.Hour+time.Minute, map[string]string{"status": "'accepted'", "accepted_at": "now()"}) // sent late
	young := old(time.Hour, map[string]string{"status": "'delivered'"})
	has := func(id uuid.UUID) bool {
		t.Helper()
		return scalar[bool](t, pool, `SELECT body IS NOT NULL FROM messages WHERE id = $1`, id)
	}
	var redacted, passed int64
	steps := 0
	for {
		r, err := s.Redact(t.Context(), RedactContent, now.Add(-90*time.Hour), 2)
		if err != nil || r.Busy {
			t.Fatalf("%+v, %v", r, err)
		}
		steps, redacted, passed = steps+1, redacted+r.Redacted, passed+r.Open
		if !r.More {
			break
		}
	}
	if steps != 5 || redacted != 7 || passed != 2 || !has(open) || !has(fresh) || !has(young) || has(ended[0]) {
		t.Errorf("in %d steps %d were redacted and %d passed by", steps, redacted, passed)
	}
	// What was open is looked at again, and only then.
	look := func() (r Redacted) {
		t.Helper()
		for at := uuid.Nil; ; {
			part, next, err := s.RedactOpen(t.Context(), RedactContent, at, 1)
			if err != nil {
				t.Fatal(err)
			}
			r.Redacted, r.Open = r.Redacted+part.Redacted, r.Open+part.Open
			if at = next; at == uuid.Nil {
				return r
			}
		}
	}
	if r := look(); r.Redacted != 0 || r.Open != 2 {
		t.Errorf("open: %+v", r)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET status = 'failed' WHERE id = $1`, open); err != nil {
		t.Fatal(err)
	}
	if r := look(); r.Redacted != 1 || r.Open != 1 || has(open) || !has(fresh) {
		t.Errorf("open: %+v", r)
	}
	if _, err := pool.Exec(t.Context(), `DELETE FROM messages WHERE id = $1`, fresh); err != nil { // with its day
		t.Fatal(err)
	}
	if r := look(); r != (Redacted{}) {
		t.Errorf("open: %+v", r)
	}
	if open, err := s.RedactionsOpen(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("open: %v, %v", open, err)
	}
	// Another process is at it.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM redactions FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Redact(t.Context(), RedactContent, now, 10); err != nil || !r.Busy || !has(young) {
		t.Errorf("beside another: %+v, %v", r, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Redact(t.Context(), RedactContent, now, 10); err != nil || r.Redacted != 1 || has(young) {
		t.Errorf("a later time: %+v, %v", r, err)
	}
	if r, err := s.Redact(t.Context(), RedactContent, now.Add(-90*time.Hour), 10); err != nil || r.Redacted != 0 || r.More {
		t.Errorf("an earlier time: %+v, %v", r, err)
	}
}

// A message whose recipient is masked still takes statuses, and its wamid does not come back as that of a second message.
func TestStatusesOfAMaskedMessage(t *testing.T) {
	s, pool := decidable(t)
	id := putMessage(t, pool, map[string]string{"status": "'delivered'", "try": "1", "wamid": "'wamid.x'", "wa_id": "'16505551234'",
		"opaque": "'16505551234'", "ordering_key": "'16505551234'", "error_details": "'not to 16505551234'", "body": "'{}'"})
	if _, err := pool.Exec(t.Context(), `INSERT INTO wamids VALUES ('wamid.x', $1)`, id); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Redact(t.Context(), RedactRecipient, time.Now().Add(time.Hour), 10); err != nil || r.Redacted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	const kept = `SELECT concat_ws(' ', recipient, wa_id, opaque, ordering_key, error_details, wamid, body, (SELECT count(*) FROM wamids), status) FROM messages`
	if got := scalar[string](t, pool, kept); got != "16*******34 not to *** *** 0 delivered" {
		t.Errorf("it keeps %q", got)
	}
	st := token(id, 1, "read", 0)
	st.WAMID, st.RecipientID = "wamid.x", "16505551234"
	if applied := apply(t, pool, st); applied.Duplicates != 0 || applied.Messages != 1 {
		t.Errorf("%+v", applied)
	}
	if got := scalar[string](t, pool, kept); got != "16*******34 not to *** *** 0 read" {
		t.Errorf("it keeps %q", got)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM wa_ids`); n != 0 {
		t.Error("the number was learned again")
	}
	// One of which Meta had said nothing before: its wamid, and what a failure says, are not kept now.
	late := putMessage(t, pool, map[string]string{"status": "'failed'", "try": "1", "body": "'{}'"})
	must(t, pool, `DELETE FROM redactions`)
	if r, err := s.Redact(t.Context(), RedactRecipient, time.Now().Add(2*time.Hour), 10); err != nil || r.Redacted != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	failed, read := token(late, 1, "failed", 0), token(late, 1, "read", time.Minute)
	failed.Errors[0].Details = "not to 16505551234"
	if applied := apply(t, pool, failed, read); applied.Duplicates != 0 || applied.Messages != 1 {
		t.Errorf("%+v", applied)
	}
	apply(t, pool, token(late, 1, "delivered", 0))
	if got := scalar[string](t, pool, kept+` WHERE id = '`+late.String()+`'`); got != "16*******34 *** 0 read" {
		t.Errorf("it keeps %q", got)
	}
	if got := scalar[string](t, pool, `SELECT string_agg(concat_ws(' ', kind, wamid, detail), ', ' ORDER BY kind) FROM message_events WHERE message_id = '`+late.String()+`'`); got !=
		`status.delivered, status.failed {"errors": [{"code": 131026, "title": "Message undeliverable"}]}, status.read` {
		t.Errorf("its log says %q", got)
	}
}

func TestStrayRowsGoToo(t *testing.T) {
	s, pool := decidable(t)
	at := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -40) // no partition is there
	for i, sql := range []string{
		`INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status) VALUES ($1, '200', '100', '+1', 'text', 3, 'delivered')`,
		`INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status) VALUES ($1, '200', '100', '+1', 'text', 3, 'unknown')`,
		`INSERT INTO message_events (id, message_id, kind, at) VALUES ($1, $1, 'try.accepted', now())`,
		`INSERT INTO webhook_raw (id, app_id, body, processed_at) VALUES ($1, 'a', '{}', now())`,
		`INSERT INTO webhook_raw (id, app_id, body) VALUES ($1, 'a', '{}')`,
	} {
		if _, err := pool.Exec(t.Context(), sql, message.NewID(at.Add(time.Duration(i)*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	for _, parent := range []string{"messages", "message_events", "webhook_raw"} {
		if n, err := s.DropStray(t.Context(), parent, at, 10); n != 0 || err != nil {
			t.Errorf("%s, on its day: %d, %v", parent, n, err)
		}
		if n, err := s.DropStray(t.Context(), parent, at.AddDate(0, 0, 1), 10); n != 1 || err != nil {
			t.Errorf("%s, a day later: %d, %v", parent, n, err)
		}
	}
	if n := scalar[int](t, pool, `SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM webhook_raw)`); n != 2 {
		t.Errorf("%d open rows are left, want 2", n)
	}
}

func TestForgetSpellings(t *testing.T) {
	s, pool := decidable(t)
	for _, sql := range []string{
		`INSERT INTO suppressions (waba_id, wa_id, category, until, reason) VALUES ('100', '1', 'marketing', NULL, 'stop'), ('100', '3', 'marketing', now() + interval '2 days', 'x')`,
		`INSERT INTO wa_ids (input, wa_id, learned_at) VALUES ('11', '1', now() - interval '9 days'), ('3', '33', now() - interval '9 days'), ('22', '2', now() - interval '9 days'), ('44', '4', now())`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var removed int64
	for at, n := "", 0; n == 0 || at != ""; n++ {
		next, gone, err := s.ForgetSpellings(t.Context(), at, time.Now().AddDate(0, 0, -7), 1)
		if err != nil {
			t.Fatal(err)
		}
		at, removed = next, removed+gone
	}
	if got := scalar[string](t, pool, `SELECT string_agg(input, ' ' ORDER BY input) FROM wa_ids`); removed != 1 || got != "11 3 44" {
		t.Errorf("%d removed, left %s", removed, got)
	}
}
