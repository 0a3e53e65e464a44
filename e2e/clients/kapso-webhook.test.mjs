// The webhook receiver of @kapso/whatsapp-cloud-api, unchanged, behind a subscription of format meta: an application that
// sends by the gateway hears of its messages as it did from Meta.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, suite, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { WhatsAppClient } from "@kapso/whatsapp-cloud-api";
import { normalizeWebhook, verifySignature } from "@kapso/whatsapp-cloud-api/server";
import { from, key, recipients, url } from "./lib.mjs";

const appSecret = "an-app-secret-of-the-receiver";
const verifyToken = "a-token-of-the-receiver";
const next = recipients(3901);
const deadline = 30_000; // ms

suite("the receiver of @kapso/whatsapp-cloud-api", () => {
  const heard = []; // statuses, as the client reads them
  const refused = [];
  let subscription;

  const server = createServer((req, res) => {
    const query = new URL(req.url, "http://receiver").searchParams;
    if (req.method === "GET") {
      const ok = query.get("hub.mode") === "subscribe" && query.get("hub.verify_token") === verifyToken;
      res.writeHead(ok ? 200 : 403).end(ok ? query.get("hub.challenge") : "");
      return;
    }
    const chunks = [];
    req.on("data", (chunk) => chunks.push(chunk));
    req.on("end", () => {
      const rawBody = Buffer.concat(chunks);
      if (!verifySignature({ appSecret, rawBody, signatureHeader: req.headers["x-hub-signature-256"] })) {
        refused.push(rawBody.toString());
        res.writeHead(401).end();
        return;
      }
      const body = JSON.parse(rawBody);
      const event = normalizeWebhook(body);
      heard.push(...event.statuses.map((status) => ({ ...status, phoneNumberId: event.phoneNumberId, raw: rawBody.toString() })));
      res.writeHead(200).end();
    });
  });

  const ask = async (method, path, body) => {
    const answer = await fetch(url + path, { method, body: body && JSON.stringify(body), headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" } });
    return { status: answer.status, body: answer.status === 204 ? undefined : await answer.json() };
  };

  /** Waits until the statuses of a message have been heard, and gives them in their order. */
  const statuses = async (id, n) => {
    const until = Date.now() + deadline;
    for (;;) {
      const all = heard.filter((status) => status.id === id);
      if (all.length >= n) return all;
      assert.ok(Date.now() < until, `heard ${JSON.stringify(heard)}`);
      await pause(50);
    }
  };

  before(async () => {
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  after(async () => {
    if (subscription) await ask("DELETE", `/v1/subscriptions/${subscription}`);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  test("a wrong token is no handshake", async () => {
    const { status, body } = await ask("POST", "/v1/subscriptions", { url: `http://127.0.0.1:${server.address().port}/`, format: "meta", verify_token: "another", secret: appSecret });
    assert.equal(status, 422);
    assert.equal(body.code, "handshake_failed");
  });

  test("statuses come with the client's ids and its own callback data", async () => {
    const made = await ask("POST", "/v1/subscriptions", {
      url: `http://127.0.0.1:${server.address().port}/webhook?tenant=7`, format: "meta", verify_token: verifyToken, secret: appSecret, events: ["message.status", "message.inbound"],
    });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    subscription = made.body.id;
    const { messages } = new WhatsAppClient({ baseUrl: url, accessToken: key });
    const to = next();
    const own = await messages.sendText({ phoneNumberId: from, to, body: "hello", bizOpaqueCallbackData: "order 1" });
    const bare = await messages.sendText({ phoneNumberId: from, to: next(), body: "hello" });
    const all = await statuses(own.messages[0].id, 2);
    assert.deepEqual(all.slice(0, 2).map((s) => s.status), ["sent", "delivered"]);
    for (const status of all) {
      assert.equal(status.recipientId, to);
      assert.equal(status.phoneNumberId, from);
      assert.equal(status.bizOpaqueCallbackData, "order 1");
      assert.match(status.timestamp, /^\d{10}$/);
    }
    for (const status of await statuses(bare.messages[0].id, 2)) assert.equal(status.bizOpaqueCallbackData, undefined);
    assert.ok(!heard.some((status) => status.raw.includes("g1:")), "our own callback data came through");
    assert.deepEqual(refused, []);
  });

  test("what the gateway gives up is failed, as Meta says it", async () => {
    const { body } = await ask("POST", "/v1/messages", { from, to: "+" + next(), type: "text", text: { body: "late" }, gateway: { send_at: new Date(Date.now() + 600_000).toISOString() } });
    const { status } = await ask("POST", `/v1/messages/${body.id}/cancel`);
    assert.equal(status, 200);
    const [failed] = await statuses(body.id, 1);
    assert.equal(failed.status, "failed");
    assert.equal(failed.errors[0].code, 131000);
    assert.ok(failed.errors[0].errorData?.details ?? failed.errors[0].error_data?.details);
  });
});
