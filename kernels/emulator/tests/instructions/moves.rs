//! Rows of `isa/moves.rs`.

use crate::model::*;
use crate::row::{Made, Row, made};
use crate::warp::{WarpRow, harmless};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("mov.b64 D, {A, B}", 64, I2, |a, b, _| b << 32 | a),
        Row("{ .reg .b32 x; mov.b64 {x, D}, A; }", 32, &[(64, Bits)], |a, _, _| a >> 32),
        Row("{ .reg .b16 x, y; mov.b32 {x, y}, A; mov.b32 D, {y, x}; }", 32, &[(32, Bits)], |a, _, _| a << 16 & 0xffff_ffff | a >> 16),
        Row("{ .reg .pred p; isspacep.shared p, A; selp.b32 D, 1, 2, p; }", 32, &[(64, Bits)], |a, _, _| if a >> 48 == 1 { 1 } else { 2 }),
    ]
}

/// The rows that exist for several types.
pub fn typed() -> Vec<Made> {
    let mut out = Vec::new();
    for n in [16, 32, 64] {
        let b = format!("b{n}");
        out.push(made(format!("mov.{b} D, A"), n, &[(n, Bits)], |a, _, _| a));
    }
    out
}

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        harmless("nanosleep.u32 20;"),
        ("128-bit registers", ".reg .b128 q, s; cvt.u64.u32 %rd4, %t; mul.lo.u64 %rd5, %rd4, 3; mov.b128 q, {%rd4, %rd5}; mov.b128 s, q; mov.b128 {%rd6, %rd7}, s; shl.b32 %x1, %t, 4; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; st.shared.b128 [%x1], s; ld.shared.b128 q, [%x1]; mov.b128 {%rd4, %rd5}, q; add.u64 %rd4, %rd5, %rd7; cvt.u32.u64 %r, %rd4;".into(), Box::new(|l| l * 6)),
    ]
}
