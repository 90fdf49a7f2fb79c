//! `tintype explain`: how a picture comes about, on one sheet.

use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use super::args::{PipelineArg, ResourceArgs};
use super::bar::Bar;
use super::course::Course;
use super::error::CliError;
use super::generate::plain_request;
use super::picture_args::PictureArgs;
use super::print::print;
use super::{model, pixels};
use crate::bundle::PipelineKind;
use crate::output;
use crate::pipeline::{self, AttentionMap, Explanation, Request, RequestError};
use crate::sheet;
use crate::tensor::Rgb8;
use crate::text::Prompt;

/// The most steps that a sheet has room for.
const STEPS_MAX: usize = 50;

#[derive(Debug, Parser)]
pub struct ExplainArgs {
    /// What to draw; of a model of pixels the name of a class, or nothing
    pub prompt: Option<String>,
    /// Where the sheet goes
    #[arg(short, long, default_value = "sheet.png", value_name = "FILE")]
    pub output: PathBuf,
    /// The model file [default: as for generate]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// How the model is to draw, which it has to be made for: sd or pixels [default: the model's own]
    #[arg(long, value_enum, value_name = "NAME")]
    pub pipeline: Option<PipelineArg>,
    #[command(flatten)]
    pub picture: PictureArgs,
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Print the numbers behind the sheet as one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Draws a picture, and the sheet that shows how it came about.
///
/// # Errors
/// [`CliError`]; nothing is written then.
pub fn explain(args: &ExplainArgs) -> Result<(), CliError> {
    let resources = model::resources(&args.resources)?;
    let (path, bundle) = model::open_for(args.model.as_deref(), args.pipeline)?;
    let words = match bundle.pipeline().kind {
        PipelineKind::StableDiffusion | PipelineKind::StableDiffusionXl => {
            args.prompt.clone().ok_or(CliError::NoPrompt)?
        }
        PipelineKind::Pixels => {
            pixels::check_picture(&args.picture, &args.resources)?;
            args.prompt.clone().unwrap_or_default()
        }
        kind @ PipelineKind::Unclip => {
            let path = path.display();
            return Err(CliError::Usage(format!(
                "a sheet shows Stable Diffusion or a model of pixels, and {path} is a model of the kind {kind}: name another with --model"
            )));
        }
    };
    let prompt = Prompt::new(words).map_err(RequestError::from)?;
    let request = plain_request(&args.picture, &bundle, prompt, None)?;
    if request.steps > STEPS_MAX {
        let steps = request.steps;
        return Err(CliError::Usage(format!("a sheet shows every step, up to {STEPS_MAX}, and not {steps}")));
    }
    output::check(&args.output)?;
    let bar = Bar::of_run(request.steps, resources.pulse.clone());
    let mut course = Course { bar, preview: None, checkpoint: None };
    let explanation = pipeline::explain(&bundle, &resources, &request, &mut course)?;
    drop(course);

    let name = &bundle.pipeline().name;
    let title = if request.prompt.as_str().is_empty() { "(no prompt)" } else { request.prompt.as_str() };
    let drawn = sheet::draw(title, &subtitle(&request, name), &explanation);
    output::write_png(&args.output, &drawn, &[])?;
    if !args.json {
        return print(&format!("{} (seed {})", args.output.display(), request.seed));
    }
    let mut report = report(&request, &explanation, &drawn);
    (report["path"], report["model"]) = (json!(args.output), json!(path));
    print(&report.to_string())
}

/// How the picture was drawn.
fn subtitle(request: &Request, model: &str) -> String {
    let (Request { seed, steps, size, negative, .. }, sampler) = (request, request.sampler.name());
    let guidance = request.guidance_scale.get();
    let (width, height) = (size.width_px, size.height_px);
    let mut text = format!(
        "model {model}, {width} x {height} px, {steps} steps of {sampler}, guidance {guidance}, seed {seed}"
    );
    if !negative.as_str().is_empty() {
        text += &format!(", away from: {}", negative.as_str());
    }
    text
}

/// What was drawn, in numbers. Places are pixels of the picture, from its upper left corner.
fn report(request: &Request, explanation: &Explanation, sheet: &Rgb8) -> Value {
    let place = |map: &AttentionMap| {
        let (attention, [row, column]) = map.peak();
        let [rows, columns] = map.size();
        let middle = |cell: usize, cells: usize, side: usize| (2 * cell + 1) * side / (2 * cells);
        json!({
            "x": middle(column, columns, request.size.width_px),
            "y": middle(row, rows, request.size.height_px),
            "attention": attention,
        })
    };
    let step = |(at, step): (usize, &pipeline::Predicted)| json!({ "step": at + 1, "timestep": step.timestep, "similarity": step.similarity });
    json!({
        "path": null,
        "model": null,
        "seed": request.seed,
        "width": sheet.width_px(),
        "height": sheet.height_px(),
        "noise": explanation.noised.iter().map(|noised| noised.timestep).collect::<Vec<_>>(),
        "steps": explanation.trajectory.iter().enumerate().map(step).collect::<Vec<_>>(),
        "words": explanation.words.iter().flatten().map(|(word, map)| {
            json!({ "word": word, "peak": place(map) })
        }).collect::<Vec<_>>(),
    })
}
