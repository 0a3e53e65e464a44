// Package queue is the only place that knows River: the job of a message, its lane, how jobs are put in, completed with
// an outcome, given back and taken over.
package queue

import (
	"context"
	"fmt"
	"log/slog"
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
	if len(sends) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(sends))
	for n, s := range sends {
		params[n] = river.InsertManyParams{Args: SendArgs{ID: s.MessageID}, InsertOpts: &river.InsertOpts{
			Queue: Lane(s.PhoneNumberID), Priority: s.Priority, MaxAttempts: maxAttempts, ScheduledAt: s.At,
		}}
	}
	if _, err := i.client.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("inserting %d jobs: %w", len(sends), err)
	}
	return nil
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

// Backlog counts the jobs that wait in a phone number's lane, by priority 1 to 4: those that may run now, those
// for later, and those a worker has claimed.
func (i *Inserter) Backlog(ctx context.Context, q Querier, phoneNumberID string) (map[int]int64, error) {
	rows, err := q.Query(ctx, `
		SELECT priority, count(*) FROM river_job
		WHERE state IN ('available', 'scheduled', 'retryable', 'running') AND queue = $1::text GROUP BY priority`, Lane(phoneNumberID))
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
