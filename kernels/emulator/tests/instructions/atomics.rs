//! Rows of `isa/atomics.rs`.

use crate::warp::WarpRow;

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    let mut rows: Vec<WarpRow> = vec![
        ("shared atomics", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 st.shared.u32 [%x2], 0; bar.warp.sync -1; atom.shared.inc.u32 %r, [%x2], 9;".into(), Box::new(|l| l % 10)),
        ("cas", "mov.u32 %x2, sm; setp.eq.u32 %q1, %t, 0; @%q1 st.shared.u32 [%x2], 0; bar.warp.sync -1; add.u32 %x3, %t, 1; atom.shared.cas.b32 %r, [%x2], %t, %x3;".into(), Box::new(|l| l)),
        ("global atomics of many types", "mov.u32 %x9, 0; atom.global.add.u32 %x1, [%rd1+128], 2; red.global.max.s32 [%rd1+132], %t; red.global.and.b32 [%rd1+136], %t; red.global.add.f32 [%rd1+140], 0f3F800000; red.global.add.noftz.f16x2 [%rd1+144], 0x3c004000; atom.global.exch.b32 %x2, [%rd1+148], %t; red.global.add.u64 [%rd1+152], 3; bar.warp.sync -1; shr.u32 %x3, %t, 0; min.u32 %x3, %x3, 7; mul.wide.u32 %rd4, %x3, 4; add.u64 %rd5, %rd1, %rd4; ld.relaxed.gpu.global.u32 %r, [%rd5+128];".into(), Box::new(|l| match l.min(7) { 0 => 64, 1 => 31, 2 => 0, 3 => 32f32.to_bits(), 4 => 0x5000_5400, 5 => 31, 6 => 96, _ => 0 })),
    ];
    for (op, ty, start, model) in atomics() {
        let wide = ty.ends_with("64");
        let (x, reg) = if wide { ("%rd6", "u64") } else { ("%x5", "b32") };
        let value = if wide { "cvt.u64.u32 %rd5, %t; add.u64 %rd5, %rd5, 1;" } else { "add.u32 %x4, %t, 1;" };
        let operand = if wide { "%rd5" } else { "%x4" };
        for space in ["shared", "global"] {
            // Shared memory at its start, global memory behind what the kernel writes at its end.
            let at = if space == "shared" { "[%x2]" } else { "[%rd1+128]" };
            let body = format!("mov.u32 %x2, sm; {value} setp.eq.u32 %q1, %t, 0; @%q1 st.{space}.{reg} {at}, {start}; bar.sync 0; red.{space}.{op}.{ty} {at}, {operand}; bar.sync 0; ld.{space}.{reg} {x}, {at}; {}", if wide { "cvt.u32.u64 %r, %rd6;" } else { "mov.u32 %r, %x5;" });
            let want = (0..32u64).fold(start, |v, l| model(v, l + 1));
            rows.push(("atomic", body, Box::new(move |_| want as u32)));
        }
    }
    rows
}

/// Operation, type, value at the start, and what one thread's operand does to it.
fn atomics() -> Vec<(&'static str, &'static str, u64, fn(u64, u64) -> u64)> {
    vec![
        ("add", "u32", 5, |a, b| a + b),
        ("add", "s32", 5, |a, b| a + b),
        ("add", "u64", 5, |a, b| a + b),
        ("min", "u32", 900, u64::min),
        ("min", "s32", 900, u64::min),
        ("max", "u32", 3, u64::max),
        ("max", "s32", 3, u64::max),
        ("min", "u64", 900, u64::min),
        ("min", "s64", 900, u64::min),
        ("max", "u64", 3, u64::max),
        ("max", "s64", 3, u64::max),
        ("and", "b32", 0xffff_ffff, |a, b| a & b),
        ("or", "b32", 64, |a, b| a | b),
        ("xor", "b32", 64, |a, b| a ^ b),
        ("and", "b64", 0xffff_ffff, |a, b| a & b),
        ("or", "b64", 64, |a, b| a | b),
        ("xor", "b64", 64, |a, b| a ^ b),
        ("inc", "u32", 0, |a, b| if a >= b { 0 } else { a + 1 }),
        (
            "dec",
            "u32",
            9,
            |a, b| if a == 0 || a > b { b } else { a - 1 },
        ),
    ]
}
