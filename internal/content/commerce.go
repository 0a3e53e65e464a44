package content

import "bytes"

// Limits of catalogues and carousels, lengths in characters.
const (
	maxProducts     = 30 // in all sections
	minCards        = 2
	maxCards        = 10
	maxCardBody     = 160
	maxCardBreaks   = 2
	maxQuickReplyID = 20
)

func (c *checker) product(v value) {
	c.text(v, "catalog_id", required, unlimited)
	c.text(v, "product_retailer_id", required, unlimited)
}

func (c *checker) productList(action value) {
	c.text(action, "catalog_id", required, unlimited)
	c.productSections(action)
}

// productSections checks the sections of a multi-product message or template button.
func (c *checker) productSections(v value) {
	sections := c.counted(v, "sections", 1, maxSections, "sections")
	products := 0
	c.elements(sections, func(s value) {
		c.sectionTitle(sections, s)
		items := c.list(s, "product_items", required)
		if items.there() && items.count() == 0 {
			c.fault(items, "must have at least 1 product")
		}
		products += items.count()
		c.elements(items, func(p value) { c.text(p, "product_retailer_id", required, unlimited) })
	})
	if products > maxProducts {
		c.fault(sections, "must have at most %d products in all, not %d", maxProducts, products)
	}
}

func (c *checker) catalogAction(action value) {
	c.texts(c.object(action, "parameters", optional), "thumbnail_product_retailer_id")
}

// card is what all cards of a carousel must have alike.
type card struct {
	kind, header, action string
	buttons              int
	catalog              []byte
}

func (c *checker) carouselAction(action value) {
	cards := c.counted(action, "cards", minCards, maxCards, "cards")
	var first card
	var indices cardIndices
	n := 0
	c.elements(cards, func(v value) {
		indices.add(c, v)
		this := c.card(v)
		if n++; n == 1 {
			first = this
			return
		}
		switch {
		case this.kind == "" || first.kind == "": // told already
		case this.kind != first.kind:
			c.faultAt(v, "type", "must be that of the first card: %s", first.kind)
		case this.header != first.header && this.header != "" && first.header != "":
			c.fault(v, "must have a header of the first card's type: %s", first.header)
		case this.action != first.action && this.action != "" && first.action != "":
			c.fault(v, "must have the first card's kind of action: %s", first.action)
		case this.buttons != first.buttons:
			c.fault(v, "must have as many buttons as the first card: %d", first.buttons)
		case len(this.catalog) > 0 && len(first.catalog) > 0 && !bytes.Equal(this.catalog, first.catalog):
			c.fault(v.get("action").get("catalog_id"), "must be the same on every card")
		}
	})
}

// cardIndices are the card_index values that were seen, a bit each, and how many cards.
type cardIndices struct {
	seen  uint16
	cards int
}

// add checks a card's card_index. It may be left out, as clients do that leave out zeros. Of cards that are too many it is not
// looked at.
func (s *cardIndices) add(c *checker, v value) {
	if s.cards++; s.cards > maxCards {
		return
	}
	i, ok := c.integer(v, "card_index", optional, 0, maxCards-1)
	if !ok {
		return
	}
	bit := uint16(1) << i
	if s.seen&bit != 0 {
		c.fault(v.get("card_index"), "must be different on each card")
	}
	s.seen |= bit
}

func (c *checker) card(v value) card {
	this := card{kind: c.word(v, "type", required, "cta_url", "product")}
	switch this.kind {
	case "product":
		action := c.object(v, "action", required)
		if action.there() {
			c.product(action)
			this.catalog = action.get("catalog_id").str()
		}
	case "cta_url":
		if header := c.object(v, "header", required); header.there() {
			if this.header = c.word(header, "type", required, "image", "video"); this.header != "" {
				c.media(header, this.header)
			}
		}
		c.body(v, optional, maxCardBody)
		if body := v.get("body").get("text"); bytes.Count(body.str(), []byte("\n")) > maxCardBreaks {
			c.fault(body, "must have at most %d line breaks, not %d", maxCardBreaks, bytes.Count(body.str(), []byte("\n")))
		}
		if action := c.object(v, "action", required); action.there() {
			this.action, this.buttons = c.cardAction(action)
		}
	}
	return this
}

// cardAction checks what a media card offers: a URL or quick replies.
func (c *checker) cardAction(action value) (kind string, n int) {
	if !action.get("buttons").there() {
		c.word(action, "name", required, "cta_url")
		c.urlAction(action)
		return "cta_url", 0
	}
	buttons := c.list(action, "buttons", required)
	if buttons.there() && buttons.count() == 0 {
		c.fault(buttons, "must have at least 1 button")
	}
	c.elements(buttons, func(b value) {
		c.word(b, "type", required, "quick_reply")
		if reply := c.object(b, "quick_reply", required); reply.there() {
			c.text(reply, "id", required, maxQuickReplyID)
			c.text(reply, "title", required, maxLabel)
		}
	})
	return "buttons", buttons.count()
}

// orderDetails checks the order of a review_and_pay action or template button; v may be absent.
func (c *checker) orderDetails(v value) {
	if !v.there() {
		return
	}
	c.text(v, "reference_id", required, unlimited)
	c.word(v, "type", required, "digital-goods", "physical-goods")
	c.texts(v, "payment_type", "payment_configuration")
	c.list(v, "payment_settings", optional)
	if currency := c.text(v, "currency", required, unlimited); currency.there() && !isCurrency(currency.str()) {
		c.fault(currency, "must be a currency's three letters, such as INR")
	}
	c.money(v, "total_amount", required)
	order := c.object(v, "order", required)
	if !order.there() {
		return
	}
	c.word(order, "status", required, "pending")
	c.money(order, "subtotal", required)
	c.money(order, "tax", required)
	c.money(order, "shipping", optional)
	c.money(order, "discount", optional)
	items := c.list(order, "items", required)
	if items.there() && items.count() == 0 {
		c.fault(items, "must have at least 1 item")
	}
	c.elements(items, func(i value) {
		c.texts(i, "retailer_id")
		c.text(i, "name", required, unlimited)
		c.money(i, "amount", required)
		c.money(i, "sale_amount", optional)
		c.integer(i, "quantity", required, 1, maxWhole)
	})
}

func isCurrency(b []byte) bool {
	return len(b) == 3 && bytes.IndexFunc(b, func(r rune) bool { return r < 'A' || r > 'z' || (r > 'Z' && r < 'a') }) < 0
}

// money checks an amount: value by offset.
func (c *checker) money(v value, name string, n need) {
	if amount := c.object(v, name, n); amount.there() {
		c.integer(amount, "value", required, -maxWhole, maxWhole)
		c.integer(amount, "offset", required, 1, maxWhole)
	}
}

// orderStatus checks the news of an order; v may be absent.
func (c *checker) orderStatus(v value) {
	if !v.there() {
		return
	}
	c.text(v, "reference_id", required, unlimited)
	if order := c.object(v, "order", required); order.there() {
		c.word(order, "status", required, "pending", "processing", "partially_shipped", "shipped", "completed", "canceled")
		c.texts(order, "description")
	}
	if payment := c.object(v, "payment", optional); payment.there() {
		c.texts(payment, "status")
	}
}
