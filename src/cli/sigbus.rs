//! A model file that is cut short while it is mapped: one line and exit code 75, instead of a crash.
#![allow(unsafe_code)]

/// The exit code for a model file that changed underneath.
const CHANGED: i32 = 75;

const MESSAGE: &[u8] =
    b"error: the model file changed while it was in use: install models by renaming, then try again\n";

extern "C" fn on_sigbus(_: libc::c_int) {
    // SAFETY: write and _exit are async-signal-safe; the message is static.
    unsafe {
        libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::_exit(CHANGED)
    }
}

/// Installs the handler.
pub fn install() {
    let handler = on_sigbus as extern "C" fn(libc::c_int);
    // SAFETY: the handler touches nothing but its own static message, and does not return.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
}
