import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeText, encodeText } from "@wukongim-gateway/client";

test("a text payload is base64 of what WuKongIM's SDKs read", () => {
  assert.equal(encodeText("hello"), "eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ==");
  assert.equal(Buffer.from(encodeText("群👋"), "base64").toString("utf8"), '{"type":1,"content":"群👋"}');
});

test("any text comes back as it was", () => {
  const texts = ["", "a", '"\\\n\u0000', "群👋🏽", "\ud83d", "x".repeat(500_000)];
  for (const text of texts) assert.equal(decodeText(encodeText(text)), text);
});

test("what is no text message has no text", () => {
  const base64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64");
  for (const payload of [
    ...["", "***", "string", base64("hello"), base64('{"type":1')],
    ...[null, 1, [], {}, { type: 2, content: "a" }, { type: "1", content: "a" }, { type: 1 }, { type: 1, content: 5 }].map(base64),
    Buffer.from([0x7b, 0xff, 0x7d]).toString("base64"),
  ]) {
    assert.equal(decodeText(payload), undefined, payload);
  }
});
