package dispatch

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/batch"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// ending is the end of a job and, unless its message was settled before, of its message's try.
type ending struct {
	ref     queue.Ref
	outcome *store.Outcome
	// run is whose end it is; nil for a job that is taken over.
	run *run
}

// unknown says that nobody knows how the try ended.
func (e ending) unknown() bool { return e.outcome != nil && e.outcome.Status == "unknown" }

// reopening is a try that sent nothing, or a job that began none (reopen is then nil). With back its job becomes a new
// one that keeps its place in the lane; with hold the message waits without a job. When its message was taken for unknown
// meanwhile, its job is gone and a new one is put in.
type reopening struct {
	reopen *store.Reopen
	job    queue.Job
	back   bool
	// hold, where given, takes the place of the job.
	hold *store.Hold
}

// finish records an ending together with the completion of the job. It holds on until it is recorded: an outcome waits
// in memory while the database is away. Only the hard end of the process cuts that short; the try is then unknown.
func (d *Dispatcher) finish(ctx context.Context, e ending) queue.Verdict {
	waits := false
	err := d.untilRecorded(ctx, func(ctx context.Context) (err error) {
		if e.unknown() {
			waits, err = d.unknowns.Do(ctx, e)
		} else {
			_, err = d.ends.Do(ctx, e)
		}
		return err
	})
	switch {
	case err != nil:
		return queue.Retry(err)
	case waits:
		return queue.Snooze(100 * time.Millisecond)
	}
	if e.run != nil {
		d.leaves(e.run)
	}
	return queue.Settled()
}

// reopen clears the mark of a try that sent nothing. The message is then held, or its job runs again: by River's retry
// with cause, after wait, or, without any of these, at once and from its old place in the lane.
func (d *Dispatcher) reopen(ctx context.Context, r *run, re store.Reopen, hold *store.Hold, wait time.Duration, cause error) queue.Verdict {
	back := hold == nil && cause == nil && wait <= 0
	re.MarkedBy, re.Epoch = d.cfg.Owner.WorkerID(), r.epoch
	err := d.untilRecorded(ctx, func(ctx context.Context) error {
		_, err := d.reopens.Do(ctx, reopening{reopen: &re, job: r.job, back: back, hold: hold})
		return err
	})
	switch {
	case err != nil:
		return queue.Retry(err)
	case hold != nil:
		d.metrics.held.WithLabelValues(hold.Kind).Inc()
		return queue.Settled()
	case back:
		return queue.Settled()
	case cause != nil && wait <= 0:
		return queue.Retry(cause)
	}
	return queue.Snooze(wait)
}

// giveBack leaves a job that began no try to whoever owns its lane, from its old place.
func (d *Dispatcher) giveBack(ctx context.Context, job queue.Job) queue.Verdict {
	if _, err := d.reopens.Do(context.WithoutCancel(ctx), reopening{job: job, back: true}); err != nil {
		return queue.Snooze(time.Second)
	}
	return queue.Settled()
}

func (d *Dispatcher) untilRecorded(ctx context.Context, record func(context.Context) error) error {
	// A stop gives what has ended this long to be written.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(3*time.Second, cancel) })
	defer stop()
	wait := 50 * time.Millisecond
	for {
		err := record(hard)
		if err == nil || hard.Err() != nil || errors.Is(err, batch.ErrClosed) {
			return err
		}
		d.log.WarnContext(ctx, "recording outcomes failed, will be tried again", "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-hard.Done():
			timer.Stop()
			return err
		}
		wait = min(wait*2, 2*time.Second)
	}
}

func (d *Dispatcher) load(ctx context.Context, ids []uuid.UUID) ([]batch.Result[store.Outbound], error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := d.store.LoadOutbound(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]batch.Result[store.Outbound], len(ids))
	for i, id := range ids {
		out[i].Out = found[id]
	}
	return out, nil
}

func (d *Dispatcher) mark(ctx context.Context, marks []store.Mark) ([]batch.Result[bool], error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Rows are locked in the order of their ids everywhere, so that sets never wait for each other in a circle.
	sorted := slices.SortedStableFunc(slices.Values(marks), func(a, b store.Mark) int { return compare(a.ID, b.ID) })
	sorted = slices.CompactFunc(sorted, func(a, b store.Mark) bool { return a.ID == b.ID })
	marked, err := d.store.MarkTries(ctx, d.cfg.Owner.WorkerID(), sorted)
	if err != nil {
		return nil, err
	}
	// Two runs may ask for one message at the same moment, when a job was given back that is still being worked: the try is
	// the first one's alone.
	out := make([]batch.Result[bool], len(marks))
	for i, m := range marks {
		out[i].Out = marked[m.ID]
		delete(marked, m.ID)
	}
	return out, nil
}

func (d *Dispatcher) recordEndings(ctx context.Context, set []ending) ([]batch.Result[struct{}], error) {
	return eachAlone(ctx, set, func(ctx context.Context, set []ending) ([]struct{}, error) {
		outcomes := make([]store.Outcome, 0, len(set))
		refs := make([]queue.Ref, 0, len(set))
		for _, e := range set {
			if e.outcome != nil {
				outcomes = append(outcomes, *e.outcome)
			}
			if e.ref.ID != 0 {
				refs = append(refs, e.ref)
			}
		}
		slices.SortFunc(outcomes, func(a, b store.Outcome) int { return compare(a.ID, b.ID) })
		completed := 0
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			completed = 0
			// Messages before jobs: every transaction that locks both does so in this order.
			return d.store.RecordOutcomes(ctx, tx, outcomes, func(b *pgx.Batch) { d.client.Complete(b, refs, &completed) })
		})
		if err == nil && completed < len(refs) {
			d.log.InfoContext(ctx, "jobs that ended had been given to others meanwhile", "jobs", len(refs)-completed)
		}
		return make([]struct{}, len(set)), err
	})
}

// recordUnknowns records tries whose outcome nobody knows, and says of each whether its message waits again: whoever made the
// try has just said that nothing was sent, or another was let have it. Then its job is not completed, as it is, or may be, the
// only one. The messages are locked before anything is decided: who speaks later finds them unknown, and puts a job in.
func (d *Dispatcher) recordUnknowns(ctx context.Context, set []ending) ([]batch.Result[bool], error) {
	return eachAlone(ctx, set, func(ctx context.Context, set []ending) ([]bool, error) {
		waits := make([]bool, len(set))
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			ids := make([]uuid.UUID, len(set))
			for i, e := range set {
				ids[i] = e.outcome.ID
			}
			waiting, err := d.store.LockWaiting(ctx, tx, ids)
			if err != nil {
				return err
			}
			var outcomes []store.Outcome
			var refs []queue.Ref
			for i, e := range set {
				if waits[i] = waiting[e.outcome.ID]; waits[i] {
					continue
				}
				outcomes = append(outcomes, *e.outcome)
				if e.ref.ID != 0 {
					refs = append(refs, e.ref)
				}
			}
			slices.SortFunc(outcomes, func(a, b store.Outcome) int { return compare(a.ID, b.ID) })
			completed := 0
			return d.store.RecordOutcomes(ctx, tx, outcomes, func(b *pgx.Batch) { d.client.Complete(b, refs, &completed) })
		})
		return waits, err
	})
}

func (d *Dispatcher) recordReopenings(ctx context.Context, set []reopening) ([]batch.Result[struct{}], error) {
	return eachAlone(ctx, set, func(ctx context.Context, set []reopening) ([]struct{}, error) {
		var reopens []store.Reopen
		var back, held []queue.Ref
		for _, r := range set {
			if r.reopen != nil {
				reopens = append(reopens, *r.reopen)
			}
			switch {
			case r.hold != nil:
				held = append(held, r.job.Ref())
			case r.back:
				back = append(back, r.job.Ref())
			}
		}
		return make([]struct{}, len(set)), d.store.InTx(ctx, func(tx pgx.Tx) error {
			var orphans map[uuid.UUID]bool
			if len(reopens) > 0 {
				var err error
				if orphans, err = d.store.ReopenTries(ctx, tx, reopens); err != nil {
					return err
				}
			}
			if len(back) > 0 {
				if _, err := d.client.GiveBack(ctx, tx, back); err != nil {
					return err
				}
			}
			if len(held) > 0 {
				// A job that others were given meanwhile goes on with them: its message is not held beside it.
				retired, err := d.client.Retire(ctx, tx, held)
				if err != nil {
					return err
				}
				var holds []store.Hold
				for _, r := range set {
					if r.hold != nil && (retired[r.job.ID] || (r.reopen != nil && orphans[r.reopen.ID])) {
						holds = append(holds, *r.hold)
					}
				}
				if err := d.store.Park(ctx, tx, holds); err != nil {
					return err
				}
			}
			var sends []queue.Send
			for _, r := range set {
				if r.reopen != nil && r.hold == nil && orphans[r.reopen.ID] {
					sends = append(sends, queue.Send{MessageID: r.reopen.ID, PhoneNumberID: r.job.PhoneNumberID, Priority: r.job.Priority})
				}
			}
			return d.jobs.Insert(ctx, tx, sends)
		})
	})
}

// eachAlone records a set at once and, where the database refuses the set for what is in it, each item alone, so that
// one bad row holds nobody else's outcome up.
func eachAlone[T, R any](ctx context.Context, set []T, record func(context.Context, []T) ([]R, error)) ([]batch.Result[R], error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out := make([]batch.Result[R], len(set))
	answers, err := record(ctx, set)
	switch {
	case err == nil:
		for i := range answers {
			out[i].Out = answers[i]
		}
		return out, nil
	case len(set) == 1 || store.Unavailable(err):
		return nil, err
	}
	for i := range set {
		answers, err := record(ctx, set[i:i+1])
		if out[i].Err = err; err == nil {
			out[i].Out = answers[0]
		}
	}
	return out, nil
}

func (d *Dispatcher) setActive(jobID int64, on bool) {
	d.activeMu.Lock()
	defer d.activeMu.Unlock()
	if on {
		d.active[jobID] = struct{}{}
	} else {
		delete(d.active, jobID)
	}
}

func (d *Dispatcher) isActive(jobID int64) bool {
	d.activeMu.Lock()
	defer d.activeMu.Unlock()
	_, on := d.active[jobID]
	return on
}

func compare(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

// clean makes a stranger's text fit for the database: valid UTF-8, no NUL, at most 1,000 bytes.
func clean(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "")
	if len(s) > 1000 {
		s = strings.ToValidUTF8(s[:1000], "")
	}
	return s
}
