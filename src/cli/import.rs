//! `tintype import`.

use super::args::{ImportArgs, WeightsArg};
use super::bar::Bar;
use super::error::CliError;
use super::generate::print;
use crate::import::{self, Precision};
use crate::output;

/// Imports a folder, and says what became of it.
///
/// # Errors
/// [`CliError`]; nothing is written then.
pub fn import(args: &ImportArgs) -> Result<(), CliError> {
    output::check(&args.output)?;
    let precision = match args.weights {
        WeightsArg::Int8 => Precision::Int8,
        WeightsArg::F16 => Precision::F16,
        WeightsArg::F32 => Precision::F32,
    };
    let bar = Bar::new("weights");
    let report =
        import::import(&args.source, &args.output, precision, &mut |done, total| bar.set(done, total))?;
    drop(bar);
    if args.json {
        return print(&serde_json::json!({ "file": args.output, "report": report }).to_string());
    }
    for part in &report.components {
        let numbers = part.numbers;
        print(&format!(
            "{:<15} {:>5} operations, {:>11} int8, {:>10} f16, {:>9} f32 numbers, int8 weights off by {:.2}%",
            part.component,
            part.operations,
            numbers.i8,
            numbers.f16,
            numbers.f32,
            100.0 * part.int8_weight_error,
        ))?;
    }
    print(&format!("{}", args.output.display()))
}
