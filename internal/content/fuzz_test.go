package content_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"wagate/examples/messages"
	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

// FuzzCheck looks for panics, for verdicts that depend on how a message is written, for messages that would not survive
// storing and sending, and for pointers to nowhere.
func FuzzCheck(f *testing.F) {
	all, err := messages.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range all {
		f.Add(e.Body)
	}
	for _, s := range []string{
		textBody, templateBody, listBody,
		`{"to":"+12025550101","type":"contacts","contacts":"[{\"name\":{\"formatted_name\":\"\\ud800\"}}]"}`,
		`{"type":"template","template":{"name":"a\u0000","language":{"code":"en"}},"recipient":"\ud800"}`,
		`{"status":"read","message_id":"wamid.1","typing_indicator":{"type":"x"}}`,
		`{"text":{"body":1},"text":5,"a~/b":{"":1,"":2},"to":1e999,"from":12}`,
		`{"to":"+12025550101","type":"interactive","interactive":{"type":"BUTTON","header":{"type":"image"},"action":{"buttons":[1,{}]}}}`,
		`{"to":"+12025550101","type":"template","template":{"components":[{"type":"carousel","cards":[{},{"components":[{"type":"body"}]}]}]}}`,
		`{"gateway":{"category":"authentication"},"to":"1","type":"x~/y","x":"\u00e9\ud83d\ude00"}`,
		"{\"\xff\":{\"a\":\"\xff\"}}", "{\"type\":\"\x87\"}", `[[[`, `{"a":0.0e-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		m, faults, err := content.Check(body, content.Options{Strict: true})
		if !bytes.Equal(before, body) {
			t.Fatalf("%q was changed", before)
		}
		if err != nil {
			if json.Valid(body) || faults != nil {
				t.Fatalf("%q is JSON, or has faults: %v, %v", body, err, faults)
			}
			return
		}
		for _, f := range faults {
			if !utf8.ValidString(f.Pointer) || f.Detail == "" || !leads(body, f.Pointer) {
				t.Fatalf("%q: no place %q (%s)", body, f.Pointer, f.Detail)
			}
		}
		if len(faults) > 0 {
			return
		}
		for _, s := range []string{m.Type, m.To, m.Recipient, m.RecipientType, m.ReplyTo, m.Opaque, m.TemplateName, m.TemplateLang, m.From, m.ReadReceiptOf} {
			if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				t.Fatalf("%q passes with %q", body, s)
			}
		}
		if _, err := cloudapi.BuildOutbound(m.Body, "g1:x:1", cloudapi.Overrides{}); err != nil {
			t.Fatalf("%q passes and cannot be built: %v", body, err)
		}
		if kept, want := decode(t, m.Body), decode(t, body); !reflect.DeepEqual(kept, want) && !bytes.Contains(body, []byte("ontacts")) {
			t.Fatalf("%q is kept as %q", body, m.Body)
		}
		again, err := json.Marshal(decode(t, m.Body))
		if err != nil {
			t.Fatal(err)
		}
		m2, faults, err := content.Check(again, content.Options{Strict: true})
		if err != nil || len(faults) > 0 {
			t.Fatalf("%q passes, and written as %q it does not: %v, %v", body, again, faults, err)
		}
		m.Body, m2.Body, m.Gateway, m2.Gateway = nil, nil, nil, nil
		if !reflect.DeepEqual(m, m2) {
			t.Fatalf("%q is %+v, and written as %q %+v", body, m, again, m2)
		}
	})
}

// leads says whether a pointer leads to a value, or to a member that an object there may have. Where a name occurs twice,
// either value will do; contacts in a string are looked into.
func leads(body []byte, pointer string) bool {
	if pointer == "" {
		return true
	}
	if !json.Valid(body) {
		return false // a bound ended the reading, which is of the body as a whole
	}
	values := []any{multi(json.NewDecoder(bytes.NewReader(body)))}
	tokens := strings.Split(pointer[1:], "/")
	for i, token := range tokens {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		var next []any
		missing := false
		for _, v := range values {
			switch v := v.(type) {
			case map[string][]any:
				next = append(next, v[token]...)
				missing = true
			case []any:
				if n, err := strconv.Atoi(token); err == nil && n >= 0 && n < len(v) {
					next = append(next, v[n])
				}
			}
		}
		if len(next) == 0 {
			return missing && i == len(tokens)-1
		}
		if i == 0 && token == "contacts" {
			for _, v := range slices.Clone(next) {
				if s, ok := v.(string); ok && json.Valid([]byte(s)) {
					next = append(next, multi(json.NewDecoder(strings.NewReader(s))))
				}
			}
		}
		values = next
	}
	return true
}

// multi decodes a value of a valid text and keeps each value of a name that occurs several times.
func multi(d *json.Decoder) any {
	token, _ := d.Token()
	switch token {
	case json.Delim('{'):
		members := map[string][]any{}
		for d.More() {
			name, _ := d.Token()
			s, _ := name.(string)
			members[s] = append(members[s], multi(d))
		}
		_, _ = d.Token()
		return members
	case json.Delim('['):
		elements := []any{}
		for d.More() {
			elements = append(elements, multi(d))
		}
		_, _ = d.Token()
		return elements
	}
	return token
}
