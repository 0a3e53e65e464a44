package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"wagate/internal/cloudapi"
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
)

// CodeRecipientNotAllowed is our own error code of a message whose recipient WAGATE_RECIPIENT_ALLOW leaves out. Our codes
// lie above Meta's.
const CodeRecipientNotAllowed = 900_000_001

func (d *Dispatcher) allowed(recipient string) bool {
	if len(d.cfg.RecipientAllow) == 0 {
		return true
	}
	digits := strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, recipient)
	return slices.ContainsFunc(d.cfg.RecipientAllow, func(prefix string) bool { return strings.HasPrefix(digits, prefix) })
}

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
		ln.running.Add(-1)
	}()

	msg, err := d.loads.Do(ctx, job.MessageID)
	if err != nil {
		return d.later(ctx, job, err)
	}
	now := time.Now()
	switch {
	case msg.ID != job.MessageID:
		d.log.ErrorContext(ctx, "a job without its message was dropped", "message", job.MessageID)
		return d.finish(ctx, ending{ref: job.Ref()})
	case msg.Status == "sending":
		// Its job runs again although a try was begun: nobody can say here how that try ended.
		return d.finish(ctx, ending{ref: job.Ref(), outcome: d.unknown(msg, msg.Try, "run again with an open try", now)})
	case msg.Status != "queued":
		return d.finish(ctx, ending{ref: job.Ref()})
	case msg.ExpiresAt != nil && !now.Before(*msg.ExpiresAt):
		return d.finish(ctx, ending{ref: job.Ref(), outcome: expired(msg, msg.Try, now)})
	case !d.allowed(msg.Recipient):
		return d.finish(ctx, ending{ref: job.Ref(), outcome: &store.Outcome{
			ID: msg.ID, Try: msg.Try, Status: "failed", Event: "failed", At: now, ErrorCode: CodeRecipientNotAllowed, ErrorScope: "recipient",
			ErrorTitle: "The recipient is not in WAGATE_RECIPIENT_ALLOW",
		}})
	}
	try := msg.Try + 1
	body, err := cloudapi.BuildOutbound(msg.Body, cloudapi.Token(msg.ID.String(), try), cloudapi.Overrides{})
	if err != nil {
		return d.finish(ctx, ending{ref: job.Ref(), outcome: &store.Outcome{
			ID: msg.ID, Try: msg.Try, Status: "failed", Event: "failed", At: now, ErrorScope: "message", ErrorTitle: "The stored message is not a JSON object",
		}})
	}
	slot, err := ln.waba.line.Wait(ctx, ln.phone, job.Priority)
	if err != nil {
		return d.later(ctx, job, err)
	}
	// Not with ctx: whether the mark was made must be known.
	marked, err := d.marks.Do(context.WithoutCancel(ctx), store.Mark{
		ID: msg.ID, Try: msg.Try, WABAID: ln.waba.id, Epoch: ln.waba.lease.Epoch, Slot: d.cfg.Owner.SlotTime(slot),
	})
	if err != nil {
		// The commit may have been made. Nothing was sent, and only this run knows.
		d.log.WarnContext(ctx, "marking a try failed", "message", msg.ID, "try", try, "err", err)
		return d.unsent(ctx, job, msg, try, "mark_failed", time.Second)
	}
	if !marked {
		return queue.Snooze(100 * time.Millisecond) // cancelled, or begun elsewhere: the next run sees which
	}
	return d.send(ctx, ln, job, msg, try, body, slot)
}

// connectLead is how long before its slot a try looks for its connection: a TCP and TLS handshake fits in.
const connectLead = 150 * time.Millisecond

// send makes a marked try at its slot, or at a later one when the slot was missed.
func (d *Dispatcher) send(ctx context.Context, ln *lane, job queue.Job, msg store.Outbound, try int, body []byte, slot time.Time) queue.Verdict {
	token := ln.waba.token.Load()
	if token == nil {
		return d.unsent(ctx, job, msg, try, "no_token", time.Second)
	}
	if waitUntil(ctx, slot.Add(-connectLead)) != nil {
		return d.unsent(ctx, job, msg, try, "stopped", 0)
	}
	var began time.Time // written by Begin, read after Send: the gate between them orders the two
	out := d.cfg.Sender.Send(ctx, sender.Try{
		PhoneNumberID: ln.phone, WABAID: ln.waba.id, Token: *token, Body: body,
		Begin: func(ctx context.Context) (err error) {
			began, err = d.begin(ctx, ln, msg, job.ID, slot)
			return err
		},
	})
	ln.posts.remove(job.ID)
	if out.Kind != sender.NotBegun {
		if out.Latency > 0 {
			ln.latency.Store((ln.latency.Load()*15 + int64(out.Latency)) / 16)
		}
		d.metrics.tried(out)
		return d.ended(ctx, ln, job, msg, try, out, began)
	}
	switch {
	case errors.Is(out.Cause, errExpired):
		return d.finish(ctx, ending{ref: job.Ref(), outcome: expired(msg, try, time.Now())})
	case errors.Is(out.Cause, errPaused):
		until, _ := ln.waba.line.Blocked(ln.phone, time.Now())
		return d.unsent(ctx, job, msg, try, "paused", behindPause(time.Until(until)))
	case errors.Is(out.Cause, errLease):
		return d.unsent(ctx, job, msg, try, "lease_over", 0)
	case errors.Is(out.Cause, limiter.ErrClosed):
		return d.unsent(ctx, job, msg, try, "slot_missed", 0)
	default:
		return d.unsent(ctx, job, msg, try, "not_begun", 0)
	}
}

// begin holds a try on its connection until its slot and has the last look before the first byte is written. A slot that
// was missed is followed by another one, on the same connection.
func (d *Dispatcher) begin(ctx context.Context, ln *lane, msg store.Outbound, jobID int64, slot time.Time) (time.Time, error) {
	for {
		if err := waitUntil(ctx, slot); err != nil {
			return time.Time{}, err
		}
		now := time.Now()
		if err := d.mayBegin(ln, msg, now); err != nil {
			return time.Time{}, err
		}
		if late := now.Sub(slot); late <= d.cfg.Late {
			d.metrics.lateness.Observe(late.Seconds())
			ln.posts.add(jobID, now)
			return now, nil
		}
		d.metrics.late.Inc()
		next, err := ln.waba.line.Wait(ctx, ln.phone, 0) // it has waited its turn already
		if err != nil {
			return time.Time{}, err
		}
		slot = next
	}
}

// mayBegin says what stands against a POST now.
func (d *Dispatcher) mayBegin(ln *lane, msg store.Outbound, now time.Time) error {
	if !ln.waba.lease.Fresh(now) {
		return errLease
	}
	if _, paused := ln.waba.line.Blocked(ln.phone, now); paused {
		return errPaused
	}
	if msg.ExpiresAt != nil && !now.Before(*msg.ExpiresAt) {
		return errExpired
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

// ended decides what follows from how a try ended.
func (d *Dispatcher) ended(ctx context.Context, ln *lane, job queue.Job, msg store.Outbound, try int, out sender.Outcome, began time.Time) queue.Verdict {
	d.logTry(ctx, ln, msg, try, out)
	now := time.Now()
	o := &store.Outcome{ID: msg.ID, Try: try, At: now, WAMID: out.WAMID, WAID: out.WAID, MessageStatus: out.MessageStatus, Reason: clean(out.Reason)}
	if e := out.Err; e != nil {
		o.ErrorCode, o.ErrorSubcode, o.ErrorTitle, o.ErrorDetails = e.Code, e.Subcode, clean(e.Title), clean(e.Details)
		o.ErrorScope = string(out.Scope)
		if o.ErrorTitle == "" {
			o.ErrorTitle = clean(e.Message)
		}
	}
	switch out.Kind {
	case sender.Accepted:
		d.succeeded(ctx, ln, began)
		o.Status, o.Event, o.Reason = "accepted", "try.accepted", ""
	case sender.Throttled:
		wait := d.throttled(ctx, ln, msg, out, began)
		return d.reopen(ctx, job, store.Reopen{ID: msg.ID, Try: try, Event: "try.throttled", Throttle: true, At: now, Code: o.ErrorCode, Reason: o.Reason}, wait, nil)
	case sender.Transient:
		if ctx.Err() != nil { // cut off by our own stop before anything was written
			return d.unsent(ctx, job, msg, try, "stopped", 0)
		}
		if wait, ok := d.disconnected(ctx, ln, out, began); ok {
			return d.reopen(ctx, job, store.Reopen{ID: msg.ID, Try: try, Event: "try.transient", At: now, Reason: o.Reason}, wait, nil)
		}
		if msg.Retries+1 < d.cfg.Retries {
			err := fmt.Errorf("try %d of message %s: nothing was accepted: %s", try, msg.ID, o.Reason)
			return d.reopen(ctx, job, store.Reopen{ID: msg.ID, Try: try, Event: "try.transient", Retry: true, At: now, Code: o.ErrorCode, Reason: o.Reason}, out.Wait, err)
		}
		o.Status, o.Event = "failed", "try.refused"
		if o.ErrorTitle == "" {
			o.ErrorTitle, o.ErrorScope = "The Cloud API took it at no try: "+o.Reason, "platform"
		}
	case sender.Refused:
		d.refused(ctx, ln, out, began)
		o.Status, o.Event = "failed", "try.refused"
		if o.ErrorTitle == "" {
			o.ErrorTitle = fmt.Sprintf("Refused with HTTP status %d", out.HTTPStatus)
		}
	default:
		o = d.unknownWith(o, now)
	}
	return d.finish(ctx, ending{ref: job.Ref(), outcome: o})
}

func (d *Dispatcher) unknown(msg store.Outbound, try int, reason string, now time.Time) *store.Outcome {
	return d.unknownWith(&store.Outcome{ID: msg.ID, Try: try, Reason: reason, At: now}, now)
}

func (d *Dispatcher) unknownWith(o *store.Outcome, now time.Time) *store.Outcome {
	o.Status, o.Event = "unknown", "try.unknown"
	o.SettleBy = d.cfg.Owner.DBTime(now).Add(d.cfg.UnknownAfter)
	return o
}

func expired(msg store.Outbound, try int, now time.Time) *store.Outcome {
	return &store.Outcome{ID: msg.ID, Try: try, Status: "expired", Event: "expired", At: now}
}

// unsent records that a marked try was never sent, and lets the job run again after wait.
func (d *Dispatcher) unsent(ctx context.Context, job queue.Job, msg store.Outbound, try int, reason string, wait time.Duration) queue.Verdict {
	return d.reopen(ctx, job, store.Reopen{ID: msg.ID, Try: try, Event: "try.unsent", At: time.Now(), Reason: reason}, wait, nil)
}

// behindPause is how long a job waits for the end of its lane's pause. A long pause closes the lane, so that its jobs wait
// as they are and go on when it is lifted early.
func behindPause(left time.Duration) time.Duration {
	if left <= 0 || left > closeForPause {
		return 0
	}
	return left
}

// later leaves the job for another run: for whoever owns the lane then when the lane was shut, else in a second.
func (d *Dispatcher) later(ctx context.Context, job queue.Job, err error) queue.Verdict {
	switch {
	case ctx.Err() != nil:
		return queue.Retry(ctx.Err()) // River makes a job cut off by its stop available again
	case errors.Is(err, limiter.ErrClosed):
		return d.giveBack(ctx, job)
	default:
		d.log.WarnContext(ctx, "a message was not loaded, will be tried again", "message", job.MessageID, "err", err)
		return queue.Snooze(time.Second)
	}
}

// logTry writes the one line of a finished try: accepted ones at debug level, as they are the many.
func (d *Dispatcher) logTry(ctx context.Context, ln *lane, msg store.Outbound, try int, out sender.Outcome) {
	level := slog.LevelInfo
	if out.Kind == sender.Accepted {
		level = slog.LevelDebug
	}
	if !d.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("message", msg.ID.String()), slog.Int("try", try), slog.String("phone_number_id", ln.phone), slog.String("waba", ln.waba.id),
		slog.String("outcome", out.Kind.String()), slog.Int("http_status", out.HTTPStatus), slog.Duration("latency", out.Latency),
	}
	if out.Err != nil {
		attrs = append(attrs, slog.Int("code", out.Err.Code), slog.String("scope", string(out.Scope)))
	}
	if out.Reason != "" {
		attrs = append(attrs, slog.String("reason", out.Reason))
	}
	d.log.LogAttrs(ctx, level, "try ended", attrs...)
}
