//! What the kernels take at the shapes of Stable Diffusion 1.5, each held against the plain formula first.
//!
//! All run on one core, at the level that the program would use; `TINTYPE_LEVEL` names another. The rate is in
//! multiplications for products, in numbers that are made for the rest.

use std::any::type_name;
use std::array::from_fn;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tintype::kernels::activation::Function;
use tintype::kernels::dequantise::{self, BLOCK, GROUP};
use tintype::kernels::integer::{self, Integer};
use tintype::kernels::panel::{Group, Panel, StoredGroup};
use tintype::kernels::quantise::quantise;
use tintype::kernels::softmax::Running;
use tintype::kernels::tile::{self, Tile};
use tintype::kernels::winograd::{self, INPUTS, OUTPUTS, PLACES, TAPS};
use tintype::kernels::{LANES, Level, Line, ROWS, norm};

/// Channels of the largest maps.
const CHANNELS: usize = 320;
/// Pixels of a row of the largest maps.
const PIXELS: usize = 64;
/// Tiles that pass over a panel, one after another.
const TILES: usize = 16;
/// Inputs that share a scale, where a matrix has more than one for an output.
const SCALE_RUN: usize = 32;

fn products(c: &mut Criterion) {
    let level = Level::detect();
    let mut group = c.benchmark_group("product");
    for inputs in [CHANNELS, 4 * CHANNELS] {
        group.throughput(Throughput::Elements((TILES * ROWS * LANES * inputs) as u64));
        let data: [Vec<f32>; ROWS] = from_fn(|row| numbers(inputs, row as u32));
        let rows: [&[f32]; ROWS] = from_fn(|row| &data[row][..]);
        let panel = lines(inputs, 9);
        let mut tiles = [[Line::ZERO; ROWS]; TILES];
        tile::accumulate(level, &panel, std::iter::repeat(rows).zip(&mut tiles));
        for (row, lane) in tile_places() {
            let exact = dot((0..inputs).map(|k| (rows[row][k], panel[k][lane])));
            tiles.iter().for_each(|acc| assert_near(acc[row][lane], exact, 1e-4));
        }
        group.bench_function(format!("f32/{inputs}"), |b| {
            b.iter(|| {
                let rows = std::iter::repeat(black_box(rows));
                tile::accumulate(level, black_box(&panel), rows.zip(&mut tiles));
            });
        });
    }
    group.finish();
}

fn integer_products<Q: Integer>(c: &mut Criterion) {
    let level = Level::detect();
    let mut group = c.benchmark_group("product");
    let (low, high) = (stored(CHANNELS, 1), stored(CHANNELS, 2));
    let row: Vec<Q> = whole(CHANNELS, Q::MAX.into(), 3).map(Q::of).collect();
    let row_scales = [0.25; ROWS];
    for (name, run) in [("a scale", CHANNELS), ("scales", SCALE_RUN)] {
        let scale = |k: usize, lane: usize| 0.5 + (k / run + lane) as f32 / 8.0;
        let scales: Vec<Line> =
            (0..CHANNELS / run).map(|at| Line(from_fn(|lane| scale(at * run, lane)))).collect();
        let mut panel = Panel::<Q>::default();
        panel.groups = vec![Group::zeros(); CHANNELS / GROUP];
        let arrange = |panel: &mut Panel<Q>| {
            panel.scales.clone_from(&scales);
            panel.run = run / GROUP;
            panel.fill(level, black_box(&low), black_box(&high));
        };
        arrange(&mut panel);
        let rows = integer::Rows { values: [&row[..]; ROWS], scales: row_scales };
        let mut tiles = [[Line::ZERO; ROWS]; TILES];
        integer::accumulate(level, &panel, std::iter::repeat(rows).zip(&mut tiles));
        for (at, lane) in tile_places() {
            let weight = |k: usize| f32::from(weight_of(&low, &high, k, lane)) * scale(k, lane);
            let exact = dot((0..CHANNELS).map(|k| (row[k].into() as f32 * row_scales[at], weight(k))));
            // Sums are exact, but for scales that are folded into weights.
            let folds = Q::FOLDS && run < CHANNELS;
            let largest = f64::from(Q::MAX) * 127.0 * f64::from(row_scales[at]);
            let tolerance = largest * if folds { 1e-2 } else { 1e-4 };
            tiles.iter().for_each(|acc| assert_near(acc[at][lane], exact, tolerance));
        }
        group.throughput(Throughput::Elements((TILES * ROWS * LANES * CHANNELS) as u64));
        group.bench_function(format!("{}, {name}/{CHANNELS}", type_name::<Q>()), |b| {
            b.iter(|| {
                let rows = std::iter::repeat(black_box(rows));
                integer::accumulate(level, black_box(&panel), rows.zip(&mut tiles));
            });
        });
        group.throughput(Throughput::Elements((LANES * CHANNELS) as u64));
        group.bench_function(format!("panel of {}, {name}/{CHANNELS}", type_name::<Q>()), |b| {
            b.iter(|| arrange(&mut panel));
        });
    }
    group.finish();
}

fn winograd(c: &mut Criterion) {
    let level = Level::detect();
    let mut group = c.benchmark_group("winograd");
    let pixels: [Vec<f32>; PLACES] = from_fn(|place| numbers(CHANNELS, place as u32));
    let pixels: [&[f32]; PLACES] = from_fn(|place| &pixels[place][..]);
    let taps: [Vec<Line>; TAPS * TAPS] = from_fn(|tap| lines(CHANNELS, 50 + tap as u32));
    let taps: [&[Line]; TAPS * TAPS] = from_fn(|tap| &taps[tap][..]);
    let bias = lines(1, 99)[0];

    let mut turned = vec![0.0; PLACES * CHANNELS];
    winograd::input(level, &pixels, &mut turned, CHANNELS);
    let mut weights = vec![Line::ZERO; PLACES * CHANNELS];
    winograd::weights(level, &taps, &mut weights, CHANNELS);
    let product = |place: usize, lane: usize| {
        dot((0..CHANNELS).map(|k| (turned[place * CHANNELS + k], weights[place * CHANNELS + k][lane])))
    };
    let sums: [Line; PLACES] = from_fn(|place| Line(from_fn(|lane| product(place, lane) as f32)));
    let mut outputs = [Line::ZERO; OUTPUTS * OUTPUTS];
    winograd::output(level, &sums, 1, &bias, &mut outputs);
    for (at, output) in outputs.iter().enumerate() {
        let (y, x) = (at / OUTPUTS, at % OUTPUTS);
        for lane in 0..LANES {
            let tap = |tap: usize| {
                let pixel = pixels[(y + tap / TAPS) * INPUTS + x + tap % TAPS];
                dot((0..CHANNELS).map(|k| (pixel[k], taps[tap][k][lane])))
            };
            assert_near(output[lane], (0..TAPS * TAPS).map(tap).sum::<f64>() + f64::from(bias[lane]), 1e-3);
        }
    }

    group.throughput(Throughput::Elements((PLACES * CHANNELS) as u64));
    group.bench_function(format!("input/{CHANNELS}"), |b| {
        b.iter(|| winograd::input(level, black_box(&pixels), &mut turned, CHANNELS));
    });
    group.throughput(Throughput::Elements((PLACES * CHANNELS * LANES) as u64));
    group.bench_function(format!("weights/{CHANNELS}"), |b| {
        b.iter(|| winograd::weights(level, black_box(&taps), &mut weights, CHANNELS));
    });
    group.throughput(Throughput::Elements((OUTPUTS * OUTPUTS * LANES) as u64));
    group.bench_function("output", |b| {
        b.iter(|| winograd::output(level, black_box(&sums), 1, &bias, &mut outputs));
    });
    group.finish();
}

fn dequantise(c: &mut Criterion) {
    let level = Level::detect();
    let (low, high) = (stored(CHANNELS, 1), stored(CHANNELS, 2));
    let scale = |run: usize, output: usize| 0.5 + (run * BLOCK + output) as f32;
    let scales: Vec<[f32; BLOCK]> =
        (0..CHANNELS / SCALE_RUN).map(|run| from_fn(|output| scale(run, output))).collect();
    let mut panel = vec![Line::ZERO; CHANNELS];
    let fill = |panel: &mut [Line]| {
        for (lane, block) in [(0, &low), (BLOCK, &high)] {
            let scales = dequantise::Scales { values: &scales, run: SCALE_RUN };
            dequantise::int8(level, black_box(block), scales, 0, lane, panel);
        }
    };
    fill(&mut panel);
    for (k, line) in panel.iter().enumerate() {
        for lane in 0..LANES {
            let exact = f32::from(weight_of(&low, &high, k, lane)) * scale(k / SCALE_RUN, lane % BLOCK);
            assert_eq!(line[lane], exact, "input {k} of output {lane}");
        }
    }
    let mut group = c.benchmark_group("dequantise");
    group.throughput(Throughput::Elements((LANES * CHANNELS) as u64));
    group.bench_function(format!("int8/{CHANNELS}"), |b| b.iter(|| fill(&mut panel)));
    group.finish();
}

fn softmax(c: &mut Criterion) {
    const KEYS: usize = 512;
    const SCALE: f32 = 0.158; // 1 / sqrt 40, of heads of 40 channels
    let level = Level::detect();
    let scores: Vec<Line> = lines(KEYS, 1).into_iter().map(|line| Line(line.0.map(|x| x * 40.0))).collect();
    let mut weights = scores.clone();
    let mut running = Running::default();
    running.add(level, &mut weights, [KEYS; LANES], SCALE);
    for lane in 0..LANES {
        let exact = |key: usize| f64::from(scores[key][lane] * SCALE).exp();
        let sum: f64 = (0..KEYS).map(exact).sum();
        for (key, weights) in weights.iter().enumerate() {
            assert_near(weights[lane] / running.sum[lane], exact(key) / sum, 1e-6);
        }
    }
    let mut group = c.benchmark_group("softmax");
    group.throughput(Throughput::Elements((KEYS * LANES) as u64));
    group.bench_function(format!("keys/{KEYS}"), |b| {
        let add = |scores: &mut Vec<Line>| Running::default().add(level, scores, [KEYS; LANES], SCALE);
        b.iter_batched_ref(|| scores.clone(), add, BatchSize::SmallInput);
    });
    group.finish();
}

fn functions(c: &mut Criterion) {
    let level = Level::detect();
    let values: Vec<f32> = numbers(PIXELS * CHANNELS, 1).into_iter().map(|x| 4.0 * x).collect();
    let mut group = c.benchmark_group("function");
    group.throughput(Throughput::Elements(values.len() as u64));
    for (name, function, exact) in
        [("silu", Function::Silu, silu as fn(f64) -> f64), ("gelu", Function::Gelu, gelu)]
    {
        let mut made = values.clone();
        function.apply(level, &mut made);
        for (&got, &x) in made.iter().zip(&values) {
            assert_near(got, exact(f64::from(x)), 4e-6);
        }
        group.bench_function(format!("{name}/{}", values.len()), |b| {
            let apply = |values: &mut Vec<f32>| function.apply(level, values);
            b.iter_batched_ref(|| values.clone(), apply, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn norms(c: &mut Criterion) {
    const GROUPS: usize = 32;
    const EPSILON: f32 = 1e-5;
    let level = Level::detect();
    let x: Vec<f32> = numbers(PIXELS * CHANNELS, 1).into_iter().map(|x| 3.0 * x + 1.0).collect();
    let (weight, bias) = (numbers(CHANNELS, 2), numbers(CHANNELS, 3));
    let mut out = vec![0.0; x.len()];
    let group_norm = |out: &mut [f32]| {
        let mut sums = vec![[0.0; 2]; CHANNELS];
        norm::channel_sums(level, black_box(&x), &mut sums);
        let (scale, shift) = norm::group_affine(&sums, PIXELS, GROUPS, EPSILON, &weight, &bias);
        norm::apply_affine(level, &x, &scale, &shift, true, out);
    };
    let layer_norm = |out: &mut [f32]| {
        for (x, out) in black_box(&x).chunks(CHANNELS).zip(out.chunks_mut(CHANNELS)) {
            norm::layer(level, x, EPSILON, &weight, &bias, out);
        }
    };
    /// The mean of what is picked, and one over its deviation.
    fn moments(values: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
        let count = values.clone().count() as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let variance = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        (mean, (variance + f64::from(EPSILON)).sqrt().recip())
    }
    let affine = |at: usize, (mean, inverse): (f64, f64)| {
        let channel = at % CHANNELS;
        (f64::from(x[at]) - mean) * inverse * f64::from(weight[channel]) + f64::from(bias[channel])
    };
    group_norm(&mut out);
    for at in (0..x.len()).step_by(37) {
        let of = |at: usize| at % CHANNELS / (CHANNELS / GROUPS);
        let group = moments((0..x.len()).filter(|&other| of(other) == of(at)).map(|other| x[other]));
        assert_near(out[at], silu(affine(at, group)), 1e-5);
    }
    layer_norm(&mut out);
    for (at, &got) in out.iter().enumerate() {
        let row = moments(x.chunks(CHANNELS).nth(at / CHANNELS).unwrap().iter().copied());
        assert_near(got, affine(at, row), 1e-5);
    }
    let mut group = c.benchmark_group("norm");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function(format!("group, silu/{}", x.len()), |b| b.iter(|| group_norm(&mut out)));
    group.bench_function(format!("layer/{}", x.len()), |b| b.iter(|| layer_norm(&mut out)));
    group.finish();
}

fn quantised<Q: Integer>(c: &mut Criterion) {
    let level = Level::detect();
    let x = numbers(CHANNELS, 1);
    let mut out = vec![Q::default(); CHANNELS];
    let scale = f64::from(quantise(level, &x, &mut out));
    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    assert_near(scale as f32, f64::from(largest) / f64::from(Q::MAX), 1e-9);
    for (&x, &q) in x.iter().zip(&out) {
        assert_near(q.into() as f32, f64::from(x) / scale, 0.501);
    }
    let mut group = c.benchmark_group("quantise");
    group.throughput(Throughput::Elements(CHANNELS as u64));
    group.bench_function(format!("{}/{CHANNELS}", type_name::<Q>()), |b| {
        b.iter(|| quantise(level, black_box(&x), &mut out));
    });
    group.finish();
}

/// Whole numbers from `-most` to `most` that look random.
fn whole(len: usize, most: i32, seed: u32) -> impl Iterator<Item = i32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as i32 % (2 * most + 1) - most
    })
}

/// Numbers from -1 to 1 that look random.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    const PARTS: i32 = 1 << 20;
    whole(len, PARTS, seed).map(|value| value as f32 / PARTS as f32).collect()
}

fn lines(len: usize, seed: u32) -> Vec<Line> {
    numbers(len * LANES, seed).as_chunks().0.iter().copied().map(Line).collect()
}

/// Weights of 8 outputs as they lie in a model file.
fn stored(inputs: usize, seed: u32) -> Vec<StoredGroup> {
    let weights: Vec<i8> = whole(inputs * BLOCK, 127, seed).map(|weight| weight as i8).collect();
    weights.as_chunks().0.to_vec()
}

/// The weight from input `k` to output `lane`.
fn weight_of(low: &[StoredGroup], high: &[StoredGroup], k: usize, lane: usize) -> i8 {
    let block = if lane < BLOCK { low } else { high };
    block[k / GROUP][lane % BLOCK * GROUP + k % GROUP]
}

fn tile_places() -> impl Iterator<Item = (usize, usize)> {
    (0..size_of::<Tile>() / size_of::<f32>()).map(|at| (at / LANES, at % LANES))
}

fn dot(pairs: impl Iterator<Item = (f32, f32)>) -> f64 {
    pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `x / 2 (1 + erf(x / sqrt 2))`, with the series of erf.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let mut term = z;
    let mut sum = z;
    for n in 1..64 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    x / 2.0 * (1.0 + sum * std::f64::consts::FRAC_2_SQRT_PI)
}

fn assert_near(got: f32, exact: f64, bound: f64) {
    let error = (f64::from(got) - exact).abs();
    assert!(error <= bound, "{got} is {error:e} away from {exact}");
}

criterion_group!(
    kernels,
    products,
    integer_products::<i16>,
    integer_products::<i8>,
    winograd,
    dequantise,
    softmax,
    functions,
    norms,
    quantised::<i16>,
    quantised::<i8>
);
criterion_main!(kernels);
