//! `tintype generate`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::additions;
use super::args::{GenerateArgs, InitArgs, SyntaxArg};
use super::arrays;
use super::bar::Bar;
use super::checkpoint::{Checkpoint, Kept};
use super::course::Course;
use super::error::CliError;
use super::memory::Watch;
use super::model;
use super::picture_args::PictureArgs;
use super::pixels;
use super::preview::{Place, Preview};
use super::results::{Drawn, Places, Run};
use crate::bundle::{Bundle, Component, PipelineKind};
use crate::denoise::guidance::GuidanceScale;
use crate::engine::Resources;
use crate::output;
use crate::pipeline::{
    Additions, BlockList, Critic, Givens, Image, InitImage, Manifest, Request, RequestError, Size,
    TextToImage, random_seed, read_picture,
};
use crate::tensor::Latents;
use crate::text::{Prompt, Syntax};

/// Draws, writes, and says what was done.
///
/// # Errors
/// [`CliError`]; no picture is written unless all could be made.
pub fn generate(args: &GenerateArgs) -> Result<(), CliError> {
    let start = Instant::now();
    let watch = Watch::start();
    check_flags(args)?;
    let (path, bundle) = model::open_for(args.model.as_deref(), args.pipeline)?;
    let resources = model::resources(&args.resources)?;
    let drawn = match bundle.pipeline().kind {
        PipelineKind::StableDiffusion | PipelineKind::StableDiffusionXl | PipelineKind::Unclip => {
            latents(args, &bundle, &resources)?
        }
        PipelineKind::Pixels => pixels::draw(args, &bundle, &resources)?,
    };
    let run = Run {
        model: &path,
        request: &drawn.request,
        seconds: drawn.seconds,
        total: start.elapsed().as_secs_f64(),
        peaks: watch.peaks(),
        threads: resources.threads.count(),
    };
    drawn.results.tell(args.json.then_some(&run))
}

/// Draws with a model of latents.
fn latents(args: &GenerateArgs, bundle: &Arc<Bundle>, resources: &Resources) -> Result<Drawn, CliError> {
    let given = args.prompt.as_deref().or(args.unclip.need_no_prompt().then_some(""));
    let prompt = prompt(given)?;
    let block = args.block.as_deref().map(BlockList::read).transpose()?;
    let preview = args.preview.as_deref().map(Place::new).transpose()?;
    let kept = args.checkpoint.as_deref().map(Kept::read).transpose()?.flatten();
    let mut request = request(args, bundle, prompt, kept.as_ref().map(Kept::seed))?;
    TextToImage::new(bundle.clone(), resources.clone()).check(&request)?;
    let places = Places::new(&args.output, args.save_latents.as_deref(), args.count)?;
    let additions = additions::open(&args.lora, args.vae.as_deref())?;
    let pipeline = additions::pipeline(bundle, resources, &additions)?;
    let checkpoint = checkpoint(args, kept, &mut request, bundle, &additions, resources)?;
    let concepts = block.map(|list| list.concepts(bundle, resources)).transpose()?;
    if concepts.is_some() || bundle.component(Component::SafetyChecker).is_some() {
        refuse(preview.as_ref())?;
    }
    let sentence = request.prompt.words(request.syntax).map_err(RequestError::from)?;
    let critic = args.best_of.map(|_| Critic::new(bundle, resources, &sentence)).transpose()?;

    let mut pipeline = pipeline.without(concepts);
    let decoder = additions.decoder.as_ref().unwrap_or(bundle);
    let mut course = course(preview, checkpoint, &request, decoder, resources)?;
    let mut images = pipeline.run(&request, &mut course)?;
    let scores = critic.map(|critic| best(&critic, bundle, resources, &mut images)).transpose()?;
    let blocked = if scores.is_some() && !images.is_empty() { &[] } else { pipeline.blocked() };
    let results = places.write(&images, blocked, &request, bundle, &additions)?.with_scores(scores);
    let Course { bar, checkpoint, .. } = course;
    drop(bar);
    if let Some(checkpoint) = checkpoint {
        checkpoint.finish();
    }
    Ok(Drawn { request, seconds: pipeline.seconds(), results })
}

/// What flags cannot say together.
fn check_flags(args: &GenerateArgs) -> Result<(), CliError> {
    if args.best_of.is_some() && args.unclip.interpolate.is_some() {
        return Err(CliError::Usage("--best-of keeps one picture, and --interpolate draws several".into()));
    }
    if args.best_of.is_some() && args.count != 1 {
        return Err(CliError::Usage("--best-of keeps one picture: leave -n out".into()));
    }
    if args.checkpoint.is_some() && (args.count != 1 || args.best_of.is_some()) {
        return Err(CliError::Usage(
            "--checkpoint keeps the state of one picture: leave -n and --best-of out".into(),
        ));
    }
    Ok(())
}

/// Nobody sees a picture before it is judged.
fn refuse(preview: Option<&Place>) -> Result<(), CliError> {
    let reason =
        "--preview shows pictures before they are judged, which --block and a model's safety checker forbid";
    preview.map_or(Ok(()), |_| Err(CliError::Usage(reason.into())))
}

/// What a run shows and keeps; `decoder` is the model that decodes.
fn course(
    preview: Option<Place>,
    checkpoint: Option<Checkpoint>,
    request: &Request,
    decoder: &Arc<Bundle>,
    resources: &Resources,
) -> Result<Course, CliError> {
    let bar = match &preview {
        Some(place) if place.is_terminal() => Bar::none(),
        _ => Bar::of_run(request.steps_taken(), resources.pulse.clone()),
    };
    let preview = preview.map(|place| Preview::new(place, decoder, resources, request.size)).transpose()?;
    Ok(Course { bar, preview, checkpoint })
}

/// Makes the request go on from the state that was kept, and prepares to keep those to come.
fn checkpoint(
    args: &GenerateArgs,
    kept: Option<Kept>,
    request: &mut Request,
    bundle: &Bundle,
    additions: &Additions,
    resources: &Resources,
) -> Result<Option<Checkpoint>, CliError> {
    let Some(path) = &args.checkpoint else { return Ok(None) };
    output::check(path)?;
    let manifest = Manifest::of_request(request, bundle, additions, resources.arithmetic);
    if let Some(kept) = kept {
        let halfway = kept.of(&manifest)?;
        log::info!("going on after step {} of {}", halfway.done, request.steps_taken());
        request.halfway = Some(halfway);
    }
    Ok(Some(Checkpoint::new(path, &manifest)))
}

/// Keeps the image that the critic likes best, the first of equals; seeds and scores of all.
fn best(
    critic: &Critic,
    bundle: &Arc<Bundle>,
    resources: &Resources,
    images: &mut Vec<Image>,
) -> Result<Vec<(u64, f32)>, CliError> {
    let scores = critic.scores(bundle, resources, images.iter().map(|image| &image.pixels))?;
    let all: Vec<(u64, f32)> = images.iter().map(|image| image.seed).zip(scores).collect();
    let best = all.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(seed, _)| *seed);
    images.retain(|image| Some(image.seed) == best);
    Ok(all)
}

/// The prompt as it was given, or asked for on a terminal.
fn prompt(given: Option<&str>) -> Result<Prompt, CliError> {
    let prompt = match given {
        Some(prompt) => prompt.to_owned(),
        None if std::io::stdin().is_terminal() => ask()?,
        None => return Err(CliError::NoPrompt),
    };
    Ok(Prompt::new(prompt).map_err(RequestError::from)?)
}

fn ask() -> Result<String, CliError> {
    let failed = |source| CliError::Read { path: "standard input".into(), source };
    eprint!("What to draw? ");
    std::io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line).map_err(failed)? {
        0 => Err(CliError::NoPrompt),
        _ => Ok(line.trim().to_owned()),
    }
}

/// What the flags ask of a model; `kept_seed` is the seed of a picture that is gone on with.
///
/// # Errors
/// [`CliError`] if a value is out of range, or a file cannot be read.
pub fn request(
    args: &GenerateArgs,
    bundle: &Bundle,
    prompt: Prompt,
    kept_seed: Option<u64>,
) -> Result<Request, CliError> {
    let mut request = plain_request(&args.picture, bundle, prompt, kept_seed)?;
    request.clip_skip = args.clip_skip;
    if args.syntax == Some(SyntaxArg::A1111) {
        request.syntax = Syntax::A1111;
    }
    request.guidance_interval = args.guidance_interval;
    request.feature_cache = args.feature_cache;
    request.token_merging = args.token_merging;
    request.eta = args.eta;
    request.scale = args.scale;
    request.count = args.best_of.unwrap_or(args.count);
    request.check_size(bundle)?;
    let Givens { latents, init, .. } = givens(args.latents.as_deref(), &args.init, request.size)?;
    (request.latents, request.init) = (latents, init);
    request.unclip = args.unclip.request(request.unclip)?;
    Ok(request)
}

/// A request for a picture that is drawn from words alone; a seed that was kept is for where none is given.
pub fn plain_request(
    picture: &PictureArgs,
    bundle: &Bundle,
    prompt: Prompt,
    kept_seed: Option<u64>,
) -> Result<Request, CliError> {
    let seed = picture.seed.or(kept_seed).unwrap_or_else(random_seed);
    let mut request = Request::new(bundle, prompt, seed)?;
    request.negative = Prompt::new(picture.negative.clone()).map_err(RequestError::from)?;
    request.size.width_px = picture.width.unwrap_or(request.size.width_px);
    request.size.height_px = picture.height.unwrap_or(request.size.height_px);
    request.steps = picture.steps.unwrap_or(request.steps);
    if let Some(scale) = picture.guidance {
        request.guidance_scale = GuidanceScale::new(scale).map_err(RequestError::from)?;
    }
    request.sampler = picture.sampler.unwrap_or(request.sampler);
    Ok(request)
}

/// The files that a picture of this size begins with.
pub fn givens(latents: Option<&Path>, init: &InitArgs, size: Size) -> Result<Givens, CliError> {
    let latents = latents.map(read_latents).transpose()?;
    let Some(path) = &init.init_image else { return Ok(Givens { latents, ..Givens::default() }) };
    let picture = read_picture(path)?;
    let mask = init.mask.as_deref().map(read_picture).transpose()?;
    let init = InitImage::new(&picture, mask.as_ref(), init.strength, size)?;
    Ok(Givens { latents, init: Some(init), image: None })
}

fn read_latents(path: &Path) -> Result<Latents, CliError> {
    let wrong = |reason: String| CliError::Tensors { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let (shape, values) = arrays::from_npy(&bytes).map_err(wrong)?;
    let &[1, channels, height_cells, width_cells] = shape.as_slice() else {
        return Err(wrong(format!("shape {shape:?}, expected [1, channels, height, width]")));
    };
    if values.iter().any(|v| !v.is_finite()) {
        return Err(wrong("it holds a value that is not finite".into()));
    }
    Latents::new(values, channels, height_cells, width_cells).map_err(|e| wrong(e.to_string()))
}
