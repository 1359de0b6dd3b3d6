# Part of bench/run: what is measured once. Sizes, starts, memory, idle connections and sockets, a
# list of a thousand conversations, clients that do not read, one real WuKongIM.

# Before any request but the one that finds it healthy.
at_rest() {
    fact 'release binary, MB' "$(stat -c %s "$gateway" | awk '{ printf "%.1f", $1 / 1000000 }')"
    sleep 1
    fact 'memory after the start, MB' "$(rss_mb "${process[v2]}")"
}

startup() {
    local round port=$((base + 20))
    gateway_environment "$port" "$upstream_v2"
    for round in {1..9}; do
        rm -f "$work/$port".db*
        "${environment[@]}" taskset -c 0 "$rig" startup "127.0.0.1:$port" "$gateway"
    done | median
}

# idle COUNT: memory of a fresh gateway with that many connections, each of which had an answer.
idle() {
    local count=$1 port=$((base + 22)) tries
    if (($(ulimit -n) < count + 200)); then
        printf '  %s idle connections: SKIPPED, the limit of open files is %s\n' "$count" "$(ulimit -n)" >&2
        return
    fi
    start_gateway "idle-$count" "$port" "$upstream_v3"
    local pid=$started
    : >"$work/holder-$count.out"
    start "holder-$count" 1 "$rig" idle "127.0.0.1:$port" "$count"
    local holder=$started
    for tries in {1..300}; do
        if grep -q open "$work/holder-$count.out"; then break; fi
        kill -0 "$holder" 2>/dev/null || fail "idle connections: $(<"$work/holder-$count.err")"
        sleep 0.1
    done
    grep -q open "$work/holder-$count.out" || fail "$count connections did not open in 30 s"
    sleep 2
    kill -0 "$holder" 2>/dev/null || fail "idle connections: $(<"$work/holder-$count.err")"
    fact "memory with $count idle connections, MB" "$(rss_mb "$pid")"
    kill "$holder"; wait "$holder" 2>/dev/null || true
    kill "$pid"; wait "$pid" 2>/dev/null || true
}

# sockets KIND NAME TARGET COUNT: so many connected clients of sockets, held at that address; the process id is in $started.
sockets() {
    local tries
    : >"$work/$2.out"
    start "$2" 1 "$rig" sockets "$1" "$3" "$4" 0 "$work/connect-tokens"
    for tries in {1..1200}; do
        if grep -q open "$work/$2.out"; then return; fi
        kill -0 "$started" 2>/dev/null || fail "sockets: $(<"$work/$2.err")"
        sleep 0.1
    done
    fail "$4 sockets did not open in 120 s"
}

# idle_sockets COUNT [nginx]: what a fresh gateway, or nginx, takes for that many.
idle_sockets() {
    local count=$1 name=sockets-$1 port=$((base + 26)) before holder pid=$nginx_worker target=$proxy_sockets
    if (($(ulimit -n) < 2 * count + 200)); then
        printf '  %s idle sockets: SKIPPED, the limit of open files is %s\n' "$count" "$(ulimit -n)" >&2
        return
    fi
    if [[ -z ${2:-} ]]; then
        start_gateway "$name" "$port" "$upstream_v3"
        pid=$started target=127.0.0.1:$port
    fi
    before=$(rss_kb "$pid")
    sockets idle "holder-$name" "$target" "$count"
    holder=$started
    sleep 2
    kill -0 "$holder" 2>/dev/null || fail "idle sockets: $(<"$work/holder-$name.err")"
    local after
    after=$(rss_kb "$pid")
    fact "memory for each of $count idle sockets${2:+, nginx}, KB" "$(awk "BEGIN { printf \"%.1f\", ($after - $before) * 1.024 / $count }")"
    [[ -n ${2:-} ]] || fact "memory with $count idle sockets, MB" "$(rss_mb "$pid")"
    kill "$holder"; wait "$holder" 2>/dev/null || true
    if [[ -z ${2:-} ]]; then kill "$pid"; wait "$pid" 2>/dev/null || true; fi
}

# call PATH BODY: a POST to the built-in v2, for curl's configuration.
call() {
    printf 'next\nfail\nsilent\noutput = /dev/null\nurl = "http://%s%s"\ndata = "%s"\n' "$upstream_v2" "$1" "${2//\"/\\\"}"
}

# A group of 10,000 for the scenario, and a thousand groups of one user, who lists them: beside the same calls made directly.
conversations() {
    if [[ -n ${BENCH_ONLY:-} && ! 'members conversations' =~ $BENCH_ONLY ]]; then return; fi
    local group page token round
    printf '{"channel_id":"members","channel_type":2,"subscribers":[%s"n00000"]}' "$(printf '"u%03d",' {0..63})$(printf '"n%05d",' {1..9935})" |
        curl -fsS -o /dev/null -d @- "http://$upstream_v2/channel"
    {
        for group in {1000..1999}; do
            call /channel "{\"channel_id\":\"walk$group\",\"channel_type\":2,\"subscribers\":[\"walker\",\"u000\"]}"
            call /message/send "{\"from_uid\":\"u000\",\"channel_id\":\"walk$group\",\"channel_type\":2,\"payload\":\"$payload\"}"
        done
    } | tail -n +2 >"$work/thousand"
    curl -K "$work/thousand"
    {
        call /conversation/channels '{"uid":"walker"}'
        for page in {1..10} 1; do
            call /conversation/sync "{\"uid\":\"walker\",\"version\":0,\"last_msg_seqs\":\"\",\"msg_count\":1,\"page\":$page,\"page_size\":100}"
        done
        call /conversation/syncByChannels "{\"uid\":\"walker\",\"msg_count\":1,\"channels\":[$(printf '{"channel_id":"walk%d","channel_type":2},' {1950..1998}){\"channel_id\":\"walk1999\",\"channel_type\":2}]}"
    } | tail -n +2 | sed 's/^silent$/&\nwrite-out = "%{time_total}\\n"/' >"$work/walk"
    token=$(GATEWAY__AUTH__JWT_SECRET=$secret "$gateway" token --uid walker)
    for round in {1..9}; do
        # A list is shared for two seconds.
        sleep 2.1
        curl -fsS -o "$work/list" -w '%{time_total}\n' -H "Authorization: Bearer $token" "http://${address[v2]}/api/v1/im/conversation/list?limit=50" >>"$work/listed"
        curl -K "$work/walk" | awk '{ sum += $1 } END { print sum }' >>"$work/walked"
    done
    grep -q '"complete":false' "$work/list" || fail "not the list of a thousand: $(cut -c 1-300 "$work/list")"
    fact 'list of 1,000 conversations, v2: p50 ms' "$(median <"$work/listed" | awk '{ printf "%.1f", $1 * 1000 }')"
    fact 'the same calls made directly: p50 ms' "$(median <"$work/walked" | awk '{ printf "%.1f", $1 * 1000 }')"
}

# Twenty clients for each of which 20 MB wait, and that read nothing of it.
slow_readers() {
    local port=$((base + 28)) before began closed=0
    start_gateway slow "$port" "$upstream_v3"
    local pid=$started
    before=$(rss_mb "$pid")
    sockets unread unread "127.0.0.1:$port" 20
    local clients=$started
    began=$SECONDS
    # The highest amount of memory from now on.
    echo 5 >"/proc/$pid/clear_refs"
    while ((closed < 20)); do
        ((SECONDS - began < 60)) || fail "only $closed of 20 clients that do not read were closed in 60 s"
        sleep 0.2
        closed=$(curl -fsS "http://127.0.0.1:$((port + 1))/metrics" | awk '/^gateway_socket_ends_total.*"slow"/ { print $2 }')
    done
    fact '20 clients that do not read 20 MB each: memory before and at most, MB' \
        "$before, $(awk '/^VmHWM/ { printf "%.1f", $2 / 1024 }' "/proc/$pid/status")"
    fact 'the same: all closed after, s' "$((SECONDS - began))"
    kill "$clients"; wait "$clients" 2>/dev/null || true
    kill "$pid"; wait "$pid" 2>/dev/null || true
}

# Sends to a real v2, confirmed through the gateway and unconfirmed past it, in turn.
real_v2() {
    local url=${WUKONGIM_V2_URL#http://} group members round
    start_gateway real $((base + 24)) "$url" ${WUKONGIM_V2_MANAGER_TOKEN:+"GATEWAY__WUKONGIM__MANAGER_TOKEN=$WUKONGIM_V2_MANAGER_TOKEN"}
    address[direct-real]=$url
    members=$(printf '"u%03d",' {0..63})
    local token=() id
    [[ -z ${WUKONGIM_V2_MANAGER_TOKEN:-} ]] || token=(-H "token: $WUKONGIM_V2_MANAGER_TOKEN")
    for group in {1..50}; do
        id=$(printf 'bench-group%03d' "$group")
        # There from an earlier run, mostly.
        if curl -fsS "${token[@]}" "http://$url/cluster/channels/$id/2/subscribers" | grep u063 >/dev/null; then continue; fi
        curl -fsS --retry 4 --retry-all-errors -o /dev/null "${token[@]}" "http://$url/channel" \
            -d "{\"channel_id\":\"$id\",\"channel_type\":2,\"subscribers\":[${members%,}]}"
    done
    local through=$work/real.tsv
    : >"$through"
    for round in $(seq 0 "$rounds"); do
        for connections in 1 64; do
            load real "$connections" 3 send-group 200 "$sent_one" 80
            printf '%s\tgateway\t%s\t%s\n' "$round" "$connections" "$result" >>"$through"
            load direct-real "$connections" 3 direct-group 200 "$wire_v2" 40
            printf '%s\tdirect\t%s\t%s\n' "$round" "$connections" "$result" >>"$through"
        done
    done
    # The first round warmed up.
    of() { awk -F'\t' -v who="$1" -v connections="$2" '$1 > 0 && $2 == who && $3 == connections { print '"$3"' }' "$through" | median; }
    fact 'real v2, 1 connection: send through the gateway, stored, p50 ms' "$(of gateway 1 '$6 / 1000')"
    fact 'real v2, 1 connection: sent directly, not seen stored, p50 ms' "$(of direct 1 '$6 / 1000')"
    fact 'real v2, 64 connections, 50 channels: confirmed sends/s through the gateway' "$(of gateway 64 'int($4 / $5 * 1000000)')"
    fact 'real v2, 64 connections, 50 channels: unconfirmed sends/s directly' "$(of direct 64 'int($4 / $5 * 1000000)')"
}

# What needs gateways of its own.
apart() {
    printf 'start, idle connections and sockets%s\n' "${WUKONGIM_V2_URL:+, a real v2}" >&2
    fact 'start to first healthy answer, ms' "$(startup | awk '{ printf "%.0f", $1 / 1000 }')"
    idle 5000
    idle 10000
    idle_sockets 5000
    idle_sockets 5000 nginx
    # As many as the limit of open files lets in: each takes two.
    local most=$((($(ulimit -n) - 400) / 2))
    idle_sockets $((most < 20000 ? most : 20000))
    slow_readers
    if [[ -n ${WUKONGIM_V2_URL:-} ]]; then real_v2; fi
}

after_sends() {
    fact 'memory after all sends at 64 connections, v3, MB' "$(rss_mb "${process[v3]}")"
    fact 'memory after all sends at 64 connections, v2, with every clientMsgNo of it remembered, MB' "$(rss_mb "${process[v2]}")"
}

facts_table() {
    printf '\n| figure | value |\n|---|---|\n'
    awk -F'\t' '{ printf "| %s | %s |\n", $1, $2 }' "$facts"
}
