package content_test

import "testing"

const (
	urlCard = `{"card_index":0,"type":"cta_url","header":{"type":"image","image":{"link":"https://example.com/0"}},"body":{"text":"c"},` +
		`"action":{"name":"cta_url","parameters":{"display_text":"View","url":"https://example.com/0"}}}`
	replyCard = `{"card_index":0,"type":"cta_url","header":{"type":"video","video":{"link":"https://example.com/0"}},` +
		`"action":{"buttons":[{"type":"quick_reply","quick_reply":{"id":"a","title":"Book"}}]}}`
	productCard = `{"card_index":0,"type":"product","action":{"product_retailer_id":"a","catalog_id":"1"}}`

	cardsOf = `{"type":"carousel",` + bodyPart + `,"action":{"cards":$}}`
	order   = `{"type":"order_details",` + bodyPart + `,"action":{"name":"review_and_pay","parameters":` + orderOf + `}}`
	orderOf = `{"reference_id":"r","type":"digital-goods","payment_type":"br","payment_settings":[{"type":"x"}],"currency":"BRL",` +
		`"total_amount":{"value":100,"offset":100},"order":{"status":"pending","items":[{"name":"n","amount":{"value":100,"offset":100},"quantity":1}],` +
		`"subtotal":{"value":100,"offset":100},"tax":{"value":0,"offset":100}}}`
)

var (
	urlCards     = part(cardsOf, "$", two(urlCard))
	replyCards   = part(cardsOf, "$", two(replyCard))
	productCards = part(cardsOf, "$", two(productCard))
)

// second is a card as the second of two.
func second(card string) string { return part(card, `"card_index":0`, `"card_index":1`) }

func two(card string) string { return `[` + card + `,` + second(card) + `]` }

func TestProducts(t *testing.T) {
	check(t, message("interactive"), "/interactive/action", []rule{
		{part(product, `"catalog_id":"1",`, ``), "/catalog_id", "required"},
		{part(product, `"sku"`, `""`), "/product_retailer_id", "empty"},
		{part(products, `"catalog_id":"1",`, ``), "/catalog_id", "required"},
	})
	check(t, part(message("interactive"), "$", part(products, `[{"title":"s","product_items":[{"product_retailer_id":"sku"}]}]`, "$")), "/interactive/action/sections", []rule{
		{part: `[{"product_items":[` + repeat(30, `{"product_retailer_id":"#"}`) + `]}]`},
		{part: `[` + repeat(10, `{"title":"`+x(24)+`","product_items":[{"product_retailer_id":"#"}]}`) + `]`},
		{`[{"product_items":[` + repeat(31, `{"product_retailer_id":"#"}`) + `]}]`, ".", "at most 30 products in all, not 31"},
		{`[` + repeat(11, `{"title":"t","product_items":[{"product_retailer_id":"#"}]}`) + `]`, ".", "1 to 10 sections, not 11"},
		{`[]`, ".", "1 to 10 sections, not 0"},
		{`[{"title":"` + x(25) + `","product_items":[]}]`, "/0/title /0/product_items", "at most 24"},
		{`[{"product_items":[{"product_retailer_id":"a"}]},{"title":"t"}]`, "/0/title /1/product_items", "required"},
		{`[{"product_items":[{}]}]`, "/0/product_items/0/product_retailer_id", "required"},
	})
}

func TestCarousel(t *testing.T) {
	twoWith := func(card, old, new string) string { return `[` + part(card, old, new) + `,` + second(card) + `]` }
	check(t, part(message("interactive"), "$", cardsOf), "/interactive/action/cards", []rule{
		{part: `[` + repeat(10, part(urlCard, `"card_index":0,`, ``)) + `]`},
		{part: twoWith(productCard, `"card_index":0`, `"card_index":9`)},
		{part: `[` + part(urlCard, `"text":"c"`, `"text":"`+x(158)+`\n\n"`) + `,` + second(urlCard) + `]`},
		{part: `[` + part(replyCard, `"a","title":"Book"`, `"`+x(20)+`","title":"`+x(20)+`"`) + `,` + second(replyCard) + `]`},
		{`[` + urlCard + `]`, ".", "2 to 10 cards, not 1"},
		{`[` + repeat(11, part(urlCard, `"card_index":0,`, ``)) + `]`, ".", "2 to 10 cards, not 11"},
		{`null`, ".", "required"},
		{`[` + urlCard + `,` + urlCard + `]`, "/1/card_index", "different"},
		{`[` + repeat(9, part(urlCard, `"card_index":0,`, ``)) + `,` + part(urlCard, `"card_index":0`, `"card_index":-1`) + `]`, "/9/card_index", "from 0 to 9"},
		{`[` + urlCard + `,1]`, "/1", "object"},
		{twoWith(urlCard, `"card_index":0`, `"card_index":10`), "/0/card_index", "from 0 to 9"},
		{twoWith(urlCard, `"card_index":0`, `"card_index":"0"`), "/0/card_index", "whole number"},
		{twoWith(urlCard, `"type":"cta_url",`, ``), "/0/type", "required"},
		{twoWith(urlCard, `"type":"cta_url",`, `"type":"poster",`), "/0/type", "cta_url or product"},
		{twoWith(urlCard, `"header"`, `"head"`), "/0/header", "required"},
		{twoWith(urlCard, `{"type":"image"`, `{"type":"text","text":"h"`), "/0/header/type", "image or video"},
		{twoWith(urlCard, `"image":{"link":"https://example.com/0"}`, `"image":{}`), "/0/header/image", "an id or a link"},
		{twoWith(urlCard, `"text":"c"`, `"text":"`+x(161)+`"`), "/0/body/text", "at most 160 characters, not 161"},
		{twoWith(urlCard, `"text":"c"`, `"text":"a\n\n\nb"`), "/0/body/text", "at most 2 line breaks, not 3"},
		{twoWith(urlCard, `"action":{`, `"action":[],"x":{`), "/0/action", "object"},
		{twoWith(urlCard, `"name":"cta_url",`, ``), "/0/action/name", "required"},
		{twoWith(urlCard, `"View"`, `"`+x(21)+`"`), "/0/action/parameters/display_text", "at most 20"},
		{twoWith(replyCard, `[{"type":"quick_reply","quick_reply":{"id":"a","title":"Book"}}]`, `[]`), "/0/action/buttons /1", "at least 1 button"},
		{twoWith(replyCard, `"type":"quick_reply",`, ``), "/0/action/buttons/0/type", "required"},
		{twoWith(replyCard, `"type":"quick_reply"`, `"type":"reply"`), "/0/action/buttons/0/type", "quick_reply"},
		{twoWith(replyCard, `"id":"a","title":"Book"`, ``), "/0/action/buttons/0/quick_reply/id /0/action/buttons/0/quick_reply/title", "required"},
		{twoWith(replyCard, `"a","title":"Book"`, `"`+x(21)+`","title":"`+x(21)+`"`),
			"/0/action/buttons/0/quick_reply/id /0/action/buttons/0/quick_reply/title", "at most 20"},
		{twoWith(productCard, `"product_retailer_id":"a",`, ``), "/0/action/product_retailer_id", "required"},
		{twoWith(productCard, `,"catalog_id":"1"`, ``), "/0/action/catalog_id", "required"},
		// All cards have one shape.
		{twoWith(productCard, `"catalog_id":"1"`, `"catalog_id":"2"`), "/1/action/catalog_id", "same"},
		{`[` + urlCard + `,` + second(productCard) + `]`, "/1/type", "first card: cta_url"},
		{`[` + urlCard + `,` + second(part(urlCard, `"type":"image","image"`, `"type":"video","video"`)) + `]`, "/1", "first card's type: image"},
		{`[` + part(replyCard, `"type":"video","video"`, `"type":"image","image"`) + `,` + second(urlCard) + `]`, "/1", "kind of action: buttons"},
		{`[` + replyCard + `,` + second(part(replyCard, `"buttons":[`, `"buttons":[{"type":"quick_reply","quick_reply":{"id":"b","title":"More"}},`)) + `]`,
			"/1", "as many buttons as the first card: 1"},
	})
}

func TestOrders(t *testing.T) {
	check(t, part(message("interactive"), "$", part(order, orderOf, "$")), "/interactive/action/parameters", []rule{
		{part: orderOf},
		{part: part(orderOf, `"tax"`, `"shipping":{"value":1,"offset":100},"discount":{"value":1,"offset":100,"description":"d"},"tax"`)},
		{`{}`, "/reference_id /type /currency /total_amount /order", "required"},
		{part(orderOf, `"digital-goods"`, `"goods"`), "/type", "digital-goods or physical-goods"},
		{part: part(orderOf, `"BRL"`, `"AZz"`)},
		{part(orderOf, `"BRL"`, `"R$"`), "/currency", "three letters"},
		{part(orderOf, `"BRL"`, `"R$L"`), "/currency", "three letters"},
		{part(orderOf, `"BRL"`, `"BR_"`), "/currency", "three letters"},
		{part(orderOf, `"BRL"`, `"BR~"`), "/currency", "three letters"},
		{part(orderOf, `"br","payment_settings":[`, `1,"payment_settings":{},"x":[`), "/payment_type /payment_settings", "string"},
		{part(orderOf, `{"value":100,"offset":100}`, `{}`), "/total_amount/value /total_amount/offset", "required"},
		{part(orderOf, `,"quantity":1`, ``), "/order/items/0/quantity", "required"},
		{part(orderOf, `{"value":100,"offset":100}`, `{"value":1.5}`), "/total_amount/value /total_amount/offset", "whole number"},
		{part(orderOf, `{"value":100,"offset":100}`, `{"value":"100","offset":0}`), "/total_amount/value /total_amount/offset", "whole number"},
		{part(orderOf, `"pending"`, `"shipped"`), "/order/status", "must be pending"},
		{part(orderOf, `"status":"pending",`, ``), "/order/status", "required"},
		{part(orderOf, `"subtotal"`, `"sub"`), "/order/subtotal", "required"},
		{part(orderOf, `"tax"`, `"vat"`), "/order/tax", "required"},
		{part(orderOf, `"tax"`, `"shipping":1,"discount":[],"tax"`), "/order/shipping /order/discount", "object"},
		{part(orderOf, `[{"name":"n","amount":{"value":100,"offset":100},"quantity":1}]`, `[]`), "/order/items", "at least 1 item"},
		{part(orderOf, `"items"`, `"things"`), "/order/items", "required"},
		{part(orderOf, `"name":"n","amount":{"value":100,"offset":100},"quantity":1`, `"quantity":0,"retailer_id":1,"sale_amount":1`),
			"/order/items/0/retailer_id /order/items/0/name /order/items/0/amount /order/items/0/sale_amount /order/items/0/quantity", "string"},
	})
	check(t, part(message("interactive"), "$", part(orderState, `{"reference_id":"r","order":{"status":"shipped"}}`, "$")), "/interactive/action/parameters", []rule{
		{part: `{"reference_id":"r","order":{"status":"partially_shipped","description":"d"},"payment":{"status":"captured","timestamp":1}}`},
		{`{"order":{"status":"lost","description":1},"payment":{"status":1}}`, "/reference_id /order/status /order/description /payment/status", "required"},
		{`{"reference_id":"r"}`, "/order", "required"},
		{`{"reference_id":"r","order":{},"payment":1}`, "/order/status /payment", "required"},
	})
}
