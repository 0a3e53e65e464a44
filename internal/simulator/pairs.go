package simulator

import (
	"strings"
	"time"
)

type pairKey struct {
	phone uint32
	to    string
}

// pair is one phone number and one recipient: its accepts where the limit is a window,
// else when its token bucket is full again.
type pair struct {
	accepts history
	fullAt  time.Duration
}

// pairs are those in use. The Server's mutex guards them.
type pairs struct {
	def     Limit
	of      map[pairKey]*pair
	sweepAt int // number of pairs at which quiet ones are swept
}

func newPairs(def Limit) pairs {
	return pairs{def: def, of: map[pairKey]*pair{}, sweepAt: 4096}
}

// on says whether there is a limit at all.
func (l Limit) on() bool { return l.Max > 0 || l.Burst > 0 }

// admits says whether a message that arrives now stays within the limit.
func (p *pair) admits(arrival time.Duration, limit Limit) bool {
	if limit.Burst > 0 {
		return p.fullAt-arrival <= time.Duration(limit.Burst-1)*limit.window()
	}
	return Admits(p.accepts.live(), arrival, limit)
}

// take records an accept.
func (p *pair) take(arrival time.Duration, limit Limit) {
	if limit.Burst > 0 {
		p.fullAt = max(p.fullAt, arrival) + limit.window()
		return
	}
	p.accepts.add(arrival, limit.window(), maxLimit)
}

// quiet says whether the limit would treat the pair like one never seen.
func (p *pair) quiet(now time.Duration, limit Limit) bool {
	live := p.accepts.live()
	return p.fullAt <= now && (len(live) == 0 || live[len(live)-1] <= now-limit.window())
}

// get finds a pair. Pairs that are quiet are swept each time their number has doubled,
// so that their memory follows what is in use.
func (s *pairs) get(key pairKey, now time.Duration, phones []*phone) *pair {
	if p := s.of[key]; p != nil {
		return p
	}
	if len(s.of) >= s.sweepAt {
		for k, p := range s.of {
			if p.quiet(now, phones[k.phone].pairLimit(s.def)) {
				delete(s.of, k)
			}
		}
		s.sweepAt = max(4096, 2*len(s.of))
	}
	p := &pair{}
	s.of[pairKey{key.phone, strings.Clone(key.to)}] = p
	return p
}

// retune carries the pairs whose limit changes over to the new one at once: what a
// bucket lacks is the same number of tokens, at the new refill. A window keeps its
// accepts as far as they were kept; a bucket that was a window before starts full.
func (s *pairs) retune(concerns func(phone uint32) bool, now time.Duration, before, after Limit) {
	if before.Burst == 0 {
		return
	}
	for key, p := range s.of {
		if !concerns(key.phone) || p.fullAt <= now {
			continue
		}
		if after.Burst == 0 {
			p.fullAt = 0
			continue
		}
		lacking := float64(p.fullAt-now) / float64(before.window())
		p.fullAt = now + time.Duration(lacking*float64(after.window()))
	}
}
