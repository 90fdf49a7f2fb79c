//! An explanation as one picture: what happens in a run, from top to bottom.
//!
//! ```text
//! the prompt, and how it was drawn
//! 1  the finished picture, and the same under more and more noise
//! 2  what the network predicts, step by step
//! 3  the picture under the map of each word
//! 4  CLIP's similarity of each prediction to the prompt, as bars
//! ```
//! A model that reads no words has the first two.
//!
//! Pictures stand in rows of cells, each with a caption; a section is a canvas as wide as the sheet, and the sheet is all of
//! them one below the other.

mod canvas;
mod chart;
mod heat;
mod lettering;

use canvas::{Canvas, Colour};
use lettering::LINE_PX;

use crate::picture::{Filter, cover};
use crate::pipeline::{AttentionMap, Explanation, Predicted};
use crate::tensor::Rgb8;

/// The longest side of a picture on a sheet; larger ones are scaled down, and of small ones each pixel becomes a square.
pub const CELL_PX: usize = 128;
/// Cells in a row.
const COLUMNS: usize = 8;
/// Between cells, and between sections.
const GAP_PX: usize = 16;
/// Around everything.
const MARGIN_PX: usize = 32;
/// The width of a sheet.
pub const WIDTH_PX: usize = 2 * MARGIN_PX + COLUMNS * CELL_PX + (COLUMNS - 1) * GAP_PX;
/// The width of what is inside the margins.
const ROOM_PX: usize = WIDTH_PX - 2 * MARGIN_PX;
/// Between lines of text.
const LEADING_PX: usize = 4;

const INK: Colour = [40, 38, 36];
const FAINT: Colour = [100, 96, 90];

/// A picture and the lines below it.
struct Cell {
    picture: Rgb8,
    caption: Vec<String>,
}

/// Draws the sheet. `subtitle` says how the picture was drawn.
pub fn draw(prompt: &str, subtitle: &str, explanation: &Explanation) -> Rgb8 {
    let mut parts = vec![title(prompt, subtitle)];
    parts.extend(training(explanation));
    parts.extend(drawing(explanation));
    if let Some(words) = &explanation.words {
        parts.extend(attention(&explanation.image.pixels, words));
        parts.extend(likeness(&explanation.trajectory));
    }
    parts.push(Canvas::new(WIDTH_PX, MARGIN_PX));
    Canvas::stacked(WIDTH_PX, &parts).into_picture()
}

fn training(Explanation { image, noised, words, .. }: &Explanation) -> [Canvas; 2] {
    let first = cell(&image.pixels, ["finished".into()]);
    let noised = noised.iter().map(|noised| cell(&noised.pixels, [format!("t = {}", noised.timestep)]));
    let about = "The finished picture, and how training would have shown it at five timesteps t: under more and more noise";
    [
        heading("1  Training: noise over a picture", &format!("{about}{}.", decoded(words))),
        grid(std::iter::once(first).chain(noised).collect()),
    ]
}

fn drawing(Explanation { trajectory, words, .. }: &Explanation) -> [Canvas; 2] {
    let predicted = trajectory.iter().enumerate().map(|(at, predicted)| {
        cell(&predicted.pixels, [format!("step {}", at + 1), format!("t = {}", timestep(predicted.timestep))])
    });
    let decoded = decoded(words);
    [
        heading(
            "2  Drawing: from noise to a picture",
            &format!(
                "The clean picture that the network predicts in each step (x0){decoded}. Each step goes a part of the way there."
            ),
        ),
        grid(predicted.collect()),
    ]
}

/// Models that read words work on latents, so what is shown of them has been through their decoder.
fn decoded<T>(words: &Option<T>) -> &'static str {
    if words.is_some() { ", decoded" } else { "" }
}

fn attention(picture: &Rgb8, words: &[(String, AttentionMap)]) -> [Canvas; 2] {
    let picture = scaled(picture);
    let over =
        |(word, map): &(String, _)| Cell { picture: heat::over(&picture, map), caption: vec![word.clone()] };
    [
        heading(
            "3  Words: where each of them acts",
            "Cross-attention, the mean of all steps, layers and heads: bright is where the picture reads most of a word. Each map \
             has a scale of its own.",
        ),
        match words.is_empty() {
            true => note("The prompt has no words."),
            false => grid(words.iter().map(over).collect()),
        },
    ]
}

fn likeness(trajectory: &[Predicted]) -> [Canvas; 2] {
    let similarities: Option<Vec<f32>> = trajectory.iter().map(|predicted| predicted.similarity).collect();
    [
        heading(
            "4  Likeness: what CLIP finds of each prediction",
            "The cosine of its embedding to that of the prompt.",
        ),
        match similarities {
            Some(similarities) => bars(&similarities),
            None => note(
                "This model has no image encoder of CLIP's, so nothing says how like the prompt they are.",
            ),
        },
    ]
}

/// A timestep, which is mostly a whole number.
fn timestep(t: f32) -> String {
    if t.fract() == 0.0 { format!("{t}") } else { format!("{t:.1}") }
}

fn title(prompt: &str, subtitle: &str) -> Canvas {
    const SCALE: usize = 2;
    let lines = lettering::wrapped(prompt, ROOM_PX / SCALE);
    let below = MARGIN_PX + lines.len() * (SCALE * LINE_PX + LEADING_PX);
    let mut canvas = Canvas::new(WIDTH_PX, below + LINE_PX);
    for (at, line) in lines.iter().enumerate() {
        let y = MARGIN_PX + at * (SCALE * LINE_PX + LEADING_PX);
        lettering::write(&mut canvas, [MARGIN_PX, y], line, SCALE, INK);
    }
    let subtitle = lettering::fitted(subtitle, ROOM_PX);
    lettering::write(&mut canvas, [MARGIN_PX, below], &subtitle, 1, FAINT);
    canvas
}

/// The heading of a section, bold, and what it is about.
fn heading(heading: &str, about: &str) -> Canvas {
    let text = note(about);
    let mut canvas = Canvas::new(WIDTH_PX, 2 * GAP_PX + LINE_PX + LEADING_PX);
    for x in [MARGIN_PX, MARGIN_PX + 1] {
        lettering::write(&mut canvas, [x, 2 * GAP_PX], heading, 1, INK);
    }
    Canvas::stacked(WIDTH_PX, &[canvas, text])
}

/// Lines of text, and a gap.
fn note(text: &str) -> Canvas {
    let lines = lettering::wrapped(text, ROOM_PX);
    let mut canvas = Canvas::new(WIDTH_PX, lines.len() * (LINE_PX + LEADING_PX) + GAP_PX / 2);
    for (at, line) in lines.iter().enumerate() {
        lettering::write(&mut canvas, [MARGIN_PX, at * (LINE_PX + LEADING_PX)], line, 1, FAINT);
    }
    canvas
}

/// A cell for a picture of any size.
fn cell(picture: &Rgb8, caption: impl Into<Vec<String>>) -> Cell {
    Cell { picture: scaled(picture), caption: caption.into() }
}

/// The picture, as large as it can be with no side longer than a cell.
fn scaled(picture: &Rgb8) -> Rgb8 {
    let sides = [picture.width_px(), picture.height_px()];
    let longest = sides[0].max(sides[1]);
    if longest <= CELL_PX {
        return picture.enlarged(CELL_PX / longest).into_owned();
    }
    let [width, height] = sides.map(|side| (side * CELL_PX / longest).max(1));
    cover(picture, width, height, Filter::Lanczos)
}

/// Where a column begins.
fn column_px(at: usize) -> usize {
    MARGIN_PX + at * (CELL_PX + GAP_PX)
}

/// Cells in rows, their captions below their middles.
fn grid(cells: Vec<Cell>) -> Canvas {
    let high = |of: &dyn Fn(&Cell) -> usize| cells.iter().map(of).max().unwrap_or(0);
    let picture_px = high(&|cell| cell.picture.height_px());
    let pitch_px = picture_px + LEADING_PX + high(&|cell| cell.caption.len()) * LINE_PX + GAP_PX;
    let rows = cells.len().div_ceil(COLUMNS);
    let mut canvas = Canvas::new(WIDTH_PX, (rows * pitch_px).saturating_sub(GAP_PX));
    for (at, Cell { picture, caption }) in cells.iter().enumerate() {
        let [left, top] = [column_px(at % COLUMNS), at / COLUMNS * pitch_px];
        let middle = |width: usize| left + (CELL_PX - width.min(CELL_PX)) / 2;
        canvas.put([middle(picture.width_px()), top], picture);
        for (line, text) in caption.iter().enumerate() {
            let text = lettering::fitted(text, CELL_PX);
            let y = top + picture_px + LEADING_PX + line * LINE_PX;
            lettering::write(&mut canvas, [middle(lettering::width_px(&text)), y], &text, 1, INK);
        }
    }
    canvas
}

/// A bar for each step, below its picture where all of these stand in one row.
fn bars(values: &[f32]) -> Canvas {
    let pitch_px = if values.len() <= COLUMNS { CELL_PX + GAP_PX } else { ROOM_PX / values.len() };
    let middle_px =
        if values.len() <= COLUMNS { column_px(0) + CELL_PX / 2 } else { MARGIN_PX + pitch_px / 2 };
    chart::bars(WIDTH_PX, values, middle_px, pitch_px)
}
