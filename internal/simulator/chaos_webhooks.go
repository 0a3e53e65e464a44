package simulator

import (
	"cmp"
	"slices"
	"time"
)

const (
	// a reordered message waits up to so many of its status delays more, and at least
	// up to overtakenLeast, so that others overtake it
	overtakenDelays = 4
	overtakenLeast  = 100 * time.Millisecond
)

// plan is when the statuses of a message are posted, where that is not every delay.
type plan struct {
	start time.Duration // the accept
	steps []step        // as long as the pending's statuses
}

// step is one posting of a status: when it is due, and when the status came about, both
// after the accept.
type step struct{ due, at time.Duration }

// disturb plans the webhooks of an accepted message by chance, and counts what it does.
func (c *chaos) disturb(t *pending, key uint64, count *chaosLedger) (lost bool) {
	if len(t.statuses) == 0 {
		return false
	}
	if draw(key, drawLost) < c.WebhooksLost {
		count.lost.add(len(t.statuses))
		t.statuses = nil
		t.left.Store(0)
		return true
	}
	if c.StatusLate == 0 && c.StatusDuplicate == 0 && c.StatusReorder == 0 {
		return false
	}
	type posting struct {
		step
		status status
		place  int // among the message's statuses
	}
	late, twice := 0, 0
	posts := make([]posting, len(t.statuses), 2*len(t.statuses))
	for i, st := range t.statuses {
		at := time.Duration(i+1) * t.delay
		posts[i] = posting{step{at, at}, st, i}
		if salt := drawStatus + 4*uint64(i); draw(key, salt) < c.StatusLate {
			posts[i].due += upTo(c.late, draw(key, salt+1))
			late++
		}
	}
	byDue := func(a, b posting) int { return cmp.Compare(a.due, b.due) }
	slices.SortStableFunc(posts, byDue)
	if n := len(posts); n > 1 && draw(key, drawReorder) < c.StatusReorder {
		more := upTo(max(overtakenDelays*t.delay, overtakenLeast), draw(key, drawOvertaken))
		dues := make([]time.Duration, n)
		for i := range posts {
			dues[i] = posts[i].due + more
		}
		slices.SortFunc(posts, func(a, b posting) int { return cmp.Compare(b.place, a.place) })
		for i := range posts {
			posts[i].due = dues[i]
		}
	}
	after, last := 0, 0
	for _, p := range posts {
		if p.place < last {
			after++
		}
		last = max(last, p.place)
	}
	for _, p := range posts[:len(t.statuses)] {
		salt := drawStatus + 4*uint64(p.place) + 2 //nolint:gosec // a handful
		if draw(key, salt) >= c.StatusDuplicate {
			continue
		}
		if again := draw(key, salt+1); again >= 0.5 {
			p.due += upTo(c.duplicate, 2*again-1)
		}
		posts = append(posts, p)
		twice++
	}
	slices.SortStableFunc(posts, byDue)
	count.late.add(late)
	count.duplicated.add(twice)
	count.reordered.add(after)
	if late+twice+after == 0 {
		return false
	}
	t.plan = &plan{steps: make([]step, len(posts))}
	t.statuses = make([]status, len(posts)) // the list before belongs to all messages
	for i, p := range posts {
		t.plan.steps[i], t.statuses[i] = p.step, p.status
	}
	t.left.Store(int32(len(posts))) //nolint:gosec // a handful
	return false
}

// upTo is a part of d, of a millisecond at least where d allows.
func upTo(d time.Duration, part float64) time.Duration {
	return min(d, max(time.Millisecond, time.Duration(part*float64(d))))
}

// add counts n statuses of a message, if there are any.
func (c *WebhookCount) add(n int) {
	if n > 0 {
		c.Statuses += int64(n)
		c.Messages++
	}
}
