-- Limits: who set them, what is in force, what holds a message back.
-- Every table here stays small: it has rows for what is out of the ordinary, none for an ordinary message.

ALTER TABLE phone_numbers
    ADD COLUMN meta_per_second  double precision NOT NULL DEFAULT 80,
    ADD COLUMN limit_source     text NOT NULL DEFAULT 'operator',
    ADD COLUMN limit_changed_at timestamptz,
    ADD COLUMN throughput_level text,
    ADD COLUMN quality_rating   text,
    ADD COLUMN registered       boolean;
COMMENT ON COLUMN phone_numbers.meta_per_second IS 'What Meta allows by its last word (80, 20 coexistence, 1000 upgraded); messages_per_second keeps its proportion to it when that changes.';
COMMENT ON COLUMN phone_numbers.limit_source IS 'Who set messages_per_second last: operator, webhook or throughput (read from the Graph API).';
ALTER TABLE portfolios
    ADD COLUMN limit_source     text NOT NULL DEFAULT 'operator',
    ADD COLUMN limit_changed_at timestamptz,
    ADD COLUMN tier             text;
ALTER TABLE wabas
    ADD COLUMN looked_at timestamptz;
COMMENT ON COLUMN wabas.looked_at IS 'When the phone numbers of the WABA were last read from the Graph API; null asks for it.';
ALTER TABLE api_keys
    ADD COLUMN max_backlog bigint;

ALTER TABLE messages
    ADD COLUMN redos            integer NOT NULL DEFAULT 0,
    ADD COLUMN failed_try       integer NOT NULL DEFAULT 0,
    ADD COLUMN ordering_after   text,
    ADD COLUMN ordering_seconds double precision;
COMMENT ON COLUMN messages.redos IS 'New tries made because a webhook said failed and the code table allows another.';
COMMENT ON COLUMN messages.failed_try IS 'The newest try that a failed webhook was followed by a new try for: what comes late of it and before counts only from delivered on.';
COMMENT ON COLUMN messages.ordering_after IS 'What the next message of the ordering_key waits for: null or accepted, or delivered; ordering_seconds bounds the latter.';
-- The messages of an ordering key that are not settled, in their order.
CREATE INDEX messages_ordering ON messages (phone_number_id, ordering_key, id) WHERE ordering_key IS NOT NULL;

CREATE TABLE holds (
    message_id      uuid PRIMARY KEY,
    phone_number_id text NOT NULL,
    waba_id         text NOT NULL,
    kind            text NOT NULL,
    value           text NOT NULL,
    until           timestamptz,
    priority        smallint NOT NULL,
    place           timestamptz NOT NULL,
    since           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX holds_due ON holds (waba_id, until);
CREATE INDEX holds_cause ON holds (waba_id, kind, value, phone_number_id, message_id);
COMMENT ON TABLE holds IS 'Messages that wait for something of their own and have no job meanwhile: the row becomes one again when the wait is over.';
COMMENT ON COLUMN holds.kind IS 'pair, ordering, window, recipients (of a portfolio), recipient (marketing to one), template, flow, tag, key, priority.';
COMMENT ON COLUMN holds.value IS 'What it waits for, by kind: the ordering key, the value of the pause, the portfolio.';
COMMENT ON COLUMN holds.until IS 'When it is looked at again; null: when the cause is gone.';
COMMENT ON COLUMN holds.place IS 'Its place in the lane, the scheduled_at of its job.';

CREATE TABLE rates (
    scope      text NOT NULL,
    value      text NOT NULL,
    ceiling    double precision NOT NULL,
    code       integer NOT NULL,
    slowed_at  timestamptz NOT NULL,
    PRIMARY KEY (scope, value)
);
COMMENT ON TABLE rates IS 'Rates in force below the configured ones, since a throttle; the rate is a function of ceiling and age. Read by the next owner.';
COMMENT ON COLUMN rates.ceiling IS 'Messages a second at which the throttle came.';

CREATE TABLE pair_states (
    phone_number_id text NOT NULL,
    recipient       text NOT NULL,
    tat             timestamptz NOT NULL,
    PRIMARY KEY (phone_number_id, recipient)
);
CREATE INDEX pair_states_tat ON pair_states (tat);
COMMENT ON TABLE pair_states IS 'Recipients that have used more than half of their burst: when their bucket is full again. Others need no row.';

CREATE TABLE shares (
    scope      text NOT NULL,
    value      text NOT NULL,
    holder     text NOT NULL,
    per_second double precision NOT NULL,
    demand     double precision NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (scope, value, holder)
) WITH (fillfactor = 50);
COMMENT ON TABLE shares IS 'Shares of a rate that spans owners (an app''s calls), leased for some seconds; those that have not expired never add up to more than the rate.';
COMMENT ON COLUMN shares.holder IS 'The WABA that sends by it.';

CREATE TABLE portfolio_recipients (
    portfolio_id text NOT NULL,
    wa_id        text NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (portfolio_id, wa_id)
);
CREATE INDEX portfolio_recipients_at ON portfolio_recipients (portfolio_id, at);
CREATE TABLE portfolio_usage (
    portfolio_id text PRIMARY KEY,
    used         bigint NOT NULL
);
COMMENT ON TABLE portfolio_recipients IS 'Who was written to outside a service window in the last 24 hours, for portfolios with a limit.';

CREATE TABLE management_calls (
    waba_id text NOT NULL,
    minute  timestamptz NOT NULL,
    calls   integer NOT NULL,
    PRIMARY KEY (waba_id, minute)
);
COMMENT ON TABLE management_calls IS 'Management calls of the last hour and a minute, for the limit per WABA and rolling hour.';

CREATE TABLE wa_ids (
    input      text PRIMARY KEY,
    wa_id      text NOT NULL,
    learned_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE wa_ids IS 'Spellings of a number that an answer has mapped to another wa_id (Brazil, Mexico): digits only. Equal ones have no row.';

CREATE TABLE suppressions (
    waba_id    text NOT NULL,
    wa_id      text NOT NULL,
    category   text NOT NULL,
    until      timestamptz,
    reason     text NOT NULL,
    code       integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (waba_id, wa_id, category)
);
COMMENT ON TABLE suppressions IS 'Recipients that get no messages of a category from a WABA: until null for good (131050, stop), else for a while (131049).';

CREATE TABLE service_windows (
    phone_number_id text NOT NULL,
    wa_id           text NOT NULL,
    until           timestamptz NOT NULL,
    PRIMARY KEY (phone_number_id, wa_id)
);
COMMENT ON TABLE service_windows IS 'Customer service windows: 24 hours from the last message of a user to a phone number.';

CREATE TABLE inbound_seconds (
    phone_number_id text NOT NULL,
    second          timestamptz NOT NULL,
    messages        integer NOT NULL,
    PRIMARY KEY (phone_number_id, second)
);
COMMENT ON TABLE inbound_seconds IS 'Messages that came in, by second, for a minute: they use the throughput of the phone number too.';

CREATE TABLE lane_stats (
    phone_number_id text PRIMARY KEY,
    urgent          bigint NOT NULL DEFAULT 0,
    high            bigint NOT NULL DEFAULT 0,
    normal          bigint NOT NULL DEFAULT 0,
    low             bigint NOT NULL DEFAULT 0,
    per_second      double precision,
    state           jsonb,
    worker_id       text,
    counted_at      timestamptz,
    published_at    timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE lane_stats IS 'What waits in a lane, about: counted now and then by its owner, moved on by the gateways; and the owner''s view of its limits.';
COMMENT ON COLUMN lane_stats.per_second IS 'Messages a second that the lane may send now; null: no limit.';

CREATE TABLE key_backlogs (
    key_id          uuid NOT NULL,
    phone_number_id text NOT NULL,
    waiting         bigint NOT NULL,
    PRIMARY KEY (key_id, phone_number_id)
);
COMMENT ON TABLE key_backlogs IS 'What waits of API keys that have a max_backlog, as lane_stats is kept.';
CREATE TABLE key_days (
    key_id   uuid NOT NULL,
    day      date NOT NULL,
    accepted bigint NOT NULL,
    PRIMARY KEY (key_id, day)
);
COMMENT ON TABLE key_days IS 'Messages accepted by UTC day of API keys that have a messages_per_day.';
