//! Inputs to try a component with: the shapes that a picture's size asks for, and numbers of the right kind.

use super::Size;
use crate::bundle::{Bundle, Classes, Component, PipelineKind};
use crate::denoise::noise::TorchGenerator;
use crate::engine::{NamedTensor, free_dimension, graph::Input};

/// What is drawn when a whole picture is to be tried.
pub fn example_prompt(bundle: &Bundle) -> &str {
    let pipeline = bundle.pipeline();
    let is_told_class = || bundle.component(Component::Unet)?.config["num_class_embeds"].as_u64();
    match (pipeline.kind, &pipeline.classes) {
        (PipelineKind::Pixels, Some(Classes { names, .. })) if !names.is_empty() => &names[0].name,
        (PipelineKind::Pixels, _) if is_told_class().is_some() => "0",
        (PipelineKind::Pixels, _) => "",
        _ => "a glossy strawberry on a blue background",
    }
}

/// Inputs for `component`, as for one picture of `size`: noise, a timestep in the middle, some tokens. The same each time.
pub fn example(bundle: &Bundle, component: Component, inputs: &[Input], size: Size) -> Vec<NamedTensor> {
    let numbers = |component, key: &str| {
        let number = bundle.component(component)?.config.get(key)?.as_u64()?;
        usize::try_from(number).ok()
    };
    let (size_px, scale) = ([size.height_px, size.width_px], bundle.pipeline().vae_scale_factor);
    let mut generator = TorchGenerator::new(0);
    let tensor = |input: &Input| {
        let free = |at| free_dimension(&numbers, component, &input.name, at, size_px, scale);
        let shape: Vec<usize> =
            input.shape.iter().enumerate().map(|(at, dim)| dim.unwrap_or_else(|| free(at))).collect();
        let mut values = vec![0.0; shape.iter().product()];
        match input.name.as_str() {
            "timestep" => values.fill(500.0),
            "class_labels" if shape.len() == 1 => values.fill(0.0),
            "attention_mask" => values.fill(1.0),
            "input_ids" => values.iter_mut().enumerate().for_each(|(at, id)| *id = at as f32),
            _ => generator.fill_normal(&mut values),
        }
        NamedTensor::new(&input.name, &shape, values)
    };
    inputs.iter().map(tensor).collect()
}
