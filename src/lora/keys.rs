//! The names of a LoRA's tensors: which component, which layer, which matrix.
//!
//! ```text
//! kohya        lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight     and .alpha
//! PEFT         unet.down_blocks.0.attentions.0.proj_in.lora_A.weight
//! diffusers    unet.down_blocks.0...attn1.to_q.lora.down.weight
//!              unet.down_blocks.0...attn1.processor.to_q_lora.down.weight
//!              text_encoder.text_model...self_attn.q_proj.lora_linear_layer.down.weight
//! ```
//! A layer is named by its path with underscores for full stops, which is all that kohya's names tell.

use serde_json::Value;

use super::LoraError;
use crate::bundle::Component;
use crate::tensor_file::TensorFile;

/// What a tensor is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes few channels of many.
    Down,
    /// Makes many of these.
    Up,
    /// A number that their product is multiplied by, over the rank.
    Alpha,
}

/// What a name says.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The network.
    pub component: Component,
    /// The layer's path with underscores.
    pub layer: String,
    /// Which of its tensors.
    pub role: Role,
}

/// What names begin with, and the network that they are of.
const PREFIXES: &[(&str, Component)] = &[
    ("lora_unet_", Component::Unet),
    ("lora_te_", Component::TextEncoder),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
    ("unet.", Component::Unet),
    ("text_encoder.", Component::TextEncoder),
    ("text_encoder_2.", Component::TextEncoder2),
];
/// What names of a UNet's layers begin with where nothing else says so.
const BARE: [&str; 3] = ["down_blocks.", "mid_block.", "up_blocks."];
/// What names end with.
const SUFFIXES: &[(&str, Role)] = &[
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];
/// What PEFT puts before the name that an adapter was given in training.
const NAMED: [(&str, Role); 2] = [(".lora_A", Role::Down), (".lora_B", Role::Up)];
/// What diffusers called the projections of a text encoder.
const TEXT_PROJECTIONS: [(&str, &str); 4] = [
    ("self_attn_to_q", "self_attn_q_proj"),
    ("self_attn_to_k", "self_attn_k_proj"),
    ("self_attn_to_v", "self_attn_v_proj"),
    ("self_attn_to_out", "self_attn_out_proj"),
];

/// What a tensor's name says; `None` if it is of no LoRA that is known.
pub fn parse(name: &str) -> Option<Key> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let (path, role) = ending(name)?;
    let prefixed =
        PREFIXES.iter().find_map(|(prefix, component)| Some((path.strip_prefix(prefix)?, *component)));
    let bare = || BARE.iter().any(|start| path.starts_with(start)).then_some((path, Component::Unet));
    let (path, component) = prefixed.or_else(bare)?;
    let layer = flat(component, &path.replace(".processor", ""));
    Some(Key { component, layer, role })
}

/// What stands before a name's ending, and what that says.
fn ending(name: &str) -> Option<(&str, Role)> {
    let known = SUFFIXES.iter().find_map(|(suffix, role)| Some((name.strip_suffix(suffix)?, *role)));
    known.or_else(|| {
        let (path, _adapter) = name.strip_suffix(".weight")?.rsplit_once('.')?;
        NAMED.iter().find_map(|(suffix, role)| Some((path.strip_suffix(suffix)?, *role)))
    })
}

/// A layer's path as names of LoRAs tell it.
pub fn flat(component: Component, path: &str) -> String {
    let path = path.replace('.', "_");
    let mut path = path.strip_prefix("text_model_").map_or(path.clone(), str::to_owned);
    if component == Component::Unet {
        // The last layer of an attention stands in a list of one and a dropout.
        return path.strip_suffix("to_out_0").map_or(path.clone(), |rest| format!("{rest}to_out"));
    }
    for (other, name) in TEXT_PROJECTIONS {
        path = path.replace(other, name);
    }
    path
}

/// Alphas that stand in the file's metadata, as PEFT writes them.
pub struct Alphas(Value);

impl Alphas {
    /// Those of a file; none if it says nothing.
    ///
    /// # Errors
    /// [`LoraError::Metadata`] for variants of LoRA that compute something else.
    pub fn read(file: &TensorFile) -> Result<Self, LoraError> {
        let text = file.metadata("lora_adapter_metadata").unwrap_or("{}");
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        let variants = ["use_rslora", "use_dora", "lora_bias"];
        let says = |key: &&String| {
            variants.iter().any(|variant| key.ends_with(variant)) && json[key.as_str()] == true
        };
        match json.as_object().and_then(|object| object.keys().find(says)) {
            Some(key) => Err(LoraError::Metadata { file: file.path().to_owned(), key: key.clone() }),
            None => Ok(Self(json)),
        }
    }

    /// That of a layer.
    pub fn of(&self, component: Component, layer: &str) -> Option<f32> {
        let pattern = self.0[format!("{component}.alpha_pattern")].as_object();
        let own = pattern.and_then(|pattern| {
            pattern.iter().find(|(path, _)| flat(component, path) == layer).map(|(_, alpha)| alpha)
        });
        own.unwrap_or(&self.0[format!("{component}.lora_alpha")]).as_f64().map(|alpha| alpha as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_writers_are_read() {
        use Component::{TextEncoder, TextEncoder2, Unet};
        let q = "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q";
        let block = "down_blocks.0.attentions.1.transformer_blocks.0";
        let layer = "encoder_layers_3_self_attn_q_proj";
        let cases: Vec<(String, Component, &str, Role)> = vec![
            (format!("lora_unet_{q}.lora_down.weight"), Unet, q, Role::Down),
            (format!("lora_unet_{q}.alpha"), Unet, q, Role::Alpha),
            (format!("unet.{block}.attn1.to_q.lora_B.weight"), Unet, q, Role::Up),
            (format!("base_model.model.{block}.attn1.to_q.lora_A.default.weight"), Unet, q, Role::Down),
            (format!("{block}.attn1.processor.to_q_lora.up.weight"), Unet, q, Role::Up),
            (format!("unet.{block}.attn1.to_q.lora.down.weight"), Unet, q, Role::Down),
            (
                "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight"
                    .into(),
                Unet,
                "mid_block_attentions_0_transformer_blocks_0_attn2_to_out",
                Role::Up,
            ),
            (
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_up.weight".into(),
                Unet,
                "mid_block_attentions_0_transformer_blocks_0_attn2_to_out",
                Role::Up,
            ),
            ("lora_unet_input_blocks_3_0_op.alpha".into(), Unet, "input_blocks_3_0_op", Role::Alpha),
            (format!("lora_te_text_model_{layer}.lora_up.weight"), TextEncoder, layer, Role::Up),
            (format!("lora_te2_text_model_{layer}.alpha"), TextEncoder2, layer, Role::Alpha),
            (
                "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.up.weight"
                    .into(),
                TextEncoder,
                layer,
                Role::Up,
            ),
            (
                "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.down.weight".into(),
                TextEncoder,
                layer,
                Role::Down,
            ),
            (
                "text_encoder_2.encoder.layers.3.self_attn.q_proj.lora_A.weight".into(),
                TextEncoder2,
                layer,
                Role::Down,
            ),
        ];
        for (name, component, layer, role) in cases {
            let key = Key { component, layer: layer.to_owned(), role };
            assert_eq!(parse(&name), Some(key), "{name}");
        }
        for name in [
            "lora_unet_x.hada_w1_a",
            "lora_unet_x.dora_scale",
            "lora_unet_x.lora_mid.weight",
            "vae.x.alpha",
            "a",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
