//! Maps as colours over a picture.

use crate::picture::luma;
use crate::pipeline::AttentionMap;
use crate::tensor::Rgb8;

/// From the least of a map to its most.
const COLOURS: [[f32; 3]; 5] = [
    [20.0, 12.0, 60.0],
    [110.0, 25.0, 110.0],
    [205.0, 65.0, 75.0],
    [250.0, 150.0, 40.0],
    [252.0, 250.0, 170.0],
];
/// How much of the picture is seen through the colours.
const SEEN: f32 = 0.35;

/// The picture in grey under the colours of a map, of which the least and the most are the ends of the scale.
pub fn over(picture: &Rgb8, map: &AttentionMap) -> Rgb8 {
    let map = map.resized([picture.height_px(), picture.width_px()]);
    let least = map.values().iter().copied().fold(f32::INFINITY, f32::min);
    let range = (map.peak().0 - least).max(f32::MIN_POSITIVE);
    let pixels = picture.pixels().chunks_exact(3).zip(map.values()).flat_map(|(pixel, value)| {
        let grey = f32::from(luma([pixel[0], pixel[1], pixel[2]]));
        colour((value - least) / range).map(|x| (SEEN * grey + (1.0 - SEEN) * x).round() as u8)
    });
    Rgb8::new(pixels.collect(), picture.width_px(), picture.height_px()).expect("as many pixels as before")
}

/// The colour of a share, 0 to 1.
fn colour(share: f32) -> [f32; 3] {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let at = (place as usize).min(COLOURS.len() - 2);
    let further = place - at as f32;
    std::array::from_fn(|c| COLOURS[at][c] + further * (COLOURS[at + 1][c] - COLOURS[at][c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_runs_from_its_first_colour_to_its_last() {
        assert_eq!([colour(0.0), colour(1.0), colour(2.0)], [COLOURS[0], COLOURS[4], COLOURS[4]]);
        assert_eq!(colour(0.125), [65.0, 18.5, 85.0]);
    }
}
