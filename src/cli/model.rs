//! Where the model file is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{PipelineArg, ResourceArgs};
use super::error::CliError;
use crate::bundle::{Bundle, Component, PipelineKind};
use crate::engine::{Resources, Threads, Tile};
use crate::import::{self, Precision};
use crate::kernels::Arithmetic;

impl PipelineArg {
    /// The model that ships for it.
    fn default_file(self) -> &'static str {
        match self {
            Self::Sd => "emoji.tintype",
            Self::Unclip => "emoji-unclip.tintype",
            Self::Pixels => "emoji-pixels.tintype",
        }
    }

    /// As it is asked for.
    fn of(kind: PipelineKind) -> Self {
        match kind {
            PipelineKind::StableDiffusion | PipelineKind::StableDiffusionXl => Self::Sd,
            PipelineKind::Unclip => Self::Unclip,
            PipelineKind::Pixels => Self::Pixels,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sd => "sd",
            Self::Unclip => "unclip",
            Self::Pixels => "pixels",
        }
    }
}

/// Opens the model that was asked for, or the default one.
///
/// # Errors
/// - [`CliError::NoModel`] if none was named and the default one is nowhere.
/// - [`CliError::Model`] if it cannot be used.
pub fn open(named: Option<&Path>) -> Result<(PathBuf, Arc<Bundle>), CliError> {
    open_default(named, PipelineArg::Sd)
}

/// Opens the model that was asked for, or the default one of the kind that a picture's manifest has.
///
/// # Errors
/// As [`open`].
pub fn open_again(named: Option<&Path>, kind: &str) -> Result<(PathBuf, Arc<Bundle>), CliError> {
    open_default(named, PipelineKind::from_name(kind).map_or(PipelineArg::Sd, PipelineArg::of))
}

fn open_default(named: Option<&Path>, pipeline: PipelineArg) -> Result<(PathBuf, Arc<Bundle>), CliError> {
    let path = find_for(named, pipeline)?;
    let bundle = Bundle::open(&path)?;
    Ok((path, Arc::new(bundle)))
}

/// Opens the model that was asked for, or the default one of that pipeline.
///
/// # Errors
/// As [`open`]; [`CliError::Usage`] if the model was made for another pipeline.
pub fn open_for(
    named: Option<&Path>,
    pipeline: Option<PipelineArg>,
) -> Result<(PathBuf, Arc<Bundle>), CliError> {
    let (path, bundle) = open_default(named, pipeline.unwrap_or(PipelineArg::Sd))?;
    let own = PipelineArg::of(bundle.pipeline().kind);
    match pipeline {
        Some(wanted) if wanted != own => {
            let (path, wanted, own, file) =
                (path.display(), wanted.name(), own.name(), wanted.default_file());
            Err(CliError::Usage(format!(
                "{path} is a model for --pipeline {own}, not {wanted}: leave the flag out, or name another model, such as {file}"
            )))
        }
        _ => Ok((path, bundle)),
    }
}

/// The model file that was asked for, or the default one.
///
/// # Errors
/// [`CliError::NoModel`] if none was named and the default one is nowhere.
pub fn find(named: Option<&Path>) -> Result<PathBuf, CliError> {
    find_for(named, PipelineArg::Sd)
}

fn find_for(named: Option<&Path>, pipeline: PipelineArg) -> Result<PathBuf, CliError> {
    let from_environment = std::env::var_os("TINTYPE_MODEL").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or(from_environment) {
        return Ok(path);
    }
    let places = places(pipeline.default_file());
    let found = places.iter().find(|path| path.exists());
    found.cloned().ok_or_else(|| CliError::NoModel(places.iter().map(|p| p.display().to_string()).collect()))
}

fn places(file: &str) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let folders =
        [Some(PathBuf::from("models")), beside.map(|p| p.join("models")), beside.map(Path::to_owned)];
    let shared = PathBuf::from("/usr/share/tintype/models");
    folders.into_iter().flatten().chain([shared]).map(|folder| folder.join(file)).collect()
}

/// The model to decode with: a model file, or what can be imported to one, which is done here and now.
///
/// # Errors
/// [`CliError::Model`], [`CliError::Import`].
pub fn decoder(path: &Path) -> Result<Arc<Bundle>, CliError> {
    let is_weights = path.extension().is_some_and(|extension| extension == "safetensors");
    if !path.is_dir() && !is_weights {
        return Ok(Arc::new(Bundle::open(path)?));
    }
    let scratch = |source| CliError::Read { path: std::env::temp_dir(), source };
    let folder = tempfile::tempdir().map_err(scratch)?;
    let target = folder.path().join("decoder.tintype");
    import::import(path, &target, Precision::F16, &mut |_, _| ())?;
    // The map outlives the file's name.
    Ok(Arc::new(Bundle::open(&target)?))
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

/// What a run may use of the machine.
///
/// # Errors
/// [`CliError::Usage`] for no threads, or for more than any board has.
pub fn resources(args: &ResourceArgs) -> Result<Resources, CliError> {
    let tile = args.tile.map_or(Tile::Auto, |tile| tile.0);
    let memory_bytes = args.memory.map(|size| size.0);
    let mut resources = Resources { memory_bytes, tile, ..Resources::new(threads(args.threads)?) };
    if args.deterministic {
        resources.arithmetic = Arithmetic::F32;
    }
    Ok(resources)
}

/// The threads that were asked for, or one per core.
///
/// # Errors
/// [`CliError::Usage`] for no threads, or for more than any board has.
pub fn threads(count: Option<usize>) -> Result<Threads, CliError> {
    match count.unwrap_or_else(Threads::cores) {
        count @ 1..=256 => Ok(Threads::new(count)),
        got => Err(CliError::Usage(format!("--threads {got} is out of range: 1 to 256"))),
    }
}
