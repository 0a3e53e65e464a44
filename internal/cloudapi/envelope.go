package cloudapi

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Limits of what Inspect takes for an envelope member.
const (
	maxOpaque   = 512 // characters of biz_opaque_callback_data, Meta's limit
	maxTo       = 256 // bytes of to or recipient; a group id has about 60
	maxTypeName = 64
	minDigits   = 5  // the shortest number taken for a phone number
	maxDigits   = 20 // E.164 allows 15; what Meta's "any common format" adds is allowed for
)

// Envelope is what the gateway needs to know of an outbound message. Members
// that were not there, or were at fault, are empty.
type Envelope struct {
	Type            string // the message's type; "text" where only a text object was given
	To              string // as the caller wrote it
	Recipient       string // business-scoped user id, in place of To
	RecipientType   string // individual, group or empty
	ReplyTo         string // context.message_id
	Opaque          string // the caller's own biz_opaque_callback_data
	TemplateName    string
	TemplateLang    string
	CategoryHint    string // "service" for what is no template; a template's category is not in the message
	IsReadReceipt   bool   // status "read" with a message_id: no message, and has no recipient
	From            string // envelope member of the gateway: the phone number id
	Gateway         []byte // envelope member of the gateway, raw and part of the body; nil when absent
	ReadReceiptOf   string // the message_id of a read receipt
	TypingIndicator bool   // a read receipt that also shows the typing indicator
}

// IsReply says whether the message quotes another.
func (e *Envelope) IsReply() bool { return e.ReplyTo != "" }

// Fault is one thing that is wrong with a request.
type Fault struct {
	Pointer string `json:"pointer"` // RFC 6901, into the body; "" for the body as a whole
	Detail  string `json:"detail"`
}

// Option changes what Inspect accepts.
type Option int

// RequirePlus refuses a phone number in "to" that does not begin with "+":
// Meta would put the sender's own country code before it.
const RequirePlus Option = 1

// outbound holds the raw top-level members of a message that Inspect looks at.
type outbound struct {
	product, kind, to, recipient, recipientType []byte
	context, opaque, text, template             []byte
	status, messageID, typing, from, gateway    []byte
}

// Inspect reads the envelope of an outbound message, a Cloud API message object
// that may also hold from and gateway, and gives every fault it finds. It
// checks the envelope and that the type has its object; what is inside that
// object is not looked at. Of a key that occurs twice the last counts.
func Inspect(body []byte, options ...Option) (Envelope, []Fault) {
	if !json.Valid(body) {
		return Envelope{}, []Fault{{"", "is not JSON"}}
	}
	if !isObject(body) {
		return Envelope{}, []Fault{{"", "must be a JSON object"}}
	}
	if !utf8.Valid(body) {
		return Envelope{}, []Fault{{"", "is not valid UTF-8"}} // names of members cannot stand in pointers then
	}
	in := inspection{body: body}
	for _, o := range options {
		in.requirePlus = in.requirePlus || o == RequirePlus
	}
	m := collect(body)
	in.gatewayMembers(m)
	if m.product != nil && !isNull(m.product) {
		if s, _ := text(m.product); s != "whatsapp" {
			in.fault("/messaging_product", `must be "whatsapp"`)
		}
	}
	in.e.Opaque = in.str(m.opaque, "/biz_opaque_callback_data", 4*maxOpaque)
	if utf8.RuneCountInString(in.e.Opaque) > maxOpaque {
		in.fault("/biz_opaque_callback_data", "must have at most 512 characters")
		in.e.Opaque = ""
	}
	if s, _ := text(m.status); s == "read" {
		in.readReceipt(m)
		return in.e, in.faults
	}
	in.recipient(m)
	in.context(m)
	in.kind(m)
	return in.e, in.faults
}

func collect(body []byte) outbound {
	var m outbound
	members(body, func(key, value []byte) bool {
		name, _ := plain(key)
		switch string(name) {
		case "messaging_product":
			m.product = value
		case "type":
			m.kind = value
		case "to":
			m.to = value
		case "recipient":
			m.recipient = value
		case "recipient_type":
			m.recipientType = value
		case "context":
			m.context = value
		case "biz_opaque_callback_data":
			m.opaque = value
		case "text":
			m.text = value
		case "template":
			m.template = value
		case "status":
			m.status = value
		case "message_id":
			m.messageID = value
		case "typing_indicator":
			m.typing = value
		case "from":
			m.from = value
		case "gateway":
			m.gateway = value
		}
		return true
	})
	return m
}

// inspection is one run of Inspect.
type inspection struct {
	body        []byte
	e           Envelope
	faults      []Fault
	requirePlus bool
}

func (in *inspection) fault(pointer, detail string) {
	in.faults = append(in.faults, Fault{pointer, detail})
}

// str reads an optional string member; null counts as absent.
func (in *inspection) str(b []byte, pointer string, limit int) string {
	if b == nil || isNull(b) {
		return ""
	}
	s, ok := text(b)
	switch {
	case !ok:
		in.fault(pointer, "must be a string")
	case len(s) > limit:
		in.fault(pointer, "is too long")
	case strings.IndexByte(s, 0) >= 0:
		in.fault(pointer, "must not contain a NUL character")
	default:
		return s
	}
	return ""
}

func (in *inspection) gatewayMembers(m outbound) {
	in.e.Gateway = m.gateway
	if m.from == nil || isNull(m.from) {
		return
	}
	// Clients that read ids as numbers write them as numbers.
	s, ok := textOrNumber(m.from)
	if !ok || s == "" || len(s) > maxTypeName || strings.Trim(s, "0123456789") != "" {
		in.fault("/from", "must be a phone number id: a string of digits")
		return
	}
	in.e.From = s
}

func (in *inspection) readReceipt(m outbound) {
	in.e.IsReadReceipt = true
	in.e.CategoryHint = "service"
	in.e.TypingIndicator = m.typing != nil && !isNull(m.typing)
	before := len(in.faults)
	in.e.ReadReceiptOf = in.str(m.messageID, "/message_id", maxID)
	if in.e.ReadReceiptOf == "" && len(in.faults) == before {
		in.fault("/message_id", "is required")
	}
}

func (in *inspection) recipient(m outbound) {
	e := &in.e
	e.RecipientType = in.str(m.recipientType, "/recipient_type", maxTypeName)
	if e.RecipientType != "" && e.RecipientType != "individual" && e.RecipientType != "group" {
		in.fault("/recipient_type", `must be "individual" or "group"`)
		e.RecipientType = ""
	}
	e.Recipient = in.str(m.recipient, "/recipient", maxTo)
	if m.to == nil || isNull(m.to) {
		if m.recipient == nil || isNull(m.recipient) || string(m.recipient) == `""` {
			in.fault("/to", "is required")
		}
		return
	}
	before := len(in.faults)
	to := in.str(m.to, "/to", maxTo)
	switch {
	case len(in.faults) > before:
		return
	case to == "" && e.Recipient != "":
		return
	case strings.TrimSpace(to) == "":
		in.fault("/to", "must not be empty")
		return
	case e.RecipientType == "group":
	case !isNumber(to):
		in.fault("/to", "must be a phone number: digits, with spaces, hyphens, dots or brackets between them")
		return
	case in.requirePlus && to[0] != '+':
		in.fault("/to", `must begin with "+" and the country code`)
		return
	}
	e.To = to
}

// isNumber is generous: it refuses only what no one can take for a phone number.
func isNumber(s string) bool {
	digits := 0
	for i, c := range []byte(strings.TrimPrefix(s, "+")) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == ' ' || c == '-' || c == '(' || c == ')' || c == '.':
			if i == 0 && c != '(' {
				return false
			}
		default:
			return false
		}
	}
	return digits >= minDigits && digits <= maxDigits
}

func (in *inspection) context(m outbound) {
	if m.context == nil || isNull(m.context) {
		return
	}
	if !isObject(m.context) {
		in.fault("/context", "must be an object")
		return
	}
	before := len(in.faults)
	in.e.ReplyTo = in.str(member(m.context, "message_id"), "/context/message_id", maxID)
	if in.e.ReplyTo == "" && len(in.faults) == before {
		in.fault("/context/message_id", "is required")
	}
}

func (in *inspection) kind(m outbound) {
	e := &in.e
	if m.kind == nil {
		if m.text == nil {
			in.fault("/type", "is required")
			return
		}
		e.Type = "text"
	} else {
		s, ok := text(m.kind)
		switch {
		case !ok:
			in.fault("/type", "must be a string")
			return
		case s == "" || len(s) > maxTypeName || strings.IndexByte(s, 0) >= 0 || isEnvelopeMember(s):
			in.fault("/type", "is no message type")
			return
		}
		e.Type = s
	}
	content := member(in.body, e.Type)
	pointer := "/" + pointerToken(e.Type)
	if content == nil {
		in.fault(pointer, "is required by the message's type")
		return
	}
	switch e.Type {
	case "text", "image", "audio", "video", "document", "sticker", "location", "reaction", "interactive", "template":
		if !isObject(content) {
			in.fault(pointer, "must be an object")
			return
		}
	case "contacts":
		// One public client library writes the array as a JSON string.
		if s, ok := plain(content); !isArray(content) && (!ok || !isArray(s) || !json.Valid(s)) {
			in.fault(pointer, "must be an array")
			return
		}
	}
	if e.Type != "template" {
		e.CategoryHint = "service"
		return
	}
	e.TemplateName = in.str(member(m.template, "name"), "/template/name", 2048)
	e.TemplateLang = templateLanguage(in, m.template)
}

func templateLanguage(in *inspection, template []byte) string {
	language := member(template, "language")
	if !isObject(language) {
		return "" // whether a template is complete is not the envelope's business
	}
	return in.str(member(language, "code"), "/template/language/code", maxTypeName)
}

// isEnvelopeMember says whether a type's name would collide with the envelope.
func isEnvelopeMember(s string) bool {
	switch s {
	case "messaging_product", "type", "to", "recipient", "recipient_type", "recipient_identity_key_hash",
		"context", "biz_opaque_callback_data", "status", "message_id", "typing_indicator", "from", "gateway":
		return true
	}
	return false
}

// pointerToken escapes a name for a JSON Pointer.
func pointerToken(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}
