package store

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/pgtest"
)

// What waits for a dead endpoint is not gone through for the sake of another, nor again for each event of its own, even while
// the planner believes that nothing waits.
func TestPlansOfCallbacksSkipWhatWaits(t *testing.T) {
	pool := pgtest.New(t)
	endpoint := uuid.New()
	_, err := pool.Exec(t.Context(), `
		WITH e AS (INSERT INTO callback_endpoints (endpoint_id, kind, url, owner, format) VALUES ($1::uuid, 'url', 'http://a', 'o', 'wagate'))
		INSERT INTO callback_events (event_id, endpoint_id, chain, kind, at)
		SELECT gen_random_uuid(), $1::uuid, gen_random_uuid(), 'message.status', now() FROM generate_series(1, 20000)`, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, sql string
		args      []any
		waiting   int // scans of the index of what waits
	}{
		{"due", dueCallbacksSQL, []any{endpoint, 500, false}, 1},
		{"delivered", deliveredCallbacksSQL, []any{[]int64{1, 2, 3}}, 0},
		{"failed", failedCallbacksSQL, []any{endpoint, int64(1), []int64{1}, []string{"refused"}, []float64{5}, []bool{false}}, 0},
	} {
		rows, err := pool.Query(t.Context(), "EXPLAIN "+c.sql, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		if n := strings.Count(plan, "callback_events_waiting") + strings.Count(plan, "callback_events_expire"); n != c.waiting {
			t.Errorf("%s goes %d times through what waits, want %d:\n%s", c.name, n, c.waiting, plan)
		}
		if strings.Contains(plan, "Seq Scan on callback_events") {
			t.Errorf("%s reads all events:\n%s", c.name, plan)
		}
	}
}
