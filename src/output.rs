//! Finished pictures to files: PNG with the request inside, written whole or not at all.
//!
//! Two texts travel in a picture: `parameters`, the line that A1111's web UI and its many readers know, and
//! `tintype`, a JSON object with everything that makes the same picture again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::tensor::Rgb8;

/// The keyword of the A1111 text.
pub const PARAMETERS: &str = "parameters";
/// The keyword of the manifest.
pub const MANIFEST: &str = "tintype";

/// Everything that makes a picture again, with the same model on the same kind of machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of Tintype that made it.
    pub version: String,
    /// The kind of pipeline.
    pub pipeline: String,
    /// The model's name.
    pub model: String,
    /// The model's hash: it names every byte of the bundle.
    pub model_hash: String,
    /// What was to be drawn.
    pub prompt: String,
    /// What was to be avoided.
    pub negative: String,
    /// The seed of this picture.
    pub seed: u64,
    /// Steps of the sampler.
    pub steps: usize,
    /// The guidance scale.
    pub guidance: f32,
    /// The sampler.
    pub sampler: String,
    /// The share of fresh noise per step.
    pub eta: f32,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Whether the initial noise was given, and so is not the seed's: such a picture needs it to be made again.
    pub latents_given: bool,
}

/// Why a picture was not written. There is then no file, or the one that was there before.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder is not there, or nothing can be made in it.
    #[error("cannot write to the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder stands where the file is to be.
    #[error("{} is a folder: give the name of a file", path.display())]
    IsFolder {
        /// The path.
        path: PathBuf,
    },
    /// The disk is full, or a quota used up.
    #[error("no space for {}: free some or choose another folder", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Writing failed otherwise.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Checks that a file can be made at `path`, before the work whose result goes there.
///
/// # Errors
/// - [`OutputError::IsFolder`] if there is a folder.
/// - [`OutputError::Folder`] if its folder is missing or cannot be written to.
pub fn check(path: &Path) -> Result<(), OutputError> {
    if path.is_dir() {
        return Err(OutputError::IsFolder { path: path.to_owned() });
    }
    let folder = folder(path);
    NamedTempFile::new_in(folder)
        .map(drop)
        .map_err(|source| OutputError::Folder { path: folder.to_owned(), source })
}

/// Writes a picture as PNG; returns the SHA-256 of the file in hexadecimal.
///
/// # Errors
/// [`OutputError::DiskFull`], [`OutputError::Write`].
pub fn write_png(path: &Path, picture: &Rgb8, manifest: &Manifest) -> Result<String, OutputError> {
    let bytes = encode(picture, manifest).map_err(|source| failed(path, source))?;
    write_atomically(path, &bytes)?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that appears whole or not at all, also if the power fails.
///
/// # Errors
/// [`OutputError::DiskFull`], [`OutputError::Write`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let write = || {
        let mut file = NamedTempFile::new_in(folder(path))?;
        file.write_all(bytes)?;
        share(file.as_file())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(folder(path))?.sync_all()
    };
    write().map_err(|source| failed(path, source))
}

/// Temporary files are private; a picture is as readable as any other new file.
fn share(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, source: io::Error) -> OutputError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OutputError::DiskFull { path },
        _ => OutputError::Write { path, source },
    }
}

fn encode(picture: &Rgb8, manifest: &Manifest) -> io::Result<Vec<u8>> {
    let side = |px: usize| u32::try_from(px).map_err(io::Error::other);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(picture.width_px())?, side(picture.height_px())?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    add_text(&mut encoder, PARAMETERS, parameters(manifest))?;
    add_text(&mut encoder, MANIFEST, serde_json::to_string(manifest)?)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.pixels())?;
    writer.finish()?;
    Ok(bytes)
}

/// `tEXt` holds Latin-1 only; anything else goes into `iTXt`.
fn add_text<W: Write>(encoder: &mut png::Encoder<W>, keyword: &str, text: String) -> io::Result<()> {
    let added = if text.chars().all(|c| (c as u32) < 256) {
        encoder.add_text_chunk(keyword.into(), text)
    } else {
        encoder.add_itxt_chunk(keyword.into(), text)
    };
    Ok(added?)
}

/// The text that A1111's web UI writes and reads.
fn parameters(manifest: &Manifest) -> String {
    let Manifest { prompt, negative, steps, guidance, seed, width, height, model, model_hash, .. } = manifest;
    let mut text = format!("{prompt}\n");
    if !negative.is_empty() {
        text += &format!("Negative prompt: {negative}\n");
    }
    let (sampler, model) = (quoted(&manifest.sampler.to_uppercase()), quoted(model));
    text += &format!("Steps: {steps}, Sampler: {sampler}, CFG scale: {guidance}, Seed: {seed}, ");
    text + &format!("Size: {width}x{height}, Model hash: {model_hash}, Model: {model}")
}

/// A value that its readers would cut at a comma, colon or new line is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            version: "0.1.0".into(),
            pipeline: "stable-diffusion".into(),
            model: "emoji: one, two".into(),
            model_hash: "00ff".into(),
            prompt: "딸기".into(),
            negative: "blur".into(),
            seed: u64::MAX,
            steps: 8,
            guidance: 2.5,
            sampler: "ddim".into(),
            eta: 0.0,
            width: 2,
            height: 1,
            latents_given: false,
        }
    }

    #[test]
    fn a_picture_carries_its_request() {
        let picture = Rgb8::new(vec![1, 2, 3, 4, 5, 6], 2, 1).unwrap();
        let bytes = encode(&picture, &manifest()).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.pixels());
        let texts = &reader.info().utf8_text;
        let text = |keyword| texts.iter().find(|t| t.keyword == keyword).unwrap().get_text().unwrap();
        assert_eq!(
            text(PARAMETERS),
            "딸기\nNegative prompt: blur\nSteps: 8, Sampler: DDIM, CFG scale: 2.5, \
             Seed: 18446744073709551615, Size: 2x1, Model hash: 00ff, Model: \"emoji: one, two\""
        );
        assert_eq!(serde_json::from_str::<Manifest>(&text(MANIFEST)).unwrap(), manifest());
    }

    #[test]
    fn a_file_is_replaced_whole_or_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(check(folder.path()), Err(OutputError::IsFolder { .. })));
        let nowhere = folder.path().join("no/such/a.png");
        assert!(matches!(check(&nowhere), Err(OutputError::Folder { .. })));
        assert!(matches!(write_atomically(&nowhere, b"x"), Err(OutputError::Write { .. })));
    }
}
