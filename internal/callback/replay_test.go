package callback

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"wagate/internal/seal"
	"wagate/internal/store"
)

func TestTwoSecretsDuringRotation(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	sub, first := r.subscribe(e.URL)
	second := NewSecret(FormatWagate)
	if err := r.store.SetSubscriptionSecret(t.Context(), sub, r.sealer.Seal([]byte(second), seal.CallbackSecret(sub.String())), time.Hour); err != nil {
		t.Fatal(err)
	}
	verified := func(secret string, g got) error {
		hook, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		return hook.Verify(g.body, g.header)
	}
	r.accepted(r.accept(""))
	r.run(r.d, sub)
	g := e.next(t, 1)[0]
	if err := verified(first, g); err != nil {
		t.Errorf("the old secret, during the overlap: %v", err)
	}
	if err := verified(second, g); err != nil {
		t.Errorf("the new secret, during the overlap: %v", err)
	}
	r.exec(`UPDATE callback_endpoints SET old_secret_until = now() - interval '1 second'`)
	r.accepted(r.accept(""))
	r.run(r.d, sub)
	g = e.next(t, 1)[0]
	if err := verified(first, g); err == nil {
		t.Error("the old secret is valid after the overlap")
	}
	if err := verified(second, g); err != nil {
		t.Errorf("the new secret, after the overlap: %v", err)
	}
}

func TestReplay(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	sub, _ := r.subscribe(e.URL)
	const n = 25
	for range n {
		r.accepted(r.accept(""))
	}
	r.run(r.d, sub)
	first := e.next(t, n)
	r.exec(`UPDATE callback_events SET delivered_at = NULL, dead_at = now() WHERE seq IN (SELECT seq FROM callback_events ORDER BY seq LIMIT 5)`)
	r.exec(`UPDATE callback_endpoints SET opened_at = now(), hold_until = now() + interval '1 hour', due_at = now() + interval '1 hour'`)
	total, after := 0, int64(0)
	for {
		m, next, err := r.store.ReplayCallbacks(t.Context(), store.CallbackFilter{EndpointIDs: []uuid.UUID{sub}, Since: time.Now().Add(-time.Hour), After: after, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if total += m; next == 0 {
			break
		}
		after = next
	}
	if total != n {
		t.Fatalf("replayed %d of %d", total, n)
	}
	r.run(r.d, sub)
	ids := func(all []got) []string {
		out := make([]string, len(all))
		for i, g := range all {
			out[i] = g.header.Get("webhook-id")
		}
		slices.Sort(out)
		return out
	}
	if again := e.next(t, n); !slices.Equal(ids(first), ids(again)) {
		t.Error("the replay is of other events")
	}
	// By message.
	id, _ := first[0].status()
	if m, _, err := r.store.ReplayCallbacks(t.Context(), store.CallbackFilter{MessageID: id, Limit: 10}); m != 1 || err != nil {
		t.Fatal(m, err)
	}
	r.run(r.d, sub)
	if again, _ := e.next(t, 1)[0].status(); again != id {
		t.Error("the replay is of another message")
	}
}

func TestForgetting(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	kept, _ := r.subscribe(e.URL)
	deleted, _ := r.subscribe(e.URL)
	for range 3 {
		r.accepted(r.accept(""))
	}
	r.run(r.d, kept)
	// The first was replayed an hour ago.
	r.exec(`UPDATE callback_events SET created_at = now() - interval '4 days', delivered_at = now() - interval '1 hour' WHERE endpoint_id = $1 AND seq = (SELECT min(seq) FROM callback_events WHERE endpoint_id = $1)`, kept)
	r.exec(`UPDATE callback_events SET created_at = now() - interval '73 hours', delivered_at = NULL WHERE endpoint_id = $1 AND seq = (SELECT max(seq) FROM callback_events WHERE endpoint_id = $1)`, kept)
	if err := r.store.DeleteSubscription(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := r.store.ForgetCallbacks(t.Context(), 72*time.Hour, 2)
		if err != nil {
			t.Fatal(err)
		}
		if n < 2 {
			break
		}
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_events WHERE endpoint_id = $1`, kept); n != 2 {
		t.Errorf("%d events are kept, want the young one and the one that waits", n)
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_events`); n != 2 {
		t.Errorf("%d events in all", n)
	}
	r.exec(`UPDATE callback_events SET created_at = now() - interval '97 hours' WHERE delivered_at IS NULL`)
	if n, err := r.store.ForgetCallbacks(t.Context(), 72*time.Hour, 2); n != 1 || err != nil {
		t.Errorf("%d of those that are replayed for ever go, %v", n, err)
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_endpoints`); n != 1 {
		t.Errorf("%d endpoints, want that of the deleted subscription gone", n)
	}
}

// The secret of callback_urls is made once, also by two at the same moment, and is not written again by those who read it.
func TestOwnerSecretIsWrittenOnce(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	secrets := make([][]byte, 8)
	for i := range secrets {
		wg.Go(func() {
			c, err := OwnerSecret(t.Context(), r.store, r.sealer, owner)
			if err != nil {
				t.Error(err)
			}
			secrets[i] = c.Secret
		})
	}
	wg.Wait()
	row := scalar[string](r, `SELECT ctid::text FROM callback_secrets`)
	c, err := OwnerSecret(t.Context(), r.store, r.sealer, owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if !bytes.Equal(s, c.Secret) {
			t.Error("two secrets of one owner")
		}
	}
	if now := scalar[string](r, `SELECT ctid::text FROM callback_secrets`); now != row {
		t.Errorf("the row was written by who only reads it: %s, then %s", row, now)
	}
}
