// The types that callers write and read: the API document's under its own names, and the reference's under theirs.

import type { components, operations } from "./openapi.js";

type Schemas = components["schemas"];

/** A code of the gateway: see docs/ERRORS.md. */
export type ErrorCode = Schemas["ErrorCode"];
/** One bad field: its path and what is wrong with it. */
export type BadField = Schemas["BadField"];
export type DeviceFlag = Schemas["DeviceFlag"];

export type ConfigResponse = Schemas["ConfigResponse"];
export type LimitsResponse = Schemas["LimitsResponse"];
export type CreateTokenRequest = Schemas["CreateTokenRequest"];
export type CreateTokenResponse = Schemas["CreateTokenResponse"];
export type RevokeTokenRequest = Schemas["RevokeTokenRequest"];
export type RevokeTokenResponse = Schemas["RevokeTokenResponse"];
export type SendMessageRequest = Schemas["SendMessageRequest"];
export type SendMessageResponse = Schemas["SendMessageResponse"];
export type SyncMessagesRequest = operations["sync_messages"]["parameters"]["query"];
export type SyncedMessage = Schemas["SyncedMessage"];
export type ListConversationsRequest = NonNullable<operations["list_conversations"]["parameters"]["query"]>;
export type ListConversationsResponse = Schemas["ListConversationsResponse"];
export type ListedConversation = Schemas["ListedConversation"];
export type ReadConversationRequest = Schemas["ReadConversationRequest"];
export type ReadConversationResponse = Schemas["ReadConversationResponse"];
export type DeleteConversationRequest = Schemas["DeleteConversationRequest"];
export type DeleteConversationResponse = Schemas["DeleteConversationResponse"];
export type CreateChannelRequest = Schemas["CreateChannelRequest"];
export type CreateChannelResponse = Schemas["CreateChannelResponse"];
export type DeleteChannelRequest = Schemas["DeleteChannelRequest"];
export type DeleteChannelResponse = Schemas["DeleteChannelResponse"];
export type SubscribersRequest = Schemas["SubscribersRequest"];
export type AddSubscribersResponse = Schemas["AddSubscribersResponse"];
export type RemoveSubscribersResponse = Schemas["RemoveSubscribersResponse"];
export type ListSubscribersRequest = operations["list_subscribers"]["parameters"]["query"];
export type Subscriber = Schemas["Subscriber"];
export type GetChannelInfoRequest = operations["get_channel_info"]["parameters"]["query"];
export type GetChannelInfoResponse = Schemas["GetChannelInfoResponse"];
export type ManagersRequest = Schemas["ManagersRequest"];
export type AddManagersResponse = Schemas["AddManagersResponse"];
export type RemoveManagersResponse = Schemas["RemoveManagersResponse"];
export type TransferOwnershipRequest = Schemas["TransferOwnershipRequest"];
export type TransferOwnershipResponse = Schemas["TransferOwnershipResponse"];
export type HealthResponse = Schemas["HealthResponse"];
export type SystemInfoResponse = Schemas["SystemInfoResponse"];

/** Messages of a history, oldest first, and whether there are more in the requested direction. */
export interface SyncedMessages {
  messages: SyncedMessage[];
  hasMore: boolean;
}

/** Where a page of a list stands in it: `nextCursor` is there where `hasMore` is true. */
export interface Page {
  hasMore: boolean;
  nextCursor: string | undefined;
}

/** A page of conversations, newest message first. */
export type ConversationsPage = ListConversationsResponse & Page;

/** A page of a group's subscribers, and how many there are in all where that is known. */
export interface SubscribersPage extends Page {
  subscribers: Subscriber[];
  total: number | undefined;
}

/** The result of one message of a batch. An error contains the number to send that message again with. */
export type BatchEntry = SendMessageResponse | { error: BatchError };
export type BatchError = Schemas["BatchError"] & { clientMsgNo: string };

/**
 * The numbers of the two types of channel. The reference declares them as an interface and then uses its name for the number
 * itself, so here it is a value with these names, and the type of its numbers.
 */
export const WukongIMChannelType = { PRIVATE: 1, GROUP: 2 } as const;
export type WukongIMChannelType = (typeof WukongIMChannelType)[keyof typeof WukongIMChannelType];

/** The reference's message. `sendMessage` asks for less: `fromUid` is the caller's own, except for admins. */
export interface SendMessageOptions {
  channelId: string;
  channelType: WukongIMChannelType;
  fromUid: string;
  payload: string;
  clientMsgNo?: string;
}

/** The reference's channel to create. */
export interface CreateChannelOptions {
  channelId: string;
  channelType: WukongIMChannelType;
  name?: string;
  avatar?: string;
}
