package callback

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/store"
)

// ending is a transaction that stands where a job ends: it has the endpoint's lock, and is about to change the endpoint.
func (r *rig) ending(id uuid.UUID) pgx.Tx {
	r.t.Helper()
	tx, err := r.pool.Begin(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	var alone bool
	err = tx.QueryRow(r.t.Context(), `SELECT pg_try_advisory_xact_lock(734987101, ('x' || right(replace($1::text, '-', ''), 8))::bit(32)::integer)`, id).Scan(&alone)
	if err != nil || !alone {
		r.t.Fatal(alone, err)
	}
	return tx
}

// What changes an endpoint, and a job of it that ends at this moment, do not wait for each other.
func TestChangesDoNotDeadlockWithTheEndOfAJob(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	id, _ := r.subscribe(e.URL)
	r.accepted(r.accept(""))
	sub, err := r.store.Subscription(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"replay": func() error {
			_, _, err := r.store.ReplayCallbacks(context.WithoutCancel(t.Context()), store.CallbackFilter{EndpointIDs: []uuid.UUID{id}, Limit: 10})
			return err
		},
		"change": func() error { return r.store.PutSubscription(context.WithoutCancel(t.Context()), sub) },
	} {
		tx := r.ending(id)
		done := make(chan error, 1)
		go func() { done <- change() }()
		r.until(`SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`)
		if _, err := tx.Exec(t.Context(), `UPDATE callback_endpoints SET due_at = due_at WHERE endpoint_id = $1`, id); err != nil {
			t.Errorf("%s: the job cannot end: %v", name, err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Errorf("%s: the job cannot end: %v", name, err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two that tell the same endpoints, each in its own order, do not wait for each other; and one that gives up leaves nothing
// of the other's without a job.
func TestThoseWhoTellDoNotWaitForEachOther(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	all := func(c *store.CallbackEndpoint) { c.Events = []string{store.TellInbound} }
	id, _ := r.subscribe(e.URL, all)
	other, _ := r.subscribe(e.URL, all, func(c *store.CallbackEndpoint) { c.WABAID = new("101") })
	notice := func(tx pgx.Tx, waba string) error {
		return r.store.TellNotices(t.Context(), tx, []store.Notice{{ID: uuid.New(), Kind: store.TellInbound, WABAID: waba, At: time.Now(), Field: "messages", Value: []byte(`{}`)}})
	}
	r.exec(`UPDATE callback_endpoints SET due_at = now() + interval '1 hour'`) // both have an event to try again in an hour
	giveUp := errors.New("given up")
	err := r.store.InTx(t.Context(), func(first pgx.Tx) error {
		if err := notice(first, "101"); err != nil { // both endpoints
			return err
		}
		r.tx(func(second pgx.Tx) error {
			if _, err := second.Exec(t.Context(), `SET LOCAL lock_timeout = '5s'`); err != nil {
				return err
			}
			return notice(second, "101")
		})
		return giveUp
	})
	if !errors.Is(err, giveUp) {
		t.Fatal(err)
	}
	if _, err := r.store.MendCallbacks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_endpoints WHERE due_at > now() + interval '1 minute'`); n != 2 {
		t.Errorf("%d wait: what was told a moment ago may still be somebody's who commits", n)
	}
	r.exec(`UPDATE callback_events SET next_at = now() - interval '6 seconds'`)
	if n, err := r.store.MendCallbacks(t.Context()); n != 2 || err != nil {
		t.Errorf("%d endpoints got a job, want 2: %v", n, err)
	}
	r.run(r.d, id)
	r.run(r.d, other)
	e.next(t, 2)
}

// A subscription that is deleted while somebody changes it stays deleted.
func TestAChangeBringsNothingBack(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	id, _ := r.subscribe(e.URL)
	was, err := r.store.Subscription(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.DeleteSubscription(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"deleted", "forgotten"} {
		if err := r.store.PutSubscription(t.Context(), was); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s, then changed: %v", state, err)
		}
		if scalar[bool](r, `SELECT EXISTS (SELECT FROM callback_endpoints WHERE active)`) {
			t.Errorf("%s, then changed: it gets events again", state)
		}
		if _, err := r.store.ForgetCallbacks(t.Context(), time.Hour, 10); err != nil {
			t.Fatal(err)
		}
	}
}
