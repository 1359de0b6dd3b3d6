// Connects WuKongIM's own SDK (`wukongimjssdk`) to the gateway. The package's only file that loads the SDK's classes.

import { RecvPacket, Setting } from "wukongimjssdk/lib/proto.js";
import type { ConnectAddrCallback, Provider } from "wukongimjssdk/lib/provider.js";
// What the main entry gives, and the classes; its default export is typed differently by different module resolutions.
import {
  Channel,
  ChannelInfo,
  ChannelTypeGroup,
  Conversation,
  ConversationAction,
  Message,
  MessageContentManager,
  MessageContentType,
  PullMode,
  Subscriber,
  type SyncOptions,
  type WKSDK,
} from "wukongimjssdk/lib/sdk.js";

import type { GatewayClient } from "./client.js";
import type { DeviceFlag, Page, ReadConversationResponse, Subscriber as Member, SyncedMessage, WukongIMChannelType } from "./types.js";
import { pause } from "./waiting.js";

export interface SdkOptions {
  /** Called with the error of each failed attempt to get the address and the token. The next attempt follows by itself. */
  onConnectError?: (error: unknown) => void;
}

/** `param` of the command that the gateway sends to a user's devices when one of them has read. */
type ConversationRead = { channelId: string; channelType: WukongIMChannelType } & ReadConversationResponse;

/** The most rows of a page, of conversations and of subscribers. */
const CONVERSATIONS_PAGE = 200;
const SUBSCRIBERS_PAGE = 500;
/** Seconds before the address and the token are requested again: doubled after each failure, up to the second one. */
const FIRST_DELAY = 1;
const MAX_DELAY = 30;
/** `Subscriber.role`, as WuKongIM's demos number it. */
const ROLES = { member: 0, owner: 1, manager: 2 } as const satisfies Record<Member["role"], number>;
/** `Subscriber.status` of one who may write. */
const NORMAL = 1;
/** The payload that the SDK reads as `UnknownContent`. */
const UNKNOWN = new TextEncoder().encode(`{"type":${MessageContentType.unknown}}`);

/** The SDKs whose decoding and commands are looked after already. */
const adapted = new WeakSet<WKSDK>();

/**
 * Makes the SDK get all it needs from the gateway, as the user of `client`: address and token at each connect, conversations, histories,
 * names and members of groups. Call it before `sdk.connect()`, and again with another client for another user.
 */
export function useSdk(sdk: WKSDK, client: GatewayClient, options: SdkOptions = {}): void {
  Object.assign(sdk.config.provider, {
    connectAddrCallback: connector(sdk, client, options),
    syncConversationsCallback: () => conversations(sdk, client),
    syncMessagesCallback: (channel, range) => messages(client, channel, range),
    channelInfoCallback: (channel) => channelInfo(client, channel),
    syncSubscribersCallback: (channel) => subscribers(sdk, client, channel),
  } satisfies Partial<Provider>);
  if (adapted.has(sdk)) return;
  adapted.add(sdk);
  guardDecoding(sdk);
  followReading(sdk);
}

/** Answers the SDK with the address, once it has a token. The SDK asks once for each connection, and never again if nothing comes. */
function connector(sdk: WKSDK, client: GatewayClient, { onConnectError }: SdkOptions): (callback: ConnectAddrCallback) => Promise<void> {
  const { config, connectManager } = sdk;
  let newest = 0;
  const connect = async (callback: ConnectAddrCallback) => {
    const attempt = (newest += 1);
    // Until `disconnect()`, another `connect()` or another user: each answer makes a connection.
    const isWanted = () =>
      attempt === newest && connectManager.needReconnect && config.provider.connectAddrCallback === connect;
    for (let delay = FIRST_DELAY; isWanted(); delay = Math.min(delay * 2, MAX_DELAY)) {
      try {
        const { wsUrl, wssUrl } = await client.getConfig();
        const { uid, token } = await client.createToken({ deviceFlag: config.deviceFlag as DeviceFlag });
        // A page that came by TLS may open no other socket.
        const addr = (globalThis.location?.protocol === "https:" && wssUrl) || wsUrl;
        if (!addr) throw new Error("the gateway has no address for sockets: public.ws_url");
        if (!isWanted()) return;
        Object.assign(config, { addr, uid, token });
        return callback(addr);
      } catch (error) {
        onConnectError?.(error);
      }
      await pause(delay * (1 + Math.random() / 4), undefined);
    }
  };
  return connect;
}

/** All rows of a list. */
async function all<P extends Page, R>(get: (page: { cursor?: string }) => Promise<P>, rows: (page: P) => R[]): Promise<R[]> {
  let page = await get({});
  const found = rows(page);
  while (page.nextCursor !== undefined) {
    page = await get({ cursor: page.nextCursor });
    found.push(...rows(page));
  }
  return found;
}

/** The whole list, since the SDK replaces its own by it. */
async function conversations({ channelManager }: WKSDK, client: GatewayClient): Promise<Conversation[]> {
  let pages = 0;
  const list = (page: { cursor?: string }) => {
    pages += 1;
    return client.listConversations({ limit: CONVERSATIONS_PAGE, ...page });
  };
  let rows = await all(list, (page) => page.conversations);
  if (pages > 1) {
    // What moved up from a later page while they were read.
    const { conversations: newest } = await list({});
    const key = ({ channelId, channelType }: (typeof rows)[number]) => `${channelType} ${channelId}`;
    const moved = new Set(newest.map(key));
    rows = [...newest, ...rows.filter((row) => !moved.has(key(row)))];
  }
  return rows.map(({ channelId, channelType, unread, timestamp, lastMessage, readToSeq, name, avatar }) => {
    const conversation = new Conversation();
    const channel = new Channel(channelId, channelType);
    Object.assign(conversation, { channel, unread, timestamp: seconds(timestamp), extra: { readToSeq } });
    if (lastMessage) conversation.lastMessage = received(lastMessage);
    // Saves a call for each group.
    if (name && !channelManager.getChannelInfo(channel)) channelManager.setChannleInfoForCache(described(channel, name, avatar));
    return conversation;
  });
}

/** A part of a history, oldest first: downwards from `startMessageSeq`, or from the newest if that is 0, or upwards. */
async function messages(client: GatewayClient, channel: Channel, range: SyncOptions): Promise<Message[]> {
  const { startMessageSeq: start, endMessageSeq: end, limit, pullMode } = range;
  const read = async (query: { limit: number; lastMessageSeq?: number; beforeMessageSeq?: number }) =>
    (await client.syncMessages({ ...addressed(channel), ...query })).messages;
  let found: SyncedMessage[];
  if (pullMode === PullMode.Down) {
    found = await read({ limit, ...(start && { beforeMessageSeq: start + 1 }) });
    found = found.filter(({ messageSeq }) => messageSeq > end);
  } else {
    // With `lastMessageSeq` 0 the gateway answers the newest: the first message is asked for by itself.
    const first = start <= 1 ? await read({ limit: 1, beforeMessageSeq: 2 }) : [];
    found = [...first, ...(await read({ limit, lastMessageSeq: Math.max(1, start - 1) }))].slice(0, limit);
    if (end) found = found.filter(({ messageSeq }) => messageSeq < end);
  }
  return found.map(received);
}

/** A group's name and avatar; of a user the gateway knows the uid alone. */
async function channelInfo(client: GatewayClient, channel: Channel): Promise<ChannelInfo> {
  if (channel.channelType !== ChannelTypeGroup) return described(channel);
  const info = await client.getChannelInfo(group(channel));
  return Object.assign(described(channel, info.name, info.avatar), { orgData: info });
}

/** All members of a group, and those that the SDK knows and who have left, as deleted: it only ever adds to its list. */
async function subscribers({ channelManager }: WKSDK, client: GatewayClient, channel: Channel): Promise<Subscriber[]> {
  if (channel.channelType !== ChannelTypeGroup) return [];
  const members = await all(
    (page) => client.listSubscribers({ ...group(channel), limit: SUBSCRIBERS_PAGE, ...page }),
    (page) => page.subscribers,
  );
  const uids = new Set(members.map(({ uid }) => uid));
  const left = channelManager.getSubscribes(channel).filter(({ uid }) => !uids.has(uid));
  const present = members.map(({ uid, role }) =>
    Object.assign(new Subscriber(), {
      ...{ uid, name: uid, remark: "", avatar: "", role: ROLES[role], channel },
      ...{ version: 0, isDeleted: false, status: NORMAL, orgData: { role } },
    }),
  );
  return [...present, ...left.map((subscriber) => Object.assign(new Subscriber(), subscriber, { isDeleted: true }))];
}

/**
 * The SDK decodes a pushed message before it acknowledges it, and where that fails it neither shows nor acknowledges it. Here such a
 * message becomes one of unknown content.
 */
function guardDecoding({ chatManager, securityManager }: WKSDK): void {
  const onPacket = chatManager.onPacket.bind(chatManager);
  const decryption = securityManager.decryption.bind(securityManager);
  let isCommand = false;
  chatManager.onPacket = (packet) => {
    if (packet instanceof RecvPacket) {
      // Of what users send, the gateway lets neither pass: v2 marks commands by the one, v3 by the other.
      isCommand = packet.syncOnce || packet.channelID.endsWith("____cmd");
      // Each stored message counts as unread, but v3 sets the flag of none that came through its API.
      packet.reddot ||= !packet.noPersist && !isCommand;
    }
    return onPacket(packet);
  };
  // `onPacket` calls it before it returns.
  securityManager.decryption = (sealed) => {
    try {
      return decodable(decryption(sealed), isCommand);
    } catch {
      // No UTF-8.
      return UNKNOWN;
    }
  };
}

/** The payload if the SDK can decode and show it, else one that it can. A user's message is no command, whatever it says. */
function decodable(payload: Uint8Array, isCommand = false): Uint8Array {
  try {
    const { type } = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
    if (typeof type !== "number" || (type === MessageContentType.cmd && !isCommand)) return UNKNOWN;
    const content = MessageContentManager.shared().getMessageContent(type);
    content.decode(payload);
    void content.conversationDigest;
    return payload;
  } catch {
    return UNKNOWN;
  }
}

/** Takes over what the user has read on another device. */
function followReading({ chatManager, conversationManager }: WKSDK): void {
  chatManager.addCMDListener(({ content: { cmd, param } }) => {
    if (cmd !== "conversationRead") return;
    const { channelId, channelType, readToSeq, unread } = param as ConversationRead;
    const conversation = conversationManager.findConversation(new Channel(channelId, channelType));
    // Commands may come in another order than the reads.
    if (!conversation || readToSeq < (conversation.extra?.readToSeq ?? 0)) return;
    const { lastMessage } = conversation;
    // Messages may have come since it was read.
    const counted = lastMessage?.messageSeq ? Math.max(0, lastMessage.messageSeq - readToSeq) : unread;
    conversation.unread = lastMessage?.send ? 0 : counted;
    conversation.extra = { ...conversation.extra, readToSeq };
    conversationManager.notifyConversationListeners(conversation, ConversationAction.update);
  });
}

/** A message of a history, as if it had been pushed. */
function received({ channelId, channelType, messageId, fromUid, timestamp, payload, ...rest }: SyncedMessage): Message {
  const { messageSeq, clientMsgNo } = rest;
  const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
  const packet = Object.assign(new RecvPacket(), {
    ...{ reddot: true, noPersist: false, syncOnce: false, dup: false, setting: new Setting() },
    ...{ messageID: messageId, messageSeq, clientMsgNo, fromUID: fromUid, channelID: channelId, channelType },
    ...{ timestamp: seconds(timestamp), payload: decodable(bytes) },
  });
  return new Message(packet);
}

function described(channel: Channel, name?: string, avatar?: string): ChannelInfo {
  const texts = { title: name || channel.channelID, logo: avatar ?? "" };
  return Object.assign(new ChannelInfo(), { channel, ...texts, mute: false, top: false, orgData: {} });
}

function addressed({ channelID, channelType }: Channel): { channelId: string; channelType: WukongIMChannelType } {
  return { channelId: channelID, channelType: channelType as WukongIMChannelType };
}

function group({ channelID }: Channel): { channelId: string; channelType: 2 } {
  return { channelId: channelID, channelType: ChannelTypeGroup };
}

const seconds = (milliseconds: number) => Math.floor(milliseconds / 1000);
