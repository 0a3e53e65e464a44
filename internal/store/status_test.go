package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

var base = time.Now().UTC().Truncate(time.Second)

// putMessage makes a message; extra sets further columns, as name → SQL.
func putMessage(t *testing.T, pool *pgxpool.Pool, extra map[string]string) uuid.UUID {
	t.Helper()
	id := message.NewID(time.Now())
	columns, values := "id, phone_number_id, waba_id, type, priority", "$1, '200', '100', 'text', 3"
	if extra["recipient"] == "" {
		columns, values = columns+", recipient", values+", '+16505551234'"
	}
	for name, value := range extra {
		columns, values = columns+", "+name, values+", "+value
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO messages ("+columns+") VALUES ("+values+")", id); err != nil {
		t.Fatal(err)
	}
	return id
}

func token(id uuid.UUID, try int, word string, after time.Duration) Status {
	s := Status{EventID: message.NewID(time.Now()), MessageID: id, Try: try, WAMID: "wamid." + id.String(), Status: word, At: base.Add(after)}
	if word == "failed" {
		s.Errors = []StatusError{{Code: 131026, Title: "Message undeliverable", Details: "as it is"}}
	}
	return s
}

func apply(t *testing.T, pool *pgxpool.Pool, set ...Status) Applied {
	t.Helper()
	s := New(pool)
	var applied Applied
	err := s.InTx(t.Context(), func(tx pgx.Tx) error {
		var err error
		applied, err = s.ApplyStatuses(t.Context(), tx, set, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// row gives the message as JSON, without what tells messages apart.
func row(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) string {
	t.Helper()
	return scalar[string](t, pool, `
		SELECT jsonb_pretty(jsonb_strip_nulls(to_jsonb(m) - 'id' - 'created_at' - 'wamid')) FROM messages m WHERE id = $1`, id)
}

func scalar[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func permutations(words []string) [][]string {
	if len(words) <= 1 {
		return [][]string{slices.Clone(words)}
	}
	var all [][]string
	for i, w := range words {
		rest := slices.Delete(slices.Clone(words), i, i+1)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{w}, p...))
		}
	}
	return all
}

func TestStatusesInAnyOrderAndTwiceGiveTheSameRow(t *testing.T) {
	pool := pgtest.New(t)
	after := map[string]time.Duration{"sent": time.Second, "delivered": 2 * time.Second, "read": 3 * time.Second, "failed": 4 * time.Second}
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"sent", "delivered", "read", "failed"}, "read"},
		{[]string{"sent", "delivered", "failed"}, "delivered"},
		{[]string{"sent", "failed"}, "failed"},
		{[]string{"sent", "read"}, "read"},
	} {
		want := ""
		for _, order := range permutations(c.words) {
			for _, together := range []bool{true, false} {
				id := putMessage(t, pool, map[string]string{"status": "'sending'", "try": "1", "slot_at": "now()"})
				var set []Status
				for _, word := range append(slices.Clone(order), order...) {
					set = append(set, token(id, 1, word, after[word]))
				}
				if together {
					apply(t, pool, set...)
				} else {
					for _, st := range set {
						apply(t, pool, st)
					}
				}
				got := row(t, pool, id)
				if want == "" {
					want = got
					if !strings.Contains(got, fmt.Sprintf(`"status": %q`, c.want)) || strings.Contains(got, "slot_at") {
						t.Fatalf("%v gives %s", order, got)
					}
					if strings.Contains(got, `"error_code": 131026`) != (c.want == "failed") {
						t.Fatalf("%v: error of a %s message: %s", order, c.want, got)
					}
				}
				if got != want {
					t.Fatalf("%v (together: %v) gives\n%s\nnot\n%s", order, together, got, want)
				}
				events := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = $1`, id)
				if events != 2*len(order) {
					t.Fatalf("%d events for %d statuses", events, 2*len(order))
				}
			}
		}
	}
}

func TestReadWithoutDeliveredLeavesDeliveredAtEmpty(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1", "accepted_at": "now()"})
	apply(t, pool, token(id, 1, "read", time.Second))
	if got := scalar[bool](t, pool, `SELECT status = 'read' AND delivered_at IS NULL AND read_at = $2 FROM messages WHERE id = $1`, id, base.Add(time.Second)); !got {
		t.Fatal(row(t, pool, id))
	}
}

func TestWhatAStatusSettles(t *testing.T) {
	pool := pgtest.New(t)
	unknown := map[string]string{"status": "'unknown'", "try": "1", "slot_at": "now()", "unknown_at": "now()", "unknown_reason": "'cut'",
		"settle_by": "now()", "error_code": "131000"}
	for _, c := range []struct {
		name  string
		row   map[string]string
		apply func(uuid.UUID) Status
		want  string // a condition on the row
	}{
		{"unknown by sent", unknown, func(id uuid.UUID) Status { return token(id, 1, "sent", 0) },
			`status = 'sent' AND settle_by IS NULL AND slot_at IS NULL AND unknown_at IS NOT NULL AND error_code IS NULL AND wamid = 'wamid.' || id`},
		{"unknown by failed", unknown, func(id uuid.UUID) Status { return token(id, 1, "failed", 0) },
			`status = 'failed' AND failed_by_meta AND settle_by IS NULL AND error_code = 131026 AND error_title = 'Message undeliverable' AND failed_at IS NOT NULL`},
		{"queued, the status was faster", map[string]string{"try": "1"}, func(id uuid.UUID) Status { return token(id, 1, "delivered", 0) },
			`status = 'delivered' AND wamid IS NOT NULL`},
		{"own failure by sent", map[string]string{"status": "'failed'", "try": "1", "error_code": "131026"},
			func(id uuid.UUID) Status { return token(id, 1, "sent", 0) }, `status = 'sent' AND error_code IS NULL AND NOT failed_by_meta`},
		{"own failure by Meta's", map[string]string{"status": "'failed'", "try": "1", "error_code": "1"},
			func(id uuid.UUID) Status { return token(id, 1, "failed", 0) }, `status = 'failed' AND error_code = 131026 AND failed_by_meta`},
		{"cancelled by sent", map[string]string{"status": "'cancelled'", "try": "1"},
			func(id uuid.UUID) Status { return token(id, 1, "sent", 0) }, `status = 'sent'`},
		{"older try proves nothing of the open one", map[string]string{"status": "'sending'", "try": "2", "slot_at": "now()"},
			func(id uuid.UUID) Status { return token(id, 1, "sent", 0) }, `status = 'sent' AND slot_at IS NOT NULL`},
		{"failure of an older try", map[string]string{"status": "'accepted'", "try": "2", "wamid": "'wamid.two'"},
			func(id uuid.UUID) Status { return token(id, 1, "failed", 0) }, `status = 'accepted' AND failed_at IS NULL AND error_code IS NULL`},
		{"a word not known", map[string]string{"status": "'sent'", "try": "1"},
			func(id uuid.UUID) Status { return token(id, 1, "warning", 0) }, `status = 'sent'`},
	} {
		id := putMessage(t, pool, c.row)
		st := c.apply(id)
		apply(t, pool, st)
		if !scalar[bool](t, pool, `SELECT coalesce(`+c.want+`, false) FROM messages WHERE id = $1`, id) {
			t.Errorf("%s: %s", c.name, row(t, pool, id))
		}
		if n := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = $1 AND kind = 'status.' || $2::text AND try = $3`, id, st.Status, st.Try); n != 1 {
			t.Errorf("%s: %d events", c.name, n)
		}
	}
}

func TestASecondWAMIDIsADuplicate(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "2", "wamid": "'wamid.second'"})
	if _, err := pool.Exec(t.Context(), `INSERT INTO wamids VALUES ('wamid.second', $1)`, id); err != nil {
		t.Fatal(err)
	}
	older := token(id, 1, "sent", 0)
	if got := apply(t, pool, older, older); got.Duplicates != 1 {
		t.Errorf("first time: %+v", got)
	}
	if got := apply(t, pool, older); got.Duplicates != 0 {
		t.Errorf("again: %+v", got)
	}
	newer := token(id, 2, "delivered", 0)
	newer.WAMID = "wamid.second"
	if got := apply(t, pool, newer); got.Duplicates != 0 {
		t.Errorf("its own wamid: %+v", got)
	}
	events := scalar[int](t, pool, `SELECT count(*) FROM message_events WHERE message_id = $1 AND kind = 'duplicate_detected' AND wamid = $2`, id, older.WAMID)
	wamids := scalar[int](t, pool, `SELECT count(*) FROM wamids WHERE message_id = $1`, id)
	if events != 1 || wamids != 2 || scalar[string](t, pool, `SELECT wamid FROM messages WHERE id = $1`, id) != "wamid.second" {
		t.Errorf("%d events, %d wamids, %s", events, wamids, row(t, pool, id))
	}
}

func TestStatusesFindTheirMessageByWAMIDOrNot(t *testing.T) {
	pool := pgtest.New(t)
	id := putMessage(t, pool, map[string]string{"status": "'accepted'", "try": "1", "wamid": "'wamid.known'"})
	if _, err := pool.Exec(t.Context(), `INSERT INTO wamids VALUES ('wamid.known', $1)`, id); err != nil {
		t.Fatal(err)
	}
	billable := true
	got := apply(t, pool,
		token(message.NewID(time.Now()), 1, "sent", 0), // a message that is not ours
		Status{EventID: message.NewID(time.Now()), WAMID: "wamid.known", Status: "delivered", At: base,
			Pricing: &StatusPricing{Billable: &billable, Model: "PMP", Type: "regular", Category: "utility"}},
		Status{EventID: message.NewID(time.Now()), WAMID: "wamid.stranger", Status: "sent", At: base})
	if got.Messages != 1 || !slices.Equal(got.Unmatched, []int{0, 2}) {
		t.Errorf("%+v", got)
	}
	if !scalar[bool](t, pool, `SELECT status = 'delivered' AND pricing_billable AND pricing_category = 'utility' AND pricing_type = 'regular'
		AND pricing_model = 'PMP' FROM messages WHERE id = $1`, id) {
		t.Error(row(t, pool, id))
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM message_events`); n != 1 {
		t.Errorf("%d events", n)
	}
	if n := scalar[int](t, pool, `SELECT count(*) FROM wamids`); n != 1 {
		t.Errorf("%d wamids", n)
	}
}

// The SQL function and message.Rank are one table.
func TestRankInSQLAndGoAgree(t *testing.T) {
	pool := pgtest.New(t)
	for _, s := range message.Statuses {
		if got := scalar[int](t, pool, `SELECT wagate_status_rank($1, true)`, string(s)); got != s.Rank() {
			t.Errorf("%s: %d in SQL, %d in Go", s, got, s.Rank())
		}
	}
}

// A statement that was planned while the partitions were empty keeps its plan when they are full.
func TestPlansMadeOnEmptyPartitionsUseTheKeys(t *testing.T) {
	pool := pgtest.New(t)
	ctx := t.Context()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`SET plan_cache_mode = force_generic_plan`)
	run := func(check func(context.Context, pgx.Tx) error) {
		t.Helper()
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if err := planByIndex(ctx, tx); err != nil {
				return err
			}
			return check(ctx, tx)
		}); err != nil {
			t.Fatal(err)
		}
	}
	nulls := func(n int) string { return strings.Repeat(", NULL", n) }
	statements := map[string]string{
		"lock":   `EXECUTE lock_it($1, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')`,
		"update": `EXECUTE update_it($1, array_fill('sent'::text, ARRAY[500]), array_fill(false, ARRAY[500])` + nulls(16) + `, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', false)`,
		"finish": `EXECUTE finish_it($1, NULL, NULL, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')`,
		"take":   `EXECUTE take_it(100)`,
	}
	list := "'{" + message.NewID(time.Now()).String() + "}'"
	explain := func(name, how string) string {
		t.Helper()
		var lines []string
		run(func(ctx context.Context, tx pgx.Tx) error {
			rows, err := tx.Query(ctx, "EXPLAIN "+how+" "+strings.ReplaceAll(statements[name], "$1", list), pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				return err
			}
			lines, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
		return strings.Join(lines, "\n")
	}
	exec(`PREPARE lock_it AS ` + lockForStatusSQL)
	exec(`PREPARE update_it AS ` + updateStatusSQL)
	exec(`PREPARE finish_it AS ` + finishRawSQL)
	exec(`PREPARE take_it AS ` + takeRawSQL)
	for name := range statements { // planned here, and kept
		explain(name, "(COSTS OFF)")
	}
	exec(`INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority)
		SELECT (left(wagate_uuid_floor(now() + (n % 8) * interval '1 day')::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, '200', '100', '+16505551234', 'text', 3
		FROM generate_series(1, 200000) n`)
	exec(`INSERT INTO webhook_raw (id, app_id, body, processed_at)
		SELECT (left(wagate_uuid_floor(now() + (n % 8) * interval '1 day')::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 'app', 'x', now()
		FROM generate_series(1, 100000) n`)
	list = "'{" + strings.Join(scalarList(t, pool, `SELECT id::text FROM messages ORDER BY hashtext(id::text) LIMIT 500`), ",") + "}'"
	for name := range statements {
		plan := explain(name, "(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)")
		if strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Nested Loop") || !strings.Contains(plan, "Index") {
			t.Errorf("%s:\n%s", name, plan)
		}
		if name == "lock" && !strings.Contains(plan, "LockRows") {
			t.Errorf("rows are not locked last:\n%s", plan)
		}
		if name == "take" && strings.Contains(plan, "_pkey") { // the index of what waits is named _id_idx
			t.Errorf("what waits is looked for among what is done:\n%s", plan)
		}
	}
}

func scalarList(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
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
