package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Suppression keeps messages of a category from a recipient, of one WABA.
type Suppression struct {
	WABAID string
	// WAID is the recipient's key: the wa_id where it is known, else the digits.
	WAID     string
	Category string
	// Until is nil for good.
	Until  *time.Time
	Reason string
	// Code is Meta's, 0 for none.
	Code int
}

// PutSuppressions keeps suppressions in the caller's transaction. One for good is never shortened, a longer one stays.
func (s *Store) PutSuppressions(ctx context.Context, tx pgx.Tx, set []Suppression) error {
	n := len(set)
	if n == 0 {
		return nil
	}
	wabas, users, categories, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	until, codes := make([]*time.Time, n), make([]int32, n)
	for i, x := range set {
		wabas[i], users[i], categories[i], until[i], reasons[i], codes[i] = x.WABAID, x.WAID, x.Category, x.Until, x.Reason, int32(x.Code) //nolint:gosec // Meta's codes fit
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO suppressions AS x (waba_id, wa_id, category, until, reason, code)
		SELECT DISTINCT ON (u.waba, u.wa_id, u.category) u.waba, u.wa_id, u.category, u.until, u.reason, nullif(u.code, 0)
		FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::integer[]) AS u(waba, wa_id, category, until, reason, code)
		ORDER BY u.waba, u.wa_id, u.category, u.until DESC NULLS FIRST
		ON CONFLICT (waba_id, wa_id, category) DO UPDATE
		SET until = excluded.until, reason = excluded.reason, code = excluded.code
		WHERE x.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > x.until)`, wabas, users, categories, until, reasons, codes)
	if err != nil {
		return fmt.Errorf("keeping %d suppressions: %w", n, err)
	}
	return nil
}

// DropSuppressions removes the suppressions of a category from recipients of a WABA, by their keys, and says how many there
// were.
func (s *Store) DropSuppressions(ctx context.Context, tx pgx.Tx, wabaID, category string, users []string) (int64, error) {
	if len(users) == 0 {
		return 0, nil
	}
	tag, err := tx.Exec(ctx, `DELETE FROM suppressions WHERE waba_id = $1::text AND category = $2::text AND wa_id = ANY($3::text[])`, wabaID, category, users)
	if err != nil {
		return 0, fmt.Errorf("removing %d suppressions of WABA %s: %w", len(users), wabaID, err)
	}
	return tag.RowsAffected(), nil
}

// ListSuppressions reads up to limit suppressions of a WABA that are in force, by recipient and category, those after the
// given recipient; "" begins.
func (s *Store) ListSuppressions(ctx context.Context, wabaID, after string, limit int) ([]Suppression, error) {
	return collect(ctx, s.pool, "suppressions of WABA "+wabaID, pgx.RowToStructByPos[Suppression], `
		SELECT waba_id, wa_id, category, until, reason, coalesce(code, 0) FROM suppressions
		WHERE waba_id = $1::text AND wa_id > $2::text AND (until IS NULL OR until > clock_timestamp())
		ORDER BY wa_id, category LIMIT $3::integer`, wabaID, after, limit)
}
