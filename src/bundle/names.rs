//! The closed vocabularies of the header: every word that a reader has to understand to use a file.
//!
//! They grow without a new version of the format: a reader that meets a word it does not know refuses
//! the file and says which word it was.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

/// Defines an enum together with the word for each member.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$member_doc])* #[doc = concat!("Written `", $word, "`.")] $member,)+
        }

        impl $name {
            /// Every member.
            pub const ALL: &[Self] = &[$(Self::$member,)+];

            /// The word for this member, in a header and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$member => $word,)+ }
            }

            /// The member that `name` is the word for.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

names! {
    /// How the components of a model make a picture together.
    PipelineKind {
        /// Prompt to latents to picture.
        StableDiffusion = "stable-diffusion",
        /// The same with two text encoders, and a UNet that is told sizes.
        StableDiffusionXl = "stable-diffusion-xl",
        /// Prompt to the embedding of a picture to latents to picture, or from a picture's own embedding.
        Unclip = "unclip",
        /// Noise to picture, without latents or prompts.
        Pixels = "pixels",
    }
}

impl<'de> Deserialize<'de> for PipelineKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| {
            let known = Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            D::Error::custom(format!(
                "there is no pipeline of the kind `{name}`, only {known}: update tintype"
            ))
        })
    }
}

names! {
    /// A network that a pipeline is made of.
    Component {
        /// Prompt to embedding.
        TextEncoder = "text_encoder",
        /// The second text encoder, of models that have two.
        TextEncoder2 = "text_encoder_2",
        /// Noise prediction.
        Unet = "unet",
        /// Latents to picture.
        VaeDecoder = "vae_decoder",
        /// Picture to latents.
        VaeEncoder = "vae_encoder",
        /// Picture to embedding.
        ImageEncoder = "image_encoder",
        /// Text embedding to image embedding.
        Prior = "prior",
        /// A picture made larger, in all steps but the last.
        SuperResFirst = "super_res_first",
        /// The same, in the last step.
        SuperResLast = "super_res_last",
        /// Prompt to what the prior reads, of models in which the UNet reads something else.
        PriorTextEncoder = "prior_text_encoder",
        /// Image embedding to what the UNet reads in place of a prompt.
        TextProj = "text_proj",
        /// Picture to embedding, with the concepts that block a picture beside it.
        SafetyChecker = "safety_checker",
    }
}

names! {
    /// How one value of a tensor is stored.
    Dtype {
        /// A signed byte, to be multiplied by a scale.
        I8 = "i8",
        /// IEEE 754 half precision.
        F16 = "f16",
        /// IEEE 754 single precision.
        F32 = "f32",
    }
}

impl Dtype {
    /// Bytes for one value.
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

names! {
    /// The order in which a tensor's values are stored.
    Layout {
        /// Row-major: the last dimension varies fastest.
        Row = "row",
        /// A matrix `[O, K]` as `[ceil(O / 8)][ceil(K / 4)][8][4]`, padded with zeros.
        ///
        /// A dot-product instruction takes four consecutive K of eight outputs as they lie.
        O8k4 = "o8k4",
    }
}

names! {
    /// What shares one scale in an `i8` tensor `[O, K]`.
    Scales {
        /// All K of one output channel.
        Channel = "channel",
        /// 32 consecutive K of one output channel.
        Block32 = "block32",
    }
}

impl Scales {
    /// The number of scales for one output channel that has `k` values.
    pub const fn per_channel(self, k: usize) -> usize {
        match self {
            Self::Channel => 1,
            Self::Block32 => k.div_ceil(32),
        }
    }
}
