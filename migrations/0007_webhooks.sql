-- What Meta says of accounts beside messages: for operators to see, and so that an older word never overtakes a newer one.
-- Every table here stays small: notices are few.

CREATE TABLE account_alerts (
    id                   uuid PRIMARY KEY,
    at                   timestamptz NOT NULL,
    waba_id              text NOT NULL,
    phone_number_id      text,
    display_phone_number text,
    field                text NOT NULL,
    event                text NOT NULL,
    severity             smallint NOT NULL,
    detail               jsonb,
    webhook_id           uuid NOT NULL
);
CREATE INDEX account_alerts_at ON account_alerts (at, id);
COMMENT ON TABLE account_alerts IS 'Notices of Meta about accounts, for 90 days: one row however often a notice is posted.';
COMMENT ON COLUMN account_alerts.id IS 'Of what the notice says: WABA, field, time and value.';
COMMENT ON COLUMN account_alerts.at IS 'Meta''s time, or that of the first receipt where the notice has none.';
COMMENT ON COLUMN account_alerts.severity IS '0 info, 1 warning, 2 critical.';
COMMENT ON COLUMN account_alerts.webhook_id IS 'The notification that told it first: a row of webhook_raw until its retention.';

CREATE TABLE account_states (
    scope      text NOT NULL,
    value      text NOT NULL,
    topic      text NOT NULL,
    word       text NOT NULL,
    until      timestamptz,
    at         timestamptz NOT NULL,
    webhook_id uuid NOT NULL,
    PRIMARY KEY (scope, value, topic)
);
COMMENT ON TABLE account_states IS 'Meta''s newest word on each topic of a WABA or phone number. An older one, or the same again, changes nothing.';
COMMENT ON COLUMN account_states.scope IS 'waba or phone; value is its id.';
COMMENT ON COLUMN account_states.topic IS 'ban, review, restriction (of a WABA); quality, throughput, name (of a phone number).';
COMMENT ON COLUMN account_states.at IS 'Meta''s time of it, or that of the receipt where the notice has none.';

CREATE TABLE number_changes (
    phone_number_id text NOT NULL,
    old_wa_id       text NOT NULL,
    new_wa_id       text NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (phone_number_id, old_wa_id, new_wa_id)
);
COMMENT ON TABLE number_changes IS 'Users that have changed their number, for two days: a service window that the old one opens, however late it is heard of, is the new one''s too.';

ALTER TABLE portfolios ADD COLUMN tier_at timestamptz;
COMMENT ON COLUMN portfolios.tier_at IS 'Meta''s time of the notice that gave tier: an older one does not count.';
