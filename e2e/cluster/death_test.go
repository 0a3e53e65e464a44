package cluster

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/simulator"
)

// A worker is killed in the middle of 5,000 sends, another goes on: nothing is lost, nothing is sent twice. What the dead
// one had begun is proven by its webhooks, or stays on the operators' list as unknown when it never reached the Cloud API.
func TestKillNineLosesNothingAndSendsNothingTwice(t *testing.T) {
	const n = 5000
	c := newCluster(t, simulator.Config{Latency: 40 * time.Millisecond, LatencyJitter: 40 * time.Millisecond})
	c.phone("100", "101", 600, 0)
	c.phone("200", "201", 300, 0)
	c.accept("101", texts(n*2/3))
	c.accept("201", texts(n-n*2/3))
	first := c.startWorker()
	c.untilStatus(time.Minute, n/4, "accepted", "sent", "delivered")
	first.kill()
	c.startWorker()
	// The first look back at the dead one's tries comes with the new owner, after the lease has run out.
	c.until(2*time.Minute, "every message settled or on the operators' list", func(ctx context.Context) (bool, string) {
		s := c.statuses(ctx)
		return s["delivered"]+s["unknown"] == n && c.sim.Ledger().Totals.StatusesPending == 0, fmt.Sprint(s)
	})
	l := c.sim.Ledger()
	if l.Totals.ExtraAccepts != 0 {
		t.Errorf("sent twice: %d, e.g. %v", l.Totals.ExtraAccepts, l.Duplicates[:min(3, len(l.Duplicates))])
	}
	accepted := acceptedByID(t, c)
	unknown := c.ids(`SELECT id FROM messages WHERE status = 'unknown'`)
	for _, id := range unknown {
		if accepted[id] {
			t.Errorf("message %s was accepted and its webhook came, but it is unknown", id)
		}
	}
	if got := len(accepted) + len(unknown); got != n {
		t.Errorf("%d accepted + %d unknown = %d messages, want %d: some were lost", len(accepted), len(unknown), got, n)
	}
	if left := c.count(`SELECT count(*) FROM river_job WHERE kind = 'send' AND state NOT IN ('completed', 'cancelled')`); left != 0 {
		t.Errorf("%d jobs are left", left)
	}
	reasons := c.count(`SELECT count(*) FROM messages WHERE status = 'unknown' AND (unknown_reason IS NULL OR unknown_at IS NULL)`)
	if reasons != 0 {
		t.Errorf("%d unknown messages have no reason or no time", reasons)
	}
	t.Logf("%d accepted, %d unknown and never accepted", len(accepted), len(unknown))
}

// Whatever happens to workers, at most one sends for a WABA at any time: the epochs under which tries were marked never
// go back in the order in which the Cloud API saw them.
func TestOneOwnerThroughHandOverFreezeAndDeath(t *testing.T) {
	const n = 6000
	c := newCluster(t, simulator.Config{Latency: 10 * time.Millisecond})
	for i := range 4 {
		waba, phone := fmt.Sprint(100+i), fmt.Sprint(1001+i)
		c.phone(waba, phone, 60, 0)
		c.accept(phone, texts(n/4))
	}
	a := c.startWorker()
	c.untilStatus(time.Minute, 200, "accepted", "sent", "delivered")
	b := c.startWorker() // takes its share by hand-over
	c.until(time.Minute, "both workers sending", func(context.Context) (bool, string) {
		w := c.sim.Ledger().Workers
		return len(w) == 2, fmt.Sprint(w)
	})
	a.signal(syscall.SIGSTOP) // past its lease: b takes over everything
	c.until(time.Minute, "the other worker owning all", func(ctx context.Context) (bool, string) {
		owners := c.count(`SELECT count(DISTINCT worker_id) FROM leases WHERE expires_at > clock_timestamp()`)
		held := c.count(`SELECT count(*) FROM leases WHERE expires_at > clock_timestamp()`)
		return owners == 1 && held == 4, fmt.Sprintf("%d owners hold %d leases", owners, held)
	})
	before := c.sim.Ledger().Totals.Accepted
	a.signal(syscall.SIGCONT) // wakes up in the belief that it owns
	c.until(time.Minute, "both owning again", func(ctx context.Context) (bool, string) {
		owners := c.count(`SELECT count(DISTINCT worker_id) FROM leases WHERE worker_id <> '' AND expires_at > clock_timestamp()`)
		return owners == 2 && c.sim.Ledger().Totals.Accepted > before+100, fmt.Sprintf("%d owners", owners)
	})
	b.kill()
	if err := c.settled(n); err != nil {
		t.Fatal(err)
	}
	if err := a.stop(); err != nil {
		t.Errorf("the last worker ended with %v", err)
	}
	if twice := c.sim.Ledger().Totals.ExtraAccepts; twice != 0 {
		t.Errorf("sent twice: %d", twice)
	}
	c.checkEpochs(t)
}

func (c *cluster) settled(n int) error {
	c.t.Helper()
	c.until(2*time.Minute, "every message settled or on the operators' list", func(ctx context.Context) (bool, string) {
		s := c.statuses(ctx)
		return s["delivered"]+s["unknown"] == n && c.sim.Ledger().Totals.StatusesPending == 0, fmt.Sprint(s)
	})
	return nil
}

// checkEpochs holds the Cloud API's order of arrival against the epochs of the marks.
func (c *cluster) checkEpochs(t *testing.T) {
	t.Helper()
	type mark struct {
		waba  string
		epoch int64
		try   int
	}
	marks := map[uuid.UUID]mark{}
	rows, err := c.pool.Query(t.Context(), `SELECT id, waba_id, epoch, try FROM messages WHERE epoch IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	var id uuid.UUID
	var m mark
	if _, err := pgx.ForEachRow(rows, []any{&id, &m.waba, &m.epoch, &m.try}, func() error { marks[id] = m; return nil }); err != nil {
		t.Fatal(err)
	}
	accepts := c.accepts()
	slices.SortFunc(accepts, func(a, b simulator.Accept) int { return int(a.ArrivalUnixNS - b.ArrivalUnixNS) })
	newest, owner := map[string]int64{}, map[string]string{}
	epochs := map[string]bool{}
	for _, a := range accepts {
		id, err := uuid.Parse(a.OurID)
		if err != nil {
			t.Fatalf("a message of the ledger has the id %q", a.OurID)
		}
		m := marks[id]
		if m.try != a.Try {
			continue // marked again after an unknown try was proven unsent; its epoch is no longer known
		}
		key := fmt.Sprintf("%s/%d", m.waba, m.epoch)
		epochs[key] = true
		if m.epoch < newest[m.waba] {
			t.Errorf("WABA %s: a try of epoch %d arrived after one of epoch %d", m.waba, m.epoch, newest[m.waba])
		}
		newest[m.waba] = max(newest[m.waba], m.epoch)
		if was := owner[key]; was != "" && was != a.Worker {
			t.Errorf("WABA %s, epoch %d: sent by %s and by %s", m.waba, m.epoch, was, a.Worker)
		}
		owner[key] = a.Worker
	}
	if len(epochs) < 6 {
		t.Errorf("only %d ownerships were seen, the run tested nothing", len(epochs))
	}
}

func acceptedByID(t *testing.T, c *cluster) map[uuid.UUID]bool {
	t.Helper()
	ids := map[uuid.UUID]bool{}
	for _, a := range c.accepts() {
		id, err := uuid.Parse(a.OurID)
		if err != nil {
			t.Fatalf("a message of the ledger has the id %q", a.OurID)
		}
		ids[id] = true
	}
	return ids
}

func (c *cluster) count(sql string) int {
	c.t.Helper()
	var n int
	if err := c.pool.QueryRow(c.t.Context(), sql).Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *cluster) ids(sql string) []uuid.UUID {
	c.t.Helper()
	rows, err := c.pool.Query(c.t.Context(), sql)
	if err != nil {
		c.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		c.t.Fatal(err)
	}
	return ids
}
