// What the scripts of the clients share: where the gateway is, recipients, and what became of a message.
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

export const url = process.env.WAGATE_URL;
export const key = process.env.WAGATE_KEY;
export const from = process.env.WAGATE_FROM;
assert.ok(url && key && from, "WAGATE_URL, WAGATE_KEY and WAGATE_FROM are needed: node run.mjs sets them");

const deadline = 30_000; // ms, far more than it takes

/** Gives numbers that no other message goes to; first is four digits, of which the simulator treats 0001 to 0019 its own way. */
export function recipients(first) {
  return () => `1650555${first++}`;
}

/** What the gateway says of a message. */
export async function message(id) {
  const answer = await fetch(`${url}/v1/messages/${id}`, { headers: { Authorization: `Bearer ${key}` } });
  assert.equal(answer.status, 200, `GET /v1/messages/${id}`);
  return answer.json();
}

/** Waits until a message has the status, and fails when it has ended with another. */
export async function reaches(id, status) {
  const until = Date.now() + deadline;
  for (;;) {
    const m = await message(id);
    if (m.status === status) return m;
    assert.ok(!["failed", "expired", "cancelled", "unknown"].includes(m.status), `${id} is ${m.status}, wanted ${status}: ${JSON.stringify(m.error)}`);
    assert.ok(Date.now() < until, `${id} is still ${m.status}, wanted ${status}`);
    await pause(100);
  }
}

/** Checks an answer in Meta's shape, its keys as Meta writes them, and that the message is delivered as what it is. */
export async function delivered(answer, type, contact, status = "delivered") {
  assert.equal(answer.messaging_product, "whatsapp");
  assert.deepEqual(answer.contacts, [contact]);
  assert.equal(answer.messages.length, 1);
  const [{ id }] = answer.messages;
  assert.match(id, /^[0-9a-f-]{36}$/);
  const m = await reaches(id, status);
  assert.equal(m.type, type);
  assert.equal(m.from, from);
  assert.equal(m.to, contact.input);
  assert.match(m.wamid, /^wamid\./);
  return m;
}

/** The contact of an answer to a message to a number. */
export const number = (to) => ({ input: to, wa_id: to.replaceAll(/\D/g, "") });

/** A picture of one dot: what clients upload, and get back byte for byte. */
export const picture = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==", "base64");

/** Checks that a media is what was uploaded, by its bytes as they came and where they came from. */
export function downloaded(bytes, media, id) {
  assert.equal(media.id, id);
  assert.ok(media.url.startsWith(`${url}/v`), `${media.url} is at the gateway`);
  assert.equal(media.mime_type, "image/png");
  assert.deepEqual(Buffer.from(bytes), picture);
}

/** A text that no Cloud API takes, which the clients do not look at. */
export const tooLong = "x".repeat(4097);
export const wrongKey = "wg_dev_00000000000000000000000000000000";
