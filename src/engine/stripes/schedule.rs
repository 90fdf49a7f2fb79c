//! Which maps of a region are kept, which are made again whenever they are needed, and in which passes.
//!
//! A pass goes over one value from top to bottom, a stripe of rows at a time: it finds which rows of what is kept a
//! stripe is made of, computes everything in between for these rows only, and keeps the result, or just its sums.
//! A normalisation can only follow when the sums of all of its input are known, so a value that one reads is either
//! kept, or computed once more for its sums alone.
//!
//! The fewer maps are kept the less memory is needed, and the more is computed twice.

use std::collections::BTreeSet;
use std::ops::Range;

use super::network::{Network, RowOp};

/// Stripes that are tried, in rows of the tallest map: those of 16 rows stay in a cache from one operation to the next.
const STRIPES: [usize; 5] = [16, 8, 4, 32, 64];
/// A stripe has at least so many pixels: a matrix is dequantised once for each.
const STRIPE_PIXELS_MIN: usize = 2048;

/// A schedule repeats little if it takes at most so many times the multiplications of one that keeps everything.
const REPEATED_MAX: f64 = 1.1;

/// How a region is worked through.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The passes, in order.
    pub passes: Vec<Pass>,
    /// Whether maps are kept in f16.
    pub half: bool,
    /// Rows of the tallest map in a stripe.
    pub stripe: usize,
    /// The most bytes that maps and stripes hold at a time, the given ones included.
    pub peak_bytes: usize,
    /// The same of each pass.
    pass_bytes: Vec<usize>,
    /// Multiplications, all passes together.
    pub macs: u64,
}

/// Once over a value.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The value.
    pub target: usize,
    /// Whether it is kept; if not, only its sums are wanted.
    pub keep: bool,
    /// The map that is read for the last time here, row by row, and may be written over.
    pub over: Option<usize>,
    /// What is computed for a stripe, in order; the target comes last.
    pub steps: Vec<Step>,
    /// Kept or given values that are read.
    pub sources: Vec<usize>,
    /// Kept or given values that no later pass reads.
    pub done: Vec<usize>,
    /// Rows in a stripe of the target.
    pub rows: usize,
}

/// The rows of a value that a stripe works with.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Those that are there while something reads them.
    pub held: Range<usize>,
    /// Those of them that are computed, at the end; the others are left from the stripe before.
    pub fresh: Range<usize>,
}

/// The computation of some rows of a value.
#[derive(Debug, Clone)]
pub struct Step {
    /// The value.
    pub value: usize,
    /// What no later step of the stripe reads.
    pub frees: Vec<usize>,
}

impl Schedule {
    /// The values that are kept.
    fn kept(&self) -> impl Iterator<Item = usize> {
        self.passes.iter().filter(|pass| pass.keep).map(|pass| pass.target)
    }

    /// The values that more than one pass computes.
    fn repeated(&self) -> BTreeSet<usize> {
        let (mut once, mut more) = (BTreeSet::new(), BTreeSet::new());
        for step in self.passes.iter().flat_map(|pass| &pass.steps) {
            if !once.insert(step.value) {
                more.insert(step.value);
            }
        }
        more
    }

    /// Bytes beyond an aim, of all passes together: several may be over it, each by a map of its own.
    fn excess(&self, aim_bytes: usize) -> usize {
        self.pass_bytes.iter().map(|bytes| bytes.saturating_sub(aim_bytes)).sum()
    }
}

impl Pass {
    /// The rows of each value that a stripe works with, none of those that it does not; `before` are those of the stripe
    /// before it, from which it has what that computed already.
    pub fn rows(&self, network: &Network, stripe: &Range<usize>, before: Option<&[Rows]>) -> Vec<Rows> {
        let mut rows = vec![Rows::default(); network.shapes.len()];
        rows[self.target].held = stripe.clone();
        for step in self.steps.iter().rev() {
            let held = rows[step.value].held.clone();
            let known = before.map_or(0..0, |before| before[step.value].held.clone());
            // Rows are left from the first on that is needed, or not at all.
            let known = if known.contains(&held.start) { known.end.min(held.end) } else { held.start };
            let fresh = known..held.end;
            rows[step.value].fresh = fresh.clone();
            if fresh.is_empty() {
                continue;
            }
            let read = network.rows_read(step.value, &fresh);
            for &input in network.inputs(step.value) {
                let held = &mut rows[input].held;
                *held = if held.start == held.end {
                    read.clone()
                } else {
                    held.start.min(read.start)..held.end.max(read.end)
                };
            }
        }
        rows
    }

    /// The stripes, from top to bottom.
    pub fn stripes(&self, network: &Network) -> impl Iterator<Item = Range<usize>> + use<> {
        let (height, rows) = (network.shapes[self.target][0], self.rows);
        (0..height).step_by(rows).map(move |start| start..(start + rows).min(height))
    }

    /// The most bytes that the stripes of this pass hold at a time, and the multiplications of all of them: from the
    /// first, the last and two in the middle, as all others are like these.
    fn cost(&self, network: &Network, half: bool) -> (usize, u64) {
        let stripes: Vec<_> = self.stripes(network).collect();
        let last = stripes.len() - 1;
        let (mut peak, mut macs) = (0, 0);
        // With the number of stripes that each stands for.
        let (middle, inner) = (last / 2, last.saturating_sub(1));
        let some = [(0, 1), (middle, inner.div_ceil(2)), (middle + 1, inner / 2), (last, last.min(1))];
        for (at, count) in some.into_iter().filter(|&(_, count)| count > 0) {
            let stripe = &stripes[at];
            let before = at.saturating_sub(2)..at;
            let before = before.fold(None, |before: Option<Vec<Rows>>, at| {
                Some(self.rows(network, &stripes[at], before.as_deref()))
            });
            let rows = self.rows(network, stripe, before.as_deref());
            let bytes = |value: usize, rows: usize| rows * network.row_len(value) * size_of::<f32>();
            // What was carried for this stripe, and what is carried for the next.
            let mut carried = 0;
            if let Some(over) = self.over {
                carried += 2 * bytes(over, rows[over].held.start.abs_diff(stripe.start));
            }
            for step in &self.steps {
                let Rows { held, fresh } = &rows[step.value];
                carried += 2 * bytes(step.value, fresh.start - held.start);
            }
            let mut held: BTreeSet<usize> = BTreeSet::new();
            for step in &self.steps {
                let inputs = network.inputs(step.value).iter();
                held.extend(inputs.filter(|&&input| self.is_copied(network, input, half)));
                let Rows { held: own, fresh } = &rows[step.value];
                let own =
                    bytes(step.value, own.len()) + network.scratch_bytes(step.value, fresh.len().max(1));
                let others = held.iter().map(|&v| bytes(v, rows[v].held.len())).sum::<usize>();
                peak = peak.max(carried + own + others);
                macs += network.macs(step.value, fresh.len()) * count as u64;
                held.insert(step.value);
                step.frees.iter().for_each(|free| _ = held.remove(free));
            }
        }
        (peak, macs)
    }

    /// Whether rows of an input are held beside the map that they come from.
    fn is_copied(&self, network: &Network, input: usize, half: bool) -> bool {
        let is_read = self.sources.contains(&input);
        !is_read || (half && input >= network.given) || self.over == Some(input)
    }
}

/// The first schedule within `limit_bytes` that repeats little, f32 before f16; else the one of least multiplications within
/// the limit; else the smallest there is.
///
/// `stripe`: rows of the tallest map in a stripe, where they are prescribed.
pub fn fit(network: &Network, stripe: Option<usize>, limit_bytes: usize) -> Schedule {
    let stripes = stripe.map_or_else(|| STRIPES.to_vec(), |rows| vec![rows]);
    let mut found: Vec<Schedule> = Vec::new();
    for half in [false, true] {
        for &stripe in &stripes {
            let least = shrink(network, half, stripe, usize::MAX, usize::MAX).macs as f64;
            let schedule =
                grow(network, shrink(network, half, stripe, limit_bytes, limit_bytes), limit_bytes);
            let at_once = schedule.macs as f64 <= REPEATED_MAX * least;
            found.push(schedule);
            if found.last().is_some_and(|schedule| schedule.peak_bytes <= limit_bytes) && at_once {
                return found.swap_remove(found.len() - 1);
            }
        }
    }
    if !found.iter().any(|schedule| schedule.peak_bytes <= limit_bytes) {
        // Another way down, the same whatever the limit: where it ends is what is needed at least.
        let all = [false, true].iter().flat_map(|&half| stripes.iter().map(move |&stripe| (half, stripe)));
        found = all.map(|(half, stripe)| shrink(network, half, stripe, limit_bytes, 0)).collect();
    }
    let key = |schedule: &Schedule| match schedule.peak_bytes <= limit_bytes {
        true => (false, schedule.macs),
        false => (true, schedule.peak_bytes as u64),
    };
    found.into_iter().min_by_key(key).expect("at least one was tried")
}

/// Keeps what saves multiplications, then gives up the map that costs least for what it saves until the limit is met.
///
/// What a map saves is what it takes off passes that are over `aim_bytes`.
fn shrink(network: &Network, half: bool, stripe: usize, limit_bytes: usize, aim_bytes: usize) -> Schedule {
    let mut kept = worth_keeping(network);
    let mut schedule = schedule(network, &kept, half, stripe);
    while schedule.peak_bytes > limit_bytes {
        let without = |value: &usize| {
            let mut fewer = kept.clone();
            fewer.remove(value);
            self::schedule(network, &fewer, half, stripe)
        };
        let last = network.shapes.len() - 1;
        let tried = kept.iter().filter(|&&value| value != last).map(|value| (*value, without(value)));
        let excess = schedule.excess(aim_bytes);
        let smaller = tried.filter(|(_, tried)| tried.excess(aim_bytes) < excess);
        // More multiplications for each byte less.
        let price = |tried: &Schedule| {
            tried.macs.saturating_sub(schedule.macs) as f64 / (excess - tried.excess(aim_bytes)) as f64
        };
        let Some((value, next)) = smaller.min_by(|(_, a), (_, b)| price(a).total_cmp(&price(b))) else {
            break;
        };
        kept.remove(&value);
        schedule = next;
    }
    schedule
}

/// Keeps more maps for as long as that saves multiplications within the limit: where a map had to go, what it is made from
/// may be small enough.
fn grow(network: &Network, mut schedule: Schedule, limit_bytes: usize) -> Schedule {
    if schedule.peak_bytes > limit_bytes {
        return schedule;
    }
    loop {
        let kept: BTreeSet<usize> = schedule.kept().collect();
        let repeated = schedule.repeated().into_iter().filter(|value| !kept.contains(value));
        let with = |value: usize| {
            let mut more = kept.clone();
            more.insert(value);
            self::schedule(network, &more, schedule.half, schedule.stripe)
        };
        let fits = |tried: &Schedule| tried.peak_bytes <= limit_bytes && tried.macs < schedule.macs;
        match repeated.map(with).filter(fits).min_by_key(|tried| tried.macs) {
            Some(better) => schedule = better,
            None => return schedule,
        }
    }
}

/// The last value, and every value that more than one computation would take a product for.
fn worth_keeping(network: &Network) -> BTreeSet<usize> {
    let last = network.shapes.len() - 1;
    let mut kept = BTreeSet::from([last]);
    let mut heavy = vec![false; network.shapes.len()];
    for (at, node) in network.nodes.iter().enumerate() {
        let value = network.given + at;
        heavy[value] = network.macs(value, 1) > 0 || node.inputs.iter().any(|&input| heavy[input]);
        let readers = network.nodes.iter().filter(|reader| reader.inputs.contains(&value)).count();
        if heavy[value] && readers + usize::from(network.is_normalised(value)) > 1 {
            kept.insert(value);
            heavy[value] = false;
        }
    }
    kept
}

/// The passes that make the last value, when these values are kept.
fn schedule(network: &Network, kept: &BTreeSet<usize>, half: bool, stripe: usize) -> Schedule {
    let mut passes = Vec::new();
    let mut summed = BTreeSet::new();
    for &value in kept {
        plan_pass(network, kept, value, stripe, &mut summed, &mut passes);
    }
    let last_pass = |source: usize| passes.iter().rposition(|pass: &Pass| pass.sources.contains(&source));
    let ends: Vec<(usize, usize)> =
        (0..network.shapes.len()).filter_map(|source| Some((last_pass(source)?, source))).collect();
    for &(pass, source) in &ends {
        passes[pass].done.push(source);
    }
    for pass in passes.iter_mut().filter(|pass| pass.keep && pass.target + 1 < network.shapes.len()) {
        let fits =
            |&&done: &&usize| done >= network.given && network.shapes[done] == network.shapes[pass.target];
        pass.over = pass.done.iter().find(fits).copied();
    }
    let (mut pass_bytes, mut macs) = (Vec::new(), 0);
    let bytes = |value: usize| {
        let wide = if half && value >= network.given && value + 1 < network.shapes.len() { 2 } else { 4 };
        network.shapes[value].iter().product::<usize>() * wide
    };
    let mut held: BTreeSet<usize> = (0..network.given).collect();
    for pass in &passes {
        let (stripes, more) = pass.cost(network, half);
        if pass.keep {
            held.insert(pass.target);
        }
        let doubled = pass.over.map_or(0, bytes);
        pass_bytes.push(held.iter().map(|&v| bytes(v)).sum::<usize>() + stripes - doubled);
        macs += more;
        pass.done.iter().for_each(|done| _ = held.remove(done));
    }
    let peak_bytes = pass_bytes.iter().copied().max().unwrap_or(0);
    Schedule { passes, half, stripe, peak_bytes, pass_bytes, macs }
}

/// Adds the pass over `target`, behind those that take the sums that it needs.
fn plan_pass(
    network: &Network,
    kept: &BTreeSet<usize>,
    target: usize,
    stripe: usize,
    summed: &mut BTreeSet<usize>,
    passes: &mut Vec<Pass>,
) {
    let (mut computed, mut sources) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![target];
    while let Some(value) = open.pop() {
        if value < network.given || (kept.contains(&value) && value != target) {
            sources.insert(value);
        } else if computed.insert(value) {
            open.extend(network.inputs(value));
        }
    }
    for &value in &computed {
        let input = network.inputs(value)[0];
        if matches!(network.maker(value).op, RowOp::Norm(_)) && !summed.contains(&input) {
            plan_pass(network, kept, input, stripe, summed, passes);
        }
    }
    summed.insert(target);
    let [height, width, _] = network.shapes[target];
    let tallest = network.shapes.iter().map(|shape| shape[0]).max().unwrap_or(1);
    passes.push(Pass {
        target,
        keep: kept.contains(&target),
        over: None,
        steps: steps(network, &computed),
        sources: sources.into_iter().collect(),
        done: Vec::new(),
        rows: (stripe * height / tallest).max(STRIPE_PIXELS_MIN.div_ceil(width)).clamp(1, height),
    });
}

/// The computations of a stripe, each with the values that none behind it reads.
fn steps(network: &Network, computed: &BTreeSet<usize>) -> Vec<Step> {
    let mut read = BTreeSet::new();
    let step = |&value: &usize| {
        let inputs: BTreeSet<usize> = network.inputs(value).iter().copied().collect();
        let frees = inputs.into_iter().filter(|&input| read.insert(input)).collect();
        Step { value, frees }
    };
    let mut steps: Vec<Step> = computed.iter().rev().map(step).collect();
    steps.reverse();
    steps
}
