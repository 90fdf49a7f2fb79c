//! Diffusers' `AutoencoderKL`, of which decoder and encoder are two components.

use serde_json::json;

use super::blocks::{Map, Residual, attention, downsample, resnet, upsample};
use super::builder::{Builder, Convolution, Groups, Made};
use super::config::Config;
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op};

/// What is added to a variance, whatever the configuration says.
const EPSILON: f32 = 1e-6;
/// Of a convolution that halves a map; the original pads on two sides only.
const DOWN_PADS: [usize; 4] = [0, 0, 1, 1];
/// Keys that change nothing here.
const IGNORED: &[&str] = &["sample_size", "force_upcast", "scaling_factor", "shift_factor"];

/// What a configuration says.
struct Shape {
    widths: Vec<usize>,
    layers: usize,
    groups: Groups,
    picture_channels: [usize; 2],
    latent_channels: usize,
    attends: bool,
    /// Whether the encoder ends, and the decoder begins, with a convolution of the latents.
    converts: [bool; 2],
}

/// Builds the decoder or the encoder.
///
/// # Errors
/// [`ArchitectureError`].
pub fn build(config: &Config, b: Builder, decodes: bool) -> Result<Network, ArchitectureError> {
    let shape = Shape::read(config)?;
    if decodes { shape.decoder(b) } else { shape.encoder(b) }
}

impl Shape {
    fn read(config: &Config) -> Result<Self, ArchitectureError> {
        let widths = config.numbers("block_out_channels")?;
        config.words("down_block_types", widths.len(), &["DownEncoderBlock2D"])?;
        config.words("up_block_types", widths.len(), &["UpDecoderBlock2D"])?;
        config.expect(&[("act_fn", json!("silu"))])?;
        let count = config.number("norm_num_groups", Some(32))?;
        if widths.iter().any(|width| !width.is_multiple_of(count)) {
            return Err(config.refuse("norm_num_groups", "a number that divides all of block_out_channels"));
        }
        let shape = Self {
            widths,
            layers: config.number("layers_per_block", Some(1))?,
            groups: Groups { count, epsilon: EPSILON },
            picture_channels: [
                config.number("in_channels", Some(3))?,
                config.number("out_channels", Some(3))?,
            ],
            latent_channels: config.number("latent_channels", Some(4))?,
            attends: config.flag("mid_block_add_attention", true)?,
            converts: [config.flag("use_quant_conv", true)?, config.flag("use_post_quant_conv", true)?],
        };
        config.finish(IGNORED)?;
        Ok(shape)
    }

    fn decoder(&self, mut b: Builder) -> Result<Network, ArchitectureError> {
        let latents = self.latent_channels;
        let x = b.input("latent_sample", InputType::F32, &[None, Some(latents), None, None]);
        let mut h = b.emit("latent_sample", Op::ChannelsLast, &[x]);
        if self.converts[1] {
            h = b.linear("post_quant_conv", h, [latents; 2], true)?;
        }
        let widest = self.widths[self.widths.len() - 1];
        h = b.convolution("decoder.conv_in", h, Convolution::same(latents, widest))?;
        let mut x = self.middle(&mut b, "decoder.mid_block", Map { value: h, channels: widest })?;
        for (at, &channels) in self.widths.iter().rev().enumerate() {
            let block = format!("decoder.up_blocks.{at}");
            x = self.layers(&mut b, &block, x, channels, self.layers + 1)?;
            if at + 1 < self.widths.len() {
                x.value = upsample(&mut b, &block, x.value, channels)?;
            }
        }
        let out = self.end(&mut b, "decoder", x, self.picture_channels[1])?;
        let out = b.emit("sample", Op::ChannelsFirst, &[out]);
        b.output("sample", out);
        Ok(b.finish())
    }

    fn encoder(&self, mut b: Builder) -> Result<Network, ArchitectureError> {
        // Mean and logarithm of the variance.
        let moments = 2 * self.latent_channels;
        let picture = self.picture_channels[0];
        let x = b.input("sample", InputType::F32, &[None, Some(picture), None, None]);
        let h = b.emit("sample", Op::ChannelsLast, &[x]);
        let first = self.widths[0];
        let h = b.convolution("encoder.conv_in", h, Convolution::same(picture, first))?;
        let mut x = Map { value: h, channels: first };
        for (at, &channels) in self.widths.iter().enumerate() {
            let block = format!("encoder.down_blocks.{at}");
            x = self.layers(&mut b, &block, x, channels, self.layers)?;
            if at + 1 < self.widths.len() {
                x.value = downsample(&mut b, &block, x.value, channels, DOWN_PADS)?;
            }
        }
        let x = self.middle(&mut b, "encoder.mid_block", x)?;
        let mut out = self.end(&mut b, "encoder", x, moments)?;
        if self.converts[0] {
            out = b.linear("quant_conv", out, [moments; 2], true)?;
        }
        let out = b.emit("latent_parameters", Op::ChannelsFirst, &[out]);
        b.output("latent_parameters", out);
        Ok(b.finish())
    }

    fn layers(
        &self,
        b: &mut Builder,
        block: &str,
        mut x: Map,
        channels: usize,
        count: usize,
    ) -> Result<Map, ArchitectureError> {
        for layer in 0..count {
            let module = format!("{block}.resnets.{layer}");
            x = resnet(b, &module, x, channels, Residual::plain(self.groups, None))?;
        }
        Ok(x)
    }

    fn middle(&self, b: &mut Builder, block: &str, mut x: Map) -> Result<Map, ArchitectureError> {
        let (channels, residual) = (x.channels, Residual::plain(self.groups, None));
        x = resnet(b, &format!("{block}.resnets.0"), x, channels, residual)?;
        if self.attends {
            x.value = attention(b, &format!("{block}.attentions.0"), x, Some(self.groups), 1)?;
        }
        resnet(b, &format!("{block}.resnets.1"), x, channels, residual)
    }

    fn end(&self, b: &mut Builder, network: &str, x: Map, channels: usize) -> Made {
        let h = b.group_norm(&format!("{network}.conv_norm_out"), x.value, x.channels, self.groups, true)?;
        b.convolution(&format!("{network}.conv_out"), h, Convolution::same(x.channels, channels))
    }
}
