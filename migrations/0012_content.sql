-- What is forgotten before its row goes (content, recipients), and the indexes of the search over messages.

ALTER TABLE messages
    ADD COLUMN redacted_at    timestamptz,
    ADD COLUMN recipient_hash bytea;
COMMENT ON COLUMN messages.redacted_at IS 'When the content was removed before its row; null: it was not.';
COMMENT ON COLUMN messages.recipient_hash IS 'Set when recipient was masked: what report.messages gives as recipient_hash. wa_id, ordering_key and opaque are null then, and the wamid is no more.';

-- Whether a message that is in a status needs its content no more: nothing sends it again but a resend by hand, which is then
-- refused. That of an authentication message goes at once, whatever the settings say.
CREATE FUNCTION wagate_content_ends(status text, category text, pricing_category text, at_final boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT status IN ('delivered', 'read', 'played', 'failed', 'expired', 'cancelled')
       AND (at_final OR coalesce(category = 'authentication', false) OR coalesce(starts_with(pricing_category, 'authentication'), false)) $$;

-- The recipient as report.messages hashes it, and as it shows it.
CREATE FUNCTION wagate_recipient_who(recipient text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN recipient ~ '^\+?[0-9 ().-]+$' THEN regexp_replace(recipient, '[^0-9]', '', 'g') ELSE recipient END;
CREATE FUNCTION wagate_recipient_masked(recipient text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN recipient !~ '^\+?[0-9 ().-]+$' THEN '***' || CASE WHEN length(recipient) > 8 THEN right(recipient, 2) ELSE '' END
                WHEN length(regexp_replace(recipient, '[^0-9]', '', 'g')) <= 6 THEN repeat('*', length(regexp_replace(recipient, '[^0-9]', '', 'g')))
                ELSE regexp_replace(regexp_replace(recipient, '[^0-9]', '', 'g'), '^(..)(.*)(..)$',
                         '\1' || repeat('*', length(regexp_replace(recipient, '[^0-9]', '', 'g')) - 4) || '\3') END;

-- What the search finds a recipient by: digits and letters, in any spelling; when it was masked, the beginning of its hash.
CREATE FUNCTION wagate_recipient_key(recipient text, hash bytea) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN hash IS NULL THEN translate(recipient, '+ ().-', '') ELSE left(encode(hash, 'hex'), 24) END $$;

CREATE TABLE redactions (
    name       text PRIMARY KEY,
    done_to    uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE redactions IS 'How far messages have been looked at, in the order of their ids, by what is removed: content, authentication, recipient. A run that breaks off goes on from there.';
CREATE TABLE redactions_open (
    name       text NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (name, message_id)
);
COMMENT ON TABLE redactions_open IS 'Messages that were passed by because they may still be sent: they are looked at again in each run.';

-- report.messages says the same of a recipient before and after it was masked.
CREATE OR REPLACE VIEW report_facts AS
SELECT m.id, m.phone_number_id, m.waba_id, m.key_id, m.recipient, m.type, m.status, m.priority, m.category, m.template_name, m.template_language,
       m.reference, m.tags, m.tags ->> 'campaign' AS campaign, m.on_unknown, m.resend_of, m.try, m.created_at, m.send_at, m.expires_at,
       m.accepted_at, m.sent_at, m.delivered_at, m.read_at, m.played_at, m.failed_at, m.failed_by_meta, m.unknown_at, m.unknown_reason,
       m.error_code, m.error_subcode, m.error_title, m.error_scope,
       m.pricing_billable, m.pricing_model, m.pricing_type, m.pricing_category,
       e.is_read, e.is_read OR e.is_delivered AS is_delivered, e.is_read OR e.is_delivered OR e.is_sent AS is_sent,
       e.is_read OR e.is_delivered OR e.is_sent OR e.is_accepted AS is_accepted, m.recipient_hash
FROM messages m
CROSS JOIN LATERAL (SELECT
    m.status IN ('read', 'played') OR m.read_at IS NOT NULL OR m.played_at IS NOT NULL AS is_read,
    m.status = 'delivered' OR m.delivered_at IS NOT NULL AS is_delivered,
    m.status = 'sent' OR m.sent_at IS NOT NULL AS is_sent,
    m.status = 'accepted' OR m.accepted_at IS NOT NULL OR m.wamid IS NOT NULL OR m.failed_by_meta AS is_accepted) e
WHERE m.id >= report.since_id() AND m.id < report.until_id()
  AND m.created_at >= coalesce(nullif(current_setting('report.since', true), '')::timestamptz, '-infinity')
  AND m.created_at < coalesce(nullif(current_setting('report.until', true), '')::timestamptz, 'infinity');
CREATE OR REPLACE VIEW report.messages AS
SELECT f.id, f.phone_number_id, f.waba_id, f.key_id,
       CASE WHEN f.recipient_hash IS NULL THEN wagate_recipient_masked(f.recipient) ELSE f.recipient END AS recipient_masked,
       encode(CASE WHEN f.recipient_hash IS NULL
                   THEN sha256((SELECT s.hash_key FROM report_settings s) || convert_to(wagate_recipient_who(f.recipient), 'UTF8'))
                   ELSE f.recipient_hash END, 'hex') AS recipient_hash,
       f.type, f.status,
       CASE f.priority WHEN 1 THEN 'urgent' WHEN 2 THEN 'high' WHEN 3 THEN 'normal' WHEN 4 THEN 'low' END AS priority,
       f.category, f.template_name AS template, f.template_language, f.campaign, f.reference, f.tags, f.on_unknown, f.resend_of,
       f.try AS tries, f.created_at, f.send_at, f.expires_at, f.accepted_at, f.sent_at, f.delivered_at, f.read_at, f.played_at,
       f.failed_at, f.unknown_at, f.unknown_reason,
       f.is_accepted AS accepted, f.is_sent AS sent, f.is_delivered AS delivered, f.is_read AS read,
       f.error_code, f.error_subcode, f.error_title, f.error_scope,
       CASE WHEN f.status = 'failed' THEN CASE WHEN f.failed_by_meta THEN 'meta' ELSE 'gateway' END END AS failed_by,
       f.pricing_billable, f.pricing_model, f.pricing_type, f.pricing_category
FROM report_facts f;

-- The indexes of the search. On the parents alone: partitions made from now on have them from the start, those that are there
-- and small get them here, and a gateway builds those of the large ones in the background, without a lock on their writers.
-- None of them holds anything that changes in a message that goes well, so that its updates stay within their pages.
CREATE INDEX messages_to ON ONLY messages (wagate_recipient_key(recipient, recipient_hash), id);
CREATE INDEX messages_from ON ONLY messages (phone_number_id, id);
CREATE INDEX messages_reference ON ONLY messages (reference, id) WHERE reference IS NOT NULL;
CREATE INDEX messages_tags ON ONLY messages USING gin (tags jsonb_path_ops) WITH (fastupdate = off) WHERE tags IS NOT NULL;
CREATE INDEX messages_failed ON ONLY messages (id) WHERE failed_at IS NOT NULL;
CREATE INDEX messages_unknown ON ONLY messages (id) WHERE unknown_at IS NOT NULL;

CREATE VIEW wagate_search_missing AS
SELECT p.relname::text AS index_name, c.relname::text AS partition, c.relname || substr(p.relname, length('messages') + 1) AS part,
       regexp_replace(pg_get_indexdef(p.oid), '^CREATE INDEX \S+ ON ONLY \S+', '') AS definition,
       pg_relation_size(c.oid) AS bytes, c.relname = 'messages_default' AS is_default
FROM pg_class p JOIN pg_index x ON x.indexrelid = p.oid AND x.indrelid = 'messages'::regclass
JOIN pg_inherits h ON h.inhparent = x.indrelid JOIN pg_class c ON c.oid = h.inhrelid
WHERE p.relname IN ('messages_to', 'messages_from', 'messages_reference', 'messages_tags', 'messages_failed', 'messages_unknown')
  AND NOT EXISTS (SELECT FROM pg_inherits k JOIN pg_index y ON y.indexrelid = k.inhrelid WHERE k.inhparent = p.oid AND y.indrelid = c.oid);
COMMENT ON VIEW wagate_search_missing IS 'Partitions of messages that lack an index of the search: empty once the gateways have built them.';

DO $make$
DECLARE
    r record;
BEGIN
    -- Within a second: the parent is locked meanwhile.
    FOR r IN SELECT * FROM (
        SELECT m.*, sum(bytes) OVER (ORDER BY bytes, part) AS so_far FROM wagate_search_missing m
    ) m WHERE bytes < 8000000 AND so_far < 64000000 LOOP
        EXECUTE format('CREATE INDEX %I ON %I%s', r.part, r.partition, r.definition);
        EXECUTE format('ALTER INDEX %I ATTACH PARTITION %I', r.index_name, r.part);
    END LOOP;
    IF pg_relation_size('wa_ids') < 8000000 THEN
        CREATE INDEX wa_ids_wa_id ON wa_ids (wa_id);
    END IF;
END
$make$;
