package simulator

import (
	"container/heap"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxPending = 4_000_000            // statuses waiting; more are counted lost
	batchSize  = 100                  // statuses a POST at most
	linger     = 2 * time.Millisecond // between two looks at the schedule, so that batches form
)

// pending is an accepted message whose statuses are not all posted yet; or inbound
// messages of one request, or a notification (statuses then only counts them).
type pending struct {
	carries    uint8
	kept       bool // an outage has kept back one of its statuses; the queue's
	generation int64
	seq        int64
	statuses   []status
	next       int
	delay      time.Duration
	due        time.Duration // of statuses[next]
	plan       *plan         // nil: each status after delay

	phoneID, wabaID, display string
	to, userID               string
	opaque, category         string
	billedBy                 status // the one of delivered and read that carries the price
	failure                  *hookError
	text                     string // of inbound messages
	field                    string // of a notification, and its value
	value                    []byte

	left    atomic.Int32
	settled chan struct{} // closed when nothing is left; only where someone waits
}

// newPending makes the life of an accepted message; the caller holds the lock.
func newPending(generation, seq int64, p *phone, m *message, steer behaviour, delay time.Duration) *pending {
	t := &pending{
		generation: generation, seq: seq, statuses: steer.statuses, delay: delay,
		phoneID: p.id, wabaID: p.waba.id, display: p.display,
		to: m.waID, userID: m.userID, opaque: m.opaque, category: category(m),
		billedBy: statusCount, failure: steer.failure,
	}
	if m.typ == "reaction" && steer.failure == nil && len(t.statuses) > 0 && t.statuses[0] != statusFailed {
		t.statuses = []status{statusSent} // documented: a reaction gets no other status
	}
	if steer.answer == answerAfterStatuses {
		t.delay = 0
		t.settled = make(chan struct{})
		if len(t.statuses) == 0 {
			close(t.settled)
		}
	}
	t.left.Store(int32(len(t.statuses))) //nolint:gosec // a handful
	return t
}

// category guesses a pricing category; Meta knows it of the template.
func category(m *message) string {
	switch name := strings.ToLower(m.template); {
	case m.typ != "template":
		return "service"
	case m.marketing:
		return "marketing_lite"
	case strings.Contains(name, "marketing") || strings.Contains(name, "promo"):
		return "marketing"
	case strings.Contains(name, "auth") || strings.Contains(name, "otp"):
		return "authentication"
	}
	return "utility"
}

// event is one status that is due.
type event struct {
	p      *pending
	status status
	step   int // of p.statuses
	at     time.Duration
	priced bool
	kept   bool // back by an outage
}

// schedule orders messages by when their next status is due.
type schedule []*pending

func (h schedule) Len() int { return len(h) }
func (h schedule) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].seq < h[j].seq
}
func (h schedule) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push adds a *pending; nothing else is ever pushed.
func (h *schedule) Push(x any) {
	if p, ok := x.(*pending); ok {
		*h = append(*h, p)
	}
}

// Pop removes the last element.
func (h *schedule) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return p
}

// statusQueue is the one time-ordered queue of all statuses to come, and the outbox of
// those that are due. One goroutine moves them from the one to the other, the posters
// empty the outbox.
type statusQueue struct {
	mu         sync.Mutex
	generation int64
	schedule   schedule
	outbox     []event
	head       int
	held       bool
	outage     outage
	pending    int64
	notices    int   // of those pending
	lost       int64 // not queued because the queue was full

	earlier chan struct{} // the first due time moved forward
	ready   chan struct{} // a token for each poster that has something to do
}

func (q *statusQueue) init() {
	q.generation = 1
	q.earlier = make(chan struct{}, 1)
	q.ready = make(chan struct{}, webhookPosters)
}

func (q *statusQueue) add(p *pending, now time.Duration) {
	if len(p.statuses) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.push(p, now)
}

// addNotice adds a notification; false when too many wait.
func (q *statusQueue) addNotice(p *pending, now time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.notices >= maxNotices {
		return false
	}
	if p.generation == q.generation {
		q.notices++
	}
	q.push(p, now)
	return true
}

func (q *statusQueue) push(p *pending, now time.Duration) {
	n := int64(len(p.statuses))
	switch {
	case p.generation != q.generation: // accepted just before a reset
		p.settle(len(p.statuses))
		return
	case q.pending+n > maxPending:
		q.lost += n
		p.settle(len(p.statuses))
		return
	}
	q.pending += n
	p.due = now + p.delay
	if p.plan != nil {
		p.plan.start = now
		p.due = now + p.plan.steps[0].due
	}
	heap.Push(&q.schedule, p)
	if q.schedule[0] == p {
		signal(q.earlier)
	}
}

// fire moves what is due to the outbox, ends an outage that is over, and says when to look
// again; ok is false when nothing is scheduled.
func (q *statusQueue) fire(now time.Duration) (next time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.outage.until <= now {
		q.outage.end()
	}
	for len(q.schedule) > 0 && q.schedule[0].due <= now {
		p := q.schedule[0]
		q.outbox = append(q.outbox, p.event())
		if q.outage.until != 0 {
			q.outage.keep(&q.outbox[len(q.outbox)-1])
		}
		if p.advance() {
			heap.Fix(&q.schedule, 0)
		} else {
			heap.Pop(&q.schedule)
		}
	}
	q.wakePosters()
	next, ok = q.outage.until, q.outage.until != 0
	if len(q.schedule) > 0 && (!ok || q.schedule[0].due < next) {
		next, ok = q.schedule[0].due, true
	}
	return next, ok
}

// event is the status that is due.
func (p *pending) event() event {
	st := p.statuses[p.next]
	e := event{p: p, status: st, step: p.next, at: p.due, priced: p.priced(st)}
	if p.plan != nil {
		e.at = p.plan.start + p.plan.steps[p.next].at
	}
	return e
}

// advance goes on to the next status; false when there is none.
func (p *pending) advance() bool {
	if p.next++; p.next == len(p.statuses) {
		return false
	}
	if p.plan != nil {
		p.due = p.plan.start + p.plan.steps[p.next].due
	} else {
		p.due += p.delay
	}
	return true
}

// priced says whether a status carries conversation and pricing: sent does, and one of
// delivered and read.
func (p *pending) priced(st status) bool {
	switch st {
	case statusSent:
		return true
	case statusDelivered, statusRead:
		if p.billedBy == statusCount {
			p.billedBy = st
		}
		return p.billedBy == st
	}
	return false
}

// take removes up to batchSize due statuses from the outbox, unless they are held. A
// notification comes alone.
func (q *statusQueue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held || q.head == len(q.outbox) {
		return nil
	}
	n := 1
	for most := min(batchSize, len(q.outbox)-q.head); n < most; n++ {
		if q.outbox[q.head].p.carries == carriesNotice || q.outbox[q.head+n].p.carries == carriesNotice {
			break
		}
	}
	batch := append([]event(nil), q.outbox[q.head:q.head+n]...)
	clear(q.outbox[q.head : q.head+n])
	if q.head += n; q.head == len(q.outbox) || q.head > 65_536 {
		rest := copy(q.outbox, q.outbox[q.head:])
		clear(q.outbox[rest:])
		q.outbox, q.head = q.outbox[:rest], 0
	}
	q.wakePosters()
	return batch
}

// wakePosters gives tokens for what waits in the outbox; the caller holds the lock. A
// full channel is enough: its tokens are still to be used.
func (q *statusQueue) wakePosters() {
	if q.held {
		return
	}
	for waiting := len(q.outbox) - q.head; waiting > 0; waiting -= batchSize {
		if !signal(q.ready) {
			return
		}
	}
}

// done takes statuses off the count of those to come.
func (q *statusQueue) done(batch []event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range batch {
		if e.p.generation == q.generation {
			q.pending--
			if e.p.carries == carriesNotice {
				q.notices--
			}
		}
		e.p.settle(1)
	}
}

func (p *pending) settle(n int) {
	if p.left.Add(int32(-n)) == 0 && p.settled != nil { //nolint:gosec // a handful
		close(p.settled)
	}
}

func (q *statusQueue) setHeld(held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = held
	q.wakePosters()
}

// reset drops what is to come of messages accepted before generation, and ends an outage.
func (q *statusQueue) reset(generation int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.generation = generation
	q.schedule, q.outbox, q.head, q.pending, q.notices, q.lost = nil, nil, 0, 0, 0, 0
	q.outage.end()
	q.outage.kept = WebhookCount{}
}

func (q *statusQueue) counts() (pending, lost int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending, q.lost
}

func (q *statusQueue) keptBack() WebhookCount {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.outage.kept
}

func signal(c chan struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	default:
		return false
	}
}

// runSchedule fires statuses as they fall due, until ctx ends.
func (s *Server) runSchedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.queue.earlier:
		}
		now := s.now()
		next, ok := s.queue.fire(now)
		if !ok {
			timer.Stop()
			continue
		}
		timer.Reset(max(next-now, linger))
	}
}
