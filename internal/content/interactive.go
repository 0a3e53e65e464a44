package content

// Limits of interactive messages, lengths in characters.
const (
	maxInteractiveBody = 1024
	maxListBody        = 4096
	maxHeaderText      = 60
	maxFooter          = 60
	maxLabel           = 20 // of a button, a list's button, a call to action
	maxFlowLabel       = 30
	maxButtons         = 3
	maxButtonID        = 256
	maxSections        = 10
	maxSectionTitle    = 24
	maxRows            = 10 // in all sections
	maxRowID           = 200
	maxRowTitle        = 24
	maxRowText         = 72
	maxCallMinutes     = 43200
	maxCallPayload     = 512
)

// shape is what an interactive subtype is made of.
type shape struct {
	header  need
	headers []string // the header's types; nil for any of allHeaders
	body    need
	maxBody int
	footer  need
	name    string // action.name, where it is documented
	action  func(c *checker, action value)
}

var allHeaders = []string{"text", "image", "video", "document"}

// shapes are the documented subtypes.
var shapes = map[string]shape{
	"button":   {header: optional, body: required, maxBody: maxInteractiveBody, footer: optional, action: (*checker).buttons},
	"list":     {header: optional, headers: []string{"text"}, body: required, maxBody: maxListBody, footer: optional, action: (*checker).listAction},
	"cta_url":  {header: optional, body: required, maxBody: maxInteractiveBody, footer: optional, name: "cta_url", action: (*checker).urlAction},
	"flow":     {header: optional, body: required, maxBody: maxInteractiveBody, footer: optional, name: "flow", action: (*checker).flowAction},
	"product":  {header: never, body: optional, maxBody: maxInteractiveBody, footer: optional, action: (*checker).product},
	"carousel": {header: never, body: required, maxBody: maxInteractiveBody, footer: never, action: (*checker).carouselAction},
	"order_status": {body: required, maxBody: maxInteractiveBody, footer: optional,
		action: func(c *checker, action value) { c.orderStatus(c.object(action, "parameters", required)) }},
	"product_list": {header: required, headers: []string{"text"}, body: required, maxBody: maxInteractiveBody, footer: optional,
		action: (*checker).productList},
	"order_details": {header: optional, headers: []string{"image"}, body: required, maxBody: maxInteractiveBody, footer: optional, name: "review_and_pay",
		action: func(c *checker, action value) { c.orderDetails(c.object(action, "parameters", required)) }},
	"catalog_message": {body: required, maxBody: maxInteractiveBody, footer: optional, name: "catalog_message", action: (*checker).catalogAction},
	"address_message": {header: optional, body: required, maxBody: maxInteractiveBody, footer: optional, name: "address_message",
		action: (*checker).addressAction},
	"voice_call":               {body: required, maxBody: maxInteractiveBody, name: "voice_call", action: (*checker).voiceCallAction},
	"call_permission_request":  {body: optional, maxBody: maxInteractiveBody, name: "call_permission_request"},
	"location_request_message": {body: required, maxBody: maxInteractiveBody, name: "send_location"},
}

func (c *checker) interactiveMessage(v value) {
	subtype := c.text(v, "type", required, unlimited)
	if !subtype.there() {
		return
	}
	var folded [32]byte
	name := subtype.str()
	n := copy(folded[:], name)
	for i := range n {
		folded[i] = lower(folded[i])
	}
	s, documented := shapes[string(folded[:n])]
	if !documented || n < len(name) {
		return
	}
	c.header(v, s)
	c.body(v, s.body, s.maxBody)
	switch footer := v.get("footer"); {
	case s.footer == never && footer.filled() && !isEmptyObject(footer):
		c.fault(footer, "must not be there: this kind of message has no footer")
	case s.footer == optional:
		c.text(c.object(v, "footer", optional), "text", optional, maxFooter)
	}
	action := c.object(v, "action", required)
	if !action.there() {
		return
	}
	if s.name != "" {
		c.word(action, "name", required, s.name)
	}
	if s.action != nil {
		s.action(c, action)
	}
}

// isEmptyObject: one public client library writes {} for a part that is left out.
func isEmptyObject(v value) bool { return v.kind() == object && v.count() == 0 }

func (c *checker) header(v value, s shape) {
	header := v.get("header")
	switch {
	case s.header == unsaid, s.header != required && isEmptyObject(header):
		return
	case s.header == never:
		if header.filled() {
			c.fault(header, "must not be there: this kind of message has no header")
		}
		return
	}
	allowed := s.headers
	if allowed == nil {
		allowed = allHeaders
	}
	if header = c.object(v, "header", s.header); !header.there() {
		return
	}
	switch name := c.word(header, "type", required, allowed...); name {
	case "":
	case "text":
		c.text(header, "text", required, maxHeaderText)
	default:
		c.media(header, name)
	}
}

// body checks a message's or card's body.
func (c *checker) body(v value, n need, limit int) {
	if body := c.object(v, "body", n); body.there() {
		c.text(body, "text", n, limit)
	}
}

func (c *checker) buttons(action value) {
	buttons := c.counted(action, "buttons", 1, maxButtons, "buttons")
	var ids, titles distinct
	c.elements(buttons, func(b value) {
		c.word(b, "type", required, "reply")
		if reply := c.object(b, "reply", required); reply.there() {
			ids.add(c, buttons, c.text(reply, "id", required, maxButtonID), "id")
			titles.add(c, buttons, c.text(reply, "title", required, maxLabel), "title")
		}
	})
}

func (c *checker) listAction(action value) {
	c.text(action, "button", required, maxLabel)
	sections := c.counted(action, "sections", 1, maxSections, "sections")
	var ids distinct
	rows := 0
	c.elements(sections, func(s value) {
		c.sectionTitle(sections, s)
		list := c.list(s, "rows", required)
		if list.there() && list.count() == 0 {
			c.fault(list, "must have at least 1 row")
		}
		rows += list.count()
		c.elements(list, func(r value) {
			ids.add(c, sections, c.text(r, "id", required, maxRowID), "row id")
			c.text(r, "title", required, maxRowTitle)
			c.text(r, "description", optional, maxRowText)
		})
	})
	if rows > maxRows {
		c.fault(sections, "must have at most %d rows in all, not %d", maxRows, rows)
	}
}

// sectionTitle checks the title of a section, which is required where there are several.
func (c *checker) sectionTitle(sections, section value) {
	n := optional
	if sections.count() > 1 {
		n = required
	}
	c.text(section, "title", n, maxSectionTitle)
}

func (c *checker) urlAction(action value) {
	if p := c.object(action, "parameters", required); p.there() {
		c.text(p, "display_text", required, maxLabel)
		c.text(p, "url", required, unlimited)
	}
}

func (c *checker) flowAction(action value) {
	p := c.object(action, "parameters", required)
	if !p.there() {
		return
	}
	c.word(p, "flow_message_version", required, "3")
	c.text(p, "flow_cta", required, maxFlowLabel)
	c.ids(p, "flow_id")
	c.texts(p, "flow_name", "flow_token")
	switch id, name := p.get("flow_id").filled(), p.get("flow_name").filled(); {
	case id && name:
		c.fault(p, "must have a flow_id or a flow_name, not both")
	case !id && !name:
		c.fault(p, "must have a flow_id or a flow_name")
	}
	c.word(p, "mode", optional, "draft", "published")
	c.word(p, "flow_action", optional, "navigate", "data_exchange")
	if payload := c.object(p, "flow_action_payload", optional); payload.there() {
		c.texts(payload, "screen")
		if data := c.object(payload, "data", optional); isEmptyObject(data) {
			c.fault(data, "must not be empty; it may be left out")
		}
	}
}

// addressAction takes parameters in a JSON string too, as older pages of Meta show them, and does not look into it.
func (c *checker) addressAction(action value) {
	if p := action.get("parameters"); p.kind() == text && p.filled() {
		return
	}
	p := c.object(action, "parameters", required)
	if !p.there() {
		return
	}
	c.word(p, "country", required, "IN", "SG")
	c.object(p, "values", optional)
	c.object(p, "validation_errors", optional)
	c.elements(c.list(p, "saved_addresses", optional), func(a value) {
		c.text(a, "id", required, unlimited)
		c.object(a, "value", required)
	})
}

func (c *checker) voiceCallAction(action value) {
	if p := c.object(action, "parameters", optional); p.there() {
		c.text(p, "display_text", optional, maxLabel)
		c.integer(p, "ttl_minutes", optional, 1, maxCallMinutes)
		c.text(p, "payload", optional, maxCallPayload)
	}
}
