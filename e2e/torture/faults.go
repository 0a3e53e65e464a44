package main

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The faults of processes and of the disk. The others are the simulator's: see chaos.go.
const (
	faultKillWorker   = "kill-worker"
	faultFreezeWorker = "freeze-worker"
	faultKillGateway  = "kill-gateway"
	faultKillPostgres = "kill-postgres"
	faultFullDisk     = "full-disk"
	faultOutage       = "webhook-outage"
)

// fault is one that strikes at a moment.
type fault struct {
	name string
	// burst: messages are posted at once as it strikes.
	burst bool
	// strike gives how many messages it hit in flight. One that lasts goes on behind the next ones: it is waited for at the end.
	strike func(ctx context.Context, s *stage, burst int) (hits int, err error)
	lasts  bool
}

var faults = []fault{
	{name: faultKillWorker, strike: killWorker},
	{name: faultFreezeWorker, strike: freezeWorker, lasts: true},
	{name: faultKillGateway, strike: killGateway, burst: true},
	{name: faultKillPostgres, strike: killPostgres, burst: true},
	{name: faultFullDisk, strike: fillDisk, burst: true},
	{name: faultOutage, strike: webhookOutage, lasts: true},
}

func faultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return append(names, chaosNames()...)
}

// chosen reads the list of the faults that are on.
func chosen(list string) (map[string]bool, error) {
	on := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		switch {
		case name == "all":
			for _, n := range faultNames() {
				on[n] = true
			}
		case name == "none" || name == "":
		case slices.Contains(faultNames(), name):
			on[name] = true
		default:
			return nil, fmt.Errorf("no such fault %q; there are all, none, %s", name, strings.Join(faultNames(), ", "))
		}
	}
	return on, nil
}

// torment lets the moments of the cycle strike, one after the other in a random order, and waits for those that last.
func (s *stage) torment(ctx context.Context) error {
	type result struct {
		name string
		hits int
		err  error
	}
	var on []fault
	for _, f := range faults {
		if s.opt.faults[f.name] {
			on = append(on, f)
		}
	}
	s.random.Shuffle(len(on), func(i, j int) { on[i], on[j] = on[j], on[i] })
	results := make(chan result, len(on))
	burst, under := 0, 0
	for _, f := range on {
		gap := time.Duration(700+s.random.IntN(900)) * time.Millisecond
		if !pause(ctx, gap) {
			break
		}
		n := burst
		if f.burst {
			burst++
		}
		under++
		strike := func() {
			hits, err := f.strike(ctx, s, n)
			if err != nil {
				err = fmt.Errorf("%s: %w", f.name, err)
			}
			results <- result{f.name, hits, err}
		}
		if f.lasts {
			go strike()
		} else {
			strike()
		}
	}
	var first error
	for range under {
		r := <-results
		s.hits[r.name] += r.hits
		s.logf("%s hit %d messages", r.name, r.hits)
		if first == nil {
			first = r.err
		}
	}
	if first == nil {
		first = ctx.Err()
	}
	return first
}

// enough is how many messages in flight a fault waits for.
const enough = 20

// sending counts the tries that are begun and have no outcome, by worker.
func (s *stage) sending(ctx context.Context) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT marked_by, count(*) FROM messages WHERE status = 'sending' GROUP BY marked_by`)
	if err != nil {
		return nil, fmt.Errorf("counting what is in flight: %w", err)
	}
	counts := map[string]int{}
	var by string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&by, &n}, func() error { counts[by] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting what is in flight: %w", err)
	}
	return counts, nil
}

// busy waits until enough is in flight, as it is a moment after the fault before, and says how much.
func (s *stage) busy(ctx context.Context) (sum int, err error) {
	for range 150 {
		counts, err := s.sending(ctx)
		if err != nil {
			return 0, err
		}
		sum = 0
		for _, n := range counts {
			sum += n
		}
		if sum >= 2*enough || !pause(ctx, 50*time.Millisecond) {
			break
		}
	}
	return sum, ctx.Err()
}

// busiest waits for a worker with enough in flight and gives the one with the most, frozen ones aside.
func (s *stage) busiest(ctx context.Context) (*process, error) {
	var best *process
	for range 300 {
		counts, err := s.sending(ctx)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		most := -1
		for _, p := range s.workers {
			if p == s.frozen.Load() || p.ended() {
				continue
			}
			n := 0
			for by, c := range counts {
				if regexp.MustCompile(p.idPattern()).MatchString(by) {
					n += c
				}
			}
			if n > most {
				best, most = p, n
			}
		}
		if most >= enough+5 || !pause(ctx, 50*time.Millisecond) {
			break
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no worker is left: %w", ctx.Err())
	}
	return best, nil
}

func (s *stage) inFlight(ctx context.Context, p *process) (int, error) {
	counts, err := s.sending(ctx)
	n := 0
	for by, c := range counts {
		if regexp.MustCompile(p.idPattern()).MatchString(by) {
			n += c
		}
	}
	return n, err
}

func killWorker(ctx context.Context, s *stage, _ int) (int, error) {
	p, err := s.busiest(ctx)
	if err != nil {
		return 0, err
	}
	p.kill()
	hits, err := s.inFlight(ctx, p)
	if err != nil {
		return 0, err
	}
	s.logf("killed worker %d", p.pid())
	return hits, s.replace(p)
}

// freezeWorker stops a worker past the end of its leases and lets it go on.
func freezeWorker(ctx context.Context, s *stage, _ int) (int, error) {
	p, err := s.busiest(ctx)
	if err != nil {
		return 0, err
	}
	s.frozen.Store(p)
	defer s.frozen.Store(nil)
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return 0, err
	}
	s.logf("froze worker %d", p.pid())
	hits, err := s.inFlight(ctx, p)
	pause(ctx, lease+time.Duration(500+s.jitter.IntN(1500))*time.Millisecond)
	if contErr := p.signal(syscall.SIGCONT); err == nil {
		err = contErr
	}
	s.logf("worker %d goes on", p.pid())
	return hits, err
}

// killGateway kills it in the middle of a burst of requests.
func killGateway(ctx context.Context, s *stage, burst int) (int, error) {
	s.load.burst(burst)
	for end := time.Now().Add(time.Second); s.load.flying.Load() < 3*enough && time.Now().Before(end); {
		runtime.Gosched()
	}
	pause(ctx, time.Duration(s.random.IntN(500))*time.Microsecond)
	hits := int(s.load.flying.Load())
	s.gateway.kill()
	s.logf("killed the gateway with %d messages in requests", hits)
	s.ended = append(s.ended, s.gateway)
	return hits, s.startGateway(ctx)
}

// killPostgres cuts the database's power and brings it back.
func killPostgres(ctx context.Context, s *stage, burst int) (int, error) {
	hits, err := s.busy(ctx)
	if err != nil {
		return 0, err
	}
	s.load.burst(burst)
	pause(ctx, time.Duration(s.random.IntN(4000))*time.Microsecond)
	if err := s.pg.Kill(); err != nil {
		return 0, err
	}
	s.logf("killed Postgres")
	pause(ctx, time.Duration(s.random.IntN(1500))*time.Millisecond)
	if err := s.pg.Restart(ctx); err != nil {
		return 0, err
	}
	s.logf("Postgres is back")
	return hits, nil
}

// fillDisk takes the database's disk for some seconds. A Postgres that gave up meanwhile is started again, as whoever runs it
// would.
func fillDisk(ctx context.Context, s *stage, burst int) (hits int, err error) {
	if hits, err = s.busy(ctx); err != nil {
		return 0, err
	}
	if err := s.disk.fill(); err != nil {
		return 0, err
	}
	s.logf("the disk is full")
	s.load.burst(burst)
	for end := time.Now().Add(time.Duration(1500+s.random.IntN(1500)) * time.Millisecond); time.Now().Before(end) && err == nil; {
		pause(ctx, 50*time.Millisecond)
		err = s.disk.fill()
	}
	if freeErr := s.disk.free(); err == nil {
		err = freeErr
	}
	s.logf("the disk has room")
	for range 10 {
		ping, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		pingErr := s.admin.Ping(ping)
		cancel()
		if pingErr == nil {
			return hits, err
		}
		if !pause(ctx, 100*time.Millisecond) {
			return hits, ctx.Err()
		}
	}
	s.logf("Postgres gave up; starting it")
	if restartErr := s.pg.Restart(ctx); err == nil {
		err = restartErr
	}
	return hits, err
}
