#!/usr/bin/env bash
# Writes the rows of tests/tables as seeds, one file each: fuzz/corpus/json_bodies and fuzz/corpus/query_string. Needs jq.
set -euo pipefail
cd "$(dirname "$0")"
# cargo-fuzz wants each folder that it is told.
mkdir -p corpus/{json_bodies,jwt_header,query_string,socket_frames,upstream_answers}
# The first byte picks the endpoint, by its place in PATHS of the target.
jq -j '([.to | {"/message/send": 0, "/message/sendbatch": 1, "/channel/create": 2, "/channel/delete": 3, "/channel/subscriber/add": 4,
    "/channel/subscriber/remove": 5, "/token": 6, "/token/revoke": 7, "/channel/manager/add": 8, "/channel/manager/remove": 9, "/channel/owner": 10}[.] // 0] | implode), .body, "\u001e"' ../tests/tables/refused_bodies.jsonl |
    split --separator=$'\x1e' --lines=1 - corpus/json_bodies/row-
jq -r .query ../tests/tables/refused_queries.jsonl | split --lines=1 - corpus/query_string/row-
