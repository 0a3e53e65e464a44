package dispatch

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"wagate/internal/batch"
	"wagate/internal/cloudapi"
	"wagate/internal/limiter"
	"wagate/internal/message"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// Our own error codes lie above Meta's.
const (
	// CodeRecipientNotAllowed is of a message whose recipient WAGATE_RECIPIENT_ALLOW leaves out.
	CodeRecipientNotAllowed = 900_000_001
	// CodeSuppressed is of a marketing message to somebody who wants none, or none in the time the message has.
	CodeSuppressed = 900_000_002
)

const (
	// pairPatience is how long a try may wait in memory for the pair limit of its recipient; beyond it is held.
	pairPatience = time.Second
	// releaseAhead is how long before their time holds are released, so that they are claimed and loaded by then.
	releaseAhead = 600 * time.Millisecond
)

// run is one job under way.
type run struct {
	ln  *lane
	job queue.Job
	msg store.Outbound
	// try is the number of the try that is made, epoch that of the lease under which it is marked.
	try   int
	epoch int64
	body  []byte
	// media are Meta's ids by ours, as the message has them; nil for a message without.
	media map[string]string
	// grant has its slot.
	grant limiter.Grant
	// paired says that it has a token of its recipient, reserved that it has a place among a portfolio's recipients.
	paired   bool
	reserved *store.RecipientWant
	// windowEnds is when its send_window closes; zero without one.
	windowEnds time.Time
}

// notSent gives back what a try has taken that was not made; where it was a probe the next one is.
func (d *Dispatcher) notSent(ctx context.Context, r *run) {
	if r.paired {
		r.ln.waba.line.Missed(r.ln.phone, r.msg.User, r.grant)
		r.grant, r.paired = limiter.Grant{}, false
	}
	d.release(ctx, r)
}

// release gives back what a try has taken and did not use.
func (d *Dispatcher) release(ctx context.Context, r *run) {
	if r.paired {
		r.ln.waba.line.GiveBack(r.ln.phone, r.msg.User)
		r.paired = false
	}
	if r.reserved == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.store.ReturnRecipients(ctx, []store.RecipientWant{*r.reserved}); err != nil {
		d.log.WarnContext(ctx, "a place among the recipients of a portfolio was not given back; it counts for a day", "portfolio", r.reserved.PortfolioID, "err", err)
	}
	r.reserved = nil
}

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

// failed is a decision of ours that ends a message.
func failed(msg *store.Outbound, code int, scope, title string, now time.Time) *store.Outcome {
	return &store.Outcome{ID: msg.ID, Try: msg.Try, Status: "failed", Event: "failed", At: now, ErrorCode: code, ErrorScope: scope, ErrorTitle: title}
}

// before looks at everything that may stand against a try before it asks for a slot. done says that the job is dealt with.
func (d *Dispatcher) before(ctx context.Context, r *run, now time.Time) (v queue.Verdict, done bool) {
	msg := &r.msg
	if msg.Status == "sending" && !r.ln.waba.lease.Fresh(now) {
		return d.giveBack(ctx, r.job), true // it may be a try of the next owner: that one knows
	}
	if outcome, over := d.over(ctx, r, now); over {
		return d.finish(ctx, ending{ref: r.job.Ref(), outcome: outcome, run: r}), true
	}
	if cause, code, found := d.selection.Load().of(msg, func() string { return cloudapi.FlowID(msg.Body) }, now); found {
		if code == codeTemplateDisabled {
			o := failed(msg, codeTemplateDisabled, "template", "Template is disabled", now)
			return d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r}), true
		}
		return d.park(ctx, r, cause.scope, cause.value, time.Time{}), true
	}
	if msg.Suppressed {
		until := msg.SuppressedUntil
		if until == nil || (msg.ExpiresAt != nil && msg.ExpiresAt.Before(*until)) {
			o := failed(msg, CodeSuppressed, "recipient", "The recipient gets no marketing messages from this WABA", now)
			o.ErrorDetails = "Suppressed by: " + msg.SuppressedBy
			return d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r}), true
		}
		return d.park(ctx, r, store.HoldRecipient, msg.User, *until), true
	}
	if len(msg.SendWindow) > 0 {
		if w, err := message.ParseWindow(msg.SendWindow); err == nil {
			open, changes := w.Open(now)
			if !open {
				return d.park(ctx, r, store.HoldWindow, "send_window", d.cfg.Owner.DBTime(changes)), true
			}
			r.windowEnds = changes
		}
	}
	if msg.Blocked {
		return d.park(ctx, r, store.HoldOrdering, msg.OrderingKey, time.Time{}), true
	}
	if v, ended := d.checkWindow(ctx, r, now); ended {
		return v, true
	}
	if v, done := d.mediaReady(ctx, r); done {
		return v, true
	}
	if v, held := d.countRecipient(ctx, r); held {
		return v, true
	}
	if delay := r.ln.waba.line.Delay(r.ln.phone, msg.User); delay > pairPatience {
		d.release(ctx, r)
		at := r.ln.pairs.next(tail{msg.User, r.job.Priority}, now, delay, time.Duration(r.ln.pairNanos.Load()))
		return d.park(ctx, r, store.HoldPair, msg.User, d.cfg.Owner.DBTime(at)), true
	}
	return queue.Verdict{}, false
}

// over says that a message is not to be sent, and what becomes of it; nil when it has ended already.
func (d *Dispatcher) over(ctx context.Context, r *run, now time.Time) (*store.Outcome, bool) {
	msg := &r.msg
	switch {
	case msg.ID != r.job.MessageID:
		d.log.ErrorContext(ctx, "a job without its message was dropped", "message", r.job.MessageID)
		return nil, true
	case msg.Status == "sending":
		// Its job runs again although a try was begun: nobody can say here how that try ended.
		return d.unknown(*msg, msg.Try, "run again with an open try", now), true
	case msg.Status != "queued":
		return nil, true
	case msg.ExpiresAt != nil && !now.Before(*msg.ExpiresAt):
		return expired(*msg, msg.Try, now), true
	case !d.allowed(msg.Recipient):
		return failed(msg, CodeRecipientNotAllowed, "recipient", "The recipient is not in WAGATE_RECIPIENT_ALLOW", now), true
	}
	return nil, false
}

// countRecipient takes a place among the unique recipients of the portfolio, for a message outside a service window.
func (d *Dispatcher) countRecipient(ctx context.Context, r *run) (queue.Verdict, bool) {
	p := r.ln.waba.portfolio.Load()
	if p == nil || r.msg.InWindow {
		return queue.Verdict{}, false
	}
	want := store.RecipientWant{PortfolioID: p.id, Limit: p.limit, WAID: r.msg.User}
	grant, err := d.reserves.Do(ctx, want)
	switch {
	case err != nil:
		return d.later(ctx, r.job, err), true
	case !grant.OK:
		// Spread, so that a long queue does not come back all at once for the one place that is free then.
		spread := min(time.Duration(max(r.ln.waba.crowd.Add(1), 1))*10*time.Millisecond, maxCrowdSpread)
		return d.park(ctx, r, store.HoldRecipients, p.id, grant.FreeAt.Add(rand.N(spread))), true //nolint:gosec // jitter, no secret
	case grant.New:
		want.At = grant.At
		r.reserved = &want
		if r.ln.waba.crowd.Add(-1) < 0 {
			r.ln.waba.crowd.Store(0)
		}
	}
	return queue.Verdict{}, false
}

// maxCrowdSpread bounds over how long those that wait for a portfolio's recipients are spread.
const maxCrowdSpread = 15 * time.Minute

func (d *Dispatcher) reserve(ctx context.Context, wants []store.RecipientWant) ([]batch.Result[store.RecipientGrant], error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	grants, err := d.store.ReserveRecipients(ctx, wants)
	if err != nil {
		return nil, err
	}
	out := make([]batch.Result[store.RecipientGrant], len(wants))
	for i := range out {
		out[i].Out = grants[i]
	}
	return out, nil
}
