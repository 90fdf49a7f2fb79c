//! Prints the clock of this machine in GHz: additions that wait for each other take a cycle each.
use std::arch::asm;
use std::time::Instant;

/// Rounds of a hundred additions; short, so that some are not interrupted.
const ROUNDS: u64 = 20_000;

fn main() {
    let seconds = (0..500).map(|_| {
        let start = Instant::now();
        chain();
        start.elapsed().as_secs_f64()
    });
    let least = seconds.fold(f64::MAX, f64::min);
    println!("{:.2}", (100 * ROUNDS) as f64 / least / 1e9);
}

fn chain() {
    // SAFETY: registers are all that is touched.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("2:", ".rept 100", "add {x}, 1", ".endr", "dec {n}", "jnz 2b", x = inout(reg) 0u64 => _, n = inout(reg) ROUNDS => _);
    }
    // SAFETY: registers are all that is touched.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("2:", ".rept 100", "add {x}, {x}, #1", ".endr", "subs {n}, {n}, #1", "b.ne 2b", x = inout(reg) 0u64 => _, n = inout(reg) ROUNDS => _);
    }
}
