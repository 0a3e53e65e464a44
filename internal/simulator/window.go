package simulator

import (
	"sort"
	"time"
)

// Limit is how many accepts a scope may hold in a sliding window. Max 0 means no limit.
// Window 0 means one second.
type Limit struct {
	Max    int
	Window time.Duration
}

func (l Limit) window() time.Duration {
	if l.Window <= 0 {
		return time.Second
	}
	return l.Window
}

// HeldIn counts the accepts in the window that ends at arrival, that is in
// (arrival-window, arrival]. An accept exactly one window old has left it, so that a
// steady stream of exactly Max a window passes. accepts are times since one common
// origin, ascending, none later than arrival.
func HeldIn(accepts []time.Duration, arrival, window time.Duration) int {
	oldest := arrival - window
	first := sort.Search(len(accepts), func(i int) bool { return accepts[i] > oldest })
	return len(accepts) - first
}

// Admits says whether a request that arrives now stays within the limit, given the
// recorded accepts (as for HeldIn). It only looks: the caller records what it accepts.
func Admits(accepts []time.Duration, arrival time.Duration, limit Limit) bool {
	if limit.Max <= 0 {
		return true
	}
	return HeldIn(accepts, arrival, limit.window()) < limit.Max
}

// Peak is the largest number of accepts that any half-open window of the given length
// held. accepts must be ascending.
func Peak(accepts []time.Duration, window time.Duration) int {
	peak, first := 0, 0
	for i, at := range accepts {
		for accepts[first] <= at-window {
			first++
		}
		peak = max(peak, i-first+1)
	}
	return peak
}

// history keeps the accepts of a scope for as long as its limit or its peak can need
// them. The zero value is ready; the owner's lock guards it.
type history struct {
	times []time.Duration
	head  int
	peak  int // largest number of accepts in any sliding second so far
}

func (h *history) live() []time.Duration { return h.times[h.head:] }

// add records an accept, forgets what is older than keep (at least a second), and
// keeps the peak.
func (h *history) add(at, keep time.Duration) {
	keep = max(keep, time.Second)
	for h.head < len(h.times) && h.times[h.head] <= at-keep {
		h.head++
	}
	if len(h.times) == cap(h.times) && h.head > len(h.times)/2 {
		h.times = h.times[:copy(h.times, h.times[h.head:])]
		h.head = 0
	}
	h.times = append(h.times, at)
	h.peak = max(h.peak, HeldIn(h.live(), at, time.Second))
}
