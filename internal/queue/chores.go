package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// Chore is work that is done every so often, by one of the workers: River's leader puts a job in, and whoever is free takes it.
type Chore struct {
	// Name is the same in every process.
	Name string
	// Every is how often a job is put in; at most one in each span of this length. The leader puts one in when it starts, too.
	Every time.Duration
	// Run does it. A run that the previous one has left too little time for must find that out itself. Its context ends after
	// ten minutes, and when the worker stops; what is left to do then is for the next run. An error is logged and kept with the job.
	Run func(ctx context.Context) error
}

const (
	// choreKind is River's kind of a chore's job, choreQueue the queue of all chores.
	choreKind  = "chore"
	choreQueue = "wagate-chores"
	// choreTime bounds one run.
	choreTime = 10 * time.Minute
	// choresAtOnce is how many chores a worker does at the same time.
	choresAtOnce = 2
)

// ChoreArgs are the arguments of a chore's job.
type ChoreArgs struct {
	Name string `json:"name"`
}

// Kind implements river.JobArgs.
func (ChoreArgs) Kind() string { return choreKind }

type choreWorker struct {
	river.WorkerDefaults[ChoreArgs]
	pool   *pgxpool.Pool
	chores map[string]Chore
	// stopping ends when the worker stops, before River waits for what runs.
	stopping context.Context //nolint:containedctx // the life of the client
}

func newChoreWorker(stopping context.Context, pool *pgxpool.Pool, chores []Chore) *choreWorker {
	w := &choreWorker{pool: pool, chores: make(map[string]Chore, len(chores)), stopping: stopping}
	for _, c := range chores {
		w.chores[c.Name] = c
	}
	return w
}

// Timeout implements river.Worker.
func (w *choreWorker) Timeout(*river.Job[ChoreArgs]) time.Duration { return choreTime }

// Work implements river.Worker.
func (w *choreWorker) Work(ctx context.Context, job *river.Job[ChoreArgs]) error {
	chore, ok := w.chores[job.Args.Name]
	if !ok {
		return nil // of a newer version, which has its own workers
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stopping, cancel)()
	if err := w.forgetDead(ctx, job.ID); err != nil {
		return err
	}
	err := chore.Run(ctx)
	if err != nil && w.stopping.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // the next run goes on
	}
	if err != nil {
		return fmt.Errorf("chore %s: %w", chore.Name, err)
	}
	return nil
}

// forgetDead removes the jobs of chores whose worker died in the midst: lanes are taken over by their next owner, these by
// nobody, and the next run did what they left.
func (w *choreWorker) forgetDead(ctx context.Context, except int64) error {
	_, err := w.pool.Exec(ctx, `
		DELETE FROM river_job WHERE kind = $1::text AND queue = $2::text AND state = 'running' AND id <> $3::bigint
		  AND attempted_at < clock_timestamp() - 2 * make_interval(secs => $4::double precision)`, choreKind, choreQueue, except, choreTime.Seconds())
	if err != nil {
		return fmt.Errorf("removing the jobs of chores that died: %w", err)
	}
	return nil
}

// periodic gives the chores to River's leader.
func periodic(chores []Chore) []*river.PeriodicJob {
	jobs := make([]*river.PeriodicJob, 0, len(chores))
	for _, c := range chores {
		jobs = append(jobs, river.NewPeriodicJob(river.PeriodicInterval(c.Every), func() (river.JobArgs, *river.InsertOpts) {
			return ChoreArgs{Name: c.Name}, &river.InsertOpts{
				Queue: choreQueue, MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByArgs: true, ByPeriod: c.Every},
			}
		}, &river.PeriodicJobOpts{ID: c.Name, RunOnStart: true}))
	}
	return jobs
}
