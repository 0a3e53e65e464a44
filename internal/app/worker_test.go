package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/message"
	"wagate/internal/pgtest"
	"wagate/internal/queue"
	"wagate/internal/seal"
	"wagate/internal/simulator"
	"wagate/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

// rig is a database with WABAs and phone numbers, and a simulator in this process.
type rig struct {
	pool *pgxpool.Pool
	st   *store.Store
	sim  *simulator.Server
	cfg  config.Config
	jobs *queue.Inserter
}

func newRig(t *testing.T, simCfg simulator.Config) *rig {
	t.Helper()
	pool, err := app.OpenPool(t.Context(), pgtest.DSN(t), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	sim := simulator.New(simCfg)
	sim.Start(context.WithoutCancel(t.Context()))
	srv := httptest.NewServer(sim.Handler())
	t.Cleanup(func() { sim.Close(); srv.Close() })
	jobs, err := queue.NewInserter(pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{
		pool: pool, st: store.New(pool), sim: sim, jobs: jobs,
		cfg: config.Config{GraphURL: srv.URL, GraphVersion: "v23.0", SecretKey: config.NewSecret(string(seal.NewKey())), PostTimeout: 5 * time.Second, UnknownAfter: time.Minute, IdempotencyKeep: 24 * time.Hour},
	}
}

func (r *rig) phone(t *testing.T, waba, phone string, perSecond *float64) {
	t.Helper()
	sealer, err := seal.New(r.cfg.SecretKey.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.st.PutWABA(t.Context(), store.WABA{ID: waba, AccessToken: sealer.Seal([]byte("token"), seal.AccessToken(waba)), ManagementCallsPerHour: 5000, Burst: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.st.PutPhoneNumber(t.Context(), store.PhoneNumber{ID: phone, WABAID: waba, MessagesPerSecond: perSecond, Burst: 1, PairBurst: 45, WindowCheck: "off"}); err != nil {
		t.Fatal(err)
	}
}

// accept stores messages of normal priority with their jobs.
func (r *rig) accept(t *testing.T, phone string, recipients ...string) {
	t.Helper()
	r.acceptAs(t, phone, 3, time.Time{}, recipients...)
}

// statuses counts messages by status.
func (r *rig) statuses(ctx context.Context) map[string]int {
	rows, err := r.pool.Query(ctx, `SELECT status, count(*) FROM messages GROUP BY status`)
	counts := map[string]int{}
	if err != nil {
		return counts
	}
	var status string
	var n int
	_, _ = pgx.ForEachRow(rows, []any{&status, &n}, func() error { counts[status] = n; return nil })
	return counts
}

func (r *rig) await(t *testing.T, what string, done func(map[string]int) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got := r.statuses(ctx)
		if done(got) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: statuses %v", what, got)
		case <-tick.C:
		}
	}
}

func TestAWorkerSendsWhatWasAccepted(t *testing.T) {
	r := newRig(t, simulator.Config{})
	rate := 200.0
	r.phone(t, "1", "101", &rate)
	var to []string
	for i := range 300 {
		to = append(to, fmt.Sprintf("+1202555%04d", 100+i))
	}
	r.accept(t, "101", to...)
	w, err := app.StartWorker(t.Context(), r.cfg, r.pool, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.await(t, "accepted", func(c map[string]int) bool { return c["accepted"] == 300 })
	if err := w.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := r.sim.Ledger()
	if l.Totals.Accepted != 300 || l.Totals.Duplicates != 0 {
		t.Fatalf("ledger: %+v", l.Totals)
	}
}

// acceptAs is accept with a priority and, unless it is zero, a time at which the messages expire.
func (r *rig) acceptAs(t *testing.T, phone string, priority int, expires time.Time, recipients ...string) {
	t.Helper()
	now := time.Now()
	err := r.st.InTx(t.Context(), func(tx pgx.Tx) error {
		var msgs []store.NewMessage
		var sends []queue.Send
		for _, to := range recipients {
			id := message.NewID(now)
			msgs = append(msgs, store.NewMessage{
				ID: id, PhoneNumberID: phone, Recipient: to, Type: "text", Priority: priority, OnUnknown: "hold", CreatedAt: now, ExpiresAt: expires,
				Body: fmt.Appendf(nil, `{"to":%q,"type":"text","text":{"body":"hi"}}`, to),
			})
			sends = append(sends, queue.Send{MessageID: id, PhoneNumberID: phone, Priority: priority})
		}
		if _, err := r.st.Accept(t.Context(), tx, msgs); err != nil {
			return err
		}
		return r.jobs.Insert(t.Context(), tx, sends)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition that no status shows.
func (r *rig) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	r.await(t, what, func(map[string]int) bool { return done() })
}

func (r *rig) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	if err := r.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *rig) paused(t *testing.T, value string) bool {
	t.Helper()
	return r.count(t, `SELECT count(*) FROM pauses WHERE value = $1::text`, value) > 0
}

func (r *rig) idsTo(t *testing.T, recipients string) []uuid.UUID {
	t.Helper()
	rows, err := r.pool.Query(t.Context(), `SELECT id FROM messages WHERE recipient LIKE $1::text`, recipients)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
