package dispatch

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/store"
)

// A worker that had hung wakes up in the belief that it owns a WABA, and finds jobs that another works on: the next owner. They
// stay where they are, or they would be worked twice.
func TestAStaleOwnerGivesNothingBack(t *testing.T) {
	_, r := newOwners(t)
	id := r.accept(t)
	claim(t, r.pool, id, "worker-c")
	exec(t, r.pool, `UPDATE leases SET worker_id = 'worker-c', epoch = epoch + 1`)
	r.sweep(t)
	wantJobs(t, r.pool, id, "running")
	exec(t, r.pool, `UPDATE leases SET worker_id = 'worker-b', epoch = epoch - 1, expires_at = clock_timestamp() - interval '1 second'`)
	r.sweep(t)
	wantJobs(t, r.pool, id, "running")
	exec(t, r.pool, `UPDATE leases SET expires_at = clock_timestamp() + interval '1 minute'`)
	r.sweep(t)
	wantGivenBack(t, r.pool, id)
}

// Two runs that ask for the same message at the same moment get one try, which is the first one's.
func TestATryIsOfOneRun(t *testing.T) {
	pool := newPool(t)
	a := newRig(t, pool, "worker-a", nowhere)
	exec(t, pool, `INSERT INTO workers (worker_id, lock_key) VALUES ('worker-a', 1)`)
	exec(t, pool, `INSERT INTO leases (waba_id, worker_id, epoch, expires_at) VALUES ($1::text, 'worker-a', 2, clock_timestamp() + interval '1 minute')`, testWABA)
	id, other := a.accept(t), a.accept(t)
	mark := func(id uuid.UUID) store.Mark {
		return store.Mark{ID: id, WABAID: testWABA, Epoch: 2, Slot: time.Now()}
	}
	results, err := a.mark(t.Context(), []store.Mark{mark(id), mark(other), mark(id)})
	if err != nil || !results[0].Out || !results[1].Out || results[2].Out {
		t.Errorf("%+v, %v", results, err)
	}
	if results, err := a.mark(t.Context(), []store.Mark{mark(id)}); err != nil || results[0].Out {
		t.Errorf("once more: %+v, %v", results, err)
	}
}
