//! Picture files that come in, against Pillow, and what diffusers' and transformers' processors make of them.

mod fixture;

use std::io::Cursor;

use fixture::{data, npz};
use serde_json::Value;
use tintype::clip::Preprocessor;
use tintype::picture::{self, Filter, PictureError, cover};
use tintype::tensor::Rgb8;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(data("pictures").join(name)).unwrap()
}

fn read(name: &str) -> Rgb8 {
    picture::read(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// How far decoders of a format may be from each other, of 255.
fn tolerance(name: &str) -> f32 {
    if name.ends_with(".jpg") { 3.0 } else { 0.0 }
}

#[test]
fn files_are_read_and_resized_as_by_pillow() {
    let golden: Value = serde_json::from_slice(&file("pictures.json")).unwrap();
    let reference = npz(&data("pictures/pictures.npz"));
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 15);
    for (at, case) in cases.iter().enumerate() {
        let (name, want) = (case["file"].as_str().unwrap(), &reference[&format!("case.{at}")]);
        let picture = read(name);
        if case["clip"].is_object() {
            let clip = Preprocessor::from_json(case["clip"].to_string().as_bytes()).unwrap();
            let got = clip.prepare(&picture);
            let off = got.iter().zip(&want.values).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
            assert!(got.len() == want.values.len() && off < 1e-6, "{name}: CLIP's values are off by {off}");
            continue;
        }
        let sides = case["size"].as_array().map(|size| [0, 1].map(|i| size[i].as_u64().unwrap() as usize));
        let picture = match sides {
            Some([width, height]) => cover(&picture, width, height, Filter::Lanczos),
            None => picture,
        };
        assert_eq!([picture.height_px(), picture.width_px(), 3], want.shape[..], "{name}");
        let pairs = picture.pixels().iter().zip(&want.values);
        let off = pairs.map(|(&g, w)| (f32::from(g) - w).abs()).fold(0.0, f32::max);
        assert!(off <= tolerance(name), "{name} {sides:?}: off by {off}");
    }
}

#[test]
fn sixteen_bits_are_rounded_to_eight() {
    let deep = read("deep.png");
    let grey: Vec<u8> = deep.pixels().iter().step_by(3).copied().collect();
    assert_eq!(grey, (0..=255).collect::<Vec<u8>>());
    assert!(
        deep.pixels().as_chunks::<3>().0.iter().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2])
    );
}

/// A PNG file that says that it is so large, and where its pixels begin.
fn claims(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &[])].concat()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

#[test]
fn files_that_are_not_taken() {
    let refuse = |bytes: &[u8]| picture::read(bytes).unwrap_err();
    assert!(matches!(refuse(b""), PictureError::Kind));
    assert!(matches!(refuse(b"GIF89a\x01\0\x01\0\0\0\0"), PictureError::Kind));
    assert!(matches!(refuse(&[0x55; 100]), PictureError::Kind));
    assert!(matches!(refuse(&file("animated.png")), PictureError::Animated));
    assert!(matches!(refuse(&file("animated.webp")), PictureError::Animated));
    for name in ["wide.png", "turned.jpg", "lossless.webp", "small.bmp"] {
        let whole = file(name);
        for len in [12, 40, whole.len() / 2] {
            let error = refuse(&whole[..len]);
            let is_cut = matches!(error, PictureError::Decode(_) | PictureError::Incomplete);
            assert!(is_cut, "{name}, {len} bytes: {error}");
        }
    }
    assert!(matches!(refuse(&claims(100_000, 2)), PictureError::TooLarge));
    assert!(matches!(refuse(&claims(2, 100_000)), PictureError::TooLarge));
    assert!(matches!(refuse(&claims(16_384, 16_384)), PictureError::TooLarge), "800 MB of pixels");
    assert!(matches!(refuse(&claims(0, 4)), PictureError::Decode(_)));
}

#[test]
fn a_file_that_unpacks_without_end_takes_no_more_than_its_pixels() {
    // Pixels for a picture of 1 x 1, and 64 MB of zeros behind them.
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 64 << 20), &mut encoder).unwrap();
    let data = encoder.finish().unwrap();
    let bomb = [claims(1, 1), chunk(b"IDAT", &data), chunk(b"IEND", &[])].concat();
    match picture::read(&bomb) {
        Ok(picture) => assert_eq!(picture.pixels(), [0, 0, 0]),
        Err(error) => assert!(matches!(error, PictureError::Decode(_)), "{error}"),
    }
    assert!(png::Decoder::new(Cursor::new(&bomb)).read_info().is_ok());
}
