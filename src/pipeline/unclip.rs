//! unCLIP: the embedding of a picture, out of a prompt or of another picture, to what the UNet is told.
//!
//! ```text
//! text encoder    prompt, empty prompt -> what the prior reads                       | or the image encoder:
//! prior           noise -> embedding of a picture, brought back from unit variance   | picture -> embedding
//! then either     noise over the embedding, and how much -> class labels
//! or text_proj    embedding -> what the UNet reads in place of a prompt
//! ```
//! The generator of a picture is read in diffusers' order: noise of the prior, noise over the embedding, noise of the latents.
//!
//! Source: Ramesh et al. 2022, arXiv:2204.06125; diffusers 0.42.1, `pipeline_stable_unclip.py`,
//! `pipeline_stable_unclip_img2img.py`, `pipeline_unclip.py`.

use std::sync::Arc;

use super::{PipelineError, Request};
use crate::bundle::{self, Bundle, Component};
use crate::clip::{self, ImageEncoder, Statistics};
use crate::denoise::guidance::{GuidanceError, GuidanceScale};
use crate::denoise::noise::TorchGenerator;
use crate::denoise::noise_level::NoiseLevel;
use crate::denoise::prior::{self, Prior, Prompts};
use crate::engine::{self, NamedTensor, Resources};
use crate::tensor::{Rgb8, ShapeError, TextEmbedding};
use crate::text::Prompt;
use crate::text::encoder::TextEncoder;

/// Where the statistics of embeddings are: of the prior's, and of those that noise is put over.
const PRIOR_STATISTICS: &str = "prior/statistics.json";
const NORMALIZER_STATISTICS: &str = "image_normalizer/statistics.json";
/// The output of `text_proj`.
const STATES: &str = "encoder_hidden_states";

/// What a request asks of unCLIP beside.
#[derive(Debug, Clone)]
pub struct UnclipRequest {
    /// What embedding is drawn.
    pub sight: Sight,
    /// Steps of the prior, 1 to 1000.
    pub prior_steps: usize,
    /// How strictly the prior follows the prompt.
    pub prior_guidance: GuidanceScale,
    /// How much noise is put over the embedding: a timestep of the model's schedule for it, 0 for nearly none.
    pub noise_level: usize,
}

/// What is embedded.
#[derive(Debug, Clone)]
pub enum Sight {
    /// What the prior makes of the prompt, another for each seed.
    Prompt,
    /// A picture, to be drawn in other ways.
    Picture(Rgb8),
    /// The way from one to another, both included, for as many pictures as are asked for; all begin from the same noise.
    Between(Box<[End; 2]>),
}

/// One end of a way between embeddings.
#[derive(Debug, Clone)]
pub enum End {
    /// What the prior makes of it.
    Prompt(Prompt),
    /// A picture.
    Picture(Rgb8),
}

/// Why the model cannot draw from this.
#[derive(Debug, thiserror::Error)]
pub enum UnclipError {
    /// A prompt, and nothing that makes embeddings of prompts.
    #[error("this model has no prior, which turns prompts into embeddings of pictures: give it a picture")]
    NoPrior,
    /// A picture, and nothing that embeds pictures.
    #[error("this model has no image_encoder, which embeds pictures: give it a prompt")]
    NoImageEncoder,
    /// Noise that the model does not know.
    #[error("noise level {got} is not possible with this model, whose largest is {max}: take a smaller one")]
    NoiseLevel {
        /// What was asked for.
        got: usize,
        /// The largest level.
        max: usize,
    },
    /// A way with one picture on it.
    #[error(
        "between two embeddings there are {got} pictures to draw, expected 2 or more, both ends included"
    )]
    Ends {
        /// What was asked for.
        got: usize,
    },
    /// The prior's guidance scale is out of range.
    #[error("the prior's {0}")]
    Guidance(GuidanceError),
}

/// What the UNet is told for a picture, and the generator that its noise goes on from.
pub struct Told {
    /// The embedding, as the UNet takes it.
    pub cond: Arc<TextEmbedding>,
    /// What it is held against.
    pub uncond: Arc<TextEmbedding>,
    /// The generator, as far as it has been read.
    pub generator: TorchGenerator,
}

/// An embedding, and the generator of its picture.
type Embedded = (Vec<f32>, TorchGenerator);

impl UnclipRequest {
    /// What a model draws best; `None` for a model of another kind.
    ///
    /// # Errors
    /// [`UnclipError::Guidance`] if the model's own guidance scale is out of range.
    pub fn of_model(pipeline: &bundle::Pipeline) -> Result<Option<Self>, UnclipError> {
        let Some(unclip) = &pipeline.unclip else { return Ok(None) };
        let scale = GuidanceScale::new(unclip.default_prior_guidance as f32);
        let (sight, prior_steps) = (Sight::Prompt, unclip.default_prior_steps);
        let prior_guidance = scale.map_err(UnclipError::Guidance)?;
        Ok(Some(Self { sight, prior_steps, prior_guidance, noise_level: 0 }))
    }

    /// Checks what can be checked without loading anything, for so many pictures.
    ///
    /// # Errors
    /// [`PipelineError::Request`]; [`PipelineError::Sampler`] for schedulers and steps that cannot be.
    pub fn check(&self, bundle: &Bundle, count: usize) -> Result<(), PipelineError> {
        let refuse = |error: UnclipError| Err(PipelineError::Request(error.into()));
        let Some(unclip) = &bundle.pipeline().unclip else { return Ok(()) };
        match &self.sight {
            Sight::Between(_) if count < 2 => return refuse(UnclipError::Ends { got: count }),
            _ if self.reads_prompts() && bundle.component(Component::Prior).is_none() => {
                return refuse(UnclipError::NoPrior);
            }
            _ if self.sees_pictures() && bundle.component(Component::ImageEncoder).is_none() => {
                return refuse(UnclipError::NoImageEncoder);
            }
            _ => {}
        }
        if self.reads_prompts() {
            prior::sampler(&unclip.prior_scheduler, self.prior_steps)?;
        }
        match self.noise(bundle)? {
            None if self.noise_level > 0 => {
                let max = schedule_of(bundle).map_or(0, last_timestep);
                refuse(UnclipError::NoiseLevel { got: self.noise_level, max })
            }
            _ => Ok(()),
        }
    }

    /// The components that make what the UNet is told, beside the text encoders of other pipelines.
    pub fn components(&self, bundle: &Bundle) -> Vec<Component> {
        let prompts =
            [Component::PriorTextEncoder, Component::Prior].map(|kind| (kind, self.reads_prompts()));
        let pictures = [(Component::ImageEncoder, self.sees_pictures()), (Component::TextProj, true)];
        let used = prompts.into_iter().chain(pictures).filter(|(_, is_used)| *is_used);
        used.map(|(kind, _)| kind).filter(|&kind| bundle.component(kind).is_some()).collect()
    }

    /// Whether all pictures begin from the same noise.
    pub fn shares_noise(&self) -> bool {
        matches!(self.sight, Sight::Between(_))
    }

    fn reads_prompts(&self) -> bool {
        match &self.sight {
            Sight::Prompt => true,
            Sight::Picture(_) => false,
            Sight::Between(ends) => ends.iter().any(|end| matches!(end, End::Prompt(_))),
        }
    }

    fn sees_pictures(&self) -> bool {
        match &self.sight {
            Sight::Prompt => false,
            Sight::Picture(_) => true,
            Sight::Between(ends) => ends.iter().any(|end| matches!(end, End::Picture(_))),
        }
    }

    /// The noise over an embedding; `None` for models that do not know any, and for a level beyond its schedule.
    fn noise(&self, bundle: &Bundle) -> Result<Option<NoiseLevel>, PipelineError> {
        let Some(scheduler) = schedule_of(bundle) else { return Ok(None) };
        Ok(NoiseLevel::new(scheduler, self.noise_level)?)
    }
}

/// The schedule of noise over embeddings, of a model that is shown them as they are.
fn schedule_of(bundle: &Bundle) -> Option<&serde_json::Value> {
    let is_shown = bundle.component(Component::TextProj).is_none();
    bundle.pipeline().unclip.as_ref()?.image_noising_scheduler.as_ref().filter(|_| is_shown)
}

fn last_timestep(scheduler: &serde_json::Value) -> usize {
    scheduler["num_train_timesteps"].as_u64().unwrap_or(1000) as usize - 1
}

/// What the UNet is told for each picture of a request; `cond` and `uncond` are what the text encoders make of the prompts.
///
/// # Errors
/// [`PipelineError`]: a network fails, or does not fit the others.
pub fn told(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    request: &Request,
    wanted: &UnclipRequest,
    [cond, uncond]: [TextEmbedding; 2],
) -> Result<Vec<Told>, PipelineError> {
    let embedded = embedded(bundle, resources, request, wanted)?;
    let uncond = Arc::new(uncond);
    if bundle.component(Component::TextProj).is_some() {
        let mut network = engine::Component::load(bundle, Component::TextProj, resources)?;
        let told = |(embedding, generator): Embedded| {
            let input = NamedTensor::new("image_embeddings", &[1, embedding.len()], embedding);
            let states = network.run_for(STATES, &[input])?;
            let &[1, tokens, width] = states.shape.as_slice() else {
                return Err(ShapeError::new("output of text_proj", &states.shape, states.values.len()).into());
            };
            let cond = Arc::new(TextEmbedding::new(states.values, tokens, width)?);
            Ok(Told { cond, uncond: uncond.clone(), generator })
        };
        return embedded.into_iter().map(told).collect();
    }
    let noise = wanted.noise(bundle)?;
    let told = |(embedding, mut generator): Embedded| {
        let labels = class_labels(bundle, noise, embedding, &mut generator)?;
        let cond = Arc::new(cond.clone().with_class_labels(labels));
        Ok(Told { cond, uncond: uncond.clone(), generator })
    };
    embedded.into_iter().map(told).collect()
}

/// The embedding of every picture.
fn embedded(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    request: &Request,
    wanted: &UnclipRequest,
) -> Result<Vec<Embedded>, PipelineError> {
    let generators = request.seeds().map(TorchGenerator::new);
    match &wanted.sight {
        Sight::Prompt => {
            let prompt = request.prompt.words(request.syntax).map_err(super::RequestError::from)?;
            let prompts = generators.map(|generator| (prompt.clone(), generator)).collect();
            imagined(bundle, resources, wanted, prompts)
        }
        Sight::Picture(picture) => {
            let embedding = seen(bundle, resources, picture)?;
            Ok(generators.map(|generator| (embedding.clone(), generator)).collect())
        }
        Sight::Between(ends) => {
            let mut points = Vec::with_capacity(2);
            for end in &**ends {
                points.push(match end {
                    End::Picture(picture) => seen(bundle, resources, picture)?,
                    End::Prompt(prompt) => {
                        let prompts = vec![(prompt.clone(), TorchGenerator::new(request.seed))];
                        imagined(bundle, resources, wanted, prompts)?.remove(0).0
                    }
                });
            }
            let last = (request.count - 1) as f64;
            let at = |(at, generator)| (clip::between(&points[0], &points[1], at as f64 / last), generator);
            Ok(generators.enumerate().map(at).collect())
        }
    }
}

/// What the prior makes of prompts.
fn imagined(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    wanted: &UnclipRequest,
    prompts: Vec<(Prompt, TorchGenerator)>,
) -> Result<Vec<Embedded>, PipelineError> {
    let own = bundle.component(Component::PriorTextEncoder).map(|_| Component::PriorTextEncoder);
    let mut encoder = TextEncoder::load_one(bundle, own.unwrap_or(Component::TextEncoder), resources)?;
    let (uncond, _) = encoder.read(&Prompt::default())?;
    let mut sentences = Vec::with_capacity(prompts.len());
    for (prompt, generator) in prompts {
        sentences.push((encoder.read(&prompt)?.0, generator));
    }
    drop(encoder);
    let mut prior = Prior::load(bundle, resources)?;
    let statistics = statistics(bundle, PRIOR_STATISTICS, prior.width())?;
    let scheduler = bundle.pipeline().unclip.as_ref().map(|unclip| &unclip.prior_scheduler);
    let mut embedded = Vec::with_capacity(sentences.len());
    for (cond, mut generator) in sentences {
        let mut sampler = prior::sampler(scheduler.unwrap_or(&serde_json::Value::Null), wanted.prior_steps)?;
        let prompts = Prompts { cond: &cond, uncond: &uncond, guidance_scale: wanted.prior_guidance };
        let mut embedding = prior.run(&mut *sampler, &prompts, &mut generator)?;
        if let Some(statistics) = &statistics {
            statistics.unscale(&mut embedding);
        }
        embedded.push((of_length(bundle, embedding), generator));
    }
    Ok(embedded)
}

/// The embedding of a picture.
fn seen(bundle: &Arc<Bundle>, resources: &Resources, picture: &Rgb8) -> Result<Vec<f32>, PipelineError> {
    let embedding = ImageEncoder::load(bundle, resources)?.embed_as_is(picture)?;
    Ok(of_length(bundle, embedding))
}

/// An embedding in the length that the model wants it to have, if it wants any.
fn of_length(bundle: &Bundle, mut embedding: Vec<f32>) -> Vec<f32> {
    if let Some(norm) = bundle.pipeline().unclip.as_ref().and_then(|unclip| unclip.embedding_norm) {
        clip::normalise(&mut embedding);
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) * norm) as f32);
    }
    embedding
}

/// The embedding under noise, and behind it what says how much.
fn class_labels(
    bundle: &Bundle,
    noise: Option<NoiseLevel>,
    mut embedding: Vec<f32>,
    generator: &mut TorchGenerator,
) -> Result<Vec<f32>, PipelineError> {
    let Some(level) = noise else { return Ok(embedding) };
    let mut noise = vec![0.0; embedding.len()];
    generator.fill_normal(&mut noise);
    let statistics = statistics(bundle, NORMALIZER_STATISTICS, embedding.len())?;
    if let Some(statistics) = &statistics {
        statistics.scale(&mut embedding);
    }
    level.put_over(&mut embedding, &noise);
    if let Some(statistics) = &statistics {
        statistics.unscale(&mut embedding);
    }
    embedding.extend(level.waves(embedding.len()));
    Ok(embedding)
}

fn statistics(
    bundle: &Bundle,
    name: &'static str,
    width: usize,
) -> Result<Option<Statistics>, PipelineError> {
    Ok(bundle.file(name).map(|json| Statistics::from_json(name, json, width)).transpose()?)
}
