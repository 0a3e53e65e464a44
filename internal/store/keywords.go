package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Keywords are the words of a WABA by which users end and take up marketing, by language.
type Keywords struct {
	OptOut map[string][]string
	OptIn  map[string][]string
}

// putKeywords replaces the keywords of a WABA.
func putKeywords(ctx context.Context, tx pgx.Tx, wabaID string, k Keywords) error {
	var err error
	if len(k.OptOut)+len(k.OptIn) == 0 {
		_, err = tx.Exec(ctx, `DELETE FROM waba_keywords WHERE waba_id = $1::text`, wabaID)
	} else {
		_, err = tx.Exec(ctx, `
			INSERT INTO waba_keywords (waba_id, opt_out, opt_in) VALUES ($1::text, coalesce(nullif($2::jsonb, 'null'), '{}'), coalesce(nullif($3::jsonb, 'null'), '{}'))
			ON CONFLICT (waba_id) DO UPDATE SET opt_out = excluded.opt_out, opt_in = excluded.opt_in`, wabaID, k.OptOut, k.OptIn)
	}
	if err != nil {
		return fmt.Errorf("storing the keywords of WABA %s: %w", wabaID, err)
	}
	return nil
}

// Keywords reads the keywords of every WABA that has some.
func (s *Store) Keywords(ctx context.Context) (map[string]Keywords, error) {
	rows, err := s.pool.Query(ctx, `SELECT waba_id, opt_out, opt_in FROM waba_keywords WHERE opt_out <> '{}' OR opt_in <> '{}'`)
	if err != nil {
		return nil, fmt.Errorf("reading keywords: %w", err)
	}
	all := map[string]Keywords{}
	var waba string
	var k Keywords
	if _, err := pgx.ForEachRow(rows, []any{&waba, &k.OptOut, &k.OptIn}, func() error { all[waba] = k; k = Keywords{}; return nil }); err != nil {
		return nil, fmt.Errorf("reading keywords: %w", err)
	}
	return all, nil
}
