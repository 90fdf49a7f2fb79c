//! The rules: ONNX node by ONNX node, meanings in, meaning out.

mod arithmetic;
mod arrange;
mod attention;
mod moments;
mod product;
mod prune;
mod tokens;

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::NodeProto;

use super::OnnxError;
use super::constant::{Constant, floats};
use super::meaning::{Meaning, Operand, Waves};
use super::source::{Source, SourceInput};
use super::view::View;
use crate::engine::graph::{Graph, Input, Node, Op, Output, Value};
use crate::kernels::activation::Function;

/// A rule's answer: a meaning, or why there is none.
type Rule = Result<Meaning, String>;

/// The graph as far as it has been read.
struct Lowering<'a> {
    source: &'a Source,
    meanings: HashMap<String, Meaning>,
    graph: Graph,
    /// The shape of every value of `graph`, at the size of the analysis.
    shapes: Vec<Vec<usize>>,
    weights: Vec<(String, Constant)>,
    names: HashSet<String>,
    /// The name of the node in hand, for what it emits.
    place: String,
}

/// Lowers the whole graph; the weights come in the order of their use.
///
/// # Errors
/// [`OnnxError::Unsupported`] names the first node for which there is no rule.
pub fn lower(source: &Source) -> Result<(Graph, Vec<(String, Constant)>), OnnxError> {
    let mut lowering = Lowering {
        source,
        meanings: HashMap::new(),
        graph: Graph { inputs: Vec::new(), nodes: Vec::new(), outputs: Vec::new() },
        shapes: Vec::new(),
        weights: Vec::new(),
        names: HashSet::new(),
        place: String::new(),
    };
    lowering.declare_inputs();
    for node in &source.nodes {
        lowering.node(node)?;
    }
    for name in &source.outputs {
        lowering.output(name)?;
    }
    Ok(prune::prune(lowering.graph, lowering.weights))
}

impl Lowering<'_> {
    fn declare_inputs(&mut self) {
        for input in &self.source.inputs {
            self.shapes.push(input.shape.clone());
            self.graph.inputs.push(Input {
                name: input.name.clone(),
                dtype: input.dtype,
                shape: input.declared.clone(),
            });
        }
        for (value, input) in (0..).zip(&self.source.inputs) {
            let view = self.input_view(value, input);
            self.meanings.insert(input.name.clone(), Meaning::Live(Operand::whole(view)));
        }
    }

    /// A map is turned channels last as it enters.
    fn input_view(&mut self, value: Value, input: &SourceInput) -> View {
        let &[n, c, h, w] = input.shape.as_slice() else { return View::whole(value, &input.shape) };
        self.place = input.name.clone();
        let map = self.emit(Op::ChannelsLast, &[value], vec![n, h, w, c]);
        View::channels_first(map, &[n, h, w, c])
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), OnnxError> {
        let known = |name: &String| self.source.fact(name).is_some_and(|f| f.content.is_some());
        if node.output.iter().all(known) {
            return Ok(());
        }
        self.place = place(node);
        let unsupported = |reason: String| OnnxError::Unsupported {
            node: node.name.clone(),
            op_type: node.op_type.clone(),
            reason,
        };
        if node.op_type == "Split" {
            return self.split(node).map_err(unsupported);
        }
        let meaning = self.rule(node).map_err(unsupported)?;
        self.meanings.insert(node.output[0].clone(), meaning);
        Ok(())
    }

    fn rule(&mut self, node: &NodeProto) -> Rule {
        match node.op_type.as_str() {
            "Identity" | "Cast" | "Dropout" => self.meaning(node, 0),
            "Transpose" => self.transpose(node),
            "Reshape" | "Flatten" | "Unsqueeze" | "Squeeze" => self.reshape(node),
            "Expand" => self.expand(node),
            "Slice" => self.slice(node),
            "Concat" => self.concat(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.upsample(node),
            "AveragePool" => self.average_pool(node),
            "Conv" => self.convolution(node),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node),
            "InstanceNormalization" => self.instance_norm(node),
            "LayerNormalization" => self.layer_norm(node),
            "Softmax" => self.softmax(node),
            "IsNaN" => self.is_nan(node),
            "Where" => self.choose(node),
            "Add" => self.add(node),
            "Mul" => self.multiply(node),
            "Sub" => self.subtract(node),
            "Div" => self.divide(node),
            "Pow" => self.power(node),
            "Sqrt" => self.root(node),
            "ReduceMean" => self.reduce_mean(node),
            "Sigmoid" => self.sigmoid(node),
            "Erf" => self.erf(node),
            "Sin" => self.wave(node, Waves::Sine),
            "Cos" => self.wave(node, Waves::Cosine),
            "Relu" => self.activation(node, Function::Relu),
            "Tanh" => self.activation(node, Function::Tanh),
            "Gather" => self.gather(node),
            "GatherND" => self.gather_nd(node),
            "Equal" => self.equal(node),
            "ArgMax" => self.arg_max(node),
            _ => Err("there is no rule for this operator".into()),
        }
    }

    fn output(&mut self, name: &str) -> Result<(), OnnxError> {
        self.place = name.to_owned();
        let refuse = |reason: String| OnnxError::Unsupported {
            node: name.to_owned(),
            op_type: "output".into(),
            reason,
        };
        let meaning = self.meanings.get(name).cloned().ok_or_else(|| refuse("it is constant".into()))?;
        let view = self.settle(meaning).map_err(refuse)?;
        let view = self.split_tokens(view);
        let shape = self.shape(view.value).to_vec();
        let value = if view.is_channels_last(&shape) {
            view.value
        } else if view.is_channels_first(&shape) {
            self.emit(Op::ChannelsFirst, &[view.value], vec![shape[0], shape[3], shape[1], shape[2]])
        } else {
            return Err(refuse("its elements would have to be moved".into()));
        };
        self.graph.outputs.push(Output { name: name.to_owned(), value });
        Ok(())
    }

    /// The meaning of a node's input.
    fn meaning(&self, node: &NodeProto, at: usize) -> Rule {
        let name = node.input.get(at).filter(|n| !n.is_empty()).ok_or(format!("input {at} is missing"))?;
        if let Some(meaning) = self.meanings.get(name) {
            return Ok(meaning.clone());
        }
        if let Some(initialiser) = self.source.initialisers.get(name) {
            return Ok(Meaning::Constant(Constant::initialiser(name, &initialiser.shape)));
        }
        let content = self.source.fact(name).and_then(|f| f.content.clone());
        content
            .map(|tensor| Meaning::Constant(Constant::literal(tensor)))
            .ok_or(format!("nothing is known of its input `{name}`"))
    }

    /// A node's input as a computed operand.
    fn operand(&mut self, node: &NodeProto, at: usize) -> Result<Operand, String> {
        match self.meaning(node, at)? {
            Meaning::Live(operand) => Ok(operand),
            other => self.settle(other).map(Operand::whole),
        }
    }

    /// A node's input as a plain view, computed as far as it is.
    fn view(&mut self, node: &NodeProto, at: usize) -> Result<View, String> {
        let meaning = self.meaning(node, at)?;
        self.settle(meaning)
    }

    /// A node's input as a computed value whose rows of channels are as they lie.
    fn rows(&mut self, node: &NodeProto, at: usize) -> Result<View, String> {
        let view = self.view(node, at)?;
        let view = self.split_tokens(view);
        if view.is_channels_last(self.shape(view.value)) {
            return Ok(view);
        }
        Err("the last dimension of its input is not the channels".into())
    }

    /// A view of rows as sequences becomes sequences; any other view stays.
    fn split_tokens(&mut self, view: View) -> View {
        let (&[batch, all], &[n, count, channels]) = (self.shape(view.value), view.shape().as_slice()) else {
            return view;
        };
        let in_order = View::whole(view.value, &[batch, all]).reshape(&[n, count, channels]);
        if count == 1 || n != batch || in_order.as_ref() != Some(&view) {
            return view;
        }
        let shape = [n, count, channels];
        let value = self.emit(Op::SplitTokens { count }, &[view.value], shape.to_vec());
        View::whole(value, &shape)
    }

    /// A node's input as a map in ONNX's order.
    fn map(&mut self, node: &NodeProto, at: usize) -> Result<View, String> {
        let view = self.view(node, at)?;
        if view.is_channels_first(self.shape(view.value)) {
            return Ok(view);
        }
        Err("its input is not a map".into())
    }

    /// A node's input as fixed numbers; `None` if it is absent or computed.
    fn constant(&self, node: &NodeProto, at: usize) -> Option<Constant> {
        match self.meaning(node, at) {
            Ok(Meaning::Constant(constant)) => Some(constant),
            _ => None,
        }
    }

    /// A node's input as numbers that follow from the graph and the shapes alone.
    fn literal(&self, node: &NodeProto, at: usize) -> Option<Vec<f32>> {
        let fact = self.source.fact(node.input.get(at)?)?;
        fact.content.as_ref().map(|tensor| floats(tensor))
    }

    /// A node's input as integers that follow from the graph and the shapes alone.
    fn integers(&self, node: &NodeProto, at: usize) -> Option<Vec<i64>> {
        let fact = self.source.fact(node.input.get(at)?)?;
        let tensor = fact.content.as_ref()?.cast_to::<i64>().ok()?;
        tensor.try_as_plain_ram().ok()?.as_slice::<i64>().ok().map(<[i64]>::to_vec)
    }

    /// A node's input as one number.
    fn scalar(&self, node: &NodeProto, at: usize) -> Option<f32> {
        self.literal(node, at).filter(|v| v.len() == 1).map(|v| v[0])
    }

    /// Ends whatever is under way, so that a plain view of a value is left.
    fn settle(&mut self, meaning: Meaning) -> Result<View, String> {
        match meaning {
            Meaning::Live(operand) => Ok(self.settle_operand(operand)),
            Meaning::Gaussian(operand) if operand.factor == 0.5 => {
                let view = self.settle_operand(Operand { factor: 1.0, ..operand });
                Ok(self.map_elements(Op::Activation { function: Function::Gelu }, &view))
            }
            Meaning::Sinusoids(sinusoids) => self.settle_sinusoids(sinusoids),
            other => Err(format!("{} is used outside of the operation it belongs to", other.noun())),
        }
    }

    fn settle_operand(&mut self, operand: Operand) -> View {
        let mut view = operand.view;
        if let Some((start, len)) = operand.part {
            view = self.emit_rows(Op::Slice { start, len }, &view, len);
        }
        if operand.factor != 1.0 {
            view = self.map_elements(Op::Scale { factor: operand.factor }, &view);
        }
        view
    }

    /// Applies an operation on single elements; the view stays what it was.
    fn map_elements(&mut self, op: Op, view: &View) -> View {
        let shape = self.shape(view.value).to_vec();
        view.with_value(self.emit(op, &[view.value], shape))
    }

    /// Applies an operation on rows of channels that leaves `channels` of them; the view keeps its dimensions.
    fn emit_rows(&mut self, op: Op, view: &View, channels: usize) -> View {
        let before = self.shape(view.value).to_vec();
        let mut after = before.clone();
        *after.last_mut().expect("a value has at least one axis") = channels;
        let value = self.emit(op, &[view.value], after);
        view.with_channels(value, &before, channels).expect("the caller knows where the channels are")
    }

    /// Adds a node to the graph.
    fn emit(&mut self, op: Op, inputs: &[Value], shape: Vec<usize>) -> Value {
        let value = self.shapes.len() as Value;
        self.graph.nodes.push(Node { name: self.place.clone(), inputs: inputs.to_vec(), op });
        self.shapes.push(shape);
        value
    }

    /// The operation that made a value, if it is not an input.
    fn maker(&self, value: Value) -> Option<&Node> {
        (value as usize).checked_sub(self.graph.inputs.len()).map(|at| &self.graph.nodes[at])
    }

    fn shape(&self, value: Value) -> &[usize] {
        &self.shapes[value as usize]
    }

    /// Names a weight as the file does if that tells its module, else after the place where it is used; keeps it.
    fn weight(&mut self, role: &str, constant: Constant) -> String {
        let given = constant.given_name().filter(|given| given.ends_with(&format!(".{role}")));
        let first = given.map_or_else(|| format!("{}.{role}", self.place), str::to_owned);
        let mut name = first.clone();
        let mut copy = 1;
        while !self.names.insert(name.clone()) {
            copy += 1;
            name = format!("{first}.{copy}");
        }
        self.weights.push((name.clone(), constant));
        name
    }
}

/// `/unet/down_blocks.0/resnets.0/conv1/Conv` -> `down_blocks.0.resnets.0.conv1`, the module's path.
fn place(node: &NodeProto) -> String {
    let path = node.name.trim_start_matches('/');
    let module = path.rsplit_once('/').map_or(path, |(module, _)| module);
    module.replace('/', ".")
}
