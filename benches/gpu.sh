#!/usr/bin/env bash
# Everything on a machine with a GPU and without Rust: built here, carried there, verified and timed in one call.
#
#   benches/gpu.sh pack FOLDER          here: builds programs and tests into FOLDER
#   OUT=results benches/gpu.sh run FOLDER [SECONDS]   there, in a copy of this tree: results into $OUT; a limit for all of it
#
# Correctness first: every test that needs a device, golden cases on every path; then speed. What fails is named at the end, and
# does not stop the rest. FOLDER/peers may hold programs for benches/peers.sh.
set -uo pipefail
cd "$(dirname "$0")/.."
command=${1:?pack or run}
folder=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)

pack() {
    set -e
    cargo build --package wgpu-attention-cli
    cargo build --all-features --example peer
    local target=${CARGO_TARGET_DIR:-target}
    local programs
    programs=$(mktemp -d)
    install -s "$target/debug/wgpu-attention" "$target/debug/examples/peer" "$programs"
    # Tests as they are built for `cargo xtask test`; cargo says where they lie.
    for test in kernels mutants lsh layer api tune; do
        local built
        built=$(cargo test --no-run --all-features --test "$test" 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
        install -s "$built" "$programs/test-$test"
    done
    tar cJf "$folder/programs.tar.xz" -C "$programs" .
    rm -rf "$programs"
    du -h "$folder/programs.tar.xz"
}

run() {
    : "${OUT:?a folder for the results}"
    mkdir -p "$OUT"
    local deadline=$((SECONDS + ${1:-540})) failed=()
    step() { # its name, seconds at most, the command
        local name=$1 limit=$2 left=$((deadline - SECONDS))
        shift 2
        [ "$left" -gt 5 ] || { echo "$name: no time left" | tee -a "$OUT/summary.txt"; failed+=("$name"); return; }
        local start=$SECONDS
        timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$OUT/$name.txt" 2>&1
        local status=$?
        echo "$name: status $status, $((SECONDS - start)) s" | tee -a "$OUT/summary.txt"
        [ $status -eq 0 ] || { failed+=("$name"); tail -n 15 "$OUT/$name.txt"; }
    }
    # LAUNCH, if set, stands before each program: a software adapter's launcher, for a trial of this script.
    local programs program
    programs=$(mktemp -d)
    tar xJf "$folder/programs.tar.xz" -C "$programs"
    program="${LAUNCH:-} $programs/wgpu-attention"
    step adapters 20 $program adapters
    cat "$OUT/adapters.txt"
    step golden 120 $program verify golden --adapter 0
    step golden-16-bits 60 $program verify golden --adapter 0 --dtype f16,bf16
    step golden-cooperative 60 $program verify golden --adapter 0 --dtype f16 --path cooperative
    step golden-unchecked 60 $program verify golden --adapter 0 --unchecked
    for test in kernels lsh layer api tune mutants; do
        # Cases that are read from the place of the sources are in `golden` above.
        step "test-$test" 180 ${LAUNCH:-} "$programs/test-$test" --skip golden
    done
    step bench-quick 150 $program bench --suite quick --json "$OUT/quick.json" --quiet
    step bench-standard 400 $program bench --suite standard --json "$OUT/standard.json" --quiet
    for dtype in f32 f16; do
        for mask in "" --causal; do
            for dim in 64 128; do
                step "peer-$dtype-$dim$mask" 30 ${LAUNCH:-} "$programs/peer" --batch 4 --heads 16 --seq 4096 --head-dim $dim --dtype $dtype $mask
            done
        done
    done
    cat "$OUT"/peer-*.txt
    step tune 60 $program tune --pattern causal --len 4096 --heads 16
    step scale 120 $program scale --max-len 65536
    if [ -d "$folder/peers" ]; then
        step peers 240 env PEERS="$folder/peers" OURS="$programs/peer" benches/peers.sh
    fi
    rm -rf "$programs"
    tar czf "$OUT/all.tar.gz" -C "$OUT" --exclude all.tar.gz . 2>/dev/null
    [ ${#failed[@]} -eq 0 ] && echo "all well" || { echo "failed: ${failed[*]}"; return 1; }
}

case $command in
pack) pack ;;
run) run "${3:-}" ;;
*) echo "pack or run, got $command" >&2; exit 2 ;;
esac
