// Every endpoint on a real gateway, whichever generation of WuKongIM is behind it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeText, encodeText, GatewayClient, newClientMsgNo, WukongIMChannelType } from "@wukongim-gateway/client";

import { startGateway } from "./gateway.mjs";
import { until } from "./until.mjs";

const { PRIVATE, GROUP } = WukongIMChannelType;
const DIGITS = /^[0-9]{16,}$/;
const team = { channelId: "team", channelType: GROUP };

for (const generation of ["v2", "v3"]) {
  test(`on WuKongIM ${generation}`, async (t) => {
    const gateway = await startGateway(t, { generation, PUBLIC__WS_URL: "wss://im.example.com/api/v1/im/ws" });
    const user = (uid, claims) => new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token(uid, claims) });
    const [alice, bob, admin] = [user("alice"), user("bob"), user("root", { roles: ["admin"] })];
    const message = (content, to = { channelId: "bob", channelType: PRIVATE }) => ({ ...to, payload: encodeText(content) });

    await t.test("health, configuration and system information", async () => {
      assert.equal((await alice.getHealth()).status, "healthy");
      const config = await alice.getConfig();
      assert.deepEqual([config.uid, config.wsUrl, config.limits.payloadBytes], ["alice", "wss://im.example.com/api/v1/im/ws", 65536]);
      assert.equal(typeof (await alice.getSystemInfo()).connections, "number");
    });

    await t.test("connect tokens are the same until they are revoked", async () => {
      const first = await alice.createToken();
      assert.deepEqual([first.uid, first.deviceFlag], ["alice", 1]);
      assert.deepEqual(await alice.createToken({ deviceFlag: 1 }), first);
      assert.deepEqual(await alice.revokeToken(), { uid: "alice", deviceFlags: [0, 1, 2] });
      assert.notEqual((await alice.createToken()).token, first.token);
      assert.deepEqual(await admin.revokeToken({ uid: "bob", deviceFlag: 0 }), { uid: "bob", deviceFlags: [0] });
      await assert.rejects(bob.revokeToken({ uid: "alice" }), { code: "forbidden" });
    });

    await t.test("a message is sent once, whoever repeats it, and read by both", async () => {
      const clientMsgNo = newClientMsgNo();
      const sent = await alice.sendMessage({ ...message("你好 👋"), clientMsgNo });
      assert.match(sent.messageId, DIGITS);
      assert.deepEqual([sent.messageSeq, sent.clientMsgNo], [1, clientMsgNo]);
      assert.deepEqual(await alice.sendMessage({ ...message("你好 👋"), clientMsgNo }), sent);
      await assert.rejects(alice.sendMessage({ ...message("another"), clientMsgNo }), { code: "message_conflict", clientMsgNo });
      const { messages, hasMore } = await bob.syncMessages({ channelId: "alice", channelType: PRIVATE });
      assert.deepEqual(messages.map(({ messageId, payload }) => [messageId, decodeText(payload)]), [[sent.messageId, "你好 👋"]]);
      assert.equal(hasMore, false);
    });

    await t.test("a group is created, filled, managed, handed over and deleted", async () => {
      const created = await alice.createChannel({ ...team, name: "The team" });
      assert.deepEqual(created, { ...team, name: "The team" });
      await assert.rejects(bob.createChannel(team), { code: "channel_exists", status: 409 });
      const uids = ["bob", "carol"];
      assert.deepEqual(await alice.addSubscribers({ ...team, subscribers: uids }), { added: 2 });
      assert.deepEqual(await alice.addManagers({ ...team, uids: ["bob"] }), { added: 1 });
      const { owner, managers } = await bob.getChannelInfo(team);
      assert.deepEqual({ owner, managers }, { owner: "alice", managers: ["bob"] });
      assert.deepEqual(await alice.removeManagers({ ...team, uids: ["bob"] }), { removed: 1 });
      assert.deepEqual(await alice.transferOwnership({ ...team, uid: "bob" }), { channelId: "team", owner: "bob" });
      assert.deepEqual(await bob.removeSubscribers({ ...team, subscribers: ["carol"] }), { removed: 1 });
    });

    await t.test("a batch is sent in order, and read back page by page", async () => {
      const entries = await alice.sendMessageBatch([1, 2, 3, 4, 5].map((number) => message(`no ${number}`, team)));
      assert.deepEqual(entries.map(({ messageSeq }) => messageSeq), [1, 2, 3, 4, 5]);
      const newest = await bob.syncMessages({ ...team, limit: 2 });
      assert.deepEqual([newest.messages.map(({ payload }) => decodeText(payload)), newest.hasMore], [["no 4", "no 5"], true]);
      const older = await bob.syncMessages({ ...team, limit: 3, beforeMessageSeq: newest.messages[0].messageSeq });
      assert.deepEqual([older.messages.map(({ payload }) => decodeText(payload)), older.hasMore], [["no 1", "no 2", "no 3"], false]);
      const newer = await bob.syncMessages({ ...team, lastMessageSeq: 4 });
      assert.deepEqual(newer.messages.map(({ messageId }) => messageId), [entries[4].messageId]);
    });

    await t.test("what a batch could not send is told entry by entry, and is sent once when it is repeated", async () => {
      await bob.createChannel({ channelId: "closed", channelType: GROUP });
      const batch = [message("to bob"), message("to nobody", { channelId: "closed", channelType: GROUP })];
      const [first, second] = await alice.sendMessageBatch(batch);
      assert.match(first.messageId, DIGITS);
      assert.equal(second.error.code, "not_a_member");
      await bob.addSubscribers({ channelId: "closed", channelType: GROUP, subscribers: ["alice"] });
      const again = { ...batch[1], clientMsgNo: second.error.clientMsgNo };
      const [once, twice] = [await alice.sendMessage(again), await alice.sendMessage(again)];
      assert.deepEqual(once, twice);
      const carol = user("carol");
      const none = await carol.sendMessageBatch([batch[1]]).catch((error) => error);
      assert.deepEqual([none.code, none.status, none.data.length], ["not_a_member", 403, 1]);
    });

    await t.test("conversations are listed page by page, read, and hidden until their next message", async () => {
      const list = async (query) => {
        const page = await bob.listConversations(query);
        return { ...page, rows: page.conversations.map(({ channelId, unread, name }) => [channelId, unread, name]) };
      };
      // v3 lists a pair a moment after its first message.
      await until(async () => (await list({ limit: 2 })).hasMore);
      const first = await list({ limit: 2 });
      assert.deepEqual([first.rows, first.complete], [[["closed", 1, undefined], ["alice", 2, undefined]], true]);
      const second = await list({ limit: 2, cursor: first.nextCursor });
      assert.deepEqual([second.rows, second.hasMore, second.nextCursor], [[["team", 5, "The team"]], false, undefined]);
      assert.equal(second.unreadTotal, 8);
      const { lastMessage, timestamp, readToSeq } = second.conversations[0];
      assert.deepEqual([decodeText(lastMessage.payload), lastMessage.messageSeq, readToSeq], ["no 5", 5, 0]);
      assert.ok(Math.abs(timestamp - Date.now()) < 60_000, "milliseconds");

      const pair = { channelId: "alice", channelType: PRIVATE };
      assert.deepEqual(await bob.readConversation({ ...team, messageSeq: 3 }), { unread: 2, readToSeq: 3 });
      assert.deepEqual(await bob.readConversation(pair), { unread: 0, readToSeq: 2 });
      assert.deepEqual(await bob.deleteConversation(pair), { ...pair, historyHidden: generation === "v3" });
      assert.deepEqual((await list()).rows, [["closed", 1, undefined], ["team", 2, "The team"]]);
      assert.deepEqual((await list({ unreadOnly: true })).unreadTotal, 3);
    });

    await t.test("a group's subscribers are listed page by page, the owner first", async () => {
      const first = await alice.listSubscribers({ ...team, limit: 1 });
      assert.deepEqual([first.subscribers, first.hasMore], [[{ uid: "bob", role: "owner" }], true]);
      assert.equal(first.total, 2);
      // Who handed it over manages it.
      const second = await alice.listSubscribers({ ...team, limit: 1, cursor: first.nextCursor });
      assert.deepEqual([second.subscribers, second.hasMore], [[{ uid: "alice", role: "manager" }], false]);
    });

    await t.test("a group is deleted for ever", async () => {
      assert.deepEqual(await bob.deleteChannel(team), { channelId: "team" });
      await assert.rejects(alice.sendMessage(message("late", team)), { code: "channel_not_found", status: 404 });
      await assert.rejects(bob.createChannel(team), { code: "channel_deleted" });
    });

    await t.test("errors speak the language that was asked for, and have the id of the log", async () => {
      const english = new GatewayClient({ baseUrl: gateway.baseUrl, token: gateway.token("alice"), language: "en" });
      const error = await english.createChannel({ channelId: "x", channelType: 9 }).catch((error) => error);
      const details = [{ field: "channelType", message: "must be 1 (person) or 2 (group)" }];
      assert.deepEqual([error.code, error.message, error.details], ["invalid_request", "the request is invalid", details]);
      assert.match(error.requestId, /^[0-9a-f]{32}$/);
    });
  });
}
