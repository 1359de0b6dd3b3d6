// WuKongIM's SDK from npm with `useSdk`, bundled as for a page. It has one instance for each page, so each tab evaluates the bundle anew.

import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import WebSocket from "ws";

import { until } from "./until.mjs";

const contents = `
  export { ConnectStatus } from "wukongimjssdk/lib/connect_manager";
  export * from "wukongimjssdk/lib/sdk";
  export { useSdk } from "@wukongim-gateway/client/sdk";
`;
const { outputFiles } = await build({
  stdin: { contents, resolveDir: fileURLToPath(new URL(".", import.meta.url)) },
  bundle: true,
  format: "iife",
  globalName: "page",
  platform: "browser",
  write: false,
});
const RECVACK = 6;

/**
 * A tab of the client's user, disconnected after `t`: what the bundle exports, its `sdk`, and what came to its listeners: `messages`,
 * `commands`, and `acknowledged`, the ids of the messages that were acknowledged on the socket.
 */
export function openTab(t, client, options) {
  const acknowledged = [];
  class Socket extends WebSocket {
    send(data) {
      const frame = Buffer.from(data);
      if (frame[0] >> 4 === RECVACK) acknowledged.push(frame.readBigUInt64BE(2).toString());
      super.send(data);
    }
  }
  const globals = {
    WebSocket: Socket,
    // It logs each of its steps.
    console: { log() {} },
    // Else its receipts would keep the tests from ending.
    setInterval: (...args) => setInterval(...args).unref(),
  };
  const page = new Function(...Object.keys(globals), `${outputFiles[0].text}; return page;`)(...Object.values(globals));
  const sdk = page.WKSDK.shared();
  page.useSdk(sdk, client, options);
  const [messages, commands] = [[], []];
  sdk.chatManager.addMessageListener((message) => messages.push(message));
  sdk.chatManager.addCMDListener((message) => commands.push(message));
  t.after(() => sdk.disconnect());
  return { ...page, sdk, messages, commands, acknowledged };
}

/** Connects it. */
export async function connect({ sdk, ConnectStatus }) {
  sdk.connect();
  await until(() => sdk.connectManager.status === ConnectStatus.Connected);
}
