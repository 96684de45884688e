//! The CPU backend against the tables of cases, and the reproducibility of its bits.

#![allow(clippy::unwrap_used)] // A failed operation fails the test.

use super::*;
use crate::cases::{self, AttentionCase, Device, check_all};
use crate::quant::{GROUP, Quantization, QuantizedMatrix};
use crate::{Dtype, KvDtype, MatrixView, SequenceRows};

impl Device for CpuBackend {
    fn write(&mut self, x: &mut Activations, values: &[f32]) {
        x.data_mut()[..values.len()].copy_from_slice(values);
    }

    fn poison(&mut self, arena: &mut Arena) {
        arena.bytes_mut().fill(0xff);
    }

    fn input_rounding(&self, weights: Dtype) -> f64 {
        match (self.isa, weights) {
            // The low part is at most 2^-9 of an input, and its own rounding at most 2^-9 of it.
            (Isa::Amx, Dtype::Bf16) => 1.0 / f64::from(1 << 18),
            _ => 0.0,
        }
    }
}

/// One backend per instruction set of this machine.
fn backends() -> Vec<CpuBackend> {
    Isa::ALL
        .into_iter()
        .filter(|isa| isa.available())
        .map(|isa| CpuBackend::with_isa(2, isa))
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn linear_is_right() {
    for mut backend in backends() {
        check_all(&cases::linear_cases(), |case| {
            cases::check_linear(&mut backend, case).map(drop)
        });
        check_all(&cases::gated_linear_cases(), |case| {
            cases::check_linear_gated(&mut backend, case).map(drop)
        });
        check_all(&cases::quantized_cases(), |case| {
            cases::check_linear(&mut backend, case).map(drop)
        });
    }
}

/// The 16-bit sums of int4 do not overflow when every product is as large as possible.
#[test]
fn quantized_linear_holds_the_largest_sums() {
    let (rows, n, k) = (7, 33, 3 * GROUP);
    for mut backend in backends() {
        for kind in Quantization::ALL {
            for (w, x) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)] {
                let bytes = cases::matrix_bytes(&vec![w; n * k], Dtype::F32);
                let matrix = MatrixView {
                    rows: n,
                    cols: k,
                    dtype: Dtype::F32,
                    bytes: &bytes,
                };
                let mut matrix = QuantizedMatrix::new(&matrix, kind);
                if kind == Quantization::Int4 && w < 0.0 {
                    // As other programs store it: 7, which is code 15.
                    matrix.values = vec![0xff; n * k / 2].into();
                }
                let weight = backend.load_quantized(&[matrix.clone()]).unwrap();
                let mut input = backend.activations(rows, k).unwrap();
                input.data_mut().fill(x);
                let mut out = backend.activations(rows, n).unwrap();
                backend.linear(&input, &weight, None, rows, false, &mut out);
                let expected: f32 = matrix.dequantized()[..k].iter().sum::<f32>() * x;
                for &out in out.data() {
                    let error = (out - expected).abs() / expected.abs();
                    assert!(error < 1e-5, "{kind:?}: {out}, expected {expected}");
                }
            }
        }
    }
}

/// A linear layer on AMX with bf16 weights `[n, k]` and f32 rows; `None` without AMX.
fn amx_linear(w: &[f32], x: &[f32], k: usize) -> Option<Vec<f32>> {
    if !Isa::Amx.available() {
        eprintln!("not run: this machine has no AMX");
        return None;
    }
    let mut backend = CpuBackend::with_isa(1, Isa::Amx);
    let (n, rows) = (w.len() / k, x.len() / k);
    let bytes = cases::matrix_bytes(w, Dtype::Bf16);
    let matrix = MatrixView {
        rows: n,
        cols: k,
        dtype: Dtype::Bf16,
        bytes: &bytes,
    };
    let weight = backend.load_matrix(&[matrix]).unwrap();
    let mut input = backend.activations(rows, k).unwrap();
    input.data_mut().copy_from_slice(x);
    let mut out = backend.activations(rows, n).unwrap();
    backend.linear(&input, &weight, None, rows, false, &mut out);
    Some(out.data().to_vec())
}

/// AMX sums in the order of `tdpbf16ps` in Intel's manual, written out here.
#[test]
fn amx_sums_in_the_documented_order() {
    // The second accumulates to sums of earlier inputs.
    for (rows, n, k) in [(37, 40, 3 * 32 + 7), (19, 50, 2 * 1024 + 40)] {
        sums_are_in_order(rows, n, k);
    }
}

fn sums_are_in_order(rows: usize, n: usize, k: usize) {
    let (w, x) = (cases::numbers(5, n * k), cases::numbers(6, rows * k));
    let Some(out) = amx_linear(&w, &x, k) else {
        return;
    };
    let bf16 = |value: f32| half::bf16::from_f32(value).to_f32();
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (column, w) in w.chunks_exact(k).enumerate() {
            let mut sum = 0.0f32;
            for (x, w) in x.chunks(32).zip(w.chunks(32)) {
                let high: Vec<f32> = x.iter().map(|&x| bf16(x)).collect();
                let low: Vec<f32> = x
                    .iter()
                    .zip(&high)
                    .map(|(x, high)| bf16(x - high))
                    .collect();
                for part in [high, low] {
                    let mut parity = [0.0f32; 2];
                    for (i, (x, &w)) in part.iter().zip(w).enumerate() {
                        parity[i % 2] = x.mul_add(bf16(w), parity[i % 2]);
                    }
                    sum += parity[0] + parity[1];
                }
            }
            let got = out[row * n + column];
            assert_eq!(got.to_bits(), sum.to_bits(), "row {row}, column {column}");
        }
    }
}

#[test]
fn amx_keeps_finite_and_non_finite_inputs() {
    let (n, k) = (16, 32);
    let mut x = vec![1.0; 5 * k];
    x[3] = f32::MAX;
    (x[k + 4], x[2 * k + 5], x[3 * k + 6]) = (f32::INFINITY, f32::NAN, f32::from_bits(0x7f80_0001));
    let Some(out) = amx_linear(&vec![0.25; n * k], &x, k) else {
        return;
    };
    let row = |i: usize| &out[i * n..][..n];
    assert!(
        row(0)
            .iter()
            .all(|&v| (v / (f32::MAX / 4.0) - 1.0).abs() < 1e-4)
    );
    assert_eq!(row(1), [f32::INFINITY; 16]);
    assert!(row(2).iter().chain(row(3)).all(|v| v.is_nan()));
    assert_eq!(row(4), [8.0; 16]);
}

#[test]
fn row_wise_operations_are_right() {
    let mut backend = CpuBackend::new(2);
    check_all(&cases::ROW_SHAPES, |shape| {
        cases::check_rms_norm(&mut backend, shape).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |shape| {
        cases::check_add_rms_norm(&mut backend, shape).map(drop)
    });
    check_all(&cases::gated_cases(), |case| {
        cases::check_gated(&mut backend, case).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |shape| {
        cases::check_relu(&mut backend, shape).map(drop)
    });
    let shapes = [1, 3, 40].into_iter().zip(cases::HEADS.into_iter().cycle());
    let shapes: Vec<_> = shapes.chain(cases::HEADS.map(|heads| (2, heads))).collect();
    check_all(&shapes, |shape| {
        cases::check_qk_norm(&mut backend, shape).map(drop)
    });
}

#[test]
fn attention_is_right() {
    for mut backend in backends() {
        check_all(&cases::attention_cases(), |case| {
            let all: Vec<usize> = (0..case.tree.nodes.len()).collect();
            cases::check_attention(&mut backend, case, &all).map(drop)
        });
    }
}

#[test]
fn linear_rows_do_not_depend_on_rows_or_threads() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let floats = [Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| (dtype, None, 131));
        let quantized = Quantization::ALL.map(|kind| (Dtype::Bf16, Some(kind), 160));
        for (dtype, quantized, k) in floats.into_iter().chain(quantized) {
            let case = |rows| cases::LinearCase {
                rows,
                n: 200,
                k,
                dtype,
                quantized,
                bias: true,
                accumulate: true,
            };
            let (n, max_rows) = (200, 300);
            let all =
                cases::check_linear(&mut CpuBackend::with_isa(1, isa), &case(max_rows)).unwrap();
            for threads in [1, 2, 5] {
                for rows in (1..=14).chain([47, 48, 49, 95, 97, 300]) {
                    let mut backend = CpuBackend::with_isa(threads, isa);
                    let some = cases::check_linear(&mut backend, &case(rows)).unwrap();
                    assert_eq!(
                        bits(&some),
                        bits(&all[..rows * n]),
                        "{isa:?} {dtype:?} {quantized:?}, {rows} rows, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn attention_rows_do_not_depend_on_batch_blocks_or_threads() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for tree in cases::trees() {
            for (heads, dtype, window) in [
                ((4, 2, 32), Dtype::Bf16.into(), None),
                ((6, 2, 64), Dtype::Bf16.into(), Some(35)),
                ((1, 1, 16), Dtype::F32.into(), Some(9)),
                ((3, 1, 24), Dtype::Bf16.into(), Some(18)),
                ((2, 2, 16), Dtype::F16.into(), None),
                ((4, 2, 32), KvDtype::Int8, Some(18)),
                ((3, 1, 24), KvDtype::Int8, None),
            ] {
                let case = |block_tokens| AttentionCase {
                    tree: tree.clone(),
                    heads,
                    block_tokens,
                    dtype,
                    window,
                    query_scalar: heads.2,
                };
                let nodes: Vec<usize> = (0..tree.nodes.len()).collect();
                let mut one = CpuBackend::with_isa(1, isa);
                let expected = cases::check_attention(&mut one, &case(16), &nodes).unwrap();
                let same = |got: cases::NodeRows, what: &str| {
                    for (node_row, row) in got {
                        let (_, expected) = expected.iter().find(|(e, _)| *e == node_row).unwrap();
                        assert_eq!(
                            bits(&row),
                            bits(expected),
                            "{}: {what}, {node_row:?}",
                            tree.name
                        );
                    }
                };
                for block_tokens in [1, 2, 4, 32] {
                    let rows =
                        cases::check_attention(&mut one, &case(block_tokens), &nodes).unwrap();
                    same(rows, &format!("blocks of {block_tokens}"));
                }
                for &n in &nodes {
                    let alone = cases::check_attention(&mut one, &case(16), &[n]).unwrap();
                    same(alone, "alone");
                }
                for threads in [2, 5] {
                    let mut many = CpuBackend::with_isa(threads, isa);
                    let rows = cases::check_attention(&mut many, &case(16), &nodes).unwrap();
                    same(rows, &format!("{threads} threads"));
                }
                let mut backwards = nodes.clone();
                backwards.reverse();
                let rows = cases::check_attention(&mut one, &case(16), &backwards).unwrap();
                same(rows, "backwards");
            }
        }
    }
}

#[test]
fn embed_and_gather_copy_rows() {
    let (vocabulary, cols) = (37, 24);
    let values = cases::numbers(8, vocabulary * cols);
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        let mut backend = CpuBackend::new(1);
        let bytes = cases::matrix_bytes(&values, dtype);
        let table = backend
            .load_matrix(&[crate::MatrixView {
                rows: vocabulary,
                cols,
                dtype,
                bytes: &bytes,
            }])
            .unwrap();
        let tokens: Vec<u32> = (0..vocabulary as u32).rev().collect();
        let entries: Vec<(BlockId, u32)> = (0..37).map(|b| (BlockId(b), 1)).collect();
        let outputs = [0, 5, 36];
        let (plan, _) = BatchPlan::build(
            &[SequenceRows {
                table: &entries,
                token_ids: &tokens,
                write: true,
                outputs: &outputs,
            }],
            1,
        );
        let plan = backend.upload(&plan).unwrap();
        let mut all = backend.activations(vocabulary, cols).unwrap();
        let mut some = backend.activations(4, cols).unwrap();
        backend.embed(&table, &plan, 1.0, &mut all);
        let mut scaled = backend.activations(vocabulary, cols).unwrap();
        backend.embed(&table, &plan, 5.65, &mut scaled);
        backend.gather_outputs(&all, &plan, &mut some);
        for (r, &token) in tokens.iter().enumerate() {
            let expected: Vec<f32> = values[token as usize * cols..][..cols]
                .iter()
                .map(|&v| match dtype {
                    Dtype::F32 => v,
                    Dtype::Bf16 => half::bf16::from_f32(v).to_f32(),
                    Dtype::F16 => half::f16::from_f32(v).to_f32(),
                })
                .collect();
            assert_eq!(all.row(r), expected, "{dtype:?} token {token}");
            let expected: Vec<f32> = expected.iter().map(|v| 5.65 * v).collect();
            assert_eq!(scaled.row(r), expected, "{dtype:?} token {token}, scaled");
        }
        for (i, output) in outputs.into_iter().enumerate() {
            assert_eq!(some.row(i), all.row(output as usize));
        }
        assert_eq!(some.row(3), vec![0.0; cols]);
    }
}

#[test]
fn copied_blocks_hold_all_layers_and_touch_nothing_else() {
    let layout = KvLayout {
        layers: 3,
        heads: 2,
        kv_heads: 2,
        head_dim: 5,
        query_scalar: 5,
        block_tokens: 3,
        dtype: Dtype::Bf16.into(),
        unit_bytes: 64,
    };
    let units = layout.block_bytes().div_ceil(64);
    let mut backend = CpuBackend::new(1);
    let mut arena = backend.arena(4 * units * 64).unwrap();
    for (i, byte) in arena.bytes_mut().iter_mut().enumerate() {
        *byte = (i * 31 % 251) as u8;
    }
    let before = arena.bytes().to_vec();
    let block = |i: usize| BlockId((i * units) as u32);
    backend.copy_blocks(
        &layout,
        &[(block(3), block(0)), (block(1), block(2))],
        &mut arena,
    );
    let mut expected = before.clone();
    for (from, to) in [(3, 0), (1, 2)] {
        let from = from * units * 64..from * units * 64 + layout.block_bytes();
        let to = to * units * 64;
        expected[to..to + layout.block_bytes()].copy_from_slice(&before[from]);
    }
    assert_eq!(arena.bytes(), expected);
}

/// Every tile of every instruction set by itself: all with fused multiply-add give the same bits.
/// Small enough for Miri, which emulates instructions that this machine may lack:
///
///     RUSTFLAGS="-Ctarget-feature=+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vnni" \
///     MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-disable-stacked-borrows -Zmiri-ignore-leaks" \
///     cargo +nightly miri test -p offshoot-kernels --lib tiles_of_all
///
/// and the same with `--target aarch64-unknown-linux-gnu` without RUSTFLAGS. (crossbeam, below
/// rayon, violates stacked borrows.) AMX's tiles are assembly, which Miri does not run.
#[test]
#[allow(unsafe_code)] // The tiles are called directly.
fn tiles_of_all_instruction_sets_agree() {
    let workers = Workers::new(1);
    let (n, k) = (64, 2 * GROUP);
    let (w, x) = (cases::numbers(1, n * k), cases::numbers(2, 6 * k));
    let sizes = [
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 1),
        (3, 2),
    ];
    let of_avx512 = [(2, 4), (3, 3), (3, 4), (4, 2), (5, 2), (6, 2)];
    let narrow = [(4, 1), (5, 1), (6, 1)];
    // Miri lacks AVX-512's widening of f16.
    let dtypes: &[Dtype] = if cfg!(miri) {
        &[Dtype::F32, Dtype::Bf16]
    } else {
        &[Dtype::F32, Dtype::Bf16, Dtype::F16]
    };
    let kinds = (dtypes.iter().map(|&dtype| (dtype, None)))
        .chain(Quantization::ALL.map(|kind| (Dtype::F32, Some(kind))));
    for (dtype, quantized) in kinds {
        let bytes = cases::matrix_bytes(&w, dtype);
        let matrix = MatrixView {
            rows: n,
            cols: k,
            dtype,
            bytes: &bytes,
        };
        let available: Vec<Isa> = (Isa::ALL.into_iter())
            // AVX2's integer tiles contain assembly, which Miri does not run.
            .filter(|&isa| !(cfg!(miri) && isa == Isa::Avx2 && quantized.is_some()))
            .filter(|isa| isa.available())
            .collect();
        // Packed once per instruction set: packing takes Miri longer than the tiles.
        let packed = available.iter().map(|&isa| {
            let mut filled = quantized::Rows::default();
            let weight = match quantized {
                None => Weight::pack(&[matrix], &workers),
                Some(kind) => {
                    filled.fill(&workers, (isa, kind), &x, k, 6);
                    Weight::pack_quantized(&[QuantizedMatrix::new(&matrix, kind)], &workers, isa)
                }
            };
            (isa, weight.unwrap(), filled)
        });
        let packed: Vec<_> = packed.collect();
        let compute = |(isa, weight, filled): &(Isa, Weight, quantized::Rows), rows, panels| {
            let isa = *isa;
            let w_ptrs: Vec<_> = (0..panels).map(|j| weight.panel(j).as_ptr()).collect();
            let mut out = vec![vec![f32::NAN; panels * tile::COLS]; rows];
            let out_ptrs: Vec<_> = out.iter_mut().map(|row| row.as_mut_ptr()).collect();
            match quantized {
                None => {
                    let x_ptrs: Vec<_> = (0..rows).map(|i| x[i * k..][..k].as_ptr()).collect();
                    // SAFETY: the set is available; rows of k numbers, whole panels, their outputs.
                    unsafe { tile::tile(isa, dtype, &x_ptrs, &w_ptrs, k, false, &out_ptrs, None) };
                }
                Some(kind) => {
                    let x_ptrs: Vec<_> = (0..rows).map(|i| filled.row(i).as_ptr()).collect();
                    // SAFETY: as above; the rows were filled for this set, kind and k.
                    unsafe { quantized::tile(isa, kind, &x_ptrs, &w_ptrs, k, &out_ptrs, None) };
                }
            }
            out.concat()
        };
        for (rows, panels) in sizes.into_iter().chain(of_avx512).chain(narrow) {
            let [portable, others @ ..] = &packed[..] else {
                panic!("the portable tiles are always available");
            };
            let portable = compute(portable, rows, panels);
            if dtype == Dtype::F32 && quantized.is_none() {
                let [w, x] = [&w[..panels * tile::COLS * k], &x[..rows * k]]
                    .map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
                let expected = crate::reference::linear(&x, &w, k);
                assert!(crate::reference::relative_error(&portable, &expected) < 1e-6);
            }
            let mut fused: Option<Vec<f32>> = None;
            for other in others {
                let (isa, out) = (other.0, compute(other, rows, panels));
                let expected: Vec<f64> = portable.iter().map(|&v| f64::from(v)).collect();
                let error = crate::reference::relative_error(&out, &expected);
                let what = format!("{isa:?} {dtype:?} {quantized:?} {rows} x {panels}");
                assert!(error < 1e-6, "{what}: {error}");
                let fused = fused.get_or_insert_with(|| out.clone());
                assert_eq!(bits(&out), bits(fused), "{what}");
            }
        }
    }
}
