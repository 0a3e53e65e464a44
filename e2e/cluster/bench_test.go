package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"wagate/internal/simulator"
)

// BenchmarkQuietTenant lets tenant A wait with 100,000 messages at 76/s while tenant B, another WABA, posts 10 a second,
// and prints how long B's messages took from the POST to the Cloud API.
func BenchmarkQuietTenant(b *testing.B) {
	const backlog, posts, every = 100_000, 300, 100 * time.Millisecond
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond})
		c.phone("100", "101", 76, 80)
		c.phone("200", "201", 76, 80)
		c.accept("101", texts(backlog))
		c.startWorker()
		c.startWorker()
		c.until(time.Minute, "tenant A sending", func(context.Context) (bool, string) {
			return c.sim.Ledger().Totals.Accepted > 300, ""
		})
		posted := map[string]time.Time{}
		tick := time.NewTicker(every)
		for i := range posts {
			<-tick.C
			at := time.Now()
			var answer struct {
				ID string `json:"id"`
			}
			c.call(http.MethodPost, "/v1/messages", map[string]any{"from": "201", "to": fmt.Sprintf("+4420%06d0100", i), "type": "text", "text": map[string]any{"body": "hi"}}, &answer)
			posted[answer.ID] = at
		}
		tick.Stop()
		var took []time.Duration
		c.until(time.Minute, "tenant B's messages", func(context.Context) (bool, string) {
			took = took[:0]
			for _, a := range c.accepts() {
				if at, ok := posted[a.OurID]; ok {
					took = append(took, time.Duration(a.ArrivalUnixNS-at.UnixNano()))
				}
			}
			return len(took) == posts, fmt.Sprint(len(took))
		})
		slices.Sort(took)
		ms := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))].Microseconds()) / 1000 }
		b.ReportMetric(ms(.5), "B-p50-ms")
		b.ReportMetric(ms(.99), "B-p99-ms")
		b.ReportMetric(ms(1), "B-max-ms")
		l := c.sim.Ledger()
		b.ReportMetric(float64(l.Totals.Refused), "refused")
	}
}

// BenchmarkDrain sends 30,000 messages through one lane without a limit, one worker, a Cloud API that answers at once.
func BenchmarkDrain(b *testing.B) {
	const n = 30_000
	for b.Loop() {
		c := newCluster(b, simulator.Config{StatusDelay: time.Hour})
		c.sim.SetWebhook("", "")
		c.phone("100", "101", 0, 0)
		c.accept("101", texts(n))
		w := c.startWorker()
		c.untilStatus(3*time.Minute, n, "accepted")
		if err := w.stop(); err != nil {
			b.Fatal(err)
		}
		accepts := c.accepts()
		took := time.Duration(accepts[n-1].ArrivalUnixNS - accepts[0].ArrivalUnixNS)
		cpu := w.cmd.ProcessState.UserTime() + w.cmd.ProcessState.SystemTime()
		b.ReportMetric(n/took.Seconds(), "messages/s")
		b.ReportMetric(cpu.Seconds()*1000/n, "worker-CPU-ms/message")
	}
}
