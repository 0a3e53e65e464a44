package limiter

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// One owner after the other, each with the rows that the grants asked for: no recipient ever gets more than the limit
// allows one owner.
func TestPairsKeepTheirLimitThroughHandOvers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := rapid.SampledFrom([]time.Duration{60 * time.Millisecond, time.Second, 6 * time.Second}).Draw(t, "every")
		burst := rapid.SampledFrom([]int{1, 2, 3, 10, 45}).Draw(t, "burst")
		users := []string{"a", "b"}
		rows := map[string]time.Time{}
		got := map[string]*pairLedger{"a": {}, "b": {}}
		now := epoch
		for range rapid.IntRange(1, 5).Draw(t, "owners") {
			since := now
			b := NewBudget(Limit{}, now)
			b.SetPhone("1", Limit{}, now)
			b.SetPair("1", every, burst, since, now)
			for user, tat := range rows {
				b.LoadPair("1", user, tat, now)
			}
			for range rapid.IntRange(0, 100).Draw(t, "tries") {
				user := rapid.SampledFrom(users).Draw(t, "user")
				switch rapid.IntRange(0, 9).Draw(t, "what") {
				case 0:
					now = now.Add(pauses().Draw(t, "pass"))
				case 1:
					now = now.Add(time.Duration(rapid.IntRange(0, 2*burst).Draw(t, "tokens")) * every)
				default:
					slot, _ := b.Earliest("1", user, now)
					now = slot
					g := b.Take("1", user, slot)
					if !g.PairTAT.IsZero() {
						rows[user] = g.PairTAT
					}
					got[user].slots = append(got[user].slots, slot)
				}
			}
		}
		for user, g := range got {
			g.check(t, user, every, burst, time.Time{})
		}
	})
}

func newPairs(every time.Duration, burst int) *Budget {
	b := NewBudget(Limit{}, epoch)
	b.SetPhone("1", Limit{}, epoch)
	b.SetPair("1", every, burst, epoch, epoch)
	return b
}

// takeNow takes as many slots as the pair allows at now, 1000 at most, and counts the rows they ask for.
func takeNow(b *Budget, recipient string, now time.Time) (n, rows int) {
	for ; n < 1000; n++ {
		slot, _ := b.Earliest("1", recipient, now)
		if slot.After(now) {
			break
		}
		if !b.Take("1", recipient, slot).PairTAT.IsZero() {
			rows++
		}
	}
	return n, rows
}

func TestAFreshOwnerPresumesHalfTheBurst(t *testing.T) {
	b := newPairs(6*time.Second, 45)
	if n, rows := takeNow(b, "a", epoch); n != 22 || rows != 22 {
		t.Errorf("%d at once with %d rows, want 22 of each", n, rows)
	}
	// 23 tokens later what was presumed is over.
	if n, rows := takeNow(b, "b", epoch.Add(23*6*time.Second)); n != 45 || rows != 22 {
		t.Errorf("%d at once with %d rows, want 45 and 22", n, rows)
	}
	if n, rows := takeNow(b, "", epoch); n != 1000 || rows != 0 {
		t.Errorf("without a pair %d with %d rows, want no end", n, rows)
	}
	b.SetPair("1", 0, 45, epoch, epoch)
	if n, _ := takeNow(b, "a", epoch); n != 1000 {
		t.Errorf("%d without a pair limit", n)
	}
	b.SetPair("1", 6*time.Second, 45, epoch, epoch.Add(time.Hour))
	if n, _ := takeNow(b, "a", epoch.Add(time.Hour)); n != 45 {
		t.Errorf("%d at once long after the last slot, want 45", n)
	}
}

func TestPairRowsMergesAndChanges(t *testing.T) {
	late := epoch.Add(time.Hour)
	b := newPairs(time.Second, 10)
	b.LoadPair("1", "a", late.Add(8*time.Second), late)
	b.LoadPair("1", "a", late.Add(7*time.Second), late)
	if n, _ := takeNow(b, "a", late); n != 2 {
		t.Errorf("%d at once with 8 of 10 used by its row, want 2", n)
	}
	for range 4 {
		b.Take("1", "old", late)
		b.Take("1", "new", late)
	}
	if tat := b.MergePair("1", "old", "new", late); !tat.Equal(late.Add(8 * time.Second)) {
		t.Errorf("merged tat %v, want 8 tokens from now", tat.Sub(late))
	}
	if tat := b.MergePair("1", "old", "new", late); !tat.IsZero() {
		t.Errorf("merged again: %v", tat)
	}
	if n, _ := takeNow(b, "new", late); n != 2 {
		t.Errorf("%d at once after 4 + 4 of 10, want 2", n)
	}
	// Ten are used: with tokens of half the length all are back in half the time.
	b.SetPair("1", 500*time.Millisecond, 10, epoch, late)
	if slot, _ := b.Earliest("1", "new", late); slot.Sub(late).Round(time.Microsecond) != 500*time.Millisecond {
		t.Errorf("next slot in %v, want 500 ms", slot.Sub(late))
	}
	if n, _ := takeNow(b, "new", late.Add(5*time.Second+time.Microsecond)); n != 10 {
		t.Errorf("%d at once after 5 s, want 10", n)
	}
	// Absurd settings neither overflow nor let everything through.
	b.SetPair("1", 1<<62, 1<<40, epoch, late)
	if n, _ := takeNow(b, "new", late); n > 10 {
		t.Errorf("%d at once", n)
	}
}

func TestPairsThatAreFullAgainAreForgotten(t *testing.T) {
	b := newPairs(6*time.Second, 45)
	now := epoch
	const perSecond = 80
	for i := range 200_000 {
		now = now.Add(time.Second / perSecond)
		b.Take("1", fmt.Sprint(i), now)
	}
	// Those of the last minute live; as many again may wait for the sweep.
	if n, most := b.State("1", now).Pair.Known, 2*perSecond*60+sweepFrom; n > most {
		t.Errorf("%d pairs known, want at most %d", n, most)
	}
}

func TestAGivenBackTokenIsThereAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {}})
		defer l.Close()
		time.Sleep(time.Hour) //nolint:forbidigo // in a synctest bubble
		l.Update(func(b *Budget, now time.Time) { b.SetPair("1", time.Minute, 1, now.Add(-time.Hour), now) })
		if d := l.Delay("1", "a"); d != 0 {
			t.Errorf("a fresh pair waits %v", d)
		}
		if _, err := l.Wait(t.Context(), Request{Phone: "1", Recipient: "a"}); err != nil {
			t.Fatal(err)
		}
		if d := l.Delay("1", "a"); d != time.Minute {
			t.Errorf("the next one waits %v, want a minute", d)
		}
		if d := l.Delay("1", ""); d != 0 {
			t.Errorf("a try without a pair waits %v", d)
		}
		done := make(chan Grant)
		go func() {
			g, err := l.Wait(t.Context(), Request{Phone: "1", Recipient: "a"})
			if err != nil {
				t.Error(err)
			}
			done <- g
		}()
		synctest.Wait()
		if d := l.Delay("1", "a"); d != 2*time.Minute {
			t.Errorf("the one after that waits %v, want 2 minutes", d)
		}
		start := time.Now()
		l.GiveBack("1", "a")
		if g := <-done; !g.Slot.Equal(start) {
			t.Errorf("it got its slot %v after the token came back", g.Slot.Sub(start))
		}
		l.GiveBack("1", "unknown")
		l.GiveBack("unknown", "a")
	})
}

// 200 tries for one recipient among thousands for others: the others go out at the full rate of the phone number, the
// 200 as their pair allows.
func TestOneRecipientDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			others, many = 3000, 200
			perSecond    = 80
			every        = 200 * time.Millisecond
			burst        = 45
		)
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: perSecond}})
		defer l.Close()
		l.Update(func(b *Budget, now time.Time) {
			b.SetPair("1", every, burst, now, now)
			b.BlockPhone("1", now.Add(time.Hour)) // until all wait
		})
		var all sent
		var wg sync.WaitGroup
		ask := func(recipient, as string, priority int) {
			wg.Go(func() {
				g, err := l.Wait(t.Context(), Request{Phone: "1", Recipient: recipient, Priority: priority})
				if err != nil {
					t.Error(err)
				}
				all.add(as, g.Slot)
				all.add("all", g.Slot)
			})
		}
		for range many {
			ask("one", "one", 1) // even though they come first
		}
		synctest.Wait()
		for i := range others {
			ask(fmt.Sprint(i), "others", 2)
		}
		synctest.Wait()
		start := time.Now()
		l.Update(func(b *Budget, _ time.Time) { b.BlockPhone("1", time.Time{}) })
		wg.Wait()
		end := start.Add(time.Minute)
		if n := all.within("all", start, start.Add((others+many)*time.Second/perSecond+time.Second)); n != others+many {
			t.Errorf("%d of %d went out in the time of the phone number's rate", n, others+many)
		}
		if n := all.within("one", start, end); n != many {
			t.Errorf("the one got %d slots, want %d", n, many)
		}
		g := &pairLedger{slots: all.slots["one"]}
		g.check(t, "one", every, burst, start)
		// It is used fully: the last of the 200 comes when their tokens allow.
		want := start.Add((many - burst/2) * every)
		if last := g.slots[len(g.slots)-1]; last.After(want.Add(100*time.Millisecond)) || last.Before(want.Add(-every)) {
			t.Errorf("the last of the %d came after %v, want %v", many, last.Sub(start), want.Sub(start))
		}
	})
}

// Tries that give up, pairs that change while tries wait for them, and a phone number that is shut leave nothing behind.
func TestWaitingPairsThatChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {}})
		l.Update(func(b *Budget, now time.Time) { b.SetPair("1", time.Hour, 1, now, now) })
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 8)
		ask := func(ctx context.Context, priority int) {
			go func() {
				_, err := l.Wait(ctx, Request{Phone: "1", Recipient: "a", Priority: priority})
				got <- err
			}()
			synctest.Wait()
		}
		ask(ctx, 1)
		ask(t.Context(), 3)
		ask(t.Context(), 2)
		cancel()
		if err := <-got; err == nil {
			t.Error("a try that gave up got a slot")
		}
		if _, waiting := l.Next("1"); waiting != 2 {
			t.Errorf("%d wait, want 2", waiting)
		}
		l.Update(func(b *Budget, now time.Time) { b.SetPair("1", time.Second, 1, now, now) })
		start := time.Now()
		for i := range 2 {
			if err := <-got; err != nil {
				t.Errorf("try %d: %v", i, err)
			}
		}
		if took := time.Since(start).Round(time.Millisecond); took != 2*time.Second-testLead {
			t.Errorf("both had their slots after %v, want a token's second each less the lead", took)
		}
		ask(t.Context(), 1)
		l.Shut("1")
		if err := <-got; err == nil {
			t.Error("a try at a phone number that is shut got a slot")
		}
		if _, waiting := l.Next("1"); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
		l.Close()
	})
}

// Whichever try gives its token back, those that keep theirs stay within the limit.
func TestGivingBackNeverMakesTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const every = 6 * time.Second
		burst := rapid.IntRange(1, 4).Draw(t, "burst")
		now := epoch.Add(time.Hour)
		b := newPairs(every, burst)
		g := &pairLedger{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 && len(g.slots) > 0 {
				i := rapid.IntRange(0, len(g.slots)-1).Draw(t, "try")
				if now.Sub(g.slots[i]) < refundWindow {
					b.phones["1"].pairs.giveBack("a", now)
					g.slots = append(g.slots[:i:i], g.slots[i+1:]...)
				}
				continue
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "seconds")) * time.Second)
			if slot, _ := b.Earliest("1", "a", now); !slot.After(now) {
				b.Take("1", "a", slot)
				g.slots = append(g.slots, slot)
			}
		}
		g.check(t, "a", every, burst, time.Time{})
	})
}

func TestANewerOwnerPresumesAnew(t *testing.T) {
	b := newPairs(time.Second, 10)
	now := epoch.Add(time.Minute)
	if n, _ := takeNow(b, "a", now); n != 10 {
		t.Errorf("%d at once, want 10", n)
	}
	b.SetPair("1", time.Second, 10, now, now)
	if n, _ := takeNow(b, "b", now); n != 5 {
		t.Errorf("%d at once, want 5", n)
	}
}

// Tries whose pairs would have been ready when a pause was to end wait for them when it is lifted before.
func TestALiftedPauseDoesNotLiftThePairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {}})
		defer l.Close()
		start := time.Now()
		l.Update(func(b *Budget, now time.Time) {
			b.SetPair("1", time.Minute, 1, now, now) // each is ready in a minute
			b.LoadPair("1", "late", now.Add(2*time.Minute), now)
			b.BlockPhone("1", now.Add(time.Hour))
		})
		var wg sync.WaitGroup
		var all sent
		for _, recipient := range []string{"late", "soon", ""} {
			wg.Go(func() {
				g, err := l.Wait(t.Context(), Request{Phone: "1", Recipient: recipient})
				if err != nil {
					t.Error(err)
				}
				all.add(recipient, g.Slot)
			})
			synctest.Wait()
		}
		l.Update(func(b *Budget, _ time.Time) { b.BlockPhone("1", time.Time{}) })
		wg.Wait()
		for recipient, want := range map[string]time.Duration{"": 0, "soon": time.Minute, "late": 2 * time.Minute} {
			if got := all.slots[recipient][0].Sub(start); got != want {
				t.Errorf("the slot for %q came after %v, want %v", recipient, got, want)
			}
		}
	})
}
