package graphproxy

import (
	"errors"
	"io"
	"net/http"
	"slices"
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
	r.on(answerUnseen)
	r.hold([]rightsRow{
		{"POST", "/101/media", "send", 200}, {"GET", "/5001", "send read", 200}, {"DELETE", "/5001", "send manage", 200}, {"GET", "/5999", "send read", 200},
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
	})
}

// Of an id of which nothing is known a bound key and a sender may get a media and no more: it may be whatever the token reaches.
func TestRightsToUnseenIDs(t *testing.T) {
	r := newRig(t)
	r.onlyWABA()
	r.hold([]rightsRow{
		{"GET", "/5999?fields=url,+mime_type,sha256,file_size,id", "send read", 200}, {"GET", "/5999?fields=name", "read", 403}, {"GET", "/5999?fields=url&fields[]=name", "read", 403},
		{"GET", "/5999?fields=url.as(x)", "read", 400}, {"GET", "/5999?fields=name&phone_number_id=101", "read", 403}, {"GET", "/5999/owned_pages", "read", 403}, {"GET", "/5999/owned_pages?phone_number_id=101", "read", 403},
		{"DELETE", "/5999", "admin", 403}, {"POST", "/5999", "admin", 403}, {"POST", "/5999/business_users?role=ADMIN", "admin", 403}, {"POST", "/5999/business_users?phone_number_id=101", "admin", 403},
		{"DELETE", "/5999/business_users?phone_number_id=101", "admin", 403},
	})
}

// unseenMedia is what Meta answers of a media that the gateway has not seen.
const unseenMedia = `{"id":"5999","url":"https://lookaside.fbsbx.com/x","sha256":"a"}`

// answerUnseen is Meta with that media.
func answerUnseen(w http.ResponseWriter, req *http.Request) {
	if strings.HasSuffix(req.URL.Path, "/5999") {
		_, _ = io.WriteString(w, unseenMedia)
		return
	}
	_, _ = io.WriteString(w, `{"success":true}`)
}

// What the token reaches beside media is shown, of an id that was not seen, to who may read all of it.
func TestUnseenObjectsAreShownToWhoMayReadAll(t *testing.T) {
	r := newRig(t)
	r.onlyWABA()
	for answer, isMedia := range map[string]bool{
		unseenMedia: true, `{"id":"5999","name":"A person","birthday":"1 May"}`: false, `{"id":"5998","url":"https://lookaside.fbsbx.com/x","sha256":"a"}`: false,
		`{"id":"5999","url":"https://lookaside.fbsbx.com/x"}`: false, `[1]`: false, `true`: false,
	} {
		r.says(http.StatusOK, answer)
		for _, c := range []struct {
			phones []string
			right  Right
			all    bool
		}{
			{nil, Send, false}, {nil, Read, true}, {nil, Admin, true}, {[]string{phone}, Send, false}, {[]string{phone}, Read, false}, {[]string{phone}, Admin, false},
		} {
			r.as(c.phones, c.right)
			for _, path := range []string{"/v23.0/5999", "/v23.0/5999?fields="} {
				a := r.do("GET", path, "")
				if isMedia || c.all {
					if a.status != http.StatusOK {
						t.Errorf("%v %s gets of %s at %s: %d %s", c.phones, c.right, answer, path, a.status, a.body)
					}
					continue
				}
				r.wantError(answer, a, http.StatusBadRequest, codeParameter)
				if strings.Contains(a.body, "person") {
					t.Errorf("it shows %s", a.body)
				}
			}
		}
	}
	r.as([]string{phone}, Send)
	r.says(http.StatusOK, `{"id":"5999","name":"A person"}`)
	r.wantError("of a phone number", r.do("GET", "/v23.0/5999?phone_number_id=101", ""), http.StatusBadRequest, codeParameter)
	if seen := r.seenIDs(); len(seen) != 0 {
		t.Errorf("remembered: %v", seen)
	}
	r.as(nil, Send)
	r.says(http.StatusBadRequest, `{"error":{"message":"x","code":100,"error_subcode":33}}`)
	if a := r.do("GET", "/v23.0/5998", ""); a.status != http.StatusBadRequest || !strings.Contains(a.body, `"message":"x"`) {
		t.Errorf("an error: %d %s", a.status, a.body)
	}
}

// onlyWABA takes the second WABA away, so that a key without a bond has but one.
func (r *rig) onlyWABA() {
	r.t.Helper()
	if err := errors.Join(r.store.DeletePhoneNumber(r.t.Context(), otherPhone), r.store.DeleteWABA(r.t.Context(), other)); err != nil {
		r.t.Fatal(err)
	}
}

// A media that is not known is deleted by who may use its phone number, once Meta has said that it is one: Graph heeds the
// number for media alone.
func TestDeletingUnseenMedia(t *testing.T) {
	r := newRig(t)
	for _, right := range []Right{Send, Manage} {
		for _, c := range []struct {
			status, want int
			answer       string
			requests     []string
		}{
			{200, 200, `{"id":"5999","url":"https://lookaside.fbsbx.com/x","sha256":"a"}`, []string{"GET", "DELETE"}}, {200, 400, `{"id":"5999","name":"x"}`, []string{"GET"}}, {200, 400, `{"id":"5998","url":"https://lookaside.fbsbx.com/x","sha256":"a"}`, []string{"GET"}},
			{400, 400, `{"error":{"message":"x","code":100,"error_subcode":33}}`, []string{"GET"}}, {503, 503, `{"error":{"message":"x","code":2}}`, []string{"GET", "GET", "GET"}},
		} {
			r.as([]string{phone}, right)
			r.on(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodDelete {
					_, _ = io.WriteString(w, `{"success":true}`)
					return
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			})
			r.requests()
			before := r.calls(waba)
			a := r.do("DELETE", "/v23.0/5999?phone_number_id=101&x=y", "")
			var made []string
			for _, g := range r.requests() {
				made = append(made, g.method)
				if want := map[string]string{"GET": "phone_number_id=101", "DELETE": "phone_number_id=101&x=y"}[g.method]; g.path != "/v23.0/5999" || g.query != want {
					t.Errorf("%s %s?%s", g.method, g.path, g.query)
				}
			}
			if a.status != c.want || !slices.Equal(made, c.requests) || r.calls(waba)-before != len(made) {
				t.Errorf("%s with %s: %d %s after %v", c.answer, right, a.status, a.body, made)
			}
		}
	}
	r.requests()
	r.as([]string{phone}, Read)
	r.wantError("a reader", r.do("DELETE", "/v23.0/5999?phone_number_id=101", ""), http.StatusForbidden, codePermission)
	r.as([]string{phone2}, Send)
	r.wantError("another's phone number", r.do("DELETE", "/v23.0/5999?phone_number_id=101", ""), http.StatusBadRequest, codeParameter)
	if n := len(r.requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// rightsRow is a call, the single rights it is let through with, and the status that a bound key gets which has them.
type rightsRow struct {
	method, path, rights string
	bound                int
}

// hold makes each call with each right.
func (r *rig) hold(rows []rightsRow) {
	t := r.t
	t.Helper()
	for _, c := range rows {
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
	r.on(answerUnseen)
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
	r.onlyWABA()
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
	// A bound key may not look past its phone number by fields of fields, in any syntax; another may.
	for fields, deep := range map[string]bool{
		"whatsapp_business_account%7Bphone_numbers%7D": true, "whatsapp_business_account.fields(id,owner_business_info)": true, "whatsapp_business_account.FIELDS+(id)": true,
		"[%22whatsapp_business_account.fields%5Cu0028id%29%22]": true, "phone_numbers.limit(1){status}": true, "phone_numbers.limit(1).fields(status)": true, "id.as(x)": true,
		"id,name.limit(10),preview.invalidate(false)": false, "": false,
	} {
		path := "/v23.0/101?fields=" + fields
		r.as(nil, Read)
		r.must(http.StatusOK, "GET", path, "")
		r.as([]string{phone}, Read)
		if a := r.do("GET", path, ""); deep {
			r.wantError(fields, a, http.StatusBadRequest, codeParameter)
		} else if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", fields, a.status, a.body)
		}
	}
	r.as([]string{phone}, Read)
	r.requests()
	// The rest of a query goes on as it was written, without what was made for another token.
	r.must(http.StatusOK, "GET", "/v23.0/101?b=%20x&access_token=KEY&a=1&appsecret_proof=00&b=;&access%5Ftoken=KEY&c", "")
	if seen := r.requests(); len(seen) != 1 || seen[0].query != "b=%20x&a=1&b=;&c" {
		t.Errorf("%+v", seen)
	}
	// The version goes on as it is read, and is one.
	r.must(http.StatusOK, "GET", "/v23%2E0/101", "")
	if seen := r.requests(); len(seen) != 1 || seen[0].path != "/v23.0/101" {
		t.Errorf("%+v", seen)
	}
	for _, path := range []string{"/v23%252E0/101", "/v1/101", "/101/101"} {
		r.wantError(path, r.do("GET", path, ""), http.StatusBadRequest, codeParameter)
	}
	// A bound key asks for fields of fields by what a write shall answer neither.
	r.as([]string{phone}, Manage)
	r.wantError("in a body", r.do("POST", "/v23.0/101/settings", `{"fields":"whatsapp_business_account{name}"}`, "Content-Type", "application/json"), http.StatusBadRequest, codeParameter)
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
