//! A progress bar on a terminal, nothing on a pipe.

use std::fmt::Write;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::engine::Pulse;

/// How often a bar shows what a run has come to.
const TICK: Duration = Duration::from_millis(200);

/// A bar that appears with the first step.
pub struct Bar(ProgressBar);

impl Bar {
    /// No bar.
    pub fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    /// A bar for work that is counted in `unit`.
    pub fn new(unit: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::none();
        }
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{elapsed}} / {{duration}}");
        let style = ProgressStyle::with_template(&template).expect("the template is right");
        Self(ProgressBar::new(0).with_style(style))
    }

    /// A bar for a run of so many steps, which on a small board take a minute each: the operations that a pulse counts are
    /// shown meanwhile.
    pub fn of_run(steps: usize, pulse: Pulse) -> Self {
        let bar = Self::new("steps, {operations} operations");
        if !bar.0.is_hidden() {
            let operations = move |_: &ProgressState, out: &mut dyn Write| {
                // A bar that cannot be drawn is none of the run's concern.
                let _ = write!(out, "{}", pulse.beats());
            };
            bar.0.set_style(bar.0.style().with_key("operations", operations));
            bar.0.enable_steady_tick(TICK);
            bar.0.set_length(steps as u64);
        }
        bar
    }

    /// `done` of `total` are done.
    pub fn set(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
