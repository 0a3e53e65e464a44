package limiter

import "time"

const (
	// leastShare is the part of a configured rate that adaption, inbound traffic and usage leave at the least.
	leastShare = 0.05
	// probeTimeout: a probe without an answer so long after its slot counts as passed. The Cloud API is slow then, not
	// throttling, and the rate in force still holds.
	probeTimeout = 10 * time.Second
	// refusedHold is how long a scope stays shut after its probe was refused, for its new pause to be set.
	refusedHold = time.Second
)

type probeState int

const (
	probeNone  probeState = iota
	probeArmed            // the next slot is the probe
	probeOut              // it is taken; nothing else goes before its answer
)

// scope is what throttles hit: a bucket with a configured limit, the rate in force below it, pauses and probes.
type scope struct {
	bucket
	conf    Limit
	inbound float64
	slow    *slowness // nil: not slowed
	usage   usage

	blocked   time.Time // everything is held back until then
	hold      time.Time // as blocked, of the limiter's own
	probe     probeState
	probeSlot time.Time // the newest probe's
	probeBy   string    // the phone number that took it
	mark      uint64    // number of the newest grant when the probe was asked for: grants up to it are stale
}

// configure changes the configured limit.
func (s *scope) configure(l Limit, now time.Time) {
	if !l.finite() {
		l.PerSecond = 0
	}
	s.conf = l
	s.apply(now)
}

// apply brings the rate in force at now to the bucket.
func (s *scope) apply(now time.Time) {
	if s.slow != nil && (!s.conf.finite() || s.slow.rate(now) >= s.conf.PerSecond) {
		s.slow = nil
	}
	s.set(Limit{PerSecond: s.rate(now), Burst: s.conf.Burst}, now)
}

// rate is the one in force at now; 0: none.
func (s *scope) rate(now time.Time) float64 {
	c := s.conf.PerSecond
	r := c
	if c > 0 {
		r = max(s.throughput(now)-s.inbound, leastShare*c)
	}
	if f := s.usage.factor(now); f < 1 {
		base := c
		if base == 0 {
			base = s.usage.base
		}
		if u := base * f; r == 0 || u < r {
			r = u
		}
	}
	return r
}

// throughput is what the scope may carry in both directions at now.
func (s *scope) throughput(now time.Time) float64 {
	c := s.conf.PerSecond
	if s.slow == nil {
		return c
	}
	return min(c, max(s.slow.rate(now), leastShare*c))
}

// moves says that the rate in force changes by itself.
func (s *scope) moves(now time.Time) bool { return s.slow != nil || s.usage.factor(now) < 1 }

func (s *scope) earliest(at time.Time) time.Time {
	at = later(later(at, s.blocked), s.hold)
	if s.probe == probeOut {
		at = later(at, s.probeSlot.Add(probeTimeout))
	}
	return s.bucket.earliest(at)
}

// take uses the slot and says whether it is the scope's probe.
func (s *scope) take(phoneNumberID string, slot time.Time) bool {
	s.bucket.take(slot)
	if s.probe == probeArmed {
		s.probe, s.probeSlot, s.probeBy = probeOut, slot, phoneNumberID
		return true
	}
	s.probe = probeNone // a probe that was out has passed by time
	if s.slow != nil {
		s.slow.sent = true
	}
	return false
}

// askProbe has the next slot be a probe, unless the pause in force, or the one that ended last, was probed already.
// grants is the number of the newest grant.
func (s *scope) askProbe(grants uint64) {
	if s.probe == probeArmed && s.hold.IsZero() {
		return
	}
	if !s.probeSlot.IsZero() && !s.blocked.After(s.probeSlot) {
		return
	}
	s.probe, s.hold, s.mark = probeArmed, time.Time{}, grants
}

// answered ends a probe that the phone number took. An answer before its slot is another try's.
func (s *scope) answered(phoneNumberID string, ok bool, now time.Time) bool {
	if s.probe != probeOut || s.probeBy != phoneNumberID || now.Before(s.probeSlot) {
		return false
	}
	if !ok {
		s.probe, s.hold = probeArmed, now.Add(refusedHold)
		return true
	}
	s.probe = probeNone
	if s.slow != nil && !s.slow.sent {
		s.slow.from = now // the rate grows from where sending begins again
	}
	return true
}

// unsent lets the next slot be the probe that the phone number took and did not send.
func (s *scope) unsent(phoneNumberID string) bool {
	if s.probe != probeOut || s.probeBy != phoneNumberID {
		return false
	}
	s.probe = probeArmed
	return true
}
