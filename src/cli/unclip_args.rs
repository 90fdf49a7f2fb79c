//! The flags of unCLIP: what an embedding is made of, and how.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::denoise::guidance::GuidanceScale;
use crate::pipeline::{End, RequestError, Sight, UnclipError, UnclipRequest, read_picture};
use crate::text::Prompt;

/// What only models of the kind `unclip` can do.
#[derive(Debug, clap::Args)]
pub struct UnclipArgs {
    /// Draw this picture in other ways, by its embedding; no prompt is needed (unclip)
    #[arg(long, value_name = "FILE", conflicts_with = "interpolate")]
    pub image: Option<PathBuf>,
    /// Draw the way between two embeddings in -n pictures, both ends included; each is a picture, if there is a file of that
    /// name, or a prompt (unclip)
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub interpolate: Option<Vec<String>>,
    /// Steps of the prior, 1 to 1000 (unclip) [default: the model's own]
    #[arg(long, value_name = "N")]
    pub prior_steps: Option<usize>,
    /// How strictly the prior follows the prompt (unclip) [default: the model's own]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub prior_guidance: Option<f32>,
    /// How much noise is put over the embedding, so that the picture may be less like it (unclip) [default: 0]
    #[arg(long, value_name = "N")]
    pub noise_level: Option<usize>,
}

impl UnclipArgs {
    /// Whether a picture can be drawn without a prompt.
    pub fn need_no_prompt(&self) -> bool {
        self.image.is_some() || self.interpolate.is_some()
    }

    /// What is asked for, beginning with what the model draws best.
    ///
    /// # Errors
    /// - [`CliError::Usage`] if something is asked for of a model of another kind.
    /// - [`CliError::Pipeline`] if a file is no picture, [`CliError::Request`] for values that cannot be.
    pub fn request(&self, model: Option<UnclipRequest>) -> Result<Option<UnclipRequest>, CliError> {
        let Some(mut request) = model else {
            return match self.first_given() {
                None => Ok(None),
                Some(flag) => Err(CliError::Usage(format!(
                    "{flag} is for models of the kind unclip, and this is none: leave it out, or add --pipeline unclip"
                ))),
            };
        };
        if let Some(path) = &self.image {
            request.sight = Sight::Picture(read_picture(path)?);
        }
        if let Some([a, b]) = self.interpolate.as_deref() {
            request.sight = Sight::Between(Box::new([end(a)?, end(b)?]));
        }
        if let Some(scale) = self.prior_guidance {
            let scale = GuidanceScale::new(scale).map_err(UnclipError::Guidance);
            request.prior_guidance = scale.map_err(RequestError::from)?;
        }
        request.prior_steps = self.prior_steps.unwrap_or(request.prior_steps);
        request.noise_level = self.noise_level.unwrap_or(request.noise_level);
        Ok(Some(request))
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--image", self.image.is_some()),
            ("--interpolate", self.interpolate.is_some()),
            ("--prior-steps", self.prior_steps.is_some()),
            ("--prior-guidance", self.prior_guidance.is_some()),
            ("--noise-level", self.noise_level.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

/// A picture, if there is a file of that name, or else a prompt.
fn end(text: &str) -> Result<End, CliError> {
    let path = Path::new(text);
    if path.is_file() {
        return Ok(End::Picture(read_picture(path)?));
    }
    Ok(End::Prompt(Prompt::new(text).map_err(RequestError::from)?))
}
