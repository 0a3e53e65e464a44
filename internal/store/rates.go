package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Rate is a rate in force below the configured one, since a throttle.
type Rate struct {
	// Scope is phone or waba, Value its id.
	Scope string
	Value string
	// Ceiling is the messages a second at which the throttle came.
	Ceiling float64
	// Code is Meta's code of the throttle.
	Code int
	// SlowedAt is when it came, in database time.
	SlowedAt time.Time
}

// KeepRate keeps that a scope was slowed at a database time, for the next owner. A newer throttle is kept instead.
func (s *Store) KeepRate(ctx context.Context, scope, value string, ceiling float64, code int, at time.Time) error {
	_, err := s.pool.Exec(ctx, `
		INSERT INTO rates AS r (scope, value, ceiling, code, slowed_at)
		VALUES ($1::text, $2::text, $3::double precision, $4::integer, $5::timestamptz)
		ON CONFLICT (scope, value) DO UPDATE SET ceiling = excluded.ceiling, code = excluded.code, slowed_at = excluded.slowed_at
		WHERE r.slowed_at <= excluded.slowed_at`, scope, value, ceiling, code, at)
	if err != nil {
		return fmt.Errorf("keeping the rate of %s %s: %w", scope, value, err)
	}
	return nil
}

// Rates lists the kept rates of the given WABAs and of their phone numbers.
func (s *Store) Rates(ctx context.Context, wabaIDs []string) ([]Rate, error) {
	return collect(ctx, s.pool, "kept rates", pgx.RowToStructByPos[Rate], `
		SELECT scope, value, ceiling, code, slowed_at FROM rates
		WHERE (scope = 'waba' AND value = ANY($1::text[]))
		   OR (scope = 'phone' AND value IN (SELECT phone_number_id FROM phone_numbers WHERE waba_id = ANY($1::text[])))
		ORDER BY scope, value`, wabaIDs)
}

// DropRate forgets the rate of a scope that was slowed at the given database time or before; a newer throttle stays.
func (s *Store) DropRate(ctx context.Context, scope, value string, at time.Time) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM rates WHERE scope = $1::text AND value = $2::text AND slowed_at <= $3::timestamptz`, scope, value, at)
	if err != nil {
		return fmt.Errorf("forgetting the rate of %s %s: %w", scope, value, err)
	}
	return nil
}
