//! The flags of commands that draw, and of those for model files, as they are typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::daemon_args::{CancelArgs, ScreenArgs, ServeArgs, StatusArgs, SubmitArgs, WatchArgs};
use super::explain::ExplainArgs;
use super::lora_arg::LoraArg;
use super::picture_args::PictureArgs;
use super::quantity::{MemorySize, TileArg};
use super::unclip_args::UnclipArgs;
use crate::denoise::guidance::GuidanceInterval;
use crate::engine::TokenMerging;

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
    Generate(Box<GenerateArgs>),
    /// Turn a model as others publish it into one model file: a folder of safetensors or of ONNX graphs, or a checkpoint
    Import(ImportArgs),
    /// Show what a model file holds
    Inspect(InspectArgs),
    /// Check every checksum of a model file
    Verify(VerifyArgs),
    /// Run one component of a model on given tensors
    Run(RunArgs),
    /// Draw a picture again from what it says of itself, and compare
    Replay(ReplayArgs),
    /// Say how alike sentences and pictures are
    Embed(EmbedArgs),
    /// Sort pictures by how like a sentence they are
    Rank(RankArgs),
    /// Show on one sheet how a picture comes about: noise, steps, words
    Explain(ExplainArgs),
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

/// Reads `FROM:TO`.
fn interval(text: &str) -> Result<GuidanceInterval, String> {
    let ends = text.split_once(':').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) = ends.ok_or("write it as two numbers from 0 to 1, such as 0.2:0.8")?;
    GuidanceInterval::new(from, to).map_err(|error| error.to_string())
}

/// Reads a share of tokens.
fn token_merging(text: &str) -> Result<TokenMerging, String> {
    let share = text.parse().map_err(|_| "write it as a number from 0 to 0.75")?;
    TokenMerging::new(share).map_err(|error| error.to_string())
}

#[derive(Debug, Parser)]
pub struct GenerateArgs {
    /// What to draw, or the class of a model that knows classes; asked for on a terminal if left out, and "" means no condition
    pub prompt: Option<String>,
    /// Where the picture goes; with --count, -1, -2, ... are added to the name
    #[arg(short, long, default_value = "out.png", value_name = "FILE")]
    pub output: PathBuf,
    /// The model file [default: $TINTYPE_MODEL, or emoji.tintype in ./models, beside the program, in
    /// /usr/share/tintype/models; emoji-unclip.tintype and emoji-pixels.tintype for the other pipelines]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// How the model is to draw, which it has to be made for [default: the model's own]
    #[arg(long, value_enum, value_name = "NAME")]
    pub pipeline: Option<PipelineArg>,
    #[command(flatten)]
    pub picture: PictureArgs,
    /// How the prompts are read: as they stand, or with weights such as (word:1.3), brackets and BREAK, at any length [default:
    /// plain]
    #[arg(long, value_enum, value_name = "NAME")]
    pub syntax: Option<SyntaxArg>,
    /// Use the text encoder without its last N layers for the prompt; 1 is what others call 2
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub clip_skip: usize,
    /// How many pictures, with seeds from --seed on
    #[arg(short = 'n', long, default_value_t = 1, value_name = "COUNT")]
    pub count: usize,
    /// Have guidance only in this part of the steps, such as 0.2:0.8; the others take up to half as long, and the picture is
    /// another
    #[arg(long, value_name = "FROM:TO", default_value = "0:1", value_parser = interval)]
    pub guidance_interval: GuidanceInterval,
    /// Compute the UNet's deep features in every N-th step only, and use them again in between: sooner, and another picture
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub feature_cache: usize,
    /// Have this share of the tokens, 0 to 0.75, merged with those that they are most like, for self-attention on the UNet's
    /// largest maps: sooner where pictures are large, and another picture
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = token_merging)]
    pub token_merging: TokenMerging,
    /// The share of fresh noise per step, 0 to 1, for ddim and tcd [default: 0 for ddim, 0.3 for tcd]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub eta: Option<f32>,
    /// Initial noise instead of the seed's: float32 [1, C, h, w], unit variance
    #[arg(long, value_name = "IN.npy")]
    pub latents: Option<PathBuf>,
    /// Also write the final latents, before decoding
    #[arg(long, value_name = "OUT.npy")]
    pub save_latents: Option<PathBuf>,
    /// Write each pixel as a square of so many, 1 to 32
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    pub scale: usize,
    /// Add a LoRA to the model, 1 being the strength that it was trained for; may be given several times
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    pub lora: Vec<LoraArg>,
    /// Decode with the decoder of this model instead: a model file, or what `import` takes
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    #[command(flatten)]
    pub init: InitArgs,
    #[command(flatten)]
    pub unclip: UnclipArgs,
    /// Draw so many pictures, with seeds from --seed on, and keep the one that the model's CLIP finds most like the prompt
    #[arg(long, value_name = "N")]
    pub best_of: Option<usize>,
    /// Write no picture that shows a concept of this file, a line each of a threshold and a sentence, by the model's image
    /// encoder; exit code 1 then
    #[arg(long, value_name = "FILE")]
    pub block: Option<PathBuf>,
    /// Keep the state of the picture in this file after every step, and go on from there if the file is there; it is deleted when
    /// the picture is written
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Show after every step what the picture looks like: in this PNG file, or with "-" on a terminal that can show pictures
    #[arg(long, value_name = "FILE|-")]
    pub preview: Option<PathBuf>,
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// The kinds of pipelines, as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PipelineArg {
    /// Stable Diffusion: words to latents
    Sd,
    /// unCLIP, as DALL-E 2: words to the embedding of a picture, and from there, or from another picture's, to latents
    Unclip,
    /// Diffusion of the pixels themselves, without words
    Pixels,
}

/// How prompts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyntaxArg {
    /// As they stand; what is beyond the model's context has no effect
    Plain,
    /// As A1111's web UI reads them
    A1111,
}

/// A picture to begin from.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Begin from this picture, PNG, JPEG, WebP or BMP: it is resized until it covers the size to draw, and its middle is
    /// taken
    #[arg(long, value_name = "FILE")]
    pub init_image: Option<PathBuf>,
    /// How far the picture is taken back towards noise: the share of the steps that are taken, above 0 and up to 1
    /// [default: 0.8, and 1 with --mask]
    #[arg(long, value_name = "X", requires = "init_image", allow_negative_numbers = true)]
    pub strength: Option<f64>,
    /// Draw anew only where this picture, of the same size as the other, is white
    #[arg(long, value_name = "FILE", requires = "init_image")]
    pub mask: Option<PathBuf>,
}

#[derive(Debug, Parser)]
pub struct ReplayArgs {
    /// A picture that `generate` or the daemon drew
    pub picture: PathBuf,
    /// Where the new picture goes
    #[arg(short, long, default_value = "out.png", value_name = "FILE")]
    pub output: PathBuf,
    /// Write nothing; exit code 1 if a byte of the pixels differs
    #[arg(long)]
    pub check: bool,
    /// The model file that the picture was drawn with [default: as for generate]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// The initial noise, if it was given
    #[arg(long, value_name = "IN.npy")]
    pub latents: Option<PathBuf>,
    /// The picture that it began from, if there was one
    #[arg(long, value_name = "FILE")]
    pub init_image: Option<PathBuf>,
    /// The mask over that picture, if there was one
    #[arg(long, value_name = "FILE", requires = "init_image")]
    pub mask: Option<PathBuf>,
    /// The picture that was embedded, if there was one
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// A LoRA that was added to the model; may be given several times, in any order, and the strengths are the picture's
    #[arg(long, value_name = "FILE")]
    pub lora: Vec<PathBuf>,
    /// What it was decoded with, if not with the model's own decoder
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
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
pub struct RankArgs {
    /// The model file
    pub file: PathBuf,
    /// The sentence
    pub text: String,
    /// Picture files
    #[arg(required = true, value_name = "PICTURE")]
    pub pictures: Vec<PathBuf>,
    /// Print one JSON object on standard output
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
