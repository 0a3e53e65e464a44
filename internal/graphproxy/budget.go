package graphproxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

const (
	codeWABA               = 80007   // the calls of a WABA
	subcodeCallPermissions = 2390008 // of code 4: the limit of one edge alone
	// throttleWait is how long a WABA's calls rest after a throttle of Meta's that does not say how long.
	throttleWait = time.Minute
	maxHeld      = 4096 // WABAs that rest at once
	maxWaiting   = 64   // calls that wait at once for one WABA
)

// queue counts the calls that wait for their WABA, which hold nothing else that is bounded.
type queue struct {
	mu    sync.Mutex
	calls map[string]int
}

// enter says whether one more may wait; it must leave then.
func (q *queue) enter(waba string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.calls[waba] >= maxWaiting {
		return false
	}
	if q.calls == nil {
		q.calls = map[string]int{}
	}
	q.calls[waba]++
	return true
}

func (q *queue) leave(waba string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.calls[waba]--; q.calls[waba] == 0 {
		delete(q.calls, waba)
	}
}

// held remembers which WABAs Meta has throttled: a call made before their time prolongs it.
type held struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (h *held) hold(waba string, until, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil || len(h.until) >= maxHeld {
		h.until = map[string]time.Time{} // at worst Meta says it once more
	}
	if until.After(h.until[waba]) && until.After(now) {
		h.until[waba] = until
	}
}

// rest gives how long the WABA's calls still rest.
func (h *held) rest(waba string, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, ok := h.until[waba]
	if ok && !until.After(now) {
		delete(h.until, waba)
	}
	return max(until.Sub(now), 0)
}

// counts says whether a call to a WABA is one of its management calls of the hour: everything is that is made with its
// token. Meta itself counts less: reads of a WABA, its templates, phone numbers, subscribed apps and users; what media take
// of the hour is the price of one promise for all.
func counts(t *target) bool { return t.waba != "" && !t.free }

// spend takes one call out of the WABA's bucket, waiting for it until then where that is no waste.
func (p *Proxy) spend(ctx context.Context, who Caller, t *target, until time.Time) error {
	if !counts(t) {
		return nil
	}
	for {
		wait := p.held.rest(t.waba, p.Now())
		if wait == 0 {
			look, cancel := context.WithTimeout(ctx, lookTime)
			ok, again, err := p.take(look, t.waba)
			cancel()
			switch {
			case errors.Is(err, store.ErrNotFound):
				return noObject()
			case err != nil:
				return Failed(err)
			case ok:
				return nil
			}
			wait = max(again.Sub(p.Now()), 10*time.Millisecond) // the database has a clock of its own
		}
		if p.Now().Add(wait).After(until) || !p.waiting.enter(t.waba) {
			return throttled(wait)
		}
		err := pause(ctx, who.GiveUp, wait)
		p.waiting.leave(t.waba)
		if err != nil {
			return throttled(wait)
		}
	}
}

// errGivenUp is for a wait that the end of the gateway has cut short.
var errGivenUp = errors.New("the gateway stops")

func pause(ctx context.Context, giveUp <-chan struct{}, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-giveUp:
		return errGivenUp
	}
}

// heed looks at an answer of Meta for a throttle of the WABA or its app.
func (p *Proxy) heed(t *target, status int, h http.Header, body []byte) {
	if t.waba == "" || status < 400 {
		return
	}
	e, ok := cloudapi.ParseError(status, body)
	if !ok {
		return
	}
	switch e.Code {
	case codeTooMany:
		if e.Subcode == subcodeCallPermissions {
			return
		}
	case codeWABA, codeManagement:
	default:
		return
	}
	now := p.Now()
	wait := max(cloudapi.RetryAfter(h, now), cloudapi.ManagementRegain(h, t.waba))
	if wait == 0 {
		wait = throttleWait
	}
	p.held.hold(t.waba, now.Add(wait), now)
}
