package limiter

import (
	"fmt"
	"math"

	"testing"
	"time"

	"pgregory.net/rapid"
)

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
				if slot, ok := asked.Earliest("held", "", now); !ok || slot.Before(epoch.Add(time.Hour)) {
					t.Fatalf("a held phone got %v", slot.Sub(epoch))
				}
				asked.Earliest("a", "", now.Add(pauses().Draw(t, "ahead")))
			}
			got, _ := asked.Earliest("a", "", now)
			want, _ := quiet.Earliest("a", "", now)
			if !got.Equal(want) {
				t.Fatalf("asking moved a slot from %v to %v", want.Sub(epoch), got.Sub(epoch))
			}
			asked.Take("a", "", got)
			quiet.Take("a", "", want)
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
				at, _ := b.Earliest(fmt.Sprint(i), "", now)
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
			b.Take(fmt.Sprint(best), "", slot)
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
			b := &bucket{last: epoch}
			b.set(Limit{PerSecond: perSecond, Burst: burst}, epoch)
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
	if _, ok := b.Earliest("1", "", epoch); ok {
		t.Error("a phone number that was never set got a slot")
	}
	b.BlockPhone("1", epoch.Add(time.Hour)) // of an unknown phone number: nothing to hold
	if _, blocked := b.Blocked("1", epoch); blocked {
		t.Error("an unknown phone number counts as blocked")
	}
	for _, none := range []float64{0, -1, math.Inf(1)} {
		b.SetPhone("1", Limit{PerSecond: none, Burst: 1}, epoch)
		for range 3 {
			slot, ok := b.Earliest("1", "", epoch)
			if !ok || !slot.Equal(epoch) {
				t.Errorf("%v/s: slot %v, %v; want one now", none, slot, ok)
			}
			b.Take("1", "", slot)
		}
	}
	b.SetPhone("1", Limit{PerSecond: 1e-300, Burst: 1}, epoch)
	if slot, ok := b.Earliest("1", "", epoch); !ok || slot.Sub(epoch) < 50*365*24*time.Hour {
		t.Errorf("1e-300/s: slot %v after the start, %v", slot.Sub(epoch), ok)
	}
	b.RemovePhone("1")
	if _, ok := b.Earliest("1", "", epoch); ok {
		t.Error("a phone number that was removed got a slot")
	}
}

// A share that is renewed every second, in time or with a gap, is used while it lasts.
func TestAShareIsUsed(t *testing.T) {
	for _, gap := range []time.Duration{0, 500 * time.Millisecond} {
		b := NewBudget(Limit{}, epoch)
		b.SetPhone("1", Limit{PerSecond: 80}, epoch)
		const perSecond, seconds = 50, 60
		lease := time.Second - gap
		if gap == 0 {
			lease = 3 * time.Second
		}
		n := 0
		for i := range seconds {
			now := epoch.Add(time.Duration(i) * time.Second)
			b.SetApp(Limit{PerSecond: perSecond, Burst: 1}, now.Add(lease), now)
			for end := now.Add(time.Second); ; n++ {
				slot, _ := b.Earliest("1", "", now)
				if !slot.Before(end) {
					break
				}
				b.Take("1", "", slot)
			}
		}
		if most := perSecond * seconds * float64(time.Second-gap) / float64(time.Second); float64(n) > most+1 || float64(n) < 0.98*most {
			t.Errorf("gaps of %v: %d slots of %v", gap, n, most)
		}
	}
}
