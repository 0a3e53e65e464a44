-- The views analysts may read: schema report, role wagate_report. The views belong to whoever migrates, so their readers
-- need no right on any table. What each column means is in its comment, and in docs/reference/report-views.md.

CREATE TABLE report_settings (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    hash_key bytea NOT NULL
);
COMMENT ON TABLE report_settings IS 'One row. hash_key keys the hash of recipients in report.messages; nobody but the owner reads it.';
-- Each UUIDv4 is 122 random bits from the server's strong source; no extension is needed.
INSERT INTO report_settings (hash_key) SELECT sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea);

CREATE SCHEMA report;
COMMENT ON SCHEMA report IS 'Read-only views over messages for analysts. No content, no whole phone number.';

-- SQL-standard bodies are bound when they are made, so a reader's search_path does not matter.
CREATE FUNCTION report.timezone() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('report.timezone', true), ''), 'UTC');
COMMENT ON FUNCTION report.timezone() IS 'Zone of days and hours: the setting report.timezone, else UTC.';

-- The bounds of report.since and report.until as ids. They are stable, so the partitions outside are dropped when the
-- query starts. A minute of slack covers clocks that differ; created_at decides.
CREATE FUNCTION report.since_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN wagate_uuid_floor(coalesce(nullif(current_setting('report.since', true), '')::timestamptz, '1970-01-02Z'::timestamptz) - interval '1 minute');
CREATE FUNCTION report.until_id() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN wagate_uuid_floor(coalesce(nullif(current_setting('report.until', true), '')::timestamptz, '5000-01-01Z'::timestamptz) + interval '1 minute');
COMMENT ON FUNCTION report.since_id() IS 'Smallest id that report.since lets in.';
COMMENT ON FUNCTION report.until_id() IS 'Smallest id that report.until keeps out.';

-- What is known of each message. Every column of evidence implies the ones before it: read, delivered, sent, accepted.
CREATE VIEW report_facts AS
SELECT m.id, m.phone_number_id, m.waba_id, m.key_id, m.recipient, m.type, m.status, m.priority, m.category, m.template_name, m.template_language,
       m.reference, m.tags, m.tags ->> 'campaign' AS campaign, m.on_unknown, m.resend_of, m.try, m.created_at, m.send_at, m.expires_at,
       m.accepted_at, m.sent_at, m.delivered_at, m.read_at, m.played_at, m.failed_at, m.failed_by_meta, m.unknown_at, m.unknown_reason,
       m.error_code, m.error_subcode, m.error_title, m.error_scope,
       m.pricing_billable, m.pricing_model, m.pricing_type, m.pricing_category,
       e.is_read, e.is_read OR e.is_delivered AS is_delivered, e.is_read OR e.is_delivered OR e.is_sent AS is_sent,
       e.is_read OR e.is_delivered OR e.is_sent OR e.is_accepted AS is_accepted
FROM messages m
CROSS JOIN LATERAL (SELECT
    m.status IN ('read', 'played') OR m.read_at IS NOT NULL OR m.played_at IS NOT NULL AS is_read,
    m.status = 'delivered' OR m.delivered_at IS NOT NULL AS is_delivered,
    m.status = 'sent' OR m.sent_at IS NOT NULL AS is_sent,
    m.status = 'accepted' OR m.accepted_at IS NOT NULL OR m.wamid IS NOT NULL OR m.failed_by_meta AS is_accepted) e
WHERE m.id >= report.since_id() AND m.id < report.until_id()
  AND m.created_at >= coalesce(nullif(current_setting('report.since', true), '')::timestamptz, '-infinity')
  AND m.created_at < coalesce(nullif(current_setting('report.until', true), '')::timestamptz, 'infinity');
COMMENT ON VIEW report_facts IS 'The rows behind the views of schema report; readers of the reports cannot read it.';

CREATE VIEW report.messages AS
SELECT f.id, f.phone_number_id, f.waba_id, f.key_id,
       CASE WHEN NOT r.phone THEN '***' || CASE WHEN length(r.who) > 8 THEN right(r.who, 2) ELSE '' END
            WHEN length(r.who) <= 6 THEN repeat('*', length(r.who))
            ELSE left(r.who, 2) || repeat('*', length(r.who) - 4) || right(r.who, 2) END AS recipient_masked,
       encode(sha256((SELECT s.hash_key FROM report_settings s) || convert_to(r.who, 'UTF8')), 'hex') AS recipient_hash,
       f.type, f.status,
       CASE f.priority WHEN 1 THEN 'urgent' WHEN 2 THEN 'high' WHEN 3 THEN 'normal' WHEN 4 THEN 'low' END AS priority,
       f.category, f.template_name AS template, f.template_language, f.campaign, f.reference, f.tags, f.on_unknown, f.resend_of,
       f.try AS tries, f.created_at, f.send_at, f.expires_at, f.accepted_at, f.sent_at, f.delivered_at, f.read_at, f.played_at,
       f.failed_at, f.unknown_at, f.unknown_reason,
       f.is_accepted AS accepted, f.is_sent AS sent, f.is_delivered AS delivered, f.is_read AS read,
       f.error_code, f.error_subcode, f.error_title, f.error_scope,
       CASE WHEN f.status = 'failed' THEN CASE WHEN f.failed_by_meta THEN 'meta' ELSE 'gateway' END END AS failed_by,
       f.pricing_billable, f.pricing_model, f.pricing_type, f.pricing_category
FROM report_facts f
CROSS JOIN LATERAL (SELECT f.recipient ~ '^\+?[0-9 ().-]+$' AS phone,
    CASE WHEN f.recipient ~ '^\+?[0-9 ().-]+$' THEN regexp_replace(f.recipient, '[^0-9]', '', 'g') ELSE f.recipient END AS who) r;
COMMENT ON VIEW report.messages IS 'One row a message: where it stands and when it got there. No content, no whole phone number.';
COMMENT ON COLUMN report.messages.id IS 'Id of the message in the API (a UUIDv7: its first 48 bits are the time in milliseconds).';
COMMENT ON COLUMN report.messages.phone_number_id IS 'Phone number id it is sent from.';
COMMENT ON COLUMN report.messages.waba_id IS 'WABA of that phone number.';
COMMENT ON COLUMN report.messages.key_id IS 'API key that sent it.';
COMMENT ON COLUMN report.messages.recipient_masked IS 'First and last two digits of the recipient''s number, the rest as *; for other recipients the last two characters.';
COMMENT ON COLUMN report.messages.recipient_hash IS 'SHA-256, keyed, of the number''s digits (or of the recipient as given): the same recipient has the same hash in this database, and in no other.';
COMMENT ON COLUMN report.messages.type IS 'Type of the message: text, template, image ...';
COMMENT ON COLUMN report.messages.status IS 'queued, sending, unknown, accepted, sent, delivered, read, played, failed, expired or cancelled.';
COMMENT ON COLUMN report.messages.priority IS 'urgent, high, normal or low.';
COMMENT ON COLUMN report.messages.category IS 'authentication, utility, marketing or service, as the caller or the template said; null when nobody did.';
COMMENT ON COLUMN report.messages.template IS 'Name of its template; null for other messages.';
COMMENT ON COLUMN report.messages.template_language IS 'Language code of the template.';
COMMENT ON COLUMN report.messages.campaign IS 'The tag campaign.';
COMMENT ON COLUMN report.messages.reference IS 'The caller''s reference.';
COMMENT ON COLUMN report.messages.tags IS 'The caller''s tags.';
COMMENT ON COLUMN report.messages.on_unknown IS 'What becomes of it when its outcome stays unknown: hold, resend or fail.';
COMMENT ON COLUMN report.messages.resend_of IS 'Id of the message it sends again.';
COMMENT ON COLUMN report.messages.tries IS 'How many tries were begun.';
COMMENT ON COLUMN report.messages.created_at IS 'When the gateway accepted it.';
COMMENT ON COLUMN report.messages.send_at IS 'Not to be sent before; null when at once.';
COMMENT ON COLUMN report.messages.expires_at IS 'Not to be sent after; null when never.';
COMMENT ON COLUMN report.messages.accepted_at IS 'When Meta''s answer took it, by the gateway''s clock; null when only a webhook told us.';
COMMENT ON COLUMN report.messages.sent_at IS 'When Meta sent it, by Meta''s clock in whole seconds, as the next ones; null when no webhook said so.';
COMMENT ON COLUMN report.messages.delivered_at IS 'When it was delivered; null also for a message reported read and never delivered.';
COMMENT ON COLUMN report.messages.read_at IS 'When it was read.';
COMMENT ON COLUMN report.messages.played_at IS 'When its voice message was first played.';
COMMENT ON COLUMN report.messages.failed_at IS 'When it failed; kept when later evidence proved otherwise.';
COMMENT ON COLUMN report.messages.unknown_at IS 'When a try ended without a known outcome; kept when a webhook settled it.';
COMMENT ON COLUMN report.messages.unknown_reason IS 'Why the outcome was unknown.';
COMMENT ON COLUMN report.messages.accepted IS 'True when Meta took it: by an answer or by any later evidence.';
COMMENT ON COLUMN report.messages.sent IS 'True when Meta sent it, or it was delivered or read.';
COMMENT ON COLUMN report.messages.delivered IS 'True when it was delivered or read.';
COMMENT ON COLUMN report.messages.read IS 'True when it was read or played.';
COMMENT ON COLUMN report.messages.error_code IS 'Meta''s code of the failure, or the gateway''s own.';
COMMENT ON COLUMN report.messages.error_subcode IS 'Meta''s subcode.';
COMMENT ON COLUMN report.messages.error_title IS 'Title of the failure.';
COMMENT ON COLUMN report.messages.error_scope IS 'What the failure concerns: app, waba, phone, pair, recipient, message, template ...';
COMMENT ON COLUMN report.messages.failed_by IS 'meta when a webhook reported the failure, gateway when the gateway or Meta''s answer to a try ended it; null when it did not fail.';
COMMENT ON COLUMN report.messages.pricing_billable IS 'Whether Meta bills it; null until a webhook says.';
COMMENT ON COLUMN report.messages.pricing_model IS 'Meta''s pricing model: PMP, or CBP before July 2025.';
COMMENT ON COLUMN report.messages.pricing_type IS 'regular, free_customer_service or free_entry_point.';
COMMENT ON COLUMN report.messages.pricing_category IS 'Category Meta bills it under.';

-- The two delivery views count alike and differ in their first column.
DO $make$
DECLARE
    v record;
    c record;
BEGIN
    FOR v IN SELECT * FROM (VALUES
        ('delivery_daily', 'day', '(f.created_at AT TIME ZONE report.timezone())::date', 'Day on which the gateway accepted the messages, in report.timezone.'),
        ('delivery_hourly', 'hour', 'date_trunc(''hour'', f.created_at, report.timezone())', 'Start of the hour in which the gateway accepted the messages; hours begin as in report.timezone.')) AS x(name, bucket, expr, what) LOOP
        EXECUTE format($view$
            CREATE VIEW report.%1$I AS
            SELECT c.*, round(c.sent::numeric / nullif(c.accepted, 0), 4) AS sent_rate,
                   round(c.delivered::numeric / nullif(c.accepted, 0), 4) AS delivered_rate,
                   round(c.read::numeric / nullif(c.delivered, 0), 4) AS read_rate
            FROM (SELECT %3$s AS %2$I, f.waba_id, f.phone_number_id, f.template_name AS template, f.category, f.campaign,
                         count(*) AS total,
                         count(*) FILTER (WHERE f.is_accepted) AS accepted,
                         count(*) FILTER (WHERE f.is_sent) AS sent,
                         count(*) FILTER (WHERE f.is_delivered) AS delivered,
                         count(*) FILTER (WHERE f.is_read) AS read,
                         count(*) FILTER (WHERE f.status = 'failed') AS failed,
                         count(*) FILTER (WHERE f.status = 'expired') AS expired,
                         count(*) FILTER (WHERE f.status = 'cancelled') AS cancelled,
                         count(*) FILTER (WHERE f.status = 'unknown') AS unknown,
                         count(*) FILTER (WHERE f.status IN ('queued', 'sending')) AS waiting
                  FROM report_facts f GROUP BY 1, 2, 3, 4, 5, 6) c$view$, v.name, v.bucket, v.expr);
        EXECUTE format('COMMENT ON VIEW report.%I IS %L', v.name,
            'What became of the messages accepted in one ' || v.bucket || '. accepted, sent, delivered and read are cumulative: each holds the next.');
        EXECUTE format('COMMENT ON COLUMN report.%I.%I IS %L', v.name, v.bucket, v.what);
        FOR c IN SELECT * FROM (VALUES
            ('waba_id', 'WABA.'), ('phone_number_id', 'Phone number id.'), ('template', 'Template name; null for other messages.'),
            ('category', 'Category the caller or the template said; null when nobody did.'), ('campaign', 'The tag campaign; null without one.'),
            ('total', 'Messages the gateway accepted.'), ('accepted', 'Of these, taken by Meta (also those that failed after it).'),
            ('sent', 'Of these, sent by Meta, or delivered or read.'), ('delivered', 'Of these, delivered or read.'),
            ('read', 'Of these, read or played.'), ('failed', 'Of the total, failed now: refused by Meta, failed after acceptance, or ended by the gateway.'),
            ('expired', 'Of the total, expired before they were sent.'), ('cancelled', 'Of the total, cancelled before they were sent.'),
            ('unknown', 'Of the total, with a try whose outcome is not known yet.'), ('waiting', 'Of the total, queued or being sent.'),
            ('sent_rate', 'sent / accepted; null when none was accepted.'), ('delivered_rate', 'delivered / accepted; null when none was accepted.'),
            ('read_rate', 'read / delivered; null when none was delivered. Recipients may hide read receipts.')) AS x(name, what) LOOP
            EXECUTE format('COMMENT ON COLUMN report.%I.%I IS %L', v.name, c.name, c.what);
        END LOOP;
    END LOOP;
END
$make$;

CREATE VIEW report.errors_daily AS
SELECT (f.created_at AT TIME ZONE report.timezone())::date AS day, f.waba_id, f.phone_number_id, f.template_name AS template,
       f.error_code, f.error_title, f.error_scope, CASE WHEN f.failed_by_meta THEN 'meta' ELSE 'gateway' END AS failed_by,
       count(*) AS messages, max(f.failed_at) AS last_failed_at
FROM report_facts f WHERE f.status = 'failed' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
COMMENT ON VIEW report.errors_daily IS 'Failed messages by reason. Its sums are the failed of report.delivery_daily.';
COMMENT ON COLUMN report.errors_daily.day IS 'Day on which the gateway accepted the messages, in report.timezone.';
COMMENT ON COLUMN report.errors_daily.waba_id IS 'WABA.';
COMMENT ON COLUMN report.errors_daily.phone_number_id IS 'Phone number id.';
COMMENT ON COLUMN report.errors_daily.template IS 'Template name; null for other messages.';
COMMENT ON COLUMN report.errors_daily.error_code IS 'Meta''s code, or the gateway''s own.';
COMMENT ON COLUMN report.errors_daily.error_title IS 'Title of the error.';
COMMENT ON COLUMN report.errors_daily.error_scope IS 'What the error concerns.';
COMMENT ON COLUMN report.errors_daily.failed_by IS 'meta when a webhook reported it, gateway when the gateway or Meta''s answer to a try ended the message.';
COMMENT ON COLUMN report.errors_daily.messages IS 'Messages that failed so.';
COMMENT ON COLUMN report.errors_daily.last_failed_at IS 'When the last of them failed.';

CREATE VIEW report.latency_hourly AS
SELECT c.hour, c.waba_id, c.phone_number_id, c.messages,
       c.queue[1] AS queue_p50, c.queue[2] AS queue_p95, c.queue[3] AS queue_p99,
       c.send[1] AS send_p50, c.send[2] AS send_p95, c.send[3] AS send_p99,
       c.deliver[1] AS deliver_p50, c.deliver[2] AS deliver_p95, c.deliver[3] AS deliver_p99
FROM (SELECT date_trunc('hour', f.created_at, report.timezone()) AS hour, f.waba_id, f.phone_number_id, count(*) AS messages,
             percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY
                 greatest(extract(epoch FROM f.accepted_at - greatest(f.created_at, f.send_at)), 0)::double precision) AS queue,
             percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY
                 greatest(extract(epoch FROM f.sent_at - f.accepted_at), CASE WHEN f.sent_at < f.accepted_at THEN 0 END)::double precision) AS send,
             percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY
                 greatest(extract(epoch FROM f.delivered_at - f.sent_at), CASE WHEN f.delivered_at < f.sent_at THEN 0 END)::double precision) AS deliver
      FROM report_facts f WHERE f.accepted_at IS NOT NULL GROUP BY 1, 2, 3) c;
COMMENT ON VIEW report.latency_hourly IS 'How long messages took, in seconds, for messages whose acceptance by Meta the gateway saw. Meta''s times are whole seconds, so send is up to a second short; below zero counts as zero.';
COMMENT ON COLUMN report.latency_hourly.hour IS 'Start of the hour in which the gateway accepted the messages; hours begin as in report.timezone.';
COMMENT ON COLUMN report.latency_hourly.waba_id IS 'WABA.';
COMMENT ON COLUMN report.latency_hourly.phone_number_id IS 'Phone number id.';
COMMENT ON COLUMN report.latency_hourly.messages IS 'Messages counted.';
COMMENT ON COLUMN report.latency_hourly.queue_p50 IS 'Median of the seconds from created_at (or send_at where that is later) to accepted_at.';
COMMENT ON COLUMN report.latency_hourly.queue_p95 IS '95th percentile of the same.';
COMMENT ON COLUMN report.latency_hourly.queue_p99 IS '99th percentile of the same.';
COMMENT ON COLUMN report.latency_hourly.send_p50 IS 'Median of the seconds from accepted_at to sent_at; null when none was reported sent.';
COMMENT ON COLUMN report.latency_hourly.send_p95 IS '95th percentile of the same.';
COMMENT ON COLUMN report.latency_hourly.send_p99 IS '99th percentile of the same.';
COMMENT ON COLUMN report.latency_hourly.deliver_p50 IS 'Median of the seconds from sent_at to delivered_at; null when none was reported delivered.';
COMMENT ON COLUMN report.latency_hourly.deliver_p95 IS '95th percentile of the same.';
COMMENT ON COLUMN report.latency_hourly.deliver_p99 IS '99th percentile of the same.';

CREATE VIEW report.backlog AS
SELECT l.lane, l.waba_id, coalesce(l.waiting, 0) AS waiting, l.oldest, coalesce(l.running, 0) AS running, coalesce(l.later, 0) AS later,
       coalesce(l.urgent, 0) AS urgent, coalesce(l.high, 0) AS high, coalesce(l.normal, 0) AS normal, coalesce(l.low, 0) AS low,
       -- The phone's own rate, and the WABA's over all of its phones: the slower of the two decides.
       greatest(coalesce(l.waiting, 0) / nullif(l.phone_rate, 0), coalesce(l.waba_waiting, 0)::double precision / nullif(l.waba_rate, 0)) AS drain_seconds
FROM (SELECT coalesce(p.phone_number_id, j.lane) AS lane, p.waba_id, j.waiting, j.oldest, j.running, j.later, j.urgent, j.high, j.normal, j.low,
             p.phone_rate, p.waba_rate, CASE WHEN j.waiting > 0 THEN sum(j.waiting) OVER (PARTITION BY p.waba_id) END AS waba_waiting
      FROM (SELECT n.phone_number_id, n.waba_id, n.messages_per_second AS phone_rate,
                   least(w.messages_per_second, w.messages_per_hour / 3600) AS waba_rate
            FROM phone_numbers n JOIN wabas w ON w.waba_id = n.waba_id) p
      FULL JOIN (SELECT substr(r.queue, length('lane-') + 1) AS lane, count(*) AS waiting, min(r.created_at) AS oldest,
                        count(*) FILTER (WHERE r.state = 'running') AS running,
                        count(*) FILTER (WHERE r.state IN ('scheduled', 'retryable') AND r.scheduled_at > now()) AS later,
                        count(*) FILTER (WHERE r.priority = 1) AS urgent, count(*) FILTER (WHERE r.priority = 2) AS high,
                        count(*) FILTER (WHERE r.priority = 3) AS normal, count(*) FILTER (WHERE r.priority = 4) AS low
                 FROM river_job r
                 WHERE r.state IN ('available', 'scheduled', 'retryable', 'running') AND r.queue LIKE 'lane-%'
                 GROUP BY 1) j ON j.lane = p.phone_number_id) l;
COMMENT ON VIEW report.backlog IS 'What waits now, a row a lane; lanes with nothing waiting are there too.';
COMMENT ON COLUMN report.backlog.lane IS 'Phone number id of the lane.';
COMMENT ON COLUMN report.backlog.waba_id IS 'WABA of the phone number; null when the number was deleted while jobs waited.';
COMMENT ON COLUMN report.backlog.waiting IS 'Messages that have not gone out, those held for later or just being sent included.';
COMMENT ON COLUMN report.backlog.oldest IS 'When the oldest of these jobs was put in; null when none waits.';
COMMENT ON COLUMN report.backlog.running IS 'Of waiting: claimed by a worker.';
COMMENT ON COLUMN report.backlog.later IS 'Of waiting: not due yet, because of send_at, a retry or a pause.';
COMMENT ON COLUMN report.backlog.urgent IS 'Of waiting: priority urgent.';
COMMENT ON COLUMN report.backlog.high IS 'Of waiting: priority high.';
COMMENT ON COLUMN report.backlog.normal IS 'Of waiting: priority normal.';
COMMENT ON COLUMN report.backlog.low IS 'Of waiting: priority low.';
COMMENT ON COLUMN report.backlog.drain_seconds IS 'Seconds until the lane is empty at the configured rates of the phone number and of its WABA with all its lanes; null without a limit. Pauses are not counted.';

CREATE VIEW report.cost_daily AS
SELECT (f.created_at AT TIME ZONE report.timezone())::date AS day, f.waba_id, f.phone_number_id, f.campaign,
       f.pricing_category, f.pricing_type, f.pricing_model,
       count(*) AS messages, count(*) FILTER (WHERE f.pricing_billable) AS billable
FROM report_facts f
WHERE f.pricing_billable IS NOT NULL OR f.pricing_category IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6, 7;
COMMENT ON VIEW report.cost_daily IS 'What Meta bills, by pricing category, as its webhooks said. Prices are not in it: Meta reports none.';
COMMENT ON COLUMN report.cost_daily.day IS 'Day on which the gateway accepted the messages, in report.timezone.';
COMMENT ON COLUMN report.cost_daily.waba_id IS 'WABA.';
COMMENT ON COLUMN report.cost_daily.phone_number_id IS 'Phone number id.';
COMMENT ON COLUMN report.cost_daily.campaign IS 'The tag campaign; null without one.';
COMMENT ON COLUMN report.cost_daily.pricing_category IS 'Category Meta bills under: marketing, utility, authentication, authentication-international, service ...';
COMMENT ON COLUMN report.cost_daily.pricing_type IS 'regular, free_customer_service or free_entry_point.';
COMMENT ON COLUMN report.cost_daily.pricing_model IS 'PMP, or CBP before July 2025.';
COMMENT ON COLUMN report.cost_daily.messages IS 'Messages for which a webhook gave a price category.';
COMMENT ON COLUMN report.cost_daily.billable IS 'Of these, billable.';

-- Roles belong to the whole server: another database's migration may make this one at the same moment, and the migrator
-- may not be allowed to make any. The views are of use without it, so that is no reason to stop.
DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'wagate_report') THEN
        BEGIN
            CREATE ROLE wagate_report NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role wagate_report not made: this user may not create roles (see docs/reference/report-views.md)';
        END;
    END IF;
    REVOKE ALL ON SCHEMA report FROM PUBLIC;
    REVOKE ALL ON report_settings, report_facts FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wagate_report') THEN
        GRANT USAGE ON SCHEMA report TO wagate_report;
        GRANT SELECT ON ALL TABLES IN SCHEMA report TO wagate_report;
    END IF;
END
$role$;
