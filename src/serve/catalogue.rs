//! The models that the daemon draws with: every `*.tintype` file of one folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bundle::{Bundle, BundleError, Component, PipelineKind};
use crate::engine::{Pulse, Resources, Stopped};
use crate::error::chain;
use crate::pipeline::{PipelineError, Size, footprints, stages};
use crate::protocol::{ErrorCode, ErrorDetail};

/// The model that ships.
const SHIPPED: &str = "emoji";
const EXTENSION: &str = "tintype";

/// Why there is nothing to draw with.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The folder cannot be read.
    #[error("the models folder {} cannot be read", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder has no model that can be used.
    #[error("there is no usable *.tintype file in {}: put one there, or name its folder with --models", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The model to draw with by default is not there.
    #[error("there is no model `{name}` in {}, only {}", path.display(), names.join(", "))]
    NoDefault {
        /// The name that was given.
        name: String,
        /// The folder.
        path: PathBuf,
        /// The models that there are.
        names: Vec<String>,
    },
}

/// An open model.
#[derive(Debug)]
pub struct Model {
    /// Its file's name without the extension.
    pub name: String,
    /// The file.
    pub bundle: Arc<Bundle>,
    identity: Identity,
    peaks: Mutex<BTreeMap<[usize; 2], usize>>,
    corrupt: Mutex<Option<Result<(), String>>>,
}

/// What changes when a file is replaced or written to.
type Identity = (u64, u64, u64, i64, i64);

impl Model {
    fn open(path: &Path, name: &str) -> Result<Self, BundleError> {
        let bundle = Arc::new(Bundle::open(path)?);
        let identity = identity(path).unwrap_or_default();
        let (peaks, corrupt) = Default::default();
        Ok(Self { name: name.to_owned(), bundle, identity, peaks, corrupt })
    }

    /// Checks that the daemon draws with models of this kind.
    ///
    /// # Errors
    /// `invalid_value`, with what does.
    fn check_kind(&self) -> Result<(), ErrorDetail> {
        match self.bundle.pipeline().kind {
            PipelineKind::StableDiffusion | PipelineKind::StableDiffusionXl => Ok(()),
            kind => {
                let message = format!(
                    "the model `{}` is for `tintype generate`: the daemon does not draw {kind}",
                    self.name
                );
                Err(ErrorDetail::new(ErrorCode::InvalidValue, message))
            }
        }
    }

    /// The most anonymous memory that a picture of this size takes, in bytes; planned once for each size.
    ///
    /// # Errors
    /// [`PipelineError`] if it cannot be planned, or not with the memory that `resources` allow.
    pub fn peak_bytes(&self, size: Size, resources: &Resources) -> Result<usize, PipelineError> {
        let key = [size.width_px, size.height_px];
        if let Some(&peak) = lock(&self.peaks).get(&key) {
            return Ok(peak);
        }
        let stages = footprints(&self.bundle, &stages(&self.bundle), size, resources)?;
        let peak = stages.iter().map(|stage| stage.peak_anon_bytes).max().unwrap_or(0);
        lock(&self.peaks).insert(key, peak);
        Ok(peak)
    }

    /// Whether the model itself judges its pictures.
    pub fn has_safety_checker(&self) -> bool {
        self.bundle.component(Component::SafetyChecker).is_some()
    }

    /// Compares every tensor with its checksum, before the first picture is drawn with this file.
    ///
    /// # Errors
    /// [`Stopped`], or in the second place what is wrong with the file.
    pub fn verify(&self, pulse: &Pulse) -> Result<Result<(), String>, Stopped> {
        if let Some(known) = &*lock(&self.corrupt) {
            return Ok(known.clone());
        }
        for bundle in [Some(&self.bundle), self.bundle.base()].into_iter().flatten() {
            for component in &bundle.header().components {
                for tensor in &component.tensors {
                    pulse.beat()?;
                    if let Err(error) = bundle.verify_tensor(component.name, tensor) {
                        let reason = error.to_string();
                        *lock(&self.corrupt) = Some(Err(reason.clone()));
                        return Ok(Err(reason));
                    }
                }
                bundle.release(component);
            }
        }
        *lock(&self.corrupt) = Some(Ok(()));
        Ok(Ok(()))
    }

    /// The answer to who wants to draw with it, if it is known to be damaged.
    ///
    /// # Errors
    /// `model_corrupt`, with what is wrong.
    pub fn check(&self) -> Result<(), ErrorDetail> {
        match &*lock(&self.corrupt) {
            Some(Err(reason)) => Err(corrupt(&self.name, reason)),
            _ => Ok(()),
        }
    }
}

/// The answer when a model file is damaged.
pub fn corrupt(name: &str, reason: &str) -> ErrorDetail {
    let message = format!("the model `{name}` is damaged ({reason}): install it again");
    ErrorDetail::new(ErrorCode::ModelCorrupt, message)
}

/// The models of a folder.
#[derive(Debug)]
pub struct Catalogue {
    folder: PathBuf,
    default: String,
    models: Mutex<BTreeMap<String, Arc<Model>>>,
}

impl Catalogue {
    /// Opens the models in `folder`. `default` is the one to draw with when a request names none: the one that ships, or
    /// the first by name, if that is not given.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn open(folder: &Path, default: Option<&str>) -> Result<Self, CatalogueError> {
        let models = read(folder)?;
        let first = models.keys().next().ok_or_else(|| CatalogueError::Empty { path: folder.to_owned() })?;
        let shipped = if models.contains_key(SHIPPED) { SHIPPED } else { first };
        let default = default.unwrap_or(shipped).to_owned();
        if !models.contains_key(&default) {
            let names = models.keys().cloned().collect();
            return Err(CatalogueError::NoDefault { name: default, path: folder.to_owned(), names });
        }
        Ok(Self { folder: folder.to_owned(), default, models: Mutex::new(models) })
    }

    /// The name of the model for requests that name none.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The models, by name.
    pub fn all(&self) -> Vec<Arc<Model>> {
        lock(&self.models).values().cloned().collect()
    }

    /// The model of that name as it is on disk now: one that was replaced is opened again.
    ///
    /// # Errors
    /// `invalid_value` if there is none, with the names that there are; `model_corrupt` if the file is damaged.
    pub fn get(&self, name: &str) -> Result<Arc<Model>, ErrorDetail> {
        let path = self.folder.join(name).with_extension(EXTENSION);
        let mut models = lock(&self.models);
        let plain = !name.is_empty() && !name.contains(['/', '.', '\0']);
        let Some(now) = identity(&path).filter(|_| plain) else {
            models.remove(name);
            let names: Vec<&str> = models.keys().map(String::as_str).collect();
            let message = format!("there is no model `{name}`, only {}", names.join(", "));
            return Err(ErrorDetail::new(ErrorCode::InvalidValue, message));
        };
        if let Some(model) = models.get(name).filter(|model| model.identity == now) {
            model.check()?;
            return Ok(model.clone());
        }
        let model = Model::open(&path, name).map_err(|error| corrupt(name, &chain(&error)))?;
        model.check_kind()?;
        let model = Arc::new(model);
        models.insert(name.to_owned(), model.clone());
        Ok(model)
    }
}

/// Opens what can be opened of a folder.
fn read(folder: &Path) -> Result<BTreeMap<String, Arc<Model>>, CatalogueError> {
    let failed = |source| CatalogueError::Folder { path: folder.to_owned(), source };
    let mut models = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        let Some(name) = name.filter(|_| path.extension().is_some_and(|e| e == EXTENSION)) else { continue };
        match Model::open(&path, &name) {
            Ok(model) if model.check_kind().is_err() => {
                let kind = model.bundle.pipeline().kind;
                log::warn!(
                    "{} is left out: the daemon does not draw with models of the kind {kind}",
                    path.display()
                );
            }
            Ok(model) => _ = models.insert(name, Arc::new(model)),
            Err(error) => log::warn!("{} is left out: {}", path.display(), chain(&error)),
        }
    }
    Ok(models)
}

fn identity(path: &Path) -> Option<Identity> {
    let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

/// A thread that panicked while it held one of these locks had nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
