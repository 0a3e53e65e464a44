package simulator

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// message is what the simulator needs to know of a request's body.
type message struct {
	readReceipt bool
	marketing   bool
	input       string // to or recipient, as sent
	waID        string // WhatsApp ID of to, or the group's id
	userID      string // recipient, where to is absent
	typ         string
	template    string
	opaque      string // biz_opaque_callback_data
	ours        ourID
	oursText    string          // the id as it came, where it is no UUID
	content     json.RawMessage // the object of typ
	try         int32
	last4       int // last four digits of the recipient, -1 when there are fewer
}

// key names the recipient among those of a phone number.
func (m *message) key() string {
	if m.waID != "" {
		return m.waID
	}
	return m.userID
}

// ourID is the gateway's message id: a UUID's bytes, or a hash of any other text. The
// zero value means none.
type ourID [16]byte

func (id ourID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// parseMessage checks the basics of a body as the Cloud API does: the product, a
// recipient, and the object that the type names.
func parseMessage(body []byte) (*message, *graphError) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, invalid(100, "the body is not a JSON object")
	}
	str := func(name string) (string, *graphError) {
		raw, ok := fields[name]
		if !ok || bytes.Equal(raw, []byte("null")) {
			return "", nil
		}
		if v, ok := plainString(raw); ok {
			return v, nil
		}
		if name == "to" && idLike(string(raw)) { // Graph reads a number as its digits
			return string(raw), nil
		}
		var v string
		if err := json.Unmarshal(raw, &v); err != nil {
			return "", invalid(100, fmt.Sprintf("Param %s must be a string", name))
		}
		return v, nil
	}
	var v [7]string
	for i, name := range [...]string{"messaging_product", "to", "recipient", "type", "status", "message_id", "biz_opaque_callback_data"} {
		var fault *graphError
		if v[i], fault = str(name); fault != nil {
			return nil, fault
		}
	}
	product, to, recipient, typ, status, messageID, opaque := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	switch {
	case product == "":
		return nil, invalid(100, "The parameter messaging_product is required.")
	case product != "whatsapp":
		return nil, invalid(100, "Param messaging_product must be one of {WHATSAPP}")
	case status == "read":
		if messageID == "" {
			return nil, invalid(131008, "The parameter message_id is required.")
		}
		return &message{readReceipt: true}, nil
	case status != "":
		return nil, invalid(100, "Param status must be one of {READ}")
	case to == "" && recipient == "":
		return nil, invalid(131008, "The parameter to is required.")
	case len(opaque) > 512:
		return nil, invalid(100, "Param biz_opaque_callback_data must be at most 512 characters long.")
	}
	m := &message{input: to, typ: typ, opaque: opaque}
	if m.typ == "" {
		m.typ = "text" // Meta takes a text body without a type
	}
	m.content = fields[m.typ]
	if fault := checkObject(m.typ, m.content); fault != nil {
		return nil, fault
	}
	if to == "" {
		m.input, m.userID = recipient, recipient
	} else if m.waID = waIDOf(digitsOf(to)); m.waID == "" {
		m.waID = to // a group's id
	}
	m.last4 = lastFour(m.input)
	if m.typ == "template" {
		var t struct{ Name string }
		if err := json.Unmarshal(fields["template"], &t); err != nil {
			return nil, invalid(100, "Param template['name'] must be a string")
		}
		if t.Name == "" {
			return nil, invalid(131008, "Parameter 'name' is mandatory for type 'template'")
		}
		if len(t.Name) > maxName {
			return nil, invalid(100, "Param template['name'] must be at most 512 characters long.")
		}
		m.template = t.Name
	}
	m.parseOpaque()
	return m, nil
}

// plainString reads a JSON string of printable ASCII without escapes, which most are,
// without a decoder.
func plainString(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c < ' ' || c > '~' || c == '\\' {
			return "", false
		}
	}
	return string(inner), true
}

// checkObject checks that the type's object is there and is one.
func checkObject(typ string, raw json.RawMessage) *graphError {
	missing := len(raw) == 0 || bytes.Equal(raw, []byte("null"))
	switch {
	case missing:
		return invalid(131008, fmt.Sprintf("Parameter '%s' is mandatory for type '%s'", typ, typ))
	case typ == "contacts" && (raw[0] == '[' || raw[0] == '"'): // one client library sends the list as JSON text
		return nil
	case raw[0] != '{':
		return invalid(100, fmt.Sprintf("Param %s must be a JSON object.", typ))
	}
	return nil
}

// parseOpaque reads g1:<id>:<try>; any other callback data carries no id of ours.
func (m *message) parseOpaque() {
	rest, ok := strings.CutPrefix(m.opaque, "g1:")
	if !ok {
		return
	}
	id, tail, ok := strings.Cut(rest, ":")
	try, err := strconv.ParseInt(tail, 10, 32)
	if !ok || err != nil || id == "" {
		return
	}
	m.try = int32(try)
	plain := strings.ReplaceAll(id, "-", "")
	if raw, err := hex.DecodeString(plain); err == nil && len(raw) == 16 && len(id) == 36 {
		m.ours = ourID(raw)
		return
	}
	h := fnv.New128a()
	_, _ = h.Write([]byte(id))
	m.ours, m.oursText = ourID(h.Sum(nil)), strings.Clone(id)
}

func digitsOf(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

func lastFour(recipient string) int {
	digits := digitsOf(recipient)
	if len(digits) < 4 {
		return -1
	}
	n, err := strconv.Atoi(digits[len(digits)-4:])
	if err != nil {
		return -1
	}
	return n
}
