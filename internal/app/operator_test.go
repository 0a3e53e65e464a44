package app_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"wagate/internal/simulator"
	"wagate/internal/store"
)

// sent counts what the Cloud API took from a phone number.
func (r *rig) sent(phone string) int {
	for _, p := range r.sim.Ledger().Phones {
		if p.ID == phone {
			return int(p.Accepted)
		}
	}
	return 0
}

func (r *rig) pause(t *testing.T, scope, value string) uuid.UUID {
	t.Helper()
	p, _, err := r.st.PutPause(t.Context(), store.KeptPause{Scope: scope, Value: value, Reason: "told to"})
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func (r *rig) resume(t *testing.T, id uuid.UUID) {
	t.Helper()
	if _, err := r.st.DeletePause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// wantAllSentOnce says that every message was accepted, and none twice.
func (r *rig) wantAllSentOnce(t *testing.T, n int) {
	t.Helper()
	r.await(t, "everything sent", func(c map[string]int) bool { return c["accepted"] == n })
	if l := r.sim.Ledger().Totals; l.Accepted != int64(n) || l.Duplicates != 0 {
		t.Errorf("%d accepted, %d of them twice; want %d once", l.Accepted, l.Duplicates, n)
	}
}

// An operator's pause stops a phone number that is sending, and nothing beside it; lifted, it goes on with all it had.
func TestAnOperatorsPauseStopsARunningPhoneNumber(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 200.0
	r.phone(t, "100", "101", &rate)
	r.phone(t, "100", "102", &rate)
	r.accept(t, "101", numbers(0, 700, "0100")...)
	r.accept(t, "102", numbers(1000, 1200, "0100")...)
	r.worker(t)
	r.until(t, "both sending", func() bool { return r.sent("101") > 10 && r.sent("102") > 10 })
	id := r.pause(t, "phone", "101")

	// It is in force when the one stands still while the other sends for three quarters of a second.
	stands, since := r.sent("101"), r.sent("102")
	r.until(t, "the pause in force", func() bool {
		one, other := r.sent("101"), r.sent("102")
		if one != stands {
			stands, since = one, other
		}
		return other >= since+150
	})
	if stands >= 700 {
		t.Fatal("it had sent everything before the pause was in force")
	}
	other := r.sent("102")
	r.until(t, "the other going on", func() bool { return r.sent("102") >= min(other+150, 1200) })
	if now := r.sent("101"); now != stands {
		t.Errorf("%d went out of a paused phone number", now-stands)
	}
	if waiting := r.count(t, `SELECT count(*) FROM messages WHERE phone_number_id = '101' AND status = 'queued'`); waiting != 700-stands {
		t.Errorf("%d wait, want %d", waiting, 700-stands)
	}

	r.resume(t, id)
	r.wantAllSentOnce(t, 1900)
}

// An app's pause holds every WABA of the app and no other; one of everything holds what comes, too.
func TestOperatorsPausesOfAnAppAndOfEverything(t *testing.T) {
	r := newRig(t, simulator.Config{})
	app := "900"
	for _, id := range []string{"100", "200", "300"} {
		r.phone(t, id, id+"1", nil)
	}
	for _, id := range []string{"100", "200"} {
		if err := r.st.PutWABA(t.Context(), store.WABA{ID: id, AppID: &app, ManagementCallsPerHour: 5000, Burst: 1}, &store.App{ID: app}); err != nil {
			t.Fatal(err)
		}
	}
	all, ofApp := r.pause(t, "all", ""), r.pause(t, "app", app)
	for i, phone := range []string{"1001", "2001", "3001"} {
		r.accept(t, phone, numbers(1000*i, 50, "0100")...)
	}
	r.worker(t)
	r.until(t, "the worker owning every WABA", func() bool { return r.count(t, `SELECT count(*) FROM leases`) == 3 })
	if l := r.sim.Ledger().Totals; l.Accepted != 0 {
		t.Errorf("%d went out although everything was paused", l.Accepted)
	}
	r.resume(t, all)
	r.until(t, "the WABA of no app sending", func() bool { return r.sent("3001") == 50 })
	if n := r.sent("1001") + r.sent("2001"); n != 0 {
		t.Errorf("%d went out of a paused app", n)
	}
	r.resume(t, ofApp)
	r.wantAllSentOnce(t, 150)
}

// What expires in a paused lane shows it at once, not when the lane goes on.
func TestMessagesExpireInAPausedLane(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 50.0
	r.phone(t, "100", "101", &rate)
	if _, _, err := r.st.PutPause(t.Context(), store.KeptPause{Scope: "phone", Value: "101", Reason: "test", Source: store.OperatorSource}); err != nil {
		t.Fatal(err)
	}
	r.worker(t)
	r.acceptAs(t, "101", 3, time.Now().Add(1500*time.Millisecond), numbers(0, 30, "0200")...)
	r.acceptAs(t, "101", 3, time.Now().Add(time.Hour), numbers(100, 5, "0300")...)
	r.await(t, "those that expired", func(c map[string]int) bool { return c["expired"] >= 30 })
	if got := r.statuses(t.Context()); got["expired"] != 30 || got["queued"] != 5 {
		t.Errorf("statuses %v", got)
	}
	if events := r.count(t, `SELECT count(*) FROM message_events WHERE kind = 'expired'`); events != 30 {
		t.Errorf("%d events", events)
	}
	if sent := r.sim.Ledger().Totals.Accepted; sent != 0 {
		t.Errorf("%d were sent in the pause", sent)
	}
}
