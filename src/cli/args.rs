//! The flags of commands that draw, and of those for model files, as they are typed.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use super::daemon_args::{CancelArgs, ScreenArgs, ServeArgs, StatusArgs, SubmitArgs, WatchArgs};
use super::lora_arg::LoraArg;
use super::quantity::{MemorySize, TileArg};
use crate::denoise::guidance::GuidanceInterval;
use crate::pipeline::Sampler;

/// Pictures from words on small boards, offline.
#[derive(Debug, Parser)]
#[command(name = "tintype", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draw a picture from words
    Generate(GenerateArgs),
    /// Turn a model as others publish it into one model file: a folder of safetensors or of ONNX graphs, or a checkpoint
    Import(ImportArgs),
    /// Show what a model file holds
    Inspect(InspectArgs),
    /// Check every checksum of a model file
    Verify(VerifyArgs),
    /// Run one component of a model on given tensors
    Run(RunArgs),
    /// Say how alike sentences and pictures are
    Embed(EmbedArgs),
    /// Check that this board computes what the model's maker computed
    Selftest(SelftestArgs),
    /// Measure how long a component or a whole picture takes, and in how much memory
    Bench(BenchArgs),
    /// Draw pictures for whoever asks over a local socket
    Serve(ServeArgs),
    /// Ask a daemon for a picture
    Submit(SubmitArgs),
    /// Follow a job of a daemon to its end
    Watch(WatchArgs),
    /// Show the jobs of a daemon
    Status(StatusArgs),
    /// Cancel a job of a daemon
    Cancel(CancelArgs),
    /// Serve a page for a kiosk's screen, which asks a daemon for pictures
    Screen(ScreenArgs),
}

/// What a run may use of the machine.
#[derive(Debug, clap::Args)]
pub struct ResourceArgs {
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// The most anonymous memory to use, such as 300M or 256MiB; large maps are then worked on in stripes
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<MemorySize>,
    /// Decode in stripes of so many rows, which leave no seams; "off" for never, "auto" for where it saves memory,
    /// "blend:PX" for overlapping tiles, which do leave seams [default: auto]
    #[arg(long, value_name = "PX|auto|off")]
    pub tile: Option<TileArg>,
    /// Multiply in f32 alone, so that every machine gives the same bytes; slower where there are dot products of integers
    #[arg(long)]
    pub deterministic: bool,
}

/// What a picture is to be like, beside its prompt.
#[derive(Debug, clap::Args)]
pub struct PictureArgs {
    /// What to stay away from
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub negative: String,
    /// Steps of the sampler, 1 to 1000 [default: the model's own]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// How strictly to follow the prompt; 1 or less turns guidance off [default: the model's own]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub guidance: Option<f32>,
    /// How to get from noise to the picture [default: the model's own]
    #[arg(long, value_name = "NAME", value_parser = samplers())]
    pub sampler: Option<Sampler>,
    /// The seed; the same seed gives the same picture [default: a random one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Width in pixels [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub width: Option<usize>,
    /// Height in pixels [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub height: Option<usize>,
}

/// Reads a sampler's name.
fn samplers() -> impl TypedValueParser<Value = Sampler> {
    let names = PossibleValuesParser::new(Sampler::ALL.map(Sampler::name));
    names.try_map(|name| Sampler::from_name(&name).ok_or("no sampler has this name"))
}

/// Reads `FROM:TO`.
fn interval(text: &str) -> Result<GuidanceInterval, String> {
    let ends = text.split_once(':').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) = ends.ok_or("write it as two numbers from 0 to 1, such as 0.2:0.8")?;
    GuidanceInterval::new(from, to).map_err(|error| error.to_string())
}

#[derive(Debug, Parser)]
pub struct GenerateArgs {
    /// What to draw; asked for on a terminal if left out, and "" means no condition
    pub prompt: Option<String>,
    /// Where the picture goes; with --count, -1, -2, ... are added to the name
    #[arg(short, long, default_value = "out.png", value_name = "FILE")]
    pub output: PathBuf,
    /// The model file [default: $TINTYPE_MODEL, or emoji.tintype in ./models, beside the program, in
    /// /usr/share/tintype/models]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub picture: PictureArgs,
    /// How many pictures, with seeds from --seed on
    #[arg(short = 'n', long, default_value_t = 1, value_name = "COUNT")]
    pub count: usize,
    /// Have guidance only in this part of the steps, such as 0.2:0.8; the others take up to half as long, and the picture is
    /// another
    #[arg(long, value_name = "FROM:TO", default_value = "0:1", value_parser = interval)]
    pub guidance_interval: GuidanceInterval,
    /// The share of fresh noise per step, 0 to 1, for ddim and tcd [default: 0 for ddim, 0.3 for tcd]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub eta: Option<f32>,
    /// Initial noise instead of the seed's: float32 [1, C, h, w], unit variance
    #[arg(long, value_name = "IN.npy")]
    pub latents: Option<PathBuf>,
    /// Also write the final latents, before decoding
    #[arg(long, value_name = "OUT.npy")]
    pub save_latents: Option<PathBuf>,
    /// Add a LoRA to the model, 1 being the strength that it was trained for; may be given several times
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    pub lora: Vec<LoraArg>,
    /// Decode with the decoder of this model instead: a model file, or what `import` takes
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct ImportArgs {
    /// A folder with model_index.json in it, that of one network, or a .safetensors file of Stable Diffusion 1, 2 or XL
    pub source: PathBuf,
    /// The model file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// How most weights are stored
    #[arg(long, value_enum, default_value_t = WeightsArg::Int8)]
    pub weights: WeightsArg,
    /// What the UNet predicts, if the source does not say so rightly; files of Stable Diffusion 2 do not say it at all
    #[arg(long, value_enum, value_name = "NAME")]
    pub prediction_type: Option<PredictionArg>,
    /// Also run each component and a whole picture against f32 weights, for the report; takes minutes
    #[arg(long)]
    pub measure: bool,
    /// Print the report as one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum WeightsArg {
    Int8,
    F16,
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PredictionArg {
    #[value(name = "epsilon")]
    Epsilon,
    #[value(name = "v_prediction")]
    VPrediction,
}

#[derive(Debug, Parser)]
pub struct InspectArgs {
    /// The model file
    pub file: PathBuf,
    /// Plan with no more than this much anonymous memory, such as 300M or 256MiB
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<MemorySize>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct VerifyArgs {
    /// The model file
    pub file: PathBuf,
}

#[derive(Debug, Parser)]
pub struct RunArgs {
    /// The model file
    pub file: PathBuf,
    /// The component: text_encoder, unet, vae_decoder, ...
    #[arg(long, value_name = "NAME")]
    pub component: String,
    /// Its inputs by their names in the source graph; others are ignored
    #[arg(long, value_name = "IN.npz")]
    pub inputs: PathBuf,
    /// Where its outputs go
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: PathBuf,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct EmbedArgs {
    /// The model file
    pub file: PathBuf,
    /// A sentence; may be given several times
    #[arg(long, value_name = "T")]
    pub text: Vec<String>,
    /// A picture file; may be given several times
    #[arg(long, value_name = "F")]
    pub image: Vec<PathBuf>,
    /// Print one JSON object on standard output, with the embeddings
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct SelftestArgs {
    /// The model file [default: as for generate]
    pub file: Option<PathBuf>,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Parser)]
pub struct BenchArgs {
    /// The model file
    pub file: PathBuf,
    /// The component: text_encoder, unet, vae_decoder, ... [default: a whole picture]
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// Width of the picture in pixels [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub width: Option<usize>,
    /// Height of the picture in pixels [default: the model's own]
    #[arg(long, value_name = "PX")]
    pub height: Option<usize>,
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Runs to measure, after one that does not count
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub repeat: usize,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}
