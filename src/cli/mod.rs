//! The command line: flags to requests, results to text or JSON, errors to one line each and an exit code.

mod additions;
mod args;
mod arrays;
mod bar;
mod bench;
mod checkpoint;
mod client;
mod course;
mod daemon_args;
mod embed;
mod environment;
mod error;
mod explain;
mod generate;
mod import;
mod inspect;
mod lora_arg;
mod memory;
mod model;
mod picture_args;
mod pixels;
mod places;
mod preview;
mod print;
mod quantity;
mod rank;
mod replay;
mod results;
mod run;
mod selftest;
mod serve;
mod sigbus;
mod terminal;
mod unclip_args;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Args, Command};
use error::CliError;

/// Runs the program.
pub fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format(|out, record| writeln!(out, "{}: {}", record.level().as_str().to_lowercase(), record.args()))
        .filter_module("tract", log::LevelFilter::Error)
        .init();
    sigbus::install();
    let command = Args::parse().command;
    match environment::check().and_then(|()| command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", crate::error::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// The command line, for what makes the manual pages and the completions of it.
#[doc(hidden)]
pub fn command() -> clap::Command {
    Args::command()
}

impl Command {
    fn run(self) -> Result<(), CliError> {
        match self {
            Self::Generate(args) => generate::generate(&args),
            Self::Import(args) => import::import(&args),
            Self::Inspect(args) => inspect::inspect(&args),
            Self::Verify(args) => inspect::verify(&args),
            Self::Run(args) => run::run(&args),
            Self::Replay(args) => replay::replay(&args),
            Self::Embed(args) => embed::embed(&args),
            Self::Rank(args) => rank::rank(&args),
            Self::Explain(args) => explain::explain(&args),
            Self::Selftest(args) => selftest::selftest(&args),
            Self::Bench(args) => bench::bench(&args),
            Self::Serve(args) => serve::serve(&args),
            Self::Submit(args) => client::submit(&args),
            Self::Watch(args) => client::watch(&args),
            Self::Status(args) => client::status(&args),
            Self::Cancel(args) => client::cancel(&args),
            Self::Screen(args) => client::screen(&args),
        }
    }
}
