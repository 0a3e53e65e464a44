-- How the Cloud API ingress answers for a WABA's numbers, and to which endpoint of Meta's a message goes.
ALTER TABLE wabas
    ADD COLUMN ingress_answer            text NOT NULL DEFAULT 'id',
    ADD COLUMN ingress_wait_seconds      integer NOT NULL DEFAULT 10,
    ADD COLUMN opaque_as_idempotency_key boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN wabas.ingress_answer IS 'What POST /{phone}/messages of the Cloud API ingress answers with: id, the gateway''s, at once; wamid, Meta''s, when it comes in time.';
COMMENT ON COLUMN wabas.ingress_wait_seconds IS 'How long such an answer waits for the wamid.';
COMMENT ON COLUMN wabas.opaque_as_idempotency_key IS 'Whether biz_opaque_callback_data is the idempotency key of a message at the ingress that has no other.';

ALTER TABLE messages
    ADD COLUMN api text;
COMMENT ON COLUMN messages.api IS 'The endpoint of Meta''s it goes to: marketing_messages; null for messages.';
