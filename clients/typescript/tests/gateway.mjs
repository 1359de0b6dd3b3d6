// A gateway of the tests' own on its built-in WuKongIM: `GATEWAY_BIN`, or what `cargo build` left.

import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

const BINARY = process.env.GATEWAY_BIN ?? new URL("../../../target/debug/wukongim-gateway", import.meta.url).pathname;
const PREFIX = "/api/v1/im";

/**
 * Starts one on a free port and stops it after `t`, a test or a suite's `after`. `settings` are variables without `GATEWAY__`, such
 * as `LIMITS__ID_BYTES`.
 */
export async function startGateway(t, { generation = "v2", ...settings } = {}) {
  const secret = randomBytes(32).toString("hex");
  const ours = { SERVER__LISTEN: "127.0.0.1:0", SERVER__OPS_LISTEN: "127.0.0.1:0", LOG__FORMAT: "json", AUTH__JWT_SECRET: secret };
  const variables = Object.entries({ ...ours, ...settings }).map(([name, value]) => [`GATEWAY__${name}`, String(value)]);
  const child = spawn(BINARY, [`--embedded=${generation}`], {
    env: { PATH: process.env.PATH, ...Object.fromEntries(variables) },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise((resolve, reject) => child.once("error", reject).once("exit", resolve));
  t.after(() => (child.kill(), ended));
  const address = await Promise.race([listening(child), ended.then((code) => Promise.reject(new Error(`it ended: ${code}`)))]);
  return {
    origin: `http://${address}`,
    baseUrl: `http://${address}${PREFIX}`,
    /** A JWT for `uid`, good for `seconds` from now. */
    token: (uid, { seconds = 3600, ...claims } = {}) => jwt(secret, { sub: uid, exp: now() + seconds, ...claims }),
  };
}

/** The address in the log line that says so. What comes after is read too, so that no pipe fills up. */
function listening(child) {
  return new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => {
        if (line.includes('"message":"serving"')) resolve(JSON.parse(line).listen);
      });
    }
  });
}

const now = () => Math.floor(Date.now() / 1000);

function jwt(secret, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
