//! `tintype inspect` and `tintype verify`: what a model file holds, and whether it is whole.

use serde_json::json;

use super::args::{InspectArgs, VerifyArgs};
use super::error::CliError;
use super::generate::print;
use crate::bundle::{Bundle, BundleError, ComponentEntry};

/// Shows what a model file holds.
///
/// # Errors
/// [`CliError::Model`] if it cannot be opened.
pub fn inspect(args: &InspectArgs) -> Result<(), CliError> {
    let bundle = Bundle::open(&args.file)?;
    if args.json {
        let mut report = json!({ "file": args.file, "model_hash": bundle.model_hash() });
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
    for component in &bundle.header().components {
        print(&described(component))?;
    }
    for file in &bundle.header().files {
        print(&format!("  {:<42} {:>10} bytes", file.name, file.blob.len))?;
    }
    for licence in &bundle.header().licences {
        print(&format!("  licence of {}: {}", licence.name, licence.spdx))?;
    }
    Ok(())
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
    Bundle::open(&args.file)?.verify().map_err(damaged)?;
    print(&format!("{}: every checksum is right", args.file.display()))
}
