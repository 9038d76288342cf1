#!/usr/bin/env bash
# Our kernels and other libraries' on the same shapes and the same adapter, in turn, in one run; a table at the end.
#
#   PEERS=folder [ROUNDS=3] [ITERS=5] [BUDGET=seconds] [BACKWARD=1] [CASES="4:1024:64:full:f32 ..."] benches/peers.sh > results.jsonl
#
# PEERS holds programs that take the arguments of examples/peer.rs and print its line. Those that know kernels by name are named
# with them: "program:variant", in RIVALS. Rounds go over all programs, so that a busy spell of the machine meets all of them; the
# table has each one's fastest round. After BUDGET seconds no further program is started. A case is "heads:length:head size:full or causal:element type".
# BACKWARD: the gradients of q, k and v alone, after a forward pass that is not timed.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PEERS:?the folder of the other libraries\' programs}"
ROUNDS=${ROUNDS:-3}
ITERS=${ITERS:-5}
LIMIT=${LIMIT:-120}
# A year.
BUDGET=${BUDGET:-31536000}
CASES=${CASES:-"4:1024:64:full:f32 4:1024:64:causal:f32 4:2048:64:full:f32 4:2048:64:causal:f32 4:1024:128:full:f32 4:1024:128:causal:f32"}
RIVALS=${RIVALS:-$(cd "$PEERS" && ls)}

# OURS: the example, built elsewhere, for a machine without Rust.
if [ -n "${OURS:-}" ]; then
    ours=$OURS
else
    cargo build --quiet --all-features --example peer
    ours=${CARGO_TARGET_DIR:-target}/debug/examples/peer
    eval "$(cargo xtask adapter-env)"
fi
launch=${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER:-}

lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
# What is left for a program of the budget; none: it is not run, which the table says.
left() {
    local left=$((BUDGET - SECONDS))
    echo $((left < LIMIT ? left : LIMIT))
}

for case in $CASES; do
    IFS=: read -r heads seq dim mask dtype <<<"$case"
    arguments=(--batch 1 --heads "$heads" --seq "$seq" --head-dim "$dim" --dtype "$dtype" --iters "$ITERS")
    [ "$mask" = causal ] && arguments+=(--causal)
    [ -n "${BACKWARD:-}" ] && arguments+=(--backward)
    for _ in $(seq "$ROUNDS"); do
        [ "$(left)" -gt 0 ] || { echo "{\"peer\": \"wgpu-attention\", \"case\": \"$case\", \"error\": \"no time left\"}" | tee -a "$lines"; break; }
        { timeout "$(left)" $launch "$ours" "${arguments[@]}" || echo "{\"peer\": \"wgpu-attention\", \"case\": \"$case\", \"error\": \"status $?\"}"; } |
            { grep '^{' || true; } | tee -a "$lines"
        for rival in $RIVALS; do
            variant=()
            [[ $rival == *:* ]] && variant=(--variant "${rival#*:}")
            # What a rival cannot run it says itself; it does not stop the others.
            [ "$(left)" -gt 0 ] || break
            { timeout "$(left)" $launch "$PEERS/${rival%%:*}" "${arguments[@]}" "${variant[@]}" 2>/dev/null ||
                echo "{\"peer\": \"$rival\", \"case\": \"$case\", \"error\": \"status $?\"}"; } | { grep '^{' || true; } | tee -a "$lines"
        done
    done
done

command -v python3 >/dev/null || { echo "no python3 for a table: the lines are all there is" >&2; exit 0; }
python3 - "$lines" >&2 <<'TABLE'
import json, sys
best = {}
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "median_ms" not in row:
        print("no result:", line.strip())
        continue
    key = (row["head_dim"], row["seq"], row["heads"], row["causal"], row["dtype"])
    rows = best.setdefault(key, {})
    if row["median_ms"] < rows.get(row["peer"], {"median_ms": 1e99})["median_ms"]:
        rows[row["peer"]] = row
for key, rows in best.items():
    ours = next((row for name, row in rows.items() if name.startswith("wgpu-attention")), None)
    if ours is None:
        print(f"\nno result of ours for {key}: {', '.join(rows)}")
        continue
    print(f"\n{key[2]} heads, n = {key[1]}, d = {key[0]}, {'causal' if key[3] else 'full'}, {key[4]}, {ours['pass']}; {ours['adapter']}\n")
    print("| library | version | ms | GFLOP/s | its time / ours | largest error |\n|---|---|---:|---:|---:|---:|")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["median_ms"]):
        print(f"| {name} | {row['version']} | {row['median_ms']:.2f} | {row['gflops']:.1f} "
              f"| {row['median_ms'] / ours['median_ms']:.2f} | {row['max_abs_err']:.1e} |")
TABLE
