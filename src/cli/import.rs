//! `tintype import`.

use serde_json::Value;

use super::args::{ImportArgs, PredictionArg, WeightsArg};
use super::bar::Bar;
use super::error::CliError;
use super::print::print;
use crate::import::{self, Options, Precision, Prediction};
use crate::output;

/// Imports a model, and says what became of it.
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
    let prediction = args.prediction_type.map(|prediction| match prediction {
        PredictionArg::Epsilon => Prediction::Epsilon,
        PredictionArg::VPrediction => Prediction::Velocity,
    });
    let options = Options { precision, measure: args.measure, prediction };
    let bar = Bar::new("weights");
    let report =
        import::import(&args.source, &args.output, options, &mut |done, total| bar.set(done, total))?;
    drop(bar);
    if args.json {
        return print(&serde_json::json!({ "file": args.output, "report": report }).to_string());
    }
    described(&report.to_json()).iter().try_for_each(|line| print(line))?;
    print(&format!("{}", args.output.display()))
}

/// A report as it lies in a model file, a line for each of its parts; what it does not have is left out.
pub fn described(report: &Value) -> Vec<String> {
    let off = |difference: &Value| {
        let relative_l2 = difference["relative_l2"].as_f64()?;
        let psnr = difference["psnr_db"].as_f64().map_or(String::new(), |psnr| format!(" ({psnr:.1} dB)"));
        Some(format!("off by {relative_l2:.1e}{psnr}"))
    };
    let component = |part: &Value| {
        let count = |key: &str| part["numbers"][key].as_u64().unwrap_or(0);
        let mut line = format!(
            "{:<15} {:>4} operations; {} int8, {} f16, {} f32 numbers",
            part["component"].as_str().unwrap_or(""),
            part["operations"].as_u64().unwrap_or(0),
            count("i8"),
            count("f16"),
            count("f32"),
        );
        for what in ["weights", "output"] {
            line += &off(&part[what]).map_or(String::new(), |off| format!("; {what} {off}"));
        }
        line
    };
    let components = report["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let picture = off(&report["picture"]).map(|off| format!("a picture          {off}"));
    components.iter().map(component).chain(picture).collect()
}
