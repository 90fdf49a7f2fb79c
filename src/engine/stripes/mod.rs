//! Large maps by rows: the part of a graph in which every operation is local runs in stripes of a few rows, over maps
//! that are kept in f16 or made again, and gives what it would give in one piece.
//!
//! ```text
//! graph -> before (whole) | region (stripes) | after (whole)     region
//! region -> operations and shapes                                network
//! limit  -> which maps are kept, which passes are made           schedule
//! ```
//! The seams that tiles leave elsewhere come from normalisation over a tile in place of the picture, and from attention
//! over a tile. Here the statistics are those of the whole map, and attention stays in the part that runs whole.

mod map;
mod network;
mod region;
mod schedule;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, TryReserveError};
use std::ops::Range;

use tract_core::prelude::{TValue, TVec};

use super::ops::{Affine, channel_sums};
use super::pulse::{Pulse, Stopped};
use super::threads::Threads;
use map::{Map, zeros};
pub use network::Network;
use network::RowOp;
pub use region::{Parts, divide};
use schedule::{Pass, Rows, Step};
pub use schedule::{Schedule, fit};

/// Why a region was not worked through.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// There is no memory for a map or a stripe.
    #[error(transparent)]
    Memory(#[from] TryReserveError),
    /// The run was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A region on its way through its schedule.
struct Run<'a> {
    network: &'a Network,
    threads: &'a Threads,
    pulse: &'a Pulse,
    maps: BTreeMap<usize, Map>,
    sums: BTreeMap<usize, Vec<[f64; 2]>>,
}

/// Rows of a value, as they were in the stripe before: of the map that is being written over, or of what was computed on
/// the way and is needed again.
struct Carry {
    first: usize,
    rows: Vec<f32>,
}

/// Works through a region, given its values; the last map in f32, `[1, height, width, channels]`.
///
/// # Errors
/// [`StripeError`].
pub fn run(
    network: &Network,
    schedule: &Schedule,
    given: TVec<TValue>,
    threads: &Threads,
    pulse: &Pulse,
) -> Result<Vec<f32>, StripeError> {
    let maps = given.into_iter().take(network.given).enumerate();
    let maps = maps.map(|(at, value)| (at, Map::given(network.row_len(at), value))).collect();
    let mut run = Run { network, threads, pulse, maps, sums: BTreeMap::new() };
    let last = network.shapes.len() - 1;
    for pass in &schedule.passes {
        run.pass(pass, schedule.half && pass.target != last)?;
    }
    Ok(run.maps.remove(&last).expect("the last value is kept").into_full())
}

impl Run<'_> {
    fn pass(&mut self, pass: &Pass, half: bool) -> Result<(), StripeError> {
        let (network, target) = (self.network, pass.target);
        let affines = self.affines(pass);
        if pass.keep && pass.over.is_none() {
            self.maps.insert(target, Map::new(network.shapes[target][0], network.row_len(target), half)?);
        }
        let channels = network.shapes[target][2];
        let mut sums = vec![[0.0; 2]; if network.is_normalised(target) { channels } else { 0 }];
        let mut carried = BTreeMap::new();
        let stripes: Vec<_> = pass.stripes(network).collect();
        let mut rows = pass.rows(network, &stripes[0], None);
        for (at, stripe) in stripes.iter().enumerate() {
            self.pulse.beat()?;
            let next = stripes.get(at + 1).map(|next| pass.rows(network, next, Some(&rows)));
            let mut leave = BTreeMap::new();
            let made = self.stripe(pass, &rows, next.as_deref(), &carried, &mut leave, &affines)?;
            if !sums.is_empty() {
                let more = channel_sums(&made, channels, self.threads);
                sums.iter_mut().flatten().zip(more.iter().flatten()).for_each(|(sum, more)| *sum += more);
            }
            if pass.keep {
                // It was computed, so that nothing is copied here.
                let made = made.into_owned();
                if let (Some(over), Some(next)) = (pass.over, &next) {
                    let first = next[over].held.start.min(stripe.end);
                    let behind = self.read(over, &(first..stripe.end), carried.get(&over))?.into_owned();
                    leave.insert(over, Carry { first, rows: behind });
                }
                let place = pass.over.unwrap_or(target);
                self.maps.get_mut(&place).expect("it is there").write(stripe.start, &made, self.threads);
            }
            carried = leave;
            rows = next.unwrap_or_default();
        }
        if let Some(map) = pass.over.and_then(|over| self.maps.remove(&over)) {
            self.maps.insert(target, map);
        }
        self.sums.insert(target, sums);
        pass.done.iter().for_each(|done| drop(self.maps.remove(done)));
        Ok(())
    }

    /// The normalisations of a pass, with the statistics of their inputs.
    fn affines(&self, pass: &Pass) -> BTreeMap<usize, Affine> {
        let affine = |step: &Step| {
            let maker = self.network.maker(step.value);
            let RowOp::Norm(norm) = &maker.op else { return None };
            let [height, width, _] = self.network.shapes[step.value];
            Some((step.value, norm.affine(&self.sums[&maker.inputs[0]], height * width)))
        };
        pass.steps.iter().filter_map(affine).collect()
    }

    /// The rows of the target that a stripe makes, from what was `carried` into it; what the `next` one needs of this one is
    /// left behind.
    fn stripe(
        &self,
        pass: &Pass,
        rows: &[Rows],
        next: Option<&[Rows]>,
        carried: &BTreeMap<usize, Carry>,
        leave: &mut BTreeMap<usize, Carry>,
        affines: &BTreeMap<usize, Affine>,
    ) -> Result<Cow<'_, [f32]>, TryReserveError> {
        let mut held: BTreeMap<usize, Cow<[f32]>> = BTreeMap::new();
        for Step { value, frees } in &pass.steps {
            let value = *value;
            let Rows { held: own, fresh } = &rows[value];
            let row_len = self.network.row_len(value);
            let mut output = zeros(own.len() * row_len, 0.0)?;
            let (known, computed) = output.split_at_mut((fresh.start - own.start) * row_len);
            if !known.is_empty() {
                carried[&value].copy(own.start, row_len, known);
            }
            let inputs = self.network.inputs(value);
            if !fresh.is_empty() {
                for &input in inputs {
                    if let Entry::Vacant(place) = held.entry(input) {
                        place.insert(self.read(input, &rows[input].held, carried.get(&input))?);
                    }
                }
                let read: Vec<(usize, &[f32])> =
                    inputs.iter().map(|input| (rows[*input].held.start, &*held[input])).collect();
                self.network.run_rows(value, fresh, &read, affines.get(&value), computed, self.threads);
            }
            if let Some(first) = next.map(|next| next[value].held.start).filter(|first| own.contains(first)) {
                let behind = output[(first - own.start) * row_len..].to_vec();
                leave.insert(value, Carry { first, rows: behind });
            }
            held.insert(value, Cow::Owned(output));
            for free in frees {
                held.remove(free);
            }
        }
        match held.remove(&pass.target) {
            Some(made) => Ok(made),
            None => self.read(pass.target, &rows[pass.target].held, carried.get(&pass.target)),
        }
    }

    /// Rows of a map that is there, some of them from the carry where they have been written over.
    fn read(
        &self,
        value: usize,
        rows: &Range<usize>,
        carry: Option<&Carry>,
    ) -> Result<Cow<'_, [f32]>, TryReserveError> {
        let map = &self.maps[&value];
        let Some(carry) = carry else { return map.read(rows.clone(), self.threads) };
        let row_len = self.network.row_len(value);
        let written = carry.first + carry.rows.len() / row_len;
        let mut all = zeros(rows.len() * row_len, 0.0)?;
        let (behind, ahead) = all.split_at_mut(written.saturating_sub(rows.start) * row_len);
        carry.copy(rows.start.min(written), row_len, behind);
        ahead.copy_from_slice(&map.read(rows.start.max(written)..rows.end, self.threads)?);
        Ok(Cow::Owned(all))
    }
}

impl Carry {
    /// Fills `rows` with those from row `first` on.
    fn copy(&self, first: usize, row_len: usize, rows: &mut [f32]) {
        rows.copy_from_slice(&self.rows[(first - self.first) * row_len..][..rows.len()]);
    }
}
