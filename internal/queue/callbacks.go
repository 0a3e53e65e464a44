package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
)

const (
	callbackQueue = "callbacks"
	// callbackWorkers is how many endpoints a process delivers to at once; one that is slow keeps its own place only.
	callbackWorkers = 256
	// callbackFetch is the least time between two looks at the queue.
	callbackFetch = 20 * time.Millisecond
	// callbackAttempts bounds River's own tries of a job that could not reach the database.
	callbackAttempts = 1000
)

// CallbackArgs are the arguments of a job that delivers what waits for an endpoint.
type CallbackArgs struct {
	Endpoint uuid.UUID `json:"endpoint"`
	// Run is its number among those of the endpoint: only the newest does anything.
	Run int64 `json:"run"`
}

// Kind implements river.JobArgs.
func (CallbackArgs) Kind() string { return "callback" }

// CallbackHandler works one job. Its context ends when the client is stopped hard.
type CallbackHandler func(ctx context.Context, job CallbackArgs) Verdict

// CallbackJob is one job to put in, for At; zero means at once.
type CallbackJob struct {
	CallbackArgs
	At time.Time
}

// InsertCallbacks puts jobs in within the caller's transaction, in one statement.
func (i *Inserter) InsertCallbacks(ctx context.Context, tx pgx.Tx, jobs []CallbackJob) error {
	params := make([]river.InsertManyParams, len(jobs))
	for k, j := range jobs {
		params[k] = river.InsertManyParams{Args: j.CallbackArgs, InsertOpts: &river.InsertOpts{
			Queue: callbackQueue, MaxAttempts: callbackAttempts, ScheduledAt: j.At,
		}}
	}
	if _, err := i.client.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("inserting %d jobs of callbacks: %w", len(jobs), err)
	}
	return nil
}

// ForgetCallbacks cancels jobs of callbacks that have been running for longer than any does: their process has died, and
// others have taken their places. It gives how many.
func (i *Inserter) ForgetCallbacks(ctx context.Context, q Querier, longer time.Duration) (int, error) {
	rows, err := q.Query(ctx, `
		UPDATE river_job j SET state = 'cancelled', finalized_at = clock_timestamp()
		FROM (
			SELECT r.id FROM river_job r
			WHERE r.state = 'running' AND r.queue = $1::text AND r.attempted_at < clock_timestamp() - make_interval(secs => $2::double precision)
			ORDER BY r.priority, r.scheduled_at, r.id LIMIT 1000 FOR UPDATE SKIP LOCKED
		) dead
		WHERE j.id = dead.id AND j.state = 'running' RETURNING j.id`, callbackQueue, longer.Seconds())
	if err != nil {
		return 0, fmt.Errorf("looking for jobs of callbacks that died: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("looking for jobs of callbacks that died: %w", err)
	}
	return len(ids), nil
}

type callbackWorker struct {
	river.WorkerDefaults[CallbackArgs]
	handle CallbackHandler
}

func (w *callbackWorker) Work(ctx context.Context, job *river.Job[CallbackArgs]) error {
	return w.handle(ctx, job.Args).forRiver()
}
