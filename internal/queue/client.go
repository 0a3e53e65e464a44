package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
)

// Job is one run of a message's job.
type Job struct {
	ID            int64
	Attempt       int
	MessageID     uuid.UUID
	PhoneNumberID string
	Priority      int
	// Place is its scheduled_at: its place among the jobs of its lane and priority.
	Place time.Time
}

// Ref names this run.
func (j Job) Ref() Ref { return Ref{ID: j.ID, Attempt: j.Attempt} }

// Verdict is what becomes of a job after its run.
type Verdict struct {
	kind  verdictKind
	delay time.Duration
	err   error
}

type verdictKind int

const (
	settled verdictKind = iota
	snoozed
	retried
)

// Settled says that the row of the job has been dealt with: completed with its outcome, or given back.
func Settled() Verdict { return Verdict{kind: settled} }

// Snooze runs the job again after d; it costs no attempt.
func Snooze(d time.Duration) Verdict { return Verdict{kind: snoozed, delay: max(d, 0)} }

// Retry runs the job again by River's retry, with exponential backoff and jitter.
func Retry(err error) Verdict {
	if err == nil {
		err = errors.New("no reason given") // nil would complete the job
	}
	return Verdict{kind: retried, err: err}
}

// Handler works one job. Its context ends when the client is stopped hard.
type Handler func(ctx context.Context, job Job) Verdict

// ClientConfig is what a worker's River client needs.
type ClientConfig struct {
	Pool     *pgxpool.Pool
	WorkerID string
	Handler  Handler
	// Callbacks works the jobs that deliver callbacks; nil leaves them to other processes.
	Callbacks CallbackHandler
	Logger    *slog.Logger
	// RetryBase is the first wait of the exponential backoff, doubled with every attempt; default 1 s.
	RetryBase time.Duration
	// RetryMax bounds that wait; default 5 min.
	RetryMax time.Duration
	// Chores are done by one of the workers at a time; all of them are given the same.
	Chores []Chore
}

// Client works the lanes of one process.
type Client struct {
	river *river.Client[pgx.Tx]
	id    string
	// stopChores ends the runs of chores.
	stopChores context.CancelFunc

	mu      sync.Mutex
	closing map[string]bool // phone numbers whose lane CloseLane has stopped but not yet removed
}

// housekeeping is a queue nobody inserts to: River starts no client without one.
const housekeeping = "wagate-none"

// NewClient makes the River client of a worker. It works nothing until Start and OpenLane.
func NewClient(cfg ClientConfig) (*Client, error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &sendWorker{handle: cfg.Handler}); err != nil {
		return nil, fmt.Errorf("adding the worker of messages: %w", err)
	}
	queues := map[string]river.QueueConfig{housekeeping: {MaxWorkers: 1}}
	if cfg.Callbacks != nil {
		if err := river.AddWorkerSafely(workers, &callbackWorker{handle: cfg.Callbacks}); err != nil {
			return nil, fmt.Errorf("adding the worker of callbacks: %w", err)
		}
		queues[callbackQueue] = river.QueueConfig{MaxWorkers: callbackWorkers, FetchCooldown: callbackFetch, FetchPollInterval: time.Second}
	}
	if cfg.RetryBase <= 0 {
		cfg.RetryBase = time.Second
	}
	if cfg.RetryMax <= 0 {
		cfg.RetryMax = 5 * time.Minute
	}
	stopping, stopChores := context.WithCancel(context.Background())
	if len(cfg.Chores) > 0 {
		if err := river.AddWorkerSafely(workers, newChoreWorker(stopping, cfg.Pool, cfg.Chores)); err != nil {
			stopChores()
			return nil, fmt.Errorf("adding the worker of chores: %w", err)
		}
		queues[choreQueue] = river.QueueConfig{MaxWorkers: choresAtOnce}
	}
	client, err := river.NewClient(riverpgxv5.New(cfg.Pool), &river.Config{
		ID:           cfg.WorkerID,
		Logger:       cfg.Logger,
		Workers:      workers,
		Queues:       queues,
		PeriodicJobs: periodic(cfg.Chores),
		// Waiting for a slot counts into River's time-out, so the time-out is the POST's own.
		JobTimeout: -1,
		// A dead worker's jobs are taken over by the next owner, which knows what was sent; River's rescue does not.
		RescueStuckJobsAfter: 365 * 24 * time.Hour,
		// A hung handler is seen by the sweep; River's log line about it would come every minute of a long wait.
		JobStuckThreshold:           time.Hour,
		CompletedJobRetentionPeriod: 10 * time.Minute,
		CancelledJobRetentionPeriod: 10 * time.Minute,
		FetchPollInterval:           time.Second,
		FetchCooldown:               fetchCooldownMax,
		MaxAttempts:                 maxAttempts,
		RetryPolicy:                 &backoff{base: cfg.RetryBase, limit: cfg.RetryMax},
		ReindexerIndexNames: []string{
			"river_job_kind", "river_job_pkey", "river_job_prioritized_fetching_index",
			"river_job_state_and_finalized_at_index", "river_job_unique_idx",
		},
	})
	if err != nil {
		stopChores()
		return nil, fmt.Errorf("making the River client of the worker: %w", err)
	}
	return &Client{river: client, id: cfg.WorkerID, stopChores: stopChores, closing: map[string]bool{}}, nil
}

// Start begins to work. The context's end stops the client hard.
func (c *Client) Start(ctx context.Context) error {
	if err := c.river.Start(ctx); err != nil {
		return fmt.Errorf("starting the River client: %w", err)
	}
	return nil
}

// Stop fetches no more and waits for running jobs until ctx ends; then their contexts are cancelled.
func (c *Client) Stop(ctx context.Context) error {
	c.stopChores()
	err := c.river.Stop(ctx)
	if err != nil && ctx.Err() != nil {
		hard, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = c.river.StopAndCancel(hard)
	}
	if err != nil {
		return fmt.Errorf("stopping the River client: %w", err)
	}
	return nil
}

const (
	fetchCooldownMin = 2 * time.Millisecond
	fetchCooldownMax = 200 * time.Millisecond
	// slowLane is up to how many messages a second a lane is fetched for seldom.
	slowLane = 20
)

// OpenLane starts to claim a lane's jobs, at most workers at a time. perSecond is the rate the lane can send at, 0 for
// no limit: a fast lane is fetched for more often. Opening an open lane does nothing; one that is still closing is an error.
func (c *Client) OpenLane(phoneNumberID string, workers int, perSecond float64) error {
	cooldown := fetchCooldownMin
	limit := fetchCooldownMax
	switch {
	case perSecond > slowLane:
		// An eighth of the time in which the lane works off what it may claim.
		cooldown, limit = time.Duration(float64(workers)/perSecond/8*float64(time.Second)), fetchCooldownMax/4
	case perSecond > 0:
		// A third: slow lanes are many, and one that asks after every job costs a statement a message.
		cooldown = time.Duration(float64(workers) / perSecond / 3 * float64(time.Second))
	}
	err := c.river.Queues().Add(Lane(phoneNumberID), river.QueueConfig{
		MaxWorkers: workers, FetchCooldown: min(max(cooldown, fetchCooldownMin), limit), FetchPollInterval: time.Second,
	})
	var already *river.QueueAlreadyAddedError
	switch {
	case err == nil, errors.As(err, &already) && !c.isClosing(phoneNumberID):
		return nil
	case !errors.As(err, &already):
		// River keeps a queue whose start failed, and would call it added the next time although it fetches nothing.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = errors.Join(err, c.CloseLane(ctx, phoneNumberID))
	}
	return fmt.Errorf("opening lane of phone number %s: %w", phoneNumberID, err)
}

func (c *Client) isClosing(phoneNumberID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing[phoneNumberID]
}

func (c *Client) setClosing(phoneNumberID string, closing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if closing {
		c.closing[phoneNumberID] = true
	} else {
		delete(c.closing, phoneNumberID)
	}
}

// CloseLane claims no more of a lane and waits, until ctx ends, for its running jobs. It may be called again to go on
// waiting; no lane can be opened meanwhile.
func (c *Client) CloseLane(ctx context.Context, phoneNumberID string) error {
	err := c.river.Queues().Remove(ctx, Lane(phoneNumberID))
	var missing *river.QueueNotFoundError
	if err != nil && !errors.As(err, &missing) {
		c.setClosing(phoneNumberID, true)
		return fmt.Errorf("closing lane of phone number %s: %w", phoneNumberID, err)
	}
	c.setClosing(phoneNumberID, false)
	return nil
}

type sendWorker struct {
	river.WorkerDefaults[SendArgs]
	handle Handler
}

func (w *sendWorker) Work(ctx context.Context, job *river.Job[SendArgs]) error {
	return w.handle(ctx, Job{
		ID: job.ID, Attempt: job.Attempt, MessageID: job.Args.ID, PhoneNumberID: PhoneNumberID(job.Queue), Priority: job.Priority, Place: job.ScheduledAt,
	}).forRiver()
}

// forRiver is the verdict as River wants it.
func (v Verdict) forRiver() error {
	switch v.kind {
	case snoozed:
		return river.JobSnooze(v.delay)
	case retried:
		return v.err
	case settled:
	}
	return nil
}

// backoff is exponential with full jitter above half of it: the wait before attempt n+1 lies between 1/2 and all of
// base × 2^(n-1), bounded.
type backoff struct{ base, limit time.Duration }

// NextRetry implements river.ClientRetryPolicy.
func (b *backoff) NextRetry(job *rivertype.JobRow) time.Time {
	wait := b.limit
	if n := len(job.Errors); n < 20 {
		wait = min(b.base<<n, b.limit)
	}
	return time.Now().Add(wait/2 + rand.N(wait/2+1)) //nolint:gosec // jitter, no secret
}
