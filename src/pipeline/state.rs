//! The state of an unfinished picture as bytes, from which it can be gone on with after a power cut.
//!
//! ```text
//! hash of all that follows, 32 bytes | length of the identity, u32 | identity, UTF-8
//! steps done, channels, height, width, u32 each | latents, f32 | what the sampler remembers, f32        little-endian
//! ```
//! The identity says what the picture is; whoever keeps states chooses it. The noise needs no state: the generator is read
//! again from the seed.

use super::Halfway;
use crate::tensor::Latents;

const HASH_LEN: usize = 32;

/// A state and whose it is.
#[derive(Debug, Clone)]
pub struct State {
    /// What the picture is.
    pub identity: String,
    /// How far it has come.
    pub halfway: Halfway,
}

/// The bytes of a state.
pub fn encode_state(identity: &str, done: usize, latents: &Latents, memory: &[f32]) -> Vec<u8> {
    let [_, channels, height, width] = latents.shape();
    let mut bytes = vec![0; HASH_LEN];
    let number =
        |n: usize| u32::try_from(n).expect("sizes of pictures and their texts are small").to_le_bytes();
    bytes.extend(number(identity.len()));
    bytes.extend(identity.as_bytes());
    bytes.extend([done, channels, height, width].into_iter().flat_map(number));
    bytes.extend(latents.values().iter().chain(memory).flat_map(|value| value.to_le_bytes()));
    let hash = blake3::hash(&bytes[HASH_LEN..]);
    bytes[..HASH_LEN].copy_from_slice(hash.as_bytes());
    bytes
}

/// The state that these bytes are; `None` if they are damaged.
pub fn decode_state(bytes: &[u8]) -> Option<State> {
    let (hash, body) = bytes.split_at_checked(HASH_LEN)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let (len, body) = body.split_first_chunk()?;
    let (identity, body) = body.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let (words, rest) = body.as_chunks();
    let (numbers, values) = words.split_first_chunk()?;
    let [done, channels, height, width] = numbers.map(|word| u32::from_le_bytes(word) as usize);
    let len = channels.checked_mul(height)?.checked_mul(width)?;
    if len > values.len() || !rest.is_empty() {
        return None;
    }
    let mut values: Vec<f32> = values.iter().copied().map(f32::from_le_bytes).collect();
    let memory = values.split_off(len);
    let latents = Latents::new(values, channels, height, width).ok()?;
    let identity = String::from_utf8(identity.to_vec()).ok()?;
    Some(State { identity, halfway: Halfway { done, latents, memory } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was_or_not_at_all() {
        let latents = Latents::new((0..24u8).map(f32::from).collect(), 4, 2, 3).unwrap();
        let whole = encode_state("딸기", 5, &latents, &[0.5; 48]);
        let State { identity, halfway } = decode_state(&whole).unwrap();
        assert_eq!((&identity[..], halfway.done, &halfway.latents), ("딸기", 5, &latents));
        assert_eq!(halfway.memory, [0.5; 48]);
        assert!(decode_state(&encode_state("", 5, &latents, &[])).unwrap().halfway.memory.is_empty());
        for len in 0..whole.len() {
            assert!(decode_state(&whole[..len]).is_none(), "{len} bytes");
        }
        for at in [0, 33, 40, 60, whole.len() - 1] {
            let flipped: Vec<u8> = whole.iter().enumerate().map(|(i, b)| b ^ u8::from(at == i)).collect();
            assert!(decode_state(&flipped).is_none(), "byte {at}");
        }
    }
}
