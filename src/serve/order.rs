//! A request whose every value is settled: drawn again after a crash, it gives the same picture.

use serde::{Deserialize, Serialize};

use super::speed::Kind;
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceScale;
use crate::engine::EngineError;
use crate::error::chain;
use crate::pipeline::{Halfway, PipelineError, Request, RequestError, Sampler, Size, random_seed};
use crate::protocol::{ErrorCode, ErrorDetail, JobRequest, PreviewMode, SEED_MAX};
use crate::text::Prompt;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative: String,
    /// The model's name.
    pub model: String,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Steps of the sampler.
    pub steps: usize,
    /// The guidance scale.
    pub guidance: f32,
    /// The seed.
    pub seed: u64,
    /// The sampler.
    pub sampler: String,
    /// From acceptance to picture, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether events carry previews.
    pub preview: PreviewMode,
}

impl Order {
    /// What `request` asks of the model `name` in `bundle`, with the model's own choice where it asks for nothing.
    ///
    /// # Errors
    /// What is wrong with a value, by its name.
    pub fn new(request: JobRequest, name: &str, bundle: &Bundle) -> Result<Self, ErrorDetail> {
        let pipeline = bundle.pipeline();
        let size = Size::of_model(pipeline);
        let seed = request.seed.unwrap_or_else(random_seed);
        if seed > SEED_MAX {
            return Err(invalid(format!("seed {seed} is too large, expected at most {SEED_MAX}")));
        }
        if request.timeout_ms == Some(0) {
            return Err(invalid("timeout_ms is 0, expected at least 1, or none for no limit"));
        }
        Ok(Self {
            prompt: request.prompt,
            negative: request.negative,
            model: name.to_owned(),
            width: request.width.unwrap_or(size.width_px),
            height: request.height.unwrap_or(size.height_px),
            steps: request.steps.unwrap_or(pipeline.default_steps),
            guidance: request.guidance.unwrap_or(pipeline.default_guidance as f32),
            seed,
            sampler: request.sampler.unwrap_or_else(|| Sampler::of_model(pipeline).name().to_owned()),
            timeout_ms: request.timeout_ms,
            preview: request.preview,
        })
    }

    /// As the pipeline takes it.
    ///
    /// # Errors
    /// What is wrong with a value, by its name.
    pub fn request(&self, bundle: &Bundle, halfway: Option<Halfway>) -> Result<Request, ErrorDetail> {
        let prompt = |text: &str| Prompt::new(text).map_err(|e| refused(&e.into()));
        let mut request = Request::new(bundle, prompt(&self.prompt)?, self.seed).map_err(|e| refused(&e))?;
        request.negative = prompt(&self.negative)?;
        request.size = self.size();
        request.steps = self.steps;
        request.guidance_scale = GuidanceScale::new(self.guidance).map_err(|e| refused(&e.into()))?;
        request.sampler = Sampler::from_name(&self.sampler).ok_or_else(|| {
            let names = Sampler::ALL.map(Sampler::name).join(", ");
            invalid(format!("there is no sampler `{}`, only {names}", self.sampler))
        })?;
        request.halfway = halfway;
        Ok(request)
    }

    /// What decides how long a step takes.
    pub fn kind(&self) -> Kind {
        let guided = GuidanceScale::new(self.guidance).is_ok_and(GuidanceScale::is_active);
        Kind { model: self.model.clone(), width: self.width, height: self.height, guided }
    }

    /// Smaller pictures of nearly the same shape, for who has little time.
    pub fn smaller_sizes(&self) -> Vec<[usize; 2]> {
        let scaled = |quarters: usize| [self.width, self.height].map(|px| px * quarters / 4 / 64 * 64);
        [3, 2].into_iter().map(scaled).filter(|size| size.iter().all(|&px| px >= 64)).collect()
    }

    /// The picture's size.
    pub fn size(&self) -> Size {
        Size { width_px: self.width, height_px: self.height }
    }
}

/// The answer to a request that the model cannot serve.
pub fn refused(error: &RequestError) -> ErrorDetail {
    let code = match error {
        RequestError::Side { .. } => ErrorCode::UnsupportedSize,
        RequestError::Prompt(_) => ErrorCode::PromptTooLong,
        _ => ErrorCode::InvalidValue,
    };
    ErrorDetail::new(code, error.to_string())
}

/// The answer when a picture cannot be drawn.
pub fn unable(error: &PipelineError) -> ErrorDetail {
    let code = match (error, error.engine()) {
        (PipelineError::Request(error), _) => return refused(error),
        (error, _) if error.is_bad_scheduler() => ErrorCode::ModelCorrupt,
        (PipelineError::Sampler(_), _) => ErrorCode::InvalidValue,
        (_, Some(EngineError::Memory { .. } | EngineError::OutOfMemory { .. })) => {
            ErrorCode::InsufficientMemory
        }
        (PipelineError::Gate(_), _) => ErrorCode::Blocked,
        (error, _) if error.is_lacking() => ErrorCode::Blocked,
        (_, Some(EngineError::Graph { .. } | EngineError::Node { .. } | EngineError::NoComponent { .. })) => {
            ErrorCode::ModelCorrupt
        }
        _ => ErrorCode::Internal,
    };
    ErrorDetail::new(code, chain(error))
}

/// The answer to a value that nobody can serve.
pub fn invalid(message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::new(ErrorCode::InvalidValue, message)
}

#[cfg(test)]
impl Order {
    /// Some order.
    pub fn example() -> Self {
        Self {
            prompt: "a cat".into(),
            negative: String::new(),
            model: "emoji".into(),
            width: 128,
            height: 128,
            steps: 8,
            guidance: 2.0,
            seed: 1,
            sampler: "ddim".into(),
            timeout_ms: None,
            preview: PreviewMode::None,
        }
    }
}
