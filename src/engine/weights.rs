//! The weights of a component, read where the mapped file has them.

use std::ops::Range;
use std::sync::Arc;

use super::adapters::{Adapter, Adapters};
use crate::bundle::{Bundle, Component, ComponentEntry, Dtype, Layout, Scales, TensorEntry, Values};
use crate::kernels::dequantise::{self, BLOCK, GROUP};
use crate::kernels::integer::{Integer, STEP};
use crate::kernels::panel::{Group, Panel, StoredGroup};
use crate::kernels::{Arithmetic, LANES, Level, Line};
use crate::tensor_file::{Tensor, TensorFile};

/// Inputs that share a scale where a channel has several; steps of a product start at multiples of it.
pub const SCALE_RUN: usize = 32;

/// All weights of one component.
#[derive(Debug, Clone)]
pub struct Weights {
    bundle: Arc<Bundle>,
    component: Component,
    arithmetic: Arithmetic,
    adapters: Arc<Adapters>,
}

/// Two weights whose product is added to that of a layer.
pub struct Added {
    /// The one that the inputs meet first.
    pub down: Matrix,
    /// The other.
    pub up: Matrix,
    /// What their product is multiplied by.
    pub scale: f32,
}

/// A weight `[o, k]` that products are made with.
#[derive(Debug, Clone)]
pub struct Matrix {
    numbers: Numbers,
    arithmetic: Arithmetic,
}

/// Where a matrix's numbers are.
#[derive(Debug, Clone)]
enum Numbers {
    /// In the bundle.
    Bundle(Arc<Bundle>, TensorEntry),
    /// In a file of its own, in torch's order, and of this shape in ours.
    File(Arc<TensorFile>, Tensor, Vec<usize>),
}

/// A weight of few numbers, stored as f32.
#[derive(Debug, Clone)]
pub struct Vector {
    bundle: Arc<Bundle>,
    entry: TensorEntry,
}

/// A weight `[rows, width]` of which single rows are read.
#[derive(Debug, Clone)]
pub struct Table {
    bundle: Arc<Bundle>,
    entry: TensorEntry,
}

/// Where a weight lies in the file.
#[derive(Debug, Clone)]
pub struct Pages {
    bundle: Arc<Bundle>,
    entry: TensorEntry,
}

impl Pages {
    /// How many bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.entry.blob().len
    }

    /// Says that it will be read soon.
    pub fn expect(&self) {
        self.bundle.expect(&self.entry);
    }
}

impl Weights {
    /// Those of `component`, what products with them are to be computed in, where they can be, and what is added to them.
    pub fn new(
        bundle: Arc<Bundle>,
        component: Component,
        arithmetic: Arithmetic,
        adapters: Arc<Adapters>,
    ) -> Self {
        Self { bundle, component, arithmetic, adapters }
    }

    /// What products with integers among them are computed in; [`Arithmetic::F32`] if there are none.
    pub fn arithmetic(&self) -> Arithmetic {
        let has_integers =
            |entry: &ComponentEntry| entry.tensors.iter().any(|tensor| tensor.dtype() == Dtype::I8);
        let component = self.bundle.component(self.component);
        if component.is_some_and(has_integers) { self.arithmetic } else { Arithmetic::F32 }
    }

    /// What is added to the layer with this weight.
    pub fn added_to(&self, weight: &str) -> Vec<Added> {
        let adapters = self.adapters.of(self.component, weight).iter();
        let added = |Adapter { file, down, up, scale }: &Adapter| {
            let [down, up] = [down, up].map(|tensor| Matrix::of_file(file, tensor));
            Added { down, up, scale: *scale }
        };
        adapters.map(added).collect()
    }

    /// Gives their pages back to the system.
    pub fn release(&self) {
        if let Some(component) = self.bundle.component(self.component) {
            self.bundle.release(component);
        }
    }

    /// The pages of the weight of that name, if it is there.
    pub fn pages(&self, name: &str) -> Option<Pages> {
        Some(Pages { bundle: self.bundle.clone(), entry: self.entry(name).ok()? })
    }

    fn entry(&self, name: &str) -> Result<TensorEntry, String> {
        let component = self.bundle.component(self.component);
        let entry = component.and_then(|c| c.tensor(name));
        entry.cloned().ok_or_else(|| format!("there is no weight `{name}`"))
    }

    /// The matrix of that name.
    pub fn matrix(&self, name: &str) -> Result<Matrix, String> {
        let entry = self.entry(name)?;
        if entry.layout() != Layout::O8k4 {
            return Err(format!("weight `{name}` has layout {}, not {}", entry.layout(), Layout::O8k4));
        }
        let arithmetic = if entry.dtype() == Dtype::I8 { self.arithmetic } else { Arithmetic::F32 };
        Ok(Matrix { numbers: Numbers::Bundle(self.bundle.clone(), entry), arithmetic })
    }

    /// The vector of that name.
    pub fn vector(&self, name: &str) -> Result<Vector, String> {
        let entry = self.entry(name)?;
        if entry.dtype() != Dtype::F32 || entry.layout() != Layout::Row {
            return Err(format!("weight `{name}` is not plain f32"));
        }
        Ok(Vector { bundle: self.bundle.clone(), entry })
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Result<Table, String> {
        let entry = self.entry(name)?;
        let fits = entry.layout() == Layout::Row
            && entry.shape().len() == 2
            && matches!(entry.scales(), None | Some(Scales::Channel));
        if !fits {
            return Err(format!("weight `{name}` is not a table of rows"));
        }
        Ok(Table { bundle: self.bundle.clone(), entry })
    }
}

impl Matrix {
    /// A tensor of a file in torch's order.
    fn of_file(file: &Arc<TensorFile>, tensor: &Tensor) -> Self {
        let shape = match tensor.shape[..] {
            [o, c, 1, 1] => vec![o, c],
            [o, c, height, width] => vec![o, height, width, c],
            _ => tensor.shape.clone(),
        };
        let numbers = Numbers::File(file.clone(), tensor.clone(), shape);
        Self { numbers, arithmetic: Arithmetic::F32 }
    }

    /// The shape as stored: `[o, k]`, or `[o, kh, kw, c]` of a convolution.
    pub fn shape(&self) -> &[usize] {
        match &self.numbers {
            Numbers::Bundle(_, entry) => entry.shape(),
            Numbers::File(_, _, shape) => shape,
        }
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.shape()[0]
    }

    /// The number of inputs of each output channel.
    pub fn inputs(&self) -> usize {
        self.shape()[1..].iter().product()
    }

    /// What products with it are computed in; [`Arithmetic::F32`] if its weights are no integers.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Fills `panel` with output channels `output .. output + 16`, inputs `first .. first + panel.len()`;
    /// zeros where there are no such channels. `output` is a multiple of 16, `first` of 4.
    pub fn panel(&self, level: Level, output: usize, first: usize, panel: &mut [Line]) {
        let (bundle, entry) = match &self.numbers {
            Numbers::Bundle(bundle, entry) => (bundle, entry),
            Numbers::File(file, tensor, _) => return self.panel_of_file(file, tensor, output, first, panel),
        };
        let view = bundle.tensor(entry);
        let inputs = self.inputs();
        let groups = inputs.div_ceil(GROUP);
        for lane in [0, BLOCK] {
            let block = (output + lane) / BLOCK;
            if block * BLOCK >= self.outputs() {
                panel.iter_mut().for_each(|row| row[lane..lane + BLOCK].fill(0.0));
                continue;
            }
            let groups = block * groups..(block + 1) * groups;
            match view.values {
                Values::F32(values) => {
                    dequantise::float32(level, &values.as_chunks().0[groups], first, lane, panel);
                }
                Values::F16(values) => {
                    dequantise::float16(level, &values.as_chunks().0[groups], first, lane, panel);
                }
                Values::I8 { values, scales } => {
                    let scales = self.scales_of(entry, scales, block);
                    dequantise::int8(level, &values.as_chunks().0[groups], scales, first, lane, panel);
                }
            }
        }
    }

    /// As [`Matrix::panel`], of a file in torch's order: taps vary fastest.
    fn panel_of_file(
        &self,
        file: &TensorFile,
        tensor: &Tensor,
        output: usize,
        first: usize,
        panel: &mut [Line],
    ) {
        let inputs = self.inputs();
        let channels = *self.shape().last().expect("a matrix has two dimensions");
        let taps = inputs / channels;
        for lane in 0..LANES {
            let numbers = panel.iter_mut().map(|row| &mut row[lane]);
            let start = (output + lane) * inputs;
            match output + lane < self.outputs() {
                false => numbers.for_each(|number| *number = 0.0),
                true if taps == 1 => file.gather(tensor, start + first.., numbers),
                true => {
                    let place = |at: usize| start + at % channels * taps + at / channels;
                    file.gather(tensor, (first..).map(place), numbers);
                }
            }
        }
    }

    /// The scales of a block of output channels.
    fn scales_of<'a>(&self, entry: &TensorEntry, scales: &'a [f32], block: usize) -> dequantise::Scales<'a> {
        let kind = entry.scales().expect("int8 tensors have scales");
        let per_block = kind.per_channel(self.inputs());
        let values = &scales.as_chunks().0[block * per_block..(block + 1) * per_block];
        dequantise::Scales { values, run: if kind == Scales::Channel { usize::MAX } else { SCALE_RUN } }
    }

    /// As [`Matrix::panel`], of integers with their scales. `inputs` starts and ends at multiples of 16.
    ///
    /// # Panics
    /// If the weights are no integers.
    pub fn integers<Q: Integer>(
        &self,
        level: Level,
        output: usize,
        inputs: Range<usize>,
        panel: &mut Panel<Q>,
    ) {
        let Numbers::Bundle(bundle, entry) = &self.numbers else { unreachable!("a file has floats") };
        let Values::I8 { values, scales } = bundle.tensor(entry).values else {
            unreachable!("its arithmetic says that the weights are integers");
        };
        let (values, _) = values.as_chunks();
        let groups = self.inputs().div_ceil(GROUP);
        let stored = |block: usize| -> &[StoredGroup] {
            let there = block * BLOCK < self.outputs();
            let first = block * groups;
            if there { &values[first + inputs.start / GROUP..first + inputs.end / GROUP] } else { &[] }
        };
        let block = output / BLOCK;
        panel.groups.resize(inputs.len().next_multiple_of(STEP) / GROUP, Group::zeros());
        let run = self.scales_of(entry, scales, block).run.min(inputs.len());
        panel.run = run / GROUP;
        panel.scales.resize(inputs.len().div_ceil(run), Line::ZERO);
        for (half, block) in (block..(block + 2).min(self.outputs().div_ceil(BLOCK))).enumerate() {
            let scales = self.scales_of(entry, scales, block);
            for (first, line) in inputs.clone().step_by(run).zip(&mut panel.scales) {
                line[half * BLOCK..][..BLOCK].copy_from_slice(&scales.values[first / scales.run]);
            }
        }
        panel.fill(level, stored(output / BLOCK), stored(output / BLOCK + 1));
    }
}

impl Vector {
    /// The numbers, in place.
    pub fn values(&self) -> &[f32] {
        match self.bundle.tensor(&self.entry).values {
            Values::F32(values) => values,
            _ => unreachable!("a vector is f32, checked when it was found"),
        }
    }
}

impl Table {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.entry.shape()[0]
    }

    /// The length of a row.
    pub fn width(&self) -> usize {
        self.entry.shape()[1]
    }

    /// Writes a row to `out`.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not a row long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let range = row * self.width()..(row + 1) * self.width();
        assert_eq!(out.len(), range.len());
        match self.bundle.tensor(&self.entry).values {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => out.iter_mut().zip(&values[range]).for_each(|(o, v)| *o = v.to_f32()),
            Values::I8 { values, scales } => {
                let scale = scales[row];
                out.iter_mut().zip(&values[range]).for_each(|(o, &v)| *o = f32::from(v) * scale);
            }
        }
    }
}
