//! What a picture looks like so far, in a file or on the terminal.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::terminal::{Protocol, ROWS};
use crate::bundle::Bundle;
use crate::engine::Resources;
use crate::error::chain;
use crate::output;
use crate::picture::{Filter, cover};
use crate::pipeline::{LatentRgb, Size};
use crate::tensor::{Latents, Rgb8};

/// The name that stands for the terminal.
const TERMINAL: &str = "-";

/// Shows pictures from latents.
pub struct Preview {
    colours: LatentRgb,
    place: Place,
    size: Size,
    has_failed: bool,
}

/// Where a preview goes.
pub enum Place {
    /// Into a file, which is replaced every time.
    File(PathBuf),
    /// To the terminal on standard error.
    Terminal(Protocol),
}

impl Place {
    /// What the flag names.
    ///
    /// # Errors
    /// [`CliError::Usage`] for a terminal that shows no pictures; [`CliError::Output`] if no file can be there.
    pub fn new(path: &Path) -> Result<Self, CliError> {
        if path != Path::new(TERMINAL) {
            output::check(path)?;
            return Ok(Self::File(path.to_owned()));
        }
        let protocol = Protocol::detect().ok_or_else(|| {
            CliError::Usage(
                "--preview -: this terminal is not known to show pictures (kitty's, iTerm2's or sixel): name a file".into(),
            )
        })?;
        Ok(Self::Terminal(protocol))
    }

    /// Whether it is the terminal, and nothing else should be drawn there.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }
}

impl Preview {
    /// Learns the colours of the model's latents.
    ///
    /// # Errors
    /// [`CliError::Pipeline`] if the decoder cannot be run.
    pub fn new(
        place: Place,
        bundle: &Arc<Bundle>,
        resources: &Resources,
        size: Size,
    ) -> Result<Self, CliError> {
        if place.is_terminal() {
            eprint!("{}", "\n".repeat(ROWS));
        }
        Ok(Self { colours: LatentRgb::learn(bundle, resources)?, place, size, has_failed: false })
    }

    /// Shows latents. A run goes on if that fails, and says so once.
    pub fn show(&mut self, latents: &Latents) {
        let Ok(small) = self.colours.preview(latents) else { return };
        let picture = cover(&small, self.size.width_px, self.size.height_px, Filter::Bicubic);
        if let Err(reason) = self.put(&picture)
            && !self.has_failed
        {
            self.has_failed = true;
            log::warn!("there is no preview: {reason}");
        }
    }

    fn put(&self, picture: &Rgb8) -> Result<(), String> {
        match &self.place {
            Place::File(path) => {
                output::write_png(path, picture, &[]).map(drop).map_err(|error| chain(&error))
            }
            Place::Terminal(protocol) => {
                let sequence = protocol.picture(picture).map_err(|error| error.to_string())?;
                std::io::stderr().write_all(sequence.as_bytes()).map_err(|error| error.to_string())
            }
        }
    }
}
