//! Where the model file is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::quantity::{MemorySize, TileArg};
use crate::bundle::{Bundle, Component};
use crate::engine::{Resources, Threads, Tile};

/// The model that ships.
const DEFAULT: &str = "emoji.tintype";

/// Opens the model that was asked for, or the default one.
///
/// # Errors
/// - [`CliError::NoModel`] if none was named and the default one is nowhere.
/// - [`CliError::Model`] if it cannot be used.
pub fn open(named: Option<&Path>) -> Result<(PathBuf, Arc<Bundle>), CliError> {
    let path = find(named)?;
    let bundle = Bundle::open(&path)?;
    Ok((path, Arc::new(bundle)))
}

fn find(named: Option<&Path>) -> Result<PathBuf, CliError> {
    let from_environment = std::env::var_os("TINTYPE_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or(from_environment) {
        return Ok(path);
    }
    let places = places();
    let found = places.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| CliError::NoModel(places.iter().map(|p| p.display().to_string()).collect()))
}

fn places() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let folders =
        [Some(PathBuf::from("models")), beside.map(|p| p.join("models")), beside.map(Path::to_owned)];
    let shared = PathBuf::from("/usr/share/tintype/models");
    folders.into_iter().flatten().chain([shared]).map(|folder| folder.join(DEFAULT)).collect()
}

/// The component of that name.
///
/// # Errors
/// [`CliError::Usage`] if there is none, with the names that there are.
pub fn component(name: &str) -> Result<Component, CliError> {
    Component::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Component::ALL.iter().map(|c| c.name()).collect();
        CliError::Usage(format!("there is no component `{name}`, only {}", names.join(", ")))
    })
}

/// The threads that were asked for, or one per core; the memory that is allowed; how large maps are worked on.
///
/// # Errors
/// [`CliError::Usage`] for no threads, or for more than any board has.
pub fn resources(
    threads: Option<usize>,
    memory: Option<MemorySize>,
    tile: Option<TileArg>,
) -> Result<Resources, CliError> {
    let threads = match threads.unwrap_or_else(Threads::cores) {
        count @ 1..=256 => Threads::new(count),
        got => return Err(CliError::Usage(format!("--threads {got} is out of range: 1 to 256"))),
    };
    let tile = tile.map_or(Tile::Auto, |tile| tile.0);
    Ok(Resources { threads, memory_bytes: memory.map(|size| size.0), tile })
}
