package store

// The source of rollSQL: the messages of some quarter hours. What was logged of them is counted with them.
const rollSQL = `
	WITH gone AS (
		DELETE FROM report_changes WHERE bucket >= $1::timestamptz AND bucket < $2::timestamptz
	), f AS MATERIALIZED (
		SELECT r.weight, r.bucket, r.waba_id, r.phone_number_id, r.template, r.category, r.campaign, r.status, r.reached, r.error_code, r.error_title,
		       r.error_scope, r.failed_by_meta, r.failed_at, r.pricing_billable, r.pricing_category, r.pricing_type, r.pricing_model,
		       r.queue_cell, r.send_cell, r.deliver_cell
		FROM report_rows r
		WHERE r.id >= wagate_uuid_floor($1::timestamptz - interval '1 minute') AND r.id < wagate_uuid_floor($2::timestamptz + interval '1 minute')
		  AND r.created_at >= $1::timestamptz AND r.created_at < $2::timestamptz
	)` + addToRollups + `
	SELECT count(*) FROM f`

// The source of foldSQL: logged changes of what is rolled up. It gives the hours and lanes whose percentiles change.
const foldSQL = `
	WITH f AS (
		DELETE FROM report_changes c USING (
			SELECT id FROM report_changes WHERE bucket < $1::timestamptz ORDER BY id LIMIT $2::integer
		) old WHERE c.id = old.id
		RETURNING c.weight, c.bucket, c.waba_id, c.phone_number_id, c.template, c.category, c.campaign, c.status, c.reached, c.error_code, c.error_title,
		          c.error_scope, c.failed_by_meta, c.failed_at, c.pricing_billable, c.pricing_category, c.pricing_type, c.pricing_model,
		          c.queue_cell, c.send_cell, c.deliver_cell
	)` + addToRollups + `, hours AS (
		SELECT DISTINCT c.bucket - s.n * interval '15 minutes' AS hour, c.waba_id, c.phone_number_id
		FROM cells c CROSS JOIN generate_series(0, 3) AS s(n) WHERE c.span = 15
	)
	SELECT (SELECT count(*) FROM f), h.hours, h.wabas, h.phones
	FROM (SELECT array_agg(hour) AS hours, array_agg(waba_id) AS wabas, array_agg(phone_number_id) AS phones FROM hours) h`

// addToRollups adds the rows of f, each by its weight, to every roll-up: to its quarter hour, its hour and its day.
const addToRollups = `, spans(span, width) AS (
		VALUES (15::smallint, interval '15 minutes'), (60::smallint, interval '1 hour'), (1440::smallint, interval '1 day')
	), delivery AS (
		INSERT INTO report_delivery AS r (span, bucket, key, waba_id, phone_number_id, template, category, campaign,
			total, accepted, sent, delivered, read, failed, expired, cancelled, unknown, waiting, suppressed)
		SELECT g.span, g.bucket, wagate_rollup_key(g.waba_id, g.phone_number_id, g.template, g.category, g.campaign),
		       g.waba_id, g.phone_number_id, g.template, g.category, g.campaign,
		       g.total, g.accepted, g.sent, g.delivered, g.read, g.failed, g.expired, g.cancelled, g.unknown, g.waiting, g.suppressed
		FROM (
			SELECT s.span, date_bin(s.width, q.bucket, '2000-01-01Z') AS bucket, q.waba_id, q.phone_number_id, q.template, q.category, q.campaign,
			       sum(q.total) AS total, sum(q.accepted) AS accepted, sum(q.sent) AS sent, sum(q.delivered) AS delivered, sum(q.read) AS read,
			       sum(q.failed) AS failed, sum(q.expired) AS expired, sum(q.cancelled) AS cancelled, sum(q.unknown) AS unknown,
			       sum(q.waiting) AS waiting, sum(q.suppressed) AS suppressed
			FROM (
				SELECT f.bucket, f.waba_id, f.phone_number_id, f.template, f.category, f.campaign, sum(f.weight)::integer AS total,
				       coalesce(sum(f.weight) FILTER (WHERE f.reached >= 1), 0)::integer AS accepted, coalesce(sum(f.weight) FILTER (WHERE f.reached >= 2), 0)::integer AS sent,
				       coalesce(sum(f.weight) FILTER (WHERE f.reached >= 3), 0)::integer AS delivered, coalesce(sum(f.weight) FILTER (WHERE f.reached >= 4), 0)::integer AS read,
				       coalesce(sum(f.weight) FILTER (WHERE f.status = 'failed'), 0)::integer AS failed,
				       coalesce(sum(f.weight) FILTER (WHERE f.status = 'expired'), 0)::integer AS expired,
				       coalesce(sum(f.weight) FILTER (WHERE f.status = 'cancelled'), 0)::integer AS cancelled,
				       coalesce(sum(f.weight) FILTER (WHERE f.status = 'unknown'), 0)::integer AS unknown,
				       coalesce(sum(f.weight) FILTER (WHERE f.status IN ('queued', 'sending')), 0)::integer AS waiting,
				       coalesce(sum(f.weight) FILTER (WHERE f.status = 'failed' AND f.error_code = 900000002), 0)::integer AS suppressed
				FROM f GROUP BY 1, 2, 3, 4, 5, 6
			) q CROSS JOIN spans s GROUP BY 1, 2, 3, 4, 5, 6, 7
		) g
		WHERE ROW(g.total, g.accepted, g.sent, g.delivered, g.read, g.failed, g.expired, g.cancelled, g.unknown, g.waiting, g.suppressed) <> ROW(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		ON CONFLICT (span, bucket, key) DO UPDATE SET
			total = r.total + excluded.total, accepted = r.accepted + excluded.accepted, sent = r.sent + excluded.sent,
			delivered = r.delivered + excluded.delivered, read = r.read + excluded.read, failed = r.failed + excluded.failed,
			expired = r.expired + excluded.expired, cancelled = r.cancelled + excluded.cancelled, unknown = r.unknown + excluded.unknown,
			waiting = r.waiting + excluded.waiting, suppressed = r.suppressed + excluded.suppressed
	), errors AS (
		INSERT INTO report_errors AS r (span, bucket, key, waba_id, phone_number_id, template, error_code, error_title, error_scope, failed_by_meta,
			messages, last_failed_at)
		SELECT g.span, g.bucket, wagate_rollup_key(g.waba_id, g.phone_number_id, g.template, g.error_code::text, g.error_title, g.error_scope, g.failed_by_meta::text),
		       g.waba_id, g.phone_number_id, g.template, g.error_code, g.error_title, g.error_scope, g.failed_by_meta, g.messages, g.last_failed_at
		FROM (
			SELECT s.span, date_bin(s.width, f.bucket, '2000-01-01Z') AS bucket, f.waba_id, f.phone_number_id, f.template, f.error_code, f.error_title,
			       f.error_scope, f.failed_by_meta, sum(f.weight) AS messages, max(f.failed_at) FILTER (WHERE f.weight > 0) AS last_failed_at
			FROM f CROSS JOIN spans s WHERE f.status = 'failed' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
		) g
		ON CONFLICT (span, bucket, key) DO UPDATE SET
			messages = r.messages + excluded.messages, last_failed_at = greatest(r.last_failed_at, excluded.last_failed_at)
	), cost AS (
		INSERT INTO report_cost AS r (span, bucket, key, waba_id, phone_number_id, campaign, pricing_category, pricing_type, pricing_model, messages, billable)
		SELECT g.span, g.bucket, wagate_rollup_key(g.waba_id, g.phone_number_id, g.campaign, g.pricing_category, g.pricing_type, g.pricing_model),
		       g.waba_id, g.phone_number_id, g.campaign, g.pricing_category, g.pricing_type, g.pricing_model, g.messages, g.billable
		FROM (
			SELECT s.span, date_bin(s.width, f.bucket, '2000-01-01Z') AS bucket, f.waba_id, f.phone_number_id, f.campaign, f.pricing_category,
			       f.pricing_type, f.pricing_model, sum(f.weight) AS messages, coalesce(sum(f.weight) FILTER (WHERE f.pricing_billable), 0) AS billable
			FROM f CROSS JOIN spans s WHERE f.pricing_billable IS NOT NULL OR f.pricing_category IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
		) g
		WHERE ROW(g.messages, g.billable) <> ROW(0, 0)
		ON CONFLICT (span, bucket, key) DO UPDATE SET messages = r.messages + excluded.messages, billable = r.billable + excluded.billable
	), cells AS (
		SELECT s.span, date_bin(s.width, f.bucket, '2000-01-01Z') AS bucket, f.waba_id, f.phone_number_id, k.kind, k.cell, sum(f.weight) AS n
		FROM f CROSS JOIN spans s
		CROSS JOIN LATERAL (VALUES (1::smallint, f.queue_cell), (2::smallint, f.send_cell), (3::smallint, f.deliver_cell)) AS k(kind, cell)
		WHERE k.cell IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(f.weight) <> 0
	), latency AS (
		INSERT INTO report_latency (span, bucket, waba_id, phone_number_id, kind, cells, counts)
		SELECT g.span, g.bucket, g.waba_id, g.phone_number_id, g.kind,
		       coalesce(array_agg(g.cell ORDER BY g.cell) FILTER (WHERE g.n <> 0), '{}'), coalesce(array_agg(g.n ORDER BY g.cell) FILTER (WHERE g.n <> 0), '{}')
		FROM (
			SELECT u.span, u.bucket, u.waba_id, u.phone_number_id, u.kind, u.cell, sum(u.n)::integer AS n
			FROM (
				SELECT c.span, c.bucket, c.waba_id, c.phone_number_id, c.kind, c.cell, c.n FROM cells c
				UNION ALL
				SELECT r.span, r.bucket, r.waba_id, r.phone_number_id, r.kind, old.cell, old.n
				FROM (SELECT DISTINCT span, bucket, waba_id, phone_number_id, kind FROM cells) c
				JOIN report_latency r ON r.span = c.span AND r.bucket = c.bucket AND r.phone_number_id = c.phone_number_id AND r.waba_id = c.waba_id AND r.kind = c.kind
				CROSS JOIN LATERAL unnest(r.cells, r.counts) AS old(cell, n)
			) u GROUP BY 1, 2, 3, 4, 5, 6
		) g GROUP BY 1, 2, 3, 4, 5
		ON CONFLICT (span, bucket, phone_number_id, waba_id, kind) DO UPDATE SET cells = excluded.cells, counts = excluded.counts
	)`

// windowsUntilSQL picks the hours that end after the first and not after the second moment, for every lane that has latencies in
// them.
const windowsUntilSQL = `
	WITH w AS (
		SELECT DISTINCT r.bucket - s.n * interval '15 minutes' AS hour, r.waba_id, r.phone_number_id
		FROM report_latency r CROSS JOIN generate_series(0, 3) AS s(n)
		WHERE r.span = 15 AND r.bucket > $1::timestamptz - interval '1 hour' AND r.bucket < $2::timestamptz
		  AND r.bucket - s.n * interval '15 minutes' > $1::timestamptz - interval '1 hour'
		  AND r.bucket - s.n * interval '15 minutes' <= $2::timestamptz - interval '1 hour'
	)`

// windowsGivenSQL picks hours and lanes that are given; those that are not rolled up whole come later.
const windowsGivenSQL = `
	WITH w AS (
		SELECT g.hour, g.waba_id, g.phone_number_id FROM unnest($1::timestamptz[], $2::text[], $3::text[]) AS g(hour, waba_id, phone_number_id)
		WHERE g.hour <= $4::timestamptz - interval '1 hour'
	)`

var forgetSQL = []string{
	`DELETE FROM report_delivery r USING (SELECT span, bucket, key FROM report_delivery WHERE bucket < $1::timestamptz LIMIT $2::integer) old
	 WHERE r.span = old.span AND r.bucket = old.bucket AND r.key = old.key`,
	`DELETE FROM report_errors r USING (SELECT span, bucket, key FROM report_errors WHERE bucket < $1::timestamptz LIMIT $2::integer) old
	 WHERE r.span = old.span AND r.bucket = old.bucket AND r.key = old.key`,
	`DELETE FROM report_cost r USING (SELECT span, bucket, key FROM report_cost WHERE bucket < $1::timestamptz LIMIT $2::integer) old
	 WHERE r.span = old.span AND r.bucket = old.bucket AND r.key = old.key`,
	`DELETE FROM report_latency r USING (SELECT span, bucket, phone_number_id, waba_id, kind FROM report_latency WHERE bucket < $1::timestamptz LIMIT $2::integer) old
	 WHERE r.span = old.span AND r.bucket = old.bucket AND r.phone_number_id = old.phone_number_id AND r.waba_id = old.waba_id AND r.kind = old.kind`,
	`DELETE FROM report_latency_hours r USING (SELECT hour, phone_number_id, waba_id FROM report_latency_hours WHERE hour < $1::timestamptz LIMIT $2::integer) old
	 WHERE r.hour = old.hour AND r.phone_number_id = old.phone_number_id AND r.waba_id = old.waba_id`,
}
