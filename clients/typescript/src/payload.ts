// Payloads of text messages: standard base64 of the UTF-8 of `{"type":1,"content":"…"}`, as WuKongIM's own SDKs read and write them.

const TEXT = 1;

/** The payload of a text message. */
export function encodeText(content: string): string {
  const bytes = new TextEncoder().encode(JSON.stringify({ type: TEXT, content }));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** The text of a payload; `undefined` where it is no text message. A history may hold anything. */
export function decodeText(payload: string): string | undefined {
  try {
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    const message: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    const { type, content } = message as { type?: unknown; content?: unknown };
    return type === TEXT && typeof content === "string" ? content : undefined;
  } catch {
    return undefined;
  }
}
