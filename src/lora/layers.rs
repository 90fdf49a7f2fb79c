//! The layers of a model by the flat names of LoRAs.

use std::collections::HashMap;

use serde_json::Value;

use super::keys::flat;
use crate::bundle::{Bundle, Component, ComponentEntry, Layout};
use crate::names::unet::{self, Blocks};

/// Names of weights and their shapes, by component and flat name.
pub struct Layers<'a> {
    bundle: &'a Bundle,
    components: HashMap<Component, HashMap<String, (String, Vec<usize>)>>,
}

impl<'a> Layers<'a> {
    /// Those of a model, found when they are asked for.
    pub fn new(bundle: &'a Bundle) -> Self {
        Self { bundle, components: HashMap::new() }
    }

    /// The weight of a layer, and its shape in the bundle.
    pub fn find(&mut self, component: Component, layer: &str) -> Option<(String, Vec<usize>)> {
        let bundle = self.bundle;
        let layers = self
            .components
            .entry(component)
            .or_insert_with(|| bundle.component(component).map_or(HashMap::new(), of_component));
        layers.get(layer).cloned()
    }
}

fn of_component(entry: &ComponentEntry) -> HashMap<String, (String, Vec<usize>)> {
    let blocks = blocks(&entry.config);
    let mut layers = HashMap::new();
    for tensor in entry.tensors.iter().filter(|tensor| tensor.layout() == Layout::O8k4) {
        // Exporters to ONNX put the network into a module of theirs.
        let path = tensor.name().trim_start_matches("model.");
        let Some(path) = path.strip_suffix(".weight") else { continue };
        let found = (tensor.name().to_owned(), tensor.shape().to_vec());
        if let (Component::Unet, Some(blocks)) = (entry.name, &blocks) {
            let original = unet::original(&format!("{path}.weight"), blocks);
            layers.insert(flat(entry.name, original.trim_end_matches(".weight")), found.clone());
        }
        layers.insert(flat(entry.name, path), found);
    }
    layers
}

/// What the original's names of a UNet follow from, where it has any.
fn blocks(config: &Value) -> Option<Blocks> {
    let layers = usize::try_from(config["layers_per_block"].as_u64()?).ok()?;
    let kinds = config["up_block_types"].as_array()?;
    Some(Blocks { layers, attends_up: kinds.iter().map(|kind| kind != "UpBlock2D").collect() })
}
