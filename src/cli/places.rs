//! Where a daemon's socket and state are, if nobody says.

use std::env;
use std::path::{Path, PathBuf};

use super::error::CliError;

const SOCKET: &str = "tintype.sock";
/// Where the system's own daemon listens.
const SYSTEM: &str = "/run/tintype";

/// Where a daemon is to listen.
pub fn socket_to_make(named: Option<&Path>) -> PathBuf {
    let own = folder("XDG_RUNTIME_DIR").unwrap_or_else(|| SYSTEM.into());
    named.map(PathBuf::from).or_else(|| folder("TINTYPE_SOCKET")).unwrap_or_else(|| own.join(SOCKET))
}

/// Where a daemon may be asked: the user's own, or the system's.
pub fn socket_to_ask(named: Option<&Path>) -> PathBuf {
    let own = socket_to_make(named);
    let is_chosen = named.is_some() || folder("TINTYPE_SOCKET").is_some();
    if is_chosen || own.exists() { own } else { Path::new(SYSTEM).join(SOCKET) }
}

/// Where a daemon keeps its state.
///
/// # Errors
/// [`CliError::Usage`] if nothing says where.
pub fn state(named: Option<&Path>) -> Result<PathBuf, CliError> {
    let by_user = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    let by_system = folder("STATE_DIRECTORY");
    let state = named.map(PathBuf::from).or(by_system).or_else(|| Some(by_user?.join("tintype")));
    state.ok_or_else(|| CliError::Usage("there is no place for the state: name one with --state".into()))
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
