// A server that answers what a test tells it: what no gateway would say, or not when a test needs it.

import { createServer } from "node:http";

/**
 * Starts one and stops it after `t`. `answer` gets each request, `{ method, url, headers, body, count }`, and returns
 * `{ status, headers, body }`, or a promise of it, or nothing to break the connection. A `body` that is no text is sent as JSON.
 */
export async function startScripted(t, answer) {
  const requests = [];
  const server = createServer(async (incoming, outgoing) => {
    let body = "";
    for await (const chunk of incoming.setEncoding("utf8")) body += chunk;
    const { method, url, headers } = incoming;
    requests.push({ method, url, headers, body: body === "" ? undefined : JSON.parse(body), count: requests.length + 1 });
    const told = await answer(requests.at(-1));
    if (told === undefined) return outgoing.destroy();
    const { status = 200, headers: extra = {}, body: content } = told;
    const isText = typeof content === "string";
    outgoing.writeHead(status, { "content-type": isText ? "text/html" : "application/json", ...extra });
    return outgoing.end(isText ? content : JSON.stringify(content));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve))));
  return { baseUrl: `http://127.0.0.1:${server.address().port}/api/v1/im`, requests };
}

export const success = (data, headers) => ({ headers, body: { success: true, data } });

export const failure = (status, code, { headers = {}, ...rest } = {}) => ({
  status,
  headers,
  body: { success: false, message: `it is ${code}`, code, requestId: "r-1", ...rest },
});
