package simulator

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const maxOutage = 24 * time.Hour

// WebhookCount is how many statuses, and of how many messages, something was done to.
type WebhookCount struct {
	Statuses int64 `json:"statuses"`
	Messages int64 `json:"messages"`
}

// outage is a time in which no webhook is posted. The queue's mutex guards it.
type outage struct {
	until time.Duration // 0: none
	over  chan struct{} // closed when it ends
	kept  WebhookCount
}

// keep counts a status that an outage keeps back.
func (o *outage) keep(e *event) {
	if e.kept || e.p.carries != carriesStatuses {
		return
	}
	e.kept = true
	o.kept.Statuses++
	if !e.p.kept {
		e.p.kept = true
		o.kept.Messages++
	}
}

func (o *outage) end() {
	if o.until != 0 {
		o.until = 0
		close(o.over)
	}
}

// setOutage begins an outage, or moves the end of the one that is on.
func (q *statusQueue) setOutage(until time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.outage.until == 0 {
		q.outage.over = make(chan struct{})
		for i := q.head; i < len(q.outbox); i++ {
			q.outage.keep(&q.outbox[i])
		}
	}
	q.outage.until = until
	signal(q.earlier) // its end is a thing to wake up for
}

func (q *statusQueue) endOutage() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.outage.end()
}

// mayPost holds a poster with its batch until no outage is on; false when ctx ended, or a
// reset has forgotten the batch.
func (q *statusQueue) mayPost(ctx context.Context, batch []event) bool {
	for {
		q.mu.Lock()
		stale := batch[0].p.generation != q.generation // then all are
		on, over := q.outage.until != 0, q.outage.over
		for i := range batch {
			if on && !stale {
				q.outage.keep(&batch[i])
			}
		}
		q.mu.Unlock()
		switch {
		case stale:
			q.done(batch)
			return false
		case !on:
			return true
		}
		select {
		case <-over:
		case <-ctx.Done():
			return false
		}
	}
}

// Outage makes no webhook POST for d (a day at most), from now on; what is on the wire
// already ends. What falls due in that time is kept and posted afterwards. A second call
// moves the end, d ≤ 0 ends the outage now, and so does Reset. Hold and Release are apart
// from it: while either is on nothing is posted.
func (s *Server) Outage(d time.Duration) {
	if d <= 0 {
		s.queue.endOutage()
		return
	}
	s.queue.setOutage(s.now() + min(d, maxOutage))
}

func (s *Server) serveOutage(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Seconds *float64 `json:"seconds"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if err := outageSeconds(in.Seconds); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	s.Outage(time.Duration(*in.Seconds * float64(time.Second)))
	w.WriteHeader(http.StatusNoContent)
}

func outageSeconds(n *float64) error {
	if n == nil || !(*n >= 0 && *n <= maxOutage.Seconds()) { // NaN is neither
		return errors.New("seconds is missing, or not from 0 (end it) to 86,400")
	}
	return nil
}
