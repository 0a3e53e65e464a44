package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// RawWebhook is one notification as Meta posted it.
type RawWebhook struct {
	// ID is a UUIDv7 of the time of receipt; it names the partition.
	ID uuid.UUID
	// AppID is the app whose secret signed it.
	AppID string
	Body  []byte
}

// InsertRaw keeps a set of notifications byte for byte, all or none.
func (s *Store) InsertRaw(ctx context.Context, set []RawWebhook) error {
	ids, apps, bodies := make([]uuid.UUID, len(set)), make([]string, len(set)), make([][]byte, len(set))
	for i, w := range set {
		ids[i], apps[i], bodies[i] = w.ID, w.AppID, w.Body
	}
	_, err := s.pool.Exec(ctx, `
		INSERT INTO webhook_raw (id, app_id, body, received_at)
		SELECT u.id, u.app_id, u.body, clock_timestamp() FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS u(id, app_id, body)`,
		ids, apps, bodies)
	if err != nil {
		return fmt.Errorf("keeping %d notifications: %w", len(set), err)
	}
	return nil
}

// WaitingWebhook is a notification that is not applied yet.
type WaitingWebhook struct {
	ID   uuid.UUID
	Body []byte
	// Attempts counts the earlier tries to apply it.
	Attempts   int
	ReceivedAt time.Time
	// Applied says that an earlier try has applied it, but for statuses that wait.
	Applied bool
	// Age is how long ago it came, by the database's clock.
	Age time.Duration
}

// TakeRaw locks the oldest notifications that wait, at most limit of them and, but for the first, at most maxBytes of
// their bodies. One that was tried before waits attempts² seconds from its receipt. Those another transaction holds are
// passed over. More says that others may be ready now.
func (s *Store) TakeRaw(ctx context.Context, tx pgx.Tx, limit int, maxBytes int64) (set []WaitingWebhook, more bool, err error) {
	if err := planByIndex(ctx, tx); err != nil {
		return nil, false, err
	}
	rows, err := tx.Query(ctx, takeRawSQL, limit)
	if err != nil {
		return nil, false, fmt.Errorf("taking notifications: %w", err)
	}
	var w WaitingWebhook
	var size, total int64
	var age float64
	var full bool
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&w.ID, &size, &w.Attempts, &w.ReceivedAt, &age, &w.Applied}, func() error {
		seen++
		if full = full || (len(set) > 0 && total+size > maxBytes); full {
			return nil
		}
		total += size
		w.Age = time.Duration(age * float64(time.Second))
		set = append(set, w)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("taking notifications: %w", err)
	}
	return set, full || seen == limit, s.loadBodies(ctx, tx, set)
}

const takeRawSQL = `
	SELECT id, octet_length(body)::bigint, attempts, received_at, extract(epoch FROM clock_timestamp() - received_at)::double precision,
	       ` + rawAppliedOnce + `
	FROM webhook_raw
	WHERE processed_at IS NULL
	  AND (attempts = 0 OR received_at + make_interval(secs => attempts * attempts) <= clock_timestamp())
	ORDER BY id LIMIT $1::integer FOR UPDATE SKIP LOCKED`

// rawAppliedOnce says of a row that an earlier attempt was committed, with all that the notification says but for statuses
// that found no message.
const rawAppliedOnce = `(attempts > 0 AND (error IS NULL OR starts_with(error, '` + ProblemUnmatched + `')))`

// loadBodies comes after the choice, so that no more than the bound is read.
func (s *Store) loadBodies(ctx context.Context, tx pgx.Tx, set []WaitingWebhook) error {
	if len(set) == 0 {
		return nil
	}
	ids, at := make([]uuid.UUID, len(set)), make(map[uuid.UUID]int, len(set))
	for i, w := range set {
		ids[i], at[w.ID] = w.ID, i
	}
	lo, hi := bounds(ids)
	rows, err := tx.Query(ctx, `
		SELECT id, body FROM webhook_raw WHERE id = ANY($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid`, ids, lo, hi)
	if err != nil {
		return fmt.Errorf("reading %d notifications: %w", len(set), err)
	}
	var id uuid.UUID
	var body []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &body}, func() error {
		set[at[id]].Body = body
		body = nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %d notifications: %w", len(set), err)
	}
	return nil
}

// ProblemUnmatched begins the Problem of a notification that was applied but for statuses of no message.
const ProblemUnmatched = "no message for "

// RawResult is what came of one notification.
type RawResult struct {
	ID uuid.UUID
	// Done ends it; otherwise it is tried again later.
	Done bool
	// Problem is why it, or a part of it, could not be applied; empty when all was. It holds nothing of the body.
	Problem string
}

// FinishRaw records what came of notifications taken in the same transaction and counts the attempt.
func (s *Store) FinishRaw(ctx context.Context, tx pgx.Tx, results []RawResult) error {
	if len(results) == 0 {
		return nil
	}
	ids, done, problems := make([]uuid.UUID, len(results)), make([]bool, len(results)), make([]string, len(results))
	for i, r := range results {
		ids[i], done[i], problems[i] = r.ID, r.Done, r.Problem
	}
	if err := planByIndex(ctx, tx); err != nil {
		return err
	}
	lo, hi := bounds(ids)
	_, err := tx.Exec(ctx, finishRawSQL, ids, done, problems, lo, hi)
	if err != nil {
		return fmt.Errorf("marking %d notifications: %w", len(results), err)
	}
	return nil
}

const finishRawSQL = `
	UPDATE webhook_raw r
	SET attempts = r.attempts + 1, processed_at = CASE WHEN u.done THEN clock_timestamp() END, error = nullif(u.problem, '')
	FROM unnest($1::uuid[], $2::boolean[], $3::text[]) AS u(id, done, problem)
	WHERE r.id = u.id AND r.id = ANY($1::uuid[]) AND r.id BETWEEN $4::uuid AND $5::uuid AND r.processed_at IS NULL`

// planByIndex makes the statements of this transaction find rows of partitioned tables by their ids, whatever the
// planner believes of the partitions. A statement may be planned once, while the day's partition is empty and was never
// analysed, and keep that plan when it holds a million rows: then it must not be a scan, nor a loop that walks the range
// of ids for each row of the set, nor a bitmap of all that a wider index finds. `id = ANY` through the index and a hash join over the result stay quick at any size.
// Without jit = off the cost that stands for "off" would have each of these small statements compiled.
func planByIndex(ctx context.Context, tx pgx.Tx) error {
	const set = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_nestloop', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`
	if _, err := tx.Exec(ctx, set); err != nil {
		return fmt.Errorf("preparing the transaction: %w", err)
	}
	return nil
}
