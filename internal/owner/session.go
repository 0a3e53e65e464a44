package owner

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// session is one registration of the worker: the connection whose advisory lock tells the others that the process
// lives, and the connection that renews.
type session struct {
	lock    *pgx.Conn
	renewal *pgx.Conn
	fresh   atomic.Int64
}

func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = s.renewal.Close(ctx)
	_ = s.lock.Close(ctx)
}

// openWait bounds a registration, where the TTL is shorter.
const openWait = 5 * time.Second

// open connects, takes the worker's lock, and only then writes its row: a row without a held lock is a dead worker's.
func (o *Owner) open(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, max(o.cfg.TTL, openWait))
	defer cancel()
	connect := func() (*pgx.Conn, error) {
		cfg := o.cfg.Pool.Config().ConnConfig.Copy()
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return nil, fmt.Errorf("connecting worker %s: %w", o.cfg.WorkerID, err)
		}
		return conn, nil
	}
	lock, err := connect()
	if err != nil {
		return nil, err
	}
	renewal, err := connect()
	if err != nil {
		_ = lock.Close(ctx)
		return nil, err
	}
	s := &session{lock: lock, renewal: renewal}
	key := rand.Int64() //nolint:gosec // a name, no secret
	if _, err = lock.Exec(ctx, `DELETE FROM workers WHERE heartbeat_at < clock_timestamp() - interval '1 day'`); err == nil {
		_, err = lock.Exec(ctx, `SELECT pg_advisory_lock($1::bigint)`, key)
	}
	if err == nil {
		_, err = renewal.Exec(ctx, `
			INSERT INTO workers (worker_id, lock_key) VALUES ($1::text, $2::bigint)
			ON CONFLICT (worker_id) DO UPDATE SET lock_key = $2::bigint, dead_at = NULL, started_at = clock_timestamp(),
			                                      heartbeat_at = clock_timestamp(), draining = false`, o.cfg.WorkerID, key)
	}
	if err != nil {
		s.close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("registering worker %s: %w", o.cfg.WorkerID, err)
	}
	return s, nil
}

// Watch looks, until ctx ends, for workers whose lock is free and writes down when it first saw that: the upper bound of
// when they died. Every process may watch, so that the death of a lone worker has a witness too. self is left out.
func Watch(ctx context.Context, pool *pgxpool.Pool, self string, every time.Duration, logger *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := pool.Exec(bounded, `
			UPDATE workers w SET dead_at = clock_timestamp()
			FROM (
				SELECT x.worker_id, x.lock_key FROM workers x
				WHERE x.dead_at IS NULL AND x.worker_id <> $1::text AND NOT EXISTS (
					SELECT FROM pg_locks l
					WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
					  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
					  AND l.classid = ((x.lock_key >> 32) & 4294967295)::oid AND l.objid = (x.lock_key & 4294967295)::oid)
			) dead
			WHERE w.worker_id = dead.worker_id AND w.lock_key = dead.lock_key AND w.dead_at IS NULL`, self)
		cancel()
		if err != nil && ctx.Err() == nil {
			logger.WarnContext(ctx, "looking for dead workers failed, will be tried again", "err", err)
		}
	}
}

// balance takes what this worker should own and nobody does, and yields what another should. pending is what it should own
// and others still have.
func (o *Owner) balance(ctx context.Context, s *session) (pending []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.TTL-o.cfg.Margin)
	defer cancel()
	workers, err := collect[string](ctx, s.renewal, `
		SELECT worker_id FROM workers WHERE dead_at IS NULL AND NOT draining
		  AND heartbeat_at > clock_timestamp() - make_interval(secs => $1::double precision)`, o.cfg.TTL.Seconds())
	if err != nil {
		return nil, fmt.Errorf("listing workers: %w", err)
	}
	wabas, err := collect[string](ctx, s.renewal, `SELECT waba_id FROM wabas`)
	if err != nil {
		return nil, fmt.Errorf("listing WABAs: %w", err)
	}
	var want []string
	yielded := false
	listed := make(map[string]bool, len(wabas))
	owners := spread(wabas, workers)
	o.mu.Lock()
	for _, waba := range wabas {
		listed[waba] = true
		l := o.leases[waba]
		mine := owners[waba] == o.cfg.WorkerID
		switch {
		case mine && l == nil && !o.draining.Load():
			want = append(want, waba)
		case l != nil && !mine && len(workers) > 0 && !l.handover.Swap(true):
			yielded = true
		}
	}
	for waba, l := range o.leases {
		if !listed[waba] && !l.handover.Swap(true) {
			yielded = true // the WABA was deleted
		}
	}
	o.mu.Unlock()
	if yielded {
		o.signal()
	}
	return o.take(ctx, s, want)
}

// take leases those of the WABAs that nobody has and gives the others.
func (o *Owner) take(ctx context.Context, s *session, want []string) (pending []string, err error) {
	if len(want) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.TTL-o.cfg.Margin)
	defer cancel()
	type taken struct {
		WABAID string
		Epoch  int64
	}
	// ON CONFLICT locks every row it meets, also one it then leaves alone: leases of the living are left out before.
	rows, err := s.renewal.Query(ctx, `
		INSERT INTO leases AS l (waba_id, worker_id, epoch, expires_at)
		SELECT w, $1::text, 1, clock_timestamp() + make_interval(secs => $2::double precision) FROM unnest($3::text[]) AS w
		WHERE NOT EXISTS (SELECT FROM leases x WHERE x.waba_id = w AND x.expires_at > clock_timestamp() AND x.worker_id <> $1::text)
		ORDER BY w
		ON CONFLICT (waba_id) DO UPDATE
		SET worker_id = excluded.worker_id, epoch = l.epoch + 1, expires_at = excluded.expires_at,
		    prev_worker_id = CASE WHEN l.worker_id = '' THEN l.prev_worker_id ELSE l.worker_id END,
		    prev_expires_at = CASE WHEN l.worker_id = '' THEN l.prev_expires_at ELSE least(l.expires_at, clock_timestamp()) END
		WHERE l.expires_at <= clock_timestamp() OR l.worker_id = $1::text
		RETURNING l.waba_id, l.epoch`, o.cfg.WorkerID, o.cfg.TTL.Seconds(), want)
	if err != nil {
		return nil, fmt.Errorf("taking leases: %w", err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[taken])
	if err != nil {
		return nil, fmt.Errorf("taking leases: %w", err)
	}
	if len(got) == 0 {
		return want, nil
	}
	// A lease taken now shares the freshness of the last renewal, which began earlier: it ends earlier than it must.
	o.mu.Lock()
	if ctx.Err() != nil { // the session ended meanwhile, and with it everything
		o.mu.Unlock()
		return nil, fmt.Errorf("taking leases: %w", context.Cause(ctx))
	}
	for _, t := range got {
		l := &Lease{WABAID: t.WABAID, Epoch: t.Epoch, fresh: &s.fresh, base: o.base}
		l.handover.Store(o.draining.Load()) // Drain came while the take was under way
		o.leases[t.WABAID] = l
	}
	o.mu.Unlock()
	o.cfg.Logger.InfoContext(ctx, "took WABAs", "wabas", len(got))
	o.signal()
	return slices.DeleteFunc(want, func(id string) bool { return slices.ContainsFunc(got, func(t taken) bool { return t.WABAID == id }) }), nil
}

// spread says which worker should own which WABA: rendezvous hashing with a bound. Of the workers that have less than
// their even share yet, the one with the highest hash of (worker, WABA) owns it. Every worker works out the same, few
// WABAs move when a worker comes or goes, and no worker stands idle beside one that owns two.
func spread(wabas, workers []string) map[string]string {
	owners := make(map[string]string, len(wabas))
	if len(workers) == 0 {
		return owners
	}
	room := (len(wabas) + len(workers) - 1) / len(workers)
	owned := make(map[string]int, len(workers))
	for _, waba := range slices.Sorted(slices.Values(wabas)) {
		var best string
		var top uint64
		for _, w := range workers {
			if owned[w] >= room {
				continue
			}
			if x := weight(w, waba); best == "" || x > top || (x == top && w < best) {
				best, top = w, x
			}
		}
		owners[waba] = best
		owned[best]++
	}
	return owners
}

func weight(worker, waba string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(worker))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(waba))
	// FNV's last bytes barely move its high bits; a finisher spreads them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func collect[T any](ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]T, error) {
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}
