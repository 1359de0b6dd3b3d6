// What the page shows. Knows nothing of the SDK or the gateway.

const element = (id) => document.getElementById(id);

/** An element with what is in it. */
function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A circle with the first letter, whose colour is always the same for the same name. */
function avatar(name) {
  const circle = make("span", { className: "avatar", ariaHidden: "true" }, [...name][0]);
  const sum = [...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0);
  circle.style.setProperty("--hue", (sum * 47) % 360);
  return circle;
}

const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export function showUser(uid) {
  document.title = element("user").textContent = uid;
}

/** `state`: `connected`, `ended`, or nothing while it is tried. Only a connected page can send. */
export function showStatus(text, state = "") {
  element("status").textContent = text;
  element("status").dataset.state = state;
  element("send").disabled = state !== "connected";
}

export function showNotice(text) {
  element("notice").textContent = text;
}

/** Rows of `{ title, digest, timestamp, unread, isCurrent, select }`. */
export function showConversations(rows) {
  const button = ({ title, digest, timestamp, unread, isCurrent, select }) =>
    make(
      "button",
      { type: "button", onclick: select, ariaCurrent: String(isCurrent) },
      avatar(title),
      make("b", {}, title),
      make("small", {}, timestamp ? time(timestamp) : ""),
      make("span", { className: "digest" }, digest),
      ...(unread ? [make("span", { className: "badge", title: "unread" }, String(unread))] : []),
    );
  element("conversations").replaceChildren(...rows.map(button));
}

/** Opens a conversation's window. */
export function showTitle(title) {
  element("title").textContent = title;
  element("composer").hidden = false;
  element("text").focus();
}

/**
 * Rows of `{ key, from, timestamp, text, isOwn, state, hasFailed }`. The last message stays in sight if it was, or if `toEnd`; else what
 * is read stays where it is.
 */
export function showMessages(rows, { toEnd = false } = {}) {
  const view = element("history");
  const below = view.scrollHeight - view.scrollTop;
  const isAtEnd = toEnd || below - view.clientHeight < 40;
  const line = ({ from, timestamp, text, isOwn, state, hasFailed }) =>
    make(
      "li",
      { className: [isOwn && "own", hasFailed && "failed"].filter(Boolean).join(" ") },
      make("small", {}, [from, time(timestamp), state].filter(Boolean).join(" · ")),
      text,
    );
  element("messages").replaceChildren(...rows.map(line));
  view.scrollTop = isAtEnd ? view.scrollHeight : view.scrollHeight - below;
}

/** Rows of `{ name, role }`; none where the conversation is no group. */
export function showMembers(rows) {
  element("members").hidden = rows.length === 0;
  const line = ({ name, role }) => make("li", {}, avatar(name), name, make("small", {}, role));
  element("subscribers").replaceChildren(...rows.map(line));
}

/** Calls back when the history was scrolled to its top, or does not fill the window. */
export function onTop(callback) {
  element("history").onscroll = () => {
    if (element("history").scrollTop < 80) callback();
  };
}

/** Whether the messages fill the window, so that it can be scrolled. */
export function isFull() {
  return element("history").scrollHeight > element("history").clientHeight;
}

/** Calls back with each text that is to be sent. */
export function onSend(callback) {
  element("composer").onsubmit = (event) => {
    event.preventDefault();
    callback(element("text").value);
    element("text").value = "";
  };
}
