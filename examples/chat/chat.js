// The chat: WuKongIM's own SDK sends and receives on the gateway's socket, and the gateway's client reads the histories. Who the user is
// comes from the application; here its JWT is in the page's address.

import { GatewayClient } from "@wukongim-gateway/client";
import WKSDK from "wukongimjssdk";
import { ConnectStatus } from "wukongimjssdk/lib/connect_manager";
import {
  Channel,
  ChannelTypeGroup,
  ChannelTypePerson,
  Message,
  MessageStatus,
  MessageText,
  PullMode,
  ReasonCode,
} from "wukongimjssdk/lib/model";
import { Setting } from "wukongimjssdk/lib/proto";

/** Messages that are read at once. */
const PAGE = 50;

const sdk = WKSDK.shared();
const element = (id) => document.getElementById(id);

// The token does not stay in the address; the tab keeps it, so that a reload works.
addEventListener("hashchange", () => location.reload());
if (location.hash) {
  sessionStorage.setItem("jwt", location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
const client = new GatewayClient({ baseUrl: "/api/v1/im", token: sessionStorage.getItem("jwt") ?? "", language: "en" });

// ---- What is shown

/** The conversations: `channel`, `title`, `messages` in order, `unread`, `hasOlder`. */
const chats = [];
let current;

function show() {
  element("chats").replaceChildren(...chats.map((chat) => {
    const button = document.createElement("button");
    button.textContent = chat.unread ? `${chat.title} (${chat.unread})` : chat.title;
    button.setAttribute("aria-current", chat === current);
    button.onclick = () => select(chat);
    return button;
  }));
  element("older").hidden = !current.hasOlder;
  element("messages").replaceChildren(...current.messages.map(item));
}

function item(message) {
  const line = document.createElement("li");
  line.className = message.send ? "own" : "";
  const about = document.createElement("small");
  const time = new Date(message.timestamp * 1000).toLocaleTimeString();
  about.textContent = [message.fromUID, time, ...(message.send ? [state(message)] : [])].join(", ");
  line.append(about, message.content.conversationDigest);
  return line;
}

function state({ status, messageSeq, reasonCode }) {
  if (status === MessageStatus.Wait) return "sending…";
  return status === MessageStatus.Normal ? `stored #${messageSeq}` : `refused: ${ReasonCode[reasonCode] ?? reasonCode}`;
}

function select(chat) {
  current = chat;
  chat.unread = 0;
  show();
  element("view").scrollTop = element("view").scrollHeight;
  element("text").focus();
}

function showStatus(text) {
  element("status").textContent = text;
}

// ---- Messages

/** Adds a message, or replaces it: each of them comes from its send or the socket, and again from the history. */
function keep(message) {
  const chat = chats.find(({ channel }) => channel.isEqual(message.channel));
  if (!chat) return;
  // Other clients may send without a number of their own.
  const isSame = ({ fromUID, clientMsgNo, messageSeq }) =>
    fromUID === message.fromUID && clientMsgNo === message.clientMsgNo && (clientMsgNo !== "" || messageSeq === message.messageSeq);
  // Those that are not stored yet are last.
  const place = ({ messageSeq }) => messageSeq || Number.MAX_SAFE_INTEGER;
  chat.messages = [...chat.messages.filter((other) => !isSame(other)), message].sort((a, b) => place(a) - place(b));
}

/** How the SDK reads histories: from the gateway. */
sdk.config.provider.syncMessagesCallback = async (channel, { startMessageSeq, limit, pullMode }) => {
  const up = { lastMessageSeq: startMessageSeq - 1 };
  const down = startMessageSeq ? { beforeMessageSeq: startMessageSeq + 1 } : {};
  const { channelID, channelType } = channel;
  const query = { channelId: channelID, channelType, limit, ...(pullMode === PullMode.Up ? up : down) };
  const { messages } = await client.syncMessages(query);
  return messages.flatMap(({ messageId, messageSeq, clientMsgNo, fromUid, timestamp, payload }) => {
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    const received = { messageID: messageId, messageSeq, clientMsgNo, fromUID: fromUid, channelID, channelType, payload: bytes };
    try {
      return [new Message({ ...received, setting: new Setting(), timestamp: Math.floor(timestamp / 1000) })];
    } catch {
      // A payload that is no JSON, which the SDK does not read from the socket either.
      return [];
    }
  });
};

/** Reads the page that ends with this number, or the newest one. */
async function read(chat, startMessageSeq = 0) {
  const options = { startMessageSeq, endMessageSeq: 0, limit: PAGE, pullMode: PullMode.Down };
  try {
    const messages = await sdk.chatManager.syncMessages(chat.channel, options);
    messages.forEach(keep);
    chat.hasOlder = messages[0]?.messageSeq > 1;
  } catch (error) {
    element("notice").textContent = `${chat.title}: ${error.message}`;
  }
  show();
}

/** Nothing that was missed comes again by itself: after each connect the newest page replaces what was there. */
async function catchUp(chat) {
  chat.messages = chat.messages.filter(({ messageSeq }) => !messageSeq);
  await read(chat);
  if (chat === current) select(chat);
}

/** One's own come here too, when they are sent. */
sdk.chatManager.addMessageListener((message) => {
  keep(message);
  const chat = chats.find(({ channel }) => channel.isEqual(message.channel));
  if (chat === current) return select(current);
  if (chat) chat.unread += 1;
  show();
});

/** What became of one's own. */
sdk.chatManager.addMessageStatusListener(({ clientSeq, messageSeq, reasonCode }) => {
  const message = chats.flatMap(({ messages }) => messages).find((sent) => sent.clientSeq === clientSeq);
  if (!message) return;
  const status = reasonCode === ReasonCode.success ? MessageStatus.Normal : MessageStatus.Fail;
  keep(Object.assign(message, { messageSeq, reasonCode, status }));
  show();
});

// ---- The connection

sdk.connectManager.addConnectStatusListener((status, reasonCode) => {
  element("send").disabled = status !== ConnectStatus.Connected;
  if (status === ConnectStatus.Connected) {
    showStatus("connected");
    element("notice").textContent = "";
    chats.forEach(catchUp);
  } else if (status === ConnectStatus.Disconnect) {
    // By itself, every 3 s; not after the other two, which this follows.
    if (sdk.connectManager.needReconnect) showStatus("reconnecting…");
  } else {
    showStatus(`disconnected: ${ReasonCode[reasonCode] ?? reasonCode}`);
  }
});

async function start() {
  const { wsUrl } = await client.getConfig();
  const { uid, token } = await client.createToken();
  Object.assign(sdk.config, { addr: wsUrl, uid, token });
  document.title = element("user").textContent = uid;
  const peer = uid === "alice" ? "bob" : "alice";
  for (const [id, type, title] of [[peer, ChannelTypePerson, peer], ["team", ChannelTypeGroup, "The team"]]) {
    chats.push({ channel: new Channel(id, type), title, messages: [], unread: 0, hasOlder: false });
  }
  select(chats[0]);
  sdk.connect();
}

element("older").onclick = () => read(current, current.messages[0].messageSeq - 1);
element("composer").onsubmit = (event) => {
  event.preventDefault();
  sdk.chatManager.send(new MessageText(element("text").value), current.channel);
  element("text").value = "";
};
start().catch((error) => showStatus(error.message));
