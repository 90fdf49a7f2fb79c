//! The first 56 bytes: what the file is, and how to know that its header is whole.

use blake3::Hash;

use super::{BundleError, SECTION_ALIGN};

/// The first eight bytes. The first is no ASCII, so a transfer that strips bits is noticed.
const MAGIC: [u8; 8] = *b"\x89TINTYPE";

/// The version of the format that is read and written here.
const VERSION: u32 = 1;

/// Magic, version, flags, length of the header, hash of the header.
pub(super) const PREAMBLE_LEN: usize = 8 + 4 + 4 + 8 + 32;

/// The most bytes that preamble and header may take together.
///
/// A tensor's entry takes about 250 bytes, so this is room for some 16,000 of them. Numbers in JSON take
/// up to 40 times their length once they are parsed, so this is also what keeps a malicious header from
/// taking more than 160 MiB.
const HEADER_REGION_MAX: u64 = 4 << 20;

/// The preamble for a header.
pub(super) fn encode(header: &[u8]) -> Vec<u8> {
    let mut preamble = Vec::with_capacity(PREAMBLE_LEN);
    preamble.extend_from_slice(&MAGIC);
    preamble.extend_from_slice(&VERSION.to_le_bytes());
    preamble.extend_from_slice(&0u32.to_le_bytes());
    preamble.extend_from_slice(&(header.len() as u64).to_le_bytes());
    preamble.extend_from_slice(blake3::hash(header).as_bytes());
    preamble
}

/// Finds the header in `file`, and checks that it is the one that was written. Returns its hash too.
///
/// # Errors
/// - [`BundleError::NotABundle`], [`BundleError::Version`], [`BundleError::Flags`]: not for this reader.
/// - [`BundleError::HeaderLen`], [`BundleError::Truncated`]: the length of the header cannot be.
/// - [`BundleError::HeaderHash`]: its bytes changed.
pub(super) fn split(file: &[u8]) -> Result<(Hash, &[u8]), BundleError> {
    if !file.starts_with(&MAGIC) {
        return Err(BundleError::NotABundle);
    }
    let Preamble { version, flags, header_len, header_hash } = Preamble::decode(file)?;
    if version != VERSION {
        return Err(BundleError::Version { expected: VERSION, got: version });
    }
    if flags != 0 {
        return Err(BundleError::Flags { got: flags });
    }
    let json = header_bytes(file, header_len)?;
    let got = blake3::hash(json);
    if got != header_hash {
        return Err(BundleError::HeaderHash { expected: header_hash, got });
    }
    Ok((got, json))
}

struct Preamble {
    version: u32,
    flags: u32,
    header_len: u64,
    header_hash: Hash,
}

impl Preamble {
    fn decode(file: &[u8]) -> Result<Self, BundleError> {
        let fields = || {
            let (_magic, rest) = file.split_first_chunk::<8>()?;
            let (version, rest) = rest.split_first_chunk()?;
            let (flags, rest) = rest.split_first_chunk()?;
            let (header_len, rest) = rest.split_first_chunk()?;
            let (header_hash, _) = rest.split_first_chunk()?;
            Some(Self {
                version: u32::from_le_bytes(*version),
                flags: u32::from_le_bytes(*flags),
                header_len: u64::from_le_bytes(*header_len),
                header_hash: Hash::from_bytes(*header_hash),
            })
        };
        fields().ok_or(BundleError::Truncated { expected: PREAMBLE_LEN as u64, got: file.len() as u64 })
    }
}

/// The `len` bytes behind the preamble, if a header may be that long and the file holds it.
fn header_bytes(file: &[u8], len: u64) -> Result<&[u8], BundleError> {
    const MAX: u64 = HEADER_REGION_MAX - PREAMBLE_LEN as u64;
    let end = len.min(MAX) + PREAMBLE_LEN as u64;
    if len > MAX || !end.is_multiple_of(SECTION_ALIGN as u64) {
        return Err(BundleError::HeaderLen { max: MAX, got: len });
    }
    usize::try_from(end)
        .ok()
        .and_then(|end| file.get(PREAMBLE_LEN..end))
        .ok_or(BundleError::Truncated { expected: end, got: file.len() as u64 })
}
