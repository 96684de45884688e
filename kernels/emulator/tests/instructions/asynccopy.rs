//! Rows of `isa/asynccopy.rs`.

use crate::warp::WarpRow;

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        ("cp.async", "mul.lo.u32 %x1, %t, 16; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; setp.lt.u32 %q1, %t, 8; cvt.u64.u32 %rd4, %x4; setp.ge.u32 %q2, %t, 8; cp.async.cg.shared.global [%x1], [%rd1], 16, %q2; cp.async.ca.shared.global [%x1+512], [%rd1], 4, 2; cp.async.commit_group; cp.async.wait_group 0; cp.async.wait_all; ld.shared.u32 %x5, [%x1]; ld.shared.u32 %x6, [%x1+512]; add.u32 %r, %x5, %x6; bar.sync 0;".replace("cvt.u64.u32 %rd4, %x4; ", ""), Box::new(|_| 0)),
    ]
}
