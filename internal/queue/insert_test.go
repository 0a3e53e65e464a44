package queue

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
)

// The statements of this package name River's columns and states by hand. A version of River that changes them fails
// here: read Complete, GiveBack, RunningJobs and LanesWithWork before these lists are changed. A new column that means
// something for a job must be copied by GiveBack.
func TestOurStatementsKnowRiversSchema(t *testing.T) {
	pool := pgtest.New(t)
	text := func(sql string) []string {
		rows, err := pool.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	columns := []string{
		"args jsonb NOT NULL", "attempt smallint NOT NULL default 0", "attempted_at timestamp with time zone", "attempted_by ARRAY",
		"created_at timestamp with time zone NOT NULL default now()", "errors ARRAY", "finalized_at timestamp with time zone",
		"id bigint NOT NULL default nextval('river_job_id_seq'::regclass)", "kind text NOT NULL", "max_attempts smallint NOT NULL default 25",
		"metadata jsonb NOT NULL default '{}'::jsonb", "priority smallint NOT NULL default 1", "queue text NOT NULL default 'default'::text",
		"scheduled_at timestamp with time zone NOT NULL default now()", "state USER-DEFINED NOT NULL default 'available'::river_job_state",
		"tags ARRAY NOT NULL default '{}'::character varying[]", "unique_key bytea", "unique_states bit",
	}
	got := text(`SELECT column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END || coalesce(' default ' || column_default, '')
		FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = 'river_job' ORDER BY column_name COLLATE "C"`)
	if !slices.Equal(got, columns) {
		t.Errorf("columns of river_job:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(columns, "\n"))
	}
	states := []string{"available", "cancelled", "completed", "discarded", "pending", "retryable", "running", "scheduled"}
	if got := text(`SELECT unnest(enum_range(NULL::river_job_state))::text ORDER BY 1`); !slices.Equal(got, states) {
		t.Errorf("states of a job: %v, want %v", got, states)
	}
	index := "CREATE INDEX river_job_prioritized_fetching_index ON public.river_job USING btree (state, queue, priority, scheduled_at, id)"
	if got := text(`SELECT indexdef FROM pg_indexes WHERE indexname = 'river_job_prioritized_fetching_index'`); !slices.Equal(got, []string{index}) {
		t.Errorf("the index that RunningJobs and LanesWithWork read: %v, want %s", got, index)
	}
	if got := text(`SELECT tgname FROM pg_trigger WHERE tgrelid = 'river_job'::regclass AND NOT tgisinternal`); len(got) != 0 {
		t.Errorf("triggers on river_job: %v", got)
	}
}

func TestLaneNames(t *testing.T) {
	for id, want := range map[string]bool{
		"106540352242922": true, "a1": true, strings.Repeat("1", 59): true,
		"": false, strings.Repeat("1", 60): false, "1-2": false, "1 2": false, "A": false, "é": false, "1_": false,
	} {
		if got := ValidPhoneNumberID(id); got != want {
			t.Errorf("ValidPhoneNumberID(%q) = %v", id, got)
		}
		if got := PhoneNumberID(Lane(id)); got != id {
			t.Errorf("the phone number id of the lane of %q is %q", id, got)
		}
	}
}

func TestInsertPutsJobsIntoTheirLanes(t *testing.T) {
	pool := pgtest.New(t)
	now := time.Now()
	later := now.Add(time.Hour).Truncate(time.Microsecond)
	longest := strings.Repeat("9", 59)
	sends := []Send{
		{MessageID: newID(t), PhoneNumberID: "111", Priority: 1},
		{MessageID: newID(t), PhoneNumberID: "222", Priority: 4},
		{MessageID: newID(t), PhoneNumberID: longest, Priority: 2, At: later},
	}
	insert(t, pool)
	insert(t, pool, sends...)
	got := jobs(t, pool)
	if len(got) != len(sends) {
		t.Fatalf("%d jobs, want %d", len(got), len(sends))
	}
	for i, s := range sends {
		r := got[i]
		state := "available"
		if !s.At.IsZero() {
			state = "scheduled"
			if !r.ScheduledAt.Equal(s.At) {
				t.Errorf("job %d is scheduled at %v, want %v", i, r.ScheduledAt, s.At)
			}
		}
		if r.State != state || r.Queue != "lane-"+s.PhoneNumberID || r.Priority != s.Priority || r.Kind != Kind || r.MaxAttempts != maxAttempts || r.Attempt != 0 {
			t.Errorf("job %d: %+v, want %s in the lane of %+v", i, r, state, s)
		}
		if want := `{"id": "` + s.MessageID.String() + `"}`; string(r.Args) != want {
			t.Errorf("arguments of job %d: %s, want %s", i, r.Args, want)
		}
	}
}

func TestInsertIsUndoneWithItsTransaction(t *testing.T) {
	pool := pgtest.New(t)
	i, err := NewInserter(pool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Insert(t.Context(), tx, []Send{{MessageID: newID(t), PhoneNumberID: "1", Priority: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := jobs(t, pool); len(got) != 0 {
		t.Errorf("%d jobs of a transaction that was rolled back", len(got))
	}
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return i.Insert(t.Context(), tx, []Send{{MessageID: newID(t), PhoneNumberID: "not a lane", Priority: 1}})
	})
	if err == nil {
		t.Error("a phone number id that can name no lane was taken")
	}
}

func TestBacklogCountsWhatWaits(t *testing.T) {
	pool := pgtest.New(t)
	i, err := NewInserter(pool, quiet)
	if err != nil {
		t.Fatal(err)
	}
	insert(t, pool,
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 1, At: time.Now().Add(time.Hour)},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 3},
		Send{MessageID: newID(t), PhoneNumberID: "1", Priority: 2},
		Send{MessageID: newID(t), PhoneNumberID: "2", Priority: 4},
	)
	all := jobs(t, pool)
	claim(t, pool, all[3].ID, "worker-a")
	exec(t, pool, `UPDATE river_job SET state = 'retryable' WHERE id = $1::bigint`, all[2].ID)
	got, err := i.Backlog(t.Context(), pool, "1")
	if want := map[int]int64{1: 2, 2: 1, 3: 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("backlog %v, %v; want %v", got, err, want)
	}
}
