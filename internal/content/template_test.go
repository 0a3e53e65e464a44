package content_test

import (
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	check(t, message("template"), "/template", []rule{
		{part: `{"name":"hello_world","language":{"code":"en_US"}}`},
		{part: `{"name":"` + strings.Repeat("a", 512) + `","language":{"code":"fil","policy":"deterministic"},"components":null}`},
		{part: `{"name":"az_09","language":{"code":"es_409"}}`},
		{part: `{"name":"a_1","language":{"code":"zh-Hans-CN","policy":""},"components":[],"namespace":"n"}`},
		{`{}`, "/name /language", "required"},
		{`{"name":"","language":{}}`, "/name /language/code", "empty"},
		{`{"name":"` + strings.Repeat("a", 513) + `","language":{"code":"en"}}`, "/name", "at most 512 characters, not 513"},
		{`{"name":"Order-Update","language":{"code":"en"}}`, "/name", "lower-case letters, digits and underscores"},
		{`{"name":7,"language":"en_US"}`, "/name /language", "string"},
		{`{"name":"a","language":{"code":"english"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"e"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"en_"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"e1"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"en US"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"en_abcdefghi"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"en` + strings.Repeat("_US", 30) + `"}}`, "/language/code", "en_US"},
		{`{"name":"a","language":{"code":"en","policy":"fallback"}}`, "/language/policy", "deterministic"},
		{`{"name":"a","language":{"code":"en"},"components":{"type":"body"}}`, "/components", "array"},
		{`[]`, ".", "object"},
	})
}

// templateOf is a frame for a template's components.
const templateOf = `{"to":"+12025550101","type":"template","template":{"name":"a","language":{"code":"en"},"components":$}}`

func TestComponents(t *testing.T) {
	check(t, templateOf, "/template/components", []rule{
		{part: `[{"type":"tap_target_configuration","parameters":[{"type":"tap_target_configuration"}]},{"type":"HEADER"},{"type":"BODY","parameters":[]}]`},
		{`[1,{}]`, "/0 /1/type", "object"},
		{`[{"type":"header","parameters":{}},{"type":"body","parameters":"p"}]`, "/0/parameters /1/parameters", "array"},
		{`[{"type":"header","parameters":[1]},{"type":"body","parameters":[1]}]`, "/0/parameters/0 /1/parameters/0", "object"},
		// A limited-time offer.
		{part: `[{"type":"limited_time_offer","parameters":[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":1893456000000}}]}]`},
		{`[{"type":"limited_time_offer","parameters":[{"type":"limited_time_offer"}]}]`, "/0/parameters/0/limited_time_offer", "required"},
		{`[{"type":"limited_time_offer","parameters":[{"type":"text","text":"t"}]}]`, "/0/parameters/0/type", "limited_time_offer"},
		{`[{"type":"limited_time_offer","parameters":[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":"soon"}}]}]`,
			"/0/parameters/0/limited_time_offer/expiration_time_ms", "whole number"},
		// An order's status.
		{part: `[{"type":"order_status","parameters":[{"type":"order_status","order_status":{"reference_id":"r","order":{"status":"completed"}}}]}]`},
		{`[{"type":"order_status","parameters":[{"type":"order_status"}]}]`, "/0/parameters/0/order_status", "required"},
		{`[{"type":"order_status","parameters":[{"type":"order_status","order_status":{"order":{"status":"lost"}}}]}]`,
			"/0/parameters/0/order_status/reference_id /0/parameters/0/order_status/order/status", "required"},
	})
}

func TestHeaderParameters(t *testing.T) {
	check(t, part(templateOf, "$", `[{"type":"header","parameters":$}]`), "/template/components/0/parameters", []rule{
		{part: `[]`},
		{part: `[{"type":"text","text":"` + x(60) + `","parameter_name":"who"}]`},
		{part: `[{"type":"image","image":{"id":"1"}}]`},
		{part: `[{"type":"video","video":{"link":"https://example.com/v"}}]`},
		{part: `[{"type":"document","document":{"link":"https://example.com/d","filename":"f"}}]`},
		{part: `[{"type":"location","location":{"latitude":"1","longitude":2,"name":"n","address":"a"}}]`},
		{part: `[{"type":"product","product":{"product_retailer_id":"sku","catalog_id":"1"}}]`},
		{part: `[{"type":"gif","gif":{}}]`},
		{`[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, ".", "at most 1 parameter, not 2"},
		{`[{"type":"text","text":"` + x(61) + `"}]`, "/0/text", "at most 60"},
		{`[{"type":"text"}]`, "/0/text", "required"},
		{`[{"type":"text","text":"t","parameter_name":1}]`, "/0/parameter_name", "string"},
		{`[{"text":"t"}]`, "/0/type", "required"},
		{`[{"type":"payload","payload":"p"}]`, "/0/type", "must be text, image"},
		{`[{"type":"image"}]`, "/0/image", "required"},
		{`[{"type":"video","image":{"id":"1"}}]`, "/0/video", "required"},
		{`[{"type":"image","image":{"id":"1","link":"https://example.com"}}]`, "/0/image", "not both"},
		{`[{"type":"video","video":{"link":"v.mp4"}}]`, "/0/video/link", "https://"},
		{`[{"type":"document","document":{}}]`, "/0/document", "an id or a link"},
		{`[{"type":"document","document":{"id":"1","filename":1}}]`, "/0/document/filename", "string"},
		{`[{"type":"location","location":{"latitude":"north"}}]`, "/0/location/latitude /0/location/longitude", "number"},
		{`[{"type":"product","product":{}}]`, "/0/product/catalog_id /0/product/product_retailer_id", "required"},
		{`[{"type":"currency"}]`, "/0/currency", "required"},
	})
}

func TestBodyParameters(t *testing.T) {
	text := func(n int) string { return `{"type":"text","text":"` + x(n) + `"}` }
	check(t, part(templateOf, "$", `[{"type":"body","parameters":$}]`), "/template/components/0/parameters", []rule{
		{part: `[{"type":"text","text":"a"},{"type":"TEXT","text":"b"}]`},
		{part: `[{"type":"text","text":"a","parameter_name":"n"},{"type":"text","text":"b","parameter_name":"m"}]`},
		{part: `[{"type":"currency","currency":{"fallback_value":"$1","code":"USD","amount_1000":-1000}},{"type":"date_time","date_time":{"fallback_value":"May","hour":1}}]`},
		{part: `[` + text(32768) + `]`},
		{`[` + text(32769) + `]`, "/0/text", "at most 32768"},
		{`[` + text(32000) + `,` + text(769) + `]`, ".", "at most 32768 characters in all, not 32769"},
		{`[{"type":"text"}]`, "/0/text", "required"},
		{`[{"type":"text","text":""}]`, "/0/text", "empty"},
		{`[{"type":"text","text":7}]`, "/0/text", "string"},
		{`[{"text":"a"},{"type":7}]`, "/0/type /1/type", "required"},
		{`[{"type":"image","image":{"id":"1"}}]`, "/0/type", "text, currency or date_time"},
		{`[{"type":"text","text":"a","parameter_name":"n"},{"type":"text","text":"b"}]`, "/1/parameter_name", "required"},
		{`[{"type":"currency","currency":{}}]`,
			"/0/currency/fallback_value /0/currency/code /0/currency/amount_1000", "required"},
		{`[{"type":"currency","currency":{"fallback_value":"x","code":"EURO","amount_1000":1.5}}]`, "/0/currency/code /0/currency/amount_1000", "three letters"},
		{`[{"type":"date_time","date_time":{}}]`, "/0/date_time/fallback_value", "required"},
		{`[{"type":"date_time"}]`, "/0/date_time", "required"},
	})
	// Other components shorten what a body may have.
	check(t, part(templateOf, "$", `[{"type":"header"},{"type":"body","parameters":$}]`), "/template/components/1/parameters", []rule{
		{part: `[` + text(1024) + `]`},
		{`[` + text(1025) + `]`, "/0/text", "at most 1024"},
		{`[` + text(1000) + `,` + text(25) + `]`, ".", "at most 1024 characters in all, not 1025"},
	})
	check(t, part(templateOf, "$", `[{"type":"limited_time_offer"},{"type":"body","parameters":$}]`), "/template/components/1/parameters", []rule{
		{part: `[` + text(600) + `]`},
		{`[` + text(601) + `]`, "/0/text", "at most 600"},
	})
}

func TestTemplateButtons(t *testing.T) {
	check(t, part(templateOf, "$", `[$]`), "/template/components/0", []rule{
		{part: `{"type":"button","sub_type":"quick_reply","index":"0","parameters":[{"type":"payload","payload":"p"}]}`},
		{part: `{"type":"BUTTON","sub_type":"QUICK_REPLY","index":9,"parameters":[{"type":"text","text":"p"}]}`},
		{part: `{"type":"button","sub_type":"url","parameters":[{"type":"text","text":"` + x(2000) + `"}]}`},
		{part: `{"type":"button","sub_type":"url","index":""}`},
		{part: `{"type":"button","sub_type":"copy_code","index":0,"parameters":[{"type":"coupon_code","coupon_code":"` + x(15) + `"}]}`},
		{part: `{"type":"button","sub_type":"flow","index":0,"parameters":[{"type":"action","action":{"flow_token":"t","flow_action_data":{"k":[]}}}]}`},
		{part: `{"type":"button","sub_type":"flow","index":0,"parameters":[{"type":"action","action":{}}]}`},
		{part: `{"type":"button","sub_type":"CATALOG","index":0,"parameters":[{"type":"action","action":{"thumbnail_product_retailer_id":"s"}}]}`},
		{part: `{"type":"button","sub_type":"mpm","parameters":[{"type":"action","action":{"thumbnail_product_retailer_id":"s","sections":[{"title":"t","product_items":[{"product_retailer_id":"s"}]}]}}]}`},
		{part: `{"type":"button","sub_type":"voice_call","index":"0","parameters":[{"type":"ttl_minutes"},{"type":"payload"}]}`},
		{part: `{"type":"button","sub_type":"phone_number","index":"0"}`},
		{part: `{"type":"button","sub_type":"request_contact_info","index":"0"}`},
		{part: `{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"hologram"}]}`},
		{part: `{"type":"button","sub_type":"order_details","index":0,"parameters":[{"type":"action","action":{"order_details":` + orderOf + `}}]}`},
		{`{"type":"button"}`, "/sub_type", "required"},
		{`{"type":"button","sub_type":"submit","parameters":[{"type":"payload","payload":"p"}]}`, "/sub_type", "quick_reply"},
		{`{"type":"button","sub_type":"url","index":10}`, "/index", "from 0 to 9"},
		{`{"type":"button","sub_type":"url","index":"10"}`, "/index", "from 0 to 9"},
		{`{"type":"button","sub_type":"url","index":-1}`, "/index", "from 0 to 9"},
		{`{"type":"button","sub_type":"url","index":"first"}`, "/index", "from 0 to 9"},
		{`{"type":"button","sub_type":"url","index":[0]}`, "/index", "from 0 to 9"},
		{`{"type":"button","sub_type":"url","parameters":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}`, "/parameters", "at most 1 parameter, not 2"},
		{`{"type":"button","sub_type":"url","parameters":[{"type":"text","text":"` + x(2001) + `"}]}`, "/parameters/0/text", "at most 2000"},
		{`{"type":"button","sub_type":"url","parameters":[{"type":"text","text":""}]}`, "/parameters/0/text", "empty"},
		{`{"type":"button","sub_type":"url","parameters":[{"type":"action","action":{}}]}`, "/parameters/0/type", "payload or text"},
		{`{"type":"button","sub_type":"quick_reply","parameters":[{"type":"payload"}]}`, "/parameters/0/payload", "required"},
		{`{"type":"button","sub_type":"quick_reply","parameters":[{}]}`, "/parameters/0/type", "required"},
		{`{"type":"button","sub_type":"quick_reply","parameters":[1]}`, "/parameters/0", "object"},
		{`{"type":"button","sub_type":"copy_code","parameters":[{"type":"coupon_code","coupon_code":"` + x(16) + `"}]}`, "/parameters/0/coupon_code", "at most 15 characters, not 16"},
		{`{"type":"button","sub_type":"copy_code","parameters":[{"type":"coupon_code"}]}`, "/parameters/0/coupon_code", "required"},
		{`{"type":"button","sub_type":"copy_code","parameters":[{"type":"text","text":"` + x(16) + `"}]}`, "/parameters/0/text", "at most 15"},
		{`{"type":"button","sub_type":"copy_code","parameters":[{"type":"text"}]}`, "/parameters/0/text", "required"},
		{`{"type":"button","sub_type":"copy_code","parameters":[{"type":"payload","payload":"p"}]}`, "/parameters/0/type", "coupon_code"},
		{`{"type":"button","sub_type":"flow","parameters":[{"type":"action"}]}`, "/parameters/0/action", "required"},
		{`{"type":"button","sub_type":"flow","parameters":[{"type":"action","action":{"flow_token":1,"flow_action_data":[]}}]}`,
			"/parameters/0/action/flow_token /parameters/0/action/flow_action_data", "string"},
		{`{"type":"button","sub_type":"catalog","parameters":[{"type":"action","action":{"thumbnail_product_retailer_id":1}}]}`,
			"/parameters/0/action/thumbnail_product_retailer_id", "string"},
		{`{"type":"button","sub_type":"mpm","parameters":[{"type":"action","action":{}}]}`,
			"/parameters/0/action/thumbnail_product_retailer_id /parameters/0/action/sections", "required"},
		{`{"type":"button","sub_type":"order_details","parameters":[{"type":"action","action":{}}]}`, "/parameters/0/action/order_details", "required"},
		{`{"type":"button","sub_type":"order_details","parameters":[{"type":"action","action":{"order_details":` + part(orderOf, `"BRL"`, `"$"`) + `}}]}`,
			"/parameters/0/action/order_details/currency", "three letters"},
	})
}

func TestTemplateCarousel(t *testing.T) {
	card := func(index, header, text string) string {
		return `{"card_index":` + index + `,"components":[{"type":"header","parameters":[{"type":"` + header + `","` + header + `":{"id":"1","product_retailer_id":"s","catalog_id":"1"}}]},` +
			`{"type":"body","parameters":[{"type":"text","text":"` + text + `"}]},{"type":"button","sub_type":"url","index":0,"parameters":[{"type":"text","text":"s"}]}]}`
	}
	check(t, part(templateOf, "$", `[{"type":"body"},{"type":"carousel","cards":$}]`), "/template/components/1/cards", []rule{
		{part: `[` + card("0", "image", x(160)) + `,` + card("1", "image", "b") + `]`},
		{part: `[` + repeat(10, `{"components":[]}`) + `]`},
		{part: `[` + card("0", "product", "a") + `,{"card_index":1}]`},
		{`[{"card_index":0,"components":[]}]`, ".", "2 to 10 cards, not 1"},
		{`[` + repeat(11, `{"components":[]}`) + `]`, ".", "2 to 10 cards, not 11"},
		{`null`, ".", "required"},
		{`[{},1]`, "/1", "object"},
		{`[{"components":{}},{"card_index":-1}]`, "/0/components /1/card_index", "array"},
		{`[` + card("0", "image", "a") + `,` + card("0", "image", "b") + `]`, "/1/card_index", "different"},
		{`[` + card("0", "image", "a") + `,` + card("1", "video", "b") + `]`, "/1/components/0/parameters/0/type", "first card's: image"},
		{`[` + card("0", "image", x(161)) + `,` + card("1", "image", "") + `]`,
			"/0/components/1/parameters/0/text /1/components/1/parameters/0/text", "at most 160"},
		{`[{"components":[{"type":"button","sub_type":"x"}]},{"components":[{}]}]`, "/0/components/0/sub_type /1/components/0/type", "must be"},
	})
}

func TestOneTimePasswords(t *testing.T) {
	frame := part(templateOf, `{"to"`, `{"gateway":{"category":"authentication"},"to"`)
	otp := func(code, copied string) string {
		return `[{"type":"body","parameters":[{"type":"text","text":"` + code + `"}]},{"type":"button","sub_type":"url","index":"0","parameters":[{"type":"text","text":"` + copied + `"}]}]`
	}
	check(t, frame, "/template/components", []rule{
		{part: otp("730418", "730418")},
		{part: otp(x(15), x(15))},
		{part: `[]`},
		{part: `[{"type":"body","parameters":[{"type":"text","text":"730418"}]}]`},
		{otp(x(16), x(16)), "/0/parameters/0/text /1/parameters/0/text", "at most 15 characters in an authentication message, not 16"},
		{otp("730418", "730419"), "/1/parameters/0/text", "the code that the body has"},
	})
	check(t, templateOf, "", []rule{{part: otp("a long text in a body", "orders/17")}})
}
