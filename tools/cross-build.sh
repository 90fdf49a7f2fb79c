#!/usr/bin/env bash
# Builds the program to be given away, for any Linux whose glibc is 2.27 or later and any CPU of its architecture.
#
#   tools/cross-build.sh [arm64|amd64]     into target/cross-build/tintype-ARCHITECTURE; arm64 unless told
#
# cargo-zigbuild links against the symbols of an old glibc. It, and zig for Python, are downloaded into target/ when they
# are missing. RUSTC and CARGO choose the toolchain. Needs the binutils of the architecture: binutils-aarch64-linux-gnu.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

GLIBC=2.27 # Ubuntu 18.04's, and so that of JetPack 4; Debian 10 has 2.28
ZIGBUILD=0.24.1
ZIG=0.17.1

fail() {
    printf 'cross-build: %s\n' "$*" >&2
    exit 1
}

case "${1-arm64}" in
    arm64) machine=aarch64 ;;
    amd64) machine=x86_64 ;;
    *) fail "unknown architecture $1: it takes arm64 or amd64" ;;
esac
architecture=${1-arm64}
target=$machine-unknown-linux-gnu
binutils=$machine-linux-gnu
command -v "$binutils-objdump" >/dev/null || fail "no $binutils-objdump: install binutils-${binutils/_/-}"
toolchain "$target"

out=target/cross-build
mkdir -p "$out"
if [ "$("target/tools/bin/cargo-zigbuild" --version 2>/dev/null)" != "cargo-zigbuild $ZIGBUILD" ]; then
    # For this machine, with whichever toolchain it has.
    env -u RUSTC -u CARGO cargo install --quiet --locked --root target/tools --version "$ZIGBUILD" cargo-zigbuild
fi
[ -x target/zig/bin/python ] || python3 -m venv target/zig
target/zig/bin/pip install --quiet "ziglang==$ZIG"
CARGO_ZIGBUILD_ZIG_PATH=$(target/zig/bin/python -c 'import ziglang; print(ziglang.__path__[0])')/zig
export CARGO_ZIGBUILD_ZIG_PATH

# With its symbols at first, for the look at its instructions.
target/tools/bin/cargo-zigbuild rustc --release --locked --bin tintype \
    --target "$target.$GLIBC" --target-dir "$out" -- -C strip=none
built=$out/$target/release/tintype

needed=$("$binutils-objdump" -T "$built" | grep -o 'GLIBC_[0-9.]*' | sort -Vu)
highest=${needed##*GLIBC_}
[ -n "$highest" ] || fail "$built names no version of glibc: objdump -T could not read it"
[ "$(printf '%s\n' "$GLIBC" "$highest" | sort -V | tail -n 1)" = "$GLIBC" ] ||
    fail "$built needs glibc $highest, which is above $GLIBC"
python3 tools/baseline.py "$built"

"$binutils-strip" -o "$out/part" "$built"
mv "$out/part" "$out/tintype-$architecture"
echo "$out/tintype-$architecture: $(stat -c %s "$out/tintype-$architecture") bytes, needs glibc $highest of at most $GLIBC"
