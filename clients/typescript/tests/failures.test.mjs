import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";

import { encodeText, GatewayClient, GatewayError } from "@wukongim-gateway/client";

import { failure, startScripted, success } from "./scripted.mjs";

const message = { channelId: "bob", channelType: 1, payload: encodeText("hello") };
const sent = { messageId: "9223372036854775807", messageSeq: 1, clientMsgNo: "n", timestamp: 1 };
const history = { channelId: "bob", channelType: 1 };

const clientOf = ({ baseUrl }, options) => new GatewayClient({ baseUrl, token: "t", retries: 0, ...options });
const caught = async (promise) => {
  const error = await promise.then(
    (value) => assert.fail(`it answered ${JSON.stringify(value)}`),
    (error) => error,
  );
  assert.ok(error instanceof GatewayError, String(error.stack));
  return error;
};

test("an error has all that the envelope has", async (t) => {
  const details = [{ field: "channelType", message: "must be 1 (person) or 2 (group)" }];
  const server = await startScripted(t, () => failure(400, "invalid_request", { details }));
  const error = await caught(clientOf(server).getConfig());
  const { name, message, code, status, requestId, retryAfter, clientMsgNo } = error;
  assert.deepEqual(
    { name, message, code, status, requestId, details: error.details, retryAfter, clientMsgNo },
    {
      name: "GatewayError",
      message: "it is invalid_request",
      code: "invalid_request",
      status: 400,
      requestId: "r-1",
      details,
      retryAfter: undefined,
      clientMsgNo: undefined,
    },
  );
});

test("a code that is newer than the client is passed on", async (t) => {
  const server = await startScripted(t, () => failure(418, "teapot"));
  assert.deepEqual([(await caught(clientOf(server).getConfig())).code], ["teapot"]);
});

test("a failed send tells the number to send again with, whatever failed", async (t) => {
  const refusing = await startScripted(t, () => failure(504, "message_unconfirmed", { clientMsgNo: "of the answer" }));
  const breaking = await startScripted(t, () => undefined);
  for (const server of [refusing, breaking]) {
    const error = await caught(clientOf(server).sendMessage(message));
    assert.equal(error.clientMsgNo, server.requests[0].body.clientMsgNo);
    assert.equal((await caught(clientOf(server).sendMessage({ ...message, clientMsgNo: "mine" }))).clientMsgNo, "mine");
  }
});

const strange = {
  "a proxy's page": { body: "<html>welcome</html>" },
  "a proxy's page of an error": { status: 502, body: "<h1>Bad Gateway</h1>" },
  "a proxy's own JSON of an error": { status: 403, body: { error: "blocked by policy" } },
  "half an envelope": { headers: { "content-type": "application/json" }, body: '{"success":true,"data":{"wsUrl":"ws' },
  "nothing at all": { body: "" },
  "no content": { status: 204, body: "" },
  "an array": { body: [] },
  null: { body: null },
  "a number": { body: 1 },
  "an envelope without data": { body: { success: true } },
  "data that is null": { body: { success: true, data: null } },
  "data that is an array": { body: { success: true, data: [] } },
  "success that is a text": { body: { success: "true", data: {} } },
  "success with the status of an error": { status: 500, body: { success: true, data: {} } },
  "a failure without a code": { status: 500, body: { success: false, message: "no" } },
  "a code that is no text": { status: 500, body: { success: false, message: "no", code: 5 } },
  "a redirect to a page": { status: 302, headers: { location: "/login" }, body: "" },
};
for (const [what, answer] of Object.entries(strange)) {
  test(`${what} is a bad_response`, async (t) => {
    const server = await startScripted(t, () => ({ ...answer, headers: { ...answer.headers, "x-request-id": "r-7" } }));
    for (const call of [(client) => client.getConfig(), (client) => client.sendMessage(message), (client) => client.getHealth()]) {
      const error = await caught(call(clientOf(server)));
      assert.deepEqual([error.code, error.status, error.requestId], ["bad_response", answer.status ?? 200, "r-7"]);
    }
    assert.equal(server.requests.length, 3, "a redirect is not followed");
  });
}

test("a history that is no list, or does not tell whether there is more, is a bad_response", async (t) => {
  const more = { "x-has-more": "true" };
  for (const answer of [success([]), success([], { "x-has-more": "maybe" }), success({}, more), success([null], more)]) {
    const server = await startScripted(t, () => answer);
    assert.equal((await caught(clientOf(server).syncMessages(history))).code, "bad_response");
  }
  const server = await startScripted(t, () => success([], { "x-has-more": "true" }));
  assert.deepEqual(await clientOf(server).syncMessages(history), { messages: [], hasMore: true });
});

test("a list that is none, or whose next page cannot be asked for, is a bad_response", async (t) => {
  const more = { "x-has-more": "true", "x-next-cursor": "c" };
  const last = { "x-has-more": "false" };
  const conversations = (...rows) => ({ conversations: rows, unreadTotal: 0, complete: true });
  const group = { channelId: "team", channelType: 2 };
  for (const [list, good, bad] of [
    [(client) => client.listConversations(), conversations(), [[], {}, conversations(5), conversations({ lastMessage: { messageId: 5 } })]],
    [(client) => client.listSubscribers(group), [], [{}, ["bob"]]],
  ]) {
    const answers = [...bad.map((data) => success(data, last)), success(good), success(good, { "x-has-more": "true" })];
    for (const answer of answers) {
      const server = await startScripted(t, () => answer);
      assert.equal((await caught(list(clientOf(server)))).code, "bad_response", JSON.stringify(answer));
    }
    const server = await startScripted(t, ({ count }) => success(good, count === 1 ? more : last));
    const pages = [await list(clientOf(server)), await list(clientOf(server))];
    assert.deepEqual(pages.map(({ hasMore, nextCursor }) => [hasMore, nextCursor]), [[true, "c"], [false, undefined]]);
  }
});

test("a batch's answer with fewer, more or other entries is a bad_response", async (t) => {
  const partly = (data) => failure(207, "partial_failure", { data });
  for (const answer of [success([sent]), success([sent, sent, sent]), partly([sent]), partly([sent, {}]), partly([sent, null])]) {
    const server = await startScripted(t, () => answer);
    assert.equal((await caught(clientOf(server).sendMessageBatch([message, message]))).code, "bad_response");
  }
});

test("a batch sent in part answers an entry for each message, with the numbers to repeat those that failed", async (t) => {
  const data = [sent, { error: { code: "not_a_member", message: "no" } }];
  const server = await startScripted(t, () => failure(207, "partial_failure", { data }));
  const entries = await clientOf(server).sendMessageBatch([message, message]);
  const [, { clientMsgNo }] = server.requests[0].body;
  assert.deepEqual(entries, [sent, { error: { code: "not_a_member", message: "no", clientMsgNo } }]);
});

test("a batch of which nothing was sent throws the first one's error, with the entries", async (t) => {
  const data = [{ error: { code: "blocked", message: "no" } }, { error: { code: "forbidden", message: "no" } }];
  const server = await startScripted(t, () => failure(403, "blocked", { data }));
  const error = await caught(clientOf(server).sendMessageBatch([message, { ...message, clientMsgNo: "mine" }]));
  assert.deepEqual([error.code, error.status], ["blocked", 403]);
  assert.deepEqual(error.data[1], { error: { code: "forbidden", message: "no", clientMsgNo: "mine" } });
  assert.match(error.data[0].error.clientMsgNo, /^[0-9a-f]{32}$/);
});

test("unhealthy is an answer, told at once; a gateway that cannot tell is an error", async (t) => {
  const data = { status: "unhealthy", timestamp: "2026-01-01T00:00:00Z" };
  const unhealthy = await startScripted(t, () => failure(503, "upstream_unavailable", { data, headers: { "retry-after": "0" } }));
  assert.deepEqual(await clientOf(unhealthy, { retries: 5 }).getHealth(), data);
  assert.equal(unhealthy.requests.length, 1);
  const overloaded = await startScripted(t, () => failure(503, "overloaded"));
  assert.equal((await caught(clientOf(overloaded).getHealth())).code, "overloaded");
});

test("no answer is a network_error, with the cause", async (t) => {
  const listener = createServer();
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address();
  await new Promise((resolve) => listener.close(resolve));
  const refused = await caught(clientOf({ baseUrl: `http://127.0.0.1:${port}` }).getConfig());
  assert.deepEqual([refused.code, refused.status, refused.requestId], ["network_error", 0, undefined]);
  assert.ok(refused.cause instanceof TypeError);
  const broken = await startScripted(t, () => undefined);
  assert.equal((await caught(clientOf(broken).getConfig())).code, "network_error");
});

test("an answer that breaks off is a network_error", async (t) => {
  const listener = createServer((socket) => {
    socket.once("data", () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"success":true'));
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  t.after(() => listener.close());
  const client = clientOf({ baseUrl: `http://127.0.0.1:${listener.address().port}` });
  assert.equal((await caught(client.getConfig())).code, "network_error");
});

test("a try that takes longer than timeoutMs is a network_error, and is not repeated", async (t) => {
  const headAlone = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"success":true';
  for (const said of ["", headAlone]) {
    let asked = 0;
    const listener = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => ((asked += 1), socket.write(said)));
    });
    await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
    t.after(() => listener.close());
    const client = clientOf({ baseUrl: `http://127.0.0.1:${listener.address().port}` }, { timeoutMs: 50, retries: 2 });
    const late = await caught(client.getConfig());
    assert.deepEqual([late.code, late.status, late.cause?.name, asked], ["network_error", 0, "TimeoutError", 1]);
    // The caller's own signal ends it with its own reason.
    const reason = new Error("enough");
    const patient = clientOf({ baseUrl: `http://127.0.0.1:${listener.address().port}` }, { timeoutMs: Infinity });
    const aborter = new AbortController();
    setTimeout(() => aborter.abort(reason), 50);
    await assert.rejects(patient.getConfig({ signal: aborter.signal }), reason);
  }
});

test("no cache keeps an answer", async (t) => {
  const server = await startScripted(t, () => success({}));
  const caches = [];
  const fetch = (request) => (caches.push(request.cache), globalThis.fetch(request));
  const client = clientOf(server, { fetch });
  await client.getConfig();
  await client.createToken();
  assert.deepEqual(caches, ["no-store", "no-store"]);
});

test("an address that is none is the caller's mistake, and thrown as such", async () => {
  await assert.rejects(clientOf({ baseUrl: "not an address" }).getConfig(), TypeError);
});

test("the messages' language is the caller's choice", async (t) => {
  const server = await startScripted(t, () => ({ body: "" }));
  assert.equal((await caught(clientOf(server).getConfig())).message, "响应并非来自网关 (HTTP 200)");
  const english = clientOf(server, { language: "en" });
  assert.equal((await caught(english.getConfig())).message, "the answer is not the gateway's (HTTP 200)");
  assert.deepEqual(server.requests.map(({ headers }) => headers["accept-language"]), ["zh", "en"]);
});

test("ids of messages keep all their digits, and one that came as a number is a bad_response", async (t) => {
  const server = await startScripted(t, () => success(sent));
  assert.equal((await clientOf(server).sendMessage(message)).messageId, "9223372036854775807");
  const body = (data) => JSON.stringify({ success: true, data }).replace(/"(9223372036854775807)"/, "$1");
  for (const [data, call] of [
    [sent, (client) => client.sendMessage(message)],
    [[sent], (client) => client.sendMessageBatch([message])],
    [[sent], (client) => client.syncMessages(history)],
  ]) {
    const converting = await startScripted(t, () => ({ headers: { "x-has-more": "false" }, body: body(data) }));
    assert.equal((await caught(call(clientOf(converting)))).code, "bad_response");
  }
});

test("a fetch of the caller's own is used", async () => {
  const seen = [];
  const fetch = async (request) => (seen.push(request.url), Response.json({ success: true, data: { uid: "alice" } }));
  const client = new GatewayClient({ baseUrl: "https://im.example.com/api/v1/im/", token: "t", fetch });
  assert.equal((await client.getConfig()).uid, "alice");
  assert.deepEqual(seen, ["https://im.example.com/api/v1/im/config"]);
});
