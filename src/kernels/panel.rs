//! A panel of `int8` weights of 16 output channels, in the order that a level wants them in.
//!
//! Where weights have a scale for every few inputs, an [`Integer`] with room to spare folds them: each weight is multiplied by
//! the ratio of its scale to the largest one of its channel, so that one sum does for all inputs.

use super::Level;
use super::dequantise::{BLOCK, GROUP};
use super::integer::Integer;
use super::level::Work;
use super::quantise::quantise;
use super::tile::{LANES, Line};

/// What weights are multiplied by beside the ratio of their scale, so that it leaves them enough bits.
const FOLDED: i32 = 1 << FOLDED_BITS;
const FOLDED_BITS: u32 = 4;
/// A ratio of 1.
const RATIO_ONE: f32 = 32_767.0;

/// Weights of 4 inputs of 16 output channels, in the order that a level wants them in.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Group<Q>(pub [Q; GROUP * LANES]);

impl<Q: Integer> Group<Q> {
    /// Zeros.
    pub fn zeros() -> Self {
        Self([Q::default(); GROUP * LANES])
    }
}

/// 8 outputs x 4 inputs as they lie in the file.
pub type StoredGroup = [i8; BLOCK * GROUP];

/// Weights of 16 outputs as they lie in the file.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Of outputs 0 to 7.
    pub low: &'a [StoredGroup],
    /// Of outputs 8 to 15.
    pub high: &'a [StoredGroup],
    /// What each weight is multiplied by, in 32768ths, after it was multiplied by 16; none, if there are none.
    pub ratios: &'a [[i16; LANES]],
    /// Groups that share ratios.
    pub run: usize,
}

impl Stored<'_> {
    /// The ratios of a group.
    pub fn ratios_of(&self, group: usize) -> Option<&[i16; LANES]> {
        self.ratios.get(group / self.run.max(1))
    }
}

/// `weight * 16 * ratio / 32768`, rounded as `pmulhrsw` does.
#[inline(always)]
fn folded(weight: i32, ratio: i16) -> i32 {
    (((weight * FOLDED * i32::from(ratio)) >> 14) + 1) >> 1
}

/// A panel of weights with their scales.
#[derive(Debug, Clone, Default)]
pub struct Panel<Q> {
    /// `[K / 4]`, a multiple of four of them.
    pub groups: Vec<Group<Q>>,
    /// `[K / run]`, the scales of 16 outputs each.
    pub scales: Vec<Line>,
    /// Groups that share a scale: a multiple of four.
    pub run: usize,
    ratios: Vec<[i16; LANES]>,
}

impl Panel<i16> {
    /// At most 16 rows of activations side by side, quantised with a scale each.
    pub fn of_rows<'a>(level: Level, width: usize, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut groups = vec![Group::zeros(); width.div_ceil(GROUP)];
        let mut scales = Line::ZERO;
        let mut integers = vec![0; groups.len() * GROUP];
        for (lane, row) in rows.enumerate() {
            scales[lane] = quantise(level, row, &mut integers);
            for (group, four) in groups.iter_mut().zip(integers.as_chunks::<GROUP>().0) {
                (0..GROUP).for_each(|input| group.0[i16::place(lane, input)] = four[input]);
            }
        }
        Self { run: groups.len(), groups, scales: vec![scales], ratios: Vec::new() }
    }
}

impl<Q: Integer> Panel<Q> {
    /// Puts weights into as many groups as there are, whose scales, each for `run` groups, are in place already.
    pub fn fill(&mut self, level: Level, low: &[StoredGroup], high: &[StoredGroup]) {
        self.ratios.clear();
        let run = self.run;
        if Q::FOLDS && self.scales.len() > 1 {
            level.run(Fold { scales: &mut self.scales, ratios: &mut self.ratios });
            self.run = self.groups.len();
        }
        Q::arrange(level, Stored { low, high, ratios: &self.ratios, run }, &mut self.groups);
    }
}

/// One scale for each output in place of several, and the ratios that this takes.
struct Fold<'a> {
    scales: &'a mut Vec<Line>,
    ratios: &'a mut Vec<[i16; LANES]>,
}

impl Work for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut largest = Line::ZERO;
        for scales in &*self.scales {
            largest.iter_mut().zip(&scales.0).for_each(|(largest, scale)| *largest = largest.max(*scale));
        }
        for scales in &*self.scales {
            // A channel of zeros has no scale.
            let ratio = |lane: usize| scales[lane] / largest[lane].max(f32::MIN_POSITIVE) * RATIO_ONE + 0.5;
            self.ratios.push(std::array::from_fn(|lane| ratio(lane) as i16));
        }
        largest.iter_mut().for_each(|scale| *scale *= 32_768.0 / (RATIO_ONE * FOLDED as f32));
        self.scales.truncate(1);
        self.scales[0] = largest;
    }
}

/// [`Integer::arrange`] in plain order.
pub(super) struct Arrange<'a, Q> {
    pub stored: Stored<'a>,
    pub panel: &'a mut [Group<Q>],
}

impl<Q: Integer> Work for Arrange<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (at, group) in self.panel.iter_mut().enumerate() {
            let ratios = self.stored.ratios_of(at);
            for (first, stored) in [(0, self.stored.low.get(at)), (BLOCK, self.stored.high.get(at))] {
                for place in 0..BLOCK * GROUP {
                    let lane = first + place / GROUP;
                    let weight = stored.map_or(0, |stored| i32::from(stored[place]));
                    let weight = ratios.map_or(weight, |ratios| folded(weight, ratios[lane]));
                    group.0[Q::place(lane, place % GROUP)] = Q::of(weight);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_costs_less_than_int8_weights_did() {
        let (groups, run) = (80, 8);
        let weight = |lane: usize, k: usize| (((k * 37 + lane * 11) % 255) as i32 - 127) as i8;
        let stored = |first: usize| -> Vec<StoredGroup> {
            let group =
                |g: usize| std::array::from_fn(|at| weight(first + at / GROUP, g * GROUP + at % GROUP));
            (0..groups).map(group).collect()
        };
        let scale = |at: usize, lane: usize| 0.25 + ((at * 7 + lane * 3) % 16) as f32;
        let scales = (0..groups / run).map(|at| Line(std::array::from_fn(|lane| scale(at, lane))));
        let mut panel = Panel::<i16> {
            scales: scales.collect(),
            groups: vec![Group::zeros(); groups],
            run,
            ..Panel::default()
        };
        panel.fill(Level::detect(), &stored(0), &stored(BLOCK));
        assert_eq!((panel.scales.len(), panel.run), (1, groups));
        let (mut error, mut power) = (0.0, 0.0);
        for (lane, k) in (0..LANES).flat_map(|lane| (0..groups * GROUP).map(move |k| (lane, k))) {
            let exact = f32::from(weight(lane, k)) * scale(k / (run * GROUP), lane);
            let folded = panel.groups[k / GROUP].0[i16::place(lane, k % GROUP)];
            error += (f32::from(folded) * panel.scales[0][lane] - exact).powi(2);
            power += exact.powi(2);
        }
        assert!((error / power).sqrt() < 1e-3, "{}", (error / power).sqrt());
    }
}
