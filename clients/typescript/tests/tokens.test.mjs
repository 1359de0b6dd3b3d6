import assert from "node:assert/strict";
import { test } from "node:test";

import { GatewayClient } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";
import { failure, startScripted, success } from "./scripted.mjs";

const INFO = { version: "unknown", uptime: 1, connections: 0, gatewayVersion: "0.1.0" };
const bearer = ({ headers }) => headers.authorization?.replace("Bearer ", "");

/** A provider that counts, and remembers what it was asked with. */
function counting(give) {
  const asked = [];
  const provider = async (expired) => (asked.push(expired), give(asked.length, expired));
  return { asked, provider };
}

/** A server that takes `good` alone. */
const taking = (good) => (request) => (bearer(request) === good ? success(INFO) : failure(401, "token_expired"));

test("a token is asked for once and kept", async (t) => {
  const { baseUrl, requests } = await startScripted(t, () => success(INFO));
  const { asked, provider } = counting(() => "one");
  const client = new GatewayClient({ baseUrl, token: provider });
  await Promise.all([client.getSystemInfo(), client.getSystemInfo()]);
  await client.getSystemInfo();
  assert.deepEqual(asked, [undefined]);
  assert.deepEqual(requests.map(bearer), ["one", "one", "one"]);
});

test("many calls that find the token expired renew it once and all succeed", async (t) => {
  const { baseUrl, requests } = await startScripted(t, taking("token-2"));
  const { asked, provider } = counting((time) => `token-${time}`);
  const client = new GatewayClient({ baseUrl, token: provider });
  const answers = await Promise.all(Array.from({ length: 20 }, () => client.getSystemInfo()));
  assert.equal(answers.length, 20);
  assert.deepEqual(asked, [undefined, "token-1"]);
  assert.equal(requests.length, 40);
});

test("a call that learns of it late uses the token that was renewed meanwhile", async (t) => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const { baseUrl } = await startScripted(t, async (request) => {
    if (request.url.includes("late") && bearer(request) === "token-1") await held;
    if (bearer(request) !== "token-2") return failure(401, "token_expired");
    return success([], { "x-has-more": "false" });
  });
  const { asked, provider } = counting((time) => `token-${time}`);
  const client = new GatewayClient({ baseUrl, token: provider });
  const late = client.syncMessages({ channelId: "late", channelType: 1 });
  await client.syncMessages({ channelId: "early", channelType: 1 });
  release();
  await late;
  assert.deepEqual(asked, [undefined, "token-1"]);
});

test("a call that learns of it very late uses the newest token, not the one that came next", async (t) => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const { baseUrl } = await startScripted(t, async (request) => {
    if (request.url.includes("late") && bearer(request) === "token-1") await held;
    return bearer(request) === "token-3" ? success([], { "x-has-more": "false" }) : failure(401, "token_expired");
  });
  const { asked, provider } = counting((time) => `token-${time}`);
  const client = new GatewayClient({ baseUrl, token: provider });
  const late = client.syncMessages({ channelId: "late", channelType: 1 });
  const early = () => client.syncMessages({ channelId: "early", channelType: 1 });
  await assert.rejects(early(), { code: "token_expired" });
  await early();
  release();
  await late;
  assert.deepEqual(asked, [undefined, "token-1", undefined]);
});

test("a change is repeated with the new token too: the gateway refused it before doing anything", async (t) => {
  const { baseUrl, requests } = await startScripted(t, (request) =>
    bearer(request) === "token-2" ? success({ channelId: "g" }) : failure(401, "token_expired"),
  );
  const client = new GatewayClient({ baseUrl, token: counting((time) => `token-${time}`).provider });
  await client.deleteChannel({ channelId: "g", channelType: 2 });
  assert.equal(requests.length, 2);
});

test("a new token that is expired as well fails the call", async (t) => {
  const { baseUrl, requests } = await startScripted(t, taking("none"));
  const { asked, provider } = counting((time) => `token-${time}`);
  const client = new GatewayClient({ baseUrl, token: provider });
  await assert.rejects(client.getSystemInfo(), { code: "token_expired", status: 401, requestId: "r-1" });
  assert.deepEqual([asked.length, requests.length], [2, 2]);
});

test("a provider that has no other token fails the call without another request", async (t) => {
  const { baseUrl, requests } = await startScripted(t, taking("none"));
  for (const token of ["fixed", () => "fixed"]) {
    const client = new GatewayClient({ baseUrl, token });
    await assert.rejects(client.getSystemInfo(), { code: "token_expired" });
  }
  assert.equal(requests.length, 2);
});

test("a provider that fails to renew fails all calls once, with its own error as the cause; the next call asks again", async (t) => {
  const { baseUrl } = await startScripted(t, taking("token-3"));
  const cause = new Error("log in again");
  const { asked, provider } = counting((time) => {
    if (time === 2) throw cause;
    return `token-${time}`;
  });
  const client = new GatewayClient({ baseUrl, token: provider });
  const failed = await Promise.allSettled([client.getSystemInfo(), client.getSystemInfo()]);
  for (const { reason } of failed) assert.deepEqual([reason.name, reason.code, reason.cause], ["GatewayError", "token_expired", cause]);
  assert.equal(asked.length, 2);
  await client.getSystemInfo();
  assert.deepEqual(asked, [undefined, "token-1", undefined]);
});

test("without a token nothing is sent, but for what needs none", async (t) => {
  const { baseUrl, requests } = await startScripted(t, () => success({ status: "healthy", timestamp: "2026-01-01T00:00:00Z" }));
  const cause = new Error("not logged in");
  const throwing = () => {
    throw cause;
  };
  for (const [token, code] of [["", "token_missing"], [throwing, "token_missing"], ["a b", "token_invalid"], ["a\nb", "token_invalid"]]) {
    const client = new GatewayClient({ baseUrl, token });
    const error = await client.getSystemInfo().catch((error) => error);
    assert.deepEqual([error.name, error.code, error.status], ["GatewayError", code, 401]);
    assert.equal(error.cause, token === throwing ? cause : undefined);
    assert.ok(!String(error).includes("a b"));
    await client.getHealth();
  }
  assert.deepEqual(requests.map(({ url, headers }) => [url, headers.authorization]), Array(4).fill(["/api/v1/im/health", undefined]));
});

test("an invalid token is not renewed in silence, but the next call asks for one anew", async (t) => {
  const { baseUrl, requests } = await startScripted(t, (request) =>
    bearer(request) === "token-2" ? success(INFO) : failure(401, "token_invalid"),
  );
  const { asked, provider } = counting((time) => `token-${time}`);
  const client = new GatewayClient({ baseUrl, token: provider });
  await assert.rejects(client.getSystemInfo(), { code: "token_invalid" });
  assert.equal(requests.length, 1);
  await client.getSystemInfo();
  assert.deepEqual(asked, [undefined, undefined]);
});

test("who gives up waiting for a token takes it from nobody else", async (t) => {
  const { baseUrl } = await startScripted(t, () => success(INFO));
  let give;
  const { asked, provider } = counting(() => new Promise((resolve) => (give = resolve)));
  const client = new GatewayClient({ baseUrl, token: provider });
  const impatient = new AbortController();
  const given = client.getSystemInfo({ signal: impatient.signal });
  const patient = client.getSystemInfo();
  impatient.abort(new Error("enough"));
  await assert.rejects(given, { message: "enough" });
  give("one");
  await patient;
  assert.equal(asked.length, 1);
});

test("the gateway's own expired token is renewed", async (t) => {
  const gateway = await startGateway(t, { AUTH__LEEWAY: "0s" });
  const { asked, provider } = counting((time) => gateway.token("alice", { seconds: time === 1 ? -1 : 60 }));
  const client = new GatewayClient({ baseUrl: gateway.baseUrl, token: provider });
  const answers = await Promise.all(Array.from({ length: 5 }, () => client.getConfig()));
  assert.deepEqual(answers.map(({ uid }) => uid), Array(5).fill("alice"));
  assert.equal(asked.length, 2);
});
