// The documentation page in a real browser: what a person sees and does there, and what the browser was not allowed to do. A picture of it is
// left in target/page.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { NAME, launch, picture } from "./browser.mjs";
import { startGateway } from "./gateway.mjs";

let gateway, browser;
before(async () => {
  gateway = await startGateway();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/** A page of a browser that was never here, at this address; `seen` gathers what it asks for and what it complains of. */
async function open(t, address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 1400 }, locale: "en" });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const seen = { requests: [], complaints: [] };
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(address);
  await page.locator(".opblock").first().waitFor();
  return { page, seen };
}

const operation = (page, id) => page.locator(`.opblock[id$="-${id}"]`);

async function authorize(page, token) {
  await page.locator(".auth-wrapper .authorize").click();
  const dialog = page.locator(".dialog-ux");
  await dialog.locator("input").fill(token);
  await dialog.locator("button.authorize").click();
  await dialog.locator("button.btn-done").click();
}

/** Clicks through a call, with another body where one is given: the status and the answer that are shown. */
async function call(page, id, body) {
  const block = operation(page, id);
  await block.locator(".opblock-summary-control").click();
  await block.locator(".try-out__btn").click();
  if (body) await block.locator("textarea.body-param__text").fill(JSON.stringify(body));
  await block.locator("button.execute").click();
  const answer = block.locator(".live-responses-table tr.response");
  const status = await answer.locator(".response-col_status").innerText();
  return { status: parseInt(status, 10), text: await answer.locator(".highlight-code code").first().innerText() };
}

test("a pasted token makes the calls work", async (t) => {
  const { page, seen } = await open(t, gateway.docs);
  await authorize(page, gateway.token);
  const config = await call(page, "get_config");
  assert.equal(config.status, 200, config.text);
  assert.equal(JSON.parse(config.text).data.uid, "alice");

  const payload = Buffer.from(JSON.stringify({ type: 1, content: "from the page" })).toString("base64");
  const sent = await call(page, "send_message", { channelId: "bob", channelType: 1, payload });
  assert.equal(sent.status, 200, sent.text);
  const { messageId, messageSeq } = JSON.parse(sent.text).data;
  await operation(page, "send_message").locator(".live-responses-table").scrollIntoViewIfNeeded();
  await page.screenshot({ path: picture("called") });

  // It is stored as it is shown, every digit of it.
  const address = new URL("message/sync?channelId=bob&channelType=1", gateway.docs);
  const stored = await (await fetch(address, { headers: { Authorization: `Bearer ${gateway.token}` } })).json();
  assert.deepEqual(stored.data.map((message) => [message.messageId, message.messageSeq, message.payload]), [[messageId, messageSeq, payload]]);

  assert.deepEqual(seen.complaints, []);
  const origins = new Set(seen.requests.filter((url) => !url.startsWith("data:")).map((url) => new URL(url).origin));
  assert.deepEqual([...origins], [new URL(gateway.docs).origin]);
  // In no address and in no store of the browser's: with the page the token is gone.
  assert.equal(page.url(), gateway.docs);
  assert.deepEqual(seen.requests.filter((url) => url.includes(gateway.token)), []);
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, ""]);
  // What may not be is stopped, and is among the complaints.
  const [complaint] = await Promise.all([page.waitForEvent("console"), page.evaluate(() => fetch("http://elsewhere.test/").catch(() => {}))]);
  assert.match(complaint.text(), /Content Security Policy/);
  assert.equal(seen.complaints[0], complaint.text());

  await page.reload();
  const anonymous = await call(page, "get_config");
  assert.equal(anonymous.status, 401, anonymous.text);
});

test("it is a page to read: every operation, and no link that leads nowhere", async (t) => {
  const { page, seen } = await open(t, `${gateway.docs}/`);
  assert.equal(page.url(), gateway.docs);
  const document = await (await fetch(new URL("openapi.json", gateway.docs))).json();
  const described = Object.values(document.paths).flatMap((item) => Object.values(item)).map(({ operationId }) => operationId);
  for (const id of described) await operation(page, id).waitFor();
  assert.equal(await page.locator(".opblock").count(), described.length);
  await page.screenshot({ path: picture("whole"), fullPage: true });

  for (const id of described) await operation(page, id).locator(".opblock-summary-control").click();
  const hrefs = await page.locator("a[href]").evaluateAll((links) => links.map((link) => link.href));
  const { origin } = new URL(gateway.docs);
  const ours = [...new Set(hrefs.filter((href) => new URL(href).origin === origin).map((href) => href.split("#")[0]))];
  assert.ok(ours.some((href) => href.endsWith("/ERRORS.md")), String(hrefs));
  for (const href of ours) assert.equal((await fetch(href)).status, 200, href);
  // A link to a code leads to its row.
  await page.goto(hrefs.find((href) => href.endsWith("/ERRORS.md#token_invalid")));
  await page.locator("tr#token_invalid", { hasText: "Log in again" }).waitFor();
  assert.deepEqual(seen.complaints, []);
});

test("it is in Chinese where that is asked for", async (t) => {
  const { page, seen } = await open(t, gateway.docs);
  const summary = operation(page, "send_message").locator(".opblock-summary-description");
  assert.match(await summary.innerText(), /^Sends one message/);
  await page.locator("nav a", { hasText: "中文" }).click();
  await summary.filter({ hasText: "发送一条消息" }).waitFor();
  assert.equal(page.url(), `${gateway.docs}?lang=zh`);
  await page.screenshot({ path: picture("chinese"), fullPage: true });
  assert.deepEqual(seen.complaints, []);
});

test("under another name it calls that name", async (t) => {
  const { page, seen } = await open(t, gateway.docs.replace("127.0.0.1", NAME));
  await authorize(page, gateway.token);
  const { status, text } = await call(page, "get_config");
  assert.equal(status, 200, text);
  const called = seen.requests.filter((url) => url.endsWith("/config"));
  assert.deepEqual(called, [`http://${NAME}:${gateway.port}/api/v1/im/config`]);
  assert.deepEqual(seen.complaints, []);
});

test("below a prefix of a proxy's it calls what lies there", async (t) => {
  const proxy = createServer(async (request, answer) => {
    assert.ok(request.url.startsWith("/chat/"), request.url);
    const { "accept-encoding": _, connection: __, ...headers } = request.headers;
    const from = await fetch(new URL(request.url.slice("/chat".length), gateway.docs), { headers, redirect: "manual" });
    answer.writeHead(from.status, { "content-type": from.headers.get("content-type") });
    answer.end(Buffer.from(await from.arrayBuffer()));
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.after(() => proxy.close());
  const origin = `http://127.0.0.1:${proxy.address().port}`;
  const { page, seen } = await open(t, `${origin}/chat/api/v1/im/docs`);
  await authorize(page, gateway.token);
  const { status, text } = await call(page, "get_config");
  assert.equal(status, 200, text);
  const called = seen.requests.filter((url) => url.endsWith("/config"));
  assert.deepEqual(called, [`${origin}/chat/api/v1/im/config`]);
  assert.deepEqual(seen.complaints, []);
});
