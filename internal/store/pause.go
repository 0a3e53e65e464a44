package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// OperatorSource marks the pauses that operators set.
const OperatorSource = "operator"

// Pause holds a scope back.
type Pause struct {
	// Scope is all, app, waba or phone, Value its id; "" for all.
	Scope  string
	Value  string
	Reason string
	// Source is throttle for those that Meta's answers set, OperatorSource for those of operators.
	Source string
	Code   int
	// Level counts throttles in a row.
	Level int
	// Until is the end; zero for Throttled means until it is lifted.
	Until time.Time
}

// Throttled keeps a pause that an answer of Meta set, so that the next owner knows it. A later end is never shortened.
func (s *Store) Throttled(ctx context.Context, p Pause) error { return throttled(ctx, s.pool, p) }

func throttled(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, p Pause) error {
	var until *time.Time
	if !p.Until.IsZero() {
		until = &p.Until
	}
	_, err := db.Exec(ctx, `
		INSERT INTO pauses AS p (id, scope, value, reason, source, code, level, until)
		VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::integer, $8::timestamptz)
		ON CONFLICT (scope, value, source) DO UPDATE
		SET reason = excluded.reason, level = excluded.level, updated_at = now(),
			code = CASE WHEN p.until IS NULL AND excluded.until IS NOT NULL THEN p.code ELSE excluded.code END,
			until = CASE WHEN p.until IS NOT NULL AND excluded.until IS NOT NULL THEN greatest(p.until, excluded.until) END`,
		uuid.New(), p.Scope, p.Value, p.Reason, p.Source, p.Code, p.Level, until)
	if err != nil {
		return fmt.Errorf("keeping the pause of %s %s: %w", p.Scope, p.Value, err)
	}
	return nil
}

// Lift ends the pause of one source in a scope that was over at the given database time; a newer one stays.
func (s *Store) Lift(ctx context.Context, scope, value, source string, over time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM pauses WHERE scope = $1::text AND value = $2::text AND source = $3::text AND until <= $4::timestamptz`, scope, value, source, over)
	if err != nil {
		return fmt.Errorf("lifting the pause of %s %s: %w", scope, value, err)
	}
	return nil
}

// Pauses lists every pause in force, and ended throttles while their level still counts (an hour).
func (s *Store) Pauses(ctx context.Context) ([]Pause, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT scope, value, reason, source, coalesce(code, 0), level, until FROM pauses
		WHERE until IS NULL OR until > clock_timestamp() - CASE WHEN source = $1::text THEN interval '0' ELSE interval '1 hour' END`, OperatorSource)
	if err != nil {
		return nil, fmt.Errorf("listing pauses: %w", err)
	}
	var all []Pause
	var p Pause
	var until *time.Time
	_, err = pgx.ForEachRow(rows, []any{&p.Scope, &p.Value, &p.Reason, &p.Source, &p.Code, &p.Level, &until}, func() error {
		p.Until = time.Now().AddDate(1, 0, 0) // until it is lifted
		if until != nil {
			p.Until = *until
		}
		all = append(all, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing pauses: %w", err)
	}
	return all, nil
}

// KeptPause is a pause as operators see it.
type KeptPause struct {
	ID     uuid.UUID
	Scope  string
	Value  string
	Reason string
	Source string
	// Code is Meta's code of the answer that set it; nil for an operator's.
	Code  *int
	Level int
	// Until is nil for a pause that lasts until it is lifted.
	Until     *time.Time
	CreatedAt time.Time
}

const pauseColumns = `id, scope, value, reason, source, code, level, until, created_at`

func scanPause(r pgx.CollectableRow) (p KeptPause, err error) {
	return p, r.Scan(&p.ID, &p.Scope, &p.Value, &p.Reason, &p.Source, &p.Code, &p.Level, &p.Until, &p.CreatedAt)
}

// PutPause keeps an operator's pause: its scope, value, reason and end. One that is in force for the same scope and
// value is replaced and keeps its id; made says that there was none.
func (s *Store) PutPause(ctx context.Context, p KeptPause) (kept KeptPause, made bool, err error) {
	id := uuid.New()
	all, err := collect(ctx, s.pool, "the pause that was set", scanPause, `
		INSERT INTO pauses AS p (id, scope, value, reason, source, until)
		VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::timestamptz)
		ON CONFLICT (scope, value, source) DO UPDATE
		SET reason = excluded.reason, until = excluded.until, updated_at = now(),
			id = CASE WHEN p.until <= clock_timestamp() THEN excluded.id ELSE p.id END,
			created_at = CASE WHEN p.until <= clock_timestamp() THEN excluded.created_at ELSE p.created_at END
		RETURNING `+pauseColumns, id, p.Scope, p.Value, p.Reason, OperatorSource, p.Until)
	kept, err = one(all, err, "pause of", p.Scope+" "+p.Value)
	return kept, kept.ID == id, err
}

// ListPauses reads the pauses in force, of operators and throttles, newest first.
func (s *Store) ListPauses(ctx context.Context) ([]KeptPause, error) {
	return collect(ctx, s.pool, "pauses", scanPause, `SELECT `+pauseColumns+` FROM pauses
		WHERE until IS NULL OR until > clock_timestamp() ORDER BY created_at DESC, id`)
}

// DeletePause lifts a pause, an operator's or a throttle's, and gives it as it was; ErrNotFound when there is none.
func (s *Store) DeletePause(ctx context.Context, id uuid.UUID) (KeptPause, error) {
	all, err := collect(ctx, s.pool, "the pause that was lifted", scanPause, `DELETE FROM pauses WHERE id = $1::uuid RETURNING `+pauseColumns, id)
	return one(all, err, "pause", id.String())
}
