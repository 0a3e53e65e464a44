package queue

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
)

// A job of callbacks is worked with its arguments, one for later is not, and those whose process died are cancelled.
func TestCallbackJobs(t *testing.T) {
	pool := pgtest.New(t)
	quiet := slog.New(slog.DiscardHandler)
	inserter, err := NewInserter(pool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	worked := make(chan CallbackArgs, 10)
	client, err := NewClient(ClientConfig{
		Pool: pool, WorkerID: "w1", Handler: func(context.Context, Job) Verdict { return Settled() }, Logger: quiet,
		Callbacks: func(_ context.Context, job CallbackArgs) Verdict { worked <- job; return Settled() },
	})
	if err == nil {
		err = client.Start(context.WithoutCancel(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := client.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	now, later := CallbackArgs{uuid.New(), 7}, CallbackArgs{uuid.New(), 8}
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return inserter.InsertCallbacks(t.Context(), tx, []CallbackJob{{CallbackArgs: now}, {later, time.Now().Add(time.Hour)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-worked; got != now {
		t.Errorf("worked %v, want %v", got, now)
	}
	var state string
	if err := pool.QueryRow(t.Context(), `SELECT state::text FROM river_job WHERE args ->> 'run' = '8'`).Scan(&state); err != nil || state != "scheduled" {
		t.Errorf("the job for later is %s, %v", state, err)
	}

	_, err = pool.Exec(t.Context(), `
		INSERT INTO river_job (args, kind, max_attempts, queue, state, attempt, attempted_at, attempted_by)
		SELECT '{}', 'callback', 10, q, 'running', 1, now() - a, '{dead}' FROM (VALUES ('callbacks', interval '1 hour'), ('callbacks', interval '1 minute'), ('lane-1', interval '1 hour')) AS v(q, a)`)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := inserter.ForgetCallbacks(t.Context(), pool, 5*time.Minute); n != 1 || err != nil {
		t.Errorf("forgot %d, %v: want the one of the queue that is too old", n, err)
	}
}
