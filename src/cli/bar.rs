//! A progress bar on a terminal, nothing on a pipe.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that appears with the first step.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for work that is counted in `unit`.
    pub fn new(unit: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{elapsed}} / {{duration}}");
        let style = ProgressStyle::with_template(&template).expect("the template is right");
        Self(ProgressBar::new(0).with_style(style))
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
