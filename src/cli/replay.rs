//! `tintype replay`: a picture again from its own manifest, and whether it is the same.

use std::path::Path;

use serde_json::json;

use super::additions;
use super::args::{InitArgs, ReplayArgs};
use super::bar::Bar;
use super::course::Course;
use super::error::CliError;
use super::generate::givens;
use super::lora_arg::LoraArg;
use super::model;
use super::print::print;
use crate::bundle::PipelineKind;
use crate::engine::Resources;
use crate::output;
use crate::picture;
use crate::pipeline::{MANIFEST, Manifest, PipelineError, Pixels, read_picture};
use crate::tensor::Rgb8;

/// How two pictures differ.
struct Difference {
    /// Bytes of the pixels.
    bytes: usize,
    /// By how much at most, of 255.
    most: u8,
}

/// Draws the picture again, says whether it is identical, and writes it.
///
/// # Errors
/// [`CliError`]; with `--check` [`CliError::Differs`] if it is not identical.
pub fn replay(args: &ReplayArgs) -> Result<(), CliError> {
    let (old, manifest) = read(&args.picture)?;
    if !args.check {
        output::check(&args.output)?;
    }
    let (_, bundle) = model::open_again(args.model.as_deref(), &manifest.pipeline)?;
    let failed = |source| CliError::Replay { path: args.picture.clone(), source };
    let strength = manifest.init.as_ref().map(|begun| begun.strength);
    let init = InitArgs { init_image: args.init_image.clone(), mask: args.mask.clone(), strength };
    let mut givens = givens(args.latents.as_deref(), &init, manifest.size())?;
    givens.image = args.image.as_deref().map(read_picture).transpose()?;
    let request = manifest.request(&bundle, givens).map_err(failed)?;
    let loras: Vec<LoraArg> = args.lora.iter().cloned().map(LoraArg::full).collect();
    let given = additions::open(&loras, args.vae.as_deref())?;
    let additions = manifest.additions(&given).map_err(failed)?;
    if manifest.is_foreign() {
        let (name, version) = (args.picture.display(), &manifest.version);
        log::warn!("{name} was drawn by version {version}, which may have computed otherwise");
    }
    let resources = manifest.resources(Resources::new(model::threads(args.threads)?));
    let bar = Bar::of_run(request.steps_taken(), resources.pulse.clone());
    let mut course = Course { bar, preview: None, checkpoint: None };
    let images = match bundle.pipeline().kind {
        PipelineKind::Pixels => Pixels::new(bundle.clone(), resources).run(&request, &mut course)?,
        _ => additions::pipeline(&bundle, &resources, &additions)?.run(&request, &mut course)?,
    };
    drop(course);
    let image = images
        .into_iter()
        .next()
        .ok_or_else(|| CliError::Blocked("the model's safety checker blocks this picture".into()))?;

    let pixels = image.pixels.enlarged(request.scale);
    let difference = difference(&old, &pixels);
    let texts = Manifest::new(&image, &request, &bundle, &additions).texts();
    let sha256 = match args.check {
        true => None,
        false => Some(output::write_png(&args.output, &pixels, &texts)?),
    };
    let verdict = described(&args.picture, difference.as_ref());
    if args.json {
        let mut report = json!({
            "picture": args.picture,
            "identical": difference.is_none(),
            "differing_bytes": difference.as_ref().map_or(0, |d| d.bytes),
            "largest_difference": difference.as_ref().map_or(0, |d| d.most),
            "seed": image.seed,
        });
        if let Some(sha256) = sha256 {
            report["output"] = json!({ "path": args.output, "sha256": sha256 });
        }
        print(&report.to_string())?;
    } else if difference.is_none() || !args.check {
        print(&verdict)?;
    }
    match difference {
        Some(_) if args.check => Err(CliError::Differs(verdict)),
        _ => Ok(()),
    }
}

/// The pixels of a picture, and its manifest.
fn read(path: &Path) -> Result<(Rgb8, Manifest), CliError> {
    let bytes = std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let none = |reason: String| CliError::NoManifest { path: path.to_owned(), reason };
    let text = output::read_text(&bytes, MANIFEST)
        .map_err(|error| none(format!("it is no PNG file, or a damaged one ({error})")))?
        .ok_or_else(|| none("it was not drawn by tintype, or another program has written it anew".into()))?;
    let manifest =
        Manifest::read(&text).map_err(|source| CliError::Replay { path: path.to_owned(), source })?;
    let pixels =
        picture::read(&bytes).map_err(|source| PipelineError::Picture { path: path.to_owned(), source })?;
    Ok((pixels, manifest))
}

/// `None` if there is no difference.
fn difference(old: &Rgb8, new: &Rgb8) -> Option<Difference> {
    if (old.width_px(), old.height_px()) != (new.width_px(), new.height_px()) {
        return Some(Difference { bytes: new.pixels().len(), most: u8::MAX });
    }
    let off = old.pixels().iter().zip(new.pixels()).map(|(a, b)| a.abs_diff(*b));
    let most = off.clone().max().unwrap_or(0);
    (most > 0).then(|| Difference { bytes: off.filter(|&off| off > 0).count(), most })
}

fn described(path: &Path, difference: Option<&Difference>) -> String {
    let name = path.display();
    match difference {
        None => format!("{name}: identical, every byte of the pixels"),
        Some(Difference { bytes, most }) => {
            format!("{name}: not identical, {bytes} bytes of the pixels differ, by up to {most} of 255")
        }
    }
}
