package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/migrations"
)

const (
	// Names carry the time at which they were made, so that what killed test
	// processes leave on a server that outlives them can be told and dropped.
	testPrefix     = "wagate_test_"
	templatePrefix = "wagate_tpl_"
	testMaxAge     = 24 * time.Hour
	templateMaxAge = 7 * 24 * time.Hour

	gonePoll  = 3 * time.Millisecond
	goneLooks = 20

	templateLock int64 = 0x7067_7465_7374 // advisory, while a template is made
)

// server is a PostgreSQL server to make databases on.
type server struct {
	admin string       // DSN of a database that always exists
	about string       // where it came from, for people
	ours  bool         // ends with this process
	stop  func() error // nil when there is nothing to stop

	mu       sync.Mutex
	template string // name of the migrated template once it is known
}

// create makes a database, migrated or bare, and gives its name.
func (s *server) create(ctx context.Context, migrated bool) (string, error) {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return "", fmt.Errorf("connecting to make a database: %w", err)
	}
	defer closeConn(conn)
	from := "template0"
	if migrated {
		if from, err = s.ensureTemplate(ctx, conn); err != nil {
			return "", err
		}
	}
	name := newName(testPrefix, randomHex())
	strategy := "wal_log" // costs no checkpoint, which is dear where fsync is on
	if s.ours {
		strategy = "file_copy"
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quote(name)+" TEMPLATE "+quote(from)+" STRATEGY "+strategy); err != nil {
		return "", fmt.Errorf("making a database from %s: %w", from, err)
	}
	return name, nil
}

func (s *server) drop(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return fmt.Errorf("connecting to drop %s: %w", name, err)
	}
	defer closeConn(conn)
	if err := s.awaitGone(ctx, conn, name); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("dropping %s: %w", name, err)
	}
	return nil
}

// awaitGone gives backends whose connections were just closed a moment to end:
// DROP DATABASE looks again only after 100 ms when it meets one.
func (s *server) awaitGone(ctx context.Context, conn *pgx.Conn, name string) error {
	tick := time.NewTicker(gonePoll)
	defer tick.Stop()
	for range goneLooks {
		var busy bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1::text)`, name).Scan(&busy)
		if err != nil {
			return fmt.Errorf("looking for users of %s: %w", name, err)
		}
		if !busy {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil // then by force
}

// ensureTemplate finds or makes the template for this schema. Of all the
// processes on the server one makes it.
func (s *server) ensureTemplate(ctx context.Context, conn *pgx.Conn) (_ string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.template != "" {
		return s.template, nil
	}
	schema, err := migrations.Fingerprint()
	if err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1::bigint)`, templateLock); err != nil {
		return "", fmt.Errorf("waiting to make the template database: %w", err)
	}
	defer func() { // closing the connection would do it as well
		_, unlockErr := conn.Exec(ctx, `SELECT pg_advisory_unlock($1::bigint)`, templateLock)
		err = errors.Join(err, unlockErr)
	}()
	if !s.ours {
		if err := sweep(ctx, conn, time.Now()); err != nil {
			return "", err
		}
	}
	// Only a finished template takes no connections.
	var name string
	err = conn.QueryRow(ctx, `SELECT datname FROM pg_database
		WHERE starts_with(datname, $1::text) AND right(datname, length($2::text)) = $2::text AND NOT datallowconn
		LIMIT 1`, templatePrefix, schema).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		name, err = newName(templatePrefix, schema), nil
		if err := s.makeTemplate(ctx, conn, name); err != nil {
			return "", err
		}
	}
	if err != nil {
		return "", fmt.Errorf("looking for the template database: %w", err)
	}
	s.template = name
	return name, nil
}

func (s *server) makeTemplate(ctx context.Context, conn *pgx.Conn, name string) error {
	// Half-made ones of the same second would be in the way; older ones go
	// with the sweep.
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)); err != nil {
		return fmt.Errorf("dropping a half-made template: %w", err)
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quote(name)+" TEMPLATE template0"); err != nil {
		return fmt.Errorf("making the template database: %w", err)
	}
	cfg, err := pgxpool.ParseConfig(s.dsn(name))
	if err != nil {
		return err
	}
	cfg.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connecting to the template database: %w", err)
	}
	_, err = migrations.Up(ctx, pool, nil)
	pool.Close()
	if err != nil {
		return fmt.Errorf("migrating the template database: %w", err)
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(name)+" WITH ALLOW_CONNECTIONS false"); err != nil {
		return fmt.Errorf("sealing the template database: %w", err)
	}
	return nil
}

// sweep drops what test processes left behind long before now.
func sweep(ctx context.Context, conn *pgx.Conn, now time.Time) error {
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_database
		WHERE starts_with(datname, $1::text) OR starts_with(datname, $2::text)`, testPrefix, templatePrefix)
	if err != nil {
		return fmt.Errorf("listing old test databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("listing old test databases: %w", err)
	}
	for _, name := range names {
		if !outdated(name, now) {
			continue
		}
		// Without FORCE: one that is in use after all stays.
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)); err != nil && ctx.Err() != nil {
			return fmt.Errorf("dropping the old test database %s: %w", name, err)
		}
	}
	return nil
}

// outdated tells by its name whether a database of ours is past its time.
func outdated(name string, now time.Time) bool {
	age := testMaxAge
	rest, ok := strings.CutPrefix(name, testPrefix)
	if !ok {
		age = templateMaxAge
		if rest, ok = strings.CutPrefix(name, templatePrefix); !ok {
			return false
		}
	}
	stamp, _, _ := strings.Cut(rest, "_")
	seconds, err := strconv.ParseInt(stamp, 16, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)) > age
}

func newName(prefix, suffix string) string {
	return prefix + strconv.FormatInt(time.Now().Unix(), 16) + "_" + suffix
}

// dsn is the admin DSN with another database.
func (s *server) dsn(db string) string {
	u, err := url.Parse(s.admin)
	if err != nil || u.Scheme == "" {
		return s.admin + " dbname=" + db // keyword form; the last one counts
	}
	u.Path = "/" + db
	if q := u.Query(); q.Has("dbname") {
		q.Del("dbname")
		u.RawQuery = q.Encode()
	}
	return u.String()
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func randomHex() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// closeConn says goodbye; a connection without one is closed all the same.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}
