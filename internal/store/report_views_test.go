package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/pgtest"
	"wagate/migrations"
)

func mustExec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// asJSON gives a query's rows as decoded JSON objects.
func asJSON(t *testing.T, pool *pgxpool.Pool, sql string) []map[string]any {
	t.Helper()
	var all []map[string]any
	text := scalar[string](t, pool, `SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]')::text FROM (`+sql+`) x`)
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// handMade are messages in every state, all made on one day but for the last.
func handMade(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	const at = "'2026-03-01 10:30Z'"
	for _, m := range []map[string]string{
		{"status": "'queued'"},
		{"status": "'sending'"},
		{"status": "'unknown'", "unknown_at": at},
		{"status": "'accepted'", "accepted_at": at},
		{"status": "'sent'", "accepted_at": at, "sent_at": at},
		{"status": "'sent'", "sent_at": at}, // settled by a webhook: nobody saw the answer
		{"status": "'delivered'", "delivered_at": at, "accepted_at": at, "pricing_billable": "true", "pricing_category": "'utility'", "pricing_type": "'regular'", "pricing_model": "'PMP'"},
		{"status": "'read'", "read_at": at, "pricing_billable": "false", "pricing_category": "'utility'", "pricing_type": "'regular'", "pricing_model": "'PMP'"},
		{"status": "'played'", "played_at": at},
		{"status": "'failed'", "failed_at": at, "failed_by_meta": "true", "wamid": "'w'", "error_code": "131026", "error_title": "'Message undeliverable'"},
		{"status": "'failed'", "failed_at": at, "error_code": "132001", "error_title": "'Template does not exist'"},
		{"status": "'failed'", "failed_at": at, "error_code": "132001", "error_title": "'Template does not exist'"},
		{"status": "'expired'"}, {"status": "'cancelled'"},
		{"status": "'read'", "created_at": "'2026-03-01 23:30Z'", "template_name": "'other'", "tags": "NULL"},
	} {
		for name, value := range map[string]string{"created_at": at, "template_name": "'shipped'", "category": "'utility'", "tags": `'{"campaign":"spring"}'`} {
			if _, given := m[name]; !given {
				m[name] = value
			}
		}
		putMessage(t, pool, m)
	}
}

func TestDeliveryCountsAreCumulative(t *testing.T) {
	pool := pgtest.New(t)
	handMade(t, pool)
	want := map[string]any{
		"waba_id": "100", "phone_number_id": "200", "template": "shipped", "category": "utility", "campaign": "spring",
		"total": 14.0, "accepted": 7.0, "sent": 5.0, "delivered": 3.0, "read": 2.0,
		"failed": 3.0, "expired": 1.0, "cancelled": 1.0, "unknown": 1.0, "waiting": 2.0,
		"sent_rate": 0.7143, "delivered_rate": 0.4286, "read_rate": 0.6667, "suppressed": 0.0,
	}
	for view, bucket := range map[string][2]string{"delivery_daily": {"day", "2026-03-01"}, "delivery_hourly": {"hour", "2026-03-01T10:00:00+00:00"}} {
		want[bucket[0]] = bucket[1]
		got := asJSON(t, pool, `SELECT * FROM report.`+view+` WHERE template = 'shipped'`)
		if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s:\n%v\nnot\n%v", view, got, want)
		}
		delete(want, bucket[0])
	}
	other := asJSON(t, pool, `SELECT total, read, campaign, day FROM report.delivery_daily WHERE template = 'other'`)
	if want := map[string]any{"total": 1.0, "read": 1.0, "campaign": nil, "day": "2026-03-01"}; len(other) != 1 || !reflect.DeepEqual(other[0], want) {
		t.Errorf("%v", other)
	}
	errs := asJSON(t, pool, `SELECT error_code, failed_by, messages FROM report.errors_daily ORDER BY 1`)
	if got, want := fmt.Sprint(errs), "[map[error_code:131026 failed_by:meta messages:1] map[error_code:132001 failed_by:gateway messages:2]]"; got != want {
		t.Error(got)
	}
	cost := asJSON(t, pool, `SELECT pricing_category, messages, billable FROM report.cost_daily`)
	if got, want := fmt.Sprint(cost), "[map[billable:1 messages:2 pricing_category:utility]]"; got != want {
		t.Error(got)
	}
}

func TestReportSettings(t *testing.T) {
	pool := pgtest.New(t, pgtest.MaxConns(1)) // one connection, so that SET lasts
	handMade(t, pool)
	days := func() string {
		return fmt.Sprint(asJSON(t, pool, `SELECT day, total FROM report.delivery_daily ORDER BY 1, 2`))
	}
	if got := days(); got != "[map[day:2026-03-01 total:1] map[day:2026-03-01 total:14]]" {
		t.Error(got)
	}
	mustExec(t, pool, `SET report.timezone = 'Europe/Rome'`)
	if got := days(); got != "[map[day:2026-03-01 total:14] map[day:2026-03-02 total:1]]" {
		t.Error(got)
	}
	mustExec(t, pool, `SET report.timezone = ''`)
	// The hand-made rows are older than their ids, so only an upper bound of ids below today empties the view.
	mustExec(t, pool, `SET report.since = '2026-03-01 12:00Z'`)
	if got := days(); got != "[map[day:2026-03-01 total:1]]" {
		t.Error(got)
	}
	mustExec(t, pool, `SET report.since = ''`)
	mustExec(t, pool, `SELECT set_config('report.since', (now() + interval '2 days')::text, false)`)
	plan := strings.Join(scalarList(t, pool, `EXPLAIN (COSTS OFF) SELECT * FROM report.delivery_daily`), "\n")
	if !strings.Contains(plan, "Subplans Removed: 3") {
		t.Errorf("yesterday, today and tomorrow are not pruned:\n%s", plan)
	}
}

func TestRecipientsAreMaskedAndHashed(t *testing.T) {
	pool := pgtest.New(t)
	for _, to := range []string{"+16505551234", "1 (650) 555-1234", "+16505551235", "US.13491208655302741918", "12345"} {
		putMessage(t, pool, map[string]string{"reference": "'" + to + "'"})
		mustExec(t, pool, `UPDATE messages SET recipient = $1 WHERE reference = $1`, to)
	}
	masked := scalarList(t, pool, `SELECT recipient_masked FROM report.messages ORDER BY id`)
	if got, want := strings.Join(masked, " "), "16*******34 16*******34 16*******35 ***18 *****"; got != want {
		t.Error(got)
	}
	hashes := scalarList(t, pool, `SELECT recipient_hash FROM report.messages ORDER BY id`)
	if hashes[0] != hashes[1] || hashes[0] == hashes[2] || len(hashes[0]) != 64 {
		t.Error(hashes)
	}
	if plain := scalar[string](t, pool, `SELECT encode(sha256('16505551234'), 'hex')`); plain == hashes[0] {
		t.Error("the hash has no key")
	}
	// pgtest clones its databases from one, key and all: this one is migrated by itself.
	other := pgtest.NewUnmigrated(t)
	if _, err := migrations.Up(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	putMessage(t, other, nil)
	if again := scalar[string](t, other, `SELECT recipient_hash FROM report.messages`); again == hashes[0] {
		t.Error("two databases share a key")
	}
}

func TestLatencyAndBacklog(t *testing.T) {
	pool := pgtest.New(t)
	for i := range 100 {
		putMessage(t, pool, map[string]string{"status": "'delivered'", "created_at": "'2026-03-01 10:00Z'", "send_at": "'2026-03-01 10:01Z'",
			"accepted_at":  fmt.Sprintf("timestamptz '2026-03-01 10:01Z' + %d * interval '1 second'", i+1),
			"sent_at":      fmt.Sprintf("timestamptz '2026-03-01 10:01Z' + %d * interval '1 second' - interval '0.5 second'", i+1),
			"delivered_at": fmt.Sprintf("timestamptz '2026-03-01 10:01Z' + %d * interval '1 second' + interval '1.5 second'", i+1)})
	}
	got := asJSON(t, pool, `SELECT messages, queue_p50, queue_p95, send_p99, deliver_p50 FROM report.latency_hourly`)
	if want := "[map[deliver_p50:2 messages:100 queue_p50:49.5 queue_p95:94.7 send_p99:0]]"; fmt.Sprint(got) != want {
		t.Errorf("%v", got)
	}

	mustExec(t, pool, `INSERT INTO wabas (waba_id, messages_per_hour) VALUES ('100', 3600), ('101', NULL)`)
	mustExec(t, pool, `INSERT INTO phone_numbers (phone_number_id, waba_id, messages_per_second) VALUES
		('200', '100', 80), ('201', '100', 0.5), ('202', '101', 10), ('203', '101', NULL)`)
	mustExec(t, pool, `INSERT INTO river_job (state, kind, queue, priority, args, max_attempts, created_at, scheduled_at, finalized_at)
		SELECT x.state::river_job_state, 'send', x.queue, x.priority, '{}', 9, '2026-03-01Z', now() + x.later, x.finalized
		FROM (VALUES ('available', 'lane-200', 1, '0'::interval, NULL::timestamptz), ('running', 'lane-200', 3, '0', NULL), ('scheduled', 'lane-200', 4, '1 hour', NULL),
			('completed', 'lane-200', 1, '0', now()), ('retryable', 'lane-201', 2, '1 hour', NULL), ('available', 'lane-202', 3, '0', NULL),
			('available', 'lane-999', 3, '0', NULL), ('available', 'default', 3, '0', NULL), ('available', 'lane-203', 3, '0', NULL)) x(state, queue, priority, later, finalized)`)
	lanes := asJSON(t, pool, `SELECT lane, waba_id AS waba, waiting AS n, running AS r, later AS l, urgent AS u, high AS h, normal AS m, low AS o, drain_seconds AS s,
		oldest IS NOT NULL AS old FROM report.backlog ORDER BY lane`)
	want := []string{
		"map[h:0 l:1 lane:200 m:1 n:3 o:1 old:true r:1 s:4 u:1 waba:100]", // four wait in a WABA of one a second
		"map[h:1 l:1 lane:201 m:0 n:1 o:0 old:true r:0 s:4 u:0 waba:100]",
		"map[h:0 l:0 lane:202 m:1 n:1 o:0 old:true r:0 s:0.1 u:0 waba:101]",
		"map[h:0 l:0 lane:203 m:1 n:1 o:0 old:true r:0 s:<nil> u:0 waba:101]",
		"map[h:0 l:0 lane:999 m:1 n:1 o:0 old:true r:0 s:<nil> u:0 waba:<nil>]",
	}
	for i, w := range want {
		if i >= len(lanes) || fmt.Sprint(lanes[i]) != w {
			t.Errorf("%v, want %s", lanes, w)
		}
	}
}

func TestTheReportRoleReadsTheViewsAndNothingElse(t *testing.T) {
	pool := pgtest.New(t, pgtest.MaxConns(1))
	handMade(t, pool)
	views := scalarList(t, pool, `SELECT viewname::text FROM pg_views WHERE schemaname = 'report' ORDER BY 1`)
	if got := strings.Join(views, " "); got != "backlog cost_daily delivery_daily delivery_hourly errors_daily latency_hourly messages" {
		t.Errorf("views: %s", got)
	}
	bare := scalarList(t, pool, `SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
		WHERE c.relnamespace = 'report'::regnamespace AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)`)
	if len(bare) != 0 {
		t.Errorf("without a comment: %v", bare)
	}
	others := scalarList(t, pool, `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'report') AND n.nspname NOT LIKE 'pg_toast%'`)
	if len(others) < 20 {
		t.Fatalf("only %v", others)
	}
	// Nothing is granted but to select the views, to this role or to everybody; and the role is no other's member, and can do
	// nothing of its own.
	const granted = `SELECT coalesce(string_agg(x, ' ' ORDER BY x), '') FROM (`
	for what, sql := range map[string]string{
		"tables": `SELECT c.oid::regclass::text || ':' || p AS x FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
			unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
			WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_table_privilege('wagate_report', c.oid, p)
			AND NOT (n.nspname = 'report' AND c.relkind = 'v' AND p = 'SELECT')`,
		"columns": `SELECT c.oid::regclass::text AS x FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'report') AND n.nspname NOT LIKE 'pg_toast%'
			AND has_any_column_privilege('wagate_report', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')`,
		"sequences": `SELECT c.oid::regclass::text AS x FROM pg_class c WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('wagate_report', c.oid, 'USAGE, SELECT, UPDATE') END`,
		"schemas":   `SELECT n.nspname AS x FROM pg_namespace n WHERE has_schema_privilege('wagate_report', n.oid, 'CREATE')`,
		"powers": `SELECT rolname AS x FROM pg_roles WHERE rolname = 'wagate_report' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication OR rolbypassrls)
			UNION ALL SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = 'wagate_report'::regrole`,
	} {
		if got := scalar[string](t, pool, granted+sql+`) g`); got != "" {
			t.Errorf("%s: wagate_report may use %s", what, got)
		}
	}
	// Of the functions that run with their owner's rights, it says how far the roll-ups go.
	if got := scalar[string](t, pool, `SELECT string_agg(p.oid::regprocedure::text, ' ') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')`); got != "report.rolled_until()" {
		t.Errorf("with their owner's rights run %s", got)
	}
	mustExec(t, pool, `SET ROLE wagate_report`)
	for _, view := range views {
		mustExec(t, pool, `SELECT * FROM report.`+view)
		for _, sql := range []string{`DELETE FROM report.` + view, `INSERT INTO report.` + view + ` DEFAULT VALUES`, `CREATE TABLE report.` + view + `_mine ()`} {
			if _, err := pool.Exec(t.Context(), sql); !refused(err) {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	mustExec(t, pool, `SELECT report.rolled_until(), report.id_at(now()), report.timezone()`)
	for _, table := range others {
		if _, err := pool.Exec(t.Context(), `SELECT * FROM `+table+` LIMIT 1`); !refused(err) {
			t.Errorf("%s: %v", table, err)
		}
	}
	for _, sql := range []string{
		`SELECT wagate_rollups_from('2020-01-01Z')`, `SELECT wagate_ensure_partitions(30)`, `SELECT * FROM wagate_stranded(wagate_uuid_floor('2020-01-01Z'), wagate_uuid_floor('2030-01-01Z'), '0', 10)`,
		`SELECT pg_read_file('postgresql.conf')`, `SELECT pg_read_binary_file('PG_VERSION')`, `SELECT pg_ls_dir('.')`, `SELECT pg_stat_file('PG_VERSION')`,
		`COPY (SELECT 1) TO '/tmp/wagate-report'`, `COPY (SELECT 1) TO PROGRAM 'true'`, `SELECT lo_import('/etc/passwd')`, `CREATE SCHEMA mine`, `CREATE ROLE mine`,
		`TRUNCATE messages`, `UPDATE messages SET status = 'failed'`, `ALTER VIEW report.messages OWNER TO wagate_report`, `DROP VIEW report.messages`,
		`ALTER SYSTEM SET jit = off`, `SELECT rolpassword FROM pg_authid`,
	} {
		if _, err := pool.Exec(t.Context(), sql); !refused(err) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// refused says whether the database denied it, or the view cannot be written at all.
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "42501" || pg.Code == "55000")
}

// What the page of the views says of each is what the database says.
func TestThePageOfTheViewsSaysWhatTheirCommentsSay(t *testing.T) {
	pool := pgtest.New(t)
	raw, err := os.ReadFile("../../docs/reference/report-views.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	views := scalarList(t, pool, `SELECT viewname::text FROM pg_views WHERE schemaname = 'report' ORDER BY 1`)
	for _, view := range views {
		_, section, ok := strings.Cut(page, "\n## report."+view+"\n\n")
		if !ok {
			t.Errorf("there is no report.%s", view)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		want := scalar[string](t, pool, `SELECT obj_description('report.`+view+`'::regclass) || E'\n\n| column | meaning |\n|---|---|\n'
			|| string_agg('| `+"`' || attname || '`"+` | ' || col_description(attrelid, attnum) || ' |', E'\n' ORDER BY attnum)
			FROM pg_attribute WHERE attrelid = 'report.`+view+`'::regclass AND attnum > 0`)
		if got := strings.TrimSpace(section); got != want {
			t.Errorf("report.%s:\n%s\nthe database says\n%s", view, got, want)
		}
	}
}
