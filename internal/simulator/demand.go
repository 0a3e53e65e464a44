package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const (
	maxInbound     = 100_000   // messages of one request
	maxInboundRate = 10_000    // messages a second of one request
	maxInboundKept = 1_000_000 // messages of a phone number in an hour
	maxNotice      = 256 << 10 // bytes of a notification's value
	maxNotices     = 100_000   // notifications waiting
)

// what a pending carries
const (
	carriesStatuses = iota
	carriesInbound
	carriesNotice
)

// InboundMessages are text messages from a user to a phone number.
type InboundMessages struct {
	Phone string // phone number id
	From  string // the user's number; it appears as its WhatsApp ID
	Text  string // empty means "hello"
	Count int    // 1 … 100,000
	// PerSecond spaces them evenly, the first at once; 0 means all at once.
	PerSecond int
}

func (in InboundMessages) check() error {
	switch {
	case !idLike(in.Phone):
		return errors.New("phone is not a phone number id (digits only, 32 at most)")
	case len(digitsOf(in.From)) < 5 || len(in.From) > 32:
		return errors.New("from is not a phone number")
	case len(in.Text) > 4096:
		return errors.New("text is longer than 4,096 bytes")
	case in.Count < 1 || in.Count > maxInbound:
		return fmt.Errorf("count is not from 1 to %d", maxInbound)
	case in.PerSecond < 0 || in.PerSecond > maxInboundRate:
		return fmt.Errorf("per_second is not from 0 (all at once) to %d", maxInboundRate)
	}
	return nil
}

// Inbound posts webhooks of inbound messages, from now on. Each counts against the
// phone number's throughput at its own time, which inbound and outbound messages share;
// it is never refused itself.
func (s *Server) Inbound(in InboundMessages) error {
	if err := in.check(); err != nil {
		return fmt.Errorf("making inbound messages: %w", err)
	}
	if in.Text == "" {
		in.Text = "hello"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.scopes.phone(in.Phone)
	if p == nil {
		return errors.New("making inbound messages: too many phones")
	}
	now := s.scopes.monotone(s.now())
	t := &pending{
		carries: carriesInbound, generation: s.ledger.generation, seq: s.inbound, statuses: make([]status, in.Count),
		phoneID: p.id, wabaID: p.waba.id, display: p.display, to: waIDOf(digitsOf(in.From)), text: in.Text,
		billedBy: statusCount,
	}
	if in.PerSecond > 0 {
		t.delay = time.Second / time.Duration(in.PerSecond)
	}
	if err := p.inbound.expect(now, t.delay, in.Count); err != nil {
		return err
	}
	p.heard(t.to, now)
	t.left.Store(int32(in.Count)) //nolint:gosec // at most maxInbound
	s.inbound += int64(in.Count)
	p.received += int64(in.Count)
	s.ledger.totals.Inbound += int64(in.Count)
	s.queue.add(t, now-t.delay)
	return nil
}

// expect adds the times of n inbound messages from now on.
func (h *history) expect(now, gap time.Duration, n int) error {
	for h.head < len(h.times) && h.times[h.head] <= now-maxWindow {
		h.head++
	}
	if len(h.live())+n > maxInboundKept {
		return fmt.Errorf("making inbound messages: more than %d for one phone number in an hour", maxInboundKept)
	}
	times := make([]time.Duration, 0, len(h.live())+n)
	times = append(times, h.live()...)
	for i := range n {
		times = append(times, now+time.Duration(i)*gap)
	}
	slices.Sort(times)
	h.times, h.head = times, 0
	return nil
}

var fieldName = regexp.MustCompile(`^[a-z][a-z_]{1,63}$`)

// Notify posts a webhook with one change: any field Meta has, such as
// phone_number_quality_update, and its value (encoded as JSON; an object). It is signed
// and retried like all others.
func (s *Server) Notify(field, wabaID string, value any) error {
	raw, err := json.Marshal(value)
	switch {
	case err != nil:
		return fmt.Errorf("notifying of %q: encoding the value: %w", field, err)
	case !fieldName.MatchString(field):
		return fmt.Errorf("notifying: %q is not a webhook field's name", field)
	case wabaID == "" || len(wabaID) > maxID:
		return fmt.Errorf("notifying of %s: waba is empty or too long", field)
	case len(raw) == 0 || raw[0] != '{':
		return fmt.Errorf("notifying of %s: value is not a JSON object", field)
	case len(raw) > maxNotice:
		return fmt.Errorf("notifying of %s: value is longer than %d bytes", field, maxNotice)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &pending{
		carries: carriesNotice, generation: s.ledger.generation, statuses: make([]status, 1),
		wabaID: wabaID, field: field, value: raw, billedBy: statusCount,
	}
	t.left.Store(1)
	if !s.queue.addNotice(t, s.now()) {
		return fmt.Errorf("notifying of %s: %d notifications are waiting already", field, maxNotices)
	}
	return nil
}

// noticeBody builds the POST of one notification.
func (s *Server) noticeBody(e event) ([]byte, error) {
	type change struct {
		Value json.RawMessage `json:"value"`
		Field string          `json:"field"`
	}
	type entry struct {
		ID      string   `json:"id"`
		Time    int64    `json:"time"`
		Changes []change `json:"changes"`
	}
	return encodeHook(struct {
		Object string  `json:"object"`
		Entry  []entry `json:"entry"`
	}{hookObject, []entry{{e.p.wabaID, s.epoch.Add(e.at).Unix(), []change{{e.p.value, e.p.field}}}}})
}

func (s *Server) hookInbound(e event) hookMessage {
	return hookMessage{
		From: e.p.to, ID: s.wamidOf(inboundMark, e.p.seq+int64(e.step)+1), Type: "text",
		Timestamp: strconv.FormatInt(s.epoch.Add(e.at).Unix(), 10), Text: &hookText{e.p.text},
	}
}

func (s *Server) serveInbound(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Phone     string `json:"phone"`
		From      string `json:"from"`
		Text      string `json:"text"`
		Count     int    `json:"count"`
		PerSecond int    `json:"per_second"`
	}
	in.Count = 1
	if !readControl(w, r, &in) {
		return
	}
	if err := s.Inbound(InboundMessages(in)); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveNotice(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Field string          `json:"field"`
		WABA  string          `json:"waba"`
		Value json.RawMessage `json:"value"`
	}
	if !readControl(w, r, &in) {
		return
	}
	if len(bytes.TrimSpace(in.Value)) == 0 {
		controlError(w, http.StatusBadRequest, "value is missing")
		return
	}
	if err := s.Notify(in.Field, in.WABA, in.Value); err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
