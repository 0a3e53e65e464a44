package callback

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/reach"
	"wagate/internal/seal"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

const owner = "shop"

// rig is a database with a phone number and a key, and a Deliverer whose jobs a queue client works.
type rig struct {
	t      *testing.T
	pool   *pgxpool.Pool
	store  *store.Store
	jobs   *queue.Inserter
	sealer *seal.Sealer
	d      *Deliverer
	keyID  uuid.UUID
}

func newRig(t *testing.T) *rig {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	r := &rig{t: t, pool: pgtest.New(t), keyID: uuid.New()}
	var err error
	if r.jobs, err = queue.NewInserter(r.pool, quiet); err != nil {
		t.Fatal(err)
	}
	if r.sealer, err = seal.New(seal.NewKey()); err != nil {
		t.Fatal(err)
	}
	r.store = store.New(r.pool)
	r.store.OnCallbacks(func(ctx context.Context, tx pgx.Tx, runs []store.CallbackRun) error {
		put := make([]queue.CallbackJob, len(runs))
		for i, c := range runs {
			put[i] = queue.CallbackJob{CallbackArgs: queue.CallbackArgs{Endpoint: c.EndpointID, Run: c.Run}, At: c.At}
		}
		return r.jobs.InsertCallbacks(ctx, tx, put)
	})
	r.exec(`INSERT INTO wabas (waba_id) VALUES ('100')`)
	r.exec(`INSERT INTO phone_numbers (phone_number_id, waba_id, display_phone_number) VALUES ('200', '100', '+1 202-555-0100')`)
	r.exec(`INSERT INTO api_keys (key_id, name, hash, scopes) VALUES ($1, $2, 'x', '{send}')`, r.keyID, owner)
	r.d = r.deliverer()
	return r
}

func (r *rig) deliverer() *Deliverer {
	client := NewClient(reach.New(nil, true))
	r.t.Cleanup(client.Close)
	d := New(Config{Store: r.store, Jobs: r.jobs, Client: client, Sealer: r.sealer, Logger: slog.New(slog.DiscardHandler)})
	d.retry = func(int) time.Duration { return time.Millisecond }
	d.probe = func(int) time.Duration { return time.Millisecond }
	return d
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	if _, err := r.pool.Exec(r.t.Context(), sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func scalar[T any](r *rig, sql string, args ...any) (v T) {
	r.t.Helper()
	if err := r.pool.QueryRow(r.t.Context(), sql, args...).Scan(&v); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (r *rig) tx(f func(tx pgx.Tx) error) {
	r.t.Helper()
	if err := r.store.InTx(r.t.Context(), f); err != nil {
		r.t.Fatal(err)
	}
}

// work works jobs by a queue client until the test ends.
func (r *rig) work(d *Deliverer) {
	r.t.Helper()
	client, err := queue.NewClient(queue.ClientConfig{
		Pool: r.pool, WorkerID: "w-" + uuid.NewString(), Callbacks: d.Handle, Logger: slog.New(slog.DiscardHandler),
		Handler: func(context.Context, queue.Job) queue.Verdict { panic("no message is sent here") },
	})
	if err == nil {
		err = client.Start(context.WithoutCancel(r.t.Context()))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		d.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := client.Stop(ctx); err != nil {
			r.t.Error(err)
		}
	})
}

// accept takes a message in; change may set more of it.
func (r *rig) accept(callbackURL string, change ...func(*store.NewMessage)) uuid.UUID {
	r.t.Helper()
	now := time.Now()
	m := store.NewMessage{
		ID: message.NewID(now), PhoneNumberID: "200", KeyID: r.keyID, Owner: owner, Recipient: "+16505551234", Type: "text", Priority: 3, OnUnknown: "hold",
		CallbackURL: callbackURL, Body: []byte(`{}`), CreatedAt: now,
	}
	for _, f := range change {
		f(&m)
	}
	r.tx(func(tx pgx.Tx) error { _, err := r.store.Accept(r.t.Context(), tx, []store.NewMessage{m}); return err })
	return m.ID
}

// outcome ends the first try of a message.
func (r *rig) outcome(id uuid.UUID, o store.Outcome) {
	r.t.Helper()
	r.exec(`UPDATE messages SET status = 'sending', try = 1 WHERE id = $1 AND try = 0`, id)
	o.ID, o.Try, o.At = id, 1, time.Now()
	r.tx(func(tx pgx.Tx) error { return r.store.RecordOutcomes(r.t.Context(), tx, []store.Outcome{o}, nil) })
}

func (r *rig) accepted(id uuid.UUID) {
	r.t.Helper()
	r.outcome(id, store.Outcome{Status: "accepted", Event: "try.accepted", WAMID: "wamid." + id.String()})
}

func status(id uuid.UUID, word string) store.Status {
	raw := []byte(`{"id":"wamid.` + id.String() + `","status":"` + word + `","timestamp":"1700000000","recipient_id":"16505551234","biz_opaque_callback_data":"g1:` + id.String() + `:1"}`)
	s := store.Status{
		EventID: message.NewID(time.Now()), MessageID: id, Try: 1, WAMID: "wamid." + id.String(), Status: word, At: time.Now(), RecipientID: "16505551234",
		Raw:   raw,
		Value: []byte(`{"messaging_product":"whatsapp","metadata":{"display_phone_number":"12025550100","phone_number_id":"200"},"statuses":[` + string(raw) + `]}`),
	}
	if word == "failed" {
		s.Errors = []store.StatusError{{Code: 131026, Title: "Message undeliverable", Details: "not on WhatsApp"}}
	}
	return s
}

func (r *rig) apply(set ...store.Status) {
	r.t.Helper()
	r.tx(func(tx pgx.Tx) error { _, err := r.store.ApplyStatuses(r.t.Context(), tx, set, nil); return err })
}

func (r *rig) subscribe(to string, change ...func(*store.CallbackEndpoint)) (id uuid.UUID, secret string) {
	r.t.Helper()
	e := store.CallbackEndpoint{ID: message.NewID(time.Now()), Owner: owner, URL: to, Format: FormatWagate, Events: []string{store.TellStatus}, Active: true}
	for _, f := range change {
		f(&e)
	}
	secret = NewSecret(e.Format)
	e.Secret = r.sealer.Seal([]byte(secret), seal.CallbackSecret(e.ID.String()))
	if err := r.store.PutSubscription(r.t.Context(), e); err != nil {
		r.t.Fatal(err)
	}
	return e.ID, secret
}

// got is a request that an endpoint got.
type got struct {
	header http.Header
	path   string
	body   []byte
}

func (g got) status() (id uuid.UUID, word string) {
	var e struct {
		Data struct {
			ID     uuid.UUID
			Status string
		}
	}
	_ = json.Unmarshal(g.body, &e)
	return e.Data.ID, e.Data.Status
}

// endpoint is a client's server.
type endpoint struct {
	*httptest.Server
	mu  sync.Mutex
	all []got
	// seen hears of each request that was answered with 200.
	seen chan got
	// answer gives what to answer; nil is 200.
	answer func(n int, g got) int
}

func newEndpoint(t *testing.T, answer func(n int, g got) int) *endpoint {
	t.Helper()
	e := &endpoint{seen: make(chan got, 100_000), answer: answer}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		g := got{req.Header, req.URL.RequestURI(), body}
		e.mu.Lock()
		e.all = append(e.all, g)
		n := len(e.all)
		e.mu.Unlock()
		code := http.StatusOK
		if e.answer != nil {
			code = e.answer(n, g)
		}
		w.WriteHeader(code)
		if code == http.StatusOK {
			e.seen <- g
		}
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) requests() []got {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]got(nil), e.all...)
}

// next waits for n requests that were answered with 200.
func (e *endpoint) next(t *testing.T, n int) []got {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	var all []got
	for len(all) < n {
		select {
		case g := <-e.seen:
			all = append(all, g)
		case <-late.C:
			t.Fatalf("%d of %d events came", len(all), n)
		}
	}
	return all
}

// run works the endpoint's present job here, as the queue would; it gives whether there was one.
func (r *rig) run(d *Deliverer, id uuid.UUID) {
	r.t.Helper()
	number := scalar[int64](r, `SELECT run FROM callback_endpoints WHERE endpoint_id = $1`, id)
	d.Handle(r.t.Context(), queue.CallbackArgs{Endpoint: id, Run: number})
}

// settled waits until the database says so.
func (r *rig) until(sql string, args ...any) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if scalar[bool](r, sql, args...) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("it did not come to: %s", sql)
		}
	}
}
