package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }

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

// calm is for tests in which nothing has to run out; hasty is for those in which something has.
var (
	calm  = Config{TTL: 10 * time.Second, Renew: 100 * time.Millisecond, Margin: time.Second, DeadPoll: 30 * time.Millisecond}
	hasty = Config{TTL: 1200 * time.Millisecond, Renew: 100 * time.Millisecond, Margin: 300 * time.Millisecond, DeadPoll: 30 * time.Millisecond}
)

// worker is an owner that runs, and hands over what it is to hand over unless it is told to keep it.
type worker struct {
	*Owner
	cancel context.CancelFunc
	wg     sync.WaitGroup
	busy   chan struct{} // filled by a test while the worker has begun tries, so that it releases nothing
}

func startWorker(t *testing.T, pool *pgxpool.Pool, id string, cfg Config, release bool) *worker {
	t.Helper()
	cfg.Pool, cfg.WorkerID, cfg.Logger = pool, id, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{Owner: New(cfg), cancel: cancel, busy: make(chan struct{}, 1)}
	w.wg.Go(func() {
		if err := w.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("worker %s ran until %v", id, err)
		}
	})
	if release {
		w.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-w.Changed():
				}
				for _, l := range w.Leases() {
					if l.Yielding() && !l.Lost() {
						select {
						case w.busy <- struct{}{}:
						case <-ctx.Done():
							return
						}
						if err := w.Release(ctx, l); err != nil && ctx.Err() == nil {
							t.Errorf("worker %s: %v", id, err)
						}
						<-w.busy
					}
				}
			}
		})
	}
	t.Cleanup(w.stop)
	return w
}

// stop ends Run as a crash does: nothing is released.
func (w *worker) stop() {
	w.cancel()
	w.wg.Wait()
}

func (w *worker) lease(waba string) *Lease {
	for _, l := range w.Leases() {
		if l.WABAID == waba {
			return l
		}
	}
	return nil
}

// fresh lists the WABAs for which the worker may send now.
func (w *worker) fresh() []string {
	var ids []string
	now := time.Now()
	for _, l := range w.Leases() {
		if l.Fresh(now) {
			ids = append(ids, l.WABAID)
		}
	}
	slices.Sort(ids)
	return ids
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func addWABAs(t *testing.T, pool *pgxpool.Pool, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("10254%03d", i))
	}
	exec(t, pool, `INSERT INTO wabas (waba_id) SELECT unnest($1::text[])`, ids)
	return ids
}

type leaseRow struct {
	WorkerID  string
	Epoch     int64
	ExpiresAt time.Time
	Prev      *string
	PrevEnd   *time.Time
	Over      bool
}

func readLease(t *testing.T, pool *pgxpool.Pool, waba string) leaseRow {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT worker_id, epoch, expires_at, prev_worker_id, prev_expires_at, expires_at <= clock_timestamp() FROM leases WHERE waba_id = $1::text`, waba)
	if err != nil {
		t.Fatal(err)
	}
	l, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[leaseRow])
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func deadAt(t *testing.T, pool *pgxpool.Pool, id string) *time.Time {
	t.Helper()
	var at *time.Time
	if err := pool.QueryRow(t.Context(), `SELECT dead_at FROM workers WHERE worker_id = $1::text`, id).Scan(&at); err != nil {
		t.Fatal(err)
	}
	return at
}

// beats says whether a worker is registered and has renewed.
func beats(t *testing.T, pool *pgxpool.Pool, id string) bool {
	t.Helper()
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM workers WHERE worker_id = $1::text AND heartbeat_at > started_at`, id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// beatsOn waits for n more heartbeats.
func beatsOn(t *testing.T, pool *pgxpool.Pool, id string, n int) {
	t.Helper()
	var last time.Time
	eventually(t, fmt.Sprintf("%d heartbeats of %s", n, id), func() bool {
		var at time.Time
		err := pool.QueryRow(t.Context(), `SELECT coalesce(max(heartbeat_at), 'epoch') FROM workers WHERE worker_id = $1::text`, id).Scan(&at)
		if err != nil {
			t.Fatal(err)
		}
		if at.After(last) {
			last = at
			n--
		}
		return n < 0
	})
}

// terminate ends the connection that holds a worker's lock, from the server's side.
func terminate(t *testing.T, pool *pgxpool.Pool, id string) {
	t.Helper()
	var ended int
	err := pool.QueryRow(t.Context(), `
		SELECT count(pg_terminate_backend(l.pid)) FROM workers w JOIN pg_locks l
		  ON l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint << 32 | l.objid::bigint) = w.lock_key
		WHERE w.worker_id = $1::text`, id).Scan(&ended)
	if err != nil {
		t.Fatal(err)
	}
	if ended != 1 {
		t.Fatalf("%d connections hold the lock of worker %s", ended, id)
	}
}

// share lists what rendezvous hashing gives to a worker.
func share(id string, workers, wabas []string) []string {
	var mine []string
	owners := spread(wabas, workers)
	for _, w := range wabas {
		if owners[w] == id {
			mine = append(mine, w)
		}
	}
	return mine
}

func settled(t *testing.T, wabas []string, workers ...*worker) {
	t.Helper()
	var ids []string
	for _, w := range workers {
		ids = append(ids, w.WorkerID())
	}
	for _, w := range workers {
		eventually(t, fmt.Sprintf("worker %s of %v owns its share", w.WorkerID(), ids), func() bool {
			return slices.Equal(w.fresh(), share(w.WorkerID(), ids, wabas))
		})
	}
}
