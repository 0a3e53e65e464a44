package intake

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"wagate/examples/messages"
	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/reach"
	"wagate/internal/store"
)

// maxFaults is more than a message can have.
const maxFaults = 100

// FuzzCheck holds the checks of a message against what follows them: what is refused names each fault where it is, what is
// taken fits the database, and can be built for Meta as its caller wrote it.
func FuzzCheck(f *testing.F) {
	examples, err := messages.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range examples {
		f.Add(bytes.Replace(e.Body, []byte("{"), []byte(`{"from":"200000000000001",`), 1), "")
	}
	text := func(gateway string) []byte {
		return []byte(`{"from":200000000000001,"to":"+12025550101","text":{"body":"hi"},"gateway":` + gateway + `}`)
	}
	for _, s := range []string{
		`null`, `[]`, `{}`, `{"priority":"high","category":"authentication","on_unknown":"resend","reference":"order-17","tags":{"campaign":"spring","":"x"},"callback_url":"https://app.example/wa"}`,
		`{"send_at":"2026-03-02T09:00:00+01:00","expires_at":"2026-03-02T10:00:00Z","ordering_key":"chat","ordering":{"after":"delivered","timeout_seconds":60},"idempotency_key":"k"}`,
		`{"api":"marketing_messages","category":"utility"}`, `{"api":"messages"}`, `{"api":"media"}`,
		`{"expires_at":"2020-01-01T00:00:00Z","idempotency_key":"k"}`, `{"send_at":"9999-12-31T23:59:59-23:59","expires_at":"0000-01-01T00:00:00Z"}`,
		`{"send_window":{"from":"08:00","to":"21:00","timezone":"Europe/Rome","days":[1,5,5]}}`, `{"send_window":{"from":"21:00","to":"08:00","days":[7]}}`,
		`{"send_window":{"from":"8:00","to":"24:00","timezone":"posix/Europe/Rome","days":[0,"1",8]}}`, `{"send_window":{"from":"08:00","to":"09:00","timezone":"Europe/./Rome"}}`,
		`{"send_window":{"from":"08:00","to":"09:00","timezone":"posix/Europe/Rome"}}`, `{"send_window":{"from":"00:00","to":"23:59","timezone":"Europe//Rome"}}`,
		`{"":1,"~/":2,"tags":{"\u0000":"a","a":"\u0000","b":"","` + strings.Repeat("n", 90) + `":"x"},"callback_url":"ftp://user@/#","` + strings.Repeat("ä", 90) + `":0}`,
		`{` + strings.TrimSuffix(strings.Repeat(`"a":1,"b":2,`, 3), ",") + `,"priority":"x","category":7,"on_unknown":{},"reference":[],"ordering":{"after":"x","more":1},"ordering_key":""}`,
		unknownFields(maxFaults + 1),
	} {
		f.Add(text(s), "")
	}
	for _, s := range []string{
		`{"from":"1","to":"+12025550101","type":"~/a","~/a":{},"gateway":{}}`, `{"from":"1","to":"+12025550101","type":"~/a"}`, `{"from":"x","to":7,"recipient":[],"recipient_type":"all","context":{},"type":"text","text":[]}`,
		`{"from":"1","recipient_type":"group","to":"Y2Fw","type":"text","text":{"body":"\ud800"},"gateway":{"send_window":{"from":"08:00","to":"09:00"}}}`, `{"from":"1","to":"+1","to":"+12025550101","type":"contacts","contacts":"[]"}`,
		`{"status":"read","message_id":"wamid.1"}`, `{"from":"1","to":"+12025550101","type":"template","template":{"name":"\u0000","language":{"code":5}},"messaging_product":"sms","biz_opaque_callback_data":9}`,
		`{"from":"1","to":"+12025550101","text":{"body":"` + "\xff" + `"}}`, `{"from":"1","to":"+12025550101","type":"` + "\xff" + `"}`, ``, ` `, `{`, `[]`, `"x"`, `{"from":"1"}x`,
	} {
		f.Add([]byte(s), "key-1")
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte, key string) {
		r := Request{Caller: Caller{Owner: "shop"}, Body: body, IdempotencyKey: key}
		m, refused := check(r, now, reach.New(nil, false))
		again, refusedAgain := check(r, now, reach.New(nil, false))
		if !reflect.DeepEqual(m, again) || !reflect.DeepEqual(refused, refusedAgain) {
			t.Fatalf("%q is\n%+v, %v\nand then\n%+v, %v", body, m, refused, again, refusedAgain)
		}
		if refused != nil {
			wantFaults(t, body, refused)
			if !refused.late {
				return
			}
		}
		wantStorable(t, now, &m, refused == nil)
		wantOutbound(t, body, m.Body)
		var indented bytes.Buffer
		if err := json.Indent(&indented, body, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		r.Body = indented.Bytes()
		if spaced, _ := check(r, now, reach.New(nil, false)); !reflect.DeepEqual(m, spaced) {
			t.Fatalf("%q is\n%+v\nand with more space\n%+v", body, m, spaced)
		}
	})
}

func unknownFields(n int) string {
	fields := make(map[string]int, n)
	for i := range n {
		fields["x"+strconv.Itoa(i)] = i
	}
	raw, _ := json.Marshal(fields) // numbers always marshal
	return string(raw)
}

// wantFaults checks that a refusal says what is wrong, and where in the request.
func wantFaults(t *testing.T, body []byte, refused *Error) {
	t.Helper()
	if len(refused.Faults) == 0 || len(refused.Faults) > maxFaults || (refused.Kind == Malformed) == json.Valid(body) || (refused.Kind != Malformed && refused.Kind != Invalid) {
		t.Fatalf("%q is refused with kind %d and %d faults", body, refused.Kind, len(refused.Faults))
	}
	doc, _ := decode(body) // what is no JSON has faults as a whole only
	for _, fault := range refused.Faults {
		if fault.Detail == "" || !utf8.ValidString(fault.Detail+fault.Pointer) || len(fault.Detail+fault.Pointer) > 1000 || !pointsInto(doc, fault.Pointer) {
			t.Fatalf("%q has the fault %+v", body, fault)
		}
	}
}

// pointsInto says whether a JSON Pointer leads to a value of a document, or to a member that an object lacks.
func pointsInto(doc any, pointer string) bool {
	if pointer == "" {
		return true
	}
	steps := strings.Split(pointer, "/")
	if steps[0] != "" {
		return false
	}
	for i, step := range steps[1:] {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(step), "~") {
			return false
		}
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch at := doc.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok && i < len(steps)-2 {
				return false
			}
			doc = next
		case []any:
			n, err := strconv.Atoi(name)
			if err != nil || n < 0 || n >= len(at) || strconv.Itoa(n) != name {
				return false
			}
			doc = at[n]
		default:
			return false
		}
	}
	return true
}

// wantStorable checks that a message fits its row.
func wantStorable(t *testing.T, now time.Time, m *store.NewMessage, inTime bool) {
	t.Helper()
	for _, s := range []string{
		m.PhoneNumberID, m.IdempotencyKey, m.Recipient, m.Type, m.Category, m.OnUnknown, m.TemplateName, m.TemplateLanguage, m.Reference, m.Tags, m.OrderingKey,
		m.OrderingAfter, m.CallbackURL, m.Opaque, m.SendWindow,
	} {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 || len(s) > 32<<10 {
			t.Fatalf("%q cannot be stored", s)
		}
	}
	if m.PhoneNumberID == "" || m.Recipient == "" || m.Type == "" || !message.Priority(m.Priority).Valid() {
		t.Fatalf("%+v", m)
	}
	if _, err := message.ParseOnUnknown(m.OnUnknown); err != nil {
		t.Fatal(err)
	}
	if _, err := message.ParseCategory(m.Category); m.Category != "" && err != nil {
		t.Fatal(err)
	}
	var tags map[string]string
	if err := json.Unmarshal([]byte(m.Tags), &tags); m.Tags != "" && (err != nil || len(tags) == 0 || len(tags) > maxTags || strings.Contains(m.Tags, `\u0000`)) {
		t.Fatalf("tags %s: %v", m.Tags, err)
	}
	if w, err := message.ParseWindow([]byte(m.SendWindow)); m.SendWindow != "" && (err != nil || strings.Contains(w.Timezone, ".") || strings.Contains(w.Timezone, "//") || strings.HasPrefix(w.Timezone, "posix/")) {
		t.Fatalf("window %s: %v", m.SendWindow, err)
	}
	at := opening(now, m.SendAt, m.SendWindow)
	if m.SendAt.After(now.Add(MaxSendAhead)) || m.ExpiresAt.After(now.Add(MaxExpiresAhead)) || at.Before(now) || (!m.ExpiresAt.IsZero() && m.ExpiresAt.After(at) != inTime) {
		t.Fatalf("goes out from %v on: %+v", at, m)
	}
	if (m.IdempotencyKey == "") != (m.RequestHash == nil) || (m.OrderingAfter == "delivered") != (m.OrderingSeconds > 0) {
		t.Fatalf("%+v", m)
	}
}

// wantOutbound checks that a stored body is the request, and what goes to Meta is the request without the gateway's part.
func wantOutbound(t *testing.T, body, stored []byte) {
	t.Helper()
	want, err := decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decode(stored); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is stored as %q", body, stored)
	}
	token := cloudapi.Token("019a0000-0000-7000-8000-0123456789ab", 2)
	out, err := cloudapi.BuildOutbound(stored, token, cloudapi.Overrides{})
	if err != nil {
		t.Fatalf("%q is taken and cannot be built: %v", body, err)
	}
	members, ok := want.(map[string]any)
	if !ok {
		t.Fatalf("%q is taken and is no object", body)
	}
	delete(members, "from")
	delete(members, "gateway")
	if members["type"] == nil {
		members["type"] = "text"
	}
	members["messaging_product"], members["biz_opaque_callback_data"] = "whatsapp", token
	if got, err := decode(out); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q goes out as %q", body, out)
	}
}

func decode(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}
