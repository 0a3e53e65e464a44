package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"wagate/internal/store"
)

// pauses lists what is in force, by scope, value and source.
func (g *gateway) pauses() map[string]map[string]any {
	g.t.Helper()
	all := map[string]map[string]any{}
	list, _ := g.must(http.StatusOK, "GET", "/v1/pauses", "").json["pauses"].([]any)
	for _, p := range list {
		m, _ := p.(map[string]any)
		all[fmt.Sprint(m["scope"], " ", m["value"], " ", m["source"])] = m
	}
	return all
}

func TestPauses(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{}`)
	if got := g.must(http.StatusOK, "GET", "/v1/pauses", "").body; got != "{\"pauses\":[]}\n" {
		t.Errorf("without pauses: %s", got)
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
	made := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"phone","value":"`+phone+`","reason":"a wrong template","until":"`+until+`"}`)
	if got := fields(made.json); got != "code created_at id level reason scope source until value" {
		t.Errorf("fields %q", got)
	}
	if made.str("scope") != "phone" || made.str("value") != phone || made.str("reason") != "a wrong template" || made.str("source") != "operator" ||
		made.str("until") != until || made.json["code"] != nil || made.json["level"] != 0.0 {
		t.Errorf("made: %s", made.body)
	}
	g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"waba","value":"100","until":null}`)
	g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"app","value":"900"}`)
	all := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"all"}`)
	if all.json["until"] != nil || all.str("value") != "" || all.str("reason") != "" {
		t.Errorf("all, without an end: %s", all.body)
	}
	// The answers' own form is taken back.
	if again := g.must(http.StatusOK, "POST", "/v1/pauses", `{"scope":"all","value":"","reason":"x"}`); again.str("id") != all.str("id") {
		t.Errorf("all again: %s", again.body)
	}

	// The second of a scope and value replaces the first, its end too.
	second := g.must(http.StatusOK, "POST", "/v1/pauses", `{"scope":"phone","value":"`+phone+`","reason":"until we know"}`)
	if second.str("id") != made.str("id") || second.json["until"] != nil || second.str("reason") != "until we know" || second.str("created_at") != made.str("created_at") {
		t.Errorf("replaced: %s, was %s", second.body, made.body)
	}
	listed := g.pauses()
	if len(listed) != 4 || listed["all  operator"] == nil || listed["app 900 operator"] == nil || listed["waba 100 operator"] == nil ||
		listed["phone "+phone+" operator"]["reason"] != "until we know" {
		t.Errorf("listed: %v", listed)
	}

	for _, p := range listed {
		g.must(http.StatusNoContent, "DELETE", fmt.Sprint("/v1/pauses/", p["id"]), "")
		g.must(http.StatusNotFound, "DELETE", fmt.Sprint("/v1/pauses/", p["id"]), "")
	}
	g.must(http.StatusNotFound, "DELETE", "/v1/pauses/none", "")
	if left := g.pauses(); len(left) != 0 {
		t.Errorf("after lifting all: %v", left)
	}
}

func TestAPauseOfAThrottleIsListedAndLifted(t *testing.T) {
	g := start(t)
	throttle := func(until time.Time) {
		t.Helper()
		err := g.store.Throttled(t.Context(), store.Pause{Scope: "waba", Value: "100", Reason: "Rate limit hit", Source: "throttle", Code: 80007, Level: 2, Until: until})
		if err != nil {
			t.Fatal(err)
		}
	}
	throttle(time.Now().Add(-time.Minute))
	if ended := g.pauses(); len(ended) != 0 {
		t.Errorf("an ended pause is listed: %v", ended)
	}
	throttle(time.Now().Add(time.Hour))
	operator := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"waba","value":"100","reason":"told to"}`)
	listed := g.pauses()
	p := listed["waba 100 throttle"]
	if len(listed) != 2 || p["code"] != 80007.0 || p["level"] != 2.0 || p["reason"] != "Rate limit hit" || p["until"] == nil {
		t.Fatalf("listed: %v", listed)
	}
	g.must(http.StatusNoContent, "DELETE", fmt.Sprint("/v1/pauses/", p["id"]), "")
	if left := g.pauses(); len(left) != 1 || left["waba 100 operator"]["id"] != operator.str("id") {
		t.Errorf("after lifting the throttle's: %v", left)
	}
}

// What comes after an ended pause is a new one, and workers forget the ended one.
func TestAnEndedPauseIsNotReplaced(t *testing.T) {
	g := start(t)
	first := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"waba","value":"100"}`)
	if inForce, err := g.store.Pauses(t.Context()); err != nil || len(inForce) != 1 || time.Until(inForce[0].Until) < 300*24*time.Hour {
		t.Errorf("for the workers: %v, %v", inForce, err)
	}
	if _, err := g.pool.Exec(t.Context(), `UPDATE pauses SET until = clock_timestamp() - interval '1 second', created_at = created_at - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	if inForce, err := g.store.Pauses(t.Context()); err != nil || len(inForce) != 0 {
		t.Errorf("for the workers, after its end: %v, %v", inForce, err)
	}
	second := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"waba","value":"100"}`)
	if second.str("id") == first.str("id") || second.str("created_at") < first.str("created_at") {
		t.Errorf("the second is the first: %s, %s", first.body, second.body)
	}
	g.must(http.StatusNotFound, "DELETE", "/v1/pauses/"+first.str("id"), "")
	g.must(http.StatusNoContent, "DELETE", "/v1/pauses/"+second.str("id"), "")
}

func TestAPausedMessageSaysSo(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/apps/900", `{}`)
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"app_id":"900"}`)
	key := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"shop","scopes":["send","read"]}`)
	as := []string{"Authorization", "Bearer " + key.str("key")}
	send := func(body string) string {
		t.Helper()
		return g.must(http.StatusAccepted, "POST", "/v1/messages", `{"from":"`+phone+`","to":"+16505551234",`+body+`}`, as...).str("id")
	}
	template := send(`"type":"template","template":{"name":"order_shipped","language":{"code":"en_US"}},"gateway":{"priority":"low","tags":{"campaign":"black-friday","shop":"7"}}`)
	flow := send(`"type":"interactive","interactive":{"type":"flow","body":{"text":"x"},"action":{"name":"flow","parameters":{"flow_message_version":"3","flow_id":"1234567","flow_cta":"Go","flow_token":"t"}}}`)
	for _, c := range []struct{ scope, value, id string }{
		{"all", "", template}, {"app", "900", template}, {"waba", "100", template}, {"phone", phone, template},
		{"template", "order_shipped", template}, {"template", "order_shipped/en_US", template}, {"template", "100:order_shipped", template},
		{"template", "100:order_shipped/en_US", template}, {"tag", "campaign=black-friday", template}, {"tag", "campaign", template},
		{"key", key.str("id"), template}, {"priority", "low", template}, {"flow", "1234567", flow}, {"flow", "100:1234567", flow},
	} {
		p := g.must(http.StatusCreated, "POST", "/v1/pauses", fmt.Sprintf(`{"scope":%q,"value":%q,"reason":"told to"}`, c.scope, c.value))
		held, _ := g.must(http.StatusOK, "GET", "/v1/messages/"+c.id, "").json["held_by"].(map[string]any)
		if held["kind"] != "pause" || held["scope"] != c.scope || held["reason"] != "told to" || held["until"] != nil || c.value != "" && held["value"] != c.value {
			t.Errorf("%s %s: held by %v", c.scope, c.value, held)
		}
		if listed := g.must(http.StatusOK, "GET", "/v1/messages", "").body; !strings.Contains(listed, `"reason":"told to"`) {
			t.Errorf("%s %s: the list does not say so: %s", c.scope, c.value, listed)
		}
		g.must(http.StatusNoContent, "DELETE", "/v1/pauses/"+p.str("id"), "")
		if m := g.must(http.StatusOK, "GET", "/v1/messages/"+c.id, ""); m.json["held_by"] != nil {
			t.Errorf("%s %s lifted: held by %v", c.scope, c.value, m.json["held_by"])
		}
	}
	for _, c := range []struct{ scope, value string }{
		{"template", "order"}, {"template", "order_shipped/en"}, {"template", "101:order_shipped"}, {"tag", "campaign=black"}, {"tag", "black-friday"},
		{"priority", "urgent"}, {"flow", "123456"}, {"flow", "101:1234567"}, {"flow", "order_shipped"},
	} {
		p := g.must(http.StatusCreated, "POST", "/v1/pauses", fmt.Sprintf(`{"scope":%q,"value":%q}`, c.scope, c.value))
		for _, id := range []string{template, flow} {
			if m := g.must(http.StatusOK, "GET", "/v1/messages/"+id, ""); m.json["held_by"] != nil {
				t.Errorf("a pause of %s %s holds another: %v", c.scope, c.value, m.json["held_by"])
			}
		}
		g.must(http.StatusNoContent, "DELETE", "/v1/pauses/"+p.str("id"), "")
	}
}

func TestPausesRefuse(t *testing.T) {
	g := start(t)
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for body, pointers := range map[string][]string{
		`[]`:                              {""},
		`{}`:                              {"/scope"},
		`{"scope":1}`:                     {"/scope"},
		`{"scope":"world"}`:               {"/scope"},
		`{"scope":"all","value":"100"}`:   {"/value"},
		`{"scope":"waba"}`:                {"/value"},
		`{"scope":"waba","value":""}`:     {"/value"},
		`{"scope":"waba","value":100}`:    {"/value"},
		`{"scope":"all","minutes":5}`:     {"/minutes"},
		`{"scope":"all","until":"later"}`: {"/until"},
		`{"scope":"all","reason":5}`:      {"/reason"},
		`{"scope":"all","until":"` + in(-time.Second) + `"}`:                                            {"/until"},
		`{"scope":"all","until":"` + in(367*24*time.Hour) + `"}`:                                        {"/until"},
		`{"scope":"all","reason":"` + strings.Repeat("ä", 256) + `"}`:                                   {"/reason"},
		`{"scope":"app","value":"` + strings.Repeat("9", 65) + `","reason":7,"until":false,"source":1}`: {"/reason", "/source", "/until", "/value"},
	} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/pauses", body); !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%s: %q, want %q", body, a.pointers(), pointers)
		}
	}
	for scope, values := range map[string][]string{
		"waba":     {"1 00", "100/en"},
		"template": {"Order", "order shipped", "order/", "order/en/US", "100:", ":order", "100:200:order"},
		"flow":     {"a flow", ":1", "1:2:3"},
		"tag":      {"=x", "="},
		"key":      {"shop", "01997b32-8a00-7000-8000"},
		"priority": {"0", "Urgent", "highest"},
	} {
		for _, value := range values {
			a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/pauses", fmt.Sprintf(`{"scope":%q,"value":%q}`, scope, value))
			if !slices.Equal(a.pointers(), []string{"/value"}) || !strings.Contains(a.body, "must be") {
				t.Errorf("%s %s: %s", scope, value, a.body)
			}
		}
	}
	if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/pauses", `{"scope":"world"}`); !strings.Contains(a.body, "must be all, app, waba, phone, template, flow, tag, key or priority") {
		t.Errorf("what may be paused is not said: %s", a.body)
	}
	if a := g.must(http.StatusNotFound, "POST", "/v1/pauses", `{"scope":"key","value":"01997b32-8a00-7000-8000-000000000009"}`); !slices.Equal(a.pointers(), []string{"/value"}) {
		t.Errorf("no such key: %s", a.body)
	}
	for _, scope := range []string{"app", "waba", "phone"} {
		if a := g.must(http.StatusNotFound, "POST", "/v1/pauses", `{"scope":"`+scope+`","value":"404"}`); !slices.Equal(a.pointers(), []string{"/value"}) {
			t.Errorf("no such %s: %s", scope, a.body)
		}
	}
	g.must(http.StatusBadRequest, "POST", "/v1/pauses", `{"scope":"all"`)
	if stored := g.pauses(); len(stored) != 0 {
		t.Errorf("stored in spite of it: %v", stored)
	}

	// The longest reason and the latest end are taken.
	p := g.must(http.StatusCreated, "POST", "/v1/pauses", `{"scope":"all","reason":"`+strings.Repeat("ä", 255)+`","until":"`+in(364*24*time.Hour)+`"}`)
	for name, key := range map[string]string{
		"send and read": g.key(`{"name":"app","scopes":["send","read"]}`),
		"bound":         g.key(`{"name":"bound","scopes":["manage"],"phone_numbers":["` + phone + `"]}`),
	} {
		as := []string{"Authorization", "Bearer " + key}
		for _, r := range [][3]string{{"POST", "/v1/pauses", `{"scope":"all"}`}, {"GET", "/v1/pauses", ""}, {"DELETE", "/v1/pauses/" + p.str("id"), ""}} {
			if a := g.do(r[0], r[1], r[2], as...); a.status != http.StatusForbidden {
				t.Errorf("%s: %s %s: %d", name, r[0], r[1], a.status)
			}
		}
	}
	manager := []string{"Authorization", "Bearer " + g.key(`{"name":"ops","scopes":["manage"]}`)}
	g.must(http.StatusOK, "GET", "/v1/pauses", "", manager...)
	g.must(http.StatusNoContent, "DELETE", "/v1/pauses/"+p.str("id"), "", manager...)
	g.must(http.StatusUnauthorized, "GET", "/v1/pauses", "", "Authorization", "Bearer no")
}
