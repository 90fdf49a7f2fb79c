#!/usr/bin/env bash
# The one gate: a change that passes here passes the continuous integration.
#
#   tools/check.sh              everything
#   tools/check.sh --no-tests   all but the tests, for a caller that has run them
set -euo pipefail
cd "$(dirname "$0")/.."

FILE_MAX_BYTES=$((16 << 20))    # of a file outside of models/
HISTORY_MAX_BYTES=$((60 << 20)) # of all that was ever committed

step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'check: %s\n' "$*" >&2
    exit 1
}
# The checkout may belong to someone else than who runs this, as in a container.
repository() { git -c safe.directory="$PWD" "$@"; }

case "${1-}" in
    '') tests=yes ;;
    --no-tests) tests=no ;;
    *) fail "unknown argument $1: it takes --no-tests or nothing" ;;
esac

# All files of the working tree that belong to the project, null-terminated; one that was deleted is left out.
files() {
    if repository rev-parse --git-dir >/dev/null 2>&1; then
        repository ls-files -z --cached --others --exclude-standard
    else
        find . \( -path ./target -o -name .git \) -prune -o -type f -printf '%P\0'
    fi | while IFS= read -r -d '' file; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then printf '%s\0' "$file"; fi
    done
}

step formatting
cargo fmt --all --check

step lints
cargo clippy --release --all-targets --locked -- -D warnings

step documentation
RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --lib --document-private-items --locked --quiet

if [ "$tests" = yes ]; then
    step tests
    cargo test --release --locked
fi

step licences
python3 tools/licences.py

step files
files | while IFS= read -r -d '' file; do
    bytes=$(stat -c %s "$file" 2>/dev/null || stat -f %z "$file")
    if [ "$bytes" -gt "$FILE_MAX_BYTES" ] && [ "${file#models/}" = "$file" ]; then
        fail "$file has $bytes bytes: only models/ may have files of more than $FILE_MAX_BYTES"
    fi
done
# A path of somebody's machine works on no other.
place='(^|[^[:alnum:]_.~-])/(home|root|Users|mnt|media|work|workspace|var/tmp)/'
found=$(files | xargs -0 grep -nIE "$place" -- || true)
[ -z "$found" ] || fail "absolute paths of one machine:
$found"

step history
if repository rev-parse --git-dir >/dev/null 2>&1; then
    bytes=$(repository rev-list --objects --all --disk-usage)
    echo "$bytes of $HISTORY_MAX_BYTES bytes"
    [ "$bytes" -le "$HISTORY_MAX_BYTES" ] || fail "the history is too large"
else
    echo "not a git checkout: not measured"
fi

printf '\nall checks passed\n'
