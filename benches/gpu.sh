#!/usr/bin/env bash
# Everything on a machine with a GPU and without Rust: built here, carried there, verified and timed in one call.
#
#   benches/gpu.sh pack FOLDER                        here: builds programs and tests into FOLDER
#   OUT=results benches/gpu.sh run FOLDER [SECONDS]   there, in a copy of this tree: results into $OUT, within 480 s
#
# In this order: the self-test of each adapter; golden cases on every path, and the tests of every kernel; predictions against
# measurement; other libraries beside ours (their programs in FOLDER/peers); benchmarks, with whatever time is left. Each step has a
# limit, the whole has a deadline, and what fails or runs out of time does not stop the rest: $OUT/page.md says what passed, failed
# and was not run, test by test, and is written again after each step. $OUT has few files, as some machines give few back;
# all.tar.gz holds what each step printed.
#
# A machine's libc may be older than ours, and it may have a driver without Vulkan's loader: FOLDER has both, and `run` tries its way
# to the adapter. LAUNCH, if set, stands before each program instead: a software adapter's launcher, for a trial of this script.
set -uo pipefail
cd "$(dirname "$0")/.."
command=${1:?pack or run}
folder=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)

# Programs of tests, the kernels' first: what has no time left is at the end. Mutants test our tests, and golden cases are a step of
# their own.
TESTS=${TESTS:-backward kernels decode lsh linear integers recurrent layer heads api tune}
SKIP="--skip golden --skip mutant"

# Builds all programs into a folder, stripped.
build() {
    cargo build --package wgpu-attention-cli
    cargo build --all-features --example peer
    local target=${CARGO_TARGET_DIR:-target} test built
    install -s "$target/debug/wgpu-attention" "$target/debug/examples/peer" "$1"
    # Tests as they are built for `cargo xtask test`; cargo says where they lie.
    for test in $TESTS; do
        built=$(cargo test --no-run --all-features --test "$test" 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
        install -s "$built" "$1/test-$test"
    done
}

pack() {
    set -e
    local programs libraries library
    programs=$(mktemp -d)
    # BUILT: a folder of the same programs, built before.
    if [ -n "${BUILT:-}" ]; then cp "$BUILT"/* "$programs"; else build "$programs"; fi
    # The fetched driver's libraries are newer than most machines', and have Vulkan's loader.
    libraries=$(echo "${XDG_CACHE_HOME:-$HOME/.cache}"/wgpu-attention/lavapipe-*/usr/lib/x86_64-linux-gnu)
    mkdir "$programs/lib"
    for library in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libgcc_s.so.1 libdl.so.2 libpthread.so.0 librt.so.1 libvulkan.so.1; do
        if [ -e "$libraries/$library" ]; then cp -L "$libraries/$library" "$programs/lib"; else echo "not packed: $library"; fi
    done
    echo "needs $(cat "$programs/wgpu-attention" "$programs"/test-* | grep -aoE 'GLIBC_2\.[0-9]+' | sort -Vu | tail -n 1), or lib/ beside it"
    # Programs have much in common: a dictionary that sees them all.
    XZ_OPT='--x86 --lzma2=preset=6,dict=256MiB' tar cJf "$folder/programs.tar.xz" -C "$programs" .
    rm -rf "$programs"
    du -h "$folder/programs.tar.xz"
}

# How many seconds a share of the whole is.
share() { echo $((total * $1 / 100)); }

# Records what became of a step: its name, result, seconds.
note() {
    printf '| %s | %s | %s |\n' "$1" "$2" "$3" >>"$work/steps.md"
    echo "$1: $2, $3 s"
    write_page
}

# The end of a step's output, for the page.
show_failure() {
    { printf '\n### %s\n\n```text\n' "$1" && tail -n 15 "$work/$1.txt" | cut -c1-300 && printf '```\n'; } >>"$work/failures.md"
}

# Sets `limit`: a share of the whole, at most what the deadline leaves with `reserve` percent kept for what comes after.
set_limit() {
    local left=$((deadline - SECONDS - $(share "$reserve")))
    limit=$(share "$1")
    [ "$limit" -le "$left" ] || limit=$left
    [ "$limit" -ge 2 ]
}

# Runs a step within its limit: its name, percent of the whole, the command. A program that is interrupted writes what it has.
step() {
    local name=$1 percent=$2 start=$SECONDS status
    shift 2
    if ! set_limit "$percent"; then
        missed+=("$name")
        note "$name" "not run: no time left" 0
        return 1
    fi
    timeout -s INT -k 5 "$limit" "$@" >"$work/$name.txt" 2>&1
    status=$?
    case $status in
    0) passed+=("$name") && note "$name" passed $((SECONDS - start)) ;;
    124 | 137) missed+=("$name") && note "$name" "not finished in $limit s" $((SECONDS - start)) ;;
    *) failed+=("$name") && show_failure "$name" && note "$name" "**failed**, status $status" $((SECONDS - start)) ;;
    esac
    return $status
}

# A program of tests: what passed, what failed, and by name what did not run.
test_step() {
    local name=test-$1 percent=$2 start=$SECONDS status=0 ran good bad open
    "${launch[@]}" "$programs/$name" --list --format terse 2>/dev/null | sed -n 's/: test$//p' | sort >"$work/$name.list"
    : >"$work/$name.txt"
    if set_limit "$percent"; then
        # shellcheck disable=SC2086
        timeout -k 5 "$limit" "${launch[@]}" "$programs/$name" $SKIP >"$work/$name.txt" 2>&1
        status=$?
    fi
    ran=$(sed -nE 's/^test (.*) \.\.\. (ok|FAILED)$/\1/p' "$work/$name.txt" | sed 's/ - should panic$//' | sort)
    good=$(grep -cE '^test .* \.\.\. ok$' "$work/$name.txt")
    bad=$(grep -cE '^test .* \.\.\. FAILED$' "$work/$name.txt")
    open=$(comm -23 "$work/$name.list" <(echo "$ran"))
    local not_run=0
    if [ -n "$open" ]; then
        not_run=$(wc -l <<<"$open")
        { printf '\n<details><summary>%s: %s</summary>\n\n' "$name" "$not_run" && sed 's/^/- /' <<<"$open" && printf '\n</details>\n'; } >>"$work/not-run.md"
    fi
    tests_good=$((tests_good + good)) tests_bad=$((tests_bad + bad)) tests_open=$((tests_open + not_run))
    local result="$good passed, $bad failed, $not_run not run"
    # A program that ends badly without a failed test crashed.
    if [ "$bad" -gt 0 ] || { [ "$status" -ne 0 ] && [ "$status" -ne 124 ] && [ "$status" -ne 137 ]; }; then
        failed+=("$name") && show_failure "$name" && result="**$result**, status $status"
    elif [ "$good" -eq 0 ]; then
        missed+=("$name")
    else
        passed+=("$name")
    fi
    note "$name" "$result" $((SECONDS - start))
}

# The page, as far as the run has come: a section for each file that is there.
write_page() {
    section() { [ ! -s "$2" ] || { printf '\n## %s\n\n' "$1" && cat "$2"; }; }
    code() { [ ! -s "$2" ] || { printf '\n## %s\n\n```text\n' "$1" && cat "$2" && printf '```\n'; }; }
    {
        printf '# A run on a GPU\n\n%s; %s. %s s of %s s.\n\n' "$(date -u +%FT%TZ)" "$machine" "$((SECONDS - begun))" "$total"
        printf '%s steps passed, %s failed, %s not run or not finished. ' "${#passed[@]}" "${#failed[@]}" "${#missed[@]}"
        printf 'Tests: %s passed, %s failed, %s not run.\n\n| step | result | s |\n|---|---|---:|\n' "$tests_good" "$tests_bad" "$tests_open"
        cat "$work/steps.md" 2>/dev/null
        section 'What failed' "$work/failures.md"
        code 'Adapters and their self-tests' "$work/adapters.txt"
        section 'Predictions' "$work/predictions.md"
        section 'Beside other libraries' "$work/peers.md"
        section 'Benchmarks: quick' "$work/quick.md"
        section 'Benchmarks: standard' "$work/standard.md"
        section 'Not run' "$work/not-run.md"
    } >"$OUT/page.md.new" && mv "$OUT/page.md.new" "$OUT/page.md"
}

# Keeps what each step printed, whatever ends the run.
finish() {
    write_page
    tar czf "$OUT/all.tar.gz" -C "$work" . 2>/dev/null
    rm -rf "$work" "$programs"
}

# Sets `launch`, what stands before a program so that it finds libraries and an adapter, and `index`, which adapter: a GPU before what
# is none.
find_adapter() {
    local ways way driver='' loader=() least=() try
    if [ -n "${LAUNCH:-}" ]; then
        read -ra launch <<<"$LAUNCH"
        ways=(given)
    else
        driver=$(find /usr/local/nvidia /opt /usr/share /etc -name '*icd*.json' -path '*vulkan*' 2>/dev/null | head -n 1)
        ways=(plain loader plain-driver loader-driver)
    fi
    [ ! -e "$programs/lib/ld-linux-x86-64.so.2" ] || loader=("$programs/lib/ld-linux-x86-64.so.2" --library-path "$programs/lib")
    for way in "${ways[@]}"; do
        case $way in
        plain*) launch=() ;;
        loader*) [ ${#loader[@]} -gt 0 ] || continue; launch=("${loader[@]}") ;;
        esac
        [[ $way != *-driver ]] || { [ -n "$driver" ] || continue; launch=(env VK_DRIVER_FILES="$driver" "${launch[@]}"); }
        try=$(timeout 60 "${launch[@]}" "$programs/wgpu-attention" adapters --json 2>>"$work/adapters.err")
        index=$(sed -n 's/^{"index":\([0-9]*\),.*/\1 &/p' <<<"$try" | grep -v '"type":"Cpu"' | head -n 1 | cut -d' ' -f1)
        if [ -n "$index" ]; then
            echo "$try" >"$work/adapters.json"
            return 0
        fi
        if [ -n "$try" ] && [ ! -s "$work/adapters.json" ]; then
            echo "$try" >"$work/adapters.json"
            least=("${launch[@]}")
        fi
    done
    # No GPU: whatever is there.
    index=0 launch=("${least[@]}")
    [ -s "$work/adapters.json" ]
}

run() {
    : "${OUT:?a folder for the results}"
    OUT=$(mkdir -p "$OUT" && cd "$OUT" && pwd)
    begun=$SECONDS total=${1:-480}
    # Some seconds to write and pack.
    deadline=$((begun + total - 5)) reserve=0 limit=0 launch=() index=0
    passed=() failed=() missed=() tests_good=0 tests_bad=0 tests_open=0
    work=$(mktemp -d) programs=$(mktemp -d)
    trap finish EXIT
    trap 'exit 143' TERM INT
    machine="$(uname -sm), $(nproc) threads$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sed 's/^/, /' | head -n 1)"
    tar xf "$folder/programs.tar.xz" -C "$programs" || exit 2
    if ! find_adapter; then
        cp "$work/adapters.err" "$work/adapters.txt"
        failed+=(adapters) && show_failure adapters && note adapters "**failed**: no adapter" $((SECONDS - begun))
        exit 1
    fi
    local program=("${launch[@]}" "$programs/wgpu-attention") here=(--adapter "$index")

    # Correctness has 65 % of the time.
    reserve=35
    step adapters 8 "${program[@]}" adapters
    step golden 12 "${program[@]}" verify golden "${here[@]}"
    step golden-16-bits 6 "${program[@]}" verify golden "${here[@]}" --dtype f16,bf16
    step golden-cooperative 5 "${program[@]}" verify golden "${here[@]}" --dtype f16 --path cooperative
    step golden-unchecked 5 "${program[@]}" verify golden "${here[@]}" --unchecked
    for test in $TESTS; do test_step "$test" 7; done

    reserve=20
    step predictions 20 "${program[@]}" bench --suite predictions "${here[@]}" --json "$work/predictions.json" --quiet
    if [ -s "$work/predictions.json" ]; then
        cp "$work/predictions.json" "$OUT"
        # FAMILY: whose predictions, where the adapter's name does not tell.
        "${program[@]}" report "$work/predictions.json" --predictions ${FAMILY:+--family "$FAMILY"} >"$work/predictions.md" 2>&1
    fi

    reserve=10
    if [ -d "$folder/peers" ] && set_limit 15; then
        step peers 15 env PEERS="$folder/peers" OURS="$programs/peer" BUDGET=$((limit - 2)) ROUNDS="${ROUNDS:-2}" CASES="$(peer_cases)" \
            CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="${launch[*]}" benches/peers.sh
        grep -v '^{' "$work/peers.txt" >"$work/peers.md"
    else
        missed+=(peers)
        note peers "not run: $([ -d "$folder/peers" ] && echo no time left || echo no programs in FOLDER/peers)" 0
    fi

    reserve=0
    for suite in quick standard; do
        step "bench-$suite" 30 "${program[@]}" bench --suite "$suite" "${here[@]}" --json "$work/$suite.json" --quiet
        [ -s "$work/$suite.json" ] || continue
        cp "$work/$suite.json" "$OUT"
        "${program[@]}" report "$work/$suite.json" --markdown >"$work/$suite.md" 2>&1
        "${program[@]}" report "$work/$suite.json" --html "$OUT/$suite.html" 2>/dev/null
        write_page
    done
    [ ${#missed[@]} -eq 0 ] || echo "not run or not finished: ${missed[*]}"
    if [ ${#failed[@]} -gt 0 ]; then
        echo "failed: ${failed[*]}"
        exit 1
    fi
    echo "nothing failed"
}

# Shapes that fill a GPU, or small ones where there is none.
peer_cases() {
    if grep -q "^{\"index\":$index,.*\"type\":\"Cpu\"" "$work/adapters.json"; then
        echo "${CASES:-2:256:64:full:f32 2:256:64:causal:f32}"
    else
        echo "${CASES:-64:4096:64:full:f32 64:4096:64:causal:f32 64:4096:128:full:f32 64:4096:64:full:f16 64:4096:64:causal:f16 64:4096:128:full:f16}"
    fi
}

case $command in
pack) pack ;;
run) run "${3:-}" ;;
*) echo "pack or run, got $command" >&2; exit 2 ;;
esac
