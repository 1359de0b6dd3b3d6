#!/bin/sh
# Kills, and then stops, the nodes of a WuKongIM v2 cluster one after the other under 50 messages a second, and holds the gateway to
# what it acknowledged. Takes twenty minutes, and writes to the servers. docs/RELIABILITY.md tells what came of it elsewhere.
#
#   tests/live/failover.sh http://host1:5001,http://host2:5001,http://host3:5001 PROGRAM
#
# PROGRAM is called with `kill N` and `revive N`, `hang N` and `wake N` (SIGKILL and a new start; SIGSTOP and SIGCONT), N being 1, 2 or 3 in
# the order of the addresses. After `revive` and `wake` the node must have answered /health before PROGRAM ends. Where the servers
# have a managerToken, it is in WUKONGIM_V2_MANAGER_TOKEN.
set -eu
if [ $# -ne 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 64
fi
export WUKONGIM_V2_URL="$1"
export WUKONGIM_V2_NODE="$(cd "$(dirname "$2")" && pwd)/$(basename "$2")"
cd "$(dirname "$0")/../.."
exec cargo test --locked --test live -- failover --ignored --nocapture --test-threads=1
