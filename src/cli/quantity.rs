//! Flags that are a number and a unit.

use std::str::FromStr;

use crate::engine::Tile;

/// An amount of memory, in bytes: `300M`, `300MB`, `256MiB`, `0.5G`, `200000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize(pub usize);

/// `--tile`: `auto`, `off`, rows of the picture, or `blend:` and the side of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileArg(pub Tile);

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no amount of memory: write it as 300M, 256MiB or 0.5G");
        let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(refused()),
        };
        let bytes = number.trim().parse::<f64>().map_err(|_| refused())? * factor;
        if (1.0..=1e15).contains(&bytes) { Ok(Self(bytes as usize)) } else { Err(refused()) }
    }
}

impl FromStr for TileArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let blended = text.strip_prefix("blend:");
        let pixels = blended.unwrap_or(text).parse().ok().filter(|pixels| (1..=65536).contains(pixels));
        match (text, blended, pixels) {
            ("auto", ..) => Ok(Self(Tile::Auto)),
            ("off", ..) => Ok(Self(Tile::Off)),
            (_, None, Some(rows)) => Ok(Self(Tile::Rows(rows))),
            (_, Some(_), Some(side)) => Ok(Self(Tile::Blend(side))),
            _ => Err(format!("`{text}` is not auto, off or a number of pixels from 1 to 65536, or blend:PX")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_their_unit() {
        let of = |text: &str| text.parse::<MemorySize>().map(|size| size.0);
        assert_eq!(of("300M"), Ok(300_000_000));
        assert_eq!(of("300 mb"), Ok(300_000_000));
        assert_eq!(of("256MiB"), Ok(256 << 20));
        assert_eq!(of("0.5G"), Ok(500_000_000));
        assert_eq!(of("4096"), Ok(4096));
        for wrong in ["", "M", "-1M", "nanM", "infG", "3T", "1e30", "0", "3MBs"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tiles_are_words_or_rows() {
        assert_eq!("auto".parse(), Ok(TileArg(Tile::Auto)));
        assert_eq!("off".parse(), Ok(TileArg(Tile::Off)));
        assert_eq!("64".parse(), Ok(TileArg(Tile::Rows(64))));
        assert_eq!("blend:256".parse(), Ok(TileArg(Tile::Blend(256))));
        for wrong in ["", "0", "-3", "64px", "70000", "blend", "blend:", "blend:0"] {
            assert!(wrong.parse::<TileArg>().is_err(), "{wrong}");
        }
    }
}
