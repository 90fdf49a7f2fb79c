//! The Mersenne twister of 2^19937 - 1, seeded as torch seeds it.

/// Words of state.
const N: usize = 624;
/// Distance of the word that a new word is mixed with.
const M: usize = 397;

/// A stream of uniform 32-bit words.
///
/// Source: Matsumoto and Nishimura 1998, doi:10.1145/272991.272995, with `init_genrand` of the 2002 revision;
/// seeding from 64 bits as in torch's `MT19937RNGEngine.h`.
#[derive(Debug, Clone)]
pub(super) struct Mt19937 {
    state: [u32; N],
    /// The next word of `state` to hand out; `N` when all are used.
    next: usize,
}

impl Mt19937 {
    /// A stream from the low 32 bits of `seed`: like torch, this ignores the others.
    pub(super) fn new(seed: u64) -> Self {
        let mut state = [0; N];
        let mut word = (seed & u64::from(u32::MAX)) as u32;
        for (i, slot) in (0u32..).zip(&mut state) {
            if i > 0 {
                word = 1_812_433_253u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(i);
            }
            *slot = word;
        }
        Self { state, next: N }
    }

    /// The next word.
    pub(super) fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Two words as one, the first in the high half.
    pub(super) fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn refill(&mut self) {
        for i in 0..N {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twisted = (mixed >> 1) ^ if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ twisted;
        }
        self.next = 0;
    }
}
