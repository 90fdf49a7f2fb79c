#!/bin/sh
# A kiosk's button in a shell: kiosk.sh "a cartoon cat" cat.png
# Needs curl; asks again while the daemon is busy, for a minute.
set -eu
prompt=${1:?what to draw} path=${2:?where the picture goes}
socket=${TINTYPE_SOCKET:-/run/tintype/tintype.sock}

# As a JSON string.
quoted=$(printf '%s' "$prompt" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' | tr '\n\t\r' '   ')
# --retry asks again after 408, 429 and 503, when Retry-After says; one key makes it one job.
key=$(cat /proc/sys/kernel/random/uuid)
curl --silent --show-error --fail-with-body --unix-socket "$socket" --retry 10 --retry-max-time 60 --retry-connrefused \
    --header "Idempotency-Key: $key" --data "{\"prompt\":\"$quoted\"}" --output "$path.part" http://tintype/v1/generate || {
    cat "$path.part" >&2
    rm -f "$path.part"
    exit 1
}
mv "$path.part" "$path"
echo "$path"
