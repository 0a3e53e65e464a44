package content_test

import (
	"fmt"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

// templateMessage is a template message with the given components.
func templateMessage(components string) []byte {
	if components != "" {
		components = `,"components":[` + components + `]`
	}
	return []byte(`{"to":"+12025550101","type":"template","template":{"name":"t","language":{"code":"en"}` + components + `}}`)
}

func told(faults []cloudapi.Fault) string {
	var all []string
	for _, f := range faults {
		all = append(all, fmt.Sprintf("%d %s", f.Code, f.Pointer))
	}
	return strings.Join(all, ", ")
}

const (
	bodyParameters   = `{"type":"body","parameters":[{"type":"text","text":"Bergen"},{"type":"currency","currency":{"fallback_value":"$1","code":"USD","amount_1000":1000}}]}`
	imageParameter   = `{"type":"header","parameters":[{"type":"image","image":{"id":"1"}}]}`
	buttonParameter  = `{"type":"button","sub_type":"url","index":%q,"parameters":[{"type":"text","text":"x"}]}`
	twoVariables     = `{"type":"BODY","text":"Hello {{1}}, that is {{2}}, {{1}}."}`
	imageHeader      = `{"type":"HEADER","format":"IMAGE","example":{"header_handle":["h"]}}`
	dynamicButtons   = `{"type":"BUTTONS","buttons":[{"type":"QUICK_REPLY","text":"Yes"},{"type":"URL","text":"Open","url":"https://shop.example/{{1}}"},{"type":"PHONE_NUMBER","text":"Call","phone_number":"+1"}]}`
	mediaCarousel    = `{"type":"BODY","text":"Look"},{"type":"CAROUSEL","cards":[{"components":[` + imageHeader + `,{"type":"BODY","text":"One {{1}}."}]},{"components":[` + imageHeader + `,{"type":"BODY","text":"Two."}]}]}`
	productCarousel  = `{"type":"BODY","text":"Look"},{"type":"CAROUSEL","cards":[{"components":[{"type":"HEADER","format":"PRODUCT"}]},{"components":[{"type":"HEADER","format":"PRODUCT"}]}]}`
	productParameter = `{"type":"header","parameters":[{"type":"product","product":{"product_retailer_id":"p","catalog_id":"c"}}]}`
)

// What sending a template takes, and what of it is refused with which of Meta's codes.
func TestATemplatesParameters(t *testing.T) {
	card := func(index int, components string) string {
		return fmt.Sprintf(`{"card_index":%d,"components":[%s]}`, index, components)
	}
	carousel := func(cards ...string) string { return `{"type":"carousel","cards":[` + strings.Join(cards, ",") + `]}` }
	named := func(names ...string) string {
		var all []string
		for _, n := range names {
			all = append(all, `{"type":"text","parameter_name":"`+n+`","text":"x"}`)
		}
		return `{"type":"body","parameters":[` + strings.Join(all, ",") + `]}`
	}
	text := `{"type":"body","parameters":[{"type":"text","text":"x"}]}`
	for _, c := range []struct{ name, definition, format, components, want string }{
		{"plain", `{"type":"BODY","text":"Hello"}`, "", "", ""},
		{"plain, with an empty list", `{"type":"BODY","text":"Hello"}`, "POSITIONAL", `{"type":"body","parameters":[]}`, ""},
		{"plain, with a parameter", `{"type":"BODY","text":"Hello"}`, "POSITIONAL", text, "132000 /template/components/0/parameters"},
		{"two", twoVariables, "POSITIONAL", bodyParameters, ""},
		{"two, in any case", `{"type":"body","text":"Hello {{ 1 }} and {{2}}."}`, "positional", strings.Replace(bodyParameters, `"body"`, `"BODY"`, 1), ""},
		{"one of two", twoVariables, "POSITIONAL", text, "132000 /template/components/0/parameters"},
		{"none of two", twoVariables, "POSITIONAL", "", "132000 /template/components"},
		{"numbers with a gap are not understood", `{"type":"BODY","text":"Hello {{1}} and {{3}}."}`, "POSITIONAL", text, ""},
		{"names in a positional one are not understood", `{"type":"BODY","text":"Hello {{name}}."}`, "POSITIONAL", "", ""},
		{"a text of Meta's own", `{"type":"BODY","add_security_recommendation":true}`, "POSITIONAL", text, ""},

		{"named", `{"type":"BODY","text":"Hello {{name}}, {{order_id}} is on its way."}`, "NAMED", named("order_id", "name"), ""},
		{"one name is another", `{"type":"BODY","text":"Hello {{name}}, {{order_id}} is on its way."}`, "NAMED", named("name", "order"), "132000 /template/components/0/parameters"},
		{"a name too many", `{"type":"BODY","text":"Hello {{name}}."}`, "NAMED", named("name", "order"), "132000 /template/components/0/parameters"},
		{"without names", `{"type":"BODY","text":"Hello {{name}}."}`, "NAMED", text, "132000 /template/components/0/parameters"},

		{"an image", imageHeader, "", imageParameter, ""},
		{"an image, left out", imageHeader, "", "", "132012 /template/components"},
		{"an image, empty", imageHeader, "", `{"type":"header","parameters":[]}`, "132012 /template/components/0/parameters"},
		{"a video for an image", imageHeader, "", `{"type":"header","parameters":[{"type":"video","video":{"id":"1"}}]}`, "132012 /template/components/0/parameters/0/type"},
		{"an unknown kind for an image", imageHeader, "", `{"type":"header","parameters":[{"type":"hologram","hologram":{}}]}`, ""},
		{"a GIF", `{"type":"HEADER","format":"GIF"}`, "", `{"type":"header","parameters":[{"type":"video","video":{"id":"1"}}]}`, ""},
		{"a location", `{"type":"HEADER","format":"LOCATION"}`, "", `{"type":"header","parameters":[{"type":"location","location":{"latitude":1,"longitude":1}}]}`, ""},
		{"a header's text", `{"type":"HEADER","format":"TEXT","text":"For {{1}}"}`, "", `{"type":"header","parameters":[{"type":"text","text":"x"}]}`, ""},
		{"a header's text, left out", `{"type":"HEADER","format":"TEXT","text":"For {{1}}"}`, "", "", "132000 /template/components"},
		{"a header's text without variables", `{"type":"HEADER","format":"TEXT","text":"For you"}`, "", `{"type":"header","parameters":[{"type":"text","text":"x"}]}`, "132000 /template/components/0/parameters"},
		{"no header", `{"type":"BODY","text":"Hello"}`, "", imageParameter, "132000 /template/components/0/parameters"},
		{"a format nobody documents", `{"type":"HEADER","format":"HOLOGRAM"}`, "", "", ""},

		{"a button", dynamicButtons, "", fmt.Sprintf(buttonParameter, "1"), ""},
		{"a button, left out", dynamicButtons, "", "", "131008 /template/components"},
		{"another button", dynamicButtons, "", fmt.Sprintf(buttonParameter, "0"), "131008 /template/components"},
		{"a number for an index", dynamicButtons, "", strings.Replace(fmt.Sprintf(buttonParameter, "1"), `"1"`, "1", 1), ""},
		{"a button without an index is the first", `{"type":"BUTTONS","buttons":[{"type":"COPY_CODE","text":"Copy","example":"X"}]}`, "", `{"type":"button","sub_type":"copy_code","parameters":[{"type":"coupon_code","coupon_code":"X"}]}`, ""},
		{"a password", `{"type":"BODY","text":"{{1}} is your code."},{"type":"BUTTONS","buttons":[{"type":"URL","text":"Copy code","url":"https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}"}]}`, "", text, "131008 /template/components"},
		{"a static button", `{"type":"BUTTONS","buttons":[{"type":"URL","text":"Open","url":"https://shop.example/"},{"type":"FLOW","text":"Go"},{"type":"CATALOG","text":"See"}]}`, "", "", ""},

		{"cards", mediaCarousel, "", carousel(card(0, imageParameter+","+text), card(1, imageParameter)), ""},
		{"cards in another order", mediaCarousel, "", carousel(card(1, imageParameter), card(0, imageParameter+","+text)), ""},
		{"a card too few", mediaCarousel, "", carousel(card(0, imageParameter+","+text)), "132000 /template/components/0/cards"},
		{"no cards", mediaCarousel, "", "", "132000 /template/components"},
		{"what a card lacks", mediaCarousel, "", carousel(card(0, imageParameter), card(1, "")), "132000 /template/components/0/cards/0/components, 132012 /template/components/0/cards/1/components"},
		{"more products than were defined", productCarousel, "", carousel(card(0, productParameter), card(1, productParameter), card(2, productParameter)), ""},
		{"a card without its product", productCarousel, "", carousel(card(0, productParameter), card(1, "")), "132012 /template/components/0/cards/1/components"},

		{"an offer that ends", `{"type":"LIMITED_TIME_OFFER","limited_time_offer":{"text":"Now","has_expiration":true}}`, "", "", "131008 /template/components"},
		{"an offer with its end", `{"type":"LIMITED_TIME_OFFER","limited_time_offer":{"text":"Now","has_expiration":true}}`, "", `{"type":"limited_time_offer","parameters":[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":1}}]}`, ""},
		{"an offer without end", `{"type":"LIMITED_TIME_OFFER","limited_time_offer":{"text":"Now","has_expiration":false}}`, "", "", ""},
		{"every fault at once", imageHeader + "," + twoVariables + "," + dynamicButtons, "", "", "132012 /template/components, 132000 /template/components, 131008 /template/components"},
		{"components nobody documents", `{"type":"TAP_TARGET","x":[{"y":1}]},{"type":7}`, "", "", "unreadable"},
	} {
		definition, err := content.ReadTemplate([]byte("["+c.definition+"]"), c.format)
		if err != nil {
			if c.want != "unreadable" {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		body := templateMessage(c.components)
		if _, faults, err := content.Check(body, content.Options{}); err != nil || len(faults) > 0 {
			// A card too few for any carousel is refused by then; the others must be messages.
			if c.name != "a card too few" {
				t.Errorf("%s: is no message: %v, %v", c.name, faults, err)
			}
		}
		if got := told(definition.Check(body)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := content.ReadTemplate([]byte(`[]`), "ROMAN"); err == nil {
		t.Error("a format that nobody knows was taken")
	}
}

// BenchmarkTemplate is what the check against a known template costs beside the check of the message.
func BenchmarkTemplate(b *testing.B) {
	definition, err := content.ReadTemplate([]byte(`[`+imageHeader+`,{"type":"BODY","text":"To {{1}} for {{2}} on {{3}}."},{"type":"BUTTONS","buttons":[{"type":"URL","text":"Open","url":"https://x.example/{{1}}"}]}]`), "POSITIONAL")
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(templateBody)
	b.ReportAllocs()
	for b.Loop() {
		if faults := definition.Check(body); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

// FuzzTemplate holds the check against a definition to what the check of a message promises: no panic, and pointers into the body.
func FuzzTemplate(f *testing.F) {
	for _, definition := range []string{imageHeader, twoVariables, dynamicButtons, mediaCarousel, productCarousel} {
		for _, components := range []string{"", bodyParameters, imageParameter, fmt.Sprintf(buttonParameter, "1"), `{"type":"carousel","cards":[{"card_index":99,"components":[` + imageParameter + `]},{},7]}`} {
			f.Add([]byte("["+definition+"]"), "NAMED", templateMessage(components))
			f.Add([]byte("["+definition+"]"), "", templateMessage(components))
		}
	}
	f.Add([]byte(`[{"type":"BODY","text":"{{}} {{ {{1}} }}"},{"type":"CAROUSEL","cards":[]},{"type":"HEADER"}]`), "", []byte(`{"template":[]}`))
	f.Fuzz(func(t *testing.T, components []byte, format string, body []byte) {
		definition, err := content.ReadTemplate(components, format)
		if err != nil {
			return
		}
		faults := definition.Check(body)
		if again := told(definition.Check(body)); again != told(faults) {
			t.Fatalf("%s and then %s", told(faults), again)
		}
		for _, fault := range faults {
			if !strings.HasPrefix(fault.Pointer, "/template/components") || fault.Code == 0 || fault.Detail == "" {
				t.Fatalf("%+v of %q", fault, body)
			}
		}
	})
}
