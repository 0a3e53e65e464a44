package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"wagate/internal/pgtest"
)

// worker starts one with chores and no lanes.
func worker(t *testing.T, pool *pgxpool.Pool, id string, chores ...Chore) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Pool: pool, WorkerID: id, Handler: func(context.Context, Job) Verdict { return Settled() }, Logger: quiet, Chores: chores})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func stop(t *testing.T, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestAChoreIsDoneAgainAndAgainByOneOfTheWorkers(t *testing.T) {
	pool := pgtest.New(t)
	// A worker has died in the midst of one, and another is still at it.
	for id, ago := range map[string]string{"dead": "1 hour", "alive": "1 minute"} {
		if _, err := pool.Exec(t.Context(), `INSERT INTO river_job (args, kind, max_attempts, queue, state, attempt, attempted_at, attempted_by)
			VALUES ('{"name":"sweep"}', 'chore', 1, 'wagate-chores', 'running', 1, now() - $1::interval, ARRAY[$2::text])`, ago, id); err != nil {
			t.Fatal(err)
		}
	}
	runs := make(chan string, 100)
	sweep := func(by string) Chore {
		return Chore{Name: "sweep", Every: time.Second, Run: func(context.Context) error {
			runs <- by
			return errors.New("told so")
		}}
	}
	a, b := worker(t, pool, "worker-a", sweep("a")), worker(t, pool, "worker-b", sweep("b"))
	for range 3 {
		next(t, runs, "a run")
	}
	stop(t, a)
	stop(t, b)
	// At most one in each second, whatever their number; and what went wrong is to be read there.
	var perSecond, failed, left int
	if err := pool.QueryRow(t.Context(), `
		SELECT (SELECT max(n) FROM (SELECT count(*) AS n FROM river_job WHERE kind = 'chore' AND state <> 'running' GROUP BY date_trunc('second', scheduled_at)) x),
		       (SELECT count(*) FROM river_job WHERE kind = 'chore' AND state = 'discarded' AND errors::text LIKE '%chore sweep: told so%'),
		       (SELECT count(*) FROM river_job WHERE kind = 'chore' AND state = 'running' AND attempted_by = ARRAY['dead'])
		         + 10 * (SELECT count(*) FROM river_job WHERE kind = 'chore' AND state = 'running' AND attempted_by = ARRAY['alive'])`).Scan(&perSecond, &failed, &left); err != nil {
		t.Fatal(err)
	}
	if perSecond != 1 || failed < 3 || left != 10 {
		t.Errorf("%d jobs in a second, %d failed with their reason, left of the dead and the living: %d", perSecond, failed, left)
	}
}

func TestAStoppingWorkerEndsItsChores(t *testing.T) {
	pool := pgtest.New(t)
	began, ended := make(chan bool, 10), make(chan error, 10)
	c := worker(t, pool, "worker-a", Chore{Name: "long", Every: time.Hour, Run: func(ctx context.Context) error {
		began <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}})
	next(t, began, "the run")
	stop(t, c)
	if err := next(t, ended, "its end"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var state, errs string
	if err := pool.QueryRow(t.Context(), `SELECT state::text, coalesce(errors::text, '') FROM river_job WHERE kind = 'chore'`).Scan(&state, &errs); err != nil {
		t.Fatal(err)
	}
	if state != "completed" || strings.Contains(errs, "canceled") {
		t.Errorf("the job is %s, with errors %q", state, errs)
	}
}

func TestAChoreThatThisVersionDoesNotKnowIsLeftAlone(t *testing.T) {
	w := newChoreWorker(t.Context(), nil, nil)
	if err := w.Work(t.Context(), choreJob("of tomorrow")); err != nil {
		t.Error(err)
	}
}

func choreJob(name string) *river.Job[ChoreArgs] {
	return &river.Job[ChoreArgs]{JobRow: &rivertype.JobRow{ID: 1}, Args: ChoreArgs{Name: name}}
}
