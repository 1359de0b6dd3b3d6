// `--embedded` as people start it, and what it prints. Its binary is `GATEWAY_BIN`, or what `cargo build` left.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const BINARY = process.env.GATEWAY_BIN ?? fileURLToPath(new URL("../../target/debug/wukongim-gateway", import.meta.url));
const PATIENCE_MS = 30_000;

/** Starts one, on free ports unless `env` says otherwise: the pages' addresses, the port and the token that it printed, and how to stop it. */
export async function startGateway(env = {}, argument = "--embedded") {
  const child = spawn(BINARY, [argument], {
    env: { GATEWAY__SERVER__LISTEN: "127.0.0.1:0", GATEWAY__SERVER__OPS_LISTEN: "127.0.0.1:0", ...env },
    stdio: ["ignore", "pipe", "ignore"],
  });
  const ended = new Promise((resolve) => child.once("error", resolve).once("exit", resolve));
  const stop = () => (child.kill(), ended);
  let text = "";
  const printed = new Promise((resolve) => {
    child.stdout.setEncoding("utf8").on("data", (more) => {
      text += more;
      const docs = /^ +(http:\S+\/docs)$/m.exec(text)?.[1];
      const token = /^ +([\w-]+\.[\w-]+\.[\w-]+)$/m.exec(text)?.[1];
      const chats = Array.from(text.matchAll(/^ +(http:\S+\/chat#\S+)$/gm), ([, chat]) => chat);
      if (docs && token && chats.length === 2) resolve({ docs, chats, port: new URL(docs).port, token, stop });
    });
  });
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, "nothing more").unref());
  const outcome = await Promise.race([printed, ended, late]);
  if (outcome?.docs) return outcome;
  await stop();
  throw new Error(`${BINARY} printed no pages and token (${outcome}): ${text}`);
}
