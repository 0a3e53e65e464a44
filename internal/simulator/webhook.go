package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	webhookPosters    = 8
	webhookTimeout    = 20 * time.Second
	webhookBackoff    = 100 * time.Millisecond // first wait; doubles
	webhookBackoffMax = 2 * time.Second
)

// The types below are Meta's webhook envelope, as v23.0 shapes it.
type hook struct {
	Object string      `json:"object"`
	Entry  []hookEntry `json:"entry"`
}

type hookEntry struct {
	ID      string       `json:"id"`
	Changes []hookChange `json:"changes"`
}

type hookChange struct {
	Value hookValue `json:"value"`
	Field string    `json:"field"`
}

type hookValue struct {
	MessagingProduct string        `json:"messaging_product"`
	Metadata         hookMetadata  `json:"metadata"`
	Contacts         []hookContact `json:"contacts,omitempty"`
	Statuses         []hookStatus  `json:"statuses"`
}

type hookMetadata struct {
	DisplayPhoneNumber string `json:"display_phone_number"`
	PhoneNumberID      string `json:"phone_number_id"`
}

type hookContact struct {
	Profile hookProfile `json:"profile"`
	WaID    string      `json:"wa_id,omitempty"`
	UserID  string      `json:"user_id,omitempty"`
}

type hookProfile struct {
	Name string `json:"name"`
}

type hookStatus struct {
	ID              string            `json:"id"`
	Status          string            `json:"status"`
	Timestamp       string            `json:"timestamp"`
	RecipientID     string            `json:"recipient_id,omitempty"`
	RecipientUserID string            `json:"recipient_user_id,omitempty"`
	Opaque          string            `json:"biz_opaque_callback_data,omitempty"`
	Conversation    *hookConversation `json:"conversation,omitempty"`
	Pricing         *hookPricing      `json:"pricing,omitempty"`
	Errors          []hookError       `json:"errors,omitempty"`
}

type hookConversation struct {
	ID         string     `json:"id"`
	Expiration string     `json:"expiration_timestamp,omitempty"`
	Origin     hookOrigin `json:"origin"`
}

type hookOrigin struct {
	Type string `json:"type"`
}

type hookPricing struct {
	Billable bool   `json:"billable"`
	Model    string `json:"pricing_model"`
	Type     string `json:"type"`
	Category string `json:"category"`
}

type hookError struct {
	Code      int           `json:"code"`
	Title     string        `json:"title"`
	Message   string        `json:"message"`
	ErrorData hookErrorData `json:"error_data"`
	Href      string        `json:"href"`
}

type hookErrorData struct {
	Details string `json:"details"`
}

func newWebhookClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: webhookPosters,
			IdleConnTimeout:     30 * time.Second,
		}
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       webhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// runPoster posts due statuses until ctx ends.
func (s *Server) runPoster(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.queue.ready:
		}
		for ctx.Err() == nil {
			batch := s.queue.take()
			if batch == nil {
				break
			}
			s.deliver(ctx, batch)
		}
	}
}

// deliver posts one batch until it is taken, the time for retries is over, or ctx ends.
func (s *Server) deliver(ctx context.Context, batch []event) {
	var body []byte
	giveUp := s.now() + s.retryFor
	for backoff := webhookBackoff; ; backoff = min(2*backoff, webhookBackoffMax) {
		set := s.settings.Load()
		if set.webhookURL == "" {
			s.finish(batch, &s.ledger.totals.StatusesDiscarded)
			return
		}
		if body == nil {
			var err error
			if body, err = s.hookBody(batch); err != nil { // only our own plain structs come here
				s.log.Error("simulator: building a webhook", slog.Any("error", err))
				s.finish(batch, &s.ledger.totals.StatusesLost)
				return
			}
		}
		err := s.postHook(ctx, set.webhookURL, set.appSecret, body)
		if err == nil {
			s.finish(batch, &s.ledger.totals.StatusesPosted)
			return
		}
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.ledger.totals.WebhookRetries++
		s.mu.Unlock()
		if s.now() >= giveUp {
			s.log.Warn("simulator: webhook given up", slog.Int("statuses", len(batch)), slog.Any("error", err))
			s.finish(batch, &s.ledger.totals.StatusesLost)
			return
		}
		if !pause(ctx, backoff/2+rand.N(backoff/2)) { //nolint:gosec // jitter needs no secrecy
			return
		}
	}
}

// finish settles a batch and counts it in one of the totals.
func (s *Server) finish(batch []event, total *int64) {
	s.mu.Lock()
	posted := total == &s.ledger.totals.StatusesPosted
	if posted {
		s.ledger.totals.WebhookPosts++
	}
	for _, e := range batch {
		if e.p.generation != s.ledger.generation {
			continue
		}
		*total++
		if posted {
			s.ledger.settle(e.p.seq, e.status, s.scopes.byIndex)
		}
	}
	s.mu.Unlock()
	s.queue.done(batch)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// postHook posts one signed body; only a 200 counts as taken, as for Meta.
func (s *Server) postHook(ctx context.Context, url, secret string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making the webhook request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	req.Header.Set("X-Hub-Signature-256", sign(secret, body))
	res, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("posting the webhook: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection is reused
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("posting the webhook: HTTP %d", res.StatusCode)
	}
	return nil
}

// sign is the value of X-Hub-Signature-256 for exactly these bytes.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// hookBody builds one POST: an entry for each WABA, a change for each phone number,
// statuses in the order in which they fell due.
func (s *Server) hookBody(batch []event) ([]byte, error) {
	h := hook{Object: "whatsapp_business_account"}
	for _, e := range batch {
		v := h.value(e.p)
		v.addContact(e.p)
		v.Statuses = append(v.Statuses, s.hookStatus(e))
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // Meta escapes non-ASCII only
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("encoding the webhook: %w", err)
	}
	return escapeNonASCII(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// value finds or adds the change of a message's phone number.
func (h *hook) value(p *pending) *hookValue {
	var entry *hookEntry
	for i := range h.Entry {
		if h.Entry[i].ID == p.wabaID {
			entry = &h.Entry[i]
		}
	}
	if entry == nil {
		h.Entry = append(h.Entry, hookEntry{ID: p.wabaID})
		entry = &h.Entry[len(h.Entry)-1]
	}
	for i := range entry.Changes {
		if v := &entry.Changes[i].Value; v.Metadata.PhoneNumberID == p.phoneID {
			return v
		}
	}
	entry.Changes = append(entry.Changes, hookChange{Field: "messages", Value: hookValue{
		MessagingProduct: "whatsapp",
		Metadata:         hookMetadata{p.display, p.phoneID},
	}})
	return &entry.Changes[len(entry.Changes)-1].Value
}

func (v *hookValue) addContact(p *pending) {
	for _, c := range v.Contacts {
		if c.WaID == p.to && c.UserID == p.userID {
			return
		}
	}
	// A name with letters beyond ASCII, so that every webhook shows Meta's escaping.
	v.Contacts = append(v.Contacts, hookContact{Profile: hookProfile{"Empfänger"}, WaID: p.to, UserID: p.userID})
}

func (s *Server) hookStatus(e event) hookStatus {
	p := e.p
	at := s.epoch.Add(e.at)
	out := hookStatus{
		ID: s.wamid(p.seq), Status: e.status.String(), Timestamp: strconv.FormatInt(at.Unix(), 10),
		RecipientID: p.to, RecipientUserID: p.userID, Opaque: p.opaque,
	}
	if e.priced {
		out.Conversation = &hookConversation{
			ID: fmt.Sprintf("%x%016x", s.nonce[:8], p.seq), Origin: hookOrigin{p.category},
		}
		out.Pricing = &hookPricing{Billable: true, Model: "PMP", Type: "regular", Category: p.category}
		if p.category == "service" {
			out.Pricing.Billable, out.Pricing.Type = false, "free_customer_service"
		}
		if e.status == statusSent {
			out.Conversation.Expiration = strconv.FormatInt(at.Add(24*time.Hour).Unix(), 10)
		}
	}
	if e.status == statusFailed {
		out.Errors = []hookError{{
			Code: 131026, Title: "Message undeliverable", Message: "Message undeliverable",
			ErrorData: hookErrorData{undeliverableDetails},
			Href:      "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
		}}
	}
	return out
}

// escapeNonASCII rewrites valid JSON so that every character beyond ASCII is \uxxxx in
// lower-case hex (as a surrogate pair where it needs one): the form Meta signs.
func escapeNonASCII(in []byte) []byte {
	first := bytes.IndexFunc(in, func(r rune) bool { return r >= utf8.RuneSelf })
	if first < 0 {
		return in
	}
	out := make([]byte, first, len(in)+len(in)/4)
	copy(out, in)
	for rest := in[first:]; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		char := rest[:size]
		rest = rest[size:]
		switch {
		case r < utf8.RuneSelf:
			out = append(out, char...)
		case r >= 0x10000:
			r -= 0x10000
			out = appendEscape(appendEscape(out, 0xd800+(r>>10)), 0xdc00+(r&0x3ff))
		default:
			out = appendEscape(out, r)
		}
	}
	return out
}

func appendEscape(out []byte, unit rune) []byte {
	const hexDigits = "0123456789abcdef"
	return append(out, '\\', 'u', hexDigits[unit>>12&0xf], hexDigits[unit>>8&0xf], hexDigits[unit>>4&0xf], hexDigits[unit&0xf])
}
