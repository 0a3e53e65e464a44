package sender

import (
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"wagate/internal/cloudapi"
)

// FuzzClassify holds what becomes of a try against what its answer proves, for any status, headers and bytes: taken only
// with an id that stands there, refused or worth another try only by the code table or a status that says so, and one kind.
func FuzzClassify(f *testing.F) {
	const ok = `{"messaging_product":"whatsapp","contacts":[{"input":"+12025550101","wa_id":"12025550101"}],"messages":[{"id":"wamid.1","message_status":"accepted"}]}`
	usage := `{"7001":[{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":4}]}`
	for _, s := range []struct {
		status             int
		retry, usage, body string
	}{
		{200, "", usage, ok}, {200, "", "", ok[:40]}, {200, "", "", `{"messages":[{"id":"a\u0000"}]}`}, {200, "", "", `{"messages":[{"id":"a"}],"m\u0065ssages":[]}`},
		{200, "", "", `{"messages":[{"id":"a"}],"error":{"code":100}}`}, {299, "", "", `{"messages":[],"error":{"code":"131026"}}`}, {500, "", "", ok}, {204, "", "", ""},
		{400, "30", usage, graphBody(80007)}, {429, "Fri, 31 Dec 9999 23:59:59 GMT", "", graphBody(100)}, {503, "1e300", "", graphBody(133004)}, {500, "", "", graphBody(131045)},
		{500, "", "", `{"error":{"code":987654,"is_transient":true}}`}, {500, "-1", `{"7001":[{"type":"whatsapp","call_count":"NaN","estimated_time_to_regain_access":"Inf"}]}`, `{"error":{"code":4e0,"error_subcode":"2390008"}}`},
		{502, "", "", "<html>"}, {404, "", "", `{"error":"no"}`}, {400, "", "", `{"error":{"code":100,"message":"` + strings.Repeat(`\u0000`, 700) + `"}}`}, {302, "", "", ""}, {408, "7", "", ""}, {100, "", "", ""}, {0, "", "", graphBody(0)}, {-1, "", "", "\xff"},
		{400, "", "", `{"error":{"code":1,"code":null}}`}, {488, "", "", `{"error":{"code":4e0,"error_subcode":"2390239008"}}`}, {400, "", "", `{"error":{"code":190,"message":"` + "\xff" + `","error_data":"{\"details\":\"\\ud800\"}","fbtrace_id":"\u0000"}}`},
	} {
		f.Add(s.status, s.retry, s.usage, []byte(s.body))
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, retry, usage string, body []byte) {
		h := http.Header{"Retry-After": {retry}, "X-Business-Use-Case-Usage": {usage}, "X-App-Usage": {usage}}
		out := classify(status, h, body, "7001", now)
		if again := classify(status, h, body, "7001", now); !reflect.DeepEqual(out, again) {
			t.Fatalf("%+v and then %+v", out, again)
		}
		if out.HTTPStatus != status || out.Wait < 0 || out.Wait > 7*24*time.Hour || !(out.AppUsage >= 0 && out.AppUsage <= 1000) || !(out.WABAUsage >= 0 && out.WABAUsage <= 1000) {
			t.Fatalf("%+v", out)
		}
		texts := []string{out.WAMID, out.WAID, out.UserID, out.MessageStatus}
		if out.Err != nil {
			e := out.Err
			texts = append(texts, e.Type, e.Title, e.Message, e.Details, e.UserTitle, e.UserMsg, e.FBTraceID, e.Href)
		}
		for _, s := range texts {
			if len(s) > 2048 || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				t.Fatalf("%q gives %q", body, s)
			}
		}
		id, code, subcode, hasCode := said(body)
		isTaken := status >= 200 && status <= 299 && id != "" && len(id) <= 512 && strings.IndexByte(id, 0) < 0 && utf8.Valid(body)
		if isTaken && out.Kind != Accepted {
			t.Fatalf("%d %q is %s", status, body, out.Kind)
		}
		if out.Kind == Accepted {
			if status < 200 || status > 299 || out.WAMID == "" || out.WAMID != id || out.Err != nil || out.Scope != "" || out.Wait != 0 {
				t.Fatalf("%d %q is accepted: %+v", status, body, out)
			}
			return
		}
		if out.WAMID+out.WAID+out.UserID+out.MessageStatus != "" {
			t.Fatalf("%d %q is %s and has an id: %+v", status, body, out.Kind, out)
		}
		if want := proved(status, code, subcode, hasCode); out.Kind != want {
			t.Fatalf("%d %q is %s, and proves %s", status, body, out.Kind, want)
		}
		if (hasCode && status >= 100) != (out.Err != nil) || (out.Err != nil && (out.Err.Code != code || out.Err.Subcode != subcode)) {
			t.Fatalf("%d %q: %+v, and has %d/%d", status, body, out.Err, code, subcode)
		}
		if out.Err != nil && !fitsPolicy(out, code, subcode) {
			t.Fatalf("%d %q is %s, and the policy makes something else of it", status, body, out.Kind)
		}
	})
}

// said reads the id and the error code of an answer by encoding/json.
func said(body []byte) (id string, code, subcode int, hasCode bool) {
	member := func(b json.RawMessage, name string) json.RawMessage {
		var m map[string]json.RawMessage
		_ = json.Unmarshal(b, &m) // what is no object has no members
		return m[name]
	}
	var messages []json.RawMessage
	if json.Unmarshal(member(body, "messages"), &messages) == nil && len(messages) > 0 {
		_ = json.Unmarshal(member(messages[0], "id"), &id) // what is no string is no id
	}
	e := member(body, "error")
	code, hasCode = whole(member(e, "code"))
	subcode, _ = whole(member(e, "error_subcode"))
	return id, code, subcode, hasCode
}

// whole reads a whole number that may be quoted.
func whole(b json.RawMessage) (int, bool) {
	s := string(b)
	if strings.HasPrefix(s, `"`) {
		_ = json.Unmarshal(b, &s) // valid, as all of the body
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// proved is what an answer that carries no id says of its message.
func proved(status, code, subcode int, hasCode bool) Kind {
	is4xx := status >= 400 && status < 500
	if !hasCode || status < 100 {
		switch {
		case status == 429:
			return Throttled
		case status == 408, status == 425:
			return Transient
		case is4xx, status >= 300 && status < 400:
			return Refused
		}
		return Unknown
	}
	rule, known := cloudapi.Lookup(code, subcode)
	end := map[cloudapi.End]Kind{cloudapi.EndThrottled: Throttled, cloudapi.EndTransient: Transient, cloudapi.EndRefused: Refused, cloudapi.EndUnknown: Unknown}[rule.End]
	stops := rule.UntilLifted || rule.Action == cloudapi.ActionFailConfig || rule.Action == cloudapi.ActionPausePhone || rule.Action == cloudapi.ActionPauseWABA
	switch {
	case status == 429 && end != Transient && !(known && stops):
		return Throttled
	case known:
		return end
	case is4xx:
		return Refused
	}
	return Unknown
}
