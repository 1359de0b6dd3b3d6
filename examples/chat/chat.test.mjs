// The chat in a real browser (`CHROMIUM`, else Debian's), in two tabs: what alice and bob write and read there. Pictures of it are left in
// target/example.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { GatewayClient } from "@wukongim-gateway/client";
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
    const context = await browser.newContext({ viewport: { width: 640, height: 480 } });
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
const chat = (page, title) => page.getByRole("button", { name: title });
const messages = (page) => page.getByRole("log").getByRole("listitem");
/** Waits until a message is shown, with this state if it is the reader's own. */
const reads = (page, text, state = "") => messages(page).filter({ hasText: text }).filter({ hasText: state }).waitFor();

async function say(page, text) {
  await page.getByRole("textbox").fill(text);
  await page.keyboard.press("Enter");
}

/** A gateway and the page in front of it, of the test's own: the addresses, and how to start the gateway anew. */
async function serve(t) {
  let gateway = await startGateway(SECRET);
  const { port } = new URL(gateway.origin);
  t.after(() => gateway.stop());
  const page = await servePage(gateway.origin);
  t.after(page.stop);
  const [alice, bob] = makeTokens(SECRET).map((token) => `${page.address}#${token}`);
  const start = async () => (gateway = await startGateway(SECRET, port));
  const client = new GatewayClient({ baseUrl: `${gateway.origin}/api/v1/im`, token: alice.split("#")[1] });
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

  await say(alice, "Hello, Bob!");
  await reads(alice, "Hello, Bob!", "stored #1");
  await reads(bob, "Hello, Bob!");
  await say(bob, "你好，Alice 👋");
  await reads(bob, "你好，Alice 👋", "stored #2");
  await reads(alice, "你好，Alice 👋");

  await chat(bob, "The team").click();
  await say(bob, "Hello, both!");
  await reads(bob, "Hello, both!", "stored #1");
  await chat(alice, "The team (1)").waitFor();
  await alice.screenshot({ path: picture("alice") });
  await chat(alice, "The team").click();
  await reads(alice, "Hello, both!");
  await say(alice, "<b>And hello again</b>");
  await reads(bob, "<b>And hello again</b>");
  await bob.screenshot({ path: picture("bob") });

  await bob.reload();
  await reads(bob, "你好，Alice 👋", "stored #2");
  assert.equal(await messages(bob).count(), 2);
  // The token has left the address.
  assert.equal(bob.url(), addresses[1].split("#")[0]);
});

test("older pages of a history follow, and a payload that the SDK cannot read does no harm", async (t) => {
  const { alice, bob, client } = await serve(t);
  const payload = (text) => Buffer.from(text).toString("base64");
  const batch = Array.from({ length: 60 }, (_, index) => JSON.stringify({ type: 1, content: `number ${index + 1}.` }));
  batch[57] = "no JSON";
  await client.sendMessageBatch(batch.map((text) => ({ channelId: "bob", channelType: 1, payload: payload(text) })));
  const [page] = await open(t, [bob, alice]);
  await reads(page, "number 60.");
  assert.equal(await messages(page).count(), 49);
  await page.getByRole("button", { name: "Older messages" }).click();
  await reads(page, "number 1.");
  assert.equal(await messages(page).count(), 59);
  assert.equal(await page.getByRole("button", { name: "Older messages" }).count(), 0);
});

test("both come back by themselves to a gateway that was started again on its port", async (t) => {
  const gateway = await serve(t);
  const [alice, bob] = await open(t, [gateway.alice, gateway.bob]);
  await say(alice, "before");
  await reads(bob, "before");
  await gateway.stop();
  for (const page of [alice, bob]) {
    await status(page, "reconnecting…");
    assert.ok(await page.getByRole("button", { name: "Send" }).isDisabled());
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
  await client.deleteChannel({ channelId: "team", channelType: 2 });
  await say(page, "to nobody");
  await reads(page, "to nobody", "refused: 24");
  await client.revokeToken();
  await status(page, "disconnected: connectKick");
  // A reload asks for a new connect token.
  await page.reload();
  await status(page, "connected");
  await page.getByRole("alert").getByText("The team: ").waitFor();
});
