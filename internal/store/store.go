// Package store is the only place that knows our tables. SQL stands beside the one function that uses it, one file a
// table or a step.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"
)

// ErrNotFound is returned, wrapped, for a row that is not there.
var ErrNotFound = errors.New("not found")

// ErrInUse is returned, wrapped, for a row that others still point to.
var ErrInUse = errors.New("still in use")

// ErrCommitUnknown is returned, wrapped, when nobody can tell whether a transaction was committed: its answer did not come.
var ErrCommitUnknown = errors.New("the answer to the commit did not come")

// MissingError says that a row points to one that is not there.
type MissingError struct {
	// Field is the column that points: app_id, portfolio_id or waba_id.
	Field string
}

// Error implements error.
func (e *MissingError) Error() string { return "no such " + e.Field }

// Store reads and writes our tables. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
	// putIn puts the jobs of callbacks in; see OnCallbacks.
	putIn func(ctx context.Context, tx pgx.Tx, runs []CallbackRun) error
	// atFinal says that content goes with the status that ends its message.
	atFinal bool
	indexed searchIndexes
}

// New makes a Store over a pool that stays the caller's.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Pool gives the pool.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// InTx runs f in a transaction and commits it when f returns nil. What f returns is returned as it is.
func (s *Store) InTx(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, f)
}

// InTxWithin is InTx that waits for a connection at most that long, whatever ctx allows the transaction itself. An error
// that wraps ErrCommitUnknown leaves open whether it was committed.
func (s *Store) InTxWithin(ctx context.Context, wait time.Duration, f func(pgx.Tx) error) error {
	acquire, cancel := context.WithTimeout(ctx, wait)
	conn, err := s.pool.Acquire(acquire)
	cancel()
	if err != nil {
		return fmt.Errorf("waiting for a connection: %w", err)
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback(context.WithoutCancel(ctx)) // a broken connection rolls back by itself
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		// An ERROR rolls back. A FATAL ends the session, which a commit that waits for a standby has already made.
		pg, answered := errors.AsType[*pgconn.PgError](err)
		if (answered && pg.SeverityUnlocalized == "ERROR") || errors.Is(err, pgx.ErrTxCommitRollback) {
			return fmt.Errorf("committing: %w", err)
		}
		return fmt.Errorf("committing: %w: %w", ErrCommitUnknown, err)
	}
	return nil
}

// Unavailable says whether an error means that the database was away or had no room, rather than that it refused what
// was asked of it. The same request may then succeed later.
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, ErrCommitUnknown) {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "25006": // read-only transaction: a fail-over is under way
			return true
		case "57014": // cancelled: statement_timeout, or an operator
			return true
		}
		switch pg.Code[:min(2, len(pg.Code))] {
		case "08", "53": // connection exceptions, insufficient resources
			return true
		case "57": // shutdown, crash, not yet accepting
			return true
		}
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, puddle.ErrClosedPool) || pgconn.SafeToRetry(err) || pgconn.Timeout(err)
}

// constraint turns a foreign key violation into a MissingError (insert) or ErrInUse (delete).
func constraint(err error, deleting bool) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.Code != "23503" {
		return err
	}
	if deleting {
		return ErrInUse
	}
	for _, field := range []string{"app_id", "portfolio_id", "waba_id"} {
		if pg.ConstraintName == pg.TableName+"_"+field+"_fkey" {
			return &MissingError{Field: field}
		}
	}
	return err
}

// changedOne turns a command that touched no row into ErrNotFound.
func changedOne(tag pgconn.CommandTag, err error) error {
	if err == nil && tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return err
}

// collect reads every row of a query; what names them in the error.
func collect[T any](ctx context.Context, pool *pgxpool.Pool, what string, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	all, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return all, nil
}

// one gives the only row of a result, or ErrNotFound.
func one[T any](rows []T, err error, what, id string) (T, error) {
	var zero T
	if err != nil {
		return zero, err
	}
	if len(rows) == 0 {
		return zero, fmt.Errorf("%s %s: %w", what, id, ErrNotFound)
	}
	return rows[0], nil
}
