// @kapso/whatsapp-cloud-api, with its option baseUrl. It gives answers back in camelCase.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { GraphApiError, WhatsAppClient, buildTemplatePayload, buildTemplateSendPayload } from "@kapso/whatsapp-cloud-api";
import { delivered, downloaded, from, key, number, picture, reaches, recipients, tooLong, url, wrongKey } from "./lib.mjs";

const client = new WhatsAppClient({ baseUrl: url, accessToken: key });
const { messages } = client;
const next = recipients(3001);
const link = "https://example.com/file";

const meta = (answer) => ({
  messaging_product: answer.messagingProduct,
  contacts: answer.contacts.map(({ input, waId, userId }) => ({ input, ...(waId && { wa_id: waId }), ...(userId && { user_id: userId }) })),
  messages: answer.messages,
});

/** Sends by one of the client's methods to a number of its own, and sees the message delivered. */
function sends(name, type, method, input, status) {
  test(name, async () => {
    const to = input.to ?? next();
    await delivered(meta(await messages[method]({ phoneNumberId: from, to, ...input })), type, number(to), status);
  });
}

suite("@kapso/whatsapp-cloud-api", { concurrency: true }, () => {
  sends("text", "text", "sendText", { body: "hello", previewUrl: true, bizOpaqueCallbackData: "order 1" });
  sends("text to a number with +", "text", "sendText", { to: "+16505553900", body: "hello" });
  sends("image by link", "image", "sendImage", { image: { link, caption: "a caption" } });
  sends("image by id", "image", "sendImage", { image: { id: "1234567890" } });
  sends("audio", "audio", "sendAudio", { audio: { link, voice: true } });
  sends("document", "document", "sendDocument", { document: { link, filename: "invoice.pdf", caption: "Invoice" } });
  sends("video", "video", "sendVideo", { video: { link, caption: "Clip" } });
  sends("sticker", "sticker", "sendSticker", { sticker: { id: "1234567890" } });
  sends("location", "location", "sendLocation", { location: { latitude: 37.48, longitude: -122.15, name: "Office", address: "1 Main Street" } });
  sends("contacts", "contacts", "sendContacts", {
    contacts: [{
      name: { formattedName: "Support Desk", firstName: "Support" }, birthday: "2000-01-31",
      phones: [{ phone: "+16505551234", waId: "16505551234", type: "WORK" }], emails: [{ email: "desk@example.com", type: "WORK" }],
      addresses: [{ street: "1 Main Street", city: "Menlo Park", countryCode: "us", type: "WORK" }], org: { company: "Example" }, urls: [{ url: "https://example.com" }],
    }],
  });
  sends("template by buildTemplateSendPayload", "template", "sendTemplate", {
    template: buildTemplateSendPayload({
      name: "order_confirmation", language: "en_US", header: { type: "image", image: { link } },
      body: [
        // No currency here: the builder takes amount1000 alone, and the client sends it without its underscore, which Meta does not know.
        { type: "text", text: "Aug 31", parameterName: "end_date" }, { type: "date_time", dateTime: { fallbackValue: "Monday" }, parameterName: "day" },
      ],
      buttons: [
        { type: "button", subType: "quick_reply", index: 0, parameters: [{ type: "payload", payload: "STOP" }] }, { type: "button", subType: "url", index: 1, parameters: [{ type: "text", text: "sale" }] },
        { type: "button", subType: "copy_code", index: 2, parameters: [{ type: "coupon_code", coupon_code: "SALE25" }] },
        { type: "button", subType: "flow", index: 3, parameters: [{ type: "action", action: { flow_token: "FT_1", flow_action_data: { step: "one" } } }] },
      ],
    }),
  });
  sends("template with a carousel", "template", "sendTemplate", {
    template: buildTemplateSendPayload({
      name: "carousel_offer", language: "en_US", body: [{ type: "text", text: "20 %" }],
      cards: [0, 1].map((cardIndex) => ({
        cardIndex, components: [
          { type: "header", parameters: [{ type: "image", image: { link } }] }, { type: "body", parameters: [{ type: "text", text: "one" }] },
          { type: "button", subType: "quick_reply", index: 0, parameters: [{ type: "payload", payload: "MORE" }] },
        ],
      })),
    }),
  });
  sends("template by buildTemplatePayload", "template", "sendTemplate", {
    template: buildTemplatePayload({
      name: "order_confirmation", language: { code: "en_US", policy: "deterministic" },
      components: [
        { type: "body", parameters: [{ type: "text", text: "Menlo", parameter_name: "city" }] },
        { type: "button", sub_type: "catalog", index: 0, parameters: [{ type: "action", action: { thumbnail_product_retailer_id: "SKU-1" } }] },
      ],
    }),
  });
  sends("template with a currency", "template", "sendTemplate", {
    template: buildTemplatePayload({
      name: "order_confirmation", language: "en_US",
      components: [{ type: "body", parameters: [{ type: "currency", currency: { fallback_value: "$10", code: "USD", amount_1000: 10000 } }] }],
    }),
  });
  sends("interactive buttons", "interactive", "sendInteractiveButtons", {
    header: { type: "image", image: { link } }, bodyText: "Choose", footerText: "a footer", buttons: [{ id: "yes", title: "Yes" }, { id: "no", title: "No" }],
  });
  sends("interactive list", "interactive", "sendInteractiveList", {
    header: { type: "text", text: "Times" }, bodyText: "Choose a time", footerText: "a footer", buttonText: "Times",
    sections: [{ title: "Morning", rows: [{ id: "9", title: "9:00", description: "early" }] }, { title: "Evening", rows: [{ id: "18", title: "18:00" }] }],
  });
  sends("interactive product", "interactive", "sendInteractiveProduct", { bodyText: "Look", footerText: "a footer", catalogId: "1", productRetailerId: "SKU-1" });
  sends("interactive product list", "interactive", "sendInteractiveProductList", {
    header: { type: "text", text: "Shop" }, bodyText: "Look", catalogId: "1", sections: [{ title: "New", productItems: [{ productRetailerId: "SKU-1" }, { productRetailerId: "SKU-2" }] }],
  });
  sends("interactive flow", "interactive", "sendInteractiveFlow", {
    header: { type: "text", text: "Book" }, bodyText: "Book a time", footerText: "a footer",
    parameters: { flowId: "1", flowCta: "Book", mode: "draft", flowToken: "FT_1", flowAction: "navigate", flowActionPayload: { screen: "FIRST", data: { a: 1 } } },
  });
  sends("interactive flow, shortest", "interactive", "sendInteractiveFlow", { bodyText: "Book a time", parameters: { flowId: "1", flowCta: "Book" } });
  sends("interactive address", "interactive", "sendInteractiveAddress", {
    bodyText: "Where to?", footerText: "a footer", parameters: { country: "IN", values: { name: "Support Desk", phone_number: "+919876543210" }, savedAddresses: [{ id: "1", value: { name: "Office", inPinCode: "400063", city: "Mumbai" } }] },
  });
  sends("interactive location request", "interactive", "sendInteractiveLocationRequest", { bodyText: "Where are you?", parameters: { requestMessage: "Where are you?" } });
  sends("interactive call permission", "interactive", "sendInteractiveCallPermission", { bodyText: "May we call?", parameters: { phoneNumber: "+16505551234", callPurpose: "support" } });
  sends("interactive CTA URL", "interactive", "sendInteractiveCtaUrl", {
    header: { type: "document", document: { link } }, bodyText: "See the dates", footerText: "a footer", parameters: { displayText: "See dates", url: "https://example.com/dates" },
  });
  sends("interactive carousel, links", "interactive", "sendInteractiveCarousel", {
    bodyText: "Choose", cards: [0, 1].map((cardIndex) => ({ cardIndex, header: { type: "image", image: { link } }, bodyText: "a card", action: { type: "cta_url", displayText: "View", url: "https://example.com/card" } })),
  });
  sends("interactive carousel, quick replies", "interactive", "sendInteractiveCarousel", {
    bodyText: "Choose", cards: [0, 1].map((cardIndex) => ({ cardIndex, header: { type: "image", image: { link } }, action: { buttons: [{ id: `card ${cardIndex}`, title: "This one" }] } })),
  });
  sends("interactive catalog", "interactive", "sendInteractiveCatalogMessage", { bodyText: "Our catalog", parameters: { thumbnailProductRetailerId: "SKU-1" } });
  sends("interactive raw", "interactive", "sendInteractiveRaw", { interactive: { type: "button", body: { text: "Choose" }, action: { buttons: [{ type: "reply", reply: { id: "yes", title: "Yes" } }] } } });

  test("raw", async () => {
    const to = next();
    const answer = await messages.sendRaw({ phoneNumberId: from, payload: { messaging_product: "whatsapp", to, text: { body: "without a type" } } });
    await delivered(meta(answer), "text", number(to));
  });
  test("to a business-scoped user id", async () => {
    const recipient = "US.13491208655302743001";
    await delivered(meta(await messages.sendText({ phoneNumberId: from, recipient, body: "hello" })), "text", { input: recipient, user_id: recipient });
  });
  test("to a number with its user id", async () => {
    const to = next();
    await delivered(meta(await messages.sendText({ phoneNumberId: from, to, recipient: "US.13491208655302743002", body: "hello" })), "text", number(to));
  });
  test("to a group", async () => {
    const to = "Y2FwaV9ncm91cDoxMjAzNjM0MDQ2OTQyMzM4MjAZD";
    await delivered(meta(await messages.sendText({ phoneNumberId: from, to, recipientType: "group", body: "hello" })), "text", { input: to, wa_id: to });
  });
  test("a reply, a reaction and a receipt for a message by the id of its answer", async () => {
    const to = next();
    const { messages: [{ id }] } = await messages.sendText({ phoneNumberId: from, to, body: "first" });
    await delivered(meta(await messages.sendText({ phoneNumberId: from, to, body: "second", contextMessageId: id })), "text", number(to));
    const reaction = await messages.sendReaction({ phoneNumberId: from, to, reaction: { messageId: id, emoji: "😀" } });
    await delivered(meta(reaction), "reaction", number(to), "sent"); // Meta tells no more of a reaction
    assert.deepEqual(await messages.markRead({ phoneNumberId: from, messageId: id }), { success: true });
  });
  test("mark read, with a typing indicator", async () => {
    assert.deepEqual(await messages.markRead({ phoneNumberId: from, messageId: "wamid.HBgLMTY1MDUwNzY1MjAVAgARGBI5QTND" }), { success: true });
    assert.deepEqual(await messages.markRead({ phoneNumberId: from, messageId: "wamid.HBgLMTY1MDUwNzY1MjAVAgARGBI5QTND", typingIndicator: { type: "text" } }), { success: true });
  });

  test("an image that is uploaded, sent by its id, downloaded and deleted", async () => {
    const { media } = client;
    const { id } = await media.upload({ phoneNumberId: from, type: "image/png", file: picture, fileName: "dot.png" });
    assert.match(id, /^\d+$/);
    const to = next();
    await delivered(meta(await messages.sendImage({ phoneNumberId: from, to, image: { id, caption: "a dot" } })), "image", number(to));
    const of = { mediaId: id, phoneNumberId: from };
    const found = await media.get(of);
    downloaded(await media.download({ ...of, auth: "always" }), { ...found, mime_type: found.mimeType }, id);
    const without = await media.download({ ...of, auth: "never", as: "response" }); // Meta wants the token, too
    assert.equal(without.status, 401);
    assert.deepEqual(await media.delete(of), { success: true });
    const gone = await media.get(of).then(assert.fail, (err) => err);
    assert.ok(gone instanceof GraphApiError && gone.code === 100, String(gone));
  });

  test("a text that is too long is the client's error, with Meta's code", async () => {
    const e = await messages.sendText({ phoneNumberId: from, to: next(), body: tooLong }).then(assert.fail, (err) => err);
    assert.ok(e instanceof GraphApiError, String(e));
    assert.deepEqual([e.httpStatus, e.code, e.category, e.retry.action], [400, 100, "parameter", "fix_and_retry"]);
    assert.match(e.details, /\/text\/body.*4096/);
    assert.ok(e.fbtraceId);
  });
  test("so is a wrong key", async () => {
    const e = await new WhatsAppClient({ baseUrl: url, accessToken: wrongKey }).messages.sendText({ phoneNumberId: from, to: next(), body: "hello" }).then(assert.fail, (err) => err);
    assert.ok(e instanceof GraphApiError && e.isAuthError() && e.requiresTokenRefresh(), String(e));
    assert.deepEqual([e.httpStatus, e.code], [401, 190]);
  });
  test("so is a phone number that is not there", async () => {
    const e = await messages.sendText({ phoneNumberId: "299999999999999", to: next(), body: "hello" }).then(assert.fail, (err) => err);
    assert.ok(e instanceof GraphApiError, String(e));
    assert.deepEqual([e.httpStatus, e.code, e.errorSubcode], [400, 100, 33]);
  });
  test("what Meta refuses later is told of the message", async () => {
    const { messages: [{ id }] } = await messages.sendText({ phoneNumberId: from, to: "16505550001", body: "hello" });
    assert.equal((await reaches(id, "failed")).error.code, 131026);
  });
});
