package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The kinds of holds: what a message waits for that concerns it and few others. While it waits it has no job.
const (
	HoldPair       = "pair"       // the pair limit of its recipient
	HoldOrdering   = "ordering"   // an earlier message of its ordering key
	HoldWindow     = "window"     // its send_window
	HoldRecipients = "recipients" // the unique recipients of its portfolio
	HoldRecipient  = "recipient"  // marketing to its recipient
	HoldTemplate   = "template"   // a pause of its template
	HoldFlow       = "flow"       // a pause of its flow
	HoldTag        = "tag"        // a pause of one of its tags
	HoldKey        = "key"        // a pause of the API key that sent it
	HoldPriority   = "priority"   // a pause of its priority
	HoldMedia      = "media"      // the upload of a media that it names
)

// Hold is a message that waits for something of its own.
type Hold struct {
	MessageID     uuid.UUID
	PhoneNumberID string
	WABAID        string
	Kind          string
	// Value is what it waits for, by kind.
	Value string
	// Until is when it is looked at again; zero: when the cause is gone.
	Until time.Time
	// Priority and Place are those of its job, so that it goes back to where it was.
	Priority int
	Place    time.Time
}

// Park keeps holds, in the transaction that ends their jobs. A message that is held already is held by the newer cause.
func (s *Store) Park(ctx context.Context, tx pgx.Tx, holds []Hold) error {
	n := len(holds)
	ids, phones, wabas, kinds, values := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	until, priorities, places := make([]*time.Time, n), make([]int16, n), make([]time.Time, n)
	for i, h := range holds {
		ids[i], phones[i], wabas[i], kinds[i], values[i] = h.MessageID, h.PhoneNumberID, h.WABAID, h.Kind, h.Value
		priorities[i], places[i] = int16(h.Priority), h.Place //nolint:gosec // 1 to 4
		if !h.Until.IsZero() {
			until[i] = &holds[i].Until
		}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO holds AS h (message_id, phone_number_id, waba_id, kind, value, until, priority, place)
		SELECT DISTINCT ON (u.id) u.id, u.phone, u.waba, u.kind, u.value, u.until, u.priority, u.place
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::smallint[], $8::timestamptz[])
		     AS u(id, phone, waba, kind, value, until, priority, place)
		ORDER BY u.id
		ON CONFLICT (message_id) DO UPDATE
		SET kind = excluded.kind, value = excluded.value, until = excluded.until, place = excluded.place`,
		ids, phones, wabas, kinds, values, until, priorities, places)
	if err != nil {
		return fmt.Errorf("holding %d messages: %w", n, err)
	}
	return nil
}

const holdColumns = `h.message_id, h.phone_number_id, h.waba_id, h.kind, h.value, coalesce(h.until, '0001-01-01Z'::timestamptz), h.priority, h.place`

func scanHold(r pgx.CollectableRow) (h Hold, err error) {
	return h, r.Scan(&h.MessageID, &h.PhoneNumberID, &h.WABAID, &h.Kind, &h.Value, &h.Until, &h.Priority, &h.Place)
}

func (s *Store) release(ctx context.Context, tx pgx.Tx, what, sql string, args ...any) ([]Hold, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("releasing %s: %w", what, err)
	}
	holds, err := pgx.CollectRows(rows, scanHold)
	if err != nil {
		return nil, fmt.Errorf("releasing %s: %w", what, err)
	}
	return holds, nil
}

// ReleaseDue takes up to limit holds of the given WABAs away that are due before then. The caller puts their jobs in.
func (s *Store) ReleaseDue(ctx context.Context, tx pgx.Tx, wabas []string, before time.Time, limit int) ([]Hold, error) {
	return s.release(ctx, tx, "what is due", `
		WITH due AS MATERIALIZED (
			SELECT x.message_id FROM unnest($1::text[]) AS w(waba)
			CROSS JOIN LATERAL (
				SELECT message_id, until FROM holds WHERE waba_id = w.waba AND until <= $2::timestamptz
				ORDER BY until LIMIT $3::integer
			) x
			ORDER BY x.until LIMIT $3::integer
		)
		DELETE FROM holds h USING due WHERE h.message_id = due.message_id
		RETURNING `+holdColumns, wabas, before, limit)
}

// Cause is what holds wait for, of one WABA.
type Cause struct{ WABAID, Kind, Value string }

// HoldCauses lists the pauses that messages of the given WABAs are held by: templates, flows, tags, keys, priorities. It
// goes from one to the next by the index, however many messages each holds.
func (s *Store) HoldCauses(ctx context.Context, wabas []string) ([]Cause, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT w.waba, k.kind, c.value
		FROM unnest($1::text[]) AS w(waba)
		CROSS JOIN unnest(ARRAY['template', 'flow', 'tag', 'key', 'priority']) AS k(kind)
		CROSS JOIN LATERAL (
			WITH RECURSIVE next AS (
				(SELECT value FROM holds WHERE waba_id = w.waba AND kind = k.kind ORDER BY value LIMIT 1)
				UNION ALL
				SELECT (SELECT h.value FROM holds h WHERE h.waba_id = w.waba AND h.kind = k.kind AND h.value > next.value ORDER BY h.value LIMIT 1)
				FROM next WHERE next.value IS NOT NULL
			)
			SELECT value FROM next WHERE value IS NOT NULL LIMIT 1000
		) c`, wabas)
	if err != nil {
		return nil, fmt.Errorf("listing what holds messages: %w", err)
	}
	causes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Cause])
	if err != nil {
		return nil, fmt.Errorf("listing what holds messages: %w", err)
	}
	return causes, nil
}

// ReleaseCause takes up to limit holds of one cause away, from the front of their lanes.
func (s *Store) ReleaseCause(ctx context.Context, tx pgx.Tx, c Cause, limit int) ([]Hold, error) {
	return s.release(ctx, tx, c.Kind+" holds", `
		WITH due AS MATERIALIZED (
			SELECT message_id FROM holds WHERE waba_id = $1::text AND kind = $2::text AND value = $3::text LIMIT $4::integer FOR UPDATE SKIP LOCKED
		)
		DELETE FROM holds h USING due WHERE h.message_id = due.message_id
		RETURNING `+holdColumns, c.WABAID, c.Kind, c.Value, limit)
}

// orderingBlocks says of a message p whether its successors of the same ordering key wait for it: while nobody knows how
// it ends, and, where it asks for that, until it is delivered or its time is over.
const orderingBlocks = `(p.status IN ('queued', 'sending', 'unknown') OR (p.ordering_after = 'delivered' AND p.status IN ('accepted', 'sent')
	AND coalesce(p.accepted_at, p.sent_at, clock_timestamp()) > clock_timestamp() - make_interval(secs => coalesce(p.ordering_seconds, 300))))`

// orderingBack bounds how far back predecessors are looked at. Those before are settled: each went only after the one
// before it was.
const orderingBack = `1000`

// ReleaseOrdered takes away the holds of the first waiting message of each ordering key of the given WABAs whose
// predecessors are settled. after is the ordering key to go on from, "" for the start; next is "" when all were looked at.
func (s *Store) ReleaseOrdered(ctx context.Context, tx pgx.Tx, wabaID, after string, keys, limit int) (released []Hold, next string, err error) {
	var heads []uuid.UUID
	var last *string
	var seen int
	err = tx.QueryRow(ctx, `
		WITH RECURSIVE k AS (
			(SELECT value, phone_number_id AS phone, message_id, 1 AS n FROM holds
			 WHERE waba_id = $1::text AND kind = 'ordering' AND value > $2::text ORDER BY value, phone_number_id, message_id LIMIT 1)
			UNION ALL
			SELECT x.value, x.phone_number_id, x.message_id, k.n + 1 FROM k CROSS JOIN LATERAL (
				SELECT h.value, h.phone_number_id, h.message_id FROM holds h
				WHERE h.waba_id = $1::text AND h.kind = 'ordering' AND (h.value, h.phone_number_id) > (k.value, k.phone)
				ORDER BY h.value, h.phone_number_id, h.message_id LIMIT 1
			) x WHERE k.n < $3::integer
		), ready AS (
			SELECT message_id FROM k f WHERE NOT EXISTS (
				SELECT FROM (
					SELECT p.status, p.ordering_after, p.ordering_seconds, p.accepted_at, p.sent_at FROM messages p
					WHERE p.phone_number_id = f.phone AND p.ordering_key = f.value AND p.id < f.message_id
					ORDER BY p.id DESC LIMIT `+orderingBack+`
				) p WHERE `+orderingBlocks+`
			) LIMIT $4::integer
		)
		SELECT (SELECT coalesce(array_agg(message_id), '{}') FROM ready), (SELECT max(value) FROM k), (SELECT count(value) FROM k)::integer`,
		wabaID, after, keys, limit).Scan(&heads, &last, &seen)
	if err != nil {
		return nil, "", fmt.Errorf("looking at the ordering keys of WABA %s: %w", wabaID, err)
	}
	if last != nil && seen >= keys {
		next = *last
	}
	if len(heads) == 0 {
		return nil, next, nil
	}
	released, err = s.release(ctx, tx, "the next of ordering keys", `DELETE FROM holds h WHERE h.message_id = ANY($1::uuid[]) AND h.kind = 'ordering' RETURNING `+holdColumns, heads)
	return released, next, err
}

// ReleaseNext takes away the hold of the first waiting message of each of the given ordering keys. Its job looks at its
// predecessors again.
func (s *Store) ReleaseNext(ctx context.Context, tx pgx.Tx, wabaID, phoneNumberID string, keys []string) ([]Hold, error) {
	return s.release(ctx, tx, "the next of ordering keys", `
		WITH first AS MATERIALIZED (
			SELECT x.message_id FROM unnest($3::text[]) AS k(value)
			CROSS JOIN LATERAL (
				SELECT message_id FROM holds
				WHERE waba_id = $1::text AND kind = 'ordering' AND value = k.value AND phone_number_id = $2::text ORDER BY message_id LIMIT 1
			) x
		)
		DELETE FROM holds h USING first WHERE h.message_id = first.message_id
		RETURNING `+holdColumns, wabaID, phoneNumberID, keys)
}

// DropHolds removes holds of messages that wait no longer (cancelled, expired), looking at up to limit of them from after
// on, in the order of their ids. next is the nil id when all were looked at.
func (s *Store) DropHolds(ctx context.Context, wabas []string, after uuid.UUID, limit int) (next uuid.UUID, err error) {
	var last *uuid.UUID
	var seen int
	err = s.pool.QueryRow(ctx, `
		WITH part AS (
			SELECT message_id, waba_id FROM holds WHERE message_id > $2::uuid ORDER BY message_id LIMIT $3::integer
		), gone AS (
			DELETE FROM holds h USING part, messages m
			WHERE h.message_id = part.message_id AND part.waba_id = ANY($1::text[]) AND m.id = part.message_id AND m.status <> 'queued'
		)
		SELECT max(message_id::text)::uuid, count(*)::integer FROM part`, wabas, after, limit).Scan(&last, &seen)
	if err != nil {
		return uuid.Nil, fmt.Errorf("dropping holds of messages that ended: %w", err)
	}
	if last != nil && seen >= limit {
		return *last, nil
	}
	return uuid.Nil, nil
}
