package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wagate/internal/simulator"
)

const statusesPerSecond = 500

// latency posts one status of each message at 500/s, each in a webhook of its own, and gives how long each took from the
// POST of the webhook to the client, ascending.
func (c *cluster) latency(ids []string, cl *client) []time.Duration {
	c.t.Helper()
	posted := make([]time.Time, len(ids))
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / statusesPerSecond)
	room := make(chan struct{}, 64)
	for i, id := range ids {
		<-tick.C
		room <- struct{}{}
		posted[i] = time.Now()
		wg.Go(func() {
			defer func() { <-room }()
			if err := c.tell(id, "delivered"); err != nil {
				c.t.Error(err)
			}
		})
	}
	tick.Stop()
	wg.Wait()
	took := make([]time.Duration, 0, len(ids))
	c.until(2*time.Minute, "every status told", func(context.Context) (bool, string) {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		took = took[:0]
		for i, id := range ids {
			if at, ok := cl.at[id+"delivered"]; ok {
				took = append(took, at.Sub(posted[i]))
			}
		}
		return len(took) == len(ids), fmt.Sprint(len(took))
	})
	slices.Sort(took)
	return took
}

func percentile(took []time.Duration, p float64) float64 {
	return float64(took[int(p*float64(len(took)-1))].Microseconds()) / 1000
}

// BenchmarkCallbackLatency prints how long statuses take from Meta's webhook to the client's server, at 500/s.
func BenchmarkCallbackLatency(b *testing.B) {
	const n = 20 * statusesPerSecond
	for b.Loop() {
		c := newCluster(b, simulator.Config{StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.phone("100", "101", 0, 0)
		c.startHere()
		cl := newClient(b)
		took := c.latency(c.told(cl.server.URL, n, cl), cl)
		b.ReportMetric(percentile(took, .5), "p50-ms")
		b.ReportMetric(percentile(took, .99), "p99-ms")
		b.ReportMetric(percentile(took, 1), "max-ms")
	}
}

// BenchmarkDeadEndpoint prints the same of one endpoint, alone and while 100,000 events wait for another one that is dead;
// then the dead one comes back, and the replay of a time range has to deliver each of them.
func BenchmarkDeadEndpoint(b *testing.B) {
	const n, waiting = 10 * statusesPerSecond, 100_000
	for b.Loop() {
		c := newCluster(b, simulator.Config{StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.phone("100", "101", 0, 0)
		c.startHere()
		cl := newClient(b)
		ids := c.told(cl.server.URL, 2*n, cl)
		before := c.latency(ids[:n], cl)

		dead := closedPort(b)
		messages := texts(1)
		messages[0]["gateway"] = map[string]any{"callback_url": "http://" + dead + "/hook"}
		c.accept("101", messages)
		since := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
		c.until(time.Minute, "the first event for the dead endpoint", func(ctx context.Context) (bool, string) {
			tag, err := c.pool.Exec(ctx, `
				INSERT INTO callback_events (event_id, endpoint_id, chain, kind, status, at, url, waba_id, phone_number_id)
				SELECT gen_random_uuid(), v.endpoint_id, gen_random_uuid(), v.kind, v.status, v.at, v.url, v.waba_id, v.phone_number_id
				FROM callback_events v, generate_series(1, $1::integer) WHERE v.url LIKE 'http://' || $2::text || '%'`, waiting-1, dead)
			return err == nil && tag.RowsAffected() == waiting-1, fmt.Sprint(err)
		})
		c.until(2*time.Minute, "the open circuit", func(ctx context.Context) (bool, string) {
			var open bool
			err := c.pool.QueryRow(ctx, `SELECT opened_at IS NOT NULL FROM callback_endpoints WHERE url = 'http://' || $1::text`, dead).Scan(&open)
			return open, fmt.Sprint(err)
		})
		after := c.latency(ids[n:], cl)
		b.ReportMetric(percentile(before, .5), "alone-p50-ms")
		b.ReportMetric(percentile(before, .99), "alone-p99-ms")
		b.ReportMetric(percentile(after, .5), "beside-p50-ms")
		b.ReportMetric(percentile(after, .99), "beside-p99-ms")

		back := newClientUnstarted()
		l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", dead)
		if err != nil {
			b.Fatal(err)
		}
		_ = back.server.Listener.Close()
		back.server.Listener = l
		back.server.Start()
		began := time.Now()
		c.replay("http://"+dead+"/hook", since)
		c.until(5*time.Minute, "every event of the replay", func(context.Context) (bool, string) {
			return back.came() == waiting, fmt.Sprint(back.came())
		})
		b.ReportMetric(waiting/time.Since(began).Seconds(), "replayed/s")
		back.server.Close()
	}
}

func (c *cluster) replay(to, since string) {
	c.t.Helper()
	body := map[string]any{"url": to, "since": since}
	for total := 0; ; {
		var a struct {
			Replayed   int
			More       bool
			NextCursor string `json:"next_cursor"`
		}
		c.call(http.MethodPost, "/v1/callbacks/replay", body, &a)
		if total += a.Replayed; !a.More {
			if total == 0 {
				c.t.Fatalf("nothing of %s was replayed", strings.TrimPrefix(to, "http://"))
			}
			return
		}
		body["cursor"] = a.NextCursor
	}
}
