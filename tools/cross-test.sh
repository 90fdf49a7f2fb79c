#!/usr/bin/env bash
# Builds for 64-bit ARM and runs it on emulated cores, on a machine of any other kind.
#
#   tools/cross-test.sh           kernels on a Cortex-A72, an A76 and a core with everything; a picture on the A72
#   tools/cross-test.sh --long    also whole pictures on each of them, the same bytes as on this machine
#
# The A72 (Raspberry Pi 4) has NEON alone, the A76 (Raspberry Pi 5) the dot products, `max` the matrix products of int8.
# What Debian 12 lacks for that is installed, by name, if this is run as root. RUSTC and CARGO choose the toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

TARGET=aarch64-unknown-linux-gnu
OUT=target/cross-test
PROMPT="a glossy strawberry on a blue background"
declare -A LEVELS=([cortex-a72]=neon [cortex-a76]=dotprod [max]=i8mm)
CORES=(cortex-a72 cortex-a76 max)

step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'cross-test: %s\n' "$*" >&2
    exit 1
}

case "${1-}" in
    '') long=no ;;
    --long) long=yes ;;
    *) fail "unknown argument $1: it takes --long or nothing" ;;
esac

step tools
packages=()
toolchain "$TARGET" 2>/dev/null || packages+=(rustc-web cargo-web libstd-rust-web-dev:arm64)
command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
if [ ${#packages[@]} -gt 0 ]; then
    dpkg --add-architecture arm64
    apt-get update
    apt-get install -y --no-install-recommends "${packages[@]}"
    toolchain "$TARGET"
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
qemu-aarch64-static --version | head -n 1

step build
mkdir -p "$OUT"
built=(--release --locked --target "$TARGET" --target-dir "$OUT")
"$CARGO" test "${built[@]}" --lib --test sampler --no-run --message-format json >"$OUT/built.json"
# After the tests, which come with a program without symbols.
"$CARGO" rustc "${built[@]}" --bin tintype -- -C strip=none
executable() { # of a test, by its name
    python3 -c '
import json, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[2]:
        print(message["executable"])' "$OUT/built.json" "$1" | tail -n 1
}
program=$OUT/$TARGET/release/tintype
unit_tests=$(executable tintype)
sampler_tests=$(executable sampler)
for binary in "$program" "$unit_tests" "$sampler_tests"; do
    machine=$(od -An -tx2 -j18 -N2 "$binary" | tr -d ' ') # e_machine of the ELF header
    [ "$machine" = 00b7 ] || fail "$binary is for machine 0x$machine, not for 64-bit ARM (0x00b7)"
    echo "$binary: 64-bit ARM"
done

step instructions
python3 tools/baseline.py "$program"

# Runs on the core $1. The libraries are those of the arm64 packages, or those of the cross compiler.
on() {
    local prefix=()
    [ -e /lib/ld-linux-aarch64.so.1 ] || prefix=(-L /usr/aarch64-linux-gnu)
    qemu-aarch64-static "${prefix[@]}" -cpu "$1" "${@:2}"
}

# Runs tests that have to be there: none that were found must not look like none that failed.
tests() {
    local log=$OUT/tests.log
    "$@" 2>&1 | tee "$log" | grep -E '^test result|FAILED|panicked' || true
    grep -qE '^test result: ok\. [1-9]' "$log" || fail "no tests passed: $* (see $log)"
}

for core in "${CORES[@]}"; do
    step "kernels on $core, level ${LEVELS[$core]}"
    REQUIRE_LEVEL=${LEVELS[$core]} tests on "$core" "$unit_tests" kernels::
done
step "schedules, trajectories and noise on cortex-a72"
tests on cortex-a72 "$sampler_tests"

# A picture, what runs it, and flags: NAME COMMAND... . The object that --json prints goes to NAME.json.
draw() {
    local name=$OUT/$1
    rm -f "$name".*
    "${@:2}" generate "$PROMPT" --model models/emoji.tintype --seed 7 --threads 2 --json \
        --output "$name.png" --save-latents "$name.npy" "${flags[@]}" >"$name.json"
}
level() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["kernel_level"])' "$OUT/$1.json"; }
arm_level() { # what picture $1 says it was drawn with has to be the level of core $2
    local got
    got=$(level "$1")
    echo "$1: the program reports $got"
    [ "$got" = "${LEVELS[$2]}" ] || fail "$1 was drawn with $got, expected ${LEVELS[$2]} on $2"
}

same() { # pictures and latents $1 and $2, to the last byte
    cmp "$OUT/$1.png" "$OUT/$2.png" && cmp "$OUT/$1.npy" "$OUT/$2.npy" || fail "$1 and $2 are not the same"
    echo "$1 and $2 are the same"
}

step "a picture on cortex-a72"
flags=()
draw cortex-a72 on cortex-a72 "$program"
arm_level cortex-a72 cortex-a72

if [ "$long" = yes ]; then
    step "this machine's program"
    env -u CARGO -u RUSTC cargo build --release --locked --bin tintype
    here=target/release/tintype
    for arithmetic in f32 i8; do
        flags=()
        TINTYPE_ARITHMETIC=$arithmetic draw "here-$arithmetic" "$here"
        for core in "${CORES[@]}"; do
            step "$arithmetic on $core against this machine"
            TINTYPE_ARITHMETIC=$arithmetic draw "$core-$arithmetic" on "$core" "$program"
            arm_level "$core-$arithmetic" "$core"
            same "here-$arithmetic" "$core-$arithmetic"
        done
    done
    step "--deterministic is f32 arithmetic, here and there"
    flags=(--deterministic)
    draw here-same "$here"
    draw cortex-a76-same on cortex-a76 "$program"
    same here-same cortex-a76-same
    same here-same here-f32
fi

printf '\nall cross tests passed\n'
