package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ClaimChore says whether the caller is the one that does some work now: it was not begun by anybody within the time.
func (s *Store) ClaimChore(ctx context.Context, name string, every time.Duration) (bool, error) {
	tag, err := s.pool.Exec(ctx, `
		INSERT INTO chores AS c (name, done_at) VALUES ($1::text, clock_timestamp())
		ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at WHERE c.done_at < clock_timestamp() - make_interval(secs => $2::double precision)`,
		name, every.Seconds())
	if err != nil {
		return false, fmt.Errorf("claiming %s: %w", name, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Stranded finds messages accepted on a day (in UTC) that wait and have neither a job nor a hold, so that nothing would ever
// come of them, and those that are being sent by no job. The former are given for the caller to put their jobs in within the same
// transaction; the latter become unknown, as nobody can tell how their try ended, and are decided after settleAfter.
// Messages younger than older are left out. It reads all messages of the day, for some minutes where they are many: one
// process at a time, now and then.
func (s *Store) Stranded(ctx context.Context, tx pgx.Tx, day time.Time, older, settleAfter time.Duration, limit int) (waiting []Again, unknown int, err error) {
	if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '300000', true)`); err != nil {
		return nil, 0, fmt.Errorf("looking for stranded messages: %w", err)
	}
	day = day.UTC().Truncate(24 * time.Hour)
	rows, err := tx.Query(ctx, `
		SELECT id, phone_number_id, priority, status, try, send_at, clock_timestamp()
		FROM wagate_stranded(wagate_uuid_floor($1::timestamptz), wagate_uuid_floor($2::timestamptz), make_interval(secs => $3::double precision), $4::integer)`,
		day, day.Add(24*time.Hour), older.Seconds(), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("looking for stranded messages: %w", err)
	}
	var events []Event
	var outcomes []Outcome
	var a Again
	var status string
	var try int
	var sendAt *time.Time
	var now time.Time // the database's, as deadlines are
	_, err = pgx.ForEachRow(rows, []any{&a.ID, &a.PhoneNumberID, &a.Priority, &status, &try, &sendAt, &now}, func() error {
		if status == "sending" {
			outcomes = append(outcomes, Outcome{ID: a.ID, Try: try, Status: "unknown", Event: "try.unknown", Reason: "job_lost", At: now, SettleBy: now.Add(settleAfter)})
			return nil
		}
		a.SendAt = time.Time{}
		if sendAt != nil && sendAt.After(now) {
			a.SendAt = *sendAt
		}
		waiting = append(waiting, a)
		events = append(events, Event{MessageID: a.ID, Kind: "job_lost", Try: try, At: now})
		sendAt = nil
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
