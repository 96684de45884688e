//! Rows of `isa/sync.rs`: barriers and fences.

use crate::warp::{WarpRow, harmless};

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    vec![
        ("barrier reduction", "setp.lt.u32 %q1, %t, 5; barrier.sync.aligned 3; bar.red.popc.u32 %r, 0, %q1;".into(), Box::new(|_| 5)),
        harmless("membar.cta;"),
        harmless("membar.gl;"),
        harmless("membar.sys;"),
        harmless("fence.sc.cta;"),
        harmless("fence.acq_rel.gpu;"),
        harmless("fence.acquire.gpu;"),
        harmless("fence.proxy.alias;"),
        harmless("fence.proxy.async;"),
        harmless("fence.proxy.async.shared::cta;"),
        harmless("fence.proxy.async.global;"),
        harmless("fence.mbarrier_init.release.cluster;"),
        harmless("griddepcontrol.wait;"),
        harmless("griddepcontrol.launch_dependents;"),
        harmless("bar.sync 0; bar.arrive 1, 32; barrier.sync 2, 32; barrier.cta.sync 3;"),
    ]
}
