package simulator

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestManagementCallsThatCount: Meta's list of calls, and no others, use the limit of
// their WABA.
func TestManagementCallsThatCount(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	id, _ := okay(t, s, post, "/v23.0/10/message_templates", templateBody("one", "en", "UTILITY", "Hello there"))["id"].(string)
	must(t, s.SetLimits("management", "10", Limit{Max: 1, Window: time.Hour}))
	for _, tt := range []struct {
		method, path string
		counted      bool
	}{
		{read, "/10", true}, {read, "/10/phone_numbers", true}, {post, "/10/phone_numbers", true},
		{read, "/10/message_templates", true}, {post, "/10/message_templates", true}, {del, "/10/message_templates?name=one", true},
		{read, "/10/subscribed_apps", true}, {post, "/10/subscribed_apps", true}, {del, "/10/subscribed_apps", true},
		{read, "/1", false}, {read, "/" + id, false}, {read, "/1/whatsapp_business_profile", false}, {read, "/10/flows", false},
		{read, "/1/settings", false}, {read, "/message_template_library", false},
	} {
		rep, _ := ask(t, s, tt.method, "/v23.0"+tt.path, "", nil)
		if throttled := rep.code() == 80008; throttled != tt.counted {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, rep.status, rep.raw)
		}
	}
}

// TestPagesCarryTheToken: the links to other pages have the caller's token, as Meta's do,
// and nothing else of an answer has.
func TestPagesCarryTheToken(t *testing.T) {
	const token = "EAAGsecret"
	s := New(Config{Token: token})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	bearer := http.Header{"Authorization": {"Bearer " + token}}
	for i := range 7 {
		if rep, _ := ask(t, s, post, "/v23.0/10/message_templates", templateBody(fmt.Sprintf("t%d", i), "en", "UTILITY", "Hello there"), bearer); rep.status != 200 || strings.Contains(rep.raw, token) {
			t.Fatalf("%d %s", rep.status, rep.raw)
		}
	}
	walk := func(path, link string) (names []string) {
		for header := bearer; path != ""; header = (http.Header{"Authorization": {""}}) { // the links bring the token
			rep, out := ask(t, s, read, path, "", header)
			if rep.status != 200 {
				t.Fatalf("%s: %s", path, rep.raw)
			}
			data, _ := out["data"].([]any)
			for _, one := range data {
				names = append(names, fmt.Sprint(at(one, "name"), at(one, "status")))
			}
			if path = ""; at(out, link) != nil {
				path = local(t, at(out, link))
				if !strings.Contains(path, "access_token="+token) || !strings.Contains(path, "fields=name") {
					t.Fatalf("link %s", path)
				}
			}
		}
		return names
	}
	const first = "/v23.0/10/message_templates?fields=name&limit=3"
	got := walk(first, "paging.next")
	if fmt.Sprint(got) != "[t0<nil> t1<nil> t2<nil> t3<nil> t4<nil> t5<nil> t6<nil>]" {
		t.Errorf("forward %v", got)
	}
	_, last := ask(t, s, read, first+"&after="+cursorOf("9"), "", bearer)
	if data, _ := last["data"].([]any); len(data) != 0 {
		t.Errorf("behind the end: %v", last)
	}
	all := s.managed.templatesOf("10")
	if got := walk(first+"&before="+cursorOf(all[6].id), "paging.previous"); fmt.Sprint(got) != "[t3<nil> t4<nil> t5<nil> t0<nil> t1<nil> t2<nil>]" {
		t.Errorf("backward %v", got)
	}
	_, middle := ask(t, s, read, first+"&before="+cursorOf(all[6].id), "", bearer)
	if got := walk(local(t, at(middle, "paging.next")), "paging.next"); fmt.Sprint(got) != "[t6<nil>]" {
		t.Errorf("forward again %v", got)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "after=%21", "fields=colour"} {
		if rep, _ := ask(t, s, read, "/v23.0/10/message_templates?"+bad, "", bearer); rep.status != 400 || rep.code() != 100 || strings.Contains(rep.raw, token) {
			t.Errorf("%s: %d %s", bad, rep.status, rep.raw)
		}
	}
}

// TestManagementNeedsTheToken goes over all cases without one.
func TestManagementNeedsTheToken(t *testing.T) {
	s := New(Config{Token: "right"})
	for _, tt := range endpointCases(t) {
		if strings.HasPrefix(tt.Path, "$") {
			continue
		}
		path := "/v23.0" + placeholder.ReplaceAllString(tt.Path, "123")
		rep, _ := ask(t, s, tt.Method, path, "", http.Header{"Authorization": {"Bearer wrong"}})
		if rep.status != 401 || rep.code() != 190 || strings.Contains(rep.raw, "wrong") {
			t.Errorf("%s: %s %s: %d %s", tt.Op, tt.Method, path, rep.status, rep.raw)
		}
	}
	if n := len(s.Ledger().Phones); n != 0 {
		t.Errorf("%d phone numbers were made known", n)
	}
}

// TestCallsAreRemembered: who tests a client sees what it called, without secrets.
func TestCallsAreRemembered(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	okay(t, s, read, "/v23.0/10/message_templates?access_token=secret", "")
	ask(t, s, read, "/v23.0/99", "", nil)
	calls := s.Calls(0, 10)
	if len(calls) != 2 || calls[0] != (Call{Seq: 1, AtMS: calls[0].AtMS, Method: read, Path: "/v23.0/10/message_templates", Status: 200}) ||
		calls[1].Status != 404 || calls[1].Code != 100 {
		t.Errorf("calls %+v", calls)
	}
	_, out := ask(t, s, read, "/_sim/calls?after=1", "", nil)
	if at(out, "calls.0.path") != "/v23.0/99" || at(out, "calls.1") != nil || at(out, "next") != 2.0 {
		t.Errorf("page %v", out)
	}
	for i := range keptCalls + 5 {
		s.managed.calls.add(Call{Path: fmt.Sprint(i)})
	}
	if got := s.Calls(0, 2); len(got) != 2 || got[0].Path != "5" {
		t.Errorf("the oldest kept: %+v", got)
	}
}

// TestWrongParameters: each is refused with the envelope, and nothing changes.
func TestWrongParameters(t *testing.T) {
	s := New(Config{})
	s.SetPhone("1", PhoneConfig{WABAID: "10"})
	for _, tt := range []struct{ method, path, body string }{
		{post, "/1", `{}`}, {post, "/1", `{"pin":""}`}, {post, "/1", `{"pin":"12345"}`}, {post, "/1", `{"pin":["1"]}`},
		{post, "/1", `{"webhook_configuration":{"override_callback_uri":"ftp://x","verify_token":"v"}}`},
		{post, "/1", `{"webhook_configuration":{"override_callback_uri":"https://x.example"}}`},
		{post, "/1", `{"webhook_configuration":{"override_callback_uri":"https://x.example/` + strings.Repeat("x", 200) + `","verify_token":"v"}}`},
		{post, "/1", `{"webhook_configuration":"x"}`},
		{post, "/1/register", `{"pin":"123456"}`}, {post, "/1/register", `{"messaging_product":"whatsapp","pin":"1234567"}`},
		{post, "/1/request_code", `{"code_method":"PIGEON","language":"en"}`}, {post, "/1/request_code", `{"code_method":"SMS"}`},
		{post, "/1/verify_code", `{"code":"12"}`},
		{post, "/1/settings", `{}`}, {post, "/1/settings", `{"calling":{},"payload_encryption":{}}`}, {post, "/1/settings", `{"calling":"on"}`},
		{post, "/1/whatsapp_business_profile", `{"about":"x"}`}, {post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","about":""}`},
		{post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","about":"` + strings.Repeat("é", 140) + `"}`},
		{post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","websites":["a.example"]}`},
		{post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","websites":["http://a.example","http://b.example","http://c.example"]}`},
		{post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","vertical":"MAGIC"}`},
		{post, "/1/whatsapp_business_profile", `{"messaging_product":"whatsapp","email":"nobody"}`},
		{post, "/1/block_users", `{"messaging_product":"whatsapp"}`}, {post, "/1/block_users", `{"messaging_product":"whatsapp","block_users":[{"user":"x"}]}`},
		{post, "/1/message_qrdls", `{"prefilled_message":"` + strings.Repeat("x", 141) + `"}`},
		{post, "/1/message_qrdls", `{"prefilled_message":"x","generate_qr_image":"GIF"}`},
		{post, "/10/phone_numbers", `{"cc":"1","phone_number":"12","verified_name":"x"}`}, {post, "/10/phone_numbers", `{"cc":"1","phone_number":"6505551234"}`},
		{post, "/10/subscribed_apps", `{"override_callback_uri":"https://x.example"}`},
		{post, "/5/subscriptions", `{"object":"page","callback_url":"https://x.example","verify_token":"v","fields":"messages"}`},
		{post, "/5/subscriptions", `{"object":"whatsapp_business_account","callback_url":"https://x.example","verify_token":"v"}`},
		{post, "/5/uploads?file_name=a&file_type=image/png", ``}, {post, "/5/uploads?file_name=a&file_length=1&file_type=image/gif", ``},
		{post, "/5/uploads?file_name=a&file_length=104857601&file_type=image/png", ``},
		{read, "/10/message_template_previews?category=AUTHENTICATION&button_types=OTP&code_expiration_minutes=91", ``},
		{read, "/10/message_template_previews?category=AUTHENTICATION", ``},
		{read, "/10/message_templates?status=GOOD", ``}, {del, "/10/message_templates", ``}, {del, "/10/message_templates?name=none", ``},
		{post, "/10/migrate_message_templates", `{"source_waba_id":"10","count":501}`},
		{post, "/10/upsert_message_templates", `{"name":"x","languages":[],"category":"AUTHENTICATION","components":[{"type":"BODY"}]}`},
		{post, "/10/flows", `{"name":"x"}`}, {post, "/10/flows", `{"name":"x","categories":["FUN"]}`},
		{post, "/10/flows", `not JSON`}, {post, "/10/flows", `[]`}, {post, "/10/flows", `{"x":"` + strings.Repeat("x", maxBody) + `"}`},
	} {
		rep, _ := ask(t, s, tt.method, "/v23.0"+tt.path, tt.body, nil)
		if rep.status != 400 || rep.code() != 100 || rep.body.Error.TraceID == "" {
			t.Errorf("%s %s %.80s: %d %s", tt.method, tt.path, tt.body, rep.status, rep.raw)
		}
	}
	for _, tt := range []struct{ method, path, body string }{
		{read, "/9/whatsapp_business_profile", ``}, {read, "/9/message_templates", ``}, {post, "/9/message_templates", ``}, {post, "/10/register", `{}`},
		{post, "/9", `{}`}, {del, "/9", ``}, {read, "/1/message_qrdls/AAAAAAAAAAAAAA", ``}, {read, "/4000000000000009/events", ``},
		{post, "/9/publish", ``}, {read, "/9/assets", ``}, {read, "/9/compare", ``}, {post, "/9/unpause", ``}, {read, "/upload:abc", ``}, {post, "/upload:abc?sig=x", `x`},
		{post, "/10/migrate_message_templates", `{"source_waba_id":"99"}`}, {read, "/9/message_template_library", ``},
	} {
		if rep, _ := ask(t, s, tt.method, "/v23.0"+tt.path, tt.body, nil); rep.status != 404 || rep.code() != 100 || rep.body.Error.Subcode != 33 {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, rep.status, rep.raw)
		}
	}
	if led := s.Ledger(); len(led.Phones) != 1 {
		t.Errorf("phones %+v", led.Phones)
	}
}
