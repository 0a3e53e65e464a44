package graphproxy

import (
	"net/http"
	"strings"
	"testing"

	"wagate/internal/store"
)

// Each call, with which single right it is let through, and whether a key that is bound to phone numbers may make it.
func TestRights(t *testing.T) {
	r := newRig(t)
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{
		{ID: "5001", WABAID: waba, PhoneNumberID: ptr(phone), Kind: "media"}, {ID: "6001", WABAID: waba, Kind: "template"}, {ID: "8001", WABAID: waba, Kind: "flow"},
		{ID: "110", WABAID: waba, Kind: "phone"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, rights string
		bound                int // the status a bound key gets that has the right
	}{
		{"POST", "/101/media", "send", 200}, {"GET", "/5001", "send read", 200}, {"DELETE", "/5001", "send manage", 200}, {"GET", "/5999", "send read", 200},
		{"DELETE", "/5999?phone_number_id=101", "send manage", 200}, {"DELETE", "/5999", "manage", 200},
		{"POST", "/900/uploads", "send manage", 200}, {"POST", "/upload:x", "send manage", 200}, {"GET", "/upload:x", "send manage read", 200},
		{"GET", "/100/message_templates", "read", 200}, {"POST", "/100/message_templates", "manage", 200}, {"DELETE", "/100/message_templates?name=x", "manage", 200},
		{"GET", "/6001", "read", 200}, {"POST", "/6001", "manage", 200}, {"POST", "/6001/unpause", "manage", 200}, {"GET", "/6001/compare", "read", 200},
		{"GET", "/101/whatsapp_business_profile", "read", 200}, {"POST", "/101/whatsapp_business_profile", "manage", 200},
		{"GET", "/101", "read", 200}, {"POST", "/101", "admin", 200}, {"DELETE", "/101", "admin", 200}, {"POST", "/101/register", "admin", 200}, {"POST", "/101/Deregister", "admin", 200},
		{"POST", "/101/request_code", "admin", 200}, {"POST", "/101/settings", "manage", 200}, {"POST", "/101/block_users", "manage", 200}, {"DELETE", "/101/message_qrdls/X", "manage", 200},
		{"POST", "/110/register", "admin", 400}, {"GET", "/110", "read", 400},
		{"GET", "/100", "read", 200}, {"POST", "/100", "admin", 403}, {"POST", "/100/phone_numbers", "admin", 403}, {"POST", "/100/assigned_users", "admin", 403},
		{"GET", "/100/subscribed_apps", "read", 200}, {"POST", "/100/subscribed_apps", "manage", 403}, {"DELETE", "/100/subscribed_apps", "manage", 403},
		{"POST", "/100/migrate_message_templates", "manage", 403}, {"POST", "/100/flows", "manage", 200}, {"POST", "/8001/publish", "manage", 200}, {"DELETE", "/8001", "manage", 200},
		{"GET", "/900", "read", 200}, {"POST", "/900", "admin", 403}, {"GET", "/900/subscriptions", "read", 403}, {"POST", "/900/subscriptions", "admin", 403}, {"DELETE", "/900/subscriptions", "admin", 403},
		{"GET", "/message_template_library?search=x", "read", 200},
	} {
		for _, right := range []Right{Send, Read, Manage, Admin} {
			r.as([]string{phone, phone2}, right)
			if c.bound != http.StatusOK {
				r.as(nil, right)
			}
			want, code := http.StatusForbidden, codePermission
			if strings.Contains(c.rights, string(right)) || right == Admin {
				want = http.StatusOK
			}
			a := r.do(c.method, "/v23.0"+c.path, "")
			if a.status != want {
				t.Errorf("%s %s with %s: %d %s, want %d", c.method, c.path, right, a.status, a.body, want)
			} else if want != http.StatusOK {
				r.wantError(c.path, a, want, code)
			}
			if n := len(r.requests()); n != map[bool]int{true: 1}[want == http.StatusOK] {
				t.Errorf("%s %s with %s: %d requests", c.method, c.path, right, n)
			}
		}
		if c.bound != http.StatusOK {
			r.as([]string{phone, phone2}, Send, Read, Manage, Admin)
			if a := r.do(c.method, "/v23.0"+c.path, ""); a.status != c.bound || len(r.requests()) != 0 {
				t.Errorf("%s %s with a bound key: %d %s, want %d", c.method, c.path, a.status, a.body, c.bound)
			}
		}
	}
}

// Whose id it is decides with whose token a call is made; no token is ever tried.
func TestWhoseID(t *testing.T) {
	r := newRig(t)
	if err := r.store.SeeGraphIDs(t.Context(), []store.GraphID{
		{ID: "5001", WABAID: waba, PhoneNumberID: ptr(phone), Kind: "media"}, {ID: "5002", WABAID: other, PhoneNumberID: ptr(otherPhone), Kind: "media"},
		{ID: "6001", WABAID: waba, Kind: "template"}, {ID: "6002", WABAID: other, Kind: "template"}, {ID: "6003", WABAID: "999", Kind: "template"},
		{ID: "110", WABAID: waba, Kind: "phone"}, {ID: "7001", WABAID: waba, PhoneNumberID: ptr(phone), Kind: "history"},
	}); err != nil {
		t.Fatal(err)
	}
	var both = []string{phone, otherPhone}
	for _, c := range []struct {
		phones []string // of the key; nil: not bound
		method string
		path   string
		token  string // "" : refused
		sub    bool   // refused as an object that is not there, else as one that nobody can tell whose it is
	}{
		{nil, "GET", "/5001", token, false}, {nil, "GET", "/5002", otherToken, false}, {nil, "GET", "/6002", otherToken, false},
		{nil, "GET", "/5999", "", false}, {nil, "GET", "/5998?phone_number_id=201", otherToken, false}, {nil, "GET", "/5997?phone_number_id=299", "", true},
		{nil, "GET", "/6003", "", false}, // of a WABA that is no longer here
		{nil, "POST", "/110/register", token, false}, {nil, "GET", "/message_template_library", "", false}, {nil, "POST", "/upload:x", "", false},
		{nil, "GET", "/999/message_templates", "", true}, {nil, "GET", "/999/flows", "", true}, {nil, "POST", "/999/media", "", true}, {nil, "POST", "/6001/media", "", true},
		{nil, "POST", "/900/uploads", token, false}, {nil, "POST", "/901/uploads", "", false}, {nil, "GET", "/901", "", false},
		{nil, "GET", "/me", "", true}, {nil, "GET", "/debug_token?input_token=x", "", true}, {nil, "GET", "/oauth/access_token?grant_type=fb_exchange_token", "", true},
		{nil, "GET", "/search?q=x", "", true}, {nil, "POST", "/message_template_library", "", true},

		{[]string{phone}, "GET", "/101", token, false}, {[]string{phone}, "GET", "/102", "", true}, {[]string{phone}, "GET", "/201", "", true},
		{[]string{phone}, "GET", "/100/message_templates", token, false}, {[]string{phone}, "GET", "/200/message_templates", "", true},
		{[]string{phone}, "GET", "/5001", token, false}, {[]string{phone2}, "GET", "/5001", "", true}, {[]string{phone}, "GET", "/5002", "", true},
		{[]string{phone}, "GET", "/6001", token, false}, {[]string{phone}, "GET", "/6002", "", true}, {[]string{phone}, "GET", "/5999", token, false},
		{[]string{phone}, "GET", "/5999?phone_number_id=102", "", true}, {[]string{phone}, "GET", "/5001?phone_number_id=102", "", true},
		{[]string{otherPhone}, "POST", "/upload:x", otherToken, false}, {[]string{otherPhone}, "GET", "/message_template_library", otherToken, false},
		{[]string{otherPhone}, "POST", "/900/uploads", "", true}, {[]string{otherPhone}, "POST", "/901/uploads", otherToken, false},
		{[]string{phone}, "GET", "/7001/events", token, false}, {[]string{phone2}, "GET", "/7001/events", "", true},
		{[]string{"299"}, "GET", "/5999", "", true}, {[]string{"299"}, "GET", "/299", "", true},
		{[]string{phone}, "POST", "/110/register", "", true}, {[]string{phone, "110"}, "POST", "/110/register", token, false},

		{both, "GET", "/101", token, false}, {both, "GET", "/201", otherToken, false}, {both, "GET", "/5999", "", false},
		{both, "GET", "/5002", otherToken, false}, {both, "GET", "/6001", "", true}, {both, "GET", "/100", "", true},
	} {
		r.as(c.phones, Send, Read, Manage, Admin)
		a := r.do(c.method, "/v23.0"+c.path, "")
		seen := r.requests()
		switch {
		case c.token != "":
			if a.status != http.StatusOK || len(seen) != 1 || !strings.HasSuffix(seen[0].header.Get("Authorization"), " "+c.token) {
				t.Errorf("%v %s %s: %d %s, %d requests", c.phones, c.method, c.path, a.status, a.body, len(seen))
			}
		case a.status != http.StatusBadRequest || strings.Contains(a.body, `"error_subcode":33`) != c.sub || len(seen) != 0:
			t.Errorf("%v %s %s: %d %s, %d requests", c.phones, c.method, c.path, a.status, a.body, len(seen))
		}
	}
	// With one WABA alone there is nothing to tell apart.
	if err := r.store.DeletePhoneNumber(t.Context(), otherPhone); err != nil {
		t.Fatal(err)
	}
	if err := r.store.DeleteWABA(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	r.as(nil, Admin)
	for _, path := range []string{"/5999", "/upload:x", "/message_template_library", "/901"} {
		r.must(http.StatusOK, "GET", "/v23.0"+path, "")
	}
}

// What could make Graph do something else than the request shows does not go out.
func TestRequestsThatAreNotForwarded(t *testing.T) {
	r := newRig(t)
	for _, c := range [][2]string{
		{"GET", "/v23.0"}, {"GET", "/v23.0/"}, {"POST", "/v23.0/?batch=[]"}, {"GET", "/v23.0/?ids=101,201"}, {"GET", "/v23.0//101"}, {"GET", "/v23.0/101//media"},
		{"GET", "/v23.0/101/../201"}, {"GET", "/v23.0/101/%2e%2e/201"}, {"GET", "/v23.0/101%2f..%2f201"}, {"GET", "/v23.0/101%3fx"}, {"GET", "/v23.0/101%00"}, {"GET", "/v23.0/a%5cb"},
		{"GET", "/v23.0/101?method=delete"}, {"GET", "/v23.0/101?%6dethod=POST"}, {"GET", "/v23.0/101?+method=POST"}, {"GET", "/v23.0/101?method[]=POST"}, {"GET", "/v23.0/101?method%00x=POST"},
		{"GET", "/v23.0/101?ids=201"}, {"GET", "/v23.0/101?batch=x"}, {"GET", "/v23.0/101?callback=f"}, {"GET", "/v23.0/5?phone_number_id=101&phone_number_id=201"}, {"GET", "/v23.0/5?phone.number.id=x"},
		{"POST", "/v23.0/101/messages"}, {"POST", "/v23.0/101/marketing_messages"}, {"POST", "/v23.0/101/Messages/"}, {"DELETE", "/v23.0/101/messages"}, {"POST", "/v23.0/100/x/messages"},
		{"GET", "/v23.0/1/2/3/4/5/6/7/8"}, {"GET", "/v23.0/" + strings.Repeat("1", 600)}, {"GET", "/v23.0/101?x=" + strings.Repeat("1", maxQuery)},
	} {
		a := r.do(c[0], c[1], "")
		r.wantError(c[0]+" "+c[1], a, http.StatusBadRequest, codeParameter)
	}
	if seen := r.requests(); len(seen) != 0 {
		t.Errorf("Meta got %+v", seen)
	}
	// A bound key may not look past its phone number by fields of fields; another may.
	const nested = "/v23.0/101?fields=whatsapp_business_account%7Bphone_numbers%7D"
	r.must(http.StatusOK, "GET", nested, "")
	r.as([]string{phone}, Read)
	r.wantError("fields of fields", r.do("GET", nested, ""), http.StatusBadRequest, codeParameter)
	// The rest of a query goes on as it was written, without what was made for another token.
	r.must(http.StatusOK, "GET", "/v23.0/101?b=%20x&access_token=KEY&a=1&appsecret_proof=00&b=;&access%5Ftoken=KEY&c", "")
	if seen := r.requests(); len(seen) != 2 || seen[1].query != "b=%20x&a=1&b=;&c" {
		t.Errorf("%+v", seen)
	}
}

// An account without a token, an app without a secret: said so, and nothing goes out.
func TestWithoutAToken(t *testing.T) {
	r := newRig(t)
	if err := r.store.PutWABA(t.Context(), store.WABA{ID: "300", Burst: 1, ManagementCallsPerHour: 10}, nil); err != nil {
		t.Fatal(err)
	}
	r.wantError("a WABA", r.do("GET", "/v23.0/300", ""), http.StatusForbidden, codeAccess)
	if err := r.store.PutApp(t.Context(), store.App{ID: "901"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"901", "902"} {
		r.wantError("app "+id, r.do("POST", "/v23.0/"+id+"/subscriptions", ""), http.StatusBadRequest, codeParameter)
	}
	if seen := r.requests(); len(seen) != 0 {
		t.Errorf("Meta got %+v", seen)
	}
}
