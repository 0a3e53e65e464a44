package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"wagate/internal/access"
	"wagate/internal/callback"
	"wagate/internal/consent"
	"wagate/internal/graphproxy"
	"wagate/internal/httpapi"
	"wagate/internal/intake"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/reach"
	"wagate/internal/seal"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

const (
	phone    = "200000000000001"
	adminKey = "wg_test-admin-key-0123456789"
)

// gateway is the API on a server of its own, with one WABA and one phone number.
type gateway struct {
	t      *testing.T
	url    string
	client *http.Client
	pool   *pgxpool.Pool
	store  *store.Store
	access *access.Access
	sealer *seal.Sealer
	log    *logBuffer
	// backlog is what waits in each lane.
	backlog map[int]int64
	// meta answers what is forwarded to the Graph API.
	meta http.HandlerFunc
	deps httpapi.Deps
}

// logBuffer keeps the log.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func start(t *testing.T) *gateway {
	t.Helper()
	pool := pgtest.New(t)
	sealer, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, pool: pool, store: store.New(pool), sealer: sealer, log: &logBuffer{}, backlog: map[int]int64{3: 2}, client: &http.Client{Timeout: 30 * time.Second}}
	logger := slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.access = access.New(g.store, time.Now)
	if err := g.access.Bootstrap(t.Context(), adminKey); err != nil {
		t.Fatal(err)
	}
	jobs, err := queue.NewInserter(pool, logger)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	in := intake.New(g.store, jobs, logger, registry, time.Now)
	t.Cleanup(in.Close)
	windows := consent.NewWindows(g.store)
	t.Cleanup(windows.Close)
	in.CheckWindows(windows.Closed)
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.meta(w, r) }))
	graph, err := graphproxy.New(graphproxy.Deps{Store: g.store, Sealer: sealer, Links: sealer, GraphURL: meta.URL, Logger: logger, Registerer: registry, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { graph.Close(); meta.Close() })
	callbacks := callback.NewClient(reach.New([]string{"10.0.0.0/8"}, true))
	t.Cleanup(callbacks.Close)
	g.deps = httpapi.Deps{
		Callbacks: callbacks,
		Intake:    in, Access: g.access, Store: g.store, Sealer: sealer, Ready: pool.Ping, Registerer: registry, Gatherer: registry,
		Webhook:      http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug") }),
		Graph:        graph,
		Windows:      windows,
		GraphVersion: "v24.0",
		Backlog:      func(context.Context, string) (map[int]int64, error) { return g.backlog, nil },
		MetricsAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Logger: logger, Now: time.Now,
	}
	api, err := httpapi.New(g.deps)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = api.Server()
	server.Start()
	t.Cleanup(func() { g.client.CloseIdleConnections(); server.Close() })
	g.url = server.URL
	g.must(http.StatusOK, "PUT", "/v1/wabas/100", `{"name":"Shop"}`)
	g.must(http.StatusOK, "PUT", "/v1/phone-numbers/"+phone, `{"waba_id":"100"}`)
	return g
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (a answer) pointers() []string {
	list, _ := a.json["errors"].([]any)
	var pointers []string
	for _, e := range list {
		m, _ := e.(map[string]any)
		p, _ := m["pointer"].(string)
		pointers = append(pointers, p)
	}
	slices.Sort(pointers)
	return pointers
}

func (a answer) str(name string) string { s, _ := a.json[name].(string); return s }

// do makes a request with the admin key; headers come as name, value, … and may replace it.
func (g *gateway) do(method, path, body string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminKey)
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
	if a.status >= 400 && (resp.Header.Get("Content-Type") != "application/problem+json" || a.json["status"] != float64(a.status) || a.str("title") == "") {
		g.t.Errorf("%s %s: %d is no problem document: %s", method, path, a.status, a.body)
	}
	return a
}

func (g *gateway) must(status int, method, path, body string, headers ...string) answer {
	g.t.Helper()
	a := g.do(method, path, body, headers...)
	if a.status != status {
		g.t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	return a
}

// key makes a key and gives it.
func (g *gateway) key(body string) string {
	g.t.Helper()
	return g.must(http.StatusCreated, "POST", "/v1/keys", body).str("key")
}

func (g *gateway) stored() (n int) {
	g.t.Helper()
	err := g.pool.QueryRow(g.t.Context(), `SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM river_job) + (SELECT count(*) FROM idempotency_keys)`).Scan(&n)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

func text(extra string) string {
	return `{"from":"` + phone + `","to":"+16505551234","type":"text","text":{"body":"hello"}` + extra + `}`
}

func fields(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
