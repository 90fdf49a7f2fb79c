//! A row of bars with their numbers.

use super::canvas::{Canvas, Colour};
use super::lettering::{self, LINE_PX};

/// How high the highest bar is.
const HIGH_PX: usize = 96;
const BAR: Colour = [176, 90, 60];
const AXIS: Colour = [150, 146, 138];
const INK: Colour = [40, 38, 36];
/// Between a bar and its number.
const GAP_PX: usize = 4;
/// The least room that numbers have each.
const NUMBER_PX: usize = 48;

/// Bars from 0 to each value, the middle of the first at `middle_px` and of each other `pitch_px` further right; where bars lie
/// close, not every one has its number. A value below 0 is a number without a bar.
pub fn bars(width_px: usize, values: &[f32], middle_px: usize, pitch_px: usize) -> Canvas {
    let mut canvas = Canvas::new(width_px, LINE_PX + GAP_PX + HIGH_PX + 1);
    let bottom = LINE_PX + GAP_PX + HIGH_PX;
    let most = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let bar_px = (pitch_px * 5 / 8).clamp(1, NUMBER_PX);
    let every = NUMBER_PX.div_ceil(pitch_px.max(1));
    for (at, &value) in values.iter().enumerate() {
        let middle = middle_px + at * pitch_px;
        let high = (value.max(0.0) / most * HIGH_PX as f32).round() as usize;
        canvas.fill([middle.saturating_sub(bar_px / 2), bottom - high], [bar_px, high], BAR);
        if at.is_multiple_of(every) {
            let number = format!("{value:.3}");
            let left = middle.saturating_sub(lettering::width_px(&number) / 2);
            lettering::write(&mut canvas, [left, bottom - high - GAP_PX - LINE_PX], &number, 1, INK);
        }
    }
    let (left, last_px) = (middle_px.saturating_sub(bar_px), values.len().saturating_sub(1) * pitch_px);
    canvas.fill([left, bottom], [last_px + 2 * bar_px, 1], AXIS);
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_values() {
        let chart = bars(200, &[0.5, 1.0, -0.5], 50, 50).into_picture();
        let high = |column: usize| {
            let pixels = chart.pixels().chunks_exact(3).skip(column).step_by(200);
            pixels.filter(|pixel| *pixel == BAR).count()
        };
        assert_eq!([high(50), high(100), high(150)], [HIGH_PX / 2, HIGH_PX, 0]);
    }
}
