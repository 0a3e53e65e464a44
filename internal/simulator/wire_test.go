package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wired is a simulator behind a real listener.
type wired struct {
	t      *testing.T
	sim    *Server
	url    string
	client *http.Client
}

func wire(t *testing.T, cfg Config) *wired {
	t.Helper()
	sim := New(cfg)
	sim.Start(t.Context())
	srv := httptest.NewServer(sim.Handler())
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		sim.Close()
		transport.CloseIdleConnections()
		srv.Close()
	})
	return &wired{t, sim, srv.URL, &http.Client{Transport: transport, Timeout: time.Minute}}
}

func (w *wired) call(method, path, body string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer token")
	req.Header.Set("X-Wagate-Worker", "worker-1")
	res, err := w.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("calling: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the answer: %w", err)
	}
	return res, out, nil
}

func (w *wired) want(status int, method, path, body string) []byte {
	w.t.Helper()
	res, out, err := w.call(method, path, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	if res.StatusCode != status {
		w.t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, out, status)
	}
	return out
}

func TestConnectionsAreCutOnTheWire(t *testing.T) {
	w := wire(t, Config{})
	const path = "/v23.0/" + testPhone + "/messages"
	for _, last4 := range []string{"0007", "0018", "0012"} {
		_, _, err := w.call(http.MethodPost, path, text(last4, "g1:x"+last4+":1"))
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: error %v, want a cut connection", last4, err)
		}
	}
	got := w.sim.Ledger().Totals
	if got.Accepted != 2 || got.DroppedAnswers != 2 || got.Resets != 1 {
		t.Errorf("totals %+v", got)
	}
	w.want(http.StatusOK, http.MethodPost, path, text("0012", "g1:x0012:2"))
	if res, body, err := w.call(http.MethodPost, path, text("0009", "")); err != nil || res.StatusCode != 502 || len(body) != 0 {
		t.Errorf("0009: %v %q %v", res, body, err)
	}
}

func TestCloseLetsSlowAnswersGo(t *testing.T) {
	w := wire(t, Config{SlowAnswer: time.Hour})
	answered := make(chan error, 1)
	go func() {
		_, _, err := w.call(http.MethodPost, "/v23.0/1/messages", text("0013", ""))
		answered <- err
	}()
	for w.sim.Ledger().Totals.SlowAnswers == 0 {
		w.want(http.StatusOK, http.MethodGet, "/_sim/health", "") // yields to the other request
	}
	w.sim.Close()
	if err := <-answered; err != nil {
		t.Errorf("slow answer: %v", err)
	}
}

func TestControlOverHTTP(t *testing.T) {
	taken := make(chan string, 10)
	hookServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !hmac.Equal([]byte(r.Header.Get("X-Hub-Signature-256")), []byte(sign("s2", body))) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		taken <- string(body)
	}))
	t.Cleanup(hookServer.Close)
	w := wire(t, Config{PhonePerSecond: 1000})
	w.want(204, http.MethodPut, "/_sim/phones/7", `{"waba_id":"70","app_id":"71","per_second":2}`)
	w.want(204, http.MethodPut, "/_sim/limits", `{"scope":"phone","id":"7","per_second":1,"window_ms":3600000}`)
	w.want(204, http.MethodPut, "/_sim/webhook", fmt.Sprintf(`{"url":%q,"app_secret":"s2"}`, hookServer.URL))
	w.want(204, http.MethodPut, "/_sim/latency", `{"latency_ms":1,"jitter_ms":1,"status_delay_ms":1}`)
	w.want(204, http.MethodPost, "/_sim/webhooks/hold", "")
	w.want(200, http.MethodPost, "/v23.0/7/messages", text("0003", "g1:a:1"))
	w.want(400, http.MethodPost, "/v23.0/7/messages", text("0003", "g1:b:1"))
	select {
	case body := <-taken:
		t.Errorf("held, and posted %s", body)
	default:
	}
	w.want(204, http.MethodPost, "/_sim/webhooks/release", "")
	if body := <-taken; !strings.Contains(body, `"biz_opaque_callback_data":"g1:a:1"`) {
		t.Errorf("webhook %s", body)
	}

	var led Ledger
	for led.Totals.StatusesPending > 0 || led.Totals.Accepted == 0 {
		if err := json.Unmarshal(w.want(200, http.MethodGet, "/_sim/ledger", ""), &led); err != nil {
			t.Fatal(err)
		}
	}
	p := led.Phones[0]
	if p.ID != "7" || p.WABAID != "70" || p.AppID != "71" || p.Accepted != 1 || p.ThrottledLimit != 1 || p.Statuses.Sent != 1 || led.Workers["worker-1"] != 1 {
		t.Errorf("ledger %+v", led)
	}
	var page struct {
		Messages []Accept
		Next     int64
	}
	if err := json.Unmarshal(w.want(200, http.MethodGet, "/_sim/ledger/messages?after=0&limit=5", ""), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Messages) != 1 || page.Next != 1 || page.Messages[0].OurID != "a" || page.Messages[0].Worker != "worker-1" || page.Messages[0].Statuses[0] != "sent" {
		t.Errorf("page %+v", page)
	}
	w.want(204, http.MethodPost, "/_sim/reset", "")
	if got := w.sim.Ledger().Totals; got.Accepted != 0 {
		t.Errorf("totals %+v", got)
	}

	for _, bad := range [][3]string{
		{http.MethodPut, "/_sim/limits", `{"scope":"planet"}`},
		{http.MethodPut, "/_sim/limits", `{"scope":"phone","per_second":-1}`},
		{http.MethodPut, "/_sim/limits", `{"scope":"phone","rate":1}`},
		{http.MethodPut, "/_sim/phones/7", `[]`},
		{http.MethodPut, "/_sim/phones/seven", `{}`},
		{http.MethodPut, "/_sim/webhook", `{"url":"somewhere"}`},
		{http.MethodPut, "/_sim/latency", `{"latency_ms":"1"}`},
		{http.MethodGet, "/_sim/ledger/messages?after=x", ""},
		{http.MethodGet, "/_sim/ledger/messages?limit=-1", ""},
	} {
		if out := w.want(400, bad[0], bad[1], bad[2]); !bytes.Contains(out, []byte(`"error"`)) {
			t.Errorf("%v: %s", bad, out)
		}
	}
	w.want(404, http.MethodGet, "/_sim/nothing", "")
	w.want(404, http.MethodGet, "/_sim/reset", "")
}

// TestConcurrentRequestsHoldTheLimit: whatever the interleaving, the accepts as
// recorded hold no more than the limit in any sliding second, every request is
// answered, and every status arrives.
func TestConcurrentRequestsHoldTheLimit(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	hookServer := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var h hook
		if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
			t.Errorf("webhook: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range h.Entry {
			for _, c := range e.Changes {
				for _, st := range c.Value.Statuses {
					seen[st.ID+st.Status]++
				}
			}
		}
	}))
	t.Cleanup(hookServer.Close)
	w := wire(t, Config{PhonePerSecond: 300, WABAPerSecond: 500, WebhookURL: hookServer.URL, StatusDelay: -1})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100 {
				_, _, err := w.call(http.MethodPost, fmt.Sprintf("/v23.0/%d/messages", i%4), text("1234", fmt.Sprintf("g1:%d-%d:1", i, j)))
				if err != nil {
					t.Errorf("message: %v", err)
				}
			}
		})
	}
	wg.Wait()
	led := w.sim.Ledger()
	if led.Totals.Accepted+led.Totals.ThrottledLimit != 1600 || led.Totals.Accepted < 500 || led.Totals.Duplicates != 0 {
		t.Errorf("totals %+v", led.Totals)
	}
	byPhone, all := map[string][]time.Duration{}, []time.Duration{}
	for _, a := range w.sim.Accepts(0, 10_000) {
		at := time.Duration(a.ArrivalUnixNS)
		byPhone[a.Phone] = append(byPhone[a.Phone], at)
		all = append(all, at)
	}
	for _, p := range led.Phones {
		if got := Peak(byPhone[p.ID], time.Second); got != p.PeakPerSecond || got > 300 {
			t.Errorf("phone %s: peak %d, ledger %d, limit 300", p.ID, got, p.PeakPerSecond)
		}
	}
	if got := Peak(all, time.Second); got != led.WABAs[0].PeakPerSecond || got > 500 {
		t.Errorf("WABA: peak %d, ledger %d, limit 500", got, led.WABAs[0].PeakPerSecond)
	}
	for w.sim.Ledger().Totals.StatusesPending > 0 {
		w.want(200, http.MethodGet, "/_sim/health", "")
	}
	mu.Lock()
	defer mu.Unlock()
	if int64(len(seen)) != 2*led.Totals.Accepted {
		t.Errorf("%d distinct statuses for %d accepts", len(seen), led.Totals.Accepted)
	}
}

// BenchmarkMessages is the cost of one accepted message without the network.
func BenchmarkMessages(b *testing.B) {
	s := New(Config{})
	handler := s.Handler()
	body := text("1234", "g1:0198c0de-0000-7000-8000-000000000001:1")
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v23.0/1/messages", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer x")
		handler.ServeHTTP(httptest.NewRecorder(), req)
	}
}

// TestViewsWhileMessagesCome: the views count what is there, without stopping it.
func TestViewsWhileMessagesCome(t *testing.T) {
	w := wire(t, Config{PhonePerSecond: 200})
	var senders, viewers sync.WaitGroup
	done := make(chan struct{})
	viewers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := w.sim.Rates(time.Second, 0, 0); err != nil {
				t.Errorf("rates: %v", err)
			}
			w.sim.Refusals(0, 100)
			w.sim.Ledger()
		}
	})
	for i := range 8 {
		senders.Go(func() {
			for range 100 {
				if _, _, err := w.call(http.MethodPost, fmt.Sprintf("/v23.0/%d/messages", i%2), text("1234", "")); err != nil {
					t.Errorf("message: %v", err)
				}
			}
		})
	}
	senders.Wait()
	close(done)
	viewers.Wait()
	rates, err := w.sim.Rates(100*time.Millisecond, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var accepted int64
	for _, counts := range rates.Phones {
		for _, n := range counts {
			accepted += int64(n)
		}
	}
	totals := w.sim.Ledger().Totals
	if accepted != totals.Accepted || int64(len(w.sim.Refusals(0, 10_000))) != totals.ThrottledPhone || accepted+totals.ThrottledPhone != 800 {
		t.Errorf("rates %d, refusals %d, totals %+v", accepted, len(w.sim.Refusals(0, 10_000)), totals)
	}
}
