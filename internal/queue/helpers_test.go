package queue

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

var quiet = slog.New(slog.DiscardHandler)

// newTestClient works nothing until it is started.
func newTestClient(t *testing.T, pool *pgxpool.Pool, handler Handler) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{
		Pool: pool, WorkerID: "worker-a", Handler: handler, Logger: quiet, RetryBase: time.Millisecond, RetryMax: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func inTx(t *testing.T, pool *pgxpool.Pool, f func(tx pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), pool, f); err != nil {
		t.Fatal(err)
	}
}

func insert(t *testing.T, pool *pgxpool.Pool, sends ...Send) {
	t.Helper()
	i, err := NewInserter(pool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	inTx(t, pool, func(tx pgx.Tx) error { return i.Insert(t.Context(), tx, sends) })
}

type row struct {
	ID          int64
	State       string
	Attempt     int
	MaxAttempts int
	Priority    int
	Queue       string
	Kind        string
	Args        []byte
	ScheduledAt time.Time
	CreatedAt   time.Time
	Finalized   bool
}

func (r row) message(t *testing.T) uuid.UUID {
	t.Helper()
	var a SendArgs
	if err := json.Unmarshal(r.Args, &a); err != nil {
		t.Fatal(err)
	}
	return a.ID
}

func jobs(t *testing.T, pool *pgxpool.Pool) []row {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT id, state::text, attempt, max_attempts, priority, queue, kind, args, scheduled_at, created_at, finalized_at IS NOT NULL FROM river_job ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// claim makes a job running as River's fetch does.
func claim(t *testing.T, pool *pgxpool.Pool, id int64, by string) Ref {
	t.Helper()
	ref := Ref{ID: id}
	err := pool.QueryRow(t.Context(), `
		UPDATE river_job SET state = 'running', attempt = attempt + 1, attempted_at = clock_timestamp(), attempted_by = array_append(attempted_by, $2::text)
		WHERE id = $1::bigint RETURNING attempt`, id, by).Scan(&ref.Attempt)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func newID(t *testing.T) uuid.UUID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// complete runs Complete alone.
func complete(t *testing.T, c *Client, tx pgx.Tx, refs []Ref) (done int, err error) {
	t.Helper()
	b := &pgx.Batch{}
	c.Complete(b, refs, &done)
	err = tx.SendBatch(t.Context(), b).Close()
	return done, err
}
