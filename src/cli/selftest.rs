//! `tintype selftest`: whether this very board computes what the model's maker computed, and what the board is: one screen
//! for a report.
//!
//! A model file may carry, for each component, inputs and the outputs that the framework it was trained in gave for them:
//! `selftest/NAME.npz`, taken over at import from `NAME/reference.npz`. Each is run in f32 arithmetic and in the board's own.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::args::SelftestArgs;
use super::arrays;
use super::error::CliError;
use super::model;
use super::print::print;
use crate::bundle::{Bundle, ComponentEntry, Dtype};
use crate::engine::{Component, Resources};
use crate::import::Deviation;
use crate::kernels::{Arithmetic, Level};
use crate::machine::{self, Clock, ReadSpeed};

/// How far a component is from its reference.
struct Outcome {
    component: &'static str,
    arithmetic: Arithmetic,
    relative_l2: f64,
    bound: f64,
}

impl Outcome {
    fn passed(&self) -> bool {
        self.relative_l2 <= self.bound
    }
}

/// What the board is, and how it is.
struct Board {
    name: String,
    available_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    celsius: Option<f64>,
    clock: Option<Clock>,
    throttling: Option<Vec<&'static str>>,
    storage: Option<ReadSpeed>,
}

/// Runs each component that has a reference, and says how far off it is.
///
/// # Errors
/// - [`CliError::Selftest`] if one is too far off.
/// - [`CliError::Tensors`] if the model carries no reference, or one that is damaged.
pub fn selftest(args: &SelftestArgs) -> Result<(), CliError> {
    let path = model::find(args.file.as_deref())?;
    // Before the file is mapped, which would keep it in memory.
    let storage = machine::read_speed(&path);
    let (path, bundle) = model::open(Some(&path))?;
    let resources = Resources::new(model::threads(args.threads)?);
    let outcomes = outcomes(&path, &bundle, &resources)?;
    let board = Board::new(storage);
    let mut failed: Vec<&str> = outcomes.iter().filter(|o| !o.passed()).map(|o| o.component).collect();
    failed.dedup();
    if args.json {
        let report = json!({
            "model": path,
            "kernel_level": Level::detect().name(),
            "arithmetic": resources.arithmetic.name(),
            "threads": resources.threads.count(),
            "passed": failed.is_empty(),
            "components": outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
            "board": board.to_json(),
        });
        print(&report.to_string())?;
    } else {
        let (version, target) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let (level, arithmetic) = (Level::detect().name(), resources.arithmetic.name());
        let threads = resources.threads.count();
        print(&format!(
            "tintype    {version} for {target}, level {level}, arithmetic {arithmetic}, {threads} threads"
        ))?;
        print(&board.to_text())?;
        print(&format!("model      {}, {}", bundle.pipeline().name, bundle.model_hash()))?;
        for outcome in &outcomes {
            print(&outcome.to_text())?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Selftest(failed.join(", "))) }
}

fn outcomes(path: &Path, bundle: &Arc<Bundle>, resources: &Resources) -> Result<Vec<Outcome>, CliError> {
    let wrong = |reason| CliError::Tensors { path: path.to_owned(), reason };
    let mut tried = vec![Arithmetic::F32, resources.arithmetic];
    tried.dedup();
    let mut outcomes = Vec::new();
    for entry in &bundle.header().components {
        let Some(reference) = bundle.file(&file_name(entry)) else { continue };
        for &arithmetic in &tried {
            let resources = Resources { arithmetic, ..resources.clone() };
            outcomes.push(outcome(bundle, entry, reference, &resources, &wrong)?);
        }
    }
    match outcomes.is_empty() {
        true => Err(wrong("it carries no references: import it from a folder that has them".into())),
        false => Ok(outcomes),
    }
}

impl Outcome {
    fn to_json(&self) -> Value {
        let Self { component, relative_l2, bound, .. } = self;
        let (arithmetic, passed) = (self.arithmetic.name(), self.passed());
        json!({ "component": component, "arithmetic": arithmetic, "relative_l2": relative_l2, "bound": bound, "passed": passed })
    }

    fn to_text(&self) -> String {
        let Self { component, relative_l2, bound, .. } = self;
        let (arithmetic, verdict) = (self.arithmetic.name(), if self.passed() { "" } else { ": FAILED" });
        format!("{component:<15} in {arithmetic} off by {relative_l2:.1e}, at most {bound:.0e}{verdict}")
    }
}

impl Board {
    fn new(storage: Option<ReadSpeed>) -> Self {
        Self {
            name: machine::board().unwrap_or_else(|| "without a device tree".into()),
            available_bytes: machine::available_bytes(),
            memory_bytes: machine::memory_bytes(),
            celsius: machine::hottest(Path::new(machine::THERMAL)),
            clock: machine::clock(),
            throttling: machine::throttling(),
            storage,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "memory_bytes": self.memory_bytes,
            "available_bytes": self.available_bytes,
            "page_bytes": machine::page_bytes(),
            "celsius": self.celsius,
            "clock_mhz": self.clock.map(|clock| clock.now_mhz),
            "clock_max_mhz": self.clock.map(|clock| clock.max_mhz),
            "throttling": self.throttling,
            "storage_bytes_per_s": self.storage.map(|speed| speed.bytes as f64 / speed.seconds),
        })
    }

    /// A line for each; what the system does not tell is said to be unknown.
    fn to_text(&self) -> String {
        let told = |told: Option<String>| told.unwrap_or_else(|| "unknown".into());
        let gigabytes = |bytes: Option<u64>| told(bytes.map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9)));
        let (available, memory) = (gigabytes(self.available_bytes), gigabytes(self.memory_bytes));
        let page = machine::page_bytes() / 1024;
        let celsius = told(self.celsius.map(|celsius| format!("{celsius:.1} C")));
        let clock = told(self.clock.map(|clock| format!("{} of {} MHz", clock.now_mhz, clock.max_mhz)));
        let throttling = told(self.throttling.as_ref().map(|complaints| match complaints.is_empty() {
            true => "none".into(),
            false => complaints.join(", "),
        }));
        let storage = told(self.storage.map(|speed| {
            let megabytes = speed.bytes as f64 / 1e6;
            format!("{:.0} MB/s over {megabytes:.0} MB of the model", megabytes / speed.seconds)
        }));
        [
            format!("board      {}", self.name),
            format!("memory     {available} of {memory} available, pages of {page} KiB"),
            format!("heat       {celsius}, clock {clock}, throttling {throttling}"),
            format!("storage    {storage}"),
        ]
        .join("\n")
    }
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
    let (arithmetic, relative_l2) = (resources.arithmetic, deviation.relative_l2());
    Ok(Outcome { component, arithmetic, relative_l2, bound: bound(entry, has_f16_maps) })
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
