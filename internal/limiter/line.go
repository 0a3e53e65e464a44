package limiter

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed says that the line was closed, or the phone number shut.
var ErrClosed = errors.New("limiter: closed")

// sharedLead bounds the lead where phone numbers share a limit of their WABA: its slots are taken in ascending order, so
// a try that comes now waits behind every slot already taken.
const sharedLead = 200 * time.Millisecond

// Line serves the waiting tries of one WABA: whenever a slot comes near enough it goes to the phone number that may send
// first (among equals the one served longest ago, so that phone numbers share a WABA's limit evenly), and there to the
// try with the highest priority, first come first served.
type Line struct {
	lead time.Duration

	mu     sync.Mutex
	budget *Budget
	queues map[string]*waitQueue
	timer  *time.Timer
	closed bool
	serial uint64
}

// waitQueue holds the waiting tries of one phone number.
type waitQueue struct {
	waiters waiters
	served  uint64 // serial of its last slot: a lower one was served longer ago
	closed  bool
}

type waiter struct {
	priority int
	serial   uint64
	index    int // in the heap; -1 once out of it
	slot     chan time.Time
}

// NewLine starts with empty buckets and no phone number. A try gets its slot at most lead before it.
func NewLine(waba Limit, lead time.Duration) *Line {
	l := &Line{lead: lead, budget: NewBudget(waba, time.Now()), queues: map[string]*waitQueue{}}
	l.timer = time.AfterFunc(time.Hour, l.wake)
	l.timer.Stop()
	return l
}

// Update changes the budgets under the line's mutex and serves anew.
func (l *Line) Update(change func(b *Budget, now time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	change(l.budget, now)
	l.serve(now)
}

// Open lets tries of a phone number wait; its limit is set through Update.
func (l *Line) Open(phoneNumberID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[phoneNumberID]; q != nil {
		q.closed = false
		return
	}
	l.queues[phoneNumberID] = &waitQueue{}
}

// Shut ends the waiting of a phone number's tries: each gets ErrClosed, also those that come later, until Open.
func (l *Line) Shut(phoneNumberID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[phoneNumberID]; q != nil {
		q.shut()
	}
}

// Close shuts every phone number for good.
func (l *Line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.timer.Stop()
	for _, q := range l.queues {
		q.shut()
	}
}

func (q *waitQueue) shut() {
	q.closed = true
	for _, w := range q.waiters {
		w.index = -1
		close(w.slot)
	}
	q.waiters = nil
}

// Blocked gives the end of the pause that covers a phone number at now, and false when none does.
func (l *Line) Blocked(phoneNumberID string, now time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.budget.Blocked(phoneNumberID, now)
}

// Wait waits for the try's turn and returns its slot, which is then taken in every scope: at most lead ahead, or now.
// Lower priorities go first. It ends with ErrClosed when the phone number is shut, or with ctx.
func (l *Line) Wait(ctx context.Context, phoneNumberID string, priority int) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err // before it can take a slot it has no use for
	}
	l.mu.Lock()
	q := l.queues[phoneNumberID]
	if l.closed || q == nil || q.closed {
		l.mu.Unlock()
		return time.Time{}, ErrClosed
	}
	l.serial++
	w := &waiter{priority: priority, serial: l.serial, slot: make(chan time.Time, 1)}
	heap.Push(&q.waiters, w)
	l.serve(time.Now())
	l.mu.Unlock()
	select {
	case slot, ok := <-w.slot:
		if !ok {
			return time.Time{}, ErrClosed
		}
		return slot, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.index >= 0 {
			heap.Remove(&q.waiters, w.index)
		}
		return time.Time{}, ctx.Err()
	}
}

func (l *Line) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(time.Now())
}

// serve hands out every slot that is near enough, in ascending order, and sets the timer for the next one.
func (l *Line) serve(now time.Time) {
	if l.closed {
		return
	}
	for {
		var best *waitQueue
		var phone string
		var slot time.Time
		for id, q := range l.queues {
			if len(q.waiters) == 0 {
				continue
			}
			at, ok := l.budget.Earliest(id, now)
			if ok && (best == nil || at.Before(slot) || (at.Equal(slot) && q.served < best.served)) {
				best, phone, slot = q, id, at
			}
		}
		if best == nil {
			return
		}
		lead := l.lead
		if l.budget.waba.lim != nil {
			lead = min(lead, sharedLead)
		}
		if ahead := slot.Sub(now); ahead > lead {
			l.timer.Reset(ahead - lead)
			return
		}
		l.budget.Take(phone, slot)
		l.serial++
		best.served = l.serial
		w := heap.Pop(&best.waiters).(*waiter) //nolint:forcetypeassert // the heap holds nothing else
		w.slot <- slot
	}
}

// waiters is a heap by priority, then by arrival.
type waiters []*waiter

func (w waiters) Len() int { return len(w) }
func (w waiters) Less(i, j int) bool {
	if w[i].priority != w[j].priority {
		return w[i].priority < w[j].priority
	}
	return w[i].serial < w[j].serial
}
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	it := x.(*waiter) //nolint:forcetypeassert // only Wait pushes
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
