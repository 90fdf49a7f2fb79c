//! Large maps in stripes against the same maps whole, and the planned peak of memory against the allocator's.
//!
//! Measured on these networks: maps kept in f32 1e-6 or less, kept in f16 5e-4 or less.

mod fixture;

use std::path::PathBuf;
use std::sync::Arc;

use fixture::{data, relative_l2};
use peak_alloc::PeakAlloc;
use tintype::bundle::{Bundle, Component as Kind};
use tintype::denoise::FeatureCache;
use tintype::engine::{
    BESIDE_BYTES, Component, EngineError, Footprint, NamedTensor, Resources, Threads, Tile,
};
use tintype::import::{self, Precision};
use tintype::pipeline::{Size, example};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The networks: an autoencoder of Stable Diffusion with attention, and one of convolutions alone.
const NETWORKS: [(&str, Kind); 4] = [
    ("tiny", Kind::VaeDecoder),
    ("tiny", Kind::VaeEncoder),
    ("topologies/taesd", Kind::VaeDecoder),
    ("topologies/taesd", Kind::VaeEncoder),
];
/// No multiple of any stripe.
const SIZE: Size = Size { width_px: 232, height_px: 328 };

fn open(name: &str) -> (tempfile::TempDir, Arc<Bundle>) {
    let folder = tempfile::tempdir().unwrap();
    let target: PathBuf = folder.path().join("model.tintype");
    import::import(&data(name), &target, Precision::F16, &mut |_, _| ()).unwrap();
    let bundle = Arc::new(Bundle::open(&target).unwrap());
    (folder, bundle)
}

/// The first output, what was planned, and the most bytes that were allocated.
fn run(
    bundle: &Arc<Bundle>,
    kind: Kind,
    tile: Tile,
    memory_bytes: Option<usize>,
) -> Result<(Vec<f32>, Footprint, usize), EngineError> {
    let resources = Resources { tile, memory_bytes, ..Resources::new(Threads::new(1)) };
    let mut component = Component::load(bundle, kind, &resources)?;
    let inputs: Vec<NamedTensor> = example(bundle, kind, component.inputs(), SIZE);
    let footprint = component.prepare(&inputs)?;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let outputs = component.run(&inputs)?;
    let peak = ALLOCATOR.peak_usage() - before;
    Ok((outputs.into_iter().next().unwrap().values, footprint, peak))
}

/// One test for all: the allocator counts for the whole process.
#[test]
fn stripes_give_the_whole_picture_in_the_memory_that_was_planned() {
    for (name, kind) in NETWORKS {
        let (_folder, bundle) = open(name);
        let (whole, large, peak) = run(&bundle, kind, Tile::Off, None).unwrap();
        assert_eq!(large.stripe_rows, None);
        fits(peak, large, "whole");

        for rows in [8, 20, 64, 1000] {
            let (striped, planned, peak) = run(&bundle, kind, Tile::Rows(rows), None).unwrap();
            assert_eq!(planned.stripe_rows, Some(rows));
            fits(peak, planned, &format!("{name} {kind} in {rows} rows"));
            let error = relative_l2(&striped, &whole);
            assert!(error < 1e-5, "{name} {kind} in {rows} rows: {error:e}");
        }

        let mut least = 0;
        for share in [0.6, 0.45, 0.3, 0.0] {
            let values = (large.peak_anon_bytes - BESIDE_BYTES) as f64;
            let limit = BESIDE_BYTES + (values * share) as usize;
            match run(&bundle, kind, Tile::Auto, Some(limit)) {
                Ok((striped, planned, peak)) => {
                    assert!(planned.stripe_rows.is_some() && planned.peak_anon_bytes <= limit);
                    fits(peak, planned, &format!("{name} {kind} at {share}"));
                    let error = relative_l2(&striped, &whole);
                    let bound = if planned.f16_maps { 2e-3 } else { 1e-5 };
                    println!("{name} {kind} at {share}: {planned:?} {error:e}");
                    assert!(error < bound, "{name} {kind} at {share}: {error:e}");
                }
                Err(EngineError::Memory { component, needed, available }) => {
                    assert_eq!((component, available), (kind, limit));
                    assert!(needed > limit && needed < large.peak_anon_bytes);
                    least = needed;
                }
                Err(other) => panic!("{other}"),
            }
        }
        let (_, planned, _) = run(&bundle, kind, Tile::Auto, Some(least)).unwrap();
        assert!(planned.peak_anon_bytes <= least, "what is said to be needed is enough");
    }
    features_are_held_in_the_memory_that_was_planned();
}

/// A UNet for two prompts, one after the other and both together, in steps that share their deep features.
fn features_are_held_in_the_memory_that_was_planned() {
    let bundle = Arc::new(Bundle::open(&fixture::root("models/emoji.tintype")).unwrap());
    let mut unet = Component::load(&bundle, Kind::Unet, &Resources::new(Threads::new(1))).unwrap();
    let mut features = FeatureCache::new(&mut unet, 2).unwrap();
    let size = Size { width_px: 512, height_px: 384 };
    let one = example(&bundle, Kind::Unet, unet.inputs(), size);
    let doubled = |input: &NamedTensor| {
        NamedTensor::new(&input.name, &[&[2], &input.shape[1..]].concat(), input.values.repeat(2))
    };
    let both: Vec<NamedTensor> = one.iter().map(doubled).collect();
    for (inputs, batch) in [(&one, 1), (&both, 2)] {
        let planned = features.prepare(&mut unet, inputs).unwrap();
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        for step in 0..4 {
            features.begin_step(step);
            for first in (0..2).step_by(batch) {
                features.run(&mut unet, inputs, first..first + batch).unwrap();
            }
        }
        fits(ALLOCATOR.peak_usage() - before, planned, &format!("features, {batch} at a time"));
        features.begin_step(0);
    }
}

/// What was allocated is what was planned, to a tenth and the smallest things.
fn fits(peak: usize, planned: Footprint, what: &str) {
    let values = planned.peak_anon_bytes - BESIDE_BYTES;
    println!("{what}: {peak} bytes, {values} planned");
    assert!(peak <= values + values / 10 + 200_000, "{what}: {peak} bytes, {values} planned");
    assert!(peak + 200_000 >= values - values / 10, "{what}: {peak} bytes, {values} planned");
}
