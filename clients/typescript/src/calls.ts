// How one call is made: its token, its repetitions, and what its answer means. Knows no endpoint.

import { GatewayError } from "./error.js";
import { say, TEXTS, type Language } from "./texts.js";
import type { Asked, Tokens } from "./tokens.js";
import { deadline, pause, unlessAborted } from "./waiting.js";

/** What `openapi-fetch` is given for one try. */
export type Try = {
  headers: Record<string, string>;
  signal: AbortSignal;
  fetch: (request: Request) => Promise<Response>;
};

/** What `openapi-fetch` makes of an answer: `data` of a 2xx, `error` of others. */
export interface Parsed {
  data?: unknown;
  error?: unknown;
  response: Response;
}

export type DataOf<P extends Parsed> = Extract<NonNullable<P["data"]>, { success: true; data: unknown }>["data"];

/** `data` of an envelope, and the headers it came with. */
export interface Answer<D> {
  data: D;
  headers: Headers;
}

/** Whether a call that got this 429 or 503 may be made again. */
export type Again = (error: GatewayError) => boolean;

/** A call whose repetition changes nothing and is answered as the first one would have been. */
export const safe: Again = () => true;
/** Any other one: the gateway counts calls before it carries them out, so when it says this itself, nothing has happened. */
export const unsafe: Again = (error) => error.code === "rate_limited";

/** What one call is like. */
export interface CallInit {
  again: Again;
  signal: AbortSignal | undefined;
  /** Whether it goes without a token. */
  anonymous?: boolean;
  /** Whether `data`, of a success or beside a failure, can be this call's; any object unless given. */
  fits?: (data: unknown, headers: Headers) => boolean;
}

/** What all calls of a client have in common; times in seconds, but for `timeoutMs`. */
export interface Ways {
  tokens: Tokens;
  language: Language;
  retries: number;
  maxRetryAfter: number;
  timeoutMs: number;
  fetch: (request: Request) => Promise<Response>;
}

/** Makes calls. */
export class Calls {
  readonly #ways: Ways;

  constructor(ways: Ways) {
    this.#ways = ways;
  }

  /** Makes a call; `send` is one try of it. */
  async make<P extends Parsed>(send: (init: Try) => Promise<P>, call: CallInit): Promise<Answer<DataOf<P>>> {
    call.signal?.throwIfAborted();
    const { tokens, retries, maxRetryAfter } = this.#ways;
    let asked = call.anonymous ? undefined : tokens.held();
    let expired: { error: GatewayError; token: string } | undefined;
    for (let repeated = 0; ; ) {
      const token = asked && (await this.#token(asked, call.signal, expired?.error));
      // The provider has no other one.
      if (expired && expired.token === token) throw expired.error;
      try {
        return await this.#try(send, call, token);
      } catch (error) {
        if (!(error instanceof GatewayError)) throw error;
        if (error.status === 401 && asked && token) {
          if (error.code === "token_expired" && !expired) {
            expired = { error, token };
            asked = tokens.renewed(asked, token);
            continue;
          }
          tokens.forget(asked);
        }
        const later = error.status === 429 || error.status === 503;
        const seconds = error.retryAfter ?? 2 ** repeated / 2;
        if (!later || !call.again(error) || repeated >= retries || seconds > maxRetryAfter) throw error;
        repeated += 1;
        // Up to a quarter later, so that clients with the same Retry-After do not retry all at once.
        await pause(seconds * (1 + Math.random() / 4), call.signal);
      }
    }
  }

  /** The token; or throws the 401 that came before it was requested, else the one that the gateway would answer. */
  async #token(asked: Asked, signal: AbortSignal | undefined, expired: GatewayError | undefined): Promise<string> {
    let token: string | undefined;
    let cause: unknown;
    try {
      token = await unlessAborted(signal, asked);
    } catch (error) {
      signal?.throwIfAborted();
      cause = error;
    }
    // What is no token is not put into a header either: the error that this makes could show it.
    if (token && /^[!-~]+$/.test(token)) return token;
    this.#ways.tokens.forget(asked);
    if (expired) throw Object.assign(expired, { cause });
    const [text, code] = token ? [TEXTS.tokenInvalid, "token_invalid"] : [TEXTS.tokenMissing, "token_missing"];
    throw new GatewayError(say(this.#ways.language, text), { code, status: 401, cause });
  }

  async #try<P extends Parsed>(send: (init: Try) => Promise<P>, call: CallInit, token?: string): Promise<Answer<DataOf<P>>> {
    const { language, timeoutMs, fetch } = this.#ways;
    const headers: Record<string, string> = { "accept-language": language };
    if (token) headers["authorization"] = `Bearer ${token}`;
    const { signal, end } = deadline(timeoutMs, call.signal);
    let left = false;
    let response: Response | undefined;
    let body: unknown;
    try {
      const parsed = await send({
        headers,
        signal,
        fetch: async (request) => {
          left = true;
          return (response = await fetch(request));
        },
      });
      body = parsed.data ?? parsed.error;
      response = parsed.response;
    } catch (cause) {
      call.signal?.throwIfAborted();
      // Such as a `baseUrl` that is none.
      if (!left) throw cause;
      if (response && isSyntaxError(cause)) throw this.#badResponse(response, cause);
      throw new GatewayError(say(language, TEXTS.networkError), { code: "network_error", status: 0, cause });
    } finally {
      end();
    }
    if (!isObject(body)) throw this.#badResponse(response);
    const { success, data } = body;
    const fits = (call.fits ?? isObject)(data, response.headers);
    if (response.ok && success === true && fits) return { data: data as DataOf<P>, headers: response.headers };
    throw (fits || data === undefined ? failure(body, response) : undefined) ?? this.#badResponse(response);
  }

  #badResponse(response: Response, cause?: unknown): GatewayError {
    const text = `${say(this.#ways.language, TEXTS.badResponse)} (HTTP ${response.status})`;
    return new GatewayError(text, { code: "bad_response", ...ofHeaders(response), cause });
  }
}

/** The failure in an envelope, if it is one. */
function failure(body: Record<string, unknown>, response: Response): GatewayError | undefined {
  const { success, message, code, requestId, details, clientMsgNo, data } = body;
  if (success !== false || typeof message !== "string" || typeof code !== "string") return undefined;
  const headers = ofHeaders(response);
  return new GatewayError(message, {
    ...headers,
    code,
    requestId: typeof requestId === "string" ? requestId : headers.requestId,
    details: Array.isArray(details) ? details : [],
    clientMsgNo: typeof clientMsgNo === "string" ? clientMsgNo : undefined,
    data,
  });
}

/** What is known of a failure before its body is. */
function ofHeaders({ status, headers }: Response) {
  return {
    status,
    requestId: headers.get("x-request-id") ?? undefined,
    retryAfter: secondsUntil(headers.get("retry-after")),
  };
}

/** `Retry-After` in seconds: the gateway says seconds, a proxy may say a date. */
function secondsUntil(retryAfter: string | null): number | undefined {
  if (retryAfter === null) return undefined;
  const seconds = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** By its name: where pages are simulated, `fetch` throws errors of another realm. */
function isSyntaxError(error: unknown): boolean {
  return isObject(error) && error["name"] === "SyntaxError";
}

/** Whether it is an object, and no array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
