package limiter

import (
	"container/heap"
	"time"
)

// waiter is one try that waits.
type waiter struct {
	priority int
	serial   uint64
	index    int // in its group; -1 once out of it
	group    *group
	grant    chan Grant
}

func (w *waiter) before(o *waiter) bool {
	if w.priority != o.priority {
		return w.priority < o.priority
	}
	return w.serial < o.serial
}

// group holds the tries that wait for one recipient: only the first of them can be next.
type group struct {
	recipient string
	waiters   waiters
	in        *groups // where it stands
	index     int
	ready     time.Time // when its pair has a token, as of its placing
}

// waitQueue holds the waiting tries of one phone number.
type waitQueue struct {
	groups  map[string]*group
	ready   groups // by their first try: may be next as far as their pairs go
	pending groups // by the instant at which their pairs have a token
	waiting int
	served  uint64 // serial of its last slot: a lower one was served longer ago
	closed  bool
}

func newWaitQueue() *waitQueue {
	return &waitQueue{groups: map[string]*group{}, pending: groups{byTime: true}}
}

func (q *waitQueue) shut() {
	q.closed = true
	for _, g := range q.groups {
		for _, w := range g.waiters {
			w.index = -1
			close(w.grant)
		}
	}
	*q = waitQueue{groups: map[string]*group{}, pending: groups{byTime: true}, served: q.served, closed: true}
}

// add lets a try wait.
func (q *waitQueue) add(w *waiter, p *pairs, recipient string) {
	g := q.groups[recipient]
	if g == nil {
		g = &group{recipient: recipient}
		q.groups[recipient] = g
	}
	w.group = g
	heap.Push(&g.waiters, w)
	q.waiting++
	switch {
	case g.in == nil:
		q.place(g, p)
	case w.index == 0:
		heap.Fix(g.in, g.index)
	}
}

// remove takes a try out.
func (q *waitQueue) remove(w *waiter, p *pairs) {
	g := w.group
	heap.Remove(&g.waiters, w.index)
	q.waiting--
	heap.Remove(g.in, g.index)
	g.in = nil
	if len(g.waiters) == 0 {
		delete(q.groups, g.recipient)
		return
	}
	q.place(g, p)
}

// place puts a group that stands nowhere where its pair belongs. No clock is needed: next moves on those that are ready.
func (q *waitQueue) place(g *group, p *pairs) {
	g.ready = time.Time{}
	if p != nil {
		g.ready = p.ready(g.recipient)
	}
	g.in = &q.pending
	if g.ready.IsZero() {
		g.in = &q.ready
	}
	heap.Push(g.in, g)
}

// again places a recipient's group anew after its pair's bucket changed.
func (q *waitQueue) again(recipient string, p *pairs) {
	if g := q.groups[recipient]; g != nil {
		heap.Remove(g.in, g.index)
		q.place(g, p)
	}
}

func (q *waitQueue) allAgain(p *pairs) {
	for recipient := range q.groups {
		q.again(recipient, p)
	}
}

// next gives the group whose first try gets the phone number's next slot, and that slot; nil when none waits or the
// phone number is not set. A group whose pair has no token at that slot is passed over, unless there are no others.
func (q *waitQueue) next(b *Budget, phoneNumberID string, now time.Time) (*group, time.Time) {
	p := b.phones[phoneNumberID]
	if q.waiting == 0 || p == nil {
		return nil, time.Time{}
	}
	slot, _ := b.Earliest(phoneNumberID, "", now)
	for q.pending.Len() > 0 && !q.pending.items[0].ready.After(slot) {
		g := heap.Pop(&q.pending).(*group) //nolint:forcetypeassert // the heap holds nothing else
		g.in = &q.ready
		heap.Push(g.in, g)
	}
	for q.ready.Len() > 0 {
		g := q.ready.items[0]
		if !g.ready.After(slot) {
			return g, slot
		}
		// The phone number's slot came nearer since it was put here.
		heap.Pop(&q.ready)
		g.in = &q.pending
		heap.Push(g.in, g)
	}
	g := q.pending.items[0]
	slot, _ = b.Earliest(phoneNumberID, "", later(now, g.ready))
	return g, slot
}

// waiters is a heap by priority, then by arrival.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].before(w[j]) }
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	it := x.(*waiter) //nolint:forcetypeassert // only add pushes
	it.index = len(*w)
	*w = append(*w, it)
}

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	old := *w
	it := old[len(old)-1]
	it.index = -1
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	return it
}

// groups is a heap of groups by their first tries, or by the time at which they are ready.
type groups struct {
	byTime bool
	items  []*group
}

func (h *groups) Len() int { return len(h.items) }
func (h *groups) Less(i, j int) bool {
	a, b := h.items[i], h.items[j]
	if h.byTime && !a.ready.Equal(b.ready) {
		return a.ready.Before(b.ready)
	}
	return a.waiters[0].before(b.waiters[0])
}
func (h *groups) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].index, h.items[j].index = i, j
}

// Push implements heap.Interface.
func (h *groups) Push(x any) {
	it := x.(*group) //nolint:forcetypeassert // only groups are pushed
	it.index = len(h.items)
	h.items = append(h.items, it)
}

// Pop implements heap.Interface.
func (h *groups) Pop() any {
	n := len(h.items) - 1
	it := h.items[n]
	h.items[n] = nil
	h.items = h.items[:n]
	return it
}
