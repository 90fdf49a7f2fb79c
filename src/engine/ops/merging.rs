//! Tokens of a map that are alike become one, and what comes of it is given to each of them: see
//! [`merging`](crate::engine::merging).
//!
//! One token in each square of four stays, the first. Each of the others has the one of these that it is most like, by the cosine
//! of the angle between the two; those that are most like theirs become one with it, as the mean of all.

use super::{Operation, map_of, only};
use crate::engine::merging::TokenMerging;
use crate::engine::threads::Threads;
use crate::kernels::{LANES, Level, Line, ROWS, tile};

/// Tokens that one thread compares at a time.
const CHUNK: usize = 4 * LANES;
/// Tokens that stay which all of these meet before the next: with 320 channels they lie in a second-level cache.
const STAYING: usize = 42 * ROWS;

/// `[n, h, w, c]` -> `[n, h, w, 1]`: of every token, which of those that are left it becomes part of.
#[derive(Debug)]
pub struct Match {
    share: TokenMerging,
    level: Level,
}

/// `[n, h, w, c]` and the places of its tokens -> `[n, t, c]`: of every token that is left, the mean of its parts.
#[derive(Debug)]
pub struct Merge(pub TokenMerging);

/// `[n, t, c]` and the places of a map's tokens in it -> `[n, h, w, c]`.
#[derive(Debug)]
pub struct Spread;

/// The token that another is most like, and how much.
#[derive(Debug, Clone, Copy)]
struct Alike {
    staying: usize,
    cosine: f32,
}

impl Match {
    /// For so many tokens.
    pub fn new(share: TokenMerging) -> Self {
        Self { share, level: Level::detect() }
    }

    /// The place of every token of a map, `shape` being its height and width.
    fn places(&self, map: &[f32], shape: [usize; 2], places: &mut [f32], threads: &Threads) {
        let channels = map.len() / places.len();
        let [stays, goes] = divided(shape);
        let mut directions = vec![0.0; stays.len().next_multiple_of(ROWS) * channels];
        threads.for_each_item(&mut directions[..stays.len() * channels], channels, |at, direction| {
            direction.copy_from_slice(&map[stays[at] * channels..][..channels]);
            let length = length(direction);
            direction.iter_mut().for_each(|x| *x /= length);
        });
        let mut alike = vec![Alike { staying: 0, cosine: f32::NEG_INFINITY }; goes.len()];
        threads.for_each_chunk(&mut alike, CHUNK, |chunk, alike| {
            let tokens = &goes[chunk * CHUNK..][..alike.len()];
            self.compare(map, channels, tokens, (&directions, stays.len()), alike);
        });
        let mut order: Vec<usize> = (0..goes.len()).collect();
        order.sort_unstable_by(|&a, &b| alike[b].cosine.total_cmp(&alike[a].cosine).then(a.cmp(&b)));
        let merged = shape[0] * shape[1] - self.share.left(shape);
        // Those that are left are numbered as they come; the others follow.
        let mut part_of = vec![None; places.len()];
        order[..merged].iter().for_each(|&at| part_of[goes[at]] = Some(stays[alike[at].staying]));
        let left = (0..places.len()).filter(|&token| part_of[token].is_none());
        left.enumerate().for_each(|(place, token)| places[token] = place as f32);
        for (token, whole) in part_of.iter().enumerate() {
            if let Some(whole) = *whole {
                places[token] = places[whole];
            }
        }
    }

    /// What each of some tokens is most like among those whose directions are given.
    fn compare<'d>(
        &self,
        map: &[f32],
        channels: usize,
        tokens: &[usize],
        (directions, count): (&'d [f32], usize),
        alike: &mut [Alike],
    ) {
        let panel = |tokens: &[usize]| {
            let mut panel = vec![Line::ZERO; channels];
            for (lane, token) in tokens.iter().enumerate() {
                let token = &map[token * channels..][..channels];
                let length = length(token);
                panel.iter_mut().zip(token).for_each(|(line, x)| line[lane] = x / length);
            }
            panel
        };
        let panels: Vec<Vec<Line>> = tokens.chunks(LANES).map(panel).collect();
        for (part, directions) in directions.chunks(STAYING * channels).enumerate() {
            for (panel, alike) in panels.iter().zip(alike.chunks_mut(LANES)) {
                let rows = |six: &'d [f32]| std::array::from_fn(|r| &six[r * channels..][..channels]);
                let mut cosines = [[Line::ZERO; ROWS]; STAYING / ROWS];
                let tiles = directions.chunks_exact(ROWS * channels).map(rows).zip(&mut cosines);
                tile::accumulate(self.level, panel, tiles);
                for (staying, cosines) in (part * STAYING..count).zip(cosines.as_flattened()) {
                    for (alike, &cosine) in alike.iter_mut().zip(&cosines.0) {
                        if cosine > alike.cosine {
                            *alike = Alike { staying, cosine };
                        }
                    }
                }
            }
        }
    }
}

/// The tokens of a map that stay, and those that may become one with another.
fn divided([height, width]: [usize; 2]) -> [Vec<usize>; 2] {
    let stays = |&token: &usize| {
        let (y, x) = (token / width, token % width);
        y % 2 == 0 && x % 2 == 0 && y + 1 < height && x + 1 < width
    };
    let (stay, go) = (0..height * width).partition(stays);
    [stay, go]
}

/// The length of a vector; not 0.
fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE)
}

impl Operation for Match {
    fn name(&self) -> &'static str {
        "MatchTokens"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, h, w, _] = map_of(only(inputs)?)?;
        Ok(vec![n, h, w, 1])
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> usize {
        let Ok([_, h, w, c]) = map_of(inputs[0]) else { return 0 };
        let (numbers, stays) = (size_of::<f32>(), h / 2 * (w / 2));
        let directions = stays.next_multiple_of(ROWS) * c * numbers;
        let of_token = 2 * size_of::<usize>() + size_of::<Alike>() + size_of::<Option<usize>>();
        directions + h * w * of_token + threads * CHUNK * c * numbers
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let [n, h, w, _] = map_of(shapes[0]).expect("the shape was checked");
        let maps = inputs[0].chunks_exact(inputs[0].len() / n).zip(output.chunks_exact_mut(h * w));
        maps.for_each(|(map, places)| self.places(map, [h, w], places, threads));
    }
}

impl Operation for Merge {
    fn name(&self) -> &'static str {
        "MergeTokens"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [map, places] = *inputs else { return Err("it takes a map, and places".into()) };
        let ([n, h, w, c], places) = (map_of(map)?, map_of(places)?);
        if places != [n, h, w, 1] {
            return Err(format!("{places:?} are not the places of {map:?}"));
        }
        Ok(vec![n, self.0.left([h, w]), c])
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], _: usize) -> usize {
        map_of(inputs[0]).map_or(0, |[_, h, w, _]| (2 * h * w + 1) * size_of::<usize>())
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let [n, h, w, c] = map_of(shapes[0]).expect("the shape was checked");
        let left = self.0.left([h, w]);
        let maps = inputs[0].chunks_exact(h * w * c).zip(inputs[1].chunks_exact(h * w));
        for ((map, places), out) in maps.zip(output.chunks_exact_mut(output.len() / n)) {
            // The tokens by their places, and where those of each place begin.
            let mut tokens: Vec<usize> = (0..h * w).collect();
            tokens.sort_unstable_by(|&a, &b| places[a].total_cmp(&places[b]).then(a.cmp(&b)));
            let begins = |place: usize| tokens.partition_point(|&token| places[token] < place as f32);
            let begins: Vec<usize> = (0..=left).map(begins).collect();
            threads.for_each_item(out, c, |place, mean| {
                let parts = &tokens[begins[place]..begins[place + 1]];
                for part in parts {
                    mean.iter_mut().zip(&map[part * c..]).for_each(|(mean, x)| *mean += x);
                }
                mean.iter_mut().for_each(|mean| *mean /= parts.len() as f32);
            });
        }
    }
}

impl Operation for Spread {
    fn name(&self) -> &'static str {
        "SpreadTokens"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs {
            [&[n, _, c], &[m, h, w, 1]] if n == m => Ok(vec![n, h, w, c]),
            _ => Err(format!("{inputs:?} are not tokens, and places among them")),
        }
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let (n, c) = (shapes[0][0], shapes[0][2]);
        let maps =
            inputs[0].chunks_exact(inputs[0].len() / n).zip(inputs[1].chunks_exact(inputs[1].len() / n));
        for ((tokens, places), out) in maps.zip(output.chunks_exact_mut(output.len() / n)) {
            threads.for_each_item(out, c, |token, out| {
                out.copy_from_slice(&tokens[places[token] as usize * c..][..c]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: usize = 20;

    fn number(at: usize) -> f32 {
        let mixed = (at as u32 ^ 0x9e37).wrapping_mul(2_654_435_761);
        ((mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn token(map: &[f32], at: usize) -> &[f32] {
        &map[at * CHANNELS..][..CHANNELS]
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// By the definition: of every token that goes the most similar one that stays, then the most similar pairs.
    fn wholes(map: &[f32], height: usize, width: usize, merged: usize) -> Vec<usize> {
        let stays = |at: usize| {
            let [y, x] = [at / width, at % width];
            y % 2 == 0 && x % 2 == 0 && y < height / 2 * 2 && x < width / 2 * 2
        };
        let mut pairs = Vec::new();
        for from in (0..height * width).filter(|&at| !stays(at)) {
            let alike = |to: usize| (cosine(token(map, from), token(map, to)), from, to);
            pairs.extend(
                (0..height * width).filter(|&at| stays(at)).map(alike).max_by(|a, b| a.0.total_cmp(&b.0)),
            );
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut whole: Vec<usize> = (0..height * width).collect();
        pairs[..merged].iter().for_each(|&(_, from, to)| whole[from] = to);
        whole
    }

    #[test]
    fn those_most_alike_become_their_mean_and_all_get_what_it_becomes() {
        let threads = &Threads::new(2);
        for (height, width, share, merged) in [
            (2, 2, 0.75, 3),
            (5, 3, 0.5, 7),
            (8, 6, 0.3, 14),
            (9, 64, 0.75, 432),
            (1, 4, 0.5, 0),
            (3, 4, 0.0, 0),
        ] {
            let share = TokenMerging::new(share).unwrap();
            let (tokens, shape) = (height * width, [2, height, width, CHANNELS]);
            let maps: Vec<f32> = (0..2 * tokens * CHANNELS).map(number).collect();
            let mut places = vec![0.0; 2 * tokens];
            Match::new(share).run(&[&shape], &[&maps], &mut places, threads);
            let places_shape = [2, height, width, 1];
            let merge = Merge(share);
            let left = merge.output_shape(&[&shape, &places_shape]).unwrap();
            assert_eq!(left, [2, tokens - merged, CHANNELS], "{height} x {width}");
            let mut fewer = vec![0.0; left.iter().product()];
            merge.run(&[&shape, &places_shape], &[&maps, &places], &mut fewer, threads);
            assert_eq!(Spread.output_shape(&[&left, &places_shape]).unwrap(), shape);
            let mut spread = vec![0.0; maps.len()];
            Spread.run(&[&left, &places_shape], &[&fewer, &places], &mut spread, threads);
            for (map, spread) in maps.chunks(tokens * CHANNELS).zip(spread.chunks(tokens * CHANNELS)) {
                let wholes = wholes(map, height, width, merged);
                for at in 0..tokens {
                    let parts: Vec<usize> = (0..tokens).filter(|&part| wholes[part] == wholes[at]).collect();
                    for (c, &got) in token(spread, at).iter().enumerate() {
                        let sum: f32 = parts.iter().map(|&part| token(map, part)[c]).sum();
                        assert!(
                            (got - sum / parts.len() as f32).abs() < 1e-5,
                            "{height} x {width}, token {at}"
                        );
                    }
                }
            }
        }
    }
}
