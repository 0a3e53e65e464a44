package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"wagate/internal/pgtest"
)

// patience bounds every wait of these tests; none waits that long unless it fails.
const patience = 30 * time.Second

// next receives within patience.
func next[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatalf("%s: the channel was closed", what)
		}
		return v
	case <-timer.C:
		t.Fatalf("%s did not come within %v", what, patience)
		panic("not reached")
	}
}

// run is one call of the handler: the test answers it.
type run struct {
	ctx     context.Context
	job     Job
	verdict chan<- Verdict
}

// start gives a client that works, and the calls of its handler.
func start(t *testing.T, pool *pgxpool.Pool) (*Client, <-chan run, <-chan *river.Event) {
	t.Helper()
	runs := make(chan run, 100)
	c := newTestClient(t, pool, func(ctx context.Context, job Job) Verdict {
		verdict := make(chan Verdict, 1)
		runs <- run{ctx, job, verdict}
		select {
		case v := <-verdict:
			return v
		case <-ctx.Done():
			return Retry(ctx.Err())
		}
	})
	events, unsubscribe := c.river.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobSnoozed, river.EventKindJobCancelled)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unsubscribe()
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // hard: what still runs is of a test that failed
		if err := c.Stop(ctx); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return c, runs, events
}

func open(t *testing.T, c *Client, phone string, workers int) {
	t.Helper()
	if err := c.OpenLane(phone, workers, 0); err != nil {
		t.Fatal(err)
	}
}

func closeLane(t *testing.T, c *Client, phone string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.CloseLane(ctx, phone); err != nil {
		t.Fatal(err)
	}
}

func TestALaneIsWorkedInOrderOfPriority(t *testing.T) {
	pool := pgtest.New(t)
	ids := map[int]uuid.UUID{}
	for _, p := range []int{3, 1, 4, 2} {
		ids[p] = newID(t)
		insert(t, pool, Send{MessageID: ids[p], PhoneNumberID: "15550001", Priority: p})
	}
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "other", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "15550001", 1)
	open(t, c, "15550001", 1) // already open
	for p := 1; p <= 4; p++ {
		r := next(t, runs, "a run")
		if want := (Job{ID: r.job.ID, Attempt: 1, MessageID: ids[p], PhoneNumberID: "15550001", Priority: p, Place: r.job.Place}); r.job != want || r.job.Place.IsZero() {
			t.Errorf("worked %+v, want %+v", r.job, want)
		}
		r.verdict <- Settled()
		if e := next(t, events, "the event"); e.Kind != river.EventKindJobCompleted || e.Job.ID != r.job.ID {
			t.Errorf("event %s of job %d", e.Kind, e.Job.ID)
		}
	}
	closeLane(t, c, "15550001")
	closeLane(t, c, "15550001") // already closed
	for _, r := range jobs(t, pool) {
		if want := map[bool]string{true: "completed", false: "available"}[r.Queue == "lane-15550001"]; r.State != want {
			t.Errorf("a job of %s is %s, want %s", r.Queue, r.State, want)
		}
	}
}

// A job completed in our transaction stays as that left it, and River's event still comes.
func TestSettledAfterOurOwnCompletion(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "1", 4)
	r := next(t, runs, "a run")
	var finalized time.Time
	inTx(t, pool, func(tx pgx.Tx) error {
		n, err := complete(t, c, tx, []Ref{r.job.Ref()})
		if err != nil || n != 1 {
			t.Errorf("completed %d, %v", n, err)
		}
		return tx.QueryRow(t.Context(), `SELECT finalized_at FROM river_job WHERE id = $1::bigint`, r.job.ID).Scan(&finalized)
	})
	r.verdict <- Settled()
	if e := next(t, events, "the event"); e.Kind != river.EventKindJobCompleted || e.Job.ID != r.job.ID {
		t.Errorf("event %s of job %d", e.Kind, e.Job.ID)
	}
	var state string
	var now time.Time
	if err := pool.QueryRow(t.Context(), `SELECT state::text, finalized_at FROM river_job WHERE id = $1::bigint`, r.job.ID).Scan(&state, &now); err != nil {
		t.Fatal(err)
	}
	if state != "completed" || !now.Equal(finalized) {
		t.Errorf("the job is %s since %v; we completed it at %v", state, now, finalized)
	}
}

// A job given back while it runs is run again under a new id, and the end of the old run harms neither row.
func TestGivenBackWhileItRuns(t *testing.T) {
	pool := pgtest.New(t)
	message := newID(t)
	insert(t, pool, Send{MessageID: message, PhoneNumberID: "1", Priority: 2})
	c, runs, events := start(t, pool)
	open(t, c, "1", 4)
	old := next(t, runs, "a run")
	if given, err := c.GiveBack(t.Context(), pool, []Ref{old.job.Ref()}); err != nil || !given[old.job.ID] {
		t.Fatalf("given back %v, %v", given, err)
	}
	fresh := next(t, runs, "the new run")
	if fresh.job.ID == old.job.ID || fresh.job.MessageID != message || fresh.job.Attempt != 1 || fresh.job.Priority != 2 {
		t.Errorf("the new run is %+v, the old was %+v", fresh.job, old.job)
	}
	old.verdict <- Settled()
	next(t, events, "the event of the old run")
	states := map[int64]string{}
	for _, r := range jobs(t, pool) {
		states[r.ID] = r.State
	}
	if len(states) != 2 || states[old.job.ID] != "cancelled" || states[fresh.job.ID] != "running" {
		t.Errorf("states %v; want the old row cancelled and the new one running", states)
	}
	fresh.verdict <- Settled()
	if e := next(t, events, "the event of the new run"); e.Job.ID != fresh.job.ID {
		t.Errorf("event of job %d", e.Job.ID)
	}
}

func TestSnoozeCostsNoAttempt(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "1", 1)
	for range 3 {
		r := next(t, runs, "a run")
		if r.job.Attempt != 1 {
			t.Errorf("attempt %d after snoozes, want 1", r.job.Attempt)
		}
		r.verdict <- Snooze(-time.Second) // as long as none
		if e := next(t, events, "the event"); e.Kind != river.EventKindJobSnoozed {
			t.Errorf("event %s", e.Kind)
		}
	}
	r := next(t, runs, "a run")
	before := time.Now()
	r.verdict <- Snooze(time.Hour)
	next(t, events, "the event")
	got := jobs(t, pool)[0]
	if wait := got.ScheduledAt.Sub(before); got.State != "scheduled" || wait < 59*time.Minute || wait > 61*time.Minute {
		t.Errorf("snoozed for an hour: %s, in %v", got.State, wait)
	}
}

func TestRetryComesAgainLater(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "1", 1)
	for attempt := 1; attempt <= 4; attempt++ {
		r := next(t, runs, "a run")
		if r.job.Attempt != attempt {
			t.Errorf("attempt %d, want %d", r.job.Attempt, attempt)
		}
		var cause error
		if attempt%2 == 1 { // without a cause it is still no success
			cause = errors.New("the line was cut")
		}
		r.verdict <- Retry(cause)
		e := next(t, events, "the event")
		if e.Kind != river.EventKindJobFailed || (e.Job.State != "available" && e.Job.State != "retryable") {
			t.Errorf("event %s, state %s", e.Kind, e.Job.State)
		}
	}
}

func TestBackoffDoublesBetweenHalfAndWhole(t *testing.T) {
	b := &backoff{base: time.Second, limit: 5 * time.Minute}
	for n, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		whole := time.Duration(seconds) * time.Second
		for range 200 {
			job := jobWithErrors(n)
			before := time.Now()
			at := b.NextRetry(job)
			if at.Before(before.Add(whole/2)) || at.After(time.Now().Add(whole)) {
				t.Fatalf("after %d failures the wait is %v, want %v to %v", n+1, at.Sub(before), whole/2, whole)
			}
		}
	}
	for _, n := range []int{19, 20, 63, 64, 999} {
		if wait := time.Until(b.NextRetry(jobWithErrors(n))); wait < 149*time.Second || wait > 5*time.Minute {
			t.Errorf("after %d failures the wait is %v", n, wait)
		}
	}
}

// The close of a lane whose job runs on ends with its context, claims no more meanwhile, and can be taken up again.
func TestALaneClosesBitByBit(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "1", 1)
	r := next(t, runs, "a run")
	for range 2 {
		short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		err := c.CloseLane(short, "1")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("closing a lane whose job runs: %v", err)
		}
		if err := c.OpenLane("1", 1, 0); err == nil {
			t.Fatal("a lane that is still closing counts as opened, although it claims nothing")
		}
	}
	if err := r.ctx.Err(); err != nil {
		t.Errorf("the close ended its running job: %v", err)
	}
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	r.verdict <- Settled()
	next(t, events, "the event")
	closeLane(t, c, "1")
	if got := jobs(t, pool); got[0].State != "completed" || got[1].State != "available" {
		t.Errorf("the states are %s and %s; want the job that ran completed and the new one unclaimed", got[0].State, got[1].State)
	}
	open(t, c, "1", 1)
	r = next(t, runs, "a run of the lane opened again")
	r.verdict <- Settled()
	next(t, events, "the event")
}

// A lane that could not be started, for want of a database, is no open lane: the next OpenLane starts it.
func TestALaneThatDidNotStartCanBeOpenedAgain(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	exec(t, pool, `ALTER TABLE river_queue RENAME TO river_queue_away`)
	if err := c.OpenLane("1", 1, 0); err == nil {
		t.Fatal("a lane was opened without the table of queues")
	}
	exec(t, pool, `ALTER TABLE river_queue_away RENAME TO river_queue`)
	open(t, c, "1", 1)
	r := next(t, runs, "a run")
	r.verdict <- Settled()
	next(t, events, "the event")
}

// River UI's Retry and river's JobRetry run a finished job again; the handler must be ready for that.
func TestAnOperatorRetriesAFinishedJob(t *testing.T) {
	pool := pgtest.New(t)
	message := newID(t)
	insert(t, pool, Send{MessageID: message, PhoneNumberID: "1", Priority: 1})
	c, runs, events := start(t, pool)
	open(t, c, "1", 1)
	first := next(t, runs, "a run")
	inTx(t, pool, func(tx pgx.Tx) error {
		_, err := complete(t, c, tx, []Ref{first.job.Ref()})
		return err
	})
	first.verdict <- Settled()
	next(t, events, "the event")
	if _, err := c.river.JobRetry(t.Context(), first.job.ID); err != nil {
		t.Fatal(err)
	}
	again := next(t, runs, "the run by the operator")
	if again.job.ID != first.job.ID || again.job.MessageID != message || again.job.Attempt != 2 {
		t.Errorf("run again: %+v, first %+v", again.job, first.job)
	}
	inTx(t, pool, func(tx pgx.Tx) error {
		if n, err := complete(t, c, tx, []Ref{first.job.Ref()}); n != 0 || err != nil {
			t.Errorf("the first run's completion touched %d rows of the second, %v", n, err)
		}
		n, err := complete(t, c, tx, []Ref{again.job.Ref()})
		if n != 1 {
			t.Errorf("%d completed", n)
		}
		return err
	})
	again.verdict <- Settled()
	next(t, events, "the event")
}

// A soft stop waits for what runs; past its context it ends the handlers' contexts and leaves their jobs available.
func TestStop(t *testing.T) {
	pool := pgtest.New(t)
	insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	c, runs, _ := start(t, pool)
	open(t, c, "1", 1)
	r := next(t, runs, "a run")
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := c.Stop(short); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if r.ctx.Err() == nil {
		t.Error("a hard stop left the handler's context alive")
	}
	if got := jobs(t, pool)[0]; got.State != "available" || got.Attempt != 0 {
		t.Errorf("a job cut off by the stop is %s, attempt %d; want available, and the attempt not counted", got.State, got.Attempt)
	}
}

func jobWithErrors(n int) *rivertype.JobRow {
	return &rivertype.JobRow{Errors: make([]rivertype.AttemptError, n)}
}
