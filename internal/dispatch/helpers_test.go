package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"wagate/internal/limiter"
	"wagate/internal/message"
	"wagate/internal/owner"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/sender"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// The accounts of these tests. A phone number of the first WABA is there from the start.
const (
	testWABA  = "102540001"
	otherWABA = "102540002"
	testPhone = "106540001"
	testApp   = "880100001"
)

// patience bounds every wait of these tests; none waits that long unless it fails.
const patience = 60 * time.Second

// eventually looks at cond again and again until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// bounded is for what tries again until it succeeds.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// nowhere is a base URL for tests in which nothing is sent.
const nowhere = "http://127.0.0.1:1"

// rig is a dispatcher whose keeper does not run and whose queue client works nothing: a test makes each step itself.
type rig struct {
	*Dispatcher
	pool     *pgxpool.Pool
	registry *prometheus.Registry
}

// newPool gives a database with the accounts of these tests.
func newPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.New(t)
	st := store.New(pool)
	app := testApp
	for _, id := range []string{testWABA, otherWABA} {
		err := st.PutWABA(t.Context(), store.WABA{ID: id, AppID: &app, AccessToken: []byte("sealed"), ManagementCallsPerHour: 200, Burst: 1}, &store.App{ID: testApp})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := st.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: testPhone, WABAID: testWABA, Burst: 1, PairBurst: 45, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
	return pool
}

func newRig(t *testing.T, pool *pgxpool.Pool, workerID, baseURL string) *rig {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	post, err := sender.New(sender.Config{BaseURL: baseURL, Version: "v23.0", Timeout: 20 * time.Second, WorkerID: workerID})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(post.Close)
	registry := prometheus.NewRegistry()
	d, err := New(Config{
		Store: store.New(pool), Sender: post, Logger: quiet, Registerer: registry,
		Owner:     owner.New(owner.Config{Pool: pool, WorkerID: workerID, Logger: quiet, TTL: time.Minute, Renew: 20 * time.Millisecond}),
		OpenToken: func(string, []byte) (string, error) { return "opened", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	d.client, err = queue.NewClient(queue.ClientConfig{Pool: pool, WorkerID: workerID, Handler: d.Handle, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Dispatcher: d, pool: pool, registry: registry}
}

// hold makes the rig work WABAs without a lease, for tests that begin no try.
func (r *rig) hold(t *testing.T, wabas ...string) {
	t.Helper()
	for _, id := range wabas {
		exec(t, r.pool, `
			INSERT INTO leases (waba_id, worker_id, epoch, expires_at) VALUES ($1::text, $2::text, 1, clock_timestamp() + interval '1 hour')
			ON CONFLICT DO NOTHING`, id, r.cfg.Owner.WorkerID())
		lease := &owner.Lease{WABAID: id}
		scan(t, r.pool, &lease.Epoch, `SELECT epoch FROM leases WHERE waba_id = $1::text`, id)
		r.wabas[id] = &waba{id: id, lease: lease, line: limiter.NewLine(limiter.Limit{}, r.cfg.Lead), since: time.Now()}
	}
	r.reread(t)
}

// own runs the owner until the test ends, and takes up the WABAs it leases. Their lines are open.
func (r *rig) own(t *testing.T) *lane {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.cfg.Owner.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the owner ran until %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, "a fresh lease of every WABA", func() bool {
		leases := r.cfg.Owner.Leases()
		return len(leases) == 2 && leases[0].Fresh(time.Now()) && leases[1].Fresh(time.Now())
	})
	r.adopt(t.Context())
	r.reread(t)
	ln := r.laneOf(testPhone)
	ln.waba.line.Open(testPhone)
	return ln
}

// reread is the keeper's look at settings and pauses.
func (r *rig) reread(t *testing.T) {
	t.Helper()
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// count reads a counter.
func (r *rig) count(t *testing.T, name string) int {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, pool *pgxpool.Pool, into any, sql string, args ...any) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(into); err != nil {
		t.Fatal(err)
	}
}

// accept puts a message and its job in. The job has waited for an hour: its place in the lane is not that of a new one.
func (r *rig) accept(t *testing.T, change ...func(*store.NewMessage)) uuid.UUID {
	t.Helper()
	now := time.Now()
	m := store.NewMessage{
		ID: message.NewID(now), PhoneNumberID: testPhone, Recipient: "+12025550101", Type: "text", Priority: 2, OnUnknown: "hold", CreatedAt: now,
		Body: []byte(`{"messaging_product":"whatsapp","to":"+12025550101","type":"text","text":{"body":"hello"}}`),
	}
	for _, f := range change {
		f(&m)
	}
	err := r.store.InTx(t.Context(), func(tx pgx.Tx) error {
		if _, err := r.store.Accept(t.Context(), tx, []store.NewMessage{m}); err != nil {
			return err
		}
		return r.jobs.Insert(t.Context(), tx, []queue.Send{{MessageID: m.ID, PhoneNumberID: testPhone, Priority: m.Priority}})
	})
	if err != nil {
		t.Fatal(err)
	}
	exec(t, r.pool, `UPDATE river_job SET scheduled_at = clock_timestamp() - interval '1 hour' WHERE args ->> 'id' = $1::text`, m.ID.String())
	return m.ID
}

// claim makes a message's job running, as River's fetch does.
func claim(t *testing.T, pool *pgxpool.Pool, id uuid.UUID, by string) queue.Job {
	t.Helper()
	job := queue.Job{MessageID: id, PhoneNumberID: testPhone}
	err := pool.QueryRow(t.Context(), `
		UPDATE river_job SET state = 'running', attempt = attempt + 1, attempted_at = clock_timestamp(), attempted_by = array_append(attempted_by, $2::text)
		WHERE args ->> 'id' = $1::text AND state = 'available' RETURNING id, attempt, priority, scheduled_at`, id.String(), by).Scan(&job.ID, &job.Attempt, &job.Priority, &job.Place)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

type jobRow struct {
	ID          int64
	State       string
	Priority    int
	ScheduledAt time.Time
}

// jobsOf lists the jobs of a message, oldest first.
func jobsOf(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) []jobRow {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT id, state::text, priority, scheduled_at FROM river_job WHERE args ->> 'id' = $1::text ORDER BY id`, id.String())
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[jobRow])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantJobs compares the states of a message's jobs, oldest first.
func wantJobs(t *testing.T, pool *pgxpool.Pool, id uuid.UUID, states ...string) []jobRow {
	t.Helper()
	all := jobsOf(t, pool, id)
	var got []string
	for _, j := range all {
		got = append(got, j.State)
	}
	if fmt.Sprint(got) != fmt.Sprint(states) {
		t.Fatalf("the message's jobs are %v, want %v", got, states)
	}
	return all
}

// wantGivenBack says that the job was cancelled for a new one at its place in the lane.
func wantGivenBack(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) {
	t.Helper()
	j := wantJobs(t, pool, id, "cancelled", "available")
	if j[1].Priority != j[0].Priority || !j[1].ScheduledAt.Equal(j[0].ScheduledAt) {
		t.Errorf("given back at priority %d, %v; its place was %d, %v", j[1].Priority, j[1].ScheduledAt, j[0].Priority, j[0].ScheduledAt)
	}
}

type messageRow struct {
	Status        string
	Try           int
	SlotAt        *time.Time
	SettleBy      *time.Time
	UnknownReason string
	WAMID         string
	Retries       int
	Throttles     int
	ErrorCode     int
	ErrorTitle    string
	AcceptedAt    *time.Time
	WABAID        string
}

func read(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) messageRow {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT status, try, slot_at, settle_by, coalesce(unknown_reason, ''), coalesce(wamid, ''), retries, throttles, coalesce(error_code, 0),
		       coalesce(error_title, ''), accepted_at, waba_id FROM messages WHERE id = $1::uuid`, id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[messageRow])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wantQueued says that a message waits, without an open try.
func wantQueued(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) {
	t.Helper()
	if m := read(t, pool, id); m.Status != "queued" || m.SlotAt != nil || m.SettleBy != nil {
		t.Errorf("status %s, slot %v, settled by %v; want a queued message", m.Status, m.SlotAt, m.SettleBy)
	}
}

// wantEvents compares the kinds of a message's events, oldest first.
func wantEvents(t *testing.T, pool *pgxpool.Pool, id uuid.UUID, kinds ...string) {
	t.Helper()
	var got []string
	scan(t, pool, &got, `SELECT coalesce(array_agg(kind ORDER BY id), '{}') FROM message_events WHERE message_id = $1::uuid`, id)
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		t.Errorf("events %v, want %v", got, kinds)
	}
}

// begun makes a message's first try one that a worker began and whose end nobody recorded.
func begun(t *testing.T, pool *pgxpool.Pool, id uuid.UUID, by string, slot time.Time) {
	t.Helper()
	exec(t, pool, `UPDATE messages SET status = 'sending', try = 1, slot_at = $2::timestamptz, marked_by = $3::text, epoch = 1 WHERE id = $1::uuid`, id, slot, by)
}
