package intake_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/intake"
	"wagate/internal/store"
)

// ended accepts a message, completes its job as a worker does, and sets the message's columns.
func ended(t *testing.T, in *intake.Intake, pool *pgxpool.Pool, set string) uuid.UUID {
	t.Helper()
	a, err := in.Accept(t.Context(), intake.Request{Caller: caller, Body: text("")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE river_job SET state = 'completed', finalized_at = now() WHERE args->>'id' = $1::text`, a.ID.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `UPDATE messages SET `+set+` WHERE id = $1`, a.ID); err != nil {
		t.Fatal(err)
	}
	return a.ID
}

const unknown = `status = 'unknown', try = 1, unknown_at = now(), unknown_reason = 'timeout', settle_by = now() + interval '1 hour'`

// live counts the jobs of a message that are still to run.
func live(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) (n int) {
	t.Helper()
	err := pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE args->>'id' = $1::text AND state = 'available' AND queue = $2::text AND priority = 3`,
		id.String(), "lane-"+phone).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSettlePutsInAJobForAResendOnly(t *testing.T) {
	in, pool := setup(t)
	for as, want := range map[store.Decision]struct {
		status string
		jobs   int
	}{store.DecideSent: {"sent", 0}, store.DecideFailed: {"failed", 0}, store.DecideResend: {"queued", 1}} {
		id := ended(t, in, pool, unknown)
		m, err := in.Settle(t.Context(), caller, id, as)
		if err != nil || m.Status != want.status || live(t, pool, id) != want.jobs {
			t.Errorf("as %s: %s, %d jobs, %v; want %+v", as, m.Status, live(t, pool, id), err, want)
		}
	}
}

// Of many that settle the same message at once one wins, and there is one job.
func TestSettleAtOnce(t *testing.T) {
	in, pool := setup(t)
	id := ended(t, in, pool, unknown)
	const n = 20
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = in.Settle(t.Context(), caller, id, store.DecideResend) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		wrong, refused := errors.AsType[*store.WrongStatusError](err)
		switch {
		case err == nil:
			won++
		case !refused || wrong.Status != "queued":
			t.Errorf("a loser got %v", err)
		}
	}
	if jobs := live(t, pool, id); won != 1 || jobs != 1 {
		t.Errorf("%d won, %d jobs", won, jobs)
	}
	var events int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM message_events WHERE message_id = $1 AND kind = 'settled'`, id).Scan(&events); err != nil {
		t.Fatal(err)
	}
	if events != 1 {
		t.Errorf("%d events", events)
	}
}

func TestResend(t *testing.T) {
	in, pool := setup(t)
	old := ended(t, in, pool, `status = 'failed', send_at = now() - interval '1 hour'`)
	a, err := in.Resend(t.Context(), caller, old, "")
	if err != nil {
		t.Fatal(err)
	}
	if a.ID == old || a.From != phone || a.To != "+16505551234" || a.Replayed || !a.EstimatedSendAt.Equal(a.CreatedAt) {
		t.Errorf("answer %+v", a)
	}
	if live(t, pool, a.ID) != 1 || live(t, pool, old) != 0 {
		t.Errorf("%d jobs of the new message, %d of the old", live(t, pool, a.ID), live(t, pool, old))
	}
	// Another without a key is another message.
	if b, err := in.Resend(t.Context(), caller, old, ""); err != nil || b.ID == a.ID {
		t.Errorf("the second is %+v, %v", b, err)
	}
}

func TestResendAtOnceUnderOneKey(t *testing.T) {
	in, pool := setup(t)
	old := ended(t, in, pool, `status = 'expired'`)
	other := ended(t, in, pool, `status = 'expired'`)
	const n = 20
	answers := make([]intake.Accepted, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if answers[i], err = in.Resend(t.Context(), caller, old, "once"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stored := 0
	for _, a := range answers {
		if !a.Replayed {
			stored++
		}
		if a.ID != answers[0].ID || !a.CreatedAt.Equal(answers[0].CreatedAt) || a.To != "+16505551234" {
			t.Errorf("answers %+v and %+v", a, answers[0])
		}
	}
	if jobs := live(t, pool, answers[0].ID); stored != 1 || jobs != 1 {
		t.Errorf("%d stored, %d jobs", stored, jobs)
	}
	if m := count(t, pool, "messages"); m != 3 {
		t.Errorf("%d messages", m)
	}
	if _, err := in.Resend(t.Context(), caller, other, "once"); kindOf(err) != intake.KeyReused {
		t.Errorf("the key of another request: %v", err)
	}
	if _, err := in.Resend(t.Context(), caller, other, "\x01"); kindOf(err) != intake.Invalid {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestDecisionsRefused(t *testing.T) {
	in, pool := setup(t)
	stranger := intake.Caller{Owner: "other", PhoneNumbers: []string{"200000000000009"}}
	open, failed := ended(t, in, pool, unknown), ended(t, in, pool, `status = 'failed'`)
	if _, err := in.Settle(t.Context(), stranger, open, store.DecideSent); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a stranger settles: %v", err)
	}
	if _, err := in.Resend(t.Context(), stranger, failed, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a stranger resends: %v", err)
	}
	if _, err := in.Resend(t.Context(), caller, open, ""); !isWrong(err, "unknown") {
		t.Errorf("an unknown one is resent: %v", err)
	}
	if _, err := in.Settle(t.Context(), caller, failed, store.DecideSent); !isWrong(err, "failed") {
		t.Errorf("a failed one is settled: %v", err)
	}
	bare := ended(t, in, pool, `status = 'failed', body = NULL`)
	if _, err := in.Resend(t.Context(), caller, bare, ""); !errors.Is(err, store.ErrBodyGone) {
		t.Errorf("without a body: %v", err)
	}
	if m, e := count(t, pool, "messages"), count(t, pool, "message_events"); m != 3 || e != 0 {
		t.Errorf("%d messages, %d events", m, e)
	}
}

func isWrong(err error, status string) bool {
	wrong, ok := errors.AsType[*store.WrongStatusError](err)
	return ok && wrong.Status == status
}
