// What the client itself says to people, in the gateway's two languages and, where the gateway says the same, in its words.

/** Chinese or English. */
export type Language = "zh" | "en";

type Pair = readonly [zh: string, en: string];

export const TEXTS = {
  invalidRequest: ["请求参数有误", "the request is invalid"],
  tokenMissing: ["缺少访问令牌", "an access token is required"],
  tokenInvalid: ["访问令牌无效", "the access token is invalid"],
  badResponse: ["响应并非来自网关", "the answer is not the gateway's"],
  networkError: ["网络连接失败", "the gateway could not be reached"],
  empty: ["不能为空", "must not be empty"],
  character: ["含有不允许的字符", "contains a character that is not allowed"],
  reserved: ["是保留名称", "is a reserved name"],
  notBase64: ["必须是带填充的标准Base64", "must be standard base64 with padding"],
  tooLong: ["最多#字节", "must be at most # bytes"],
  tooLarge: ["解码后最多#字节", "must be at most # bytes after decoding"],
  tooMany: ["最多#个", "must have at most # entries"],
} as const satisfies Record<string, Pair>;

/** The text in this language; `max` takes the place of `#`. */
export function say(language: Language, text: Pair, max = 0): string {
  return text[language === "zh" ? 0 : 1].replace("#", String(max));
}
