package batch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"wagate/internal/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func echo(_ context.Context, in []int) ([]batch.Result[string], error) {
	out := make([]batch.Result[string], len(in))
	for i, n := range in {
		out[i].Out = fmt.Sprint(n)
		if n < 0 {
			out[i] = batch.Result[string]{Err: errors.New("negative")}
		}
	}
	return out, nil
}

func TestEachCallerGetsItsOwnResult(t *testing.T) {
	g := batch.New(batch.Config{Max: 7, Flushers: 2}, echo)
	defer g.Close()
	var wg sync.WaitGroup
	for n := -200; n < 200; n++ {
		wg.Go(func() {
			got, err := g.Do(t.Context(), n)
			if (n < 0) != (err != nil) || (n >= 0 && got != fmt.Sprint(n)) {
				t.Errorf("Do(%d) = %q, %v", n, got, err)
			}
		})
	}
	wg.Wait()
}

// Under a steady trickle flushes keep their distance, and after a quiet time the first item waits for nobody.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 10 * time.Millisecond
		start := time.Now()
		var begun []time.Duration
		g := batch.New(batch.Config{Every: every}, func(ctx context.Context, in []int) ([]batch.Result[string], error) {
			begun = append(begun, time.Since(start))
			return echo(ctx, in)
		})
		var wg sync.WaitGroup
		for n := range 50 {
			wg.Go(func() { _, _ = g.Do(t.Context(), n) })
			time.Sleep(time.Millisecond) //nolint:forbidigo // in a synctest bubble
		}
		wg.Wait()
		time.Sleep(time.Second) //nolint:forbidigo // in a synctest bubble
		if _, err := g.Do(t.Context(), 1); err != nil {
			t.Error(err)
		}
		g.Close()
		for i := 1; i < len(begun); i++ {
			if d := begun[i] - begun[i-1]; d < every {
				t.Errorf("flush %d came %v after the one before", i, d)
			}
		}
		if n := len(begun); n < 5 || n > 7 || begun[0] != 0 || begun[n-1] < time.Second || begun[n-1] > time.Second+every*10 {
			t.Errorf("flushes at %v", begun)
		}
	})
}

func TestSetsGatherWhileAFlushRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var sizes []int
		g := batch.New(batch.Config{Max: 3}, func(ctx context.Context, in []int) ([]batch.Result[string], error) {
			<-release
			sizes = append(sizes, len(in))
			return echo(ctx, in)
		})
		var wg sync.WaitGroup
		start := func(n int) {
			wg.Go(func() {
				if _, err := g.Do(t.Context(), n); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for n := range 6 {
			start(n)
		}
		close(release)
		wg.Wait()
		g.Close()
		if fmt.Sprint(sizes) != "[1 3 2]" {
			t.Errorf("sizes of sets = %v, want [1 3 2]", sizes)
		}
	})
}

func TestAWithdrawnItemIsNeverFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var flushed atomic.Int64
		g := batch.New(batch.Config{}, func(ctx context.Context, in []int) ([]batch.Result[string], error) {
			<-release
			flushed.Add(int64(len(in)))
			return echo(ctx, in)
		})
		ctx, cancel := context.WithCancel(t.Context())
		var first, second error
		var wg sync.WaitGroup
		wg.Go(func() { _, first = g.Do(ctx, 1) })
		synctest.Wait() // the flush has it
		wg.Go(func() { _, second = g.Do(ctx, 2) })
		synctest.Wait() // waits behind it
		cancel()
		synctest.Wait()
		close(release)
		wg.Wait()
		g.Close()
		if first != nil || !errors.Is(second, context.Canceled) || flushed.Load() != 1 {
			t.Errorf("first %v, second %v, flushed %d; want nil, canceled, 1", first, second, flushed.Load())
		}
		if _, err := g.Do(t.Context(), 3); !errors.Is(err, batch.ErrClosed) {
			t.Errorf("Do after Close = %v", err)
		}
	})
}

func TestAFailedFlushFailsItsSetOnly(t *testing.T) {
	boom := errors.New("boom")
	g := batch.New(batch.Config{Max: 1}, func(ctx context.Context, in []int) ([]batch.Result[string], error) {
		if in[0] == 13 {
			return nil, boom
		}
		return echo(ctx, in)
	})
	defer g.Close()
	if _, err := g.Do(t.Context(), 13); !errors.Is(err, boom) {
		t.Errorf("Do(13) = %v", err)
	}
	if got, err := g.Do(t.Context(), 14); err != nil || got != "14" {
		t.Errorf("Do(14) = %q, %v", got, err)
	}
}
