package dispatch

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/limiter"
	"wagate/internal/owner"
	"wagate/internal/queue"
	"wagate/internal/store"
)

func TestJudge(t *testing.T) {
	const post = 30 * time.Second
	now := time.Now()
	at := func(ahead time.Duration) *time.Time { u := now.Add(ahead); return &u }
	for _, c := range []struct {
		name   string
		state  store.TryState
		absent bool
		own    bool
		want   judgement
	}{
		{name: "no message", absent: true, want: completeOnly},
		{name: "no message, own", absent: true, own: true, want: completeOnly},
		{name: "unmarked", state: store.TryState{Status: "queued"}, want: giveBack},
		{name: "unmarked, alive", state: store.TryState{Status: "queued", Alive: true}, want: giveBack},
		{name: "unmarked, own", state: store.TryState{Status: "queued", Alive: true}, own: true, want: giveBack},
		{name: "unmarked, dead", state: store.TryState{Status: "queued", DeadAt: at(0)}, want: giveBack},
		{name: "unknown", state: store.TryState{Status: "unknown"}, want: completeOnly},
		{name: "accepted", state: store.TryState{Status: "accepted", Alive: true}, want: completeOnly},
		{name: "delivered, slot open", state: store.TryState{Status: "delivered", SlotAt: at(0)}, want: completeOnly},
		{name: "failed", state: store.TryState{Status: "failed"}, want: completeOnly},
		{name: "cancelled, own", state: store.TryState{Status: "cancelled"}, own: true, want: completeOnly},
		{name: "expired", state: store.TryState{Status: "expired", DeadAt: at(0)}, want: completeOnly},

		{name: "begun without a slot", state: store.TryState{Status: "sending", Alive: true}, want: makeUnknown},
		{name: "begun without a slot, dead", state: store.TryState{Status: "sending", DeadAt: at(-time.Hour)}, want: makeUnknown},
		{name: "begun without a slot, lease over", state: store.TryState{Status: "sending", LeaseEnd: at(-time.Hour)}, want: makeUnknown},

		{name: "slot after the death", state: store.TryState{SlotAt: at(-time.Second), DeadAt: at(-2 * time.Second)}, want: giveBackUnsent},
		{name: "slot before the death", state: store.TryState{SlotAt: at(-2 * time.Second), DeadAt: at(-time.Second)}, want: makeUnknown},
		{name: "slot at the death", state: store.TryState{SlotAt: at(-time.Second), DeadAt: at(-time.Second)}, want: makeUnknown},
		{name: "slot at the margin after the death", state: store.TryState{SlotAt: at(deathMargin), DeadAt: at(0)}, want: makeUnknown},
		{name: "slot past the margin", state: store.TryState{SlotAt: at(deathMargin + 1), DeadAt: at(0)}, want: giveBackUnsent},
		{name: "slot after the lease", state: store.TryState{SlotAt: at(-time.Second), LeaseEnd: at(-2 * time.Second)}, want: giveBackUnsent},
		{name: "slot after the lease, alive", state: store.TryState{SlotAt: at(-time.Second), LeaseEnd: at(-2 * time.Second), Alive: true}, want: giveBackUnsent},
		{name: "slot at the end of the lease", state: store.TryState{SlotAt: at(-time.Second), LeaseEnd: at(-time.Second)}, want: makeUnknown},
		{name: "slot within the lease, dead", state: store.TryState{SlotAt: at(-3 * time.Second), LeaseEnd: at(-time.Second), DeadAt: at(-2 * time.Second)}, want: makeUnknown},
		{name: "slot after the death within the lease", state: store.TryState{SlotAt: at(-time.Second), LeaseEnd: at(0), DeadAt: at(-2 * time.Second)}, want: giveBackUnsent},
		{name: "slot after the lease before the death", state: store.TryState{SlotAt: at(-2 * time.Second), LeaseEnd: at(-3 * time.Second), DeadAt: at(0)}, want: giveBackUnsent},

		{name: "living worker", state: store.TryState{SlotAt: at(-time.Second), Alive: true}, want: leave},
		{name: "living worker, slot ahead", state: store.TryState{SlotAt: at(time.Second), Alive: true}, want: leave},
		{name: "living worker that lost its lease after the slot", state: store.TryState{SlotAt: at(-2 * time.Second), LeaseEnd: at(-time.Second), Alive: true}, want: leave},
		{name: "living worker, nearly too long", state: store.TryState{SlotAt: at(-2*post + 1), Alive: true}, want: leave},
		{name: "living worker, too long", state: store.TryState{SlotAt: at(-2 * post), Alive: true}, want: makeUnknown},
		{name: "own", state: store.TryState{SlotAt: at(-time.Second), Alive: true}, own: true, want: makeUnknown},
		{name: "neither alive nor seen dead", state: store.TryState{SlotAt: at(-time.Second)}, want: makeUnknown},
	} {
		if c.state.Status == "" {
			c.state.Status = "sending"
		}
		c.state.Now = now
		if got := judge(c.state, !c.absent, c.own, post); got != c.want {
			t.Errorf("%s: judged %d, want %d", c.name, got, c.want)
		}
	}
}

// newOwners gives the old owner of the test's WABA, worker-a, which is dead since ten seconds, and the new one, worker-b.
// A worker-c still lives, and had the lease between them until a second ago.
func newOwners(t *testing.T) (old, owner *rig) {
	t.Helper()
	pool := newPool(t)
	exec(t, pool, `INSERT INTO workers (worker_id, lock_key, heartbeat_at, dead_at) VALUES
		('worker-a', 1, clock_timestamp() - interval '10 seconds', clock_timestamp() - interval '10 seconds'),
		('worker-c', 3, clock_timestamp(), NULL)`)
	exec(t, pool, `INSERT INTO leases (waba_id, worker_id, epoch, expires_at, prev_worker_id, prev_expires_at)
		VALUES ($1::text, 'worker-b', 2, clock_timestamp() + interval '1 hour', 'worker-c', clock_timestamp() - interval '1 second')`, testWABA)
	old, owner = newRig(t, pool, "worker-a", nowhere), newRig(t, pool, "worker-b", nowhere)
	owner.hold(t, testWABA)
	return old, owner
}

func (r *rig) sweep(t *testing.T) {
	t.Helper()
	if err := r.takeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func ago(t *testing.T, pool *pgxpool.Pool, seconds float64) (at time.Time) {
	t.Helper()
	scan(t, pool, &at, `SELECT clock_timestamp() - make_interval(secs => $1::double precision)`, seconds)
	return at
}

func snapshot(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var s string
	scan(t, pool, &s, `
		SELECT coalesce((SELECT string_agg(j::text, E'\n' ORDER BY id) FROM river_job j), '') || coalesce((SELECT string_agg(m::text, E'\n' ORDER BY id) FROM messages m), '')`)
	return s
}

func TestTakeOver(t *testing.T) {
	old, r := newOwners(t)
	pool := r.pool
	accept := func(by string) uuid.UUID {
		id := old.accept(t)
		claim(t, pool, id, by)
		return id
	}
	unmarked, unsent, afterLease := accept("worker-a"), accept("worker-a"), accept("worker-c")
	begun(t, pool, unsent, "worker-a", ago(t, pool, 9))
	begun(t, pool, afterLease, "worker-c", ago(t, pool, 0.5))
	maybe, living, done := accept("worker-a"), accept("worker-c"), accept("worker-a")
	begun(t, pool, maybe, "worker-a", ago(t, pool, 11))
	begun(t, pool, living, "worker-c", ago(t, pool, 5))
	exec(t, pool, `UPDATE messages SET status = 'delivered', try = 1 WHERE id = $1::uuid`, done)
	lost, working := accept("worker-b"), accept("worker-b")
	exec(t, pool, `UPDATE river_job SET attempted_at = clock_timestamp() - interval '1 minute' WHERE 'worker-b' = ANY(attempted_by)`)
	r.setActive(jobsOf(t, pool, working)[0].ID, true)
	fresh := accept("worker-b")
	gone := accept("worker-a")
	exec(t, pool, `DELETE FROM messages WHERE id = $1::uuid`, gone)

	start := time.Now()
	r.sweep(t)
	end := time.Now()

	for _, id := range []uuid.UUID{unmarked, unsent, afterLease, lost} {
		wantQueued(t, pool, id)
		wantGivenBack(t, pool, id)
	}
	wantEvents(t, pool, unmarked)
	wantEvents(t, pool, unsent, "try.unsent")
	wantEvents(t, pool, afterLease, "try.unsent")
	if m := read(t, pool, unsent); m.Try != 1 || m.Retries != 0 {
		t.Errorf("a try that was never sent: try %d, %d retries", m.Try, m.Retries)
	}

	wantJobs(t, pool, maybe, "completed")
	wantEvents(t, pool, maybe, "try.unknown")
	if m := read(t, pool, maybe); m.Status != "unknown" || m.UnknownReason != "worker_gone" || m.SlotAt != nil || m.Try != 1 || m.SettleBy == nil ||
		m.SettleBy.Before(start.Add(r.cfg.UnknownAfter-time.Millisecond)) || m.SettleBy.After(end.Add(r.cfg.UnknownAfter)) {
		t.Errorf("a try that may have been sent: %+v", m)
	}
	wantJobs(t, pool, living, "running")
	if m := read(t, pool, living); m.Status != "sending" || m.SlotAt == nil {
		t.Errorf("a living worker's try: %+v", m)
	}
	wantJobs(t, pool, done, "completed")
	if m := read(t, pool, done); m.Status != "delivered" {
		t.Errorf("a delivered message became %s", m.Status)
	}
	wantJobs(t, pool, gone, "completed")
	wantJobs(t, pool, working, "running")
	wantJobs(t, pool, fresh, "running")
	if n := r.count(t, "wagate_jobs_taken_over_total"); n != 7 {
		t.Errorf("%d jobs counted as taken over, want 7", n)
	}

	before := snapshot(t, pool)
	r.sweep(t)
	if after := snapshot(t, pool); after != before {
		t.Errorf("a second sweep changed\n%s\nto\n%s", before, after)
	}
	// The living worker dies: now its try is one that may have been sent.
	exec(t, pool, `UPDATE workers SET dead_at = clock_timestamp() WHERE worker_id = 'worker-c'`)
	r.sweep(t)
	wantJobs(t, pool, living, "completed")
	if m := read(t, pool, living); m.Status != "unknown" {
		t.Errorf("after its worker's death: %+v", m)
	}
}

// taken is a try of worker-a that worker-b took for unknown, and the old owner's view of its job.
func taken(t *testing.T, old, r *rig) queue.Job {
	t.Helper()
	id := old.accept(t)
	job := claim(t, r.pool, id, "worker-a")
	begun(t, r.pool, id, "worker-a", ago(t, r.pool, 11))
	r.sweep(t)
	if m := read(t, r.pool, id); m.Status != "unknown" {
		t.Fatalf("not taken for unknown: %+v", m)
	}
	return job
}

func TestALateOutcomeSettlesTheUnknown(t *testing.T) {
	old, r := newOwners(t)
	job := taken(t, old, r)
	id := job.MessageID
	v := old.finish(bounded(t), ending{ref: job.Ref(), outcome: &store.Outcome{
		ID: id, Try: 1, Status: "accepted", Event: "try.accepted", At: time.Now(), WAMID: "wamid.late",
	}})
	if v != queue.Settled() {
		t.Errorf("verdict %+v", v)
	}
	if m := read(t, r.pool, id); m.Status != "accepted" || m.WAMID != "wamid.late" || m.SettleBy != nil || m.AcceptedAt == nil {
		t.Errorf("%+v", m)
	}
	wantJobs(t, r.pool, id, "completed")
	wantEvents(t, r.pool, id, "try.unknown", "try.accepted")
}

func TestALateUnsentPutsOneNewJobIn(t *testing.T) {
	for _, wait := range []time.Duration{0, 2 * time.Second} {
		t.Run(fmt.Sprintf("to wait %v", wait), func(t *testing.T) {
			old, r := newOwners(t)
			job := taken(t, old, r)
			id := job.MessageID
			want := queue.Settled()
			if wait > 0 {
				want = queue.Snooze(wait) // River finds no running job to snooze
			}
			for range 2 {
				if v := old.unsent(bounded(t), aRun(job, id), "stopped", wait); v != want {
					t.Errorf("verdict %+v, want %+v", v, want)
				}
				wantQueued(t, r.pool, id)
				if j := wantJobs(t, r.pool, id, "completed", "available"); j[1].Priority != job.Priority {
					t.Errorf("priority %d, want %d", j[1].Priority, job.Priority)
				}
			}
		})
	}
}

// A late word about a job that was given back, or about a message that is to be sent again, makes no second job.
func TestALateUnsentOfAGivenBackJob(t *testing.T) {
	old, r := newOwners(t)
	id := old.accept(t)
	job := claim(t, r.pool, id, "worker-a")
	begun(t, r.pool, id, "worker-a", ago(t, r.pool, 9))
	r.sweep(t)
	old.unsent(bounded(t), aRun(job, id), "stopped", 0)
	wantGivenBack(t, r.pool, id)
	wantQueued(t, r.pool, id)

	job = taken(t, old, r)
	id = job.MessageID
	exec(t, r.pool, `UPDATE messages SET settle_by = clock_timestamp() - interval '1 second', on_unknown = 'resend' WHERE id = $1::uuid`, id)
	r.decide(t)
	old.unsent(bounded(t), aRun(job, id), "stopped", 0)
	wantJobs(t, r.pool, id, "completed", "available")
	wantQueued(t, r.pool, id)
}

func TestAPhoneNumberThatMoves(t *testing.T) {
	moved := func(t *testing.T, r *rig) {
		t.Helper()
		for range 3 {
			r.reread(t)
		}
		ln := r.laneOf(testPhone)
		if ln == nil || ln.waba != r.wabas[otherWABA] || ln.removed || !reflect.DeepEqual(r.wabas[otherWABA].lanes, []*lane{ln}) {
			t.Fatalf("the lane is %+v", ln)
		}
		if n := len(r.wabas[testWABA].lanes); n != 0 {
			t.Errorf("its old WABA keeps %d lanes", n)
		}
	}
	t.Run("at once", func(t *testing.T) {
		r, _ := newPauseRig(t)
		exec(t, r.pool, `UPDATE phone_numbers SET waba_id = $1::text`, otherWABA)
		moved(t, r)
	})
	t.Run("deleted in between", func(t *testing.T) {
		r, _ := newPauseRig(t)
		exec(t, r.pool, `DELETE FROM phone_numbers`)
		r.reread(t)
		if ln := r.laneOf(testPhone); ln != nil {
			t.Fatalf("a deleted phone number keeps its lane %+v", ln)
		}
		exec(t, r.pool, `INSERT INTO phone_numbers (phone_number_id, waba_id) VALUES ($1::text, $2::text)`, testPhone, otherWABA)
		moved(t, r)
	})
	t.Run("while a try runs", func(t *testing.T) {
		r, ln := newPauseRig(t)
		ln.running.Add(1)
		r.setState(ln, laneOpen)
		exec(t, r.pool, `UPDATE phone_numbers SET waba_id = $1::text`, otherWABA)
		r.reread(t)
		if r.laneOf(testPhone) != ln || !ln.removed || !r.shouldClose(ln, time.Now()) {
			t.Fatalf("the old lane is to close before it goes: %+v", ln)
		}
		ln.running.Add(-1)
		r.setState(ln, laneClosed)
		moved(t, r)
	})
}

// A message is accepted under one WABA and tried after its phone number moved: the lease of the WABA it was tried under
// says whether it can have been sent.
func TestATryOfAMovedPhoneIsJudgedByItsNewWABA(t *testing.T) {
	old, r := newOwners(t)
	id := old.accept(t)
	exec(t, r.pool, `UPDATE phone_numbers SET waba_id = $1::text`, otherWABA)
	exec(t, r.pool, `INSERT INTO leases (waba_id, worker_id, epoch, expires_at) VALUES ($1::text, 'worker-a', 1, clock_timestamp() + interval '5 seconds')`, otherWABA)
	claim(t, r.pool, id, "worker-a")
	slot := ago(t, r.pool, 0) // long after the lease of the first WABA went over
	exec(t, r.pool, `INSERT INTO workers (worker_id, lock_key) VALUES ('worker-a', 1) ON CONFLICT (worker_id) DO UPDATE SET dead_at = NULL`)
	marked, err := old.marks.Do(t.Context(), store.Mark{ID: id, WABAID: otherWABA, Epoch: 1, Slot: slot})
	if err != nil || !marked {
		t.Fatalf("marked %v, %v", marked, err)
	}
	if m := read(t, r.pool, id); m.WABAID != otherWABA || m.Status != "sending" {
		t.Fatalf("the mark left %+v", m)
	}
	exec(t, r.pool, `UPDATE workers SET dead_at = $1::timestamptz WHERE worker_id = 'worker-a'`, slot.Add(time.Second))
	r.hold(t, otherWABA)
	r.reread(t) // its old lane is gone by now
	r.sweep(t)
	wantJobs(t, r.pool, id, "completed")
	if m := read(t, r.pool, id); m.Status != "unknown" {
		t.Errorf("a try that was sent: %+v", m)
	}
}

// With every lane closed and idle, a WABA that is to go elsewhere is let go with its lanes.
func TestALostWABATakesItsLanesAlong(t *testing.T) {
	r, ln := newPauseRig(t)
	for _, w := range r.wabas {
		w.lease = &owner.Lease{WABAID: w.id}
		w.gone = true
	}
	ln.running.Add(1)
	r.adopt(t.Context())
	if len(r.wabas) != 1 || r.laneOf(testPhone) != ln {
		t.Fatalf("a WABA with a running try was dropped: %v", r.wabas)
	}
	ln.running.Add(-1)
	r.adopt(t.Context())
	if len(r.wabas) != 0 || len(r.lanes) != 0 {
		t.Errorf("%d WABAs and %d lanes are left", len(r.wabas), len(r.lanes))
	}
	// What is claimed after that goes to the new owner.
	id := r.accept(t)
	job := claim(t, r.pool, id, "worker-a")
	if v := r.Handle(bounded(t), job); v != queue.Settled() {
		t.Errorf("verdict %+v", v)
	}
	wantGivenBack(t, r.pool, id)
}

// aRun is the first try of a message, by a worker that has its lane no more.
func aRun(job queue.Job, id uuid.UUID) *run {
	w := &waba{id: testWABA, line: limiter.NewLine(limiter.Limit{}, time.Second)}
	w.line.Close()
	return &run{ln: &lane{phone: testPhone, waba: w}, job: job, msg: store.Outbound{ID: id}, try: 1}
}

// A worker whose mark failed does not know whether it was made. Was it not, and the next owner has begun a try of the same
// number, then that one is not cleared: its message would wait without a job, or be sent twice.
func TestAFailedMarkLeavesTheTryOfTheNextOwner(t *testing.T) {
	old, r := newOwners(t)
	for _, status := range []string{"sending", "unknown"} {
		id := old.accept(t)
		job := claim(t, r.pool, id, "worker-a")
		begun(t, r.pool, id, "worker-b", time.Now())
		exec(t, r.pool, `UPDATE messages SET status = $2::text, epoch = 5 WHERE id = $1::uuid`, id, status)
		old.unsent(bounded(t), aRun(job, id), "mark_failed", time.Second)
		if m := read(t, r.pool, id); m.Status != status {
			t.Errorf("the try of worker-b, %s, was made %s", status, m.Status)
		}
		wantEvents(t, r.pool, id)

		// Nor its own of a later ownership.
		exec(t, r.pool, `UPDATE messages SET marked_by = 'worker-a', epoch = 7 WHERE id = $1::uuid`, id)
		earlier := aRun(job, id)
		earlier.epoch = 3
		old.unsent(bounded(t), earlier, "mark_failed", time.Second)
		if m := read(t, r.pool, id); m.Status != status {
			t.Errorf("the try of epoch 7, %s, was made %s by one of epoch 3", status, m.Status)
		}
		earlier.epoch = 7
		old.unsent(bounded(t), earlier, "mark_failed", time.Second)
		wantQueued(t, r.pool, id)
	}
}

// Take-over has read that a try is open; then its worker wakes up and says that nothing was sent. The job is the message's
// only one: it is not completed with an outcome that is none any more.
func TestTakeOverLeavesTheJobOfAMessageThatWaitsAgain(t *testing.T) {
	old, r := newOwners(t)
	id := old.accept(t)
	job := claim(t, r.pool, id, "worker-a")
	begun(t, r.pool, id, "worker-a", ago(t, r.pool, 11))
	gone := ending{ref: job.Ref(), outcome: r.unknown(store.Outbound{ID: id}, 1, "worker_gone", time.Now())}
	cause := errors.New("nothing was accepted")
	if v := old.reopen(bounded(t), aRun(job, id), store.Reopen{ID: id, Try: 1, Event: "try.transient", Retry: true, At: time.Now()}, nil, 0, cause); v != queue.Retry(cause) {
		t.Fatalf("verdict %+v", v)
	}
	results, err := r.recordUnknowns(t.Context(), []ending{gone})
	if err != nil || !results[0].Out {
		t.Fatalf("%+v, %v", results, err)
	}
	wantQueued(t, r.pool, id)
	wantJobs(t, r.pool, id, "running")
	if v := r.finish(bounded(t), gone); v != queue.Snooze(100*time.Millisecond) {
		t.Errorf("a run that ends so gives %+v", v)
	}
	wantJobs(t, r.pool, id, "running")
	// At the next sweep it is given back.
	r.sweep(t)
	wantQueued(t, r.pool, id)
	wantGivenBack(t, r.pool, id)
}

// A worker that is counted as dead marks nothing: its later slots are taken for unused.
func TestTheDeadMarkNothing(t *testing.T) {
	pool := newPool(t)
	a := newRig(t, pool, "worker-a", nowhere)
	exec(t, pool, `INSERT INTO workers (worker_id, lock_key) VALUES ('worker-a', 1)`)
	exec(t, pool, `INSERT INTO leases (waba_id, worker_id, epoch, expires_at) VALUES ($1::text, 'worker-a', 2, clock_timestamp() + interval '1 minute')`, testWABA)
	for dead, want := range map[string]bool{"clock_timestamp()": false, "NULL": true} {
		exec(t, pool, `UPDATE workers SET dead_at = `+dead)
		id := a.accept(t)
		marked, err := a.store.MarkTries(t.Context(), "worker-a", []store.Mark{{ID: id, WABAID: testWABA, Epoch: 2, Slot: time.Now()}})
		if err != nil || marked[id] != want {
			t.Errorf("dead_at %s: marked is %v, %v", dead, marked[id], err)
		}
	}
}
