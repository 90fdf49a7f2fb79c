//! Diffusers' `AutoencoderTiny`, such as TAESD: convolutions and ReLU in one long list of layers.

use serde_json::json;

use super::builder::{Builder, Convolution, Made};
use super::config::Config;
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op, Value};
use crate::kernels::activation::Function;

/// Latents are kept within this of 0, smoothly.
const LATENT_BOUND: f32 = 3.0;
/// Keys that change nothing here: what the wrapper of another program multiplies by, and data types.
const IGNORED: &[&str] = &[
    "block_out_channels",
    "force_upcast",
    "latent_magnitude",
    "latent_shift",
    "scaling_factor",
    "shift_factor",
];

/// Layers in the making, which are numbered through.
struct Layers<'a> {
    b: &'a mut Builder,
    network: &'static str,
    next: usize,
}

/// Builds the decoder or the encoder.
///
/// # Errors
/// [`ArchitectureError`].
pub fn build(config: &Config, mut b: Builder, decodes: bool) -> Result<Network, ArchitectureError> {
    config.expect(&[
        ("act_fn", json!("relu")),
        ("upsample_fn", json!("nearest")),
        ("upsampling_scaling_factor", json!(2)),
    ])?;
    let latents = config.number("latent_channels", Some(4))?;
    let [picture_in, picture_out] =
        [config.number("in_channels", Some(3))?, config.number("out_channels", Some(3))?];
    let [down, up] =
        [config.numbers("encoder_block_out_channels")?, config.numbers("decoder_block_out_channels")?];
    let counts = [
        config.per_level("num_encoder_blocks", down.len(), None)?,
        config.per_level("num_decoder_blocks", up.len(), None)?,
    ];
    config.finish(IGNORED)?;
    if decodes {
        let x = b.input("latent_sample", InputType::F32, &[None, Some(latents), None, None]);
        let out = decoder(&mut b, x, [latents, picture_out], &up, &counts[1])?;
        b.output("sample", out);
    } else {
        let x = b.input("sample", InputType::F32, &[None, Some(picture_in), None, None]);
        let out = encoder(&mut b, x, [picture_in, latents], &down, &counts[0])?;
        b.output("latent_sample", out);
    }
    Ok(b.finish())
}

fn decoder(b: &mut Builder, x: Value, [from, to]: [usize; 2], widths: &[usize], counts: &[usize]) -> Made {
    let mut h = b.emit("latent_sample", Op::ChannelsLast, &[x]);
    h = b.emit("decoder", Op::Scale { factor: 1.0 / LATENT_BOUND }, &[h]);
    h = b.activation("decoder", Function::Tanh, h);
    h = b.emit("decoder", Op::Scale { factor: LATENT_BOUND }, &[h]);
    let mut layers = Layers { b, network: "decoder", next: 0 };
    h = layers.convolution(h, Convolution::same(from, widths[0]))?;
    h = layers.relu(h);
    for (level, (&width, &count)) in widths.iter().zip(counts).enumerate() {
        h = layers.blocks(h, width, count)?;
        h = match widths.get(level + 1) {
            Some(_) => {
                layers.next += 1;
                let convolution =
                    Convolution { upsample: true, bias: false, ..Convolution::same(width, width) };
                layers.convolution(h, convolution)?
            }
            None => layers.convolution(h, Convolution::same(width, to))?,
        };
    }
    // From 0 to 1, as the original has it, to -1 to 1.
    h = b.emit("decoder", Op::Scale { factor: 2.0 }, &[h]);
    h = b.emit("decoder", Op::Shift { summand: -1.0 }, &[h]);
    Ok(b.emit("sample", Op::ChannelsFirst, &[h]))
}

fn encoder(b: &mut Builder, x: Value, [from, to]: [usize; 2], widths: &[usize], counts: &[usize]) -> Made {
    let mut h = b.emit("sample", Op::ChannelsLast, &[x]);
    h = b.emit("encoder", Op::Shift { summand: 1.0 }, &[h]);
    h = b.emit("encoder", Op::Scale { factor: 0.5 }, &[h]);
    let mut layers = Layers { b, network: "encoder", next: 0 };
    for (level, (&width, &count)) in widths.iter().zip(counts).enumerate() {
        let convolution = match level {
            0 => Convolution::same(from, width),
            _ => Convolution { stride: 2, bias: false, ..Convolution::same(width, width) },
        };
        h = layers.convolution(h, convolution)?;
        h = layers.blocks(h, width, count)?;
    }
    h = layers.convolution(h, Convolution::same(widths[widths.len() - 1], to))?;
    Ok(b.emit("latent_sample", Op::ChannelsFirst, &[h]))
}

impl Layers<'_> {
    fn module(&mut self) -> String {
        self.next += 1;
        format!("{}.layers.{}", self.network, self.next - 1)
    }

    fn convolution(&mut self, x: Value, convolution: Convolution) -> Made {
        let module = self.module();
        self.b.convolution(&module, x, convolution)
    }

    fn relu(&mut self, x: Value) -> Value {
        let module = self.module();
        self.b.activation(&module, Function::Relu, x)
    }

    /// Three convolutions each, and what came in added.
    fn blocks(&mut self, mut x: Value, width: usize, count: usize) -> Made {
        for _ in 0..count {
            let module = self.module();
            let mut h = x;
            for layer in [0, 2, 4] {
                if layer > 0 {
                    h = self.b.activation(&module, Function::Relu, h);
                }
                h = self.b.convolution(
                    &format!("{module}.conv.{layer}"),
                    h,
                    Convolution::same(width, width),
                )?;
            }
            h = self.b.add(&module, h, x);
            x = self.b.activation(&module, Function::Relu, h);
        }
        Ok(x)
    }
}
