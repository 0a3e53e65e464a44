// Package queue is the only place that knows River: the job of a message, its lane, how jobs are put in, completed with
// an outcome, given back and taken over.
package queue

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// Kind is River's kind of a message's job.
const Kind = "send"

const lanePrefix = "lane-"

// maxAttempts bounds River's own count of a job's runs. The budget of a message is its own count of retries; this one
// only has to stay above it.
const maxAttempts = 1000

// SendArgs are the arguments of a message's job: the message's id and nothing else.
type SendArgs struct {
	ID uuid.UUID `json:"id"`
}

// Kind implements river.JobArgs.
func (SendArgs) Kind() string { return Kind }

// Lane gives the River queue of a phone number id.
func Lane(phoneNumberID string) string { return lanePrefix + phoneNumberID }

// PhoneNumberID gives the phone number id of a lane.
func PhoneNumberID(lane string) string { return strings.TrimPrefix(lane, lanePrefix) }

// ValidPhoneNumberID says whether an id can name a lane: 1 to 59 digits or lower-case letters, as River's queue names
// allow. Meta's ids are digits.
func ValidPhoneNumberID(id string) bool {
	if id == "" || len(id) > 64-len(lanePrefix) {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// Send is one job to put in.
type Send struct {
	MessageID     uuid.UUID
	PhoneNumberID string
	// Priority is River's, 1 (first) to 4.
	Priority int
	// At is when the job may run first; zero means at once.
	At time.Time
	// Place is the job's place among those of its lane and priority, an instant that is not in the future; zero means
	// behind all that came before. A lane that is being worked sees such a job with its next fetch, without a notification.
	Place time.Time
	// Wake notifies the lane of a job with a Place, as River does for the jobs that it inserts.
	Wake bool
}

// Inserter puts jobs in; it works none.
type Inserter struct{ client *river.Client[pgx.Tx] }

// NewInserter makes an insert-only River client. It starts nothing and needs no stop.
func NewInserter(pool *pgxpool.Pool, logger *slog.Logger) (*Inserter, error) {
	// FetchCooldown also throttles the insert notification of a queue, without a trailing one: at its preset of 100 ms
	// a lane would learn of a message that followed another closely only by its poll. Group commits bound them instead.
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: logger, FetchCooldown: time.Millisecond})
	if err != nil {
		return nil, fmt.Errorf("making the River client that inserts: %w", err)
	}
	return &Inserter{client: client}, nil
}

// Insert puts the jobs in within the caller's transaction, in one statement.
func (i *Inserter) Insert(ctx context.Context, tx pgx.Tx, sends []Send) error {
	params := make([]river.InsertManyParams, 0, len(sends))
	var placed []Send
	for _, s := range sends {
		if !s.Place.IsZero() && s.At.IsZero() {
			placed = append(placed, s)
			continue
		}
		params = append(params, river.InsertManyParams{Args: SendArgs{ID: s.MessageID}, InsertOpts: &river.InsertOpts{
			Queue: Lane(s.PhoneNumberID), Priority: s.Priority, MaxAttempts: maxAttempts, ScheduledAt: s.At,
		}})
	}
	if err := insertPlaced(ctx, tx, placed); err != nil {
		return err
	}
	if len(params) == 0 {
		return nil
	}
	if _, err := i.client.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("inserting %d jobs: %w", len(params), err)
	}
	return nil
}

// insertPlaced puts jobs in at their places. River makes every job that it inserts with a time of its own a scheduled one,
// which its leader looks at every 5 s; these may run now.
func insertPlaced(ctx context.Context, tx pgx.Tx, sends []Send) error {
	n := len(sends)
	if n == 0 {
		return nil
	}
	ids, lanes, priorities, places := make([]string, n), make([]string, n), make([]int16, n), make([]time.Time, n)
	var wake []string
	for k, s := range sends {
		ids[k], lanes[k], priorities[k], places[k] = s.MessageID.String(), Lane(s.PhoneNumberID), int16(s.Priority), s.Place //nolint:gosec // 1 to 4
		if s.Wake && !slices.Contains(wake, lanes[k]) {
			wake = append(wake, lanes[k])
		}
	}
	// River's topic and payload of an insert.
	_, err := tx.Exec(ctx, `
		WITH made AS (
			INSERT INTO river_job (args, kind, max_attempts, priority, queue, state, scheduled_at)
			SELECT jsonb_build_object('id', u.id), $5::text, $6::smallint, u.priority, u.lane, 'available', least(u.place, clock_timestamp())
			FROM unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[]) WITH ORDINALITY AS u(id, lane, priority, place, n)
			ORDER BY u.n
		)
		SELECT pg_notify(current_schema() || '.river_insert', '{"queue": "' || w.lane || '"}') FROM unnest($7::text[]) AS w(lane)`,
		ids, lanes, priorities, places, Kind, maxAttempts, wake)
	if err != nil {
		return fmt.Errorf("inserting %d jobs at their places: %w", n, err)
	}
	return nil
}

// HeadOf names the jobs of one lane and priority.
type HeadOf struct {
	PhoneNumberID string
	Priority      int
}

// Heads gives the place of the first job of each that may run now, by one look at the index each; what has none is not in
// the map. now is the database's time.
func (i *Inserter) Heads(ctx context.Context, q Querier, of []HeadOf) (heads map[HeadOf]time.Time, now time.Time, err error) {
	lanes, priorities := make([]string, len(of)), make([]int16, len(of))
	for k, h := range of {
		lanes[k], priorities[k] = Lane(h.PhoneNumberID), int16(h.Priority) //nolint:gosec // 1 to 4
	}
	rows, err := q.Query(ctx, `
		SELECT u.n, first.scheduled_at, clock_timestamp()
		FROM unnest($1::text[], $2::smallint[]) WITH ORDINALITY AS u(lane, priority, n)
		LEFT JOIN LATERAL (
			SELECT r.scheduled_at FROM river_job r
			WHERE r.state = 'available' AND r.queue = u.lane AND r.priority = u.priority
			ORDER BY r.scheduled_at, r.id LIMIT 1
		) first ON true`, lanes, priorities)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("looking at the heads of %d lanes: %w", len(of), err)
	}
	heads = make(map[HeadOf]time.Time, len(of))
	var n int
	var head *time.Time
	_, err = pgx.ForEachRow(rows, []any{&n, &head, &now}, func() error {
		if head != nil {
			heads[of[n-1]] = *head
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("looking at the heads of %d lanes: %w", len(of), err)
	}
	return heads, now, nil
}

// Runnable counts the jobs of a lane that may run now, of a priority and those before it, up to limit.
func (i *Inserter) Runnable(ctx context.Context, q Querier, of HeadOf, limit int) (int, error) {
	rows, err := q.Query(ctx, `
		SELECT count(*) FROM (
			SELECT FROM generate_series(1, $2::integer) AS p(priority)
			CROSS JOIN LATERAL (
				SELECT FROM river_job r WHERE r.state = 'available' AND r.queue = $1::text AND r.priority = p.priority LIMIT $3::integer
			) x LIMIT $3::integer
		) jobs`, Lane(of.PhoneNumberID), of.Priority, limit)
	if err != nil {
		return 0, fmt.Errorf("counting what may run of phone number %s: %w", of.PhoneNumberID, err)
	}
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("counting what may run of phone number %s: %w", of.PhoneNumberID, err)
	}
	return n, nil
}

// Withdraw cancels the jobs of messages that were to be sent later, within the transaction that cancels the messages. A job
// is found by its place, lane, priority and time, which its insert gave it; one that is no longer there, or that a worker
// has claimed, is left alone.
func (i *Inserter) Withdraw(ctx context.Context, tx pgx.Tx, sends []Send) error {
	n := len(sends)
	ids, lanes, priorities, at := make([]string, n), make([]string, n), make([]int16, n), make([]time.Time, n)
	for k, s := range sends {
		ids[k], lanes[k], priorities[k], at[k] = s.MessageID.String(), Lane(s.PhoneNumberID), int16(s.Priority), s.At //nolint:gosec // 1 to 4
	}
	_, err := tx.Exec(ctx, `
		UPDATE river_job j SET state = 'cancelled', finalized_at = clock_timestamp()
		FROM (
			SELECT r.id
			FROM unnest($1::text[], $2::text[], $3::smallint[], $4::timestamptz[]) AS u(message_id, lane, priority, at)
			CROSS JOIN (VALUES ('scheduled'::river_job_state), ('available'::river_job_state)) AS s(state)
			CROSS JOIN LATERAL (
				SELECT x.id FROM river_job x
				WHERE x.state = s.state AND x.queue = u.lane AND x.priority = u.priority AND x.scheduled_at = u.at
				  AND x.args ->> 'id' = u.message_id
				FOR NO KEY UPDATE SKIP LOCKED
			) r
		) found
		WHERE j.id = found.id`, ids, lanes, priorities, at)
	if err != nil {
		return fmt.Errorf("withdrawing %d jobs: %w", n, err)
	}
	return nil
}

// BacklogBound is how many jobs of one priority and state Backlog counts at most.
const BacklogBound = 10_000

// Backlog counts the jobs that wait in a phone number's lane, by priority 1 to 4: those that may run now, those
// for later, and those a worker has claimed. A count of BacklogBound or more means that there may be more.
func (i *Inserter) Backlog(ctx context.Context, q Querier, phoneNumberID string) (map[int]int64, error) {
	rows, err := q.Query(ctx, `
		SELECT p.priority, sum(c.n)::bigint
		FROM generate_series(1, 4) AS p(priority)
		CROSS JOIN unnest(ARRAY['available', 'scheduled', 'retryable', 'running']::river_job_state[]) AS s(state)
		CROSS JOIN LATERAL (
			SELECT count(*) AS n FROM (
				SELECT FROM river_job r WHERE r.state = s.state AND r.queue = $1::text AND r.priority = p.priority::smallint
				ORDER BY r.scheduled_at, r.id LIMIT $2::integer -- in the order of the index, else all of a large table is read
			) x
		) c
		WHERE c.n > 0 GROUP BY p.priority`, Lane(phoneNumberID), BacklogBound)
	if err != nil {
		return nil, fmt.Errorf("counting the backlog of phone number %s: %w", phoneNumberID, err)
	}
	waiting := map[int]int64{}
	var priority int
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&priority, &n}, func() error { waiting[priority] = n; return nil }); err != nil {
		return nil, fmt.Errorf("counting the backlog of phone number %s: %w", phoneNumberID, err)
	}
	return waiting, nil
}
