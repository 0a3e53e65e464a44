package callback

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/store"
)

func toldWords(all []got) []string {
	out := make([]string, len(all))
	for i, g := range all {
		_, out[i] = g.status()
	}
	return out
}

func TestCallbackURLIsToldInOrderAndSigned(t *testing.T) {
	r := newRig(t)
	r.work(r.d)
	e := newEndpoint(t, nil)
	id := r.accept(e.URL+"/hook?tenant=7", func(m *store.NewMessage) {
		m.Reference, m.Tags = "order-17", `{"campaign":"spring"}`
	})
	r.accepted(id)
	r.apply(status(id, "delivered"), status(id, "sent")) // in one notification, the wrong way round
	r.apply(status(id, "sent"))                          // again, late
	r.apply(status(id, "read"))
	all := e.next(t, 4)
	if got, want := toldWords(all), []string{"accepted", "sent", "delivered", "read"}; !slices.Equal(got, want) {
		t.Fatalf("told %v, want %v", got, want)
	}
	s, err := OwnerSecret(t.Context(), r.store, r.sealer, owner)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := r.sealer.Open(s.Secret, seal.CallbackOwner(owner))
	if err != nil {
		t.Fatal(err)
	}
	hook, err := standardwebhooks.NewWebhook(string(plain))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, g := range all {
		if err := hook.Verify(g.body, g.header); err != nil {
			t.Errorf("%s: %v", g.body, err)
		}
		ids[g.header.Get("webhook-id")] = true
		if g.path != "/hook?tenant=7" {
			t.Errorf("posted to %s", g.path)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d webhook-ids for 4 events", len(ids))
	}
	var first struct {
		Type      string
		Timestamp time.Time
		Data      map[string]any
	}
	if err := json.Unmarshal(all[0].body, &first); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"id": id.String(), "status": "accepted", "from": "200", "waba_id": "100", "to": "+16505551234", "type": "text", "wamid": "wamid." + id.String(),
		"reference": "order-17", "tags": map[string]any{"campaign": "spring"}, "error": nil, "pricing": nil, "resend_of": nil,
	}
	if first.Type != "message.status" || time.Since(first.Timestamp) > time.Hour || fmt.Sprint(first.Data) != fmt.Sprint(want) {
		t.Errorf("told %s", all[0].body)
	}
}

// The gateway's own decisions are told as Meta's are, and nothing is told that did not come to be.
func TestOwnStatusesAreTold(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	now := time.Now()
	want := map[uuid.UUID][]string{}
	message := func(words ...string) uuid.UUID {
		id := r.accept(e.URL)
		want[id] = words
		return id
	}
	r.outcome(message("failed"), store.Outcome{Status: "failed", Event: "try.refused", ErrorCode: 131009, ErrorTitle: "no"})
	r.outcome(message("failed"), store.Outcome{Status: "failed", Event: "failed", ErrorCode: 1, ErrorTitle: "Recipient is not allowed"})
	r.outcome(message("expired"), store.Outcome{Status: "expired", Event: "expired"})
	r.outcome(message("unknown"), store.Outcome{Status: "unknown", Event: "try.unknown", Reason: "timeout"})
	withdraw := func(context.Context, pgx.Tx, []store.Again) error { return nil }
	if ok, err := r.store.Cancel(t.Context(), message("cancelled"), now, withdraw); !ok || err != nil {
		t.Fatal(ok, err)
	}
	many := r.accept(e.URL, func(m *store.NewMessage) { m.Reference = "many" })
	want[many] = []string{"cancelled"}
	if n, _, err := r.store.CancelMany(t.Context(), store.CancelFilter{Reference: "many"}, now, time.Minute, withdraw); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	late := r.accept(e.URL, func(m *store.NewMessage) { m.ExpiresAt = now.Add(-time.Second) })
	want[late] = []string{"expired"}
	if n, err := r.store.Expire(t.Context(), now.Add(-time.Minute), now, 10); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for _, as := range []store.Decision{store.DecideSent, store.DecideFailed, store.DecideResend} {
		id := message("unknown", string(as))
		if as == store.DecideResend {
			want[id] = []string{"unknown"}
		}
		r.outcome(id, store.Outcome{Status: "unknown", Event: "try.unknown", Reason: "timeout"})
		r.tx(func(tx pgx.Tx) error { _, err := r.store.Settle(t.Context(), tx, id, as, now); return err })
	}
	due := r.accept(e.URL, func(m *store.NewMessage) { m.OnUnknown = "fail" })
	want[due] = []string{"unknown", "failed"}
	r.outcome(due, store.Outcome{Status: "unknown", Event: "try.unknown", Reason: "timeout", SettleBy: now.Add(-time.Minute)})
	r.exec(`UPDATE messages SET unknown_at = now() - interval '1 day' WHERE id = $1`, due)
	r.tx(func(tx pgx.Tx) error {
		_, err := r.store.SettleUnknown(t.Context(), tx, store.Patience{WorkerID: "w", After: time.Second, Limit: 10})
		return err
	})
	// A webhook was faster than the answer: accepted is no news any more.
	faster := message("delivered")
	r.exec(`UPDATE messages SET status = 'sending', try = 1 WHERE id = $1`, faster)
	r.apply(status(faster, "delivered"))
	r.accepted(faster)
	// Meta's failure, and the delivery that proves it wrong.
	wrong := message("accepted", "sent", "failed", "delivered")
	r.accepted(wrong)
	r.apply(status(wrong, "sent"))
	r.apply(status(wrong, "failed"))
	r.apply(status(wrong, "failed"))
	r.apply(status(wrong, "delivered"))
	// A failure after which the message is sent again is nobody's business.
	again := message("accepted", "sent")
	r.accepted(again)
	r.apply(status(again, "sent"))
	r.tx(func(tx pgx.Tx) error {
		_, err := r.store.ApplyStatuses(t.Context(), tx, []store.Status{status(again, "failed")}, func(store.Failure) store.NewTry { return store.NewTry{Again: true} })
		return err
	})

	total := 0
	for _, w := range want {
		total += len(w)
	}
	r.work(r.d)
	told := map[uuid.UUID][]string{}
	for _, g := range e.next(t, total) {
		id, word := g.status()
		told[id] = append(told[id], word)
		if word == "failed" && !strings.Contains(string(g.body), `"title":"`) {
			t.Errorf("a failure without a title: %s", g.body)
		}
	}
	for id, w := range want {
		if !slices.Equal(told[id], w) {
			t.Errorf("told %v, want %v", told[id], w)
		}
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_events`); n != total {
		t.Errorf("%d events, want %d", n, total)
	}
}

func TestOrderOfEachMessageHoldsUnderFailures(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, func(int, got) int {
		if rand.N(3) == 0 { //nolint:gosec // no secret
			return http.StatusBadGateway
		}
		return http.StatusOK
	})
	for range 2 { // several processes at once
		d := r.deliverer()
		d.retry = func(int) time.Duration { return rand.N(30 * time.Millisecond) } //nolint:gosec // no secret
		r.work(d)
	}
	const n = 60
	want := []string{"accepted", "sent", "delivered", "read"}
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = r.accept(e.URL)
		r.accepted(ids[i])
	}
	for _, word := range want[1:] {
		for _, id := range ids {
			r.apply(status(id, word))
		}
	}
	told := map[uuid.UUID][]string{}
	for _, g := range e.next(t, n*len(want)) {
		id, word := g.status()
		told[id] = append(told[id], word)
	}
	for _, id := range ids {
		if !slices.Equal(told[id], want) {
			t.Errorf("told %v, want %v", told[id], want)
		}
	}
	// Before a later event there was no attempt at all.
	rank := map[string]int{"accepted": 0, "sent": 1, "delivered": 2, "read": 3}
	last := map[uuid.UUID]int{}
	for _, g := range e.requests() {
		id, word := g.status()
		if rank[word] < last[id] {
			t.Fatalf("%s came after a later one", word)
		}
		last[id] = rank[word]
	}
}

func TestCrashBetweenDeliveryAndItsRecord(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	const n = 20
	for range n {
		r.accepted(r.accept(e.URL))
	}
	endpoint := scalar[uuid.UUID](r, `SELECT endpoint_id FROM callback_endpoints`)
	// A process that dies the moment the first answer is there.
	dying, die := context.WithCancel(t.Context())
	d := r.deliverer()
	d.posted = func(*store.DueCallback, answer) { die() }
	d.Handle(dying, queue.CallbackArgs{Endpoint: endpoint, Run: scalar[int64](r, `SELECT run FROM callback_endpoints`)})
	if len(e.requests()) == 0 || scalar[int](r, `SELECT count(*) FROM callback_events WHERE delivered_at IS NOT NULL`) != 0 {
		t.Fatal("nothing was posted, or it was recorded: that is no crash")
	}
	// Nobody mends it while it may live; then its job is another's.
	if n, err := r.store.MendCallbacks(t.Context()); n != 0 || err != nil {
		t.Fatalf("mended %d, %v", n, err)
	}
	r.exec(`UPDATE callback_endpoints SET alive_at = alive_at - interval '1 hour'`)
	if n, err := r.store.MendCallbacks(t.Context()); n != 1 || err != nil {
		t.Fatalf("mended %d, %v", n, err)
	}
	r.work(r.d)
	r.until(`SELECT count(*) = $1 FROM callback_events WHERE delivered_at IS NOT NULL`, n)
	told := map[uuid.UUID]int{}
	for _, g := range e.requests() {
		id, _ := g.status()
		told[id]++
	}
	if len(told) != n {
		t.Errorf("%d of %d messages were told", len(told), n)
	}
}

// Jobs that end the moment there is nothing to do leave no event behind, though events come at that very moment. Nobody mends
// anything here: an event without a job would wait for ever.
func TestNoEventIsLeftWithoutAJob(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	for range 2 {
		d := r.deliverer()
		d.idle = 0
		r.work(d)
	}
	const writers, each = 4, 60
	ids := make([]uuid.UUID, writers*each)
	for i := range ids {
		ids[i] = r.accept(e.URL)
	}
	r.exec(`UPDATE messages SET status = 'sending', try = 1`)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for _, id := range ids[w*each : (w+1)*each] {
				err := r.store.InTx(t.Context(), func(tx pgx.Tx) error {
					return r.store.RecordOutcomes(t.Context(), tx, []store.Outcome{{ID: id, Try: 1, Status: "accepted", Event: "try.accepted", At: time.Now()}}, nil)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.until(`SELECT count(*) = $1 FROM callback_events WHERE delivered_at IS NOT NULL`, len(ids))
	r.until(`SELECT due_at IS NULL FROM callback_endpoints`)
	r.until(`SELECT count(*) = 0 FROM river_job WHERE state NOT IN ('completed', 'cancelled')`)
}

// A job does not end while somebody adds an event and has seen that there is a job.
func TestAJobDoesNotEndUnderAnEvent(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	r.accepted(r.accept(e.URL))
	id := scalar[uuid.UUID](r, `SELECT endpoint_id FROM callback_endpoints`)
	number := scalar[int64](r, `SELECT run FROM callback_endpoints`)
	r.exec(`UPDATE callback_events SET delivered_at = now()`)
	second := r.accept(e.URL)
	r.exec(`UPDATE messages SET status = 'sending', try = 1 WHERE id = $1`, second)
	r.tx(func(tx pgx.Tx) error {
		err := r.store.RecordOutcomes(t.Context(), tx, []store.Outcome{{ID: second, Try: 1, Status: "accepted", Event: "try.accepted", At: time.Now()}}, nil)
		if err != nil {
			return err
		}
		if ended, err := r.store.EndCallbacks(t.Context(), id, number); ended || err != nil {
			t.Errorf("it ended while the event is not committed: %v, %v", ended, err)
		}
		return nil
	})
	if ended, err := r.store.EndCallbacks(t.Context(), id, number); ended || err != nil {
		t.Errorf("it ended though an event is due: %v, %v", ended, err)
	}
	r.exec(`UPDATE callback_events SET delivered_at = now()`)
	if ended, err := r.store.EndCallbacks(t.Context(), id, number); !ended || err != nil {
		t.Errorf("it did not end: %v, %v", ended, err)
	}
	r.accepted(r.accept(e.URL))
	if got := scalar[int64](r, `SELECT run FROM callback_endpoints WHERE due_at IS NOT NULL`); got <= number {
		t.Errorf("run %d after %d: the event that came then has no job of its own", got, number)
	}
}

// What the old owner of a job records late counts where it was delivered, and only there.
func TestStaleJobFailsNothing(t *testing.T) {
	r := newRig(t)
	e := newEndpoint(t, nil)
	r.accepted(r.accept(e.URL))
	r.accepted(r.accept(e.URL))
	id := scalar[uuid.UUID](r, `SELECT endpoint_id FROM callback_endpoints`)
	old := scalar[int64](r, `SELECT run FROM callback_endpoints`)
	r.exec(`UPDATE callback_endpoints SET run = run + 1`)
	due, err := r.store.DueCallbacks(t.Context(), id, 10, false)
	if err != nil || len(due) != 2 {
		t.Fatal(len(due), err)
	}
	ours, err := r.store.RecordCallbacks(t.Context(), id, old, []store.CallbackResult{
		{Seq: due[0].Seq, Delivered: true}, {Seq: due[1].Seq, Error: "x", Wait: time.Hour},
	}, store.CallbackState{Failures: 99})
	if ours || err != nil {
		t.Fatal(ours, err)
	}
	if n := scalar[int](r, `SELECT count(*) FROM callback_events WHERE delivered_at IS NOT NULL OR attempts > 0`); n != 1 {
		t.Errorf("%d events changed, want the delivered one", n)
	}
	if n := scalar[int](r, `SELECT failures FROM callback_endpoints`); n != 0 {
		t.Errorf("failures %d", n)
	}
	if _, ok, err := r.store.BeginCallbacks(t.Context(), id, old); ok || err != nil {
		t.Errorf("an old job began: %v %v", ok, err)
	}
}
