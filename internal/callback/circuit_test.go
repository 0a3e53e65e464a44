package callback

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestCircuit(t *testing.T) {
	r := newRig(t)
	var up = make(chan struct{})
	e := newEndpoint(t, func(int, got) int {
		select {
		case <-up:
			return http.StatusOK
		default:
			return http.StatusInternalServerError
		}
	})
	const n = 200
	for range n {
		r.accepted(r.accept(e.URL))
	}
	id := scalar[uuid.UUID](r, `SELECT endpoint_id FROM callback_endpoints`)
	d := r.deliverer()
	d.retry = func(int) time.Duration { return time.Hour }
	d.probe = func(int) time.Duration { return time.Hour }
	r.run(d, id)
	if !scalar[bool](r, `SELECT opened_at IS NOT NULL AND hold_until > now() AND due_at = hold_until AND last_error = 'answered 500' FROM callback_endpoints`) {
		t.Fatal("the circuit is not open, or nobody will probe")
	}
	tried := len(e.requests())
	if tried < threshold || tried > threshold+concurrency {
		t.Errorf("%d attempts at a dead endpoint", tried)
	}
	// New events start nothing while it is open, and a job that runs too early does nothing.
	before := scalar[int64](r, `SELECT run FROM callback_endpoints`)
	r.accepted(r.accept(e.URL))
	if after := scalar[int64](r, `SELECT run FROM callback_endpoints`); after != before {
		t.Error("a new event started a job of a held endpoint")
	}
	r.run(d, id)
	if got := len(e.requests()); got != tried {
		t.Errorf("%d attempts before the time of the probe", got-tried)
	}
	// A probe that fails is one attempt.
	r.exec(`UPDATE callback_endpoints SET hold_until = now() - interval '1 second'`)
	r.run(d, id)
	if got := len(e.requests()); got != tried+1 || scalar[int](r, `SELECT probes FROM callback_endpoints`) != 1 {
		t.Errorf("%d attempts by a probe", got-tried)
	}
	close(up)
	r.exec(`UPDATE callback_endpoints SET hold_until = now() - interval '1 second'`)
	r.exec(`UPDATE callback_events SET next_at = now()`)
	r.run(d, id)
	if got := scalar[int](r, `SELECT count(*) FROM callback_events WHERE delivered_at IS NULL`); got != 0 {
		t.Errorf("%d events wait after the endpoint came back", got)
	}
	if !scalar[bool](r, `SELECT opened_at IS NULL AND hold_until IS NULL AND failures = 0 AND due_at IS NULL FROM callback_endpoints`) {
		t.Error("the circuit is not closed")
	}
}

func TestGoneRetryAfterAndTheEnd(t *testing.T) {
	r := newRig(t)
	gone := newEndpoint(t, func(int, got) int { return http.StatusGone })
	sub, _ := r.subscribe(gone.URL)
	r.accepted(r.accept(""))
	r.run(r.d, sub)
	if !scalar[bool](r, `SELECT NOT active AND inactive_reason = 'gone' FROM callback_endpoints`) {
		t.Error("a subscription that is gone is active")
	}
	r.accepted(r.accept(""))
	if n := scalar[int](r, `SELECT count(*) FROM callback_events`); n != 1 {
		t.Errorf("%d events for a subscription that is gone", n)
	}
	if n, err := r.store.MendCallbacks(t.Context()); n != 0 || err != nil {
		t.Errorf("mended %d, %v", n, err)
	}

	busy := newEndpoint(t, func(int, got) int { return http.StatusTooManyRequests })
	busy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	id := r.accept(busy.URL)
	r.accepted(id)
	host := scalar[uuid.UUID](r, `SELECT callback_endpoint FROM messages WHERE id = $1`, id)
	r.run(r.d, host)
	if !scalar[bool](r, `SELECT hold_until BETWEEN now() + interval '590 seconds' AND now() + interval '600 seconds' AND opened_at IS NULL FROM callback_endpoints WHERE endpoint_id = $1`, host) {
		t.Error("Retry-After does not hold the endpoint")
	}
	if !scalar[bool](r, `SELECT next_at > now() + interval '590 seconds' FROM callback_events WHERE endpoint_id = $1`, host) {
		t.Error("Retry-After does not hold the event")
	}

	// What was not delivered within its time is given up, and what waits behind it goes on.
	r.exec(`UPDATE callback_events SET expires_at = now() - interval '1 second' WHERE endpoint_id = $1`, host)
	r.apply(status(id, "sent"))
	if n, err := r.store.ExpireCallbacks(t.Context(), 100); n != 1 || err != nil {
		t.Fatalf("gave up %d, %v", n, err)
	}
	busy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	r.exec(`UPDATE callback_endpoints SET hold_until = NULL WHERE endpoint_id = $1`, host)
	r.run(r.d, host)
	if got := scalar[string](r, `SELECT string_agg(status || ':' || CASE WHEN delivered_at IS NOT NULL THEN 'delivered' WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'waiting' END, ' ' ORDER BY seq) FROM callback_events WHERE endpoint_id = $1`, host); got != "accepted:dead sent:delivered" {
		t.Errorf("they are %s", got)
	}
}

// An event that comes while the one before it waits for its next attempt waits with it, however often one looks.
func TestALaterEventWaitsForTheOneBefore(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, func(n int, _ got) int {
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	id := r.accept(e.URL)
	r.accepted(id)
	endpoint := scalar[uuid.UUID](r, `SELECT endpoint_id FROM callback_endpoints`)
	d := r.deliverer()
	d.retry = func(int) time.Duration { return time.Hour }
	r.run(d, endpoint)
	r.apply(status(id, "sent"))
	r.apply(status(id, "delivered"))
	for range 2 {
		r.run(d, endpoint)
	}
	if n := len(e.requests()); n != 1 {
		t.Errorf("%d attempts while the first event waits", n)
	}
	if !scalar[bool](r, `SELECT count(*) = 3 AND min(next_at) = max(next_at) AND min(next_at) > now() + interval '59 minutes' FROM callback_events`) {
		t.Error("the later events are not due with the first one")
	}
	if !scalar[bool](r, `SELECT e.due_at = (SELECT min(next_at) FROM callback_events) FROM callback_endpoints e`) {
		t.Error("the next job is not for when they are due")
	}
	r.exec(`UPDATE callback_events SET next_at = now()`)
	r.run(d, endpoint)
	if got := toldWords(e.next(t, 3)); got[0] != "accepted" || got[1] != "sent" || got[2] != "delivered" {
		t.Errorf("told %v", got)
	}
}
