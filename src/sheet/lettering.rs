//! Lettering in GNU Unifont: 16 pixels high, 8 or 16 wide, all of Latin and Hangul and most else.

use unifont::{Glyph, get_glyph};

use super::canvas::{Canvas, Colour};

/// The height of a line.
pub const LINE_PX: usize = 16;
/// What ends a text that was cut.
const CUT: char = '…';

/// How wide a text is.
pub fn width_px(text: &str) -> usize {
    text.chars().map(advance_px).sum()
}

/// As much of a text as fits.
pub fn fitted(text: &str, room_px: usize) -> String {
    if width_px(text) <= room_px {
        return text.to_owned();
    }
    let mut left_px = room_px.saturating_sub(advance_px(CUT));
    let fits = |c: &char| {
        let rest = left_px.checked_sub(advance_px(*c));
        left_px = rest.unwrap_or(0);
        rest.is_some()
    };
    text.chars().take_while(fits).chain([CUT]).collect()
}

/// A text in lines, cut between words; a word that is longer than a line is shortened.
pub fn wrapped(text: &str, room_px: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width_px(line) + width_px(" ") + width_px(word) <= room_px => {
                line.extend([" ", word]);
            }
            _ => lines.push(fitted(word, room_px)),
        }
    }
    lines
}

/// Writes a line, each of its pixels as a square of `scale`.
pub fn write(canvas: &mut Canvas, [x, y]: [usize; 2], text: &str, scale: usize, colour: Colour) {
    let mut left = x;
    for c in text.chars() {
        for at in 0..LINE_PX * advance_px(c) {
            let (row, column) = (at / advance_px(c), at % advance_px(c));
            if is_inked(c, row, column) {
                canvas.fill([left + column * scale, y + row * scale], [scale; 2], colour);
            }
        }
        left += advance_px(c) * scale;
    }
}

fn glyph(c: char) -> Option<&'static Glyph> {
    if c.is_whitespace() || c.is_control() { get_glyph(' ') } else { get_glyph(c) }
}

fn advance_px(c: char) -> usize {
    glyph(c).map_or(LINE_PX, Glyph::get_width)
}

/// What there is no glyph for is a box.
fn is_inked(c: char, row: usize, column: usize) -> bool {
    let is_edge = |at: usize| at == 2 || at == LINE_PX - 3;
    let is_within = |at: usize| (2..LINE_PX - 2).contains(&at);
    match glyph(c) {
        Some(glyph) => glyph.get_pixel(column, row),
        None => is_within(row) && is_within(column) && (is_edge(row) || is_edge(column)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(width_px("a딸기"), 8 + 16 + 16);
        assert_eq!(fitted("strawberry", 80), "strawberry");
        assert_eq!(fitted("strawberry", 79), "strawber…");
        assert_eq!(fitted("딸기", 31), "딸…");
        assert_eq!(wrapped("a red  box strawberry", 56), ["a red", "box", "strawb…"]);
    }

    #[test]
    fn every_character_is_drawn_somehow() {
        for c in ['A', 'é', '딸', '🍓', '\u{10ffff}', '\u{ffff}', '\n', '\0', '\u{301}'] {
            let mut canvas = Canvas::new(32, 16);
            write(&mut canvas, [0, 0], &c.to_string(), 1, [0; 3]);
            let inked = canvas.into_picture().pixels().contains(&0);
            assert_eq!(inked, !c.is_control(), "{c:?}");
        }
    }
}
