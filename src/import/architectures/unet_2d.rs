//! Diffusers' `UNet2DModel`: noise to pictures without words, with a class where the model has classes.

use serde_json::json;

use super::blocks::{Map, Residual, Resize, attention, concat, downsample, embedding, resnet, upsample};
use super::builder::{Builder, Convolution, Groups};
use super::config::Config;
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op, Value};
use crate::kernels::activation::Function;

/// Kinds of levels, down and up: plain, with attention, with residual blocks that change the size.
const DOWN: [&str; 3] = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"];
const UP: [&str; 3] = ["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"];
/// What a timestep's embedding is wider than the first level, if nothing is said.
const TIME_WIDENING: usize = 4;
/// Keys that change nothing here: training, and the size that is drawn by default.
const IGNORED: &[&str] = &["dropout", "num_train_timesteps", "sample_size"];
/// Where a convolution that halves a map pads it, by `downsample_padding`; with 0 it pads on two sides only.
const DOWN_PADS: [[usize; 4]; 2] = [[0, 0, 1, 1], [1; 4]];

/// What a level does beside its residual blocks.
#[derive(Debug, Clone, Copy)]
struct Level {
    attends: bool,
    /// Whether a residual block changes the size, and not a convolution.
    resizes_by_block: bool,
}

/// What the class is told as.
#[derive(Debug, Clone, Copy)]
enum Classes {
    /// A number below this one.
    Label(usize),
    /// A number that is embedded as timesteps are.
    Timestep,
    /// The embedding itself.
    Embedding,
}

/// What a configuration says.
struct Shape {
    widths: Vec<usize>,
    levels: [Vec<Level>; 2],
    layers: usize,
    channels: [usize; 2],
    groups: Groups,
    /// Of the attention in the middle.
    middle_groups: Option<Groups>,
    /// Channels of a head; of all channels there is one, if not given.
    head_channels: Option<usize>,
    has_middle: bool,
    middle_attends: bool,
    scale_shift: bool,
    down_pads: [usize; 4],
    cosine_first: bool,
    freq_shift: f32,
    time_width: usize,
    classes: Option<Classes>,
    centres: bool,
}

/// Builds the network.
///
/// # Errors
/// [`ArchitectureError`].
pub fn build(config: &Config, mut b: Builder) -> Result<Network, ArchitectureError> {
    let shape = Shape::read(config)?;
    let sample = b.input("sample", InputType::F32, &[None, Some(shape.channels[0]), None, None]);
    let timestep = b.input("timestep", InputType::F32, &[None]);
    let labels = shape.classes.map(|classes| match classes {
        Classes::Label(_) => b.input("class_labels", InputType::I64, &[None]),
        Classes::Timestep => b.input("class_labels", InputType::F32, &[None]),
        Classes::Embedding => b.input("class_labels", InputType::F32, &[None, Some(shape.time_width)]),
    });
    let mut sample = b.emit("sample", Op::ChannelsLast, &[sample]);
    if shape.centres {
        sample = b.emit("sample", Op::Scale { factor: 2.0 }, &[sample]);
        sample = b.emit("sample", Op::Shift { summand: -1.0 }, &[sample]);
    }
    let time = shape.time(&mut b, timestep, labels)?;
    let first = Convolution::same(shape.channels[0], shape.widths[0]);
    let x = Map { value: b.convolution("conv_in", sample, first)?, channels: shape.widths[0] };
    let (x, skips) = shape.down(&mut b, x, time)?;
    let x = shape.middle(&mut b, x, time)?;
    let x = shape.up(&mut b, x, skips, time)?;
    let h = b.group_norm("conv_norm_out", x.value, x.channels, shape.groups, true)?;
    let h = b.convolution("conv_out", h, Convolution::same(x.channels, shape.channels[1]))?;
    let out = b.emit("out_sample", Op::ChannelsFirst, &[h]);
    b.output("out_sample", out);
    Ok(b.finish())
}

impl Shape {
    fn read(config: &Config) -> Result<Self, ArchitectureError> {
        config.class(&["UNet2DModel"])?;
        let widths = config.numbers("block_out_channels")?;
        let levels = |key, kinds: [&str; 3], sampler| {
            let by_block = resizes_by_block(config, sampler)?;
            let words = config.words(key, widths.len(), &kinds)?;
            let level = |&word: &&str| {
                let attends = word == kinds[1];
                Level { attends, resizes_by_block: word == kinds[2] || attends && by_block }
            };
            Ok::<_, ArchitectureError>(words.iter().map(level).collect())
        };
        let levels = [
            levels("down_block_types", DOWN, "downsample_type")?,
            levels("up_block_types", UP, "upsample_type")?,
        ];
        let epsilon = config.float("norm_eps", 1e-5)?;
        let groups = Groups { count: config.number("norm_num_groups", Some(32))?, epsilon };
        if widths.iter().any(|width| !width.is_multiple_of(groups.count)) {
            return Err(config.refuse("norm_num_groups", "a number that divides all of block_out_channels"));
        }
        // Null is not what holds where the key is missing.
        let default = if config.has("attention_head_dim") { None } else { Some(8) };
        let head_channels = config.optional("attention_head_dim")?.or(default);
        if head_channels.is_some_and(|each| widths.iter().any(|width| !width.is_multiple_of(each))) {
            return Err(
                config.refuse("attention_head_dim", "channels of a head that divide block_out_channels")
            );
        }
        let scale_shift = match config.word("resnet_time_scale_shift")? {
            None | Some("default") => false,
            Some("scale_shift") => true,
            Some(_) => return Err(config.refuse("resnet_time_scale_shift", "default or scale_shift")),
        };
        let own_groups = config.optional("attn_norm_num_groups")?.map(|count| Groups { count, epsilon });
        let middle_groups = own_groups.or((!scale_shift).then_some(groups));
        if middle_groups.is_some_and(|groups| !widths[widths.len() - 1].is_multiple_of(groups.count)) {
            return Err(
                config.refuse("attn_norm_num_groups", "a number that divides the last of block_out_channels")
            );
        }
        let has_middle = match (config.has("mid_block_type"), config.word("mid_block_type")?) {
            (false, _) | (_, Some("UNetMidBlock2D")) => true,
            (true, None) => false,
            _ => return Err(config.refuse("mid_block_type", "UNetMidBlock2D or null")),
        };
        let down_pads = match config.whole("downsample_padding", 1)? {
            pads @ 0..=1 => DOWN_PADS[pads],
            _ => return Err(config.refuse("downsample_padding", "0 or 1")),
        };
        config.expect(&[
            ("act_fn", json!("silu")),
            ("mid_block_scale_factor", json!(1)),
            ("time_embedding_type", json!("positional")),
        ])?;
        let time_width = config.number("time_embedding_dim", Some(TIME_WIDENING * widths[0]))?;
        let shape = Self {
            levels,
            layers: config.number("layers_per_block", Some(2))?,
            channels: [config.number("in_channels", Some(3))?, config.number("out_channels", Some(3))?],
            groups,
            middle_groups,
            head_channels,
            has_middle,
            middle_attends: config.flag("add_attention", true)?,
            scale_shift,
            down_pads,
            cosine_first: config.flag("flip_sin_to_cos", true)?,
            freq_shift: config.float("freq_shift", 0.0)?,
            time_width,
            classes: Classes::read(config)?,
            centres: config.flag("center_input_sample", false)?,
            widths,
        };
        config.finish(IGNORED)?;
        Ok(shape)
    }

    /// The embedded timestep, and the class that is added to it, behind the SiLU that every residual block begins with.
    fn time(
        &self,
        b: &mut Builder,
        timestep: Value,
        labels: Option<Value>,
    ) -> Result<Map, ArchitectureError> {
        let (first, width) = (self.widths[0], self.time_width);
        let waves = |b: &mut Builder, module: &str, numbers| {
            b.sinusoids(module, numbers, first, self.cosine_first, self.freq_shift)
        };
        let steps = waves(b, "time_embedding", timestep);
        let mut time = embedding(b, "time_embedding", steps, [first, width])?;
        if let (Some(classes), Some(labels)) = (self.classes, labels) {
            let class = match classes {
                Classes::Label(count) => b.embedding("class_embedding", labels, [count, width])?,
                Classes::Timestep => {
                    let labels = waves(b, "class_embedding", labels);
                    embedding(b, "class_embedding", labels, [first, width])?
                }
                Classes::Embedding => labels,
            };
            time = b.add("class_embedding", time, class);
        }
        Ok(Map { value: b.activation("time_embedding", Function::Silu, time), channels: width })
    }

    fn residual(&self, time: Map, resize: Resize) -> Residual {
        Residual { groups: self.groups, time: Some(time), scale_shift: self.scale_shift, resize }
    }

    fn attention(
        &self,
        b: &mut Builder,
        module: &str,
        x: Map,
        groups: Option<Groups>,
    ) -> Result<Map, ArchitectureError> {
        let heads = self.head_channels.map_or(1, |each| x.channels / each);
        Ok(Map { value: attention(b, module, x, groups, heads)?, ..x })
    }

    /// A residual block, and attention behind it where the level has it.
    fn layer(
        &self,
        b: &mut Builder,
        (block, layer): (&str, usize),
        x: Map,
        (channels, level): (usize, Level),
        time: Map,
    ) -> Result<Map, ArchitectureError> {
        let residual = self.residual(time, Resize::Keep);
        let x = resnet(b, &format!("{block}.resnets.{layer}"), x, channels, residual)?;
        match level.attends {
            true => self.attention(b, &format!("{block}.attentions.{layer}"), x, Some(self.groups)),
            false => Ok(x),
        }
    }

    /// The way down, and what the way up will be shown of it.
    fn down(&self, b: &mut Builder, mut x: Map, time: Map) -> Result<(Map, Vec<Map>), ArchitectureError> {
        let mut skips = vec![x];
        for (at, (&channels, &level)) in self.widths.iter().zip(&self.levels[0]).enumerate() {
            let block = format!("down_blocks.{at}");
            for layer in 0..self.layers {
                x = self.layer(b, (&block, layer), x, (channels, level), time)?;
                skips.push(x);
            }
            if at + 1 < self.widths.len() {
                x = match level.resizes_by_block {
                    true => {
                        let residual = self.residual(time, Resize::Half);
                        resnet(b, &format!("{block}.downsamplers.0"), x, channels, residual)?
                    }
                    false => Map { value: downsample(b, &block, x.value, channels, self.down_pads)?, ..x },
                };
                skips.push(x);
            }
        }
        Ok((x, skips))
    }

    fn middle(&self, b: &mut Builder, x: Map, time: Map) -> Result<Map, ArchitectureError> {
        if !self.has_middle {
            return Ok(x);
        }
        let residual = self.residual(time, Resize::Keep);
        let mut x = resnet(b, "mid_block.resnets.0", x, x.channels, residual)?;
        if self.middle_attends {
            x = self.attention(b, "mid_block.attentions.0", x, self.middle_groups)?;
        }
        resnet(b, "mid_block.resnets.1", x, x.channels, residual)
    }

    fn up(
        &self,
        b: &mut Builder,
        mut x: Map,
        mut skips: Vec<Map>,
        time: Map,
    ) -> Result<Map, ArchitectureError> {
        for (at, (&channels, &level)) in self.widths.iter().rev().zip(&self.levels[1]).enumerate() {
            let block = format!("up_blocks.{at}");
            for layer in 0..=self.layers {
                let skip = skips.pop().expect("the way up has as many layers as the way down has values");
                let both = concat(b, &block, [x, skip]);
                x = self.layer(b, (&block, layer), both, (channels, level), time)?;
            }
            if at + 1 < self.widths.len() {
                x = match level.resizes_by_block {
                    true => {
                        let residual = self.residual(time, Resize::Double);
                        resnet(b, &format!("{block}.upsamplers.0"), x, channels, residual)?
                    }
                    false => Map { value: upsample(b, &block, x.value, channels)?, ..x },
                };
            }
        }
        Ok(x)
    }
}

impl Classes {
    fn read(config: &Config) -> Result<Option<Self>, ArchitectureError> {
        let count = config.optional("num_class_embeds")?;
        match config.word("class_embed_type")? {
            None => Ok(count.map(Self::Label)),
            Some("timestep") => Ok(Some(Self::Timestep)),
            Some("identity") => Ok(Some(Self::Embedding)),
            Some(_) => Err(config.refuse("class_embed_type", "timestep, identity or null")),
        }
    }
}

/// Whether the levels with attention change the size by a residual block.
fn resizes_by_block(config: &Config, key: &'static str) -> Result<bool, ArchitectureError> {
    match config.word(key)? {
        None | Some("conv") => Ok(false),
        Some("resnet") => Ok(true),
        Some(_) => Err(config.refuse(key, "conv or resnet")),
    }
}
