package cloudapi

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Overrides changes more of an outbound message than its token.
type Overrides struct {
	To string // replaces "to", where not empty: the number in the form that is to be sent
}

// ErrNotObject is what BuildOutbound gives for a body that is no JSON object.
var ErrNotObject = errors.New("the message is not a JSON object")

// BuildOutbound gives the JSON for Meta: what the caller sent, in its order and
// byte for byte, without the gateway's members (from, gateway), with
// messaging_product "whatsapp", with wire as biz_opaque_callback_data in place
// of the caller's (an empty wire leaves the caller's as it is), and with type
// "text" where it is missing beside a text object. It allocates the result and,
// save for escaped keys, nothing else.
func BuildOutbound(body []byte, wire string, set Overrides) ([]byte, error) {
	if !isObject(body) || !json.Valid(body) {
		return nil, ErrNotObject
	}
	const product = `{"messaging_product":"whatsapp"`
	out := make([]byte, 0, len(product)+len(body)+len(wire)+len(set.To)+64)
	out = append(out, product...)
	hasType, hasText, hasTo, isReceipt := false, false, false, false
	members(body, func(key, value []byte) bool {
		name, _ := plain(key)
		switch string(name) {
		case "from", "gateway", "messaging_product":
			return true
		case "biz_opaque_callback_data":
			if wire != "" {
				return true
			}
		case "to":
			if set.To != "" {
				if !hasTo {
					out = appendMember(out, "to", set.To)
				}
				hasTo = true
				return true
			}
		case "type":
			if string(value) == "null" {
				return true // as if it were not there
			}
			hasType = true
		case "text":
			hasText = true
		case "status":
			word, _ := plain(value)
			isReceipt = string(word) == "read" // as content reads it: another status does not make it one
		}
		out = append(out, ',')
		out = append(out, key...)
		out = append(out, ':')
		out = append(out, value...)
		return true
	})
	if set.To != "" && !hasTo && !isReceipt {
		out = appendMember(out, "to", set.To)
	}
	if hasText && !hasType && !isReceipt {
		out = appendMember(out, "type", "text")
	}
	if wire != "" {
		out = appendMember(out, "biz_opaque_callback_data", wire)
	}
	return append(out, '}'), nil
}

// appendMember adds a member to an object that is not empty.
func appendMember(out []byte, name, value string) []byte {
	out = append(out, ',', '"')
	out = append(out, name...)
	out = append(out, '"', ':')
	return appendString(out, value)
}

// appendString adds a JSON string; plain ASCII, which it nearly always is, costs no allocation.
func appendString(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(out, quoted...)
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}

const tokenPrefix = "g1:"

// Token is the biz_opaque_callback_data of one try of one message. It names no
// person: every app subscribed to the WABA sees it.
func Token(id string, try int) string {
	b := make([]byte, 0, len(tokenPrefix)+len(id)+12)
	b = append(b, tokenPrefix...)
	b = append(b, id...)
	b = append(b, ':')
	return string(strconv.AppendInt(b, int64(try), 10))
}

// ParseToken reads a Token again: the message's id, a UUID in its lower-case
// 36-character form, and the number of the try, 1 or more.
func ParseToken(s string) (id string, try int, ok bool) {
	rest, found := strings.CutPrefix(s, tokenPrefix)
	if !found || len(rest) < 38 || len(rest) > 47 || rest[36] != ':' {
		return "", 0, false
	}
	id = rest[:36]
	for i := range len(id) {
		c := id[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return "", 0, false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", 0, false
		}
	}
	digits := rest[37:]
	if digits[0] < '1' || digits[0] > '9' {
		return "", 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return "", 0, false
	}
	return id, int(n), true
}
