// What the SDK gives must fit `useSdk` where a bundler resolves both. Never run.

import type { GatewayClient } from "@wukongim-gateway/client";
import { useSdk } from "@wukongim-gateway/client/sdk";
import defaultOfIt from "wukongimjssdk";
import { WKSDK } from "wukongimjssdk/lib/sdk";

declare const client: GatewayClient;

useSdk(WKSDK.shared(), client);
useSdk(defaultOfIt.shared(), client);
useSdk(WKSDK.shared(), client, { onConnectError: (error: unknown) => void error });
// @ts-expect-error it speaks to a gateway as a user
useSdk(WKSDK.shared());
