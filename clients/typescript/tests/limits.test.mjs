// The client's judgement beside the gateway's own: whatever one of them refuses, the other refuses with the same code and fields.

import assert from "node:assert/strict";
import { test } from "node:test";

import { encodeText, GatewayClient } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";

const ids = [
  ...["a", "用户-1", "Ünïcødé", "ユーザー", "😀", "a.b", "...", "___x", "user:1", "a+b=c", "x____", "\ufeffx", "a\u200bb"],
  ...["", ".", "..", "____", "____system", "g____cmd", "____cmd", "u___vstr", "___vstr", "x____cmdx"],
  ...["@", "#", "&", "/", "\\", "?", "%"].map((character) => `a${character}b`),
  ...[
    ...[0x00, 0x09, 0x0a, 0x0d, 0x1f, 0x20, 0x7f, 0x85, 0x9f, 0xa0, 0xad, 0x1680, 0x180e, 0x2000, 0x200a, 0x2028],
    ...[0x2029, 0x202f, 0x205f, 0x2060, 0x3000, 0xe000],
  ].map((code) => `a${String.fromCharCode(code)}b`),
];
const long = (bytes) => ["a".repeat(bytes), "é".repeat(bytes / 2), "群".repeat(bytes / 3), "😀".repeat(bytes / 4)];
const base64 = (bytes) => Buffer.alloc(bytes, 7).toString("base64");

const payloads = [
  ...["eA==", "eHg=", "eHh4", "++//", "eyJ0eXBlIjoxfQ=="],
  ...["", "=", "==", "===", "====", "A", "AA", "AAA", "A===", "YQ", "***", "string"],
  ...["YQ==YQ==", "YR==", "YWJ=", "-_-_", "YQ==\n", " YQ==", "YQ=A", "=AAA"],
];

/** The gateway's answer to what the client would have sent, past the client's checks. */
async function judged(gateway, path, body, language) {
  const headers = {
    authorization: `Bearer ${gateway.token("alice")}`,
    "content-type": "application/json",
    "accept-language": language,
  };
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await (await fetch(gateway.baseUrl + path, { headers, ...init })).json();
  return answer.code === "invalid_request" ? { code: answer.code, message: answer.message, details: answer.details } : "fine";
}

/** What the client says to the same, without a gateway: `fine` where it lets the request leave. */
async function checked(client, call) {
  const outcome = await call(client).then(
    () => "fine",
    ({ code, message, details, status, requestId }) => {
      if (code === "test") return "fine";
      assert.deepEqual([status, requestId], [400, undefined]);
      return { code, message, details };
    },
  );
  return outcome;
}

const nowhere = async () => Response.json({ success: false, message: "it left", code: "test" }, { status: 418 });

const HARD_CAPS = { id: 255, number: 255, payload: 512 * 1024, batch: 1000, subscribers: 5000 };
const OWN = { id: 24, number: 36, payload: 300, batch: 3, subscribers: 4 };

for (const bytes of [HARD_CAPS, OWN]) {
  test(`within ${bytes === OWN ? "a deployment's own limits" : "the hard caps"}`, async (t) => {
    const gateway = await startGateway(t, {
      LIMITS__ID_BYTES: bytes.id,
      LIMITS__CLIENT_MSG_NO_BYTES: bytes.number,
      LIMITS__PAYLOAD: bytes.payload,
      LIMITS__BATCH: bytes.batch,
      LIMITS__SUBSCRIBERS: bytes.subscribers,
      LIMITS__REQUESTS_PER_SECOND: 1000000,
      LIMITS__BURST: 1000000,
      SERVER__BODY_LIMIT: "4MiB",
    });
    const clients = [];
    for (const language of ["zh", "en"]) {
      let fetch = globalThis.fetch;
      const token = gateway.token("alice");
      const client = new GatewayClient({ baseUrl: gateway.baseUrl, token, language, fetch: (request) => fetch(request) });
      if (bytes === OWN) await client.getConfig();
      fetch = nowhere;
      clients.push({ language, client });
    }

    const agree = async (name, path, body, call) => {
      for (const { language, client } of clients) {
        assert.deepEqual(await checked(client, call), await judged(gateway, path, body, language), `${name} (${language})`);
      }
    };
    const shown = (text) => `${JSON.stringify(text.slice(0, 30))}, ${text.length}`;

    await t.test("ids are judged as the gateway judges them", async () => {
      const all = [...ids, ...long(bytes.id), ...long(bytes.id).map((id) => `${id}éé`)];
      for (const channelId of all) {
        const message = { channelId, channelType: 1, payload: "eA==", clientMsgNo: "n" };
        await agree(shown(channelId), "/message/send", message, (client) => client.sendMessage(message));
        if (channelId !== "") {
          const query = new URLSearchParams({ channelId, channelType: 1 });
          const path = `/message/sync?${query}`;
          await agree(shown(channelId), path, undefined, (client) => client.syncMessages({ channelId, channelType: 1 }));
        }
      }
      const members = { channelId: "none", channelType: 2, uids: all.slice(-4) };
      await agree("uids", "/channel/manager/add", members, (client) => client.addManagers(members));
    });

    await t.test("message numbers are judged as the gateway judges them", async () => {
      const fine = { channelId: "bob", channelType: 1, payload: "eA==" };
      for (const clientMsgNo of [...ids, ...long(bytes.number), ...long(bytes.number).map((number) => `${number}éé`)]) {
        const message = { ...fine, payload: base64(3 + (clientMsgNo.length % 3)), clientMsgNo };
        await agree(shown(clientMsgNo), "/message/send", message, (client) => client.sendMessage(message));
      }
    });

    await t.test("payloads are judged as the gateway judges them", async () => {
      const sizes = [-3, -2, -1, 0, 1, 2, 3].map((more) => base64(bytes.payload + more));
      for (const payload of [...payloads, ...sizes, `${base64(bytes.payload - 1)}====`]) {
        const message = { channelId: "bob", channelType: 1, payload };
        await agree(shown(payload), "/message/send", message, (client) => client.sendMessage(message));
      }
    });

    await t.test("all bad fields of a call are told at once, and nothing is sent", async () => {
      const bad = { channelId: "a b", channelType: 1, payload: "string", clientMsgNo: "\n", fromUid: ".." };
      await agree("one", "/message/send", bad, (client) => client.sendMessage(bad));
      const batch = [bad, { channelId: "bob", channelType: 1, payload: "eA==" }, bad];
      await agree("many", "/message/sendbatch", batch, (client) => client.sendMessageBatch(batch));
      const uids = { channelId: "a/b", channelType: 2, subscribers: ["a", "", "..", "b c"] };
      await agree("add", "/channel/subscriber/add", uids, (client) => client.addSubscribers(uids));
      await agree("remove", "/channel/subscriber/remove", uids, (client) => client.removeSubscribers(uids));
      const owner = { channelId: "a/b", channelType: 2, uid: "____x" };
      await agree("owner", "/channel/owner", owner, (client) => client.transferOwnership(owner));
      const one = { channelId: "a/b", channelType: 2 };
      await agree("read", "/conversation/read", one, (client) => client.readConversation(one));
      await agree("delete", "/conversation/delete", one, (client) => client.deleteConversation(one));
      const query = new URLSearchParams(one);
      await agree("list", `/channel/subscribers?${query}`, undefined, (client) => client.listSubscribers(one));
      await agree("revoke", "/token/revoke", { uid: "@" }, (client) => client.revokeToken({ uid: "@" }));
    });

    await t.test("lists have the gateway's length", async () => {
      const message = { channelId: "bob", channelType: 1, payload: "eA==" };
      for (const length of [0, bytes.batch, bytes.batch + 1]) {
        const batch = Array.from({ length }, (_, place) => ({ ...message, clientMsgNo: `${length}-${place}` }));
        await agree(`batch of ${length}`, "/message/sendbatch", batch, (client) => client.sendMessageBatch(batch));
      }
      for (const length of [0, bytes.subscribers, bytes.subscribers + 1]) {
        const uids = Array.from({ length }, (_, place) => `u${place}`);
        const subscribers = { channelId: "none", channelType: 2, subscribers: uids };
        await agree(`${length} uids`, "/channel/subscriber/add", subscribers, (client) => client.addSubscribers(subscribers));
        const managers = { channelId: "none", channelType: 2, uids };
        await agree(`${length} uids`, "/channel/manager/remove", managers, (client) => client.removeManagers(managers));
      }
    });
  });
}

test("half a character is refused, and never sent as another one", async () => {
  const client = new GatewayClient({ baseUrl: "http://nowhere", token: "t", fetch: nowhere });
  const half = "a\ud83d";
  for (const call of [
    () => client.syncMessages({ channelId: half, channelType: 1 }),
    () => client.sendMessage({ channelId: half, channelType: 1, payload: "eA==" }),
    () => client.sendMessage({ channelId: "bob", channelType: 1, payload: "eA==", clientMsgNo: half }),
  ]) {
    await assert.rejects(call, { code: "invalid_request", status: 400 });
  }
});

test("what is missing or of another type is left to the gateway", async () => {
  const client = new GatewayClient({ baseUrl: "http://nowhere", token: "t", fetch: nowhere });
  const group = { channelId: "g", channelType: 2 };
  for (const list of [undefined, null, "bob", {}, 7, [7]]) {
    await assert.rejects(client.addSubscribers({ ...group, subscribers: list }), { code: "test" });
    await assert.rejects(client.removeManagers({ ...group, uids: list }), { code: "test" });
  }
  await assert.rejects(client.sendMessage({ channelId: 7, payload: null }), { code: "test" });
});

test("the deployment's limits count from the answer of getConfig on", async (t) => {
  const gateway = await startGateway(t, { LIMITS__ID_BYTES: 8, LIMITS__PAYLOAD: 100 });
  let requests = 0;
  const fetch = (request) => ((requests += 1), globalThis.fetch(request));
  const client = new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token("alice"), fetch });
  const bad = { channelId: "nine-byte", channelType: 1, payload: encodeText("x".repeat(100)) };
  const told = await client.sendMessage(bad).catch((error) => error);
  assert.deepEqual([told.code, told.details.map(({ field }) => field), requests], ["invalid_request", ["channelId", "payload"], 1]);
  await client.getConfig();
  const refused = await client.sendMessage(bad).catch((error) => error);
  assert.equal(requests, 2, "nothing is sent");
  assert.deepEqual([refused.code, refused.status, refused.details], [told.code, told.status, told.details]);
});
