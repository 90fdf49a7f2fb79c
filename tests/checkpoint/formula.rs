//! Weights and inputs that follow from their names: `tools/goldens/formula.py`, to the bit.
#![allow(dead_code, reason = "each test binary uses its own part")]

/// `count` numbers from -1 to 1.
fn unit(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let start = name.bytes().fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..count as u32).map(move |at| {
        let mut x = at.wrapping_mul(0x9e37_79b1).wrapping_add(start);
        x ^= x >> 16;
        x = x.wrapping_mul(0x85eb_ca6b);
        x ^= x >> 13;
        x = x.wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        (x >> 8) as f32 * 2f32.powi(-23) - 1.0
    })
}

/// A weight of a network.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let u = unit(name, shape.iter().product());
    if shape.len() > 1 {
        let scale = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
        u.map(|u| u * scale).collect()
    } else if name.ends_with(".weight") {
        u.map(|u| 1.0 + 0.25 * u).collect()
    } else {
        u.map(|u| 0.125 * u).collect()
    }
}

/// An input of a network, of about unit variance.
pub fn given(name: &str, shape: &[usize]) -> Vec<f32> {
    unit(name, shape.iter().product()).map(|u| u * 1.75).collect()
}
