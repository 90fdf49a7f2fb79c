# For scripts that build for another target, to be sourced: `toolchain TARGET` sets and exports RUSTC and CARGO to a
# toolchain that has the standard library of TARGET. What is set already stays; else the Rust of PATH is asked first, as
# rustup has it, and then that of the system.

toolchain() {
    local rustc sysroot
    for rustc in "${RUSTC:-$(command -v rustc || true)}" /usr/bin/rustc; do
        [ -x "$rustc" ] || continue
        sysroot=$("$rustc" --print sysroot)
        compgen -G "$sysroot/lib/rustlib/$1/lib/libstd-*.rlib" >/dev/null || continue
        export RUSTC=$rustc CARGO=${CARGO:-${rustc%rustc}cargo}
        "$RUSTC" --version
        return
    done
    echo "$0: no Rust here has the standard library of $1: rustup target add $1, or on Debian" \
        "apt-get install rustc-web cargo-web libstd-rust-web-dev:arm64" >&2
    return 1
}
