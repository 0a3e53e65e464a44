package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Pause holds a scope back.
type Pause struct {
	// Scope is app, waba or phone, Value its id.
	Scope  string
	Value  string
	Reason string
	// Source is throttle for those that Meta's answers set.
	Source string
	Code   int
	// Level counts throttles in a row.
	Level int
	Until time.Time
}

// Throttled keeps a pause that an answer of Meta set, so that the next owner knows it. A later end is never shortened.
func (s *Store) Throttled(ctx context.Context, p Pause) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO pauses AS p (id, scope, value, reason, source, code, level, until)
		VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::integer, $8::timestamptz)
		ON CONFLICT (scope, value, source) DO UPDATE
		SET reason = excluded.reason, code = excluded.code, level = excluded.level, until = greatest(p.until, excluded.until), updated_at = now()`,
		uuid.New(), p.Scope, p.Value, p.Reason, p.Source, p.Code, p.Level, p.Until)
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

// Pauses lists every pause, ended ones too while their level still counts (an hour).
func (s *Store) Pauses(ctx context.Context) ([]Pause, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT scope, value, reason, source, coalesce(code, 0), level, until FROM pauses
		WHERE until IS NULL OR until > clock_timestamp() - interval '1 hour'`)
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
