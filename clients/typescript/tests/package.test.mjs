// What the package is, apart from what it does.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";

import { build } from "esbuild";

import { GatewayClient } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";
import { startScripted } from "./scripted.mjs";

const text = (path) => readFile(new URL(path, import.meta.url), "utf8");
const json = async (path) => JSON.parse(await text(path));

test("every operation of the API document has a method of its name", async () => {
  const { paths } = await json("../../../docs/openapi.json");
  const operations = Object.values(paths).flatMap((path) => Object.values(path).map(({ operationId }) => operationId));
  // A socket is the SDK's.
  const calls = operations.filter((id) => id !== "open_socket");
  const methods = calls.map((id) => id.replace(/_(.)/g, (_, letter) => letter.toUpperCase()));
  const own = Object.getOwnPropertyNames(GatewayClient.prototype).filter((name) => name !== "constructor");
  assert.deepEqual(own.sort(), methods.sort());
});

test("it depends on openapi-fetch alone, and no registry is named", async () => {
  assert.deepEqual(Object.keys((await json("../package.json")).dependencies), ["openapi-fetch"]);
  const { packages } = await json("../package-lock.json");
  for (const [name, { resolved }] of Object.entries(packages)) assert.equal(resolved, undefined, name);
});

test("tools that do not read \"exports\" find the same files", async () => {
  const { main, types, exports } = await json("../package.json");
  assert.deepEqual({ types, default: main }, exports["."]);
});

test("it needs nothing that only Node has", async (t) => {
  const { outputFiles } = await build({
    entryPoints: [new URL("../dist/index.js", import.meta.url).pathname],
    bundle: true,
    format: "iife",
    globalName: "client",
    platform: "browser",
    write: false,
  });
  const { baseUrl, token } = await startGateway(t);
  const page = "<h1>welcome</h1>";
  const proxy = await startScripted(t, () => ({ headers: { "content-length": page.length }, body: page }));
  const web = ["fetch", "Request", "Response", "Headers", "FormData", "URL", "AbortController", "AbortSignal", "DOMException"];
  const rest = ["TextEncoder", "TextDecoder", "atob", "btoa", "crypto", "setTimeout", "clearTimeout"];
  const globals = Object.fromEntries([...web, ...rest].map((name) => [name, globalThis[name]]));
  const run = `(async () => {
    const { GatewayClient, encodeText, decodeText } = client;
    const alice = new GatewayClient({ baseUrl: ${JSON.stringify(baseUrl)}, token: ${JSON.stringify(token("alice"))} });
    const { messageId } = await alice.sendMessage({ channelId: "bob", channelType: 1, payload: encodeText("hello") });
    const { messages } = await alice.syncMessages({ channelId: "bob", channelType: 1 });
    const elsewhere = new GatewayClient({ baseUrl: ${JSON.stringify(proxy.baseUrl)}, token: "t" });
    const { code } = await elsewhere.getConfig().catch((error) => error);
    return JSON.stringify([messages[0].messageId === messageId, decodeText(messages[0].payload), code]);
  })()`;
  const answer = await runInContext(`${outputFiles[0].text}; ${run}`, createContext(globals));
  assert.equal(answer, '[true,"hello","bad_response"]');
});
