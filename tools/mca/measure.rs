//! What this machine does, to hold the models against: prints its clock in GHz, and the products of the f32 loop in a cycle,
//! with six rows and a panel of 320 inputs in the first-level cache.
use std::arch::asm;
use std::hint::black_box;
use std::time::Instant;

use kernels::kernels::{Level, Line, ROWS, tile};

const INPUTS: usize = 320;
/// Rounds of a hundred additions; short, so that some are not interrupted.
const ADDITIONS: u64 = 20_000;

fn main() {
    // Additions that wait for each other take a cycle each.
    let ghz = (100 * ADDITIONS) as f64 / least_seconds(additions) / 1e9;
    let row = [0.5; INPUTS];
    let (rows, panel, mut acc) = ([&row[..]; ROWS], [Line([0.5; 16]); INPUTS], [Line::ZERO; ROWS]);
    let level = Level::detect();
    let rounds = 200;
    let seconds = least_seconds(|| {
        for _ in 0..rounds {
            tile::accumulate(level, black_box(&panel), std::iter::once((black_box(rows), &mut acc)));
        }
    });
    let products = (rounds * INPUTS * ROWS * 16) as f64 / seconds / 1e9;
    println!("{ghz:.2} {:.2}", products / ghz);
}

fn least_seconds(mut work: impl FnMut()) -> f64 {
    let seconds = (0..500).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::MAX, f64::min)
}

#[cfg(target_arch = "x86_64")]
fn additions() {
    let (x, n) = (0u64, ADDITIONS);
    // SAFETY: registers are all that is touched.
    unsafe {
        asm!("2:", ".rept 100", "add {}, 1", ".endr", "dec {}", "jnz 2b", inout(reg) x => _, inout(reg) n => _);
    }
}

#[cfg(target_arch = "aarch64")]
fn additions() {
    let (x, n) = (0u64, ADDITIONS);
    // SAFETY: registers are all that is touched.
    unsafe {
        asm!("2:", ".rept 100", "add {0}, {0}, #1", ".endr", "subs {1}, {1}, #1", "b.ne 2b",
            inout(reg) x => _, inout(reg) n => _);
    }
}
