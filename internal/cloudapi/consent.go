package cloudapi

import "time"

// maxSaid is the longest text of a user that is looked at as a keyword, in bytes.
const maxSaid = 512

// said gives the short texts by which a message of a user may be a keyword: the text, or the words and the payload of a
// quick-reply button. Longer ones are left out.
func said(message []byte, kind string) []string {
	var texts []string
	add := func(b []byte) {
		if s, ok := text(b); ok && s != "" && len(s) <= maxSaid {
			texts = append(texts, clip(s, maxSaid))
		}
	}
	switch kind {
	case "text":
		add(member(member(message, "text"), "body"))
	case "button": // of a template
		button := member(message, "button")
		add(member(button, "text"))
		add(member(button, "payload"))
	case "interactive":
		if reply := member(member(message, "interactive"), "button_reply"); reply != nil {
			add(member(reply, "title"))
			add(member(reply, "id"))
		}
	}
	return texts
}

// InboundCall is a call that a user made to a phone number.
type InboundCall struct {
	PhoneNumberID string
	From          string // wa_id, digits; may be empty where the user has a username
	FromUserID    string // business-scoped user id; may be empty
	Timestamp     time.Time
}

// InboundCalls gives the calls of users in a change; none for fields other than
// calls. Source: Meta's webhook reference, calls.
func InboundCalls(c Change) []InboundCall {
	if c.Field != "calls" {
		return nil
	}
	phoneID, _ := metadata(c.Value)
	var all []InboundCall
	elements(member(c.Value, "calls"), func(b []byte) bool {
		from, _ := textOrNumber(member(b, "from"))
		call := InboundCall{
			PhoneNumberID: phoneID, From: clip(from, maxRecipient), FromUserID: clipped(member(b, "from_user_id"), maxRecipient), Timestamp: moment(member(b, "timestamp")),
		}
		if clipped(member(b, "direction"), maxWord) == "USER_INITIATED" && (call.From != "" || call.FromUserID != "") {
			all = append(all, call)
		}
		return len(all) < maxInbound
	})
	return all
}

// FallbackBody gives the message that goes in the place of a free-form one: its envelope, with the template that stands in
// gateway.fallback_template. Without one it gives ErrNotObject.
func FallbackBody(body []byte) ([]byte, error) {
	template := member(member(body, "gateway"), "fallback_template")
	if !isObject(template) {
		return nil, ErrNotObject
	}
	out := make([]byte, 0, len(body))
	out = append(out, '{')
	add := func(key, value []byte) {
		if out[len(out)-1] != '{' {
			out = append(out, ',')
		}
		out = append(append(append(out, key...), ':'), value...)
	}
	members(body, func(key, value []byte) bool {
		switch name, _ := plain(key); string(name) {
		case "messaging_product", "recipient_type", "to", "recipient", "recipient_identity_key_hash", "context", "biz_opaque_callback_data":
			add(key, value)
		}
		return true
	})
	add([]byte(`"type"`), []byte(`"template"`))
	add([]byte(`"template"`), nil)
	out = append(out, '{')
	members(template, func(key, value []byte) bool {
		if name, _ := plain(key); string(name) != "category" { // the gateway's
			add(key, value)
		}
		return true
	})
	return append(out, '}', '}'), nil
}
