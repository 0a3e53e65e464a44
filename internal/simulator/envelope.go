package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

const (
	hookObject = "whatsapp_business_account"
	errorHref  = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"
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
	Messages         []hookMessage `json:"messages,omitempty"`
	Statuses         []hookStatus  `json:"statuses,omitempty"`
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

// hookMessage is an inbound message.
type hookMessage struct {
	From      string    `json:"from"`
	ID        string    `json:"id"`
	Timestamp string    `json:"timestamp"`
	Type      string    `json:"type"`
	Text      *hookText `json:"text,omitempty"`
}

type hookText struct {
	Body string `json:"body"`
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

// hookBody builds one POST: a notification, or an entry for each WABA, in it a change
// for each phone number's statuses and one for its inbound messages, in the order in
// which they fell due.
func (s *Server) hookBody(batch []event) ([]byte, error) {
	if len(batch) > 0 && batch[0].p.carries == carriesNotice {
		return s.noticeBody(batch[0])
	}
	h := hook{Object: hookObject}
	for _, e := range batch {
		v := h.value(e.p)
		v.addContact(e.p)
		if e.p.carries == carriesInbound {
			v.Messages = append(v.Messages, s.hookInbound(e))
		} else {
			v.Statuses = append(v.Statuses, s.hookStatus(e))
		}
	}
	return encodeHook(h)
}

// encodeHook encodes a POST's body in the form that Meta signs.
func encodeHook(h any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // Meta escapes non-ASCII only
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("encoding the webhook: %w", err)
	}
	return escapeNonASCII(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// value finds or adds the change of a message's phone number and direction.
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
		if v := &entry.Changes[i].Value; v.Metadata.PhoneNumberID == p.phoneID && (len(v.Messages) > 0) == (p.carries == carriesInbound) {
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
		failure := p.failure
		if failure == nil {
			failure = &hookError{
				Code: 131026, Title: "Message undeliverable", Message: "Message undeliverable",
				ErrorData: hookErrorData{undeliverableDetails}, Href: errorHref,
			}
		}
		out.Errors = []hookError{*failure}
	}
	return out
}
