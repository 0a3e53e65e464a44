package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/simulator"
)

// Postgres is killed under load and comes back: accept answers 503 meanwhile, both workers recover by themselves, nothing
// is lost and nothing sent twice.
func TestPostgresKilledUnderLoad(t *testing.T) {
	const n = 3000
	pg, err := embeddedpg.Start(t.Context(), embeddedpg.Config{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping Postgres: %v", err)
		}
	})
	if err := app.Migrate(t.Context(), config.Config{DatabaseURL: config.NewSecret(pg.DSN())}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	c := newClusterOn(t, pg.DSN(), simulator.Config{Latency: 80 * time.Millisecond, LatencyJitter: 80 * time.Millisecond})
	c.phone("100", "101", 100, 0)
	c.phone("200", "201", 100, 0)
	c.accept("101", texts(n/2))
	c.accept("201", texts(n/2))
	c.startWorker()
	c.startWorker()
	c.untilStatus(time.Minute, n/6, "accepted", "sent", "delivered")

	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if code, retry := c.post(); code != http.StatusServiceUnavailable || retry == "" {
		t.Errorf("accept with the database away: %d, Retry-After %q", code, retry)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.until(2*time.Minute, "every message settled or on the operators' list", func(ctx context.Context) (bool, string) {
		s := c.statuses(ctx)
		return s["delivered"]+s["unknown"] == n && c.sim.Ledger().Totals.StatusesPending == 0, fmt.Sprint(s)
	})
	l := c.sim.Ledger()
	if l.Totals.ExtraAccepts != 0 {
		t.Errorf("sent twice: %d", l.Totals.ExtraAccepts)
	}
	accepted := acceptedByID(t, c)
	unknown := c.ids(`SELECT id FROM messages WHERE status = 'unknown'`)
	if len(accepted)+len(unknown) != n {
		t.Errorf("%d accepted + %d unknown of %d", len(accepted), len(unknown), n)
	}
	for _, id := range unknown {
		if accepted[id] {
			t.Errorf("message %s was accepted, but it is unknown", id)
		}
	}
	if code, _ := c.post(); code != http.StatusAccepted {
		t.Errorf("accept with the database back: %d", code)
	}
	t.Logf("%d accepted, %d unknown and never accepted", len(accepted), len(unknown))
}

// post hands one message in and gives the answer's status and Retry-After.
func (c *cluster) post() (code int, retryAfter string) {
	c.t.Helper()
	body := []byte(`{"from":"101","to":"+447700900100","type":"text","text":{"body":"hi"}}`)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.gateway.URL()+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header.Get("Retry-After")
}
