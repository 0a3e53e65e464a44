package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// recipientKeys gives what a recipient is found by in any spelling: the keys of the numbers that Meta takes for the same user,
// as they are and as they are once they were masked.
func recipientKeys(ctx context.Context, tx pgx.Tx, to string, backwards bool) ([]string, error) {
	if digits := phoneDigits(to); digits != "" {
		to = digits
	}
	rows, err := tx.Query(ctx, `
		WITH user_id AS MATERIALIZED (SELECT wa_id FROM wa_ids WHERE input = $1::text), spelling AS (
			SELECT $1::text AS s UNION SELECT wa_id FROM user_id UNION SELECT unnest(wagate_user_keys($1::text))
			UNION SELECT input FROM wa_ids WHERE $2::boolean AND wa_id = ANY(ARRAY(SELECT wa_id FROM user_id UNION SELECT $1::text))
			LIMIT `+searchSpellings+`
		)
		SELECT wagate_recipient_key(s, NULL) FROM spelling UNION
		SELECT wagate_recipient_key('', sha256((SELECT r.hash_key FROM report_settings r) || convert_to(wagate_recipient_who(s), 'UTF8'))) FROM spelling`,
		to, backwards)
	if err != nil {
		return nil, fmt.Errorf("looking for the spellings of a recipient: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// lookForIndexes asks whether the indexes of the search are complete, now and then until they are.
func (s *Store) lookForIndexes(ctx context.Context) error {
	now := time.Now().Unix()
	if looked := s.indexed.looked.Load(); s.indexed.complete.Load() || now-looked < 15 || !s.indexed.looked.CompareAndSwap(looked, now) {
		return nil
	}
	var missing int
	if err := s.pool.QueryRow(ctx, searchMissingSQL).Scan(&missing); err != nil {
		return fmt.Errorf("looking for the indexes of the search: %w", err)
	}
	s.indexed.complete.Store(missing == 0)
	return nil
}

const searchMissingSQL = `SELECT (SELECT count(*) FROM wagate_search_missing)::integer +
	CASE WHEN EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('wa_ids_wa_id') AND indisvalid) THEN 0 ELSE 1 END`

// searchPart is an index of the search that a partition lacks.
type searchPart struct {
	Index, Partition, Part, Definition string
}

// BuildSearchIndexes builds what is missing of the indexes of the search, one after another, without a lock on the writers of
// the tables: after an upgrade, for the partitions that were there before it. built is how many were built, left how many are
// still missing: 0 once all are there, which then costs one small statement. One process at a time does it.
func (s *Store) BuildSearchIndexes(ctx context.Context) (built, left int, err error) {
	if err := s.pool.QueryRow(ctx, searchMissingSQL).Scan(&left); err != nil || left == 0 {
		return 0, left, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, left, fmt.Errorf("building indexes: %w", err)
	}
	defer conn.Release()
	// The lock ends with the session, should this process die; so does what was set.
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7349871013)`)
		_, _ = conn.Exec(context.WithoutCancel(ctx), `RESET statement_timeout; RESET lock_timeout`)
	}()
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(7349871013)`).Scan(&mine); err != nil || !mine {
		return 0, left, err
	}
	if _, err := conn.Exec(ctx, `SET statement_timeout = '4h'`); err != nil {
		return 0, left, fmt.Errorf("building indexes: %w", err)
	}
	if err := buildConcurrently(ctx, conn, searchPart{Part: "wa_ids_wa_id", Partition: "wa_ids", Definition: " (wa_id)"}); err != nil {
		return 0, left, err
	}
	rows, err := conn.Query(ctx, `SELECT index_name, partition, part, definition FROM wagate_search_missing ORDER BY partition DESC, index_name`)
	if err != nil {
		return 0, left, fmt.Errorf("building indexes: %w", err)
	}
	parts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[searchPart])
	if err != nil {
		return 0, left, fmt.Errorf("building indexes: %w", err)
	}
	for _, p := range parts {
		if err := buildConcurrently(ctx, conn, p); err != nil {
			return built, left, err
		}
		// This lock alone is one that others would wait behind.
		if _, err := conn.Exec(ctx, `SET lock_timeout = '300ms'`); err != nil {
			return built, left, fmt.Errorf("attaching index %s: %w", p.Part, err)
		}
		if _, err := conn.Exec(ctx, `ALTER INDEX `+pgx.Identifier{p.Index}.Sanitize()+` ATTACH PARTITION `+pgx.Identifier{p.Part}.Sanitize()); err != nil {
			return built, left, fmt.Errorf("attaching index %s: %w", p.Part, err)
		}
		if _, err := conn.Exec(ctx, `RESET lock_timeout`); err != nil {
			return built, left, fmt.Errorf("building indexes: %w", err)
		}
		built++
	}
	err = conn.QueryRow(ctx, searchMissingSQL).Scan(&left)
	return built, left, err
}

// buildConcurrently makes an index; one that an earlier run has left unfinished is removed first.
func buildConcurrently(ctx context.Context, conn *pgxpool.Conn, p searchPart) error {
	var there, valid bool
	err := conn.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_and(indisvalid), false) FROM pg_index WHERE indexrelid = to_regclass($1::text)`, p.Part).Scan(&there, &valid)
	if err != nil {
		return fmt.Errorf("looking at index %s: %w", p.Part, err)
	}
	if there && !valid {
		if _, err := conn.Exec(ctx, `DROP INDEX CONCURRENTLY `+pgx.Identifier{p.Part}.Sanitize()); err != nil {
			return fmt.Errorf("removing index %s: %w", p.Part, err)
		}
	}
	if !valid {
		if _, err := conn.Exec(ctx, `CREATE INDEX CONCURRENTLY `+pgx.Identifier{p.Part}.Sanitize()+` ON `+pgx.Identifier{p.Partition}.Sanitize()+p.Definition); err != nil {
			return fmt.Errorf("building index %s: %w", p.Part, err)
		}
	}
	return nil
}
