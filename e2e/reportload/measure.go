package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"wagate/internal/message"
	"wagate/internal/store"
)

// analyst is a connection with the rights of wagate_report and the server's own settings.
type analyst struct{ conn *pgx.Conn }

func newAnalyst(ctx context.Context, dsn string) (*analyst, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting as an analyst: %w", err)
	}
	if _, err := conn.Exec(ctx, `SET ROLE wagate_report`); err != nil {
		return nil, errors.Join(fmt.Errorf("taking the role wagate_report: %w", err), conn.Close(ctx))
	}
	return &analyst{conn}, nil
}

func (a *analyst) close(ctx context.Context) { _ = a.conn.Close(ctx) }

// question is what an analyst asks, after some settings.
type question struct{ what, settings, sql string }

func questions() []question {
	const kolkata, week = `SET report.timezone = 'Asia/Kolkata'`, `SELECT set_config('report.since', (now() - interval '7 days')::text, false)`
	var all []question
	for _, view := range []string{"delivery_daily", "delivery_hourly", "errors_daily", "cost_daily", "latency_hourly", "backlog"} {
		all = append(all, question{"all of report." + view, "", "SELECT * FROM report." + view})
	}
	for _, view := range []string{"delivery_daily", "errors_daily", "cost_daily", "latency_hourly"} {
		all = append(all, question{"report." + view + " in Asia/Kolkata", kolkata, "SELECT * FROM report." + view},
			question{"report." + view + " since 7 days", week, "SELECT * FROM report." + view})
	}
	return append(all,
		question{"report.messages: a day by status", `SELECT set_config('report.since', (date_trunc('day', now()) - interval '2 days')::text, false),
			set_config('report.until', (date_trunc('day', now()) - interval '1 days')::text, false)`, "SELECT status, count(*) FROM report.messages GROUP BY 1"},
		question{"report.messages: a day by id_at", "", `SELECT phone_number_id, count(*) FILTER (WHERE delivered) FROM report.messages
			WHERE id >= report.id_at(date_trunc('day', now()) - interval '2 days') AND id < report.id_at(date_trunc('day', now()) - interval '1 days') GROUP BY 1`},
		question{"report.messages: 1,000 rows of a day", `SELECT set_config('report.since', (date_trunc('day', now()) - interval '2 days')::text, false),
			set_config('report.until', (date_trunc('day', now()) - interval '1 days')::text, false)`, "SELECT * FROM report.messages ORDER BY id LIMIT 1000"})
}

// ask gives how long an answer took, all of it read, and how many rows it had.
func (a *analyst) ask(ctx context.Context, q question) (took time.Duration, n int, err error) {
	if _, err := a.conn.Exec(ctx, `RESET report.since; RESET report.until; RESET report.timezone`); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", q.what, err)
	}
	if q.settings != "" {
		if _, err := a.conn.Exec(ctx, q.settings); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", q.what, err)
		}
	}
	began := time.Now()
	answer := a.conn.PgConn().ExecParams(ctx, q.sql, nil, nil, nil, nil)
	for answer.NextRow() {
		n++
	}
	if _, err := answer.Close(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", q.what, err)
	}
	return time.Since(began), n, nil
}

// timeViews asks everything three times and prints the middle one.
func (a *analyst) timeViews(ctx context.Context, out io.Writer) error {
	for _, q := range questions() {
		var took [3]time.Duration
		rows := 0
		for i := range took {
			var err error
			if took[i], rows, err = a.ask(ctx, q); err != nil {
				return err
			}
		}
		lo, hi := min(took[0], took[1], took[2]), max(took[0], took[1], took[2])
		middle := took[0] + took[1] + took[2] - lo - hi
		fmt.Fprintf(out, "%-45s %8.3f s (the slowest of three %.3f s), %d rows\n", q.what, middle.Seconds(), hi.Seconds(), rows)
	}
	return nil
}

var scanned = regexp.MustCompile(`Scan.* on (messages_p[0-9]{8})\b.*rows=([0-9]+) loops=([1-9][0-9]*)\)`)

// readsNoOldMessages looks at the plans of the reports, run over everything: messages are read of the newest two days at most.
func (a *analyst) readsNoOldMessages(ctx context.Context, out io.Writer) error {
	if _, err := a.conn.Exec(ctx, `RESET report.since; RESET report.until; RESET report.timezone`); err != nil {
		return fmt.Errorf("reading plans: %w", err)
	}
	newest := map[string]bool{}
	for _, day := range []time.Time{time.Now().UTC(), time.Now().UTC().AddDate(0, 0, -1)} {
		newest["messages_p"+day.Format("20060102")] = true
	}
	for _, view := range []string{"delivery_daily", "delivery_hourly", "errors_daily", "cost_daily", "latency_hourly"} {
		rows, err := a.conn.Query(ctx, `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM report.`+view)
		if err != nil {
			return fmt.Errorf("the plan of report.%s: %w", view, err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("the plan of report.%s: %w", view, err)
		}
		read := 0
		for _, line := range plan {
			m := scanned.FindStringSubmatch(line)
			if m == nil || m[2] == "0" {
				continue
			}
			if read++; !newest[m[1]] {
				return fmt.Errorf("report.%s reads old messages: %s", view, line)
			}
		}
		if read == 0 {
			return fmt.Errorf("report.%s reads no messages at all: the newest are not in the roll-ups", view)
		}
	}
	_, err := fmt.Fprintln(out, "the reports read the roll-ups, and messages of the newest hours only")
	return err
}

// exact is a report, and the same counted from the messages in words of its own.
type exact struct{ view, report, messages string }

const delivered = `m.status IN ('delivered', 'read', 'played') OR m.delivered_at IS NOT NULL OR m.read_at IS NOT NULL OR m.played_at IS NOT NULL`

func exacts() []exact {
	return []exact{
		{"delivery_hourly", `SELECT hour, waba_id, phone_number_id, template, category, campaign, total, accepted, sent, delivered, read, failed, expired, cancelled, unknown, waiting, suppressed
			FROM report.delivery_hourly`,
			`SELECT date_trunc('hour', m.created_at), m.waba_id, m.phone_number_id, m.template_name, m.category, m.tags->>'campaign', count(*),
			count(*) FILTER (WHERE m.wamid IS NOT NULL OR m.accepted_at IS NOT NULL OR m.status = 'accepted' OR m.failed_by_meta OR m.status = 'sent' OR m.sent_at IS NOT NULL OR ` + delivered + `),
			count(*) FILTER (WHERE m.status = 'sent' OR m.sent_at IS NOT NULL OR ` + delivered + `), count(*) FILTER (WHERE ` + delivered + `),
			count(*) FILTER (WHERE m.status IN ('read', 'played') OR m.read_at IS NOT NULL OR m.played_at IS NOT NULL),
			count(*) FILTER (WHERE m.status = 'failed'), count(*) FILTER (WHERE m.status = 'expired'), count(*) FILTER (WHERE m.status = 'cancelled'),
			count(*) FILTER (WHERE m.status = 'unknown'), count(*) FILTER (WHERE m.status IN ('queued', 'sending')),
			count(*) FILTER (WHERE m.status = 'failed' AND m.error_code = 900000002)
			FROM messages m GROUP BY 1, 2, 3, 4, 5, 6`},
		{"delivery_daily", `SELECT day, phone_number_id, sum(total), sum(accepted), sum(sent), sum(delivered), sum(read), sum(failed), sum(suppressed) FROM report.delivery_daily GROUP BY 1, 2`,
			`SELECT hour::date, phone_number_id, sum(total), sum(accepted), sum(sent), sum(delivered), sum(read), sum(failed), sum(suppressed) FROM report.delivery_hourly GROUP BY 1, 2`},
		{"errors_daily", `SELECT day, waba_id, phone_number_id, template, error_code, error_title, error_scope, failed_by, messages, last_failed_at FROM report.errors_daily`,
			`SELECT m.created_at::date, m.waba_id, m.phone_number_id, m.template_name, m.error_code, m.error_title, m.error_scope,
			CASE WHEN m.failed_by_meta THEN 'meta' ELSE 'gateway' END, count(*), max(m.failed_at) FROM messages m WHERE m.status = 'failed' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8`},
		{"cost_daily", `SELECT day, waba_id, phone_number_id, campaign, pricing_category, pricing_type, pricing_model, messages, billable FROM report.cost_daily`,
			`SELECT m.created_at::date, m.waba_id, m.phone_number_id, m.tags->>'campaign', m.pricing_category, m.pricing_type, m.pricing_model, count(*), count(*) FILTER (WHERE m.pricing_billable)
			FROM messages m WHERE m.pricing_billable IS NOT NULL OR m.pricing_category IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7`},
		{"latency_hourly", `SELECT hour, waba_id, phone_number_id, messages FROM report.latency_hourly`,
			`SELECT date_trunc('hour', m.created_at), m.waba_id, m.phone_number_id, count(*) FROM messages m WHERE m.accepted_at IS NOT NULL GROUP BY 1, 2, 3`},
	}
}

// compare says whether the reports count what is in the messages.
func compare(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	for _, e := range exacts() {
		began := time.Now()
		wrong, err := differing(ctx, pool, e)
		if err != nil {
			return err
		}
		if wrong > 0 {
			return fmt.Errorf("report.%s is wrong: %d rows differ from the messages", e.view, wrong)
		}
		fmt.Fprintf(out, "report.%s equals the messages (compared in %s)\n", e.view, time.Since(began).Round(time.Second))
	}
	return nil
}

// differing counts the rows that only one of the two has.
func differing(ctx context.Context, pool *pgxpool.Pool, e exact) (wrong int, err error) {
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('work_mem', '128MB', true), set_config('timezone', 'UTC', true)`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT x FROM (SELECT x::text AS x, 1 AS n FROM (`+e.report+`) x UNION ALL SELECT x::text, -1 FROM (`+e.messages+`) x) u
			GROUP BY x HAVING sum(n) <> 0) d`).Scan(&wrong)
	})
	if err != nil {
		return 0, fmt.Errorf("comparing report.%s: %w", e.view, err)
	}
	return wrong, nil
}

func printSizes(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	rows, err := pool.Query(ctx, `
		SELECT regexp_replace(c.relname, '_(p[0-9]{8}|default)$', ''), sum(pg_total_relation_size(c.oid))::bigint, sum(c.reltuples)::bigint
		FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^(messages|message_events|wamids|report_)' GROUP BY 1
		UNION ALL SELECT 'the database', pg_database_size(current_database()), NULL ORDER BY 2 DESC`)
	if err != nil {
		return fmt.Errorf("reading sizes: %w", err)
	}
	var name string
	var size int64
	var tuples *int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &size, &tuples}, func() error {
		_, err := fmt.Fprintf(out, "%-22s %7.0f MB\n", name, float64(size)/1e6)
		return err
	}); err != nil {
		return fmt.Errorf("reading sizes: %w", err)
	}
	return nil
}

// dropADay drops the oldest day as retention does, while messages are put in and changed, and says how long these waited.
func dropADay(ctx context.Context, st *store.Store, l *load, out io.Writer) error {
	before, err := total(ctx, st.Pool())
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	type outcome struct {
		longest time.Duration
		n       int
		err     error
	}
	done := make(chan outcome, 1)
	writing := make(chan struct{})
	go func() {
		var o outcome
		for {
			select {
			case <-stop:
				done <- o
				return
			default:
			}
			began := time.Now()
			if o.err = l.writeOne(ctx, st.Pool()); o.err != nil {
				done <- o
				return
			}
			o.longest = max(o.longest, time.Since(began))
			if o.n++; o.n == 20 {
				close(writing)
			}
		}
	}()
	select {
	case <-writing:
	case o := <-done:
		return o.err
	}
	began := time.Now()
	dropped, err := st.DropBefore(ctx, l.dayOf(l.opt.days-2))
	took := time.Since(began)
	close(stop)
	o := <-done
	if err := errors.Join(err, o.err); err != nil {
		return err
	}
	if !strings.Contains(strings.Join(dropped.Partitions, " "), "messages_p"+l.dayOf(l.opt.days-1).Format("20060102")) {
		return fmt.Errorf("the oldest day was not dropped: %+v", dropped)
	}
	after, err := total(ctx, st.Pool())
	if err != nil {
		return err
	}
	if after-before != int64(o.n) {
		return fmt.Errorf("the reports counted %d messages before the drop and %d after it, with %d written meanwhile", before, after, o.n)
	}
	fmt.Fprintf(out, "retention: a day dropped in %.3f s; %d messages were written meanwhile, the longest waited %.0f ms; the reports count as before\n", took.Seconds(), o.n, float64(o.longest.Microseconds())/1000)
	return nil
}

func total(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	if err := pool.QueryRow(ctx, `SELECT sum(total)::bigint FROM report.delivery_daily`).Scan(&n); err != nil {
		return 0, fmt.Errorf("reading report.delivery_daily: %w", err)
	}
	return n, nil
}

// writeOne puts a message in and marks a try of it, as an acceptance and a send do.
func (l *load) writeOne(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var tag pgconn.CommandTag
		var id [16]byte
		err := tx.QueryRow(ctx, `INSERT INTO messages (id, phone_number_id, waba_id, recipient, type, priority, status, created_at)
			VALUES ($3::uuid, $1::text, $2::text, '+16505551234', 'text', 3, 'queued', clock_timestamp()) RETURNING id`, l.phones[0].id, l.phones[0].waba, message.NewID(time.Now())).Scan(&id)
		if err == nil {
			tag, err = tx.Exec(ctx, `UPDATE messages SET status = 'sending', try = try + 1 WHERE id = $1::uuid`, id)
		}
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("the message just put in is not there")
		}
		if err != nil {
			return fmt.Errorf("writing a message: %w", err)
		}
		return nil
	})
}
