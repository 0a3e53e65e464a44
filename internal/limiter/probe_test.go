package limiter

import (
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// keepAsking keeps n tries of a phone number waiting; every grant goes to the channel.
func keepAsking(t *testing.T, wg *sync.WaitGroup, l *Line, phone string, n int) chan Grant {
	out := make(chan Grant, 10_000)
	for range n {
		wg.Go(func() {
			for {
				g, err := l.Wait(t.Context(), Request{Phone: phone, Priority: 2})
				if err != nil {
					return
				}
				out <- g
				time.Sleep(time.Until(g.Slot) + 10*time.Millisecond) //nolint:forbidigo // in a synctest bubble
			}
		})
	}
	return out
}

// one asserts that exactly one slot was given, a probe, and returns it.
func one(t *testing.T, from chan Grant, notBefore time.Time) Grant {
	t.Helper()
	synctest.Wait()
	if len(from) != 1 {
		t.Fatalf("%d slots were given, want the probe's", len(from))
	}
	g := <-from
	if !g.Probe || g.Slot.Before(notBefore) {
		t.Fatalf("slot %v after the pause, probe %v", g.Slot.Sub(notBefore), g.Probe)
	}
	return g
}

func TestOneProbeGoesOut(t *testing.T) {
	for name, scope := range map[string]struct {
		phone bool
		limit Limit
	}{
		"phone":                 {true, Limit{PerSecond: 100}},
		"phone without a limit": {true, Limit{}},
		"WABA":                  {false, Limit{PerSecond: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLine(Limit{}, map[string]Limit{"1": scope.limit})
				var wg sync.WaitGroup
				defer wg.Wait()
				defer l.Close()
				pass := func(d time.Duration) {
					time.Sleep(d) //nolint:forbidigo // in a synctest bubble
					synctest.Wait()
				}
				throttle := func(until time.Time) {
					l.Update(func(b *Budget, _ time.Time) {
						if scope.phone {
							b.BlockPhone("1", until)
							b.ProbePhone("1")
						} else {
							b.BlockWABA(until)
							b.ProbeWABA()
						}
					})
				}
				old, err := l.Wait(t.Context(), Request{Phone: "1"})
				if err != nil {
					t.Fatal(err)
				}
				if old.Probe || l.Stale("1", old) {
					t.Error("an ordinary grant is a probe or stale")
				}
				until := time.Now().Add(5 * time.Second)
				throttle(until)
				if !l.Stale("1", old) {
					t.Error("a grant from before the throttle is not stale")
				}
				granted := keepAsking(t, &wg, l, "1", 20)
				pass(8 * time.Second)
				probe := one(t, granted, until)
				if l.Stale("1", probe) {
					t.Error("the probe is stale")
				}
				throttle(until) // the same pause, read again: it was probed
				pass(time.Second)
				if len(granted) != 0 {
					t.Fatalf("%d slots while the probe is out", len(granted))
				}
				l.Unsent("1") // it never went: the next one is the probe
				now := time.Now()
				one(t, granted, now)
				pass(time.Millisecond)
				l.Answered("1", false) // refused; its pause comes a moment later
				pass(10 * time.Millisecond)
				until = time.Now().Add(200 * time.Millisecond)
				throttle(until)
				pass(300 * time.Millisecond)
				one(t, granted, until)
				l.Answered("2", true) // of another phone number
				pass(time.Second)
				if len(granted) != 0 {
					t.Fatalf("%d slots while the probe is out", len(granted))
				}
				l.Answered("1", true)
				pass(time.Second)
				if n := len(granted); n < 100 {
					t.Errorf("%d slots in the second after the probe passed", n)
				}
				l.Unsent("1") // nothing is out
			})
		})
	}
}

func TestAProbeWithoutAnAnswerPasses(t *testing.T) {
	b := NewBudget(Limit{}, epoch)
	b.SetPhone("1", Limit{}, epoch)
	b.ProbePhone("1")
	b.Take("1", "", epoch)
	if slot, _ := b.Earliest("1", "", epoch); slot.Sub(epoch) != probeTimeout {
		t.Errorf("the slot after a probe without an answer comes after %v", slot.Sub(epoch))
	}
	if g := b.Take("1", "", epoch.Add(probeTimeout)); g.Probe {
		t.Error("a second probe")
	}
	if slot, _ := b.Earliest("1", "", epoch.Add(probeTimeout)); slot.Sub(epoch) != probeTimeout {
		t.Errorf("and the one after that after %v", slot.Sub(epoch))
	}
	for _, ok := range []bool{true, false} { // late: of no probe
		if b.phones["1"].answered("1", ok, epoch.Add(11*time.Second)) {
			t.Error("an answer ended a probe that had passed")
		}
	}
}

// The rate in force falls to half with a throttle and reaches the bucket as it grows, without anybody calling.
func TestASlowedRateGrowsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: 0.2}, "2": {PerSecond: 80}})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer l.Close()
		granted := keepAsking(t, &wg, l, "2", 40)
		time.Sleep(10 * time.Second) //nolint:forbidigo // in a synctest bubble
		at := time.Now()
		l.Update(func(b *Budget, now time.Time) {
			if s, ok := b.SlowPhone("2", now); !ok || s != (Slowed{Ceiling: 80, At: now}) {
				t.Errorf("slowed: %v, %v", s, ok)
			}
			if s, _ := b.SlowPhone("2", now); s.Ceiling != 80 {
				t.Errorf("a second throttle at once: %v", s)
			}
			if _, ok := b.SlowPhone("unknown", now); ok {
				t.Error("an unknown phone number was slowed")
			}
			if _, ok := b.SlowWABA(now); ok {
				t.Error("a WABA without a limit was slowed")
			}
		})
		if s := l.State("2").Phone; s.Configured != 80 || s.InForce != 40 || s.Ceiling != 80 || !s.SlowedAt.Equal(at) {
			t.Errorf("state after the throttle: %+v", s)
		}
		for len(granted) > 0 {
			<-granted
		}
		time.Sleep(10 * time.Second) //nolint:forbidigo // in a synctest bubble
		// The integral of the curve over its first half: 80 × 10 - 40 × 20 × (1 - 1/16) / 4.
		if n := float64(len(granted)); math.Abs(n-612.5) > 20 {
			t.Errorf("%v slots in the first 10 s, want about 612", n)
		}
		if s := l.State("2").Phone; math.Abs(s.InForce-75) > 1 {
			t.Errorf("%v/s in force after 10 s, want 75", s.InForce)
		}
		time.Sleep(11 * time.Second) //nolint:forbidigo // in a synctest bubble
		if s := l.State("2").Phone; s.InForce != 80 || s.Ceiling != 0 || !s.SlowedAt.IsZero() {
			t.Errorf("state after 21 s: %+v", s)
		}
		// A try that waits already sees the growth: at 0.1/s its token would take 10 s.
		if _, err := l.Wait(t.Context(), Request{Phone: "1"}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		l.Update(func(b *Budget, now time.Time) { b.SlowPhone("1", now) })
		g, err := l.Wait(t.Context(), Request{Phone: "1"})
		if err != nil {
			t.Fatal(err)
		}
		if after := g.Slot.Sub(start); after < 6900*time.Millisecond || after > 7300*time.Millisecond {
			t.Errorf("the slot came after %v, want 7.1 s", after)
		}
	})
}

func TestASlowingOutlivesItsOwner(t *testing.T) {
	first, next := NewBudget(Limit{PerSecond: 50}, epoch), NewBudget(Limit{PerSecond: 50}, epoch)
	first.SetPhone("1", Limit{PerSecond: 80}, epoch)
	next.SetPhone("1", Limit{PerSecond: 80}, epoch)
	phone, _ := first.SlowPhone("1", epoch)
	waba, _ := first.SlowWABA(epoch)
	now := epoch.Add(7 * time.Second)
	next.RestorePhone("1", phone, now)
	next.RestoreWABA(waba, now)
	next.RestorePhone("1", Slowed{Ceiling: 1, At: epoch.Add(-time.Second)}, now) // older than what is known
	next.RestorePhone("2", phone, now)
	first.refresh(now)
	a, b := first.State("1", now), next.State("1", now)
	if a.Phone.InForce != b.Phone.InForce || a.WABA.InForce != b.WABA.InForce || b.Phone.InForce >= 80 || b.WABA.InForce >= 50 {
		t.Errorf("in force %v and %v before, %v and %v after", a.Phone.InForce, a.WABA.InForce, b.Phone.InForce, b.WABA.InForce)
	}
}

func TestInboundTrafficUsesTheThroughput(t *testing.T) {
	b := NewBudget(Limit{}, epoch)
	b.SetPhone("1", Limit{PerSecond: 80}, epoch)
	for inbound, want := range map[float64]float64{0: 80, 30: 50, 79: 4, 500: 4, -1: 80, math.NaN(): 80} {
		b.SetInbound("1", inbound, epoch)
		if got := b.State("1", epoch).Phone.InForce; got != want {
			t.Errorf("%v in: %v/s, want %v", inbound, got, want)
		}
	}
	b.SetInbound("unknown", 1, epoch)
}

func TestUsageSlowsBeforeARefusal(t *testing.T) {
	b := NewBudget(Limit{PerSecond: 100}, epoch)
	b.SetPhone("1", Limit{}, epoch)
	now := epoch
	inForce := func(want float64) {
		t.Helper()
		b.refresh(now)
		if got := b.State("1", now).WABA.InForce; math.Abs(got-want) > 1e-6 {
			t.Errorf("%v after: %v/s in force, want %v", now.Sub(epoch), got, want)
		}
	}
	for _, tc := range []struct{ percent, want float64 }{{10, 100}, {75, 100}, {87.5, 52.5}, {100, 5}, {130, 5}} {
		b.UsageWABA(tc.percent, now)
		inForce(tc.want)
	}
	now = now.Add(time.Second)
	b.UsageWABA(0, now) // lower: it grows by a doubling in 10 s
	inForce(5 * math.Exp2(0))
	now = now.Add(20 * time.Second)
	inForce(20)
	now = now.Add(30 * time.Second)
	inForce(100)
	b.UsageWABA(100, now)
	now = now.Add(usageLife - time.Second)
	inForce(5)
	now = now.Add(11 * time.Second) // the reading is over since 10 s
	inForce(10)

	// Without a limit of its own the base is what went out.
	b, now = NewBudget(Limit{}, epoch), epoch
	b.SetPhone("1", Limit{}, now)
	for range 200 {
		now = now.Add(50 * time.Millisecond)
		b.Take("1", "", now)
	}
	now = now.Add(time.Millisecond)
	b.UsageApp(87.5, now)
	if got := b.State("1", now).App; math.Abs(got.InForce-20*0.525) > 0.2 || got.Configured != 0 {
		t.Errorf("the app's calls: %+v, want 52.5 %% of 20/s in force", got)
	}
	b.UsageWABA(100, now.Add(time.Hour)) // nothing went out
	if got := b.State("1", now.Add(time.Hour)).WABA.InForce; math.Abs(got-leastShare) > 1e-9 {
		t.Errorf("%v/s in force, want 5 %% of one", got)
	}
}

func TestAppSharesAndHourBoundTheLead(t *testing.T) {
	for name, limit := range map[string]func(*Budget, time.Time){
		"app":  func(b *Budget, now time.Time) { b.SetApp(Limit{PerSecond: 2}, now.Add(time.Hour), now) },
		"hour": func(b *Budget, now time.Time) { b.SetWABAHour(7200, now) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLine(Limit{}, map[string]Limit{"1": {}})
				defer l.Close()
				l.Update(limit)
				for range 5 {
					g, err := l.Wait(t.Context(), Request{Phone: "1"})
					if err != nil {
						t.Fatal(err)
					}
					if ahead := time.Until(g.Slot); ahead > sharedLead || ahead < sharedLead-time.Microsecond {
						t.Errorf("a slot %v ahead, want %v", ahead, sharedLead)
					}
				}
			})
		})
	}
}

func TestStateReadsWell(t *testing.T) {
	b := NewBudget(Limit{PerSecond: 50, Burst: 2}, epoch)
	b.SetPhone("1", Limit{PerSecond: 80}, epoch)
	b.SetWABAHour(200, epoch)
	b.SetApp(Limit{PerSecond: 10}, epoch.Add(3*time.Second), epoch)
	b.BlockPhone("1", epoch.Add(time.Minute))
	b.ProbePhone("1")
	now := epoch.Add(time.Second)
	s := b.State("1", now)
	if s.WABA.Tokens != 2 || s.Phone.Tokens != 1 || !s.Phone.Probing || !s.Phone.BlockedUntil.Equal(epoch.Add(time.Minute)) || s.WABAHour.InForce != 200 || !s.App.Leased {
		t.Errorf("%+v", s)
	}
	text, err := json.Marshal(s)
	if err != nil || strings.Contains(string(text), "0001-01-01") || !strings.Contains(string(text), `"in_force":50`) {
		t.Errorf("%s, %v", text, err)
	}
	if s := b.State("1", epoch.Add(3*time.Second)).App; s.InForce != 0 || s.Configured != 10 {
		t.Errorf("a share that is over: %+v", s)
	}
	if slot, ok := b.Earliest("1", "", epoch.Add(2*time.Hour)); !ok || slot.Sub(epoch) < 24*time.Hour {
		t.Errorf("a slot after %v without a share", slot.Sub(epoch))
	}
}

func TestAShareMakesNothingWhileItIsOver(t *testing.T) {
	b := NewBudget(Limit{}, epoch)
	b.SetPhone("1", Limit{}, epoch)
	share, now := Limit{PerSecond: 1, Burst: 10}, epoch
	atOnce := func(want int) {
		t.Helper()
		if n, _ := takeNow(b, "", now); n != want {
			t.Errorf("%v after: %d at once, want %d", now.Sub(epoch), n, want)
		}
	}
	b.SetApp(share, now.Add(3*time.Second), now)
	atOnce(0)
	now = epoch.Add(2 * time.Second)
	atOnce(2)
	now = epoch.Add(8 * time.Second) // over since 5 s
	b.refresh(now)
	b.UsageApp(10, now)
	atOnce(0)
	b.SetApp(share, now.Add(3*time.Second), now)
	atOnce(1) // of its third second
	b.SetApp(Limit{}, now.Add(3*time.Second), now)
	now = now.Add(time.Second)
	atOnce(0)
	b.SetApp(share, now.Add(3*time.Second), now)
	now = now.Add(time.Second)
	atOnce(1)
	b.SetApp(share, now, now) // over before it begins
	atOnce(0)
	b.SetApp(Limit{}, time.Time{}, now)
	atOnce(1000)
	b.SetApp(share, now.Add(time.Second), now)
	atOnce(0)
	b.SetApp(Limit{}, now.Add(time.Second), now)
	b.SetApp(Limit{}, time.Time{}, now) // from a share of zero to none
	atOnce(1000)
}
