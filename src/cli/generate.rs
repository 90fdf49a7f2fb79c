//! `tintype generate`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::args::GenerateArgs;
use super::arrays;
use super::bar::Bar;
use super::error::CliError;
use super::memory::{Peaks, Watch};
use super::model;
use super::print::print;
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceScale;
use crate::kernels::Level;
use crate::lora::{self, Lora};
use crate::output;
use crate::pipeline::{
    Image, Manifest, Progress, Request, RequestError, Seconds, Step, TextToImage, UsedDecoder, UsedLora,
    random_seed,
};
use crate::tensor::Latents;
use crate::text::Prompt;

/// A picture that is on disk.
struct Written {
    path: PathBuf,
    seed: u64,
    sha256: String,
}

/// Draws, writes, and says what was done.
///
/// # Errors
/// [`CliError`]; no picture is written unless all could be made.
pub fn generate(args: &GenerateArgs) -> Result<(), CliError> {
    let start = Instant::now();
    let watch = Watch::start();
    let mut resources = model::resources(&args.resources)?;
    let prompt = prompt(args.prompt.as_deref())?;
    let (path, bundle) = model::open(args.model.as_deref())?;
    let request = request(args, &bundle, prompt)?;
    request.check(&bundle)?;
    let outputs = paths(&args.output, request.count);
    let saved = args.save_latents.as_deref().map_or(Vec::new(), |path| paths(path, request.count));
    outputs.iter().chain(&saved).try_for_each(|path| output::check(path))?;

    let loras = args.lora.iter().map(|lora| Lora::open(&lora.path, lora.strength));
    let loras = loras.collect::<Result<Vec<_>, _>>()?;
    resources.adapters = Arc::new(lora::adapters(&bundle, &loras)?);
    let decoder = args.vae.as_deref().map(model::decoder).transpose()?;

    let (count, pulse) = (resources.threads.count(), resources.pulse.clone());
    let mut pipeline = TextToImage::new(bundle.clone(), resources);
    if let Some(decoder) = &decoder {
        pipeline = pipeline.with_decoder(decoder.clone())?;
    }
    let images = pipeline.run(&request, &mut Course(Bar::of_run(request.steps, pulse)))?;
    let manifest = |image: &Image| Manifest {
        loras: loras.iter().map(UsedLora::from).collect(),
        vae: decoder.as_deref().map(UsedDecoder::from),
        ..Manifest::new(image, &request, &bundle)
    };
    let written = write(&images, &outputs, &saved, &manifest)?;
    if args.json {
        let total = start.elapsed().as_secs_f64();
        let report = report(&written, &path, &request, pipeline.seconds(), total, watch.peaks(), count);
        return print(&report.to_string());
    }
    written.iter().try_for_each(|w| print(&format!("{} (seed {})", w.path.display(), w.seed)))
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

fn request(args: &GenerateArgs, bundle: &Bundle, prompt: Prompt) -> Result<Request, CliError> {
    let picture = &args.picture;
    let mut request = Request::new(bundle, prompt, picture.seed.unwrap_or_else(random_seed))?;
    request.negative = Prompt::new(picture.negative.clone()).map_err(RequestError::from)?;
    request.size.width_px = picture.width.unwrap_or(request.size.width_px);
    request.size.height_px = picture.height.unwrap_or(request.size.height_px);
    request.steps = picture.steps.unwrap_or(request.steps);
    if let Some(scale) = picture.guidance {
        request.guidance_scale = GuidanceScale::new(scale).map_err(RequestError::from)?;
    }
    request.guidance_interval = args.guidance_interval;
    request.eta = args.eta;
    request.sampler = picture.sampler.unwrap_or(request.sampler);
    request.count = args.count;
    request.latents = args.latents.as_deref().map(read_latents).transpose()?;
    Ok(request)
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

/// `a.png` for one picture, `a-1.png`, `a-2.png`, ... for several.
fn paths(path: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![path.to_owned()];
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    (1..=count).map(|n| path.with_file_name(format!("{stem}-{n}{extension}"))).collect()
}

fn write(
    images: &[Image],
    outputs: &[PathBuf],
    saved: &[PathBuf],
    manifest: &dyn Fn(&Image) -> Manifest,
) -> Result<Vec<Written>, CliError> {
    for (image, path) in images.iter().zip(saved) {
        output::write_atomically(path, &arrays::to_npy(&image.latents.shape(), image.latents.values()))?;
    }
    let pictures = images.iter().zip(outputs);
    pictures
        .map(|(image, path)| {
            let texts = manifest(image).texts();
            let sha256 = output::write_png(path, &image.pixels, &texts)?;
            Ok(Written { path: path.clone(), seed: image.seed, sha256 })
        })
        .collect()
}

fn report(
    written: &[Written],
    model: &Path,
    request: &Request,
    seconds: Seconds,
    total: f64,
    peaks: Peaks,
    threads: usize,
) -> serde_json::Value {
    let images = written.iter().map(|w| json!({ "path": w.path, "seed": w.seed, "sha256": w.sha256 }));
    json!({
        "images": images.collect::<Vec<_>>(),
        "model": model,
        "width": request.size.width_px,
        "height": request.size.height_px,
        "steps": request.steps,
        "sampler": request.sampler.name(),
        "seconds": {
            "load": seconds.load,
            "text": seconds.text,
            "denoise": seconds.denoise,
            "decode": seconds.decode,
            "total": total,
        },
        "peak_anon_bytes": peaks.anon_bytes,
        "peak_rss_bytes": peaks.rss_bytes,
        "kernel_level": Level::detect().name(),
        "threads": threads,
    })
}

/// Shows the course of a run.
struct Course(Bar);

impl Progress for Course {
    fn truncated(&mut self, dropped: &str) {
        log::warn!("the prompt is longer than the model's context, this part has no effect: {dropped:?}");
    }

    fn step(&mut self, step: Step) {
        self.0.set(step.done, step.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered_before_the_extension() {
        let names = paths(Path::new("x/a.png"), 2);
        assert_eq!(names, [PathBuf::from("x/a-1.png"), "x/a-2.png".into()]);
        assert_eq!(paths(Path::new("a"), 2)[1], PathBuf::from("a-2"));
        assert_eq!(paths(Path::new("a.png"), 1), [PathBuf::from("a.png")]);
    }
}
