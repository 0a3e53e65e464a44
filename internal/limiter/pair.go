package limiter

import (
	"math"
	"time"
)

const (
	// refundWindow is the time after its slot in which a try's pair token can come back.
	refundWindow = time.Minute
	// sweepFrom is the number of pairs from which those that are full again are looked for.
	sweepFrom = 1024
)

// pairs limits what a phone number sends to one recipient: a token every so often, so many at most, kept as the
// theoretical arrival time (tat) of the generic cell rate algorithm: when the bucket will be full again.
type pairs struct {
	every time.Duration // 0: no limit
	burst int
	since time.Time
	// floor is the tat of a pair that is not known: half of its burst was used when this owner started.
	floor   time.Time
	known   map[string]pair
	sweepAt int
	changed bool // other than by take: what waits has to be looked at anew
}

// pair is one recipient. A busy period lasts from the first slot taken until the bucket is full again.
type pair struct {
	tat  time.Time
	busy time.Time // first slot taken in this busy period
	last time.Time // newest slot taken
	prev time.Time // newest slot taken before this busy period
}

// half of the burst, rounded up: what a pair may have used without a row.
func (p *pairs) half() time.Duration { return time.Duration((p.burst+1)/2) * p.every }

// set changes the limit. Used tokens stay used, whatever a token's time becomes; a higher burst is there at once. took
// is the phone number's newest slot.
func (p *pairs) set(every time.Duration, burst int, since, took, now time.Time) {
	every = min(max(every, 0), time.Duration(maxWait)/16)
	burst = max(burst, 1)
	if every > 0 {
		burst = min(burst, int(min(time.Duration(maxWait)/4/every, math.MaxInt32)))
	}
	if every == p.every && (every == 0 || (burst == p.burst && since.Equal(p.since))) {
		return
	}
	p.changed = true
	was := p.every
	switch {
	case every == 0:
		*p = pairs{changed: true}
		return
	case was == 0: // what was sent without a limit is not known either
		p.every, p.burst, p.since = every, burst, since
		p.floor = later(since, took).Add(p.half())
		p.known, p.sweepAt = map[string]pair{}, sweepFrom
		return
	case every != was:
		ref, ratio := later(now, took), float64(every)/float64(was)
		scale := func(tat time.Time) time.Time {
			if !tat.After(ref) {
				return tat
			}
			return ref.Add(time.Duration(min(float64(tat.Sub(ref))*ratio, maxWait)) + 1)
		}
		p.floor = scale(p.floor)
		for id, it := range p.known {
			it.tat = scale(it.tat)
			p.known[id] = it
		}
	}
	p.every, p.burst = every, burst
	if !since.Equal(p.since) {
		p.since, p.floor = since, later(p.floor, since.Add(p.half()))
	}
}

// ready gives the instant from which the recipient has a token; it may lie in the past.
func (p *pairs) ready(recipient string) time.Time {
	if p.every == 0 || recipient == "" {
		return time.Time{}
	}
	return p.tat(recipient).Add(-time.Duration(p.burst-1) * p.every)
}

func (p *pairs) tat(recipient string) time.Time { return later(p.known[recipient].tat, p.floor) }

// take uses a token at slot. It returns the new tat when more than half of the burst is used, else zero.
func (p *pairs) take(recipient string, slot time.Time) time.Time {
	if p.every == 0 || recipient == "" {
		return time.Time{}
	}
	it, ok := p.known[recipient]
	if !ok {
		p.sweep(slot)
	}
	tat := later(it.tat, p.floor)
	switch {
	case !tat.After(slot):
		tat, it.prev, it.busy = slot, it.last, slot
	case it.busy.IsZero(): // what is used already was presumed or loaded
		it.busy = slot
	}
	it.tat, it.last = tat.Add(p.every), slot
	p.known[recipient] = it
	if it.tat.Sub(slot) <= p.half() {
		return time.Time{}
	}
	return it.tat
}

// giveBack returns the token of a try without knowing which one it was: as much of it as is safe for any of those of
// the busy period. Without the first of them the bucket would have been full until the second, and made nothing
// meanwhile: so long as the period has lasted, so much less comes back. A try of an earlier period has nothing to give.
func (p *pairs) giveBack(recipient string, now time.Time) bool {
	it, ok := p.known[recipient]
	if !ok || it.busy.IsZero() || !it.tat.After(now) || (!it.prev.IsZero() && now.Sub(it.prev) < refundWindow) {
		return false
	}
	back := p.every - it.last.Sub(it.busy)
	if back <= 0 {
		return false
	}
	it.tat = it.tat.Add(-back)
	if !it.tat.After(later(it.busy, p.floor)) { // it was the only one
		delete(p.known, recipient)
	} else {
		p.known[recipient] = it
	}
	return true
}

// load brings in the tat of a row.
func (p *pairs) load(recipient string, tat, now time.Time) {
	if p.every == 0 || !tat.After(later(now, p.tat(recipient))) {
		return
	}
	p.changed = true
	it, ok := p.known[recipient]
	if !ok {
		p.sweep(now)
	}
	it.tat = tat
	p.known[recipient] = it
}

// merge adds what was used of one recipient here to another, and forgets the first. What is presumed of the first is
// not added: a predecessor that had sent to it would have learnt that the two are one.
func (p *pairs) merge(from, to string, now time.Time) time.Time {
	it, ok := p.known[from]
	if !ok || from == to {
		return time.Time{}
	}
	p.changed = true
	delete(p.known, from)
	ref := later(now, it.last)
	used := it.tat.Sub(later(ref, p.floor))
	if used <= 0 {
		return time.Time{}
	}
	into := p.known[to]
	into.tat = later(later(into.tat, p.floor), ref).Add(used)
	into.last = later(into.last, it.last)
	// The two periods are mixed now: nothing of them comes back.
	into.busy, into.prev = time.Time{}, into.last
	p.known[to] = into
	if into.tat.Sub(ref) <= p.half() {
		return time.Time{}
	}
	return into.tat
}

// sweep forgets the pairs that are full again whenever their number has doubled.
func (p *pairs) sweep(now time.Time) {
	if len(p.known) < p.sweepAt {
		return
	}
	for id, it := range p.known {
		if !it.tat.After(now) && now.Sub(it.last) >= refundWindow {
			delete(p.known, id)
		}
	}
	p.sweepAt = max(sweepFrom, 2*len(p.known))
}
