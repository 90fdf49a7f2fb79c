//! The flags of the daemon and its clients, as they are typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use super::args::ResourceArgs;
use super::picture_args::PictureArgs;
use super::quantity::MemorySize;
use crate::machine::THERMAL;

#[derive(Debug, Parser)]
pub struct ServeArgs {
    /// Where to listen; a socket that the system hands over comes first [default: $TINTYPE_SOCKET, or tintype.sock in
    /// $XDG_RUNTIME_DIR or /run/tintype]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The folder with the models, *.tintype [default: where `generate` finds its model]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// The folder for jobs and pictures [default: $STATE_DIRECTORY, or tintype in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The model for requests that name none [default: emoji, or the first by name]
    #[arg(long, value_name = "NAME")]
    pub default_model: Option<String>,
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Memory that has to stay available to the rest of the machine
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    pub reserve_memory: MemorySize,
    /// Space that has to stay free on the disk of the state folder
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    pub reserve_disk: MemorySize,
    /// Begin no picture from this temperature on, in degrees Celsius
    #[arg(long, value_name = "C", default_value_t = 85.0)]
    pub max_temperature: f64,
    /// Where the kernel shows temperatures
    #[arg(long, value_name = "DIR", default_value = THERMAL, hide = true)]
    pub thermal: PathBuf,
    /// Finished jobs to keep
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub keep_jobs: usize,
    /// Bytes of pictures to keep
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub keep_bytes: MemorySize,
    /// Jobs that may wait, at most 255
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub queue: usize,
    /// Jobs of one user that may wait
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub queue_per_uid: usize,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Connections of one user at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub connections_per_uid: usize,
    /// The longest body of a request
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub max_body: MemorySize,
    /// The longest head of a request, at least 8KiB
    #[arg(long, value_name = "SIZE", default_value = "16KiB")]
    pub max_header: MemorySize,
    /// Seconds that the head of a request may take
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub header_timeout: f64,
    /// Seconds that the body of a request may take
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub body_timeout: f64,
    /// Seconds that the picture in hand may take when the daemon is to stop; then it is laid aside for the next start
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    pub drain: f64,
    /// Seconds after which the state of a picture is kept on disk, so that it can be gone on with
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub save_every: f64,
    /// A user who may ask, by number; may be given several times [default: whoever can open the socket]
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,
    /// Give out no picture that shows a concept of this file, a line each of a threshold and a sentence, by the models' image
    /// encoders; and no previews
    #[arg(long, value_name = "FILE")]
    pub block: Option<PathBuf>,
    /// Write prompts into the log
    #[arg(long)]
    pub log_prompts: bool,
}

/// Where a daemon is.
#[derive(Debug, clap::Args)]
pub struct SocketArg {
    /// The daemon's socket [default: $TINTYPE_SOCKET, or tintype.sock in $XDG_RUNTIME_DIR or /run/tintype]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Parser)]
pub struct SubmitArgs {
    /// What to draw; "" means no condition
    pub prompt: String,
    /// Wait for the picture and write it there
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub socket: SocketArg,
    /// The model's name
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Seconds within which the picture has to be there
    #[arg(long, value_name = "S")]
    pub timeout: Option<f64>,
    /// A key under which the same request is the same job, however often it is sent
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct WatchArgs {
    /// The job
    pub id: String,
    /// Write the picture there
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub socket: SocketArg,
    /// Print every event as a line of JSON on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct StatusArgs {
    /// The job [default: all of them, and how the daemon is]
    pub id: Option<String>,
    #[command(flatten)]
    pub socket: SocketArg,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct CancelArgs {
    /// The job
    pub id: String,
    #[command(flatten)]
    pub socket: SocketArg,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct ScreenArgs {
    /// Where the browser finds the page: an address of this machine alone
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8017")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub socket: SocketArg,
}
