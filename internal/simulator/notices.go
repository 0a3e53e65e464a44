package simulator

import (
	"container/heap"
	"time"
)

// notifyLater is Notify for values of ours, after a delay and with the lock held. It
// returns what cancel takes; nil when too many notifications wait.
func (s *Server) notifyLater(field, waba string, value any, delay time.Duration) *pending {
	t := &pending{
		carries: carriesNotice, generation: s.ledger.generation, statuses: make([]status, 1), delay: delay,
		wabaID: waba, field: field, value: rawJSON(value), billedBy: statusCount,
	}
	t.left.Store(1)
	if !s.queue.addNotice(t, s.now()) {
		return nil
	}
	return t
}

// cancel takes a notification back that is not due yet.
func (q *statusQueue) cancel(p *pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.schedule {
		if other == p {
			heap.Remove(&q.schedule, i)
			q.pending--
			q.notices--
			p.settle(len(p.statuses))
			return
		}
	}
}
