#!/usr/bin/env bash
# A whole picture inside a memory cgroup whose limit counts the page cache too: what a small board has.
#
#   tools/bench/in-cgroup.sh 300000000 MODEL.tintype [flags of generate]      as root; cgroup v1 or v2
#
# The page cache is emptied first, so that every page of the model that is read counts. Prints the report of `generate`, the
# group's peak, and how often its limit was reached.
set -euo pipefail
limit=$1 model=$2
shift 2
program="$(dirname "$0")/../../target/release/tintype"
name="tintype-bench-$$"

if [ -d /sys/fs/cgroup/memory ]; then
    group=/sys/fs/cgroup/memory/$name max=memory.limit_in_bytes peak=memory.max_usage_in_bytes
else
    group=/sys/fs/cgroup/$name max=memory.max peak=memory.peak
fi
mkdir "$group"
trap 'rmdir "$group"' EXIT
echo "$limit" >"$group/$max"
sync
echo 3 >/proc/sys/vm/drop_caches
picture=$(mktemp --suffix .png)
bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$group" \
    "$program" generate "a lighthouse at dusk" --model "$model" -o "$picture" --seed 1 --json "$@"
echo "peak of the group: $(cat "$group/$peak") of $limit bytes"
rm "$picture"
