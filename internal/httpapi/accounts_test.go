package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"wagate/internal/seal"
)

func TestAccountsKeepSecrets(t *testing.T) {
	g := start(t)
	answers := g.must(http.StatusOK, "PUT", "/v1/apps/900", `{"app_secret":"hunter2-app","calls_per_hour":5}`).body
	g.must(http.StatusOK, "PUT", "/v1/portfolios/p1", `{"unique_recipients_per_day":250}`)
	answers += g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"name":"Bank","app_id":"900","portfolio_id":"p1","access_token":"hunter2-token","messages_per_second":null}`).body
	answers += g.must(http.StatusUnprocessableEntity, "PUT", "/v1/wabas/101", `{"access_token":"hunter2-token","burst":0}`).body
	answers += g.must(http.StatusBadRequest, "PUT", "/v1/wabas/101", `{"access_token":"hunter2-token"`).body
	// A PUT without secrets keeps them and replaces everything else.
	answers += g.must(http.StatusOK, "PUT", "/v1/apps/900", `{}`).body
	w := g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"app_id":"900"}`)
	if w.json["access_token_set"] != true || w.str("name") != "" || w.json["portfolio_id"] != nil || w.json["management_calls_per_hour"] != 5000.0 || w.json["messages_per_second"] != nil {
		t.Errorf("WABA: %s", w.body)
	}
	for _, path := range []string{"/v1/apps", "/v1/apps/900", "/v1/wabas", "/v1/wabas/101"} {
		answers += g.must(http.StatusOK, "GET", path, "").body
	}
	if strings.Contains(answers, "hunter2") || strings.Contains(g.log.String(), "hunter2") {
		t.Errorf("a secret is shown: %s", answers)
	}
	app, err := g.store.App(t.Context(), "900")
	if err != nil || app.CallsPerHour != nil {
		t.Fatal(app.CallsPerHour, err)
	}
	waba, err := g.store.WABA(t.Context(), "101")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := g.sealer.Open(app.Secret, seal.AppSecret("900"))
	token, err2 := g.sealer.Open(waba.AccessToken, seal.AccessToken("101"))
	if string(secret) != "hunter2-app" || string(token) != "hunter2-token" || err != nil || err2 != nil {
		t.Errorf("stored %q, %q, %v, %v", secret, token, err, err2)
	}
	g.must(http.StatusConflict, "DELETE", "/v1/apps/900", "")
	g.must(http.StatusNoContent, "DELETE", "/v1/wabas/101", "")
	g.must(http.StatusNoContent, "DELETE", "/v1/apps/900", "")
	g.must(http.StatusNoContent, "DELETE", "/v1/portfolios/p1", "")
	for _, path := range []string{"/v1/apps/900", "/v1/wabas/101", "/v1/portfolios/p1"} {
		g.must(http.StatusNotFound, "DELETE", path, "")
		g.must(http.StatusNotFound, "GET", path, "")
	}
}

func TestAppOfAWABA(t *testing.T) {
	g := start(t)
	if w := g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"app_secret":"hunter2"}`); w.str("app_id") != "default" {
		t.Errorf("the app is made: %s", w.body)
	}
	if w := g.must(http.StatusOK, "PUT", "/v1/wabas/102", `{}`); w.str("app_id") != "default" {
		t.Errorf("the one app there is: %s", w.body)
	}
	app, err := g.store.App(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := g.sealer.Open(app.Secret, seal.AppSecret("default")); string(plain) != "hunter2" || err != nil {
		t.Errorf("app secret %q, %v", plain, err)
	}
	if a := g.must(http.StatusUnprocessableEntity, "PUT", "/v1/wabas/103", `{"app_id":"no"}`); !slices.Equal(a.pointers(), []string{"/app_id"}) {
		t.Errorf("no such app: %s", a.body)
	}
	if a := g.must(http.StatusUnprocessableEntity, "PUT", "/v1/wabas/103", `{"app_id":"default","app_secret":"x"}`); !slices.Equal(a.pointers(), []string{"/app_secret"}) {
		t.Errorf("secret beside app_id: %s", a.body)
	}
}

func TestPhoneNumbers(t *testing.T) {
	g := start(t)
	p := g.must(http.StatusOK, "GET", "/v1/phone-numbers/"+phone, "")
	if p.json["messages_per_second"] != 80.0 || p.json["burst"] != 1.0 || p.str("window_check") != "off" || !strings.Contains(p.body, `"pair":{"seconds":6,"burst":45}`) ||
		!strings.Contains(p.body, `"backlog":{"high":0,"low":0,"normal":2,"urgent":0}`) {
		t.Errorf("presets: %s", p.body)
	}
	p = g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"100","messages_per_second":null,"pair":null,"max_backlog":10,"display_phone_number":"+1 650"}`)
	if p.json["messages_per_second"] != nil || p.json["pair"] != nil || p.json["max_backlog"] != 10.0 {
		t.Errorf("no limits: %s", p.body)
	}
	for body, pointers := range map[string][]string{
		`{}`:                                  {"/waba_id"},
		`{"waba_id":"404"}`:                   {"/waba_id"},
		`{"waba_id":"100","burst":0}`:         {"/burst"},
		`{"waba_id":"100","window_check":1}`:  {"/window_check"},
		`{"waba_id":"100","speed":80}`:        {"/speed"},
		`{"waba_id":"100","pair":{"secs":1}}`: {"/pair/secs"},
		`{"waba_id":"100","messages_per_second":0,"pair":{"seconds":-1,"burst":1.5}}`: {"/messages_per_second", "/pair/burst", "/pair/seconds"},
		`{"waba_id":"100","messages_per_second":-1}`:                                  {"/messages_per_second"},
		`{"waba_id":"100","messages_per_second":10001}`:                               {"/messages_per_second"},
		`{"waba_id":"100","messages_per_second":1e999}`:                               {"/messages_per_second"},
		`{"waba_id":"100","messages_per_second":"NaN"}`:                               {"/messages_per_second"},
		`{"waba_id":"100","messages_per_second":1e300}`:                               {"/messages_per_second"},
		`{"waba_id":"100","messages_per_second":0.2,"burst":2}`:                       {"/burst"},
		`{"waba_id":"100","messages_per_second":79.5,"burst":81}`:                     {"/burst"},
		`{"waba_id":"100","burst":81}`:                                                {"/burst"},
		`{"waba_id":"100","burst":null}`:                                              {"/burst"},
		`{"waba_id":"100","messages_per_second":null,"burst":10001}`:                  {"/burst"},
		`{"waba_id":"100","pair":{"seconds":0,"burst":0}}`:                            {"/pair/burst", "/pair/seconds"},
		`{"waba_id":"100","pair":{"seconds":0.009,"burst":1001}}`:                     {"/pair/burst", "/pair/seconds"},
		`{"waba_id":"100","pair":{"seconds":86401,"burst":-1}}`:                       {"/pair/burst", "/pair/seconds"},
		`{"waba_id":"100","max_backlog":0}`:                                           {"/max_backlog"},
		`{"waba_id":"100","max_backlog":-5}`:                                          {"/max_backlog"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "PUT", "/v1/phone-numbers/202", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%s: %q, want %q", body, a.pointers(), pointers)
		}
	}
	for _, body := range []string{ // the edges are taken
		`{"waba_id":"100","messages_per_second":0.2,"burst":1}`, `{"waba_id":"100","messages_per_second":79.5,"burst":80}`,
		`{"waba_id":"100","messages_per_second":null,"burst":10000}`, `{"waba_id":"100","pair":{"seconds":0.06,"burst":45}}`,
		`{"waba_id":"100","messages_per_second":10000,"burst":10000,"pair":{"seconds":86400,"burst":1000}}`,
	} {
		g.must(http.StatusOK, "PUT", "/v1/phone-numbers/203", body)
	}
	g.must(http.StatusBadRequest, "PUT", "/v1/phone-numbers/202", `{"waba_id":"100","messages_per_second":NaN}`)
	g.must(http.StatusUnprocessableEntity, "PUT", "/v1/phone-numbers/+1650", `{"waba_id":"100"}`)
	g.must(http.StatusNotFound, "GET", "/v1/phone-numbers/202", "")
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{}`)
	g.must(http.StatusConflict, "PUT", "/v1/phone-numbers/201", `{"waba_id":"101"}`)
	g.must(http.StatusConflict, "DELETE", "/v1/wabas/100", "")
	g.must(http.StatusConflict, "DELETE", "/v1/phone-numbers/"+phone, "") // two wait
}

func TestAbsurdLimits(t *testing.T) {
	g := start(t)
	for _, c := range []struct {
		path, body string
		pointers   []string
	}{
		{"/v1/apps/900", `{"calls_per_hour":0}`, []string{"/calls_per_hour"}},
		{"/v1/apps/900", `{"calls_per_hour":-1}`, []string{"/calls_per_hour"}},
		{"/v1/apps/900", `{"calls_per_hour":1e300}`, []string{"/calls_per_hour"}},
		{"/v1/apps/900", `{"calls_per_hour":1.5}`, []string{"/calls_per_hour"}},
		{"/v1/apps/900", `{"calls_per_hour":"many"}`, []string{"/calls_per_hour"}},
		{"/v1/portfolios/p1", `{"unique_recipients_per_day":0}`, []string{"/unique_recipients_per_day"}},
		{"/v1/portfolios/p1", `{"unique_recipients_per_day":-250}`, []string{"/unique_recipients_per_day"}},
		{"/v1/portfolios/p1", `{"unique_recipients_per_day":1000000001}`, []string{"/unique_recipients_per_day"}},
		{"/v1/wabas/101", `{"management_calls_per_hour":0}`, []string{"/management_calls_per_hour"}},
		{"/v1/wabas/101", `{"management_calls_per_hour":-1}`, []string{"/management_calls_per_hour"}},
		{"/v1/wabas/101", `{"management_calls_per_hour":null}`, []string{"/management_calls_per_hour"}},
		{"/v1/wabas/101", `{"management_calls_per_hour":36000001}`, []string{"/management_calls_per_hour"}},
		{"/v1/wabas/101", `{"messages_per_hour":0,"messages_per_second":-1,"burst":0}`, []string{"/burst", "/messages_per_hour", "/messages_per_second"}},
		{"/v1/wabas/101", `{"messages_per_hour":36000001,"messages_per_second":10001}`, []string{"/messages_per_hour", "/messages_per_second"}},
		{"/v1/wabas/101", `{"messages_per_second":50,"burst":51}`, []string{"/burst"}},
		{"/v1/wabas/101", `{"messages_per_second":0.0001}`, []string{"/messages_per_second"}},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "PUT", c.path, c.body); !slices.Equal(a.pointers(), c.pointers) {
			t.Errorf("%s %s: %q, want %q", c.path, c.body, a.pointers(), c.pointers)
		}
		g.must(http.StatusNotFound, "GET", c.path, "")
	}
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{"messages_per_second":50,"burst":50,"messages_per_hour":1}`)
}

func TestKeys(t *testing.T) {
	g := start(t)
	made := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"shop","scopes":["send","read"],"phone_numbers":["`+phone+`"],"requests_per_second":1000}`)
	key := made.str("key")
	if len(key) != 3+43 || !strings.HasPrefix(key, "wg_") {
		t.Fatalf("key %q", key)
	}
	as := []string{"Authorization", "Bearer " + key}
	shown := g.must(http.StatusOK, "GET", "/v1/keys", "").body + g.must(http.StatusOK, "GET", made.header.Get("Location"), "").body
	if strings.Contains(shown, key) || strings.Contains(g.log.String(), key) || strings.Contains(shown+g.log.String(), adminKey) {
		t.Error("a key is shown again")
	}
	id := g.must(http.StatusAccepted, "POST", "/v1/messages", text(""), as...).str("id")
	g.must(http.StatusOK, "GET", "/v1/messages/"+id, "", as...)
	for _, path := range []string{"/v1/wabas", "/v1/keys", "/v1/phone-numbers"} {
		g.must(http.StatusForbidden, "GET", path, "", as...)
	}

	other := []string{"Authorization", "Bearer " + g.key(`{"name":"bound","scopes":["admin"],"phone_numbers":["299"]}`)}
	g.must(http.StatusNotFound, "GET", "/v1/messages/"+id, "", other...)
	g.must(http.StatusNotFound, "POST", "/v1/messages/"+id+"/cancel", "", other...)
	g.must(http.StatusNotFound, "GET", "/v1/phone-numbers/"+phone, "", other...)
	if l := g.must(http.StatusOK, "GET", "/v1/messages", "", other...); !strings.HasPrefix(l.body, `{"messages":[]`) {
		t.Errorf("another key's messages: %s", l.body)
	}
	if l := g.must(http.StatusOK, "GET", "/v1/phone-numbers", "", other...); l.body != "{\"phone_numbers\":[]}\n" {
		t.Errorf("another key's phone numbers: %s", l.body)
	}
	g.must(http.StatusForbidden, "PUT", "/v1/phone-numbers/299", `{"waba_id":"100"}`, other...)
	g.must(http.StatusForbidden, "POST", "/v1/keys", `{"name":"x","scopes":["admin"]}`, other...)

	slow := []string{"Authorization", "Bearer " + g.key(`{"name":"slow","scopes":["read"],"requests_per_second":1}`)}
	limited := false
	for range 20 {
		if a := g.do("GET", "/v1/messages", "", slow...); a.status == http.StatusTooManyRequests {
			limited = a.header.Get("Retry-After") == "1"
			break
		}
	}
	if !limited {
		t.Error("20 requests at 1 a second: none got 429 with Retry-After: 1")
	}

	g.must(http.StatusNoContent, "DELETE", made.header.Get("Location"), "")
	g.must(http.StatusNotFound, "DELETE", made.header.Get("Location"), "")
	g.must(http.StatusUnauthorized, "POST", "/v1/messages", text(""), as...)
	for body, pointers := range map[string][]string{
		`{}`:                                   {"/name", "/scopes"},
		`{"name":"x","scopes":[]}`:             {"/scopes"},
		`{"name":"x","scopes":["root"]}`:       {"/scopes"},
		`{"name":"x","scopes":"send"}`:         {"/scopes"},
		`{"name":"x","scopes":["send"],"y":1}`: {"/y"},
		`{"name":"x","scopes":["send"],"phone_numbers":["+1"],"requests_per_second":0}`: {"/phone_numbers", "/requests_per_second"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/keys", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%s: %q, want %q", body, a.pointers(), pointers)
		}
	}
}

func TestBootstrapKeyIsReplaced(t *testing.T) {
	g := start(t)
	if err := g.access.Bootstrap(t.Context(), "wg_another-admin-key-987654321"); err != nil {
		t.Fatal(err)
	}
	g.must(http.StatusOK, "GET", "/v1/keys", "", "Authorization", "Bearer wg_another-admin-key-987654321")
	var n int
	if err := g.pool.QueryRow(t.Context(), `SELECT count(*) FROM api_keys WHERE name = 'admin'`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d keys named admin, %v", n, err)
	}
}
