package content

import (
	"unicode"
	"unicode/utf8"
)

// Limits of the types without subtypes, in characters.
const (
	maxText     = 4096
	maxCaption  = 1024
	maxContacts = 257 // Meta's page says up to 257, its OpenAPI description 5: what neither takes is refused
)

func (c *checker) textMessage(v value) {
	c.text(v, "body", required, maxText)
	c.flag(v, "preview_url")
}

func (c *checker) imageMessage(v value) {
	c.source(v)
	c.text(v, "caption", optional, maxCaption)
}

func (c *checker) videoMessage(v value) {
	c.source(v)
	c.text(v, "caption", optional, maxCaption)
}

func (c *checker) audioMessage(v value) {
	c.source(v)
	c.flag(v, "voice")
	if caption := v.get("caption"); caption.filled() {
		c.fault(caption, "must not be there: audio has no caption")
	}
}

func (c *checker) documentMessage(v value) {
	c.source(v)
	c.text(v, "caption", optional, maxCaption)
	c.texts(v, "filename")
}

func (c *checker) stickerMessage(v value) { c.source(v) }

// source checks where a media object's file is.
func (c *checker) source(v value) {
	c.ids(v, "id")
	id, link := v.get("id").filled(), c.link(v, "link")
	switch {
	case id && link:
		c.fault(v, "must have an id or a link, not both")
	case !id && !link:
		c.fault(v, "must have an id or a link")
	}
}

// media checks a member that is a media object inside another type.
func (c *checker) media(parent value, name string) {
	if v := c.object(parent, name, required); v.there() {
		c.source(v)
		if name == "document" {
			c.texts(v, "filename")
		}
	}
}

func (c *checker) locationMessage(v value) {
	c.decimal(v, "latitude")
	c.decimal(v, "longitude")
	c.texts(v, "name", "address")
}

func (c *checker) contactsMessage(v value) {
	if n := v.count(); n == 0 || n > maxContacts {
		c.fault(v, "must have %s, not %d", span(1, maxContacts, "contacts"), n)
	}
	c.elements(v, c.contact)
}

func (c *checker) contact(v value) {
	if name := c.object(v, "name", required); name.there() {
		c.text(name, "formatted_name", required, unlimited)
		c.texts(name, "first_name", "last_name", "middle_name", "prefix", "suffix")
	}
	if birthday := c.text(v, "birthday", optional, unlimited); birthday.there() && !isDate(birthday.str()) {
		c.fault(birthday, "must be a date as YYYY-MM-DD")
	}
	if org := c.object(v, "org", optional); org.there() {
		c.texts(org, "company", "department", "title")
	}
	c.elements(c.list(v, "addresses", optional), func(e value) {
		c.texts(e, "street", "city", "state", "zip", "country", "country_code", "type")
	})
	c.elements(c.list(v, "emails", optional), func(e value) { c.texts(e, "email", "type") })
	c.elements(c.list(v, "phones", optional), func(e value) { c.texts(e, "phone", "type", "wa_id") })
	c.elements(c.list(v, "urls", optional), func(e value) { c.texts(e, "url", "type") })
}

func isDate(b []byte) bool {
	if len(b) != 10 || b[4] != '-' || b[7] != '-' || !isDigits(b[:4]) || !isDigits(b[5:7]) || !isDigits(b[8:]) {
		return false
	}
	month, day := int(b[5]-'0')*10+int(b[6]-'0'), int(b[8]-'0')*10+int(b[9]-'0')
	return month >= 1 && month <= 12 && day >= 1 && day <= 31
}

func (c *checker) reactionMessage(v value) {
	c.text(v, "message_id", required, unlimited)
	emoji := v.get("emoji")
	switch {
	case !emoji.there():
		c.faultAt(v, "emoji", "is required; an empty one takes the reaction away")
	case emoji.kind() != text:
		c.fault(emoji, "must be a string")
	case !mayBeEmoji(emoji.str()):
		c.fault(emoji, "must be an emoji, or empty to take the reaction away")
	}
	root := value{v.d, 0}
	if context := root.get("context"); context.there() {
		c.fault(context, "must not be there: a reaction quotes no message")
	}
}

// mayBeEmoji refuses words only. Emoji are made of symbols, joiners, marks and, in keycaps and flags, of digits and tags; new
// ones come every year. One of them, U+2139, is a letter to Unicode.
func mayBeEmoji(b []byte) bool {
	foreign := len(b) == 0
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if unicode.IsSpace(r) || unicode.IsControl(r) || (unicode.IsLetter(r) && r != 0x2139) {
			return false
		}
		foreign = foreign || r >= utf8.RuneSelf
		b = b[size:]
	}
	return foreign
}
