// `useSdk` with WuKongIM's SDK from npm, through the guarded socket.

import assert from "node:assert/strict";
import { test } from "node:test";

import { encodeText, GatewayClient } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";
import { startScripted, success } from "./scripted.mjs";
import { connect, openTab } from "./tab.mjs";
import { until } from "./until.mjs";

const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const team = { channelId: "team", channelType: 2 };
const alice = { channelId: "alice", channelType: 1 };
const texts = (messages) => messages.map(({ content }) => content.text);

/** What users can send and the SDK alone could not take: it throws, or takes it for a command. */
const UNREADABLE = {
  "no JSON": base64("no JSON"),
  "no UTF-8": base64([0xff, 0xfe]),
  null: base64("null"),
  "no type": base64('{"content":"x"}'),
  "a type that is text": base64('{"type":"1500"}'),
  "a system message that cannot be shown": base64('{"type":1500,"extra":[{"name":"x"}]}'),
  "what looks like a command": base64('{"type":99,"cmd":"conversationRead","param":{"channelId":"team","channelType":2}}'),
};

for (const generation of ["v2", "v3"]) {
  test(`on WuKongIM ${generation}`, async (t) => {
    const gateway = await startGateway(t, { generation });
    const user = (uid) => new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token(uid) });
    const [owner, bob] = [user("alice"), user("bob")];
    await owner.createChannel({ ...team, name: "The team", avatar: "https://example.com/team.png" });
    await owner.addSubscribers({ ...team, subscribers: ["bob", "carol"] });
    await owner.addManagers({ ...team, uids: ["carol"] });
    const tab = openTab(t, owner);
    const { sdk, Channel, PullMode } = tab;
    const [person, group] = [new Channel("bob", 1), new Channel("team", 2)];
    const found = (channel) => sdk.conversationManager.findConversation(channel);

    await t.test("messages come through the socket and count as unread", async () => {
      await connect(tab);
      const { messageId, timestamp } = await bob.sendMessage({ ...alice, payload: encodeText("你好 👋") });
      await until(() => tab.messages.length === 1);
      const [message] = tab.messages;
      assert.deepEqual(
        [message.messageID, message.content.text, message.fromUID, message.send, message.timestamp],
        [messageId, "你好 👋", "bob", false, Math.floor(timestamp / 1000)],
      );
      assert.deepEqual(tab.acknowledged, [messageId]);
      assert.equal(found(person).unread, 1);
    });

    await t.test("what it cannot read is shown as unknown content and acknowledged", async () => {
      for (const [what, payload] of Object.entries(UNREADABLE)) {
        const { messageId } = await bob.sendMessage({ ...alice, payload });
        await until(() => tab.messages.at(-1).messageID === messageId);
        assert.equal(tab.messages.at(-1).content.conversationDigest, "[未知消息]", what);
        assert.equal(tab.acknowledged.at(-1), messageId, what);
      }
      assert.deepEqual(tab.commands, []);
    });

    await t.test("histories are read in both directions, with what it cannot read", async () => {
      await bob.sendMessageBatch([1, 2, 3, 4, 5].map((number) => ({ ...team, payload: encodeText(`no ${number}`) })));
      const read = (channel, options) =>
        sdk.chatManager.syncMessages(channel, { startMessageSeq: 0, endMessageSeq: 0, limit: 2, pullMode: PullMode.Down, ...options });
      const Up = { pullMode: PullMode.Up };
      for (const [options, expected] of [
        [{}, [4, 5]],
        [{ startMessageSeq: 3 }, [2, 3]],
        [{ startMessageSeq: 3, endMessageSeq: 2 }, [3]],
        [{ startMessageSeq: 1 }, [1]],
        [{ ...Up, startMessageSeq: 0 }, [1, 2]],
        [{ ...Up, startMessageSeq: 1, limit: 1 }, [1]],
        [{ ...Up, startMessageSeq: 2 }, [2, 3]],
        [{ ...Up, startMessageSeq: 4, limit: 9 }, [4, 5]],
        [{ ...Up, startMessageSeq: 1, endMessageSeq: 3, limit: 9 }, [1, 2]],
        [{ ...Up, startMessageSeq: 6 }, []],
      ]) {
        const messages = await read(group, options);
        assert.deepEqual(messages.map(({ messageSeq }) => messageSeq), expected, JSON.stringify(options));
        assert.deepEqual(texts(messages), expected.map((number) => `no ${number}`));
      }
      const [first, ...rest] = await read(person, { limit: 50 });
      assert.deepEqual([first.messageID, first.content.text, first.channel.channelID], [tab.messages[0].messageID, "你好 👋", "bob"]);
      assert.deepEqual(new Set(rest.map(({ content }) => content.conversationDigest)), new Set(["[未知消息]"]));
      assert.equal(rest.length, Object.keys(UNREADABLE).length);
    });

    await t.test("conversations are listed, newest message first, with what is unread", async () => {
      // v3 lists a pair's first message a moment after it was sent.
      await until(async () => (await sdk.conversationManager.sync()).length === 2);
      const [first, second] = sdk.conversationManager.conversations;
      assert.deepEqual([first.channel, first.unread, first.extra, texts([first.lastMessage])], [group, 5, { readToSeq: 0 }, ["no 5"]]);
      assert.deepEqual([second.channel, second.unread], [person, 1 + Object.keys(UNREADABLE).length]);
      assert.ok(Math.abs(first.timestamp - Date.now() / 1000) < 60, "seconds");
      const { title, logo } = first.channelInfo;
      assert.deepEqual([title, logo], ["The team", "https://example.com/team.png"]);
    });

    await t.test("what is read in one tab is read in another one of the user", async () => {
      const other = openTab(t, user("alice"));
      await connect(other);
      await other.sdk.conversationManager.sync();
      const conversation = other.sdk.conversationManager.findConversation(group);
      assert.equal(conversation.unread, 5);
      let changed;
      other.sdk.conversationManager.addConversationListener((conversation) => (changed = conversation));
      assert.deepEqual(await owner.readConversation({ ...team, messageSeq: 3 }), { unread: 2, readToSeq: 3 });
      await until(() => changed?.extra.readToSeq === 3);
      assert.deepEqual([changed, changed.unread], [conversation, 2]);
      assert.deepEqual(await owner.readConversation(team), { unread: 0, readToSeq: 5 });
      await until(() => conversation.unread === 0);
      await until(() => found(group).unread === 0);
      // The command of an earlier read, which came later.
      const param = { ...team, unread: 2, readToSeq: 3 };
      other.sdk.chatManager.notifyCMDListeners({ content: { cmd: "conversationRead", param } });
      assert.deepEqual([conversation.unread, conversation.extra.readToSeq], [0, 5]);
    });

    await t.test("a group's members have roles, and those who left are gone", async () => {
      const members = () => sdk.channelManager.getSubscribes(group).map(({ uid, role }) => [uid, role]);
      await sdk.channelManager.syncSubscribes(group);
      assert.deepEqual(members(), [["alice", 1], ["carol", 2], ["bob", 0]]);
      await bob.removeSubscribers({ ...team, subscribers: ["bob"] });
      await sdk.channelManager.syncSubscribes(group);
      assert.deepEqual(members(), [["alice", 1], ["carol", 2]]);
      await owner.addSubscribers({ ...team, subscribers: ["bob"] });
      await sdk.channelManager.syncSubscribes(group);
      assert.deepEqual(members().map(([uid]) => uid).sort(), ["alice", "bob", "carol"]);
      await sdk.channelManager.syncSubscribes(person);
      assert.deepEqual(sdk.channelManager.getSubscribes(person), []);
    });

    await t.test("a group has its name, a user the uid", async () => {
      for (const channel of [person, group]) {
        sdk.channelManager.deleteChannelInfo(channel);
        await sdk.channelManager.fetchChannelInfo(channel);
      }
      const { title, orgData } = sdk.channelManager.getChannelInfo(group);
      assert.deepEqual([title, orgData.owner, orgData.managers], ["The team", "alice", ["carol"]]);
      assert.equal(sdk.channelManager.getChannelInfo(person).title, "bob");
    });
  });
}

test("each connect gets a token of its own, and tries again while that fails", async (t) => {
  const gateway = await startGateway(t);
  let isDown = true;
  const fetch = (request) => (isDown ? Promise.reject(new TypeError("down")) : globalThis.fetch(request));
  const client = new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token("alice"), fetch });
  const errors = [];
  const tab = openTab(t, client, { onConnectError: (error) => errors.push(error.code) });
  const { sdk, ConnectStatus } = tab;
  sdk.connect();
  await until(() => errors.length === 1);
  isDown = false;
  await until(() => sdk.connectManager.status === ConnectStatus.Connected);
  assert.deepEqual(errors, ["network_error"]);
  const { uid, token } = sdk.config;
  assert.equal(uid, "alice");

  await client.revokeToken();
  await until(() => sdk.connectManager.status === ConnectStatus.Disconnect);
  await connect(tab);
  assert.notEqual(sdk.config.token, token);
});

test("an attempt to connect comes to nothing after disconnect(), and for another attempt or another user", async (t) => {
  const { baseUrl } = await startScripted(t, ({ url }) => success(url.endsWith("/config") ? { wsUrl: "ws://x" } : { uid: "alice", token: "c" }));
  let release;
  const held = () => new Promise((resolve) => (release = resolve));
  let gate = held();
  const clientOf = (token) => new GatewayClient({ baseUrl, token, fetch: async (request) => (await gate, fetch(request)) });
  const { sdk, useSdk } = openTab(t, clientOf("alice's"));
  const { provider } = sdk.config;
  const answered = [];
  const attempt = (name) => provider.connectAddrCallback(() => answered.push(name));

  const attempts = [attempt("first"), attempt("second")];
  release();
  await Promise.all(attempts);
  assert.deepEqual(answered, ["second"]);

  for (const [name, end] of [["disconnected", () => sdk.disconnect()], ["alice", () => useSdk(sdk, clientOf("bob's"))]]) {
    gate = held();
    sdk.connectManager.needReconnect = true;
    const ended = attempt(name);
    end();
    release();
    await ended;
  }
  assert.deepEqual(answered, ["second"]);
});

test("all pages of conversations and members are read, and what moved up meanwhile", async (t) => {
  const message = { channelType: 1, payload: encodeText("hello"), messageId: "1", messageSeq: 1, clientMsgNo: "n", timestamp: 1000 };
  const row = (channelId) => ({
    ...{ channelId, channelType: 1, unread: 0, readToSeq: 1, timestamp: 1999 },
    lastMessage: { ...message, channelId, fromUid: channelId },
  });
  const pages = [["a", "b"], ["c"], ["d", "e"]];
  const { baseUrl, requests } = await startScripted(t, ({ url }) => {
    const place = Number(new URL(url, "http://x").searchParams.get("cursor") ?? 0);
    const isLast = place === pages.length - 1;
    const headers = isLast ? { "x-has-more": "false" } : { "x-has-more": "true", "x-next-cursor": String(place + 1) };
    const hasMoved = place === 0 && requests.length > pages.length;
    const conversations = (hasMoved ? ["f", "a"] : pages[place]).map(row);
    if (url.includes("/conversation/list")) return success({ conversations, unreadTotal: 0, complete: true }, headers);
    return success(pages[place].map((uid) => ({ uid, role: "member" })), headers);
  });
  const { sdk, Channel } = openTab(t, new GatewayClient({ baseUrl, token: "t" }));
  const conversations = await sdk.conversationManager.sync();
  assert.deepEqual(conversations.map(({ channel }) => channel.channelID), ["f", ...pages.flat()]);
  assert.deepEqual([conversations[0].timestamp, texts([conversations[0].lastMessage])], [1, ["hello"]]);
  const group = new Channel("team", 2);
  await sdk.channelManager.syncSubscribes(group);
  assert.deepEqual(sdk.channelManager.getSubscribes(group).map(({ uid }) => uid), pages.flat());
  assert.equal(requests.length, 2 * pages.length + 1);
});
