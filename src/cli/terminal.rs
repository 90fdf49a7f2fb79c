//! Pictures on a terminal, in the three ways that terminals know.
//!
//! Sources: the graphics protocol of kitty; iTerm2's inline images; sixel graphics of the VT340 programmer's reference, chapter 14.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::output::encode_png;
use crate::picture::{Filter, cover};
use crate::tensor::Rgb8;

/// Rows of the terminal that a picture takes.
pub const ROWS: usize = 16;
/// The most bytes of base64 in one of kitty's sequences.
const CHUNK: usize = 4096;
/// The height of a sixel picture: rows are at least so many pixels high.
const SIXEL_PX: usize = ROWS * 12;
/// Shades of each colour in a sixel picture.
const SHADES: usize = 6;

/// How a terminal is shown pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// kitty, ghostty.
    Kitty,
    /// iTerm2, WezTerm.
    ITerm,
    /// foot, mlterm, contour and others.
    Sixel,
}

impl Protocol {
    /// The way of the terminal on standard error, by the variables that it sets; `None` if it is none, or not known.
    pub fn detect() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        io::stderr().is_terminal().then(|| Self::of(&variable)).flatten()
    }

    fn of(variable: &dyn Fn(&str) -> String) -> Option<Self> {
        let (term, program) = (variable("TERM"), variable("TERM_PROGRAM"));
        // These two pass no pictures on to the terminal that they run in.
        if !variable("TMUX").is_empty() || term.starts_with("screen") {
            return None;
        }
        let kitty =
            ["xterm-kitty", "xterm-ghostty"].contains(&&term[..]) || !variable("KITTY_WINDOW_ID").is_empty();
        let iterm = ["iTerm.app", "WezTerm"].contains(&&program[..]) || variable("LC_TERMINAL") == "iTerm2";
        let sixel = ["foot", "mlterm", "contour", "yaft", "sixel"].iter().any(|name| term.contains(name));
        match () {
            () if kitty => Some(Self::Kitty),
            () if iterm => Some(Self::ITerm),
            () if sixel => Some(Self::Sixel),
            () => None,
        }
    }

    /// What to write to show a picture in the [`ROWS`] above the cursor, which stays where it is.
    ///
    /// # Errors
    /// If a side is longer than PNG can say.
    pub fn picture(self, picture: &Rgb8) -> io::Result<String> {
        let drawn = match self {
            Self::Kitty => kitty(&encode_png(picture, &[])?),
            Self::ITerm => iterm(&encode_png(picture, &[])?),
            Self::Sixel => {
                let width = (picture.width_px() * SIXEL_PX).div_ceil(picture.height_px());
                sixel(&cover(picture, width, SIXEL_PX, Filter::Bicubic))
            }
        };
        Ok(format!("\x1b7\x1b[{ROWS}A\r{drawn}\x1b8"))
    }
}

/// The picture takes the place of the one before it, which has the same number.
fn kitty(png: &[u8]) -> String {
    let text = BASE64.encode(png);
    let chunks = text.as_bytes().chunks(CHUNK);
    let last = chunks.len() - 1;
    let mut out = String::new();
    for (at, chunk) in chunks.enumerate() {
        let head = if at == 0 { format!("a=T,f=100,i=1,p=1,q=2,r={ROWS},") } else { String::new() };
        let chunk = std::str::from_utf8(chunk).expect("base64 is ASCII");
        _ = write!(out, "\x1b_G{head}m={};{chunk}\x1b\\", u8::from(at < last));
    }
    out
}

fn iterm(png: &[u8]) -> String {
    let (size, text) = (png.len(), BASE64.encode(png));
    format!("\x1b]1337;File=inline=1;size={size};height={ROWS};preserveAspectRatio=1:{text}\x07")
}

/// In a cube of colours; bands of six rows, and in a band one line for each colour that it has.
fn sixel(picture: &Rgb8) -> String {
    const BAND: usize = 6;
    let shade = |byte: u8| (usize::from(byte) * (SHADES - 1) + 127) / 255;
    let colour = |pixel: &[u8]| (shade(pixel[0]) * SHADES + shade(pixel[1])) * SHADES + shade(pixel[2]);
    let colours: Vec<usize> = picture.pixels().chunks_exact(3).map(colour).collect();
    let mut out = "\x1bPq".to_owned();
    for number in 0..SHADES.pow(3) {
        let percent = |shade: usize| shade * 100 / (SHADES - 1);
        let (r, g, b) = (number / SHADES / SHADES, number / SHADES % SHADES, number % SHADES);
        _ = write!(out, "#{number};2;{};{};{}", percent(r), percent(g), percent(b));
    }
    let width = picture.width_px();
    for band in colours.chunks(width * BAND) {
        let mut present: Vec<usize> = band.to_vec();
        present.sort_unstable();
        present.dedup();
        for number in present {
            _ = write!(out, "#{number}");
            for x in 0..width {
                let rows = band.chunks_exact(width).enumerate();
                let bits = rows.map(|(y, row)| u8::from(row[x] == number) << y).sum::<u8>();
                out.push(char::from(b'?' + bits));
            }
            out.push('$');
        }
        out.push('-');
    }
    out + "\x1b\\"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Rgb8 {
        Rgb8::new((0..8 * 8 * 3).map(|at| at as u8).collect(), 8, 8).unwrap()
    }

    fn of(variables: &[(&str, &str)]) -> Option<Protocol> {
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Protocol::of(&|name| value(name).unwrap_or_default())
    }

    #[test]
    fn terminals_are_known_by_their_variables() {
        assert_eq!(of(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")]), Some(Protocol::ITerm));
        assert_eq!(of(&[("TERM", "foot")]), Some(Protocol::Sixel));
        for plain in [&[("TERM", "xterm-256color")][..], &[("TERM", "xterm-kitty"), ("TMUX", "1")], &[]] {
            assert_eq!(of(plain), None);
        }
    }

    #[test]
    fn kitty_is_sent_a_png_in_chunks() {
        let png: Vec<u8> = (0..10_000).map(|at| at as u8).collect();
        let sequence = kitty(&png);
        let parts: Vec<&str> = sequence.split("\x1b\\").filter(|part| !part.is_empty()).collect();
        assert_eq!(parts.len(), 4);
        assert!(parts[0].starts_with("\x1b_Ga=T,f=100,") && parts[0].contains(",m=1;"));
        assert!(parts[3].starts_with("\x1b_Gm=0;"));
        let text: String = parts.iter().map(|part| part.split_once(';').unwrap().1).collect();
        assert!(parts.iter().all(|part| part.split_once(';').unwrap().1.len() <= CHUNK));
        assert_eq!(BASE64.decode(text).unwrap(), png);
    }

    #[test]
    fn iterm_is_sent_a_png_whole() {
        let sequence = Protocol::ITerm.picture(&picture()).unwrap();
        let inner = sequence.split_once("\x1b]1337;File=").unwrap().1.split_once('\x07').unwrap().0;
        let (keys, text) = inner.split_once(':').unwrap();
        let png = BASE64.decode(text).unwrap();
        assert!(keys.contains("inline=1") && keys.contains(&format!("size={}", png.len())));
        assert_eq!(crate::picture::read(&png).unwrap(), picture());
    }

    #[test]
    fn sixels_paint_every_pixel_once_in_its_colour() {
        let black_and_red = Rgb8::new([[0, 0, 0], [255, 0, 0]].concat().repeat(7), 2, 7).unwrap();
        let sequence = sixel(&black_and_red);
        let bands = sequence.rsplit_once("100;100;100").unwrap().1;
        // Colours 0 and 180; bits 1 to 32 are the rows of a band: 63 + 63 is all six, 63 + 1 the seventh row alone.
        assert_eq!(bands, "#0~?$#180?~$-#0@?$#180?@$-\x1b\\");
    }
}
