// Chromium (`CHROMIUM`, else Debian's), where nothing but one name and 127.0.0.1 resolves, and where its pictures are left.

import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

/** The gateway by a name. */
export const NAME = "gateway.test";
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  `--host-resolver-rules=MAP ${NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`,
];

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS, chromiumSandbox: false });

export const picture = (name) => fileURLToPath(new URL(`../../target/page/${name}.png`, import.meta.url));
