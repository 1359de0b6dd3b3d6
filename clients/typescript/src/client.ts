// The endpoints, one method each. Names, arguments and answers are those of the API document.

import createClient, { type Client } from "openapi-fetch";

import { Calls, isObject, safe, unsafe, type Again, type DataOf, type Parsed, type Try } from "./calls.js";
import { Checks, HARD_CAPS, type Limits } from "./checks.js";
import { GatewayError } from "./error.js";
import type { paths } from "./openapi.js";
import type { Language } from "./texts.js";
import { Tokens, type TokenProvider } from "./tokens.js";
import type * as api from "./types.js";

export interface ClientOptions {
  /** Where the API is, prefix included: `https://im.example.com/api/v1/im`; `/api/v1/im` in a page of the same origin. */
  baseUrl: string;
  /** The caller's access token, or what gets it. */
  token: string | TokenProvider;
  /** Language of errors' messages: Chinese unless given. */
  language?: Language;
  /** Maximum retries of a call that was answered with Retry-After. Default 2. */
  retries?: number;
  /** The longest `Retry-After` that is waited for, in seconds; a longer one fails the call at once. 10 unless given. */
  maxRetryAfter?: number;
  /** The timeout of one attempt, its answer included, in milliseconds; then it is a `network_error`. 15,000 by default; `Infinity` for none. */
  timeoutMs?: number;
  /** Used in place of the global one. */
  fetch?: (request: Request) => Promise<Response>;
}

export interface CallOptions {
  /** Ends the call, its waiting included; it then throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A new number for a message: 32 hex digits, as the gateway makes them. */
export function newClientMsgNo(): string {
  // Not `randomUUID`: pages without TLS have none.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The gateway's API as one user sees it. Every failure is a `GatewayError`, but for an abort. */
export class GatewayClient {
  readonly #api: Client<paths>;
  readonly #calls: Calls;
  readonly #language: Language;
  #limits: Limits = HARD_CAPS;

  constructor({ baseUrl, token, language = "zh", retries = 2, maxRetryAfter = 10, timeoutMs = 15_000, fetch }: ClientOptions) {
    // The gateway never redirects: another server's redirect gets neither the token nor a POST turned into a GET. And what one user was
    // told is for no cache: frameworks such as Next.js keep a server's GETs unless they are told not to.
    this.#api = createClient<paths>({ baseUrl, redirect: "manual", cache: "no-store" });
    this.#language = language;
    this.#calls = new Calls({
      tokens: new Tokens(token),
      language,
      retries,
      maxRetryAfter,
      timeoutMs,
      fetch: fetch ?? ((request) => globalThis.fetch(request)),
    });
  }

  /** Where to connect, and what is allowed. From then on the deployment's own limits are checked before sending. */
  async getConfig({ signal }: CallOptions = {}): Promise<api.ConfigResponse> {
    const config = await this.#call(safe, signal, (init) => this.#api.GET("/config", init));
    this.#limits = { ...HARD_CAPS, ...config.limits };
    return config;
  }

  /** The caller's connect token for WuKongIM: for a browser, unless another device is named. */
  async createToken(request: api.CreateTokenRequest = {}, { signal }: CallOptions = {}): Promise<api.CreateTokenResponse> {
    return this.#call(safe, signal, (init) => this.#api.POST("/token", { body: request, ...init }));
  }

  /** Ends what the connect tokens given out so far are good for: the caller's, or for an admin another user's. */
  async revokeToken(request: api.RevokeTokenRequest = {}, { signal }: CallOptions = {}): Promise<api.RevokeTokenResponse> {
    this.#check().id("uid", request.uid).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/token/revoke", { body: request, ...init }));
  }

  /** Sends a message; answered when it is stored. Without a `clientMsgNo` it gets one, so that no repetition stores it twice. */
  async sendMessage(message: api.SendMessageRequest, { signal }: CallOptions = {}): Promise<api.SendMessageResponse> {
    const body = numbered(message);
    try {
      this.#check().message("", body).done();
      const send = (init: Try) => this.#api.POST("/message/send", { body, ...init });
      return (await this.#calls.make(send, { again: safe, signal, fits: hasId })).data;
    } catch (error) {
      if (error instanceof GatewayError) error.clientMsgNo = body.clientMsgNo;
      throw error;
    }
  }

  /**
   * Sends many messages; those to one channel keep their order. Answers an entry for each, in their order: where it is stored, or
   * why it is not. Where none was sent it throws the first one's error, with the entries as its `data`.
   */
  async sendMessageBatch(messages: readonly api.SendMessageRequest[], { signal }: CallOptions = {}): Promise<api.BatchEntry[]> {
    const body = messages.map(numbered);
    this.#check().messages(body).done();
    const isEntry = (entry: unknown) => hasId(entry) || (isObject(entry) && isObject(entry["error"]));
    const fits = (data: unknown): data is unknown[] =>
      Array.isArray(data) && data.length === body.length && data.every(isEntry);
    const send = (init: Try) => this.#api.POST("/message/sendbatch", { body, ...init });
    try {
      return (await this.#calls.make(send, { again: safe, signal, fits })).data;
    } catch (error) {
      if (!(error instanceof GatewayError && fits(error.data))) throw error;
      const entries = error.data.map((entry, place) => {
        const failed = isObject(entry) ? entry["error"] : undefined;
        return isObject(failed) ? { error: { ...failed, clientMsgNo: body[place]?.clientMsgNo } } : entry;
      });
      if (error.code === "partial_failure") return entries as api.BatchEntry[];
      throw Object.assign(error, { data: entries });
    }
  }

  /** A page of a history, oldest first: above `lastMessageSeq`, or below `beforeMessageSeq`, or else the newest. */
  async syncMessages(query: api.SyncMessagesRequest, { signal }: CallOptions = {}): Promise<api.SyncedMessages> {
    this.#check().id("channelId", query.channelId).done();
    const fits = (data: unknown, headers: Headers) =>
      Array.isArray(data) && data.every(hasId) && hasMore(headers) !== undefined;
    const send = (init: Try) => this.#api.GET("/message/sync", { params: { query }, ...init });
    const { data, headers } = await this.#calls.make(send, { again: safe, signal, fits });
    return { messages: data, hasMore: hasMore(headers) === true };
  }

  /**
   * A page of the caller's own conversations, the one with the newest message first; `nextCursor` asks for the page after it.
   * `unreadTotal` is that of all of them.
   */
  async listConversations(
    query: api.ListConversationsRequest = {},
    { signal }: CallOptions = {},
  ): Promise<api.ConversationsPage> {
    const send = (init: Try) => this.#api.GET("/conversation/list", { params: { query }, ...init });
    const isRow = (row: unknown) => isObject(row) && (row["lastMessage"] === null || hasId(row["lastMessage"]));
    const fits = (data: unknown, headers: Headers) =>
      isObject(data) && Array.isArray(data["conversations"]) && data["conversations"].every(isRow) && isPage(headers);
    const { data, headers } = await this.#calls.make(send, { again: safe, signal, fits });
    return { ...data, ...pageOf(headers) };
  }

  /** Marks a conversation as read, up to a message or to the newest one; never back. The caller's other devices are told. */
  async readConversation(
    request: api.ReadConversationRequest,
    { signal }: CallOptions = {},
  ): Promise<api.ReadConversationResponse> {
    this.#check().id("channelId", request.channelId).done();
    return this.#call(safe, signal, (init) => this.#api.POST("/conversation/read", { body: request, ...init }));
  }

  /** Hides a conversation from the caller's own list until its next message. */
  async deleteConversation(
    request: api.DeleteConversationRequest,
    { signal }: CallOptions = {},
  ): Promise<api.DeleteConversationResponse> {
    this.#check().id("channelId", request.channelId).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/conversation/delete", { body: request, ...init }));
  }

  /**
   * Creates a group that the caller owns. Its owner may repeat it, also to give it another name or avatar. Without a `channelId` the
   * gateway makes one, another each time: such a call is not retried automatically.
   */
  async createChannel(request: api.CreateChannelRequest, { signal }: CallOptions = {}): Promise<api.CreateChannelResponse> {
    const check = this.#check();
    if (request.channelId != null) check.id("channelId", request.channelId);
    check.done();
    const again = request.channelId == null ? unsafe : safe;
    return this.#call(again, signal, (init) => this.#api.POST("/channel/create", { body: request, ...init }));
  }

  /** Deletes a group permanently. */
  async deleteChannel(request: api.DeleteChannelRequest, { signal }: CallOptions = {}): Promise<api.DeleteChannelResponse> {
    this.#check().id("channelId", request.channelId).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/delete", { body: request, ...init }));
  }

  /** Adds subscribers to a group. */
  async addSubscribers(request: api.SubscribersRequest, { signal }: CallOptions = {}): Promise<api.AddSubscribersResponse> {
    this.#check().id("channelId", request.channelId).ids("subscribers", request.subscribers).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/subscriber/add", { body: request, ...init }));
  }

  /** Removes subscribers from a group. */
  async removeSubscribers(request: api.SubscribersRequest, { signal }: CallOptions = {}): Promise<api.RemoveSubscribersResponse> {
    this.#check().id("channelId", request.channelId).ids("subscribers", request.subscribers).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/subscriber/remove", { body: request, ...init }));
  }

  /** A page of a group's subscribers: the owner first, then managers, then the others; `nextCursor` asks for the page after it. */
  async listSubscribers(
    query: api.ListSubscribersRequest,
    { signal }: CallOptions = {},
  ): Promise<api.SubscribersPage> {
    this.#check().id("channelId", query.channelId).done();
    const send = (init: Try) => this.#api.GET("/channel/subscribers", { params: { query }, ...init });
    const fits = (data: unknown, headers: Headers) => Array.isArray(data) && data.every(isObject) && isPage(headers);
    const { data, headers } = await this.#calls.make(send, { again: safe, signal, fits });
    const total = headers.get("x-total-count");
    return { subscribers: data, ...pageOf(headers), total: total === null ? undefined : Number(total) };
  }

  /** What is known of a group. */
  async getChannelInfo(query: api.GetChannelInfoRequest, { signal }: CallOptions = {}): Promise<api.GetChannelInfoResponse> {
    this.#check().id("channelId", query.channelId).done();
    return this.#call(safe, signal, (init) => this.#api.GET("/channel/info", { params: { query }, ...init }));
  }

  /** Names managers of a group. */
  async addManagers(request: api.ManagersRequest, { signal }: CallOptions = {}): Promise<api.AddManagersResponse> {
    this.#check().id("channelId", request.channelId).ids("uids", request.uids).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/manager/add", { body: request, ...init }));
  }

  /** Dismisses managers of a group. */
  async removeManagers(request: api.ManagersRequest, { signal }: CallOptions = {}): Promise<api.RemoveManagersResponse> {
    this.#check().id("channelId", request.channelId).ids("uids", request.uids).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/manager/remove", { body: request, ...init }));
  }

  /** Hands a group over to one of its subscribers. */
  async transferOwnership(
    request: api.TransferOwnershipRequest,
    { signal }: CallOptions = {},
  ): Promise<api.TransferOwnershipResponse> {
    this.#check().id("channelId", request.channelId).id("uid", request.uid).done();
    return this.#call(unsafe, signal, (init) => this.#api.POST("/channel/owner", { body: request, ...init }));
  }

  /** Whether WuKongIM can be reached. `unhealthy` is an answer too; it throws where the gateway itself gives none. */
  async getHealth({ signal }: CallOptions = {}): Promise<api.HealthResponse> {
    const again: Again = (error) => error.data === undefined;
    try {
      const send = (init: Try) => this.#api.GET("/health", init);
      return (await this.#calls.make(send, { again, signal, anonymous: true })).data;
    } catch (error) {
      if (error instanceof GatewayError && error.data !== undefined) return error.data as api.HealthResponse;
      throw error;
    }
  }

  /** What WuKongIM says of itself. */
  async getSystemInfo({ signal }: CallOptions = {}): Promise<api.SystemInfoResponse> {
    return this.#call(safe, signal, (init) => this.#api.GET("/system/info", init));
  }

  #check(): Checks {
    return new Checks(this.#limits, this.#language);
  }

  async #call<P extends Parsed>(again: Again, signal: AbortSignal | undefined, send: (init: Try) => Promise<P>): Promise<DataOf<P>> {
    return (await this.#calls.make(send, { again, signal })).data;
  }
}

function numbered(message: api.SendMessageRequest): api.SendMessageRequest & { clientMsgNo: string } {
  return { ...message, clientMsgNo: message.clientMsgNo ?? newClientMsgNo() };
}

/** Whether it is a message with its id as text: of a number the last digits would be lost by now. */
function hasId(message: unknown): boolean {
  return isObject(message) && typeof message["messageId"] === "string";
}

function hasMore(headers: Headers): boolean | undefined {
  const value = headers.get("x-has-more");
  return value === "true" || value === "false" ? value === "true" : undefined;
}

/** Whether these are the headers of a page, which tell the next one's cursor if there is one. */
function isPage(headers: Headers): boolean {
  return hasMore(headers) === headers.has("x-next-cursor");
}

function pageOf(headers: Headers): api.Page {
  return { hasMore: hasMore(headers) === true, nextCursor: headers.get("x-next-cursor") ?? undefined };
}
