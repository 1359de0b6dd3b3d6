# From the lines of bench/run (scenario, target, connections, requests, µs, p50 µs, p99 µs, CPU µs) to a table. Ratios are of the
# two measurements of one round, taken one after the other, and the median of the rounds; all else is of the best round, which
# other work on the machine disturbed least.

function least(list,    values, n, i, m) {
    n = split(list, values, " ")
    m = values[1]
    for (i = 2; i <= n; i++) if (values[i] + 0 < m + 0) m = values[i]
    return m
}

function most(list,    values, n, i, m) {
    n = split(list, values, " ")
    m = values[1]
    for (i = 2; i <= n; i++) if (values[i] + 0 > m + 0) m = values[i]
    return m
}

function median(list,    values, n, i, j, swap) {
    n = split(list, values, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && values[j] + 0 < values[j - 1] + 0; j--) {
            swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
        }
    return values[int((n + 1) / 2)]
}

function cpu_us(value) { return sprintf(value < 1 ? "%.2f" : "%.1f", value) }

function ms(us) { return sprintf("%.2f", us / 1000) }

{
    who = $2 ~ /^nginx/ ? "nginx" : $2 ~ /^direct/ ? "direct" : "gateway"
    if (!($1 in seen)) { seen[$1] = 1; order[++scenarios] = $1 }
    key = $1 SUBSEP who SUBSEP $3
    p50[key] = p50[key] " " $6
    p99[key] = p99[key] " " $7
    rate[key] = rate[key] " " ($4 / ($5 / 1000000))
    cpu[key] = cpu[key] " " ($8 / $4)
    if ($3 == 64 && who == "gateway") last = $8 / $4
    # A batch makes fifty calls where nginx passes one on: its ratio is for each message, to nginx passing one send. A list on v2 makes three.
    if ($3 == 64 && who == "nginx") {
        dialect = $2
        if ($1 ~ /^send to a group/) send[dialect] = $8 / $4
        ratio[$1] = ratio[$1] " " ($1 ~ /^batch/ ? (send[dialect] ? last / 50 / send[dialect] : 0) : last / ($1 ~ /^list.* v2/ ? 3 : 1) / ($8 / $4))
    }
}

END {
    print "| scenario | gateway µs | nginx µs | ratio | gateway req/s | nginx req/s | gateway p50/p99 ms, 1 conn. | nginx | direct | gateway p50/p99 ms, 64 conn. | nginx |"
    print "|---|---|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= scenarios; i++) {
        s = order[i]
        g = s SUBSEP "gateway" SUBSEP; n = s SUBSEP "nginx" SUBSEP; d = s SUBSEP "direct" SUBSEP
        printf "| %s | %s | %s | %.2f | %d | %d | %s / %s | %s / %s | %s | %s / %s | %s / %s |\n", s,
            cpu_us(least(cpu[g 64])), cpu_us(least(cpu[n 64])), median(ratio[s]), most(rate[g 64]), most(rate[n 64]),
            ms(least(p50[g 1])), ms(least(p99[g 1])), ms(least(p50[n 1])), ms(least(p99[n 1])), ms(least(p50[d 1])),
            ms(least(p50[g 64])), ms(least(p99[g 64])), ms(least(p50[n 64])), ms(least(p99[n 64]))
    }
}
