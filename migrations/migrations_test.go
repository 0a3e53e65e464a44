package migrations_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func sqlFiles(nameAndSQL ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(nameAndSQL); i += 2 {
		fsys[nameAndSQL[i]] = &fstest.MapFile{Data: []byte(nameAndSQL[i+1])}
	}
	return fsys
}

func strings1(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func names(all []migrations.Migration) []string {
	var out []string
	for _, m := range all {
		out = append(out, m.String())
	}
	return out
}

func TestUpFromNothing(t *testing.T) {
	pool := pgtest.NewUnmigrated(t, pgtest.MaxConns(1)) // one connection must do
	err := migrations.Check(t.Context(), pool)
	if !errors.Is(err, migrations.ErrOutdated) || !strings.Contains(err.Error(), "gateway migrate") {
		t.Errorf("Check of an empty database: %v, want ErrOutdated", err)
	}
	res, err := migrations.Up(t.Context(), pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.River) == 0 || len(res.Ours) == 0 {
		t.Errorf("applied %v of River and %v of ours, want some of each", res.River, res.Ours)
	}
	if err := migrations.Check(t.Context(), pool); err != nil {
		t.Errorf("Check after Up: %v", err)
	}
	again, err := migrations.Up(t.Context(), pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.River) != 0 || len(again.Ours) != 0 {
		t.Errorf("a second Up applied %v and %v", again.River, again.Ours)
	}
	recorded := strings1(t, pool, `SELECT to_char(version, 'FM0000') || '_' || name FROM wagate_migrations ORDER BY version`)
	if !slices.Equal(recorded, names(res.Ours)) {
		t.Errorf("recorded %v, applied %v", recorded, names(res.Ours))
	}
	// One search for GIN indexes by kind, so that a renamed one is found too.
	if gin := strings1(t, pool, `SELECT indexname FROM pg_indexes WHERE tablename = 'river_job' AND indexdef ILIKE '%USING gin%'`); len(gin) != 0 {
		t.Errorf("River's GIN indexes are there: %v", gin)
	}
}

func TestConcurrentUp(t *testing.T) {
	pool := pgtest.NewUnmigrated(t)
	fsys := sqlFiles("0001_one.sql", "CREATE TABLE one (n int)", "0002_two.sql", "INSERT INTO one VALUES (1); CREATE TABLE two ()")
	const processes = 8
	type end struct {
		res migrations.Result
		err error
	}
	ends := make(chan end, processes)
	for range processes {
		other, err := pgxpool.New(t.Context(), pool.Config().ConnString()+"&pool_max_conns=2")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(other.Close)
		go func() {
			res, err := migrations.UpFS(context.Background(), other, nil, fsys)
			ends <- end{res, err}
		}()
	}
	worked := 0
	for range processes {
		e := <-ends
		if e.err != nil {
			t.Error(e.err)
		}
		if len(e.res.River)+len(e.res.Ours) == 0 {
			continue
		}
		worked++
		if got, want := names(e.res.Ours), []string{"0001_one", "0002_two"}; !slices.Equal(got, want) {
			t.Errorf("applied %v, want %v", got, want)
		}
	}
	if worked != 1 {
		t.Errorf("%d of %d migrated, want 1", worked, processes)
	}
	if rows := strings1(t, pool, `SELECT n::text FROM one`); len(rows) != 1 {
		t.Errorf("the second file ran %d times", len(rows))
	}
	if locks := strings1(t, pool, `SELECT pid::text FROM pg_locks WHERE locktype = 'advisory'`); len(locks) != 0 {
		t.Errorf("the lock is still held by %v", locks)
	}
}

func TestFailedFileLeavesNothingAndIsTriedAgain(t *testing.T) {
	pool := pgtest.NewUnmigrated(t)
	bad := sqlFiles("0001_one.sql", "CREATE TABLE one ()", "0002_two.sql", "CREATE TABLE two (); SELECT 1/0")
	res, err := migrations.UpFS(t.Context(), pool, nil, bad)
	if err == nil || !strings.Contains(err.Error(), "0002_two") {
		t.Fatalf("Up with a bad file: %v", err)
	}
	if got := names(res.Ours); !slices.Equal(got, []string{"0001_one"}) {
		t.Errorf("applied %v", got)
	}
	if tables := strings1(t, pool, `SELECT tablename::text FROM pg_tables WHERE tablename IN ('one', 'two')`); !slices.Equal(tables, []string{"one"}) {
		t.Errorf("tables %v, want one", tables)
	}
	good := sqlFiles("0001_one.sql", "CREATE TABLE one ()", "0002_two.sql", "CREATE TABLE two ()")
	if err := migrations.CheckFS(t.Context(), pool, good); !errors.Is(err, migrations.ErrOutdated) {
		t.Errorf("Check: %v, want ErrOutdated", err)
	}
	res, err = migrations.UpFS(t.Context(), pool, nil, good)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(res.Ours); !slices.Equal(got, []string{"0002_two"}) {
		t.Errorf("applied %v, want the second only", got)
	}
}

func TestForeignSchemasAreRefused(t *testing.T) {
	two := sqlFiles("0001_one.sql", "CREATE TABLE one ()", "0002_two.sql", "CREATE TABLE two ()")
	cases := map[string]struct {
		fsys  fstest.MapFS
		spoil string // SQL run after two is applied
		is    error
		says  string
	}{
		"newer":         {fsys: sqlFiles("0001_one.sql", "CREATE TABLE one ()"), is: migrations.ErrNewer, says: "0002_two"},
		"renamed":       {fsys: sqlFiles("0001_uno.sql", "", "0002_two.sql", ""), says: "recorded as 0001_one"},
		"hole":          {fsys: two, spoil: `DELETE FROM wagate_migrations WHERE version = 1`, says: "changed by hand"},
		"newer River":   {fsys: two, spoil: `INSERT INTO river_migration (line, version) VALUES ('main', 9999)`, is: migrations.ErrNewer, says: "9999"},
		"older River":   {fsys: two, spoil: `DELETE FROM river_migration WHERE version = (SELECT max(version) FROM river_migration)`, is: migrations.ErrOutdated, says: "River"},
		"missing table": {fsys: two, spoil: `DROP TABLE wagate_migrations`, is: migrations.ErrOutdated, says: "0001_one"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pool := pgtest.NewUnmigrated(t)
			if _, err := migrations.UpFS(t.Context(), pool, nil, two); err != nil {
				t.Fatal(err)
			}
			if _, err := pool.Exec(t.Context(), c.spoil); err != nil {
				t.Fatal(err)
			}
			refused := func(who string, err error) {
				t.Helper()
				if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want %v saying %q", who, err, c.is, c.says)
				}
			}
			refused("Check", migrations.CheckFS(t.Context(), pool, c.fsys))
			if !errors.Is(c.is, migrations.ErrOutdated) { // else Up would repair it
				_, err := migrations.UpFS(t.Context(), pool, nil, c.fsys)
				refused("Up", err)
			}
		})
	}
}

func TestFileNames(t *testing.T) {
	pool := pgtest.NewUnmigrated(t)
	for name, fsys := range map[string]fstest.MapFS{
		"no number":      sqlFiles("one.sql", ""),
		"short number":   sqlFiles("001_one.sql", ""),
		"starts at zero": sqlFiles("0000_one.sql", ""),
		"a gap":          sqlFiles("0001_one.sql", "", "0003_three.sql", ""),
		"number twice":   sqlFiles("0001_one.sql", "", "0001_uno.sql", ""),
	} {
		if _, err := migrations.UpFS(t.Context(), pool, nil, fsys); err == nil || !strings.Contains(err.Error(), "migration file") {
			t.Errorf("%s: %v, want an error about the file", name, err)
		}
	}
	if tables := strings1(t, pool, `SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'`); len(tables) != 0 {
		t.Errorf("something was migrated all the same: %v", tables)
	}
}

func TestLockWaitEndsWithContext(t *testing.T) {
	pool := pgtest.NewUnmigrated(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock($1::bigint)`, migrations.LockKey); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := migrations.Up(ctx, pool, nil)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Up while another holds the lock, cancelled: %v", err)
	}
}

func TestFingerprint(t *testing.T) {
	a, err := migrations.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	b, err := migrations.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if a != b || len(a) != 16 {
		t.Errorf("fingerprints %q and %q", a, b)
	}
}
