package cluster

import (
	"encoding/base64"
	"testing"
	"time"

	"wagate/internal/simulator"
)

func encode(secret string) string { return base64.StdEncoding.EncodeToString([]byte(secret)) }

// Two workers share one phone number with Meta's limit of 80/s and a strict simulator: nothing is refused, nothing sent
// twice. The rate leaves room for a machine that is busy with other tests, but not for a second sender; BenchmarkTwoWorkers
// goes to 95 % of the limit and prints how much of it was used.
func TestTwoWorkersKeepTheLimit(t *testing.T) {
	const n, limit, rate = 1500, 80, 50.0
	c := newCluster(t, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond})
	c.phone("100", "101", rate, limit)
	c.accept("101", texts(n))
	c.startWorker()
	c.startWorker()
	c.untilStatus(2*time.Minute, n, "delivered")
	l := c.sim.Ledger()
	if l.Totals.Accepted != n || l.Totals.Refused != 0 || l.Totals.ExtraAccepts != 0 {
		t.Errorf("accepted %d, refused %d, sent twice %d; want %d, 0, 0", l.Totals.Accepted, l.Totals.Refused, l.Totals.ExtraAccepts, n)
	}
}

// BenchmarkTwoWorkers sends 4,000 messages with two workers through one phone number at 76/s, 95 % of Meta's limit of
// 80/s, and prints what a strict simulator saw.
func BenchmarkTwoWorkers(b *testing.B) {
	const n, limit, rate = 4000, 80, 76.0
	for b.Loop() {
		c := newCluster(b, simulator.Config{Latency: 20 * time.Millisecond, LatencyJitter: 30 * time.Millisecond})
		c.phone("100", "101", rate, limit)
		c.accept("101", texts(n))
		c.startWorker()
		c.startWorker()
		c.untilStatus(3*time.Minute, n, "delivered")
		l := c.sim.Ledger()
		accepts := c.accepts()
		took := time.Duration(accepts[len(accepts)-1].ArrivalUnixNS - accepts[0].ArrivalUnixNS)
		b.ReportMetric(100*float64(len(accepts)-1)/took.Seconds()/rate, "%of-configured")
		b.ReportMetric(float64(l.Phones[0].PeakPerSecond), "peak/s")
		b.ReportMetric(float64(l.Totals.Refused), "refused")
		b.ReportMetric(float64(l.Totals.ExtraAccepts), "sent-twice")
	}
}
