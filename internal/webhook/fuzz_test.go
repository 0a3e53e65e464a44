package webhook

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"wagate/examples/webhooks"
	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// hostileID is the message that some of hostile's statuses are for.
const hostileID = "019a0000-0000-7000-8000-0123456789ab"

// hostile are notifications whose shape is right and whose values are not.
func hostile() [][]byte {
	opaque := cloudapi.Token(hostileID, 1)
	nul, half, long := `\u0000`, `\ud800`, strings.Repeat("ä", 1100)
	bodies := [][]byte{
		notification(status("wamid.1", "sent", opaque, 1), status("wamid.2", "failed", "a caller's", 2)),
		notification(`{"id":"wamid.3","status":"` + nul + half + `","timestamp":"1","recipient_id":"` + nul + `","biz_opaque_callback_data":"` + opaque + nul + `",
			"pricing":{"billable":"true","category":"` + half + `","type":"` + nul + `","pricing_model":"` + long + `"},
			"errors":[{"code":99999999999},{"code":-2147483648,"title":"` + nul + `"},{"code":"131049","message":"(#131049) ` + long + `","error_data":"{\"details\":\"` + half + `\"}"}]}`),
		notification(`{"id":"wamid.4","status":"read","timestamp":999999999999999}`, `{"id":"wamid.5","status":"sent","timestamp":"253402300799"}`, `{"id":"`+nul+`","status":"sent"}`),
		notification(`0`, `[]`, `{}`, `{"id":7,"status":"sent"}`, `{"id":"w","status":null}`, `{"id":"a","id":"wamid.6","status":"`+long+`","status":"played"}`),
		{'{', '"', 'o', 'b', 'j', 'e', 'c', 't', '"', ':', '"', 0xff, '"', ',', '"', 'e', 'n', 't', 'r', 'y', '"', ':', '[', ']', '}'},
		[]byte(`{"object":"x","entry":[` + strings.Repeat(`0,{},{"changes":[{},{},{},{},{},{},0,{"field":""}]},`, 20) + `{}]}`),
	}
	for _, c := range []struct {
		field  string
		values []string
	}{
		{"messages", []string{
			`{"metadata":{"phone_number_id":"` + nul + `"},"errors":[{"code":4,"message":"` + half + `"},{"code":0}]}`,
			`{"metadata":{"phone_number_id":2001},"messages":[` + strings.Repeat(`0,{},`, 50) + `{"id":"wamid.I1","from":"` + long + `","timestamp":"999999999999999"},
			 {"id":"` + nul + `","from":12025550101,"type":"` + nul + `","group_id":"` + half + `","from_user_id":"` + nul + `"}]}`,
		}},
		{"phone_number_quality_update", []string{`{"display_phone_number":"` + nul + `1","event":"` + half + `","current_limit":"` + nul + `"}`, `{"event":"THROUGHPUT_UPGRADE","display_phone_number":12025550100,"max_daily_conversations_per_business":"TIER_1K"}`}},
		{"business_capability_update", []string{`{"max_daily_conversations_per_business":"` + nul + `"}`, `{"max_daily_conversation_per_phone":-1}`}},
		{"message_template_status_update", []string{`{"event":"PAUSED","message_template_name":"` + nul + `","message_template_language":"` + half + `","other_info":{"title":"` + nul + `"}}`, `{"event":"APPROVED","message_template_name":"t","message_template_language":"en-US"}`}},
		{"user_preferences", []string{`{"user_preferences":[{"wa_id":"` + nul + `1","category":"` + half + `","value":"STOP","timestamp":999999999999999},{"wa_id":1,"value":"resume"}]}`}},
		{"account_update", []string{`{"event":"DISABLED_UPDATE","ban_info":{"waba_ban_state":"REINSTATE"}}`, `{"event":"` + nul + `","ban_info":{"waba_ban_state":"` + half + `"}}`}},
		{`\u0000`, []string{`{}`}},
	} {
		for _, value := range c.values {
			bodies = append(bodies, []byte(`{"object":"whatsapp_business_account","entry":[{"id":"1`+nul+half+`","time":999999999999999,"changes":[{"field":"`+c.field+`","value":`+value+`}]}]}`))
		}
	}
	return bodies
}

// FuzzRead holds what a notification says against what the database can keep: texts of bounded length that are UTF-8
// without NUL, times it has, no more rows than the body has room for, and the same each time it is read.
func FuzzRead(f *testing.F) {
	for _, body := range hostile() {
		f.Add(body)
	}
	examples, err := webhooks.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range examples {
		f.Add(e.Body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := store.WaitingWebhook{ID: uuid.UUID{6: 0x70, 8: 0x80}, Body: body, ReceivedAt: time.Unix(1_790_000_000, 0), Age: time.Second}
		p := read(w)
		if again := read(w); !reflect.DeepEqual(p, again) {
			t.Fatalf("%q says\n%+v\nand then\n%+v", body, p, again)
		}
		for _, v := range []any{p.statuses, p.notices, p.changes, p.problem} {
			eachText(reflect.ValueOf(v), func(s string) {
				if len(s) > 2048 || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
					t.Fatalf("%q says %q", body, s)
				}
			})
		}
		for _, at := range times(p) {
			if !at.IsZero() && (at.Year() < 1970 || at.Year() > 9999) {
				t.Fatalf("%q says %v", body, at)
			}
		}
		ids := map[uuid.UUID]bool{}
		for _, s := range p.statuses {
			if ids[s.EventID] || s.EventID.Version() != 7 || s.At.IsZero() || s.WAMID == "" || s.Status == "" || (s.MessageID == uuid.Nil) != (s.Try == 0) {
				t.Fatalf("%q says %+v", body, s)
			}
			ids[s.EventID] = true
		}
		n := &p.notices
		rows := len(p.statuses) + len(p.changes) + len(n.inbound) + len(n.quality) + len(n.capability) + len(n.templates) + len(n.preferences) + len(n.standings) + len(n.names) + len(n.alerts)
		for _, s := range p.statuses {
			rows += len(s.Errors)
		}
		for _, e := range n.errors {
			rows += len(e.errs)
		}
		if rows > len(body)/10 {
			t.Fatalf("%d bytes say %d things: %q", len(body), rows, body)
		}
		if p.raw.Body != nil && p.problem == "" {
			t.Fatal("the body is kept beside what was read of it")
		}
	})
}

func times(p payload) []time.Time {
	var all []time.Time
	for _, s := range p.statuses {
		all = append(all, s.At)
	}
	n := &p.notices
	for _, m := range n.inbound {
		all = append(all, m.at, m.is.Timestamp)
	}
	for _, c := range n.calls {
		all = append(all, c.Timestamp)
	}
	for _, p := range n.preferences {
		all = append(all, p.at, p.is.At)
	}
	for _, e := range n.errors {
		all = append(all, e.at)
	}
	for _, t := range n.templates {
		all = append(all, t.at)
	}
	return all
}

// eachText goes through every string of a value.
func eachText(v reflect.Value, f func(string)) {
	switch v.Kind() {
	case reflect.String:
		f(v.String())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			eachText(v.Index(i), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			eachText(v.Field(i), f)
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			eachText(key, f)
			eachText(value, f)
		}
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*time.Location]() {
			eachText(v.Elem(), f)
		}
	}
}
