//! Cases of `isa/wmma.rs`.

use crate::common::{Random, download, gpu, upload};
use crate::model::*;
use cuda::Shape;

/// wmma: loads, a product and a store in every combination of layouts against plain sums.
#[test]
fn wmma_products_agree_with_plain_sums() {
    // Shape, PTX types of D A B C as written, element bits of A, registers of A, B, C, D, value and
    // maker of an element.
    type Case = (
        &'static str,
        [usize; 3],
        &'static str,
        [&'static str; 4],
        u32,
        [usize; 4],
        fn(u64) -> f64,
        fn(&mut Random) -> u64,
    );
    let half = |g: &mut Random| nh(f64::from((g.unit() * 8.0).round()) / 4.0);
    let brain = |g: &mut Random| nb(f64::from((g.unit() * 8.0).round()) / 4.0);
    let tf = |g: &mut Random| u64::from(((g.unit() * 64.0).round() / 8.0).to_bits());
    let double = |g: &mut Random| f64::from((g.unit() * 64.0).round()).to_bits();
    let byte = |g: &mut Random| g.bits() & 255;
    let signed = |v: u64| f64::from(v as i8);
    let cases: Vec<Case> = vec![
        (
            "m16n16k16",
            [16, 16, 16],
            "f32.f32",
            ["f32", "f16", "f16", "f32"],
            16,
            [8, 8, 8, 8],
            h,
            half,
        ),
        (
            "m32n8k16",
            [32, 8, 16],
            "f32.f32",
            ["f32", "f16", "f16", "f32"],
            16,
            [8, 8, 8, 8],
            h,
            half,
        ),
        (
            "m8n32k16",
            [8, 32, 16],
            "f16.f16",
            ["f16", "f16", "f16", "f16"],
            16,
            [8, 8, 4, 4],
            h,
            half,
        ),
        (
            "m16n16k16",
            [16, 16, 16],
            "f32.bf16.bf16.f32",
            ["f32", "bf16", "bf16", "f32"],
            16,
            [4, 4, 8, 8],
            b,
            brain,
        ),
        (
            "m32n8k16",
            [32, 8, 16],
            "f32.bf16.bf16.f32",
            ["f32", "bf16", "bf16", "f32"],
            16,
            [8, 2, 8, 8],
            b,
            brain,
        ),
        (
            "m16n16k8",
            [16, 16, 8],
            "f32.tf32.tf32.f32",
            ["f32", "tf32", "tf32", "f32"],
            32,
            [4, 4, 8, 8],
            f,
            tf,
        ),
        (
            "m8n8k4",
            [8, 8, 4],
            "f64.f64.f64.f64",
            ["f64", "f64", "f64", "f64"],
            64,
            [1, 1, 2, 2],
            d,
            double,
        ),
        (
            "m16n16k16",
            [16, 16, 16],
            "s32.s8.s8.s32",
            ["s32", "s8", "s8", "s32"],
            8,
            [2, 2, 8, 8],
            signed,
            byte,
        ),
        (
            "m8n32k16",
            [8, 32, 16],
            "s32.u8.u8.s32",
            ["s32", "u8", "u8", "s32"],
            8,
            [1, 4, 8, 8],
            |v| v as f64,
            byte,
        ),
        (
            "m8n8k32",
            [8, 8, 32],
            "s32.s4.s4.s32",
            ["s32", "s4", "s4", "s32"],
            4,
            [1, 1, 2, 2],
            |v| if v > 7 { v as f64 - 16.0 } else { v as f64 },
            |g| g.bits() & 15,
        ),
        (
            "m8n8k128",
            [8, 8, 128],
            "s32.b1.b1.s32",
            ["s32", "b1", "b1", "s32"],
            1,
            [1, 1, 2, 2],
            |v| v as f64,
            |g| g.bits() & 1,
        ),
    ];
    for (shape, [m, n, k], types, [td, ta, tb, tc], bits, regs, wide, make) in cases {
        let layouts: &[(&str, &str, &str)] = if bits < 8 {
            &[("row", "col", "row"), ("row", "col", "col")]
        } else {
            &[
                ("row", "col", "row"),
                ("col", "row", "row"),
                ("row", "row", "col"),
                ("col", "col", "col"),
            ]
        };
        for &(la, lb, lc) in layouts {
            let mut rng = Random(m as u64 * 31 + u64::from(bits));
            let a: Vec<u64> = (0..m * k).map(|_| make(&mut rng)).collect();
            let bm: Vec<u64> = (0..k * n).map(|_| make(&mut rng)).collect();
            let c: Vec<f64> = (0..m * n)
                .map(|_| f64::from((rng.unit() * 50.0).round()))
                .collect();
            // Lines are longer than the matrix, so that a wrong stride shows.
            let stride = |line: usize| line + 64;
            let store = |rows: usize,
                         columns: usize,
                         layout: &str,
                         bits: u32,
                         value: &dyn Fn(usize, usize) -> u64| {
                let row = layout == "row";
                let ld = stride(if row { columns } else { rows });
                let lines = if row { rows } else { columns };
                let mut bytes = vec![0u8; (ld * lines * bits as usize).div_ceil(8)];
                for r in 0..rows {
                    for q in 0..columns {
                        let at = if row { r * ld + q } else { q * ld + r } * bits as usize;
                        let v = value(r, q);
                        if bits < 8 {
                            bytes[at / 8] |= (v << (at % 8)) as u8;
                        } else {
                            bytes[at / 8..][..bits as usize / 8]
                                .copy_from_slice(&v.to_le_bytes()[..bits as usize / 8]);
                        }
                    }
                }
                (bytes, ld)
            };
            let (cbits, to): (u32, fn(f64) -> u64) = match td {
                "f32" => (32, r),
                "f16" => (16, nh),
                "f64" => (64, f64::to_bits),
                _ => (32, |x| w(x as i64)),
            };
            let (ab, lda) = store(m, k, la, bits, &|i, j| a[i * k + j]);
            let (bb, ldb) = store(k, n, lb, bits, &|i, j| bm[i * n + j]);
            let (cb, ldc) = store(m, n, lc, cbits, &|i, j| to(c[i * n + j]));
            let reg = |t: &str| if t == "f64" { "b64" } else { "b32" };
            let list = |x: &str, n: usize| {
                format!(
                    "{{{}}}",
                    (0..n)
                        .map(|i| format!("%{x}{i}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            };
            let popc = if bits == 1 { ".and.popc" } else { "" };
            let code = format!(
                ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u64 q, .param .u64 s) {{\n.reg .b64 %rd<4>; .reg .{} %a<8>, %b<8>; .reg .{} %c<8>, %d<8>;\nld.param.u64 %rd1, [p]; ld.param.u64 %rd2, [q]; ld.param.u64 %rd3, [s];\nwmma.load.a.sync.aligned.{la}.{shape}.global.{ta} {}, [%rd1], {lda};\nwmma.load.b.sync.aligned.{lb}.{shape}.{tb} {}, [%rd2], {ldb};\nwmma.load.c.sync.aligned.{lc}.{shape}.global.{tc} {}, [%rd3], {ldc};\nwmma.mma{popc}.sync.aligned.{la}.{lb}.{shape}.{types} {}, {}, {}, {};\nwmma.store.d.sync.aligned.{lc}.{shape}.global.{td} [%rd3], {}, {ldc};\nret;\n}}\n",
                reg(ta),
                reg(td),
                list("a", regs[0]),
                list("b", regs[1]),
                list("c", regs[2]),
                list("d", regs[3]),
                list("a", regs[0]),
                list("b", regs[1]),
                list("c", regs[2]),
                list("d", regs[3])
            );
            let gpu = gpu();
            let kernel = gpu
                .load(&code)
                .and_then(|m| m.kernel("k"))
                .unwrap_or_else(|e| panic!("{shape} {types}: {e}"));
            let (pa, pb, pc) = (upload(&gpu, &ab), upload(&gpu, &bb), upload(&gpu, &cb));
            gpu.launch(
                &kernel,
                Shape::line(1, 32),
                kernel
                    .pack(&[&pa.to_le_bytes(), &pb.to_le_bytes(), &pc.to_le_bytes()])
                    .unwrap(),
            )
            .unwrap_or_else(|e| panic!("{shape} {types} {la} {lb} {lc}: {e}"));
            let (want, _) = store(m, n, lc, cbits, &|i, j| {
                to(c[i * n + j]
                    + (0..k)
                        .map(|x| wide(a[i * k + x]) * wide(bm[x * n + j]))
                        .sum::<f64>())
            });
            assert_eq!(
                download::<u8>(&gpu, pc, want.len()),
                want,
                "{shape} {types} {la} {lb} {lc}"
            );
        }
    }
}
