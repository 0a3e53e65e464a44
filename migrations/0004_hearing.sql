-- Whether the webhooks of a phone number arrive, and whether Meta holds messages of a template: the deadline of an unknown
-- try is put off meanwhile.
CREATE TABLE phone_hearings (
    phone_number_id text PRIMARY KEY,
    heard_at        timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE phone_hearings IS 'When a status webhook of a phone number was last received, by half a second: silence is told from a lost message by it.';

CREATE TABLE held_by_meta (
    phone_number_id text NOT NULL,
    template_name   text NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (phone_number_id, template_name)
);
COMMENT ON TABLE held_by_meta IS 'When Meta last took a message in and held it back (held_for_quality_assessment, paused): its statuses then come late. No name: no template.';

ALTER TABLE messages
    ADD COLUMN settle_waits text,
    ADD COLUMN settle_resends smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN messages.settle_resends IS 'New tries that on_unknown = resend has asked for at deadlines; after two the message is held.';
COMMENT ON COLUMN messages.settle_waits IS 'Why the deadline of an unknown try was put off: webhooks_waiting, webhooks_silent, held_by_meta; null: it was not.';
