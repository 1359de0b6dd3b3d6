# Part of bench/soak and bench/storm: builds the gateway and the rig, runs parts of the rig and writes what they print into
# docs/PERFORMANCE.md. Its caller sets $name and the parts, ${parts[@]}.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'bench/%s: %s\n' "$name" "$*" >&2; exit 64; }

length=full
case ${1:-} in
    '') ;;
    --quick) length=quick ;;
    *) sed -n '2,/^[^#]/s/^# \?//p' "bench/$name" >&2; exit 64 ;;
esac
[[ $(uname) == Linux ]] || fail 'needs Linux: it reads /proc'
ulimit -n "$(ulimit -Hn)"
(($(ulimit -n) >= 12000)) || fail 'needs 12,000 open files (ulimit -n)'

export CARGO_TERM_PROGRESS_WHEN=never
gateway=${BENCH_GATEWAY:-}
if [[ -z $gateway ]]; then
    cargo build --profile dist --locked --quiet
    gateway=$PWD/target/dist/wukongim-gateway
fi
cargo build --release --locked --quiet --manifest-path bench/rig/Cargo.toml --target-dir target/bench
if [[ -n ${BENCH_NICE:-} ]]; then
    renice -n "$BENCH_NICE" $$ >/dev/null
    # Where the kernel groups by session, the group's own niceness is what counts.
    if [[ -w /proc/$$/autogroup ]]; then echo "$BENCH_NICE" >"/proc/$$/autogroup"; fi
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
table=$work/table.md
verdict=0
for part in "${parts[@]}"; do
    code=0
    target/bench/release/rig "$part" "$gateway" "$work" "${BENCH_PORT:-28300}" "$length" >>"$table" || code=$?
    # 1: something promised was not kept, and the table says what. More: there is no table.
    ((code <= 1)) || exit "$code"
    ((code == 0)) || verdict=1
done
cat "$table"
if [[ $length == full && -z ${BENCH_ONLY:-} ]]; then
    awk -v table="$table" -v mark="<!-- bench/$name writes from here -->" '
        $0 == mark { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
        /<!-- to here -->/ { skip = 0 }
        !skip && $0 != mark
    ' docs/PERFORMANCE.md >"$work/PERFORMANCE.md"
    cp "$work/PERFORMANCE.md" docs/PERFORMANCE.md
fi
exit "$verdict"
