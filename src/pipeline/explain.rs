//! How a picture comes about: what its model does, in pictures and numbers of one run.
//!
//! ```text
//! training    the finished latents under noise, at some timesteps        what the network learned from
//! drawing     the picture that the network predicts, at every step       what it makes of noise
//! words       cross-attention, summed over the tokens of a word          where a word acts
//! likeness    CLIP's similarity of every predicted picture to the prompt
//! ```
//! A model of pixels, which knows neither words nor latents, has the first two.

use std::sync::Arc;

use super::pixels::{self, Pixels};
use super::{AttentionMap, Critic, Image, PipelineError, Progress, Request, RequestError, Step, TextToImage};
use crate::bundle::{Bundle, Component, PipelineKind};
use crate::denoise::noise::TorchGenerator;
use crate::engine::Resources;
use crate::tensor::{Latents, Rgb8};
use crate::text::Word;
use crate::text::encoder::TextEncoder;
use crate::vae::VaeDecoder;

/// At how many timesteps the finished picture is shown under noise.
const NOISED: usize = 5;

/// What there is to see of one run.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The finished picture.
    pub image: Image,
    /// The finished picture under more and more noise.
    pub noised: Vec<Noised>,
    /// What the network predicted, step by step.
    pub trajectory: Vec<Predicted>,
    /// For each word of the prompt where the network attends to it: the sum over its tokens of the mean over steps, layers
    /// and heads, 0 to 1. Empty for an empty prompt; `None` if the model reads no words.
    pub words: Option<Vec<(String, AttentionMap)>>,
}

/// A picture as training shows it.
#[derive(Debug, Clone)]
pub struct Noised {
    /// The timestep of training.
    pub timestep: usize,
    /// The latents under noise; the pixels themselves where there are no latents.
    pub latents: Latents,
    /// These, decoded.
    pub pixels: Rgb8,
}

/// The clean picture that the network saw in a step.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The timestep of the step; not always a whole number.
    pub timestep: f32,
    /// The picture's latents.
    pub latents: Latents,
    /// These, decoded.
    pub pixels: Rgb8,
    /// How similar the picture is to the prompt, -1 to 1; `None` if the model cannot say.
    pub similarity: Option<f32>,
}

/// Draws the picture of a request in plain syntax, and shows how it comes about. The noise over the finished picture is
/// that of its seed.
///
/// # Errors
/// [`PipelineError`]: as for any picture; if the model is neither Stable Diffusion with cross-attention nor one of pixels;
/// [`RequestError::Unjudged`] if it has a safety checker.
///
/// # Panics
/// If the request is for several pictures.
pub fn explain(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    request: &Request,
    progress: &mut dyn Progress,
) -> Result<Explanation, PipelineError> {
    assert_eq!(request.count, 1, "one picture is explained at a time");
    if bundle.component(Component::SafetyChecker).is_some() {
        return Err(RequestError::Unjudged.into());
    }
    let mut course = Course { progress, originals: Vec::with_capacity(request.steps) };
    if bundle.pipeline().kind == PipelineKind::Pixels {
        let image = Pixels::new(bundle.clone(), resources.clone()).run(request, &mut course)?.remove(0);
        return shown(bundle, request, image, course.originals, &mut |values| Ok(pixels::rounded(values)?));
    }
    let mut pipeline = TextToImage::new(bundle.clone(), resources.clone()).recording_attention();
    pipeline.check(request)?;
    let critic = match Critic::new(bundle, resources, &request.prompt) {
        Err(error) if error.is_lacking() => None,
        critic => Some(critic?),
    };
    let words = TextEncoder::load(bundle, resources)?.words(&request.prompt)?;
    let image = pipeline.run(request, &mut course)?.remove(0);
    let words = with_maps(words, pipeline.attention_maps());

    let mut decoder = VaeDecoder::load(bundle, resources)?;
    let mut explanation =
        shown(bundle, request, image, course.originals, &mut |latents| Ok(decoder.decode(latents)?))?;
    drop(decoder);
    explanation.words = Some(words);
    if let Some(critic) = critic {
        let trajectory = &mut explanation.trajectory;
        let scores =
            critic.scores(bundle, resources, trajectory.iter().map(|predicted| &predicted.pixels))?;
        trajectory.iter_mut().zip(scores).for_each(|(predicted, score)| predicted.similarity = Some(score));
    }
    Ok(explanation)
}

/// What is to be seen of any run: the picture under noise, and what the network predicted.
fn shown(
    bundle: &Bundle,
    request: &Request,
    image: Image,
    originals: Vec<Latents>,
    decode: &mut dyn FnMut(&Latents) -> Result<Rgb8, PipelineError>,
) -> Result<Explanation, PipelineError> {
    let noised = noised(request, bundle, &image.latents)?.into_iter().map(|(timestep, latents)| {
        let pixels = decode(&latents)?;
        Ok(Noised { timestep, latents, pixels })
    });
    let noised = noised.collect::<Result<_, PipelineError>>()?;
    let sampler = request.build_sampler(bundle)?;
    let predicted = originals.into_iter().enumerate().map(|(step, latents)| {
        let pixels = decode(&latents)?;
        Ok(Predicted { timestep: sampler.timestep(step), latents, pixels, similarity: None })
    });
    let trajectory = predicted.collect::<Result<_, PipelineError>>()?;
    Ok(Explanation { image, noised, trajectory, words: None })
}

/// The words, each with the sum of the maps of its tokens.
fn with_maps(words: Vec<Word>, maps: &[AttentionMap]) -> Vec<(String, AttentionMap)> {
    let with_map = |word: Word| Some((word.text, AttentionMap::sum(maps.get(word.tokens)?)?));
    words.into_iter().filter_map(with_map).collect()
}

/// The latents under the noise of the seed, at timesteps of training that are evenly apart, the last one among them.
fn noised(
    request: &Request,
    bundle: &Bundle,
    latents: &Latents,
) -> Result<Vec<(usize, Latents)>, PipelineError> {
    let schedule = request.sampler.schedule(&bundle.pipeline().scheduler)?;
    let mut noise = vec![0.0; latents.values().len()];
    TorchGenerator::new(request.seed).fill_normal(&mut noise);
    let count = schedule.alphas_cumprod().len();
    let timesteps = (1..=NOISED).map(|at| (count * at / NOISED).saturating_sub(1));
    let noised = timesteps.map(|timestep| {
        let mut noised = latents.clone();
        noised.values_mut().copy_from_slice(&schedule.add_noise(latents.values(), &noise, timestep));
        (timestep, noised)
    });
    Ok(noised.collect())
}

/// Keeps what the network predicts.
struct Course<'a> {
    progress: &'a mut dyn Progress,
    originals: Vec<Latents>,
}

impl Progress for Course<'_> {
    fn truncated(&mut self, dropped: &str) {
        self.progress.truncated(dropped);
    }

    fn wants_original(&self) -> bool {
        true
    }

    fn step(&mut self, step: Step) {
        self.originals.extend(step.original.cloned());
        self.progress.step(step);
    }
}
