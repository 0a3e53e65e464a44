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
COMMENT ON COLUMN messages.settle_waits IS 'Why the deadline of an unknown try was put off: webhooks_waiting, webhooks_silent, webhooks_late, held_by_meta; null: it was not.';

-- What waits or is being sent, and has neither a job nor a hold: nothing of ours leaves a message so, but a job can be
-- cancelled or deleted by hand, or by a tool for River. A function, not a view, so that River's migrations do not meet it. It
-- reads the messages of a range of ids, a day at a time.
CREATE FUNCTION wagate_stranded(from_id uuid, to_id uuid, older interval, up_to integer)
    RETURNS TABLE (id uuid, phone_number_id text, priority smallint, status text, try integer, send_at timestamptz)
    LANGUAGE plpgsql STABLE AS
$$
BEGIN
    RETURN QUERY
    SELECT m.id, m.phone_number_id, m.priority, m.status, m.try, m.send_at
    FROM messages m
    WHERE m.id >= from_id AND m.id < to_id AND m.status IN ('queued', 'sending') AND m.created_at < clock_timestamp() - older
      AND NOT EXISTS (SELECT FROM holds h WHERE h.message_id = m.id)
      AND NOT EXISTS (
          SELECT FROM river_job j
          WHERE j.kind = 'send' AND j.state IN ('available', 'running', 'retryable', 'scheduled', 'pending') AND (j.args ->> 'id')::uuid = m.id)
    ORDER BY m.id LIMIT up_to;
END
$$;

CREATE TABLE chores (
    name    text PRIMARY KEY,
    done_at timestamptz NOT NULL
);
COMMENT ON TABLE chores IS 'When work that one process does for all was begun last.';
