package simulator

import (
	"fmt"
	"time"
)

const (
	chunkSize     = 4096
	maxChunks     = 1024 // about four million messages one by one; older ones are forgotten
	maxDuplicates = 1000 // ids listed; the count goes on
	maxNames      = 10_000
)

// record is one accept, kept small: 56 bytes, and about as much again in seen.
type record struct {
	ours     ourID
	arrival  time.Duration
	told     time.Duration // when the webhook's receiver took the first status; 0: none
	try      int32
	phone    uint32
	template uint32
	worker   uint32
	last4    int16
	posted   uint8 // bit per status that the webhook's receiver took
	level    uint8 // 0 accepted, then the highest of sent … played plus one
	fault    uint8 // of chaos
	lost     bool  // gets no webhook, by chaos
	gone     bool  // the client had gone before the answer
	lite     bool  // came to /marketing_messages
}

// highest is the furthest status that was told, failed before all; empty for none.
func (r *record) highest() string {
	for st := statusFailed; ; st-- {
		switch {
		case r.posted&(1<<st) != 0:
			return st.String()
		case st == statusSent:
			return ""
		}
	}
}

// names gives small numbers to strings that repeat, up to maxNames of them.
type names struct {
	index map[string]uint32
	list  []string
}

func (n *names) of(s string) uint32 {
	if i, ok := n.index[s]; ok {
		return i
	}
	if len(n.list) >= maxNames {
		s = "(other)"
		if i, ok := n.index[s]; ok {
			return i
		}
	}
	i := uint32(len(n.list)) //nolint:gosec // at most maxNames + 1
	n.list = append(n.list, s)
	n.index[s] = i
	return i
}

type deliveryKey struct{ phone, template uint32 }

// delivery counts messages by the status they have reached at least.
type delivery struct {
	accepted int64
	reached  [statusPlayed + 1]int64
	failed   int64
}

// ledger is all that was accepted. The Server's mutex guards it.
type ledger struct {
	generation int64 // tells statuses of messages from before a reset
	base, next int64 // sequence numbers: first kept, next to give
	maxChunks  int
	chunks     []*[chunkSize]record
	templates  names
	workers    names
	byWorker   []int64
	seen       map[ourID]uint32 // accepts by our id
	oddIDs     map[ourID]string // text of our ids that are no UUIDs
	deliveries map[deliveryKey]*delivery
	duplicates []string
	totals     Totals
	chaos      chaosLedger
}

func newLedger(next int64) ledger {
	return ledger{
		generation: next, base: next, next: next, maxChunks: maxChunks,
		templates:  names{index: map[string]uint32{}},
		workers:    names{index: map[string]uint32{}},
		seen:       map[ourID]uint32{},
		oddIDs:     map[ourID]string{},
		deliveries: map[deliveryKey]*delivery{},
	}
}

func (l *ledger) at(seq int64) *record {
	i := seq - l.base
	if i < 0 || seq >= l.next {
		return nil
	}
	return &l.chunks[i/chunkSize][i%chunkSize]
}

func (l *ledger) idText(id ourID) string {
	if id == (ourID{}) {
		return ""
	}
	return idText(id, l.oddIDs[id])
}

// accept records an accept and returns its sequence number, from 1.
func (l *ledger) accept(p *phone, m *message, arrival time.Duration, worker string) int64 {
	if int(l.next-l.base) == len(l.chunks)*chunkSize {
		if len(l.chunks) == l.maxChunks {
			l.forgetChunk()
		}
		l.chunks = append(l.chunks, new([chunkSize]record))
	}
	seq := l.next
	l.next++
	r := l.at(seq)
	*r = record{
		ours: m.ours, arrival: arrival, try: m.try, phone: p.index,
		template: l.templates.of(m.template), worker: l.workers.of(worker),
		last4: int16(m.last4), //nolint:gosec // -1 … 9999
		lite:  m.marketing,
	}
	for int(r.worker) >= len(l.byWorker) {
		l.byWorker = append(l.byWorker, 0)
	}
	l.byWorker[r.worker]++
	l.totals.Accepted++
	l.delivery(r).accepted++
	if m.ours != (ourID{}) {
		if m.oursText != "" {
			l.oddIDs[m.ours] = m.oursText
		}
		l.seen[m.ours]++
		switch n := l.seen[m.ours]; {
		case n == 2:
			l.totals.Duplicates++
			if len(l.duplicates) < maxDuplicates {
				l.duplicates = append(l.duplicates, l.idText(m.ours))
			}
			fallthrough
		case n > 2:
			l.totals.ExtraAccepts++
		}
	}
	return seq
}

// throttled counts a message that a limit refused.
func (l *ledger) throttled(kind string) {
	l.totals.ThrottledLimit++
	switch kind {
	case scopePhone:
		l.totals.ThrottledPhone++
	case scopeWABA:
		l.totals.ThrottledWABA++
	case scopeApp:
		l.totals.ThrottledApp++
	case scopePair:
		l.totals.ThrottledPair++
	}
}

// forgetChunk drops the oldest records; the counts stay.
func (l *ledger) forgetChunk() {
	for i := range l.chunks[0] {
		id := l.chunks[0][i].ours
		delete(l.seen, id)
		delete(l.oddIDs, id)
	}
	l.chunks = append(l.chunks[:0], l.chunks[1:]...)
	l.base += chunkSize
}

func (l *ledger) delivery(r *record) *delivery {
	key := deliveryKey{r.phone, r.template}
	d := l.deliveries[key]
	if d == nil {
		d = &delivery{}
		l.deliveries[key] = d
	}
	return d
}

// settle counts a status that the receiver of the webhook took with a 200. Each counts
// once a message; read implies delivered, and so on down.
func (l *ledger) settle(seq int64, st status, now time.Duration, phones []*phone) {
	r := l.at(seq)
	if r == nil {
		return
	}
	bit := uint8(1) << st
	if r.posted&bit != 0 {
		l.totals.DuplicateStatuses++
		return
	}
	if r.posted == 0 {
		r.told = now
	}
	r.posted |= bit
	phones[r.phone].statuses[st]++
	d := l.delivery(r)
	if st == statusFailed {
		d.failed++
		return
	}
	for ; r.level <= uint8(st); r.level++ {
		d.reached[r.level]++
	}
}

// Accepts returns accepts one by one in the order of their sequence numbers, those
// after the given one, at most limit (1 … 10,000).
func (s *Server) Accepts(after int64, limit int) []Accept {
	limit = min(max(limit, 1), 10_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.ledger
	first := max(after+1, l.base)
	out := make([]Accept, 0, min(limit, int(max(l.next-first, 0))))
	for seq := first; seq < l.next && len(out) < limit; seq++ {
		r := l.at(seq)
		a := Accept{
			Seq: seq, OurID: l.idText(r.ours), Try: int(r.try), WAMID: s.wamid(seq),
			Phone: s.scopes.byIndex[r.phone].id, Template: l.templates.list[r.template],
			ArrivalUnixNS: s.epoch.Add(r.arrival).UnixNano(), Worker: l.workers.list[r.worker],
			Statuses: []string{}, Told: r.highest(), Fault: faults[r.fault], Lost: r.lost, ClientGone: r.gone,
		}
		if r.posted != 0 {
			a.FirstToldUnixNS = s.epoch.Add(r.told).UnixNano()
		}
		if r.lite {
			a.API = "marketing_messages"
		}
		if r.last4 >= 0 {
			a.ToLast4 = fmt.Sprintf("%04d", r.last4)
		}
		for st := range statusCount {
			if r.posted&(1<<st) != 0 {
				a.Statuses = append(a.Statuses, st.String())
			}
		}
		out = append(out, a)
	}
	return out
}
