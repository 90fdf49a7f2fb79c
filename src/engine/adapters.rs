//! What is added to the layers of a model without touching its file: products of two thin matrices, as LoRA has them.
//!
//! `y = W x` becomes `y = W x + scale (up (down x))`, where `down` is a layer like `W` with a few outputs, and `up` makes as
//! many of these as `W` has. Both are read where their own file has them.
//!
//! Source: Hu et al. 2021, section 4.1, arXiv:2106.09685.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bundle::Component;
use crate::tensor_file::{Tensor, TensorFile};

/// What is added to one layer.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The file with both matrices.
    pub file: Arc<TensorFile>,
    /// `[rank, c]`, or `[rank, c, kh, kw]` for a convolution.
    pub down: Tensor,
    /// `[o, rank]`, also with taps of 1.
    pub up: Tensor,
    /// What the product is multiplied by.
    pub scale: f32,
}

/// All that is added to a model, by component and the name of a layer's weight.
#[derive(Debug, Default)]
pub struct Adapters(HashMap<(Component, String), Vec<Adapter>>);

impl Adapters {
    /// Adds to a layer.
    pub fn add(&mut self, component: Component, weight: &str, adapter: Adapter) {
        self.0.entry((component, weight.to_owned())).or_default().push(adapter);
    }

    /// What is added to a layer.
    pub fn of(&self, component: Component, weight: &str) -> &[Adapter] {
        self.0.get(&(component, weight.to_owned())).map_or(&[], Vec::as_slice)
    }
}
