package content

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"wagate/internal/cloudapi"
)

// Limits of the envelope.
const (
	maxOpaque   = 512 // characters of biz_opaque_callback_data
	maxTo       = 256 // bytes of to or recipient; a group id has about 60
	maxWord     = 64  // bytes of a type, a phone number id, a language
	maxID       = 512 // bytes of a wamid, of which Meta promises no length
	minDigits   = 5   // the shortest number taken for a phone number
	maxDigits   = 20  // E.164 allows 15; what Meta's "any common format" adds is allowed for
	categoryOTP = "authentication"
)

// types are the documented message types, their objects' kinds and rules. A group takes text, media and templates only.
var types = map[string]struct {
	name  string
	kind  kind
	group bool
	check func(c *checker, v value)
}{
	"text":        {"text", object, true, (*checker).textMessage},
	"image":       {"image", object, true, (*checker).imageMessage},
	"audio":       {"audio", object, true, (*checker).audioMessage},
	"video":       {"video", object, true, (*checker).videoMessage},
	"document":    {"document", object, true, (*checker).documentMessage},
	"sticker":     {"sticker", object, true, (*checker).stickerMessage},
	"location":    {"location", object, false, (*checker).locationMessage},
	"contacts":    {"contacts", array, false, (*checker).contactsMessage},
	"reaction":    {"reaction", object, false, (*checker).reactionMessage},
	"interactive": {"interactive", object, false, (*checker).interactiveMessage},
	"template":    {"template", object, true, (*checker).templateMessage},
}

func (c *checker) envelope(root value) {
	c.from(root)
	c.parameters(root)
	gateway := root.get("gateway")
	c.m.Gateway = root.member("gateway").raw()
	c.authentication = gateway.get("category").is(categoryOTP)
	c.options.Marketing = c.options.Marketing || gateway.get("api").is(MarketingAPI)
	if v := root.get("messaging_product"); v.there() && string(v.str()) != "whatsapp" {
		c.fault(v, `must be "whatsapp"`)
	}
	c.m.Opaque = c.stored(root, "biz_opaque_callback_data", optional, maxOpaque, 4*maxOpaque)
	if string(root.get("status").str()) == "read" {
		c.readReceipt(root)
		return
	}
	c.recipient(root)
	c.texts(root, "recipient_identity_key_hash")
	c.flag(root, "message_activity_sharing")
	c.word(root, "product_policy", optional, "CLOUD_API_FALLBACK", "STRICT")
	if context := c.object(root, "context", optional); context.there() {
		c.m.ReplyTo = c.stored(context, "message_id", required, unlimited, maxID)
	}
	c.content(root)
}

func (c *checker) from(root value) {
	v := root.get("from")
	if !v.there() {
		return
	}
	b := v.str()
	if v.kind() == number { // clients that read ids as numbers write them as numbers
		b = v.raw()
	}
	if len(b) == 0 || len(b) > maxWord || !isDigits(b) {
		c.fault(v, "must be a phone number id: a string of digits")
		return
	}
	c.m.From = string(b)
}

// parameters refuses what the Graph API takes out of any body as a parameter of the request: another method, a batch of
// other calls, a token. With the WABA's token on it, the message would be another call than it shows.
func (c *checker) parameters(root value) {
	for m := root.first(); m.there(); m = m.next() {
		if name := m.node().key; cloudapi.IsGraphParameter(name) {
			c.fault(m, "is a parameter of the Graph API and no field of a message")
		}
	}
}

func isDigits(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

func (c *checker) readReceipt(root value) {
	c.m.IsReadReceipt = true
	c.m.CategoryHint = "service"
	// It goes past the queue: nothing in it may be taken for a message.
	for _, name := range []string{"to", "recipient", "type"} {
		if v := root.get(name); v.there() {
			c.fault(v, "does not belong into a read receipt")
		}
	}
	c.m.ReadReceiptOf = c.stored(root, "message_id", required, unlimited, maxID)
	if typing := c.object(root, "typing_indicator", optional); typing.there() {
		c.m.TypingIndicator = true
		c.word(typing, "type", required, "text")
	}
}

func (c *checker) recipient(root value) {
	c.m.RecipientType = c.word(root, "recipient_type", optional, "individual", "group")
	c.m.Recipient = c.stored(root, "recipient", optional, unlimited, maxTo)
	to, recipient := root.get("to"), root.get("recipient")
	if !to.filled() && recipient.filled() {
		if c.m.Recipient != "" && !isUserID(c.m.Recipient) {
			c.fault(recipient, "must be a business-scoped user id such as US.1234; a phone number belongs in to")
		}
		return
	}
	var s string
	if to.kind() == number && len(to.raw()) <= maxDigits && isDigits(to.raw()) { // Graph reads it as the digits that it is
		s = string(to.raw())
	} else {
		s = c.stored(root, "to", required, unlimited, maxTo)
	}
	switch {
	case s == "":
		return
	case strings.TrimSpace(s) == "":
		c.fault(to, "must not be empty")
		return
	case c.m.RecipientType == "group":
	case isUserID(s):
		c.fault(to, "must be a phone number; a business-scoped user id belongs in recipient")
		return
	case !isNumber(strings.TrimSpace(s)):
		c.fault(to, "must be a phone number: digits, with spaces, hyphens, dots, slashes or brackets between them")
		return
	case c.options.Strict && strings.TrimSpace(s)[0] != '+':
		c.fault(to, `must begin with "+" and the country code`)
		return
	}
	c.m.To = s
}

// isNumber is generous: it refuses only what no one can take for a phone number.
func isNumber(s string) bool {
	digits := 0
	for i, c := range []byte(strings.TrimPrefix(s, "+")) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == ' ' || c == '-' || c == '(' || c == ')' || c == '.' || c == '/':
			if i == 0 && c != '(' {
				return false
			}
		default:
			return false
		}
	}
	return digits >= minDigits && digits <= maxDigits
}

// isUserID says whether s has the form of a business-scoped user id: a country's two letters, a dot, letters and digits.
func isUserID(s string) bool {
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	if len(s) < 4 || !letter(s[0]) || !letter(s[1]) || s[2] != '.' {
		return false
	}
	for i := 3; i < len(s); i++ {
		if c := s[i]; !letter(c) && (c < '0' || c > '9') && c != '.' {
			return false
		}
	}
	return true
}

// content checks that the type has its object, and what is in it.
func (c *checker) content(root value) {
	typ := root.get("type")
	name := typ.str()
	switch {
	case !typ.there() && root.get("text").there():
		name = []byte("text")
	case !typ.there():
		if status := root.get("status"); status.there() {
			c.fault(status, `must be "read"`)
			return
		}
		c.faultAt(root, "type", "is required")
		return
	case typ.kind() != text:
		c.fault(typ, "must be a string")
		return
	case len(name) == 0 || len(name) > maxWord || bytes.IndexByte(name, 0) >= 0 || !utf8.Valid(name) || isEnvelopeMember(name):
		c.fault(typ, "is no message type")
		return
	}
	t, known := types[string(name)]
	if c.m.Type = t.name; !known {
		c.m.Type = string(name)
	}
	if c.m.Type != "template" {
		c.m.CategoryHint = "service"
		if c.options.Marketing {
			c.faultAt(root, "type", "must be template: nothing else goes to /marketing_messages")
		}
	}
	if known && !t.group && c.m.RecipientType == "group" {
		c.faultAt(root, "type", "must be text, image, audio, video, document, sticker or template for a group")
	}
	v := root.get(c.m.Type)
	switch {
	case !v.there():
		c.faultAt(root, c.m.Type, "is required by the message's type")
	case !known:
	case v.kind() != t.kind && t.kind == array:
		c.fault(v, "must be an array")
	case v.kind() != t.kind:
		c.fault(v, "must be an object")
	default:
		t.check(c, v)
	}
}

// isEnvelopeMember says whether a type's name would collide with the envelope.
func isEnvelopeMember(name []byte) bool {
	switch string(name) {
	case "messaging_product", "type", "to", "recipient", "recipient_type", "recipient_identity_key_hash", "context", "biz_opaque_callback_data",
		"status", "message_id", "typing_indicator", "from", "gateway", "message_activity_sharing", "product_policy":
		return true
	}
	return false
}
