// What the compiler must accept and refuse. Never run. An `@ts-expect-error` over a line that is fine is an error itself.

import {
  encodeText,
  GatewayClient,
  GatewayError,
  WukongIMChannelType,
  type BatchEntry,
  type ClientOptions,
  type CreateChannelOptions,
  type ErrorCode,
  type SendMessageOptions,
  type SyncedMessage,
  type TokenProvider,
} from "@wukongim-gateway/client";

/** Fails to compile unless both types are one. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>) => {};

declare const client: GatewayClient;
const payload = encodeText("hello");

// The reference's types, by its names.
same<SendMessageOptions, { channelId: string; channelType: 1 | 2; fromUid: string; payload: string; clientMsgNo?: string }>(true);
same<CreateChannelOptions, { channelId: string; channelType: 1 | 2; name?: string; avatar?: string }>(true);
same<typeof WukongIMChannelType, { readonly PRIVATE: 1; readonly GROUP: 2 }>(true);
const group: WukongIMChannelType = WukongIMChannelType.GROUP;
const options: SendMessageOptions = { channelId: "bob", channelType: WukongIMChannelType.PRIVATE, fromUid: "alice", payload };
const channel: CreateChannelOptions = { channelId: "team", channelType: group, name: "The team" };
// @ts-expect-error the reference's message has a sender
const nobodys: SendMessageOptions = { channelId: "bob", channelType: 1, payload };
// @ts-expect-error there are two types of channel
const third: WukongIMChannelType = 3;

export async function calls(signal: AbortSignal): Promise<void> {
  await client.sendMessage(options, { signal });
  await client.createChannel(channel);

  const sent = await client.sendMessage({ channelId: "bob", channelType: 1, payload });
  same<typeof sent.messageId, string>(true);
  same<typeof sent.messageSeq, number>(true);
  // @ts-expect-error an id is text, whose digits a number would lose
  const lossy: number = sent.messageId;
  // @ts-expect-error a message has a payload
  await client.sendMessage({ channelId: "bob", channelType: 1 });
  // @ts-expect-error a type of channel is a number
  await client.sendMessage({ channelId: "bob", channelType: "1", payload });

  const { messages, hasMore } = await client.syncMessages({ channelId: "bob", channelType: 1, beforeMessageSeq: 5 });
  same<typeof messages, SyncedMessage[]>(true);
  same<typeof hasMore, boolean>(true);
  // @ts-expect-error a history is asked for by its channel
  await client.syncMessages({ limit: 5 });

  const { conversations, unreadTotal, nextCursor } = await client.listConversations({ unreadOnly: true });
  same<typeof unreadTotal, number>(true);
  same<typeof nextCursor, string | undefined>(true);
  for (const { lastMessage } of conversations) same<typeof lastMessage, SyncedMessage | null>(true);
  const { readToSeq } = await client.readConversation({ channelId: "bob", channelType: 1, messageSeq: 5 });
  same<typeof readToSeq, number>(true);
  const { subscribers } = await client.listSubscribers({ channelId: "team", channelType: 2, limit: 500 });
  for (const { role } of subscribers) same<typeof role, "owner" | "manager" | "member">(true);
  // @ts-expect-error a person has no subscribers
  await client.listSubscribers({ channelId: "bob", channelType: 1 });

  const entries = await client.sendMessageBatch([options, { channelId: "bob", channelType: 2, payload }]);
  same<typeof entries, BatchEntry[]>(true);
  for (const entry of entries) {
    // @ts-expect-error it may not have been sent
    entry.messageId;
    if ("error" in entry) same<typeof entry.error.clientMsgNo, string>(true);
    else same<typeof entry.messageId, string>(true);
  }

  await client.addSubscribers({ channelId: "team", channelType: 2, subscribers: ["bob"] });
  // @ts-expect-error only groups have subscribers
  await client.addSubscribers({ channelId: "bob", channelType: 1, subscribers: ["bob"] });
  same<Awaited<ReturnType<typeof client.addSubscribers>>["added"], number>(true);
  same<Awaited<ReturnType<typeof client.getHealth>>["status"], "healthy" | "unhealthy">(true);
  same<Awaited<ReturnType<typeof client.getChannelInfo>>["owner"], string | undefined>(true);
  await client.createToken({ deviceFlag: 2 });
  // @ts-expect-error there is no such device
  await client.createToken({ deviceFlag: 3 });
  await client.getConfig({ signal });
  // @ts-expect-error a token is a secret: nothing of the client tells it
  client.token;
}

export function errors(error: unknown): void {
  if (!(error instanceof GatewayError)) return;
  same<typeof error.requestId, string | undefined>(true);
  same<typeof error.status, number>(true);
  const fields: string[] = error.details.map(({ field }) => field);
  switch (error.code) {
    case "token_expired" satisfies ErrorCode:
    case "bad_response":
    case "network_error":
      break;
    case "a_code_of_a_newer_gateway":
      break;
  }
  // @ts-expect-error a code is text
  error.code === 5;
  // @ts-expect-error what the gateway said is not changed
  error.code = "forbidden";
  void fields;
}

const constant: ClientOptions = { baseUrl: "/api/v1/im", token: "…" };
const provider: TokenProvider = async (expired) => (expired === undefined ? "first" : "renewed");
new GatewayClient({ ...constant, token: provider, language: "en", retries: 0, maxRetryAfter: 60, fetch: (request) => fetch(request) });
// @ts-expect-error a client needs a token, or what gets it
new GatewayClient({ baseUrl: "/api/v1/im" });
// @ts-expect-error the gateway has two languages
new GatewayClient({ ...constant, language: "fr" });
void [nobodys, third];
