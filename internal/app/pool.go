// Package app wires the parts into processes and stops them in order.
package app

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// OpenPool opens a pool for our own statements. They all go by an index and are cached as prepared statements, whose
// generic plan Postgres may have made while a day's partition was still empty; so plans that read whole tables are
// made dear for these connections. Analysts' connections are their own and are not touched.
func OpenPool(ctx context.Context, dsn string, size int) (*pgxpool.Pool, error) {
	return openPool(ctx, dsn, size, "auto")
}

// openWorkerPool is OpenPool for our own statements in a process that only works. They are the same few all the time: to
// plan them anew each time, with a partition a day, cost a third of what Postgres did. River's fetch is not one of them: its
// generic plan does not know how few jobs are asked for, and reads the largest lane.
func openWorkerPool(ctx context.Context, dsn string, size int) (*pgxpool.Pool, error) {
	return openPool(ctx, dsn, max(size-max(size/2, 2), 2), "force_generic_plan")
}

func openPool(ctx context.Context, dsn string, size int, plans string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: it is not a Postgres URL or a list of key=value pairs") //nolint:err113 // the parser's error may show the password
	}
	cfg.MaxConns = int32(size) //nolint:gosec // bounded by config
	cfg.MinIdleConns = 2
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	for name, value := range map[string]string{
		"application_name": "wagate", "jit": "off", "timezone": "UTC",
		"enable_seqscan": "off", "plan_cache_mode": plans,
		"statement_timeout": "30000", "idle_in_transaction_session_timeout": "60000",
	} {
		if _, given := cfg.ConnConfig.RuntimeParams[name]; !given {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	// Without it pgx writes and reads every uuid.UUID by way of its text: a tenth of a busy worker's CPU.
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	return pool, nil
}
