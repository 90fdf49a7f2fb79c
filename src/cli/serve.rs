//! `tintype serve`.

use std::path::PathBuf;
use std::time::Duration;

use super::daemon_args::ServeArgs;
use super::error::CliError;
use super::model;
use super::places;
use crate::pipeline::BlockList;
use crate::serve::{self, Keep, Limits, QUEUE_CAPACITY, QueueLimits, Reserve, Settings};

/// Serves until it is told to stop.
///
/// # Errors
/// [`CliError`], before anything is served.
pub fn serve(args: &ServeArgs) -> Result<(), CliError> {
    if !(1..QUEUE_CAPACITY).contains(&args.queue) {
        let most = QUEUE_CAPACITY - 1;
        return Err(CliError::Usage(format!("--queue {} is out of range: 1 to {most}", args.queue)));
    }
    let limits = Limits {
        body_bytes: args.max_body.0,
        header_bytes: args.max_header.0,
        connections: args.connections,
        connections_per_uid: args.connections_per_uid,
        header_time: seconds("--header-timeout", args.header_timeout)?,
        body_time: seconds("--body-timeout", args.body_timeout)?,
        queue: QueueLimits { total: args.queue, per_user: args.queue_per_uid },
    };
    let reserve = Reserve {
        memory_bytes: args.reserve_memory.0 as u64,
        disk_bytes: args.reserve_disk.0 as u64,
        celsius: args.max_temperature,
        thermal: args.thermal.clone(),
    };
    let settings = Settings {
        socket: places::socket_to_make(args.socket.as_deref()),
        models: models(args)?,
        state: places::state(args.state.as_deref())?,
        default_model: args.default_model.clone(),
        resources: model::resources(&args.resources)?,
        limits,
        reserve,
        keep: Keep { jobs: args.keep_jobs, bytes: args.keep_bytes.0 as u64 },
        allowed: args.allow_uid.clone(),
        drain: seconds("--drain", args.drain)?,
        save_every: seconds("--save-every", args.save_every)?,
        block: args.block.as_deref().map(BlockList::read).transpose()?,
        log_prompts: args.log_prompts,
    };
    Ok(serve::serve(settings)?)
}

/// The folder that was named, or that of the default model.
fn models(args: &ServeArgs) -> Result<PathBuf, CliError> {
    match &args.models {
        Some(folder) => Ok(folder.clone()),
        None => Ok(model::find(None)?.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)),
    }
}

/// A time that a flag gives.
///
/// # Errors
/// [`CliError::Usage`] for a time that is negative, or no number, or beyond a year.
pub fn seconds(flag: &str, seconds: f64) -> Result<Duration, CliError> {
    match seconds {
        0.0..=31_536_000.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(CliError::Usage(format!("{flag} {seconds} is out of range: 0 to a year, in seconds"))),
    }
}
