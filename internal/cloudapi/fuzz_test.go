package cloudapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParseNotification holds what is read of a notification against the same JSON as encoding/json writes it: what a
// body says does not depend on how it is spelled. That what is read fits the database is FuzzRead's, in package webhook.
func FuzzParseNotification(f *testing.F) {
	for _, s := range []string{
		`{"object":"x","entry":[{"id":1,"changes":[{"field":"messages","value":{"statuses":[{"id":"w","status":"sent","errors":[{"code":1}]}]}}]}]}`,
		`{ "entry" : [ {"changes":[{"value":{"met\u0061data":{"phone_number_id":2001},"statuses":[{"status":"\u0066ailed","\u0069d":"wamid.\u00e4","timestamp":"1760000001",
		 "biz_opaque_callback_data":"g1:x:1","pricing":{"billable":"false"},"errors":[{"code":"131026","error_data":"{\"details\":\"no\"}"},{"code":1e2,"message":"(#100) m"}]}]},"fi\u0065ld":"messages"}],"time":1760000000123} ], "object":"whatsapp_business_account"}`,
		`{"object":"x","entry":[{"id":"7","changes":[{"field":"messages","value":{"errors":[{"code":130429}],"messages":[{"from":12025550101,"id":"wamid.I","timestamp":999999999999999,"type":"\ud800"}]}}]}]}`,
		`{"object":"x","entry":[0,{},{"changes":[1,{},{"field":"user_preferences","value":{"user_preferences":[{"wa_id":"1","value":"STOP","timestamp":1},{"wa_id":2,"value":"resume"}]}}]}]}`,
		`{"object":"x","entry":[{"changes":[{"field":"phone_number_quality_update","value":{"event":"FLAGGED","display_phone_number":"1","current_limit":"TIER_1K"}},{"field":"business_capability_update","value":{"max_daily_conversation_per_phone":-1}}]}]}`,
		`{"object":"x","entry":[{"changes":[{"field":"account_update","value":{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"DISABLE"}}},{"field":"message_template_status_update","value":{"event":"PAUSED","message_template_name":"t","other_info":{"title":"FIRST_PAUSE"}}}]}]}`,
		`{"object":"x","entry":[{"changes":[{"field":"account_update","value":{"event":"ACCOUNT_RESTRICTION","restriction_info":[{"restriction_type":"RESTRICTED_BIZ_INITIATED_MESSAGING","expiration":"1790000000"},{"b":{"c":[true,1.5]}}],"z":null}},{"field":"security","value":{"event":"PIN_\u0043HANGED","requester":1}}]}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := heard(body)
		if err != nil || !utf8.Valid(body) || repeatsKeys(body) {
			return // the two take bytes that are no text, and keys that come twice, each in its own way
		}
		var doc any
		if err := decode(body, &doc); err != nil {
			t.Fatalf("%q passes for a notification: %v", body, err)
		}
		plain, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) > MaxNotification {
			return
		}
		if want, err := heard(plain); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q says\n%+v\nand as %q, %v,\n%+v", body, got, plain, err, want)
		}
	})
}

// heard is everything that is read of a notification, without the raw parts.
func heard(body []byte) (all []any, err error) {
	n, err := ParseNotification(body)
	if err != nil {
		return nil, err
	}
	all = append(all, n.Object)
	for _, e := range n.Entries {
		all = append(all, e.ID, e.Time)
		for _, c := range e.Changes {
			statuses := Statuses(c)
			for i := range statuses {
				statuses[i].Raw = nil
			}
			inbound := Inbound(c)
			for i := range inbound {
				inbound[i].Raw = nil
			}
			phone, errs := ValueErrors(c)
			quality, _ := PhoneQuality(c)
			capability, _ := Capability(c)
			template, _ := TemplateUpdate(c)
			standing, _ := AccountStanding(c)
			display, decision, _ := PhoneName(c)
			all = append(all, c.Field, statuses, inbound, phone, errs, quality, capability, template, UserPreferences(c), InboundCalls(c), standing, display, decision, Alerts(c))
		}
	}
	return all, nil
}

// repeatsKeys says whether an object anywhere in a JSON text has two members of one name.
func repeatsKeys(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	type level struct {
		keys  map[string]bool // nil in an array
		value bool            // the next token is a member's value
	}
	var open []level
	for {
		token, err := d.Token()
		if err != nil {
			return false // the end
		}
		var top *level
		if len(open) > 0 {
			top = &open[len(open)-1]
		}
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:len(open)-1]
			continue
		}
		if top != nil && top.keys != nil {
			if top.value = !top.value; top.value {
				key, _ := token.(string)
				if top.keys[key] {
					return true
				}
				top.keys[key] = true
				continue
			}
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{keys: map[string]bool{}})
		case json.Delim('['):
			open = append(open, level{})
		}
	}
}

// FuzzBuildOutbound holds the result against encoding/json: of any object it
// must be the same object but for the members that are ours to set.
func FuzzBuildOutbound(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"to":"+1","type":"text","text":{"body":"x"}}`, `{"from":"1","gateway":{"a":[{"b":"}"}]},"text":null}`,
		`{"\u0074o":"x","messaging_product":[],"biz_opaque_callback_data":{}}`, ` { "a" : [ 1 , -2.5e-3 , true , null , "\\\"" ] } `,
		`{"":"","a":"\ud800","a":{}}`, `{"a":"` + "\xff" + `"}`, `{"status":"read","text":{}}`, `{"status":null,"text":{}}`, `{"status":"re\u0061d","status":1,"text":{}}`,
	} {
		f.Add([]byte(s), Token(someID, 1), "")
		f.Add([]byte(s), "", "+12025550101")
	}
	f.Add([]byte(`{"to":"+1","to":2,"text":{}}`), "\xff\x00", "\"")
	f.Fuzz(func(t *testing.T, body []byte, wire, to string) {
		var in map[string]any
		isObjectToo := decode(body, &in) == nil && in != nil
		out, err := BuildOutbound(body, wire, Overrides{To: to})
		if (err == nil) != isObjectToo {
			t.Fatalf("%q: err %v, an object: %v", body, err, isObjectToo)
		}
		if err != nil {
			return
		}
		var got map[string]any
		if err := decode(out, &got); err != nil {
			t.Fatalf("%q gives %q: %v", body, out, err)
		}
		delete(in, "from")
		delete(in, "gateway")
		in["messaging_product"] = "whatsapp"
		if wire != "" {
			in["biz_opaque_callback_data"] = asText(wire)
		}
		isReceipt := in["status"] == "read"
		if _, hasTo := in["to"]; to != "" && (hasTo || !isReceipt) {
			in["to"] = asText(to)
		}
		_, hasType := in["type"]
		_, hasText := in["text"]
		if hasText && !hasType && !isReceipt {
			in["type"] = "text"
		}
		if !reflect.DeepEqual(got, in) {
			t.Fatalf("%q gives %q", body, out)
		}
		id, try, ok := ParseToken(wire)
		if back, tryBack, okBack := ParseToken(textOf(got["biz_opaque_callback_data"])); ok && (!okBack || back != id || tryBack != try) {
			t.Fatalf("token %q comes back as %q, %d, %v", wire, back, tryBack, okBack)
		}
	})
}

// asText is what JSON makes of a string that may be no UTF-8.
func asText(s string) string { return string([]rune(s)) }

func textOf(v any) string { s, _ := v.(string); return s }

// FuzzParseToken looks for texts that pass for a token and are none: a caller's own data must not become a status of
// another message.
func FuzzParseToken(f *testing.F) {
	for _, s := range []string{Token(someID, 1), Token(someID, 1<<31-1), "g1:" + someID + ":0", "g1:" + someID + ":01", "g1:" + strings.ToUpper(someID) + ":1", "order-17"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, try, ok := ParseToken(s)
		switch {
		case ok && (try < 1 || len(id) != 36 || Token(id, try) != s):
			t.Fatalf("%q gives %q and %d", s, id, try)
		case !ok && (id != "" || try != 0):
			t.Fatalf("%q gives %q and %d, and is none", s, id, try)
		}
	})
}
