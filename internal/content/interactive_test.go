package content_test

import (
	"strings"
	"testing"
)

// part replaces one part of a valid interactive object.
func part(valid, old, new string) string { return strings.Replace(valid, old, new, 1) }

const (
	bodyPart   = `"body":{"text":"b"}`
	button     = `{"type":"button",` + bodyPart + `,"action":{"buttons":[{"type":"reply","reply":{"id":"y","title":"Yes"}}]}}`
	list       = `{"type":"list",` + bodyPart + `,"action":{"button":"Open","sections":[{"rows":[{"id":"1","title":"One"}]}]}}`
	ctaURL     = `{"type":"cta_url",` + bodyPart + `,"action":{"name":"cta_url","parameters":{"display_text":"Open","url":"https://example.com"}}}`
	flow       = `{"type":"flow",` + bodyPart + `,"action":{"name":"flow","parameters":{"flow_message_version":"3","flow_cta":"Go","flow_id":"1"}}}`
	product    = `{"type":"product","action":{"catalog_id":"1","product_retailer_id":"sku"}}`
	catalog    = `{"type":"catalog_message",` + bodyPart + `,"action":{"name":"catalog_message"}}`
	askPlace   = `{"type":"location_request_message",` + bodyPart + `,"action":{"name":"send_location"}}`
	address    = `{"type":"address_message",` + bodyPart + `,"action":{"name":"address_message","parameters":{"country":"IN"}}}`
	mayCall    = `{"type":"call_permission_request","action":{"name":"call_permission_request"}}`
	voiceCall  = `{"type":"voice_call",` + bodyPart + `,"action":{"name":"voice_call","parameters":{"display_text":"Call","ttl_minutes":1,"payload":"p"}}}`
	orderState = `{"type":"order_status",` + bodyPart + `,"action":{"name":"review_order","parameters":{"reference_id":"r","order":{"status":"shipped"}}}}`
	products   = `{"type":"product_list","header":{"type":"text","text":"h"},` + bodyPart +
		`,"action":{"catalog_id":"1","sections":[{"title":"s","product_items":[{"product_retailer_id":"sku"}]}]}}`
)

func TestInteractive(t *testing.T) {
	all := []string{button, list, ctaURL, flow, product, catalog, askPlace, address, mayCall, voiceCall, orderState, products, order, urlCards, replyCards, productCards}
	for _, valid := range all {
		check(t, message("interactive"), "/interactive", []rule{
			{part: valid},
			{part: part(valid, `"action"`, `"footer":{},"unknown":{"a":[]},"action"`)},
			{part(valid, `"action"`, `"deed"`), "/action", "required"},
			{part(valid, `"action":{`, `"action":[],"x":{`), "/action", "object"},
		})
		hasCards := strings.Contains(valid, `"cards"`)
		if name := `"action":{"name":"`; strings.Contains(valid, name) && !hasCards && valid != orderState {
			check(t, message("interactive"), "/interactive", []rule{
				{part(valid, name, name+"x"), "/action/name", "must be"},
				{part(valid, name, `"action":{"nom":"`), "/action/name", "required"},
			})
		}
		if strings.Contains(valid, `"parameters":{`) && !hasCards {
			faults := "/action/parameters"
			if strings.Contains(valid, "voice_call") {
				faults = ""
			}
			check(t, message("interactive"), "/interactive", []rule{{part: part(valid, `"parameters":{`, `"parameters":null,"x":{`), faults: faults}})
		}
		if strings.Contains(valid, bodyPart+`,"action"`) {
			limit := 1024
			if valid == list {
				limit = 4096
			}
			check(t, message("interactive"), "/interactive", []rule{
				{part: part(valid, bodyPart, `"body":{"text":"`+x(limit)+`"}`)},
				{part(valid, bodyPart, `"body":{"text":"`+x(limit+1)+`"}`), "/body/text", "characters, not"},
				{part(valid, bodyPart, `"body":{"text":""}`), "/body/text", "empty"},
				{part(valid, bodyPart, `"body":{}`), "/body/text", "required"},
				{part(valid, bodyPart, `"body":"b"`), "/body", "object"},
				{part(valid, bodyPart, `"body":""`), "/body", "object"},
				{part(valid, bodyPart, `"body":null`), "/body", "required"},
			})
		}
	}
	check(t, message("interactive"), "/interactive", []rule{
		{part: `{"type":"request_contact_info","action":{"name":"request_contact_info"}}`},
		{part: `{"type":"hologram","body":7}`},
		{part: `{"type":"a_subtype_with_a_name_longer_than_any_that_is_known"}`},
		{part: part(button, `"button"`, `"BUTTON"`)},
		{`{"body":{"text":"b"}}`, "/type", "required"},
		{`{"type":7}`, "/type", "string"},
		{`{"type":""}`, "/type", "empty"},
		{part: part(mayCall, `"action"`, `"body":{"text":"May we?"},"action"`)},
		{part(mayCall, `"action"`, `"body":{"text":"`+x(1025)+`"},"action"`), "/body/text", "at most 1024"},
		{part(product, `"action"`, `"body":[],"action"`), "/body", "object"},
	})
}

func TestHeaderAndFooter(t *testing.T) {
	with := func(valid, more string) string { return part(valid, `"action"`, more+`,"action"`) }
	for _, valid := range []string{button, ctaURL, flow, address} {
		check(t, message("interactive"), "/interactive", []rule{
			{part: with(valid, `"header":{"type":"text","text":"`+x(60)+`"}`)},
			{part: with(valid, `"header":{"type":"IMAGE","image":{"id":"1"}}`)},
			{part: with(valid, `"header":{"type":"video","video":{"link":"https://example.com/v"}}`)},
			{part: with(valid, `"header":{"type":"document","document":{"id":"1","filename":"f"}}`)},
			{part: with(valid, `"header":{}`)},
			{part: with(valid, `"header":null,"footer":null`)},
			{with(valid, `"header":{"type":"text","text":"`+x(61)+`"}`), "/header/text", "at most 60"},
			{with(valid, `"header":{"type":"text"}`), "/header/text", "required"},
			{with(valid, `"header":{"text":"h"}`), "/header/type", "required"},
			{with(valid, `"header":{"type":"audio","audio":{"id":"1"}}`), "/header/type", "text, image, video or document"},
			{with(valid, `"header":{"type":"image","video":{"id":"1"}}`), "/header/image", "required"},
			{with(valid, `"header":{"type":"image","image":{"id":"1","link":"https://example.com"}}`), "/header/image", "not both"},
			{with(valid, `"header":{"type":"document","document":{"id":"1","filename":1}}`), "/header/document/filename", "string"},
			{with(valid, `"header":"h"`), "/header", "object"},
		})
	}
	for _, valid := range []string{button, list, ctaURL, flow, product, products, catalog, address, order, orderState} {
		check(t, message("interactive"), "/interactive", []rule{
			{part: with(valid, `"footer":{"text":"`+x(60)+`"}`)},
			{part: with(valid, `"footer":""`)},
			{with(valid, `"footer":{"text":"`+x(61)+`"}`), "/footer/text", "at most 60"},
			{with(valid, `"footer":"f"`), "/footer", "object"},
		})
	}
	for _, valid := range []string{product, urlCards, productCards} {
		check(t, message("interactive"), "/interactive", []rule{
			{with(valid, `"header":{"type":"text","text":"h"}`), "/header", "no header"},
			{part: with(valid, `"header":{}`)},
		})
	}
	check(t, message("interactive"), "/interactive", []rule{
		{with(urlCards, `"footer":{"text":"f"}`), "/footer", "no footer"},
		{with(list, `"header":{"type":"image","image":{"id":"1"}}`), "/header/type", "must be text"},
		{part: with(order, `"header":{"type":"image","image":{"id":"1"}}`)},
		{with(order, `"header":{"type":"text","text":"h"}`), "/header/type", "must be image"},
		{part(products, `"header"`, `"head"`), "/header", "required"},
		{part(products, `{"type":"text","text":"h"}`, `{}`), "/header/type", "required"},
		{part(products, `"type":"text","text":"h"`, `"type":"image","image":{"id":"1"}`), "/header/type", "must be text"},
	})
}

func TestButtons(t *testing.T) {
	check(t, part(message("interactive"), "$", `{"type":"button",`+bodyPart+`,"action":{"buttons":$}}`), "/interactive/action/buttons", []rule{
		{part: `[` + repeat(3, `{"type":"reply","reply":{"id":"#","title":"t#"}}`) + `]`},
		{part: `[{"type":"reply","reply":{"id":"` + x(256) + `","title":"` + x(20) + `"}}]`},
		{`[` + repeat(4, `{"type":"reply","reply":{"id":"#","title":"t#"}}`) + `]`, ".", "1 to 3 buttons, not 4"},
		{`[]`, ".", "1 to 3 buttons, not 0"},
		{`null`, ".", "required"},
		{`{}`, ".", "array"},
		{`["b"]`, "/0", "object"},
		{`[{"reply":{"id":"1","title":"t"}}]`, "/0/type", "required"},
		{`[{"type":"url","reply":{"id":"1","title":"t"}}]`, "/0/type", "must be reply"},
		{`[{"type":"reply"}]`, "/0/reply", "required"},
		{`[{"type":"reply","reply":{}}]`, "/0/reply/id /0/reply/title", "required"},
		{`[{"type":"reply","reply":{"id":"","title":""}}]`, "/0/reply/id /0/reply/title", "empty"},
		{`[{"type":"reply","reply":{"id":"` + x(257) + `","title":"` + x(21) + `"}}]`, "/0/reply/id /0/reply/title", "at most 256 characters, not 257"},
		{`[{"type":"reply","reply":{"id":"1","title":"` + x(21) + `"}}]`, "/0/reply/title", "at most 20 characters, not 21"},
		{`[{"type":"reply","reply":{"id":"1","title":"a"}},{"type":"reply","reply":{"id":"\u0031","title":"b"}}]`, ".", "different id"},
		{`[{"type":"reply","reply":{"id":"1","title":"a"}},{"type":"reply","reply":{"id":"2","title":"a"}}]`, ".", "different title"},
		{`[{"type":"reply","reply":{"id":"1","title":"a"}},{"type":"reply","reply":{"id":"1","title":"b"}},{"type":"reply","reply":{"id":"1","title":"c"}}]`, ".", "different id"},
	})
}

func TestList(t *testing.T) {
	check(t, part(message("interactive"), "$", `{"type":"list",`+bodyPart+`,"action":{"button":"Open","sections":$}}`), "/interactive/action/sections", []rule{
		{part: `[{"rows":[` + repeat(10, `{"id":"#","title":"t"}`) + `]}]`},
		{part: `[` + repeat(10, `{"title":"#","rows":[{"id":"#","title":"t"}]}`) + `]`},
		{part: `[{"title":"` + x(24) + `","rows":[{"id":"` + x(200) + `","title":"` + x(24) + `","description":"` + x(72) + `"}]}]`},
		{`[{"rows":[` + repeat(11, `{"id":"#","title":"t"}`) + `]}]`, ".", "at most 10 rows in all, not 11"},
		{`[{"title":"a","rows":[` + repeat(6, `{"id":"#","title":"t"}`) + `]},{"title":"b","rows":[` + repeat(5, `{"id":"b#","title":"t"}`) + `]}]`, ".", "not 11"},
		{`[` + repeat(11, `{"title":"#","rows":[{"id":"#","title":"t"}]}`) + `]`, ". .", "1 to 10 sections, not 11"},
		{`[]`, ".", "1 to 10 sections, not 0"},
		{`null`, ".", "required"},
		{`[{"title":"` + x(25) + `","rows":[{"id":"` + x(201) + `","title":"` + x(25) + `","description":"` + x(73) + `"}]}]`,
			"/0/title /0/rows/0/id /0/rows/0/title /0/rows/0/description", "at most 24 characters, not 25"},
		{`[{"rows":[{"id":"1","title":"t"}]},{"title":"b","rows":[{"id":"2","title":"t"}]}]`, "/0/title", "required"},
		{`[{"rows":[]}]`, "/0/rows", "at least 1 row"},
		{`[{"title":"s"}]`, "/0/rows", "required"},
		{`[{"rows":[{}]}]`, "/0/rows/0/id /0/rows/0/title", "required"},
		{`[{"rows":[1]}]`, "/0/rows/0", "object"},
		{`[{"title":"a","rows":[{"id":"1","title":"t"}]},{"title":"b","rows":[{"id":"1","title":"t"}]}]`, ".", "different row id"},
	})
	check(t, message("interactive"), "/interactive", []rule{
		{part(list, `"button":"Open",`, ``), "/action/button", "required"},
		{part(list, `"Open"`, `"`+x(21)+`"`), "/action/button", "at most 20"},
	})
}

func TestActions(t *testing.T) {
	check(t, message("interactive"), "/interactive/action/parameters", []rule{
		{part(ctaURL, `"Open"`, `"`+x(21)+`"`), "/display_text", "at most 20 characters, not 21"},
		{part(ctaURL, `"display_text":"Open","url":"https://example.com"`, ``), "/display_text /url", "required"},
		{part: part(ctaURL, `"Open"`, `"`+x(20)+`","flow_id":"","flow_action_payload":null`)},

		{part: part(flow, `"Go"`, `"`+x(30)+`","flow_name":"","mode":"","flow_action":"","flow_token":"t","flow_action_payload":null`)},
		{part: part(flow, `"flow_id":"1"`, `"flow_name":"n","mode":"draft","flow_action":"navigate","flow_action_payload":{"screen":"S","data":{"a":1}}`)},
		{part: part(flow, `"flow_id":"1"`, `"flow_id":"1","mode":"published","flow_action":"data_exchange","flow_action_payload":{"screen":"S","data":null}`)},
		{part(flow, `"Go"`, `"`+x(31)+`"`), "/flow_cta", "at most 30 characters, not 31"},
		{part(flow, `"flow_cta":"Go",`, ``), "/flow_cta", "required"},
		{part(flow, `"flow_message_version":"3",`, ``), "/flow_message_version", "required"},
		{part(flow, `"3"`, `"2"`), "/flow_message_version", "must be 3"},
		{part(flow, `"flow_id":"1"`, `"flow_id":"1","flow_name":"n"`), ".", "not both"},
		{part(flow, `"flow_id":"1"`, `"flow_id":""`), ".", "a flow_id or a flow_name"},
		{part: part(flow, `"flow_id":"1"`, `"flow_id":1`)},
		{part(flow, `"flow_id":"1"`, `"flow_id":[1],"flow_token":1`), "/flow_id /flow_token", "string"},
		{part(flow, `"flow_id":"1"`, `"flow_id":"1","mode":"beta","flow_action":"jump"`), "/mode /flow_action", "draft or published"},
		{part(flow, `"flow_id":"1"`, `"flow_id":"1","flow_action_payload":"S"`), "/flow_action_payload", "object"},
		{part(flow, `"flow_id":"1"`, `"flow_id":"1","flow_action_payload":{"screen":1,"data":{}}`),
			"/flow_action_payload/screen /flow_action_payload/data", "string"},

		{part: part(address, `"IN"`, `"IN","values":{},"validation_errors":{"a":"b"},"saved_addresses":[{"id":"a","value":{}}],"flow_id":""`)},
		{part(address, `"country":"IN"`, ``), "/country", "required"},
		{part: part(address, `"IN"`, `"SG"`)},
		{part: part(address, `{"country":"IN"}`, `"{\"country\":\"IN\"}"`)},
		{part(address, `{"country":"IN"}`, `""`), ".", "object"},
		{part(address, `"IN"`, `"US"`), "/country", "must be IN or SG"},
		{part(address, `"IN"`, `"IN","values":[],"validation_errors":1,"saved_addresses":[{"value":1},{"id":"a"}]`),
			"/values /validation_errors /saved_addresses/0/id /saved_addresses/0/value /saved_addresses/1/value", "object"},

		{part: part(voiceCall, `"Call","ttl_minutes":1,"payload":"p"`, `"`+x(20)+`","ttl_minutes":43200,"payload":"`+x(512)+`"`)},
		{part: part(voiceCall, `"display_text":"Call","ttl_minutes":1,"payload":"p"`, ``)},
		{part(voiceCall, `"Call","ttl_minutes":1,"payload":"p"`, `"`+x(21)+`","ttl_minutes":43201,"payload":"`+x(513)+`"`),
			"/display_text /ttl_minutes /payload", "at most 20"},
		{part: part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":1e3`)},
		{part: part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":10.0`)},
		{part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":1e999`), "/ttl_minutes", "from 1 to 43200"},
		{part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":"1"`), "/ttl_minutes", "from 1 to 43200"},
		{part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":0`), "/ttl_minutes", "from 1 to 43200"},
		{part(voiceCall, `"ttl_minutes":1`, `"ttl_minutes":1.5`), "/ttl_minutes", "whole number"},

		{part: part(catalog, `"catalog_message"}`, `"catalog_message","parameters":{"thumbnail_product_retailer_id":"sku"}}`)},
		{part(catalog, `"catalog_message"}`, `"catalog_message","parameters":{"thumbnail_product_retailer_id":1}}`), "/thumbnail_product_retailer_id", "string"},
		{part(catalog, `"catalog_message"}`, `"catalog_message","parameters":[]}`), ".", "object"},
	})
}
