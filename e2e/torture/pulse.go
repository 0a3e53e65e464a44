package main

import (
	"context"
	"sync"
	"time"
)

// pulse notices when this process, and with it the simulator, stood still: what arrives right after that may have been sent
// at any time within it, as nobody was there to stamp it.
type pulse struct {
	mu     sync.Mutex
	stalls []stall
}

type stall struct{ from, till time.Time }

const (
	beat = 10 * time.Millisecond
	// stallFrom is from how long on a missing beat is a stall.
	stallFrom = 60 * time.Millisecond
	// stallEcho is how long after a stall what had queued up meanwhile is still being stamped.
	stallEcho = 500 * time.Millisecond
)

// run beats until ctx ends.
func (p *pulse) run(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) > stallFrom {
			p.mu.Lock()
			p.stalls = append(p.stalls, stall{last, now})
			p.mu.Unlock()
		}
		last = now
	}
}

// earliest gives when a request that was stamped at the given time can have been written at the earliest: since the
// beginning of the last stall, where that is not long over.
func (p *pulse) earliest(stamped time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.stalls) - 1; i >= 0; i-- {
		s := p.stalls[i]
		if s.from.After(stamped) {
			continue
		}
		if stamped.Sub(s.till) < stallEcho {
			return s.from
		}
		break
	}
	return stamped
}

// longest gives the sum and the longest of the stalls.
func (p *pulse) longest() (sum, longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stalls {
		sum += s.till.Sub(s.from)
		longest = max(longest, s.till.Sub(s.from))
	}
	return sum, longest
}
