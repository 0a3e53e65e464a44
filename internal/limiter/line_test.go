package limiter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testLead = 400 * time.Millisecond

// newTestLine has the given phone numbers open, each with its limit.
func newTestLine(waba Limit, phones map[string]Limit) *Line {
	l := NewLine(waba, testLead)
	l.Update(func(b *Budget, now time.Time) {
		for id, limit := range phones {
			b.SetPhone(id, limit, now)
		}
	})
	for id := range phones {
		l.Open(id)
	}
	return l
}

// sent records slots in the order of their handing out.
type sent struct {
	mu    sync.Mutex
	slots map[string][]time.Time
}

func (s *sent) add(phone string, slot time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots == nil {
		s.slots = map[string][]time.Time{}
	}
	s.slots[phone] = append(s.slots[phone], slot)
}

// within counts the slots of a phone number in (from, to].
func (s *sent) within(phone string, from, to time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, at := range s.slots[phone] {
		if at.After(from) && !at.After(to) {
			n++
		}
	}
	return n
}

// backlog keeps n tries of a phone number waiting until ctx ends.
func backlog(ctx context.Context, wg *sync.WaitGroup, l *Line, phone string, n int, into *sent) {
	for range n {
		wg.Go(func() {
			for {
				g, err := l.Wait(ctx, Request{Phone: phone, Priority: 2})
				if err != nil {
					return
				}
				into.add(phone, g.Slot)
				time.Sleep(time.Until(g.Slot)) //nolint:forbidigo // in a synctest bubble
			}
		})
	}
}

func TestLowerPrioritiesThenEarlierOnesGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: 1}})
		defer l.Close()
		l.Update(func(b *Budget, now time.Time) { b.BlockPhone("1", now.Add(10*time.Second)) })
		order := make(chan int, 6)
		var wg sync.WaitGroup
		for n, priority := range []int{4, 2, 2, 1, 3, 1} {
			wg.Go(func() {
				if _, err := l.Wait(t.Context(), Request{Phone: "1", Priority: priority}); err != nil {
					t.Error(err)
				}
				order <- n
			})
			synctest.Wait() // it waits now: the order of arrival is known
		}
		wg.Wait()
		for i, want := range []int{3, 5, 1, 2, 4, 0} {
			if got := <-order; got != want {
				t.Errorf("slot %d went to try %d, want %d", i, got, want)
			}
		}
	})
}

func TestPhonesShareAWABAEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := map[string]Limit{"1": {PerSecond: 80}, "2": {PerSecond: 80}, "3": {PerSecond: 80}}
		l := newTestLine(Limit{PerSecond: 150}, phones)
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all sent
		start := time.Now()
		for id := range phones {
			backlog(ctx, &wg, l, id, 40, &all)
		}
		const seconds = 20
		time.Sleep(seconds * time.Second) //nolint:forbidigo // in a synctest bubble
		cancel()
		wg.Wait()
		total := 0
		for id := range phones {
			n := all.within(id, start, start.Add(seconds*time.Second))
			total += n
			if n < 50*seconds-20 || n > 50*seconds+20 {
				t.Errorf("phone %s got %d slots in %d s, want 50 a second", id, n, seconds)
			}
		}
		if total < 150*seconds*98/100 || total > 150*seconds {
			t.Errorf("%d slots in %d s, want 98 to 100 %% of 150 a second", total, seconds)
		}
	})
}

// A phone number that asks for less than its share gets all of it, soon.
func TestAQuietPhoneGetsAllItAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := map[string]Limit{"busy": {PerSecond: 80}, "busier": {}, "quiet": {PerSecond: 80}}
		l := newTestLine(Limit{PerSecond: 150}, phones)
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all sent
		start := time.Now()
		backlog(ctx, &wg, l, "busy", 64, &all)
		backlog(ctx, &wg, l, "busier", 64, &all)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		const seconds = 20
		for range 5 * seconds {
			<-tick.C
			asked := time.Now()
			g, err := l.Wait(ctx, Request{Phone: "quiet", Priority: 2})
			if err != nil {
				t.Fatal(err)
			}
			if wait := g.Slot.Sub(asked); wait > 300*time.Millisecond {
				t.Errorf("a slot %v after it was asked for", wait)
			}
			all.add("quiet", g.Slot)
		}
		end := time.Now()
		cancel()
		wg.Wait()
		if n := all.within("quiet", start, end.Add(time.Second)); n != 5*seconds {
			t.Errorf("the quiet phone got %d slots, want all %d", n, 5*seconds)
		}
		rest := float64(150*seconds - 5*seconds)
		a, b := float64(all.within("busy", start, end)), float64(all.within("busier", start, end))
		if a+b < 0.97*rest || a < 0.48*rest || b < 0.48*rest {
			t.Errorf("the busy phones got %v and %v slots, want half of %v each", a, b, rest)
		}
	})
}

// A phone number that one scope holds back takes nothing from the others of its WABA.
func TestAHeldPhoneTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phones := map[string]Limit{"held": {PerSecond: 80}, "slow": {PerSecond: 0.2}, "free": {}}
		l := newTestLine(Limit{PerSecond: 100}, phones)
		l.Update(func(b *Budget, now time.Time) { b.BlockPhone("held", now.Add(time.Hour)) })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var all sent
		start := time.Now()
		for id := range phones {
			backlog(ctx, &wg, l, id, 64, &all)
		}
		const seconds = 20
		time.Sleep(seconds * time.Second) //nolint:forbidigo // in a synctest bubble
		if until, blocked := l.Blocked("held", time.Now()); !blocked || !until.Equal(start.Add(time.Hour)) {
			t.Errorf("held is blocked: %v, until %v after the start", blocked, until.Sub(start))
		}
		l.Close()
		cancel()
		wg.Wait()
		end := start.Add(seconds * time.Second)
		if held := all.within("held", start, end); held != 0 {
			t.Errorf("the held phone got %d slots", held)
		}
		slow, free := all.within("slow", start, end), all.within("free", start, end)
		if slow < 3 || slow > 4 || free < 98*seconds {
			t.Errorf("slow got %d slots and free %d in %d s; want 0.2 a second and the rest of 100", slow, free, seconds)
		}
	})
}

func TestASlotIsAtMostTheLeadAhead(t *testing.T) {
	for name, tc := range map[string]struct {
		waba Limit
		lead time.Duration
	}{
		"phone's limit only": {Limit{}, testLead},
		"shared limit":       {Limit{PerSecond: 4}, sharedLead},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLine(tc.waba, map[string]Limit{"1": {PerSecond: 2}})
				defer l.Close()
				start := time.Now()
				for i := 1; i <= 10; i++ {
					g, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 1})
					if err != nil {
						t.Fatal(err)
					}
					slot := g.Slot
					// Slots are 500 ms apart: each comes exactly lead before it.
					if ahead := time.Until(slot); ahead > tc.lead || ahead < tc.lead-time.Microsecond {
						t.Errorf("slot %d came %v ahead of it, want %v", i, ahead, tc.lead)
					}
					want := start.Add(time.Duration(i) * 500 * time.Millisecond)
					if off := slot.Sub(want); off < 0 || off > time.Microsecond {
						t.Errorf("slot %d is %v after its instant", i, off)
					}
				}
			})
		})
	}
}

func TestALiftedBlockAndARaisedLimitServeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: 0.001}})
		defer l.Close()
		l.Update(func(b *Budget, now time.Time) { b.BlockWABA(now.Add(time.Hour)) })
		got := make(chan time.Time, 1)
		go func() {
			g, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 1})
			if err != nil {
				t.Error(err)
			}
			got <- g.Slot
		}()
		synctest.Wait()
		if slot, waiting := l.Next("1"); waiting != 1 || time.Until(slot) != time.Hour {
			t.Errorf("next slot in %v with %d waiting, want 1h and 1", time.Until(slot), waiting)
		}
		start := time.Now()
		l.Update(func(b *Budget, now time.Time) {
			b.BlockWABA(time.Time{})
			b.SetPhone("1", Limit{PerSecond: 10}, now)
		})
		slot := <-got
		if wait := slot.Sub(start); wait < 90*time.Millisecond || wait > 101*time.Millisecond {
			t.Errorf("slot %v after the block was lifted, want a token's 100 ms", wait)
		}
	})
}

func TestShutOpenAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: 0.1}, "2": {PerSecond: 0.1}})
		if _, err := l.Wait(t.Context(), Request{Phone: "unknown", Priority: 1}); !errors.Is(err, ErrClosed) {
			t.Errorf("waiting at a phone number never opened: %v", err)
		}
		wait := func(phone string) chan error {
			done := make(chan error, 1)
			go func() {
				_, err := l.Wait(t.Context(), Request{Phone: phone, Priority: 1})
				done <- err
			}()
			synctest.Wait()
			return done
		}
		one, two := wait("1"), wait("2")
		l.Shut("1")
		l.Shut("1")
		l.Shut("unknown")
		if err := <-one; !errors.Is(err, ErrClosed) {
			t.Errorf("a try waiting at a phone number that is shut: %v", err)
		}
		if _, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 1}); !errors.Is(err, ErrClosed) {
			t.Errorf("a try that comes after the shut: %v", err)
		}
		select {
		case err := <-two:
			t.Errorf("the shut of another phone number ended a wait: %v", err)
		default:
		}
		l.Open("1")
		start := time.Now()
		if _, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 1}); err != nil {
			t.Errorf("after it was opened again: %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it waited %v; tries that were shut out took slots", took)
		}
		if err := <-two; err != nil {
			t.Errorf("phone 2: %v", err)
		}
		one, two = wait("1"), wait("2")
		l.Close()
		for _, done := range []chan error{one, two} {
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("a try waiting at a line that closes: %v", err)
			}
		}
		l.Open("1")
		if _, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 1}); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed line was opened again: %v", err)
		}
		l.Update(func(b *Budget, now time.Time) { b.SetPhone("1", Limit{}, now) })
		l.Close()
	})
}

// A try that gives up takes no slot: the ones behind it get theirs as if it had never come.
func TestATryThatGivesUpTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLine(Limit{}, map[string]Limit{"1": {PerSecond: 1}})
		defer l.Close()
		start := time.Now()
		short, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := l.Wait(short, Request{Phone: "1", Priority: 1}); !errors.Is(err, context.Canceled) {
					t.Errorf("a try that gave up: %v", err)
				}
			})
		}
		synctest.Wait()
		slots := make(chan time.Time, 3)
		for range cap(slots) {
			wg.Go(func() {
				g, err := l.Wait(t.Context(), Request{Phone: "1", Priority: 2})
				if err != nil {
					t.Error(err)
				}
				slots <- g.Slot
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if _, waiting := l.Next("1"); waiting != 3 {
			t.Errorf("%d wait, want 3", waiting)
		}
		if _, err := l.Wait(short, Request{Phone: "1", Priority: 1}); !errors.Is(err, context.Canceled) {
			t.Errorf("a try that had given up before: %v", err)
		}
		wg.Wait()
		for i := 1; i <= 3; i++ {
			if at := (<-slots).Sub(start).Round(time.Microsecond); at != time.Duration(i)*time.Second {
				t.Errorf("slot %d at %v", i, at)
			}
		}
		time.Sleep(5 * time.Second) //nolint:forbidigo // in a synctest bubble
		for range 20 {
			if _, err := l.Wait(short, Request{Phone: "1", Priority: 1}); !errors.Is(err, context.Canceled) {
				t.Errorf("a try that had given up before, with a slot at hand: %v", err)
			}
		}
		if slot, _ := l.Next("1"); !slot.Equal(time.Now()) {
			t.Errorf("tries that had given up before took slots: the next one comes %v from now", time.Until(slot))
		}
	})
}
