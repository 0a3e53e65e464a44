package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// heard makes the webhooks of the phone number heard without a gap for two days.
func (g *gateway) heard() {
	g.t.Helper()
	g.exec(`INSERT INTO phone_spans (phone_number_id, since, at) VALUES ($1, now() - interval '2 days', now())`, phone)
	g.exec(`INSERT INTO listening (since, at) VALUES (now() - interval '2 days', now())`)
}

func TestSuppressions(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/wabas/101", `{}`)
	a := g.must(http.StatusCreated, "POST", "/v1/suppressions", `{"waba_id":"100","user":"+55 11 98765-4321","reason":"by mail"}`)
	all, _ := a.json["suppressions"].([]any)
	one, _ := all[0].(map[string]any)
	if len(all) != 1 || one["user"] != "5511987654321" || one["source"] != "operator" || one["category"] != "marketing" || one["reason"] != "by mail" || one["until"] != nil || one["since"] == nil {
		t.Errorf("%s", a.body)
	}
	g.must(http.StatusCreated, "POST", "/v1/suppressions", `{"waba_id":"100","users":["12025550101","US.77"],"until":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	list := func(query string) (users []string, next string) {
		t.Helper()
		a := g.must(http.StatusOK, "GET", "/v1/suppressions"+query, "")
		all, _ := a.json["suppressions"].([]any)
		for _, x := range all {
			m, _ := x.(map[string]any)
			user, _ := m["user"].(string)
			users = append(users, user)
		}
		return users, a.str("next_cursor")
	}
	var users []string
	for query, pages := "?limit=2", 0; ; pages++ {
		page, next := list(query)
		if users = append(users, page...); next == "" || pages > 3 {
			break
		}
		query = "?limit=2&cursor=" + next
	}
	slices.Sort(users)
	if want := []string{"12025550101", "5511987654321", "US.77"}; !slices.Equal(users, want) {
		t.Errorf("%v, want %v", users, want)
	}
	for query, want := range map[string]int{"?waba_id=101": 0, "?waba_id=100&user=551187654321": 1, "?user=%2B5511987654321": 1, "?source=keyword": 0, "?source=operator": 3} {
		if got, _ := list(query); len(got) != want {
			t.Errorf("%s: %v, want %d", query, got, want)
		}
	}
	if a := g.must(http.StatusOK, "DELETE", "/v1/suppressions?waba_id=100&user=551187654321", ""); a.json["lifted"] != 1.0 {
		t.Errorf("%s", a.body)
	}
	id, _ := one["id"].(string)
	g.must(http.StatusNotFound, "DELETE", "/v1/suppressions/"+id, "")
	g.must(http.StatusNotFound, "DELETE", "/v1/suppressions/x", "")
	a = g.must(http.StatusOK, "GET", "/v1/suppressions?user=US.77", "")
	all, _ = a.json["suppressions"].([]any)
	one, _ = all[0].(map[string]any)
	id, _ = one["id"].(string)
	g.must(http.StatusNoContent, "DELETE", "/v1/suppressions/"+id, "")
	if got, _ := list(""); len(got) != 1 {
		t.Errorf("%v are left", got)
	}

	for body, want := range map[string]string{
		`{}`: "/user /waba_id", `{"waba_id":"999","user":"12025550101"}`: "/waba_id", `{"waba_id":"100","user":"nobody"}`: "/user",
		`{"waba_id":"100","user":"123"}`: "/user", `{"waba_id":"100","user":"12025550101","users":["12025550102"]}`: "/users",
		`{"waba_id":"100","users":[]}`: "/users", `{"waba_id":"100","users":["12025550101","x"]}`: "/users/1",
		`{"waba_id":"100","user":"12025550101","until":"2020-01-01T00:00:00Z"}`: "/until", `{"waba_id":"100","user":"12025550101","for":1}`: "/for",
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/suppressions", body); strings.Join(a.pointers(), " ") != want {
			t.Errorf("%s: %v, want %s", body, a.pointers(), want)
		}
	}
	for _, path := range []string{"?user=x", "?source=me", "?limit=0", "?cursor=1", "?page=1"} {
		g.must(http.StatusBadRequest, "GET", "/v1/suppressions"+path, "")
	}
	for _, path := range []string{"", "?waba_id=100", "?user=12025550101", "?waba_id=100&user=x", "?waba_id=100&user=12025550101&all=1"} {
		g.must(http.StatusBadRequest, "DELETE", "/v1/suppressions"+path, "")
	}
	sender := g.key(`{"name":"app","scopes":["send","read"]}`)
	g.must(http.StatusForbidden, "GET", "/v1/suppressions", "", "Authorization", "Bearer "+sender)
}

func TestKeywordsOfAWABA(t *testing.T) {
	g := start(t)
	a := g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"name":"Shop","opt_out_keywords":{"en":["STOP","Unsubscribe"],"pt_BR":["PARAR"]},"opt_in_keywords":{"en":["START"]}}`)
	if got := fmt.Sprint(a.json["opt_out_keywords"], a.json["opt_in_keywords"]); got != "map[en:[STOP Unsubscribe] pt_BR:[PARAR]] map[en:[START]]" {
		t.Errorf("%s", got)
	}
	a = g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"opt_out_keywords":{"it":["BASTA"],"pt_BR":null}}`)
	if got := fmt.Sprint(a.json["name"], a.json["opt_out_keywords"], a.json["opt_in_keywords"]); got != "Shopmap[en:[STOP Unsubscribe] it:[BASTA]] map[en:[START]]" {
		t.Errorf("%s", got)
	}
	a = g.must(http.StatusOK, "PATCH", "/v1/wabas/100", `{"opt_out_keywords":null,"opt_in_keywords":null}`)
	if got := fmt.Sprint(a.json["opt_out_keywords"], a.json["opt_in_keywords"]); got != "map[] map[]" {
		t.Errorf("%s", got)
	}
	for body, want := range map[string]string{
		`{"opt_out_keywords":["STOP"]}`: "/opt_out_keywords", `{"opt_out_keywords":{"english!":["STOP"]}}`: "/opt_out_keywords",
		`{"opt_out_keywords":{"en":"STOP"}}`: "/opt_out_keywords/en", `{"opt_out_keywords":{"en":["!"]}}`: "/opt_out_keywords/en/0",
		`{"opt_out_keywords":{"en":["` + strings.Repeat("a", 65) + `"]}}`:         "/opt_out_keywords/en/0",
		`{"opt_out_keywords":{"en":["Stop!"]},"opt_in_keywords":{"it":["stop"]}}`: "/opt_in_keywords",
	} {
		if a := g.must(http.StatusUnprocessableEntity, "PUT", "/v1/wabas/100", body); strings.Join(a.pointers(), " ") != want {
			t.Errorf("%s: %v, want %s", body, a.pointers(), want)
		}
	}
}

func TestAClosedWindowIsRefused(t *testing.T) {
	g := start(t)
	g.must(http.StatusUnprocessableEntity, "PUT", "/v1/phone-numbers/"+phone, `{"waba_id":"100","window_check":"on"}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/"+phone, `{"waba_id":"100","window_check":"enforce"}`)
	window := func() (state, reason string) {
		t.Helper()
		a := g.must(http.StatusOK, "GET", "/v1/windows?phone_number_id="+phone+"&user=%2B16505551234", "")
		return a.str("state"), a.str("reason")
	}
	if state, reason := window(); state != "unknown" || reason != "gateways_were_down" {
		t.Errorf("%s %s before anything was heard", state, reason)
	}
	g.must(http.StatusAccepted, "POST", "/v1/messages", text("")) // nobody knows
	g.heard()
	if state, reason := window(); state != "closed" || reason != "" {
		t.Errorf("%s %s", state, reason)
	}
	before := g.stored()
	for _, path := range []string{"/v1/messages", "/v1/messages/validate"} {
		a := g.must(http.StatusUnprocessableEntity, "POST", path, text(""))
		if a.str("code") != "window_closed" || strings.Join(a.pointers(), " ") != "/to" || !strings.Contains(a.body, "131047") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	batch := g.must(http.StatusOK, "POST", "/v1/messages/batch", `{"messages":[`+text("")+`,`+
		strings.Replace(text(""), "+16505551234", "+16505559999", 1)+`,{"from":"`+phone+`","to":"+16505551234","type":"template","template":{"name":"hello","language":{"code":"en"}}}]}`)
	if got := strings.Count(batch.body, `"code":"window_closed"`); got != 2 || !strings.Contains(batch.body, `"id":`) {
		t.Errorf("%d refused of a batch: %s", got, batch.body)
	}
	graph := g.sendGraph(`{"messaging_product":"whatsapp","to":"16505551234","type":"text","text":{"body":"hi"}}`)
	if graph.status != http.StatusBadRequest || !strings.Contains(graph.body, `"code":131047`) {
		t.Errorf("ingress: %d %s", graph.status, graph.body)
	}
	if n := g.stored() - before; n != 2 {
		t.Errorf("%d rows for the one template", n)
	}
	// For later, or with a fallback, it is for its turn to say.
	g.must(http.StatusAccepted, "POST", "/v1/messages", text(`,"gateway":{"send_at":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`))
	a := g.must(http.StatusAccepted, "POST", "/v1/messages", text(`,"gateway":{"fallback_template":{"name":"hello","language":{"code":"en_US"},"category":"utility"}}`))
	a = g.must(http.StatusOK, "GET", "/v1/messages/"+a.str("id"), "")
	if got := fmt.Sprint(a.json["fallback"]); got != "map[instead_of:<nil> language:en_US name:hello used_at:<nil>]" || a.str("type") != "text" {
		t.Errorf("%s", a.body)
	}
	// The same request was in time before.
	g.exec(`INSERT INTO service_windows (phone_number_id, wa_id, until) VALUES ($1, '16505551234', now() + interval '1 hour')`, phone)
	keyed := g.must(http.StatusAccepted, "POST", "/v1/messages", text(""), "Idempotency-Key", "k")
	if state, _ := window(); state != "open" {
		t.Errorf("%s", state)
	}
	g.exec(`DELETE FROM service_windows`)
	if again := g.must(http.StatusOK, "POST", "/v1/messages", text(""), "Idempotency-Key", "k"); again.str("id") != keyed.str("id") {
		t.Errorf("%s", again.body)
	}
	g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", text(""), "Idempotency-Key", "k2")

	for _, query := range []string{"", "?phone_number_id=" + phone, "?user=16505551234", "?phone_number_id=" + phone + "&user=x", "?phone_number_id=" + phone + "&user=16505551234&x=1"} {
		g.must(http.StatusBadRequest, "GET", "/v1/windows"+query, "")
	}
	g.must(http.StatusNotFound, "GET", "/v1/windows?phone_number_id=999&user=16505551234", "")
	bound := g.key(`{"name":"bound","scopes":["read"],"phone_numbers":["999"]}`)
	g.must(http.StatusNotFound, "GET", "/v1/windows?phone_number_id="+phone+"&user=16505551234", "", "Authorization", "Bearer "+bound)
}

func TestAFallbackTemplateIsChecked(t *testing.T) {
	g := start(t)
	for _, c := range []struct{ fallback, want string }{
		{`"hello"`, "/gateway/fallback_template"},
		{`{}`, "/gateway/fallback_template/language /gateway/fallback_template/name"},
		{`{"name":"Hello","language":{"code":"en"}}`, "/gateway/fallback_template/name"},
		{`{"name":"hello","language":{"code":"english"},"components":[{"type":"body","parameters":[{"type":"text"}]}]}`, "/gateway/fallback_template/components/0/parameters/0/text /gateway/fallback_template/language/code"},
		{`{"name":"hello","language":{"code":"en"},"category":"service"}`, "/gateway/fallback_template/category"},
		{`{"name":"hello","language":{"code":"en"},"category":"ads"}`, "/gateway/fallback_template/category"},
	} {
		a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", text(`,"gateway":{"fallback_template":`+c.fallback+`}`))
		if got := strings.Join(a.pointers(), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.fallback, got, c.want)
		}
	}
	template := `{"from":"` + phone + `","to":"+16505551234","type":"template","template":{"name":"hello","language":{"code":"en"}},"gateway":{"fallback_template":{"name":"hello","language":{"code":"en"}}}}`
	if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/messages", template); strings.Join(a.pointers(), " ") != "/gateway/fallback_template" {
		t.Errorf("%s", a.body)
	}
}
