package cloudapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"
)

// MaxNotification is the longest webhook body that is parsed, in bytes. Meta
// documents 3 MB.
const MaxNotification = 4 << 20

// The most that is kept of a status's texts, in bytes.
const (
	maxWord      = 128
	maxRecipient = 256
	maxOpaque    = 512 // characters
)

// VerifySignature says whether header, X-Hub-Signature-256, is the signature of
// the raw body with the app secret. It compares in constant time. An empty
// secret verifies nothing.
func VerifySignature(body []byte, header string, secret []byte) bool {
	digits, ok := strings.CutPrefix(header, "sha256=")
	if !ok || len(secret) == 0 || len(digits) != 2*sha256.Size {
		return false
	}
	got, err := hex.DecodeString(digits)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(got, mac.Sum(nil))
}

// VerifyHandshake checks the query of Meta's GET on a webhook address against
// the verify token, in constant time, and gives the challenge to answer with
// (as text/plain: it is a stranger's text). An empty token verifies nothing.
func VerifyHandshake(query url.Values, token string) (challenge string, ok bool) {
	got, want := sha256.Sum256([]byte(query.Get("hub.verify_token"))), sha256.Sum256([]byte(token))
	same := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	challenge = query.Get("hub.challenge")
	if !same || token == "" || query.Get("hub.mode") != "subscribe" || challenge == "" || len(challenge) > 1024 {
		return "", false
	}
	return challenge, true
}

// Notification is one webhook POST.
type Notification struct {
	Object  string // whatsapp_business_account
	Entries []Entry
}

// Entry is what one POST says of one WABA.
type Entry struct {
	ID      string    // the WABA's id
	Time    time.Time // zero when not given
	Changes []Change
}

// Change is one event: a field and its value, kept raw and part of the body.
type Change struct {
	Field string
	Value json.RawMessage
}

// Reasons why a body is no Notification.
var (
	ErrNotNotification      = errors.New("the body is no webhook notification")
	ErrNotificationTooLarge = errors.New("the webhook notification is too large")
)

// ParseNotification reads the envelope of a webhook body. Ids and times may be
// strings or numbers; members it does not know are passed over, and so are entries
// without changes and changes without a field, so that what is read is never many times
// as large as the body. It fails with
// ErrNotificationTooLarge over MaxNotification bytes and with
// ErrNotNotification for anything but an object with an object name and an
// array of entries.
func ParseNotification(body []byte) (Notification, error) {
	if len(body) > MaxNotification {
		return Notification{}, ErrNotificationTooLarge
	}
	if !isObject(body) || !json.Valid(body) {
		return Notification{}, ErrNotNotification
	}
	n := Notification{Object: clipped(member(body, "object"), maxWord)}
	entries := member(body, "entry")
	if n.Object == "" || !isArray(entries) {
		return Notification{}, ErrNotNotification
	}
	elements(entries, func(b []byte) bool {
		var e Entry
		members(b, func(key, value []byte) bool {
			switch name, _ := plain(key); string(name) {
			case "id":
				id, _ := textOrNumber(value)
				e.ID = clip(id, maxWord)
			case "time":
				e.Time = moment(value)
			case "changes":
				elements(value, func(c []byte) bool {
					if field := clipped(member(c, "field"), maxWord); field != "" {
						e.Changes = append(e.Changes, Change{Field: field, Value: json.RawMessage(member(c, "value"))})
					}
					return true
				})
			}
			return true
		})
		if len(e.Changes) > 0 {
			n.Entries = append(n.Entries, e)
		}
		return true
	})
	return n, nil
}

// StatusUpdate is one element of statuses[] in a change of field messages.
type StatusUpdate struct {
	PhoneNumberID   string
	DisplayPhone    string
	WAMID           string
	Status          string // sent, delivered, read, played, failed, or a word not known here
	Timestamp       time.Time
	RecipientID     string // phone number without "+", or group id; may be empty
	RecipientUserID string // business-scoped user id; may be empty
	// ParticipantID is, of a message to a group, the member whom the status is about; empty where it is about the message.
	ParticipantID string
	Opaque        string // biz_opaque_callback_data, ours or the caller's
	Pricing       *Pricing
	// The conversation, where Meta still says it: from version 24 on for free entry points only. Its end comes with sent.
	ConversationID     string
	ConversationOrigin string
	ConversationEnds   time.Time
	Errors             []Error
	Raw                json.RawMessage // the element as it came, part of the body
}

// Pricing is what a status says of a message's price.
type Pricing struct {
	Billable *bool  // nil when not said
	Model    string // PMP, formerly CBP
	Type     string // regular, free_customer_service, free_entry_point
	Category string
}

// maxErrors bounds the errors kept of one status.
const maxErrors = 10

// Statuses gives the message statuses of a change; none for fields other than
// messages. Words it does not know are kept; an element without an id or a
// status cannot be applied to anything and is left out.
func Statuses(c Change) []StatusUpdate {
	if c.Field != "messages" {
		return nil
	}
	phoneID, display := metadata(c.Value)
	var updates []StatusUpdate
	elements(member(c.Value, "statuses"), func(b []byte) bool {
		u, ok := parseStatus(b)
		if ok {
			u.PhoneNumberID, u.DisplayPhone = phoneID, display
			updates = append(updates, u)
		}
		return true
	})
	return updates
}

func metadata(value []byte) (phoneNumberID, display string) {
	meta := member(value, "metadata")
	id, _ := textOrNumber(member(meta, "phone_number_id"))
	number, _ := textOrNumber(member(meta, "display_phone_number"))
	return clip(id, maxWord), clip(number, maxWord)
}

func parseStatus(b []byte) (StatusUpdate, bool) {
	u := StatusUpdate{Raw: json.RawMessage(b)}
	members(b, func(key, value []byte) bool {
		switch name, _ := plain(key); string(name) {
		case "id":
			u.WAMID, _ = text(value)
		case "status":
			u.Status = clipped(value, maxWord)
		case "timestamp":
			u.Timestamp = moment(value)
		case "recipient_id":
			s, _ := textOrNumber(value)
			u.RecipientID = clip(s, maxRecipient)
		case "recipient_user_id":
			u.RecipientUserID = clipped(value, maxRecipient)
		case "biz_opaque_callback_data":
			u.Opaque = clipped(value, 4*maxOpaque)
		case "recipient_participant_id":
			s, _ := textOrNumber(value)
			u.ParticipantID = clip(s, maxRecipient)
		case "conversation":
			u.ConversationID = clipped(member(value, "id"), maxRecipient)
			u.ConversationOrigin = clipped(member(member(value, "origin"), "type"), maxWord)
			u.ConversationEnds = moment(member(value, "expiration_timestamp"))
		case "pricing":
			u.Pricing = pricing(value)
		case "errors":
			u.Errors = errorList(value)
		}
		return true
	})
	usable := u.WAMID != "" && clip(u.WAMID, maxID) == u.WAMID && u.Status != ""
	return u, usable
}

func pricing(b []byte) *Pricing {
	if !isObject(b) {
		return nil
	}
	p := &Pricing{
		Model:    clipped(member(b, "pricing_model"), maxWord),
		Type:     clipped(member(b, "type"), maxWord),
		Category: clipped(member(b, "category"), maxWord),
	}
	switch string(member(b, "billable")) {
	case "true", `"true"`:
		yes := true
		p.Billable = &yes
	case "false", `"false"`:
		no := false
		p.Billable = &no
	}
	return p
}

func errorList(b []byte) []Error {
	var list []Error
	elements(b, func(v []byte) bool {
		if e, ok := parseErrorObject(v); ok {
			list = append(list, *e)
		}
		return len(list) < maxErrors
	})
	return list
}

// moment reads unix seconds, as a string or a number; milliseconds are known by
// their size. What is no time, or outside the years 1970 to 9999, is zero.
func moment(b []byte) time.Time {
	const lastSecond, lastMilli = 253402300799, 253402300799999
	s, ok := textOrNumber(b)
	if !ok {
		return time.Time{}
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i >= 15 {
			return time.Time{}
		}
		n = n*10 + int64(s[i]-'0')
	}
	switch {
	case n == 0 || n > lastMilli:
		return time.Time{}
	case n > lastSecond:
		return time.UnixMilli(n).UTC()
	}
	return time.Unix(n, 0).UTC()
}
