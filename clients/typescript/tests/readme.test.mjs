// The README's examples, as they stand there: they compile, run without being compiled, and print what their comments say.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { startGateway } from "./gateway.mjs";
import { startScripted } from "./scripted.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What Node prints when it is run with these. */
async function node(args, env) {
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env: { ...process.env, ...env } });
  return stdout;
}

const readme = await readFile(`${root}README.md`, "utf8");
const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);

test("there are three examples", () => assert.equal(examples.length, 3));

test("the examples compile", async () => {
  await mkdir(`${root}build`, { recursive: true });
  const files = examples.map((_, place) => `build/example-${place + 1}.ts`);
  await Promise.all(files.map((file, place) => writeFile(root + file, examples[place])));
  const options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"];
  await node(["node_modules/typescript/bin/tsc", ...options, ...files]).catch(({ stdout }) => assert.fail(stdout));
});

test("the SDK's example compiles", async () => {
  const [, code] = /^```js\n(.*?)^```$/ms.exec(readme);
  await mkdir(`${root}build`, { recursive: true });
  await writeFile(`${root}build/example-sdk.ts`, code);
  const options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--types", "node"];
  await node(["node_modules/typescript/bin/tsc", ...options, "build/example-sdk.ts"]).catch(({ stdout }) => assert.fail(stdout));
});

for (const [place, code] of examples.entries()) {
  test(`example ${place + 1} prints what it says`, async (t) => {
    const gateway = await startGateway(t, { AUTH__LEEWAY: "0s" });
    const application = await startScripted(t, ({ url }) => ({
      body: { accessToken: gateway.token("alice", { seconds: url === "/session" ? -1 : 60 }) },
    }));
    const moved = code
      .replace("http://127.0.0.1:8080", gateway.origin)
      .replace("http://127.0.0.1:3000", new URL(application.baseUrl).origin);
    await mkdir(`${root}build`, { recursive: true });
    const file = `build/example-${place + 1}.mjs`;
    await writeFile(root + file, moved);
    const printed = await node([file], { TOKEN: gateway.token("alice") });
    const expected = [...code.matchAll(/console\.log.*; \/\/ (.*)$/gm)].map(([, line]) => line);
    assert.ok(expected.length > 0);
    assert.deepEqual(printed.trimEnd().split("\n"), expected);
    if (code.includes("/session")) assert.deepEqual(application.requests.map(({ url }) => url), ["/session", "/session/refresh"]);
  });
}
