// The files of `swagger-ui-dist` that the gateway embeds, compressed once and for all: `npm run embed` writes them, `npm run check`
// says whether they are still the package's. What they unpack to is compared, since not every zlib packs alike.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";

const SOURCE = new URL("node_modules/swagger-ui-dist/", import.meta.url);
const TARGET = new URL("../../src/routes/docs/swagger-ui/", import.meta.url);
const EMBEDDED = ["swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "swagger-ui.css"];
/** As they are: for whoever reads the repository. */
const LICENCES = ["LICENSE", "NOTICE"];

const original = (name) => readFileSync(new URL(name, SOURCE));
const ours = (name) => new URL(name, TARGET);

if (process.argv.includes("--check")) {
  const names = [...EMBEDDED.map((name) => `${name}.gz`), ...LICENCES];
  assert.deepEqual(readdirSync(TARGET).sort(), names.sort());
  const changed = [
    ...EMBEDDED.filter((name) => !gunzipSync(readFileSync(ours(`${name}.gz`))).equals(original(name))),
    ...LICENCES.filter((name) => !readFileSync(ours(name)).equals(original(name))),
  ];
  assert.deepEqual(changed, [], "these are not the package's: npm run embed");
} else {
  for (const name of EMBEDDED) writeFileSync(ours(`${name}.gz`), gzipSync(original(name), { level: 9 }));
  for (const name of LICENCES) writeFileSync(ours(name), original(name));
}
