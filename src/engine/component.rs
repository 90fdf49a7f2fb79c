//! One component of a model, ready to run at any size.

use std::sync::Arc;

use tract_core::prelude::*;

use super::EngineError;
use super::cross_attention::CrossAttention;
use super::graph::{Graph, Input};
use super::memory;
use super::merging::TokenMerging;
use super::plan::{Plan, PlanError};
use super::resources::{Resources, Tile};
use super::weights::Weights;
use crate::allocator::{self, Kept};
use crate::bundle::{self, Bundle};
use crate::kernels::Arithmetic;

/// A tensor with the name that the source graph gives it: f32, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The name.
    pub name: String,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The values; token ids and timesteps too are whole numbers in f32.
    pub values: Vec<f32>,
}

impl NamedTensor {
    /// A tensor under a name.
    pub fn new(name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), values }
    }
}

/// A component's graph over the weights in the bundle. Plans are made when a size is first run, and the last
/// one is kept.
pub struct Component {
    kind: bundle::Component,
    graph: Graph,
    weights: Weights,
    resources: Resources,
    planned: Option<Planned>,
    /// What is held for the component while it runs, beside the values of its plan.
    beside_bytes: usize,
}

/// The plan that was made last.
#[derive(Clone)]
struct Planned {
    shapes: Vec<Vec<usize>>,
    plan: Arc<Plan>,
    peak_bytes: usize,
    /// From the first run on: what is freed in a run stays for the rest of it, and for the next.
    kept: Option<Arc<Kept>>,
}

/// Anonymous memory that a process holds beside the values of a plan: the program, the model's header, the plan itself.
pub const BESIDE_BYTES: usize = 12_000_000;
/// Of these, what blocks may take that are kept for later and do not fit what is wanted now.
const SPARE_BYTES: usize = 4_000_000;

/// What a planned component will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Footprint {
    /// The most anonymous memory that the process will hold, in bytes.
    pub peak_anon_bytes: usize,
    /// Rows of the picture that are worked on at a time; `null` where all of it is.
    pub stripe_rows: Option<usize>,
    /// Whether maps are kept in f16 between passes.
    pub f16_maps: bool,
}

impl Component {
    /// Finds the component in the bundle and reads its graph. No weight is read.
    ///
    /// # Errors
    /// - [`EngineError::NoComponent`] if the model has none of this kind.
    /// - [`EngineError::Graph`] if its graph cannot be read.
    pub fn load(
        bundle: &Arc<Bundle>,
        kind: bundle::Component,
        resources: &Resources,
    ) -> Result<Self, EngineError> {
        let bundle = bundle.holder(kind);
        let entry = bundle.component(kind).ok_or(EngineError::NoComponent { component: kind })?;
        let graph = serde_json::from_slice(bundle.graph(entry))
            .map_err(|source| EngineError::Graph { component: kind, source })?;
        let weights =
            Weights::new(bundle.clone(), kind, arithmetic(kind, resources), resources.adapters.clone());
        // Only the maps of an autoencoder are so large that stripes are worth their cost.
        let striped = matches!(kind, bundle::Component::VaeDecoder | bundle::Component::VaeEncoder);
        let tile = if striped { resources.tile } else { Tile::Off };
        let resources = Resources { tile, ..resources.clone() };
        Ok(Self { kind, graph, weights, resources, planned: None, beside_bytes: 0 })
    }

    /// Leaves out the last layers before `output`, which alone is left of the outputs.
    ///
    /// # Errors
    /// [`EngineError::Layers`] if there are not so many.
    pub fn without_last_layers(mut self, output: &str, count: usize) -> Result<Self, EngineError> {
        let refused = |got| EngineError::Layers { component: self.kind, wanted: count, got };
        self.graph = self.graph.without_last_layers(output, count).map_err(refused)?;
        self.planned = None;
        Ok(self)
    }

    /// Also gives queries and keys of every cross-attention, in which the map made of one input reads the text that is another.
    ///
    /// # Errors
    /// [`EngineError::NoCrossAttention`] if there is none.
    pub fn with_cross_attention(
        mut self,
        text: &str,
        map: &str,
    ) -> Result<(Self, Vec<CrossAttention>), EngineError> {
        let layers = self.graph.show_cross_attention(text, map);
        if layers.is_empty() {
            return Err(EngineError::NoCrossAttention { component: self.kind });
        }
        self.planned = None;
        Ok((self, layers))
    }

    /// Has self-attention on the largest maps do with fewer tokens.
    ///
    /// # Errors
    /// [`EngineError::NoSelfAttention`] if there is none.
    pub fn merge_tokens(&mut self, share: TokenMerging) -> Result<(), EngineError> {
        if !share.is_none() {
            let graph = self.graph.merging_tokens(share);
            self.graph = graph.ok_or(EngineError::NoSelfAttention { component: self.kind })?;
            self.planned = None;
        }
        Ok(())
    }

    /// Also gives its [`DEEP_FEATURES`](super::DEEP_FEATURES), and returns the part, over the same weights, that is left when it is
    /// given these.
    ///
    /// # Errors
    /// [`EngineError::NoDeepFeatures`] if there are none.
    pub fn split_at_deep_features(&mut self) -> Result<Self, EngineError> {
        let parts = self.graph.split_at_deep_features();
        let [whole, graph] = parts.ok_or(EngineError::NoDeepFeatures { component: self.kind })?;
        (self.graph, self.planned) = (whole, None);
        let (weights, resources) = (self.weights.clone(), self.resources.clone());
        Ok(Self { kind: self.kind, graph, weights, resources, planned: None, beside_bytes: 0 })
    }

    /// Counts so many bytes to what the component takes, which its caller holds for it.
    pub fn hold_beside(&mut self, bytes: usize) {
        if bytes != self.beside_bytes {
            (self.beside_bytes, self.planned) = (bytes, None);
        }
    }

    /// Gives memory back that is kept for the next run.
    pub fn rest(&mut self) {
        if let Some(planned) = &mut self.planned {
            planned.kept = None;
        }
    }

    /// Which component it is.
    pub fn kind(&self) -> bundle::Component {
        self.kind
    }

    /// The inputs that the graph takes.
    pub fn inputs(&self) -> &[Input] {
        &self.graph.inputs
    }

    /// Plans for inputs of these shapes, so that the next run of them starts at once, and says what it will take.
    ///
    /// # Errors
    /// As [`Component::run`], but for [`EngineError::Run`] of the run itself.
    pub fn prepare(&mut self, inputs: &[NamedTensor]) -> Result<Footprint, EngineError> {
        let Planned { plan, peak_bytes, .. } = self.plan_for(inputs)?;
        let peak_anon_bytes = BESIDE_BYTES + peak_bytes;
        let (stripe_rows, f16_maps) = plan.stripes().map_or((None, false), |s| (Some(s.stripe), s.half));
        Ok(Footprint { peak_anon_bytes, stripe_rows, f16_maps })
    }

    /// The shape that an output has for inputs of these shapes.
    ///
    /// # Errors
    /// As [`Component::prepare`], and [`EngineError::MissingOutput`].
    pub fn output_shape(&mut self, name: &str, inputs: &[NamedTensor]) -> Result<Vec<usize>, EngineError> {
        let at = self.graph.outputs.iter().position(|output| output.name == name);
        let at = at.ok_or_else(|| self.missing(name))?;
        Ok(self.plan_for(inputs)?.plan.output_shape(at))
    }

    /// Whether what was planned last is worked on in stripes.
    pub fn is_striped(&self) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.plan.stripes().is_some())
    }

    /// Runs the graph. Inputs are found by name, others are ignored; outputs come in the graph's order.
    ///
    /// # Errors
    /// - [`EngineError::MissingInput`], [`EngineError::InputShape`]: an input.
    /// - [`EngineError::Node`]: a node that does not fit its weights or inputs.
    /// - [`EngineError::Memory`]: it would take more memory than is allowed.
    /// - [`EngineError::OutOfMemory`]: the system does not have what it takes.
    /// - [`EngineError::Stopped`]: the pulse of its resources was stopped.
    /// - [`EngineError::Run`]: tract's own.
    pub fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, EngineError> {
        let plan = self.plan_for(inputs)?.plan;
        self.claim_memory()?;
        self.resources.threads.within(|| self.compute(&plan, inputs))
    }

    fn compute(&self, plan: &Plan, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, EngineError> {
        let inputs = self.graph.inputs.iter().map(|input| Ok(self.bind(input, inputs)?.into_tvalue()));
        let inputs = inputs.collect::<Result<_, EngineError>>()?;
        let failed = |source| match self.resources.pulse.is_stopped() {
            true => EngineError::Stopped { component: self.kind },
            false => EngineError::Run { component: self.kind, source },
        };
        let outputs = plan.run(inputs, &self.resources).map_err(failed)?;
        let named = self.graph.outputs.iter().zip(outputs);
        named
            .map(|(output, tensor)| {
                let values = tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
                Ok(NamedTensor::new(&output.name, tensor.shape(), values))
            })
            .collect::<TractResult<_>>()
            .map_err(failed)
    }

    /// Makes sure, once, that there is the memory that the plan needs.
    fn claim_memory(&mut self) -> Result<(), EngineError> {
        let (component, beside_bytes) = (self.kind, self.beside_bytes);
        match &mut self.planned {
            Some(Planned { kept: kept @ None, peak_bytes: needed, .. }) => {
                if !memory::is_available(*needed - beside_bytes) {
                    return Err(EngineError::OutOfMemory { component, needed: *needed });
                }
                *kept = Some(Arc::new(allocator::keep_within(*needed + SPARE_BYTES)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks that the graph has an output of this name.
    ///
    /// # Errors
    /// [`EngineError::MissingOutput`].
    pub fn check_output(&self, name: &str) -> Result<(), EngineError> {
        let is_there = self.graph.outputs.iter().any(|output| output.name == name);
        if is_there { Ok(()) } else { Err(self.missing(name)) }
    }

    /// One of the outputs of a run.
    ///
    /// # Errors
    /// [`EngineError::MissingOutput`] if the graph has no output `name`.
    pub fn pick(&self, outputs: Vec<NamedTensor>, name: &str) -> Result<NamedTensor, EngineError> {
        outputs.into_iter().find(|output| output.name == name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> EngineError {
        EngineError::MissingOutput { component: self.kind, name: name.to_owned() }
    }

    /// Runs the graph for one of its outputs.
    ///
    /// # Errors
    /// As [`Component::run`] and [`Component::pick`].
    pub fn run_for(&mut self, name: &str, inputs: &[NamedTensor]) -> Result<NamedTensor, EngineError> {
        let outputs = self.run(inputs)?;
        self.pick(outputs, name)
    }

    fn bind(&self, input: &Input, given: &[NamedTensor]) -> Result<Tensor, EngineError> {
        let (tensor, shape) = self.find(input, given)?;
        Tensor::from_shape(shape, &tensor.values)
            .map_err(|source| EngineError::Run { component: self.kind, source })
    }

    /// The tensor that goes in there, and the shape that it takes on.
    fn find<'a>(
        &self,
        input: &Input,
        given: &'a [NamedTensor],
    ) -> Result<(&'a NamedTensor, &'a [usize]), EngineError> {
        let missing = || EngineError::MissingInput { component: self.kind, name: input.name.clone() };
        let tensor = given.iter().find(|t| t.name == input.name).ok_or_else(missing)?;
        let shape = fitted(input, tensor).ok_or_else(|| EngineError::InputShape {
            component: self.kind,
            name: input.name.clone(),
            expected: described(input),
            got: tensor.shape.clone(),
        })?;
        Ok((tensor, shape))
    }

    /// The plan for inputs of these shapes.
    fn plan_for(&mut self, inputs: &[NamedTensor]) -> Result<Planned, EngineError> {
        let shapes = self.graph.inputs.iter().map(|input| Ok(self.find(input, inputs)?.1.to_vec()));
        let shapes = shapes.collect::<Result<_, EngineError>>()?;
        self.plan(shapes)
    }

    fn plan(&mut self, shapes: Vec<Vec<usize>>) -> Result<Planned, EngineError> {
        if let Some(planned) = &self.planned
            && planned.shapes == shapes
        {
            return Ok(planned.clone());
        }
        self.planned = None;
        let component = self.kind;
        let allowed = self.resources.memory_bytes.map(|bytes| bytes.saturating_sub(BESIDE_BYTES));
        let made = Plan::new(&self.graph, &shapes, &self.weights, &self.resources, allowed);
        let made = made.map_err(|error| match error {
            PlanError::Node { node, reason } => EngineError::Node { component, node, reason },
            PlanError::Tract(source) => EngineError::Run { component, source },
        })?;
        let peak_bytes = made.peak_bytes(self.resources.threads.count()) + self.beside_bytes;
        let needed = BESIDE_BYTES + peak_bytes;
        match self.resources.memory_bytes {
            Some(available) if needed > available => {
                return Err(EngineError::Memory { component, needed, available });
            }
            _ => {}
        }
        let planned = Planned { shapes, plan: Arc::new(made), peak_bytes, kept: None };
        self.planned = Some(planned.clone());
        Ok(planned)
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.weights.release();
    }
}

/// Autoencoders and encoders are run once a picture, so that 8 bits would cost accuracy and save no time.
fn arithmetic(kind: bundle::Component, resources: &Resources) -> Arithmetic {
    use bundle::Component::{SuperResFirst, SuperResLast, Unet};
    let is_in_the_loop = matches!(kind, Unet | SuperResFirst | SuperResLast);
    match resources.arithmetic {
        Arithmetic::I8 if !is_in_the_loop => Arithmetic::F32,
        wanted => wanted,
    }
}

/// The shape of a tensor that an input takes; a single number passes for one of rank 0 or 1 alike.
fn fitted<'a>(input: &Input, tensor: &'a NamedTensor) -> Option<&'a [usize]> {
    if tensor.shape.iter().product::<usize>() != tensor.values.len() || tensor.values.is_empty() {
        return None;
    }
    if input.shape.len() <= 1 && tensor.values.len() == 1 {
        return Some(&[1]);
    }
    let fits = input.shape.len() == tensor.shape.len()
        && input.shape.iter().zip(&tensor.shape).all(|(want, got)| want.is_none_or(|want| want == *got));
    fits.then_some(&tensor.shape)
}

fn described(input: &Input) -> String {
    let dims: Vec<String> =
        input.shape.iter().map(|dim| dim.map_or("any".into(), |dim| dim.to_string())).collect();
    format!("[{}]", dims.join(", "))
}
