-- Roll-ups: what the reports count, kept by quarter hour, hour and day (UTC), so that a report reads no messages but the newest.
-- docs/explanation/roll-ups.md says how the counts stay exact; internal/store/rollup.go makes them.
--
--   created_at   |--------- rolled up ---------|------ open: read from messages ------> now
--                                        rolled_until     an hour and more
--
-- A change of a message that is older than an hour is logged by a trigger, in the transaction that makes it: minus what the
-- message was, plus what it is. A report adds the logged changes of what is rolled up; the roller moves them into the roll-ups.

CREATE TABLE report_state (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    rolled_until  timestamptz NOT NULL DEFAULT '1970-01-02Z',
    closing_until timestamptz NOT NULL DEFAULT '1970-01-02Z',
    closing_xid   xid8
);
COMMENT ON TABLE report_state IS 'One row: how far the roll-ups go.';
COMMENT ON COLUMN report_state.rolled_until IS 'Messages created before are in the roll-ups, whole quarter hours; later ones are read from messages.';
COMMENT ON COLUMN report_state.closing_until IS 'Every change that begins now to a message created before is logged.';
COMMENT ON COLUMN report_state.closing_xid IS 'Transactions from this one on began after closing_until was set: once all earlier ones have ended, the roll-ups may go that far.';
INSERT INTO report_state DEFAULT VALUES;

-- How far a message came, each step holding those before: 1 accepted, 2 sent, 3 delivered, 4 read. As in view report_facts.
CREATE FUNCTION wagate_reached(status text, accepted_at timestamptz, sent_at timestamptz, delivered_at timestamptz, read_at timestamptz,
        played_at timestamptz, wamid text, failed_by_meta boolean) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN status IN ('read', 'played') OR read_at IS NOT NULL OR played_at IS NOT NULL THEN 4
        WHEN status = 'delivered' OR delivered_at IS NOT NULL THEN 3
        WHEN status = 'sent' OR sent_at IS NOT NULL THEN 2
        WHEN status = 'accepted' OR accepted_at IS NOT NULL OR wamid IS NOT NULL OR failed_by_meta THEN 1
        ELSE 0 END::smallint;

-- Latencies are counted in cells: 16 to each doubling from a millisecond on, so that the middle of a cell, rounded to three
-- digits, is within 3 % of whatever lies in it. Cell 0 is below a millisecond. The bounds are far outside of what happens.
CREATE FUNCTION wagate_cell(latency interval) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN latency IS NULL THEN NULL WHEN latency < interval '1 millisecond' THEN 0
                ELSE least(floor(ln(date_part('epoch', latency) * 1000) * 16 / ln(2::double precision)) + 1, 1000) END::smallint;
CREATE FUNCTION wagate_cell_seconds(cell integer) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT round(m.s::numeric, CASE WHEN m.s < 0.01 THEN 5 WHEN m.s < 0.1 THEN 4 WHEN m.s < 1 THEN 3 WHEN m.s < 10 THEN 2 WHEN m.s < 100 THEN 1 ELSE 0 END)::double precision
            FROM (SELECT CASE WHEN cell <= 0 THEN 0 ELSE 2 ^ ((cell - 0.5::double precision) / 16) / 1000 END AS s) m);
-- The percentiles 50, 95 and 99 of what lies in cells, in their order: each is the middle of the first cell up to which that share
-- of all lies. Null when the cells are empty.
CREATE FUNCTION wagate_percentiles(cells smallint[], counts bigint[]) RETURNS double precision[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS
$$
DECLARE
    total  bigint := 0;
    upto   bigint := 0;
    n      bigint;
    i      integer := 0;
    found  double precision[] := '{}';
    shares CONSTANT double precision[] := '{0.5,0.95,0.99}';
BEGIN
    FOREACH n IN ARRAY counts LOOP
        total := total + n;
    END LOOP;
    IF total <= 0 THEN
        RETURN NULL;
    END IF;
    FOREACH n IN ARRAY counts LOOP
        i := i + 1;
        upto := upto + n;
        WHILE cardinality(found) < 3 AND upto >= total * shares[cardinality(found) + 1] LOOP
            found := found || wagate_cell_seconds(cells[i]);
        END LOOP;
        EXIT WHEN cardinality(found) = 3;
    END LOOP;
    RETURN found;
END
$$;
COMMENT ON FUNCTION wagate_cell(interval) IS 'The cell a latency is counted in; those below zero are in cell 0. Null for null.';
COMMENT ON FUNCTION wagate_cell_seconds(integer) IS 'The middle of a cell in seconds, to three digits.';

-- The key of a row of a roll-up: of a fixed size, whatever callers write into their tags, and without nulls.
CREATE FUNCTION wagate_rollup_key(VARIADIC parts text[]) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN encode(substr(sha256(convert_to(parts::text, 'UTF8')), 1, 16), 'hex')::uuid;

CREATE FUNCTION wagate_quarter(at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin('15 minutes', at, '2000-01-01Z');
COMMENT ON FUNCTION wagate_quarter(timestamptz) IS 'Start of the quarter hour: every time zone of today begins its hours and days at one.';

CREATE TABLE report_changes (
    id               bigint GENERATED ALWAYS AS IDENTITY (CACHE 32) PRIMARY KEY,
    weight           smallint NOT NULL,
    bucket           timestamptz NOT NULL,
    waba_id          text NOT NULL,
    phone_number_id  text NOT NULL,
    template         text,
    category         text,
    campaign         text,
    status           text NOT NULL,
    reached          smallint NOT NULL,
    error_code       integer,
    error_title      text,
    error_scope      text,
    failed_by_meta   boolean NOT NULL,
    failed_at        timestamptz,
    pricing_billable boolean,
    pricing_category text,
    pricing_type     text,
    pricing_model    text,
    queue_cell       smallint,
    send_cell        smallint,
    deliver_cell     smallint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = 20000);
COMMENT ON TABLE report_changes IS 'Changes of messages older than an hour that are not in the roll-ups yet. Rows are only added and taken away, so nobody waits for anybody.';
COMMENT ON COLUMN report_changes.weight IS '-1: the message counts no more as this row says; 1: it does now.';
COMMENT ON COLUMN report_changes.bucket IS 'The quarter hour in which the message was created.';
COMMENT ON COLUMN report_changes.queue_cell IS 'Cells of latencies; null in both rows of a change that leaves them alone.';

-- The messages, as the roll-ups and the reports count them.
CREATE VIEW report_rows AS
SELECT m.id, m.created_at, 1::smallint AS weight, wagate_quarter(m.created_at) AS bucket, m.waba_id, m.phone_number_id, m.template_name AS template,
       m.category, m.tags ->> 'campaign' AS campaign, m.status,
       wagate_reached(m.status, m.accepted_at, m.sent_at, m.delivered_at, m.read_at, m.played_at, m.wamid, m.failed_by_meta) AS reached,
       m.error_code, m.error_title, m.error_scope, m.failed_by_meta, m.failed_at,
       m.pricing_billable, m.pricing_category, m.pricing_type, m.pricing_model,
       wagate_cell(m.accepted_at - greatest(m.created_at, m.send_at)) AS queue_cell,
       wagate_cell(m.sent_at - m.accepted_at) AS send_cell,
       CASE WHEN m.accepted_at IS NOT NULL THEN wagate_cell(m.delivered_at - m.sent_at) END AS deliver_cell
FROM messages m;
COMMENT ON VIEW report_rows IS 'One row a message, as report_changes logs them; readers of the reports cannot read it.';

-- The columns are those of report_rows.
CREATE FUNCTION wagate_log_change() RETURNS trigger
    LANGUAGE plpgsql AS
$$
DECLARE
    moved boolean;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- Most changes leave the latencies alone: then neither row counts any.
        moved := ROW(OLD.accepted_at, OLD.sent_at, OLD.delivered_at, OLD.send_at, OLD.created_at, OLD.waba_id, OLD.phone_number_id)
            IS DISTINCT FROM ROW(NEW.accepted_at, NEW.sent_at, NEW.delivered_at, NEW.send_at, NEW.created_at, NEW.waba_id, NEW.phone_number_id);
        INSERT INTO report_changes (weight, bucket, waba_id, phone_number_id, template, category, campaign, status, reached, error_code, error_title,
            error_scope, failed_by_meta, failed_at, pricing_billable, pricing_category, pricing_type, pricing_model, queue_cell, send_cell, deliver_cell)
        VALUES (-1, wagate_quarter(OLD.created_at), OLD.waba_id, OLD.phone_number_id, OLD.template_name, OLD.category, OLD.tags ->> 'campaign', OLD.status,
            wagate_reached(OLD.status, OLD.accepted_at, OLD.sent_at, OLD.delivered_at, OLD.read_at, OLD.played_at, OLD.wamid, OLD.failed_by_meta),
            OLD.error_code, OLD.error_title, OLD.error_scope, OLD.failed_by_meta, OLD.failed_at,
            OLD.pricing_billable, OLD.pricing_category, OLD.pricing_type, OLD.pricing_model,
            CASE WHEN moved THEN wagate_cell(OLD.accepted_at - greatest(OLD.created_at, OLD.send_at)) END, CASE WHEN moved THEN wagate_cell(OLD.sent_at - OLD.accepted_at) END,
            CASE WHEN moved AND OLD.accepted_at IS NOT NULL THEN wagate_cell(OLD.delivered_at - OLD.sent_at) END),
            (1, wagate_quarter(NEW.created_at), NEW.waba_id, NEW.phone_number_id, NEW.template_name, NEW.category, NEW.tags ->> 'campaign', NEW.status,
            wagate_reached(NEW.status, NEW.accepted_at, NEW.sent_at, NEW.delivered_at, NEW.read_at, NEW.played_at, NEW.wamid, NEW.failed_by_meta),
            NEW.error_code, NEW.error_title, NEW.error_scope, NEW.failed_by_meta, NEW.failed_at,
            NEW.pricing_billable, NEW.pricing_category, NEW.pricing_type, NEW.pricing_model,
            CASE WHEN moved THEN wagate_cell(NEW.accepted_at - greatest(NEW.created_at, NEW.send_at)) END, CASE WHEN moved THEN wagate_cell(NEW.sent_at - NEW.accepted_at) END,
            CASE WHEN moved AND NEW.accepted_at IS NOT NULL THEN wagate_cell(NEW.delivered_at - NEW.sent_at) END);
    ELSE
        INSERT INTO report_changes (weight, bucket, waba_id, phone_number_id, template, category, campaign, status, reached, error_code, error_title,
            error_scope, failed_by_meta, failed_at, pricing_billable, pricing_category, pricing_type, pricing_model, queue_cell, send_cell, deliver_cell)
        VALUES (1, wagate_quarter(NEW.created_at), NEW.waba_id, NEW.phone_number_id, NEW.template_name, NEW.category, NEW.tags ->> 'campaign', NEW.status,
            wagate_reached(NEW.status, NEW.accepted_at, NEW.sent_at, NEW.delivered_at, NEW.read_at, NEW.played_at, NEW.wamid, NEW.failed_by_meta),
            NEW.error_code, NEW.error_title, NEW.error_scope, NEW.failed_by_meta, NEW.failed_at,
            NEW.pricing_billable, NEW.pricing_category, NEW.pricing_type, NEW.pricing_model,
            wagate_cell(NEW.accepted_at - greatest(NEW.created_at, NEW.send_at)), wagate_cell(NEW.sent_at - NEW.accepted_at),
            CASE WHEN NEW.accepted_at IS NOT NULL THEN wagate_cell(NEW.delivered_at - NEW.sent_at) END);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION wagate_log_change() IS 'Logs what a change of an old message means to the reports.';

-- The condition is all that a young message costs. Its clock is read at the change itself, not at the start of the
-- transaction; the roller closes a quarter hour five minutes after this hour is over, should the clock be set back.
CREATE TRIGGER report_changed AFTER UPDATE ON messages FOR EACH ROW
    WHEN (OLD.created_at < clock_timestamp() - interval '1 hour' AND (
          (OLD.status IS DISTINCT FROM NEW.status AND NOT (OLD.status IN ('queued', 'sending') AND NEW.status IN ('queued', 'sending')))
          OR ROW(OLD.accepted_at, OLD.sent_at, OLD.delivered_at, OLD.read_at, OLD.played_at, OLD.failed_at, OLD.failed_by_meta, OLD.wamid IS NULL, OLD.waba_id,
                 OLD.error_code, OLD.error_title, OLD.error_scope, OLD.pricing_billable, OLD.pricing_category, OLD.pricing_type, OLD.pricing_model,
                 OLD.phone_number_id, OLD.template_name, OLD.category, OLD.send_at, OLD.created_at, OLD.tags ->> 'campaign')
             IS DISTINCT FROM
             ROW(NEW.accepted_at, NEW.sent_at, NEW.delivered_at, NEW.read_at, NEW.played_at, NEW.failed_at, NEW.failed_by_meta, NEW.wamid IS NULL, NEW.waba_id,
                 NEW.error_code, NEW.error_title, NEW.error_scope, NEW.pricing_billable, NEW.pricing_category, NEW.pricing_type, NEW.pricing_model,
                 NEW.phone_number_id, NEW.template_name, NEW.category, NEW.send_at, NEW.created_at, NEW.tags ->> 'campaign')))
    EXECUTE FUNCTION wagate_log_change();
-- A gateway whose clock is far behind, or rows put in by hand.
CREATE TRIGGER report_added AFTER INSERT ON messages FOR EACH ROW
    WHEN (NEW.created_at < clock_timestamp() - interval '1 hour')
    EXECUTE FUNCTION wagate_log_change();

CREATE TABLE report_delivery (
    span            smallint NOT NULL,
    bucket          timestamptz NOT NULL,
    key             uuid NOT NULL,
    waba_id         text NOT NULL,
    phone_number_id text NOT NULL,
    template        text,
    category        text,
    campaign        text,
    total           integer NOT NULL,
    accepted        integer NOT NULL,
    sent            integer NOT NULL,
    delivered       integer NOT NULL,
    read            integer NOT NULL,
    failed          integer NOT NULL,
    expired         integer NOT NULL,
    cancelled       integer NOT NULL,
    unknown         integer NOT NULL,
    waiting         integer NOT NULL,
    suppressed      integer NOT NULL,
    PRIMARY KEY (span, bucket, key)
);
CREATE TABLE report_errors (
    span            smallint NOT NULL,
    bucket          timestamptz NOT NULL,
    key             uuid NOT NULL,
    waba_id         text NOT NULL,
    phone_number_id text NOT NULL,
    template        text,
    error_code      integer,
    error_title     text,
    error_scope     text,
    failed_by_meta  boolean NOT NULL,
    messages        integer NOT NULL,
    last_failed_at  timestamptz,
    PRIMARY KEY (span, bucket, key)
);
CREATE TABLE report_cost (
    span             smallint NOT NULL,
    bucket           timestamptz NOT NULL,
    key              uuid NOT NULL,
    waba_id          text NOT NULL,
    phone_number_id  text NOT NULL,
    campaign         text,
    pricing_category text,
    pricing_type     text,
    pricing_model    text,
    messages         integer NOT NULL,
    billable         integer NOT NULL,
    PRIMARY KEY (span, bucket, key)
);
CREATE TABLE report_latency (
    span            smallint NOT NULL,
    bucket          timestamptz NOT NULL,
    waba_id         text NOT NULL,
    phone_number_id text NOT NULL,
    kind            smallint NOT NULL,
    cells           smallint[] NOT NULL,
    counts          integer[] NOT NULL,
    PRIMARY KEY (span, bucket, phone_number_id, waba_id, kind)
);
CREATE TABLE report_latency_hours (
    hour            timestamptz NOT NULL,
    waba_id         text NOT NULL,
    phone_number_id text NOT NULL,
    messages        bigint NOT NULL,
    queue           double precision[] NOT NULL,
    send            double precision[],
    deliver         double precision[],
    PRIMARY KEY (hour, phone_number_id, waba_id)
);
COMMENT ON TABLE report_delivery IS 'Roll-up of report.delivery_daily and report.delivery_hourly.';
COMMENT ON COLUMN report_delivery.span IS 'Minutes of the bucket: 15, 60, or 1440 for a day in UTC. All hold the same messages.';
COMMENT ON COLUMN report_delivery.key IS 'wagate_rollup_key of the columns that follow, up to the counts.';
COMMENT ON TABLE report_errors IS 'Roll-up of report.errors_daily.';
COMMENT ON TABLE report_cost IS 'Roll-up of report.cost_daily.';
COMMENT ON TABLE report_latency IS 'How many messages had latencies of each cell (wagate_cell), the cells in order.';
COMMENT ON COLUMN report_latency.kind IS '1 queue, 2 send, 3 deliver.';
COMMENT ON TABLE report_latency_hours IS 'Percentiles (50, 95, 99) of the cells of every hour that begins at a quarter hour: those of a time zone begin at one in four of them.';

-- What the settings let in of the roll-ups, [rolled_from, rolled_to), and of that what hours and days hold. The views ask each
-- of these once a query, by (SELECT …): asked for each row they would take most of the time.
CREATE FUNCTION report.rolled_until() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER COST 10
    RETURN (SELECT s.rolled_until FROM report_state s);
CREATE FUNCTION report.since() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN least(greatest(coalesce(nullif(current_setting('report.since', true), '')::timestamptz, '1970-01-02Z'), '1970-01-02Z'), '5000-01-01Z');
CREATE FUNCTION report.until() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN least(greatest(coalesce(nullif(current_setting('report.until', true), '')::timestamptz, '5000-01-01Z'), '1970-01-02Z'), '5000-01-01Z');
CREATE FUNCTION report.rolled_from() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN wagate_quarter(report.since() + interval '899.999999 seconds');
CREATE FUNCTION report.rolled_to() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN least(wagate_quarter(report.until()), report.rolled_until());
CREATE FUNCTION report.whole_hours() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT bool_and(extract(minute FROM (date_trunc('hour', now(), 'UTC') - n.months * interval '30 days') AT TIME ZONE report.timezone()) = 0)
            FROM generate_series(-1, 48) AS n(months));
CREATE FUNCTION report.hours_from() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN report.whole_hours() THEN date_bin('1 hour', report.rolled_from() + interval '3599.999999 seconds', '2000-01-01Z') ELSE '5000-01-01Z' END;
CREATE FUNCTION report.hours_to() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN report.whole_hours() THEN date_bin('1 hour', report.rolled_to(), '2000-01-01Z') ELSE '5000-01-01Z' END;
CREATE FUNCTION report.days_from() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN lower(report.timezone()) IN ('utc', 'etc/utc', 'gmt', 'etc/gmt', 'z', 'zulu')
                THEN date_bin('1 day', report.rolled_from() + interval '86399.999999 seconds', '2000-01-01Z') ELSE '5000-01-01Z' END;
CREATE FUNCTION report.days_to() RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN lower(report.timezone()) IN ('utc', 'etc/utc', 'gmt', 'etc/gmt', 'z', 'zulu')
                THEN date_bin('1 day', report.rolled_to(), '2000-01-01Z') ELSE '5000-01-01Z' END;
CREATE FUNCTION report.id_at(at timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN wagate_uuid_floor(at);
COMMENT ON FUNCTION report.rolled_until() IS 'How far the roll-ups go: what was created later is read from the messages.';
COMMENT ON FUNCTION report.since() IS 'The setting report.since, else a day before all messages.';
COMMENT ON FUNCTION report.until() IS 'The setting report.until, else a day after all messages.';
COMMENT ON FUNCTION report.rolled_from() IS 'The first quarter hour that lies wholly in what the settings let in.';
COMMENT ON FUNCTION report.rolled_to() IS 'The end of the last quarter hour that is rolled up and lies wholly in what the settings let in.';
COMMENT ON FUNCTION report.whole_hours() IS 'Whether the hours of report.timezone begin as in UTC, now and in the last four years.';
COMMENT ON FUNCTION report.hours_from() IS 'The first whole hour of the same; none in time zones that are not whole hours from UTC.';
COMMENT ON FUNCTION report.hours_to() IS 'The end of the last whole hour of the same.';
COMMENT ON FUNCTION report.days_from() IS 'The first whole day (UTC) of the same; in other time zones none.';
COMMENT ON FUNCTION report.days_to() IS 'The end of the last whole day (UTC) of the same.';
COMMENT ON FUNCTION report.id_at(timestamptz) IS 'The smallest id of that millisecond: WHERE id >= report.id_at(…) AND id < report.id_at(…) reads only the days between.';

-- What is not in whole rolled-up quarter hours: (1) what is newer, and the pieces that (2) since and (3) until cut off. A sub-select
-- keeps a function from being written out into each query, for each partition.
CREATE FUNCTION report.open_from(piece integer) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE COST 10
    RETURN (SELECT CASE piece WHEN 1 THEN greatest(report.since(), report.rolled_until()) WHEN 2 THEN report.since()
                              WHEN 3 THEN greatest(wagate_quarter(report.until()), report.rolled_from()) END);
CREATE FUNCTION report.open_to(piece integer) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE COST 10
    RETURN (SELECT CASE piece WHEN 1 THEN report.until() WHEN 2 THEN least(report.rolled_from(), report.rolled_until(), report.until())
                              WHEN 3 THEN least(report.until(), report.rolled_until()) END);
CREATE FUNCTION report.open_from_id(piece integer) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE COST 10
    RETURN (SELECT wagate_uuid_floor(report.open_from(piece) - interval '1 minute'));
CREATE FUNCTION report.open_to_id(piece integer) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE COST 10
    RETURN (SELECT wagate_uuid_floor(report.open_to(piece) + interval '1 minute'));
COMMENT ON FUNCTION report.open_from(integer) IS 'The start of what a report reads from the messages: 1 the newest, 2 and 3 the pieces that since and until cut off.';
COMMENT ON FUNCTION report.open_to(integer) IS 'The end of the same.';
COMMENT ON FUNCTION report.open_from_id(integer) IS 'The start of the same as an id, with a minute of slack for clocks that differ.';
COMMENT ON FUNCTION report.open_to_id(integer) IS 'The end of the same as an id.';

-- The ids let the partitions of all other days be dropped when the query starts, and tell the planner how few rows are left;
-- created_at decides.
CREATE VIEW report_open AS
SELECT r.* FROM report_rows r
WHERE ((r.id >= report.open_from_id(1) AND r.id < report.open_to_id(1))
    OR (r.id >= report.open_from_id(2) AND r.id < report.open_to_id(2))
    OR (r.id >= report.open_from_id(3) AND r.id < report.open_to_id(3)))
  AND ((r.created_at >= (SELECT report.open_from(1)) AND r.created_at < (SELECT report.open_to(1)))
    OR (r.created_at >= (SELECT report.open_from(2)) AND r.created_at < (SELECT report.open_to(2)))
    OR (r.created_at >= (SELECT report.open_from(3)) AND r.created_at < (SELECT report.open_to(3))));
COMMENT ON VIEW report_open IS 'The messages that a report counts one by one.';

-- What a report counts one by one: open messages, and logged changes of rolled-up ones.
CREATE VIEW report_loose AS
SELECT o.weight, o.bucket, o.waba_id, o.phone_number_id, o.template, o.category, o.campaign, o.status, o.reached, o.error_code, o.error_title, o.error_scope,
       o.failed_by_meta, o.failed_at, o.pricing_billable, o.pricing_category, o.pricing_type, o.pricing_model, o.queue_cell, o.send_cell, o.deliver_cell
FROM report_open o
UNION ALL
SELECT c.weight, c.bucket, c.waba_id, c.phone_number_id, c.template, c.category, c.campaign, c.status, c.reached, c.error_code, c.error_title, c.error_scope,
       c.failed_by_meta, c.failed_at, c.pricing_billable, c.pricing_category, c.pricing_type, c.pricing_model, c.queue_cell, c.send_cell, c.deliver_cell
FROM report_changes c WHERE c.bucket >= (SELECT report.rolled_from()) AND c.bucket < (SELECT report.rolled_to());
COMMENT ON VIEW report_loose IS 'What a report adds to the roll-ups: open messages, and the logged changes of those rolled up.';

-- The views that count: roll-ups of the widest span that fits, and what is loose.
DO $make$
DECLARE
    v       record;
    n       integer;
    rolled  text;
    -- The ranges of a roll-up (r) that a report by hours, and one by days, takes: they follow each other without a gap.
    quarters CONSTANT text[] := ARRAY[
        'r.span = 15 AND r.bucket >= (SELECT report.rolled_from()) AND r.bucket < (SELECT least(report.hours_from(), report.rolled_to()))',
        'r.span = 15 AND r.bucket >= (SELECT greatest(report.hours_to(), least(report.hours_from(), report.rolled_to()))) AND r.bucket < (SELECT report.rolled_to())'];
    by_hour  CONSTANT text[] := quarters || 'r.span = 60 AND r.bucket >= (SELECT report.hours_from()) AND r.bucket < (SELECT report.hours_to())'::text;
    by_day   CONSTANT text[] := quarters || ARRAY[
        'r.span = 60 AND r.bucket >= (SELECT report.hours_from()) AND r.bucket < (SELECT least(report.days_from(), report.hours_to()))',
        'r.span = 60 AND r.bucket >= (SELECT greatest(report.days_to(), least(report.days_from(), report.hours_to()))) AND r.bucket < (SELECT report.hours_to())',
        'r.span = 1440 AND r.bucket >= (SELECT report.days_from()) AND r.bucket < (SELECT report.days_to())'];
    -- The planner cannot know how many rows a range holds that is asked for by (SELECT …), and would sort them all for the few
    -- groups of a report by days. What is grouped by a type without an order, too, is hashed.
    hashed   CONSTANT text := ', ''0''::xid';
    day      CONSTANT text := '(x.bucket AT TIME ZONE (SELECT report.timezone()))::date';
    hour     CONSTANT text := 'date_trunc(''hour'', x.bucket, (SELECT report.timezone()))';

    delivery CONSTANT text := $sql$
        CREATE OR REPLACE VIEW report.%1$I AS
        SELECT c.%2$I, c.waba_id, c.phone_number_id, c.template, c.category, c.campaign,
               c.total, c.accepted, c.sent, c.delivered, c.read, c.failed, c.expired, c.cancelled, c.unknown, c.waiting,
               round(c.sent::numeric / nullif(c.accepted, 0), 4) AS sent_rate,
               round(c.delivered::numeric / nullif(c.accepted, 0), 4) AS delivered_rate,
               round(c.read::numeric / nullif(c.delivered, 0), 4) AS read_rate, c.suppressed
        FROM (SELECT %3$s AS %2$I, x.waba_id, x.phone_number_id, x.template, x.category, x.campaign,
                     sum(x.total) AS total, sum(x.accepted) AS accepted, sum(x.sent) AS sent, sum(x.delivered) AS delivered, sum(x.read) AS read,
                     sum(x.failed) AS failed, sum(x.expired) AS expired, sum(x.cancelled) AS cancelled, sum(x.unknown) AS unknown,
                     sum(x.waiting) AS waiting, sum(x.suppressed) AS suppressed
              FROM (%4$s
                    SELECT l.bucket, l.waba_id, l.phone_number_id, l.template, l.category, l.campaign, l.weight::integer AS total,
                           CASE WHEN l.reached >= 1 THEN l.weight ELSE 0 END AS accepted, CASE WHEN l.reached >= 2 THEN l.weight ELSE 0 END AS sent,
                           CASE WHEN l.reached >= 3 THEN l.weight ELSE 0 END AS delivered, CASE WHEN l.reached >= 4 THEN l.weight ELSE 0 END AS read,
                           CASE WHEN l.status = 'failed' THEN l.weight ELSE 0 END AS failed, CASE WHEN l.status = 'expired' THEN l.weight ELSE 0 END AS expired,
                           CASE WHEN l.status = 'cancelled' THEN l.weight ELSE 0 END AS cancelled, CASE WHEN l.status = 'unknown' THEN l.weight ELSE 0 END AS unknown,
                           CASE WHEN l.status IN ('queued', 'sending') THEN l.weight ELSE 0 END AS waiting,
                           CASE WHEN l.status = 'failed' AND l.error_code = 900000002 THEN l.weight ELSE 0 END AS suppressed
                    FROM report_loose l) x
              GROUP BY 1, 2, 3, 4, 5, 6%5$s HAVING sum(x.total) <> 0) c$sql$;
    delivery_row CONSTANT text := 'SELECT r.bucket, r.waba_id, r.phone_number_id, r.template, r.category, r.campaign, r.total, r.accepted, r.sent, r.delivered, r.read,
        r.failed, r.expired, r.cancelled, r.unknown, r.waiting, r.suppressed FROM report_delivery r';

    errors CONSTANT text := $sql$
        CREATE OR REPLACE VIEW report.%1$I AS
        SELECT %3$s AS %2$I, x.waba_id, x.phone_number_id, x.template,
               x.error_code, x.error_title, x.error_scope, CASE WHEN x.failed_by_meta THEN 'meta' ELSE 'gateway' END AS failed_by,
               sum(x.messages) AS messages, max(x.last_failed_at) AS last_failed_at
        FROM (%4$s
              SELECT l.bucket, l.waba_id, l.phone_number_id, l.template, l.error_code, l.error_title, l.error_scope, l.failed_by_meta, l.weight::integer AS messages,
                     CASE WHEN l.weight > 0 THEN l.failed_at END AS last_failed_at
              FROM report_loose l WHERE l.status = 'failed') x
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8%5$s HAVING sum(x.messages) <> 0$sql$;
    errors_row CONSTANT text := 'SELECT r.bucket, r.waba_id, r.phone_number_id, r.template, r.error_code, r.error_title, r.error_scope, r.failed_by_meta, r.messages,
        r.last_failed_at FROM report_errors r';

    cost CONSTANT text := $sql$
        CREATE OR REPLACE VIEW report.%1$I AS
        SELECT %3$s AS %2$I, x.waba_id, x.phone_number_id, x.campaign,
               x.pricing_category, x.pricing_type, x.pricing_model, sum(x.messages) AS messages, sum(x.billable) AS billable
        FROM (%4$s
              SELECT l.bucket, l.waba_id, l.phone_number_id, l.campaign, l.pricing_category, l.pricing_type, l.pricing_model, l.weight::integer AS messages,
                     CASE WHEN l.pricing_billable THEN l.weight ELSE 0 END AS billable
              FROM report_loose l WHERE l.pricing_billable IS NOT NULL OR l.pricing_category IS NOT NULL) x
        GROUP BY 1, 2, 3, 4, 5, 6, 7%5$s HAVING sum(x.messages) <> 0$sql$;
    cost_row CONSTANT text := 'SELECT r.bucket, r.waba_id, r.phone_number_id, r.campaign, r.pricing_category, r.pricing_type, r.pricing_model, r.messages, r.billable
        FROM report_cost r';

    -- Latencies as cells: kind is 1 queue, 2 send, 3 deliver.
    cells CONSTANT text := $sql$
        CREATE VIEW %1$I AS
        SELECT %3$s AS %2$I, x.waba_id, x.phone_number_id, x.kind, x.cell, sum(x.n) AS n
        FROM (%4$s
              SELECT l.bucket, l.waba_id, l.phone_number_id, k.kind, k.cell, l.weight::integer AS n
              FROM report_loose l CROSS JOIN LATERAL (VALUES (1::smallint, l.queue_cell), (2::smallint, l.send_cell), (3::smallint, l.deliver_cell)) AS k(kind, cell)
              WHERE k.cell IS NOT NULL) x
        GROUP BY 1, 2, 3, 4, 5%5$s HAVING sum(x.n) <> 0$sql$;
    cells_row CONSTANT text := 'SELECT r.bucket, r.waba_id, r.phone_number_id, r.kind, u.cell, u.n FROM report_latency r CROSS JOIN LATERAL unnest(r.cells, r.counts) AS u(cell, n)';
BEGIN
    FOR v IN SELECT * FROM (VALUES
        ('delivery_daily', 'day', day, delivery, delivery_row, by_day, hashed), ('delivery_hourly', 'hour', hour, delivery, delivery_row, by_hour, ''),
        ('errors_daily', 'day', day, errors, errors_row, by_day, hashed), ('cost_daily', 'day', day, cost, cost_row, by_day, hashed),
        ('report_cells_daily', 'day', day, cells, cells_row, by_day, hashed), ('report_cells_hourly', 'hour', hour, cells, cells_row, by_hour, '')
    ) AS x(name, bucket, expr, sql, rows, spans, method) LOOP
        rolled := '';
        FOR n IN 1 .. cardinality(v.spans) LOOP
            rolled := rolled || v.rows || ' WHERE ' || v.spans[n] || ' UNION ALL ';
        END LOOP;
        EXECUTE format(v.sql, v.name, v.bucket, v.expr, rolled, v.method);
    END LOOP;
    FOR v IN SELECT * FROM (VALUES ('delivery_daily'), ('delivery_hourly')) AS x(name) LOOP
        EXECUTE format('COMMENT ON COLUMN report.%I.suppressed IS %L', v.name,
            'Of the failed, those that the gateway did not send because the recipient wants no marketing (code 900000002).');
    END LOOP;
END
$make$;
COMMENT ON COLUMN report.errors_daily.last_failed_at IS 'When the last of them failed. It is not moved back when that message turns out to have been delivered.';
COMMENT ON VIEW report_cells_daily IS 'How many messages had latencies of each cell, by day. kind is 1 queue, 2 send, 3 deliver.';
COMMENT ON VIEW report_cells_hourly IS 'How many messages had latencies of each cell, by hour. kind is 1 queue, 2 send, 3 deliver.';

-- Hours that are rolled up whole and have no logged changes have their percentiles ready; the others are counted.
CREATE OR REPLACE VIEW report.latency_hourly AS
WITH changed AS (
    SELECT DISTINCT date_trunc('hour', c.bucket, (SELECT report.timezone())) AS hour, c.waba_id, c.phone_number_id
    FROM report_changes c
    WHERE c.bucket >= (SELECT report.rolled_from()) AND c.bucket < (SELECT report.rolled_to()) AND c.queue_cell IS NOT NULL
)
SELECT h.hour, h.waba_id, h.phone_number_id, h.messages,
       h.queue[1] AS queue_p50, h.queue[2] AS queue_p95, h.queue[3] AS queue_p99,
       h.send[1] AS send_p50, h.send[2] AS send_p95, h.send[3] AS send_p99,
       h.deliver[1] AS deliver_p50, h.deliver[2] AS deliver_p95, h.deliver[3] AS deliver_p99
FROM (SELECT r.hour, r.waba_id, r.phone_number_id, r.messages, r.queue, r.send, r.deliver
      FROM report_latency_hours r
      WHERE r.hour >= (SELECT report.rolled_from()) AND r.hour <= (SELECT report.rolled_to()) - interval '1 hour' AND date_trunc('hour', r.hour, (SELECT report.timezone())) = r.hour
        AND r.messages > 0
        AND NOT EXISTS (SELECT FROM changed c WHERE c.hour = r.hour AND c.waba_id = r.waba_id AND c.phone_number_id = r.phone_number_id)
      UNION ALL
      SELECT p.hour, p.waba_id, p.phone_number_id, max(p.messages) FILTER (WHERE p.kind = 1), max(p.seconds) FILTER (WHERE p.kind = 1),
             max(p.seconds) FILTER (WHERE p.kind = 2), max(p.seconds) FILTER (WHERE p.kind = 3)
      FROM (SELECT s.hour, s.waba_id, s.phone_number_id, s.kind, sum(s.n)::bigint AS messages,
                   wagate_percentiles(array_agg(s.cell ORDER BY s.cell), array_agg(s.n ORDER BY s.cell)) AS seconds
            FROM (SELECT e.hour, e.waba_id, e.phone_number_id, e.kind, e.cell, sum(e.n) AS n
                  FROM (SELECT date_trunc('hour', l.bucket, (SELECT report.timezone())) AS hour, l.waba_id, l.phone_number_id, k.kind, k.cell, l.weight::integer AS n
                        FROM report_loose l CROSS JOIN LATERAL (VALUES (1::smallint, l.queue_cell), (2::smallint, l.send_cell), (3::smallint, l.deliver_cell)) AS k(kind, cell)
                        WHERE k.cell IS NOT NULL
                        UNION ALL
                        -- Quarter hours of hours that the bounds of what is rolled up cut off,
                        SELECT date_trunc('hour', r.bucket, (SELECT report.timezone())), r.waba_id, r.phone_number_id, r.kind, u.cell, u.n
                        FROM report_latency r CROSS JOIN LATERAL unnest(r.cells, r.counts) AS u(cell, n)
                        WHERE r.span = 15 AND r.bucket >= (SELECT report.rolled_from()) AND r.bucket < (SELECT report.rolled_to())
                          AND (r.bucket < (SELECT report.rolled_from()) + interval '1 hour' OR r.bucket >= (SELECT report.rolled_to()) - interval '1 hour')
                          AND (date_trunc('hour', r.bucket, (SELECT report.timezone())) < (SELECT report.rolled_from())
                               OR date_trunc('hour', r.bucket, (SELECT report.timezone())) > (SELECT report.rolled_to()) - interval '1 hour')
                        UNION ALL
                        -- and of whole hours with changes.
                        SELECT c.hour, r.waba_id, r.phone_number_id, r.kind, u.cell, u.n
                        FROM changed c
                        JOIN report_latency r ON r.span = 15 AND r.bucket >= c.hour AND r.bucket < c.hour + interval '1 hour'
                             AND r.phone_number_id = c.phone_number_id AND r.waba_id = c.waba_id
                        CROSS JOIN LATERAL unnest(r.cells, r.counts) AS u(cell, n)
                        WHERE c.hour >= (SELECT report.rolled_from()) AND c.hour <= (SELECT report.rolled_to()) - interval '1 hour') e
                  GROUP BY 1, 2, 3, 4, 5 HAVING sum(e.n) <> 0) s
            GROUP BY 1, 2, 3, 4) p
      GROUP BY 1, 2, 3 HAVING max(p.messages) FILTER (WHERE p.kind = 1) > 0) h;
COMMENT ON VIEW report.latency_hourly IS 'How long messages took, in seconds, for messages whose acceptance by Meta the gateway saw. Percentiles are counted in cells and within 3 %. Meta''s times are whole seconds, so send is up to a second short; below zero counts as zero.';

-- Counts from a day on again: after messages were changed behind the triggers' back. The roller makes what is thrown away here
-- anew, and until then the reports read the messages. Days whose messages are gone are left as they are.
CREATE FUNCTION wagate_rollups_from(since timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql AS
$$
DECLARE
    until  timestamptz;
    oldest uuid;
    at     timestamptz;
BEGIN
    SELECT s.rolled_until INTO until FROM report_state s FOR UPDATE;
    SELECT m.id INTO oldest FROM messages m ORDER BY m.id LIMIT 1;
    at := date_bin('1 day', since, '2000-01-01Z');
    IF oldest IS NOT NULL THEN
        at := greatest(at, date_bin('1 day', to_timestamp(('x' || lpad(left(replace(oldest::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0), '2000-01-01Z'));
    END IF;
    IF oldest IS NULL OR at >= until THEN
        RETURN until;
    END IF;
    DELETE FROM report_delivery WHERE bucket >= at;
    DELETE FROM report_errors WHERE bucket >= at;
    DELETE FROM report_cost WHERE bucket >= at;
    DELETE FROM report_latency WHERE bucket >= at;
    DELETE FROM report_latency_hours WHERE hour > at - interval '1 hour';
    UPDATE report_state SET rolled_until = at;
    RETURN at;
END
$$;
COMMENT ON FUNCTION wagate_rollups_from(timestamptz) IS 'Throws the roll-ups away from the given day (UTC) on, as far as its messages are kept, to be made again; says from when.';

REVOKE ALL ON report_state, report_changes, report_rows, report_open, report_loose, report_cells_hourly, report_cells_daily,
    report_delivery, report_errors, report_cost, report_latency, report_latency_hours FROM PUBLIC;
