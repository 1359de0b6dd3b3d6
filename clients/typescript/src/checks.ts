// What the gateway would refuse for its size or its characters, refused before it is sent. Everything else is the gateway's to judge.

import { GatewayError } from "./error.js";
import { say, TEXTS, type Language } from "./texts.js";
import type { BadField, LimitsResponse } from "./types.js";

/** The limits that can be checked before sending. */
export type Limits = Pick<LimitsResponse, "idBytes" | "clientMsgNoBytes" | "payloadBytes" | "batch" | "subscribers">;

/** What no deployment allows more of. */
export const HARD_CAPS: Limits = {
  idBytes: 255,
  clientMsgNoBytes: 255,
  payloadBytes: 512 * 1024,
  batch: 1000,
  subscribers: 5000,
};

// Lone surrogates are no characters: a query string would carry other ones in their place.
const REFUSED_IN_IDS = /[\p{Cc}\p{Cs}\p{White_Space}@#&/\\?%]/u;
const REFUSED_IN_NUMBERS = /[\p{Cc}\p{Cs}]/u;
const RESERVED = /^(?:\.\.?$|____)|(?:____cmd|___vstr)$/;
// The last character before padding contains bits that belong to no byte: they must be 0.
const BASE64 = /^[A-Za-z0-9+/]+(?:[AEIMQUYcgkosw048]=|[AQgw]==)?$/;

/** The checks of one call's arguments. What is missing, or neither text nor list, is left to the gateway. */
export class Checks {
  readonly #limits: Limits;
  readonly #language: Language;
  readonly #bad: BadField[] = [];

  constructor(limits: Limits, language: Language) {
    this.#limits = limits;
    this.#language = language;
  }

  /** A uid or channel id. */
  id(field: string, id: unknown): this {
    if (typeof id === "string") {
      const max = this.#limits.idBytes;
      if (id === "") this.#report(field, TEXTS.empty);
      else if (isLonger(id, max)) this.#report(field, TEXTS.tooLong, max);
      else if (REFUSED_IN_IDS.test(id)) this.#report(field, TEXTS.character);
      else if (RESERVED.test(id)) this.#report(field, TEXTS.reserved);
    }
    return this;
  }

  /** A list of uids; as long as the gateway takes, or its entries are not looked at. */
  ids(field: string, ids: unknown): this {
    if (!Array.isArray(ids)) return this;
    if (this.#entries(field, ids, this.#limits.subscribers)) ids.forEach((id, place) => this.id(`${field}[${place}]`, id));
    return this;
  }

  /** A message; `prefix` is the path to it. */
  message(prefix: string, message: { channelId?: unknown; fromUid?: unknown; clientMsgNo?: unknown; payload?: unknown }): this {
    this.id(`${prefix}channelId`, message.channelId);
    this.#payload(`${prefix}payload`, message.payload);
    this.#number(`${prefix}clientMsgNo`, message.clientMsgNo);
    return this.id(`${prefix}fromUid`, message.fromUid);
  }

  /** The messages of a batch. */
  messages(messages: readonly object[]): this {
    if (this.#entries("body", messages, this.#limits.batch)) {
      messages.forEach((message, place) => this.message(`[${place}].`, message));
    }
    return this;
  }

  /** Throws what was found, all at once, as the gateway would have answered. */
  done(): void {
    if (this.#bad.length === 0) return;
    const failure = { code: "invalid_request", status: 400, details: this.#bad };
    throw new GatewayError(say(this.#language, TEXTS.invalidRequest), failure);
  }

  #payload(field: string, payload: unknown): void {
    if (typeof payload !== "string") return;
    const max = this.#limits.payloadBytes;
    const padding = payload.endsWith("==") ? 2 : payload.endsWith("=") ? 1 : 0;
    if (payload === "") this.#report(field, TEXTS.empty);
    // Length first: a huge text is not looked through.
    else if ((payload.length / 4) * 3 - padding > max) this.#report(field, TEXTS.tooLarge, max);
    else if (payload.length % 4 !== 0 || !BASE64.test(payload)) this.#report(field, TEXTS.notBase64);
  }

  #number(field: string, number: unknown): void {
    if (typeof number !== "string") return;
    const max = this.#limits.clientMsgNoBytes;
    if (number === "") this.#report(field, TEXTS.empty);
    else if (isLonger(number, max)) this.#report(field, TEXTS.tooLong, max);
    else if (REFUSED_IN_NUMBERS.test(number)) this.#report(field, TEXTS.character);
  }

  #entries(field: string, entries: readonly unknown[], max: number): boolean {
    if (entries.length === 0) this.#report(field, TEXTS.empty);
    else if (entries.length > max) this.#report(field, TEXTS.tooMany, max);
    else return true;
    return false;
  }

  #report(field: string, text: Parameters<typeof say>[1], max?: number): void {
    this.#bad.push({ field, message: say(this.#language, text, max) });
  }
}

/** Whether `text` has more bytes of UTF-8. No character has fewer bytes than UTF-16 units. */
function isLonger(text: string, bytes: number): boolean {
  return text.length > bytes || new TextEncoder().encode(text).length > bytes;
}
