//! Figures for Prometheus, in its text format.

use std::fmt::Write as _;

use super::Daemon;
use super::book::Counts;
use super::peers::Peers;
use crate::machine::{available_bytes, free_bytes, hottest};
use crate::process;

/// The format's media type.
pub const MIME: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All figures.
pub fn text(daemon: &Daemon, peers: &Peers) -> String {
    let mut page = Page(String::new());
    let (waiting, _, running) = daemon.desk.load();
    let Counts { accepted, done, failed, cancelled, steps } = daemon.desk.counts();
    page.gauge("queue_jobs", "Jobs that wait.", waiting as f64);
    page.gauge("running_jobs", "Jobs that are being drawn.", f64::from(u8::from(running.is_some())));
    page.gauge("connections", "Open connections.", peers.count() as f64);
    page.counter("jobs_accepted_total", "Jobs that were accepted.", accepted);
    page.head("jobs_ended_total", "Jobs that ended, by how.", "counter");
    for (state, count) in [("done", done), ("failed", failed), ("cancelled", cancelled)] {
        page.line("jobs_ended_total", &[("state", state)], count as f64);
    }
    page.counter("steps_total", "Steps of the sampler that were done.", steps);
    page.head("step_seconds", "Seconds for a step, as measured.", "gauge");
    for (kind, speed) in daemon.desk.speeds().all() {
        let size = format!("{}x{}", kind.width, kind.height);
        page.line("step_seconds", &[("model", &kind.model), ("size", &size)], speed.per_step);
    }
    let memory = process::resident();
    page.gauge("memory_anonymous_bytes", "Anonymous memory of the daemon.", memory.anon_bytes as f64);
    page.gauge("memory_file_bytes", "Pages of mapped files that are resident.", memory.file_bytes as f64);
    page.counter(
        "faults_major_total",
        "Page faults that had to read from the disk.",
        process::major_faults(),
    );
    page.gauge("uptime_seconds", "Since the daemon began.", daemon.begun.elapsed().as_secs_f64());
    let machine = [
        (
            "memory_available_bytes",
            "Memory that the machine could give.",
            available_bytes().map(|b| b as f64),
        ),
        ("disk_free_bytes", "Free space for the state.", free_bytes(daemon.store.root()).map(|b| b as f64)),
        ("temperature_celsius", "The hottest place.", hottest(&daemon.settings.reserve.thermal)),
    ];
    for (name, help, value) in machine {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
    page.0
}

/// Lines of figures.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP tintype_{name} {help}\n# TYPE tintype_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "tintype_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(name, &[], value as f64);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_format() {
        let mut page = Page(String::new());
        page.counter("a_total", "What.", 3);
        page.line("b", &[("model", "x\"y"), ("size", "1x2")], 0.5);
        let expected = "# HELP tintype_a_total What.\n# TYPE tintype_a_total counter\ntintype_a_total 3\n\
                        tintype_b{model=\"x\\\"y\",size=\"1x2\"} 0.5\n";
        assert_eq!(page.0, expected);
    }
}
