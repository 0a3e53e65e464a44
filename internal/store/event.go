package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/message"
)

// Event is a row of a message's log. Detail holds no content and no phone number.
type Event struct {
	MessageID uuid.UUID
	Kind      string
	Try       int
	WAMID     string
	At        time.Time
	Detail    map[string]any

	// Set as it is written: its id, and Detail as JSON.
	id      uuid.UUID
	encoded *string
}

// InsertEvents adds rows to the log in one statement. Those that stand for a status are told to whoever listens: they come
// after the change of their messages.
func (s *Store) InsertEvents(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	var gate callbackGate
	if err := queueEvents(b, events, &gate); err != nil {
		return err
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("inserting %d events: %w", len(events), err)
	}
	return s.tellEvents(ctx, tx, gate, events)
}

// queueEvents adds the statement that inserts events to a batch, and asks for the gate where one of them is to be told.
func queueEvents(b *pgx.Batch, events []Event, gate *callbackGate) error {
	n := len(events)
	ids, messageIDs, kinds, tries := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]string, n), make([]int32, n)
	wamids, at, details := make([]string, n), make([]time.Time, n), make([]*string, n)
	now := time.Now()
	telling := false
	for i := range events {
		e := &events[i]
		e.id = message.NewID(now)
		telling = telling || wordOf(e) != ""
		ids[i], messageIDs[i], kinds[i], tries[i] = e.id, e.MessageID, e.Kind, int32(e.Try) //nolint:gosec // small
		wamids[i], at[i] = e.WAMID, e.At
		if len(e.Detail) > 0 {
			raw, err := json.Marshal(e.Detail)
			if err != nil {
				return fmt.Errorf("encoding an event of message %s: %w", e.MessageID, err)
			}
			d := string(raw)
			details[i], e.encoded = &d, &d
		}
	}
	b.Queue(`
		INSERT INTO message_events (id, message_id, kind, try, wamid, at, detail)
		SELECT u.id, u.message_id, u.kind, nullif(u.try, 0), nullif(u.wamid, ''), u.at, u.detail::jsonb
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::text[])
		     AS u(id, message_id, kind, try, wamid, at, detail)`, ids, messageIDs, kinds, tries, wamids, at, details)
	if telling {
		queueGate(b, gate)
	}
	return nil
}
