// The chat in a real browser (`CHROMIUM`, else Debian's), in two tabs: what users write and read there. Pictures of it are left in
// target/example.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { encodeText, GatewayClient } from "@wukongim-gateway/client";
import { chromium } from "playwright-core";

import { makeTokens, startGateway } from "./gateway.mjs";
import { servePage } from "./page.mjs";

const SECRET = "q7Vw3nK0pXz8Lb5Rt2Yd9Hc6Mf1Js4Ga";
const picture = (name) => fileURLToPath(new URL(`../../target/example/${name}.png`, import.meta.url));

let browser;
before(async () => {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: ["--disable-gpu"], chromiumSandbox: false });
});
after(() => browser?.close());

/** Each address in a tab of a browser that was never here. What the page throws fails the test. */
async function open(t, addresses) {
  const pages = [];
  for (const address of addresses) {
    const context = await browser.newContext({ viewport: { width: 1000, height: 620 } });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const thrown = [];
    page.on("pageerror", (error) => thrown.push(String(error)));
    t.after(() => (assert.deepEqual(thrown, []), context.close()));
    await page.goto(address);
    pages.push(page);
  }
  for (const page of pages) await status(page, "connected");
  return pages;
}

const status = (page, text) => page.getByRole("status").getByText(text, { exact: true }).waitFor();
const notice = (page, text) => page.getByRole("alert").getByText(text).waitFor();
const chat = (page, title) => page.getByRole("navigation").getByRole("button").filter({ has: page.getByText(title, { exact: true }) });
/** Waits until a conversation has this badge; none if it is empty. */
const badge = (page, title, text) => {
  const shown = chat(page, title).getByTitle("unread");
  return text ? shown.getByText(text, { exact: true }).waitFor() : shown.waitFor({ state: "detached" });
};
const messages = (page) => page.getByRole("log").getByRole("listitem");
/** Waits until a message is shown, with this state if it is the reader's own. */
const reads = (page, text, state = "") => messages(page).filter({ hasText: text }).filter({ hasText: state }).waitFor();
const counts = (page, count) => messages(page).nth(count - 1).waitFor();

async function say(page, text) {
  await page.getByRole("textbox").fill(text);
  await page.keyboard.press("Enter");
}

/** A gateway and the page in front of it, of the test's own: addresses, clients, and how to start the gateway anew. */
async function serve(t, generation) {
  let gateway = await startGateway(SECRET, { generation });
  const { port } = new URL(gateway.origin);
  t.after(() => gateway.stop());
  const page = await servePage(gateway.origin);
  t.after(page.stop);
  const [alice, bob] = makeTokens(SECRET).map((token) => `${page.address}#${token}`);
  const start = async () => (gateway = await startGateway(SECRET, { port, generation }));
  const client = (uid) => new GatewayClient({ baseUrl: `${gateway.origin}/api/v1/im`, token: makeTokens(SECRET, [uid])[0] });
  return { alice, bob, client, stop: () => gateway.stop(), start };
}

test("the command prints two addresses, where both chat with each other and in their group", async (t) => {
  const script = fileURLToPath(new URL("start.mjs", import.meta.url));
  const started = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => started.once("exit", resolve));
  t.after(() => (started.kill(), ended));
  let printed = "";
  for await (const more of started.stdout.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    printed += more;
    if (printed.includes("Ctrl-C")) break;
  }
  const addresses = printed.match(/http:\S+#\S+/g);
  assert.equal(addresses?.length, 2, printed);
  const [alice, bob] = await open(t, addresses);

  await chat(alice, "bob").click();
  await say(alice, "Hello, Bob!");
  await reads(alice, "Hello, Bob!", "stored #1");
  await badge(bob, "alice", "1");
  await chat(bob, "alice").click();
  await reads(bob, "Hello, Bob!");
  await badge(bob, "alice", "");
  await say(bob, "你好，Alice 👋");
  await reads(bob, "你好，Alice 👋", "stored #2");
  await reads(alice, "你好，Alice 👋");

  await chat(bob, "The team").click();
  await say(bob, "Hello, both!");
  await reads(bob, "Hello, both!", "stored #1");
  await badge(alice, "The team", "1");
  await chat(alice, "The team").click();
  await reads(alice, "Hello, both!");
  await say(alice, "<b>And hello again</b>");
  await reads(bob, "<b>And hello again</b>");
  await bob.screenshot({ path: picture("bob") });

  await bob.reload();
  await chat(bob, "alice").click();
  await reads(bob, "你好，Alice 👋", "stored #2");
  assert.equal(await messages(bob).count(), 2);
  // The token has left the address.
  assert.equal(bob.url(), addresses[1].split("#")[0]);
});

for (const generation of ["v2", "v3"]) {
  test(`what is read in one tab loses its badge in another tab of the user, on WuKongIM ${generation}`, async (t) => {
    const gateway = await serve(t, generation);
    const [alice, bob, carol] = ["alice", "bob", "carol"].map(gateway.client);
    const send = (client, channelId, channelType, ...texts) =>
      client.sendMessageBatch(texts.map((text) => ({ channelId, channelType, payload: encodeText(text) })));
    await bob.createChannel({ channelId: "trip", channelType: 2, name: "Trip to Wuhan" });
    await bob.addSubscribers({ channelId: "trip", channelType: 2, subscribers: ["alice", "carol"] });
    await send(carol, "trip", 2, "Who books the train?", "I can do it");
    await send(bob, "team", 2, "The release is out 🎉", "Thanks to all of you");
    await send(bob, "alice", 1, "Hi Alice", "Are you there?", "Lunch at twelve?");
    // v3 lists a pair a moment after its first message.
    while ((await alice.listConversations()).conversations.length < 3) await new Promise((resolve) => setTimeout(resolve, 100));

    const [one, other] = await open(t, [gateway.alice, gateway.alice]);
    for (const page of [one, other]) {
      await badge(page, "bob", "3");
      await badge(page, "The team", "2");
      await badge(page, "Trip to Wuhan", "2");
    }
    assert.deepEqual(await one.getByRole("navigation").locator("b").allTextContents(), ["bob", "The team", "Trip to Wuhan"]);
    await chat(one, "bob").click();
    await reads(one, "Lunch at twelve?");
    await badge(one, "bob", "");
    await badge(other, "bob", "");
    await badge(other, "The team", "2");
    await chat(one, "Trip to Wuhan").click();
    await badge(other, "Trip to Wuhan", "");
    const members = one.getByRole("list", { name: "Members" }).getByRole("listitem");
    await members.nth(2).waitFor();
    assert.deepEqual((await members.allTextContents()).map((text) => text.slice(1)), ["bobowner", "alice", "carol"]);
    await other.screenshot({ path: picture(`other-tab-${generation}`) });
    // It is open in one tab: what comes is read at once.
    await send(carol, "trip", 2, "Booked!");
    await reads(one, "Booked!");
    await one.screenshot({ path: picture(`tab-${generation}`) });
    await badge(one, "Trip to Wuhan", "");
    await other.getByText("Booked!").waitFor();
    await badge(other, "Trip to Wuhan", "");
    await other.reload();
    await badge(other, "The team", "2");
    await badge(other, "Trip to Wuhan", "");
  });
}

test("scrolling to the top reads the older messages, of which the SDK cannot read one", async (t) => {
  const { alice, bob, client } = await serve(t);
  const payload = (text) => Buffer.from(text).toString("base64");
  const batch = Array.from({ length: 70 }, (_, index) => JSON.stringify({ type: 1, content: `number ${index + 1}.` }));
  batch[67] = "no JSON";
  await client("alice").sendMessageBatch(batch.map((text) => ({ channelId: "bob", channelType: 1, payload: payload(text) })));
  const [page] = await open(t, [bob, alice]);
  await chat(page, "alice").click();
  await reads(page, "number 70.");
  await reads(page, "[未知消息]");
  assert.equal(await messages(page).count(), 30);
  const toTop = () => page.locator("#history").evaluate((history) => history.scrollTo(0, 0));
  for (const [count, first] of [[60, "number 41."], [70, "number 11."]]) {
    const seen = messages(page).filter({ hasText: first });
    await toTop();
    await counts(page, count);
    // What was read stays where it was.
    const { y } = await seen.boundingBox();
    assert.ok(y > 0 && y < 300, `${first} at ${y}`);
  }
  await reads(page, "number 1.");
  assert.equal(await messages(page).count(), 70);
});

test("both come back by themselves to a gateway that was started again on its port", async (t) => {
  const gateway = await serve(t);
  const [alice, bob] = await open(t, [gateway.alice, gateway.bob]);
  await chat(alice, "bob").click();
  await chat(bob, "alice").click();
  await say(alice, "before");
  await reads(bob, "before");
  await gateway.stop();
  for (const page of [alice, bob]) {
    await status(page, "reconnecting…");
    assert.ok(await page.getByRole("button", { name: "Send" }).isDisabled());
    // The address and the token cannot be had.
    await notice(page, "the answer is not the gateway's");
  }
  await gateway.start();
  for (const page of [alice, bob]) await status(page, "connected");
  await say(alice, "after");
  // The gateway with `--embedded` has forgotten what was before.
  await reads(alice, "after", "stored #1");
  await reads(bob, "after");
  await chat(bob, "The team").click();
  await say(bob, "to both");
  await reads(bob, "to both", "stored #1");
});

test("it says why a message is refused and why it was disconnected", async (t) => {
  const { alice, client } = await serve(t);
  const [page] = await open(t, [alice]);
  await chat(page, "The team").click();
  await client("alice").deleteChannel({ channelId: "team", channelType: 2 });
  await say(page, "to nobody");
  await reads(page, "to nobody", "refused: 24");
  await client("alice").revokeToken();
  await status(page, "disconnected: connectKick");
  // A reload asks for a new connect token.
  await page.reload();
  await status(page, "connected");
  await chat(page, "team").click();
  await notice(page, "team: ");
});
