//! The CPU backend against the tables of cases, and its promise about bits.

#![allow(clippy::unwrap_used)] // A failed operation fails the test.

use super::*;
use crate::cases::{self, AttentionCase, Device, check_all};
use crate::{Dtype, SequenceRows};

impl Device for CpuBackend {
    fn write(&mut self, x: &mut Activations, values: &[f32]) {
        x.data_mut()[..values.len()].copy_from_slice(values);
    }

    fn poison(&mut self, arena: &mut Arena) {
        arena.bytes_mut().fill(0xff);
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
        check_all(&cases::GATED_SHAPES, |shape| {
            cases::check_linear_swiglu(&mut backend, shape).map(drop)
        });
    }
}

#[test]
fn row_wise_operations_are_right() {
    let mut backend = CpuBackend::new(2);
    check_all(&cases::ROW_SHAPES, |shape| {
        cases::check_rms_norm(&mut backend, shape).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |shape| {
        cases::check_swiglu(&mut backend, shape).map(drop)
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
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            let case = |rows| cases::LinearCase {
                rows,
                n: 200,
                k: 131,
                dtype,
                bias: true,
                accumulate: true,
            };
            let (n, most) = (200, 300);
            let all = cases::check_linear(&mut CpuBackend::with_isa(1, isa), &case(most)).unwrap();
            for threads in [1, 2, 5] {
                for rows in (1..=14).chain([47, 48, 49, 95, 97, 300]) {
                    let mut backend = CpuBackend::with_isa(threads, isa);
                    let some = cases::check_linear(&mut backend, &case(rows)).unwrap();
                    assert_eq!(
                        bits(&some),
                        bits(&all[..rows * n]),
                        "{isa:?} {dtype:?}, {rows} rows, {threads} threads"
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
                ((4, 2, 32), Dtype::Bf16, None),
                ((1, 1, 16), Dtype::F32, Some(9)),
                ((3, 1, 24), Dtype::Bf16, Some(18)),
                ((2, 2, 16), Dtype::F16, None),
            ] {
                let case = |block_tokens| AttentionCase {
                    tree: tree.clone(),
                    heads,
                    block_tokens,
                    dtype,
                    window,
                };
                let nodes: Vec<usize> = (0..tree.nodes.len()).collect();
                let mut one = CpuBackend::with_isa(1, isa);
                let expected = cases::check_attention(&mut one, &case(16), &nodes).unwrap();
                let same = |got: cases::NodeRows, what: &str| {
                    for (at, row) in got {
                        let (_, expected) = expected.iter().find(|(e, _)| *e == at).unwrap();
                        assert_eq!(bits(&row), bits(expected), "{}: {what}, {at:?}", tree.name);
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
        let (plan, _) = StepPlan::build(
            &[SequenceRows {
                table: &entries,
                tokens: &tokens,
                write: true,
                outputs: &outputs,
            }],
            1,
        );
        let plan = backend.upload(&plan).unwrap();
        let mut all = backend.activations(vocabulary, cols).unwrap();
        let mut some = backend.activations(4, cols).unwrap();
        backend.embed(&table, &plan, &mut all);
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
        block_tokens: 3,
        dtype: Dtype::Bf16,
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
