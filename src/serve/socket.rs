//! The socket: handed over by the system, or made, without taking it from a daemon that is alive.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that the kernel takes for a socket, in bytes.
const PATH_MAX_BYTES: usize = 107;
/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is longer than the kernel takes.
    #[error("the socket's path has {got} bytes, expected at most {PATH_MAX_BYTES}: {}", path.display())]
    TooLong {
        /// Its length.
        got: usize,
        /// The path.
        path: PathBuf,
    },
    /// Another daemon listens there.
    #[error("another daemon listens at {}: stop it, or choose another path with --socket", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket stands there.
    #[error("{} is there and is no socket: move it away, or choose another path with --socket", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen at {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A socket that listens, and its lock; a socket that was made here goes when this does.
#[derive(Debug)]
pub struct Socket {
    /// Not blocking.
    pub listener: UnixListener,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    path: PathBuf,
    _lock: File,
}

/// Takes the socket that the system hands over, or makes one at `path`.
///
/// # Errors
/// [`SocketError`].
pub fn listen(path: &Path) -> Result<Socket, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let handed = listenfd::ListenFd::from_env().take_unix_listener(0).map_err(failed)?;
    let (listener, own) = match handed {
        Some(listener) => (listener, None),
        None => make(path).map(|(listener, own)| (listener, Some(own)))?,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Socket { listener, own })
}

fn make(path: &Path) -> Result<(UnixListener, Own), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let got = path.as_os_str().len();
    if got > PATH_MAX_BYTES {
        return Err(SocketError::TooLong { got, path: path.to_owned() });
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::create(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SocketError::Taken { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Nobody holds the lock, so a socket that nobody answers at was left behind.
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::Taken { path: path.to_owned() });
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(SocketError::Foreign { path: path.to_owned() }),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((listener, Own { path: path.to_owned(), _lock: lock }))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // It is ours as long as the lock is held; if it is gone already, so much the better.
            let _ = fs::remove_file(&own.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(SocketError::Taken { .. })));
        drop(first);
        assert!(!path.exists());
        assert!(listen(&path).is_ok());
    }

    #[test]
    fn what_a_dead_daemon_left_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists() && listen(&path).is_ok());
        fs::write(&path, "a letter").unwrap();
        assert!(matches!(listen(&path), Err(SocketError::Foreign { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"a letter");
    }

    #[test]
    fn a_path_that_is_too_long_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        assert!(matches!(listen(&path), Err(SocketError::TooLong { got: 205, .. })));
    }
}
