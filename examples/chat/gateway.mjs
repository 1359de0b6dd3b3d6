// What a deployment has and this example brings along: a gateway, JWTs, which come from the application, and a group. The gateway's binary
// is `GATEWAY_BIN`, or what `cargo build --release` left.

import { execFileSync, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { GatewayClient } from "@wukongim-gateway/client";

const BINARY = process.env.GATEWAY_BIN ?? fileURLToPath(new URL("../../target/release/wukongim-gateway", import.meta.url));
const USERS = ["alice", "bob"];

/** A JWT for each of the users. */
export function makeTokens(secret, uids = USERS) {
  const options = { env: { JWT_SECRET: secret }, encoding: "utf8" };
  return uids.map((uid) => execFileSync(BINARY, ["token", "--uid", uid, "--ttl", "24h"], options).trim());
}

/** Starts one with `--embedded`, which keeps nothing, and creates a group of the users: its origin, its end, and how to stop it. */
export async function startGateway(secret, { port = 0, generation = "v2" } = {}) {
  const env = {
    JWT_SECRET: secret,
    GATEWAY__SERVER__LISTEN: `127.0.0.1:${port}`,
    GATEWAY__SERVER__OPS_LISTEN: "127.0.0.1:0",
    GATEWAY__LOG__LEVEL: "error",
  };
  const child = spawn(BINARY, [`--embedded=${generation}`], { env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("error", resolve).once("exit", resolve));
  const stop = () => (child.kill(), ended);
  process.once("exit", stop);
  let printed = "";
  const ready = new Promise((resolve) => {
    child.stdout.setEncoding("utf8").on("data", (more) => {
      printed += more;
      const origin = /(http:\S+)\/api\/v1\/im\/docs/.exec(printed)?.[1];
      if (origin) resolve({ origin });
    });
  });
  const { origin } = (await Promise.race([ready, ended])) ?? {};
  if (!origin) throw new Error(`${BINARY} did not start`);

  const [token] = makeTokens(secret);
  const application = new GatewayClient({ baseUrl: `${origin}/api/v1/im`, token });
  const team = { channelId: "team", channelType: 2 };
  await application.createChannel({ ...team, name: "The team" });
  await application.addSubscribers({ ...team, subscribers: USERS });
  return { origin, ended, stop };
}
