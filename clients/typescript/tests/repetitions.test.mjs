import assert from "node:assert/strict";
import { test } from "node:test";

import { encodeText, GatewayClient, GatewayError } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";
import { failure, startScripted, success } from "./scripted.mjs";

const group = { channelId: "g", channelType: 2 };
const message = { channelId: "bob", channelType: 1, payload: encodeText("hello") };
const sent = { messageId: "2124961498668208128", messageSeq: 1, clientMsgNo: "n", timestamp: 1 };

/** Each call, an answer that is good for it, and whether it is made again after 503. */
const CALLS = {
  getConfig: { args: [], data: {}, safe: true },
  createToken: { args: [{}], data: {}, safe: true },
  revokeToken: { args: [{}], data: {}, safe: false },
  sendMessage: { args: [message], data: sent, safe: true },
  sendMessageBatch: { args: [[message]], data: [sent], safe: true },
  syncMessages: { args: [{ channelId: "bob", channelType: 1 }], data: [], safe: true },
  listConversations: { args: [{}], data: { conversations: [], unreadTotal: 0, complete: true }, safe: true },
  readConversation: { args: [group], data: { unread: 0, readToSeq: 1 }, safe: true },
  deleteConversation: { args: [group], data: group, safe: false },
  createChannel: { args: [group], data: group, safe: true },
  deleteChannel: { args: [group], data: {}, safe: false },
  addSubscribers: { args: [{ ...group, subscribers: ["bob"] }], data: { added: 1 }, safe: false },
  removeSubscribers: { args: [{ ...group, subscribers: ["bob"] }], data: { removed: 1 }, safe: false },
  listSubscribers: { args: [group], data: [], safe: true },
  getChannelInfo: { args: [group], data: group, safe: true },
  addManagers: { args: [{ ...group, uids: ["bob"] }], data: { added: 1 }, safe: false },
  removeManagers: { args: [{ ...group, uids: ["bob"] }], data: { removed: 1 }, safe: false },
  transferOwnership: { args: [{ ...group, uid: "bob" }], data: {}, safe: false },
  getHealth: { args: [], data: { status: "healthy" }, safe: true },
  getSystemInfo: { args: [], data: {}, safe: true },
};

/** A server that answers the first `times` requests with `refusal`, and later ones with `data`. */
const refusing = (t, times, refusal, data) =>
  startScripted(t, ({ count }) => (count <= times ? refusal : success(data, { "x-has-more": "false" })));

const now = { "retry-after": "0" };

test("every method is in the table", () => {
  const methods = Object.getOwnPropertyNames(GatewayClient.prototype).filter((name) => name !== "constructor");
  assert.deepEqual(methods.sort(), Object.keys(CALLS).sort());
});

for (const [name, { args, data, safe }] of Object.entries(CALLS)) {
  test(`${name} is made again after the gateway's 429, and ${safe ? "" : "not "}after 503`, async (t) => {
    const limited = await refusing(t, 2, failure(429, "rate_limited", { headers: now }), data);
    await new GatewayClient({ baseUrl: limited.baseUrl, token: "t" })[name](...args);
    assert.equal(limited.requests.length, 3);
    assert.deepEqual(limited.requests[2].body, limited.requests[0].body);

    const overloaded = await refusing(t, 1, failure(503, "overloaded", { headers: now }), data);
    const answer = new GatewayClient({ baseUrl: overloaded.baseUrl, token: "t" })[name](...args);
    if (safe) await answer;
    else await assert.rejects(answer, { code: "overloaded", status: 503, retryAfter: 0 });
    assert.equal(overloaded.requests.length, safe ? 2 : 1);
  });
}

test("a group without an id is another one each time, so it is not created again after 503", async (t) => {
  for (const channelId of [undefined, null]) {
    const { baseUrl, requests } = await refusing(t, 9, failure(503, "overloaded", { headers: now }), {});
    const creating = new GatewayClient({ baseUrl, token: "t" }).createChannel({ channelId, channelType: 2 });
    await assert.rejects(creating, { code: "overloaded" });
    assert.equal(requests.length, 1);
  }
});

test("what a proxy refuses is repeated where that is safe, and only there", async (t) => {
  for (const status of [429, 503]) {
    const { baseUrl, requests } = await refusing(t, 1, { status, headers: now, body: "<h1>busy</h1>" }, []);
    const client = new GatewayClient({ baseUrl, token: "t" });
    await client.syncMessages({ channelId: "bob", channelType: 1 });
    assert.equal(requests.length, 2);
    const other = await refusing(t, 9, { status, headers: now, body: "<h1>busy</h1>" }, {});
    const deleting = new GatewayClient({ baseUrl: other.baseUrl, token: "t" }).deleteChannel(group);
    await assert.rejects(deleting, { code: "bad_response", status });
    assert.equal(other.requests.length, 1);
  }
});

test("repeated sends bear one number, made by the client or its caller's own", async (t) => {
  for (const clientMsgNo of [undefined, null, "note-1"]) {
    const { baseUrl, requests } = await refusing(t, 2, failure(503, "upstream_unavailable", { headers: now }), sent);
    await new GatewayClient({ baseUrl, token: "t" }).sendMessage({ ...message, clientMsgNo });
    const numbers = requests.map(({ body }) => body.clientMsgNo);
    assert.equal(new Set(numbers).size, 1);
    assert.match(numbers[0], clientMsgNo ? /^note-1$/ : /^[0-9a-f]{32}$/);
  }
});

test("each message of a batch gets a number of its own", async (t) => {
  const { baseUrl, requests } = await refusing(t, 1, failure(503, "overloaded", { headers: now }), [sent, sent, sent]);
  const messages = [message, { ...message, clientMsgNo: "mine" }, message];
  await new GatewayClient({ baseUrl, token: "t" }).sendMessageBatch(messages);
  const [first, second] = requests.map(({ body }) => body.map(({ clientMsgNo }) => clientMsgNo));
  assert.deepEqual(first, second);
  assert.equal(new Set(first).size, 3);
  assert.equal(first[1], "mine");
  assert.equal(messages[0].clientMsgNo, undefined, "the caller's own objects are left alone");
});

test("Retry-After is waited for, in seconds or as a date", async (t) => {
  const date = () => new Date(Math.ceil(Date.now() / 1000 + 1) * 1000).toUTCString();
  for (const retryAfter of [() => "1", date]) {
    const times = [];
    const { baseUrl } = await startScripted(t, ({ count }) => {
      times.push(performance.now());
      return count === 1 ? failure(429, "rate_limited", { headers: { "retry-after": retryAfter() } }) : success({});
    });
    await new GatewayClient({ baseUrl, token: "t" }).getSystemInfo();
    // Timers may be a little early.
    assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]} ms`);
  }
});

test("a longer Retry-After than the longest fails at once and is told", async (t) => {
  const { baseUrl, requests } = await refusing(t, 9, failure(503, "keys_unavailable", { headers: { "retry-after": "11" } }), {});
  const client = new GatewayClient({ baseUrl, token: "t" });
  await assert.rejects(client.getSystemInfo(), { code: "keys_unavailable", status: 503, retryAfter: 11 });
  const patient = new GatewayClient({ baseUrl, token: "t", maxRetryAfter: 0 });
  await assert.rejects(patient.getSystemInfo(), { code: "keys_unavailable" });
  assert.equal(requests.length, 2);
});

test("after so many repetitions the last refusal is the answer", async (t) => {
  const { baseUrl, requests } = await refusing(t, 99, failure(503, "overloaded", { headers: now }), {});
  for (const [retries, tries] of [[undefined, 3], [0, 1], [4, 5]]) {
    requests.length = 0;
    const client = new GatewayClient({ baseUrl, token: "t", ...(retries === undefined ? {} : { retries }) });
    await assert.rejects(client.getSystemInfo(), { code: "overloaded" });
    assert.equal(requests.length, tries);
  }
});

test("nothing else is repeated", async (t) => {
  const codes = { 400: "invalid_request", 403: "forbidden", 409: "message_conflict", 500: "internal", 504: "message_unconfirmed" };
  for (const [status, code] of Object.entries(codes).map(([status, code]) => [Number(status), code])) {
    const { baseUrl, requests } = await refusing(t, 9, failure(status, code, { headers: now }), sent);
    await assert.rejects(new GatewayClient({ baseUrl, token: "t" }).sendMessage(message), { code, status });
    assert.equal(requests.length, 1);
  }
});

test("an abort ends a wait, and throws the signal's own reason", async (t) => {
  const { baseUrl, requests } = await refusing(t, 9, failure(429, "rate_limited", { headers: { "retry-after": "10" } }), {});
  const reason = new Error("the page was left");
  const controller = new AbortController();
  const fetch = async (request) => {
    const response = await globalThis.fetch(request);
    setTimeout(() => controller.abort(reason), 50);
    return response;
  };
  const started = performance.now();
  const answer = new GatewayClient({ baseUrl, token: "t", fetch }).getSystemInfo({ signal: controller.signal });
  assert.equal(await answer.catch((error) => error), reason);
  assert.ok(performance.now() - started < 9000);
  assert.equal(requests.length, 1);
});

test("an abort ends a request, whichever call it is", async (t) => {
  for (const [name, { args }] of Object.entries(CALLS)) {
    let arrived;
    const there = new Promise((resolve) => (arrived = resolve));
    const { baseUrl } = await startScripted(t, () => (arrived(), new Promise(() => {})));
    const controller = new AbortController();
    const answer = new GatewayClient({ baseUrl, token: "t" })[name](...args, { signal: controller.signal });
    await Promise.race([there, answer]);
    controller.abort();
    await assert.rejects(answer, { name: "AbortError" }, name);
  }
});

test("a signal that was aborted before lets nothing leave, and a timeout is one too", async (t) => {
  const { baseUrl, requests } = await startScripted(t, () => new Promise(() => {}));
  const client = new GatewayClient({ baseUrl, token: "t" });
  await assert.rejects(client.getConfig({ signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(requests.length, 0);
  await assert.rejects(client.getConfig({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
});

test("a user who asks too much of the gateway is only slowed down", async (t) => {
  const gateway = await startGateway(t, { LIMITS__REQUESTS_PER_SECOND: 1, LIMITS__BURST: 1 });
  const user = (uid, options) => new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token(uid), ...options });
  const alice = user("alice");
  await alice.getSystemInfo();
  await alice.getSystemInfo();

  const hasty = user("bob", { retries: 0 });
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => hasty.getSystemInfo()));
  const refused = outcomes.find(({ status }) => status === "rejected").reason;
  assert.ok(refused instanceof GatewayError);
  assert.deepEqual([refused.code, refused.status, refused.retryAfter], ["rate_limited", 429, 1]);
});
