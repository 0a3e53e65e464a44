package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// remove deletes a row and, in the same transaction, what is kept about it: each statement takes the id as its only
// parameter.
func (s *Store) remove(ctx context.Context, what, id, sql string, about ...string) error {
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, id)
		if err := changedOne(tag, constraint(err, true)); err != nil {
			return err
		}
		for _, statement := range about {
			if _, err := tx.Exec(ctx, statement, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("deleting %s %s: %w", what, id, err)
	}
	return nil
}

// DeleteApp removes an app with its pauses and shares; ErrInUse while a WABA points to it.
func (s *Store) DeleteApp(ctx context.Context, id string) error {
	return s.remove(ctx, "app", id, `DELETE FROM apps WHERE app_id = $1::text`,
		`DELETE FROM pauses WHERE scope = 'app' AND value = $1::text`,
		`DELETE FROM rates WHERE scope = 'app' AND value = $1::text`,
		`DELETE FROM shares WHERE scope IN ('app', 'app-ending') AND value = $1::text`)
}

// DeletePortfolio removes a portfolio and who was written to under it; ErrInUse while a WABA points to it.
func (s *Store) DeletePortfolio(ctx context.Context, id string) error {
	return s.remove(ctx, "portfolio", id, `DELETE FROM portfolios WHERE portfolio_id = $1::text`,
		`DELETE FROM portfolio_recipients WHERE portfolio_id = $1::text`,
		`DELETE FROM portfolio_usage WHERE portfolio_id = $1::text`)
}

// DeleteWABA removes a WABA with its pauses, those of its templates and flows too, and what its budgets remember; its
// suppressed recipients stay suppressed. ErrInUse while it has phone numbers.
func (s *Store) DeleteWABA(ctx context.Context, id string) error {
	return s.remove(ctx, "WABA", id, `DELETE FROM wabas WHERE waba_id = $1::text`,
		`DELETE FROM pauses WHERE (scope = 'waba' AND value = $1::text) OR (scope IN ('template', 'flow') AND starts_with(value, $1::text || ':'))`,
		`DELETE FROM rates WHERE scope IN ('waba', 'waba_hour') AND value = $1::text`,
		`DELETE FROM shares WHERE holder = $1::text`,
		`DELETE FROM management_calls WHERE waba_id = $1::text`)
}

// DeletePhoneNumber removes a phone number with its pauses and what its budgets remember. What waits in its lane is the
// caller's to look at first; ErrInUse while messages of it are held.
func (s *Store) DeletePhoneNumber(ctx context.Context, id string) error {
	var held bool
	err := s.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM phone_numbers p JOIN holds h ON h.waba_id = p.waba_id AND h.phone_number_id = p.phone_number_id
		               WHERE p.phone_number_id = $1::text)`, id).Scan(&held)
	if err == nil && held {
		err = ErrInUse
	}
	if err != nil {
		return fmt.Errorf("deleting phone number id %s: %w", id, err)
	}
	return s.remove(ctx, "phone number id", id, `DELETE FROM phone_numbers WHERE phone_number_id = $1::text`,
		`DELETE FROM pauses WHERE scope = 'phone' AND value = $1::text`,
		`DELETE FROM rates WHERE scope = 'phone' AND value = $1::text`,
		`DELETE FROM pair_states WHERE phone_number_id = $1::text`,
		`DELETE FROM inbound_seconds WHERE phone_number_id = $1::text`,
		`DELETE FROM key_backlogs WHERE phone_number_id = $1::text`,
		`DELETE FROM lane_stats WHERE phone_number_id = $1::text`)
}
