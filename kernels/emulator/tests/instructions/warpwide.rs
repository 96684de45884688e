//! Rows of `isa/warpwide.rs`: exchange and votes inside a warp.

use crate::warp::WarpRow;

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        ("shfl up", "shfl.sync.up.b32 %r, %t, 3, 0, -1;".into(), Box::new(|l| if l >= 3 { l - 3 } else { l })),
        ("shfl down", "shfl.sync.down.b32 %r, %t, 5, 31, -1;".into(), Box::new(|l| if l + 5 < 32 { l + 5 } else { l })),
        ("shfl bfly in parts of 8", "shfl.sync.bfly.b32 %r, %t, 4, 0x181f, -1;".into(), Box::new(|l| l ^ 4)),
        ("shfl idx in parts of 8", "shfl.sync.idx.b32 %r, %t, 2, 0x181f, -1;".into(), Box::new(|l| l & !7 | 2)),
        ("shfl predicate", "shfl.sync.down.b32 %x1|%q1, %t, 9, 31, -1; selp.b32 %r, 1, 0, %q1;".into(), Box::new(|l| u32::from(l + 9 < 32))),
        ("ballot", "and.b32 %x1, %t, 3; setp.eq.u32 %q1, %x1, 1; vote.sync.ballot.b32 %r, %q1, -1;".into(), Box::new(|_| 0x2222_2222)),
        ("vote all", "setp.lt.u32 %q1, %t, 32; vote.sync.all.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 1)),
        ("vote any of none", "setp.gt.u32 %q1, %t, 31; vote.sync.any.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 0)),
        ("vote uni", "setp.lt.u32 %q1, %t, 9; vote.sync.uni.pred %q2, %q1, -1; selp.b32 %r, 1, 0, %q2;".into(), Box::new(|_| 0)),
        ("match any", "and.b32 %x1, %t, 1; match.any.sync.b32 %r, %x1, -1;".into(), Box::new(|l| 0x5555_5555 << (l & 1))),
        ("match all", "match.all.sync.b32 %r|%q1, %t, -1;".into(), Box::new(|_| 0)),
        ("redux add", "redux.sync.add.u32 %r, %t, -1;".into(), Box::new(|_| 496)),
        ("redux min of signed", "sub.s32 %x1, 7, %t; redux.sync.min.s32 %r, %x1, -1;".into(), Box::new(|_| (7i32 - 31) as u32)),
        ("activemask in a branch", "mov.u32 %r, 0; setp.lt.u32 %q1, %t, 4; @!%q1 bra L; activemask.b32 %r;\nL:".into(), Box::new(|l| if l < 4 { 15 } else { 0 })),
        ("elect", "elect.sync %r|%q1, 0xffffffff; selp.b32 %r, 1, 0, %q1;".into(), Box::new(|l| u32::from(l == 0))),
        ("lane masks", "mov.u32 %x1, %lanemask_lt; mov.u32 %x2, %lanemask_ge; xor.b32 %r, %x1, %x2;".into(), Box::new(|_| !0)),
    ]
}
