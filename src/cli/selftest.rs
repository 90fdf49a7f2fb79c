//! `tintype selftest`: whether this very board computes what the model's maker computed.
//!
//! A model file may carry, for each component, inputs and the outputs that the framework it was trained in gave for them:
//! `selftest/NAME.npz`, taken over at import from `NAME/reference.npz`.

use std::sync::Arc;

use serde_json::json;

use super::args::SelftestArgs;
use super::arrays;
use super::error::CliError;
use super::model;
use super::print::print;
use crate::bundle::{Bundle, ComponentEntry, Dtype};
use crate::engine::{Component, Resources};
use crate::import::Deviation;
use crate::kernels::Level;

/// How far a component is from its reference.
struct Outcome {
    component: &'static str,
    relative_l2: f64,
    bound: f64,
}

impl Outcome {
    fn passed(&self) -> bool {
        self.relative_l2 <= self.bound
    }
}

/// Runs each component that has a reference, and says how far off it is.
///
/// # Errors
/// - [`CliError::Selftest`] if one is too far off.
/// - [`CliError::Tensors`] if the model carries no reference, or one that is damaged.
pub fn selftest(args: &SelftestArgs) -> Result<(), CliError> {
    let (path, bundle) = model::open(args.file.as_deref())?;
    let resources = Resources::new(model::threads(args.threads)?);
    let wrong = |reason| CliError::Tensors { path: path.clone(), reason };
    let mut outcomes = Vec::new();
    for entry in &bundle.header().components {
        if let Some(reference) = bundle.file(&file_name(entry)) {
            outcomes.push(outcome(&bundle, entry, reference, &resources, &wrong)?);
        }
    }
    if outcomes.is_empty() {
        return Err(wrong("it carries no references: import it from a folder that has them".into()));
    }
    let failed: Vec<&str> = outcomes.iter().filter(|o| !o.passed()).map(|o| o.component).collect();
    if args.json {
        let component = |o: &Outcome| json!({ "component": o.component, "relative_l2": o.relative_l2, "bound": o.bound, "passed": o.passed() });
        let report = json!({
            "model": path,
            "kernel_level": Level::detect().name(),
            "threads": resources.threads.count(),
            "passed": failed.is_empty(),
            "components": outcomes.iter().map(component).collect::<Vec<_>>(),
        });
        print(&report.to_string())?;
    } else {
        print(&format!("{}, {} threads", Level::detect().name(), resources.threads.count()))?;
        for Outcome { component, relative_l2, bound } in &outcomes {
            print(&format!("{component:<15} off by {relative_l2:.1e}, at most {bound:.0e}"))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Selftest(failed.join(", "))) }
}

fn file_name(entry: &ComponentEntry) -> String {
    format!("selftest/{}.npz", entry.name.name())
}

fn outcome(
    bundle: &Arc<Bundle>,
    entry: &ComponentEntry,
    reference: &[u8],
    resources: &Resources,
    wrong: &impl Fn(String) -> CliError,
) -> Result<Outcome, CliError> {
    let component = entry.name.name();
    let in_file = |reason: String| wrong(format!("{}: {reason}", file_name(entry)));
    let mut network = Component::load(bundle, entry.name, resources)?;
    let names = network.inputs().iter().map(|input| input.name.as_str());
    let inputs = arrays::from_npz(reference, names).map_err(in_file)?;
    let has_f16_maps = network.prepare(&inputs)?.f16_maps;
    let outputs = network.run(&inputs)?;
    let names = outputs.iter().map(|output| output.name.as_str());
    let expected = arrays::from_npz(reference, names).map_err(in_file)?;
    if expected.is_empty() {
        return Err(in_file("it has none of the component's outputs".into()));
    }
    let mut deviation = Deviation::default();
    for expected in &expected {
        let got =
            outputs.iter().find(|output| output.name == expected.name).expect("it was looked up by name");
        if got.shape != expected.shape {
            return Err(in_file(format!(
                "`{}` has shape {:?}, not {:?}",
                got.name, expected.shape, got.shape
            )));
        }
        deviation.add(&expected.values, got.values.iter().copied());
    }
    Ok(Outcome { component, relative_l2: deviation.relative_l2(), bound: bound(entry, has_f16_maps) })
}

/// How far off the precision of weights, and of maps where they are kept in stripes, lets a component be.
fn bound(entry: &ComponentEntry, has_f16_maps: bool) -> f64 {
    let has = |dtype| entry.tensors.iter().any(|tensor| tensor.dtype() == dtype);
    if has(Dtype::I8) {
        6e-2
    } else if has(Dtype::F16) || has_f16_maps {
        5e-3
    } else {
        1e-4
    }
}
