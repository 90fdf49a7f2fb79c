//! `tintype submit`, `watch`, `status`, `cancel` and `screen`: the daemon's own clients.

use std::path::Path;

use super::bar::Bar;
use super::daemon_args::{CancelArgs, ScreenArgs, SocketArg, StatusArgs, SubmitArgs, WatchArgs};
use super::error::CliError;
use super::places;
use super::print::print;
use super::serve::seconds;
use crate::client::{Client, Screen};
use crate::output;
use crate::protocol::{Event, EventLine, JobRequest, JobState, JobView};

/// Hands a job in; with an output, waits for the picture.
///
/// # Errors
/// [`CliError`].
pub fn submit(args: &SubmitArgs) -> Result<(), CliError> {
    if let Some(path) = &args.output {
        output::check(path)?;
    }
    let timeout = args.timeout.map(|timeout| seconds("--timeout", timeout)).transpose()?;
    let picture = &args.picture;
    let request = JobRequest {
        prompt: args.prompt.clone(),
        negative: picture.negative.clone(),
        model: args.model.clone(),
        width: picture.width,
        height: picture.height,
        steps: picture.steps,
        guidance: picture.guidance,
        seed: picture.seed,
        sampler: picture.sampler.map(|sampler| sampler.name().to_owned()),
        timeout_ms: timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        ..JobRequest::default()
    };
    let client = client(&args.socket)?;
    let job = client.submit(&request, args.key.as_deref())?;
    let Some(path) = &args.output else { return tell(&job, args.json) };
    follow(&client, &job.id, |_| ())?;
    fetch(&client, &job.id, path)?;
    match args.json {
        true => tell(&client.job(&job.id)?, true),
        false => print(&format!("{} (seed {})", path.display(), job.seed)),
    }
}

/// Follows a job to its end; with an output, fetches its picture.
///
/// # Errors
/// [`CliError`]; among others, that the job has no picture.
pub fn watch(args: &WatchArgs) -> Result<(), CliError> {
    if let Some(path) = &args.output {
        output::check(path)?;
    }
    let client = client(&args.socket)?;
    let mut printed = Ok(());
    follow(&client, &args.id, |line| {
        if args.json && printed.is_ok() {
            printed = print(&serde_json::to_string(line).expect("an event has string keys"));
        }
    })?;
    printed?;
    if let Some(path) = &args.output {
        fetch(&client, &args.id, path)?;
    }
    match &args.output {
        _ if args.json => Ok(()),
        Some(path) => print(&path.display().to_string()),
        None => tell(&client.job(&args.id)?, false),
    }
}

/// Shows a job, or all of them and how the daemon is.
///
/// # Errors
/// [`CliError`].
pub fn status(args: &StatusArgs) -> Result<(), CliError> {
    let client = client(&args.socket)?;
    if let Some(id) = &args.id {
        return tell(&client.job(id)?, args.json);
    }
    let mut all = client.get("/v1/health")?;
    let jobs = client.get("/v1/jobs")?["jobs"].take();
    if args.json {
        all["jobs"] = jobs;
        return print(&all.to_string());
    }
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let queue = &all["queue"];
    let [version, status] = [&all["version"], &all["status"]].map(text);
    print(&format!("tintype {version}: {status}, {} of {} places taken", queue["waiting"], queue["limit"]))?;
    let jobs: Vec<JobView> = serde_json::from_value(jobs).unwrap_or_default();
    jobs.iter().try_for_each(|job| tell(job, false))
}

/// Cancels a job.
///
/// # Errors
/// [`CliError`].
pub fn cancel(args: &CancelArgs) -> Result<(), CliError> {
    tell(&client(&args.socket)?.cancel(&args.id)?, args.json)
}

/// Serves the page for a kiosk's screen.
///
/// # Errors
/// [`CliError`], before anything is served.
pub fn screen(args: &ScreenArgs) -> Result<(), CliError> {
    let socket = places::socket_to_ask(args.socket.socket.as_deref());
    let mut printed = Ok(());
    Screen::serve(socket, args.listen, |address| printed = print(&format!("http://{address}/")))?;
    printed
}

fn client(socket: &SocketArg) -> Result<Client, CliError> {
    Ok(Client::new(&places::socket_to_ask(socket.socket.as_deref()))?)
}

/// Follows a job to the end, with a progress bar; an error if there is no picture then.
fn follow(client: &Client, id: &str, mut tell: impl FnMut(&EventLine)) -> Result<(), CliError> {
    let bar = Bar::new("steps");
    let end = client.watch(id, |line| {
        if let Event::Progress { step, steps } = line.event {
            bar.set(step, steps);
        }
        tell(line);
    })?;
    match end {
        Event::Failed { error } => Err(CliError::Job { id: id.to_owned(), error }),
        Event::Cancelled => Err(CliError::Cancelled(id.to_owned())),
        _ => Ok(()),
    }
}

fn fetch(client: &Client, id: &str, path: &Path) -> Result<(), CliError> {
    Ok(output::write_atomically(path, &client.image(id)?)?)
}

/// A job on one line.
fn tell(job: &JobView, json: bool) -> Result<(), CliError> {
    if json {
        return print(&serde_json::to_string(job).expect("a job has string keys"));
    }
    let JobView { id, step, steps, seed, .. } = job;
    let stands = match job.state {
        JobState::Queued => {
            let eta =
                job.eta_ms.map_or_else(String::new, |eta| format!(", {:.1} s to go", eta as f64 / 1000.0));
            format!("queued, {} before it{eta}", job.position.unwrap_or(0))
        }
        JobState::Running => format!("running, step {step} of {steps}"),
        JobState::Done => "done".to_owned(),
        JobState::Failed => {
            let error = job.error.as_ref().map_or("", |error| error.message.as_str());
            format!("failed: {error}")
        }
        JobState::Cancelled => "cancelled".to_owned(),
    };
    print(&format!("{id}  {stands}  (seed {seed})"))
}
