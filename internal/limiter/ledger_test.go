package limiter

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)

// ledger is what a test knows of one scope: which limits were in force from when, and which slots went out.
type ledger struct {
	limits []since
	empty  []time.Time // instants at which the bucket had to be empty
	slots  []time.Time
	last   time.Time
}

// since is a limit from an instant on; a rate below zero lets nothing through, zero everything.
type since struct {
	from  time.Time
	limit Limit
}

func newLedger(l Limit, now time.Time) *ledger {
	return &ledger{limits: []since{{now, whole(l)}}, empty: []time.Time{now}, last: now}
}

func whole(l Limit) Limit { return Limit{PerSecond: l.PerSecond, Burst: max(l.Burst, 1)} }

func (g *ledger) set(l Limit, now time.Time) {
	l = whole(l)
	before := g.limits[len(g.limits)-1].limit
	if l == before {
		return
	}
	// Slots already taken keep the old limit; its end lets the next one go at once.
	from := later(now, g.last)
	if l.PerSecond == 0 {
		from = now
	}
	g.limits = slices.DeleteFunc(g.limits, func(s since) bool { return s.from.After(from) })
	g.limits = append(g.limits, since{from, l})
	if before.PerSecond == 0 {
		g.empty = append(g.empty, from)
	}
}

// lease is set, for a limit that lets nothing through from until on.
func (g *ledger) lease(l Limit, until, now time.Time) {
	g.set(l, now)
	if l.PerSecond != 0 && until.After(later(now, g.last)) {
		g.limits = append(g.limits, since{until, Limit{PerSecond: -1, Burst: max(l.Burst, 1)}})
	}
}

func (g *ledger) take(slot time.Time) {
	g.slots = append(g.slots, slot)
	g.last = later(g.last, slot)
}

// allowed integrates the rate over [a, b]; burst is the greatest in force at a.
func (g *ledger) allowed(a, b time.Time) (tokens float64, burst int) {
	for i, s := range g.limits {
		until := b
		if i+1 < len(g.limits) {
			until = g.limits[i+1].from
		}
		if !s.from.After(a) && !until.Before(a) {
			burst = max(burst, s.limit.Burst)
		}
		from := later(s.from, a)
		if until.After(b) {
			until = b
		}
		if until.Before(from) {
			continue
		}
		if s.limit.PerSecond == 0 {
			return math.Inf(1), burst
		}
		tokens += until.Sub(from).Seconds() * max(0, s.limit.PerSecond)
	}
	return tokens, burst
}

// check holds every window to the limits: the tokens made in it and a full bucket at its start, or none where the
// bucket had to be empty.
func (g *ledger) check(t interface{ Fatalf(string, ...any) }, name string) {
	const epsilon = 1e-6
	slices.SortFunc(g.slots, time.Time.Compare)
	for i := range g.slots {
		for j := i; j < len(g.slots); j++ {
			a, b := g.slots[i], g.slots[j]
			tokens, burst := g.allowed(a, b)
			if n := j - i + 1; float64(n) > float64(burst)+tokens+epsilon {
				t.Fatalf("%s: %d slots between %v and %v; the limits %v allow %d + %.6f", name, n, a.Sub(epoch), b.Sub(epoch), g.limits, burst, tokens)
			}
		}
	}
	for _, start := range g.empty {
		n := 0
		for _, s := range g.slots {
			if !s.After(start) {
				continue
			}
			n++
			if tokens, _ := g.allowed(start, s); float64(n) > tokens+epsilon {
				t.Fatalf("%s: %d slots between %v, when it was empty, and %v; %.6f tokens were made", name, n, start.Sub(epoch), s.Sub(epoch), tokens)
			}
		}
	}
}

// world is a budget and what a test knows of its scopes.
type world struct {
	b               *Budget
	now             time.Time
	waba, hour, app *ledger
	phones          map[string]*ledger
	pairs           map[[2]string]*pairLedger

	until        time.Time
	wabaSet      Limit
	wabaUntil    time.Time
	sets         map[string]Limit
	blocks       map[string]time.Time
	names, users []string
	every        map[string]time.Duration
	burst        map[string]int
}

// pairLedger counts what one recipient got and did not give back.
type pairLedger struct{ slots []time.Time }

// check holds every window to burst + T / every, and those from since on to what was left of the burst then.
func (g *pairLedger) check(t interface{ Fatalf(string, ...any) }, name string, every time.Duration, burst int, since time.Time) {
	slices.SortFunc(g.slots, time.Time.Compare)
	for i := range g.slots {
		for j := i; j < len(g.slots); j++ {
			if n, d := j-i+1, g.slots[j].Sub(g.slots[i]); float64(n) > float64(burst)+float64(d)/float64(every)+1e-6 {
				t.Fatalf("pair %s: %d slots within %v from %v; 1 per %v and burst %d", name, n, d, g.slots[i].Sub(epoch), every, burst)
			}
		}
		d := g.slots[i].Sub(since)
		if left := float64(burst - (burst+1)/2); !since.IsZero() && float64(i+1) > left+float64(d)/float64(every)+1e-6 {
			t.Fatalf("pair %s: %d slots in the first %v of an owner; 1 per %v and burst %d", name, i+1, d, every, burst)
		}
	}
}

func TestEveryWindowKeepsTheLimitsOfEveryScope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{now: epoch, phones: map[string]*ledger{}, pairs: map[[2]string]*pairLedger{}, sets: map[string]Limit{}, blocks: map[string]time.Time{}, every: map[string]time.Duration{}, burst: map[string]int{}}
		w.wabaSet = limits().Draw(t, "WABA")
		w.b = NewBudget(w.wabaSet, w.now)
		w.waba, w.hour, w.app = newLedger(w.wabaSet, w.now), newLedger(Limit{}, w.now), newLedger(Limit{}, w.now)
		w.users = []string{"", "a", "b"}
		for _, name := range []string{"0", "1", "2"}[:rapid.IntRange(1, 3).Draw(t, "phones")] {
			l := limits().Draw(t, "phone")
			w.b.SetPhone(name, l, w.now)
			w.sets[name], w.phones[name] = l, newLedger(l, w.now)
			w.names = append(w.names, name)
			w.every[name] = rapid.SampledFrom([]time.Duration{0, 60 * time.Millisecond, time.Second, 6 * time.Second}).Draw(t, "every")
			w.burst[name] = rapid.SampledFrom([]int{1, 2, 5, 45}).Draw(t, "pair burst")
			w.b.SetPair(name, w.every[name], w.burst[name], epoch, w.now)
		}
		lead := rapid.SampledFrom([]time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, time.Hour}).Draw(t, "lead")
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			w.step(t, lead)
			w.follow(t)
		}
		w.waba.check(t, "WABA")
		w.hour.check(t, "WABA's hour")
		w.app.check(t, "app share")
		for name, g := range w.phones {
			g.check(t, "phone "+name)
		}
		for key, g := range w.pairs {
			if every := w.every[key[0]]; every > 0 {
				g.check(t, key[0]+"/"+key[1], every, w.burst[key[0]], epoch)
			}
		}
	})
}

// follow notes the rates in force, which throttles, usage and inbound traffic move below the configured ones.
func (w *world) follow(t *rapid.T) {
	w.b.refresh(w.now)
	check := func(s *scope, name string, conf Limit, g *ledger) {
		if conf.PerSecond > 0 && (s.limit.PerSecond > conf.PerSecond || s.limit.PerSecond < leastShare*conf.PerSecond*(1-1e-9)) {
			t.Fatalf("%s: %v in force of %v", name, s.limit, conf)
		}
		if !s.moves(w.now) && s.inbound == 0 && s.limit.PerSecond != conf.PerSecond {
			t.Fatalf("%s: %v in force, configured %v", name, s.limit, conf)
		}
		if s.lim == nil {
			g.set(Limit{}, w.now)
			return
		}
		g.set(s.limit, w.now)
	}
	check(w.b.waba, "WABA", w.wabaSet, w.waba)
	for name, g := range w.phones {
		check(&w.b.phones[name].scope, "phone "+name, w.sets[name], g)
	}
}

func (w *world) step(t *rapid.T, lead time.Duration) {
	phone := rapid.SampledFrom(w.names).Draw(t, "which")
	switch rapid.IntRange(0, 35).Draw(t, "what") {
	case 0:
		w.wabaSet = limits().Draw(t, "new")
		w.b.SetWABA(w.wabaSet, w.now)
	case 1, 2:
		w.sets[phone] = limits().Draw(t, "new")
		w.b.SetPhone(phone, w.sets[phone], w.now)
	case 3:
		w.wabaUntil = w.now.Add(pauses().Draw(t, "block"))
		w.b.BlockWABA(w.wabaUntil)
	case 4:
		w.blocks[phone] = w.now.Add(pauses().Draw(t, "block"))
		w.b.BlockPhone(phone, w.blocks[phone])
	case 5, 6, 7, 8, 9, 10:
		w.now = w.now.Add(pauses().Draw(t, "pass"))
	case 11:
		perHour := rapid.SampledFrom([]float64{0, 200, 3600, 1e6}).Draw(t, "per hour")
		w.b.SetWABAHour(perHour, w.now)
		w.hour.set(Limit{PerSecond: perHour / 3600}, w.now)
	case 12, 13, 14:
		l := rapid.SampledFrom([]Limit{{}, {PerSecond: 5}, {PerSecond: 50, Burst: 3}, {PerSecond: 50, Burst: 3}}).Draw(t, "share")
		until := w.now.Add(pauses().Draw(t, "lease"))
		if rapid.IntRange(0, 4).Draw(t, "no app") == 0 {
			l, until = Limit{}, time.Time{}
		}
		w.b.SetApp(l, until, w.now)
		w.until = until
		if !until.IsZero() && (l.PerSecond == 0 || !until.After(w.now)) {
			l, w.until = Limit{PerSecond: -1, Burst: w.app.limits[len(w.app.limits)-1].limit.Burst}, w.now
		}
		w.app.lease(l, w.until, w.now)
	case 15:
		slowed, ok := w.b.SlowPhone(phone, w.now)
		if ok != (w.sets[phone].PerSecond > 0) || (ok && slowed.At.After(w.now)) {
			t.Fatalf("slowed to %v, %v, of %v", slowed, ok, w.sets[phone])
		}
	case 16:
		w.b.SlowWABA(w.now)
	case 17:
		w.b.RestorePhone(phone, Slowed{Ceiling: rapid.Float64Range(-1, 100).Draw(t, "ceiling"), At: w.now.Add(-pauses().Draw(t, "ago"))}, w.now)
	case 18:
		w.b.SetInbound(phone, rapid.Float64Range(-1, 100).Draw(t, "inbound"), w.now)
	case 19:
		w.b.UsageWABA(rapid.Float64Range(0, 120).Draw(t, "usage"), w.now)
	case 20, 21:
		w.giveBack(t, phone)
	default:
		w.take(t, phone, lead)
	}
}

func (w *world) take(t *rapid.T, phone string, lead time.Duration) {
	user := rapid.SampledFrom(w.users).Draw(t, "user")
	slot, ok := w.b.Earliest(phone, user, w.now)
	if !ok || slot.Before(w.now) {
		t.Fatalf("phone %s at %v got %v, %v", phone, w.now.Sub(epoch), slot.Sub(epoch), ok)
	}
	if slot.Before(w.wabaUntil) || slot.Before(w.blocks[phone]) {
		t.Fatalf("a slot at %v within a block until %v, %v", slot.Sub(epoch), w.wabaUntil.Sub(epoch), w.blocks[phone].Sub(epoch))
	}
	if until, blocked := w.b.Blocked(phone, w.now); blocked != (w.wabaUntil.After(w.now) || w.blocks[phone].After(w.now)) || (blocked && slot.Before(until)) {
		t.Fatalf("blocked %v until %v; the slot is %v", blocked, until.Sub(epoch), slot.Sub(epoch))
	}
	if slot.Sub(w.now) > lead {
		return
	}
	if !w.until.IsZero() && !slot.Before(w.until) {
		t.Fatalf("a slot at %v; the share of the app's calls ends at %v", slot.Sub(epoch), w.until.Sub(epoch))
	}
	w.b.Take(phone, user, slot)
	for _, g := range []*ledger{w.waba, w.hour, w.app, w.phones[phone]} {
		g.take(slot)
	}
	if user != "" {
		key := [2]string{phone, user}
		if w.pairs[key] == nil {
			w.pairs[key] = &pairLedger{}
		}
		w.pairs[key].slots = append(w.pairs[key].slots, slot)
	}
}

// giveBack returns the token of any one of a recipient's tries of the last minute.
func (w *world) giveBack(t *rapid.T, phone string) {
	user := rapid.SampledFrom(w.users[1:]).Draw(t, "user")
	g := w.pairs[[2]string{phone, user}]
	if g == nil || len(g.slots) == 0 {
		return
	}
	i := rapid.IntRange(0, len(g.slots)-1).Draw(t, "try")
	if w.now.Sub(g.slots[i]) < refundWindow {
		w.b.phones[phone].pairs.giveBack(user, w.now)
		g.slots = slices.Delete(g.slots, i, i+1)
	}
}
