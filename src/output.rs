//! Finished pictures to files: PNG with texts inside, written whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::tensor::Rgb8;

/// What the texts of a picture may take while they are read.
const TEXTS_MAX_BYTES: usize = 16 << 20;

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

/// A keyword and its text.
pub type Text = (&'static str, String);

/// Writes a picture as PNG with these texts inside; returns the SHA-256 of the file in hexadecimal.
///
/// # Errors
/// [`OutputError::DiskFull`], [`OutputError::Write`].
pub fn write_png(path: &Path, picture: &Rgb8, texts: &[Text]) -> Result<String, OutputError> {
    let bytes = encode_png(picture, texts).map_err(|source| failed(path, source))?;
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

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// If a side is longer than PNG can say.
pub fn encode_png(picture: &Rgb8, texts: &[Text]) -> io::Result<Vec<u8>> {
    let side = |px: usize| u32::try_from(px).map_err(io::Error::other);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(picture.width_px())?, side(picture.height_px())?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    texts.iter().try_for_each(|(keyword, text)| add_text(&mut encoder, keyword, text))?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.pixels())?;
    writer.finish()?;
    Ok(bytes)
}

/// The text of this keyword in a PNG file; `None` if there is none.
///
/// # Errors
/// If it is no PNG file, or not a whole one up to the pixels.
pub fn read_text(png: &[u8], keyword: &str) -> io::Result<Option<String>> {
    let limits = png::Limits { bytes: TEXTS_MAX_BYTES };
    let reader = png::Decoder::new_with_limits(io::Cursor::new(png), limits).read_info()?;
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().find(|text| text.keyword == keyword);
    if let Some(text) = latin {
        return Ok(Some(text.text.clone()));
    }
    let text = info.utf8_text.iter().find(|text| text.keyword == keyword);
    Ok(text.map(|text| text.get_text()).transpose()?)
}

/// `tEXt` holds Latin-1 only; anything else goes into `iTXt`.
fn add_text<W: Write>(encoder: &mut png::Encoder<W>, keyword: &str, text: &str) -> io::Result<()> {
    let added = if text.chars().all(|c| (c as u32) < 256) {
        encoder.add_text_chunk(keyword.into(), text.into())
    } else {
        encoder.add_itxt_chunk(keyword.into(), text.into())
    };
    Ok(added?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_carries_its_texts() {
        let picture = Rgb8::new(vec![1, 2, 3, 4, 5, 6], 2, 1).unwrap();
        let texts = [("one", "Erdbeere, süß".to_owned()), ("two", "딸기".to_owned())];
        let bytes = encode_png(&picture, &texts).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.pixels());
        assert_eq!(reader.info().uncompressed_latin1_text[0].text, texts[0].1);
        assert_eq!(reader.info().utf8_text[0].get_text().unwrap(), texts[1].1);
        for (keyword, text) in texts {
            assert_eq!(read_text(&bytes, keyword).unwrap(), Some(text));
        }
        assert_eq!(read_text(&bytes, "three").unwrap(), None);
        assert!(read_text(&bytes[..20], "one").is_err() && read_text(b"GIF89a", "one").is_err());
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
