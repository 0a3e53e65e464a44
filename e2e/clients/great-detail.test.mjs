// @great-detail/whatsapp, which goes on from Meta's own SDK for Node, with its option baseUrl. Its release 9.2.0 leaves the
// version out of every path but with a slash behind it: the gateway takes both. Its errors are those of ky, which it is built on.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import Client, { MessageType } from "@great-detail/whatsapp";
import { delivered, downloaded, from, key, message, number, picture, reaches, recipients, tooLong, url, wrongKey } from "./lib.mjs";

const connect = (token, more) => new Client({ baseUrl: url, request: { headers: { Authorization: `Bearer ${token}` } }, ...more });
const sdk = connect(key);
const next = recipients(5001);
const link = "https://example.com/file";

const create = (input, client = sdk) => client.message.createMessage({ phoneNumberID: from, ...input }).json();

function sends(name, type, input, client) {
  test(name, async () => {
    const to = input.to ?? next();
    await delivered(await create({ to, type, ...input }, client), type, number(to));
  });
}

async function refused(promise, status, code) {
  const e = await promise.then(assert.fail, (err) => err);
  assert.equal(e.name, "HTTPError", String(e));
  assert.deepEqual([e.response.status, e.data?.error?.code], [status, code]);
  return e.data.error;
}

const interactive = {
  "list": { header: { type: "text", text: "Times" }, body: { text: "Choose a time" }, footer: { text: "a footer" }, action: { button: "Times", sections: [{ title: "Morning", rows: [{ id: "9", title: "9:00" }] }] } },
  "button": { body: { text: "Choose" }, action: { buttons: [{ type: "reply", reply: { id: "yes", title: "Yes" } }] } },
  "cta_url": { body: { text: "See the dates" }, action: { name: "cta_url", parameters: { display_text: "See dates", url: "https://example.com/dates" } } },
  "flow": { body: { text: "Book a time" }, action: { name: "flow", parameters: { flow_message_version: "3", flow_id: "1", flow_cta: "Book" } } },
  "product": { body: { text: "Look" }, action: { catalog_id: "1", product_retailer_id: "SKU-1" } },
  "product_list": { header: { type: "text", text: "Shop" }, body: { text: "Look" }, action: { catalog_id: "1", sections: [{ title: "New", product_items: [{ product_retailer_id: "SKU-1" }] }] } },
  "catalog_message": { body: { text: "Our catalog" }, action: { name: "catalog_message", parameters: { thumbnail_product_retailer_id: "SKU-1" } } },
  "location_request_message": { body: { text: "Where are you?" }, action: { name: "send_location" } },
};

suite("@great-detail/whatsapp", { concurrency: true }, () => {
  sends("text", MessageType.Text, { text: { body: "hello", preview_url: true } });
  sends("text to a number with +", MessageType.Text, { to: "+16505555900", text: { body: "hello" } });
  sends("text, with a version in the path", MessageType.Text, { text: { body: "hello" } }, connect(key, { graphVersion: "v23.0/" }));
  sends("image", MessageType.Image, { image: { link, caption: "a caption" } });
  sends("audio", MessageType.Audio, { audio: { id: "1234567890" } });
  sends("video", MessageType.Video, { video: { link } });
  sends("document", MessageType.Document, { document: { link, filename: "invoice.pdf" } });
  sends("sticker", MessageType.Sticker, { sticker: { id: "1234567890" } });
  sends("location", MessageType.Location, { location: { latitude: 37.48, longitude: -122.15, name: "Office", address: "1 Main Street" } });
  sends("contacts", MessageType.Contacts, {
    contacts: [{ name: { formatted_name: "Support Desk", first_name: "Support" }, phones: [{ phone: "+16505551234", type: "WORK", wa_id: "16505551234" }], addresses: [{ type: "WORK", city: "Menlo Park" }] }],
  });
  for (const [type, object] of Object.entries(interactive)) sends(`interactive ${type}`, MessageType.Interactive, { interactive: { type, ...object } });
  sends("template", MessageType.Template, {
    template: {
      name: "test_1", language: { code: "en_US" }, components: [{
        type: "body", parameters: [
          { type: "text", text: "Example" }, { type: "currency", currency: { fallback_value: "£100", code: "GBP", amount_1000: 100_000 } }, { type: "date_time", date_time: { fallback_value: "2026-01-01" } },
        ],
      }],
    },
  });
  sends("template with a button", MessageType.Template, {
    template: { name: "test_2", language: { code: "en_US" }, components: [{ type: "header", parameters: [{ type: "document", document: { link } }] }, { type: "button", sub_type: "quick_reply", index: 0, parameters: [{ type: "payload", payload: "STOP" }] }] },
  });

  test("a reply, a reaction and a receipt by the id of an answer", async () => {
    const to = next();
    const { messages: [{ id }] } = await create({ to, type: MessageType.Text, text: { body: "first" } });
    await delivered(await create({ to, type: MessageType.Text, text: { body: "second" }, context: { message_id: id } }), "text", number(to));
    const reaction = await create({ to, type: MessageType.Reaction, reaction: { message_id: id, emoji: "😀" } });
    await delivered(reaction, "reaction", number(to), "sent"); // Meta tells no more of a reaction
    assert.deepEqual(await sdk.message.createStatus({ phoneNumberID: from, message_id: id, status: "read" }).json(), { success: true });
  });
  test("mark read, with a typing indicator", async () => {
    const answer = await sdk.message.createStatus({ phoneNumberID: from, message_id: "wamid.HBgLMTY1MDUwNzY1MjAVAgARGBI5QTND", status: "read", typing_indicator: { type: "text" } });
    assert.deepEqual(await answer.json(), { success: true });
  });
  test("wait for Meta's own id", async () => {
    const answer = await create({ to: next(), type: MessageType.Text, text: { body: "hello" }, request: { headers: { Prefer: "wait=20" } } });
    assert.match(answer.messages[0].id, /^wamid\./);
  });
  test("an idempotency key", async () => {
    const input = { to: next(), type: MessageType.Text, text: { body: "hello" }, request: { headers: { "Idempotency-Key": "order 1" } } };
    const answers = [await create(input), await create(input)];
    assert.equal(answers[0].messages[0].id, answers[1].messages[0].id);
    await reaches(answers[0].messages[0].id, "delivered");
  });

  test("a picture that is uploaded, sent by its id, downloaded and deleted", async () => {
    const { id } = await sdk.media.upload({ phoneNumberID: from, file: new Blob([picture], { type: "image/png" }), filename: "dot.png", mimeType: "image/png" }).json();
    assert.match(id, /^\d+$/);
    const to = next();
    await delivered(await create({ to, type: MessageType.Image, image: { id } }), "image", number(to));
    const media = await sdk.media.getURL({ mediaID: id }).json();
    const file = await sdk.media.download({ mediaURL: media.url, request: { headers: { Authorization: `Bearer ${key}` } } });
    downloaded(await file.arrayBuffer(), media, id);
    assert.deepEqual(await sdk.media.delete({ mediaID: id, phoneNumberID: from }).json(), { success: true });
    await refused(sdk.media.getURL({ mediaID: id }).json(), 404, 100);
  });

  test("reads of a phone number and of its account are forwarded", async () => {
    const number = await sdk.phoneNumbers.getPhoneNumber({ phoneNumberID: from, fields: ["id", "display_phone_number"] }).json();
    assert.deepEqual(number, { id: from, display_phone_number: "+1 202-555-0100" });
    const { messages: [{ id }] } = await create({ to: next(), type: MessageType.Text, text: { body: "hello" } });
    const { waba_id: waba } = await message(id);
    assert.equal((await sdk.whatsappBusinessAccount.get(waba).json()).id, waba);
    assert.deepEqual((await sdk.phoneNumbers.listPhoneNumbers({ businessAccountID: waba, fields: ["id"] }).json()).data, [{ id: from }]);
  });

  test("a text that is too long is the client's error, with Meta's code", async () => {
    const error = await refused(create({ to: next(), type: MessageType.Text, text: { body: tooLong } }), 400, 100);
    assert.match(error.error_data.details, /\/text\/body.*4096/);
  });
  test("so is a wrong key", () => refused(create({ to: next(), type: MessageType.Text, text: { body: "hello" } }, connect(wrongKey)), 401, 190));
  test("so is a phone number that is not there", async () => {
    const error = await refused(create({ phoneNumberID: "299999999999999", to: next(), type: MessageType.Text, text: { body: "hello" } }), 400, 100);
    assert.equal(error.error_subcode, 33);
  });
  test("so is what Meta refuses while the client waits", async () => {
    await refused(create({ to: "16505550001", type: MessageType.Text, text: { body: "hello" }, request: { headers: { Prefer: "wait=20" } } }), 400, 131026);
  });
});
