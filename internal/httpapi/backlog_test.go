package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// retryAfter reads the header.
func (a answer) retryAfter() int { n, _ := strconv.Atoi(a.header.Get("Retry-After")); return n }

func TestBacklogLimits(t *testing.T) {
	g := start(t)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/"+phone, `{"waba_id":"100","max_backlog":3}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/201", `{"waba_id":"100"}`)
	for range 3 {
		g.must(http.StatusAccepted, "POST", "/v1/messages", text(""))
	}
	for _, path := range []string{"/v1/messages", "/v1/messages/validate"} {
		a := g.must(http.StatusTooManyRequests, "POST", path, text(""))
		if a.str("code") != "phone_backlog_full" || a.retryAfter() < 1 || !slices.Equal(a.pointers(), []string{"/from"}) {
			t.Errorf("%s: %s, Retry-After %d", path, a.body, a.retryAfter())
		}
	}
	// In a batch each message has its own answer, and others are not hit.
	other := strings.Replace(text(""), phone, "201", 1)
	a := g.must(http.StatusOK, "POST", "/v1/messages/batch", `{"messages":[`+text("")+`,`+other+`]}`)
	results, _ := a.json["results"].([]any)
	if len(results) != 2 {
		t.Fatal(a.body)
	}
	first, _ := results[0].(map[string]any)
	second, _ := results[1].(map[string]any)
	problem, _ := first["error"].(map[string]any)
	if after, _ := problem["retry_after"].(float64); problem["status"] != 429.0 || problem["code"] != "phone_backlog_full" || after < 1 || second["id"] == nil {
		t.Errorf("batch: %s", a.body)
	}
	s := g.must(http.StatusOK, "POST", "/v1/messages/batch", text("")+"\n"+other+"\n", "Content-Type", "application/x-ndjson")
	if lines := strings.Split(strings.TrimSpace(s.body), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `"retry_after":`) || !strings.Contains(lines[1], `"id":`) {
		t.Errorf("stream: %s", s.body)
	}
}

func TestLimitsOfAKey(t *testing.T) {
	g := start(t)
	made := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"shop","scopes":["send"],"messages_per_day":3,"max_backlog":2}`)
	if shown := g.must(http.StatusOK, "GET", made.header.Get("Location"), ""); made.json["max_backlog"] != 2.0 || shown.json["max_backlog"] != 2.0 || shown.json["messages_per_day"] != 3.0 {
		t.Errorf("made %s, shown %s", made.body, shown.body)
	}
	if without := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"x","scopes":["send"],"max_backlog":null}`); without.json["max_backlog"] != nil {
		t.Errorf("without one: %s", without.body)
	}
	for _, bad := range []string{`0`, `-1`, `1.5`, `"2"`, `1e10`} {
		if a := g.must(http.StatusUnprocessableEntity, "POST", "/v1/keys", fmt.Sprintf(`{"name":"x","scopes":["send"],"max_backlog":%s}`, bad)); !slices.Equal(a.pointers(), []string{"/max_backlog"}) {
			t.Errorf("%s: %s", bad, a.body)
		}
	}
	bearer := []string{"Authorization", "Bearer " + made.str("key")}
	post := func(status int) answer {
		t.Helper()
		return g.must(status, "POST", "/v1/messages", text(""), bearer...)
	}
	post(http.StatusAccepted)
	post(http.StatusAccepted)
	if a := post(http.StatusTooManyRequests); a.str("code") != "key_backlog_full" || a.retryAfter() < 1 {
		t.Errorf("backlog: %s", a.body)
	}
	daily := g.must(http.StatusCreated, "POST", "/v1/keys", `{"name":"daily","scopes":["send"],"messages_per_day":1}`)
	bearer[1] = "Bearer " + daily.str("key")
	post(http.StatusAccepted)
	if a := post(http.StatusTooManyRequests); a.str("code") != "day_limit_reached" || a.retryAfter() < 1 || a.retryAfter() > 24*3600 {
		t.Errorf("day: %s, Retry-After %d", a.body, a.retryAfter())
	}
}
