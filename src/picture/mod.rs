//! Pictures that come in: a file decoded within limits, upright and in 8 bits RGB, and a picture brought to a size.
//!
//! Transparency is dropped and what lies below it shows, as Pillow's `convert("RGB")` does; the orientation that a camera
//! noted is applied.

mod resample;

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

pub use resample::{Filter, cover, resize};

use crate::tensor::Rgb8;

/// The largest side of a picture that is decoded.
const SIDE_MAX_PX: u32 = 16384;
/// The most memory that decoding may take.
const DECODE_MAX_BYTES: u64 = 512 << 20;

/// Why a file is not taken as a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The kind of file is not known.
    #[error("this is no picture of a kind that can be read: PNG, JPEG, WebP or BMP")]
    Kind,
    /// The file holds a sequence of pictures.
    #[error("this is an animation: save one of its pictures by itself")]
    Animated,
    /// A side that is too long, or more pixels than there may be.
    #[error(
        "the picture is too large: a side may have {SIDE_MAX_PX} px, and decoding may take {} MB",
        DECODE_MAX_BYTES >> 20
    )]
    TooLarge,
    /// The file is damaged, or uses what its format allows and the decoder does not know.
    #[error("cannot decode the picture")]
    Decode(#[source] ImageError),
    /// The file ends before the picture does.
    #[error("the picture is incomplete: its file ends too early")]
    Incomplete,
    /// The picture has no pixels.
    #[error("the picture has no pixels")]
    Empty,
}

impl From<ImageError> for PictureError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            error => Self::Decode(error),
        }
    }
}

/// Decodes a picture file.
///
/// # Errors
/// [`PictureError`].
pub fn read(file: &[u8]) -> Result<Rgb8, PictureError> {
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|_| PictureError::Kind)?;
    let format = reader.format().filter(ImageFormat::reading_enabled).ok_or(PictureError::Kind)?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX_PX), Some(SIDE_MAX_PX));
    limits.max_alloc = Some(DECODE_MAX_BYTES);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    limits.reserve(decoder.total_bytes())?;
    if is_animated(format, file)? {
        return Err(PictureError::Animated);
    }
    if format == ImageFormat::Jpeg && !is_whole_jpeg(file) {
        return Err(PictureError::Incomplete);
    }
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Rgb8::new(picture.into_rgb8().into_raw(), width, height).map_err(|_| PictureError::Empty)
}

fn is_animated(format: ImageFormat, file: &[u8]) -> Result<bool, ImageError> {
    match format {
        ImageFormat::Png => PngDecoder::new(Cursor::new(file))?.is_apng(),
        ImageFormat::WebP => Ok(WebPDecoder::new(Cursor::new(file))?.has_animation()),
        _ => Ok(false),
    }
}

/// Whether the last scan of a JPEG file is followed by the end of the picture, which the decoder does without.
fn is_whole_jpeg(file: &[u8]) -> bool {
    const SCAN: [u8; 2] = [0xff, 0xda];
    const END: [u8; 2] = [0xff, 0xd9];
    let scan = file.windows(2).rposition(|pair| pair == SCAN);
    scan.is_some_and(|at| file[at..].windows(2).any(|pair| pair == END))
}

/// How bright a pixel is, 0 to 255.
///
/// Source: ITU-R BT.601, in 16 bits as Pillow's `convert("L")` has it.
pub fn luma(pixel: [u8; 3]) -> u8 {
    let [r, g, b] = pixel.map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + (1 << 15)) >> 16) as u8
}
