-- The tables of wagate. River's own tables are made by rivermigrate before this file runs.
--
-- Ids of messages, events and raw webhooks are UUIDv7: their first 48 bits are the Unix time in milliseconds, so a
-- table partitioned by ranges of id is partitioned by day, and a look-up by id alone reads one partition.

CREATE FUNCTION wagate_uuid_floor(ts timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (lpad(to_hex((extract(epoch FROM ts) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid $$;
COMMENT ON FUNCTION wagate_uuid_floor(timestamptz) IS 'Smallest UUIDv7 of that millisecond: the lower bound of a partition or of a range of ids.';

-- The order of statuses (message.Rank holds the same table, a test compares them). A failure that Meta reported by
-- webhook beats sent; one the gateway decided is beaten by any positive word of Meta.
CREATE FUNCTION wagate_status_rank(status text, failed_by_meta boolean) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE status
    WHEN 'queued' THEN 0 WHEN 'sending' THEN 1 WHEN 'unknown' THEN 2
    WHEN 'expired' THEN 3 WHEN 'cancelled' THEN 3
    WHEN 'failed' THEN CASE WHEN failed_by_meta THEN 6 ELSE 3 END
    WHEN 'accepted' THEN 4 WHEN 'sent' THEN 5
    WHEN 'delivered' THEN 7 WHEN 'read' THEN 8 WHEN 'played' THEN 9 END $$;

CREATE TABLE apps (
    app_id         text PRIMARY KEY,
    app_secret     bytea,
    calls_per_hour integer,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN apps.app_secret IS 'Sealed with WAGATE_SECRET_KEY; never readable as stored.';

CREATE TABLE portfolios (
    portfolio_id              text PRIMARY KEY,
    unique_recipients_per_day integer,
    created_at                timestamptz NOT NULL DEFAULT now(),
    updated_at                timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE wabas (
    waba_id                   text PRIMARY KEY,
    name                      text NOT NULL DEFAULT '',
    app_id                    text REFERENCES apps,
    portfolio_id              text REFERENCES portfolios,
    access_token              bytea,
    management_calls_per_hour integer NOT NULL DEFAULT 5000,
    messages_per_hour         double precision,
    messages_per_second       double precision,
    burst                     integer NOT NULL DEFAULT 1,
    created_at                timestamptz NOT NULL DEFAULT now(),
    updated_at                timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN wabas.access_token IS 'Sealed with WAGATE_SECRET_KEY; never readable as stored.';

CREATE TABLE phone_numbers (
    phone_number_id      text PRIMARY KEY,
    waba_id              text NOT NULL REFERENCES wabas,
    display_phone_number text NOT NULL DEFAULT '',
    messages_per_second  double precision DEFAULT 80,
    burst                integer NOT NULL DEFAULT 1,
    pair_seconds         double precision DEFAULT 6,
    pair_burst           integer NOT NULL DEFAULT 45,
    window_check         text NOT NULL DEFAULT 'off',
    max_backlog          bigint,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX phone_numbers_waba ON phone_numbers (waba_id);

CREATE TABLE api_keys (
    key_id              uuid PRIMARY KEY,
    name                text NOT NULL,
    hash                bytea NOT NULL UNIQUE,
    scopes              text[] NOT NULL,
    phone_numbers       text[] NOT NULL DEFAULT '{}',
    requests_per_second integer,
    messages_per_day    bigint,
    created_at          timestamptz NOT NULL DEFAULT now(),
    revoked_at          timestamptz
);
COMMENT ON COLUMN api_keys.hash IS 'SHA-256 of the key; the key itself is shown once and not kept.';
COMMENT ON COLUMN api_keys.name IS 'Owner of the key: idempotency keys belong to the name, so a rotated key of the same name still finds them.';
COMMENT ON COLUMN api_keys.phone_numbers IS 'Phone number ids the key may use; empty means all.';

CREATE TABLE messages (
    id                uuid NOT NULL PRIMARY KEY,
    phone_number_id   text NOT NULL,
    waba_id           text NOT NULL,
    key_id            uuid,
    recipient         text NOT NULL,
    type              text NOT NULL,
    status            text NOT NULL DEFAULT 'queued',
    priority          smallint NOT NULL,
    category          text,
    on_unknown        text NOT NULL DEFAULT 'hold',
    template_name     text,
    template_language text,
    reference         text,
    tags              jsonb,
    ordering_key      text,
    callback_url      text,
    opaque            text,
    send_window       jsonb,
    send_at           timestamptz,
    expires_at        timestamptz,
    resend_of         uuid,
    body              bytea,
    created_at        timestamptz NOT NULL DEFAULT now(),

    try               integer NOT NULL DEFAULT 0,
    slot_at           timestamptz,
    marked_by         text,
    epoch             bigint,
    retries           integer NOT NULL DEFAULT 0,
    throttles         integer NOT NULL DEFAULT 0,

    wamid             text,
    wa_id             text,
    message_status    text,
    accepted_at       timestamptz,
    sent_at           timestamptz,
    delivered_at      timestamptz,
    read_at           timestamptz,
    played_at         timestamptz,
    failed_at         timestamptz,
    failed_by_meta    boolean NOT NULL DEFAULT false,
    unknown_at        timestamptz,
    unknown_reason    text,
    settle_by         timestamptz,
    error_code        integer,
    error_subcode     integer,
    error_title       text,
    error_details     text,
    error_scope       text,
    pricing_billable  boolean,
    pricing_model     text,
    pricing_type      text,
    pricing_category  text
) PARTITION BY RANGE (id);
CREATE INDEX messages_settle ON messages (settle_by) WHERE settle_by IS NOT NULL;
CREATE INDEX messages_expire ON messages (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE messages IS 'One row a message, partitioned by day of its UUIDv7.';
COMMENT ON COLUMN messages.recipient IS 'The to (or recipient) of the message as the caller gave it.';
COMMENT ON COLUMN messages.opaque IS 'The caller''s own biz_opaque_callback_data; the wire carries ours.';
COMMENT ON COLUMN messages.try IS 'Number of the newest try; raised by the mark before each POST, never reused.';
COMMENT ON COLUMN messages.slot_at IS 'Slot of the try that is begun and has no outcome yet, in database time; null when none is open.';
COMMENT ON COLUMN messages.failed_by_meta IS 'True when a failed webhook said so; a refusal in the answer or a decision of the gateway leaves it false.';
COMMENT ON COLUMN messages.marked_by IS 'Worker that marked the newest try.';
COMMENT ON COLUMN messages.epoch IS 'Epoch of the lease under which the newest try was marked.';
COMMENT ON COLUMN messages.retries IS 'Tries that ended with proof that nothing was accepted; throttles do not count.';
COMMENT ON COLUMN messages.settle_by IS 'When on_unknown decides, if no webhook has settled the message before.';

CREATE TABLE message_events (
    id         uuid NOT NULL PRIMARY KEY,
    message_id uuid NOT NULL,
    kind       text NOT NULL,
    try        integer,
    wamid      text,
    at         timestamptz NOT NULL,
    detail     jsonb
) PARTITION BY RANGE (id);
CREATE INDEX message_events_message ON message_events (message_id);
COMMENT ON TABLE message_events IS 'What happened to a message, kept in any order and any number of times: ends of tries, statuses from Meta, decisions.';
COMMENT ON COLUMN message_events.kind IS 'try.accepted, try.throttled, try.transient, try.refused, try.unknown, try.unsent, status.<status of Meta>, settled, resent, failed, expired, cancelled, duplicate_detected.';

CREATE TABLE webhook_raw (
    id           uuid NOT NULL PRIMARY KEY,
    app_id       text NOT NULL,
    body         bytea NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    processed_at timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    error        text
) PARTITION BY RANGE (id);
CREATE INDEX webhook_raw_waiting ON webhook_raw (id) WHERE processed_at IS NULL;
COMMENT ON TABLE webhook_raw IS 'Notifications of Meta byte for byte, committed before the 200; applied from here.';
COMMENT ON COLUMN webhook_raw.error IS 'Why the payload was set aside; null when it was applied.';

CREATE TABLE idempotency_keys (
    owner        text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    message_id   uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

CREATE TABLE wamids (
    wamid      text PRIMARY KEY,
    message_id uuid NOT NULL
);
CREATE INDEX wamids_message ON wamids (message_id);
COMMENT ON TABLE wamids IS 'Which message a wamid belongs to; a message has one a try that Meta accepted.';

CREATE TABLE workers (
    worker_id    text PRIMARY KEY,
    lock_key     bigint NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    draining     boolean NOT NULL DEFAULT false,
    dead_at      timestamptz
) WITH (fillfactor = 50);
COMMENT ON COLUMN workers.lock_key IS 'Session advisory lock the process holds while it lives.';
COMMENT ON COLUMN workers.dead_at IS 'When another worker first saw that lock free: the process was dead by then.';

CREATE TABLE leases (
    waba_id    text PRIMARY KEY,
    worker_id  text NOT NULL,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    prev_worker_id  text,
    prev_expires_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE leases IS 'Which worker owns a WABA. The epoch rises with every change of owner.';

COMMENT ON COLUMN leases.prev_expires_at IS 'When the previous owner''s lease ended: it sent nothing later.';

CREATE TABLE pauses (
    id         uuid PRIMARY KEY,
    scope      text NOT NULL,
    value      text NOT NULL,
    reason     text NOT NULL,
    source     text NOT NULL,
    code       integer,
    level      integer NOT NULL DEFAULT 0,
    until      timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (scope, value, source)
);
COMMENT ON COLUMN pauses.level IS 'How many throttles in a row, the exponent of the backoff; a success resets it.';
COMMENT ON COLUMN pauses.until IS 'End of the pause; null means until an operator lifts it.';

-- Makes the daily partitions from yesterday to days_ahead days from now. Rows of a day without a partition go to the
-- default one, so that nothing accepted is ever refused for want of a partition.
CREATE FUNCTION wagate_ensure_partitions(days_ahead integer, today date DEFAULT (now() AT TIME ZONE 'UTC')::date) RETURNS integer
    LANGUAGE plpgsql
    -- A new partition locks its table for a moment. Behind a reader that takes long (a report, a dump) that lock would
    -- make everybody wait; it gives up instead, and the caller tries again: there are days of room.
    SET lock_timeout = '300ms' AS
$$
DECLARE
    parent text;
    d      date;
    child  text;
    made   integer := 0;
    opts   text;
BEGIN
    PERFORM pg_advisory_xact_lock(7349871002);
    FOREACH parent IN ARRAY ARRAY['messages', 'message_events', 'webhook_raw'] LOOP
        opts := CASE parent WHEN 'message_events' THEN '' ELSE ' WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)' END;
        IF to_regclass(parent || '_default') IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT%s', parent || '_default', parent, opts);
        END IF;
        FOR d IN SELECT generate_series(today - 1, today + days_ahead, interval '1 day')::date LOOP
            child := parent || '_p' || to_char(d, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)%s', child, parent,
                        wagate_uuid_floor(d::timestamp AT TIME ZONE 'UTC'), wagate_uuid_floor((d + 1)::timestamp AT TIME ZONE 'UTC'), opts);
                    made := made + 1;
                EXCEPTION WHEN check_violation THEN
                    RAISE WARNING 'partition % not made: rows of that day lie in the default partition', child;
                END;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

SELECT wagate_ensure_partitions(7);
