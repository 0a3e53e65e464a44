// Package cluster runs worker processes, a gateway and the simulator against a real Postgres, and compares what the
// simulator saw with what the database says.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/pgtest"
	"wagate/internal/seal"
	"wagate/internal/simulator"
)

// asWorker and asGateway make this test binary a process of the product.
const (
	asWorker  = "WAGATE_E2E_WORKER"
	asGateway = "WAGATE_E2E_GATEWAY"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asWorker) != "":
		os.Exit(play(app.RunWorker))
	case os.Getenv(asGateway) != "":
		os.Exit(play(func(ctx context.Context, lookup func(string) (string, bool), logTo io.Writer) error {
			return app.RunGateway(ctx, lookup, logTo, app.ServeOptions{})
		}))
	}
	pgtest.Main(m)
}

func play(run func(ctx context.Context, lookup func(string) (string, bool), logTo io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // ends with its test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	if err := run(ctx, os.LookupEnv, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "ended:", err)
		return 1
	}
	return 0
}

// cluster is a database, a simulator and a gateway in this process, and worker processes.
type cluster struct {
	t       testing.TB
	dsn     string
	pool    *pgxpool.Pool
	sim     *simulator.Server
	simURL  string
	secret  string
	gateway *app.Gateway
	key     string
	http    *http.Client
}

const appSecret = "an app secret of this test"

func newCluster(t testing.TB, simCfg simulator.Config) *cluster {
	t.Helper()
	return newClusterOn(t, pgtest.DSN(t), simCfg)
}

// newClusterOn is newCluster on a migrated database of the caller's.
func newClusterOn(t testing.TB, dsn string, simCfg simulator.Config) *cluster {
	t.Helper()
	c := &cluster{t: t, dsn: dsn, key: "wg_test_0123456789abcdef", http: &http.Client{Timeout: 30 * time.Second}}
	var err error
	if c.pool, err = app.OpenPool(t.Context(), c.dsn, 16); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.pool.Close)
	c.sim = simulator.New(simCfg)
	c.sim.Start(context.WithoutCancel(t.Context()))
	srv := httptest.NewServer(c.sim.Handler())
	c.simURL = srv.URL
	t.Cleanup(func() { c.sim.Close(); srv.Close() })
	cfg := config.Config{
		Listen: "127.0.0.1:0", GraphURL: srv.URL, GraphVersion: "v23.0", SecretKey: config.NewSecret(string(seal.NewKey())), AdminKey: config.NewSecret(c.key),
		IdempotencyKeep: 24 * time.Hour, CallbackLoopback: true,
	}
	c.secret = cfg.SecretKey.Value()
	c.gateway, err = app.StartGateway(t.Context(), cfg, c.pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.gateway.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the gateway: %v", err)
		}
	})
	c.sim.SetWebhook(c.gateway.URL()+"/webhooks/whatsapp", appSecret)
	c.call(http.MethodPut, "/v1/apps/300", map[string]any{"app_secret": appSecret}, nil)
	return c
}

// phone sets a phone number up on both sides: rate is what the gateway sends a second, limit what the simulator lets
// through; 0 means none.
func (c *cluster) phone(waba, phone string, rate float64, limit int) {
	c.t.Helper()
	c.call(http.MethodPut, "/v1/wabas/"+waba, map[string]any{"name": waba, "app_id": "300", "access_token": "token"}, nil)
	body := map[string]any{"waba_id": waba, "display_phone_number": "+1 202-555-0100", "messages_per_second": nil}
	if rate > 0 {
		body["messages_per_second"] = rate
	}
	c.call(http.MethodPut, "/v1/phone-numbers/"+phone, body, nil)
	if limit == 0 {
		limit = -1
	}
	c.sim.SetPhone(phone, simulator.PhoneConfig{WABAID: waba, AppID: "300", PerSecond: limit})
}

// call asks the gateway's API and fails the test when it refuses.
func (c *cluster) call(method, path string, body, into any) {
	c.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.gateway.URL()+path, bytes.NewReader(raw))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if res.StatusCode >= 300 {
		c.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, answer)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			c.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// accept hands messages in, in batches of 1,000.
func (c *cluster) accept(phone string, messages []map[string]any) {
	c.t.Helper()
	for len(messages) > 0 {
		n := min(len(messages), 1000)
		for _, m := range messages[:n] {
			m["from"] = phone
		}
		var answer struct {
			Results []struct {
				ID string `json:"id"`
			} `json:"results"`
		}
		c.call(http.MethodPost, "/v1/messages/batch", map[string]any{"messages": messages[:n]}, &answer)
		for i, r := range answer.Results {
			if r.ID == "" {
				c.t.Fatalf("message %d of a batch was refused", i)
			}
		}
		if len(answer.Results) != n {
			c.t.Fatalf("%d results for %d messages", len(answer.Results), n)
		}
		messages = messages[n:]
	}
}

// texts makes n text messages to different numbers, all of which are delivered.
func texts(n int) []map[string]any {
	all := make([]map[string]any, n)
	for i := range all {
		all[i] = map[string]any{"to": fmt.Sprintf("+1202%07d0100", i), "type": "text", "text": map[string]any{"body": "hello"}}
	}
	return all
}

// worker is a process: a worker, or a gateway.
type worker struct {
	c    *cluster
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended, once done is closed
	log  lockedBuffer
	once sync.Once
}

// startWorker starts a worker process with the given extra settings.
func (c *cluster) startWorker(settings ...string) *worker {
	c.t.Helper()
	return c.start(asWorker, settings...)
}

// startGateway starts a second gateway, as a process, and waits until it is ready.
func (c *cluster) startGateway() (w *worker, url string) {
	c.t.Helper()
	address := freeAddress(c.t)
	w, url = c.start(asGateway, "WAGATE_LISTEN="+address, "WAGATE_ADMIN_KEY="+c.key), "http://"+address
	c.until(time.Minute, "the gateway to be ready", func(ctx context.Context) (bool, string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
		if err != nil {
			return false, err.Error()
		}
		res, err := c.http.Do(req)
		if err != nil {
			return false, err.Error()
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	return w, url
}

// start starts this binary as a process of the product.
func (c *cluster) start(role string, settings ...string) *worker {
	c.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	w := &worker{c: c, cmd: exec.Command(exe), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), append([]string{
		role + "=1", "DATABASE_URL=" + c.dsn, "WAGATE_SECRET_KEY=" + encode(c.secret), "WAGATE_GRAPH_URL=" + c.simURL, "WAGATE_WORKER_LISTEN=127.0.0.1:0",
	}, settings...)...)
	if _, err := w.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	w.cmd.Stderr = &w.log
	if err := w.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		w.err = w.cmd.Wait()
	}()
	c.t.Cleanup(func() {
		w.kill()
		if c.t.Failed() {
			c.t.Logf("log of process %d:\n%s", w.cmd.Process.Pid, w.log.tail(40))
		}
	})
	return w
}

func (w *worker) signal(s os.Signal) {
	w.c.t.Helper()
	if err := w.cmd.Process.Signal(s); err != nil {
		w.c.t.Fatalf("signal %v to worker %d: %v", s, w.cmd.Process.Pid, err)
	}
}

// kill ends the process with SIGKILL and waits for it.
func (w *worker) kill() {
	w.once.Do(func() {
		_ = w.cmd.Process.Kill()
		<-w.done
	})
}

// stop ends the process with SIGTERM and gives its exit error.
func (w *worker) stop() (err error) {
	w.once.Do(func() {
		w.signal(syscall.SIGTERM)
		<-w.done
		err = w.err
	})
	return err
}

// until waits for a condition on the database and the ledger.
func (c *cluster) until(bound time.Duration, what string, done func(ctx context.Context) (bool, string)) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), bound)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := done(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("waiting %v for %s: %s; ledger %+v", bound, what, state, c.sim.Ledger().Totals)
		case <-tick.C:
		}
	}
}

// untilStatus waits until n messages have one of the statuses.
func (c *cluster) untilStatus(bound time.Duration, n int, statuses ...string) {
	c.t.Helper()
	c.until(bound, fmt.Sprintf("%d messages %v", n, statuses), func(ctx context.Context) (bool, string) {
		counts := c.statuses(ctx)
		got := 0
		for _, s := range statuses {
			got += counts[s]
		}
		return got >= n, fmt.Sprint(counts)
	})
}

func (c *cluster) statuses(ctx context.Context) map[string]int {
	counts := map[string]int{}
	rows, err := c.pool.Query(ctx, `SELECT status, count(*) FROM messages GROUP BY status`)
	if err != nil {
		return counts
	}
	var status string
	var n int
	_, _ = pgx.ForEachRow(rows, []any{&status, &n}, func() error { counts[status] = n; return nil })
	return counts
}

// accepts gives everything the simulator accepted, in its order.
func (c *cluster) accepts() []simulator.Accept {
	var all []simulator.Accept
	for after := int64(0); ; {
		page := c.sim.Accepts(after, 10_000)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

// lockedBuffer keeps a process's log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for s := bufio.NewScanner(bytes.NewReader(l.b.Bytes())); s.Scan(); {
		all = append(all, s.Text())
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
