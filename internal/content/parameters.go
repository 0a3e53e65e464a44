package content

// typed says whether a parameter is of the type that its component takes. A type that nobody documents passes unchecked.
func (c *checker) typed(p value, types ...string) bool {
	v := c.text(p, "type", required, unlimited)
	if !v.there() || v.pick(types...) != "" {
		return v.there()
	}
	if v.pick(parameterTypes...) != "" {
		c.fault(v, "must be %s here", either(types))
	}
	return false
}

// parameterTypes are the documented ones of all components.
var parameterTypes = []string{"text", "currency", "date_time", "image", "video", "document", "location", "product", "payload", "coupon_code", "action",
	"limited_time_offer", "order_status"}

func (c *checker) headerParameter(p value) {
	if !c.typed(p, "text", "image", "video", "document", "location", "product", "currency", "date_time") {
		return
	}
	switch p.get("type").pick(parameterTypes...) {
	case "text":
		c.text(p, "text", required, maxHeaderText)
		c.texts(p, "parameter_name")
	case "image":
		c.media(p, "image")
	case "video":
		c.media(p, "video")
	case "document":
		c.media(p, "document")
	case "location":
		if location := c.object(p, "location", required); location.there() {
			c.locationMessage(location)
		}
	case "product":
		if product := c.object(p, "product", required); product.there() {
			c.product(product)
		}
	default:
		c.localized(p)
	}
}

// localized checks a currency or date_time parameter. How long it is in a user's language only Meta knows.
func (c *checker) localized(p value) {
	if p.get("type").is("currency") {
		if currency := c.object(p, "currency", required); currency.there() {
			c.text(currency, "fallback_value", required, unlimited)
			if code := c.text(currency, "code", required, unlimited); code.there() && !isCurrency(code.str()) {
				c.fault(code, "must be a currency's three letters, such as USD")
			}
			c.integer(currency, "amount_1000", required, -maxWhole, maxWhole)
		}
	} else if date := c.object(p, "date_time", required); date.there() {
		c.text(date, "fallback_value", required, unlimited)
	}
}

// bodyParameters checks a body's parameters: by position, or all of them named.
func (c *checker) bodyParameters(parameters value, limit int) {
	named := false
	for p := parameters.first(); p.there(); p = p.next() {
		named = named || p.get("parameter_name").filled()
	}
	length := 0
	c.elements(parameters, func(p value) {
		if named {
			c.text(p, "parameter_name", required, unlimited)
		}
		if !c.typed(p, "text", "currency", "date_time") {
			return
		}
		if !p.get("type").is("text") {
			c.localized(p)
			return
		}
		if t := c.text(p, "text", required, limit); t.there() {
			length += t.length()
		}
	})
	if length > limit {
		c.fault(parameters, "must have at most %d characters in all, not %d", limit, length)
	}
}

// button checks a button component and gives its sub_type.
func (c *checker) button(v, parameters value) string {
	subType := c.word(v, "sub_type", required, subTypes...)
	c.buttonIndex(v)
	switch subType {
	case "", "voice_call", "phone_number", "phone", "request_contact_info", "call_permission_request", "app":
		return subType
	}
	if n := parameters.count(); n > 1 {
		c.fault(parameters, "must have at most 1 parameter, not %d", n)
	}
	c.elements(parameters, func(p value) {
		switch subType {
		case "quick_reply", "url", "otp", "one_tap", "zero_tap":
			c.textOrPayload(p)
		case "copy_code":
			if c.typed(p, "coupon_code", "text") {
				c.couponCode(p)
			}
		default:
			if c.typed(p, "action") {
				c.buttonAction(subType, c.object(p, "action", required))
			}
		}
	})
	return subType
}

// buttonIndex checks a button's place, a number or a string of digits. It may be left out, as clients do that leave out zeros.
func (c *checker) buttonIndex(v value) {
	index := v.get("index")
	if !index.filled() {
		return
	}
	if b := index.str(); len(b) == 1 && isDigits(b) {
		return
	}
	if i, ok := index.whole(); !ok || i < 0 || i >= maxTemplateButton {
		c.fault(index, "must be a whole number from 0 to %d", maxTemplateButton-1)
	}
}

// textOrPayload checks the parameter of a quick reply (a payload) or URL button (a text); older pages show either in both.
func (c *checker) textOrPayload(p value) {
	if !c.typed(p, "payload", "text") {
		return
	}
	if p.get("type").is("payload") {
		c.text(p, "payload", required, unlimited)
		return
	}
	c.text(p, "text", required, maxURLSuffix)
}

func (c *checker) couponCode(p value) {
	if p.get("type").is("coupon_code") {
		c.text(p, "coupon_code", required, maxCode)
		return
	}
	c.text(p, "text", required, maxCode)
}

// buttonAction checks the action parameter of a button; it may be absent.
func (c *checker) buttonAction(subType string, action value) {
	if !action.there() {
		return
	}
	switch subType {
	case "flow":
		c.texts(action, "flow_token")
		c.object(action, "flow_action_data", optional)
	case "catalog":
		c.texts(action, "thumbnail_product_retailer_id")
	case "mpm":
		c.text(action, "thumbnail_product_retailer_id", required, unlimited)
		c.productSections(action)
	case "order_details":
		c.orderDetails(c.object(action, "order_details", required))
	}
}
