// Starts everything and prints the two addresses. See ./start.

import { randomBytes } from "node:crypto";

import { makeTokens, startGateway } from "./gateway.mjs";
import { servePage } from "./page.mjs";

const secret = randomBytes(32).toString("hex");
const gateway = await startGateway(secret);
const { address } = await servePage(gateway.origin);
const [alice, bob] = makeTokens(secret);
console.log(`\nOpen both, one in each tab:\n\n  alice  ${address}#${alice}\n  bob    ${address}#${bob}\n\nCtrl-C ends it.`);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, gateway.stop);
await gateway.ended;
process.exit();
