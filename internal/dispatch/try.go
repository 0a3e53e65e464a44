package dispatch

import (
	"context"
	"errors"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
	"wagate/internal/limiter"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// What the last check before the write may say. Each means that nothing was written.
var (
	errLease   = errors.New("the lease is over")
	errPaused  = errors.New("paused")
	errExpired = errors.New("expired")
	errWindow  = errors.New("the send_window has closed")
)

// Handle works one job: it is the queue client's handler.
func (d *Dispatcher) Handle(ctx context.Context, job queue.Job) queue.Verdict {
	ln := d.laneOf(job.PhoneNumberID)
	if ln == nil {
		return d.giveBack(ctx, job) // claimed after the lease was lost: for its owner
	}
	ln.running.Add(1)
	ln.lastWork.Store(time.Now().UnixNano())
	d.setActive(job.ID, true)
	defer func() {
		d.setActive(job.ID, false)
		if ln.running.Add(-1) == 0 && ln.draining.Load() {
			d.poke() // it can be closed now, and its WABA handed over
		}
	}()

	msg, err := d.loads.Do(ctx, job.MessageID)
	if err != nil {
		return d.later(ctx, job, err)
	}
	r := &run{ln: ln, job: job, msg: msg, try: msg.Try + 1}
	if v, done := d.before(ctx, r, time.Now()); done {
		return v
	}
	body := msg.Body
	if msg.FallbackUsed {
		body, err = cloudapi.FallbackBody(msg.Body)
	}
	if err == nil {
		if len(r.media) > 0 {
			body = content.ReplaceMedia(body, r.media)
		}
		r.body, err = cloudapi.BuildOutbound(body, cloudapi.Token(msg.ID.String(), r.try), cloudapi.Overrides{})
	}
	if err != nil {
		d.release(ctx, r)
		o := failed(&msg, 0, "message", "The stored message is not a JSON object", time.Now())
		return d.finish(ctx, ending{ref: job.Ref(), outcome: o, run: r})
	}
	grant, err := ln.waba.line.Wait(ctx, limiter.Request{Phone: ln.phone, Recipient: msg.User, Priority: job.Priority})
	if err != nil {
		d.release(ctx, r)
		return d.later(ctx, job, err)
	}
	r.grant, r.paired = grant, true
	ln.waba.slots.Add(1)
	r.epoch = ln.waba.lease.Epoch
	mark := store.Mark{ID: msg.ID, Try: msg.Try, WABAID: ln.waba.id, Epoch: r.epoch, Slot: d.cfg.Owner.SlotTime(r.grant.Slot)}
	if !grant.PairTAT.IsZero() {
		mark.PhoneNumberID, mark.User, mark.PairTAT = ln.phone, msg.User, d.cfg.Owner.DBTime(grant.PairTAT)
	}
	// Not with ctx: whether the mark was made must be known.
	marked, err := d.marks.Do(context.WithoutCancel(ctx), mark)
	if err != nil {
		// The commit may have been made. Nothing was sent, and only this run knows.
		d.log.WarnContext(ctx, "marking a try failed", "message", msg.ID, "try", r.try, "err", err)
		return d.unsent(ctx, r, "mark_failed", time.Second)
	}
	if !marked {
		d.notSent(ctx, r)
		return queue.Snooze(100 * time.Millisecond) // cancelled, or begun elsewhere: the next run sees which
	}
	return d.send(ctx, r)
}

// connectLead is how long before its slot a try looks for its connection: a TCP and TLS handshake fits in.
const connectLead = 150 * time.Millisecond

// send makes a marked try at its slot, or at a later one when the slot was missed.
func (d *Dispatcher) send(ctx context.Context, r *run) queue.Verdict {
	ln := r.ln
	token := ln.waba.token.Load()
	if token == nil {
		return d.unsent(ctx, r, "no_token", time.Second)
	}
	if waitUntil(ctx, r.grant.Slot.Add(-connectLead)) != nil {
		return d.unsent(ctx, r, "stopped", 0)
	}
	var began time.Time // written by Begin, read after Send: the gate between them orders the two
	out := d.cfg.Sender.Send(ctx, sender.Try{
		PhoneNumberID: ln.phone, WABAID: ln.waba.id, Token: *token, API: r.msg.API, Body: r.body,
		Begin: func(ctx context.Context) (err error) {
			began, err = d.begin(ctx, r)
			return err
		},
	})
	ln.posts.remove(r.job.ID)
	if out.Kind != sender.NotBegun {
		if out.Latency > 0 {
			ln.latency.Store((ln.latency.Load()*15 + int64(out.Latency)) / 16)
		}
		d.metrics.tried(out)
		return d.ended(ctx, r, out, began)
	}
	switch {
	case errors.Is(out.Cause, errExpired):
		d.notSent(ctx, r)
		return d.finish(ctx, ending{ref: r.job.Ref(), outcome: expired(r.msg, r.try, time.Now()), run: r})
	case errors.Is(out.Cause, errPaused):
		return d.unsent(ctx, r, "paused", 0)
	case errors.Is(out.Cause, errWindow):
		return d.unsent(ctx, r, "send_window", 0)
	case errors.Is(out.Cause, errLease):
		return d.unsent(ctx, r, "lease_over", 0)
	case errors.Is(out.Cause, limiter.ErrClosed):
		return d.unsent(ctx, r, "slot_missed", 0)
	default:
		return d.unsent(ctx, r, "not_begun", 0)
	}
}

// begin holds a try on its connection until its slot and has the last look before the first byte is written. A slot that
// was missed is followed by another one, on the same connection.
func (d *Dispatcher) begin(ctx context.Context, r *run) (time.Time, error) {
	ln := r.ln
	for {
		if err := waitUntil(ctx, r.grant.Slot); err != nil {
			return time.Time{}, err
		}
		now := time.Now()
		if err := d.mayBegin(r, now); err != nil {
			return time.Time{}, err
		}
		if late := now.Sub(r.grant.Slot); late <= d.lateOf(ln) && ln.waba.shareHolds(now) && !ln.waba.line.Stale(ln.phone, r.grant) {
			d.metrics.lateness.Observe(late.Seconds())
			ln.posts.add(r.job.ID, now)
			return now, nil
		}
		d.metrics.late.Inc()
		ln.waba.line.Missed(ln.phone, r.msg.User, r.grant)
		r.grant, r.paired = limiter.Grant{}, false
		next, err := ln.waba.line.Wait(ctx, limiter.Request{Phone: ln.phone, Recipient: r.msg.User}) // it has waited its turn already
		if err != nil {
			return time.Time{}, err
		}
		r.grant, r.paired = next, true
	}
}

// lateOf is how late a POST of a lane may begin. Where the app's calls are shared, several WABAs may be late at the same
// time, each by its part of the rate. A slow lane sends next to nothing in the time, and loses much by a missed slot.
func (d *Dispatcher) lateOf(ln *lane) time.Duration {
	switch {
	case ln.waba.appLimited.Load():
		return d.cfg.Late / 2
	case ln.slow.Load():
		return d.cfg.Late * 8 / 5
	}
	return d.cfg.Late
}

// mayBegin says what stands against a POST now.
func (d *Dispatcher) mayBegin(r *run, now time.Time) error {
	ln := r.ln
	if !ln.waba.lease.Fresh(now) {
		return errLease
	}
	if _, paused := ln.waba.line.Blocked(ln.phone, now); paused {
		return errPaused
	}
	if _, _, paused := d.selection.Load().of(&r.msg, func() string { return cloudapi.FlowID(r.msg.Body) }, now); paused {
		return errPaused
	}
	if r.msg.ExpiresAt != nil && !now.Before(*r.msg.ExpiresAt) {
		return errExpired
	}
	if !r.windowEnds.IsZero() && !now.Before(r.windowEnds) {
		return errWindow
	}
	return nil
}

func waitUntil(ctx context.Context, at time.Time) error {
	left := time.Until(at)
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
