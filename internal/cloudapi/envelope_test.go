package cloudapi

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestInspectReadsTheEnvelope(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       Envelope
	}{
		{"text", `{"from":"200000000000001","to":"+12025550101","type":"text","text":{"body":"hi"},"gateway":{"priority":"high"}}`,
			Envelope{Type: "text", To: "+12025550101", CategoryHint: "service", From: "200000000000001", Gateway: []byte(`{"priority":"high"}`)}},
		{"type left out", `{"messaging_product":"whatsapp","to":"12025550101","text":{"body":"hi"}}`,
			Envelope{Type: "text", To: "12025550101", CategoryHint: "service"}},
		{"template", `{"to":"+1 (202) 555-0101","type":"template","template":{"name":"otp","language":{"code":"en_US"}},"biz_opaque_callback_data":"mine"}`,
			Envelope{Type: "template", To: "+1 (202) 555-0101", TemplateName: "otp", TemplateLang: "en_US", Opaque: "mine"}},
		{"reply", `{"to":"+12025550101","type":"image","image":{"id":"1"},"context":{"message_id":"wamid.1"},"recipient_type":"individual"}`,
			Envelope{Type: "image", To: "+12025550101", ReplyTo: "wamid.1", RecipientType: "individual", CategoryHint: "service"}},
		{"user id in place of a number", `{"recipient":"US.123","type":"text","text":{}}`,
			Envelope{Type: "text", Recipient: "US.123", CategoryHint: "service"}},
		{"group", `{"to":"Y2FwaV9ncm91cDox","recipient_type":"group","type":"pin","pin":{"type":"pin"}}`,
			Envelope{Type: "pin", To: "Y2FwaV9ncm91cDox", RecipientType: "group", CategoryHint: "service"}},
		{"contacts in a string", `{"to":"+12025550101","type":"contacts","contacts":"[{\"name\":{}}]"}`,
			Envelope{Type: "contacts", To: "+12025550101", CategoryHint: "service"}},
		{"read receipt", `{"messaging_product":"whatsapp","status":"read","message_id":"wamid.7","typing_indicator":{"type":"text"}}`,
			Envelope{IsReadReceipt: true, ReadReceiptOf: "wamid.7", TypingIndicator: true, CategoryHint: "service"}},
		{"escaped keys, spaces, last wins", "{ \"\\u0074o\" : \"+12025550101\",\n\"type\":\"image\", \"type\" : \"text\" , \"text\":{ \"a\":[1,{\"}\":\"\\\"]\"}] } }",
			Envelope{Type: "text", To: "+12025550101", CategoryHint: "service"}},
		{"nulls count as absent", `{"to":"+12025550101","type":"text","text":{},"context":null,"recipient_type":null,"messaging_product":null,"biz_opaque_callback_data":null,"recipient":null,"from":null}`,
			Envelope{Type: "text", To: "+12025550101", CategoryHint: "service"}},
		{"from as a number", `{"from":106540352242922,"to":"+12025550101","type":"text","text":{}}`,
			Envelope{Type: "text", To: "+12025550101", From: "106540352242922", CategoryHint: "service"}},
		{"512 characters", `{"to":"+12025550101","type":"text","text":{},"biz_opaque_callback_data":"` + strings.Repeat("ü", 512) + `"}`,
			Envelope{Type: "text", To: "+12025550101", Opaque: strings.Repeat("ü", 512), CategoryHint: "service"}},
	} {
		got, faults := Inspect([]byte(c.body))
		if len(faults) > 0 {
			t.Errorf("%s: %v", c.name, faults)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
		if got.IsReply() != (c.want.ReplyTo != "") {
			t.Errorf("%s: IsReply %v", c.name, got.IsReply())
		}
	}
}

func TestInspectFindsFaults(t *testing.T) {
	const ok = `"to":"+12025550101","type":"text","text":{"body":"hi"}`
	for _, c := range []struct {
		body     string
		pointers []string
	}{
		{``, []string{""}},
		{`{"to":`, []string{""}},
		{`"text"`, []string{""}},
		{`[{}]`, []string{""}},
		{`null`, []string{""}},
		{"{" + ok + `,"x":"` + "\xff" + `"}`, []string{""}},
		{`{}`, []string{"/to", "/type"}},
		{`{"to":null,"type":"text","text":{}}`, []string{"/to"}},
		{`{"to":["+12025550101"],"type":"text","text":{}}`, []string{"/to"}},
		{`{"to":12025550101,"type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":" ","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"+1","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"+` + strings.Repeat("1", 21) + `","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"+1202555010x","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"1+2025550101","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"","recipient_type":"group","type":"text","text":{}}`, []string{"/to"}},
		{`{"to":"x` + strings.Repeat("1", maxTo) + `","recipient_type":"group","type":"text","text":{}}`, []string{"/to"}},
		{`{"recipient":"","type":"text","text":{}}`, []string{"/to"}},
		{`{"recipient":7,"type":"text","text":{}}`, []string{"/recipient"}},
		{`{"to":"+12025550101","recipient":"a\u0000b","type":"text","text":{}}`, []string{"/recipient"}},
		{`{"recipient_type":"crowd",` + ok + `}`, []string{"/recipient_type"}},
		{`{"recipient_type":1,` + ok + `}`, []string{"/recipient_type"}},
		{`{"to":"+12025550101","type":7,"text":{}}`, []string{"/type"}},
		{`{"to":"+12025550101","type":null,"text":{}}`, []string{"/type"}},
		{`{"to":"+12025550101","type":"","text":{}}`, []string{"/type"}},
		{`{"to":"+12025550101","type":"to"}`, []string{"/type"}},
		{`{"to":"+12025550101","type":"` + strings.Repeat("t", 65) + `"}`, []string{"/type"}},
		{`{"to":"+12025550101","image":{}}`, []string{"/type"}},
		{`{"to":"+12025550101","type":"text"}`, []string{"/text"}},
		{`{"to":"+12025550101","text":"hi"}`, []string{"/text"}},
		{`{"to":"+12025550101","type":"video","image":{}}`, []string{"/video"}},
		{`{"to":"+12025550101","type":"image","image":"x"}`, []string{"/image"}},
		{`{"to":"+12025550101","type":"image","image":null}`, []string{"/image"}},
		{`{"to":"+12025550101","type":"template","template":[]}`, []string{"/template"}},
		{`{"to":"+12025550101","type":"contacts","contacts":{}}`, []string{"/contacts"}},
		{`{"to":"+12025550101","type":"contacts","contacts":"[{]"}`, []string{"/contacts"}},
		{`{"to":"+12025550101","type":"contacts","contacts":"none"}`, []string{"/contacts"}},
		{`{"to":"+12025550101","type":"hologram/~x"}`, []string{"/hologram~1~0x"}},
		{`{"to":"+12025550101","type":"template","template":{"name":7,"language":{"code":[]}}}`, []string{"/template/name", "/template/language/code"}},
		{`{"biz_opaque_callback_data":7,` + ok + `}`, []string{"/biz_opaque_callback_data"}},
		{`{"biz_opaque_callback_data":"` + strings.Repeat("a", 513) + `",` + ok + `}`, []string{"/biz_opaque_callback_data"}},
		{`{"messaging_product":"messenger",` + ok + `}`, []string{"/messaging_product"}},
		{`{"messaging_product":7,` + ok + `}`, []string{"/messaging_product"}},
		{`{"context":{},` + ok + `}`, []string{"/context/message_id"}},
		{`{"context":{"message_id":""},` + ok + `}`, []string{"/context/message_id"}},
		{`{"context":{"message_id":7},` + ok + `}`, []string{"/context/message_id"}},
		{`{"context":"wamid.1",` + ok + `}`, []string{"/context"}},
		{`{"from":"+12025550101",` + ok + `}`, []string{"/from"}},
		{`{"from":{},` + ok + `}`, []string{"/from"}},
		{`{"from":1.5,` + ok + `}`, []string{"/from"}},
		{`{"status":"read"}`, []string{"/message_id"}},
		{`{"status":"read","message_id":7}`, []string{"/message_id"}},
		{`{"messaging_product":"x","to":7,"recipient_type":"y","context":{},"type":"image","biz_opaque_callback_data":{}}`,
			[]string{"/messaging_product", "/biz_opaque_callback_data", "/recipient_type", "/to", "/context/message_id", "/image"}},
	} {
		_, faults := Inspect([]byte(c.body))
		var pointers []string
		for _, f := range faults {
			pointers = append(pointers, f.Pointer)
			if f.Detail == "" {
				t.Errorf("%.80s: a fault without detail", c.body)
			}
		}
		if !slices.Equal(pointers, c.pointers) {
			t.Errorf("%.120s: faults at %q, want %q", c.body, pointers, c.pointers)
		}
	}
}

func TestInspectRequirePlus(t *testing.T) {
	for body, faults := range map[string]int{
		`{"to":"12025550101","type":"text","text":{}}`:                             1,
		`{"to":"+12025550101","type":"text","text":{}}`:                            0,
		`{"to":"Y2FwaV9ncm91cA","recipient_type":"group","type":"text","text":{}}`: 0,
		`{"recipient":"US.123","type":"text","text":{}}`:                           0,
	} {
		if _, got := Inspect([]byte(body), RequirePlus); len(got) != faults {
			t.Errorf("%s: %v, want %d faults", body, got, faults)
		}
	}
}

// cases gives the collection of real payloads, where it lies beside the
// repository; nil, said in the log, where it does not.
func cases(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "cases", folder)
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Log("the payload collection is not beside the repository: this part was not run")
	}
	found := map[string][]byte{}
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(name)] = body
	}
	return found
}

func TestInspectTakesRealMessages(t *testing.T) {
	for name, body := range cases(t, "messages/valid") {
		e, faults := Inspect(body)
		if len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
		kind, _, _ := strings.Cut(strings.TrimSuffix(name, ".json"), ".")
		kind, _, _ = strings.Cut(kind, "__")
		if kind != "read" && e.Type != kind {
			t.Errorf("%s: type %q", name, e.Type)
		}
	}
}

// Of the refused cases the envelope's own must be found; what is inside a type
// is not Inspect's business.
func TestInspectRefusesBrokenEnvelopes(t *testing.T) {
	bodies := cases(t, "messages/invalid")
	index, err := os.Open(filepath.Join("..", "..", "..", "shared", "cases", "messages", "invalid", "index.csv"))
	if errors.Is(err, fs.ErrNotExist) {
		return // cases has said so
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = index.Close() }()
	lines, err := csv.NewReader(index).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, f := range lines[1:] {
		if !strings.HasPrefix(f[0], "env_") && !strings.HasPrefix(f[0], "ctx_") && !strings.HasPrefix(f[0], "cb_") && f[0] != "image_string.json" {
			continue
		}
		want := "/" + strings.ReplaceAll(f[2], ".", "/")
		if f[2] == "$" {
			want = ""
		}
		_, faults := Inspect(bodies[f[0]])
		if len(faults) != 1 || faults[0].Pointer != want {
			t.Errorf("%s: %v, want one fault at %q", f[0], faults, want)
		}
		checked++
	}
	if checked < 8 {
		t.Errorf("only %d cases were checked", checked)
	}
}
