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

// graphError is one answer in the Graph API's error envelope.
type graphError struct {
	status, code, subcode int
	message, details      string
}

var (
	errPhoneThrottled = &graphError{http.StatusBadRequest, 130429, 2494055, "(#130429) Rate limit hit",
		"Message failed to send because there were too many messages sent from this phone number in a short period of time."}
	errWABAThrottled = &graphError{http.StatusBadRequest, 80007, 0, "(#80007) Rate limit issues",
		"The WhatsApp Business Account has reached its rate limit."}
	errAppThrottled = &graphError{http.StatusBadRequest, 4, 0, "(#4) Application request limit reached",
		"The app has reached its API call rate limit."}
	errPairThrottled = &graphError{http.StatusBadRequest, 131056, 2494055, "(#131056) (Business Account, Consumer Account) pair rate limit hit",
		"Too many messages sent from this phone number to the same phone number in a short period of time."}
	errThrottled429  = &graphError{http.StatusTooManyRequests, 130429, 2494055, errPhoneThrottled.message, errPhoneThrottled.details}
	errUndeliverable = &graphError{http.StatusBadRequest, 131026, 0, "(#131026) Message undeliverable", undeliverableDetails}
	errInternal      = &graphError{http.StatusInternalServerError, 131000, 0, "(#131000) Something went wrong",
		"Message failed to send because of an unknown error."}
	errToken = &graphError{http.StatusUnauthorized, 190, 0, "Invalid OAuth access token - Cannot parse access token",
		"A valid bearer token is required."}
	errUnknownObject = &graphError{http.StatusNotFound, 100, 33, "(#100) Unsupported request: the object or path does not exist",
		"Check the HTTP method, the API version and the id."}
)

const undeliverableDetails = "Message Undeliverable."

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
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_sim/") {
			controlError(w, http.StatusNotFound, "no such control route")
			return
		}
		s.writeError(w, errUnknownObject)
	})
	s.controlRoutes(mux)
	return mux
}

// serveMessages is one POST to the Cloud API. The order is: token, body, behaviours
// that come before an accept, limits, accept, and then how the answer goes out.
func (s *Server) serveMessages(w http.ResponseWriter, r *http.Request, marketing bool) {
	arrival := s.now()
	set := s.settings.Load()
	phoneID := r.PathValue("phone")
	if !versionLike(r.PathValue("version")) || !idLike(phoneID) {
		s.writeError(w, errUnknownObject)
		return
	}
	if !tokenOK(r, set.token) {
		s.refuse(w, r, set, phoneID, errToken)
		return
	}
	m, fault := readMessage(r)
	if fault != nil {
		s.refuse(w, r, set, phoneID, fault)
		return
	}
	if m.readReceipt {
		if s.wait(r.Context(), set.answerAfter()) {
			writeJSON(w, http.StatusOK, map[string]bool{"success": true})
		}
		return
	}
	m.marketing = marketing
	steer := behaviourOf(m.last4)
	worker := r.Header.Get("X-Wagate-Worker")
	worker = worker[:min(len(worker), maxName)]

	taken, fault, reset := s.accept(phoneID, m, steer, arrival, worker, set)
	switch {
	case reset:
		dropConnection(w)
		return
	case fault != nil:
		if s.wait(r.Context(), set.answerAfter()) {
			s.writeError(w, fault)
		}
		return
	}
	s.queue.add(taken, s.now())
	s.answerAccepted(w, r.Context(), set, steer, taken, m)
}

// accept decides one request under the lock: it returns the accepted message, or the
// error to answer, or that the connection is to be reset.
func (s *Server) accept(phoneID string, m *message, steer behaviour, arrival time.Duration, worker string, set *settings) (taken *pending, fault *graphError, reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.scopes.phone(phoneID)
	if p == nil {
		return nil, errUnknownObject, false
	}
	arrival = s.scopes.monotone(arrival)
	if steer.before != nil || steer.resetBefore {
		if !steer.once || s.once.first(p.index, m) {
			switch {
			case steer.resetBefore:
				s.ledger.totals.Resets++
				return nil, nil, true
			case steer.once:
				p.throttledProvoked++
				s.ledger.totals.ThrottledProvoked++
			}
			s.countRefused(p, steer.before)
			return nil, steer.before, false
		}
	}
	if fault := s.scopes.admit(p, m.key(), arrival); fault != nil {
		s.ledger.totals.ThrottledLimit++
		s.countRefused(p, fault)
		return nil, fault, false
	}
	seq := s.ledger.accept(p, m, arrival, worker)
	switch steer.answer {
	case answerDropped:
		s.ledger.totals.DroppedAnswers++
	case answerBadGateway:
		s.ledger.totals.BadGateways++
	case answerSlow:
		s.ledger.totals.SlowAnswers++
	}
	return newPending(s.ledger.generation, seq, p, m, steer, set.statusDelay), nil, false
}

// answerAccepted gives the answer of an accepted message as its behaviour wants it.
func (s *Server) answerAccepted(w http.ResponseWriter, ctx context.Context, set *settings, steer behaviour, taken *pending, m *message) { //nolint:revive // w first, as in net/http
	after := set.answerAfter()
	switch steer.answer {
	case answerDropped:
		dropConnection(w)
		return
	case answerBadGateway:
		if s.wait(ctx, after) {
			w.WriteHeader(http.StatusBadGateway)
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

// refuse counts and answers an error found before the message was looked at.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, set *settings, phoneID string, fault *graphError) {
	s.mu.Lock()
	if p := s.scopes.phone(phoneID); p != nil {
		s.countRefused(p, fault)
	}
	s.mu.Unlock()
	if s.wait(r.Context(), set.answerAfter()) {
		s.writeError(w, fault)
	}
}

// countRefused counts an error answer; the caller holds the lock.
func (s *Server) countRefused(p *phone, fault *graphError) {
	p.refused++
	t := &s.ledger.totals
	t.Refused++
	switch fault.code {
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
func (s *Server) wamid(seq int64) string {
	var raw [19]byte
	copy(raw[:], s.nonce[:])
	raw[10] = 0x11
	binary.BigEndian.PutUint64(raw[11:], uint64(seq)) //nolint:gosec // counts up from one
	return "wamid.HBgL" + base64.StdEncoding.EncodeToString(raw[:])
}

// dropConnection ends the connection with a reset and no answer.
func dropConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes what cannot be hijacked
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset instead of an orderly end
	}
	_ = conn.Close()
}

func (s *Server) writeError(w http.ResponseWriter, e *graphError) {
	type data struct {
		MessagingProduct string `json:"messaging_product"`
		Details          string `json:"details"`
	}
	type body struct {
		Message   string `json:"message"`
		Type      string `json:"type"`
		Code      int    `json:"code"`
		Subcode   int    `json:"error_subcode,omitempty"`
		ErrorData data   `json:"error_data"`
		TraceID   string `json:"fbtrace_id"`
	}
	var raw [15]byte
	copy(raw[:7], s.nonce[:])
	binary.BigEndian.PutUint64(raw[7:], s.traceID.Add(1))
	writeJSON(w, e.status, map[string]body{"error": {
		Message: e.message, Type: "OAuthException", Code: e.code, Subcode: e.subcode,
		ErrorData: data{"whatsapp", e.details},
		TraceID:   "A" + base64.RawURLEncoding.EncodeToString(raw[:]),
	}})
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
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "OAuth") {
		token = ""
	}
	if token == "" && r.URL.RawQuery != "" {
		token = r.URL.Query().Get("access_token")
	}
	return token != "" && (want == "" || token == want)
}

// idLike says whether a path segment can be a phone number id: digits only.
func idLike(id string) bool { return id != "" && len(id) <= maxID && digitsOf(id) == id }

// versionLike says whether a path segment is vNN.N.
func versionLike(v string) bool {
	major, minor, ok := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	return ok && v[0] == 'v' && major != "" && minor != "" && digitsOf(major) == major && digitsOf(minor) == minor
}
