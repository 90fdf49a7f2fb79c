//! What others call the layers of Stable Diffusion's networks: diffusers and transformers, whose names are ours too, the
//! original, and OpenCLIP.

pub mod autoencoder;
pub mod clip;
pub mod unet;

/// Where a file keeps the numbers of a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tensor's name in the file.
    pub name: String,
    /// Which of so many equal parts of the first dimension.
    pub part: Option<(usize, usize)>,
    /// Whether rows and columns are exchanged.
    pub transposed: bool,
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<String> for Place {
    fn from(name: String) -> Self {
        Self { name, part: None, transposed: false }
    }
}
