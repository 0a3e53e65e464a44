// Package migrations brings a database to the schema this binary works with:
// River's own tables first, then ours, from the numbered SQL files beside it.
//
// Migrations go forward only. Any number of processes may call [Up] on one
// database at the same time; one of them works and the others wait for it.
package migrations

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed *.sql
var files embed.FS

const (
	// lockKey is the advisory lock that one migrating process holds ("wagate").
	lockKey int64 = 0x776167617465
	// lockWait bounds the wait for another process that migrates.
	lockWait = 5 * time.Minute
	// closeWait bounds the goodbye on the connection that held the lock.
	closeWait = 5 * time.Second
)

// ErrOutdated is what [Check] returns, wrapped, when migrations are missing.
var ErrOutdated = errors.New("the database schema is not up to date: run `gateway migrate`")

// ErrNewer is returned, wrapped, when the database carries migrations that
// this binary does not know, so that an old binary never works on it.
var ErrNewer = errors.New("the database schema is newer than this binary: run a newer wagate")

// Migration is one numbered SQL file of ours.
type Migration struct {
	Version int    // from 1, without gaps
	Name    string // what follows the number in the file's name, without .sql

	sql string
}

// String gives the file's name without its extension, such as 0001_init.
func (m Migration) String() string { return fmt.Sprintf("%04d_%s", m.Version, m.Name) }

// Result lists what one [Up] applied, in the order in which it did. It is
// empty when there was nothing to do.
type Result struct {
	River []int       // versions of River's main migration line
	Ours  []Migration // our own files
}

// Up applies every migration that the database does not have yet. Each one
// runs in its own transaction, so that after a failure the ones before it stay
// and a later Up goes on from there. It waits for at most five minutes for
// another process that is migrating, less if ctx ends before.
func Up(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger) (Result, error) {
	return up(ctx, pool, logger, files)
}

// Check returns nil when the database has exactly the migrations of this
// binary, an error that wraps [ErrOutdated] when some are missing, and one
// that wraps [ErrNewer] when it has more. It changes nothing.
func Check(ctx context.Context, pool *pgxpool.Pool) error {
	return check(ctx, pool, files)
}

// Fingerprint names the schema that [Up] makes: a hash over River's migrations
// and ours. Two binaries with the same fingerprint make the same schema.
func Fingerprint() (string, error) {
	known, err := load(files)
	if err != nil {
		return "", err
	}
	river, err := riverMigrator(nil)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, v := range river.AllVersions() {
		fmt.Fprintf(sum, "river %d\x00%s\x00", v.Version, v.SQLUp)
	}
	for _, m := range known {
		fmt.Fprintf(sum, "%s\x00%s\x00", m, m.sql)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func up(ctx context.Context, pool *pgxpool.Pool, logger *slog.Logger, fsys fs.FS) (res Result, err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	known, err := load(fsys)
	if err != nil {
		return Result{}, err
	}
	conn, err := lock(ctx, pool)
	if err != nil {
		return Result{}, err
	}
	defer func() { // closing the connection gives the lock back
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
		defer cancel()
		err = errors.Join(err, conn.Close(cctx))
	}()

	// Ours are checked before River migrates: nothing may change in a database
	// that is newer than this binary.
	recorded, err := recordedVersions(ctx, conn)
	if err != nil {
		return Result{}, err
	}
	pending, err := missing(known, recorded)
	if err != nil {
		return Result{}, err
	}
	if res.River, err = upRiver(ctx, pool, conn, logger); err != nil {
		return res, err
	}
	const table = `CREATE TABLE IF NOT EXISTS wagate_migrations (
		version    integer PRIMARY KEY,
		name       text NOT NULL,
		applied_at timestamptz NOT NULL DEFAULT clock_timestamp())`
	if len(pending) > 0 {
		if _, err := conn.Exec(ctx, table); err != nil {
			return res, fmt.Errorf("creating wagate_migrations: %w", err)
		}
	}
	for _, m := range pending {
		if err := apply(ctx, conn, m); err != nil {
			return res, fmt.Errorf("applying migration %s: %w", m, err)
		}
		logger.InfoContext(ctx, "migration applied", "migration", m.String())
		res.Ours = append(res.Ours, m)
	}
	return res, nil
}

// lock takes the advisory lock on a connection that it takes out of the pool,
// so that a pool of a single connection still has room for River.
func lock(ctx context.Context, pool *pgxpool.Pool) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to migrate: %w", err)
	}
	conn := pooled.Hijack()
	// The application's own timeouts are no measure for a schema change.
	_, err = conn.Exec(ctx, `SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0`)
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT pg_advisory_lock($1::bigint)`, lockKey)
	}
	if err != nil {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("waiting for the migration lock: %w", err), conn.Close(cctx))
	}
	return conn, nil
}

// upRiver runs River's migrations and removes the indexes we do not want.
func upRiver(ctx context.Context, pool *pgxpool.Pool, conn *pgx.Conn, logger *slog.Logger) ([]int, error) {
	river, err := riverMigrator(pool)
	if err != nil {
		return nil, err
	}
	if _, err := river.ExistingVersions(ctx); err != nil {
		return nil, riverVersionError(err)
	}
	done, err := river.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return nil, fmt.Errorf("applying River's migrations: %w", err)
	}
	versions := make([]int, 0, len(done.Versions))
	for _, v := range done.Versions {
		logger.InfoContext(ctx, "river migration applied", "version", v.Version, "name", v.Name)
		versions = append(versions, v.Version)
	}
	// We never search jobs by their args or metadata, and keeping these two GIN
	// indexes costs 10-40 % of Postgres' work. Not only after a migration of
	// River's: an earlier run may have died between the two.
	const drop = `DROP INDEX IF EXISTS river_job_args_index, river_job_metadata_index`
	if _, err := conn.Exec(ctx, drop); err != nil {
		return versions, fmt.Errorf("dropping River's GIN indexes: %w", err)
	}
	return versions, nil
}

// apply runs one file and records it, both or neither.
func apply(ctx context.Context, conn *pgx.Conn, m Migration) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO wagate_migrations (version, name) VALUES ($1::integer, $2::text)`, m.Version, m.Name)
		return err
	})
}

func check(ctx context.Context, pool *pgxpool.Pool, fsys fs.FS) error {
	known, err := load(fsys)
	if err != nil {
		return err
	}
	recorded, err := recordedVersions(ctx, pool)
	if err != nil {
		return err
	}
	pending, err := missing(known, recorded)
	if err != nil {
		return err
	}
	if len(pending) > 0 {
		return fmt.Errorf("%w (missing from %s on)", ErrOutdated, pending[0])
	}
	river, err := riverMigrator(pool)
	if err != nil {
		return err
	}
	existing, err := river.ExistingVersions(ctx)
	if err != nil {
		return riverVersionError(err)
	}
	if have, want := len(existing), len(river.AllVersions()); have != want {
		return fmt.Errorf("%w (River has %d of %d migrations)", ErrOutdated, have, want)
	}
	return nil
}

func riverMigrator(pool *pgxpool.Pool) (*rivermigrate.Migrator[pgx.Tx], error) {
	// River logs every look at its tables; what it applied is logged by us.
	river, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("preparing River's migrations: %w", err)
	}
	return river, nil
}

var riverUnknown = regexp.MustCompile(`^migration \d+ not found in migrator bundle$`)

// riverVersionError tells a River schema newer than ours from any other
// failure; River gives that error no type.
func riverVersionError(err error) error {
	if riverUnknown.MatchString(err.Error()) {
		return fmt.Errorf("%w (River: %w)", ErrNewer, err)
	}
	return fmt.Errorf("reading River's migrations: %w", err)
}

var fileName = regexp.MustCompile(`^(\d{4})_([a-z0-9_]+)\.sql$`)

// load reads the SQL files in the order of their numbers, which start at 1 and
// have no gaps: a lower number can then never turn up after a higher one.
func load(fsys fs.FS) ([]Migration, error) {
	names, err := fs.Glob(fsys, "*.sql") // sorted by name, so by number
	if err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	all := make([]Migration, 0, len(names))
	for i, name := range names {
		parts := fileName.FindStringSubmatch(name)
		if parts == nil {
			return nil, fmt.Errorf("migration file %q: the name must be like 0001_name.sql", name)
		}
		version, err := strconv.Atoi(parts[1])
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration file %q: number %04d expected", name, i+1)
		}
		sql, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("reading migration file %q: %w", name, err)
		}
		all = append(all, Migration{Version: version, Name: parts[2], sql: string(sql)})
	}
	return all, nil
}

// querier is what a connection and a pool have in common here.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// recordedVersions gives what the database says was applied to it, in order;
// nothing when it was never migrated.
func recordedVersions(ctx context.Context, db querier) ([]Migration, error) {
	var exists bool
	if err := db.QueryRow(ctx, `SELECT to_regclass('wagate_migrations') IS NOT NULL`).Scan(&exists); err != nil {
		return nil, fmt.Errorf("looking for wagate_migrations: %w", err)
	}
	if !exists {
		return nil, nil
	}
	rows, err := db.Query(ctx, `SELECT version, name FROM wagate_migrations ORDER BY version`)
	if err != nil {
		return nil, fmt.Errorf("reading wagate_migrations: %w", err)
	}
	recorded, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Migration, error) {
		var m Migration
		err := row.Scan(&m.Version, &m.Name)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading wagate_migrations: %w", err)
	}
	return recorded, nil
}

// missing gives the known migrations that are not recorded. The recorded ones
// must be the first of the known ones, under the same names.
func missing(known, recorded []Migration) ([]Migration, error) {
	for i, r := range recorded {
		switch {
		case i >= len(known):
			return nil, fmt.Errorf("%w (it has %s, this binary ends at %04d)", ErrNewer, r, len(known))
		case r.Version != known[i].Version:
			return nil, fmt.Errorf("wagate_migrations has no %s but has %s: its rows were changed by hand", known[i], r)
		case r.Name != known[i].Name:
			return nil, fmt.Errorf("migration %04d is recorded as %s, this binary knows it as %s: it belongs to another build", r.Version, r, known[i])
		}
	}
	return known[len(recorded):], nil
}
