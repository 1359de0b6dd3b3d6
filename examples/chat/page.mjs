// Serves the built page, and what it calls on the gateway, at one origin, as a proxy would.

import { fileURLToPath } from "node:url";

import { preview } from "vite";

const ROOT = fileURLToPath(new URL(".", import.meta.url));

/** The page's address, and how to stop serving it. If the port is taken, another one is. */
export async function servePage(gateway, port = 4173) {
  const proxy = { "/api": { target: gateway, ws: true } };
  const server = await preview({ root: ROOT, logLevel: "warn", preview: { host: "127.0.0.1", port, proxy } });
  return { address: server.resolvedUrls.local[0], stop: () => server.close() };
}
