//! LoRA: small files that change what a model draws, read where they lie and added to its layers as it runs.
//!
//! ```text
//! tensor names -> component, layer, which of the two matrices, alpha            keys
//! a layer's flat name -> the weight of the bundle                               layers
//! strength * alpha / rank -> Adapters                                           this file
//! ```
//! The model's file is not touched. Source: the files of kohya's sd-scripts and of diffusers 0.42.1 with PEFT 0.21, and how
//! `load_lora_weights` of the latter reads both.

mod keys;
mod layers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bundle::{Bundle, Component};
use crate::engine::adapters::{Adapter, Adapters};
use crate::tensor_file::{Tensor, TensorFile, TensorFileError};
use keys::{Alphas, Key, Role};
use layers::Layers;

/// The strongest that a LoRA may be made, in either direction.
const STRENGTH_MAX: f32 = 100.0;

/// Why a LoRA cannot be used with a model.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// Its file cannot be read.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A strength that is none.
    #[error("strength {got} of {} is out of range: -{max} to {max}", file.display(), max = STRENGTH_MAX)]
    Strength {
        /// The file.
        file: PathBuf,
        /// The strength.
        got: f32,
    },
    /// A tensor that is no part of a LoRA.
    #[error(
        "`{key}` of {} is no part of a LoRA that is known here: pairs of two matrices are, LoHa, LoKr and DoRA are not",
        file.display()
    )]
    Key {
        /// The file.
        file: PathBuf,
        /// The tensor.
        key: String,
    },
    /// Metadata that is not understood.
    #[error("{} says `{key}` of itself, which is not supported", file.display())]
    Metadata {
        /// The file.
        file: PathBuf,
        /// What it says.
        key: String,
    },
    /// A file without a single pair.
    #[error("{} holds no LoRA", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A layer that the model does not have.
    #[error("{} is for another model: this one's {component} has no layer for `{key}`", file.display())]
    Layer {
        /// The file.
        file: PathBuf,
        /// The component.
        component: Component,
        /// The tensor.
        key: String,
    },
    /// One matrix without the other.
    #[error("`{key}` of {} has no counterpart: its {missing} matrix is missing", file.display())]
    Pair {
        /// The file.
        file: PathBuf,
        /// The tensor that is there.
        key: String,
        /// `up` or `down`.
        missing: &'static str,
    },
    /// A matrix that does not fit the layer, or its counterpart.
    #[error("`{key}` of {} has shape {got:?}, expected {expected} for this model", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        key: String,
        /// What would fit.
        expected: String,
        /// Its shape.
        got: Vec<usize>,
    },
}

/// A file, and how strongly it is to be applied.
#[derive(Debug, Clone)]
pub struct Lora {
    file: Arc<TensorFile>,
    strength: f32,
    hash: String,
}

/// What a file has for one layer, by the names of its tensors.
#[derive(Default)]
struct Pair {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

impl Lora {
    /// Opens a file; 1 is the strength that it was trained for.
    ///
    /// # Errors
    /// [`LoraError::File`], [`LoraError::Strength`].
    pub fn open(path: &Path, strength: f32) -> Result<Self, LoraError> {
        check_strength(path, strength)?;
        let file = Arc::new(TensorFile::open(path)?);
        let hash = blake3::hash(file.bytes()).to_hex()[..16].to_owned();
        Ok(Self { file, strength, hash })
    }

    /// The same file at another strength.
    ///
    /// # Errors
    /// [`LoraError::Strength`].
    pub fn at(&self, strength: f32) -> Result<Self, LoraError> {
        check_strength(self.file.path(), strength)?;
        Ok(Self { strength, ..self.clone() })
    }

    /// The file's name without its folder.
    pub fn name(&self) -> String {
        self.file.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// How strongly it is applied.
    pub fn strength(&self) -> f32 {
        self.strength
    }

    /// 16 hexadecimal digits that name its contents: the start of the file's BLAKE3.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Adds what the file has to `adapters` of the model in `bundle`.
    fn add_to(&self, bundle: &Bundle, adapters: &mut Adapters) -> Result<(), LoraError> {
        let path = self.file.path();
        let mut pairs: BTreeMap<(&'static str, String), Pair> = BTreeMap::new();
        for name in self.file.names() {
            let Key { component, layer, role } = keys::parse(&name)
                .ok_or_else(|| LoraError::Key { file: path.to_owned(), key: name.clone() })?;
            let pair = pairs.entry((component.name(), layer)).or_default();
            match role {
                Role::Down => pair.down = Some(name),
                Role::Up => pair.up = Some(name),
                Role::Alpha => pair.alpha = Some(name),
            }
        }
        if pairs.is_empty() {
            return Err(LoraError::Empty { file: path.to_owned() });
        }
        let alphas = Alphas::read(&self.file)?;
        let mut layers = Layers::new(bundle);
        for ((component, layer), pair) in &pairs {
            let component = Component::from_name(component).expect("it was made from a component");
            let (down_key, up_key) = pair.keys(path)?;
            let missing = || LoraError::Layer { file: path.to_owned(), component, key: down_key.to_owned() };
            let (weight, shape) = layers.find(component, layer).ok_or_else(missing)?;
            let [down, up] = [self.tensor(down_key)?, self.tensor(up_key)?];
            let rank = self.check([(down_key, &down), (up_key, &up)], &shape)?;
            let alpha = match &pair.alpha {
                Some(key) => self.number(key)?,
                None => alphas.of(component, layer).unwrap_or(rank as f32),
            };
            let scale = self.strength * alpha / rank as f32;
            adapters.add(component, &weight, Adapter { file: self.file.clone(), down, up, scale });
        }
        Ok(())
    }

    fn tensor(&self, key: &str) -> Result<Tensor, LoraError> {
        Ok(self.file.tensor(key)?.expect("the name is one of the file's"))
    }

    fn number(&self, key: &str) -> Result<f32, LoraError> {
        let tensor = self.tensor(key)?;
        match tensor.shape.iter().product() {
            1 => Ok(self.file.values(&tensor)[0]),
            _ => Err(self.shape_error(key, &tensor, "one number")),
        }
    }

    /// The rank of two matrices that fit a layer whose weight is `[o, k]`, or `[o, kh, kw, c]`.
    fn check(&self, [down, up]: [(&str, &Tensor); 2], shape: &[usize]) -> Result<usize, LoraError> {
        let rank = down.1.shape.first().copied().filter(|&rank| rank > 0);
        let rank = rank.ok_or_else(|| self.shape_error(down.0, down.1, "two dimensions or four"))?;
        let expected = match *shape {
            [_, height, width, channels] => vec![rank, channels, height, width],
            [_, inputs] if down.1.shape.len() == 4 => vec![rank, inputs, 1, 1],
            _ => [&[rank], &shape[1..]].concat(),
        };
        if down.1.shape != expected {
            return Err(self.shape_error(down.0, down.1, &format!("{expected:?}")));
        }
        let expected = [shape[0], rank];
        let taps = up.1.shape.get(2..).unwrap_or_default();
        if !up.1.shape.starts_with(&expected) || taps.iter().any(|&taps| taps != 1) {
            return Err(self.shape_error(up.0, up.1, &format!("{expected:?}")));
        }
        Ok(rank)
    }

    fn shape_error(&self, key: &str, tensor: &Tensor, expected: &str) -> LoraError {
        let (file, key) = (self.file.path().to_owned(), key.to_owned());
        LoraError::Shape { file, key, expected: expected.to_owned(), got: tensor.shape.clone() }
    }
}

impl Pair {
    /// The names of both matrices.
    fn keys(&self, path: &Path) -> Result<(&str, &str), LoraError> {
        let lonely = |key: &str, missing| {
            let (file, key) = (path.to_owned(), key.to_owned());
            Err(LoraError::Pair { file, key, missing })
        };
        match (&self.down, &self.up, &self.alpha) {
            (Some(down), Some(up), _) => Ok((down, up)),
            (Some(down), None, _) => lonely(down, "up"),
            (None, Some(up), _) => lonely(up, "down"),
            (None, None, alpha) => lonely(alpha.as_deref().unwrap_or_default(), "down"),
        }
    }
}

fn check_strength(file: &Path, strength: f32) -> Result<(), LoraError> {
    let is_one = (-STRENGTH_MAX..=STRENGTH_MAX).contains(&strength);
    if is_one { Ok(()) } else { Err(LoraError::Strength { file: file.to_owned(), got: strength }) }
}

/// What several files together add to the model in `bundle`.
///
/// # Errors
/// [`LoraError`], naming the file and the tensor.
pub fn adapters(bundle: &Bundle, loras: &[Lora]) -> Result<Adapters, LoraError> {
    let mut adapters = Adapters::default();
    loras.iter().try_for_each(|lora| lora.add_to(bundle, &mut adapters))?;
    Ok(adapters)
}
