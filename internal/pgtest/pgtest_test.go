package pgtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"wagate/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Wrap(m)) }

func exists(t *testing.T, name string) bool {
	t.Helper()
	s, err := sharedServer()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), s.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	var found bool
	if err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text)`, name).Scan(&found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	a, b := New(t), New(t, MaxConns(3))
	for _, p := range []*pgxpool.Pool{a, b} {
		if err := migrations.Check(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	if got := a.Config().MaxConns; got != defaultMaxConns {
		t.Errorf("a pool of %d, want %d", got, defaultMaxConns)
	}
	if got := b.Config().MaxConns; got != 3 {
		t.Errorf("a pool of %d, want 3", got)
	}
	if _, err := a.Exec(t.Context(), `CREATE TABLE only_in_a ()`); err != nil {
		t.Fatal(err)
	}
	var inB bool
	if err := b.QueryRow(t.Context(), `SELECT to_regclass('only_in_a') IS NOT NULL`).Scan(&inB); err != nil {
		t.Fatal(err)
	}
	if inB {
		t.Error("what one test made is in the other's database")
	}
}

func TestUnmigratedHoldsNothing(t *testing.T) {
	var tables int
	err := NewUnmigrated(t).QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables)
	if err != nil {
		t.Fatal(err)
	}
	if tables != 0 {
		t.Errorf("%d tables, want none", tables)
	}
}

func TestDatabaseIsDroppedThoughConnected(t *testing.T) {
	var conn *pgx.Conn
	var name string
	t.Run("leaves a connection open", func(t *testing.T) {
		var err error
		if conn, err = pgx.Connect(t.Context(), DSN(t)); err != nil {
			t.Fatal(err)
		}
		name = conn.Config().Database
		if !exists(t, name) {
			t.Fatalf("%s is not there while the test runs", name)
		}
	})
	defer closeConn(conn)
	if exists(t, name) {
		t.Errorf("%s is still there after its test", name)
	}
}

func TestSweepDropsOnlyWhatIsOld(t *testing.T) {
	young := New(t).Config().ConnConfig.Database
	old := New(t)
	oldName := old.Config().ConnConfig.Database
	old.Close()
	s, err := sharedServer()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), s.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	ancient := testPrefix + "5e000000_00" // January 2020
	if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+quote(oldName)+" RENAME TO "+quote(ancient)); err != nil {
		t.Fatal(err)
	}
	if err := sweep(t.Context(), conn, time.Now()); err != nil {
		t.Fatal(err)
	}
	if exists(t, ancient) {
		t.Error("an old test database survived the sweep")
	}
	if !exists(t, young) {
		t.Error("a young test database did not survive the sweep")
	}
}

func TestOutdated(t *testing.T) {
	made := time.Unix(0x60000000, 0)
	for _, c := range []struct {
		name string
		age  time.Duration
		want bool
	}{
		{testPrefix + "60000000_ab", testMaxAge, false},
		{testPrefix + "60000000_ab", testMaxAge + time.Second, true},
		{templatePrefix + "60000000_ab", testMaxAge + time.Second, false},
		{templatePrefix + "60000000_ab", templateMaxAge + time.Second, true},
		{testPrefix + "mine", 1000 * testMaxAge, false},
		{"wagate", 1000 * testMaxAge, false},
	} {
		if got := outdated(c.name, made.Add(c.age)); got != c.want {
			t.Errorf("outdated(%q, %v later) = %v, want %v", c.name, c.age, got, c.want)
		}
	}
}

func TestDSNOfAnotherDatabase(t *testing.T) {
	for _, admin := range []string{
		"postgres://u:p%40ss@127.0.0.1:5444/postgres?sslmode=disable",
		"postgres://u:p%40ss@/postgres?host=127.0.0.1&port=5444",
		"postgres://u:p%40ss@127.0.0.1:5444/?dbname=postgres",
		"host=127.0.0.1 port=5444 user=u password=p@ss dbname=postgres",
	} {
		cfg, err := pgx.ParseConfig((&server{admin: admin}).dsn("other"))
		if err != nil {
			t.Errorf("%s: %v", admin, err)
			continue
		}
		if cfg.Database != "other" || cfg.Host != "127.0.0.1" || cfg.Port != 5444 || cfg.User != "u" || cfg.Password != "p@ss" {
			t.Errorf("%s leads to %s on %s:%d as %s", admin, cfg.Database, cfg.Host, cfg.Port, cfg.User)
		}
	}
}

func TestWrongSourceIsRefused(t *testing.T) {
	if _, err := pick("sqlite", ""); err == nil || !strings.Contains(err.Error(), "WAGATE_TEST_PG") {
		t.Errorf("pick of an unknown source: %v", err)
	}
}

// Two processes on one server agree on one template.
func TestServersShareATemplate(t *testing.T) {
	s, err := sharedServer()
	if err != nil {
		t.Fatal(err)
	}
	const processes = 4
	names, errs := make(chan string, processes), make(chan error, processes)
	for range processes {
		go func() {
			other := &server{admin: s.admin, about: s.about, ours: true}
			conn, err := pgx.Connect(context.Background(), other.admin)
			if err != nil {
				errs <- err
				return
			}
			defer closeConn(conn)
			name, err := other.ensureTemplate(context.Background(), conn)
			names <- name
			errs <- err
		}()
	}
	for range processes {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	first := <-names
	for range processes - 1 {
		if name := <-names; name != first || name == "" {
			t.Errorf("templates %q and %q for one schema", first, name)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s, err := sharedServer()
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		name, err := s.create(b.Context(), true)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.drop(b.Context(), name); err != nil {
			b.Fatal(err)
		}
	}
}
