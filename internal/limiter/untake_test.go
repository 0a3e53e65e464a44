package limiter

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A slot that passed unused costs its scope nothing but the time, and what goes out keeps the limit.
func TestASlotNotUsedComesBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := NewBudget(Limit{}, now)
	b.SetPhone("1", Limit{PerSecond: 0.2}, now)
	b.SetWABAHour(3600, now)
	first, _ := b.Earliest("1", "", now)
	b.Take("1", "", first)
	second, _ := b.Earliest("1", "", first)
	b.Take("1", "", second)
	late := second.Add(80 * time.Millisecond)
	b.untake("1", second)
	b.untake("1", second) // once only
	again, _ := b.Earliest("1", "", late)
	if !again.Equal(late) {
		t.Errorf("after a missed slot the next one comes in %v, want at once", again.Sub(late))
	}
	b.Take("1", "", again)
	third, _ := b.Earliest("1", "", again)
	if d := third.Sub(again); d < 5*time.Second || d > 5*time.Second+time.Millisecond {
		t.Errorf("the one after it %v later, want 5 s", d)
	}
	// With a later slot taken, or the limit changed, the token is gone.
	b.Take("1", "", third)
	b.untake("1", again)
	if next, _ := b.Earliest("1", "", third); next.Sub(third) < 5*time.Second {
		t.Errorf("an older slot came back: the next one %v after the newest", next.Sub(third))
	}
}

// Whatever slots are missed, the ones used keep burst + rate in every window.
func TestMissedSlotsKeepTheLimit(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a test
		now := time.Unix(1_800_000_000, 0)
		limit := Limit{PerSecond: []float64{0.5, 5, 50}[rng.IntN(3)], Burst: 1 + rng.IntN(3)}
		b := NewBudget(limit, now)
		b.SetPhone("1", Limit{}, now)
		g := newLedger(limit, now)
		var ahead []time.Time
		for range 400 {
			slot, _ := b.Earliest("1", "", now)
			b.Take("1", "", slot)
			ahead = append(ahead, slot)
			if rng.IntN(3) > 0 && len(ahead) < 4 {
				continue
			}
			for _, s := range ahead {
				if rng.IntN(4) == 0 {
					b.untake("1", s)
					continue
				}
				g.take(s)
			}
			now = later(now, ahead[len(ahead)-1]).Add(time.Duration(rng.IntN(50)) * time.Millisecond)
			ahead = ahead[:0]
		}
		g.check(t, "WABA")
	}
}
