-- Which WABA an id of the Graph API belongs to (a media, template, flow, upload session …), as answers and webhooks have
-- shown it: calls that name such an id are made with the token of that WABA.
CREATE TABLE graph_ids (
    id              text PRIMARY KEY,
    waba_id         text NOT NULL,
    phone_number_id text,
    kind            text NOT NULL,
    seen_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX graph_ids_seen ON graph_ids (seen_at);
COMMENT ON TABLE graph_ids IS 'Ids of the Graph API that the gateway has seen, and whose they are; forgotten when not seen for a month.';
COMMENT ON COLUMN graph_ids.waba_id IS 'The first WABA it was seen with: an answer does not move an id (a webhook may), or a caller could take another''s.';
COMMENT ON COLUMN graph_ids.seen_at IS 'When it was seen or used last, to the day.';
COMMENT ON COLUMN graph_ids.phone_number_id IS 'The phone number an id is of (media); null for what belongs to the whole WABA.';
COMMENT ON COLUMN graph_ids.kind IS 'media, template, flow, upload, phone (a number that is not set up here), history.';
