package dispatch

import (
	"context"
	"sync"
	"time"

	"wagate/internal/sender"
	"wagate/internal/store"
)

// accepts remembers when a lane's messages were accepted, as coarsely as the question needs: what is the newest whose
// webhooks should have come by now? A phone number of which nothing was heard since then is silent.
type accepts struct {
	mu sync.Mutex
	// newest has the newest accept of the running span of time, of the one before, and of all earlier ones.
	newest [3]time.Time
	span   int64
	// held has the templates of which it was kept that Meta holds messages, and when.
	held map[string]time.Time
}

func (a *accepts) roll(now time.Time, width time.Duration) {
	span := now.UnixNano() / int64(width)
	for ; a.span < span; a.span++ {
		if a.newest[0].IsZero() && a.newest[1].IsZero() {
			a.span = span
			return
		}
		a.newest = [3]time.Time{{}, a.newest[0], latest(a.newest[1], a.newest[2])}
	}
}

func (a *accepts) add(now time.Time, width time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roll(now, width)
	a.newest[0] = now
}

// before gives the newest accept that is older than width, and may pass over those younger than twice that; zero for none.
func (a *accepts) before(now time.Time, width time.Duration) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roll(now, width)
	return a.newest[2]
}

// holding says that it is to be kept that Meta holds messages of a template: once in a while, as a whole campaign is held.
func (a *accepts) holding(template string, now time.Time, every time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at, ok := a.held[template]; ok && now.Sub(at) < every {
		return false
	}
	if a.held == nil || len(a.held) >= 1000 {
		a.held = map[string]time.Time{}
	}
	a.held[template] = now
	return true
}

// awaitWebhooks notes that statuses of an accepted message are to come, and whether Meta holds it back.
func (d *Dispatcher) awaitWebhooks(ctx context.Context, r *run, out sender.Outcome, now time.Time) {
	r.ln.accepts.add(now, d.cfg.UnknownAfter/2)
	if r.ln.checksWindows.Load() {
		r.ln.unheard.add(now, store.HeardLate)
	}
	if out.MessageStatus == "" || out.MessageStatus == "accepted" || !r.ln.accepts.holding(r.msg.TemplateName, now, d.cfg.UnknownAfter/2) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := d.store.HeldByMeta(ctx, r.ln.phone, r.msg.TemplateName); err != nil {
		d.log.WarnContext(ctx, "that Meta holds messages was not kept", "message", r.msg.ID, "err", err)
	}
}
