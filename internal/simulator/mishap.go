package simulator

import (
	"bufio"
	"net/http"
	"regexp"
	"time"
)

// luck is what chance has for one message; without c none.
type luck struct {
	c     *chaos
	key   uint64
	fault uint8
}

func (c *chaos) of(m *message) luck {
	key := c.key(m)
	return luck{c, key, c.fault(key)}
}

// mishap records a fault that comes before the accept, if chance has one: then the request
// is decided. The caller holds the lock.
func (s *Server) mishap(r *request, luck luck) (v verdict, over bool) {
	fault := errorOf(luck.fault, luck.key)
	if fault == nil && luck.fault != faultResetRead {
		return verdict{}, false
	}
	s.ledger.chaos.meet(luck.fault, r.m.ours)
	what := string(faults[luck.fault])
	if fault == nil {
		return s.reset(r, what), true
	}
	s.countRefused(r.p, fault, scopeChaos, r.p.id, r.at)
	s.missed.add(r, what, fault.told())
	return verdict{fault: fault}, true
}

// befall does to an accepted message what chance has for it.
func (l *ledger) befall(seq int64, taken *pending, luck luck) {
	if luck.fault != faultNone {
		l.chaos.meet(luck.fault, l.at(seq).ours)
		l.at(seq).fault = luck.fault
	}
	l.at(seq).lost = luck.c.disturb(taken, luck.key, &l.chaos)
}

// resetUnread resets the connection of a request whose body has not been read.
func (s *Server) resetUnread(w http.ResponseWriter, phoneID string, arrival time.Duration, worker string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	m := &message{}
	if err == nil {
		m = glimpse(buffered.Reader)
	}
	s.mu.Lock()
	if p := s.scopes.phone(phoneID); p != nil {
		s.reset(&request{p, m, s.scopes.monotone(arrival), worker}, string(FaultResetUnread))
		s.ledger.chaos.meet(faultResetUnread, m.ours)
	}
	s.mu.Unlock()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes what cannot be hijacked
	}
	cut(conn)
}

var ourOpaque = regexp.MustCompile(`"biz_opaque_callback_data"\s*:\s*"(g1:[^"\\]{1,509})"`)

// glimpse finds our id in what came along with the headers, without reading on. The
// ledger would otherwise not know whom the reset met.
func glimpse(r *bufio.Reader) *message {
	m := &message{}
	seen, err := r.Peek(r.Buffered())
	if err != nil { // cannot be: it asks for what is there
		return m
	}
	if found := ourOpaque.FindSubmatch(seen); found != nil {
		m.opaque = string(found[1])
		m.parseOpaque()
	}
	return m
}
