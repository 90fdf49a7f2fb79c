//! Products of small matrices of 8-bit integers on ARM: two rows times two output channels, eight inputs each, in an
//! instruction.
#![allow(unsafe_code)]

use std::arch::asm;

use super::dequantise::GROUP;
use super::integer::{STEP, Sums};
use super::level::I8mm;
use super::panel::Group;
use super::tile::{LANES, ROWS};

/// Turns groups in plain order, two at a time, to `[8 pairs of outputs][2][8 inputs]`.
///
/// # Panics
/// If the number of groups is odd.
pub fn arrange(_: I8mm, panel: &mut [Group<i8>]) {
    let (twos, []) = panel.as_chunks_mut::<2>() else { panic!("an odd number of groups") };
    for [a, b] in twos {
        let turned: [[i8; GROUP]; 2 * LANES] = std::array::from_fn(|at| {
            let (output, group) = (at / 2, if at % 2 == 0 { &*a } else { &*b });
            group.0.as_chunks().0[output]
        });
        let (first, second) = turned.as_flattened().split_at(GROUP * LANES);
        a.0.copy_from_slice(first);
        b.0.copy_from_slice(second);
    }
}

/// Puts 16 inputs of rows `$a` and `$b` into two registers, eight of both rows in each; `v31` is made use of.
#[rustfmt::skip]
macro_rules! load_pair {
    ($a:literal, $b:literal, $first:literal, $second:literal) => {
        concat!(
            "ldr q", $first, ", [{", $a, "}], #16\n",
            "ldr q31, [{", $b, "}], #16\n",
            "zip2 v", $second, ".2d, v", $first, ".2d, v31.2d\n",
            "zip1 v", $first, ".2d, v", $first, ".2d, v31.2d\n",
        )
    };
}

/// Adds the products of four outputs with three pairs of rows; the weights are `$at` bytes from the panel.
#[rustfmt::skip]
macro_rules! four_outputs {
    ($at:literal, [$($rows:literal)*], [$($low:literal)*], [$($high:literal)*]) => {
        concat!(
            "ldp q30, q31, [{panel}, #", $at, "]\n",
            $("smmla ", $low, ".4s, ", $rows, ".16b, v30.16b\n",)*
            $("smmla ", $high, ".4s, ", $rows, ".16b, v31.16b\n",)*
        )
    };
}

/// Adds the products of 16 outputs with eight inputs of three pairs of rows.
#[rustfmt::skip]
macro_rules! eight_inputs {
    ([$a:literal $b:literal $c:literal $d:literal], $rows:tt) => {
        concat!(
            four_outputs!($a, $rows, ["v0" "v8" "v16"], ["v1" "v9" "v17"]),
            four_outputs!($b, $rows, ["v2" "v10" "v18"], ["v3" "v11" "v19"]),
            four_outputs!($c, $rows, ["v4" "v12" "v20"], ["v5" "v13" "v21"]),
            four_outputs!($d, $rows, ["v6" "v14" "v22"], ["v7" "v15" "v23"]),
        )
    };
}

/// [`super::integer::Integer::multiply`] of groups as [`arrange`] leaves them.
pub fn multiply(_: I8mm, rows: &[&[i8]; ROWS], panel: &[Group<i8>]) -> Sums {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    assert!(!panel.is_empty() && (GROUP * panel.len()).is_multiple_of(STEP));
    // SAFETY: the witness proves the instructions; the assertions above give the lengths.
    let squares = unsafe { multiply_unchecked(rows, panel) };
    // Each square is two outputs of one row, then of the next.
    std::array::from_fn(|r| std::array::from_fn(|l| squares[r / 2][l / 2][r % 2 * 2 + l % 2]))
}

/// # Safety
/// Products of matrices are present, and the panel has four times as many inputs as groups, as has each row: at least 16,
/// and a multiple of that.
#[target_feature(enable = "neon,i8mm")]
unsafe fn multiply_unchecked(rows: &[&[i8]; ROWS], panel: &[Group<i8>]) -> [[[i32; 4]; LANES / 2]; ROWS / 2] {
    let mut sums = [[[0; 4]; LANES / 2]; ROWS / 2];
    // The sums of pair p of rows are v8p to v8p+7.
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
            load_pair!("row0", "row1", "24", "25"),
            load_pair!("row2", "row3", "26", "27"),
            load_pair!("row4", "row5", "28", "29"),
            eight_inputs!(["0" "32" "64" "96"], ["v24" "v26" "v28"]),
            eight_inputs!(["128" "160" "192" "224"], ["v25" "v27" "v29"]),
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
