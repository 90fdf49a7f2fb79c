//! What UNets and autoencoders are made of: residual blocks, attention of pixels, and what halves or doubles a map.

use super::ArchitectureError;
use super::builder::{Builder, Convolution, Groups, Made};
use crate::engine::graph::{Op, Value};
use crate::kernels::activation::Function;

/// A value and how many channels it has.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    /// The value.
    pub value: Value,
    /// Its channels.
    pub channels: usize,
}

/// What residual blocks have in common.
#[derive(Debug, Clone, Copy)]
pub struct Residual {
    /// Of both normalisations.
    pub groups: Groups,
    /// The embedded timestep behind its SiLU, if the network has one.
    pub time: Option<Map>,
    /// Whether the timestep scales and shifts what is normalised, instead of being added before.
    pub scale_shift: bool,
    /// What the block does to height and width.
    pub resize: Resize,
}

/// What is done to the height and width of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Nothing.
    Keep,
    /// They are halved.
    Half,
    /// They are doubled.
    Double,
}

impl Residual {
    /// The plain block: the timestep is added, and maps keep their size.
    pub fn plain(groups: Groups, time: Option<Map>) -> Self {
        Self { groups, time, scale_shift: false, resize: Resize::Keep }
    }
}

/// A residual block of two convolutions, to so many channels.
pub fn resnet(
    b: &mut Builder,
    module: &str,
    x: Map,
    channels: usize,
    block: Residual,
) -> Result<Map, ArchitectureError> {
    let Residual { groups, time, scale_shift, resize } = block;
    let at = |layer: &str| format!("{module}.{layer}");
    let mut h = b.group_norm(&at("norm1"), x.value, x.channels, groups, true)?;
    let mut shortcut = x.value;
    match resize {
        Resize::Keep => {}
        Resize::Half => [h, shortcut] = [h, shortcut].map(|x| b.emit(module, Op::Downsample, &[x])),
        // The convolution doubles its own input.
        Resize::Double => shortcut = b.emit(module, Op::Upsample, &[shortcut]),
    }
    let upsample = resize == Resize::Double;
    h =
        b.convolution(&at("conv1"), h, Convolution { upsample, ..Convolution::same(x.channels, channels) })?;
    match time {
        Some(time) if scale_shift => {
            let both = b.linear(&at("time_emb_proj"), time.value, [time.channels, 2 * channels], true)?;
            let [scale, shift] =
                [0, channels].map(|start| b.emit(module, Op::Slice { start, len: channels }, &[both]));
            let scale = b.emit(module, Op::Shift { summand: 1.0 }, &[scale]);
            h = b.group_norm(&at("norm2"), h, channels, groups, false)?;
            h = b.emit(module, Op::Multiply, &[h, scale]);
            h = b.add(module, h, shift);
            h = b.activation(module, Function::Silu, h);
        }
        _ => {
            if let Some(time) = time {
                let projected =
                    b.linear(&at("time_emb_proj"), time.value, [time.channels, channels], true)?;
                h = b.add(module, h, projected);
            }
            h = b.group_norm(&at("norm2"), h, channels, groups, true)?;
        }
    }
    h = b.convolution(&at("conv2"), h, Convolution::same(channels, channels))?;
    if x.channels != channels {
        shortcut = b.linear(&at("conv_shortcut"), shortcut, [x.channels, channels], true)?;
    }
    Ok(Map { value: b.add(module, shortcut, h), channels })
}

/// The pixels of a map look at one another; they are normalised before where `groups` says how.
pub fn attention(b: &mut Builder, module: &str, x: Map, groups: Option<Groups>, heads: usize) -> Made {
    let channels = x.channels;
    let normed = match groups {
        Some(groups) => b.group_norm(&format!("{module}.group_norm"), x.value, channels, groups, false)?,
        None => x.value,
    };
    let q = b.linear(&format!("{module}.to_q"), normed, [channels; 2], true)?;
    let k = b.linear(&format!("{module}.to_k"), normed, [channels; 2], true)?;
    let v = b.linear(&format!("{module}.to_v"), normed, [channels; 2], true)?;
    let mixed = b.attention(module, [q, k, v], channels, heads, false);
    let out = b.linear(&format!("{module}.to_out.0"), mixed, [channels; 2], true)?;
    Ok(b.add(module, out, x.value))
}

/// Halves a map.
pub fn downsample(b: &mut Builder, module: &str, x: Value, channels: usize, pads: [usize; 4]) -> Made {
    let convolution = Convolution { stride: 2, pads, ..Convolution::same(channels, channels) };
    b.convolution(&format!("{module}.downsamplers.0.conv"), x, convolution)
}

/// Doubles a map.
pub fn upsample(b: &mut Builder, module: &str, x: Value, channels: usize) -> Made {
    let convolution = Convolution { upsample: true, ..Convolution::same(channels, channels) };
    b.convolution(&format!("{module}.upsamplers.0.conv"), x, convolution)
}

/// The channels of two maps, one behind the other.
pub fn concat(b: &mut Builder, place: &str, maps: [Map; 2]) -> Map {
    let value = b.emit(place, Op::Concat, &maps.map(|map| map.value));
    Map { value, channels: maps.iter().map(|map| map.channels).sum() }
}

/// Two linear layers with SiLU between them.
pub fn embedding(b: &mut Builder, module: &str, x: Value, [from, to]: [usize; 2]) -> Made {
    let h = b.linear(&format!("{module}.linear_1"), x, [from, to], true)?;
    let h = b.activation(module, Function::Silu, h);
    b.linear(&format!("{module}.linear_2"), h, [to, to], true)
}
