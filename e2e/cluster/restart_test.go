package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"wagate/internal/simulator"
)

// A rolling restart under load: each worker in turn gets SIGTERM and a successor. Each ends by itself and in order; every
// message is delivered, none is unknown, none is sent twice.
func TestARollingRestartLosesNoOutcome(t *testing.T) {
	const n = 4000
	c := newCluster(t, simulator.Config{Latency: 60 * time.Millisecond, LatencyJitter: 60 * time.Millisecond})
	for i := range 4 {
		waba, phone := fmt.Sprint(100+i), fmt.Sprint(1001+i)
		c.phone(waba, phone, 80, 0)
		c.accept(phone, texts(n/4))
	}
	running := []*worker{c.startWorker(), c.startWorker()}
	for i, old := range running {
		sent := c.sim.Ledger().Totals.Accepted
		c.until(time.Minute, "both sending", func(context.Context) (bool, string) {
			return c.sim.Ledger().Totals.Accepted >= sent+300 && len(c.sim.Ledger().Workers) >= 2+i, fmt.Sprint(c.sim.Ledger().Workers)
		})
		c.startWorker()
		if err := old.stop(); err != nil {
			t.Errorf("worker %d ended with %v", i, err)
		}
	}
	c.untilStatus(2*time.Minute, n, "delivered")
	l := c.sim.Ledger()
	if l.Totals.ExtraAccepts != 0 || l.Totals.Accepted != n {
		t.Errorf("accepted %d of %d, sent twice %d", l.Totals.Accepted, n, l.Totals.ExtraAccepts)
	}
	if unknown := c.count(`SELECT count(*) FROM messages WHERE unknown_at IS NOT NULL`); unknown != 0 {
		t.Errorf("%d messages were unknown on the way", unknown)
	}
	if len(l.Workers) < 3 {
		t.Errorf("only %d workers sent: %v", len(l.Workers), l.Workers)
	}
}
