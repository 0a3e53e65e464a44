package limiter

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed says that the line was closed, or the phone number shut.
var ErrClosed = errors.New("limiter: closed")

// sharedLead bounds the lead where phone numbers share a limit of their WABA or app: its slots are taken in ascending
// order, so a try that comes now waits behind every slot already taken.
const sharedLead = 120 * time.Millisecond

// Request is a try that asks for a slot.
type Request struct {
	Phone string
	// Recipient is the user whose pair with the phone number limits the try; "" for none.
	Recipient string
	// Priority: lower ones go first.
	Priority int
}

// Grant is a slot, taken in every scope.
type Grant struct {
	Slot time.Time
	// PairTAT is when the pair's bucket will be full again. It is zero unless the recipient has used more than half of
	// its burst, rounded up, by this slot: then the next owner has to be told (LoadPair).
	PairTAT time.Time
	// Probe says that the try shows whether a throttle is over: Answered or Unsent must follow it.
	Probe bool

	serial uint64
}

// Line serves the waiting tries of one WABA: whenever a slot comes near enough it goes to the phone number that may send
// first (among equals the one served longest ago, so that phone numbers share a WABA's limit evenly), and there to the
// try with the highest priority, first come first served, of those whose recipients may get another one by then.
type Line struct {
	lead time.Duration

	mu     sync.Mutex
	budget *Budget
	queues map[string]*waitQueue
	timer  *time.Timer
	closed bool
	serial uint64
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
	for id, p := range l.budget.phones {
		if p.pairs.changed {
			p.pairs.changed = false
			if q := l.queues[id]; q != nil {
				q.allAgain(&p.pairs)
			}
		}
	}
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
	l.queues[phoneNumberID] = newWaitQueue()
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

// Blocked gives the end of the pause that covers a phone number at now, and false when none does.
func (l *Line) Blocked(phoneNumberID string, now time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.budget.Blocked(phoneNumberID, now)
}

// Next gives the earliest slot a new try of the phone number could get if nobody else waited and its pair allowed it,
// and how many wait.
func (l *Line) Next(phoneNumberID string) (slot time.Time, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[phoneNumberID]; q != nil {
		waiting = q.waiting
	}
	slot, _ = l.budget.Earliest(phoneNumberID, "", time.Now())
	return slot, waiting
}

// State gives what is in force for a phone number now.
func (l *Line) State(phoneNumberID string) State {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.budget.refresh(now)
	return l.budget.State(phoneNumberID, now)
}

// Delay gives how long a new try would wait for its recipient's pair alone, behind those that wait here already.
func (l *Line) Delay(phoneNumberID, recipient string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.budget.phones[phoneNumberID]
	if p == nil || p.pairs.every == 0 || recipient == "" {
		return 0
	}
	now, ahead := time.Now(), 0
	if q := l.queues[phoneNumberID]; q != nil && q.groups[recipient] != nil {
		ahead = len(q.groups[recipient].waiters)
	}
	// Tokens used by then, less the burst, in time.
	wait := max(0, p.pairs.tat(recipient).Sub(now)) + time.Duration(ahead+1-p.pairs.burst)*p.pairs.every
	return max(0, wait)
}

// GiveBack returns the pair's token of a try that was not sent, or refused; within a minute of its slot.
func (l *Line) GiveBack(phoneNumberID, recipient string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.giveBack(phoneNumberID, recipient, now) {
		l.serve(now)
	}
}

// Missed returns all that a grant took that was not used: a slot that passed, a try that was not made. A scope in which later slots
// were taken keeps its token: they count on it.
func (l *Line) Missed(phoneNumberID, recipient string, g Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.giveBack(phoneNumberID, recipient, now)
	l.budget.untake(phoneNumberID, g.Slot)
	if g.Probe {
		l.unsent(phoneNumberID)
	}
	l.serve(now)
}

func (l *Line) giveBack(phoneNumberID, recipient string, now time.Time) bool {
	p := l.budget.phones[phoneNumberID]
	if p == nil || !p.pairs.giveBack(recipient, now) {
		return false
	}
	if q := l.queues[phoneNumberID]; q != nil {
		q.again(recipient, &p.pairs)
	}
	return true
}

// Answered says that a try of the phone number was answered; ok: not by a throttle. It ends the phone number's and the
// WABA's probe where this phone number's try was it: call it for grants with Probe, since the answer to an older try
// would end the probe too early. After a refused probe the next one goes when the new pause ends, or in a second.
func (l *Line) Answered(phoneNumberID string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	ended := l.budget.waba.answered(phoneNumberID, ok, now)
	if p := l.budget.phones[phoneNumberID]; p != nil && p.answered(phoneNumberID, ok, now) {
		ended = true
	}
	if ended {
		l.serve(now)
	}
}

// Unsent says that the probe the phone number's try was to be was never sent: the next one is the probe.
func (l *Line) Unsent(phoneNumberID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsent(phoneNumberID)
	l.serve(time.Now())
}

func (l *Line) unsent(phoneNumberID string) {
	l.budget.waba.unsent(phoneNumberID)
	if p := l.budget.phones[phoneNumberID]; p != nil {
		p.unsent(phoneNumberID)
	}
}

// Stale says that a throttle came after the grant was given: its slot may lie after the pause, but what goes first then
// is the probe, so the try has to wait for a new slot.
func (l *Line) Stale(phoneNumberID string, g Grant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.budget.phones[phoneNumberID]
	return g.serial <= l.budget.waba.mark || (p != nil && g.serial <= p.mark)
}

// Wait waits for the try's turn and returns its slot, which is then taken in every scope: at most lead ahead, or now.
// It ends with ErrClosed when the phone number is shut, or with ctx.
func (l *Line) Wait(ctx context.Context, r Request) (Grant, error) {
	if err := ctx.Err(); err != nil {
		return Grant{}, err // before it can take a slot it has no use for
	}
	l.mu.Lock()
	q := l.queues[r.Phone]
	if l.closed || q == nil || q.closed {
		l.mu.Unlock()
		return Grant{}, ErrClosed
	}
	l.serial++
	w := &waiter{priority: r.Priority, serial: l.serial, grant: make(chan Grant, 1)}
	q.add(w, l.pairsOf(r.Phone), r.Recipient)
	l.serve(time.Now())
	l.mu.Unlock()
	select {
	case g, ok := <-w.grant:
		if !ok {
			return Grant{}, ErrClosed
		}
		return g, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.index >= 0 {
			q.remove(w, l.pairsOf(r.Phone))
			return Grant{}, ctx.Err()
		}
		// It was served at the same moment: the slot is lost, the rest is not.
		if g, ok := <-w.grant; ok {
			now := time.Now()
			l.giveBack(r.Phone, r.Recipient, now)
			if g.Probe {
				l.unsent(r.Phone)
			}
			l.serve(now)
		}
		return Grant{}, ctx.Err()
	}
}

func (l *Line) pairsOf(phoneNumberID string) *pairs {
	if p := l.budget.phones[phoneNumberID]; p != nil {
		return &p.pairs
	}
	return nil
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
	l.budget.refresh(now)
	lead := l.lead
	if l.budget.shared() {
		lead = min(lead, sharedLead)
	}
	for {
		var best *waitQueue
		var first *group
		var phone string
		var slot time.Time
		for id, q := range l.queues {
			g, at := q.next(l.budget, id, now)
			if g != nil && (best == nil || at.Before(slot) || (at.Equal(slot) && q.served < best.served)) {
				best, first, phone, slot = q, g, id, at
			}
		}
		if best == nil {
			return
		}
		if ahead := slot.Sub(now); ahead > lead {
			wait := ahead - lead
			if l.budget.moves(now) {
				// A rate that grows brings the slot nearer; a distant one is looked at less often.
				wait = min(wait, max(refreshEvery, ahead/4))
			}
			l.timer.Reset(wait)
			return
		}
		g := l.budget.Take(phone, first.recipient, slot)
		l.serial++
		best.served = l.serial
		w := first.waiters[0]
		best.remove(w, l.pairsOf(phone))
		w.grant <- g
	}
}
