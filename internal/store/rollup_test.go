package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/pgtest"
)

// rawSQL counts what the views count, from the messages alone, in words of its own.
var rawSQL = map[string]string{
	"delivery_daily":  rawDelivery("(m.created_at AT TIME ZONE report.timezone())::date"),
	"delivery_hourly": rawDelivery("date_trunc('hour', m.created_at, report.timezone())"),
	"errors_daily": `SELECT (m.created_at AT TIME ZONE report.timezone())::date, m.waba_id, m.phone_number_id, m.template_name, m.error_code, m.error_title,
		m.error_scope, CASE WHEN m.failed_by_meta THEN 'meta' ELSE 'gateway' END, count(*)
		FROM messages m WHERE m.status = 'failed' AND m.created_at >= report.since() AND m.created_at < report.until() GROUP BY 1, 2, 3, 4, 5, 6, 7, 8`,
	"cost_daily": `SELECT (m.created_at AT TIME ZONE report.timezone())::date, m.waba_id, m.phone_number_id, m.tags->>'campaign', m.pricing_category,
		m.pricing_type, m.pricing_model, count(*), count(*) FILTER (WHERE m.pricing_billable)
		FROM messages m WHERE (m.pricing_billable IS NOT NULL OR m.pricing_category IS NOT NULL) AND m.created_at >= report.since() AND m.created_at < report.until()
		GROUP BY 1, 2, 3, 4, 5, 6, 7`,
}

func rawDelivery(bucket string) string {
	return `SELECT ` + bucket + `, m.waba_id, m.phone_number_id, m.template_name, m.category, m.tags->>'campaign', count(*),
		count(*) FILTER (WHERE f.is_accepted), count(*) FILTER (WHERE f.is_sent), count(*) FILTER (WHERE f.is_delivered), count(*) FILTER (WHERE f.is_read),
		count(*) FILTER (WHERE m.status = 'failed'), count(*) FILTER (WHERE m.status = 'expired'), count(*) FILTER (WHERE m.status = 'cancelled'),
		count(*) FILTER (WHERE m.status = 'unknown'), count(*) FILTER (WHERE m.status IN ('queued', 'sending')),
		round(count(*) FILTER (WHERE f.is_sent)::numeric / nullif(count(*) FILTER (WHERE f.is_accepted), 0), 4),
		round(count(*) FILTER (WHERE f.is_delivered)::numeric / nullif(count(*) FILTER (WHERE f.is_accepted), 0), 4),
		round(count(*) FILTER (WHERE f.is_read)::numeric / nullif(count(*) FILTER (WHERE f.is_delivered), 0), 4),
		count(*) FILTER (WHERE m.status = 'failed' AND m.error_code = 900000002)
		FROM messages m JOIN report_facts f ON f.id = m.id GROUP BY 1, 2, 3, 4, 5, 6`
}

// differences lists rows that only one of two queries gives.
func differences(t *testing.T, tx pgx.Tx, a, b string) []string {
	t.Helper()
	rows, err := tx.Query(t.Context(), `SELECT CASE WHEN sum(n) > 0 THEN '+' ELSE '-' END || x
		FROM (SELECT x::text AS x, 1 AS n FROM (`+a+`) x UNION ALL SELECT x::text, -1 FROM (`+b+`) x) u GROUP BY x HAVING sum(n) <> 0 ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// allBounds is how many wantExact knows.
const allBounds = 8

// wantExact compares every report with the messages, in time zones with whole, half and three-quarter hours, and between
// bounds on days, on quarter hours and on neither; all of them, or the first ones.
func wantExact(t *testing.T, pool *pgxpool.Pool, when string, bounded int) {
	t.Helper()
	tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	today := time.Now().UTC().Truncate(24 * time.Hour)
	at := func(d time.Duration) string { return today.Add(d).Format(time.RFC3339Nano) }
	const day = 24 * time.Hour
	for i, bounds := range [][2]string{
		{"", ""}, {at(-2*day + 77*time.Minute + time.Microsecond), at(-day + 31*time.Minute)},
		{at(-2 * day), at(-1 * day)}, {at(-2*day + 75*time.Minute), at(-day + 30*time.Minute)}, {at(-2*day + 2*time.Minute), at(-2*day + 7*time.Minute)},
		{at(-2*day + 10*time.Minute), at(-2*day + 20*time.Minute)}, {at(-2*day - 3*time.Minute), ""}, {"", at(-day - 3*time.Minute)},
	}[:bounded] {
		for _, zone := range []string{"", []string{"Asia/Kolkata", "Asia/Kathmandu", "America/New_York"}[i%3]} {
			if _, err := tx.Exec(t.Context(), `SELECT set_config('report.since', $1, true), set_config('report.until', $2, true), set_config('report.timezone', $3, true)`,
				bounds[0], bounds[1], zone); err != nil {
				t.Fatal(err)
			}
			for view, raw := range rawSQL {
				sql := `SELECT * FROM report.` + view
				if view == "errors_daily" { // without last_failed_at, which no failure that was none takes back
					sql = `SELECT day, waba_id, phone_number_id, template, error_code, error_title, error_scope, failed_by, messages FROM report.errors_daily`
				}
				if d := differences(t, tx, sql, raw); len(d) > 0 {
					t.Errorf("%s: report.%s, since %q until %q in %q differs from the messages (+ the view):\n%s", when, view, bounds[0], bounds[1], zone, strings.Join(d[:min(len(d), 6)], "\n"))
				}
			}
			if d := differences(t, tx, `SELECT * FROM report.latency_hourly`, rawLatency); len(d) > 0 {
				t.Errorf("%s: report.latency_hourly, since %q until %q in %q differs from the messages (+ the view):\n%s", when, bounds[0], bounds[1], zone, strings.Join(d[:min(len(d), 6)], "\n"))
			}
		}
	}
}

// Of exact latencies, and only the percentile is put into a cell: the cell of the percentile is the percentile of the cells.
const rawLatency = `
	SELECT date_trunc('hour', m.created_at, report.timezone()), m.waba_id, m.phone_number_id, count(*),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.5) WITHIN GROUP (ORDER BY m.accepted_at - greatest(m.created_at, m.send_at)))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.95) WITHIN GROUP (ORDER BY m.accepted_at - greatest(m.created_at, m.send_at)))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.99) WITHIN GROUP (ORDER BY m.accepted_at - greatest(m.created_at, m.send_at)))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.5) WITHIN GROUP (ORDER BY m.sent_at - m.accepted_at))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.95) WITHIN GROUP (ORDER BY m.sent_at - m.accepted_at))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.99) WITHIN GROUP (ORDER BY m.sent_at - m.accepted_at))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.5) WITHIN GROUP (ORDER BY m.delivered_at - m.sent_at))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.95) WITHIN GROUP (ORDER BY m.delivered_at - m.sent_at))),
		wagate_cell_seconds(wagate_cell(percentile_disc(0.99) WITHIN GROUP (ORDER BY m.delivered_at - m.sent_at)))
	FROM messages m WHERE m.accepted_at IS NOT NULL AND m.created_at >= report.since() AND m.created_at < report.until() GROUP BY 1, 2, 3`

// scatter puts messages in that were made at any time of the last days, in every state.
func scatter(t *testing.T, pool *pgxpool.Pool, rnd *rand.Rand, n, days int) {
	t.Helper()
	now := time.Now()
	for d := range days + 1 {
		mustExec(t, pool, `SELECT wagate_ensure_partitions(0, $1::date)`, now.AddDate(0, 0, -d))
	}
	rows := make([][]any, n)
	for i := range rows {
		created := now.Add(-time.Duration(rnd.Int64N(int64(days) * int64(24*time.Hour)))).Truncate(time.Microsecond)
		phone := []string{"200", "201", "202"}[rnd.IntN(3)]
		row := []any{message.NewID(created), phone, "10" + phone[2:], "+16505551234", "template", 3, "queued", created}
		rows[i] = append(row, []any{"shipped", "otp", nil}[rnd.IntN(3)], []any{"utility", "marketing", nil}[rnd.IntN(3)],
			[]any{`{"campaign":"spring"}`, `{"other":"x"}`, nil}[rnd.IntN(3)])
	}
	if _, err := pool.CopyFrom(t.Context(), pgx.Identifier{"messages"}, []string{"id", "phone_number_id", "waba_id", "recipient", "type", "priority", "status", "created_at",
		"template_name", "category", "tags"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	stir(t, pool, 0.9)
}

// stir changes a share of the messages, in every way in which they change.
func stir(t *testing.T, q interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, share float64) {
	t.Helper()
	for _, sql := range []string{
		`UPDATE messages SET status = 'accepted', accepted_at = created_at + random() * interval '90 seconds', wamid = 'w' WHERE status = 'queued' AND random() < $1::double precision`,
		`UPDATE messages SET status = 'sent', sent_at = date_trunc('second', accepted_at + random() * interval '5 seconds') WHERE status = 'accepted' AND random() < $1::double precision`,
		`UPDATE messages SET status = 'delivered', delivered_at = sent_at + floor(random() * 9000) * interval '1 second', pricing_billable = random() < 0.5,
			pricing_category = 'utility', pricing_type = 'regular', pricing_model = 'PMP' WHERE status = 'sent' AND random() < $1::double precision`,
		`UPDATE messages SET status = 'read', read_at = delivered_at + interval '1 minute' WHERE status = 'delivered' AND random() < $1::double precision / 2`,
		`UPDATE messages SET status = 'failed', failed_by_meta = true, failed_at = created_at + interval '1 minute', error_code = 131026, error_title = 'Undeliverable'
			WHERE status IN ('accepted', 'sent') AND random() < $1::double precision / 3`,
		`UPDATE messages SET status = 'failed', failed_at = created_at + interval '1 minute', error_scope = 'recipient', error_code = 900000002 WHERE status = 'queued' AND random() < $1::double precision / 5`,
		`UPDATE messages SET status = (ARRAY['expired', 'cancelled', 'unknown', 'sending'])[floor(random() * 4) + 1] WHERE status = 'queued' AND random() < $1::double precision / 3`,
		// A new try after a failed webhook, another WABA, a failure that was none, and what no report counts.
		`UPDATE messages SET status = 'queued', failed_by_meta = false, wamid = NULL, accepted_at = NULL, sent_at = NULL, failed_at = NULL WHERE status = 'failed' AND random() < $1::double precision / 9`,
		`UPDATE messages SET waba_id = '999' WHERE random() < $1::double precision / 20`,
		`UPDATE messages SET status = 'delivered', delivered_at = failed_at WHERE status = 'failed' AND failed_by_meta AND random() < $1::double precision / 9`,
		`UPDATE messages SET body = NULL, recipient = '' WHERE random() < $1::double precision / 2`,
	} {
		if _, err := q.Exec(t.Context(), sql, share); err != nil {
			t.Fatal(err)
		}
	}
}

func rollUp(t *testing.T, st *Store) RolledUp {
	t.Helper()
	done, err := st.RollUp(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestReportsEqualTheMessagesWhateverIsRolledUp(t *testing.T) {
	pool := pgtest.New(t)
	st := New(pool)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2)) //nolint:gosec // no secret
	scatter(t, pool, rnd, 1500, 3)
	wantExact(t, pool, "nothing rolled up", 2)

	done := rollUp(t, st)
	old := scalar[int64](t, pool, `SELECT count(*) FROM messages m, report_state s WHERE m.created_at < s.rolled_until`)
	if done.Messages != old || old < 1300 || time.Since(done.Until) > 81*time.Minute {
		t.Errorf("%+v, there are %d messages to roll up", done, old)
	}
	wantExact(t, pool, "rolled up", allBounds)
	if d := scalar[int](t, pool, `SELECT count(*) FROM (SELECT day, waba_id, phone_number_id, template, error_code, error_scope, failed_by, last_failed_at FROM report.errors_daily EXCEPT
		SELECT (created_at AT TIME ZONE 'UTC')::date, waba_id, phone_number_id, template_name, error_code, error_scope, CASE WHEN failed_by_meta THEN 'meta' ELSE 'gateway' END, max(failed_at)
		FROM messages WHERE status = 'failed' GROUP BY 1, 2, 3, 4, 5, 6, 7) x`); d != 0 {
		t.Errorf("%d rows of report.errors_daily have another last_failed_at", d)
	}
	if again := rollUp(t, st); again.Messages != 0 || again.Changes != 0 {
		t.Errorf("the second run found something to do: %+v", again)
	}

	stir(t, pool, 0.2)
	if n := scalar[int](t, pool, `SELECT count(*) FROM report_changes`); n < 100 {
		t.Errorf("%d changes are logged", n)
	}
	wantExact(t, pool, "changed afterwards", allBounds)
	scatter(t, pool, rnd, 300, 3)
	wantExact(t, pool, "put in late", 2)

	// A change that is not committed while others are moved into the roll-ups.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stir(t, tx, 0.2)
	if done := rollUp(t, st); done.Changes < 100 {
		t.Errorf("%+v", done)
	}
	wantExact(t, pool, "beside an open transaction", 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantExact(t, pool, "after its commit", 2)
	rollUp(t, st)
	if n := scalar[int](t, pool, `SELECT count(*) FROM report_changes c, report_state s WHERE c.bucket < s.rolled_until`); n != 0 {
		t.Errorf("%d changes are left", n)
	}
	wantExact(t, pool, "added", 2)

	// Made anew for the newest days; the trigger is switched off for what happens meanwhile.
	mustExec(t, pool, `ALTER TABLE messages DISABLE TRIGGER USER`)
	stir(t, pool, 0.2)
	mustExec(t, pool, `ALTER TABLE messages ENABLE TRIGGER USER`)
	if from := scalar[time.Time](t, pool, `SELECT wagate_rollups_from('2020-01-01Z')`); from.After(time.Now().AddDate(0, 0, -2)) || from.Before(time.Now().AddDate(0, 0, -4)) {
		t.Errorf("made anew from %s on", from)
	}
	wantExact(t, pool, "thrown away", 1)
	stir(t, pool, 0.1)
	wantExact(t, pool, "thrown away and changed", 2)
	rollUp(t, st)
	wantExact(t, pool, "made anew", 2)
}

// A transaction that may have taken a message for young must have ended before its quarter hour is counted.
func TestRollingUpWaitsForOlderTransactions(t *testing.T) {
	pool := pgtest.New(t)
	st := New(pool)
	scatter(t, pool, rand.New(rand.NewPCG(1, 2)), 50, 1)           //nolint:gosec // no secret
	mustExec(t, pool, `ALTER TABLE messages DISABLE TRIGGER USER`) // to the writer all messages are young
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE messages SET status = 'read', read_at = now()`); err != nil {
		t.Fatal(err)
	}
	if done := rollUp(t, st); !done.Waits || done.Messages != 0 {
		t.Errorf("beside the writer: %+v", done)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := rollUp(t, st); done.Waits || done.Messages < 40 {
		t.Errorf("after the writer: %+v", done)
	}
	wantExact(t, pool, "after the writer", 1)
	// A dump that is restored on a server which has not come so far with its numbers.
	mustExec(t, pool, `UPDATE report_state SET rolled_until = rolled_until - interval '15 minutes', closing_xid = '9000000000'`)
	if done := rollUp(t, st); done.Waits {
		t.Errorf("after a restore: %+v", done)
	}
}

func TestOneRollerAtATime(t *testing.T) {
	pool := pgtest.New(t)
	st := New(pool)
	scatter(t, pool, rand.New(rand.NewPCG(1, 2)), 50, 1) //nolint:gosec // no secret
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM report_state FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	mustExec(t, pool, `SELECT 1`)
	if step, err := st.rollQuarters(t.Context(), 1); err != nil || !step.elsewhere {
		t.Errorf("%+v, %v", step, err)
	}
	if _, elsewhere, err := st.foldChanges(t.Context()); err != nil || !elsewhere {
		t.Errorf("elsewhere is %v, %v", elsewhere, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if done := rollUp(t, st); done.Elsewhere || done.Messages == 0 {
		t.Errorf("%+v", done)
	}
}

func TestRollupsOutliveTheirMessages(t *testing.T) {
	pool := pgtest.New(t)
	st := New(pool)
	scatter(t, pool, rand.New(rand.NewPCG(3, 4)), 400, 3) //nolint:gosec // no secret
	mustExec(t, pool, `UPDATE messages SET status = 'delivered' WHERE status IN ('queued', 'sending', 'unknown')`)
	views := []string{"delivery_daily", "delivery_hourly", "errors_daily", "cost_daily", "latency_hourly"}
	before := map[string][]map[string]any{}
	for _, v := range views {
		before[v] = asJSON(t, pool, `SELECT * FROM report.`+v+` x ORDER BY x::text`)
	}
	// Nobody has rolled anything up: what is to go is rolled up first.
	dropped, err := st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	if len(dropped.Partitions) < 3 || len(dropped.Busy)+len(dropped.Kept) > 0 {
		t.Errorf("%+v", dropped)
	}
	for _, v := range views {
		if got := asJSON(t, pool, `SELECT * FROM report.`+v+` x ORDER BY x::text`); len(got) < 3 || !reflect.DeepEqual(got, before[v]) {
			t.Errorf("report.%s has changed by retention: %d rows of %d", v, len(got), len(before[v]))
		}
	}
	// What is thrown away to be made anew is only what can be.
	if from := scalar[time.Time](t, pool, `SELECT wagate_rollups_from('2020-01-01Z')`); !from.Equal(time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)) {
		t.Errorf("made anew from %s on", from)
	}
	if got := asJSON(t, pool, `SELECT * FROM report.delivery_daily x ORDER BY x::text`); !reflect.DeepEqual(got, before["delivery_daily"]) {
		t.Error("report.delivery_daily has lost what its messages are gone of")
	}
	n, err := st.ForgetRollups(t.Context(), time.Now().AddDate(0, 0, 1))
	if err != nil || n < 100 {
		t.Errorf("%d rows were forgotten, %v", n, err)
	}
	if left := scalar[int](t, pool, `SELECT (SELECT count(*) FROM report_delivery) + (SELECT count(*) FROM report_errors) + (SELECT count(*) FROM report_cost)
		+ (SELECT count(*) FROM report_latency) + (SELECT count(*) FROM report_latency_hours)`); left != 0 {
		t.Errorf("%d rows are left", left)
	}
}

// A retention run does not drop a day that could not be rolled up.
func TestRetentionWaitsForTheRollups(t *testing.T) {
	pool := pgtest.New(t)
	st := New(pool)
	scatter(t, pool, rand.New(rand.NewPCG(3, 4)), 100, 3) //nolint:gosec // no secret
	mustExec(t, pool, `UPDATE messages SET status = 'delivered'`)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	dropped, err := st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -1))
	if err != nil || len(dropped.Busy) < 2 || scalar[int](t, pool, `SELECT count(*) FROM messages`) != 100 {
		t.Errorf("%+v, %v", dropped, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dropped, err = st.DropBefore(t.Context(), time.Now().AddDate(0, 0, -1)); err != nil || len(dropped.Busy) > 0 || len(dropped.Partitions) < 2 {
		t.Errorf("%+v, %v", dropped, err)
	}
}

func TestLatencyCells(t *testing.T) {
	pool := pgtest.New(t)
	worst := scalar[float64](t, pool, `SELECT max(abs(wagate_cell_seconds(wagate_cell(x * interval '1 second')) / x - 1))
		FROM (SELECT 0.001 * 1.0007 ^ n AS x FROM generate_series(0, 26000) n) xs`)
	if worst > 0.03 || worst < 0.02 {
		t.Errorf("the worst error is %.4f", worst)
	}
	for sql, want := range map[string]string{
		`SELECT wagate_cell(interval '-5 seconds')::text`:                                                  "0",
		`SELECT coalesce(wagate_cell(NULL)::text, 'null')`:                                                 "null",
		`SELECT wagate_cell_seconds(0)::text`:                                                              "0",
		`SELECT wagate_cell_seconds(wagate_cell(interval '2 seconds'))::text`:                              "2",
		`SELECT wagate_cell(interval '400000 days') < 1000`:                                                "true",
		`SELECT coalesce(wagate_percentiles('{}', '{}')::text, 'null')`:                                    "null",
		`SELECT wagate_percentiles(ARRAY[0, 160, 320]::smallint[], '{50,45,5}')::text`:                     "{0,1,1026}",
		`SELECT wagate_percentiles(ARRAY[0]::smallint[], '{1}')::text`:                                     "{0,0,0}",
		`SELECT (wagate_percentiles(ARRAY[160, 161]::smallint[], '{94,6}'))[2] > wagate_cell_seconds(160)`: "true",
	} {
		if got := fmt.Sprint(scalar[any](t, pool, sql)); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}
