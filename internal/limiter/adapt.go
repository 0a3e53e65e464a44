package limiter

import (
	"math"
	"time"
)

const (
	// recovery is the time in which a halved rate is back at the rate of the throttle. Growth is steep at first, flat
	// around that rate, and steep again beyond it (the curve of TCP CUBIC, RFC 9438).
	recovery = 20 * time.Second
	// episode is the time after a slowing in which further throttles belong to the same one.
	episode = 2 * time.Second
)

// Slowed says at what rate, messages a second, a scope was throttled, and when: its rate in force is a function of the
// two and of the time.
type Slowed struct {
	Ceiling float64
	At      time.Time
}

// slowness is a rate below the configured one since a throttle.
type slowness struct {
	Slowed
	from time.Time // when it begins to grow
	sent bool      // a slot other than a probe was taken since
}

// rate at now: half the ceiling at first, the ceiling after recovery, and beyond.
func (s *slowness) rate(now time.Time) float64 {
	x := max(0, now.Sub(s.from).Seconds())/recovery.Seconds() - 1
	return s.Ceiling * (1 + 0.5*x*x*x)
}

// slowDown halves the rate in force. Throttles within one episode, and those that come while nothing but probes went
// out, count once; the latter start the growth anew.
func (s *scope) slowDown(now time.Time) (Slowed, bool) {
	if !s.conf.finite() {
		return Slowed{}, false
	}
	switch {
	case s.slow != nil && !s.slow.sent:
		s.slow.At, s.slow.from = now, now
	case s.slow != nil && now.Sub(s.slow.At) < episode:
		return s.slow.Slowed, true
	default:
		f := min(s.throughput(now), s.rate(now)+s.inbound)
		s.slow = &slowness{Slowed: Slowed{Ceiling: f, At: now}, from: now}
	}
	slowed := s.slow.Slowed
	s.apply(now)
	return slowed, true
}

// restore brings in how a predecessor slowed the scope, unless this owner slowed it later.
func (s *scope) restore(slowed Slowed, now time.Time) {
	if !s.conf.finite() || !(slowed.Ceiling > 0) || (s.slow != nil && !slowed.At.After(s.slow.At)) {
		return
	}
	if slowed.At.After(now) {
		slowed.At = now
	}
	s.slow = &slowness{Slowed: slowed, from: slowed.At, sent: true}
	s.apply(now)
}

const (
	usageFrom     = 75.0 // per cent used from which a scope slows
	usageLife     = 2 * time.Minute
	usageDoubling = 10 * time.Second // the factor doubles in this time at most
)

// usage is what the usage headers of answers say: how much of an hourly budget is used.
type usage struct {
	value  float64 // the factor at the newest reading
	target float64 // what the reading asks for
	at     time.Time
	// base is what went out per second when the scope first had to slow: where it has no limit of its own, the factor
	// applies to that.
	base float64
}

// factor, over 0 and up to 1, that the rate is multiplied with at now.
func (u usage) factor(now time.Time) float64 {
	if u.at.IsZero() {
		return 1
	}
	end := u.at.Add(usageLife)
	if now.Before(end) {
		return min(u.target, grown(u.value, now.Sub(u.at)))
	}
	return min(1, grown(min(u.target, grown(u.value, usageLife)), now.Sub(end)))
}

func grown(factor float64, in time.Duration) float64 {
	return factor * math.Exp2(max(0, in.Seconds())/usageDoubling.Seconds())
}

// read takes a reading in. measured is what goes out per second.
func (u *usage) read(percent, measured float64, now time.Time) {
	before := u.factor(now)
	target := 1.0
	if percent >= usageFrom {
		target = max(leastShare, 1-(1-leastShare)*(percent-usageFrom)/(100-usageFrom))
	}
	switch {
	case target == 1 && before == 1:
		*u = usage{}
		return
	case before == 1:
		u.base = max(1, measured)
	}
	u.value, u.target, u.at = min(before, target), target, now
}

// meter counts the slots of the last seconds.
type meter [16]struct {
	second int64
	n      int
}

func (m *meter) add(slot time.Time) {
	second := slot.Unix()
	c := &m[uint64(second)%uint64(len(m))] //nolint:gosec // a remainder: the sign does not matter
	if c.second != second {
		c.second, c.n = second, 0
	}
	c.n++
}

// perSecond is the mean of the 10 whole seconds before now.
func (m *meter) perSecond(now time.Time) float64 {
	const seconds = 10
	n, end := 0, now.Unix()
	for _, c := range m {
		if c.second < end && c.second >= end-seconds {
			n += c.n
		}
	}
	return float64(n) / seconds
}
