//! Diffusers' `UNet2DConditionModel`, as far as Stable Diffusion 1, 2 and XL, their inpainting models, LCM, BK-SDM and unCLIP
//! use it.

use serde_json::json;

use super::blocks::{Map, Residual, concat, downsample, embedding, resnet, upsample};
use super::builder::{Builder, Convolution, Groups};
use super::config::Config;
use super::transformer::{Transformer, transformer};
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op, Value};
use crate::kernels::activation::Function;

/// Kinds of levels, down and up, with attention and without.
const DOWN: [&str; 2] = ["CrossAttnDownBlock2D", "DownBlock2D"];
const UP: [&str; 2] = ["CrossAttnUpBlock2D", "UpBlock2D"];
/// What a timestep's embedding is wider than the first level.
const TIME_WIDENING: usize = 4;
/// Keys that change nothing here: training, data types, the size that is drawn by default, and what the weights' shapes tell.
const IGNORED: &[&str] =
    &["addition_embed_type_num_heads", "dropout", "sample_size", "upcast_attention", "use_linear_projection"];

/// One level, of the way down; the way up has the same in reverse.
#[derive(Debug, Clone, Copy)]
struct Level {
    channels: usize,
    layers: usize,
    heads: usize,
    depth: usize,
}

/// What a configuration says.
struct Shape {
    levels: Vec<Level>,
    attends: [Vec<bool>; 2],
    channels: [usize; 2],
    text_width: usize,
    groups: Groups,
    has_middle: bool,
    cosine_first: bool,
    freq_shift: f32,
    time_cond: Option<usize>,
    /// The width of one size's embedding, and of all that is added to the timestep.
    added: Option<[usize; 2]>,
    class_labels: Option<usize>,
}

/// The inputs that only some networks have.
struct Extra {
    timestep_cond: Option<Value>,
    text_embeds: Option<Value>,
    time_ids: Option<Value>,
    class_labels: Option<Value>,
}

/// Builds the network.
///
/// # Errors
/// [`ArchitectureError`].
pub fn build(config: &Config, mut b: Builder) -> Result<Network, ArchitectureError> {
    let shape = Shape::read(config, &b)?;
    let sample = b.input("sample", InputType::F32, &[None, Some(shape.channels[0]), None, None]);
    let timestep = b.input("timestep", InputType::F32, &[None]);
    let text = b.input("encoder_hidden_states", InputType::F32, &[None, None, Some(shape.text_width)]);
    let text = Map { value: text, channels: shape.text_width };
    let mut extra = |name: &str, width: Option<usize>| {
        width.map(|width| b.input(name, InputType::F32, &[None, Some(width)]))
    };
    let extra = Extra {
        timestep_cond: extra("timestep_cond", shape.time_cond),
        text_embeds: extra("text_embeds", shape.added.map(|[each, all]| all - SIZES * each)),
        time_ids: extra("time_ids", shape.added.map(|_| SIZES)),
        class_labels: extra("class_labels", shape.class_labels),
    };
    let sample = b.emit("sample", Op::ChannelsLast, &[sample]);
    let time = shape.time(&mut b, timestep, &extra)?;
    let first = Convolution::same(shape.channels[0], shape.levels[0].channels);
    let x = Map { value: b.convolution("conv_in", sample, first)?, channels: shape.levels[0].channels };
    let (x, skips) = shape.down(&mut b, x, time, text)?;
    let x = shape.middle(&mut b, x, time, text)?;
    let x = shape.up(&mut b, x, skips, time, text)?;
    let h = b.group_norm("conv_norm_out", x.value, x.channels, shape.groups, true)?;
    let h = b.convolution("conv_out", h, Convolution::same(x.channels, shape.channels[1]))?;
    let out = b.emit("out_sample", Op::ChannelsFirst, &[h]);
    b.output("out_sample", out);
    Ok(b.finish())
}

/// Numbers that XL is told of a picture: its original size, where it was cut, and its size.
const SIZES: usize = 6;

impl Shape {
    fn read(config: &Config, b: &Builder) -> Result<Self, ArchitectureError> {
        config.class(&["UNet2DConditionModel"])?;
        let widths = config.numbers("block_out_channels")?;
        let count = widths.len();
        let layers = config.per_level("layers_per_block", count, Some(2))?;
        // The key is named after channels and has always held heads.
        let heads = config.per_level("attention_head_dim", count, Some(8))?;
        let depths = config.per_level("transformer_layers_per_block", count, Some(1))?;
        let level = |at: usize| Level {
            channels: widths[at],
            layers: layers[at],
            heads: heads[at],
            depth: depths[at],
        };
        let levels: Vec<Level> = (0..count).map(level).collect();
        let attends = |key, kinds: [&str; 2]| {
            let words = config.words(key, count, &kinds)?;
            Ok::<_, ArchitectureError>(words.iter().map(|&word| word == kinds[0]).collect::<Vec<_>>())
        };
        let attends = [attends("down_block_types", DOWN)?, attends("up_block_types", UP)?];
        if levels.iter().any(|level| !level.channels.is_multiple_of(level.heads)) {
            return Err(config.refuse("attention_head_dim", "numbers of heads that divide the channels"));
        }
        let count = config.number("norm_num_groups", Some(32))?;
        if widths.iter().any(|width| !width.is_multiple_of(count)) {
            return Err(config.refuse("norm_num_groups", "a number that divides all of block_out_channels"));
        }
        let groups = Groups { count, epsilon: config.float("norm_eps", 1e-5)? };
        let middle = config.word("mid_block_type")?;
        let has_middle = match middle {
            Some("UNetMidBlock2DCrossAttn") => true,
            // Older configurations lack the key and have the block.
            None => b.has("mid_block.resnets.0.conv1.weight"),
            Some(_) => return Err(config.refuse("mid_block_type", "UNetMidBlock2DCrossAttn or null")),
        };
        let embedding = config.optional("projection_class_embeddings_input_dim")?;
        let needs_embedding = || config.refuse("projection_class_embeddings_input_dim", "a whole number");
        let (added, class_labels) =
            match (config.word("addition_embed_type")?, config.word("class_embed_type")?) {
                (None, None) => (None, None),
                (Some("text_time"), None) => {
                    let each = config.number("addition_time_embed_dim", None)?;
                    let all = embedding.filter(|&all| all > SIZES * each).ok_or_else(needs_embedding)?;
                    (Some([each, all]), None)
                }
                (None, Some("projection")) => (None, Some(embedding.ok_or_else(needs_embedding)?)),
                (None, Some(_)) => return Err(config.refuse("class_embed_type", "projection or null")),
                (Some(_), _) => return Err(config.refuse("addition_embed_type", "text_time or null")),
            };
        config.expect(&[
            ("act_fn", json!("silu")),
            ("attention_type", json!("default")),
            ("center_input_sample", json!(false)),
            ("class_embeddings_concat", json!(false)),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("downsample_padding", json!(1)),
            ("dual_cross_attention", json!(false)),
            ("mid_block_scale_factor", json!(1)),
            ("only_cross_attention", json!(false)),
            ("mid_block_only_cross_attention", json!(false)),
            ("resnet_out_scale_factor", json!(1)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("time_embedding_type", json!("positional")),
        ])?;
        let shape = Self {
            levels,
            attends,
            channels: [config.number("in_channels", Some(4))?, config.number("out_channels", Some(4))?],
            text_width: config.number("cross_attention_dim", Some(1280))?,
            groups,
            has_middle,
            cosine_first: config.flag("flip_sin_to_cos", true)?,
            freq_shift: config.float("freq_shift", 0.0)?,
            time_cond: config.optional("time_cond_proj_dim")?,
            added,
            class_labels,
        };
        config.finish(IGNORED)?;
        Ok(shape)
    }

    /// The embedded timestep and what is added to it, behind the SiLU that every residual block begins with.
    fn time(&self, b: &mut Builder, timestep: Value, extra: &Extra) -> Result<Map, ArchitectureError> {
        let first = self.levels[0].channels;
        let width = TIME_WIDENING * first;
        let mut waves = b.sinusoids("time_embedding", timestep, first, self.cosine_first, self.freq_shift);
        if let (Some(cond), Some(from)) = (extra.timestep_cond, self.time_cond) {
            let projected = b.linear("time_embedding.cond_proj", cond, [from, first], false)?;
            waves = b.add("time_embedding", waves, projected);
        }
        let mut time = embedding(b, "time_embedding", waves, [first, width])?;
        if let (Some(labels), Some(from)) = (extra.class_labels, self.class_labels) {
            let embedded = embedding(b, "class_embedding", labels, [from, width])?;
            time = b.add("class_embedding", time, embedded);
        }
        if let (Some([each, all]), Some(text), Some(sizes)) = (self.added, extra.text_embeds, extra.time_ids)
        {
            let sizes = b.sinusoids("add_embedding", sizes, each, self.cosine_first, self.freq_shift);
            let joined = b.emit("add_embedding", Op::Concat, &[text, sizes]);
            let embedded = embedding(b, "add_embedding", joined, [all, width])?;
            time = b.add("add_embedding", time, embedded);
        }
        Ok(Map { value: b.activation("time_embedding", Function::Silu, time), channels: width })
    }

    fn transformer(&self, level: Level, text: Map) -> Transformer {
        Transformer { heads: level.heads, depth: level.depth, groups: self.groups.count, text }
    }

    /// A residual block, and attention behind it where the level has it.
    fn layer(
        &self,
        b: &mut Builder,
        [block, layer]: [&str; 2],
        x: Map,
        (level, attends): (Level, bool),
        [time, text]: [Map; 2],
    ) -> Result<Map, ArchitectureError> {
        let residual = Residual::plain(self.groups, Some(time));
        let mut x = resnet(b, &format!("{block}.resnets.{layer}"), x, level.channels, residual)?;
        if attends {
            let module = format!("{block}.attentions.{layer}");
            x.value = transformer(b, &module, x, self.transformer(level, text))?;
        }
        Ok(x)
    }

    /// The way down, and what the way up will be shown of it.
    fn down(
        &self,
        b: &mut Builder,
        mut x: Map,
        time: Map,
        text: Map,
    ) -> Result<(Map, Vec<Map>), ArchitectureError> {
        let mut skips = vec![x];
        for (at, (&level, &attends)) in self.levels.iter().zip(&self.attends[0]).enumerate() {
            let block = format!("down_blocks.{at}");
            for layer in 0..level.layers {
                x = self.layer(b, [&block, &layer.to_string()], x, (level, attends), [time, text])?;
                skips.push(x);
            }
            if at + 1 < self.levels.len() {
                x.value = downsample(b, &block, x.value, x.channels, [1; 4])?;
                skips.push(x);
            }
        }
        Ok((x, skips))
    }

    fn middle(&self, b: &mut Builder, mut x: Map, time: Map, text: Map) -> Result<Map, ArchitectureError> {
        if self.has_middle {
            let level = self.levels[self.levels.len() - 1];
            x = self.layer(b, ["mid_block", "0"], x, (level, true), [time, text])?;
            x = self.layer(b, ["mid_block", "1"], x, (level, false), [time, text])?;
        }
        Ok(x)
    }

    fn up(
        &self,
        b: &mut Builder,
        mut x: Map,
        mut skips: Vec<Map>,
        time: Map,
        text: Map,
    ) -> Result<Map, ArchitectureError> {
        for (at, (&level, &attends)) in self.levels.iter().rev().zip(&self.attends[1]).enumerate() {
            let block = format!("up_blocks.{at}");
            for layer in 0..=level.layers {
                let skip = skips.pop().expect("the way up has as many layers as the way down has values");
                let both = concat(b, &block, [x, skip]);
                x = self.layer(b, [&block, &layer.to_string()], both, (level, attends), [time, text])?;
            }
            if at + 1 < self.levels.len() {
                x.value = upsample(b, &block, x.value, x.channels)?;
            }
        }
        Ok(x)
    }
}
