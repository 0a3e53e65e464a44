package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"wagate/internal/app"
	"wagate/internal/seal"
	"wagate/internal/simulator"
	"wagate/internal/store"
)

// worker starts a worker that ends with the test.
func (r *rig) worker(t *testing.T) {
	t.Helper()
	w, err := app.StartWorker(t.Context(), r.cfg, r.pool, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stopping the worker: %v", err)
		}
	})
}

func numbers(from, n int, ending string) []string {
	to := make([]string, n)
	for i := range to {
		to[i] = fmt.Sprintf("+1202%06d%s", from+i, ending)
	}
	return to
}

// A throttle of one WABA stops that WABA, what is on the wire aside, and no other.
func TestAPauseHoldsItsScopeAndNoOther(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 200.0
	r.phone(t, "100", "101", &rate)
	r.phone(t, "200", "201", &rate)
	for waba, phone := range map[string]string{"100": "101", "200": "201"} {
		r.sim.SetPhone(phone, simulator.PhoneConfig{WABAID: waba, PerSecond: -1})
	}
	if err := r.sim.SetLimits("waba", "100", simulator.Limit{Max: 20, Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r.accept(t, "101", numbers(0, 300, "0100")...)
	r.worker(t)
	r.until(t, "the throttle", func() bool { return r.sim.Ledger().Totals.ThrottledLimit > 0 })
	// The other WABA sends all it has meanwhile. It begins after the pause was set.
	r.accept(t, "201", numbers(1000, 400, "0100")...)
	r.await(t, "the other WABA's messages", func(c map[string]int) bool { return c["accepted"] >= 420 })
	l := r.sim.Ledger()
	// 80007 pauses for a minute and more; what was begun within the 400 ms before may still have come.
	if l.Totals.ThrottledLimit > 80 || l.Totals.Accepted != 420 {
		t.Errorf("%d throttles, %d accepted; want a handful and 420", l.Totals.ThrottledLimit, l.Totals.Accepted)
	}
	var reason, scope string
	var left float64
	err := r.pool.QueryRow(t.Context(), `SELECT scope, reason, extract(epoch FROM until - clock_timestamp())::float8 FROM pauses WHERE value = '100'`).Scan(&scope, &reason, &left)
	if err != nil || scope != "waba" || reason == "" || left < 0 {
		t.Errorf("pause of the WABA: scope %q, reason %q, %v s left, %v", scope, reason, left, err)
	}
	if got := r.statuses(t.Context()); got["queued"] != 280 || got["failed"]+got["unknown"] != 0 {
		t.Errorf("statuses %v; the throttled wait", got)
	}
}

// An urgent message waits behind what already has a slot, not behind the backlog of its lane.
func TestAnUrgentMessageOvertakesTheBacklog(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 50.0
	r.phone(t, "100", "101", &rate)
	r.acceptAs(t, "101", 4, time.Time{}, numbers(0, 400, "0100")...)
	r.worker(t)
	r.until(t, "the backlog moving", func() bool { return r.sim.Ledger().Totals.Accepted >= 30 })
	before := r.sim.Ledger().Totals.Accepted
	r.acceptAs(t, "101", 1, time.Time{}, "+447700900777")
	r.until(t, "the urgent message", func() bool {
		for _, a := range r.sim.Accepts(before, 10_000) {
			if a.ToLast4 == "0777" {
				return true
			}
		}
		return false
	})
	behind := int64(-1)
	for _, a := range r.sim.Accepts(before, 10_000) {
		if a.ToLast4 == "0777" {
			behind = a.Seq - before
		}
	}
	// 400 ms of slots at 50/s, what the insert took, and what went out while it was claimed; a machine that is busy may
	// stand still meanwhile. Behind the backlog it would be the last.
	if behind < 0 || behind > 200 {
		t.Errorf("%d messages went out before the urgent one, of a backlog of 370", behind)
	}
}

// What has expired or was cancelled is never sent.
func TestExpiredAndCancelledAreNeverSent(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 5.0
	r.phone(t, "100", "101", &rate)
	deadline := time.Now().Add(3 * time.Second)
	r.acceptAs(t, "101", 3, deadline, numbers(0, 60, "0200")...)
	r.accept(t, "101", numbers(100, 30, "0300")...)
	for _, id := range r.idsTo(t, "%0300") {
		if ok, err := r.st.Cancel(t.Context(), id, time.Now(), nil); err != nil || !ok {
			t.Fatalf("cancelling %s: %v, %v", id, ok, err)
		}
	}
	r.accept(t, "101", numbers(200, 1, "0400")...) // the last one in line
	r.worker(t)
	r.await(t, "everything ended", func(c map[string]int) bool {
		return c["queued"]+c["sending"] == 0 && c["accepted"] > 0
	})
	got := r.statuses(t.Context())
	if got["cancelled"] != 30 || got["expired"] < 30 || got["accepted"]+got["expired"] != 61 {
		t.Errorf("statuses %v", got)
	}
	var expiredSent int
	for _, a := range r.sim.Accepts(0, 10_000) {
		if a.ToLast4 == "0300" {
			t.Errorf("a cancelled message was sent")
		}
		// A millisecond for the way to the simulator would do; the write is what is compared with the deadline.
		if a.ToLast4 == "0200" && a.ArrivalUnixNS > deadline.Add(time.Second).UnixNano() {
			expiredSent++
		}
	}
	if expiredSent > 0 || r.sim.Ledger().Totals.Accepted != int64(got["accepted"]) {
		t.Errorf("%d were sent long after they had expired; the ledger has %d accepted, the database %d", expiredSent, r.sim.Ledger().Totals.Accepted, got["accepted"])
	}
}

// A refused token fails the message that met it, holds the rest, and a new token lets them go.
func TestARefusedTokenPausesItsWABAUntilThereIsANewOne(t *testing.T) {
	r := newRig(t, simulator.Config{Token: "the-right-one"})
	rate := 20.0
	r.phone(t, "100", "101", &rate)
	r.accept(t, "101", numbers(0, 200, "0100")...)
	r.worker(t)
	r.until(t, "the refusal", func() bool { return r.sim.Ledger().Totals.Unauthorized > 0 && r.paused(t, "100") })
	sealer, err := seal.New(r.cfg.SecretKey.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	waba := store.WABA{ID: "100", AccessToken: sealer.Seal([]byte("the-right-one"), seal.AccessToken("100")), ManagementCallsPerHour: 5000, Burst: 1}
	if err := r.st.PutWABA(t.Context(), waba, nil); err != nil {
		t.Fatal(err)
	}
	r.await(t, "the rest sent", func(c map[string]int) bool { return c["accepted"]+c["failed"] == 200 })
	got := r.statuses(t.Context())
	// Those that had their slot when the refusal came met the old token too.
	if got["failed"] < 1 || got["failed"] > 100 {
		t.Errorf("statuses %v: the pause did not hold the rest", got)
	}
	var code int
	var title string
	if err := r.pool.QueryRow(t.Context(), `SELECT error_code, error_title FROM messages WHERE status = 'failed' LIMIT 1`).Scan(&code, &title); err != nil || code != 190 || title == "" {
		t.Errorf("error %d %q, %v", code, title, err)
	}
}

// Without a connection nothing fails: the WABA waits, and sends when the Cloud API is back.
func TestWithoutAConnectionMessagesWait(t *testing.T) {
	r := newRig(t, simulator.Config{})
	up := r.cfg.GraphURL
	down := httptest.NewServer(http.NotFoundHandler())
	address := down.Listener.Addr().String()
	r.cfg.GraphURL = down.URL
	down.Close() // nobody listens there any more
	rate := 100.0
	r.phone(t, "100", "101", &rate)
	r.accept(t, "101", numbers(0, 20, "0100")...)
	r.worker(t)
	r.until(t, "tries without a connection and a pause", func() bool {
		return r.count(t, `SELECT count(*) FROM message_events WHERE kind = 'try.transient'`) >= 2 && r.paused(t, "100")
	})
	if got := r.statuses(t.Context()); got["queued"]+got["sending"] != 20 {
		t.Errorf("statuses %v", got)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(up)
	if err != nil {
		t.Fatal(err)
	}
	back := &httptest.Server{Listener: l, Config: &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ReadHeaderTimeout: time.Minute}}
	back.Start()
	t.Cleanup(back.Close)
	r.await(t, "all sent", func(c map[string]int) bool { return c["accepted"] == 20 })
	if twice := r.sim.Ledger().Totals.ExtraAccepts; twice != 0 {
		t.Errorf("sent twice: %d", twice)
	}
}

// A token that is put again mends a refused token; a rate limit's pause stays.
func TestPuttingATokenLeavesARateLimitsPause(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 20.0
	for _, c := range []struct {
		code int
		left int
	}{{80007, 1}, {190, 0}, {200, 0}} {
		r.phone(t, "100", "101", &rate)
		p := store.Pause{Scope: "waba", Value: "100", Reason: "r", Source: "throttle", Code: c.code, Level: 1, Until: time.Now().Add(time.Hour)}
		if err := r.st.Throttled(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		r.phone(t, "100", "101", &rate)
		if n := r.count(t, `SELECT count(*) FROM pauses`); n != c.left {
			t.Errorf("code %d: %d pauses left, want %d", c.code, n, c.left)
		}
		if err := r.st.Lift(t.Context(), "waba", "100", "throttle", time.Now().Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}
