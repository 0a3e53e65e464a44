// Package limiter gives the tries of one WABA their slots: the instants at which they may go out. The budgets of the
// WABA and of its phone numbers are looked at together under one mutex, so that a slot keeps the spacing of every scope,
// and a try that one scope holds back takes nothing from the others.
//
// Times are arguments; nothing here reads a clock but Line, which serves waiting tries.
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

// maxWait keeps the wait for a token of an absurdly low rate within a time.Duration.
const maxWait = float64(math.MaxInt64 / 4)

// bucket is a token bucket whose slots are taken in ascending order.
type bucket struct {
	limit Limit
	lim   *rate.Limiter // nil: no limit
	last  time.Time     // the newest slot taken
	// blocked holds everything back until then.
	blocked time.Time
}

// newBucket is empty: an owner does not know what its predecessor sent in the last second.
func newBucket(l Limit, now time.Time) *bucket {
	b := &bucket{last: now}
	b.set(l, now)
	return b
}

// set changes the limit. Tokens held are cut to the new burst, and none are made up.
func (b *bucket) set(l Limit, now time.Time) {
	if l.Burst <= 0 {
		l.Burst = 1
	}
	if b.lim != nil && l == b.limit {
		return
	}
	b.limit = l
	if l.PerSecond <= 0 || math.IsInf(l.PerSecond, 1) {
		b.lim = nil
		return
	}
	from := later(now, b.last)
	if b.lim == nil {
		b.lim = rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)
		b.lim.ReserveN(from, l.Burst)
		return
	}
	b.lim.SetLimitAt(from, rate.Limit(l.PerSecond))
	b.lim.SetBurstAt(from, l.Burst)
}

// earliest gives the first instant, not before at, at which the bucket holds a token and nothing blocks it.
func (b *bucket) earliest(at time.Time) time.Time {
	at = later(at, b.blocked)
	if b.lim == nil {
		return at
	}
	// Before its newest slot the bucket's past is spent: rate.Limiter counts from there.
	at = later(at, b.last)
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
		b.lim.ReserveN(slot, 1)
	}
	b.last = later(b.last, slot)
}

// Budget is what one WABA and its phone numbers may send. It is pure arithmetic; its caller holds the mutex.
type Budget struct {
	waba   *bucket
	phones map[string]*bucket
}

// NewBudget starts with empty buckets.
func NewBudget(waba Limit, now time.Time) *Budget {
	return &Budget{waba: newBucket(waba, now), phones: map[string]*bucket{}}
}

// SetWABA changes the WABA's limit.
func (b *Budget) SetWABA(l Limit, now time.Time) { b.waba.set(l, now) }

// SetPhone changes or adds a phone number's limit.
func (b *Budget) SetPhone(phoneNumberID string, l Limit, now time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.set(l, now)
		return
	}
	b.phones[phoneNumberID] = newBucket(l, now)
}

// RemovePhone forgets a phone number.
func (b *Budget) RemovePhone(phoneNumberID string) { delete(b.phones, phoneNumberID) }

// BlockWABA holds the whole WABA back until then; a past instant lifts that.
func (b *Budget) BlockWABA(until time.Time) { b.waba.blocked = until }

// BlockPhone holds one phone number back until then; a past instant lifts that.
func (b *Budget) BlockPhone(phoneNumberID string, until time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.blocked = until
	}
}

// Blocked gives the end of the pause that covers a phone number at now, and false when none does.
func (b *Budget) Blocked(phoneNumberID string, now time.Time) (time.Time, bool) {
	until := b.waba.blocked
	if p := b.phones[phoneNumberID]; p != nil {
		until = later(until, p.blocked)
	}
	return until, until.After(now)
}

// Earliest gives the first instant, not before now, that every scope of the phone number allows. ok is false for a
// phone number that was not set.
func (b *Budget) Earliest(phoneNumberID string, now time.Time) (slot time.Time, ok bool) {
	p := b.phones[phoneNumberID]
	if p == nil {
		return time.Time{}, false
	}
	// A bucket's tokens only grow while nothing is taken, so what the phone allows at its earliest it allows later too.
	return b.waba.earliest(p.earliest(now)), true
}

// Take uses the slot in every scope. slot comes from Earliest, with nothing taken in between.
func (b *Budget) Take(phoneNumberID string, slot time.Time) {
	b.phones[phoneNumberID].take(slot)
	b.waba.take(slot)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
