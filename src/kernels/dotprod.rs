//! Dot products of 8-bit integers on ARM: four inputs of four output channels in an instruction.
#![allow(unsafe_code)]

use std::arch::asm;

use super::dequantise::GROUP;
use super::integer::{STEP, Sums};
use super::level::Dotprod;
use super::panel::Group;
use super::tile::{LANES, ROWS};

/// Adds the products of four outputs with six rows, whose inputs are a quarter of `v24` to `v29`, to six registers.
#[rustfmt::skip]
macro_rules! sdots {
    ($quarter:literal, $weights:literal, $($sum:literal $row:literal),*) => {
        concat!($("sdot ", $sum, ".4s, ", $weights, ".16b, ", $row, ".4b[", $quarter, "]\n"),*)
    };
}

/// Adds the products of 16 outputs with a quarter of the inputs; the weights are `$low` and `$high` bytes from the panel.
#[rustfmt::skip]
macro_rules! quarter {
    ($quarter:literal, $low:literal, $high:literal) => {
        concat!(
            "ldp q30, q31, [{panel}, #", $low, "]\n",
            sdots!($quarter, "v30", "v0" "v24", "v4" "v25", "v8" "v26", "v12" "v27", "v16" "v28", "v20" "v29"),
            sdots!($quarter, "v31", "v1" "v24", "v5" "v25", "v9" "v26", "v13" "v27", "v17" "v28", "v21" "v29"),
            "ldp q30, q31, [{panel}, #", $high, "]\n",
            sdots!($quarter, "v30", "v2" "v24", "v6" "v25", "v10" "v26", "v14" "v27", "v18" "v28", "v22" "v29"),
            sdots!($quarter, "v31", "v3" "v24", "v7" "v25", "v11" "v26", "v15" "v27", "v19" "v28", "v23" "v29"),
        )
    };
}

/// [`super::integer::Integer::multiply`] of groups in plain order.
pub fn multiply(_: Dotprod, rows: &[&[i8]; ROWS], panel: &[Group<i8>]) -> Sums {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    assert!(!panel.is_empty() && (GROUP * panel.len()).is_multiple_of(STEP));
    // SAFETY: the witness proves the dot products; the assertions above give the lengths.
    unsafe { multiply_unchecked(rows, panel) }
}

/// # Safety
/// Dot products are present, and the panel has four times as many inputs as groups, as has each row: at least 16, and a
/// multiple of that.
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply_unchecked(rows: &[&[i8]; ROWS], panel: &[Group<i8>]) -> Sums {
    let mut sums = [[0; LANES]; ROWS];
    // The sums of row r are v4r to v4r+3; with six registers of inputs and two of weights that is all there are.
    // SAFETY: each turn reads 16 bytes of every row and 256 of the panel, as often as there are so many; 384 bytes are
    // stored, which are the sums.
    unsafe {
        asm!(
            "movi v0.4s, #0", "movi v1.4s, #0", "movi v2.4s, #0", "movi v3.4s, #0",
            "movi v4.4s, #0", "movi v5.4s, #0", "movi v6.4s, #0", "movi v7.4s, #0",
            "movi v8.4s, #0", "movi v9.4s, #0", "movi v10.4s, #0", "movi v11.4s, #0",
            "movi v12.4s, #0", "movi v13.4s, #0", "movi v14.4s, #0", "movi v15.4s, #0",
            "movi v16.4s, #0", "movi v17.4s, #0", "movi v18.4s, #0", "movi v19.4s, #0",
            "movi v20.4s, #0", "movi v21.4s, #0", "movi v22.4s, #0", "movi v23.4s, #0",
            "2:",
            "ldr q24, [{row0}], #16",
            "ldr q25, [{row1}], #16",
            "ldr q26, [{row2}], #16",
            "ldr q27, [{row3}], #16",
            "ldr q28, [{row4}], #16",
            "ldr q29, [{row5}], #16",
            quarter!("0", "0", "32"),
            quarter!("1", "64", "96"),
            quarter!("2", "128", "160"),
            quarter!("3", "192", "224"),
            "add {panel}, {panel}, #256",
            "subs {turns}, {turns}, #1",
            "b.ne 2b",
            "stp q0, q1, [{sums}]", "stp q2, q3, [{sums}, #32]",
            "stp q4, q5, [{sums}, #64]", "stp q6, q7, [{sums}, #96]",
            "stp q8, q9, [{sums}, #128]", "stp q10, q11, [{sums}, #160]",
            "stp q12, q13, [{sums}, #192]", "stp q14, q15, [{sums}, #224]",
            "stp q16, q17, [{sums}, #256]", "stp q18, q19, [{sums}, #288]",
            "stp q20, q21, [{sums}, #320]", "stp q22, q23, [{sums}, #352]",
            row0 = inout(reg) rows[0].as_ptr() => _,
            row1 = inout(reg) rows[1].as_ptr() => _,
            row2 = inout(reg) rows[2].as_ptr() => _,
            row3 = inout(reg) rows[3].as_ptr() => _,
            row4 = inout(reg) rows[4].as_ptr() => _,
            row5 = inout(reg) rows[5].as_ptr() => _,
            panel = inout(reg) panel.as_ptr() => _,
            turns = inout(reg) GROUP * panel.len() / STEP => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
    sums
}
