package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// LearnUserIDs keeps which wa_id webhooks have shown beside business-scoped user ids: {user id: wa_id}. What is known is
// written again once a day.
func (s *Store) LearnUserIDs(ctx context.Context, tx pgx.Tx, learned map[string]string) error {
	if len(learned) == 0 {
		return nil
	}
	ids, waIDs := make([]string, 0, len(learned)), make([]string, 0, len(learned))
	for id, waID := range learned {
		ids, waIDs = append(ids, id), append(waIDs, waID)
	}
	_, err := tx.Exec(ctx, `
		WITH known AS MATERIALIZED (SELECT user_id, wa_id, seen_at FROM user_ids WHERE user_id = ANY($1::text[]))
		INSERT INTO user_ids AS x (user_id, wa_id)
		SELECT u.id, u.wa_id FROM unnest($1::text[], $2::text[]) AS u(id, wa_id) LEFT JOIN known k ON k.user_id = u.id
		WHERE k.wa_id IS DISTINCT FROM u.wa_id OR k.seen_at < clock_timestamp() - interval '1 day'
		ORDER BY u.id
		ON CONFLICT (user_id) DO UPDATE SET wa_id = excluded.wa_id, seen_at = excluded.seen_at`, ids, waIDs)
	if err != nil {
		return fmt.Errorf("learning the user ids of %d users: %w", len(learned), err)
	}
	return nil
}

// KnownUserIDs says of which of the user ids the number is known.
func (s *Store) KnownUserIDs(ctx context.Context, tx pgx.Tx, ids []string) (map[string]bool, error) {
	known := make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return known, nil
	}
	rows, err := tx.Query(ctx, `SELECT user_id FROM user_ids WHERE user_id = ANY($1::text[])`, ids)
	if err != nil {
		return nil, fmt.Errorf("looking up %d user ids: %w", len(ids), err)
	}
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { known[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("looking up %d user ids: %w", len(ids), err)
	}
	return known, nil
}

// SweepUserIDs looks at up to limit user ids that were not seen for some days, removes them and returns how many it looked at.
// Those of users that are suppressed stay as if they were seen now, so that the suppression goes on for both the id and the
// number.
func (s *Store) SweepUserIDs(ctx context.Context, days, limit int) (looked int64, err error) {
	err = s.pool.QueryRow(ctx, `
		WITH old AS MATERIALIZED (
			SELECT user_id FROM user_ids WHERE seen_at < clock_timestamp() - make_interval(days => $1::integer) ORDER BY seen_at LIMIT $2::integer FOR UPDATE SKIP LOCKED
		), needed AS MATERIALIZED (
			SELECT o.user_id, (SELECT x.id FROM suppressions x WHERE x.wa_id = ANY((SELECT wagate_user_keys(o.user_id))::text[]) LIMIT 1) IS NOT NULL AS kept FROM old o
		), kept AS (
			UPDATE user_ids u SET seen_at = clock_timestamp() FROM needed n WHERE n.kept AND u.user_id = n.user_id
		), gone AS (
			DELETE FROM user_ids u USING needed n WHERE NOT n.kept AND u.user_id = n.user_id
		)
		SELECT count(*) FROM old`, days, limit).Scan(&looked)
	if err != nil {
		return 0, fmt.Errorf("removing old user ids: %w", err)
	}
	return looked, nil
}
