//! What came of a request: files, and what is said of them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::arrays;
use super::error::CliError;
use super::memory::Peaks;
use super::print::print;
use crate::bundle::Bundle;
use crate::kernels::Level;
use crate::output;
use crate::pipeline::{Additions, Blocked, Image, Manifest, Request, Seconds};

/// Where results go.
pub struct Places {
    output: PathBuf,
    latents: Option<PathBuf>,
    count: usize,
}

/// A picture that is on disk.
struct Written {
    path: PathBuf,
    seed: u64,
    sha256: String,
}

/// Pictures that are on disk, and those that nobody gets to see.
pub struct Results {
    written: Vec<Written>,
    blocked: Vec<Blocked>,
    /// Seed and score of all candidates, if the best was chosen.
    scores: Option<Vec<(u64, f32)>>,
}

/// What a pipeline has drawn.
pub struct Drawn {
    /// What was asked for.
    pub request: Request,
    /// Where the time went.
    pub seconds: Seconds,
    /// What was written.
    pub results: Results,
}

/// All that a report says beside the results.
pub struct Run<'a> {
    /// The model's file.
    pub model: &'a Path,
    /// What was asked for.
    pub request: &'a Request,
    /// Where the time went.
    pub seconds: Seconds,
    /// All of it.
    pub total: f64,
    /// Memory.
    pub peaks: Peaks,
    /// Threads.
    pub threads: usize,
}

impl Places {
    /// For so many pictures; latents only if they are wanted.
    ///
    /// # Errors
    /// [`CliError::Output`] if nothing can be written there.
    pub fn new(output: &Path, latents: Option<&Path>, count: usize) -> Result<Self, CliError> {
        let (output, latents) = (output.to_owned(), latents.map(Path::to_owned));
        let places = Self { output, latents, count };
        for path in std::iter::once(&places.output).chain(&places.latents) {
            (0..count).try_for_each(|at| output::check(&numbered(path, at, count)))?;
        }
        Ok(places)
    }

    /// Writes pictures to where they belong.
    ///
    /// # Errors
    /// [`CliError::Output`].
    pub fn write(
        &self,
        images: &[Image],
        blocked: &[Blocked],
        request: &Request,
        bundle: &Bundle,
        additions: &Additions,
    ) -> Result<Results, CliError> {
        let place = |path: &Path, image: &Image| numbered(path, image.at, self.count);
        for (image, path) in images.iter().zip(self.latents.iter().cycle()) {
            let bytes = arrays::to_npy(&image.latents.shape(), image.latents.values());
            output::write_atomically(&place(path, image), &bytes)?;
        }
        let write = |image: &Image| {
            let path = place(&self.output, image);
            let texts = Manifest::new(image, request, bundle, additions).texts();
            let sha256 = output::write_png(&path, &image.pixels.enlarged(request.scale), &texts)?;
            Ok::<_, CliError>(Written { path, seed: image.seed, sha256 })
        };
        let written = images.iter().map(write).collect::<Result<_, _>>()?;
        Ok(Results { written, blocked: blocked.to_vec(), scores: None })
    }
}

/// The path for one picture; `a-1.png`, `a-2.png`, ... for several.
fn numbered(path: &Path, at: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}-{}{extension}", at + 1))
}

impl Results {
    /// With the scores among which the best was chosen.
    pub fn with_scores(self, scores: Option<Vec<(u64, f32)>>) -> Self {
        Self { scores, ..self }
    }

    /// Says on standard output what was written, as JSON if `run` is given.
    ///
    /// # Errors
    /// [`CliError::Blocked`] if a picture is not given out; [`CliError::Stdout`].
    pub fn tell(&self, run: Option<&Run>) -> Result<(), CliError> {
        match run {
            Some(run) => print(&self.report(run).to_string())?,
            None => {
                let line = |w: &Written| format!("{} (seed {})", w.path.display(), w.seed);
                self.written.iter().try_for_each(|written| print(&line(written)))?;
            }
        }
        if self.blocked.is_empty() {
            return Ok(());
        }
        Err(CliError::Blocked(self.blocked.iter().map(described).collect::<Vec<_>>().join("; ")))
    }

    fn report(&self, run: &Run) -> Value {
        let image = |w: &Written| json!({ "path": w.path, "seed": w.seed, "sha256": w.sha256 });
        let Run { request, seconds, peaks, .. } = run;
        let mut report = json!({
            "images": self.written.iter().map(image).collect::<Vec<_>>(),
            "model": run.model,
            "width": request.size.width_px,
            "height": request.size.height_px,
            "steps": request.steps,
            "sampler": request.sampler.name(),
            "seconds": {
                "load": seconds.load,
                "text": seconds.text,
                "denoise": seconds.denoise,
                "decode": seconds.decode,
                "total": run.total,
            },
            "peak_anon_bytes": peaks.anon_bytes,
            "peak_rss_bytes": peaks.rss_bytes,
            "kernel_level": Level::detect().name(),
            "threads": run.threads,
        });
        if request.scale > 1 {
            report["scale"] = json!(request.scale);
        }
        if request.unclip.is_some() {
            report["seconds"]["prior"] = json!(seconds.prior);
        }
        if request.init.is_some() {
            report["seconds"]["encode"] = json!(seconds.encode);
        }
        if !self.blocked.is_empty() {
            report["blocked"] = json!(self.blocked);
        }
        if let Some(scores) = &self.scores {
            let score = |(seed, score): &(u64, f32)| json!({ "seed": seed, "score": score });
            report["best_of"] = scores.iter().map(score).collect();
        }
        report
    }
}

fn described(blocked: &Blocked) -> String {
    let concepts = blocked.concepts.iter().map(|finding| {
        format!("{} ({:.3}, and {:.3} is too much)", finding.concept, finding.score, finding.threshold)
    });
    format!(
        "the picture of seed {} is blocked: it shows {}",
        blocked.seed,
        concepts.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered_before_the_extension() {
        assert_eq!(numbered(Path::new("x/a.png"), 0, 2), PathBuf::from("x/a-1.png"));
        assert_eq!(numbered(Path::new("a"), 1, 2), PathBuf::from("a-2"));
        assert_eq!(numbered(Path::new("a.png"), 0, 1), PathBuf::from("a.png"));
    }
}
