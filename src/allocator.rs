//! The program's allocator: large blocks come from the system one by one and go back to it, so that what is resident is
//! what the memory plan says, and not what a general allocator keeps for later.
//!
//! Within a plan, blocks that are freed are kept for those to come, which may be a piece of one, or take in neighbours that
//! are free too: a fresh block costs a page fault for every page. [`keep_within`] says how much there may be of blocks in use
//! and blocks kept, together; what is kept goes first when that is reached. Everything small is left to the standard library's
//! allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks of at least this size are handled here.
const LARGE_BYTES: usize = 1 << 17;
/// Sizes are rounded up to this, the largest page of the usual boards.
const UNIT_BYTES: usize = 1 << 14;
/// The most free blocks that are kept.
const KEPT: usize = 64;

/// The allocator.
#[derive(Debug)]
pub struct LargeBlocks;

/// While it lives, so many bytes of large blocks may be mapped for free ones to be kept among them.
#[derive(Debug)]
pub struct Kept {
    bytes: usize,
}

/// A block of whole units that nobody uses.
#[derive(Clone, Copy)]
struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block that nobody uses has no thread that it belongs to.
unsafe impl Send for Block {}

impl Block {
    /// The first so many bytes of a longer block, which is left with the rest.
    fn cut(&mut self, bytes: usize) -> Option<Self> {
        let rest = self.bytes.checked_sub(bytes).filter(|&rest| rest > 0)?;
        let first = Self { start: self.start, bytes };
        // SAFETY: within the block.
        *self = Self { start: unsafe { self.start.add(bytes) }, bytes: rest };
        Some(first)
    }

    /// Whether one ends where the other begins.
    fn is_beside(&self, other: &Self) -> bool {
        let end = |block: &Self| block.start.as_ptr().wrapping_add(block.bytes);
        end(self) == other.start.as_ptr() || end(other) == self.start.as_ptr()
    }

    /// With one that is beside it.
    fn joined(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), bytes: self.bytes + other.bytes }
    }
}

struct State {
    /// From the oldest to the newest.
    free: heapless::Vec<Block, KEPT>,
    /// Bytes of all blocks, used and free.
    mapped_bytes: usize,
    /// With more than this, no free block is kept.
    limit_bytes: usize,
}

static STATE: Mutex<State> =
    Mutex::new(State { free: heapless::Vec::new(), mapped_bytes: 0, limit_bytes: 0 });

/// Keeps free blocks for later, as long as no more than `bytes` are used and kept together; without effect in a program that
/// has another allocator. Of several, the sum counts.
pub fn keep_within(bytes: usize) -> Kept {
    state().limit_bytes += bytes;
    Kept { bytes }
}

/// Bytes of blocks that are kept and not in use.
pub fn kept_bytes() -> usize {
    state().free.iter().map(|block| block.bytes).sum()
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = state();
        state.limit_bytes -= self.bytes;
        state.make_room(0);
    }
}

// SAFETY: a block is handed out once, by `take` or by the system, until it is given back; it has at least the size and
// alignment that were asked for (`is_large`); small ones are the standard library's in and out. Nothing here allocates or
// panics.
unsafe impl GlobalAlloc for LargeBlocks {
    /// # Safety
    /// As [`GlobalAlloc::alloc`] says.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match rounded(layout) {
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc(layout) },
            Some(bytes) => state().take(bytes).map_or(null_mut(), |(block, _)| block.start.as_ptr()),
        }
    }

    /// # Safety
    /// As [`GlobalAlloc::alloc_zeroed`] says.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match rounded(layout) {
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc_zeroed(layout) },
            Some(bytes) => {
                let Some((block, is_fresh)) = state().take(bytes) else { return null_mut() };
                if !is_fresh {
                    // SAFETY: the block is ours and as long.
                    unsafe { block.start.write_bytes(0, bytes) };
                }
                block.start.as_ptr()
            }
        }
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`] says.
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match (rounded(layout), NonNull::new(start)) {
            (Some(bytes), Some(start)) => state().give(Block { start, bytes }),
            // SAFETY: as the caller promises.
            _ => unsafe { System.dealloc(start, layout) },
        }
    }
}

/// The size of a large block for this layout, or `None` if it is not for this allocator.
fn rounded(layout: Layout) -> Option<usize> {
    let is_large = layout.size() >= LARGE_BYTES && layout.align() <= 4096;
    is_large.then(|| layout.size().checked_next_multiple_of(UNIT_BYTES)).flatten()
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// A block of this size and whether it is fresh, that is to say zeros.
    fn take(&mut self, bytes: usize) -> Option<(Block, bool)> {
        let fits = self.free.iter().enumerate().filter(|(_, block)| block.bytes >= bytes);
        if let Some(at) = fits.min_by_key(|(_, block)| block.bytes).map(|(at, _)| at) {
            return Some((self.free[at].cut(bytes).unwrap_or_else(|| self.free.remove(at)), false));
        }
        self.make_room(bytes);
        let block = map(bytes).or_else(|| {
            // The system may have it once what is kept is the system's again.
            (0..self.free.len()).for_each(|_| self.unmap_oldest());
            map(bytes)
        })?;
        self.mapped_bytes += bytes;
        Some((block, true))
    }

    fn give(&mut self, mut block: Block) {
        while let Some(at) = self.free.iter().position(|free| free.is_beside(&block)) {
            block = block.joined(self.free.remove(at));
        }
        if self.free.is_full() {
            self.unmap_oldest();
        }
        match self.free.push(block) {
            Ok(()) => self.make_room(0),
            Err(block) => self.unmap(block),
        }
    }

    /// Gives free blocks back to the system until so many bytes more are within the limit.
    fn make_room(&mut self, bytes: usize) {
        while !self.free.is_empty() && self.mapped_bytes.saturating_add(bytes) > self.limit_bytes {
            self.unmap_oldest();
        }
    }

    fn unmap_oldest(&mut self) {
        let oldest = self.free.remove(0);
        self.unmap(oldest);
    }

    fn unmap(&mut self, block: Block) {
        // SAFETY: the block was mapped by `map` with this size, and nobody uses it.
        unsafe { libc::munmap(block.start.as_ptr().cast(), block.bytes) };
        self.mapped_bytes -= block.bytes;
    }
}

fn map(bytes: usize) -> Option<Block> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of no file, anywhere.
    let start = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    let start = if start == libc::MAP_FAILED { null_mut() } else { start.cast() };
    NonNull::new(start).map(|start| Block { start, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 64).unwrap()
    }

    /// Allocates and frees at once; where the block was.
    fn use_once(bytes: usize) -> *mut u8 {
        // SAFETY: the block is written within its size and freed once, with its own layout.
        unsafe {
            let block = LargeBlocks.alloc(layout(bytes));
            assert!(!block.is_null());
            block.write_bytes(7, bytes);
            LargeBlocks.dealloc(block, layout(bytes));
            block
        }
    }

    /// One test, as there is one list of free blocks.
    #[test]
    fn large_blocks_are_kept_within_the_limit_and_used_again() {
        let bytes = 3 * LARGE_BYTES + 5;
        use_once(bytes);
        assert_eq!(kept_bytes(), 0, "nothing is kept without a plan");

        let within = keep_within(10 * LARGE_BYTES);
        let first = use_once(bytes);
        // SAFETY: as in `use_once`.
        unsafe {
            let again = LargeBlocks.alloc_zeroed(layout(bytes + 1));
            assert_eq!(again, first, "a block that fits is used again");
            assert!((0..=bytes).all(|at| again.add(at).read() == 0), "and cleared when that is asked for");
            LargeBlocks.dealloc(again, layout(bytes + 1));
        }
        for count in 1..40 {
            use_once(LARGE_BYTES * (1 + count % 9));
            assert!(state().mapped_bytes <= 10 * LARGE_BYTES);
        }
        use_once(20 * LARGE_BYTES);
        assert_eq!(kept_bytes(), 0, "what is over the limit is never kept");
        use_once(bytes);
        assert!(kept_bytes() > 0);
        drop(within);
        assert_eq!((kept_bytes(), state().mapped_bytes), (0, 0));

        // SAFETY: nothing comes of the first, and the second is freed as it was allocated.
        unsafe {
            assert!(LargeBlocks.alloc(layout(isize::MAX as usize - 63)).is_null(), "no memory is no crash");
            let small = layout(100);
            LargeBlocks.dealloc(LargeBlocks.alloc(small), small);
        }
    }
}
