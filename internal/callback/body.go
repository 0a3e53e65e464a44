package callback

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"wagate/internal/store"
)

// event is what is posted in our own format, as Standard Webhooks recommends it.
type event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      any       `json:"data"`
}

type statusData struct {
	ID        uuid.UUID         `json:"id"`
	Status    string            `json:"status"`
	From      string            `json:"from"`
	WABAID    string            `json:"waba_id"`
	To        *string           `json:"to"`
	Type      *string           `json:"type"`
	WAMID     *string           `json:"wamid"`
	Error     *errorData        `json:"error"`
	Pricing   json.RawMessage   `json:"pricing"`
	Reference *string           `json:"reference"`
	Tags      map[string]string `json:"tags"`
	ResendOf  *uuid.UUID        `json:"resend_of"`
}

type errorData struct {
	Code    *int    `json:"code"`
	Subcode *int    `json:"subcode"`
	Title   *string `json:"title"`
	Details *string `json:"details"`
	Scope   *string `json:"scope"`
}

type inboundData struct {
	// ID is Meta's: the message is none of ours.
	ID            string `json:"id"`
	PhoneNumberID string `json:"phone_number_id"`
	WABAID        string `json:"waba_id"`
	From          string `json:"from"`
	FromUserID    string `json:"from_user_id,omitempty"`
	Type          string `json:"type"`
	// InReplyTo is the message of ours that it answers or reacts to.
	InReplyTo *uuid.UUID      `json:"in_reply_to"`
	Message   json.RawMessage `json:"message"`
	Contact   json.RawMessage `json:"contact"`
}

type noticeData struct {
	WABAID        string          `json:"waba_id"`
	PhoneNumberID string          `json:"phone_number_id,omitempty"`
	Field         string          `json:"field"`
	Event         string          `json:"event,omitempty"`
	Value         json.RawMessage `json:"value"`
}

// facts are what bodies are made of beside the events.
type facts struct {
	messages map[uuid.UUID]*store.CallbackMessage
	given    map[string]store.GivenID
}

// body makes what is posted.
func body(format string, d *store.DueCallback, f *facts) ([]byte, error) {
	var raw []byte
	var err error
	if format == FormatMeta {
		raw, err = metaBody(d, f)
	} else {
		raw, err = wagateBody(d, f)
	}
	if err != nil {
		return nil, fmt.Errorf("writing callback %d: %w", d.Seq, err)
	}
	return raw, nil
}

// said is what an event of the log says of an error and a price: Meta's way, or ours.
type said struct {
	Errors  []errorData     `json:"errors"`
	Pricing json.RawMessage `json:"pricing"`
	errorData
}

func readDetail(d *store.DueCallback, m *store.CallbackMessage) (*errorData, json.RawMessage) {
	var s said
	if len(d.Detail) > 0 {
		_ = json.Unmarshal(d.Detail, &s) // our own; what is not as it should be is not told
	}
	if d.Status != "failed" {
		return nil, s.Pricing
	}
	switch {
	case len(s.Errors) > 0:
		return &s.Errors[0], s.Pricing
	case s.Code != nil:
		return &s.errorData, s.Pricing
	case m != nil && (m.ErrorCode != nil || m.ErrorTitle != nil):
		return &errorData{m.ErrorCode, m.ErrorSubcode, m.ErrorTitle, m.ErrorDetails, m.ErrorScope}, s.Pricing
	}
	return nil, s.Pricing
}

func wagateBody(d *store.DueCallback, f *facts) ([]byte, error) {
	e := event{Type: d.Kind, Timestamp: d.At.UTC()}
	switch d.Kind {
	case store.TellStatus:
		m := f.messages[d.Chain]
		data := statusData{ID: d.Chain, Status: d.Status, From: d.PhoneNumberID, WABAID: d.WABAID}
		data.Error, data.Pricing = readDetail(d, m)
		if m != nil {
			data.To, data.Type, data.WAMID, data.Reference, data.Tags, data.ResendOf = &m.Recipient, &m.Type, m.WAMID, m.Reference, m.Tags, m.ResendOf
		}
		e.Data = data
	case store.TellInbound:
		e.Data = inbound(d, f)
	default:
		var v struct {
			Event string `json:"event"`
		}
		_ = json.Unmarshal(d.Value, &v) // some have none
		e.Data = noticeData{WABAID: d.WABAID, PhoneNumberID: d.PhoneNumberID, Field: d.Field, Event: v.Event, Value: valid(d.Value)}
	}
	return json.Marshal(e)
}

// valid gives a value of Meta's, or null where it is no JSON.
func valid(raw []byte) json.RawMessage {
	if !json.Valid(raw) {
		return nil
	}
	return raw
}

func inbound(d *store.DueCallback, f *facts) inboundData {
	var v struct {
		Contacts []json.RawMessage `json:"contacts"`
		Messages []json.RawMessage `json:"messages"`
	}
	data := inboundData{PhoneNumberID: d.PhoneNumberID, WABAID: d.WABAID}
	if json.Unmarshal(d.Value, &v) != nil || len(v.Messages) == 0 {
		return data
	}
	data.Message = v.Messages[0]
	if len(v.Contacts) > 0 {
		data.Contact = v.Contacts[0]
	}
	var m struct {
		ID, From, Type string
		FromUserID     string `json:"from_user_id"`
	}
	_ = json.Unmarshal(data.Message, &m) // a member of another kind is not repeated; message has it
	data.ID, data.From, data.Type, data.FromUserID = m.ID, m.From, m.Type, m.FromUserID
	for _, wamid := range repliesTo(d.Value) {
		if g, ok := f.given[wamid]; ok {
			data.InReplyTo = &g.ID
		}
	}
	return data
}

// repliesTo gives the ids of other messages that the message in a value names.
func repliesTo(value []byte) []string {
	var v struct {
		Messages []struct {
			Context  struct{ ID string }
			Reaction struct {
				MessageID string `json:"message_id"`
			}
		}
	}
	if json.Unmarshal(value, &v) != nil {
		return nil
	}
	var ids []string
	for _, m := range v.Messages {
		for _, id := range []string{m.Context.ID, m.Reaction.MessageID} {
			if id != "" {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// object is a JSON object whose members are looked at one by one.
type object = map[string]json.RawMessage

// metaBody is Meta's envelope around the value: as Meta has sent it, but for ids and the client's own callback data; or as
// Meta would have put what the gateway says.
func metaBody(d *store.DueCallback, f *facts) ([]byte, error) {
	value, field := json.RawMessage(d.Value), d.Field
	var err error
	switch {
	case d.Kind == store.TellStatus && len(d.Value) == 0:
		field = "messages"
		value, err = ownStatus(d, f.messages[d.Chain])
	case d.Kind == store.TellStatus:
		value, err = rewritten(value, "statuses", func(status object) error { return asGiven(status, d, f.messages[d.Chain]) })
	case d.Kind == store.TellInbound:
		value, err = rewritten(value, "messages", func(m object) error { return replyAsGiven(m, f) })
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"object": "whatsapp_business_account",
		"entry": []any{map[string]any{
			"id": d.WABAID, "time": d.At.Unix(), "changes": []any{map[string]any{"field": field, "value": value}},
		}},
	})
}

// rewritten changes the elements of a list in a value.
func rewritten(value json.RawMessage, list string, change func(object) error) (json.RawMessage, error) {
	var v object
	var all []object
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(v[list], &all); err != nil {
		return nil, err
	}
	for _, element := range all {
		if err := change(element); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	v[list] = raw
	return json.Marshal(v)
}

func text(s string) json.RawMessage {
	raw, _ := json.Marshal(s) // a string always marshals
	return raw
}

const opaqueMember = "biz_opaque_callback_data"

// asGiven names the message of a status as its client knows it. Our own callback data goes whatever is known of the message.
func asGiven(status object, d *store.DueCallback, m *store.CallbackMessage) error {
	delete(status, opaqueMember)
	if m != nil && m.Opaque != nil {
		status[opaqueMember] = text(*m.Opaque)
	}
	if m == nil || !m.ToldWAMID {
		status["id"] = text(d.Chain.String())
	}
	return nil
}

// replyAsGiven names the messages that a user's message answers or reacts to as their client knows them.
func replyAsGiven(m object, f *facts) error {
	for _, at := range []struct{ member, id string }{{"context", "id"}, {"reaction", "message_id"}} {
		var inner object
		if m[at.member] == nil || json.Unmarshal(m[at.member], &inner) != nil || inner == nil {
			continue
		}
		var id string
		if json.Unmarshal(inner[at.id], &id) != nil {
			continue
		}
		if g, ok := f.given[id]; ok && !g.ToldWAMID {
			inner[at.id] = text(g.ID.String())
			raw, err := json.Marshal(inner)
			if err != nil {
				return err
			}
			m[at.member] = raw
		}
	}
	return nil
}

// Meta's words for what the gateway decides.
const (
	codeGeneric = 131000 // something went wrong
	errorsPage  = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"
)

// ownStatus is the value of a status that Meta has not sent: sent, where an operator has said so; else failed, of which
// expired and cancelled are kinds.
func ownStatus(d *store.DueCallback, m *store.CallbackMessage) (json.RawMessage, error) {
	word := "failed"
	if d.Status == "sent" {
		word = "sent"
	}
	status := map[string]any{"id": d.Chain.String(), "status": word, "timestamp": strconv.FormatInt(d.At.Unix(), 10)}
	metadata := map[string]any{"phone_number_id": d.PhoneNumberID}
	if m != nil {
		if m.ToldWAMID && m.WAMID != nil {
			status["id"] = *m.WAMID
		}
		if m.Opaque != nil {
			status[opaqueMember] = *m.Opaque
		}
		status["recipient_id"] = recipientID(m)
		metadata["display_phone_number"] = digits(m.DisplayPhone)
	}
	if word == "failed" {
		status["errors"] = []any{ownError(d, m)}
	}
	return json.Marshal(map[string]any{"messaging_product": "whatsapp", "metadata": metadata, "statuses": []any{status}})
}

func ownError(d *store.DueCallback, m *store.CallbackMessage) map[string]any {
	code, title, details := codeGeneric, "The message failed", ""
	switch d.Status {
	case "expired":
		title, details = "The message expired", "It was not sent before its expires_at."
	case "cancelled":
		title, details = "The message was cancelled", "It was cancelled before it was sent."
	default:
		e, _ := readDetail(d, m)
		if e != nil {
			if e.Code != nil {
				code = *e.Code
			}
			if e.Title != nil && *e.Title != "" {
				title = *e.Title
			}
			if e.Details != nil {
				details = *e.Details
			}
		}
	}
	if details == "" {
		details = title
	}
	return map[string]any{"code": code, "title": title, "message": title, "error_data": map[string]any{"details": details}, "href": errorsPage}
}

func recipientID(m *store.CallbackMessage) string {
	if m.WAID != nil && *m.WAID != "" {
		return *m.WAID
	}
	if strings.ContainsFunc(m.Recipient, func(r rune) bool { return r >= 'A' }) {
		return m.Recipient // a group or a user id
	}
	return digits(m.Recipient)
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}
