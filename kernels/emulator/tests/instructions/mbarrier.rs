//! Rows of `isa/mbarrier.rs`.

use crate::warp::WarpRow;

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        // One mbarrier of 32 arrivals: every thread arrives, the phase is over, the parity has
        // changed.
        ("mbarrier", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 mbarrier.init.shared.b64 [%x2], 32; bar.sync 0; mbarrier.arrive.shared.b64 %rd4, [%x2]; mbarrier.test_wait.shared.b64 %q2, [%x2], %rd4; mbarrier.test_wait.parity.shared.b64 %q3, [%x2], 0; mbarrier.pending_count.b64 %x3, %rd4; selp.u32 %r, 100, 0, %q2; @%q3 add.u32 %r, %r, %x3; bar.sync 0; @%q1 mbarrier.inval.shared.b64 [%x2];".into(), Box::new(|l| 100 + 32 - l)),
    ]
}
