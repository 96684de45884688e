//! Rows of `isa/control.rs`.

use crate::warp::{WarpRow, harmless};

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        ("table of branches", "and.b32 %x1, %t, 3; mov.u32 %r, 9; TS: .branchtargets L0, L1, L2, L3; brx.idx %x1, TS;\nL0: mov.u32 %r, 10; bra L9;\nL1: mov.u32 %r, 11; bra L9;\nL2: bra L9;\nL3: mov.u32 %r, 13;\nL9:".into(), Box::new(|l| [10, 11, 9, 13][l as usize & 3])),
        ("table of branches, one of them to an exit, before a barrier", "and.b32 %x1, %t, 3; mov.u32 %r, 9; TS: .branchtargets L0, L1, L2, L3; brx.idx %x1, TS;\nL0: mov.u32 %r, 10; bra L9;\nL1: mov.u32 %r, 11; bra L9;\nL2: bra L9;\nL9: bar.sync 0; setp.lt.u32 %q1, %t, 99; @%q1 bra L5;\nL3: exit;\nL5:".into(), Box::new(|l| [10, 11, 9, 0][l as usize & 3])),
        ("exit of some lanes", "setp.ge.u32 %q1, %t, 16; @%q1 exit; mov.u32 %r, 7;".into(), Box::new(|l| if l < 16 { 7 } else { 0 })),
        harmless("pmevent 1;"),
        harmless("setp.gt.u32 %q1, %t, 99; @%q1 trap; @%q1 brkpt; @%q1 exit;"),
    ]
}
