package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/limiter"
	"wagate/internal/policy"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

// lastError is what Meta last refused in a lane, for people.
type lastError struct {
	Code  int       `json:"code"`
	Title string    `json:"title,omitempty"`
	At    time.Time `json:"at"`
}

// ended decides what follows from how a try ended.
func (d *Dispatcher) ended(ctx context.Context, r *run, out sender.Outcome, began time.Time) queue.Verdict {
	d.logTry(ctx, r, out)
	now := time.Now()
	o := &store.Outcome{ID: r.msg.ID, Try: r.try, At: now, WAMID: out.WAMID, WAID: out.WAID, MessageStatus: out.MessageStatus, Reason: clean(out.Reason)}
	if e := out.Err; e != nil {
		o.ErrorCode, o.ErrorSubcode, o.ErrorTitle, o.ErrorDetails = e.Code, e.Subcode, clean(e.Title), clean(e.Details)
		o.ErrorScope = string(out.Scope)
		if o.ErrorTitle == "" {
			o.ErrorTitle = clean(e.Message)
		}
		r.ln.lastError.Store(&lastError{e.Code, o.ErrorTitle, now.UTC()})
	}
	d.heed(r, out)
	if out.Kind == sender.Accepted {
		d.answered(r, true)
		d.succeeded(ctx, r, began)
		d.learn(r, o)
		o.Status, o.Event, o.Reason = "accepted", "try.accepted", ""
		v := d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r})
		d.awaitWebhooks(ctx, r, out, now)
		return v
	}
	re := d.reaction(r, out, now, len(r.media) > 0)
	if re.Refresh && !d.renewMedia(ctx, r, began) {
		re = d.reaction(r, out, now, false)
	}
	if re.Suppress != 0 {
		d.suppress(ctx, r, codeOf(out), o.ErrorTitle, re.Suppress)
	}
	throttle := out.Kind == sender.Throttled || (out.Kind == sender.Refused && re.Message == policy.Again && re.Free)
	d.answered(r, (!throttle || re.Scope == cloudapi.ScopePair) && out.Kind != sender.Transient)
	switch {
	case throttle:
		d.release(ctx, r)
		hold := d.throttled(ctx, r, out, re, began)
		return d.reopen(ctx, r, store.Reopen{ID: r.msg.ID, Try: r.try, Event: "try.throttled", Throttle: true, At: now, Code: o.ErrorCode, Reason: o.Reason}, hold, 0, nil)
	case out.Kind == sender.Refused && re.Fallback:
		d.release(ctx, r)
		return d.reopen(ctx, r, store.Reopen{ID: r.msg.ID, Try: r.try, Event: "try.refused", Fallback: true, At: now, Code: o.ErrorCode, Reason: o.ErrorTitle}, nil, 0, nil)
	case out.Kind == sender.Transient, out.Kind == sender.Refused && re.Message == policy.Again:
		d.release(ctx, r)
		return d.transient(ctx, r, out, o, re, began, now)
	case out.Kind == sender.Refused:
		d.release(ctx, r)
		d.refused(ctx, r, out, re, began)
		o.Status, o.Event = "failed", "try.refused"
		if o.ErrorTitle == "" {
			o.ErrorTitle = fmt.Sprintf("Refused with HTTP status %d", out.HTTPStatus)
		}
	default:
		o = d.unknownWith(o, now)
	}
	return d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r})
}

// answered tells the line of a probe's answer.
func (d *Dispatcher) answered(r *run, ok bool) {
	if r.grant.Probe {
		r.ln.waba.line.Answered(r.ln.phone, ok)
		r.grant.Probe = false
	}
}

// transient tries a message again that was certainly not taken, a bounded number of times.
func (d *Dispatcher) transient(ctx context.Context, r *run, out sender.Outcome, o *store.Outcome, re policy.Reaction, began, now time.Time) queue.Verdict {
	if ctx.Err() != nil { // cut off by our own stop before anything was written
		return d.unsent(ctx, r, "stopped", 0)
	}
	again := store.Reopen{ID: r.msg.ID, Try: r.try, Event: "try.transient", At: now, Code: o.ErrorCode, Reason: o.Reason}
	if d.disconnected(ctx, r.ln, out, began) {
		return d.reopen(ctx, r, again, nil, 0, nil)
	}
	if r.msg.Retries+1 < d.cfg.Retries {
		again.Retry = true
		err := fmt.Errorf("try %d of message %s: nothing was accepted: %s", r.try, r.msg.ID, o.Reason)
		return d.reopen(ctx, r, again, nil, max(out.Wait, re.Wait), err)
	}
	o.Status, o.Event = "failed", "try.refused"
	if o.ErrorTitle == "" {
		o.ErrorTitle, o.ErrorScope = "The Cloud API took it at no try: "+o.Reason, "platform"
	}
	return d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r})
}

// reaction asks the policy what follows from an answer with an error. ourMedia says that media of ours may be put up once more for
// the message.
func (d *Dispatcher) reaction(r *run, out sender.Outcome, now time.Time, ourMedia bool) policy.Reaction {
	if out.Err == nil {
		re := policy.Reaction{Scope: out.Scope, Known: true}
		if out.Kind == sender.Throttled { // a 429 without a word of Meta's
			re.Message, re.Free, re.Pause = policy.Again, true, &policy.Pause{Base: time.Second, Limit: time.Minute}
		}
		return re
	}
	re := policy.React(policy.Input{
		Code: out.Err.Code, Subcode: out.Err.Subcode, HTTPStatus: out.HTTPStatus, Category: r.msg.Category, ByLink: byLink(&r.msg),
		OurMedia: ourMedia, NoMedia: cloudapi.NoMedia(out.Err.Code, out.Err.Title, out.Err.Message, out.Err.Details),
		Redos: r.msg.Redos, Throttles: r.msg.Throttles, Retries: r.msg.Retries, ExpiresAt: r.msg.ExpiresAt, Fallback: r.msg.Fallback, Now: now,
	})
	if !re.Known {
		d.metrics.unknownCodes.Inc()
	}
	return re
}

// byLink says that Meta fetches the message's media from an address, which may succeed another time.
func byLink(m *store.Outbound) bool {
	switch m.Type {
	case "image", "video", "audio", "document", "sticker", "template", "interactive":
		return bytes.Contains(m.Body, []byte(`"link":"`))
	}
	return false
}

// learn takes in how Meta spells the recipient's number, where it differs from what was written to.
func (d *Dispatcher) learn(r *run, o *store.Outcome) {
	if o.WAID == "" || o.WAID == r.msg.User {
		return
	}
	o.UserKey = r.msg.User
	r.ln.waba.line.Update(func(b *limiter.Budget, now time.Time) { b.MergePair(r.ln.phone, r.msg.User, o.WAID, now) })
}

func (d *Dispatcher) unknown(msg store.Outbound, try int, reason string, now time.Time) *store.Outcome {
	return d.unknownWith(&store.Outcome{ID: msg.ID, Try: try, Reason: reason, At: now}, now)
}

func (d *Dispatcher) unknownWith(o *store.Outcome, now time.Time) *store.Outcome {
	o.Status, o.Event = "unknown", "try.unknown"
	o.At = d.cfg.Owner.DBTime(now) // it is compared with what the database notes
	o.SettleBy = o.At.Add(d.cfg.UnknownAfter)
	return o
}

func expired(msg store.Outbound, try int, now time.Time) *store.Outcome {
	return &store.Outcome{ID: msg.ID, Try: try, Status: "expired", Event: "expired", At: now}
}

// unsent records that a marked try was never sent, gives back what it took, and lets the job run again after wait.
func (d *Dispatcher) unsent(ctx context.Context, r *run, reason string, wait time.Duration) queue.Verdict {
	d.notSent(ctx, r)
	return d.reopen(ctx, r, store.Reopen{ID: r.msg.ID, Try: r.try, Event: "try.unsent", At: time.Now(), Reason: reason}, nil, wait, nil)
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

// suppress keeps that a recipient wants no marketing from the WABA, for good or for a while.
func (d *Dispatcher) suppress(ctx context.Context, r *run, code int, reason string, d0 time.Duration) {
	s := store.Suppression{WABAID: r.ln.waba.id, WAID: r.msg.User, Category: "marketing", Source: store.FromMeta, Reason: reason, Code: code}
	if d0 > 0 {
		until := d.cfg.Owner.DBTime(time.Now().Add(d0))
		s.Until = &until
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.store.InTx(ctx, func(tx pgx.Tx) error { return d.store.PutSuppressions(ctx, tx, []store.Suppression{s}) }); err != nil {
		d.log.WarnContext(ctx, "a suppression was not kept", "message", r.msg.ID, "code", code, "err", err)
	}
}

// logTry writes the one line of a finished try: accepted ones at debug level, as they are the many.
func (d *Dispatcher) logTry(ctx context.Context, r *run, out sender.Outcome) {
	level := slog.LevelInfo
	if out.Kind == sender.Accepted {
		level = slog.LevelDebug
	}
	if !d.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("message", r.msg.ID.String()), slog.Int("try", r.try), slog.String("phone_number_id", r.ln.phone), slog.String("waba", r.ln.waba.id),
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
