// Package pgtest gives each test an empty, migrated PostgreSQL database of its
// own. It never skips: a test that can get none fails and says what to do.
//
// The server is, in this order, the one TEST_DATABASE_URL names; a container,
// when a Docker daemon answers that has the image postgres:17 or can pull it
// within a minute; one made with binaries of this machine; or one with
// binaries that are fetched once. WAGATE_TEST_PG=testcontainers or =local
// insists on one of the latter. Each test process has its own server, save for
// TEST_DATABASE_URL, and it ends with the process, however that ends.
package pgtest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	defaultMaxConns = 10
	setupTimeout    = 2 * time.Minute // a database, once the server runs
	closeTimeout    = 10 * time.Second
	dropTimeout     = 30 * time.Second
)

// Option changes the pool that [New] and [NewUnmigrated] give.
type Option func(*pgxpool.Config)

// MaxConns sets the size of the pool; it is 10 without. All tests that run at
// the same time share a server that may allow no more than 100 connections.
func MaxConns(n int32) Option { return func(c *pgxpool.Config) { c.MaxConns = n } }

// New gives a pool on a migrated database of the test's own. Both end with the
// test. Its URL, for other processes, is pool.Config().ConnString().
func New(t testing.TB, opts ...Option) *pgxpool.Pool {
	t.Helper()
	return pool(t, DSN(t), opts)
}

// NewUnmigrated is like New with a database that holds nothing at all.
func NewUnmigrated(t testing.TB, opts ...Option) *pgxpool.Pool {
	t.Helper()
	return pool(t, database(t, false), opts)
}

// DSN is like New for tests that connect by themselves: it gives the URL of a
// migrated database. Connections still open at the end of the test are cut.
func DSN(t testing.TB) string {
	t.Helper()
	return database(t, true)
}

// Main runs a package's tests, stops the server and exits. A package needs it
// only to leave nothing for the next run to tidy up:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
func Main(m *testing.M) { os.Exit(Wrap(m).Run()) }

// Runner is what [Wrap] gives; goleak.TestingM is the same.
type Runner interface{ Run() int }

// Wrap gives a Runner that runs m's tests and then stops the server, so that
// its goroutines are gone when goleak looks:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Wrap(m)) }
//
// A goleak.VerifyNone in one test needs goleak.IgnoreCurrent(), called after
// the test got its database.
func Wrap(m Runner) Runner { return wrapped{m} }

type wrapped struct{ m Runner }

func (w wrapped) Run() int {
	code := w.m.Run()
	if err := stopServer(); err != nil {
		os.Stderr.WriteString("pgtest: " + err.Error() + "\n")
		return max(code, 1)
	}
	return code
}

func pool(t testing.TB, dsn string, opts []Option) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cfg.MaxConns = defaultMaxConns
	for _, opt := range opts {
		opt(cfg)
	}
	p, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: making a pool: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			p.Close()
			close(closed)
		}()
		timer := time.NewTimer(closeTimeout)
		defer timer.Stop()
		select {
		case <-closed:
		case <-timer.C: // dropping the database cuts them off
			t.Errorf("pgtest: %d connections were not given back to the pool", p.Stat().AcquiredConns())
		}
	})
	return p
}

// database makes a database that is dropped at the end of the test.
func database(t testing.TB, migrated bool) string {
	t.Helper()
	s, err := sharedServer()
	if err != nil {
		t.Fatalf("pgtest: no PostgreSQL to test with: %v\n"+
			"Set TEST_DATABASE_URL to a server on which databases can be made, start Docker, or install PostgreSQL 15 or later.", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	name, err := s.create(ctx, migrated)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return s.dsn(name)
}
