// @whatsapp-cloudapi/client, with baseUrl in each call.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import * as client from "@whatsapp-cloudapi/client";
import { delivered, downloaded, from, key, number, picture, recipients, tooLong, url, wrongKey } from "./lib.mjs";

const at = { baseUrl: url, accessToken: key, from };
const next = recipients(4001);

function sends(name, type, method, input) {
  test(name, async () => {
    const to = input.to ?? next();
    await delivered(await client[method]({ ...at, to, ...input }), type, number(to));
  });
}

/** The client throws an Error of no class of its own, with Meta's answer as JSON behind its words. */
async function refused(promise, code) {
  const e = await promise.then(assert.fail, (err) => err);
  const [, words, json] = /^(WhatsApp API Error): (\{.*\})$/s.exec(e.message) ?? [];
  assert.ok(e instanceof Error && words, String(e));
  const { error } = JSON.parse(json);
  assert.equal(error.code, code);
  assert.ok(error.message && error.type && error.fbtrace_id);
  return error;
}

const buttons = [{ id: "yes", title: "Yes" }, { id: "no", title: "No" }];

suite("@whatsapp-cloudapi/client", { concurrency: true }, () => {
  sends("text", "text", "sendTextMessage", { text: "hello https://example.com", previewUrl: true, bizOpaqueCallbackData: "order 1" });
  sends("text to a number with +", "text", "sendTextMessage", { to: "+16505554900", text: "hello" });
  sends("image", "image", "sendImageMessage", { mediaId: "1234567890", caption: "a caption" });
  sends("buttons", "interactive", "sendButtonsMessage", { bodyText: "Choose", buttons, headerText: "A header", footerText: "a footer" });
  sends("buttons below an image", "interactive", "sendButtonsMessage", { bodyText: "Choose", buttons, headerImage: { id: "1234567890" } });
  sends("buttons below a video", "interactive", "sendButtonsMessage", { bodyText: "Choose", buttons, headerVideo: { id: "1234567890" } });
  sends("buttons below a document", "interactive", "sendButtonsMessage", { bodyText: "Choose", buttons, headerDocument: { id: "1234567890", filename: "terms.pdf" } });
  sends("CTA URL", "interactive", "sendCTAURLMessage", { bodyText: "See the dates", buttonText: "See dates", url: "https://example.com/dates", headerText: "Dates", footerText: "a footer" });
  sends("CTA URL below an image", "interactive", "sendCTAURLMessage", { bodyText: "See the dates", buttonText: "See dates", url: "https://example.com/dates", headerImage: { id: "1234567890" } });
  sends("list", "interactive", "sendListMessage", {
    bodyText: "Choose a time", buttonText: "Times", headerText: "Times", footerText: "a footer",
    sections: [{ title: "Morning", rows: [{ id: "9", title: "9:00", description: "early" }] }, { title: "Evening", rows: [{ id: "18", title: "18:00" }] }],
  });
  sends("flow that navigates", "interactive", "sendFlowMessage", {
    bodyText: "Book a time", flowToken: "FT_1", flowId: "1", flowCta: "Book", flowAction: "navigate", screen: "FIRST", data: { a: 1 }, headerText: "Book", footerText: "a footer",
  });
  sends("flow with data exchange", "interactive", "sendFlowMessage", { bodyText: "Book a time", flowToken: "FT_1", flowId: "1", flowCta: "Book", flowAction: "data_exchange", headerImage: { id: "1234567890" } });
  sends("template", "template", "sendTemplateMessage", { templateName: "hello_world", languageCode: "en_US", languagePolicy: "deterministic" });
  sends("template with components", "template", "sendTemplateMessage", {
    templateName: "location_update", languageCode: "en_US", bizOpaqueCallbackData: "order 2",
    components: [
      { type: "header", parameters: [{ type: "location", location: { latitude: "37.483307", longitude: "122.148981", name: "Office", address: "1 Main Street" } }] },
      {
        type: "body", parameters: [
          { type: "text", text: "9128312831", parameter_name: "order_id" }, { type: "currency", parameter_name: "price", currency: { code: "USD", amount_1000: 10990, fallback_value: "$10.99" } },
        ],
      },
      { type: "button", sub_type: "url", index: "0", parameters: [{ type: "text", text: "9128312831" }] },
    ],
  });

  test("an image that is uploaded and sent by its id", async () => {
    const { id: mediaId } = await client.uploadMedia({ ...at, file: new Blob([picture], { type: "image/png" }) });
    const to = next();
    await delivered(await client.sendImageMessage({ ...at, to, mediaId, caption: "a dot" }), "image", number(to));
    // The client cannot download: this is how one does that can.
    const headers = { Authorization: `Bearer ${key}` };
    const media = await (await fetch(`${url}/v24.0/${mediaId}`, { headers })).json();
    downloaded(await (await fetch(media.url, { headers })).arrayBuffer(), media, mediaId);
  });
  test("a template that replies, and a receipt, by the id of an answer", async () => {
    const to = next();
    const { messages: [{ id }] } = await client.sendTextMessage({ ...at, to, text: "first" });
    const reply = await client.sendTemplateMessage({ ...at, to, templateName: "hello_world", languageCode: "en_US", replyToMessageId: id });
    await delivered(reply, "template", number(to));
    assert.deepEqual(await client.markMessageRead({ ...at, messageId: id }), { success: true });
  });
  test("mark read, with a typing indicator", async () => {
    const messageId = "wamid.HBgLMTY1MDUwNzY1MjAVAgARGBI5QTND";
    assert.deepEqual(await client.markMessageRead({ ...at, messageId }), { success: true });
    assert.deepEqual(await client.markMessageRead({ ...at, messageId, showTypingIndicator: true }), { success: true });
  });

  test("a text that is too long is the client's error, with Meta's code", async () => {
    const error = await refused(client.sendTextMessage({ ...at, to: next(), text: tooLong }), 100);
    assert.match(error.error_data.details, /\/text\/body.*4096/);
  });
  test("so is a wrong key", () => refused(client.sendTextMessage({ ...at, accessToken: wrongKey, to: next(), text: "hello" }), 190));
  test("so is a phone number that is not there", async () => {
    const error = await refused(client.sendTextMessage({ ...at, from: "299999999999999", to: next(), text: "hello" }), 100);
    assert.equal(error.error_subcode, 33);
  });
});
