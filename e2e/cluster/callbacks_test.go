package cluster

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/simulator"
)

// client is where callbacks go: a server on the loopback interface, which only a worker of this process may reach.
type client struct {
	server *httptest.Server
	mu     sync.Mutex
	// at is when each message's status came first, order what came of each message, ids the webhook-ids.
	at    map[string]time.Time
	order map[string][]string
	ids   map[string]bool
}

func newClient(t testing.TB) *client {
	t.Helper()
	c := newClientUnstarted()
	c.server.Start()
	t.Cleanup(c.server.Close)
	return c
}

func newClientUnstarted() *client {
	c := &client{at: map[string]time.Time{}, order: map[string][]string{}, ids: map[string]bool{}}
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		now := time.Now()
		body, _ := io.ReadAll(r.Body)
		var e struct{ Data struct{ ID, Status string } }
		_ = json.Unmarshal(body, &e)
		c.mu.Lock()
		defer c.mu.Unlock()
		id := r.Header.Get("webhook-id")
		if c.ids[id] {
			return
		}
		c.ids[id] = true
		c.at[e.Data.ID+e.Data.Status] = now
		c.order[e.Data.ID] = append(c.order[e.Data.ID], e.Data.Status)
	}))
	return c
}

func (c *client) came() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

// startHere starts a worker in this process: one that may post to the loopback interface.
func (c *cluster) startHere() *app.Worker {
	c.t.Helper()
	cfg := config.Config{
		GraphURL: c.simURL, GraphVersion: "v23.0", SecretKey: config.NewSecret(c.secret), PostTimeout: 5 * time.Second, UnknownAfter: time.Minute, CallbackLoopback: true,
	}
	pool, err := app.OpenPool(c.t.Context(), c.dsn, 16)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(pool.Close)
	w, err := app.StartWorker(c.t.Context(), cfg, pool, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.stopHere(w) })
	return w
}

func (c *cluster) stopHere(w *app.Worker) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 30*time.Second)
	defer cancel()
	if err := w.Stop(ctx); err != nil {
		c.t.Errorf("stopping a worker: %v", err)
	}
}

// tell posts a status of Meta's, signed.
func (c *cluster) tell(id, word string) error {
	body := fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"100","changes":[{"field":"messages","value":{"messaging_product":"whatsapp",
		"metadata":{"display_phone_number":"12025550100","phone_number_id":"101"},"statuses":[{"id":"wamid.%s","status":"%s","timestamp":"%d",
		"recipient_id":"12025550100","biz_opaque_callback_data":"g1:%s:1"}]}}]}]}`, id, word, time.Now().Unix(), id)
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write(body)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.gateway.URL()+"/webhooks/whatsapp", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("a webhook was answered %d", res.StatusCode)
	}
	return nil
}

// told has n messages sent whose callbacks go to an address, and waits until their acceptance was told there.
func (c *cluster) told(to string, n int, cl *client) []string {
	c.t.Helper()
	before := cl.came()
	messages := texts(n)
	for _, m := range messages {
		m["gateway"] = map[string]any{"callback_url": to}
	}
	c.accept("101", messages)
	c.until(2*time.Minute, "accepted told", func(context.Context) (bool, string) {
		return cl.came()-before >= n, fmt.Sprint(cl.came())
	})
	cl.mu.Lock()
	defer cl.mu.Unlock()
	var ids []string
	for id, words := range cl.order {
		if slices.Equal(words, []string{"accepted"}) {
			ids = append(ids, id)
		}
	}
	return ids
}

// What one worker has begun to tell another goes on with: nothing is lost, and each message's story keeps its order.
func TestCallbacksPassFromWorkerToWorker(t *testing.T) {
	c := newCluster(t, simulator.Config{StatusDelay: 5 * time.Millisecond})
	c.phone("100", "101", 0, 0)
	cl := newClient(t)
	const n = 300
	messages := texts(n)
	for _, m := range messages {
		m["gateway"] = map[string]any{"callback_url": cl.server.URL + "/hook"}
	}
	first := c.startHere()
	c.accept("101", messages)
	c.until(time.Minute, "the first events", func(context.Context) (bool, string) { return cl.came() > n/4, fmt.Sprint(cl.came()) })
	second := c.startHere()
	c.stopHere(first)
	c.until(time.Minute, "every event", func(ctx context.Context) (bool, string) {
		var waiting, made int
		if err := c.pool.QueryRow(ctx, `SELECT count(*) FILTER (WHERE delivered_at IS NULL), count(*) FROM callback_events`).Scan(&waiting, &made); err != nil {
			return false, err.Error()
		}
		var open int
		if err := c.pool.QueryRow(ctx, `SELECT count(*) FROM messages WHERE status <> 'delivered'`).Scan(&open); err != nil {
			return false, err.Error()
		}
		return waiting == 0 && open == 0, fmt.Sprintf("%d of %d wait, %d messages are on their way", waiting, made, open)
	})
	c.stopHere(second)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if len(cl.order) != n {
		t.Errorf("%d of %d messages were told", len(cl.order), n)
	}
	rank := []string{"accepted", "sent", "delivered"}
	for id, words := range cl.order {
		last := -1
		for _, w := range words {
			at := slices.Index(rank, w)
			if at <= last {
				t.Errorf("message %s was told %v", id, words)
				break
			}
			last = at
		}
		if last != 2 {
			t.Errorf("message %s was told %v, and is delivered", id, words)
		}
	}
}

// closedPort gives an address of the loopback interface where nobody listens.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
