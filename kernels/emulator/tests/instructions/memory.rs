//! Rows of `isa/memory.rs`.

use crate::model::*;
use crate::row::Row;
use crate::warp::{WarpRow, harmless};

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    vec![
        Row("{ .reg .u64 g; .shared .align 8 .b64 sh[512]; .reg .u32 t; .reg .u64 o; mov.u32 t, %tid.x; mul.wide.u32 o, t, 8; mov.u64 g, sh; add.u64 g, g, o; cvta.shared.u64 g, g; st.u64 [g], A; ld.u64 D, [g]; }", 64, &[(64, Bits)], |a, _, _| a),
        Row("{ .local .align 4 .b8 l[8]; st.local.v2.b32 [l], {A, B}; ld.local.s8 D, [l+5]; }", 32, I2, |_, b, _| w(i64::from((b >> 8) as i8))),
    ]
}

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        harmless("prefetch.global.L1 [%rd1];"),
        harmless("prefetch.global.L2 [%rd1];"),
        harmless("prefetch.global.L2::evict_last [%rd1];"),
        harmless("prefetchu.L1 [%rd1];"),
        harmless("applypriority.global.L2::evict_normal [%rd1], 128;"),
        harmless("discard.global.L2 [%rd1], 128;"),
        harmless("createpolicy.fractional.L2::evict_last.b64 %rd4, 1.0;"),
        harmless("createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 %rd4, [%rd1], 64, 128;"),
        harmless("createpolicy.fractional.L2::evict_first.b64 %rd4, 0.5; ld.global.L2::cache_hint.u32 %x1, [%rd1], %rd4;"),
        harmless("ldu.global.u32 %x1, [%rd1];"),
        harmless("ld.mmio.relaxed.sys.global.u32 %x1, [%rd1];"),
        harmless("ld.global.nc.L1::no_allocate.L2::128B.u32 %x1, [%rd1];"),
    ]
}
