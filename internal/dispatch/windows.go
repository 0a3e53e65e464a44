package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/batch"
	"wagate/internal/queue"
	"wagate/internal/store"
)

// codeWindowClosed is Meta's code of a free-form message outside the customer service window, titleWindowClosed its title.
const (
	codeWindowClosed  = 131047
	titleWindowClosed = "Re-engagement message"
)

// checkWindow keeps a free-form message back whose service window is known to be closed, where the phone number asks for it: its
// fallback template goes instead, or it ends. done says that the job is dealt with.
func (d *Dispatcher) checkWindow(ctx context.Context, r *run, now time.Time) (v queue.Verdict, done bool) {
	msg := &r.msg
	if d.cfg.WindowsClosed == nil || !r.ln.checksWindows.Load() || msg.InWindow || !store.NeedsWindow(msg.Type) {
		return queue.Verdict{}, false
	}
	closed, err := d.cfg.WindowsClosed(ctx, []store.WindowAsk{{PhoneNumberID: r.ln.phone, Recipient: msg.Recipient}})
	switch {
	case err != nil:
		return d.later(ctx, r.job, err), true
	case !closed[0]:
		return queue.Verdict{}, false
	case !msg.Fallback:
		o := failed(msg, codeWindowClosed, "gateway", titleWindowClosed, now)
		o.ErrorDetails = "More than 24 hours have passed since the user last wrote or called; the gateway made no call"
		return d.finish(ctx, ending{ref: r.job.Ref(), outcome: o, run: r}), true
	}
	if _, err := d.fallbacks.Do(ctx, msg.ID); err != nil {
		return d.later(ctx, r.job, err), true
	}
	return d.giveBack(ctx, r.job), true // it is another message now, of which all is to be looked at again
}

func (d *Dispatcher) useFallbacks(ctx context.Context, ids []uuid.UUID) ([]batch.Result[bool], error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var used map[uuid.UUID]bool
	err := d.store.InTx(ctx, func(tx pgx.Tx) (err error) {
		used, err = d.store.UseFallbacks(ctx, tx, slices.Clone(ids), store.FallbackChecked, time.Now())
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]batch.Result[bool], len(ids))
	for i, id := range ids {
		out[i].Out = used[id]
	}
	return out, nil
}

// breakSpans tells of the phone numbers of which nothing was heard since a message was accepted, although its statuses should
// have come by now.
func (d *Dispatcher) breakSpans(ctx context.Context) error {
	accepted := map[string]time.Time{}
	now := time.Now()
	d.mu.RLock()
	for phone, ln := range d.lanes {
		if at := ln.unheard.before(now, store.HeardLate); ln.checksWindows.Load() && !at.IsZero() {
			accepted[phone] = d.cfg.Owner.DBTime(at)
		}
	}
	d.mu.RUnlock()
	return d.store.BreakSpans(ctx, accepted)
}
