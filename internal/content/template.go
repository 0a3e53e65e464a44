package content

import "bytes"

// Limits of templates, lengths in characters. Parameters count into the limit of the component they stand in.
const (
	maxTemplateName   = 512
	maxTemplateBody   = 1024
	maxLoneBody       = 32768 // of a body that is the only component
	maxOfferBody      = 600   // of the body beside a limited-time offer
	maxTemplateButton = 10
	maxCode           = 15 // of a coupon and of a one-time password
	maxURLSuffix      = 2000
)

// subTypes are the kinds of template buttons.
var subTypes = []string{"quick_reply", "url", "copy_code", "flow", "catalog", "mpm", "spm", "voice_call", "phone_number", "phone", "order_details",
	"otp", "one_tap", "zero_tap", "request_contact_info", "call_permission_request", "app"}

func (c *checker) templateMessage(v value) {
	name := c.text(v, "name", required, maxTemplateName)
	switch {
	case !name.there():
	case !isTemplateName(name.str()):
		c.fault(name, "must have lower-case letters, digits and underscores only")
	default:
		c.m.TemplateName = string(name.str())
	}
	if language := c.object(v, "language", required); language.there() {
		c.language(language)
	}
	components := c.list(v, "components", optional)
	limit := maxTemplateBody
	if components.count() == 1 {
		limit = maxLoneBody
	}
	for e := components.first(); e.there(); e = e.next() {
		if e.get("type").is("limited_time_offer") {
			limit = maxOfferBody
		}
	}
	var code, copied value
	c.elements(components, func(e value) {
		switch c.component(e, limit) {
		case "body":
			code = onlyText(e)
		case "url", "copy_code", "otp", "one_tap", "zero_tap":
			copied = onlyText(e)
		case "carousel":
			c.templateCards(e)
		}
	})
	if c.authentication {
		c.oneTimePassword(code, copied)
	}
}

func isTemplateName(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }) < 0
}

func (c *checker) language(v value) {
	c.word(v, "policy", optional, "deterministic")
	code := c.text(v, "code", required, unlimited)
	switch {
	case !code.there():
	case !isLanguage(code.str()):
		c.fault(code, "must be a language code such as en or en_US")
	default:
		c.m.TemplateLang = string(code.str())
	}
}

// isLanguage takes two or three letters, and after them regions or scripts of two to eight letters or digits: which of them
// Meta knows changes.
func isLanguage(b []byte) bool {
	part := 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i < len(b) && b[i] != '_' && b[i] != '-':
			letter := lower(b[i]) >= 'a' && lower(b[i]) <= 'z'
			if !letter && (part == 0 || b[i] < '0' || b[i] > '9') {
				return false
			}
			continue
		case i-part < 2, part == 0 && i > 3, i-part > 8:
			return false
		}
		part = i + 1
	}
	return len(b) <= maxWord
}

// component checks a component of a template or of one of its cards, whose body has at most so many characters of
// parameters. It gives the component's type, or a button's sub_type.
func (c *checker) component(v value, bodyLimit int) string {
	kind := c.text(v, "type", required, unlimited)
	if !kind.there() {
		return ""
	}
	parameters := c.list(v, "parameters", optional)
	switch name := kind.pick("header", "body", "button", "limited_time_offer", "order_status", "carousel"); name {
	case "header":
		if n := parameters.count(); n > 1 {
			c.fault(parameters, "must have at most 1 parameter, not %d", n)
		}
		c.elements(parameters, c.headerParameter)
		return name
	case "body":
		c.bodyParameters(parameters, bodyLimit)
		return name
	case "button":
		return c.button(v, parameters)
	case "limited_time_offer":
		c.elements(parameters, func(p value) {
			if c.typed(p, "limited_time_offer") {
				c.integer(c.object(p, "limited_time_offer", required), "expiration_time_ms", required, 1, maxWhole)
			}
		})
		return name
	case "order_status":
		c.elements(parameters, func(p value) {
			if c.typed(p, "order_status") {
				c.orderStatus(c.object(p, "order_status", required))
			}
		})
		return name
	default:
		return name // "" for a component that nobody documents
	}
}

// templateCards checks a template's carousel. That all cards have the same components is the template's: what has no
// parameters on one card is not in the message.
func (c *checker) templateCards(v value) {
	var indices cardIndices
	header := ""
	c.elements(c.counted(v, "cards", minCards, maxCards, "cards"), func(card value) {
		indices.add(c, card)
		c.elements(c.list(card, "components", optional), func(e value) {
			if c.component(e, maxCardBody) != "header" {
				return
			}
			kind := e.get("parameters").first().get("type")
			this := kind.pick("image", "video", "product")
			switch {
			case header == "":
				header = this
			case this != "" && this != header:
				c.fault(kind, "must be the first card's: %s", header)
			}
		})
	})
}

// onlyText gives the text of a component's first parameter.
func onlyText(component value) value {
	if t := component.get("parameters").first().get("text"); t.kind() == text {
		return t
	}
	return value{}
}

// oneTimePassword checks what an authentication template sends: the code in the body and, the same, in the button.
func (c *checker) oneTimePassword(code, copied value) {
	for _, v := range []value{code, copied} {
		if v.there() && v.length() > maxCode {
			c.fault(v, "must have at most %d characters in an authentication message, not %d", maxCode, v.length())
		}
	}
	if code.there() && copied.there() && !bytes.Equal(code.str(), copied.str()) {
		c.fault(copied, "must be the code that the body has")
	}
}
