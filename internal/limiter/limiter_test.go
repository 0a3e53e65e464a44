package limiter

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)

// ledger is what a test knows of one scope: which limits were in force from when, and which slots went out.
type ledger struct {
	limits  []since
	empty   []time.Time // instants at which the bucket had to be empty
	slots   []time.Time
	last    time.Time
	blocked time.Time
}

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
		g.limits = slices.DeleteFunc(g.limits, func(s since) bool { return s.from.After(now) })
	}
	g.limits = append(g.limits, since{from, l})
	if before.PerSecond == 0 {
		g.empty = append(g.empty, from)
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
		tokens += until.Sub(from).Seconds() * s.limit.PerSecond
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

func limits() *rapid.Generator[Limit] {
	return rapid.Custom(func(t *rapid.T) Limit {
		perSecond := rapid.OneOf(
			rapid.SampledFrom([]float64{0, 0.2, 1, 5, 10, 76.8, 80, 150, 1000}),
			rapid.Float64Range(0.05, 2000),
		).Draw(t, "per second")
		return Limit{PerSecond: perSecond, Burst: rapid.SampledFrom([]int{0, 1, 1, 2, 8, 80}).Draw(t, "burst")}
	})
}

func pauses() *rapid.Generator[time.Duration] {
	return rapid.OneOf(
		rapid.Just(time.Duration(0)),
		rapid.Map(rapid.Int64Range(0, int64(20*time.Millisecond)), func(n int64) time.Duration { return time.Duration(n) }),
		rapid.Map(rapid.Int64Range(0, int64(3*time.Second)), func(n int64) time.Duration { return time.Duration(n) }),
	)
}

func TestEveryWindowKeepsTheLimitsOfEveryScope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := epoch
		wabaLimit := limits().Draw(t, "WABA")
		b := NewBudget(wabaLimit, now)
		waba := newLedger(wabaLimit, now)
		phones := map[string]*ledger{}
		var names []string
		for i := range rapid.IntRange(1, 4).Draw(t, "phones") {
			name := fmt.Sprint(i)
			l := limits().Draw(t, "phone")
			b.SetPhone(name, l, now)
			phones[name] = newLedger(l, now)
			names = append(names, name)
		}
		lead := rapid.SampledFrom([]time.Duration{0, 200 * time.Millisecond, 400 * time.Millisecond, time.Hour}).Draw(t, "lead")
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			phone := rapid.SampledFrom(names).Draw(t, "which")
			g := phones[phone]
			switch rapid.IntRange(0, 19).Draw(t, "what") {
			case 0:
				l := limits().Draw(t, "new")
				b.SetWABA(l, now)
				waba.set(l, now)
			case 1, 2:
				l := limits().Draw(t, "new")
				b.SetPhone(phone, l, now)
				g.set(l, now)
			case 3:
				waba.blocked = now.Add(pauses().Draw(t, "block"))
				b.BlockWABA(waba.blocked)
			case 4:
				g.blocked = now.Add(pauses().Draw(t, "block"))
				b.BlockPhone(phone, g.blocked)
			case 5, 6, 7, 8:
				now = now.Add(pauses().Draw(t, "pass"))
			default:
				slot, ok := b.Earliest(phone, now)
				if !ok || slot.Before(now) {
					t.Fatalf("phone %s at %v got %v, %v", phone, now.Sub(epoch), slot.Sub(epoch), ok)
				}
				if slot.Before(waba.blocked) || slot.Before(g.blocked) {
					t.Fatalf("a slot at %v within a block until %v, %v", slot.Sub(epoch), waba.blocked.Sub(epoch), g.blocked.Sub(epoch))
				}
				if until, blocked := b.Blocked(phone, now); blocked != (waba.blocked.After(now) || g.blocked.After(now)) || (blocked && slot.Before(until)) {
					t.Fatalf("blocked %v until %v; the slot is %v", blocked, until.Sub(epoch), slot.Sub(epoch))
				}
				if slot.Sub(now) > lead {
					continue
				}
				b.Take(phone, slot)
				waba.take(slot)
				g.take(slot)
			}
		}
		waba.check(t, "WABA")
		for name, g := range phones {
			g.check(t, "phone "+name)
		}
	})
}

// A budget that is asked a lot, for phones that may not send now, gives the others exactly the slots of one that is not.
func TestAskingTakesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wabaLimit, a, held := limits().Draw(t, "WABA"), limits().Draw(t, "phone"), limits().Draw(t, "held phone")
		asked, quiet := NewBudget(wabaLimit, epoch), NewBudget(wabaLimit, epoch)
		asked.SetPhone("a", a, epoch)
		quiet.SetPhone("a", a, epoch)
		asked.SetPhone("held", held, epoch)
		asked.BlockPhone("held", epoch.Add(time.Hour))
		now := epoch
		for range 50 {
			now = now.Add(pauses().Draw(t, "pass"))
			for range rapid.IntRange(0, 3).Draw(t, "asks") {
				if slot, ok := asked.Earliest("held", now); !ok || slot.Before(epoch.Add(time.Hour)) {
					t.Fatalf("a held phone got %v", slot.Sub(epoch))
				}
				asked.Earliest("a", now.Add(pauses().Draw(t, "ahead")))
			}
			got, _ := asked.Earliest("a", now)
			want, _ := quiet.Earliest("a", now)
			if !got.Equal(want) {
				t.Fatalf("asking moved a slot from %v to %v", want.Sub(epoch), got.Sub(epoch))
			}
			asked.Take("a", got)
			quiet.Take("a", want)
		}
	})
}

// With a backlog on every phone, a budget served as Line serves it hands out 98 % of its tightest limit.
func TestABacklogUsesTheTightestLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rates := rapid.Float64Range(0.2, 1000)
		var phoneSum, greatest float64
		perPhone := make([]float64, rapid.IntRange(1, 5).Draw(t, "phones"))
		for i := range perPhone {
			perPhone[i] = rates.Draw(t, "phone")
			phoneSum += perPhone[i]
			greatest = max(greatest, perPhone[i])
		}
		// Between these two a bucket of one token loses fractions: a slot of the WABA comes when no phone's is due.
		perWABA := rapid.SampledFrom([]float64{0, phoneSum * 20, greatest, greatest / 3}).Draw(t, "WABA")
		b := NewBudget(Limit{PerSecond: perWABA, Burst: 1}, epoch)
		for i, r := range perPhone {
			b.SetPhone(fmt.Sprint(i), Limit{PerSecond: r, Burst: 1}, epoch)
		}
		tightest := phoneSum
		if perWABA > 0 {
			tightest = min(tightest, perWABA)
		}
		// Long enough that the empty start of the slowest phone is below half a per cent.
		length := time.Duration(max(400/tightest, 200*float64(len(perPhone))/tightest) * float64(time.Second))
		served := make([]int, len(perPhone))
		n := 0
		for now := epoch; ; n++ {
			best, slot := -1, time.Time{}
			for i := range perPhone {
				at, _ := b.Earliest(fmt.Sprint(i), now)
				if best < 0 || at.Before(slot) || (at.Equal(slot) && served[i] < served[best]) {
					best, slot = i, at
				}
			}
			if slot.Sub(epoch) > length {
				break
			}
			if float64(n) > tightest*length.Seconds()+1 {
				t.Fatalf("%d slots before %v of %v under %v", n, slot.Sub(epoch), perPhone, perWABA)
			}
			b.Take(fmt.Sprint(best), slot)
			served[best] = n + 1
			now = slot
		}
		if want := 0.98 * tightest * length.Seconds(); float64(n) < want {
			t.Fatalf("%d slots in %v, want at least %.1f of %v under %v", n, length, want, perPhone, perWABA)
		}
	})
}

// A slot is an instant at which the rate.Limiter holds its token, for as long as one likes: floats neither delay a slot
// nor let the sum drift.
func TestFloatsNeverDelayASlot(t *testing.T) {
	for _, perSecond := range []float64{0.2, 1.0 / 3600, 76.8, 80, 150, 1000, 1e6 / 7} {
		for _, burst := range []int{1, 8} {
			b := newBucket(Limit{PerSecond: perSecond, Burst: burst}, epoch)
			now := epoch
			const slots = 100_000
			var worst time.Duration
			for range slots {
				now = b.earliest(now)
				r := b.lim.ReserveN(now, 1)
				b.last = now
				worst = max(worst, r.DelayFrom(now))
			}
			if worst > 0 {
				t.Errorf("%v/s, burst %d: a slot came %v before its token", perSecond, burst, worst)
			}
			ideal := slots / perSecond
			if took := now.Sub(epoch).Seconds(); took < ideal*(1-1e-9) || took > ideal*(1+1e-9)+slots*2e-9 {
				t.Errorf("%v/s, burst %d: %d slots took %.9f s, want %.9f", perSecond, burst, slots, took, ideal)
			}
		}
	}
}

func TestOddLimits(t *testing.T) {
	b := NewBudget(Limit{}, epoch)
	if _, ok := b.Earliest("1", epoch); ok {
		t.Error("a phone number that was never set got a slot")
	}
	b.BlockPhone("1", epoch.Add(time.Hour)) // of an unknown phone number: nothing to hold
	if _, blocked := b.Blocked("1", epoch); blocked {
		t.Error("an unknown phone number counts as blocked")
	}
	for _, none := range []float64{0, -1, math.Inf(1)} {
		b.SetPhone("1", Limit{PerSecond: none, Burst: 1}, epoch)
		for range 3 {
			slot, ok := b.Earliest("1", epoch)
			if !ok || !slot.Equal(epoch) {
				t.Errorf("%v/s: slot %v, %v; want one now", none, slot, ok)
			}
			b.Take("1", slot)
		}
	}
	b.SetPhone("1", Limit{PerSecond: 1e-300, Burst: 1}, epoch)
	if slot, ok := b.Earliest("1", epoch); !ok || slot.Sub(epoch) < 50*365*24*time.Hour {
		t.Errorf("1e-300/s: slot %v after the start, %v", slot.Sub(epoch), ok)
	}
	b.RemovePhone("1")
	if _, ok := b.Earliest("1", epoch); ok {
		t.Error("a phone number that was removed got a slot")
	}
}
