-- What clients are told: where to (subscriptions, and the hosts of callback_urls), and each event on its way there.
CREATE TABLE callback_endpoints (
    endpoint_id     uuid PRIMARY KEY,
    kind            text NOT NULL,
    owner           text NOT NULL,
    url             text NOT NULL,
    format          text NOT NULL DEFAULT 'wagate',
    events          text[] NOT NULL DEFAULT '{}',
    statuses        text[] NOT NULL DEFAULT '{}',
    waba_id         text,
    phone_number_id text,
    key_name        text,
    secret          bytea,
    old_secret      bytea,
    old_secret_until timestamptz,
    verify_token    bytea,
    active          boolean NOT NULL DEFAULT true,
    inactive_reason text,
    deleted_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),

    run             bigint NOT NULL DEFAULT 0,
    due_at          timestamptz,
    planned         boolean NOT NULL DEFAULT false,
    alive_at        timestamptz,
    hold_until      timestamptz,
    opened_at       timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    probes          integer NOT NULL DEFAULT 0,
    last_error      text,
    failed_at       timestamptz,
    delivered_at    timestamptz
) WITH (fillfactor = 50);
CREATE INDEX callback_endpoints_active ON callback_endpoints (endpoint_id) WHERE active;
CREATE INDEX callback_endpoints_subscriptions ON callback_endpoints (endpoint_id) WHERE active AND kind = 'subscription';
COMMENT ON TABLE callback_endpoints IS 'Where events go: subscriptions, and the scheme, host and port of callback_urls, one row for each owner of keys.';
COMMENT ON COLUMN callback_endpoints.kind IS 'subscription or url.';
COMMENT ON COLUMN callback_endpoints.owner IS 'Name of the API key that made it. A callback_url is signed with the secret of its owner.';
COMMENT ON COLUMN callback_endpoints.secret IS 'Sealed with WAGATE_SECRET_KEY, as are old_secret and verify_token; null for kind url.';
COMMENT ON COLUMN callback_endpoints.run IS 'Number of the job that delivers, raised with every new one: a job of an earlier number does nothing.';
COMMENT ON COLUMN callback_endpoints.due_at IS 'When the job of that number is to run; null: there is none, and whoever adds an event puts one in.';
COMMENT ON COLUMN callback_endpoints.planned IS 'True: due_at lies some time ahead, and the job of that number is put in then.';
COMMENT ON COLUMN callback_endpoints.alive_at IS 'When the job of that number gave a sign of life last; null before it has begun.';
COMMENT ON COLUMN callback_endpoints.hold_until IS 'Nothing is posted before: the endpoint asked for it, or the circuit is open and this is the time of the next probe.';
COMMENT ON COLUMN callback_endpoints.opened_at IS 'Since when the circuit is open: too many failures in a row; null while it is closed.';

CREATE TABLE callback_events (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        uuid NOT NULL,
    endpoint_id     uuid NOT NULL,
    chain           uuid NOT NULL,
    kind            text NOT NULL,
    status          text,
    at              timestamptz NOT NULL,
    url             text,
    waba_id         text,
    phone_number_id text,
    field           text,
    value           bytea,
    detail          json,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts        integer NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz NOT NULL DEFAULT clock_timestamp() + interval '24 hours',
    delivered_at    timestamptz,
    dead_at         timestamptz,
    last_error      text
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX callback_events_waiting ON callback_events (endpoint_id, next_at, seq) WHERE delivered_at IS NULL AND dead_at IS NULL;
-- Its condition is written otherwise, so that nobody who asks for what waits at one endpoint reads it from end to end.
CREATE INDEX callback_events_expire ON callback_events (expires_at) WHERE coalesce(delivered_at, dead_at) IS NULL;
CREATE INDEX callback_events_chain ON callback_events (chain, seq);
CREATE INDEX callback_events_endpoint ON callback_events (endpoint_id, seq);
COMMENT ON TABLE callback_events IS 'One row for each event and endpoint: waiting (neither delivered_at nor dead_at), delivered or given up, and kept for replay.';
COMMENT ON COLUMN callback_events.event_id IS 'The webhook-id: the same with every attempt and replay, and for every endpoint.';
COMMENT ON COLUMN callback_events.chain IS 'The message, or the event itself where it is of none: events of one chain go out one after the other.';
COMMENT ON COLUMN callback_events.url IS 'The callback_url; null: that of the subscription.';
COMMENT ON COLUMN callback_events.value IS 'Meta''s value, for the format meta and for what is no status; null where the gateway says it itself.';
COMMENT ON COLUMN callback_events.detail IS 'What the event says beside the status: errors and price.';

CREATE TABLE callback_secrets (
    owner            text PRIMARY KEY,
    secret           bytea NOT NULL,
    old_secret       bytea,
    old_secret_until timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE callback_secrets IS 'What signs the callback_urls of an owner of keys; sealed with WAGATE_SECRET_KEY.';

ALTER TABLE messages
    ADD COLUMN callback_endpoint uuid,
    ADD COLUMN told_wamid boolean;
COMMENT ON COLUMN messages.callback_endpoint IS 'Row of callback_endpoints that callback_url goes by.';
COMMENT ON COLUMN messages.told_wamid IS 'True when a Cloud API client was answered with the wamid: callbacks of format meta then name the message by it.';
