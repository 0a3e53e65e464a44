package limiter

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// Without a bubble: cancelling, serving, shutting and opening race with one another. Every Wait ends in one of its three
// ways, and the slots that were handed out are as far apart as the limit says.
func TestEndsThatRace(t *testing.T) {
	l := newTestLine(Limit{PerSecond: 20_000}, map[string]Limit{"1": {PerSecond: 10_000}, "2": {}})
	const tries = 2000
	begun := make(chan struct{}, tries)
	var all sent
	var wg, others sync.WaitGroup
	for n := range tries {
		phone := []string{"1", "2"}[n%2]
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			begun <- struct{}{}
			g, err := l.Wait(ctx, Request{Phone: phone, Priority: n % 4})
			switch {
			case err == nil:
				all.add("WABA", g.Slot)
			case !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled):
				t.Errorf("a wait ended with %v", err)
			}
			cancel()
		})
		if n%2 == 1 {
			others.Go(func() {
				<-begun
				cancel()
			})
		}
		if n%100 == 99 {
			others.Go(func() {
				l.Shut("1")
				l.Open("1")
			})
		}
	}
	wg.Wait()
	others.Wait()
	l.mu.Lock()
	for id, q := range l.queues {
		if q.waiting != 0 {
			t.Errorf("phone %s: %d tries still wait", id, q.waiting)
		}
	}
	l.mu.Unlock()
	l.Close()
	g := newLedger(Limit{PerSecond: 20_000, Burst: 1}, time.Time{})
	for _, slot := range all.slots["WABA"] {
		g.take(slot)
	}
	g.empty = nil
	g.check(t, "WABA")
	if len(g.slots) == 0 {
		t.Error("no try got a slot")
	}
}

func BenchmarkWait(b *testing.B) {
	for name, limit := range map[string]Limit{"no limit": {}, "1e9 a second": {PerSecond: 1e9, Burst: 1000}} {
		b.Run(name, func(b *testing.B) {
			l := newTestLine(limit, map[string]Limit{"1": {}})
			defer l.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Wait(b.Context(), Request{Phone: "1", Priority: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Each operation is a wait among 63 others that wait for the same token bucket.
func BenchmarkWaitAmong64(b *testing.B) {
	l := newTestLine(Limit{PerSecond: 5e6, Burst: 1}, map[string]Limit{"1": {}, "2": {}, "3": {}})
	defer l.Close()
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for i := range 64 {
		n := b.N / 64
		if i < b.N%64 {
			n++
		}
		wg.Go(func() {
			for range n {
				if _, err := l.Wait(b.Context(), Request{Phone: []string{"1", "2", "3"}[i%3], Priority: 1}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
