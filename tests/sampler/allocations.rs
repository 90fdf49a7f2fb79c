//! Counts what this thread allocates: a step of a sampler allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde_json::json;
use tintype::denoise::kind::{RunOptions, SamplerKind};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is; counting touches a number of this thread alone, which needs no
// memory and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the system's, as all are.
        unsafe { System.dealloc(block, layout) }
    }
}

#[test]
fn a_step_allocates_nothing() {
    let config = json!({"solver_order": 3, "thresholding": true, "disable_corrector": [2]});
    let (mut latents, output, noise) = (vec![0.5; 64], vec![0.25; 64], vec![0.125; 64]);
    for kind in SamplerKind::ALL {
        let before = COUNT.get();
        let mut sampler = kind.build(&config, RunOptions { steps: 6, eta: None, len: 64 }).unwrap();
        assert!(COUNT.get() > before, "nothing is counted");
        for i in 0..6 {
            let before = COUNT.get();
            sampler.step(i, &mut latents, &output, &noise);
            assert_eq!(COUNT.get(), before, "{kind:?}, step {i}");
        }
    }
}
