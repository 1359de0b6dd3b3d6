// WuKongIM's JSON-RPC over a WebSocket.

/** How long an answer may take before the socket counts as dead. */
const TIMEOUT_MS = 15_000;

const once = (target, event) => new Promise((resolve) => target.addEventListener(event, resolve, { once: true }));

/** A socket, which ends when a call gets no answer in time. `notified` gets the method and parameters of each notification. */
export class Socket {
  #socket;
  #lost;
  #answers = new Map();
  #lastId = 0;

  constructor(url, notified) {
    this.#socket = new WebSocket(url);
    this.ended = once(this.#socket, "close");
    this.#lost = this.ended.then(() => Promise.reject(new Error("closed")));
    this.#lost.catch(() => {});
    this.opened = this.#inTime(once(this.#socket, "open"));
    this.#socket.addEventListener("message", ({ data }) => {
      const { method, params, id, ...answer } = JSON.parse(data);
      if (method) return notified(method, params);
      this.#answers.get(id)?.(answer);
      this.#answers.delete(id);
    });
  }

  /** Resolves with `result` or `error`; rejects if the socket ends first. */
  call(method, params) {
    const id = String((this.#lastId += 1));
    const answer = new Promise((resolve) => this.#answers.set(id, resolve));
    this.#send({ id, method, params });
    return this.#inTime(answer);
  }

  notify(method, params) {
    this.#send({ method, params });
  }

  /** Ends it at once: if the peer is dead, `close` alone takes minutes. */
  close() {
    this.#socket.close();
    this.#socket.dispatchEvent(new CloseEvent("close"));
  }

  #send(message) {
    this.#socket.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
  }

  #inTime(answer) {
    const timer = setTimeout(() => this.close(), TIMEOUT_MS);
    return Promise.race([answer, this.#lost]).finally(() => clearTimeout(timer));
  }
}
