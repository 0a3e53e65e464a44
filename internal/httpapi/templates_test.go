package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/cloudapi"
	"wagate/internal/httpapi"
	"wagate/internal/template"
)

// templateList is Meta's list of templates.
type templateList struct {
	body  string
	err   error
	token error
}

func (l *templateList) Get(context.Context, string, url.Values, string) ([]byte, error) {
	return []byte(l.body), l.err
}

// withTemplates is start with a list that can be refreshed, and a second WABA with a number of its own.
func withTemplates(t *testing.T) (*gateway, *templateList) {
	t.Helper()
	g := start(t)
	list := &templateList{body: `{"data":[{"id":"7","name":"hello","language":"en_US","status":"APPROVED","category":"UTILITY","parameter_format":"POSITIONAL","components":[{"type":"BODY","text":"Hello"}]},
		{"id":"8","name":"hello","language":"de","status":"PENDING","category":"UTILITY"},{"id":"9","name":"sale","language":"en","status":"APPROVED","category":"MARKETING","quality_score":{"score":"GREEN"}}]}`}
	deps := g.deps
	deps.Registerer = prometheus.NewRegistry()
	deps.Templates = template.NewSyncer(template.SyncConfig{Store: g.store, Graph: list, Token: func(context.Context, string) (string, error) { return "token", list.token }})
	api, err := httpapi.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = api.Server()
	server.Start()
	t.Cleanup(func() { g.client.CloseIdleConnections(); server.Close() })
	g.url = server.URL
	g.must(http.StatusOK, "PUT", "/v1/wabas/200", `{"name":"Other"}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/200000000000002", `{"waba_id":"200"}`)
	return g, list
}

func names(a answer) string {
	list, _ := a.json["templates"].([]any)
	var all []string
	for _, e := range list {
		m, _ := e.(map[string]any)
		all = append(all, m["waba_id"].(string)+":"+m["name"].(string)+"/"+m["language"].(string))
	}
	return strings.Join(all, " ")
}

func TestTemplateList(t *testing.T) {
	g, _ := withTemplates(t)
	if a := g.must(http.StatusOK, "GET", "/v1/templates", ""); names(a) != "" || a.json["synced_at"] != nil || a.json["complete"] != false || a.json["age_seconds"] != nil {
		t.Errorf("before the first list: %s", a.body)
	}
	for _, waba := range []string{"100", "200"} {
		if a := g.must(http.StatusOK, "GET", "/v1/templates?refresh=true&waba_id="+waba, ""); names(a) != waba+":hello/de "+waba+":hello/en_US "+waba+":sale/en" || a.json["complete"] != true || a.json["synced_at"] == nil {
			t.Errorf("%s", a.body)
		}
	}
	for query, want := range map[string]string{
		"":                        "100:hello/de 100:hello/en_US 100:sale/en 200:hello/de 200:hello/en_US 200:sale/en",
		"waba_id=200&name=hello":  "200:hello/de 200:hello/en_US",
		"language=en-US":          "100:hello/en_US 200:hello/en_US",
		"status=pending":          "100:hello/de 200:hello/de",
		"category=marketing":      "100:sale/en 200:sale/en",
		"status=GONE":             "",
		"limit=2&waba_id=100":     "100:hello/de 100:hello/en_US",
		"refresh=false&limit=200": "100:hello/de 100:hello/en_US 100:sale/en 200:hello/de 200:hello/en_US 200:sale/en",
	} {
		if a := g.must(http.StatusOK, "GET", "/v1/templates?"+query, ""); names(a) != want {
			t.Errorf("%s: %s, want %s", query, names(a), want)
		}
	}
	// Page after page is the whole.
	var all []string
	for path := "/v1/templates?limit=1"; path != ""; {
		a := g.must(http.StatusOK, "GET", path, "")
		all = append(all, names(a))
		path = ""
		if next := a.str("next_cursor"); next != "" {
			path = "/v1/templates?limit=1&cursor=" + next
		}
	}
	if got := strings.Join(all, " "); got != "100:hello/de 100:hello/en_US 100:sale/en 200:hello/de 200:hello/en_US 200:sale/en" {
		t.Errorf("page by page: %s", got)
	}
	for _, query := range []string{"waba_id=a/b", "name=Hello", "language=e", "status=a-b", "limit=0", "limit=201", "cursor=%21", "cursor=W10x", "refresh=perhaps", "other=1", "name=a&name=b", "name="} {
		g.must(http.StatusBadRequest, "GET", "/v1/templates?"+query, "")
	}
	a := g.must(http.StatusOK, "GET", "/v1/templates/100/hello", "")
	languages, _ := a.json["languages"].([]any)
	if len(languages) != 2 || a.str("waba_id") != "100" || a.str("name") != "hello" || a.json["checked"] != true || a.json["problem"] != nil {
		t.Errorf("%s", a.body)
	}
	one, _ := languages[1].(map[string]any)
	const want = "category components components_sure first_seen_at gone_at id language listed_at name next_category next_category_at parameter_format quality quality_at quality_before rejected_reason status status_at waba_id"
	if fields(one) != want || one["components"] == nil || one["gone_at"] != nil {
		t.Errorf("%v", one)
	}
	for _, path := range []string{"/v1/templates/100/none", "/v1/templates/999/hello", "/v1/templates/100/Hello", "/v1/templates/1%2F0/hello"} {
		g.must(http.StatusNotFound, "GET", path, "")
	}
}

// A key sees the templates of its numbers' WABAs, whatever it may otherwise; only one that may manage has them read.
func TestWhoSeesTemplates(t *testing.T) {
	g, list := withTemplates(t)
	g.must(http.StatusOK, "GET", "/v1/templates?refresh=1&waba_id=100", "")
	g.must(http.StatusOK, "GET", "/v1/templates?refresh&waba_id=200", "")
	bound := `"phone_numbers":["` + phone + `"]`
	for name, c := range map[string]struct {
		key  string
		want string
	}{
		"sender":  {g.key(`{"name":"a","scopes":["send"],` + bound + `}`), "100:hello/de 100:hello/en_US 100:sale/en"},
		"reader":  {g.key(`{"name":"b","scopes":["read"],` + bound + `}`), "100:hello/de 100:hello/en_US 100:sale/en"},
		"manager": {g.key(`{"name":"c","scopes":["manage"],` + bound + `}`), "100:hello/de 100:hello/en_US 100:sale/en"},
		"all":     {g.key(`{"name":"d","scopes":["read"]}`), "100:hello/de 100:hello/en_US 100:sale/en 200:hello/de 200:hello/en_US 200:sale/en"},
	} {
		as := []string{"Authorization", "Bearer " + c.key}
		if a := g.must(http.StatusOK, "GET", "/v1/templates", "", as...); names(a) != c.want {
			t.Errorf("%s: %s", name, names(a))
		}
		status := http.StatusNotFound
		if name == "all" {
			status = http.StatusOK
		}
		g.must(status, "GET", "/v1/templates?waba_id=200", "", as...)
		g.must(status, "GET", "/v1/templates/200/hello", "", as...)
		status = http.StatusForbidden
		if name == "manager" {
			status = http.StatusOK
			g.must(http.StatusNotFound, "GET", "/v1/templates?refresh=true&waba_id=200", "", as...)
		}
		g.must(status, "GET", "/v1/templates?refresh=true&waba_id=100", "", as...)
	}
	g.must(http.StatusUnauthorized, "GET", "/v1/templates", "", "Authorization", "Bearer nobody")
	if a := g.must(http.StatusBadRequest, "GET", "/v1/templates?refresh=true", ""); !strings.Contains(a.str("detail"), "waba_id") {
		t.Errorf("a refresh of which WABA: %s", a.body)
	}
	// What stands against a refresh.
	for _, c := range []struct {
		set    func()
		status int
		code   string
	}{
		{func() { list.token = template.ErrNoToken }, http.StatusConflict, "no_access_token"},
		{func() { list.token, list.err = nil, &cloudapi.Error{Code: 190, Title: "Access token has expired"} }, http.StatusBadGateway, "graph_error"},
		{func() { list.err = errors.New("connection refused") }, http.StatusBadGateway, "graph_unreachable"},
		{func() { list.err = context.DeadlineExceeded }, http.StatusGatewayTimeout, "timeout"},
		{func() {
			list.err = nil
			g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"name":"Shop","management_calls_per_hour":1}`)
		}, http.StatusTooManyRequests, "management_calls_spent"},
	} {
		c.set()
		a := g.must(c.status, "GET", "/v1/templates?refresh=true&waba_id=100", "")
		if a.str("code") != c.code || c.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
			t.Errorf("%s, want %s: %s", a.str("code"), c.code, a.body)
		}
	}
	if a := g.must(http.StatusOK, "GET", "/v1/templates/100/hello", ""); a.str("problem") == "" || a.json["checked"] != true {
		t.Errorf("the list of before counts, and the problem is shown: %s", a.body)
	}
}
