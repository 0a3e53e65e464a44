package limiter

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Limit is a token bucket: PerSecond tokens a second (0: no limit), Burst at most (0 counts as 1). In any window of
// length T it lets Burst + PerSecond × T slots through.
type Limit struct {
	PerSecond float64
	Burst     int
}

// finite says that there is a limit at all: neither zero, negative, infinite nor no number.
func (l Limit) finite() bool { return l.PerSecond > 0 && !math.IsInf(l.PerSecond, 1) }

// maxWait keeps the wait for a token of an absurdly low rate within a time.Duration. It stands for never, too.
const maxWait = float64(math.MaxInt64 / 4)

// bucket is a token bucket whose slots are taken in ascending order.
type bucket struct {
	limit Limit         // in force
	lim   *rate.Limiter // nil: no limit
	last  time.Time     // the newest slot taken or change of the limit: rate.Limiter counts from there
	// newest is the token of the newest slot, as long as it can come back.
	newest *rate.Reservation
}

// set changes the limit. Tokens held are cut to the new burst, and none are made up: a bucket that had no limit starts
// empty.
func (b *bucket) set(l Limit, now time.Time) {
	l.Burst = max(l.Burst, 1)
	if !l.finite() {
		b.limit, b.lim = l, nil
		return
	}
	if b.lim != nil && l == b.limit {
		return
	}
	b.limit = l
	b.last = later(b.last, now)
	if b.lim == nil {
		b.lim = rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)
		b.lim.ReserveN(b.last, l.Burst)
		return
	}
	b.lim.SetLimitAt(b.last, rate.Limit(l.PerSecond))
	b.lim.SetBurstAt(b.last, l.Burst)
}

// freeze stops the making of tokens at that instant, until set. Those held stay.
func (b *bucket) freeze(at time.Time) {
	if b.lim == nil {
		return
	}
	b.last = later(b.last, at)
	b.lim.SetLimitAt(b.last, 0)
	b.limit.PerSecond = 0
}

// earliest gives the first instant, not before at, at which the bucket holds a token.
func (b *bucket) earliest(at time.Time) time.Time {
	if b.lim == nil {
		return at
	}
	at = later(at, b.last) // before its newest slot the bucket's past is spent
	tokens := b.lim.TokensAt(at)
	if tokens >= 1 {
		return at
	}
	// Rounded up, so that the token is whole by then.
	wait := (1 - tokens) / b.limit.PerSecond * float64(time.Second)
	return at.Add(time.Duration(min(wait, maxWait)) + 1)
}

// take uses a token at slot, which earliest gave.
func (b *bucket) take(slot time.Time) {
	if b.lim != nil {
		b.newest = b.lim.ReserveN(slot, 1)
	}
	b.last = later(b.last, slot)
}

// untake returns the token of a slot that was not used, if nothing was taken or changed since: what was taken later counts on it.
func (b *bucket) untake(slot time.Time) {
	if b.lim == nil || b.newest == nil || !b.last.Equal(slot) {
		return
	}
	b.newest.CancelAt(slot.Add(-1)) // it may be cancelled before its time only
	b.newest = nil
}

// tokens gives what the bucket holds at now; below zero while slots are taken ahead, 0 without a limit.
func (b *bucket) tokens(now time.Time) float64 {
	if b.lim == nil {
		return 0
	}
	return b.lim.TokensAt(later(now, b.last)) - max(0, b.last.Sub(now).Seconds())*b.limit.PerSecond
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
