// Holds the client to its size: what a page that uses it has to load, `openapi-fetch` included.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MAX_BYTES = 8 * 1024;

const { outputFiles } = await build({
  entryPoints: ["dist/index.js"],
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  write: false,
});
const [{ contents }] = outputFiles;
const bytes = gzipSync(contents, { level: 9 }).length;
console.log(`${bytes} bytes minified and gzipped, of ${MAX_BYTES} (${contents.length} minified)`);
if (bytes > MAX_BYTES) process.exitCode = 1;
