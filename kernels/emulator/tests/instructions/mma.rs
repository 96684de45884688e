//! Cases of `isa/mma.rs`.

use crate::common::{Random, download, upload};
use crate::model::*;
use cuda::Shape;

/// A product on the tensor cores: the fragments are filled and read by the layout of the PTX
/// manual, written down here as (row, column) of each element of a lane, and compared with plain
/// sums.
struct Mma {
    ptx: &'static str,
    shape: [usize; 3],
    /// Bits of an A and B element, registers of A, B, C and D.
    bits: u32,
    regs: [usize; 4],
    value: fn(u64) -> f64,
    /// Random element.
    make: fn(&mut Random) -> u64,
    /// Accumulator: `f32`, `s32`, `f64` or `f16`.
    acc: &'static str,
}

#[rustfmt::skip]
fn products() -> Vec<Mma> {
    let half = |g: &mut Random| nh(f64::from((g.unit() * 8.0).round()) / 4.0);
    let brain = |g: &mut Random| nb(f64::from((g.unit() * 8.0).round()) / 4.0);
    let tf = |g: &mut Random| u64::from(((g.unit() * 64.0).round() / 8.0).to_bits());
    let byte = |g: &mut Random| g.bits() & 255;
    vec![
        Mma { ptx: "m16n8k16.row.col.f32.f16.f16.f32", shape: [16, 8, 16], bits: 16, regs: [4, 2, 4, 4], value: h, make: half, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.f16.f16.f32", shape: [16, 8, 8], bits: 16, regs: [2, 1, 4, 4], value: h, make: half, acc: "f32" },
        Mma { ptx: "m16n8k16.row.col.f16.f16.f16.f16", shape: [16, 8, 16], bits: 16, regs: [4, 2, 2, 2], value: h, make: half, acc: "f16" },
        Mma { ptx: "m16n8k16.row.col.f32.bf16.bf16.f32", shape: [16, 8, 16], bits: 16, regs: [4, 2, 4, 4], value: b, make: brain, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.bf16.bf16.f32", shape: [16, 8, 8], bits: 16, regs: [2, 1, 4, 4], value: b, make: brain, acc: "f32" },
        Mma { ptx: "m16n8k8.row.col.f32.tf32.tf32.f32", shape: [16, 8, 8], bits: 32, regs: [4, 2, 4, 4], value: f, make: tf, acc: "f32" },
        Mma { ptx: "m16n8k4.row.col.f32.tf32.tf32.f32", shape: [16, 8, 4], bits: 32, regs: [2, 1, 4, 4], value: f, make: tf, acc: "f32" },
        Mma { ptx: "m8n8k4.row.col.f64.f64.f64.f64", shape: [8, 8, 4], bits: 64, regs: [1, 1, 2, 2], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k32.row.col.s32.s8.s8.s32", shape: [16, 8, 32], bits: 8, regs: [4, 2, 4, 4], value: |v| f64::from(v as i8), make: byte, acc: "s32" },
        Mma { ptx: "m16n8k16.row.col.s32.u8.u8.s32", shape: [16, 8, 16], bits: 8, regs: [2, 1, 4, 4], value: |v| v as f64, make: byte, acc: "s32" },
        Mma { ptx: "m8n8k16.row.col.s32.s8.s8.s32", shape: [8, 8, 16], bits: 8, regs: [1, 1, 2, 2], value: |v| f64::from(v as i8), make: byte, acc: "s32" },
        Mma { ptx: "m16n8k64.row.col.s32.s4.s4.s32", shape: [16, 8, 64], bits: 4, regs: [4, 2, 4, 4], value: |v| if v > 7 { v as f64 - 16.0 } else { v as f64 }, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m16n8k8.row.col.f16.f16.f16.f16", shape: [16, 8, 8], bits: 16, regs: [2, 1, 2, 2], value: h, make: half, acc: "f16" },
        Mma { ptx: "m16n8k4.row.col.f64.f64.f64.f64", shape: [16, 8, 4], bits: 64, regs: [2, 1, 4, 4], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k8.row.col.f64.f64.f64.f64", shape: [16, 8, 8], bits: 64, regs: [4, 2, 4, 4], value: d, make: |g| f64::from(g.unit()).to_bits(), acc: "f64" },
        Mma { ptx: "m16n8k16.row.col.s32.s8.u8.s32", shape: [16, 8, 16], bits: 8, regs: [2, 1, 4, 4], value: |v| v as f64, make: |g| g.bits() & 127, acc: "s32" },
        Mma { ptx: "m16n8k32.row.col.s32.u8.u8.s32", shape: [16, 8, 32], bits: 8, regs: [4, 2, 4, 4], value: |v| v as f64, make: byte, acc: "s32" },
        Mma { ptx: "m8n8k32.row.col.s32.u4.u4.s32", shape: [8, 8, 32], bits: 4, regs: [1, 1, 2, 2], value: |v| v as f64, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m16n8k32.row.col.s32.s4.s4.s32", shape: [16, 8, 32], bits: 4, regs: [2, 1, 4, 4], value: |v| if v > 7 { v as f64 - 16.0 } else { v as f64 }, make: |g| g.bits() & 15, acc: "s32" },
        Mma { ptx: "m8n8k128.row.col.s32.b1.b1.s32.and.popc", shape: [8, 8, 128], bits: 1, regs: [1, 1, 2, 2], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
        Mma { ptx: "m16n8k128.row.col.s32.b1.b1.s32.and.popc", shape: [16, 8, 128], bits: 1, regs: [2, 1, 4, 4], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
        Mma { ptx: "m16n8k256.row.col.s32.b1.b1.s32.and.popc", shape: [16, 8, 256], bits: 1, regs: [4, 2, 4, 4], value: |v| v as f64, make: |g| g.bits() & 1, acc: "s32" },
    ]
}

/// Row and column in A of element `e` of register `i` of a lane.
fn a_place(lane: usize, i: usize, e: usize, per: usize, m: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane & 3);
    if m == 8 {
        return (group, thread * per + e + i * per * 4);
    }
    (
        if i.is_multiple_of(2) {
            group
        } else {
            group + 8
        },
        thread * per + e + if i >= 2 { per * 4 } else { 0 },
    )
}

fn check_product(p: &Mma) -> Result<(), String> {
    let [m, n, k] = p.shape;
    let mut rng = Random(p.ptx.len() as u64 * 77);
    let a: Vec<u64> = (0..m * k).map(|_| (p.make)(&mut rng)).collect();
    let bm: Vec<u64> = (0..k * n).map(|_| (p.make)(&mut rng)).collect();
    let c: Vec<f64> = (0..m * n)
        .map(|_| f64::from((rng.unit() * 100.0).round()))
        .collect();
    let per = (32 / p.bits).max(1) as usize;
    let [na, nb_, nc, nd] = p.regs;
    let (wide, acc_wide) = (p.bits == 64, p.acc == "f64");
    let (from_acc, to_acc): (fn(u64) -> f64, fn(f64) -> u64) = match p.acc {
        "f32" => (f, r),
        "s32" => (|v| s(v) as f64, |x| w(x as i64)),
        "f64" => (d, f64::to_bits),
        _ => (h, nh),
    };
    let c_place = |lane: usize, e: usize| {
        (
            (lane >> 2) + if e >= 2 { 8 } else { 0 },
            (lane & 3) * 2 + e % 2,
        )
    };
    // One lane's data: A, B, C, D registers of 8 bytes each.
    let stride = na + nb_ + nc + nd;
    let mut data = vec![0u64; 32 * stride];
    for lane in 0..32 {
        let at = lane * stride;
        for i in 0..na {
            for e in 0..per {
                let (row, col) = a_place(lane, i, e, per, m);
                data[at + i] |= a[row * k + col] << (e as u32 * p.bits % 64);
            }
        }
        for i in 0..nb_ {
            for e in 0..per {
                let row = (lane & 3) * per + e + i * per * 4;
                data[at + na + i] |= bm[row * n + (lane >> 2)] << (e as u32 * p.bits % 64);
            }
        }
        for e in 0..m * n / 32 {
            let (row, col) = c_place(lane, e);
            let v = to_acc(c[row * n + col]);
            if p.acc == "f16" {
                data[at + na + nb_ + e / 2] |= v << (e % 2 * 16)
            } else {
                data[at + na + nb_ + e] = v
            }
        }
    }
    let list = |x: &str, n: usize| {
        format!(
            "{{{}}}",
            (0..n)
                .map(|i| format!("%{x}{i}"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let (ty, acc_ty) = (
        if wide { "b64" } else { "b32" },
        if acc_wide { "b64" } else { "b32" },
    );
    let mut code = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.reg .b64 %rd<4>; .reg .b32 %t; .reg .{ty} %a<8>, %b<8>; .reg .{acc_ty} %c<8>, %d<8>;\n"
    );
    code += &format!(
        "ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %rd2, %t, {}; add.u64 %rd3, %rd1, %rd2;\n",
        stride * 8
    );
    for (x, t, first, count) in [
        ("a", ty, 0, na),
        ("b", ty, na, nb_),
        ("c", acc_ty, na + nb_, nc),
    ] {
        for i in 0..count {
            code += &format!("ld.global.{t} %{x}{i}, [%rd3+{}];\n", (first + i) * 8);
        }
    }
    code += &format!(
        "mma.sync.aligned.{} {}, {}, {}, {};\n",
        p.ptx,
        list("d", nd),
        list("a", na),
        list("b", nb_),
        list("c", nc)
    );
    for i in 0..nd {
        code += &format!(
            "st.global.{acc_ty} [%rd3+{}], %d{i};\n",
            (na + nb_ + nc + i) * 8
        );
    }
    code += "ret;\n}\n";
    let gpu = cuda::Gpu::new(cuda::Options {
        counters: true,
        ..cuda::Options::default()
    })
    .unwrap();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let at = upload(&gpu, &data);
    gpu.launch(
        &kernel,
        Shape::line(1, 32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    )
    .map_err(|e| e.to_string())?;
    let got = download::<u64>(&gpu, at, 32 * stride);
    for lane in 0..32 {
        for e in 0..m * n / 32 {
            let (row, col) = c_place(lane, e);
            let exact: f64 = c[row * n + col]
                + (0..k)
                    .map(|x| (p.value)(a[row * k + x]) * (p.value)(bm[x * n + col]))
                    .sum::<f64>();
            let base = lane * stride + na + nb_ + nc;
            let have = from_acc(if p.acc == "f16" {
                got[base + e / 2] >> (e % 2 * 16) & 0xffff
            } else {
                got[base + e]
            });
            let want = from_acc(to_acc(exact));
            if (have - want).abs() > want.abs() * 1e-15 {
                return Err(format!("row {row} column {col}: {have}, expected {want}"));
            }
        }
    }
    let counted = format!("\"tensor_products\": {}", m * n * k);
    if !gpu.counters_json().contains(&counted) {
        return Err(format!("{counted} is not counted"));
    }
    Ok(())
}

#[test]
fn tensor_products_follow_the_fragment_layouts() {
    let all = products();
    let failed: Vec<String> = all
        .iter()
        .filter_map(|p| check_product(p).err().map(|e| format!("{}: {e}", p.ptx)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        all.len(),
        failed.join("\n")
    );
}
