// A chat of alice and bob over the guarded socket in plain JSON-RPC; history and the group come by REST. What others wrote is only ever shown
// as text.
//
// The socket delivers only what is sent while it is open. So after each connect the histories are read from the last known message on, and a
// message that comes by both ways is recognised by its id.

import { Socket } from "./socket.js";

const API = new URL(".", location.href);
const TOKEN_KEY = "chat-token";
const USERS = ["alice", "bob"];
const PERSON = 1;
const GROUP = 2;
const WEB = 1;
const SUCCESS = 1;
const PING_MS = 25_000;
const MIN_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;

const isChinese = /^zh/i.test(navigator.languages.find((language) => /^(zh|en)/i.test(language)));
const say = (zh, en) => (isChinese ? zh : en);
const REASONS = {
  2: say("Token 无效或已撤销", "the token is invalid or was revoked"),
  3: say("你不是群成员", "you are not a member of the group"),
  4: say("你已被屏蔽", "you are blocked"),
  9: say("消息过大", "the message is too large"),
  11: say("不允许发送", "sending is not allowed"),
  12: say("Token 已撤销，或打开的连接过多", "the token was revoked, or too many connections were opened"),
  19: say("用户或频道已被封禁", "the user or the channel is banned"),
  22: say("发送过于频繁", "too many messages"),
  24: say("群已解散", "the group was deleted"),
};
const reason = (code) => REASONS[code] ?? say(`原因码 ${code}`, `reason ${code}`);

const element = (id) => document.getElementById(id);
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Calls the API. An error has the gateway's text for people, its `code` and its `status`. */
async function request(method, path, content) {
  const headers = { Authorization: `Bearer ${jwt}`, ...(content && { "Content-Type": "application/json" }) };
  const response = await fetch(new URL(path, API), { method, headers, body: content && JSON.stringify(content) });
  const { success, data, message, code } = await response.json();
  if (!success) throw Object.assign(new Error(message), { code, status: response.status });
  return { data, hasMore: response.headers.get("x-has-more") === "true" };
}

/** A text in the form in which WuKongIM's SDKs send it. */
function encode(text) {
  const bytes = new TextEncoder().encode(JSON.stringify({ type: 1, content: text }));
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function decode(payload) {
  const text = new TextDecoder().decode(Uint8Array.from(atob(payload), (char) => char.charCodeAt(0)));
  try {
    const { content } = JSON.parse(text);
    return typeof content === "string" ? content : text;
  } catch {
    return text;
  }
}

let jwt, session, connected, current;
let isEnded = false;
const channels = new Map();

// ---- What is shown

function addChannel(id, type, title) {
  const channel = { id, type, title, messages: [], unread: 0, notice: "", newest: { seq: 0 } };
  channel.button = element("channels").appendChild(make("button", { type: "button" }));
  channel.list = element("messages").appendChild(make("ol", { hidden: true }));
  channel.button.addEventListener("click", () => select(channel));
  channels.set(`${type} ${id}`, channel);
}

function select(channel) {
  current = channel;
  channel.unread = 0;
  channels.forEach(showChannel);
  element("messages").setAttribute("aria-label", channel.title);
  element("text").focus();
  scrollToEnd();
}

function showChannel(channel) {
  const { button, title, unread } = channel;
  const isCurrent = channel === current;
  button.setAttribute("aria-current", isCurrent);
  button.replaceChildren(title);
  if (unread) button.append(" ", make("span", { className: "unread", textContent: say(`${unread} 条未读`, `${unread} unread`) }));
  channel.list.hidden = !isCurrent;
  if (!isCurrent) return;
  element("older").hidden = !channel.hasOlder;
  element("notice").textContent = channel.notice;
}

function showStatus(state, text) {
  Object.assign(element("status"), { textContent: text }).dataset.state = state;
  element("send").disabled = state !== "online";
}

function scrollToEnd() {
  element("messages").scrollTop = element("messages").scrollHeight;
}

function addMessage(channel, from, at, text, number) {
  const time = new Date(at);
  const item = make("li", { className: from === session.uid ? "own" : "" });
  const state = make("span", { className: "state" });
  item.append(
    make("span", { className: "from", textContent: from }),
    make("time", { dateTime: time.toISOString(), textContent: time.toLocaleTimeString() }),
    make("p", { textContent: text }),
    state,
  );
  const message = { channel, from, text, number, item, state };
  place(message);
  return message;
}

/** Puts a message where its number belongs; those without one are last. */
function place(message) {
  const { messages, list } = message.channel;
  const view = element("messages");
  const isAtEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
  if (messages.includes(message)) messages.splice(messages.indexOf(message), 1);
  const after = messages.findIndex(({ seq }) => (seq ?? Infinity) > (message.seq ?? Infinity));
  messages.splice(after < 0 ? messages.length : after, 0, message);
  list.insertBefore(message.item, messages[messages.indexOf(message) + 1]?.item ?? null);
  if (isAtEnd && message.channel === current) scrollToEnd();
}

/** Says what became of one's own message; one that failed can be sent again. */
function setState(message, name, text) {
  message.item.dataset.state = name;
  message.state.textContent = text;
  if (name !== "failed") return;
  const again = make("button", { type: "button", textContent: say("重发", "Send again") });
  again.addEventListener("click", () => send(message));
  message.state.append(" ", again);
}

// ---- Messages

/** A message is stored, as one of the ways by which it may come says. True if that is news. */
function addStored(channel, { messageId, messageSeq, fromUid, clientMsgNo, timestamp, payload }) {
  if (channel.messages.some(({ id }) => id === messageId)) return false;
  const isOwn = fromUid === session.uid;
  const sent = channel.messages.find(({ seq, number }) => isOwn && !seq && number === clientMsgNo);
  setStored(sent ?? addMessage(channel, fromUid, timestamp, decode(payload)), messageId, messageSeq);
  return !isOwn;
}

function setStored(message, id, seq) {
  Object.assign(message, { id, seq });
  setState(message, "stored", message.from === session.uid ? say(`已存储 #${seq}`, `stored #${seq}`) : "");
  place(message);
}

function countUnread(channel, count) {
  if (channel !== current || document.hidden) channel.unread += count;
  showChannel(channel);
}

/** The socket told of a message: if it is not the one after the newest known, others were missed. */
function follow(channel, id, seq) {
  if (seq > channel.newest.seq + 1) catchUp(channel);
  else if (seq > channel.newest.seq) channel.newest = { id, seq };
}

function receive(socket, method, params) {
  if (method === "disconnect") return end(reason(params.reasonCode));
  if (method !== "recv") return;
  const { header, messageId, messageSeq, channelId, channelType, fromUid } = params;
  socket.notify("recvack", { header, messageId, messageSeq });
  const isFromPeer = channelType === PERSON && fromUid !== session.uid;
  const channel = channels.get(`${channelType} ${isFromPeer ? fromUid : channelId}`);
  if (!channel) return;
  if (addStored(channel, { ...params, timestamp: params.timestamp * 1000 })) countUnread(channel, 1);
  follow(channel, messageId, messageSeq);
}

async function send(message) {
  const { channel, number, text } = message;
  if (!connected) return;
  setState(message, "sending", say("发送中…", "sending…"));
  const params = { channelId: channel.id, channelType: channel.type, clientMsgNo: number, payload: encode(text), header: { redDot: true } };
  try {
    const { result, error } = await connected.call("send", params);
    if (result?.reasonCode === SUCCESS) {
      setStored(message, result.messageId, result.messageSeq);
      return follow(channel, result.messageId, result.messageSeq);
    }
    const why = error?.message ?? reason(result.reasonCode);
    setState(message, "failed", say(`被拒绝：${why}`, `refused: ${why}`));
  } catch {
    // The history will tell whether it was stored.
    message.isUnanswered = true;
  }
}

function readPage({ id, type }, range) {
  return request("GET", `message/sync?${new URLSearchParams({ channelId: id, channelType: type, ...range })}`);
}

/** Reads all that is newer than the newest known message, or the newest page if none is known; returns how many of them are news. */
async function readNewer(channel) {
  const known = channel.newest;
  let count = 0;
  let page = await readPage(channel, known.seq ? { lastMessageSeq: known.seq - 1 } : {});
  if (known.seq && page.data[0]?.messageId !== known.id) {
    // The newest known message would come first. `--embedded` keeps nothing: the gateway began anew.
    for (const { item } of channel.messages.filter(({ seq }) => seq)) item.remove();
    Object.assign(channel, { messages: channel.messages.filter(({ seq }) => !seq), newest: { seq: 0 } });
    return readNewer(channel);
  }
  if (!known.seq) Object.assign(channel, { hasOlder: page.hasMore, oldest: page.data[0]?.messageSeq });
  for (;;) {
    for (const message of page.data) count += addStored(channel, message);
    const { messageId: id, messageSeq: seq } = page.data.at(-1) ?? { messageSeq: 0 };
    if (seq > channel.newest.seq) channel.newest = { id, seq };
    if (!known.seq || !page.hasMore) return count;
    page = await readPage(channel, { lastMessageSeq: seq });
  }
}

/** After a failed read: creates the group of all, which another tab may be doing as well, or waits. */
async function amend(channel, { status, code, message }) {
  try {
    if (status === 401) return end(message);
    if (code !== "channel_not_found") throw new Error(message);
    const group = { channelId: channel.id, channelType: channel.type };
    await request("POST", "channel/create", { ...group, name: "Demo" });
    await request("POST", "channel/subscriber/add", { ...group, subscribers: USERS });
  } catch (error) {
    channel.notice = error.message;
    showChannel(channel);
    await sleep(MIN_RETRY_MS);
  }
}

/** Reads what is newer until that works, one read at a time; then none of one's own messages is left without an answer. */
async function catchUp(channel) {
  channel.isDue = true;
  if (channel.isReading) return;
  channel.isReading = true;
  while (channel.isDue && connected) {
    channel.isDue = false;
    try {
      const count = await readNewer(channel);
      if (channel.isRead) countUnread(channel, count);
      Object.assign(channel, { isRead: true, notice: "" });
      for (const message of channel.messages.filter(({ seq, isUnanswered }) => !seq && isUnanswered)) {
        message.isUnanswered = false;
        setState(message, "failed", say("未送达", "not delivered"));
      }
    } catch (error) {
      channel.isDue = true;
      await amend(channel, error);
    }
    showChannel(channel);
  }
  channel.isReading = false;
}

async function readOlder(channel) {
  const view = element("messages");
  view.setAttribute("aria-busy", true);
  try {
    const page = await readPage(channel, { beforeMessageSeq: channel.oldest });
    const fromEnd = view.scrollHeight - view.scrollTop;
    for (const message of page.data) addStored(channel, message);
    Object.assign(channel, { hasOlder: page.hasMore, oldest: page.data[0]?.messageSeq ?? channel.oldest, notice: "" });
    if (channel === current) view.scrollTop = view.scrollHeight - fromEnd;
  } catch (error) {
    channel.notice = error.message;
  }
  view.removeAttribute("aria-busy");
  showChannel(channel);
  // The button may be gone now.
  if (document.activeElement === document.body) view.focus();
}

// ---- The connection

/** Ends for good: to connect again would not help. */
function end(why) {
  isEnded = true;
  showStatus("ended", say(`已断开：${why}`, `disconnected: ${why}`));
  connected?.close();
}

async function openSession() {
  const { data: config } = await request("GET", "config");
  const { data: token } = await request("POST", "token", { deviceFlag: WEB });
  session = { ...token, url: config.wsUrl, payloadBytes: config.limits.payloadBytes };
  document.title = element("user").textContent = session.uid;
  for (const user of USERS.filter((user) => user !== session.uid)) addChannel(user, PERSON, user);
  addChannel("demo", GROUP, say("群聊 demo", "Group demo"));
  select(channels.values().next().value);
}

/** One connection, from its beginning to its end; true if it came about. */
async function connect() {
  if (!session) await openSession();
  const socket = new Socket(session.url, (method, params) => receive(socket, method, params));
  await socket.opened;
  const { error } = await socket.call("connect", { uid: session.uid, token: session.token, deviceFlag: WEB });
  if (error) return end(reason(error.code));
  connected = socket;
  showStatus("online", say("已连接", "connected"));
  channels.forEach(catchUp);
  const ping = setInterval(() => socket.call("ping").catch(() => {}), PING_MS);
  await socket.ended;
  clearInterval(ping);
  connected = undefined;
  return true;
}

async function run() {
  for (let failures = 0; !isEnded; failures += 1) {
    try {
      if (await connect()) failures = 0;
    } catch (error) {
      // Others pass by themselves.
      if (error.status === 401 || error.status === 403) end(error.message);
    }
    if (isEnded) return;
    showStatus("offline", say("连接已断开，正在重连…", "not connected, trying again…"));
    // At random, so that clients that were cut off together do not come back together.
    await sleep(Math.min(MIN_RETRY_MS * 2 ** failures, MAX_RETRY_MS) * (0.5 + Math.random()));
  }
}

document.documentElement.lang = say("zh", "en");
element("older").textContent = say("更早的消息", "Older messages");
element("text").placeholder = say("输入消息", "Type a message");
element("text").setAttribute("aria-label", say("消息", "Message"));
element("send").textContent = say("发送", "Send");
element("channels").setAttribute("aria-label", say("会话", "Conversations"));
element("older").addEventListener("click", () => readOlder(current));
document.addEventListener("visibilitychange", () => {
  if (current && !document.hidden) current.unread = 0;
  channels.forEach(showChannel);
});
element("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("text").value;
  const isTooLarge = atob(encode(text)).length > session.payloadBytes;
  element("notice").textContent = isTooLarge ? REASONS[9] : "";
  if (isTooLarge) return;
  element("text").value = "";
  const number = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  send(addMessage(current, session.uid, Date.now(), text, number));
  scrollToEnd();
});

// The token does not stay in the address, which the browser's history and screenshots show; the tab keeps it, so that a reload works.
addEventListener("hashchange", () => location.reload());
if (location.hash.length > 1) {
  sessionStorage.setItem(TOKEN_KEY, location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
jwt = sessionStorage.getItem(TOKEN_KEY);
if (jwt) run();
else end(say("缺少 Token，请打开 --embedded 打印的地址", "no token: open an address that --embedded printed"));
