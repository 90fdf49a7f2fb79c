//! An ONNX graph as tract understands it, node by node as in the file.
//!
//! tract-onnx reads the file and works out every shape; whatever depends on shapes alone becomes a number on
//! the way, so that the long chains of `Shape`, `Gather` and `Concat` that exporters write are gone when the
//! graph is read here. The nodes stay those of the file, with its names and attributes.

use std::collections::HashMap;
use std::path::Path;

use tract_onnx::pb::{self, AttributeProto, NodeProto, ValueInfoProto, tensor_proto::DataType};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::DimLike as _;

use super::OnnxError;
use super::initialiser::{Initialisers, fetch};
use crate::engine::graph::InputType;

/// Initialisers with at least this many numbers are weights: they are not given to tract.
const WEIGHT_LEN: usize = 2048;

/// A graph that has been analysed at one size.
pub struct Source {
    /// The nodes in the file's order, which ONNX requires to be computable.
    pub nodes: Vec<NodeProto>,
    /// The graph's inputs, without initialisers.
    pub inputs: Vec<SourceInput>,
    /// The names of the outputs.
    pub outputs: Vec<String>,
    /// The large weights.
    pub initialisers: Initialisers,
    facts: HashMap<String, Fact>,
}

/// One input of the graph.
pub struct SourceInput {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: InputType,
    /// Its shape as the file has it, `None` for a free dimension.
    pub declared: Vec<Option<usize>>,
    /// Its shape in this analysis.
    pub shape: Vec<usize>,
}

/// What is known of a value before anything is run.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its content, where that follows from the file and the shapes alone.
    pub content: Option<Arc<Tensor>>,
}

impl Source {
    /// Reads `file` and analyses it with every free dimension set by `size`, which is given the input's
    /// name, the dimension's place and its name in the file.
    ///
    /// # Errors
    /// - [`OnnxError::Read`] if the file cannot be read or is not ONNX.
    /// - [`OnnxError::Analyse`] if tract cannot make sense of the graph.
    /// - those of [`Initialisers::take`].
    pub fn read(file: &Path, size: &dyn Fn(&str, usize) -> usize) -> Result<Self, OnnxError> {
        let unreadable = |source| OnnxError::Read { file: file.to_owned(), source };
        let onnx = tract_onnx::onnx();
        let mut proto = onnx.proto_model_for_path(file).map_err(unreadable)?;
        let home = file.parent().unwrap_or(Path::new("."));
        let graph = proto.graph.as_mut().ok_or_else(|| OnnxError::NoGraph { file: file.to_owned() })?;
        let initialisers = take_weights(graph, home)?;
        forget_shapes(graph);
        let inputs = free_inputs(graph, &initialisers, size)?;
        let facts = analyse(&onnx, &proto, &inputs).map_err(|source| OnnxError::Analyse { source })?;
        let graph = proto.graph.take().expect("it was there above");
        let outputs = graph.output.into_iter().map(|o| o.name).collect();
        Ok(Self { nodes: graph.node, inputs, outputs, initialisers, facts })
    }

    /// What is known of the value `name`.
    pub fn fact(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }
}

/// Moves the large floating-point initialisers out of the graph and declares inputs in their place.
fn take_weights(graph: &mut pb::GraphProto, home: &Path) -> Result<Initialisers, OnnxError> {
    let mut taken = Initialisers::default();
    let (large, small): (Vec<_>, Vec<_>) =
        std::mem::take(&mut graph.initializer).into_iter().partition(|t| {
            let float = t.data_type == DataType::Float as i32 || t.data_type == DataType::Float16 as i32;
            let len = t.dims.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
            float && len.is_none_or(|len| len >= WEIGHT_LEN as i64)
        });
    graph.initializer = small;
    graph.initializer.iter_mut().try_for_each(|tensor| fetch(tensor, home))?;
    for mut tensor in large {
        taken.take(&mut tensor, home)?;
        graph.input.retain(|input| input.name != tensor.name);
        graph.input.push(declaration(&tensor));
    }
    Ok(taken)
}

/// Leaves out what the exporter says of shapes inside of the graph: it says it for every size at once, in symbols,
/// which the analysis at one size would take for a contradiction.
fn forget_shapes(graph: &mut pb::GraphProto) {
    graph.value_info.clear();
    graph.output.iter_mut().for_each(|output| output.r#type = None);
}

fn declaration(tensor: &pb::TensorProto) -> ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = tensor
        .dims
        .iter()
        .map(|&d| Dimension { denotation: String::new(), value: Some(Value::DimValue(d)) })
        .collect();
    let tensor_type =
        pb::type_proto::Tensor { elem_type: tensor.data_type, shape: Some(pb::TensorShapeProto { dim }) };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(pb::TypeProto {
            denotation: String::new(),
            value: Some(pb::type_proto::Value::TensorType(tensor_type)),
        }),
        doc_string: String::new(),
    }
}

fn free_inputs(
    graph: &pb::GraphProto,
    initialisers: &Initialisers,
    size: &dyn Fn(&str, usize) -> usize,
) -> Result<Vec<SourceInput>, OnnxError> {
    let constant =
        |name: &str| initialisers.get(name).is_some() || graph.initializer.iter().any(|t| t.name == name);
    graph.input.iter().filter(|input| !constant(&input.name)).map(|input| source_input(input, size)).collect()
}

fn source_input(
    input: &ValueInfoProto,
    size: &dyn Fn(&str, usize) -> usize,
) -> Result<SourceInput, OnnxError> {
    use pb::tensor_shape_proto::dimension::Value;
    let untyped = || OnnxError::Input { name: input.name.clone() };
    let value = input.r#type.as_ref().and_then(|t| t.value.as_ref()).ok_or_else(untyped)?;
    let pb::type_proto::Value::TensorType(tensor) = value;
    let dtype = match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Float | DataType::Float16) => InputType::F32,
        Ok(DataType::Int64 | DataType::Int32 | DataType::Bool) => InputType::I64,
        _ => return Err(untyped()),
    };
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| &s.dim);
    let declared: Vec<Option<usize>> = dims
        .iter()
        .map(|d| match d.value {
            Some(Value::DimValue(v)) => usize::try_from(v).ok().filter(|&v| v > 0),
            _ => None,
        })
        .collect();
    let shape =
        declared.iter().enumerate().map(|(at, d)| d.unwrap_or_else(|| size(&input.name, at))).collect();
    Ok(SourceInput { name: input.name.clone(), dtype, declared, shape })
}

fn analyse(
    onnx: &tract_onnx::Onnx,
    proto: &pb::ModelProto,
    inputs: &[SourceInput],
) -> TractResult<HashMap<String, Fact>> {
    let parsed = onnx.parse(proto, None)?;
    let mut model = parsed.model;
    for input in inputs {
        let outlet = parsed.outlets_by_name[&input.name];
        let dtype = model.outlet_fact(outlet)?.datum_type;
        let mut fact = InferenceFact::new().with_shape(input.shape.iter().map(|d| d.to_dim()));
        fact.datum_type = dtype;
        model.set_outlet_fact(outlet, fact)?;
    }
    model.analyse(false)?;
    let mut facts = HashMap::new();
    for (name, outlet) in parsed.outlets_by_name {
        let fact = model.outlet_fact(outlet)?;
        let Some(shape) = fact
            .shape
            .concretize()
            .and_then(|dims| dims.iter().map(|d| d.to_usize().ok()).collect::<Option<Vec<usize>>>())
        else {
            continue;
        };
        facts.insert(name, Fact { shape, content: fact.value.concretize() });
    }
    Ok(facts)
}

/// The attribute `name` of a node.
pub fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

/// The integer attribute `name` of a node, or `default`.
pub fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

/// The list attribute `name` of a node as sizes; `None` if it is missing or one is negative.
pub fn sizes(node: &NodeProto, name: &str) -> Option<Vec<usize>> {
    attribute(node, name)?.ints.iter().map(|&i| usize::try_from(i).ok()).collect()
}
