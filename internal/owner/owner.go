// Package owner decides which worker owns which WABA: heartbeats, leases, hand-over. At any time at most one worker owns
// a WABA, and only the owner sends for it.
package owner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config of an Owner. The zero value of a duration takes its preset.
type Config struct {
	Pool     *pgxpool.Pool
	WorkerID string
	Logger   *slog.Logger
	// TTL of a lease; preset 5 s. A dead owner's WABAs stand still that long.
	TTL time.Duration
	// Renew is how often leases are renewed; preset a fifth of TTL, 1 s at most.
	Renew time.Duration
	// Margin before the end of a lease at which the owner stops sending by its own clock; preset a fifth of TTL, 1 s at most.
	Margin time.Duration
	// DeadPoll is how often the locks of other workers are looked at; preset 100 ms.
	DeadPoll time.Duration
}

// DeadPoll is how often a process looks whether workers have died.
const DeadPoll = 100 * time.Millisecond

// Lease is one WABA's ownership by this worker.
type Lease struct {
	WABAID string
	Epoch  int64

	fresh    *atomic.Int64 // monotonic nanoseconds since the owner's base, shared by all leases of one renewal
	lost     atomic.Bool
	handover atomic.Bool
	base     time.Time
}

// Fresh says whether the owner may send at now: the lease is neither lost nor within the margin before its end.
func (l *Lease) Fresh(now time.Time) bool {
	return !l.lost.Load() && int64(now.Sub(l.base)) < l.fresh.Load()
}

// Yielding says that the WABA is to go to another worker: begin nothing new, end what is begun, then call Release.
func (l *Lease) Yielding() bool { return l.handover.Load() }

// Lost says that another worker may own the WABA.
func (l *Lease) Lost() bool { return l.lost.Load() }

// Owner holds the leases of one worker process.
type Owner struct {
	cfg      Config
	base     time.Time
	draining atomic.Bool
	skew     atomic.Int64 // database time minus local time, nanoseconds
	changed  chan struct{}
	hurry    chan struct{} // asks for a heartbeat before its time

	// Of the round trip skew was taken from. Only renew writes these.
	skewTrip atomic.Int64 // nanoseconds
	skewAt   time.Time

	mu     sync.Mutex
	leases map[string]*Lease
}

// New makes an owner; Run makes it live.
func New(cfg Config) *Owner {
	preset := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	preset(&cfg.TTL, 5*time.Second)
	preset(&cfg.Renew, min(cfg.TTL/5, time.Second))
	preset(&cfg.Margin, min(cfg.TTL/5, time.Second))
	preset(&cfg.DeadPoll, DeadPoll)
	return &Owner{cfg: cfg, base: time.Now(), leases: map[string]*Lease{}, changed: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
}

// WorkerID is the name this worker goes by in workers, leases and River's attempted_by.
func (o *Owner) WorkerID() string { return o.cfg.WorkerID }

// HeartbeatTTL is the age from which a worker's heartbeat no longer says that it lives.
func (o *Owner) HeartbeatTTL() time.Duration { return o.cfg.TTL }

// Changed is signalled when a lease was taken, lost or is to be handed over.
func (o *Owner) Changed() <-chan struct{} { return o.changed }

func (o *Owner) signal() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// DBTime gives the database's time at a local instant, within the round trip of a renewal.
func (o *Owner) DBTime(local time.Time) time.Time {
	return local.Add(time.Duration(o.skew.Load())).Round(0)
}

// SlotTime is DBTime less what it may be wrong by: a slot written down too early is taken for one that may have been
// sent; too late, a sent one would be taken for unsent.
func (o *Owner) SlotTime(local time.Time) time.Time {
	return o.DBTime(local).Add(-time.Duration(o.skewTrip.Load()) / 2)
}

// Leases lists what this worker owns, yielding leases too.
func (o *Owner) Leases() []*Lease {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]*Lease, 0, len(o.leases))
	for _, l := range o.leases {
		all = append(all, l)
	}
	return all
}

// Drain makes the worker take no more and yield what it has: the start of a clean stop. The others are told at once, so
// that they want what it releases.
func (o *Owner) Drain() {
	o.draining.Store(true)
	o.mu.Lock()
	for _, l := range o.leases {
		l.handover.Store(true)
	}
	o.mu.Unlock()
	o.signal()
	select {
	case o.hurry <- struct{}{}:
	default:
	}
}

// Release gives a WABA up at once, after its owner has ended what it had begun there.
func (o *Owner) Release(ctx context.Context, l *Lease) error {
	l.lost.Store(true)
	o.mu.Lock()
	if o.leases[l.WABAID] == l {
		delete(o.leases, l.WABAID)
	}
	o.mu.Unlock()
	_, err := o.cfg.Pool.Exec(ctx, `
		UPDATE leases SET worker_id = '', expires_at = clock_timestamp(), prev_worker_id = worker_id, prev_expires_at = clock_timestamp(), epoch = epoch + 1
		WHERE waba_id = $1::text AND worker_id = $2::text AND epoch = $3::bigint`, l.WABAID, o.cfg.WorkerID, l.Epoch)
	if err != nil {
		return fmt.Errorf("releasing WABA %s: %w", l.WABAID, err)
	}
	return nil
}

// Run keeps the session, the heartbeat and the leases until ctx ends. When its session breaks it owns nothing any more,
// at once, and begins anew. At its end it loses what was not released; the leases then run out.
func (o *Owner) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := o.live(ctx)
		o.loseAll()
		if ctx.Err() != nil {
			break
		}
		o.cfg.Logger.WarnContext(ctx, "lost the session with the database; owning nothing until it is back", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(o.cfg.Renew / 2):
		}
	}
	return ctx.Err()
}

// live runs one session from its registration until it breaks.
func (o *Owner) live(ctx context.Context) error {
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	// The lock's connection is read all the time: a server that ends it is noticed within the round trip, and this worker
	// then sends nothing more, although the others may already count it as dead.
	wg.Go(func() {
		_, err := s.lock.WaitForNotification(ctx)
		if ctx.Err() == nil {
			// In this order: a take that is under way either sees the end of ctx or is undone.
			cancel(fmt.Errorf("session of the worker's lock: %w", err))
			o.loseAll()
		}
	})
	wg.Go(func() { Watch(ctx, o.cfg.Pool, o.cfg.WorkerID, o.cfg.DeadPoll, o.cfg.Logger) })
	err = o.renewLoop(ctx, s)
	cancel(err)
	// Before the lock is let go: the others then count this worker as dead, and its later slots as not used.
	o.loseAll()
	wg.Wait()
	s.close(context.WithoutCancel(ctx))
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

func (o *Owner) renewLoop(ctx context.Context, s *session) error {
	tick := time.NewTicker(o.cfg.Renew)
	defer tick.Stop()
	// The first take waits for one heartbeat, so that workers that start together see each other.
	first := true
	for {
		if err := o.renew(ctx, s); err != nil {
			return err
		}
		var pending []string
		if !first {
			var err error
			if pending, err = o.balance(ctx, s); err != nil {
				return err
			}
		}
		first = false
		if err := o.await(ctx, s, tick.C, pending); err != nil {
			return err
		}
	}
}

// takeAgain is how often a worker looks whether a WABA it waits for was handed over: nothing is sent for it meanwhile.
const takeAgain = 50 * time.Millisecond

// await waits for the next renewal and takes, as soon as they are free, the WABAs that are pending.
func (o *Owner) await(ctx context.Context, s *session, next <-chan time.Time, pending []string) error {
	again := time.NewTicker(takeAgain)
	defer again.Stop()
	for {
		look := again.C
		if len(pending) == 0 || o.draining.Load() {
			look = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
			return nil
		case <-o.hurry:
			return nil
		case <-look:
			var err error
			if pending, err = o.take(ctx, s, pending); err != nil {
				return err
			}
		}
	}
}

// renew beats the heart and renews every lease it holds in one statement, on the owner's own connection. What does not
// come back was lost. A lease that is this worker's in the database only (its Release failed, or it is of an earlier
// session) is left to run out: renewed, it would stay with a worker that does nothing for it.
func (o *Owner) renew(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.TTL-o.cfg.Margin)
	defer cancel()
	o.mu.Lock()
	wabas, epochs := make([]string, 0, len(o.leases)), make([]int64, 0, len(o.leases))
	for waba, l := range o.leases {
		wabas, epochs = append(wabas, waba), append(epochs, l.Epoch)
	}
	o.mu.Unlock()
	start := time.Now()
	// Rows are locked in the order in which take locks them.
	rows, err := s.renewal.Query(ctx, `
		WITH beat AS (
			UPDATE workers SET heartbeat_at = clock_timestamp(), draining = $3::boolean WHERE worker_id = $1::text AND dead_at IS NULL RETURNING worker_id
		), held AS (
			SELECT l.waba_id FROM unnest($4::text[], $5::bigint[]) AS h(waba_id, epoch)
			JOIN leases l ON l.waba_id = h.waba_id AND l.epoch = h.epoch
			WHERE l.worker_id = $1::text ORDER BY l.waba_id FOR UPDATE OF l
		), renewed AS (
			UPDATE leases l SET expires_at = clock_timestamp() + make_interval(secs => $2::double precision)
			FROM held WHERE l.waba_id = held.waba_id AND l.worker_id = $1::text AND EXISTS (SELECT FROM beat)
			RETURNING l.waba_id, l.epoch
		)
		SELECT 'beat', 0, clock_timestamp() FROM beat UNION ALL SELECT waba_id, epoch, NULL FROM renewed`,
		o.cfg.WorkerID, o.cfg.TTL.Seconds(), o.draining.Load(), wabas, epochs)
	if err != nil {
		return fmt.Errorf("renewing the leases of worker %s: %w", o.cfg.WorkerID, err)
	}
	alive := false
	renewed := map[string]int64{}
	var id string
	var epoch int64
	var at *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &epoch, &at}, func() error {
		if at != nil {
			alive = true
			o.compareClocks(start, time.Now(), *at)
			return nil
		}
		renewed[id] = epoch
		return nil
	})
	if err != nil {
		return fmt.Errorf("renewing the leases of worker %s: %w", o.cfg.WorkerID, err)
	}
	if !alive {
		return fmt.Errorf("worker %s was counted as dead", o.cfg.WorkerID)
	}
	s.fresh.Store(int64(start.Sub(o.base) + o.cfg.TTL - o.cfg.Margin))
	o.mu.Lock()
	lost := false
	for waba, l := range o.leases {
		if renewed[waba] != l.Epoch {
			l.lost.Store(true)
			delete(o.leases, waba)
			lost = true
		}
	}
	o.mu.Unlock()
	if lost {
		o.signal()
	}
	return nil
}

// compareClocks takes the skew from a round trip, in whose middle the database is supposed to have read its clock. A
// round trip that waited (for a row lock, a busy server) would put slots so far off that a take-over misjudges them.
func (o *Owner) compareClocks(start, end, database time.Time) {
	trip := end.Sub(start)
	if o.skewAt.IsZero() || trip <= max(2*time.Duration(o.skewTrip.Load()), 5*time.Millisecond) || start.Sub(o.skewAt) > time.Minute {
		o.skew.Store(int64(database.Sub(start.Add(trip / 2))))
		o.skewTrip.Store(int64(trip))
		o.skewAt = start
	}
}

func (o *Owner) loseAll() {
	o.mu.Lock()
	n := len(o.leases)
	for waba, l := range o.leases {
		l.lost.Store(true)
		delete(o.leases, waba)
	}
	o.mu.Unlock()
	if n > 0 {
		o.signal()
	}
}
