//! `tintype bench`: how long a component, or a whole picture, takes on this machine, and in how much memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::args::BenchArgs;
use super::error::CliError;
use super::memory::Watch;
use super::model;
use super::print::print;
use crate::bundle::{self, Bundle};
use crate::engine::{Component, Resources};
use crate::kernels::Level;
use crate::pipeline::{Request, RequestError, draw, example, example_prompt};
use crate::text::Prompt;

/// The most runs.
const REPEAT_MAX: usize = 1000;

/// Seconds of loading, and of each run after one that does not count.
struct Times {
    load: f64,
    runs: Vec<f64>,
}

/// Measures, and says what came out.
///
/// # Errors
/// [`CliError`].
pub fn bench(args: &BenchArgs) -> Result<(), CliError> {
    if !(1..=REPEAT_MAX).contains(&args.repeat) {
        return Err(CliError::Usage(format!("--repeat {} is out of range: 1 to {REPEAT_MAX}", args.repeat)));
    }
    let kind = args.component.as_deref().map(model::component).transpose()?;
    let resources = model::resources(&args.resources)?;
    let watch = Watch::start();
    let times = match kind {
        Some(kind) => component(args, kind, &resources)?,
        None => picture(args, &resources)?,
    };
    let peaks = watch.peaks();
    let name = kind.map_or("pipeline", bundle::Component::name);
    let median = median(&times.runs);
    if args.json {
        let report = json!({
            "component": name,
            "seconds": times.runs,
            "median_s": median,
            "load_s": times.load,
            "peak_anon_bytes": peaks.anon_bytes,
            "peak_file_bytes": peaks.file_bytes,
            "kernel_level": Level::detect().name(),
            "threads": resources.threads.count(),
        });
        return print(&report.to_string());
    }
    let (least, most) = times.runs.iter().fold((f64::MAX, 0.0f64), |(a, b), &s| (a.min(s), b.max(s)));
    print(&format!(
        "{name}: {median:.3} s (median of {}, {least:.3} to {most:.3}), ready in {:.3} s",
        times.runs.len(),
        times.load
    ))?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    print(&format!(
        "peaks: {:.1} MB anonymous, {:.1} MB of files; {}, {} threads",
        megabytes(peaks.anon_bytes),
        megabytes(peaks.file_bytes),
        Level::detect().name(),
        resources.threads.count()
    ))
}

fn component(args: &BenchArgs, kind: bundle::Component, resources: &Resources) -> Result<Times, CliError> {
    let start = Instant::now();
    let bundle = open(&args.file)?;
    let size = request(args, &bundle)?.size;
    let mut component = Component::load(&bundle, kind, resources)?;
    let inputs = example(&bundle, kind, component.inputs(), size);
    component.prepare(&inputs)?;
    let load = start.elapsed().as_secs_f64();
    let runs = measure(args.repeat, || Ok(component.run(&inputs).map(drop)?))?;
    Ok(Times { load, runs })
}

fn picture(args: &BenchArgs, resources: &Resources) -> Result<Times, CliError> {
    let start = Instant::now();
    let bundle = open(&args.file)?;
    let request = request(args, &bundle)?;
    let opened = start.elapsed().as_secs_f64();
    let mut loading = 0.0;
    let runs = measure(args.repeat, || {
        loading += draw(&bundle, resources, &request, &mut ())?.1.load;
        Ok(())
    })?;
    let loads = (args.repeat + 1) as f64;
    Ok(Times { load: opened + loading / loads, runs })
}

fn open(path: &Path) -> Result<Arc<Bundle>, CliError> {
    Ok(model::open(Some(path))?.1)
}

/// The model's own request, at the size that was asked for.
fn request(args: &BenchArgs, bundle: &Bundle) -> Result<Request, CliError> {
    let prompt = Prompt::new(example_prompt(bundle)).map_err(RequestError::from)?;
    let mut request = Request::new(bundle, prompt, 0)?;
    request.size.width_px = args.width.unwrap_or(request.size.width_px);
    request.size.height_px = args.height.unwrap_or(request.size.height_px);
    request.check(bundle)?;
    Ok(request)
}

/// Seconds of `repeat` runs, after one that warms caches and makes plans.
fn measure(repeat: usize, mut run: impl FnMut() -> Result<(), CliError>) -> Result<Vec<f64>, CliError> {
    run()?;
    (0..repeat)
        .map(|_| {
            let start = Instant::now();
            run()?;
            Ok(start.elapsed().as_secs_f64())
        })
        .collect()
}

/// The middle one; of two, their mean.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }
}
