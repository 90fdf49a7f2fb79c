//! `tintype run`: one component on given tensors, for tests and for looking inside.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::RunArgs;
use super::arrays;
use super::error::CliError;
use super::model;
use super::print::print;
use crate::engine::{Component, NamedTensor, Resources, Tile};
use crate::output;

/// Runs a component.
///
/// # Errors
/// [`CliError`]; no output is written then.
pub fn run(args: &RunArgs) -> Result<(), CliError> {
    let kind = model::component(&args.component)?;
    let resources = Resources { tile: Tile::Off, ..Resources::new(model::threads(args.threads)?) };
    let (_, bundle) = model::open(Some(&args.file))?;
    let mut component = Component::load(&bundle, kind, &resources)?;
    output::check(&args.outputs)?;
    let inputs = read(&args.inputs, &component)?;
    let start = Instant::now();
    let outputs = component.run(&inputs)?;
    let seconds = start.elapsed().as_secs_f64();
    output::write_atomically(&args.outputs, &arrays::to_npz(&outputs))?;
    if args.json {
        let shapes =
            outputs.iter().map(|o| (o.name.clone(), json!(o.shape))).collect::<serde_json::Map<_, _>>();
        let report = json!({ "component": kind.name(), "seconds": seconds, "outputs": shapes, "threads": resources.threads.count() });
        return print(&report.to_string());
    }
    outputs.iter().try_for_each(|o| print(&format!("{} {:?}", o.name, o.shape)))
}

fn read(path: &Path, component: &Component) -> Result<Vec<NamedTensor>, CliError> {
    let bytes = std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let names = component.inputs().iter().map(|input| input.name.as_str());
    arrays::from_npz(&bytes, names).map_err(|reason| CliError::Tensors { path: path.to_owned(), reason })
}
