//! `tintype generate` with a model of pixels.

use std::sync::Arc;

use super::args::{GenerateArgs, ResourceArgs};
use super::bar::Bar;
use super::course::Course;
use super::error::CliError;
use super::generate::request;
use super::picture_args::PictureArgs;
use super::results::{Drawn, Places};
use crate::bundle::Bundle;
use crate::engine::Resources;
use crate::pipeline::{Additions, Pixels, RequestError};
use crate::text::Prompt;

/// Why flags make no sense.
const READS_NO_WORDS: &str = "it knows classes, and reads no words";
const DECODES_NOTHING: &str = "it draws pixels, and has nothing to decode";
const CANNOT_JUDGE: &str = "it has no CLIP to judge pictures with";
const BEGINS_WITH_NOISE: &str = "it begins with noise; --latents takes that";
const HAS_SHORT_STEPS: &str = "its steps are too short to be kept or shown";

/// Draws and writes.
///
/// # Errors
/// [`CliError`]; no picture is written unless all could be made.
pub fn draw(args: &GenerateArgs, bundle: &Arc<Bundle>, resources: &Resources) -> Result<Drawn, CliError> {
    check_flags(args)?;
    let prompt = Prompt::new(args.prompt.clone().unwrap_or_default()).map_err(RequestError::from)?;
    let request = request(args, bundle, prompt, None)?;
    let mut pipeline = Pixels::new(bundle.clone(), resources.clone());
    pipeline.check(&request)?;
    let places = Places::new(&args.output, args.save_latents.as_deref(), args.count)?;
    let bar = Bar::of_run(request.steps_taken(), resources.pulse.clone());
    let mut course = Course { bar, preview: None, checkpoint: None };
    let images = pipeline.run(&request, &mut course)?;
    let results = places.write(&images, &[], &request, bundle, &Additions::default())?;
    drop(course);
    Ok(Drawn { request, seconds: pipeline.seconds(), results })
}

/// Refuses the flags that are for other pipelines.
fn check_flags(args: &GenerateArgs) -> Result<(), CliError> {
    check_picture(&args.picture, &args.resources)?;
    refuse(&[
        ("--syntax", args.syntax.is_some(), READS_NO_WORDS),
        ("--clip-skip", args.clip_skip > 0, READS_NO_WORDS),
        ("--vae", args.vae.is_some(), DECODES_NOTHING),
        ("--lora", !args.lora.is_empty(), "LoRAs are for Stable Diffusion's layers"),
        ("--init-image", args.init.init_image.is_some(), BEGINS_WITH_NOISE),
        ("--feature-cache", args.feature_cache > 1, HAS_SHORT_STEPS),
        ("--token-merging", !args.token_merging.is_none(), HAS_SHORT_STEPS),
        ("--best-of", args.best_of.is_some(), CANNOT_JUDGE),
        ("--block", args.block.is_some(), CANNOT_JUDGE),
        ("--checkpoint", args.checkpoint.is_some(), HAS_SHORT_STEPS),
        ("--preview", args.preview.is_some(), HAS_SHORT_STEPS),
    ])
}

/// Refuses those among the flags that every command that draws has.
///
/// # Errors
/// [`CliError::Usage`], with the flag and why.
pub fn check_picture(picture: &PictureArgs, resources: &ResourceArgs) -> Result<(), CliError> {
    refuse(&[
        ("--negative", !picture.negative.is_empty(), READS_NO_WORDS),
        ("--tile", resources.tile.is_some(), DECODES_NOTHING),
    ])
}

fn refuse(foreign: &[(&str, bool, &str)]) -> Result<(), CliError> {
    match foreign.iter().find(|(_, is_given, _)| *is_given) {
        Some((flag, _, why)) => {
            Err(CliError::Usage(format!("{flag} is not for a model of pixels: {why}: leave it out")))
        }
        None => Ok(()),
    }
}
