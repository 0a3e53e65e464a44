// Package limiter gives the tries of one WABA their slots: the instants at which they may go out. The budgets of the
// WABA, of its share of its app's calls, of its phone numbers and of each pair of phone number and recipient are looked
// at together under one mutex, so that a slot keeps the spacing of every scope, and a try that one scope holds back
// takes nothing from the others. The rates in force follow throttles, usage headers and inbound traffic.
//
// Times are arguments; nothing here reads a clock but Line, which serves waiting tries.
package limiter

import "time"

// refreshEvery is how often rates that move by themselves reach their buckets.
const refreshEvery = 100 * time.Millisecond

// Budget is what one WABA and its phone numbers may send. It is pure arithmetic; its caller holds the mutex, and the
// times it passes do not go back.
type Budget struct {
	waba      *scope
	hour      bucket
	hourRate  float64 // messages an hour; 0: none
	app       appShare
	phones    map[string]*phone
	meter     meter
	grants    uint64 // given so far
	refreshed time.Time
}

type phone struct {
	scope
	pairs pairs
	took  time.Time // newest slot; zero: none yet
}

// appShare is the WABA's share of its app's calls: leased until then.
type appShare struct {
	scope
	leased bool
	until  time.Time // zero: without end
}

func (a *appShare) lapsed(now time.Time) bool {
	return a.leased && !a.until.IsZero() && !now.Before(a.until)
}

func (a *appShare) earliest(at time.Time) time.Time {
	slot := a.scope.earliest(at)
	if a.lapsed(slot) {
		return at.Add(time.Duration(maxWait))
	}
	return slot
}

// NewBudget starts with empty buckets: an owner does not know what its predecessor sent in the last second.
func NewBudget(waba Limit, now time.Time) *Budget {
	b := &Budget{waba: &scope{}, phones: map[string]*phone{}, refreshed: now}
	b.waba.last, b.hour.last, b.app.last = now, now, now
	b.waba.configure(waba, now)
	return b
}

// SetWABA changes the WABA's limit.
func (b *Budget) SetWABA(l Limit, now time.Time) { b.waba.configure(l, now) }

// SetWABAHour changes the WABA's messages an hour, 0 for no limit: a bucket of one token, so that no rolling hour holds
// more than perHour + 1.
func (b *Budget) SetWABAHour(perHour float64, now time.Time) {
	if !(Limit{PerSecond: perHour}).finite() {
		perHour = 0
	}
	b.hourRate = perHour
	b.hour.set(Limit{PerSecond: perHour / 3600, Burst: 1}, now)
}

// SetApp changes the WABA's share of its app's calls. Slots lie before until; at and after it nothing goes out, and the
// bucket makes no token, until a later call. A share of zero lets nothing out. No limit and no until: the app has none.
// A limit without an until does not end. Slots taken ahead of a smaller share stay taken.
func (b *Budget) SetApp(l Limit, until, now time.Time) {
	a := &b.app
	if a.lapsed(now) {
		a.freeze(a.until)
	}
	switch {
	case !l.finite() && until.IsZero():
		a.leased, a.until = false, time.Time{}
		a.configure(Limit{}, now)
	case !(l.PerSecond > 0):
		a.leased, a.until, a.conf.PerSecond = true, now, 0
		a.freeze(now)
	case !until.IsZero() && !until.After(now): // it is over already
		a.leased, a.until, a.conf = true, until, l
		a.freeze(now)
	default:
		a.leased, a.until = true, until
		a.configure(l, now)
	}
}

// SetPhone changes or adds a phone number's limit.
func (b *Budget) SetPhone(phoneNumberID string, l Limit, now time.Time) {
	p := b.phones[phoneNumberID]
	if p == nil {
		p = &phone{}
		p.last, p.pairs.changed = now, true
		b.phones[phoneNumberID] = p
	}
	p.configure(l, now)
}

// RemovePhone forgets a phone number.
func (b *Budget) RemovePhone(phoneNumberID string) { delete(b.phones, phoneNumberID) }

// SetInbound says how many messages a second come in to a phone number: they use its throughput too. At least 5 % of
// its configured rate stays.
func (b *Budget) SetInbound(phoneNumberID string, perSecond float64, now time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		if !(perSecond > 0) {
			perSecond = 0
		}
		p.inbound = perSecond
		p.apply(now)
	}
}

// SetPair changes what a phone number may send to one recipient: a token every so often (0: no limit), burst at most
// (0 counts as 1). A pair that is not known counts as having used half of its burst, rounded up, at since, when this
// owner started: it cannot know what its predecessor sent, and has a row of the pairs that used more.
func (b *Budget) SetPair(phoneNumberID string, every time.Duration, burst int, since, now time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.pairs.set(every, burst, since, p.took, now)
	}
}

// LoadPair brings in the tat of a pair's row (see Grant); the later one of it and of what is known stays.
func (b *Budget) LoadPair(phoneNumberID, recipient string, tat, now time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.pairs.load(recipient, tat, now)
	}
}

// MergePair adds what the recipient from has used here to the recipient to, and forgets it: they are two spellings of
// one user. It returns the tat for the row of to where it needs one now, else zero.
func (b *Budget) MergePair(phoneNumberID, from, to string, now time.Time) time.Time {
	p := b.phones[phoneNumberID]
	if p == nil {
		return time.Time{}
	}
	return p.pairs.merge(from, to, now)
}

// BlockWABA holds the whole WABA back until then; a past instant lifts that.
func (b *Budget) BlockWABA(until time.Time) { b.waba.blocked = until }

// BlockPhone holds one phone number back until then; a past instant lifts that.
func (b *Budget) BlockPhone(phoneNumberID string, until time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.blocked = until
	}
}

// ProbeWABA says that the pause that BlockWABA set came from a throttle: after its end one slot goes out, and nothing
// else of the WABA before its answer (Line.Answered), or 10 s after the slot. Call it after BlockWABA; a pause that was
// probed already is not probed again.
func (b *Budget) ProbeWABA() { b.waba.askProbe(b.grants) }

// ProbePhone is ProbeWABA for one phone number.
func (b *Budget) ProbePhone(phoneNumberID string) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.askProbe(b.grants)
	}
}

// SlowWABA halves the WABA's rate in force after a throttle; from then on it grows back along a cubic curve, up to the
// configured one. Throttles within 2 s, and those of probes, count once. It returns what a next owner needs to know,
// and false when the WABA has no limit per second.
func (b *Budget) SlowWABA(now time.Time) (Slowed, bool) { return b.waba.slowDown(now) }

// SlowPhone is SlowWABA for one phone number. The ceiling counts its inbound traffic too.
func (b *Budget) SlowPhone(phoneNumberID string, now time.Time) (Slowed, bool) {
	p := b.phones[phoneNumberID]
	if p == nil {
		return Slowed{}, false
	}
	return p.slowDown(now)
}

// RestoreWABA brings in how a predecessor slowed the WABA. Its limit has to be set before.
func (b *Budget) RestoreWABA(s Slowed, now time.Time) { b.waba.restore(s, now) }

// RestorePhone brings in how a predecessor slowed a phone number. Its limit has to be set before.
func (b *Budget) RestorePhone(phoneNumberID string, s Slowed, now time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.restore(s, now)
	}
}

// UsageWABA takes in a usage header, in per cent. From 75 % on the rate in force shrinks, to 5 % of the configured one
// at 100 %. Without a limit per second the base is what went out over the 10 s before the scope first had to slow, at
// least 1 a second. A reading counts for 2 minutes; the rate grows back by a doubling in 10 s at most.
func (b *Budget) UsageWABA(percent float64, now time.Time) {
	b.waba.usage.read(percent, b.meter.perSecond(now), now)
	b.waba.apply(now)
}

// UsageApp is UsageWABA for the WABA's share of its app's calls.
func (b *Budget) UsageApp(percent float64, now time.Time) {
	b.app.usage.read(percent, b.meter.perSecond(now), now)
	if !b.app.lapsed(now) {
		b.app.apply(now)
	}
}

// Blocked gives the end of the pause that covers a phone number at now, and false when none does. A probe that is out
// is no pause.
func (b *Budget) Blocked(phoneNumberID string, now time.Time) (time.Time, bool) {
	until := b.waba.blocked
	if p := b.phones[phoneNumberID]; p != nil {
		until = later(until, p.blocked)
	}
	return until, until.After(now)
}

// Earliest gives the first instant, not before now, that every scope of the phone number and the recipient allows (""
// for no pair); decades away when none is in sight. ok is false for a phone number that was not set.
func (b *Budget) Earliest(phoneNumberID, recipient string, now time.Time) (slot time.Time, ok bool) {
	p := b.phones[phoneNumberID]
	if p == nil {
		return time.Time{}, false
	}
	// Tokens only grow while nothing is taken, so what one bucket allows at its earliest it allows later too. Only the
	// app's share ends: it comes last.
	at := p.earliest(later(now, p.pairs.ready(recipient)))
	return b.app.earliest(b.hour.earliest(b.waba.earliest(at))), true
}

// Take uses the slot in every scope. slot comes from Earliest, with nothing changed in between.
func (b *Budget) Take(phoneNumberID, recipient string, slot time.Time) Grant {
	p := b.phones[phoneNumberID]
	b.grants++
	g := Grant{Slot: slot, serial: b.grants}
	g.PairTAT = p.pairs.take(recipient, slot)
	p.took = later(p.took, slot)
	ofPhone := p.take(phoneNumberID, slot)
	ofWABA := b.waba.take(phoneNumberID, slot)
	g.Probe = ofPhone || ofWABA
	b.hour.take(slot)
	b.app.take(phoneNumberID, slot)
	b.meter.add(slot)
	return g
}

// untake returns a slot that was not used, in every scope where it is the newest.
func (b *Budget) untake(phoneNumberID string, slot time.Time) {
	if p := b.phones[phoneNumberID]; p != nil {
		p.untake(slot)
	}
	b.waba.untake(slot)
	b.hour.untake(slot)
	b.app.untake(slot)
}

// shared says that phone numbers share a limit.
func (b *Budget) shared() bool {
	return b.waba.lim != nil || b.hour.lim != nil || b.app.leased || b.app.lim != nil
}

// moves says that some rate in force changes by itself.
func (b *Budget) moves(now time.Time) bool {
	if b.waba.moves(now) || b.app.moves(now) {
		return true
	}
	for _, p := range b.phones {
		if p.moves(now) {
			return true
		}
	}
	return false
}

// refresh brings rates that change by themselves to their buckets, when that was last done a while ago.
func (b *Budget) refresh(now time.Time) {
	if now.Sub(b.refreshed) < refreshEvery {
		return
	}
	b.refreshed = now
	b.waba.apply(now)
	if !b.app.lapsed(now) {
		b.app.apply(now)
	}
	for _, p := range b.phones {
		p.apply(now)
	}
}
