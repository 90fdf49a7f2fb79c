//! The program's allocator: large blocks come from the system one by one and go back to it, so that what is resident is
//! what the memory plan says, and not what a general allocator keeps for later.
//!
//! A few blocks are kept for the next that fits: the maps of a network are freed and asked for again in the same sizes all
//! the time, and a fresh block costs a page fault for every page. How much is kept is bounded by [`KEPT_BYTES`], which the
//! plan counts. Everything small is left to the standard library's allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

/// Blocks of at least this size are handled here.
const LARGE_BYTES: usize = 1 << 20;
/// Sizes are rounded up to this, a multiple of every page size in use.
const UNIT_BYTES: usize = 1 << 16;
/// The most bytes of free blocks that are kept.
pub const KEPT_BYTES: usize = 16 << 20;
/// The most free blocks that are kept.
const KEPT: usize = 16;

/// The allocator.
#[derive(Debug)]
pub struct LargeBlocks;

/// A block of whole units that nobody uses.
#[derive(Clone, Copy)]
struct Block {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a block that nobody uses has no thread that it belongs to.
unsafe impl Send for Block {}

static FREE: Mutex<heapless::Vec<Block, KEPT>> = Mutex::new(heapless::Vec::new());

// SAFETY: a block is handed out once, by `take` or by the system, until it is given back; it has at least the size and
// alignment that were asked for (`is_large`); small ones are the standard library's in and out. Nothing here allocates or
// panics.
unsafe impl GlobalAlloc for LargeBlocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match rounded(layout) {
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc(layout) },
            Some(bytes) => take(bytes).map_or_else(|| map(bytes), |block| block.start.as_ptr()),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match rounded(layout) {
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc_zeroed(layout) },
            Some(bytes) => match take(bytes) {
                Some(block) => {
                    // SAFETY: the block is ours and at least as long.
                    unsafe { block.start.write_bytes(0, bytes) };
                    block.start.as_ptr()
                }
                // Fresh from the system it is zeros.
                None => map(bytes),
            },
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match (rounded(layout), NonNull::new(start)) {
            (Some(bytes), Some(start)) => give(Block { start, bytes }),
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

/// A free block of just this size.
fn take(bytes: usize) -> Option<Block> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let at = free.iter().rposition(|block| block.bytes == bytes)?;
    Some(free.remove(at))
}

/// Keeps a block for later, and gives the oldest back to the system if they are too many.
fn give(block: Block) {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut kept: usize = free.iter().map(|block| block.bytes).sum();
    while !free.is_empty() && (free.is_full() || kept + block.bytes > KEPT_BYTES) {
        let oldest = free.remove(0);
        kept -= oldest.bytes;
        unmap(oldest);
    }
    if kept + block.bytes > KEPT_BYTES || free.push(block).is_err() {
        unmap(block);
    }
}

/// Gives all free blocks back to the system.
pub fn release() {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(block) = free.pop() {
        unmap(block);
    }
}

fn map(bytes: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of no file, anywhere.
    let start = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { null_mut() } else { start.cast() }
}

fn unmap(block: Block) {
    // SAFETY: the block was mapped by `map` with this size, and nobody uses it.
    unsafe { libc::munmap(block.start.as_ptr().cast(), block.bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 64).unwrap()
    }

    /// One test, as the list of free blocks is one.
    #[test]
    fn large_blocks_are_used_again_and_kept_within_bounds() {
        let bytes = 3 * LARGE_BYTES + 5;
        // SAFETY: every block is written within its size and freed once, with its own layout.
        unsafe {
            let first = LargeBlocks.alloc(layout(bytes));
            first.write_bytes(7, bytes);
            LargeBlocks.dealloc(first, layout(bytes));
            let again = LargeBlocks.alloc_zeroed(layout(bytes + 1));
            assert_eq!(again, first, "a block that fits is used again");
            assert!((0..=bytes).all(|at| again.add(at).read() == 0), "and cleared when that is asked for");
            LargeBlocks.dealloc(again, layout(bytes + 1));
            let kept = || FREE.lock().unwrap().iter().map(|block| block.bytes).sum::<usize>();
            assert!(kept() > 0);
            for count in 1..40 {
                let bytes = LARGE_BYTES * (1 + count % 9);
                let block = LargeBlocks.alloc(layout(bytes));
                block.write_bytes(1, bytes);
                LargeBlocks.dealloc(block, layout(bytes));
                assert!(kept() <= KEPT_BYTES);
            }
            let huge = layout(2 * KEPT_BYTES);
            LargeBlocks.dealloc(LargeBlocks.alloc(huge), huge);
            assert!(kept() <= KEPT_BYTES);
            release();
            assert_eq!(kept(), 0);
            assert!(LargeBlocks.alloc(layout(isize::MAX as usize - 63)).is_null(), "no memory is no crash");
            let small = layout(100);
            LargeBlocks.dealloc(LargeBlocks.alloc(small), small);
        }
    }
}
