// What a newcomer does with the two addresses of the chat: opens both in tabs of one browser, types in each and reads in the other.
// two-tabs.mjs ALICE BOB: prints what bob reads at the end, one message a line.

import { launch, picture } from "./browser.mjs";

const browser = await launch();
try {
  const context = await browser.newContext({ locale: "en" });
  context.setDefaultTimeout(60_000);
  const [alice, bob] = await Promise.all(
    process.argv.slice(2).map(async (address) => {
      const page = await context.newPage();
      await page.goto(address);
      return page;
    }),
  );
  for (const [writer, reader, text] of [[alice, bob, "Hello, Bob!"], [bob, alice, "Hello, Alice!"]]) {
    await writer.locator('#status[data-state="online"]').waitFor();
    await writer.locator("#text").fill(text);
    await writer.keyboard.press("Enter");
    await writer.locator(".own", { hasText: text }).getByText("stored").waitFor();
    await reader.locator("li", { hasText: text }).waitFor();
  }
  await bob.screenshot({ path: picture("two-tabs") });
  console.log((await bob.locator("li:visible p").allInnerTexts()).join("\n"));
} finally {
  await browser.close();
}
