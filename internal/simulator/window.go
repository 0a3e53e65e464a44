package simulator

import (
	"fmt"
	"sort"
	"time"
)

const (
	maxWindow    = time.Hour       // of a limit
	maxLimit     = 10_000_000      // of a limit's Max
	maxBurst     = 1_000_000       // of a limit's Burst
	bucketRefill = 6 * time.Second // a limit's Window where Burst is set and Window is not
	keptAccepts  = 16_384          // accepts of the last hour that a scope remembers at least
)

// Limit is how much a scope takes. Max accepts in a sliding window of length Window; 0
// means no limit, Window 0 means one second. Or, for pairs, Burst set and Max 0: a token
// bucket of Burst tokens that gets one back each Window (0 means six seconds, Meta's
// pair limit with a Burst of 45). Window is at most an hour.
type Limit struct {
	Max    int
	Window time.Duration
	Burst  int
}

func (l Limit) window() time.Duration {
	switch {
	case l.Window > 0:
		return l.Window
	case l.Burst > 0:
		return bucketRefill
	}
	return time.Second
}

// check says what is wrong with a limit of the scope.
func (l Limit) check(scope string) error {
	switch {
	case l.Max < 0 || l.Window < 0 || l.Burst < 0:
		return fmt.Errorf("setting the limit of %s: negative value", scope)
	case l.Window > maxWindow:
		return fmt.Errorf("setting the limit of %s: the window is longer than an hour", scope)
	case l.Max > maxLimit:
		return fmt.Errorf("setting the limit of %s: more than %d in a window", scope, maxLimit)
	case l.Burst > 0 && scope != "pair":
		return fmt.Errorf("setting the limit of %s: only pairs have a burst", scope)
	case l.Burst > 0 && l.Max > 0:
		return fmt.Errorf("setting the limit of %s: either a burst or a number in a window", scope)
	case l.Burst > maxBurst:
		return fmt.Errorf("setting the limit of %s: a burst of more than %d", scope, maxBurst)
	}
	return nil
}

// HeldIn counts the accepts in the window that ends at arrival, that is in
// (arrival-window, arrival]. An accept exactly one window old has left it, so that a
// steady stream of exactly Max a window passes. accepts are times since one common
// origin, ascending; those later than arrival do not count.
func HeldIn(accepts []time.Duration, arrival, window time.Duration) int {
	oldest := arrival - window
	first := sort.Search(len(accepts), func(i int) bool { return accepts[i] > oldest })
	n := len(accepts) - first
	if n > 0 && accepts[first+n-1] > arrival { // inbound messages that are still to come, else none
		n = sort.Search(n, func(i int) bool { return accepts[first+i] > arrival })
	}
	return n
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

// add records an accept and keeps the peak. It forgets what is older than keep, and of
// the rest what most later accepts stand for: whether a window holds most is known
// without those before them. The last second always stays.
func (h *history) add(at, keep time.Duration, most int) {
	keep = max(keep, time.Second)
	for h.head < len(h.times) && (h.times[h.head] <= at-keep ||
		len(h.times)-h.head >= most && h.times[h.head] <= at-time.Second) {
		h.head++
	}
	if len(h.times) == cap(h.times) && h.head > len(h.times)/2 {
		h.times = h.times[:copy(h.times, h.times[h.head:])]
		h.head = 0
	}
	h.times = append(h.times, at)
	h.peak = max(h.peak, HeldIn(h.live(), at, time.Second))
}

// addFor is add for a scope: it remembers an hour, so that a limit set later with a
// longer window finds the accepts it has to count.
func (h *history) addFor(at time.Duration, limit Limit) {
	h.add(at, maxWindow, max(limit.Max, keptAccepts))
}

// roomIn is how long it takes until the limit admits another one; 0 when it does now.
func (h *history) roomIn(arrival time.Duration, limit Limit) time.Duration {
	live := h.live()
	if Admits(live, arrival, limit) {
		return 0
	}
	return live[len(live)-limit.Max] + limit.window() - arrival
}
