#!/usr/bin/env bash
# Makes the package for Debian and its like: program, model, units, manual pages, completions, licences.
#
#   tools/package.sh [amd64|arm64] [--program FILE]     target/package/tintype_VERSION_ARCHITECTURE.deb; amd64 unless told
#
# The program is made by tools/cross-build.sh, unless FILE is one that is there already. cargo-deb is downloaded into
# target/ when it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DEB=3.8.0

fail() {
    printf 'package: %s\n' "$*" >&2
    exit 1
}

architecture=amd64 program=
while [ $# -gt 0 ]; do
    case "$1" in
        amd64 | arm64) architecture=$1 ;;
        --program) program=${2-} && shift && [ -f "$program" ] || fail "--program wants a file that exists" ;;
        *) fail "unknown argument $1: it takes amd64 or arm64, and --program FILE" ;;
    esac
    shift
done
case "$architecture" in
    amd64) machine=003e target=x86_64-unknown-linux-gnu ;;
    arm64) machine=00b7 target=aarch64-unknown-linux-gnu ;;
esac

if [ -z "$program" ]; then
    tools/cross-build.sh "$architecture"
    program=target/cross-build/tintype-$architecture
fi
found=$(od -An -tx2 -j18 -N2 "$program" | tr -d ' ') # e_machine of the ELF header
[ "$found" = "$machine" ] || fail "$program is for machine 0x$found, $architecture is 0x$machine"

# What the package holds and the sources do not; paths as in Cargo.toml.
out=target/package
rm -rf "$out/man" "$out/completions"
mkdir -p "$out"
install -m 755 "$program" "$out/tintype"
cargo run --release --locked --quiet --example manual -- "$out"
python3 packaging/third_party.py "$target" "$out/third-party-licences"
gzip -9nf "$out/third-party-licences"
gzip -9n <CHANGELOG.md >"$out/changelog.gz"

if [ "$(target/tools/bin/cargo-deb --version 2>/dev/null)" != "$CARGO_DEB" ]; then
    cargo install --quiet --locked --root target/tools --version "$CARGO_DEB" cargo-deb
fi
version=$(sed -n '0,/^version = "\(.*\)"/s//\1/p' Cargo.toml)-1
# The same sources make the same package: its files have the time of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
printf 'tintype (%s) stable; urgency=medium\n\n  * What changed is in changelog.gz, beside this file.\n\n -- %s  %s\n' \
    "$version" "$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)" "$(date -uRd "@$SOURCE_DATE_EPOCH")" >"$out/changelog"
package=$out/tintype_${version}_$architecture.deb
rm -f "$out"/tintype_*_"$architecture".deb
target/tools/bin/cargo-deb --no-build --no-strip --locked --target "$target" --deb-version "$version" \
    --output "$out/part.deb" >"$out/log"
mv "$out/part.deb" "$package"
echo "$package: $(stat -c %s "$package") bytes"
