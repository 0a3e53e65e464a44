-- Message templates as Meta has told of them: by its list, read a few times an hour, and by its webhooks.
CREATE TABLE templates (
    waba_id          text NOT NULL REFERENCES wabas ON DELETE CASCADE,
    name             text NOT NULL,
    language         text NOT NULL,
    meta_id          text,
    status           text NOT NULL,
    status_at        timestamptz NOT NULL,
    reason           text,
    approved_at      timestamptz,
    category         text,
    category_at      timestamptz,
    next_category    text,
    next_category_at timestamptz,
    next_said_at     timestamptz,
    quality          text,
    quality_at       timestamptz,
    quality_before   text,
    parameter_format text,
    components       json,
    components_at    timestamptz,
    doubted_at       timestamptz,
    first_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    listed_at        timestamptz,
    missed_at        timestamptz,
    gone_at          timestamptz,
    PRIMARY KEY (waba_id, name, language)
);
COMMENT ON TABLE templates IS 'Message templates, a row a language, by Meta''s last word of each part: what is older never goes over what is newer.';
COMMENT ON COLUMN templates.status IS 'Meta''s word: APPROVED, PENDING, REJECTED, PAUSED, DISABLED, … as listed or as the event of a webhook.';
COMMENT ON COLUMN templates.status_at IS 'Of when the word is: the time of the webhook''s entry, or somewhat before the list was read. So with category_at and quality_at.';
COMMENT ON COLUMN templates.approved_at IS 'When it was first seen with a status that only an approved template has: one that is PENDING again is being edited.';
COMMENT ON COLUMN templates.next_category IS 'The category that Meta has announced (at next_said_at), from next_category_at on.';
COMMENT ON COLUMN templates.quality_before IS 'The quality before the one there is, while that one is lower.';
COMMENT ON COLUMN templates.components IS 'As Meta lists them; null: not known. json, not jsonb: it keeps what Meta said, and any character.';
COMMENT ON COLUMN templates.components_at IS 'When the list was asked for that the components come from; they count for nothing once doubted_at is later.';
COMMENT ON COLUMN templates.doubted_at IS 'When a webhook told last of what may have changed the components.';
COMMENT ON COLUMN templates.listed_at IS 'When a list had it last; null: only webhooks have told of it.';
COMMENT ON COLUMN templates.missed_at IS 'When a whole list did not have it; gone_at: and it is taken for deleted.';

CREATE TABLE template_syncs (
    waba_id       text PRIMARY KEY REFERENCES wabas ON DELETE CASCADE,
    version       bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    synced_at     timestamptz,
    read_at       timestamptz,
    complete      boolean NOT NULL DEFAULT false,
    pages         integer NOT NULL DEFAULT 1,
    next_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    wanted_at     timestamptz,
    stale_at      timestamptz,
    claimed_until timestamptz,
    tried_at      timestamptz,
    failures      integer NOT NULL DEFAULT 0,
    problem       text
);
COMMENT ON TABLE template_syncs IS 'How well the templates of a WABA are known. Whoever changes one of them locks this row first and raises the version.';
COMMENT ON COLUMN template_syncs.version IS 'Raised by every change: caches look at nothing else. It begins with the time, so that a WABA that comes back has another.';
COMMENT ON COLUMN template_syncs.synced_at IS 'When the last complete list was asked for; read_at: when the last list was read, complete or not.';
COMMENT ON COLUMN template_syncs.complete IS 'Whether the last list was read to its end.';
COMMENT ON COLUMN template_syncs.next_at IS 'When the list is read again if nothing asks for it before; wanted_at: since when something does.';
COMMENT ON COLUMN template_syncs.stale_at IS 'When templates were last written through the gateway: nothing is refused by what was read before.';
COMMENT ON COLUMN template_syncs.claimed_until IS 'A process is reading the list, until then at most.';
