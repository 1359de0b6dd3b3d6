// What a call fails with. Knows the failure envelope's fields, and nothing of how a call is made.

import type { BadField, ErrorCode } from "./types.js";

/** Codes of the client's own, beside the gateway's. */
export type ClientCode =
  /** Something answered, but it was not the gateway: a proxy's page, half an answer, a redirect. */
  | "bad_response"
  /** No answer, or a broken connection: whether the gateway performed the call is unknown. */
  | "network_error";

/** What a `GatewayError` is made of, beside its message. */
export interface Failure {
  code: string;
  status: number;
  requestId?: string | undefined;
  details?: BadField[] | undefined;
  clientMsgNo?: string | undefined;
  retryAfter?: number | undefined;
  data?: unknown;
  cause?: unknown;
}

/** Every failure of a call, but for an abort: that throws the signal's own reason. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** For programs. The gateway may have more codes than these types. */
  readonly code: ErrorCode | ClientCode | (string & {});
  /** HTTP status; the one the gateway would have answered, if the client refused the call itself; 0 if there was no answer. */
  readonly status: number;
  /** The request's id in the gateway's log. Absent where no request was made, or nothing of the gateway's came back. */
  readonly requestId: string | undefined;
  /** All bad fields, with `invalid_request`; else empty. */
  readonly details: readonly BadField[];
  /** After a failed send: the message's number. Sent again with it, the message is stored once, whatever became of this try. */
  clientMsgNo: string | undefined;
  /** In how many seconds to come again, where that was said. */
  readonly retryAfter: number | undefined;
  /** `data` beside the failure: of a batch of which nothing was sent, an entry for each message. */
  readonly data: unknown;

  constructor(message: string, failure: Failure) {
    super(message, "cause" in failure ? { cause: failure.cause } : undefined);
    this.code = failure.code;
    this.status = failure.status;
    this.requestId = failure.requestId;
    this.details = failure.details ?? [];
    this.clientMsgNo = failure.clientMsgNo;
    this.retryAfter = failure.retryAfter;
    this.data = failure.data;
  }
}
