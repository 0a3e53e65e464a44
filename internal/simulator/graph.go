package simulator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxBody = 1 << 20 // bytes of a request's body
	maxID   = 32      // digits of a phone number id
	maxName = 512     // bytes of a template's name (Meta's limit) and of a worker's
)

type answerContact struct {
	Input  string `json:"input"`
	WaID   string `json:"wa_id,omitempty"`
	UserID string `json:"user_id,omitempty"`
}

type answerMessage struct {
	ID     string `json:"id"`
	Status string `json:"message_status,omitempty"`
}

type answer struct {
	MessagingProduct string           `json:"messaging_product"`
	Contacts         [1]answerContact `json:"contacts"`
	Messages         [1]answerMessage `json:"messages"`
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{version}/{phone}/messages", func(w http.ResponseWriter, r *http.Request) { s.serveMessages(w, r, false) })
	mux.HandleFunc("POST /{version}/{phone}/marketing_messages", func(w http.ResponseWriter, r *http.Request) { s.serveMessages(w, r, true) })
	s.manageRoutes(mux)
	mux.HandleFunc("/", s.serveUnknown)
	s.controlRoutes(mux)
	return mux
}

// serveMessages is one POST to the Cloud API. The order is: token, body, behaviours
// that come before an accept, limits, accept, and then how the answer goes out.
func (s *Server) serveMessages(w http.ResponseWriter, r *http.Request, marketing bool) {
	arrival := s.now()
	worker := r.Header.Get("X-Wagate-Worker")
	worker = worker[:min(len(worker), maxName)]
	underWay := s.flights.of(worker)
	underWay.Add(1)
	defer underWay.Add(-1)
	set := s.settings.Load()
	phoneID := r.PathValue("phone")
	if !versionLike(r.PathValue("version")) || !idLike(phoneID) {
		s.writeError(w, errUnknownObject)
		return
	}
	if !tokenOK(r, set.token) {
		s.refuse(w, r, set, phoneID, arrival, errToken)
		return
	}
	if c := s.chaos.Load(); c != nil && c.unread(phoneID) {
		s.resetUnread(w, phoneID, arrival, worker)
		return
	}
	m, fault := readMessage(r)
	if fault != nil {
		s.refuse(w, r, set, phoneID, arrival, fault)
		return
	}
	if m.readReceipt {
		if s.wait(r.Context(), set.answerAfter()) {
			writeJSON(w, http.StatusOK, map[string]bool{"success": true})
		}
		return
	}
	m.marketing = marketing

	v := s.accept(phoneID, m, arrival, worker, set)
	switch {
	case v.reset:
		dropConnection(w)
		return
	case v.fault != nil:
		if s.wait(r.Context(), set.answerAfter()) {
			v.usage.set(w.Header())
			s.writeError(w, v.fault)
		}
		return
	}
	s.queue.add(v.taken, s.now())
	v.usage.set(w.Header())
	s.answerAccepted(w, r.Context(), set, v, m)
}

// request is a message that has arrived, as it is decided.
type request struct {
	p      *phone
	m      *message
	at     time.Duration
	worker string
}

// verdict is what becomes of one request: the message accepted, or the error to answer,
// or that the connection is to be reset.
type verdict struct {
	taken  *pending
	answer int // how it goes out, of the message accepted
	fault  *graphError
	reset  bool
	usage  usageHeaders
}

// accept decides one request under the lock.
func (s *Server) accept(phoneID string, m *message, arrival time.Duration, worker string, set *settings) (v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.scopes.phone(phoneID)
	if p == nil {
		return verdict{fault: errUnknownObject}
	}
	arrival = s.scopes.monotone(arrival)
	v = s.decide(&request{p, m, arrival, worker}, set)
	if s.usage.on() || v.fault != nil && v.fault.regain > 0 {
		v.usage = s.usageOf(p.app, p.waba.id, useMessages, p.waba, p.waba.limit(s.scopes.defWABA), v.fault, arrival)
	}
	return v
}

// decide is accept without the usage: a rule's error, or what the recipient's digits ask
// for, or chance, then the limits, then the ledger. The caller holds the lock.
func (s *Server) decide(r *request, set *settings) verdict {
	var rule *errorRule
	if len(s.rules.list) > 0 {
		rule = s.rules.find(r.p, r.m)
	}
	if rule == nil {
		var fault *graphError
		if fault, rule = s.objection(r.p, r.m, r.at); fault != nil {
			return s.decline(r, fault, scopeRequest, r.p.id)
		}
	}
	steer := behaviourOf(r.m.last4)
	switch {
	case rule != nil && rule.By == ByAnswer:
		s.rules.hit(rule)
		s.ledger.totals.ErrorsOnDemand++
		return s.decline(r, rule.fault, scopeError, r.p.id)
	case (steer.before != nil || steer.resetBefore) && (!steer.once || s.once.first(r.p.index, r.m)):
		if steer.resetBefore {
			return s.reset(r, scopeDigits)
		}
		if steer.once {
			r.p.throttledProvoked++
			s.ledger.totals.ThrottledProvoked++
		}
		return s.decline(r, steer.before, scopeDigits, r.p.id)
	}
	var luck luck
	if c := s.chaos.Load(); c != nil && rule == nil && !steered(r.m.last4) {
		luck = c.of(r.m)
		if v, over := s.mishap(r, luck); over {
			return v
		}
		steer.answer = answerOf(luck.fault)
	}
	if fault, kind, id := s.scopes.admit(r.p, r.m.key(), r.at); fault != nil {
		s.ledger.throttled(kind)
		return s.decline(r, fault, kind, id)
	}
	if rule != nil {
		s.rules.hit(rule)
		s.ledger.totals.FailuresOnDemand++
		steer.failure, steer.statuses = rule.failure, []status{statusFailed}
		if rule.SentFirst {
			steer.statuses = []status{statusSent, statusFailed}
		}
	}
	seq := s.ledger.accept(r.p, r.m, r.at, r.worker)
	switch steer.answer {
	case answerDropped:
		s.ledger.totals.DroppedAnswers++
	case answerBadGateway:
		s.ledger.totals.BadGateways++
	case answerSlow:
		s.ledger.totals.SlowAnswers++
	}
	taken := newPending(s.ledger.generation, seq, r.p, r.m, steer, set.statusDelay)
	if luck.c != nil {
		s.ledger.befall(seq, taken, luck)
	}
	return verdict{taken: taken, answer: steer.answer}
}

// decline records an error answer to a message.
func (s *Server) decline(r *request, fault *graphError, scope, id string) verdict {
	s.countRefused(r.p, fault, scope, id, r.at)
	s.missed.add(r, scope, fault.told())
	return verdict{fault: fault}
}

// reset records a connection that is reset before the accept.
func (s *Server) reset(r *request, what string) verdict {
	s.ledger.totals.Resets++
	s.missed.add(r, what, 0)
	return verdict{reset: true}
}

// answerAccepted gives the answer of an accepted message as its behaviour wants it.
func (s *Server) answerAccepted(w http.ResponseWriter, ctx context.Context, set *settings, v verdict, m *message) { //nolint:revive // w first, as in net/http
	after, taken := set.answerAfter(), v.taken
	switch v.answer {
	case answerDropped:
		dropConnection(w)
		return
	case answerBadGateway:
		if s.wait(ctx, after) {
			w.WriteHeader(http.StatusBadGateway)
		} else {
			s.clientGone(taken)
		}
		return
	case answerSlow:
		after = set.slowAnswer
	case answerAfterStatuses:
		timer := time.NewTimer(answerAfterStatusesBound)
		select {
		case <-taken.settled:
		case <-timer.C:
		case <-s.closed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	if !s.wait(ctx, after) {
		s.clientGone(taken)
		return
	}
	a := answer{MessagingProduct: "whatsapp"}
	a.Contacts[0] = answerContact{Input: m.input, WaID: m.waID, UserID: m.userID}
	a.Messages[0].ID = s.wamid(taken.seq)
	if m.typ == "template" {
		a.Messages[0].Status = "accepted"
	}
	writeJSON(w, http.StatusOK, a)
}

// clientGone notes that the answer of an accepted message found nobody.
func (s *Server) clientGone(taken *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.ledger.at(taken.seq); r != nil {
		r.gone = true
	}
}

// refuse counts and answers an error found before the message was looked at.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, set *settings, phoneID string, arrival time.Duration, fault *graphError) {
	s.mu.Lock()
	if p := s.scopes.phone(phoneID); p != nil {
		s.countRefused(p, fault, scopeRequest, p.id, s.scopes.monotone(arrival))
	}
	s.mu.Unlock()
	if s.wait(r.Context(), set.answerAfter()) {
		s.writeError(w, fault)
	}
}

// countRefused counts an error answer and who gave it; the caller holds the lock.
func (s *Server) countRefused(p *phone, fault *graphError, scope, id string, arrival time.Duration) {
	p.refused++
	r := Refusal{AtMS: arrival.Milliseconds(), Phone: p.id, Scope: scope, ID: id, Code: fault.told()}
	s.refusals.add(r)
	t := &s.ledger.totals
	t.Refused++
	switch r.Code {
	case 190:
		t.Unauthorized++
	case 100, 131008, 131009:
		t.Invalid++
	case 131026:
		t.Undeliverable++
	case 131000:
		t.ServerErrors++
	}
}

func (v *settings) answerAfter() time.Duration {
	if v.jitter > 0 {
		return v.latency + rand.N(v.jitter) //nolint:gosec // jitter needs no secrecy
	}
	return v.latency
}

// wamid makes the id of an accept from its sequence number, in Meta's form.
func (s *Server) wamid(seq int64) string { return s.wamidOf(outboundMark, seq) }

const (
	outboundMark = 0x11
	inboundMark  = 0x12
)

func (s *Server) wamidOf(mark byte, seq int64) string {
	var raw [19]byte
	copy(raw[:], s.nonce[:])
	raw[10] = mark
	binary.BigEndian.PutUint64(raw[11:], uint64(seq)) //nolint:gosec // counts up from one
	return "wamid.HBgL" + base64.StdEncoding.EncodeToString(raw[:])
}

// dropConnection ends the connection with a reset and no answer.
func dropConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes what cannot be hijacked
	}
	cut(conn)
}

func cut(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset instead of an orderly end
	}
	_ = conn.Close()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only our own plain structs come here
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

var bodies sync.Pool // of *bytes.Buffer

// readMessage reads and checks a request's body.
func readMessage(r *http.Request) (*message, *graphError) {
	buf, ok := bodies.Get().(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	buf.Reset()
	defer bodies.Put(buf)
	if _, err := buf.ReadFrom(io.LimitReader(r.Body, maxBody+1)); err != nil && !errors.Is(err, io.EOF) {
		return nil, invalid(100, "the body could not be read")
	}
	if buf.Len() > maxBody {
		return nil, invalid(100, "the body is larger than 1 MiB")
	}
	return parseMessage(buf.Bytes())
}

func tokenOK(r *http.Request, want string) bool {
	token := presented(r)
	return token != "" && (want == "" || token == want)
}

// presented is the token of a request; empty without one.
func presented(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "OAuth") {
		token = ""
	}
	if token == "" && r.URL.RawQuery != "" {
		token = r.URL.Query().Get("access_token")
	}
	return token
}

// idLike says whether a path segment can be a phone number id: digits only.
func idLike(id string) bool { return id != "" && len(id) <= maxID && digitsOf(id) == id }

// versionLike says whether a path segment is vNN.N.
func versionLike(v string) bool {
	major, minor, ok := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	return ok && v[0] == 'v' && major != "" && minor != "" && digitsOf(major) == major && digitsOf(minor) == minor
}
