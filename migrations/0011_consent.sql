-- Who may be written to: opt-outs with their source, the evidence for closed service windows, fallback templates.

-- The spellings under which one mobile number is written and known. Brazil has put a 9 before the eight digits of mobile
-- numbers, Mexico had a 1 and Argentina has a 9 after the country code; WhatsApp's ids follow rules of their own. Others have one.
CREATE FUNCTION wagate_spellings(digits text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE
    WHEN left(digits, 2) NOT IN ('52', '54', '55') THEN ARRAY[digits]
    WHEN digits ~ '^55[1-9][0-9]9[0-9]{8}$' AND (substr(digits, 3, 2) >= '31' OR substr(digits, 6, 1) >= '6') THEN ARRAY[digits, left(digits, 4) || substr(digits, 6)]
    WHEN digits ~ '^55[1-9][0-9][6-9][0-9]{7}$' THEN ARRAY[digits, left(digits, 4) || '9' || substr(digits, 5)]
    WHEN digits ~ '^521[0-9]{10}$' THEN ARRAY[digits, '52' || substr(digits, 4)]
    WHEN digits ~ '^52[2-9][0-9]{9}$' THEN ARRAY[digits, '521' || substr(digits, 3)]
    WHEN digits ~ '^549[0-9]{10}$' THEN ARRAY[digits, '54' || substr(digits, 4)]
    WHEN digits ~ '^54[1-8][0-9]{9}$' THEN ARRAY[digits, '549' || substr(digits, 3)]
    ELSE ARRAY[digits] END $$;
COMMENT ON FUNCTION wagate_spellings(text) IS 'A number''s digits, and how else the same mobile number is written.';

CREATE TABLE user_ids (
    user_id text PRIMARY KEY,
    wa_id   text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX user_ids_wa_id ON user_ids (wa_id);
CREATE INDEX user_ids_seen ON user_ids (seen_at);
COMMENT ON TABLE user_ids IS 'Business-scoped user ids and the number that webhooks have shown beside them; forgotten when not seen for two months.';
COMMENT ON COLUMN user_ids.seen_at IS 'When they were seen together last, to the day; of a suppressed user, whose row stays, when that was looked at last.';

-- In PL/pgSQL, which keeps its plans: it runs for every marketing message. The plans may be made while the tables are empty.
CREATE FUNCTION wagate_user_keys(key text) RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS
$$
DECLARE
    keys text[] := wagate_spellings(key);
    meant text[];
    one text;
BEGIN
    SELECT array_agg(m.wa_id) INTO meant FROM (
        SELECT w.wa_id FROM wa_ids w WHERE w.input = ANY(keys)
        UNION ALL SELECT u.wa_id FROM user_ids u WHERE u.user_id = key
    ) m;
    IF meant IS NOT NULL THEN
        FOREACH one IN ARRAY meant LOOP
            keys := keys || wagate_spellings(one);
        END LOOP;
    END IF;
    -- Back from a number to how callers write it, by an index that the gateways may still be building after an upgrade.
    IF EXISTS (SELECT FROM pg_index x WHERE x.indexrelid = to_regclass('wa_ids_wa_id') AND x.indisvalid) THEN
        keys := keys || ARRAY(SELECT w.input FROM wa_ids w WHERE w.wa_id = ANY(keys));
    END IF;
    RETURN keys || ARRAY(SELECT u.user_id FROM user_ids u WHERE u.wa_id = ANY(keys));
END
$$;
COMMENT ON FUNCTION wagate_user_keys(text) IS 'Everything one user is known by: digits under every spelling, business-scoped user ids.';

-- An operator's entry must outlive the user's resume, so each source has a row of its own. The table is small: some
-- thousand rows are locked for an instant.
ALTER TABLE suppressions
    ADD COLUMN id        uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN source    text NOT NULL DEFAULT 'meta',
    ADD COLUMN said_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN lifted_at timestamptz;
UPDATE suppressions SET said_at = created_at, source = CASE WHEN code IS NULL AND reason = 'stop' THEN 'preference' ELSE 'meta' END;
ALTER TABLE suppressions DROP CONSTRAINT suppressions_pkey, ADD PRIMARY KEY (waba_id, wa_id, category, source);
CREATE UNIQUE INDEX suppressions_id ON suppressions (id);
CREATE INDEX suppressions_user ON suppressions (wa_id);
CREATE INDEX suppressions_lifted ON suppressions (lifted_at) WHERE lifted_at IS NOT NULL;
CREATE INDEX suppressions_until ON suppressions (until) WHERE until IS NOT NULL;
COMMENT ON COLUMN suppressions.wa_id IS 'Digits, or a business-scoped user id; read under everything the user is known by.';
COMMENT ON COLUMN suppressions.source IS 'preference (stop in WhatsApp), keyword (the user wrote it), meta (131050, 131049), operator.';
COMMENT ON COLUMN suppressions.said_at IS 'When that was said, by Meta''s clock: of two words the newer counts, in whatever order they come.';
COMMENT ON COLUMN suppressions.lifted_at IS 'When it was lifted; the row stays for a while, so that an older word that comes late changes nothing.';

CREATE TABLE waba_keywords (
    waba_id text PRIMARY KEY REFERENCES wabas ON DELETE CASCADE,
    opt_out jsonb NOT NULL DEFAULT '{}',
    opt_in  jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE waba_keywords IS 'Words by which users end and take up marketing, by language: {"en": ["STOP"]}.';

-- The evidence for "known closed".
CREATE TABLE listening (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since    timestamptz NOT NULL,
    at       timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE listening IS 'Since when at least one gateway has taken webhooks, without a break of more than two minutes; beaten every half minute.';

CREATE TABLE phone_spans (
    phone_number_id text PRIMARY KEY,
    since           timestamptz NOT NULL,
    at              timestamptz NOT NULL,
    nameless_at     timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE phone_spans IS 'Since when the webhooks of a phone number have come without a gap, and the newest, by some seconds.';
COMMENT ON COLUMN phone_spans.since IS 'Begins anew after a long silence, a notification that came late, or an accepted message of which nothing was heard.';
COMMENT ON COLUMN phone_spans.nameless_at IS 'When a user wrote whose number nobody here knows: who it was is open.';

ALTER TABLE messages
    ADD COLUMN fallback_template text,
    ADD COLUMN fallback_language text,
    ADD COLUMN fallback_category text,
    ADD COLUMN fallback_from     text,
    ADD COLUMN fallback_at       timestamptz;
COMMENT ON COLUMN messages.fallback_template IS 'Name of gateway.fallback_template, which stands in the body: what goes instead where the service window is closed.';
COMMENT ON COLUMN messages.fallback_at IS 'When the message became its fallback template: type, template and category are the template''s since, fallback_from is the type before.';
