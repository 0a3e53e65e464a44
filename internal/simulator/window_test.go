package simulator

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// every gives n arrivals from start on, one each step.
func every(start, step time.Duration, n int) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = start + time.Duration(i)*step
	}
	return out
}

// TestStrictWindow feeds recorded arrivals: each is admitted or not against those
// admitted before it.
func TestStrictWindow(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name     string
		limit    Limit
		arrivals []time.Duration
		refused  []int // indexes
	}{
		{"80 in 999 ms, one under", Limit{Max: 80}, every(0, 999*ms/79, 80), nil},
		{"81 in 999 ms, one over", Limit{Max: 80}, every(0, 999*ms/80, 81), []int{80}},
		{"steady at exactly the limit", Limit{Max: 80}, every(0, 12500*time.Microsecond, 800), nil},
		{"steady a hair above the limit", Limit{Max: 80}, every(0, 12499*time.Microsecond, 81), []int{80}},
		{"all at once, one over", Limit{Max: 3}, every(0, 0, 4), []int{3}},
		{"one window later to the nanosecond", Limit{Max: 1}, []time.Duration{5, 5 + time.Second}, nil},
		{"a nanosecond sooner", Limit{Max: 1}, []time.Duration{5, 4 + time.Second}, []int{1}},
		{"a refusal does not count", Limit{Max: 1}, []time.Duration{0, 900 * ms, 1000 * ms, 1001 * ms}, []int{1, 3}},
		{"burst at a boundary of whole seconds", Limit{Max: 2}, []time.Duration{950 * ms, 960 * ms, 1010 * ms, 1955 * ms}, []int{2}},
		{"pair window of six seconds", Limit{Max: 1, Window: 6 * time.Second}, []time.Duration{0, 5999 * ms, 6000 * ms}, []int{1}},
		{"no limit", Limit{}, every(0, 0, 1000), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var accepts []time.Duration
			var refused []int
			for i, at := range tt.arrivals {
				if Admits(accepts, at, tt.limit) {
					accepts = append(accepts, at)
				} else {
					refused = append(refused, i)
				}
			}
			if len(refused) != len(tt.refused) {
				t.Fatalf("refused %v, want %v", refused, tt.refused)
			}
			for i := range refused {
				if refused[i] != tt.refused[i] {
					t.Fatalf("refused %v, want %v", refused, tt.refused)
				}
			}
		})
	}
}

func TestPeakOfRecordedArrivals(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name    string
		accepts []time.Duration
		want    int
	}{
		{"none", nil, 0},
		{"one", []time.Duration{7}, 1},
		{"two a second apart", []time.Duration{0, time.Second}, 1},
		{"two just less apart", []time.Duration{0, time.Second - 1}, 2},
		{"peak across a whole second", []time.Duration{100 * ms, 900 * ms, 950 * ms, 1010 * ms, 1020 * ms, 2500 * ms}, 5},
		{"later peak is smaller", []time.Duration{0, 1, 2, 5 * time.Second, 5*time.Second + 1}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Peak(tt.accepts, time.Second); got != tt.want {
				t.Errorf("Peak = %d, want %d", got, tt.want)
			}
			var h history
			for _, at := range tt.accepts {
				h.add(at, 0, 1)
			}
			if h.peak != tt.want {
				t.Errorf("history.peak = %d, want %d", h.peak, tt.want)
			}
		})
	}
}

// TestWindowProperties: whatever arrives, no sliding window of the accepted holds more
// than the limit, every refusal would have broken that, and the kept history agrees
// with the whole one.
func TestWindowProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := Limit{
			Max:    rapid.IntRange(1, 6).Draw(t, "max"),
			Window: time.Duration(rapid.IntRange(1, 3000).Draw(t, "window ms")) * time.Millisecond,
		}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 700), 1, 200).Draw(t, "gaps ms")
		var now time.Duration
		var all []time.Duration
		var h history
		for _, gap := range gaps {
			now += time.Duration(gap) * time.Millisecond
			admitted := Admits(h.live(), now, limit)
			if admitted != Admits(all, now, limit) {
				t.Fatalf("at %v the kept history says %v, the whole one the opposite", now, admitted)
			}
			if !admitted {
				if got := Peak(append(all[:len(all):len(all)], now), limit.Window); got <= limit.Max {
					t.Fatalf("refused at %v though the peak would be only %d", now, got)
				}
				continue
			}
			all = append(all, now)
			h.add(now, limit.window(), limit.Max)
		}
		if got := Peak(all, limit.Window); got > limit.Max {
			t.Fatalf("peak %d over limit %d", got, limit.Max)
		}
		if got := Peak(all, time.Second); h.peak != got {
			t.Fatalf("kept peak %d, whole peak %d", h.peak, got)
		}
	})
}

func TestHistoryForgets(t *testing.T) {
	var h history
	for _, at := range every(0, time.Millisecond, 100_000) {
		h.add(at, time.Second, 10)
	}
	if len(h.live()) != 1000 || cap(h.times) > 8192 {
		t.Errorf("keeps %d times in %d places, want 1000 in at most 8192", len(h.live()), cap(h.times))
	}
	var scope history
	for _, at := range every(0, 10*time.Millisecond, 400_000) { // more than an hour
		scope.addFor(at, Limit{Max: 3})
	}
	if len(scope.live()) != keptAccepts || cap(scope.times) > 8*keptAccepts {
		t.Errorf("a scope keeps %d times in %d places", len(scope.live()), cap(scope.times))
	}
	var slow history
	for _, at := range every(0, time.Minute, 200) {
		slow.addFor(at, Limit{})
	}
	if len(slow.live()) != 60 {
		t.Errorf("keeps %d times of an hour, want 60", len(slow.live()))
	}
}
