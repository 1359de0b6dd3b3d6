// The page of a chat in a real browser, in two tabs: what alice and bob write and read there, and what the browser was not allowed to do.
// Pictures of it are left in target/page.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { after, before, test } from "node:test";

import { NAME, launch, picture } from "./browser.mjs";
import { startGateway } from "./gateway.mjs";

const PHONE = { width: 390, height: 700 };

let browser;
before(async () => (browser = await launch()));
after(() => browser?.close());

/** A gateway of this test's own. */
async function start(t, ...options) {
  const gateway = await startGateway(...options);
  t.after(() => gateway.stop());
  return gateway;
}

/** Carries connections to the gateway, except what is sent in a direction that it `loses`. A `cut` ends them all, until it is `mended`. */
async function line(t, port) {
  const open = new Set();
  const lost = { up: false, down: false };
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) return near.destroy();
    const far = connect(port, "127.0.0.1");
    for (const [from, to, direction] of [[near, far, "up"], [far, near, "down"]]) {
      open.add(from);
      from.on("data", (bytes) => lost[direction] || to.write(bytes));
      from.on("error", () => {}).on("close", () => (open.delete(from), to.destroy()));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => ((isCut = true), open.forEach((socket) => socket.destroy()));
  t.after(() => (server.close(), cut()));
  const mend = () => ((isCut = false), Object.assign(lost, { up: false, down: false }));
  return { port: server.address().port, lose: (direction) => (lost[direction] = true), cut, mend };
}

/** A tab of a browser that was never here. What the browser forbids it, and what its script throws, fails the test. */
async function open(t, address, { viewport = { width: 900, height: 640 }, locale = "en" } = {}) {
  const context = await browser.newContext({ viewport, locale });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const complaints = [];
  await page.exposeFunction("complain", (text) => complaints.push(text));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) => complain(`${effectiveDirective} ${blockedURI}`));
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  await page.goto(address);
  return Object.assign(page, { complaints });
}

const status = (page, state) => page.locator(`#status[data-state="${state}"]`).waitFor();
const channel = (page, name) => page.locator("#channels button", { hasText: name });
const message = (page, text) => page.locator("#messages ol:not([hidden]) li", { has: page.getByText(text, { exact: true }) });
const texts = (page) => page.locator("#messages ol:not([hidden]) li p").allInnerTexts();

async function say(page, text) {
  await page.getByRole("textbox", { name: "Message" }).fill(text);
  await page.keyboard.press("Enter");
}

/** Waits until a message is shown, with this state if it is the reader's own. */
const reads = (page, text, state) =>
  (state ? message(page, text).locator(".state", { hasText: state }) : message(page, text)).waitFor();

/** The chat of both, open in two tabs. */
async function openBoth(t, [alice, bob], options) {
  const pages = await Promise.all([open(t, alice, options), open(t, bob, options)]);
  await Promise.all(pages.map((page) => status(page, "online")));
  return pages;
}

/** Calls the API with the token of this address. */
async function call(chat, path, body) {
  const [base, token] = chat.split("#");
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const response = await fetch(new URL(path, base), { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal(response.status, 200, await response.text());
}

const payload = (text) => Buffer.from(JSON.stringify({ type: 1, content: text })).toString("base64");
const through = (chats, port) => chats.map((chat) => Object.assign(new URL(chat), { port }).href);

for (const generation of ["v2", "v3"]) {
  test(`what alice types bob reads, to him and to the group of both (${generation})`, async (t) => {
    const { chats } = await start(t, {}, `--embedded=${generation}`);
    const [alice, bob] = await openBoth(t, chats);
    await say(alice, "Hello, Bob!");
    await reads(alice, "Hello, Bob!", "stored #1");
    await reads(bob, "Hello, Bob!");
    await say(bob, "你好，Alice 👋");
    await reads(bob, "你好，Alice 👋", "stored #2");
    await reads(alice, "你好，Alice 👋");

    await channel(bob, "Group").click();
    await say(bob, "Hello, both!");
    await reads(bob, "Hello, both!", "stored #1");
    await channel(alice, "Group").locator(".unread", { hasText: "1 unread" }).waitFor();
    await alice.screenshot({ path: picture("chat-alice") });
    await channel(alice, "Group").click();
    await reads(alice, "Hello, both!");
    assert.equal(await alice.locator(".unread").count(), 0);
    await say(alice, "And hello again");
    await reads(bob, "And hello again");
    await bob.screenshot({ path: picture("chat-bob") });
    // The token has left the address.
    assert.equal(alice.url(), chats[0].split("#")[0]);
  });
}

test("after a reload the history is there, older pages follow, and nothing shows twice", async (t) => {
  const { chats } = await start(t);
  const batch = Array.from({ length: 55 }, (_, index) => ({ channelId: "bob", channelType: 1, payload: payload(`number ${index + 1}`) }));
  await call(chats[0], "message/sendbatch", batch);
  const [alice, bob] = await openBoth(t, chats);
  for (const page of [alice, bob]) await reads(page, "number 55");
  assert.equal((await texts(bob))[0], "number 6");
  await say(bob, "the last");
  await reads(alice, "the last");
  await bob.reload();
  await reads(bob, "the last", "stored #56");
  await bob.getByRole("button", { name: "Older messages" }).click();
  await reads(bob, "number 1");
  assert.equal(await bob.getByRole("button", { name: "Older messages" }).count(), 0);
  assert.deepEqual(await texts(bob), [...batch.keys()].map((index) => `number ${index + 1}`).concat("the last"));
});

test("after a cut it comes back by itself and misses nothing", async (t) => {
  const { chats, port } = await start(t);
  const to = await line(t, port);
  const [alice, bob] = await openBoth(t, [chats[0], through(chats, to.port)[1]]);
  await channel(alice, "Group").click();
  await say(alice, "before to both");
  await channel(alice, "bob").click();
  await say(alice, "before");
  // What is shown after a reload was read: only news after a first reading counts as unread.
  await reads(bob, "before");
  await bob.reload();
  await status(bob, "online");
  await channel(bob, "Group").click();
  await reads(bob, "before to both");
  await channel(bob, "alice").first().click();
  await reads(bob, "before");
  to.cut();
  await status(bob, "offline");
  assert.ok(await bob.getByRole("button", { name: "Send", exact: true }).isDisabled());
  await say(alice, "meanwhile");
  await reads(alice, "meanwhile", "stored #2");
  await channel(alice, "Group").click();
  await say(alice, "meanwhile to both");
  await reads(alice, "meanwhile to both", "stored #2");
  to.mend();
  await status(bob, "online");
  await reads(bob, "meanwhile");
  await channel(bob, "1 unread").click();
  await reads(bob, "meanwhile to both");
  await say(alice, "afterwards");
  await reads(bob, "afterwards");
  assert.deepEqual(await texts(bob), ["before to both", "meanwhile to both", "afterwards"]);
  await channel(bob, "alice").first().click();
  assert.deepEqual(await texts(bob), ["before", "meanwhile"]);
});

test("a message whose answer was lost is found, and one that was lost itself can be sent again", async (t) => {
  const { chats, port } = await start(t);
  const to = await line(t, port);
  const [alice, bob] = await openBoth(t, [chats[0], through(chats, to.port)[1]]);
  to.lose("down");
  await say(bob, "no answer");
  await reads(alice, "no answer");
  await reads(bob, "no answer", "sending…");
  to.cut();
  await status(bob, "offline");
  to.mend();
  await reads(bob, "no answer", "stored #1");
  await status(bob, "online");

  to.lose("up");
  await say(bob, "no way");
  await reads(bob, "no way", "sending…");
  to.cut();
  await status(bob, "offline");
  to.mend();
  await reads(bob, "no way", "not delivered");
  await bob.getByRole("button", { name: "Send again" }).click();
  await reads(bob, "no way", "stored #2");
  await reads(alice, "no way");
  for (const page of [alice, bob]) assert.deepEqual(await texts(page), ["no answer", "no way"]);
});

test("it goes on with a gateway that was started again and has forgotten everything", async (t) => {
  const secret = { JWT_SECRET: "q7Vw3nK0pXz8Lb5Rt2Yd9Hc6Mf1Js4Ga" };
  const first = await start(t, secret);
  const [alice, bob] = await openBoth(t, first.chats);
  for (const text of ["one", "two", "three"]) await say(alice, text);
  await reads(bob, "three");
  await first.stop();
  await Promise.all([status(alice, "offline"), status(bob, "offline")]);
  await start(t, { ...secret, GATEWAY__SERVER__LISTEN: `127.0.0.1:${first.port}` });
  await Promise.all([status(alice, "online"), status(bob, "online")]);
  await message(bob, "three").waitFor({ state: "detached" });
  await say(bob, "anew");
  await reads(bob, "anew", "stored #1");
  await reads(alice, "anew");
  assert.deepEqual(await texts(alice), ["anew"]);
  await channel(alice, "Group").click();
  await say(alice, "to both");
  await reads(alice, "to both", "stored #1");
});

test("markup is shown as it was typed, also from a page that is not ours", async (t) => {
  const { chats } = await start(t);
  const [alice, bob] = await openBoth(t, chats);
  const attacks = ["<img src=x onerror=\"document.title='taken'\">", "<script>document.title='taken'</script>", "<a href=\"javascript:void 0\">x</a>"];
  for (const attack of attacks) {
    await say(alice, attack);
    await reads(bob, attack);
  }
  // No JSON, JSON of another kind, and no UTF-8.
  for (const odd of ["<b>plain</b>", '{"type":1,"content":{"a":"<b>"}}', Buffer.from([0xff, 0xfe])]) {
    await call(chats[0], "message/send", { channelId: "bob", channelType: 1, payload: Buffer.from(odd).toString("base64") });
  }
  await reads(bob, '{"type":1,"content":{"a":"<b>"}}');
  await message(bob, "\ufffd\ufffd").waitFor();
  assert.equal(await bob.title(), "bob");
  assert.equal(await bob.locator("#messages :is(img, script, a, b)").count(), 0);
});

test("what the policy forbids is stopped and seen by these tests", async (t) => {
  const { chats } = await start(t);
  const page = await open(t, chats[0]);
  await status(page, "online");
  await page.evaluate(() => fetch("http://elsewhere.test/").catch(() => {}));
  await page.evaluate(() => new WebSocket("ws://elsewhere.test/"));
  await page.evaluate(() => document.body.append(Object.assign(document.createElement("img"), { src: "http://elsewhere.test/" })));
  const isHtmlMade = await page.evaluate(() => {
    try {
      document.body.innerHTML = "<p>";
      return true;
    } catch {
      return false;
    }
  });
  assert.equal(isHtmlMade, false);
  while (page.complaints.length < 4) await page.waitForTimeout(20);
  const forbidden = page.complaints.splice(0).map((complaint) => complaint.split(" ")[0]);
  assert.deepEqual(forbidden.sort(), ["connect-src", "connect-src", "img-src", "require-trusted-types-for"]);
});

test("it says in words why it ends, and why a message is refused", async (t) => {
  const { chats } = await start(t);
  const alice = await open(t, chats[0]);
  await status(alice, "online");
  // The first tab makes the group.
  await channel(alice, "Group").click();
  await say(alice, "to both");
  await reads(alice, "to both", "stored #1");
  await call(chats[0], "channel/delete", { channelId: "demo", channelType: 2 });
  await say(alice, "to nobody");
  await reads(alice, "to nobody", "refused: the group was deleted");
  await alice.getByRole("button", { name: "Send again" }).click();
  await reads(alice, "to nobody", "refused: the group was deleted");
  await say(alice, "x".repeat(70_000));
  await alice.getByRole("alert").getByText("the message is too large").waitFor();

  await call(chats[0], "token/revoke", {});
  await status(alice, "ended");
  assert.match(await alice.locator("#status").innerText(), /^disconnected: .*revoked/);
  // A reload asks for a new connect token.
  await alice.reload();
  await status(alice, "online");

  const [address] = chats[0].split("#");
  for (const [bad, why] of [[`${address}#no.such.token`, /token/], [address, /--embedded/]]) {
    const page = await open(t, bad);
    await status(page, "ended");
    assert.match(await page.locator("#status").innerText(), why);
  }
});

test("on a phone, in Chinese and by another name of the gateway it is the same", async (t) => {
  const { chats } = await start(t);
  const named = chats.map((chat) => Object.assign(new URL(chat), { hostname: NAME }).href);
  const alice = await open(t, named[0], { viewport: PHONE, locale: "zh-CN" });
  const bob = await open(t, named[1], { viewport: PHONE, locale: "en" });
  await Promise.all([status(alice, "online"), status(bob, "online")]);
  await alice.getByRole("textbox", { name: "消息" }).fill("晚上好");
  await alice.getByRole("button", { name: "发送" }).click();
  await reads(alice, "晚上好", "已存储 #1");
  await reads(bob, "晚上好");
  await say(bob, "w".repeat(300));
  await reads(alice, "w".repeat(300));
  await alice.screenshot({ path: picture("chat-phone") });
  const width = await alice.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, String(width));
});
