-- Media that callers hand in once and name by our ids. The files lie in a blob store (WAGATE_MEDIA); here is what they are
-- and where Meta has them. Nothing here is a partition of a day: a media lives until it is deleted.

CREATE TABLE media (
    id         uuid PRIMARY KEY,
    owner      text NOT NULL,
    key_id     uuid,
    sha256     bytea NOT NULL,
    mime_type  text NOT NULL,
    size       bigint NOT NULL,
    filename   text NOT NULL DEFAULT '',
    blob       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (owner, sha256, mime_type)
);
CREATE INDEX media_used ON media (used_at);
COMMENT ON COLUMN media.owner IS 'Name of the API key that handed it in, as of idempotency keys: a rotated key of the same name still has it.';
COMMENT ON COLUMN media.blob IS 'Key of its file in the blob store; no two rows share one, so that a file goes with its row.';
COMMENT ON COLUMN media.used_at IS 'When it was handed in or a message that names it was accepted last, to the hour.';

CREATE TABLE media_uploads (
    media_id        uuid NOT NULL REFERENCES media ON DELETE CASCADE,
    phone_number_id text NOT NULL,
    meta_id         text NOT NULL,
    uploaded_at     timestamptz NOT NULL,
    refused_at      timestamptz,
    PRIMARY KEY (media_id, phone_number_id)
);
COMMENT ON TABLE media_uploads IS 'Under which id Meta has a media at a phone number. Meta keeps it for 30 days; it is used for 29.';
COMMENT ON COLUMN media_uploads.refused_at IS 'When Meta last could not use an id it had given; after uploaded_at: the id is of no more use.';

CREATE TABLE media_uses (
    message_id uuid NOT NULL,
    media_id   uuid NOT NULL REFERENCES media ON DELETE CASCADE,
    renewed    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (message_id, media_id)
);
CREATE INDEX media_uses_media ON media_uses (media_id, message_id);
COMMENT ON TABLE media_uses IS 'Which messages name which media, until a message has ended: rows of ended ones are swept.';
COMMENT ON COLUMN media_uses.renewed IS 'The media was put up once more for this message, which is done once.';

CREATE TABLE media_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id  uuid NOT NULL
);
COMMENT ON TABLE media_store IS 'The mark that lies in the blob store too: a process whose WAGATE_MEDIA is another store does not start.';

COMMENT ON COLUMN holds.kind IS 'pair, ordering, window, recipients (of a portfolio), recipient (marketing to one), template, flow, tag, key, priority, media (its upload).';
