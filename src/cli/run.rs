//! `tintype run`: one component on given tensors, for tests and for looking inside.

use std::io::Cursor;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::args::RunArgs;
use super::error::CliError;
use super::generate::print;
use super::model;
use crate::bundle;
use crate::engine::graph::InputType;
use crate::engine::{Component, NamedTensor};
use crate::output;

/// An archive of tensors, in memory.
type Archive = npyz::npz::NpzArchive<Cursor<Vec<u8>>>;

/// Runs a component.
///
/// # Errors
/// [`CliError`]; no output is written then.
pub fn run(args: &RunArgs) -> Result<(), CliError> {
    let kind = bundle::Component::from_name(&args.component).ok_or_else(|| {
        let names: Vec<&str> = bundle::Component::ALL.iter().map(|c| c.name()).collect();
        CliError::Usage(format!("there is no component `{}`, only {}", args.component, names.join(", ")))
    })?;
    let threads = model::threads(args.threads)?;
    let (_, bundle) = model::open(Some(&args.file))?;
    let mut component = Component::load(&bundle, kind, &threads)?;
    output::check(&args.outputs)?;
    let inputs = read(&args.inputs, &component)?;
    let start = Instant::now();
    let outputs = component.run(&inputs)?;
    let seconds = start.elapsed().as_secs_f64();
    output::write_atomically(&args.outputs, &archive(&outputs))?;
    if args.json {
        let shapes = outputs.iter().map(|o| (o.name.clone(), json!(o.shape))).collect::<serde_json::Map<_, _>>();
        let report = json!({ "component": kind.name(), "seconds": seconds, "outputs": shapes, "threads": threads.count() });
        return print(&report.to_string());
    }
    outputs.iter().try_for_each(|o| print(&format!("{} {:?}", o.name, o.shape)))
}

fn read(path: &Path, component: &Component) -> Result<Vec<NamedTensor>, CliError> {
    let wrong = |reason: String| CliError::Tensors { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let mut archive =
        Archive::new(Cursor::new(bytes)).map_err(|e| wrong(format!("not an .npz archive: {e}")))?;
    let mut tensors = Vec::new();
    for input in component.inputs() {
        if let Some(array) = archive.by_name(&input.name).map_err(|e| wrong(format!("{}: {e}", input.name)))? {
            let shape: Option<Vec<usize>> = array.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
            let shape = shape.ok_or_else(|| wrong(format!("{}: it is too large", input.name)))?;
            if array.order() != npyz::Order::C && shape.len() > 1 {
                return Err(wrong(format!("{} is in Fortran order", input.name)));
            }
            let values = match input.dtype {
                InputType::F32 => array.into_vec::<f32>(),
                InputType::I64 => array.into_vec::<i64>().map(|ids| ids.into_iter().map(|id| id as f32).collect()),
            };
            let values = values.map_err(|e| wrong(format!("{}: {e}", input.name)))?;
            tensors.push(NamedTensor::new(&input.name, &shape, values));
        }
    }
    Ok(tensors)
}

fn archive(tensors: &[NamedTensor]) -> Vec<u8> {
    use npyz::WriterBuilder as _;
    let mut writer = npyz::npz::NpzWriter::new(Cursor::new(Vec::new()));
    for tensor in tensors {
        let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
        let array = writer.array(&tensor.name, Default::default());
        let mut array = array
            .expect("memory can be written to")
            .default_dtype()
            .shape(&shape)
            .begin_nd()
            .expect("memory can be written to");
        array.extend(tensor.values.iter().copied()).expect("memory can be written to");
        array.finish().expect("there are as many values as the shape says");
    }
    writer.zip_writer().finish().expect("memory can be written to").into_inner()
}
