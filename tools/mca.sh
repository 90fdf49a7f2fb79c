#!/usr/bin/env bash
# What the inner loops cost by llvm-mca's models of the cores: a table in Markdown on standard output.
#
#   tools/mca.sh                              every loop that tools/mca/loops.py lists
#   tools/mca.sh --boards MODEL.tintype ...   and what the models would take on boards, reckoned from that
#
# Compiles src/kernels by itself, in target/mca, for this machine and for 64-bit ARM, which takes a compiler that knows that
# target (`rustup target add aarch64-unknown-linux-gnu`) but no linker. LLVM_MCA names another llvm-mca than the newest
# that is found; it has to be 17 or later, since older ones take every ARM core for an a57. TINTYPE is the program that
# reads models, target/release/tintype unless given.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() {
    printf 'mca: %s\n' "$*" >&2
    exit 1
}

arm=aarch64-unknown-linux-gnu
case "${1-}" in
    '' | --boards) ;;
    *) fail "unknown argument $1: it takes --boards MODEL.tintype ... or nothing" ;;
esac
LLVM_MCA=${LLVM_MCA-$(compgen -c llvm-mca | sort -uV | tail -1)}
command -v "${LLVM_MCA:-none}" >/dev/null ||
    fail "llvm-mca ${LLVM_MCA:+($LLVM_MCA) }is not there: install LLVM 17 or later, on Debian llvm-19"
command -v python3 >/dev/null || fail "python3 is not there: install it"

# A crate of the kernels alone, with the versions that the whole has.
crate=target/mca/crate
mkdir -p "$crate"
cat >"$crate/Cargo.toml" <<EOF
[package]
name = "kernels"
version = "0.0.0"
edition = "2024"
[workspace]
[lib]
path = "lib.rs"
[[bin]]
name = "measure"
path = "$PWD/tools/mca/measure.rs"
[profile.release]
codegen-units = 1
[dependencies]
$(sed -n '/^\[dependencies\]/,/^\[/p' Cargo.toml | grep -E '^(half|serde) ')
EOF
printf '#[path = "%s/src/kernels/mod.rs"]\npub mod kernels;\n' "$PWD" >"$crate/lib.rs"
cp Cargo.lock "$crate"

# assembly NAME COMPILER [--target T]: the kernels as NAME.s
assembly() {
    local name=$1 compiler=$2
    shift 2
    RUSTC=$compiler cargo rustc --manifest-path "$crate/Cargo.toml" --target-dir "target/mca/$name" --release --lib --quiet "$@" \
        -- --emit "asm=$PWD/target/mca/$name.s" -C strip=none -C symbol-mangling-version=v0
}
knows_arm() { [ -d "$("$1" --print target-libdir --target "$arm" 2>/dev/null)" ]; }

host=${RUSTC-rustc}
cross=$(for rustc in "$host" $(type -ap rustc); do if knows_arm "$rustc"; then echo "$rustc" && break; fi; done)
[ -n "$cross" ] || fail "no compiler knows $arm: rustup target add $arm"
assembly host "$host"
RUSTC=$host cargo build --manifest-path "$crate/Cargo.toml" --target-dir target/mca/host --release --quiet
assembly arm "$cross" --target "$arm"

MEASURE=target/mca/host/release/measure
# Of x86 those for AVX2 are modelled, so these are measured.
export TINTYPE_LEVEL=avx2 LLVM_MCA MEASURE TINTYPE="${TINTYPE-target/release/tintype}"
if [ "${1-}" = --boards ] && [ ! -x "$TINTYPE" ]; then fail "$TINTYPE is not there: cargo build --release, or set TINTYPE"; fi
exec python3 tools/mca target/mca/host.s target/mca/arm.s "${@:2}"
