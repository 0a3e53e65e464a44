package content_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"wagate/internal/content"
)

func TestCheckReadsTheEnvelope(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       content.Message
	}{
		{"text", `{"from":"200000000000001","to":"+12025550101","type":"text","text":{"body":"hi"},"gateway":{"priority":"high"}}`,
			content.Message{Type: "text", To: "+12025550101", CategoryHint: "service", From: "200000000000001", Gateway: []byte(`{"priority":"high"}`)}},
		{"type left out", `{"messaging_product":"whatsapp","to":"12025550101","text":{"body":"hi"},"preview_url":true}`,
			content.Message{Type: "text", To: "12025550101", CategoryHint: "service"}},
		{"template", `{"to":"+1 (202) 555-0101","type":"template","template":{"name":"otp","language":{"code":"en_US"}},"biz_opaque_callback_data":"mine"}`,
			content.Message{Type: "template", To: "+1 (202) 555-0101", TemplateName: "otp", TemplateLang: "en_US", Opaque: "mine"}},
		{"reply", `{"to":"+12025550101","type":"image","image":{"id":"1"},"context":{"message_id":"wamid.1"},"recipient_type":"individual"}`,
			content.Message{Type: "image", To: "+12025550101", ReplyTo: "wamid.1", RecipientType: "individual", CategoryHint: "service"}},
		{"user id in place of a number", `{"recipient":"US.123","type":"text","text":{"body":"hi"}}`,
			content.Message{Type: "text", Recipient: "US.123", CategoryHint: "service"}},
		{"user id beside a number, which counts", `{"recipient":"anything","to":"+12025550101","type":"text","text":{"body":"hi"}}`,
			content.Message{Type: "text", To: "+12025550101", Recipient: "anything", CategoryHint: "service"}},
		{"group", `{"to":"Y2FwaV9ncm91cDox","recipient_type":"group","type":"pin","pin":{"type":"pin"}}`,
			content.Message{Type: "pin", To: "Y2FwaV9ncm91cDox", RecipientType: "group", CategoryHint: "service"}},
		{"read receipt", `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.7","typing_indicator":{"type":"text"}}`,
			content.Message{IsReadReceipt: true, ReadReceiptOf: "wamid.7", TypingIndicator: true, CategoryHint: "service"}},
		{"escaped names, spaces", "{ \"\\u0074o\" : \"+12025550101\",\n\"type\" : \"text\" , \"text\":{ \"body\":\"{\\\"\", \"a\":[1,{\"}\":\"\\\"]\"}] } }",
			content.Message{Type: "text", To: "+12025550101", CategoryHint: "service"}},
		{"nulls count as absent", `{"to":"+12025550101","type":"text","text":{"body":"hi"},"context":null,"recipient_type":null,"messaging_product":null,` +
			`"biz_opaque_callback_data":null,"recipient":null,"from":null,"product_policy":null}`,
			content.Message{Type: "text", To: "+12025550101", CategoryHint: "service"}},
		{"from as a number", `{"from":106540352242922,"to":"+12025550101","type":"text","text":{"body":"hi"}}`,
			content.Message{Type: "text", To: "+12025550101", From: "106540352242922", CategoryHint: "service"}},
		{"to as a number", `{"to":12025550101,"type":"text","text":{"body":"hi"}}`, content.Message{Type: "text", To: "12025550101", CategoryHint: "service"}},
		{"512 characters", `{"to":"+12025550101","type":"text","text":{"body":"hi"},"biz_opaque_callback_data":"` + x(512) + `"}`,
			content.Message{Type: "text", To: "+12025550101", Opaque: x(512), CategoryHint: "service"}},
		{"the longest that are taken", `{"from":"` + strings.Repeat("1", 64) + `","to":"` + strings.Repeat("g", 256) + `","recipient_type":"group","type":"` + strings.Repeat("t", 64) +
			`","` + strings.Repeat("t", 64) + `":1,"context":{"message_id":"` + strings.Repeat("w", 512) + `"}}`,
			content.Message{From: strings.Repeat("1", 64), To: strings.Repeat("g", 256), RecipientType: "group", Type: strings.Repeat("t", 64),
				ReplyTo: strings.Repeat("w", 512), CategoryHint: "service"}},
		{"the shortest number", `{"to":"12345","text":{"body":"hi"}}`, content.Message{Type: "text", To: "12345", CategoryHint: "service"}},
		{"the longest number", `{"to":"+` + strings.Repeat("1", 20) + `","text":{"body":"hi"}}`,
			content.Message{Type: "text", To: "+" + strings.Repeat("1", 20), CategoryHint: "service"}},
		{"the shortest user id", `{"recipient":"az.Z","text":{"body":"hi"}}`, content.Message{Type: "text", Recipient: "az.Z", CategoryHint: "service"}},
		{"a parent's user id", `{"recipient":"ZA.ENT.0918","text":{"body":"hi"}}`, content.Message{Type: "text", Recipient: "ZA.ENT.0918", CategoryHint: "service"}},
		{"contacts of another type", `{"to":"+12025550101","text":{"body":"hi"},"contacts":"[1]"}`, content.Message{Type: "text", To: "+12025550101", CategoryHint: "service"}},
		{"marketing fields", `{"to":"+12025550101","type":"template","template":{"name":"sale","language":{"code":"en"}},"product_policy":"STRICT","message_activity_sharing":true}`,
			content.Message{Type: "template", To: "+12025550101", TemplateName: "sale", TemplateLang: "en"}},
	} {
		got, faults, err := content.Check([]byte(c.body), content.Options{})
		if err != nil || len(faults) > 0 {
			t.Errorf("%s: %v, %v", c.name, faults, err)
		}
		if !equal(decode(t, got.Body), decode(t, []byte(c.body))) {
			t.Errorf("%s: kept as %s", c.name, got.Body)
		}
		got.Body = nil
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
		if got.IsReply() != (c.want.ReplyTo != "") {
			t.Errorf("%s: IsReply %v", c.name, got.IsReply())
		}
	}
}

func TestEnvelopeFaults(t *testing.T) {
	const ok = `"to":"+12025550101","type":"text","text":{"body":"hi"}`
	const txt = `,"type":"text","text":{"body":"hi"}}`
	for _, c := range []struct{ body, faults string }{
		{`{}`, "/to /type"},
		{`{"to":null` + txt, "/to"},
		{`{"to":["+12025550101"]` + txt, "/to"},
		{`{"to":1234` + txt, "/to"},
		{`{"to":-12025550101` + txt, "/to"},
		{`{"to":1.2025550101e10` + txt, "/to"},
		{`{"batch":[],"Method":"DELETE","access_token":null,"ids":"1","callback":"f","suppress_http_code":1,"appsecret_proof":"x",` + ok + `}`,
			"/batch /Method /access_token /ids /callback /suppress_http_code /appsecret_proof"},
		{`{"to":"+12025550101","type":"batch","batch":{"requests":[]}}`, "/batch"},
		{`{"gateway":{"api":"marketing_messages"},` + ok + `}`, "/type"},
		{`{"to":""` + txt, "/to"},
		{`{"to":" "` + txt, "/to"},
		{`{"to":"+1234"` + txt, "/to"},
		{`{"to":"+` + strings.Repeat("1", 21) + `"` + txt, "/to"},
		{`{"to":"+1202555010x"` + txt, "/to"},
		{`{"to":"1+2025550101"` + txt, "/to"},
		{`{"to":"-12025550101"` + txt, "/to"},
		{`{"to":"US.13491208655302741918"` + txt, "/to"},
		{`{"to":"","recipient_type":"group"` + txt, "/to"},
		{`{"to":"x` + strings.Repeat("1", 256) + `","recipient_type":"group"` + txt, "/to"},
		{`{"to":"a\u0000","recipient_type":"group"` + txt, "/to"},
		{`{"recipient":""` + txt, "/to"},
		{`{"recipient":7` + txt, "/recipient"},
		{`{"recipient":"+12025550101"` + txt, "/recipient"},
		{`{"recipient":"USA.1"` + txt, "/recipient"},
		{`{"recipient":"US."` + txt, "/recipient"},
		{`{"recipient":"US.1-2"` + txt, "/recipient"},
		{`{"to":"+12025550101","recipient":"a\u0000b"` + txt, "/recipient"},
		{`{"recipient_type":"crowd",` + ok + `}`, "/recipient_type"},
		{`{"recipient_type":1,` + ok + `}`, "/recipient_type"},
		{`{"to":"+12025550101","type":7,"text":{}}`, "/type"},
		{`{"to":"+12025550101","type":null,"text":{}}`, "/text/body"},
		{`{"to":"+12025550101","type":"","text":{}}`, "/type"},
		{`{"to":"+12025550101","type":"to"}`, "/type"},
		{`{"to":"+12025550101","type":"` + strings.Repeat("t", 65) + `"}`, "/type"},
		{`{"to":"+12025550101","type":"a\u0000","a\u0000":{}}`, "/type"},
		{`{"to":"+12025550101","type":"\u0000","\u0000":{}}`, "/type"},
		{`{"to":"+12025550101","image":{}}`, "/type"},
		{`{"to":"+12025550101","text":null}`, "/type"},
		{`{"to":"+12025550101","type":"text"}`, "/text"},
		{`{"to":"+12025550101","text":"hi"}`, "/text"},
		{`{"to":"+12025550101","type":"video","image":{}}`, "/video"},
		{`{"to":"+12025550101","type":"hologram/~x"}`, "/hologram~1~0x"},
		{`{"to":"+12025550101","type":"pin","pin":null}`, "/pin"},
		{`{"biz_opaque_callback_data":7,` + ok + `}`, "/biz_opaque_callback_data"},
		{`{"biz_opaque_callback_data":"` + x(513) + `",` + ok + `}`, "/biz_opaque_callback_data"},
		{`{"messaging_product":"messenger",` + ok + `}`, "/messaging_product"},
		{`{"messaging_product":7,` + ok + `}`, "/messaging_product"},
		{`{"context":{},` + ok + `}`, "/context/message_id"},
		{`{"context":{"message_id":""},` + ok + `}`, "/context/message_id"},
		{`{"context":{"message_id":"` + strings.Repeat("w", 513) + `"},` + ok + `}`, "/context/message_id"},
		{`{"context":{"message_id":7},` + ok + `}`, "/context/message_id"},
		{`{"context":"wamid.1",` + ok + `}`, "/context"},
		{`{"from":"+12025550101",` + ok + `}`, "/from"},
		{`{"from":{},` + ok + `}`, "/from"},
		{`{"from":"",` + ok + `}`, "/from"},
		{`{"from":1.5,` + ok + `}`, "/from"},
		{`{"from":"` + strings.Repeat("1", 65) + `",` + ok + `}`, "/from"},
		{`{"recipient_identity_key_hash":7,` + ok + `}`, "/recipient_identity_key_hash"},
		{`{"message_activity_sharing":"yes","product_policy":"LOOSE",` + ok + `}`, "/message_activity_sharing /product_policy"},
		{`{"status":"read"}`, "/message_id"},
		{`{"status":"read","message_id":7,"typing_indicator":"text"}`, "/message_id /typing_indicator"},
		{`{"status":"read","message_id":"wamid.1","typing_indicator":{"type":"audio"}}`, "/typing_indicator/type"},
		{`{"status":"read","message_id":"wamid.1","typing_indicator":{}}`, "/typing_indicator/type"},
		{`{"status":"read","message_id":"wamid.1","to":"+12025550101","recipient":"US.1","type":"text","text":{"body":"hi"}}`, "/to /recipient /type"},
		{`{"status":"delivered","message_id":"wamid.1","to":"+12025550101"}`, "/status"},
		{`{"recipient_type":"group","to":"Y2Fw","type":"interactive","interactive":` + button + `}`, "/type"},
		{`{"recipient_type":"group","to":"Y2Fw","type":"location","location":{"latitude":1,"longitude":2}}`, "/type"},
		{`{"recipient_type":"group","to":"Y2Fw","type":"contacts","contacts":[{"name":{"formatted_name":"n"}}]}`, "/type"},
		{`{"recipient_type":"group","to":"Y2Fw","type":"reaction","reaction":{"message_id":"wamid.1","emoji":""}}`, "/type"},
		{`{"messaging_product":"x","to":7,"recipient_type":"y","context":{},"type":"image","biz_opaque_callback_data":{}}`,
			"/messaging_product /biz_opaque_callback_data /recipient_type /to /context/message_id /image"},
	} {
		m, faults, err := content.Check([]byte(c.body), content.Options{})
		if got := pointers(faults); err != nil || !slices.Equal(got, strings.Fields(c.faults)) || m.Body != nil {
			t.Errorf("%.120s: %v, %v, want faults at %s", c.body, faults, err, c.faults)
		}
	}
}

func TestOptions(t *testing.T) {
	strict, marketing := content.Options{Strict: true}, content.Options{Marketing: true}
	const template = `{"to":"+12025550101","type":"template","template":{"name":"sale","language":{"code":"en"}}}`
	for _, c := range []struct {
		body   string
		o      content.Options
		faults []string
	}{
		{`{"to":"12025550101","type":"text","text":{"body":"hi"}}`, strict, []string{"/to"}},
		{`{"to":"+12025550101","type":"text","text":{"body":"hi"}}`, strict, nil},
		{`{"to":"Y2FwaV9ncm91cA","recipient_type":"group","type":"text","text":{"body":"hi"}}`, strict, nil},
		{`{"recipient":"US.123","type":"text","text":{"body":"hi"}}`, strict, nil},
		{`{"to":12025550101,"type":"text","text":{"body":"hi"}}`, strict, []string{"/to"}},
		{`{"to":"+12025550101","text":{"body":"hi"}}`, marketing, []string{"/type"}},
		{template, marketing, nil},
	} {
		if _, faults, err := content.Check([]byte(c.body), c.o); err != nil || !slices.Equal(pointers(faults), c.faults) {
			t.Errorf("%s: %v, %v, want %q", c.body, faults, err, c.faults)
		}
	}
}

// Contacts in a string are the array that it holds, and their faults are named as in it.
func TestContactsInAString(t *testing.T) {
	m, faults, err := content.Check([]byte(`{"to":"+12025550101","type":"contacts","contacts":" [{\"name\":{\"formatted_name\":\"N\u0069ght \\\"Line\\\"\"}}, {\"name\":{\"formatted_name\":\"D\"}}]","x":1}`), content.Options{})
	const want = `{"to":"+12025550101","type":"contacts","contacts":[{"name":{"formatted_name":"Night \"Line\""}},{"name":{"formatted_name":"D"}}],"x":1}`
	if err != nil || len(faults) > 0 || string(m.Body) != want {
		t.Errorf("%s, %v, %v, want %s", m.Body, faults, err, want)
	}
	for body, faults := range map[string][]string{
		`{"to":"+12025550101","type":"contacts","contacts":"[{\"name\":{}},{\"name\":1}]"}`:                                {"/contacts/0/name/formatted_name", "/contacts/1/name"},
		`{"to":"+12025550101","type":"contacts","contacts":"[{\"name\":{\"formatted_name\":\"\ud800\"}}]"}`:                {"/contacts", "/contacts"},
		`{"to":"+12025550101","type":"contacts","contacts":"[{\"name\":{\"formatted_name\":\"\\ud800\"}}]"}`:               {"/contacts/0/name/formatted_name"},
		`{"to":"+12025550101","type":"contacts","contacts":"` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `"}`: {""},
		`{"to":"+12025550101","type":"CONTACTS","CONTACTS":"x","contacts":"[1]"}`:                                          nil,
	} {
		_, got, err := content.Check([]byte(body), content.Options{})
		if err != nil || !slices.Equal(pointers(got), faults) {
			t.Errorf("%.120s: %v, %v, want %q", body, got, err, faults)
		}
	}
}
