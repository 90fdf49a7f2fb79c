#!/usr/bin/env bash
# What this board takes: one row of the table of boards in docs/benchmarks/kernels.md, on standard output.
#
#   tools/bench-device.sh [SD15.tintype]      the picture of the shipped model, and a UNet step and the decoder of another
#
# Needs bash, sed, awk and the program alone: TINTYPE (target/release/tintype unless given), MODEL (models/emoji.tintype).
# REPEAT (5) runs of each count, after one that does not. Takes minutes; leave the board alone meanwhile.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
TINTYPE=${TINTYPE-$root/target/release/tintype}
MODEL=${MODEL-$root/models/emoji.tintype}
REPEAT=${REPEAT-5}
large=${1-}
fail() {
    printf 'bench-device: %s\n' "$*" >&2
    exit 1
}
say() { printf '%s\n' "$*" >&2; }

[ $# -le 1 ] || fail "it takes one model file or nothing, not $# arguments"
command -v "$TINTYPE" >/dev/null || fail "$TINTYPE is not there: cargo build --release, or set TINTYPE"
for file in "$MODEL" ${large:+"$large"}; do
    [ -r "$file" ] || fail "$file cannot be read"
done

board() {
    if [ -r /proc/device-tree/model ]; then
        tr -d '\0' </proc/device-tree/model
    else
        sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1
    fi
}
# The warmest zone, in whole degrees; a dash where there is none.
celsius() {
    local zones=(/sys/class/thermal/thermal_zone*/temp)
    cat "${zones[@]}" 2>/dev/null | sort -n | tail -n 1 | awk '{ print int($1 / 1000 + 0.5) } END { if (!NR) print "-" }'
}
# The firmware's flags of a Pi: 0x0 is well; bits 0 to 3 are now, 16 to 19 since the start: low voltage (0, 16), clock capped
# (1, 17), throttled (2, 18), soft limit of temperature (3, 19).
throttled() {
    if command -v vcgencmd >/dev/null; then vcgencmd get_throttled 2>/dev/null | sed 's/^throttled=//' || echo -; else echo -; fi
}
governor() { cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo -; }

# measure FLAGS ...: sets seconds ("median (least to most)"), megabytes, level and threads from what `bench` says.
measure() {
    local said
    say "tintype bench $*"
    said=$("$TINTYPE" bench "$@" --repeat "$REPEAT") || fail "tintype bench $* failed; its message is above"
    seconds=$(sed -n 's/^[a-z_]*: \([0-9.]*\) s (median of [0-9]*, \([0-9.]* to [0-9.]*\)), ready in .*/\1 (\2)/p' <<<"$said")
    megabytes=$(sed -n 's/^peaks: \([0-9.]*\) MB anonymous.*/\1/p' <<<"$said")
    level=$(sed -n 's/^peaks: .*; \([^,]*\), [0-9]* threads$/\1/p' <<<"$said")
    threads=$(sed -n 's/^peaks: .*, \([0-9]*\) threads$/\1/p' <<<"$said")
    case "|$seconds|$megabytes|$level|$threads|" in
        *'||'*) fail "tintype bench says something else than this script reads: $said" ;;
    esac
}

memory_mb=$(awk '/^MemTotal:/ { printf "%d", $2 / 1000 }' /proc/meminfo)
warm_before=$(celsius) flags_before=$(throttled)
measure "$MODEL"
picture=$seconds picture_mb=$megabytes
unet=- decoder=-
if [ -n "$large" ]; then
    measure "$large" --component unet
    unet="$seconds, $megabytes MB"
    measure "$large" --component vae_decoder
    decoder="$seconds, $megabytes MB"
fi
warm_after=$(celsius) flags_after=$(throttled)
case "$flags_before $flags_after" in
    '- -' | '0x0 0x0') ;;
    *) say "the firmware reports low voltage, heat or a capped clock ($flags_before, then $flags_after): the row is not the board's best" ;;
esac

say '| board | memory | level, threads | picture s | UNet step s | decoder s | °C | throttled | governor, kernel, version |'
say '|---|---|---|---|---|---|---|---|---|'
printf '| %s | %s MB | %s, %s | %s, %s MB | %s | %s | %s to %s | %s to %s | %s, %s, %s |\n' \
    "$(board)" "$memory_mb" "$level" "$threads" "$picture" "$picture_mb" "$unet" "$decoder" "$warm_before" "$warm_after" \
    "$flags_before" "$flags_after" "$(governor)" "$(uname -r | sed 's/[-+].*//')" "$("$TINTYPE" --version)"
