package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"wagate/internal/message"
)

const (
	// cancelAtOnce bounds the messages that one statement cancels. Their rows are locked for as long as it takes, and a
	// worker's mark of one of them waits.
	cancelAtOnce = 2000
	// cancelAhead is how far the clock of another gateway, which makes ids, may be ahead.
	cancelAhead = time.Minute
	// cancelSpan is a step of the walk: a partition's day.
	cancelSpan = 24 * time.Hour
)

// CancelFilter picks waiting messages. Zero fields pick all.
type CancelFilter struct {
	From      string
	To        string
	Reference string
	Tags      map[string]string
	// Priority is 1 to 4; 0 picks all.
	Priority int
	// PhoneNumberIDs are the ones the asker may use; empty means all.
	PhoneNumberIDs []string
	CreatedAfter   time.Time
	CreatedBefore  time.Time
}

// CancelMany cancels the waiting messages that a filter picks: status queued, and no try open. It walks the table in the
// order of ids, a day at a time, 2,000 messages a transaction, and stops when within is over: more then says that some
// may be left, and what is cancelled stays so. Only the span of creation is indexed: with one, the partitions of other
// days are not read. A message that a worker is taking at this moment is left to it. Beside an error the number of those
// already cancelled is given.
func (s *Store) CancelMany(ctx context.Context, f CancelFilter, now time.Time, within time.Duration, withdraw Withdraw) (cancelled int, more bool, err error) {
	var tags *string
	if len(f.Tags) > 0 {
		raw, err := json.Marshal(f.Tags)
		if err != nil {
			return 0, false, fmt.Errorf("encoding the tags of a filter: %w", err)
		}
		t := string(raw)
		tags = &t
	}
	end := now.Add(cancelAhead)
	if !f.CreatedBefore.IsZero() && f.CreatedBefore.Before(end) {
		end = f.CreatedBefore
	}
	bounded, stop := context.WithTimeout(ctx, within)
	defer stop()
	at := f.CreatedAfter
	var last uuid.UUID // everything up to it has been looked at
	for {
		at, err = s.nextCreated(bounded, last, at, end)
		if err != nil || at.IsZero() {
			break
		}
		to := at.UTC().Truncate(cancelSpan).Add(cancelSpan)
		if end.Before(to) {
			to = end
		}
		var ids []uuid.UUID
		ids, err = s.cancelSome(bounded, f, tags, last, at, to, now, withdraw)
		if err != nil {
			break
		}
		cancelled += len(ids)
		if len(ids) == cancelAtOnce {
			last = ids[len(ids)-1] // in the order of ids
		} else {
			at = to
		}
	}
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)) {
		return cancelled, true, nil
	}
	if err != nil {
		return cancelled, true, fmt.Errorf("cancelling by a filter, after %d messages: %w", cancelled, err)
	}
	return cancelled, false, nil
}

// Withdraw takes the jobs of cancelled messages that were to be sent later, or within a window, out of their lanes, in the
// same transaction.
type Withdraw func(ctx context.Context, tx pgx.Tx, later []Again) error

// cancelledColumns is what is to be known of a message that was cancelled.
const cancelledColumns = `m.id, m.phone_number_id, m.priority, m.created_at, m.send_at, coalesce(m.send_window::text, '')`

// withdrawLater reads what was cancelled and withdraws the jobs of what was for later. The others' jobs run soon, find
// the message cancelled, and end.
func withdrawLater(ctx context.Context, tx pgx.Tx, rows pgx.Rows, withdraw Withdraw) error {
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (a Again, err error) {
		var at *time.Time
		err = r.Scan(&a.ID, &a.PhoneNumberID, &a.Priority, &a.CreatedAt, &at, &a.SendWindow)
		if at != nil {
			a.SendAt = *at
		}
		return a, err
	})
	later := slices.DeleteFunc(all, func(a Again) bool { return a.SendAt.IsZero() && a.SendWindow == "" })
	if err != nil || len(later) == 0 {
		return err
	}
	return withdraw(ctx, tx, later)
}

// nextCreated gives the moment from which the walk goes on: that of the first message after last that was created within
// [at, end), but never before at; zero when there is none. Days without messages cost nothing.
func (s *Store) nextCreated(ctx context.Context, last uuid.UUID, at, end time.Time) (time.Time, error) {
	var from *time.Time
	if !at.IsZero() {
		from = &at
	}
	var id uuid.UUID
	err := s.pool.QueryRow(ctx, `
		SELECT id FROM messages
		WHERE id > $1::uuid AND id >= coalesce(wagate_uuid_floor($2::timestamptz), '00000000-0000-0000-0000-000000000000'::uuid)
		  AND id < wagate_uuid_floor($3::timestamptz)
		ORDER BY id LIMIT 1`, last, from, end).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the next message: %w", err)
	}
	if created := message.TimeOf(id); created.After(at) {
		return created, nil
	}
	return at, nil
}

// pickWaitingSQL locks in the order of ids and waits for nobody: a row that is locked is being marked, settled or
// cancelled by somebody else, and two that wait for each other's rows would be a deadlock.
const pickWaitingSQL = `
	SELECT m.id FROM messages m
	WHERE m.status = 'queued' AND m.slot_at IS NULL
	  AND ($1::text = '' OR m.phone_number_id = $1::text) AND ($2::text = '' OR m.recipient = $2::text)
	  AND ($3::text = '' OR m.reference = $3::text) AND ($4::text IS NULL OR m.tags @> $4::text::jsonb)
	  AND ($5::integer = 0 OR m.priority = $5::integer) AND (cardinality($6::text[]) = 0 OR m.phone_number_id = ANY($6::text[]))
	  AND m.id > $7::uuid AND m.id >= wagate_uuid_floor($8::timestamptz) AND m.id < wagate_uuid_floor($9::timestamptz)
	ORDER BY m.id LIMIT $10::integer FOR NO KEY UPDATE SKIP LOCKED`

const cancelPickedSQL = `
	UPDATE messages m SET status = 'cancelled',
		body = CASE WHEN wagate_content_ends('cancelled', m.category, m.pricing_category, $4::boolean) THEN NULL ELSE m.body END,
		redacted_at = CASE WHEN m.body IS NOT NULL AND wagate_content_ends('cancelled', m.category, m.pricing_category, $4::boolean) THEN clock_timestamp() ELSE m.redacted_at END
	WHERE m.id = ANY($1::uuid[]) AND m.id BETWEEN $2::uuid AND $3::uuid AND m.status = 'queued'
	RETURNING ` + cancelledColumns

// cancelSome cancels the first 2,000 that the filter picks after last and within [from, to), and gives their ids, ascending.
func (s *Store) cancelSome(ctx context.Context, f CancelFilter, tags *string, last uuid.UUID, from, to, now time.Time, withdraw Withdraw) (ids []uuid.UUID, err error) {
	err = s.InTx(ctx, func(tx pgx.Tx) error {
		if err := planByIndex(ctx, tx); err != nil { // a scan for each 2,000 would read the day again and again
			return err
		}
		rows, err := tx.Query(ctx, pickWaitingSQL, f.From, f.To, f.Reference, tags, f.Priority, notNil(f.PhoneNumberIDs), last, from, to, cancelAtOnce)
		if err != nil {
			return err
		}
		if ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil || len(ids) == 0 {
			return err
		}
		lo, hi := bounds(ids)
		if rows, err = tx.Query(ctx, cancelPickedSQL, ids, lo, hi, s.atFinal); err != nil {
			return err
		}
		if err := withdrawLater(ctx, tx, rows, withdraw); err != nil {
			return err
		}
		events := make([]Event, len(ids))
		for i, id := range ids {
			events[i] = Event{MessageID: id, Kind: "cancelled", At: now, Detail: map[string]any{"by": "filter"}}
		}
		return s.InsertEvents(ctx, tx, events)
	})
	return ids, err
}
