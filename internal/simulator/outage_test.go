package simulator

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func (r *rig) postCount() int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.posts)
}

// TestAnOutageKeepsBackAndEnds: no POST is made in an outage, also none of what a poster
// had taken to retry, and everything comes once it is over.
func TestAnOutageKeepsBackAndEnds(t *testing.T) {
	inBubble(t, Config{StatusDelay: time.Second, WebhookRetryFor: 5 * time.Second}, func(r *rig) { // shorter than the outage
		r.answer = func(n int) (int, error) {
			if n < 4 {
				return http.StatusServiceUnavailable, nil // the first one, so that a poster holds it; then after the outage
			}
			return http.StatusOK, nil
		}
		start := time.Now()
		r.post(text("0014", "")) // three statuses
		pass(time.Second)
		if got := r.postCount(); got != 1 {
			t.Fatalf("%d POSTs before the outage", got)
		}
		if rep := do(r.t.Context(), r.t, r.s, http.MethodPost, "/_sim/webhooks/outage", `{"seconds":8}`, nil); rep.status != 204 {
			t.Fatalf("outage: %d %s", rep.status, rep.raw)
		}
		r.post(text("0003", ""))
		pass(8*time.Second - 1)
		if got := r.postCount(); got != 1 {
			t.Errorf("%d POSTs made in the outage", got-1)
		}
		if got := r.s.Ledger(); got.Chaos.KeptBack != (WebhookCount{4, 2}) || got.Totals.StatusesPending != 4 {
			t.Errorf("kept back %+v, pending %d", got.Chaos.KeptBack, got.Totals.StatusesPending)
		}
		r.quiet()
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("all was posted after %v", took)
		}
		got := r.s.Ledger()
		if got.Totals.StatusesPosted != 4 || got.Totals.StatusesLost != 0 || got.Chaos.KeptBack != (WebhookCount{4, 2}) {
			t.Errorf("kept back %+v, totals %+v", got.Chaos.KeptBack, got.Totals)
		}
		r.post(text("0003", ""))
		before := r.postCount()
		pass(time.Second)
		if r.postCount() != before+1 {
			t.Error("not posted at once after the outage")
		}
	})
}

// TestAnOutageCountsWhatWaitsAndCanBeMoved: what is due already counts once, a second
// call moves the end.
func TestAnOutageCountsWhatWaitsAndCanBeMoved(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.s.Hold()
		for range 3 {
			r.post(text("1234", ""))
		}
		pass(time.Second)
		r.s.Outage(time.Second)
		pass(2 * time.Second)
		r.s.Outage(5 * time.Second)
		r.s.Release() // which does not end the outage
		pass(4 * time.Second)
		r.s.Outage(5 * time.Second)
		pass(4 * time.Second)
		if n, kept := r.postCount(), r.s.Ledger().Chaos.KeptBack; n != 0 || kept != (WebhookCount{6, 3}) {
			t.Errorf("%d POSTs, kept back %+v", n, kept)
		}
		r.s.Outage(0)
		if got := r.postCount(); got != 1 || r.s.Ledger().Totals.StatusesPosted != 6 {
			t.Errorf("%d POSTs after the end", got)
		}
	})
}

// TestResetEndsAnOutage: and what it forgets is not posted, even by a poster that holds it.
func TestResetEndsAnOutage(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.answer = func(n int) (int, error) {
			if n == 0 {
				return http.StatusServiceUnavailable, nil
			}
			return http.StatusOK, nil
		}
		first := r.post(text("0003", "")).wamid()
		pass(DefaultStatusDelay)
		synctest.Wait()
		r.s.Outage(time.Hour)
		r.post(text("0003", ""))
		pass(time.Minute)
		r.s.Reset()
		if got := r.s.Ledger(); got.Chaos.KeptBack != (WebhookCount{}) || got.Totals != (Totals{}) {
			t.Errorf("after reset %+v, %+v", got.Chaos.KeptBack, got.Totals)
		}
		r.post(text("0003", ""))
		r.quiet()
		if got := r.s.Ledger().Totals; got.StatusesPosted != 1 || r.postCount() != 2 || len(r.statuses(first)) != 1 {
			t.Errorf("%d POSTs, totals %+v", r.postCount(), got)
		}
	})
}
