package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ReportDimensions are what each report can be grouped by, in the order of its columns. The backlog is not grouped.
var ReportDimensions = map[string][]string{
	"delivery": {"day", "hour", "waba_id", "phone_number_id", "template", "category", "campaign"},
	"errors":   {"day", "waba_id", "phone_number_id", "template", "error_code", "error_title", "error_scope", "failed_by"},
	"latency":  {"day", "hour", "waba_id", "phone_number_id"},
	"cost":     {"day", "waba_id", "phone_number_id", "campaign", "pricing_category", "pricing_type", "pricing_model"},
	"backlog":  {},
}

// ErrTimezone is returned, wrapped, for a time zone that the database does not know.
var ErrTimezone = errors.New("the time zone is not known")

// ReportQuery asks for a report.
type ReportQuery struct {
	// Report is a key of ReportDimensions.
	Report string
	// Since and Until bound created_at; zero bounds nothing. The backlog is of now.
	Since, Until time.Time
	// Timezone is that of days and hours.
	Timezone string
	// GroupBy holds some of the report's dimensions; none makes one row of all.
	GroupBy []string
	// PhoneNumbers are those that are counted; none counts all.
	PhoneNumbers []string
	// Limit bounds the rows.
	Limit int
}

// ReportTable is a report. A value is nil, a string, an int64, a float64 or a time in UTC.
type ReportTable struct {
	Columns []string
	Rows    [][]any
	// More says that there are more rows than Limit.
	More bool
}

// Report reads a report from the views of schema report, so that its numbers are those which an analyst gets.
func (s *Store) Report(ctx context.Context, q ReportQuery) (ReportTable, error) {
	sql := reportSQL[q.Report]
	if slices.Contains(q.GroupBy, "hour") {
		sql = reportSQL[q.Report+" by hour"]
	}
	if sql == "" {
		return ReportTable{}, fmt.Errorf("report %q: %w", q.Report, ErrNotFound)
	}
	var t ReportTable
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, planReports); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT set_config('report.since', $1::text, true), set_config('report.until', $2::text, true), set_config('report.timezone', $3::text, true)`,
			setting(q.Since), setting(q.Until), q.Timezone)
		if err != nil {
			return err
		}
		args := []any{notNil(q.GroupBy), notNil(q.PhoneNumbers), q.Limit + 1}
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		return t.collect(rows, q)
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "22023" {
		err = ErrTimezone
	}
	if err != nil {
		return ReportTable{}, fmt.Errorf("reading the report %s: %w", q.Report, err)
	}
	return t, nil
}

// collect takes the columns that are asked for: dimensions that the report is not grouped by are null in every row.
func (t *ReportTable) collect(rows pgx.Rows, q ReportQuery) error {
	var take []int
	for i, f := range rows.FieldDescriptions() {
		if q.Report != "backlog" && slices.Contains(ReportDimensions[q.Report], f.Name) && !slices.Contains(q.GroupBy, f.Name) {
			continue
		}
		take = append(take, i)
		t.Columns = append(t.Columns, f.Name)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) ([]any, error) {
		values, err := r.Values()
		if err != nil {
			return nil, err
		}
		row := make([]any, len(take))
		for k, i := range take {
			switch v := values[i].(type) {
			case time.Time:
				row[k] = v.UTC()
			case int32:
				row[k] = int64(v)
			default:
				row[k] = v
			}
		}
		return row, nil
	})
	if err != nil {
		return err
	}
	if t.More = len(all) > q.Limit; t.More {
		all = all[:q.Limit]
	}
	t.Rows = all
	return nil
}

// setting writes a bound as the views' settings want it.
func setting(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Each takes the dimensions to group by ($1), the phone numbers ($2, none for all) and how many rows ($3).
var reportSQL = map[string]string{
	"delivery": `
		SELECT CASE WHEN 'day' = ANY($1::text[]) THEN d.day::text END AS day,` + deliveryByColumns + `report.delivery_daily` + deliveryByTail,
	"delivery by hour": `
		SELECT d.hour,` + deliveryByColumns + `report.delivery_hourly` + deliveryByTail,
	"errors": `
		SELECT CASE WHEN 'day' = ANY($1::text[]) THEN e.day::text END AS day, CASE WHEN 'waba_id' = ANY($1::text[]) THEN e.waba_id END AS waba_id,
		       CASE WHEN 'phone_number_id' = ANY($1::text[]) THEN e.phone_number_id END AS phone_number_id,
		       CASE WHEN 'template' = ANY($1::text[]) THEN e.template END AS template, CASE WHEN 'error_code' = ANY($1::text[]) THEN e.error_code END AS error_code,
		       CASE WHEN 'error_title' = ANY($1::text[]) THEN e.error_title END AS error_title, CASE WHEN 'error_scope' = ANY($1::text[]) THEN e.error_scope END AS error_scope,
		       CASE WHEN 'failed_by' = ANY($1::text[]) THEN e.failed_by END AS failed_by,
		       sum(e.messages)::bigint AS messages, max(e.last_failed_at) AS last_failed_at
		FROM report.errors_daily e WHERE cardinality($2::text[]) = 0 OR e.phone_number_id = ANY($2::text[])
		GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, messages DESC, 2, 3, 4, 5, 6, 7, 8 LIMIT $3::bigint`,
	"latency": `
		SELECT p.day,` + latencyColumns + `
			SELECT s.day,` + latencyPercentiles + `
				SELECT CASE WHEN 'day' = ANY($1::text[]) THEN c.day::text END AS day,` + latencyCells + `report_cells_daily` + latencyTail,
	"latency by hour": `
		SELECT p.hour,` + latencyColumns + `
			SELECT s.hour,` + latencyPercentiles + `
				SELECT c.hour,` + latencyCells + `report_cells_hourly` + latencyTail,
	"cost": `
		SELECT CASE WHEN 'day' = ANY($1::text[]) THEN c.day::text END AS day, CASE WHEN 'waba_id' = ANY($1::text[]) THEN c.waba_id END AS waba_id,
		       CASE WHEN 'phone_number_id' = ANY($1::text[]) THEN c.phone_number_id END AS phone_number_id,
		       CASE WHEN 'campaign' = ANY($1::text[]) THEN c.campaign END AS campaign,
		       CASE WHEN 'pricing_category' = ANY($1::text[]) THEN c.pricing_category END AS pricing_category,
		       CASE WHEN 'pricing_type' = ANY($1::text[]) THEN c.pricing_type END AS pricing_type,
		       CASE WHEN 'pricing_model' = ANY($1::text[]) THEN c.pricing_model END AS pricing_model,
		       sum(c.messages)::bigint AS messages, sum(c.billable)::bigint AS billable
		FROM report.cost_daily c WHERE cardinality($2::text[]) = 0 OR c.phone_number_id = ANY($2::text[])
		GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, messages DESC, 2, 3, 4, 5, 6, 7 LIMIT $3::bigint`,
	"backlog": `
		SELECT b.lane, b.waba_id, b.waiting, b.oldest, b.running, b.later, b.urgent, b.high, b.normal, b.low, b.drain_seconds
		FROM report.backlog b WHERE cardinality($1::text[]) = 0 AND (cardinality($2::text[]) = 0 OR b.lane = ANY($2::text[]))
		ORDER BY b.waiting DESC, b.lane LIMIT $3::bigint`,
}

const (
	deliveryByColumns = `
		       CASE WHEN 'waba_id' = ANY($1::text[]) THEN d.waba_id END AS waba_id, CASE WHEN 'phone_number_id' = ANY($1::text[]) THEN d.phone_number_id END AS phone_number_id,
		       CASE WHEN 'template' = ANY($1::text[]) THEN d.template END AS template, CASE WHEN 'category' = ANY($1::text[]) THEN d.category END AS category,
		       CASE WHEN 'campaign' = ANY($1::text[]) THEN d.campaign END AS campaign,
		       sum(d.total)::bigint AS total, sum(d.accepted)::bigint AS accepted, sum(d.sent)::bigint AS sent, sum(d.delivered)::bigint AS delivered,
		       sum(d.read)::bigint AS read, sum(d.failed)::bigint AS failed, sum(d.expired)::bigint AS expired, sum(d.cancelled)::bigint AS cancelled,
		       sum(d.unknown)::bigint AS unknown, sum(d.waiting)::bigint AS waiting, sum(d.suppressed)::bigint AS suppressed,
		       round(sum(d.sent) / nullif(sum(d.accepted), 0), 4)::double precision AS sent_rate,
		       round(sum(d.delivered) / nullif(sum(d.accepted), 0), 4)::double precision AS delivered_rate,
		       round(sum(d.read) / nullif(sum(d.delivered), 0), 4)::double precision AS read_rate
		FROM `
	deliveryByTail = ` d WHERE cardinality($2::text[]) = 0 OR d.phone_number_id = ANY($2::text[])
		GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, total DESC, 2, 3, 4, 5, 6 LIMIT $3::bigint`

	latencyColumns = ` p.waba_id, p.phone_number_id, max(p.messages) FILTER (WHERE p.kind = 1) AS messages,
		       (max(p.seconds) FILTER (WHERE p.kind = 1))[1] AS queue_p50, (max(p.seconds) FILTER (WHERE p.kind = 1))[2] AS queue_p95, (max(p.seconds) FILTER (WHERE p.kind = 1))[3] AS queue_p99,
		       (max(p.seconds) FILTER (WHERE p.kind = 2))[1] AS send_p50, (max(p.seconds) FILTER (WHERE p.kind = 2))[2] AS send_p95, (max(p.seconds) FILTER (WHERE p.kind = 2))[3] AS send_p99,
		       (max(p.seconds) FILTER (WHERE p.kind = 3))[1] AS deliver_p50, (max(p.seconds) FILTER (WHERE p.kind = 3))[2] AS deliver_p95, (max(p.seconds) FILTER (WHERE p.kind = 3))[3] AS deliver_p99
		FROM (`
	latencyPercentiles = ` s.waba_id, s.phone_number_id, s.kind, sum(s.n)::bigint AS messages,
			       wagate_percentiles(array_agg(s.cell ORDER BY s.cell), array_agg(s.n ORDER BY s.cell)) AS seconds
			FROM (`
	latencyCells = ` CASE WHEN 'waba_id' = ANY($1::text[]) THEN c.waba_id END AS waba_id,
				       CASE WHEN 'phone_number_id' = ANY($1::text[]) THEN c.phone_number_id END AS phone_number_id, c.kind, c.cell, sum(c.n)::bigint AS n
				FROM `
	latencyTail = ` c WHERE cardinality($2::text[]) = 0 OR c.phone_number_id = ANY($2::text[])
				GROUP BY 1, 2, 3, 4, 5
			) s GROUP BY 1, 2, 3, 4
		) p GROUP BY 1, 2, 3 HAVING max(p.messages) FILTER (WHERE p.kind = 1) > 0 ORDER BY 1, 2, 3 LIMIT $3::bigint`
)
