package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Expire ends up to limit messages that still wait and whose expires_at lies in (since, until], in a lane that is paused
// or closed too. It gives how many it ended. Their jobs find them ended.
func (s *Store) Expire(ctx context.Context, since, until time.Time, limit int) (int, error) {
	ended := 0
	err := s.InTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			WITH due AS (
				SELECT id, try FROM messages
				WHERE expires_at > $1::timestamptz AND expires_at <= $2::timestamptz AND status = 'queued' AND slot_at IS NULL
				ORDER BY expires_at LIMIT $3::integer FOR NO KEY UPDATE SKIP LOCKED
			)
			UPDATE messages m SET status = 'expired' FROM due WHERE m.id = due.id AND m.status = 'queued' AND m.slot_at IS NULL
			RETURNING m.id, m.try, m.expires_at`, since, until, limit)
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e Event, err error) {
			e.Kind, e.Detail = "expired", map[string]any{"by": "sweep"}
			return e, r.Scan(&e.MessageID, &e.Try, &e.At)
		})
		if err != nil {
			return err
		}
		ended = len(events)
		return s.InsertEvents(ctx, tx, events)
	})
	if err != nil {
		return 0, fmt.Errorf("ending expired messages: %w", err)
	}
	return ended, nil
}

// Settled is what was decided of a message whose try had no known outcome by its deadline.
type Settled struct {
	ID            uuid.UUID
	PhoneNumberID string
	Priority      int
	Try           int
	// OnUnknown is hold, resend or fail.
	OnUnknown string
}

// SettleUnknown decides up to limit unknown messages whose deadline has passed, each by its own policy: hold leaves it
// unknown, on the operators' list; fail ends it; resend lets it wait again, and the caller puts its job in within the
// same transaction.
func (s *Store) SettleUnknown(ctx context.Context, tx pgx.Tx, limit int) ([]Settled, error) {
	rows, err := tx.Query(ctx, `
		WITH due AS (
			SELECT id FROM messages WHERE settle_by <= clock_timestamp() ORDER BY settle_by LIMIT $1::integer FOR UPDATE SKIP LOCKED
		)
		UPDATE messages m SET
			settle_by = NULL,
			status = CASE WHEN m.status <> 'unknown' THEN m.status WHEN m.on_unknown = 'fail' THEN 'failed' WHEN m.on_unknown = 'resend' THEN 'queued' ELSE m.status END,
			failed_at = CASE WHEN m.status = 'unknown' AND m.on_unknown = 'fail' THEN clock_timestamp() ELSE m.failed_at END,
			error_scope = CASE WHEN m.status = 'unknown' AND m.on_unknown = 'fail' THEN 'message' ELSE m.error_scope END,
			error_title = CASE WHEN m.status = 'unknown' AND m.on_unknown = 'fail' THEN 'Outcome unknown at the deadline' ELSE m.error_title END
		FROM due WHERE m.id = due.id AND m.settle_by IS NOT NULL
		RETURNING m.id, m.phone_number_id, m.priority, m.try, CASE WHEN m.status IN ('unknown', 'failed', 'queued') THEN m.on_unknown ELSE '' END`, limit)
	if err != nil {
		return nil, fmt.Errorf("settling unknown messages: %w", err)
	}
	settled, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Settled])
	if err != nil {
		return nil, fmt.Errorf("settling unknown messages: %w", err)
	}
	events := make([]Event, 0, len(settled))
	now := time.Now()
	for _, m := range settled {
		if m.OnUnknown != "" {
			events = append(events, Event{MessageID: m.ID, Kind: "settled", Try: m.Try, At: now, Detail: map[string]any{"as": m.OnUnknown, "by": "deadline"}})
		}
	}
	return settled, s.InsertEvents(ctx, tx, events)
}
