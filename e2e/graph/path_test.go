package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/pgtest"
	"wagate/internal/seal"
	"wagate/internal/simulator"
)

const (
	from     = "201"
	waba     = "100"
	ingress  = "/v23.0/" + from + "/messages"
	lite     = "/v23.0/" + from + "/marketing_messages"
	own      = "/v1/messages"
	validate = "/v1/messages/validate"
)

// path is a gateway and a worker before the simulator, whose accepted bodies are kept beside its ledger.
type path struct {
	t    *testing.T
	sim  *simulator.Server
	url  string
	http *http.Client

	mu   sync.Mutex
	came map[string]wired // by biz_opaque_callback_data, or a receipt's message_id
}

// wired is what came to the Cloud API.
type wired struct {
	path string
	body []byte
}

func newPath(t *testing.T) *path {
	t.Helper()
	pool, err := app.OpenPool(t.Context(), pgtest.DSN(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	p := &path{t: t, sim: simulator.New(simulator.Config{Token: metaToken, StatusDelay: time.Millisecond}), http: &http.Client{Timeout: 30 * time.Second}, came: map[string]wired{}}
	p.sim.Start(context.WithoutCancel(t.Context()))
	cloud := p.sim.Handler()
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "messages") && r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("a body that broke off: %v", err)
			}
			p.keep(r.URL.Path, body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		cloud.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { p.sim.Close(); meta.Close() })
	p.sim.SetPhone(from, simulator.PhoneConfig{WABAID: waba, AppID: "300", PerSecond: -1})
	cfg := config.Config{
		Listen: "127.0.0.1:0", GraphURL: meta.URL, GraphVersion: "v23.0", SecretKey: config.NewSecret(string(seal.NewKey())), AdminKey: config.NewSecret(apiKey),
		IdempotencyKeep: 24 * time.Hour,
	}
	log := slog.New(slog.DiscardHandler)
	gateway, err := app.StartGateway(t.Context(), cfg, pool, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := gateway.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the gateway: %v", err)
		}
	})
	p.url = gateway.URL()
	p.sim.SetWebhook(p.url+"/webhooks/whatsapp", "an app secret of this test")
	for at, body := range map[string]string{"apps/300": `{"app_secret":"an app secret of this test"}`} {
		p.must(http.MethodPut, "/v1/"+at, body)
	}
	p.must(http.MethodPut, "/v1/wabas/"+waba, `{"app_id":"300","access_token":"`+metaToken+`"}`)
	p.must(http.MethodPut, "/v1/phone-numbers/"+from, `{"waba_id":"`+waba+`","messages_per_second":null,"pair":null}`)
	worker, err := app.StartWorker(t.Context(), cfg, pool, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := worker.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the worker: %v", err)
		}
	})
	return p
}

func (p *path) keep(at string, body []byte) {
	var m struct {
		Opaque  string `json:"biz_opaque_callback_data"`
		Receipt string `json:"message_id"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		p.t.Errorf("what came is no message: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came[m.Opaque+m.Receipt] = wired{at, body}
}

func (p *path) post(at, body string, headers ...string) (status int, answer string) {
	p.t.Helper()
	return p.ask(http.MethodPost, at, body, headers...)
}

func (p *path) must(method, at, body string) {
	p.t.Helper()
	if status, answer := p.ask(method, at, body); status >= 300 {
		p.t.Fatalf("%s %s: %d %s", method, at, status, answer)
	}
}

func (p *path) ask(method, at, body string, headers ...string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+at, struct{ io.Reader }{strings.NewReader(body)}) // chunked, as Meta's own SDK writes it
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+apiKey)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// accepted waits until the simulator's ledger has so many messages, and gives them by our ids.
func (p *path) accepted(n int) map[string]simulator.Accept {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		found := map[string]simulator.Accept{}
		for _, a := range p.sim.Accepts(0, 10_000) {
			found[a.OurID] = a
		}
		if len(found) >= n {
			return found
		}
		select {
		case <-ctx.Done():
			p.t.Fatalf("the simulator has accepted %d of %d: %+v", len(found), n, p.sim.Ledger().Totals)
		case <-tick.C:
		}
	}
}
