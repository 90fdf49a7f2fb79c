//! `tintype inspect` and `tintype verify`: what a model file holds, and whether it is whole.

use std::sync::Arc;

use serde_json::json;

use super::args::{InspectArgs, VerifyArgs};
use super::error::CliError;
use super::import;
use super::model;
use super::print::print;
use crate::bundle::{self, Bundle, BundleError, ComponentEntry};
use crate::engine::{EngineError, Footprint, Resources};
use crate::pipeline::{Size, footprints};

/// Shows what a model file holds.
///
/// # Errors
/// - [`CliError::Model`] if it cannot be opened.
/// - [`CliError::Engine`] if it does not fit into the memory that is allowed.
pub fn inspect(args: &InspectArgs) -> Result<(), CliError> {
    let bundle = Arc::new(Bundle::open(&args.file)?);
    let memory_bytes = args.memory.map(|size| size.0);
    let resources = Resources { memory_bytes, ..Resources::new(model::threads(None)?) };
    let planned = planned(&bundle, &resources)?;
    if args.json {
        let planned: serde_json::Map<_, _> =
            planned.iter().map(|(component, plan)| (component.name().to_owned(), json!(plan))).collect();
        let mut report = json!({ "file": args.file, "model_hash": bundle.model_hash(), "planned": planned });
        let header = serde_json::to_value(bundle.header()).expect("a header is JSON");
        if let (Some(report), serde_json::Value::Object(header)) = (report.as_object_mut(), header) {
            report.extend(header);
        }
        return print(&report.to_string());
    }
    let pipeline = bundle.pipeline();
    print(&format!("{} ({}), hash {}", pipeline.name, pipeline.kind, bundle.model_hash()))?;
    print(&format!(
        "  draws {} x {} px in {} steps of {}, guidance {}",
        pipeline.default_width_px,
        pipeline.default_height_px,
        pipeline.default_steps,
        pipeline.sampler,
        pipeline.default_guidance
    ))?;
    if let Some(base) = &pipeline.base {
        print(&format!("  with what else it needs from {} beside it, hash {}", base.file, base.model_hash))?;
    }
    for component in &bundle.header().components {
        print(&described(component))?;
    }
    for (component, plan) in &planned {
        let stripes = plan.stripe_rows.map_or(String::new(), |rows| format!(", in stripes of {rows} rows"));
        let megabytes = plan.peak_anon_bytes as f64 / 1e6;
        print(&format!("  {:<15} plans {megabytes:.1} MB of memory{stripes}", component.name()))?;
    }
    for line in pipeline.report.iter().flat_map(import::described) {
        print(&format!("  {line}"))?;
    }
    for file in &bundle.header().files {
        print(&format!("  {:<42} {:>10} bytes", file.name, file.blob.len))?;
    }
    for licence in &bundle.header().licences {
        print(&format!("  licence of {}: {}", licence.name, licence.spdx))?;
    }
    Ok(())
}

/// What each component that can be planned will take for a picture of the model's own size.
fn planned(
    bundle: &Arc<Bundle>,
    resources: &Resources,
) -> Result<Vec<(bundle::Component, Footprint)>, EngineError> {
    let size = Size::of_model(bundle.pipeline());
    let mut planned = Vec::new();
    for component in bundle.header().components.iter().map(|entry| entry.name) {
        match footprints(bundle, &[component], size, resources) {
            Ok(plans) => planned.extend(plans.into_iter().map(|plan| (component, plan))),
            Err(error @ EngineError::Memory { .. }) => return Err(error),
            Err(error) => log::warn!("{error}"),
        }
    }
    Ok(planned)
}

fn described(component: &ComponentEntry) -> String {
    let bytes: u64 = component.tensors.iter().map(|t| t.blob().len).sum();
    let numbers: usize = component.tensors.iter().map(|t| t.shape().iter().product::<usize>()).sum();
    let name = component.name.name();
    format!("  {name:<15} {:>4} tensors, {numbers:>11} numbers, {bytes:>12} bytes", component.tensors.len())
}

/// Checks every checksum.
///
/// # Errors
/// [`CliError::Model`], naming the first part that is damaged.
pub fn verify(args: &VerifyArgs) -> Result<(), CliError> {
    let damaged = |source| BundleError::File { path: args.file.clone(), source: Box::new(source) };
    let bundle = Bundle::open(&args.file)?;
    bundle.verify().map_err(damaged)?;
    print(&format!("{}: every checksum is right", args.file.display()))?;
    let (Some(base), Some(named)) = (bundle.base(), &bundle.pipeline().base) else { return Ok(()) };
    let path = args.file.with_file_name(&named.file);
    base.verify().map_err(|source| BundleError::File { path: path.clone(), source: Box::new(source) })?;
    print(&format!("{}: every checksum is right", path.display()))
}
