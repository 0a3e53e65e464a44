package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// strandedLock keeps two processes from mending the same messages at once.
const strandedLock = 7349871004

// Stranded finds messages that wait and have neither a job nor a hold, so that nothing would ever come of them, and those that
// are being sent by no job. The former are given for the caller to put their jobs in within the same transaction; the latter
// become unknown, as nobody can tell how their try ended, to be decided at settleBy. Messages younger than older are left
// out. It reads all messages of the table: for now and then. While another process does the same it finds nothing.
func (s *Store) Stranded(ctx context.Context, tx pgx.Tx, older time.Duration, settleBy time.Time, limit int) (waiting []Again, unknown int, err error) {
	var mine bool
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1::bigint)`, int64(strandedLock)).Scan(&mine); err != nil {
		return nil, 0, fmt.Errorf("looking for stranded messages: %w", err)
	}
	if !mine {
		return nil, 0, nil
	}
	rows, err := tx.Query(ctx, `SELECT id, phone_number_id, priority, status, try FROM wagate_stranded(make_interval(secs => $1::double precision), $2::integer)`, older.Seconds(), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("looking for stranded messages: %w", err)
	}
	var events []Event
	var outcomes []Outcome
	var a Again
	var status string
	var try int
	now := time.Now()
	_, err = pgx.ForEachRow(rows, []any{&a.ID, &a.PhoneNumberID, &a.Priority, &status, &try}, func() error {
		if status == "queued" {
			waiting = append(waiting, a)
			events = append(events, Event{MessageID: a.ID, Kind: "job_lost", Try: try, At: now})
			return nil
		}
		outcomes = append(outcomes, Outcome{ID: a.ID, Try: try, Status: "unknown", Event: "try.unknown", Reason: "job_lost", At: now, SettleBy: settleBy})
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("looking for stranded messages: %w", err)
	}
	if len(outcomes) > 0 {
		if err := s.RecordOutcomes(ctx, tx, outcomes, nil); err != nil {
			return nil, 0, err
		}
	}
	return waiting, len(outcomes), s.InsertEvents(ctx, tx, events)
}
