// What the package gives.

export { GatewayClient, newClientMsgNo, type CallOptions, type ClientOptions } from "./client.js";
export { GatewayError, type ClientCode } from "./error.js";
export { decodeText, encodeText } from "./payload.js";
export type { Language } from "./texts.js";
export type { TokenProvider } from "./tokens.js";
export * from "./types.js";
