#!/usr/bin/env bash
# Installs, tries and purges a package in a fresh Debian 12 of its architecture, without a network.
#
#   tools/package-test.sh amd64|arm64 [FILE.deb]     the one in target/package unless told
#
# For root, on Debian or its like: debootstrap makes the system from the mirror that apt is set up with, and one of the
# other architecture runs in qemu-user-static. Both are installed if they are missing. What is mounted is seen by this
# script alone.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=bookworm
EXPOSURE_MAX=1.0 # of the units, as systemd-analyze counts it
PROMPT="a flat panda on a pink background"

step() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'package-test: %s\n' "$*" >&2
    exit 1
}

architecture=${1-}
case "$architecture" in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) fail "name the architecture: amd64 or arm64" ;;
esac
package=${2-$(ls target/package/tintype_*_"$architecture".deb 2>/dev/null || true)}
[ -f "$package" ] || fail "no package for $architecture: make it with tools/package.sh $architecture"
[ "$(id -u)" = 0 ] || fail "only root can install a system into a folder"
[ -n "${TINTYPE_OWN_MOUNTS-}" ] || TINTYPE_OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"

step "the package"
dpkg-deb --field "$package" Package Version Architecture Depends Installed-Size
[ "$(dpkg-deb --field "$package" Architecture)" = "$architecture" ] || fail "$package is for another architecture"
if command -v lintian >/dev/null; then
    lintian --fail-on error,warning "$package"
else
    echo "no lintian here: not looked at"
fi

step "a fresh $SUITE for $architecture"
packages=()
command -v debootstrap >/dev/null || packages+=(debootstrap)
emulated=no
if [ "$(uname -m)" != "$machine" ]; then
    emulated=yes
    command -v "qemu-$machine-static" >/dev/null || packages+=(qemu-user-static)
fi
if [ ${#packages[@]} -gt 0 ]; then
    apt-get update
    apt-get install -y --no-install-recommends "${packages[@]}"
fi
root=$(mktemp -d)
handler=
cleanup() {
    [ -z "$handler" ] || echo -1 >"$handler"
    umount --recursive "$root"/* 2>/dev/null || true
    rm -rf --one-file-system "$root"
}
trap cleanup EXIT
if [ "$emulated" = yes ]; then
    handlers=/proc/sys/fs/binfmt_misc
    [ -e "$handlers/register" ] || mount -t binfmt_misc binfmt_misc "$handlers"
    if [ ! -e "$handlers/qemu-$machine" ]; then
        cat "/usr/lib/binfmt.d/qemu-$machine.conf" >"$handlers/register"
        handler=$handlers/qemu-$machine
    fi
fi
mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$SUITE" '$1 == suite && $2 == "main" { print $3; exit }')
[ -n "$mirror" ] || fail "apt is not set up for Debian $SUITE here"
chmod 755 "$root"
mkdir -p target/debootstrap
debootstrap --variant=minbase --include=systemd --arch="$architecture" --cache-dir="$PWD/target/debootstrap" \
    "$SUITE" "$root" "$mirror" >target/debootstrap/log || fail "debootstrap: $(tail -n 3 target/debootstrap/log)"

# Runs in the new system, which has no network at all: as root, or as the user $1.
inside() { as root "$@"; }
as() {
    unshare --net chroot --userspec="$1" "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp \
        DEBIAN_FRONTEND=noninteractive "${@:2}"
}
# What is in the new system, without what dpkg, apt and systemd keep of every package.
contents() {
    local others=(proc sys dev tmp run/systemd var/cache var/lib/dpkg var/lib/apt var/log)
    (cd "$root" && find . -xdev \( -false $(printf -- '-o -path ./%s ' "${others[@]}") \) -prune -o -printf '%P\n' | sort)
}
[ "$(inside uname -m)" = "$machine" ] || fail "the new system is not $machine"
contents >target/debootstrap/before

step "apt install"
cp "$package" "$root/tmp/tintype.deb"
inside apt-get install -y --no-install-recommends /tmp/tintype.deb

step "what is there"
for file in usr/bin/tintype usr/share/tintype/models/emoji.tintype usr/share/man/man1/tintype.1.gz \
    usr/share/man/man1/tintype-generate.1.gz usr/share/bash-completion/completions/tintype \
    usr/share/zsh/vendor-completions/_tintype usr/share/fish/vendor_completions.d/tintype.fish \
    usr/share/doc/tintype/copyright usr/share/doc/tintype/third-party-licences.gz usr/lib/sysusers.d/tintype.conf; do
    [ -s "$root/$file" ] || fail "the package did not install $file"
done
inside bash -n /usr/share/bash-completion/completions/tintype
inside getent passwd tintype tintype-screen
inside getent group tintype
for state in tintype.socket:enabled tintype.service:enabled tintype-screen.service:disabled; do
    found=$(inside systemctl is-enabled "${state%:*}" || true)
    echo "${state%:*} is $found"
    [ "$found" = "${state#*:}" ] || fail "${state%:*} is $found, expected ${state#*:}"
done
inside tintype --version

step "a picture, without a network, as nobody in particular"
SECONDS=0
as nobody tintype generate "$PROMPT" -o /tmp/a.png --seed 1
echo "$SECONDS s"
[ "$(od -An -tx1 -N8 "$root/tmp/a.png")" = " 89 50 4e 47 0d 0a 1a 0a" ] || fail "what was drawn is not a PNG"

step "exposure of the units"
threshold=$(awk -v max="$EXPOSURE_MAX" 'BEGIN { print int(max * 10) }')
inside systemd-analyze security --no-pager --offline=true --threshold="$threshold" tintype.service \
    tintype-screen.service | grep -E 'Overall exposure' || fail "a unit is exposed by more than $EXPOSURE_MAX"

step "removed, and purged"
install -d -o 0 "$root/var/lib/tintype/images"
inside dpkg --remove tintype
[ -d "$root/var/lib/tintype/images" ] || fail "removing took what the daemon keeps; only purging may"
inside dpkg --purge tintype
contents >target/debootstrap/after
left=$(comm -13 target/debootstrap/before target/debootstrap/after | grep -vE '^etc/(passwd|group|shadow|gshadow)-$' || true)
[ -z "$left" ] || fail "purging left
$left"
missing=$(comm -23 target/debootstrap/before target/debootstrap/after)
[ -z "$missing" ] || fail "purging took
$missing"

printf '\nthe package for %s installs, draws and goes\n' "$architecture"
