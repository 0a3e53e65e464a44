package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/app"
	"wagate/internal/config"
	"wagate/internal/embeddedpg"
	"wagate/internal/simulator"
)

const (
	wabas, phonesOfWABA = 6, 2
	// perPhone is what a phone number sends a second: the load comes faster, so that work waits when a fault strikes. The
	// simulator refuses what is above what the product promises of it in any second: burst + rate × (1 s + 50 ms).
	perPhone = 18
	workers  = 3

	lease        = 2 * time.Second
	unknownAfter = time.Second
	postTimeout  = 2 * time.Second
	appSecret    = "the secret of an app under torture"
	apiKey       = "wg_torture_0123456789abcdef"
	template     = "wagate" // the database that each cycle's is cloned from
)

// rig is what the cycles share: a Postgres, a simulator.
type rig struct {
	opt     options
	out     io.Writer
	disk    *disk // nil where no disk of our own can be had
	leftOut string
	pg      *embeddedpg.Server
	admin   *pgxpool.Pool
	sim     *simulator.Server
	simHTTP *httptest.Server
	secret  string
	client  *http.Client
}

func newRig(ctx context.Context, opt options, out io.Writer) (_ *rig, err error) {
	r := &rig{opt: opt, out: out, client: &http.Client{Timeout: 5 * time.Second}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close(context.WithoutCancel(ctx)))
		}
	}()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	r.secret = base64.StdEncoding.EncodeToString(key)
	pgConfig := embeddedpg.Config{Settings: map[string]string{
		// Small enough for a small disk, and slow enough to fill it: the fault is what is wanted, not the speed.
		"max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "64MB", "autovacuum_naptime": "5s",
	}}
	if opt.faults[faultFullDisk] {
		if r.disk, err = newDisk(ctx); err != nil {
			r.leftOut = faultFullDisk + ": " + err.Error()
			fmt.Fprintf(out, "torture: left out: %s\n", r.leftOut)
			delete(r.opt.faults, faultFullDisk)
			r.disk = nil
		} else {
			pgConfig.DataDir = r.disk.path + "/data"
		}
	}
	if r.pg, err = embeddedpg.Start(ctx, pgConfig); err != nil {
		return nil, err
	}
	cfg := config.Config{DatabaseURL: config.NewSecret(r.pg.DSN())}
	if err := app.Migrate(ctx, cfg, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	if err := prepare(ctx, r.pg.DSN()); err != nil {
		return nil, err
	}
	if r.admin, err = app.OpenPool(ctx, inDatabase(r.pg.DSN(), "postgres"), 2); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *rig) where() string {
	if r.disk != nil {
		return fmt.Sprintf("a disk of %d MB", diskSize>>20)
	}
	return "the machine's disk"
}

func (r *rig) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	if r.admin != nil {
		r.admin.Close()
	}
	if r.pg != nil {
		errs = append(errs, r.pg.Stop(ctx))
	}
	if r.disk != nil {
		errs = append(errs, r.disk.remove(ctx))
	}
	return errors.Join(errs...)
}

// prepare adds to the template database what the judge needs: every change of a lease, by which no sends may come after one
// has ended.
func prepare(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("preparing the template database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, `
		CREATE TABLE torture_leases (waba_id text, worker_id text, epoch bigint, expires_at timestamptz, at timestamptz);
		CREATE FUNCTION torture_lease() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO torture_leases VALUES (NEW.waba_id, NEW.worker_id, NEW.epoch, NEW.expires_at, clock_timestamp());
			RETURN NULL;
		END $$;
		CREATE TRIGGER torture_lease AFTER INSERT OR UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION torture_lease()`)
	if err != nil {
		return fmt.Errorf("preparing the template database: %w", err)
	}
	return nil
}

func inDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn
	}
	u.Path = "/" + name
	return u.String()
}

// stage is what one cycle runs on.
type stage struct {
	*rig
	random   *mathrand.Rand
	jitter   *mathrand.Rand // of the faults that last: they draw beside the others
	frozen   atomic.Pointer[process]
	pulse    pulse
	rest     context.CancelFunc // ends the pulse
	dsn      string
	pool     *pgxpool.Pool
	address  string
	gateway  *process
	workers  []*process
	ended    []*process // killed
	load     *load
	seed     uint64
	started  time.Time
	hits     map[string]int
	settings []string
}

// open makes a fresh database and starts the processes on it.
func (r *rig) open(ctx context.Context, seed uint64) (_ *stage, err error) {
	s := &stage{rig: r, seed: seed, random: mathrand.New(mathrand.NewPCG(seed, 0x77616761)), jitter: mathrand.New(mathrand.NewPCG(seed, 0x6a)), hits: map[string]int{}, started: time.Now()} //nolint:gosec // a seed to repeat a run by
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	name := fmt.Sprintf("cycle_%d_%d", seed, os.Getpid())
	if _, err := r.admin.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()+` TEMPLATE `+template+` STRATEGY file_copy`); err != nil {
		return nil, fmt.Errorf("making a database: %w", err)
	}
	s.dsn = inDatabase(r.pg.DSN(), name)
	if s.pool, err = app.OpenPool(ctx, s.dsn, 4); err != nil {
		return nil, err
	}
	s.newSimulator(ctx)
	beating, rest := context.WithCancel(context.WithoutCancel(ctx))
	s.rest = rest
	go s.pulse.run(beating)
	if s.address, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	s.settings = []string{
		"DATABASE_URL=" + s.dsn, "WAGATE_SECRET_KEY=" + r.secret, "WAGATE_ADMIN_KEY=" + apiKey, "WAGATE_LISTEN=" + s.address, "WAGATE_WORKER_LISTEN=127.0.0.1:0",
		"WAGATE_GRAPH_URL=" + r.simHTTP.URL, "WAGATE_LEASE=" + lease.String(), "WAGATE_UNKNOWN_AFTER=" + unknownAfter.String(),
		"WAGATE_POST_TIMEOUT=" + postTimeout.String(), "WAGATE_LOG_LEVEL=info",
	}
	if err := s.startGateway(ctx); err != nil {
		return nil, err
	}
	phones := s.phones()
	bursts := 0
	for _, f := range faults {
		if f.burst && r.opt.faults[f.name] {
			bursts++
		}
	}
	s.load = newLoad(s.random, r.opt.messages, bursts, phones)
	s.load.url, s.load.apiKey = "http://"+s.address, apiKey
	if err := s.setUp(ctx, phones); err != nil {
		return nil, err
	}
	for range workers {
		if err := s.startWorker(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) newSimulator(ctx context.Context) {
	s.sim = simulator.New(simulator.Config{
		AppSecret: appSecret, WebhookURL: "", Latency: 150 * time.Millisecond, LatencyJitter: 250 * time.Millisecond, StatusDelay: 200 * time.Millisecond,
		SlowAnswer: 2 * postTimeout, WebhookRetryFor: 5 * time.Minute,
	})
	s.sim.Start(context.WithoutCancel(ctx))
	s.simHTTP = httptest.NewServer(s.sim.Handler())
}

func wabaID(i int) string { return fmt.Sprint(100 + i) }

func (s *stage) phones() []string {
	var all []string
	for w := range wabas {
		for p := range phonesOfWABA {
			all = append(all, fmt.Sprint(1000+10*w+p))
		}
	}
	return all
}

// setUp makes the accounts known on both sides.
func (s *stage) setUp(ctx context.Context, phones []string) error {
	s.sim.SetWebhook("http://"+s.address+"/webhooks/whatsapp", appSecret)
	if err := s.load.must(ctx, http.MethodPut, "/v1/apps/300", map[string]any{"app_secret": appSecret}); err != nil {
		return err
	}
	for w := range wabas {
		body := map[string]any{"name": "torture", "app_id": "300", "access_token": "token"}
		if err := s.load.must(ctx, http.MethodPut, "/v1/wabas/"+wabaID(w), body); err != nil {
			return err
		}
	}
	for i, phone := range phones {
		waba := wabaID(i / phonesOfWABA)
		body := map[string]any{"waba_id": waba, "display_phone_number": "+1 202-555-0100", "messages_per_second": perPhone}
		if err := s.load.must(ctx, http.MethodPut, "/v1/phone-numbers/"+phone, body); err != nil {
			return err
		}
		s.sim.SetPhone(phone, simulator.PhoneConfig{WABAID: waba, AppID: "300", PerSecond: perPhone + 2})
	}
	return nil
}

func (s *stage) startGateway(ctx context.Context) error {
	p, err := start(roleGateway, s.settings)
	if err != nil {
		return err
	}
	s.gateway = p
	return awaitReady(ctx, s.client, "http://"+s.address, p)
}

func (s *stage) startWorker() error {
	p, err := start(roleWorker, s.settings)
	if err != nil {
		return err
	}
	s.workers = append(s.workers, p)
	return nil
}

// replace starts a worker in the place of one that was killed.
func (s *stage) replace(p *process) error {
	for i := range s.workers {
		if s.workers[i] == p {
			s.ended = append(s.ended, p)
			s.workers = append(s.workers[:i], s.workers[i+1:]...)
			break
		}
	}
	return s.startWorker()
}

func (s *stage) logf(format string, args ...any) {
	if s.opt.verbose {
		fmt.Fprintf(s.out, "  %6.2f s  "+format+"\n", append([]any{time.Since(s.started).Seconds()}, args...)...)
	}
}

// logs gives the last words of every process, for a cycle that went wrong.
func (s *stage) logs() string {
	var b strings.Builder
	all := append([]*process{s.gateway}, s.workers...)
	for _, p := range append(all, s.ended...) {
		if p != nil {
			fmt.Fprintf(&b, "--- %s %d\n%s\n", p.role, p.pid(), p.log.lines(400))
		}
	}
	return b.String()
}

func (s *stage) close(ctx context.Context) error {
	all := append([]*process{s.gateway}, s.workers...)
	for _, p := range append(all, s.ended...) {
		if p != nil {
			p.kill()
		}
	}
	if s.rest != nil {
		s.rest()
	}
	if s.sim != nil {
		s.sim.Close()
		s.simHTTP.CloseClientConnections()
		s.simHTTP.Close()
		s.sim, s.simHTTP = nil, nil
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.dsn == "" {
		return nil
	}
	u, err := url.Parse(s.dsn)
	if err != nil {
		return fmt.Errorf("dropping the cycle's database: %w", err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if _, err := s.admin.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`); err != nil {
		return fmt.Errorf("dropping the cycle's database: %w", err)
	}
	return nil
}
