//! What UNets and autoencoders are made of: residual blocks, and what halves or doubles a map.

use super::builder::{Builder, Convolution, Groups, Made};
use crate::engine::graph::{Op, Value};

/// A value and how many channels it has.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    /// The value.
    pub value: Value,
    /// Its channels.
    pub channels: usize,
}

/// A residual block of two convolutions; `time` is the embedded timestep behind its SiLU, if the network has one.
pub fn resnet(
    b: &mut Builder,
    module: &str,
    x: Map,
    channels: usize,
    groups: Groups,
    time: Option<Map>,
) -> Made {
    let at = |layer: &str| format!("{module}.{layer}");
    let mut h = b.group_norm(&at("norm1"), x.value, x.channels, groups, true)?;
    h = b.convolution(&at("conv1"), h, Convolution::same(x.channels, channels))?;
    if let Some(time) = time {
        let projected = b.linear(&at("time_emb_proj"), time.value, [time.channels, channels], true)?;
        h = b.add(module, h, projected);
    }
    h = b.group_norm(&at("norm2"), h, channels, groups, true)?;
    h = b.convolution(&at("conv2"), h, Convolution::same(channels, channels))?;
    let shortcut = match x.channels == channels {
        true => x.value,
        false => b.linear(&at("conv_shortcut"), x.value, [x.channels, channels], true)?,
    };
    Ok(b.add(module, shortcut, h))
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
