package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

// decidable gives a store with the phone number 200 that putMessage uses.
func decidable(t *testing.T) (*Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t)
	s := New(pool)
	if err := s.PutWABA(t.Context(), WABA{ID: "100", Burst: 1, ManagementCallsPerHour: 5000}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PutPhoneNumber(t.Context(), PhoneNumber{ID: "200", WABAID: "100", Burst: 1, PairBurst: 1, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	return s, pool
}

func unknownColumns() map[string]string {
	return map[string]string{
		"status": "'unknown'", "try": "2", "unknown_at": "now()", "unknown_reason": "'timeout'", "settle_by": "now() + interval '1 hour'",
		"error_code": "131000", "error_details": "'so it said'", "body": "'{}'",
	}
}

func (s *Store) settleNow(ctx context.Context, id uuid.UUID, as Decision) (again Again, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) (err error) {
		again, err = s.Settle(ctx, tx, id, as, base)
		return err
	})
	return again, err
}

func events(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) string {
	t.Helper()
	return scalar[string](t, pool, `
		SELECT coalesce(string_agg(concat_ws(' ', kind, try, detail), '; ' ORDER BY id), '') FROM message_events WHERE message_id = $1`, id)
}

func TestSettle(t *testing.T) {
	s, pool := decidable(t)
	state := func(id uuid.UUID) string {
		return scalar[string](t, pool, `
			SELECT concat_ws('|', status, try, settle_by IS NULL, unknown_reason, sent_at = $2, failed_at = $2, error_code, error_title, error_details, error_scope)
			FROM messages WHERE id = $1`, id, base)
	}
	for as, want := range map[Decision]string{
		DecideSent:   "sent|2|t|timeout|t",
		DecideFailed: "failed|2|t|timeout|t|131000|Settled as failed by an operator|so it said|message",
		DecideResend: "queued|2|t|timeout|131000|so it said",
	} {
		id := putMessage(t, pool, unknownColumns())
		again, err := s.settleNow(t.Context(), id, as)
		if err != nil || again != (Again{ID: id, PhoneNumberID: "200", Priority: 3}) {
			t.Errorf("as %s: %+v, %v", as, again, err)
		}
		if got := state(id); got != want {
			t.Errorf("as %s the message is\n%s, want\n%s", as, got, want)
		}
		if got, want := events(t, pool, id), fmt.Sprintf(`settled 2 {"as": "%s", "by": "operator"}`, as); got != want {
			t.Errorf("as %s the events are %s, want %s", as, got, want)
		}
		_, err = s.settleNow(t.Context(), id, DecideFailed)
		if wrong, ok := errors.AsType[*WrongStatusError](err); !ok || !strings.HasPrefix(want, wrong.Status+"|") {
			t.Errorf("a second decision after %s: %v", as, err)
		}
	}
}

// Meta's later word counts: a positive one beats a failure that was settled, and a failure beats sent.
func TestMetaIsRightAfterASettlement(t *testing.T) {
	s, pool := decidable(t)
	for _, c := range []struct {
		as         Decision
		word, want string
	}{
		{DecideFailed, "sent", "sent||"},
		{DecideFailed, "delivered", "delivered||"},
		{DecideSent, "delivered", "delivered||"},
		{DecideSent, "failed", "failed|131026|Message undeliverable"},
		{DecideResend, "read", "read||"},
	} {
		id := putMessage(t, pool, unknownColumns())
		if _, err := s.settleNow(t.Context(), id, c.as); err != nil {
			t.Fatal(err)
		}
		apply(t, pool, token(id, 2, c.word, time.Second))
		if got := scalar[string](t, pool, `SELECT status || '|' || coalesce(error_code::text, '') || '|' || coalesce(error_title, '') FROM messages WHERE id = $1`, id); got != c.want {
			t.Errorf("%s after %s: %s, want %s", c.word, c.as, got, c.want)
		}
	}
}

func TestSettleRefuses(t *testing.T) {
	s, pool := decidable(t)
	for _, status := range message.Statuses {
		if status == message.Unknown {
			continue
		}
		id := putMessage(t, pool, map[string]string{"status": "'" + string(status) + "'", "body": "'{}'"})
		_, err := s.settleNow(t.Context(), id, DecideResend)
		if wrong, ok := errors.AsType[*WrongStatusError](err); !ok || wrong.Status != string(status) {
			t.Errorf("%s: %v", status, err)
		}
		if e := events(t, pool, id); e != "" {
			t.Errorf("%s: events %s", status, e)
		}
	}
	columns := unknownColumns()
	columns["body"] = "NULL"
	bare := putMessage(t, pool, columns)
	if _, err := s.settleNow(t.Context(), bare, DecideResend); !errors.Is(err, ErrBodyGone) {
		t.Errorf("without a body: %v", err)
	}
	if _, err := s.settleNow(t.Context(), bare, DecideSent); err != nil {
		t.Errorf("without a body, as sent: %v", err)
	}
	lost := putMessage(t, pool, unknownColumns())
	if err := s.DeletePhoneNumber(t.Context(), "200"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.settleNow(t.Context(), lost, DecideResend); !errors.Is(err, ErrPhoneGone) {
		t.Errorf("without a phone number: %v", err)
	}
	if _, err := s.settleNow(t.Context(), message.NewID(time.Now()), DecideSent); !errors.Is(err, ErrNotFound) {
		t.Errorf("no message: %v", err)
	}
}

// A decision and a webhook of the same moment come one after the other: whoever is second sees what the first has done.
func TestSettleBesideAWebhook(t *testing.T) {
	s, pool := decidable(t)
	ctx := t.Context()
	for _, webhookFirst := range []bool{true, false} {
		id := putMessage(t, pool, unknownColumns())
		first, err := pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		hear := func(tx pgx.Tx) error {
			_, err := s.ApplyStatuses(ctx, tx, []Status{token(id, 2, "delivered", time.Second)}, nil)
			return err
		}
		decide := func(tx pgx.Tx) error {
			_, err := s.Settle(ctx, tx, id, DecideResend, base)
			return err
		}
		one, two := hear, decide
		if !webhookFirst {
			one, two = decide, hear
		}
		if err := one(first); err != nil {
			t.Fatal(err)
		}
		second, err := pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pid := second.Conn().PgConn().PID()
		done := make(chan error, 1)
		go func() { done <- two(second) }()
		awaitLock(t, pool, pid)
		if err := first.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		err = <-done
		if wrong, ok := errors.AsType[*WrongStatusError](err); webhookFirst != ok || (ok && wrong.Status != "delivered") {
			t.Errorf("webhook first %v: the second got %v", webhookFirst, err)
		}
		if webhookFirst {
			err = second.Rollback(ctx)
		} else {
			err = second.Commit(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := scalar[string](t, pool, `SELECT status FROM messages WHERE id = $1`, id); got != "delivered" {
			t.Errorf("webhook first %v: the message is %s", webhookFirst, got)
		}
	}
}

// awaitLock waits until a backend waits for a lock.
func awaitLock(t *testing.T, pool *pgxpool.Pool, pid uint32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for waits := false; !waits; {
		err := pool.QueryRow(ctx, `SELECT coalesce((SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1), false)`, pid).Scan(&waits)
		if err != nil {
			t.Fatalf("waiting for backend %d to wait for a lock: %v", pid, err)
		}
	}
}

func (s *Store) resendNow(ctx context.Context, r Resend) (a Acceptance, again Again, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) (err error) {
		a, again, err = s.Resend(ctx, tx, r)
		return err
	})
	return a, again, err
}

func TestResendCopiesTheMessage(t *testing.T) {
	s, pool := decidable(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	columns := map[string]string{
		"status": "'failed'", "error_code": "131026", "failed_at": "now()", "failed_by_meta": "true", "try": "4", "retries": "3", "wamid": "'wamid.A'",
		"category": "'utility'", "on_unknown": "'resend'", "template_name": "'otp'", "template_language": "'en'", "reference": "'order-17'", "tags": `'{"a":"b"}'`,
		"ordering_key": "'chat'", "callback_url": "'https://app.internal/'", "opaque": "'mine'", "send_window": `'{"from":"08:00"}'`, "body": `'{"x":1}'`,
		"created_at": "now() - interval '3 hours'", "send_at": "now() - interval '2 hours'", "expires_at": "now() - interval '1 hour'",
	}
	old := putMessage(t, pool, columns)
	r := Resend{Of: old, ID: message.NewID(now), CreatedAt: now, KeyID: message.NewID(now)}
	a, again, err := s.resendNow(t.Context(), r)
	if err != nil || a.Verdict != Stored || a.ID != r.ID || again != (Again{ID: r.ID, PhoneNumberID: "200", Priority: 3, SendWindow: `{"from": "08:00"}`, CreatedAt: now}) {
		t.Fatalf("%+v, %+v, %v", a, again, err)
	}
	got := scalar[string](t, pool, `
		SELECT concat_ws('|', n.status, n.try, n.retries, n.phone_number_id, n.waba_id, n.key_id = $2, n.recipient, n.type, n.priority, n.category, n.on_unknown,
			n.template_name, n.template_language, n.reference, n.tags, n.ordering_key, n.callback_url, n.opaque, n.send_window, n.body = o.body,
			n.created_at = $3, n.send_at IS NULL, n.expires_at = $3::timestamptz + (o.expires_at - o.send_at), n.resend_of = o.id,
			coalesce(n.wamid, n.error_code::text, n.failed_at::text, 'clean'), n.failed_by_meta)
		FROM messages n, messages o WHERE n.id = $1 AND o.id = n.resend_of`, r.ID, r.KeyID, now)
	want := `queued|0|0|200|100|t|+16505551234|text|3|utility|resend|otp|en|order-17|{"a": "b"}|chat|https://app.internal/|mine|{"from": "08:00"}|t|t|t|t|t|clean|f`
	if got != want {
		t.Errorf("the new message is\n%s, want\n%s", got, want)
	}
	if got, want := events(t, pool, old), `resent {"message_id": "`+r.ID.String()+`"}`; got != want {
		t.Errorf("events %s, want %s", got, want)
	}

	// What lies ahead is kept.
	columns["send_at"], columns["expires_at"], columns["status"] = "now() + interval '1 hour'", "now() + interval '2 hours'", "'cancelled'"
	ahead := putMessage(t, pool, columns)
	r = Resend{Of: ahead, ID: message.NewID(now), CreatedAt: now}
	if _, again, err = s.resendNow(t.Context(), r); err != nil || !again.SendAt.After(now) {
		t.Errorf("%+v, %v", again, err)
	}
	if !scalar[bool](t, pool, `SELECT n.send_at = o.send_at AND n.expires_at = o.expires_at AND n.key_id IS NULL FROM messages n, messages o WHERE n.id = $1 AND o.id = n.resend_of`, r.ID) {
		t.Error("send_at and expires_at that lie ahead are not kept")
	}
}

func TestResendByStatus(t *testing.T) {
	s, pool := decidable(t)
	want := 0
	for _, status := range message.Statuses {
		id := putMessage(t, pool, map[string]string{"status": "'" + string(status) + "'", "body": "'{}'"})
		_, _, err := s.resendNow(t.Context(), Resend{Of: id, ID: message.NewID(time.Now()), CreatedAt: time.Now()})
		wrong, refused := errors.AsType[*WrongStatusError](err)
		switch status {
		case message.Failed, message.Expired, message.Cancelled:
			want++
			if err != nil {
				t.Errorf("%s: %v", status, err)
			}
		default:
			if !refused || wrong.Status != string(status) {
				t.Errorf("%s: %v", status, err)
			}
		}
	}
	bare := putMessage(t, pool, map[string]string{"status": "'failed'", "body": "NULL"})
	if _, _, err := s.resendNow(t.Context(), Resend{Of: bare, ID: message.NewID(time.Now()), CreatedAt: time.Now(), Owner: "o", IdempotencyKey: "k", RequestHash: []byte("h")}); !errors.Is(err, ErrBodyGone) {
		t.Errorf("without a body: %v", err)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages WHERE resend_of IS NOT NULL`); n != want {
		t.Errorf("%d new messages, want %d", n, want)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Error("a refused request keeps its idempotency key")
	}
}

func TestResendWithAnIdempotencyKey(t *testing.T) {
	s, pool := decidable(t)
	old := putMessage(t, pool, map[string]string{"status": "'failed'", "body": "'{}'"})
	ask := func(hash string) Acceptance {
		t.Helper()
		now := time.Now().Truncate(time.Microsecond)
		a, _, err := s.resendNow(t.Context(), Resend{Of: old, ID: message.NewID(now), CreatedAt: now, Owner: "o", IdempotencyKey: "k", RequestHash: []byte(hash)})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := ask("h")
	// The old message was delivered after all: the repetition still gets its answer.
	apply(t, pool, token(old, 1, "delivered", time.Second))
	if again := ask("h"); again.Verdict != Replayed || again.ID != first.ID {
		t.Errorf("the repetition: %+v, first %+v", again, first)
	}
	if other := ask("i"); other.Verdict != Conflicting {
		t.Errorf("another request: %+v", other)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM messages`); n != 2 {
		t.Errorf("%d messages", n)
	}
}
