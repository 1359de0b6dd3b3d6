// The chat: WuKongIM's own SDK on the gateway, by `useSdk`. Who the user is comes from the application; here its JWT is in the page's
// address.

import { GatewayClient } from "@wukongim-gateway/client";
import { useSdk } from "@wukongim-gateway/client/sdk";
import { ConnectStatus } from "wukongimjssdk/lib/connect_manager";
import {
  Channel,
  ChannelTypeGroup,
  ChannelTypePerson,
  MessageStatus,
  MessageText,
  PullMode,
  ReasonCode,
  WKSDK,
} from "wukongimjssdk/lib/sdk";

import * as view from "./view.js";

/** Messages that are read at once. */
const PAGE = 30;
const ROLES = ["", "owner", "manager"];

// The token does not stay in the address; the tab keeps it, so that a reload works.
addEventListener("hashchange", () => location.reload());
if (location.hash) {
  sessionStorage.setItem("jwt", location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

const client = new GatewayClient({ baseUrl: "/api/v1/im", token: sessionStorage.getItem("jwt") ?? "", language: "en" });
const sdk = WKSDK.shared();
useSdk(sdk, client, { onConnectError: ({ message }) => view.showNotice(message) });
const { chatManager, channelManager, connectManager, conversationManager } = sdk;

/** Whom the user can write to before there is a conversation: an application has its own list. */
let contacts = [];
/** What was read of each conversation that was opened: `messages` in order, `hasOlder`, `isReading`; by the channel's key. */
const histories = new Map();
let current;

const titleOf = (channel) => channelManager.getChannelInfo(channel)?.title ?? channel.channelID;

/** The list tells the groups' titles, but not those of the ones that come later. */
function learnTitle(channel) {
  if (!channelManager.getChannelInfo(channel)) channelManager.fetchChannelInfo(channel).catch(explain(channel));
}

/** Shows why something did not work. */
const explain = (channel) => (error) => view.showNotice(`${titleOf(channel)}: ${error.message}`);

// ---- Conversations

function showConversations() {
  const { conversations } = conversationManager;
  const sorted = [...conversations].sort((a, b) => b.timestamp - a.timestamp);
  const others = contacts.filter((channel) => !conversationManager.findConversation(channel));
  view.showConversations([...sorted, ...others.map((channel) => ({ channel }))].map(({ channel, ...conversation }) => ({
    title: titleOf(channel),
    digest: conversation.lastMessage?.content.conversationDigest ?? "",
    timestamp: conversation.timestamp,
    unread: conversation.unread,
    isCurrent: current?.isEqual(channel) ?? false,
    select: () => select(channel),
  })));
}

function select(channel) {
  current = channel;
  view.showTitle(titleOf(channel));
  view.showNotice("");
  showConversations();
  showMessages({ toEnd: true });
  showMembers();
  if (!histories.has(channel.getChannelKey())) readNewest(channel);
  if (channel.channelType === ChannelTypeGroup) channelManager.syncSubscribes(channel).catch(explain(channel));
  markRead();
}

/** Tells the gateway that the user has seen the open conversation: then its badge goes in the user's other tabs as well. */
function markRead() {
  const conversation = current && conversationManager.findConversation(current);
  if (!conversation?.unread || document.hidden) return;
  conversation.unread = 0;
  showConversations();
  const { channelID: channelId, channelType } = conversation.channel;
  const messageSeq = conversation.lastMessage?.messageSeq || undefined;
  client.readConversation({ channelId, channelType, messageSeq }).catch(explain(conversation.channel));
}

/** New messages, and what the user has read in another tab. */
conversationManager.addConversationListener(({ channel }) => {
  showConversations();
  markRead();
  learnTitle(channel);
});
document.addEventListener("visibilitychange", markRead);
channelManager.addListener(showConversations);

// ---- Members

function showMembers() {
  const members = current.channelType === ChannelTypeGroup ? channelManager.getSubscribes(current) : [];
  view.showMembers(members.map(({ name, role }) => ({ name, role: ROLES[role] })));
}

channelManager.addSubscriberChangeListener((channel) => {
  if (current?.isEqual(channel)) showMembers();
});

// ---- Messages

function showMessages(options) {
  const { messages } = histories.get(current.getChannelKey()) ?? { messages: [] };
  const rows = messages.map((message) => ({
    from: message.fromUID,
    timestamp: message.timestamp,
    text: message.content.conversationDigest ?? "",
    isOwn: message.send,
    state: message.send ? state(message) : "",
    hasFailed: message.status === MessageStatus.Fail,
  }));
  view.showMessages(rows, options);
}

function state({ status, messageSeq, reasonCode }) {
  if (status === MessageStatus.Wait) return "sending…";
  return status === MessageStatus.Normal ? `stored #${messageSeq}` : `refused: ${ReasonCode[reasonCode] ?? reasonCode}`;
}

/** Adds a message, or replaces it: each of them comes from its send or the socket, and again from the history. */
function keep(message) {
  const history = histories.get(message.channel.getChannelKey());
  if (!history) return;
  // Other clients may send without a number of their own.
  const isSame = ({ fromUID, clientMsgNo, messageSeq }) =>
    fromUID === message.fromUID && clientMsgNo === message.clientMsgNo && (clientMsgNo !== "" || messageSeq === message.messageSeq);
  // Those that are not stored yet are last.
  const place = ({ messageSeq }) => messageSeq || Number.MAX_SAFE_INTEGER;
  history.messages = [...history.messages.filter((other) => !isSame(other)), message].sort((a, b) => place(a) - place(b));
}

/** Reads the page that ends with this number, or the newest one. */
async function read(channel, history, startMessageSeq) {
  history.isReading = true;
  try {
    const options = { startMessageSeq, endMessageSeq: 0, limit: PAGE, pullMode: PullMode.Down };
    const messages = await chatManager.syncMessages(channel, options);
    messages.forEach(keep);
    history.hasOlder = messages[0]?.messageSeq > 1;
  } catch (error) {
    explain(channel)(error);
    history.hasOlder = false;
  }
  history.isReading = false;
  if (!current?.isEqual(channel)) return;
  showMessages({ toEnd: startMessageSeq === 0 });
  if (!view.isFull()) readOlder();
}

/** Nothing that was missed comes again by itself: the newest page replaces what was there. */
async function readNewest(channel) {
  const key = channel.getChannelKey();
  const unsent = histories.get(key)?.messages.filter(({ messageSeq }) => !messageSeq) ?? [];
  const history = { messages: unsent, hasOlder: false, isReading: false };
  histories.set(key, history);
  await read(channel, history, 0);
}

/** Goes on where the history begins so far. */
async function readOlder() {
  const history = current && histories.get(current.getChannelKey());
  if (history?.hasOlder && !history.isReading) await read(current, history, history.messages[0].messageSeq - 1);
}

/** One's own come here too, when they are sent. */
chatManager.addMessageListener((message) => {
  keep(message);
  if (current?.isEqual(message.channel)) showMessages({ toEnd: message.send });
});

/** What became of one's own. */
chatManager.addMessageStatusListener(({ clientSeq, messageSeq, reasonCode }) => {
  const sent = [...histories.values()].flatMap(({ messages }) => messages).find((message) => message.clientSeq === clientSeq);
  if (!sent) return;
  const status = reasonCode === ReasonCode.success ? MessageStatus.Normal : MessageStatus.Fail;
  keep(Object.assign(sent, { messageSeq, reasonCode, status }));
  if (current.isEqual(sent.channel)) showMessages();
});

view.onTop(readOlder);
view.onSend((text) => chatManager.send(new MessageText(text), current));

// ---- The connection

connectManager.addConnectStatusListener((status, reasonCode) => {
  if (status === ConnectStatus.Connected) return catchUp();
  if (status !== ConnectStatus.Disconnect) return view.showStatus(`disconnected: ${ReasonCode[reasonCode] ?? reasonCode}`, "ended");
  // By itself, 3 s later; not after the other two, which this follows.
  if (connectManager.needReconnect) view.showStatus("reconnecting…");
});

/** After each connect: what came meanwhile is read. */
async function catchUp() {
  const { uid } = sdk.config;
  view.showUser(uid);
  view.showStatus("connected", "connected");
  view.showNotice("");
  contacts = [new Channel(uid === "alice" ? "bob" : "alice", ChannelTypePerson), new Channel("team", ChannelTypeGroup)];
  for (const key of histories.keys()) {
    if (key !== current?.getChannelKey()) histories.delete(key);
  }
  if (current) readNewest(current);
  await conversationManager.sync().catch(({ message }) => view.showNotice(message));
  showConversations();
  markRead();
  contacts.forEach(learnTitle);
}

sdk.connect();
