package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/queue"
	"wagate/internal/store"
)

const (
	// takeOverAtOnce bounds how many jobs of a lane are looked at in one sweep.
	takeOverAtOnce = 500
	// deathMargin is added to when a worker was first seen dead: a POST begins at most so long after its slot.
	deathMargin = 50 * time.Millisecond
	// ownLost is how long a job claimed by this worker may be unknown to it before it is taken for lost.
	ownLost = 30 * time.Second
)

// takeOver deals with the running jobs in owned lanes that somebody else claimed: a dead worker, one that only hung, or
// one that lost its lease and goes on claiming. What is known to be unsent becomes a new job at once; a try that may have
// been sent becomes unknown; a try of a living worker is left to it for a while.
func (d *Dispatcher) takeOver(ctx context.Context) error {
	d.mu.RLock()
	var phones []string
	wabas, epochs := map[string]string{}, map[string]int64{}
	for phone, ln := range d.lanes {
		if !ln.waba.gone {
			phones, wabas[phone], epochs[ln.waba.id] = append(phones, phone), ln.waba.id, ln.waba.lease.Epoch
		}
	}
	d.mu.RUnlock()
	if len(phones) == 0 {
		return nil
	}
	running, err := d.client.RunningJobs(ctx, d.store.Pool(), phones, ownLost, takeOverAtOnce)
	if err != nil {
		return err
	}
	me := d.cfg.Owner.WorkerID()
	running = slices.DeleteFunc(running, func(r queue.Running) bool { return r.ClaimedBy == me && d.isActive(r.ID) })
	if len(running) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(running))
	for i, r := range running {
		ids[i] = r.MessageID
	}
	states, err := d.store.TryStates(ctx, ids, d.cfg.Owner.HeartbeatTTL())
	if err != nil {
		return err
	}
	type mine struct {
		waba string
		ref  queue.Ref
		re   *store.Reopen
	}
	var back []mine
	var ended, unknown []ending
	for _, r := range running {
		t, ok := states[r.MessageID]
		switch judge(t, ok, r.ClaimedBy == me, d.cfg.PostTimeout) {
		case giveBack:
			back = append(back, mine{waba: wabas[r.PhoneNumberID], ref: r.Ref})
		case giveBackUnsent:
			re := store.Reopen{ID: t.ID, Try: t.Try, Event: "try.unsent", At: time.Now(), Reason: "worker_gone_before_slot"}
			back = append(back, mine{wabas[r.PhoneNumberID], r.Ref, &re})
		case makeUnknown:
			o := d.unknown(store.Outbound{ID: t.ID}, t.Try, "worker_gone", time.Now())
			unknown = append(unknown, ending{ref: r.Ref, outcome: o})
		case completeOnly:
			ended = append(ended, ending{ref: r.Ref})
		case leave:
		}
	}
	known := 0
	if len(back) > 0 {
		err := d.store.InTx(ctx, func(tx pgx.Tx) error {
			// A worker that has hung wakes up in the belief that it owns: what the next owner works on is not its to give back.
			held, err := d.store.HoldLeases(ctx, tx, me, epochs)
			if err != nil {
				return err
			}
			var unsent []store.Reopen
			var refs []queue.Ref
			for _, b := range back {
				if !held[b.waba] {
					continue
				}
				if refs = append(refs, b.ref); b.re != nil {
					unsent = append(unsent, *b.re)
				}
			}
			known = len(unsent)
			if len(unsent) > 0 {
				if _, err := d.store.ReopenTries(ctx, tx, unsent); err != nil {
					return err
				}
			}
			_, err = d.client.GiveBack(ctx, tx, refs)
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(ended) > 0 {
		results, err := d.recordEndings(ctx, ended)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	if len(unknown) > 0 { // a job whose message waits again stays, and is given back at the next sweep
		results, err := d.recordUnknowns(ctx, unknown)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	if n := len(back) + len(ended) + len(unknown); n > 0 {
		d.metrics.takenOver.Add(float64(n))
		d.log.InfoContext(ctx, "took jobs over", "given_back", len(back), "known_unsent", known, "ended", len(ended), "unknown", len(unknown))
	}
	return nil
}

type judgement int

const (
	leave judgement = iota
	giveBack
	giveBackUnsent
	makeUnknown
	completeOnly
)

// judge says what becomes of a running job that its claimer does not work, by the state of its message's newest try.
func judge(t store.TryState, found, own bool, postTimeout time.Duration) judgement {
	if !found {
		return completeOnly
	}
	if t.Status != "queued" && t.Status != "sending" {
		return completeOnly
	}
	if t.Status == "queued" {
		return giveBack
	}
	if t.SlotAt == nil {
		return makeUnknown // a begun try without its slot: nothing here makes one, but nothing may loop on it either
	}
	// The slot lies after the last instant at which its worker can have sent.
	if t.DeadAt != nil && t.SlotAt.After(t.DeadAt.Add(deathMargin)) {
		return giveBackUnsent
	}
	if t.LeaseEnd != nil && t.SlotAt.After(*t.LeaseEnd) {
		return giveBackUnsent
	}
	if !own && t.Alive && t.Now.Sub(*t.SlotAt) < 2*postTimeout {
		return leave // its answer is still to come
	}
	return makeUnknown
}

// expiredLookBack is how far a new worker looks back for messages that expired while nobody swept.
const expiredLookBack = 62 * 24 * time.Hour

// expire ends what has expired while it waits. The write itself looks at expires_at again.
func (d *Dispatcher) expire(ctx context.Context) error {
	const atOnce = 1000
	until := d.cfg.Owner.DBTime(time.Now())
	// A minute's overlap: what was accepted, already expired, while its clock was behind; and rows that were locked.
	since := d.expired.Add(-time.Minute)
	if d.expired.IsZero() {
		since = until.Add(-expiredLookBack)
	}
	for {
		n, err := d.store.Expire(ctx, since, until, atOnce)
		if err != nil {
			return err
		}
		if n < atOnce {
			d.expired = until
			return nil
		}
	}
}

// settleGrace is how long after its deadline a message is looked at first: the commit of a webhook takes as long at most,
// a very busy database aside.
const settleGrace = 500 * time.Millisecond

// settle lets on_unknown decide the messages whose deadline has passed.
func (d *Dispatcher) settle(ctx context.Context) error {
	patience := store.Patience{
		WorkerID: d.cfg.Owner.WorkerID(), After: d.cfg.UnknownAfter, Grace: settleGrace, Accepted: map[string]time.Time{}, Limit: 500,
	}
	now := time.Now()
	d.mu.RLock()
	for phone, ln := range d.lanes {
		if at := ln.accepts.before(now, d.cfg.UnknownAfter/2); !at.IsZero() {
			patience.Accepted[phone] = d.cfg.Owner.DBTime(at)
		}
	}
	d.mu.RUnlock()
	return d.store.InTx(ctx, func(tx pgx.Tx) error {
		settled, err := d.store.SettleUnknown(ctx, tx, patience)
		if err != nil {
			return err
		}
		var again []queue.Send
		for _, m := range settled {
			if m.OnUnknown == "resend" {
				again = append(again, queue.Send{MessageID: m.ID, PhoneNumberID: m.PhoneNumberID, Priority: m.Priority})
			}
		}
		return d.jobs.Insert(ctx, tx, again)
	})
}
