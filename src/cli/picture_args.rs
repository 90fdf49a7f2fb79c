//! What a picture is to be like, as it is typed wherever one is drawn.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::pipeline::Sampler;

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
