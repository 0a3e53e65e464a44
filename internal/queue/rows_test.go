package queue

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
)

func TestCompleteTouchesItsOwnRunOnly(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	for range 6 {
		insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1})
	}
	all := jobs(t, pool)
	mine := claim(t, pool, all[0].ID, "worker-a")
	again := claim(t, pool, all[1].ID, "worker-a") // its run ended, and it runs anew
	exec(t, pool, `UPDATE river_job SET state = 'available' WHERE id = $1::bigint`, again.ID)
	claim(t, pool, again.ID, "worker-b")
	waiting := Ref{ID: all[2].ID, Attempt: 0}
	done := claim(t, pool, all[3].ID, "worker-a")
	exec(t, pool, `UPDATE river_job SET state = 'cancelled', finalized_at = '2020-01-01' WHERE id = $1::bigint`, done.ID)
	other := claim(t, pool, all[4].ID, "worker-b") // nobody names it
	second := claim(t, pool, all[5].ID, "worker-a")

	var n int
	inTx(t, pool, func(tx pgx.Tx) (err error) {
		n, err = complete(t, c, tx, []Ref{mine, again, waiting, done, second, {ID: 1 << 60, Attempt: 1}})
		return err
	})
	if n != 2 {
		t.Errorf("%d completed, want 2", n)
	}
	want := map[int64]string{mine.ID: "completed", again.ID: "running", waiting.ID: "available", done.ID: "cancelled", other.ID: "running", second.ID: "completed"}
	got := map[int64]string{}
	for _, r := range jobs(t, pool) {
		got[r.ID] = r.State
	}
	if !maps.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	inTx(t, pool, func(tx pgx.Tx) error {
		n, err := complete(t, c, tx, nil)
		if n != 0 {
			t.Errorf("%d completed of none", n)
		}
		return err
	})
}

func TestGiveBackMakesANewJob(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	for p := 1; p <= 4; p++ {
		insert(t, pool, Send{MessageID: newID(t), PhoneNumberID: "77", Priority: p})
	}
	exec(t, pool, `UPDATE river_job SET tags = '{one,two}', created_at = '2024-02-03 04:05:06Z'`)
	old := jobs(t, pool)
	var refs []Ref
	for _, r := range old[:3] {
		refs = append(refs, claim(t, pool, r.ID, "worker-a"))
	}
	stale := refs[2]
	exec(t, pool, `UPDATE river_job SET state = 'available' WHERE id = $1::bigint`, stale.ID)
	claim(t, pool, stale.ID, "worker-b")

	given, err := c.GiveBack(t.Context(), pool, append(slices.Clone(refs), Ref{ID: old[3].ID}))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[int64]bool{refs[0].ID: true, refs[1].ID: true}; !maps.Equal(given, want) {
		t.Errorf("given back %v, want %v", given, want)
	}
	now := jobs(t, pool)
	if len(now) != 6 {
		t.Fatalf("%d jobs, want 6", len(now))
	}
	made := map[uuid.UUID]row{}
	for _, r := range now[4:] {
		made[r.message(t)] = r
	}
	for i := range 2 {
		r, was := made[old[i].message(t)], old[i]
		if now[i].State != "cancelled" || !now[i].Finalized {
			t.Errorf("the row given back is %s", now[i].State)
		}
		if r.State != "available" || r.Attempt != 0 || r.Priority != was.Priority || r.Queue != was.Queue || r.Kind != was.Kind ||
			r.MaxAttempts != was.MaxAttempts || !r.CreatedAt.Equal(was.CreatedAt) || r.ScheduledAt.After(time.Now()) {
			t.Errorf("made %+v from %+v", r, was)
		}
	}
	if now[2].State != "running" || now[3].State != "available" {
		t.Errorf("rows of other runs are %s and %s, want running and available", now[2].State, now[3].State)
	}
	// The old run's late words reach nothing, neither ours nor those of River's completer, which asks for running.
	inTx(t, pool, func(tx pgx.Tx) error {
		n, err := complete(t, c, tx, refs)
		if n != 0 {
			t.Errorf("a late completion touched %d rows", n)
		}
		return err
	})
	if again, err := c.GiveBack(t.Context(), pool, refs); err != nil || len(again) != 0 {
		t.Errorf("given back a second time: %v, %v", again, err)
	}
}

// Whoever comes first has the job: of a completion and several give-backs at once exactly one takes effect.
func TestCompleteAndGiveBackAtOnce(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	const n = 60
	sends := make([]Send, n)
	for i := range sends {
		sends[i] = Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1}
	}
	insert(t, pool, sends...)
	refs := make([]Ref, 0, n)
	for _, r := range jobs(t, pool) {
		refs = append(refs, claim(t, pool, r.ID, "worker-a"))
	}
	type ended struct {
		id    int64
		given bool
	}
	results := make(chan ended, 3*n)
	failed := make(chan error, 3)
	start := make(chan struct{})
	go func() {
		<-start
		for _, ref := range refs {
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				done, err := complete(t, c, tx, []Ref{ref})
				if done == 1 {
					results <- ended{ref.ID, false}
				}
				return err
			})
			if err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for range 2 {
		go func() {
			<-start
			for i := range refs {
				given, err := c.GiveBack(t.Context(), pool, refs[n-1-i:n-i])
				if err != nil {
					failed <- err
					return
				}
				for id := range given {
					results <- ended{id, true}
				}
			}
			failed <- nil
		}()
	}
	close(start)
	for range 3 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	close(results)
	seen := map[int64]ended{}
	given := 0
	for r := range results {
		if _, twice := seen[r.id]; twice {
			t.Errorf("job %d was ended twice", r.id)
		}
		seen[r.id] = r
		if r.given {
			given++
		}
	}
	if len(seen) != n {
		t.Errorf("%d jobs were ended, want %d", len(seen), n)
	}
	states := map[string]int{}
	for _, r := range jobs(t, pool) {
		states[r.State]++
	}
	if states["available"] != given || states["cancelled"] != given || states["completed"] != n-given || states["running"] != 0 {
		t.Errorf("%d given back, and the states are %v", given, states)
	}
}

func TestRunningJobs(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	var sends []Send
	for i := range 12 {
		sends = append(sends, Send{MessageID: newID(t), PhoneNumberID: []string{"1", "2", "3"}[i%3], Priority: 1 + i%4})
	}
	insert(t, pool, sends...)
	all := jobs(t, pool)
	want := map[int64]Running{}
	for i, r := range all[:9] {
		claim(t, pool, r.ID, "worker-old")
		ref := claim(t, pool, r.ID, "worker-new")
		if i%3 != 2 {
			want[r.ID] = Running{Ref: ref, MessageID: r.message(t), PhoneNumberID: []string{"1", "2", "3"}[i%3], ClaimedBy: "worker-new"}
		}
	}
	before := time.Now().Add(-time.Minute)
	got, err := c.RunningJobs(t.Context(), pool, []string{"1", "2", "unknown"}, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%d running jobs, want %d", len(got), len(want))
	}
	for _, r := range got {
		if r.ClaimedAt.Before(before) {
			t.Errorf("job %d was claimed at %v", r.ID, r.ClaimedAt)
		}
		r.ClaimedAt = time.Time{}
		if r != want[r.ID] {
			t.Errorf("%+v, want %+v", r, want[r.ID])
		}
	}
	// The limit is a lane's.
	if got, err = c.RunningJobs(t.Context(), pool, []string{"1", "2"}, 0, 2); err != nil || len(got) != 4 {
		t.Errorf("%d running jobs, %v; want 2 of each of 2 lanes", len(got), err)
	}
	// A row made by hand, claimed by nobody, is listed too.
	exec(t, pool, `UPDATE river_job SET state = 'running', attempted_by = NULL, attempted_at = NULL WHERE id = $1::bigint`, all[11].ID)
	if got, err = c.RunningJobs(t.Context(), pool, []string{"3"}, 0, 100); err != nil || len(got) != 4 {
		t.Errorf("%d running jobs, %v; want 4", len(got), err)
	}
}

// plan gives what EXPLAIN (ANALYZE, FORMAT JSON) says of a statement with its own parameters.
type explain struct {
	pool *pgxpool.Pool
	t    *testing.T
	read float64 // rows that all scans of river_job read
	seq  bool
}

func (e *explain) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	e.t.Helper()
	tx, err := e.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = off`); err != nil {
		return nil, err
	}
	var out []struct {
		Plan map[string]any `json:"Plan"`
	}
	if err := tx.QueryRow(ctx, `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...).Scan(&out); err != nil {
		return nil, err
	}
	e.walk(out[0].Plan)
	return e.pool.Query(ctx, sql, args...) //nolint:sqlclosecheck // whoever asked closes them
}

func (e *explain) walk(node map[string]any) {
	if node["Relation Name"] == "river_job" {
		rows, _ := node["Actual Rows"].(float64)
		removed, _ := node["Rows Removed by Filter"].(float64)
		loops, _ := node["Actual Loops"].(float64)
		e.read += (rows + removed) * loops
		e.seq = e.seq || node["Node Type"] == "Seq Scan"
	}
	plans, _ := node["Plans"].([]any)
	for _, p := range plans {
		if child, ok := p.(map[string]any); ok {
			e.walk(child)
		}
	}
}

func TestLanesWithWork(t *testing.T) {
	pool := pgtest.New(t)
	c := newTestClient(t, pool, nil)
	const future = 50_000
	// later: a deep backlog of the first priority that is all for later. mixed: the same with one job of another priority
	// for now. The others: one job each in a state that is no work.
	exec(t, pool, `
		INSERT INTO river_job (args, kind, max_attempts, priority, queue, state, scheduled_at, finalized_at)
		SELECT '{}'::jsonb, 'send', 25, 1, lane, 'available'::river_job_state, now() + interval '1 hour', NULL::timestamptz FROM unnest('{lane-later,lane-mixed}'::text[]) lane, generate_series(1, $1::integer)
		UNION ALL SELECT '{}', 'send', 25, 3, 'lane-mixed', 'available', now(), NULL
		UNION ALL SELECT '{}', 'send', 25, 4, 'lane-last', 'available', now(), NULL
		UNION ALL SELECT '{}', 'send', 25, 1, 'lane-' || s, s::river_job_state, now(), CASE WHEN s IN ('completed', 'cancelled', 'discarded') THEN now() END
		FROM unnest('{running,scheduled,retryable,pending,completed,cancelled,discarded}'::text[]) s`, future)
	exec(t, pool, `ANALYZE river_job`)
	lanes := []string{"later", "mixed", "last", "running", "scheduled", "retryable", "pending", "completed", "cancelled", "discarded", "unknown"}
	e := &explain{pool: pool, t: t}
	got, err := c.LanesWithWork(t.Context(), e, lanes)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"mixed": true, "last": true}; !maps.Equal(got, want) {
		t.Errorf("lanes with work %v, want %v", got, want)
	}
	if e.seq || e.read > float64(4*len(lanes)) {
		t.Errorf("%v rows of river_job were read, sequentially: %v; want at most one a lane and priority", e.read, e.seq)
	}
	if got, err := c.LanesWithWork(t.Context(), pool, nil); err != nil || len(got) != 0 {
		t.Errorf("of no lanes: %v, %v", got, err)
	}
	e = &explain{pool: pool, t: t}
	if _, err := c.RunningJobs(t.Context(), e, []string{"later", "mixed", "unknown"}, 0, 10); err != nil {
		t.Fatal(err)
	}
	if e.seq || e.read > 0 {
		t.Errorf("RunningJobs read %v rows of lanes without running jobs, sequentially: %v", e.read, e.seq)
	}
}
