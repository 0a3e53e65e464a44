package httpapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/httpapi"
)

const metaToken = "EAAxTokenOfOne0123456789abcdef"

// forwarded starts a gateway whose WABA has a token, and gives it with what reaches Meta: the method, the address and the
// headers of each request.
func forwarded(t *testing.T) (*gateway, func() []string) {
	t.Helper()
	g := start(t)
	var mu sync.Mutex
	var seen []string
	g.meta = func(w http.ResponseWriter, r *http.Request) {
		var h strings.Builder
		_ = r.Header.Write(&h)
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.RequestURI()+"\n"+h.String())
		mu.Unlock()
		_, _ = io.WriteString(w, `{"id":"`+phone+`"}`)
	}
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"name":"Shop","access_token":"`+metaToken+`"}`)
	return g, func() []string {
		mu.Lock()
		defer mu.Unlock()
		now := seen
		seen = nil
		return now
	}
}

// graph makes a call of the Graph API, with the headers that are given alone.
func (g *gateway) graph(method, path, body string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := g.client.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(raw)}
	_ = json.Unmarshal(raw, &a.json) // what is no object has no fields to look at
	return a
}

// graphError says that an answer is an error in Graph's envelope.
func graphError(t *testing.T, what string, a answer, status, code int) {
	t.Helper()
	e, _ := a.json["error"].(map[string]any)
	if a.status != status || a.header.Get("Content-Type") != "application/json" || e["code"] != float64(code) || e["message"] == "" || e["type"] == "" ||
		e["fbtrace_id"] != a.header.Get("X-Request-Id") || a.header.Get("X-Request-Id") == "" {
		t.Errorf("%s: %d %v %s, want %d with code %d", what, a.status, a.header, a.body, status, code)
	}
}

// A Cloud API client puts its token where it likes; Meta sees the account's, and nobody's log sees either.
func TestGraphKeys(t *testing.T) {
	g, seen := forwarded(t)
	key := g.key(`{"name":"shop","scopes":["read"],"phone_numbers":["` + phone + `"]}`)
	path := "/v23.0/" + phone + "?fields=id"
	for name, c := range map[string][]string{
		"Bearer": {path, "Authorization", "Bearer " + key}, "bearer": {path, "Authorization", "bearer " + key}, "OAuth": {path, "Authorization", "OAuth " + key},
		"query": {path + "&access_token=" + key}, "query first": {"/v23.0/" + phone + "?access_token=" + key + "&fields=id"}, "the header first": {path + "&access_token=EAAother", "Authorization", "OAuth " + key},
		"without a minor version": {"/v23/" + phone + "?fields=id", "Authorization", "Bearer " + key},
	} {
		a := g.graph("GET", c[0], "", c[1:]...)
		if a.status != http.StatusOK || a.body != `{"id":"`+phone+`"}` {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		got := seen()
		version, _, _ := strings.Cut(c[0][1:], "/")
		if len(got) != 1 || !strings.HasPrefix(got[0], "GET /"+version+"/"+phone+"?fields=id\n") || !strings.Contains(got[0], "Authorization: Bearer "+metaToken+"\r\n") || strings.Contains(got[0], key) {
			t.Errorf("%s: Meta got %q", name, got)
		}
	}
	for name, headers := range map[string][]string{"none": nil, "wrong": {"Authorization", "Bearer wg_wrong"}, "Meta's own": {"Authorization", "Bearer " + metaToken}, "Basic": {"Authorization", "Basic " + key}} {
		a := g.graph("GET", path, "", headers...)
		graphError(t, name, a, http.StatusUnauthorized, 190)
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "OAuth ") {
			t.Errorf("%s: %v", name, a.header)
		}
	}
	graphError(t, "a scope that lacks", g.graph("POST", "/v23.0/"+phone+"/whatsapp_business_profile", "{}", "Authorization", "Bearer "+key), http.StatusForbidden, 10)
	graphError(t, "a phone number that is not the key's", g.graph("GET", "/v23.0/999/settings", "", "Authorization", "Bearer "+key), http.StatusBadRequest, 100)
	if got := seen(); len(got) != 0 {
		t.Errorf("Meta got %q", got)
	}
	for _, secret := range []string{key, metaToken, adminKey} {
		if strings.Contains(g.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	if !strings.Contains(g.log.String(), `"route":"/:version/*"`) {
		t.Error("the log has no line of a call")
	}
}

// Clients that leave the version out are served as with the one that is set.
func TestGraphWithoutVersion(t *testing.T) {
	g, seen := forwarded(t)
	auth := []string{"Authorization", "Bearer " + adminKey}
	for path, want := range map[string]string{
		"/" + phone + "?fields=id": "/v24.0/" + phone + "?fields=id", "/" + phone + "/settings": "/v24.0/" + phone + "/settings",
		"/" + phone + "/flows%2Bx": "/v24.0/" + phone + "/flows+x",
	} {
		a := g.graph("GET", path, "", auth...)
		if got := seen(); a.status != http.StatusOK || len(got) != 1 || !strings.HasPrefix(got[0], "GET "+want+"\n") {
			t.Errorf("%s: %d %s, Meta got %q, want %s", path, a.status, a.body, got, want)
		}
	}
	a := g.graph("POST", "/"+phone+"/messages", `{"messaging_product":"whatsapp","to":"16505551234","type":"text","text":{"body":"hello"}}`, auth...)
	if sent, _ := a.json["messages"].([]any); a.status != http.StatusOK || len(sent) != 1 {
		t.Errorf("a message: %d %s", a.status, a.body)
	}
	graphError(t, "without a key", g.graph("GET", "/"+phone, ""), http.StatusUnauthorized, 190)
	graphError(t, "no message", g.graph("POST", "/"+phone+"/messages", "{}", auth...), http.StatusBadRequest, 100)
	graphError(t, "a method", g.graph("PUT", "/"+phone, "", auth...), http.StatusMethodNotAllowed, 100)
	if got := seen(); len(got) != 0 {
		t.Errorf("Meta got %q", got)
	}
	for _, path := range []string{"/", "/1x/messages", "/x/1", "/" + strings.Repeat("1", 33)} {
		if none := g.do("GET", path, ""); none.status != http.StatusNotFound || none.str("code") != "not_found" {
			t.Errorf("%s: %d %s", path, none.status, none.body)
		}
	}
}

// What is wrong is told in Graph's envelope on these paths, and as a problem on the others, which they take nothing from.
func TestGraphErrors(t *testing.T) {
	g, seen := forwarded(t)
	auth := []string{"Authorization", "Bearer " + adminKey}
	for _, c := range []struct {
		method, path string
		status, code int
	}{
		{"GET", "/v23.0", 404, 100}, {"GET", "/v23.0/", 400, 100}, {"PUT", "/v23.0/1", 405, 100}, {"PATCH", "/v23.0/1/x", 405, 100}, {"GET", "/v2/999/flows", 400, 100},
		{"POST", "/v23.0/" + phone + "/messages", 400, 100}, {"POST", "/v23.0/" + phone + "/marketing_messages", 400, 100}, {"GET", "/v23.0/a/../b", 400, 100},
	} {
		graphError(t, c.method+" "+c.path, g.graph(c.method, c.path, "", auth...), c.status, c.code)
	}
	if got := seen(); len(got) != 0 {
		t.Errorf("Meta got %q", got)
	}
	for _, path := range []string{"/v1/none", "/v1", "/v0.0/1", "/vx/1", "/v23.0x/1", "/x/v23.0/1"} {
		if a := g.do("GET", path, ""); a.status != http.StatusNotFound || a.str("code") != "not_found" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := g.do("DELETE", "/v1/messages", ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("DELETE /v1/messages: %d %s", a.status, a.body)
	}

	limited := g.key(`{"name":"few","scopes":["read"],"requests_per_second":1}`)
	var last answer
	for range 3 {
		last = g.graph("GET", "/v23.0/"+phone, "", "Authorization", "Bearer "+limited)
	}
	graphError(t, "too many", last, http.StatusTooManyRequests, 4)
	if last.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", last.header.Get("Retry-After"))
	}
	g.meta = func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	graphError(t, "a write that is cut", g.graph("POST", "/v23.0/"+phone+"/settings", "{}", auth...), http.StatusBadGateway, 1)

	g.pool.Close()
	a := g.graph("GET", "/v23.0/"+phone, "", auth...)
	graphError(t, "the database away", a, http.StatusServiceUnavailable, 2)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// Without a forwarder the paths are not there.
func TestNoGraph(t *testing.T) {
	g := start(t)
	deps := g.deps
	registry := prometheus.NewRegistry()
	deps.Graph, deps.Registerer, deps.Gatherer = nil, registry, registry
	api, err := httpapi.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api)
	defer server.Close()
	defer g.client.CloseIdleConnections()
	g.url = server.URL
	for _, path := range []string{"/v23.0/" + phone, "/" + phone} {
		if a := g.do("GET", path, ""); a.status != http.StatusNotFound || a.str("code") != "not_found" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
