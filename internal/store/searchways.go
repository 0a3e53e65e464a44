package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// way is how candidates are read, in the order of their ids from the newest, and filtered.
type way struct {
	sql string
	// scattered says that its candidates lie apart, so that each costs the read of a block.
	scattered bool
}

// Candidates have what the filter looks at. A comparison of rows, in an order that one index alone has, leaves the planner no
// other index: it cannot know that the value that is asked for is rare among few that are common, and would walk the primary
// key. The bounds of the id stand beside it once more, to leave out the partitions of other days.
const (
	candidate = `m.id, m.status, m.phone_number_id, m.reference, m.tags, wagate_recipient_key(m.recipient, m.recipient_hash) AS who FROM messages m`

	searchFilter = ` WHERE ($1::text = '' OR c.status = $1::text) AND (cardinality($2::text[]) = 0 OR c.phone_number_id = ANY($2::text[]))
		AND ($3::text[] IS NULL OR c.who = ANY($3::text[])) AND ($4::text = '' OR c.reference = $4::text)
		AND ($8::text IS NULL OR c.tags @> $8::text::jsonb)`
	// The candidates come in order: a sort of them all would be made before the first is looked at. They are read once, and no
	// further than the page is full; where it is not, the last of them is where the look ended.
	searchPage = `), p AS MATERIALIZED (SELECT c.id FROM c` + searchFilter + ` LIMIT $9::integer)
		SELECT ARRAY(SELECT p.id FROM p), CASE WHEN (SELECT count(*) FROM p) < $9::integer THEN (SELECT c.id FROM c OFFSET $7::integer - 1 LIMIT 1) END`
)

var (
	byID = way{sql: `WITH c AS MATERIALIZED (SELECT ` + candidate + `
		WHERE m.id >= $5::uuid AND m.id < $6::uuid ORDER BY m.id DESC LIMIT $7::integer` + searchPage}

	byFailure = way{scattered: true, sql: `WITH c AS MATERIALIZED (SELECT ` + candidate + `
		WHERE m.failed_at IS NOT NULL AND m.id >= $5::uuid AND m.id < $6::uuid ORDER BY m.id DESC LIMIT $7::integer` + searchPage}
	byUnknown = way{scattered: true, sql: `WITH c AS MATERIALIZED (SELECT ` + candidate + `
		WHERE m.unknown_at IS NOT NULL AND m.id >= $5::uuid AND m.id < $6::uuid ORDER BY m.id DESC LIMIT $7::integer` + searchPage}

	byReference = way{scattered: true, sql: `WITH c AS MATERIALIZED (SELECT ` + candidate + `
		WHERE m.reference IS NOT NULL AND (m.reference, m.id) >= ($4::text, $5::uuid) AND (m.reference, m.id) < ($4::text, $6::uuid)
		  AND m.id >= $5::uuid AND m.id < $6::uuid
		ORDER BY m.reference DESC, m.id DESC LIMIT $7::integer` + searchPage}

	byRecipient = way{scattered: true, sql: `WITH c AS MATERIALIZED (SELECT d.* FROM unnest($3::text[]) AS k(key) CROSS JOIN LATERAL (SELECT ` + candidate + `
		WHERE (wagate_recipient_key(m.recipient, m.recipient_hash), m.id) >= (k.key, $5::uuid)
		  AND (wagate_recipient_key(m.recipient, m.recipient_hash), m.id) < (k.key, $6::uuid) AND m.id >= $5::uuid AND m.id < $6::uuid
		ORDER BY wagate_recipient_key(m.recipient, m.recipient_hash) DESC, m.id DESC LIMIT $7::integer) d
		ORDER BY d.id DESC LIMIT $7::integer` + searchPage}

	byPhone = way{scattered: true, sql: `WITH c AS MATERIALIZED (SELECT d.* FROM unnest($2::text[]) AS k(phone) CROSS JOIN LATERAL (SELECT ` + candidate + `
		WHERE (m.phone_number_id, m.id) >= (k.phone, $5::uuid) AND (m.phone_number_id, m.id) < (k.phone, $6::uuid) AND m.id >= $5::uuid AND m.id < $6::uuid
		ORDER BY m.phone_number_id DESC, m.id DESC LIMIT $7::integer) d
		ORDER BY d.id DESC LIMIT $7::integer` + searchPage}
)

// walk reads a page, and where the next one goes on.
func walk(ctx context.Context, tx pgx.Tx, w way, q query, next *uuid.UUID) ([]uuid.UUID, error) {
	// One plan does for all: which index it goes by is settled by its form. Sorts are for the few of several lists only.
	const set = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
		set_config('enable_bitmapscan', 'off', true), set_config('enable_indexscan', 'on', true), set_config('enable_indexonlyscan', 'on', true),
		set_config('enable_sort', 'off', true), set_config('jit', 'off', true)`
	if _, err := tx.Exec(ctx, set); err != nil {
		return nil, fmt.Errorf("preparing the transaction: %w", err)
	}
	if w.scattered {
		q.examine = min(q.examine, searchScattered)
	}
	var ids []uuid.UUID
	var last *uuid.UUID
	err := tx.QueryRow(ctx, w.sql, q.status, q.phones, q.keys, q.reference, q.lo, q.hi, q.examine, q.tags, q.limit+1).Scan(&ids, &last)
	if err != nil {
		return nil, err
	}
	if len(ids) > q.limit {
		ids = ids[:q.limit]
		last = &ids[q.limit-1]
	}
	if last != nil {
		*next = *last
	}
	return ids, nil
}

const (
	// tagSpan is the time that is looked at first for tags, and the least: the messages of a day.
	tagSpan = 24 * time.Hour
	// tagSpans bounds how many spans of time a page looks at.
	tagSpans = 10
)

const tagsSQL = `
	WITH c AS MATERIALIZED (SELECT ` + candidate + ` WHERE m.tags IS NOT NULL AND m.tags @> $8::text::jsonb AND m.id >= $5::uuid AND m.id < $6::uuid LIMIT $7::integer)
	SELECT (SELECT count(*) FROM c), ARRAY(SELECT c.id FROM c` + searchFilter + ` ORDER BY c.id DESC LIMIT $9::integer)`

// walkTags looks for tags. Their index gives no order, so it is asked for one span of time after another, from the newest, and
// for no more than a page may look at. Where a day has more, the tag is common in it, and walking the messages finds it soon.
func walkTags(ctx context.Context, tx pgx.Tx, q query, next *uuid.UUID) ([]uuid.UUID, error) {
	var oldest, newest uuid.UUID
	err := tx.QueryRow(ctx, `
		SELECT coalesce((SELECT id FROM messages WHERE id >= $1::uuid AND id < $2::uuid ORDER BY id LIMIT 1), $2::uuid),
		       coalesce((SELECT id FROM messages WHERE id >= $1::uuid AND id < $2::uuid ORDER BY id DESC LIMIT 1), $1::uuid)`, q.lo, q.hi).Scan(&oldest, &newest)
	if err != nil || !less(oldest, q.hi) {
		return nil, err
	}
	q.lo = oldest
	if end := follow(newest); less(end, q.hi) {
		q.hi = end
	}
	var found []uuid.UUID
	most := min(q.examine, searchScattered)
	for n, span := 0, tagSpan; ; n++ {
		part := q
		part.limit = q.limit - len(found)
		if from := floorID(message.TimeOf(q.hi).Add(-span)); less(part.lo, from) {
			part.lo = from
		}
		ids, seen, err := tagged(ctx, tx, part, most)
		switch {
		case err != nil:
			return nil, err
		case seen > most && n > 0:
			*next = q.hi // what comes is for a page of its own: reading so far has cost enough
			return found, nil
		case seen > most:
			ids, err := walk(ctx, tx, byID, part, next)
			if *next == uuid.Nil && less(q.lo, part.lo) {
				*next = part.lo
			}
			return append(found, ids...), err
		case len(ids) > part.limit:
			*next = ids[part.limit-1]
			return append(found, ids[:part.limit]...), nil
		}
		found = append(found, ids...)
		q.hi = part.lo
		if !less(q.lo, q.hi) {
			return found, nil
		}
		if len(found) == q.limit || n+1 >= tagSpans {
			*next = q.hi // nothing before it was looked at
			return found, nil
		}
		// As far as the found ones let expect less than may be looked at.
		if times := min(4, most/2/(seen+1)); times > 1 {
			span *= time.Duration(times)
		}
	}
}

// tagged gives the messages of a span of time that have the tags, up to one more than the limit, and how many have them before
// the rest of the filter, most+1 where there are more than most.
func tagged(ctx context.Context, tx pgx.Tx, q query, most int) (ids []uuid.UUID, seen int, err error) {
	// The plan is made for the span: the planner has to see how much of a partition lies in it, or it may take the primary key.
	const set = `SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),
		set_config('enable_bitmapscan', 'on', true), set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true),
		set_config('enable_sort', 'on', true), set_config('jit', 'off', true)`
	if _, err := tx.Exec(ctx, set); err != nil {
		return nil, 0, fmt.Errorf("preparing the transaction: %w", err)
	}
	err = tx.QueryRow(ctx, tagsSQL, q.status, q.phones, q.keys, q.reference, q.lo, q.hi, most+1, q.tags, q.limit+1).Scan(&seen, &ids)
	return ids, seen, err
}
