package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Ref names one run of a job: its row and the attempt that claimed it. A statement fenced by it touches no later run.
type Ref struct {
	ID      int64
	Attempt int
}

// Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Complete finishes running jobs within the transaction that records their outcomes. River's own completer then finds
// nothing left to do. A row that is no longer in that run is left alone; the completed ones are counted in done. The statement goes out with
// the batch.
func (c *Client) Complete(b *pgx.Batch, refs []Ref, done *int) {
	ids, attempts := split(refs)
	b.Queue(`
		UPDATE river_job j SET state = 'completed', finalized_at = clock_timestamp()
		FROM unnest($1::bigint[], $2::integer[]) AS u(id, attempt)
		WHERE j.id = u.id AND j.id = ANY($1::bigint[]) AND j.state = 'running' AND j.attempt = u.attempt`, ids, attempts,
	).Exec(func(tag pgconn.CommandTag) error {
		*done += int(tag.RowsAffected())
		return nil
	})
}

// Retire completes running jobs whose messages wait without a job from now on, within the transaction that keeps that. It
// returns the ids of those that it completed; a row that is no longer in that run is left alone.
func (c *Client) Retire(ctx context.Context, q Querier, refs []Ref) (map[int64]bool, error) {
	ids, attempts := split(refs)
	rows, err := q.Query(ctx, `
		UPDATE river_job j SET state = 'completed', finalized_at = clock_timestamp()
		FROM unnest($1::bigint[], $2::integer[]) AS u(id, attempt)
		WHERE j.id = u.id AND j.id = ANY($1::bigint[]) AND j.state = 'running' AND j.attempt = u.attempt RETURNING j.id`, ids, attempts)
	if err != nil {
		return nil, fmt.Errorf("retiring %d jobs: %w", len(refs), err)
	}
	retired := make(map[int64]bool, len(refs))
	var id int64
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { retired[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("retiring %d jobs: %w", len(refs), err)
	}
	return retired, nil
}

// GiveBack hands running jobs back as new ones: each row is cancelled and a new available job made from it, in one
// statement, so that a late word of whoever claimed the old one reaches nothing. The new job keeps its place in the lane.
// It returns the ids that were given back.
func (c *Client) GiveBack(ctx context.Context, q Querier, refs []Ref) (map[int64]bool, error) {
	ids, attempts := split(refs)
	rows, err := q.Query(ctx, `
		WITH gone AS (
			UPDATE river_job j SET state = 'cancelled', finalized_at = clock_timestamp()
			FROM unnest($1::bigint[], $2::integer[]) AS u(id, attempt)
			WHERE j.id = u.id AND j.id = ANY($1::bigint[]) AND j.state = 'running' AND j.attempt = u.attempt
			RETURNING j.id, j.args, j.kind, j.max_attempts, j.priority, j.queue, j.tags, j.created_at, j.scheduled_at
		), made AS (
			INSERT INTO river_job (args, kind, max_attempts, priority, queue, tags, created_at, state, scheduled_at)
			SELECT args, kind, max_attempts, priority, queue, tags, created_at, 'available', scheduled_at FROM gone
		)
		SELECT id FROM gone`, ids, attempts)
	if err != nil {
		return nil, fmt.Errorf("giving back %d jobs: %w", len(refs), err)
	}
	given := make(map[int64]bool, len(refs))
	var id int64
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { given[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("giving back %d jobs: %w", len(refs), err)
	}
	return given, nil
}

// Running is a claimed job, as its row says.
type Running struct {
	Ref
	MessageID uuid.UUID
	// PhoneNumberID is that of its lane.
	PhoneNumberID string
	ClaimedBy     string
	ClaimedAt     time.Time
}

// RunningJobs lists up to limit running jobs of the given phone numbers' lanes, of this client only those claimed longer
// than own ago.
func (c *Client) RunningJobs(ctx context.Context, q Querier, phoneNumberIDs []string, own time.Duration, limit int) ([]Running, error) {
	lanes := make([]string, len(phoneNumberIDs))
	for i, id := range phoneNumberIDs {
		lanes[i] = Lane(id)
	}
	rows, err := q.Query(ctx, `
		SELECT j.id, j.attempt, j.args, j.queue, coalesce(j.attempted_by[array_upper(j.attempted_by, 1)], ''), coalesce(j.attempted_at, j.created_at)
		FROM unnest($1::text[]) AS l(lane)
		CROSS JOIN LATERAL (
			SELECT * FROM river_job r WHERE r.state = 'running' AND r.queue = l.lane
			  AND (r.attempted_by[array_upper(r.attempted_by, 1)] IS DISTINCT FROM $3::text
			       OR r.attempted_at < clock_timestamp() - make_interval(secs => $4::double precision))
			ORDER BY r.priority, r.scheduled_at, r.id LIMIT $2::integer
		) j`, lanes, limit, c.id, own.Seconds())
	if err != nil {
		return nil, fmt.Errorf("listing running jobs: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Running, error) {
		var r Running
		var args []byte
		var lane string
		if err := row.Scan(&r.ID, &r.Attempt, &args, &lane, &r.ClaimedBy, &r.ClaimedAt); err != nil {
			return r, err
		}
		var a SendArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return r, fmt.Errorf("arguments of job %d: %w", r.ID, err)
		}
		r.MessageID, r.PhoneNumberID = a.ID, PhoneNumberID(lane)
		return r, nil
	})
}

// LanesWithWork says which of the given phone numbers' lanes have a job that may run now.
func (c *Client) LanesWithWork(ctx context.Context, q Querier, phoneNumberIDs []string) (map[string]bool, error) {
	lanes := make([]string, len(phoneNumberIDs))
	for i, id := range phoneNumberIDs {
		lanes[i] = Lane(id)
	}
	// One probe a priority: over a lane whose first priority holds only jobs for later, ORDER BY priority, scheduled_at
	// reads them all.
	rows, err := q.Query(ctx, `
		SELECT l.lane FROM unnest($1::text[]) AS l(lane)
		WHERE EXISTS (
			SELECT 1 FROM generate_series(1, 4) AS p(priority)
			CROSS JOIN LATERAL (
				SELECT r.scheduled_at FROM river_job r
				WHERE r.state = 'available' AND r.queue = l.lane AND r.priority = p.priority
				ORDER BY r.scheduled_at, r.id LIMIT 1
			) first
			WHERE first.scheduled_at <= clock_timestamp()
		)`, lanes)
	if err != nil {
		return nil, fmt.Errorf("looking for lanes with work: %w", err)
	}
	with := make(map[string]bool)
	var lane string
	if _, err := pgx.ForEachRow(rows, []any{&lane}, func() error { with[PhoneNumberID(lane)] = true; return nil }); err != nil {
		return nil, fmt.Errorf("looking for lanes with work: %w", err)
	}
	return with, nil
}

// split sorts too: statements that meet over the same rows lock them in the same order.
func split(refs []Ref) (ids []int64, attempts []int32) {
	refs = slices.SortedFunc(slices.Values(refs), func(a, b Ref) int { return cmp.Compare(a.ID, b.ID) })
	ids, attempts = make([]int64, len(refs)), make([]int32, len(refs))
	for i, r := range refs {
		ids[i], attempts[i] = r.ID, int32(r.Attempt) //nolint:gosec // River's attempt is a smallint
	}
	return ids, attempts
}
