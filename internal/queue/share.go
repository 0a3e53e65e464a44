package queue

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Starved is a priority of a lane that is to have some jobs go first.
type Starved struct {
	PhoneNumberID string
	Priority      int
	Jobs          int
}

// Promote lets the oldest jobs of a priority go first where jobs of a higher one wait in the same lane: they get the first
// priority and a place at its head. River claims strictly by priority, and without this the lower ones would be starved. It
// returns how many were promoted.
func (c *Client) Promote(ctx context.Context, q Querier, starved []Starved) (int, error) {
	n := len(starved)
	if n == 0 {
		return 0, nil
	}
	lanes, priorities, jobs := make([]string, n), make([]int16, n), make([]int32, n)
	for i, s := range starved {
		lanes[i], priorities[i], jobs[i] = Lane(s.PhoneNumberID), int16(s.Priority), int32(s.Jobs) //nolint:gosec // small
	}
	rows, err := q.Query(ctx, `
		WITH due AS MATERIALIZED ( -- inline, the limit would be asked anew for every row
			SELECT x.id, head.scheduled_at
			FROM unnest($1::text[], $2::smallint[], $3::integer[]) AS s(lane, priority, n)
			CROSS JOIN LATERAL (
				SELECT min(first.scheduled_at) AS scheduled_at
				FROM generate_series(1, s.priority - 1) AS p(priority)
				CROSS JOIN LATERAL (
					SELECT r.scheduled_at FROM river_job r
					WHERE r.state = 'available' AND r.queue = s.lane AND r.priority = p.priority
					ORDER BY r.scheduled_at, r.id LIMIT 1
				) first WHERE first.scheduled_at <= clock_timestamp()
			) head
			CROSS JOIN LATERAL (
				SELECT r.id FROM river_job r
				WHERE r.state = 'available' AND r.queue = s.lane AND r.priority = s.priority AND r.scheduled_at <= clock_timestamp()
				ORDER BY r.scheduled_at, r.id LIMIT s.n FOR NO KEY UPDATE SKIP LOCKED
			) x
			WHERE head.scheduled_at IS NOT NULL
		)
		UPDATE river_job j SET priority = 1, scheduled_at = least(j.scheduled_at, due.scheduled_at - interval '1 microsecond')
		FROM due WHERE j.id = due.id AND j.state = 'available'
		RETURNING j.id`, lanes, priorities, jobs)
	if err != nil {
		return 0, fmt.Errorf("promoting jobs in %d lanes: %w", n, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("promoting jobs in %d lanes: %w", n, err)
	}
	return len(ids), nil
}

// Wake tells the workers of these phone numbers' lanes that jobs were put in at their places, as River does for those it
// inserts itself. Call it in the transaction of the jobs.
func (i *Inserter) Wake(ctx context.Context, tx pgx.Tx, phoneNumberIDs []string) error {
	lanes := make([]string, len(phoneNumberIDs))
	for n, id := range phoneNumberIDs {
		lanes[n] = Lane(id)
	}
	_, err := tx.Exec(ctx, `
		SELECT pg_notify(current_schema() || '.river_insert', json_build_object('queue', u.lane)::text) FROM unnest($1::text[]) AS u(lane)`, lanes)
	if err != nil {
		return fmt.Errorf("waking %d lanes: %w", len(lanes), err)
	}
	return nil
}

// Count counts what waits in a phone number's lane, by priority 1 to 4: to be sent now or later, or claimed.
func (c *Client) Count(ctx context.Context, q Querier, phoneNumberID string) (waiting [4]int64, err error) {
	rows, err := q.Query(ctx, `
		SELECT priority, count(*) FROM river_job
		WHERE state IN ('available', 'scheduled', 'retryable', 'running') AND queue = $1::text GROUP BY priority`, Lane(phoneNumberID))
	if err != nil {
		return waiting, fmt.Errorf("counting the lane of phone number %s: %w", phoneNumberID, err)
	}
	var priority int
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&priority, &n}, func() error {
		if priority >= 1 && priority <= 4 {
			waiting[priority-1] = n
		}
		return nil
	})
	if err != nil {
		return waiting, fmt.Errorf("counting the lane of phone number %s: %w", phoneNumberID, err)
	}
	return waiting, nil
}

// WaitingAfter lists up to limit messages that wait in a phone number's lane, in the order of their jobs from after on.
func (c *Client) WaitingAfter(ctx context.Context, q Querier, phoneNumberID string, after int64, limit int) (ids []uuid.UUID, last int64, err error) {
	rows, err := q.Query(ctx, `
		SELECT id, (args ->> 'id')::uuid FROM river_job
		WHERE state IN ('available', 'scheduled', 'retryable', 'running') AND queue = $1::text AND id > $2::bigint ORDER BY id LIMIT $3::integer`,
		Lane(phoneNumberID), after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the lane of phone number %s: %w", phoneNumberID, err)
	}
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&last, &id}, func() error { ids = append(ids, id); return nil })
	if err != nil {
		return nil, 0, fmt.Errorf("listing the lane of phone number %s: %w", phoneNumberID, err)
	}
	return ids, last, nil
}
