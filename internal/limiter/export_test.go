package limiter

import "time"

// Next gives the earliest slot a new try of the phone number could get if nobody else waited, and how many wait.
func (l *Line) Next(phoneNumberID string) (slot time.Time, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[phoneNumberID]; q != nil {
		waiting = len(q.waiters)
	}
	slot, _ = l.budget.Earliest(phoneNumberID, time.Now())
	return slot, waiting
}
