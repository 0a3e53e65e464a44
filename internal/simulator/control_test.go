package simulator

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestControlOnDemand drives by HTTP what the methods of the same names do.
func TestControlOnDemand(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		call := func(status int, method, path, body string) string {
			t.Helper()
			rep := do(r.t.Context(), r.t, r.s, method, path, body, nil)
			if rep.status != status {
				t.Fatalf("%s %s: %d %s", method, path, rep.status, rep.raw)
			}
			return rep.raw
		}
		call(204, http.MethodPut, "/_sim/phones/1", `{"waba_id":"10","app_id":"20","per_second":80}`)
		call(204, http.MethodPut, "/_sim/limits", `{"scope":"phone","id":"1","per_second":40}`)
		call(204, http.MethodPut, "/_sim/phones/1", `{"throughput":"HIGH"}`)
		if p := r.s.Ledger().Phones[0]; p.WABAID != "10" || p.AppID != "20" || p.Limit != 40 {
			t.Errorf("changing the throughput changed %+v", p)
		}
		if got := call(200, http.MethodGet, "/v23.0/1?fields=throughput", ""); got != `{"id":"1","throughput":{"level":"HIGH"}}` {
			t.Errorf("throughput %s", got)
		}
		call(204, http.MethodPut, "/_sim/phones/1", `{"per_second":80}`)
		if p := r.s.Ledger().Phones[0]; p.Limit != 80 {
			t.Errorf("limit %d", p.Limit)
		}
		call(204, http.MethodPut, "/_sim/limits", `{"scope":"pair","burst":2,"window_ms":60000}`)
		call(204, http.MethodPut, "/_sim/limits", `{"scope":"management","id":"10","per_second":1,"window_ms":3600000}`)
		call(200, http.MethodGet, "/v23.0/10/phone_numbers", "")
		call(400, http.MethodGet, "/v23.0/10/phone_numbers", "")
		for _, code := range []int{0, 0, 131056} {
			if got := r.postTo("1", "+16505551234").code(); got != code {
				t.Errorf("code %d, want %d", got, code)
			}
		}
		if got := call(200, http.MethodPut, "/_sim/errors", `{"phone":"1","code":131042,"times":0,"by":"answer","regain_minutes":3}`); got != `{"id":1}` {
			t.Errorf("rule %s", got)
		}
		call(204, http.MethodPut, "/_sim/usage", `{"app":{"call_count":80},"waba":{"10":90}}`)
		if rep := r.postTo("1", "+16505551234"); rep.code() != 131042 || !strings.Contains(rep.header.Get(useHeader), `"call_count":90,"total_cputime":0,"total_time":0,"estimated_time_to_regain_access":3`) ||
			!strings.Contains(rep.header.Get("X-App-Usage"), `"call_count":80`) {
			t.Errorf("answer %s, headers %v", rep.raw, rep.header)
		}
		if got := call(200, http.MethodGet, "/_sim/errors", ""); got != `{"errors":[{"id":1,"phone":"1","code":131042,"by":"answer","regain_minutes":3,"hits":1}]}` {
			t.Errorf("rules %s", got)
		}
		call(204, http.MethodDelete, "/_sim/errors", "")
		if len(r.s.Errors()) != 0 {
			t.Error("rules left")
		}
		if got := call(200, http.MethodGet, "/_sim/rates?bucket_ms=1000", ""); got != `{"bucket_ms":1000,"from_ms":0,"now_ms":0,"phones":{"1":[2]}}` {
			t.Errorf("rates %s", got)
		}
		var page struct {
			Refusals []Refusal
			Next     int64
			NowMS    *int64 `json:"now_ms"`
		}
		for _, tt := range []struct {
			query string
			n     int
			next  int64
		}{{"", 3, 3}, {"?after=1", 2, 3}, {"?scope=pair", 1, 3}, {"?limit=1", 1, 1}, {"?after=3", 0, 3}} {
			if err := json.Unmarshal([]byte(call(200, http.MethodGet, "/_sim/refusals"+tt.query, "")), &page); err != nil {
				t.Fatal(err)
			}
			if len(page.Refusals) != tt.n || page.Next != tt.next || page.NowMS == nil {
				t.Errorf("%s: %+v", tt.query, page)
			}
		}
		call(204, http.MethodPost, "/_sim/webhooks/inbound", `{"phone":"1","from":"+16505551234"}`)
		call(204, http.MethodPost, "/_sim/webhooks/inbound", `{"phone":"1","from":"+16505551234","text":"hi","count":2,"per_second":10}`)
		call(204, http.MethodPost, "/_sim/webhooks/field", `{"field":"business_capability_update","waba":"10","value":{"max_daily_conversations_per_business":"TIER_2K"}}`)
		r.quiet()
		if got := r.s.Ledger().Totals; got.InboundPosted != 3 || got.NoticesPosted != 1 {
			t.Errorf("totals %+v", got)
		}
	})
}

func TestControlSaysWhatIsWrong(t *testing.T) {
	s := New(Config{})
	for _, tt := range []struct{ method, path, body, names string }{
		{http.MethodPut, "/_sim/limits", `{"scope":"planet","per_second":1}`, "planet"},
		{http.MethodPut, "/_sim/limits", `{"scope":"waba","per_second":1,"window_ms":3600001}`, "hour"},
		{http.MethodPut, "/_sim/limits", `{"scope":"waba","per_second":1,"window_ms":-9223372036854775808}`, "negative"},
		{http.MethodPut, "/_sim/limits", `{"scope":"waba","per_second":100000000}`, "10000000"},
		{http.MethodPut, "/_sim/limits", `{"scope":"waba","burst":45}`, "burst"},
		{http.MethodPut, "/_sim/limits", `{"scope":"pair","burst":45,"per_second":1}`, "either"},
		{http.MethodPut, "/_sim/phones/1", `{"throughput":"FAST"}`, "throughput"},
		{http.MethodPut, "/_sim/phones/1", `{"per_second":100000000}`, "per_second"},
		{http.MethodPut, "/_sim/errors", `{}`, "code"},
		{http.MethodPut, "/_sim/errors", `{"code":-1}`, "code"},
		{http.MethodPut, "/_sim/errors", `{"code":"x"}`, "code"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"colour":1}`, "colour"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"phone":"me"}`, "phone"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"to":"me"}`, "to is"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"template":"` + strings.Repeat("x", maxName+1) + `"}`, "template"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"http_status":200}`, "http_status"},
		{http.MethodPut, "/_sim/errors", `{"no_body":true}`, "http_status"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"times":-1}`, "times"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"by":"pigeon"}`, "by"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"by":"webhook","retry_after_s":1}`, "retry_after_s"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"sent_first":true}`, "sent_first"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"retry_after_s":-1}`, "retry_after_s"},
		{http.MethodPut, "/_sim/errors", `{"code":1,"regain_minutes":-1}`, "regain_minutes"},
		{http.MethodPut, "/_sim/usage", `{"app":{"call_count":-1}}`, "app"},
		{http.MethodPut, "/_sim/usage", `{"waba":{"1":5000}}`, "waba"},
		{http.MethodPut, "/_sim/usage", `{"other":1}`, "other"},
		{http.MethodPost, "/_sim/webhooks/inbound", `{"from":"16505551234"}`, "phone"},
		{http.MethodPost, "/_sim/webhooks/inbound", `{"phone":"1","from":"16505551234","count":-1}`, "count"},
		{http.MethodPost, "/_sim/webhooks/field", `{"field":"account_update","waba":"1"}`, "value"},
		{http.MethodPost, "/_sim/webhooks/field", `{"field":"account_update","waba":"1","value":null}`, "value"},
		{http.MethodPost, "/_sim/webhooks/field", `{"field":"","waba":"1","value":{}}`, "field"},
		{http.MethodGet, "/_sim/refusals?after=x", "", "after"},
		{http.MethodGet, "/_sim/refusals?scope=planet", "", "scope"},
		{http.MethodGet, "/_sim/rates?bucket_ms=0", "", "bucket"},
		{http.MethodGet, "/_sim/rates?from_ms=-1", "", "from_ms"},
	} {
		rep := do(t.Context(), t, s, tt.method, tt.path, tt.body, nil)
		var said struct{ Error string }
		if err := json.Unmarshal([]byte(rep.raw), &said); err != nil || rep.status != 400 || !strings.Contains(said.Error, tt.names) {
			t.Errorf("%s %.80s: %d %.200s, want %q in it", tt.path, tt.body, rep.status, rep.raw, tt.names)
		}
	}
	if led := s.Ledger(); len(led.Phones) != 0 || len(s.Errors()) != 0 {
		t.Errorf("something was taken: %+v", led)
	}
}
