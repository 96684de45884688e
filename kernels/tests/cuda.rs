//! The CUDA backend on the emulated GPU against the tables of cases.
#![allow(clippy::unwrap_used)] // A failed operation fails the test.

mod common;

use offshoot_kernels::cases::{self, Device, check_all};
use offshoot_kernels::sampling::{Sampler, Sampling};
use offshoot_kernels::{
    Backend, BlockId, Draw, Dtype, Error, KvLayout, MatrixView, SequenceRows, StepPlan,
};

#[test]
fn linear_is_right() {
    let (mut backend, _one) = common::emulated();
    check_all(&cases::linear_cases(), |case| {
        cases::check_linear(&mut backend, case).map(drop)
    });
}

#[test]
fn gated_products_are_right() {
    let (mut backend, _one) = common::emulated();
    check_all(&cases::GATED_SHAPES, |shape| {
        cases::check_linear_swiglu(&mut backend, shape).map(drop)
    });
}

#[test]
fn products_by_cublaslt_are_right() {
    let (mut backend, _one) = common::emulated();
    assert_eq!(backend.cublaslt_products(), None);
    backend.set_cublaslt(Some(common::cublaslt())).unwrap();
    check_all(&cases::linear_cases(), |case| {
        let before = backend.cublaslt_products();
        cases::check_linear(&mut backend, case).map(drop)?;
        let used = backend.cublaslt_products() != before;
        match used == (case.rows > 64 && !case.bias) {
            true => Ok(()),
            false => Err(format!("computed by the library: {used}")),
        }
    });
    check_all(&cases::GATED_SHAPES, |shape| {
        cases::check_linear_swiglu(&mut backend, shape).map(drop)
    });
}

#[test]
fn row_wise_operations_are_right() {
    let (mut backend, _one) = common::emulated();
    let b = &mut backend;
    check_all(&cases::ROW_SHAPES, |s| {
        cases::check_rms_norm(b, s).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |s| cases::check_swiglu(b, s).map(drop));
    check_all(&cases::ROW_SHAPES, |s| cases::check_relu(b, s).map(drop));
    let heads: Vec<_> = cases::HEADS.iter().map(|&heads| (5, heads)).collect();
    check_all(&heads, |s| cases::check_qk_norm(b, s).map(drop));
}

#[test]
fn attention_is_right() {
    let (mut backend, _one) = common::emulated();
    let mut refused = std::collections::BTreeSet::new();
    check_all(&cases::attention_cases(), |case| {
        let mut case = case.clone();
        case.dtype = backend.kv_dtype(Dtype::Bf16);
        if backend.check_layout(&case.layout()).is_err() {
            refused.insert(case.heads.2);
            return Ok(());
        }
        let all: Vec<usize> = (0..case.tree.nodes.len()).collect();
        cases::check_attention(&mut backend, &case, &all).map(drop)
    });
    // What is no multiple of a tensor-core product's depth, and nothing else.
    assert_eq!(refused, [6, 8, 24].into());
}

#[test]
fn embed_and_gather_copy_rows() {
    let (mut backend, _one) = common::emulated();
    let (vocabulary, cols) = (37, 20);
    let values = cases::numbers(8, vocabulary * cols);
    let bytes = cases::matrix_bytes(&values, Dtype::Bf16);
    let view = MatrixView {
        rows: vocabulary,
        cols,
        dtype: Dtype::Bf16,
        bytes: &bytes,
    };
    let table = backend.load_matrix(&[view]).unwrap();
    let tokens: Vec<u32> = (0..vocabulary as u32).rev().collect();
    let entries: Vec<(BlockId, u32)> = (0..37).map(|b| (BlockId(b), 1)).collect();
    let outputs = [0, 5, 36];
    let sequence = SequenceRows {
        table: &entries,
        tokens: &tokens,
        write: true,
        outputs: &outputs,
    };
    let (plan, _) = StepPlan::build(&[sequence], 1);
    let plan = backend.upload(&plan).unwrap();
    let mut all = backend.activations(vocabulary, cols).unwrap();
    let mut some = backend.activations(4, cols).unwrap();
    backend.embed(&table, &plan, &mut all);
    backend.gather_outputs(&all, &plan, &mut some);
    let pending = backend.read(&all, 0..vocabulary);
    let all = backend.finish_read(pending).unwrap();
    let pending = backend.read(&some, 0..4);
    let some = backend.finish_read(pending).unwrap();
    for (r, &token) in tokens.iter().enumerate() {
        let expected: Vec<f32> = values[token as usize * cols..][..cols]
            .iter()
            .map(|&v| half::bf16::from_f32(v).to_f32())
            .collect();
        assert_eq!(all[r * cols..][..cols], expected, "token {token}");
    }
    for (i, output) in outputs.into_iter().enumerate() {
        let from = output as usize * cols;
        assert_eq!(some[i * cols..][..cols], all[from..][..cols]);
    }
    assert_eq!(some[3 * cols..], vec![0.0; cols]);
}

/// A layout of two layers, one KV head.
fn small_layout() -> KvLayout {
    let mut layout = KvLayout {
        layers: 2,
        heads: 1,
        kv_heads: 1,
        head_dim: 32,
        block_tokens: 4,
        dtype: Dtype::Bf16,
        unit_bytes: 64,
    };
    layout.unit_bytes = layout.block_bytes();
    layout
}

#[test]
fn a_copied_block_is_attended_to_like_its_original() {
    let (mut backend, _one) = common::emulated();
    let layout = small_layout();
    let rope = offshoot_kernels::RopeTable {
        half_dim: 16,
        cos: vec![1.0; 16 * 8],
        sin: vec![0.0; 16 * 8],
    };
    let rope = backend.load_rope(rope).unwrap();
    let mut arena = backend.arena(6 * layout.unit_bytes).unwrap();
    backend.poison(&mut arena);
    let mut qkv = backend.product_activations(7, layout.qkv_cols()).unwrap();
    let numbers = cases::numbers(9, 7 * layout.qkv_cols());
    let mut answers = Vec::new();
    // Seven tokens into blocks 0 and 3; then, the blocks copied, the last row again through the copies.
    for (blocks, rows, write) in [([0, 3], 0..7, true), ([5, 1], 6..7, false)] {
        let table = [(BlockId(blocks[0]), 4), (BlockId(blocks[1]), 3)];
        let tokens = vec![0; rows.len()];
        let sequence = SequenceRows {
            table: &table,
            tokens: &tokens,
            write,
            outputs: &[],
        };
        let (plan, _) = StepPlan::build(&[sequence], layout.block_tokens);
        let plan = backend.upload(&plan).unwrap();
        let width = layout.heads * layout.head_dim;
        let mut out = backend.product_activations(rows.len(), width).unwrap();
        let values = &numbers[rows.start * layout.qkv_cols()..rows.end * layout.qkv_cols()];
        Device::write(&mut backend, &mut qkv, values);
        for layer in 0..2 {
            let b = &mut backend;
            b.rope_and_append(&mut qkv, &rope, &plan, &layout, layer, &mut arena);
        }
        backend.tree_attention(&qkv, &plan, &layout, 1, None, &arena, &mut out);
        let pending = backend.read(&out, rows.len() - 1..rows.len());
        answers.push(backend.finish_read(pending).unwrap());
        let pairs = [(BlockId(0), BlockId(5)), (BlockId(3), BlockId(1))];
        backend.copy_blocks(&layout, &pairs, &mut arena);
    }
    assert!(answers[0].iter().all(|v| v.is_finite()));
    assert_eq!(answers[0], answers[1]);
}

/// Settings with every filter alone and together.
fn settings() -> Vec<Sampling> {
    let mut all = Vec::new();
    for (temperature, top_k, top_p, min_p) in [
        (0.0, 0, 1.0, 0.0),
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1e-45, 0, 1.0, 0.0),
        (f32::INFINITY, 0, 1.0, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.0, 1, 1.0, 0.0),
        (0.8, 0, 0.9, 0.0),
        (1.0, 0, 1.0, 0.1),
        (0.9, 40, 0.8, 0.05),
        (1.0, 0, 0.0, 0.0),
    ] {
        for repetition_penalty in [1.0, 1.3] {
            all.push(Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
            });
        }
    }
    all
}

#[test]
fn equal_logits_give_the_cpus_tokens() {
    let (mut backend, _one) = common::emulated();
    for (vocabulary, rows) in [(1, 2), (7, 3), (480, 4), (5_003, 2)] {
        // Eighths, so that some tie.
        let logits: Vec<f32> = cases::numbers(21, rows * vocabulary)
            .iter()
            .map(|v| (v * 40.0).round() / 8.0)
            .collect();
        let mut buffer = backend.activations(rows, vocabulary).unwrap();
        Device::write(&mut backend, &mut buffer, &logits);
        let settings = settings();
        let history: Vec<u32> = (0..vocabulary as u32).step_by(3).collect();
        let draws: Vec<Draw<'_>> = (0..3 * settings.len())
            .map(|i| Draw {
                row: i % rows,
                sampling: &settings[i % settings.len()],
                history: &history,
                key: 77 + i as u64,
                position: (i as u64) << 31,
            })
            .collect();
        let pending = backend.sample(&buffer, &draws);
        let samples = backend.finish_samples(pending).unwrap();
        for (draw, sample) in draws.iter().zip(samples) {
            let row = &logits[draw.row * vocabulary..][..vocabulary];
            let expected = Sampler::new().draw(row, draw).unwrap();
            assert_eq!(sample.token, expected.token, "{vocabulary}: {draw:?}");
            let error = (sample.logprob - expected.logprob).abs();
            assert!(error <= 1e-6 * expected.logprob.abs().max(1.0), "{draw:?}");
        }
    }
}

#[test]
fn unusable_logits_are_the_cpus_error() {
    let (mut backend, _one) = common::emulated();
    let infinity = f32::INFINITY;
    let mut penalised = Sampling::GREEDY;
    penalised.repetition_penalty = 2.0;
    for logits in [
        vec![0.0, f32::NAN, 1.0],
        vec![f32::NAN, 0.0, f32::NAN],
        vec![0.0, 1.0, infinity],
        vec![-infinity; 3],
        vec![f32::NAN; 3],
    ] {
        let mut buffer = backend.activations(1, 3).unwrap();
        Device::write(&mut backend, &mut buffer, &logits);
        for sampling in [&Sampling::GREEDY, &Sampling::default(), &penalised] {
            let draw = Draw {
                row: 0,
                sampling,
                history: &[0],
                key: 1,
                position: 2,
            };
            let expected = Sampler::new().draw(&logits, &draw).expect_err("bad");
            let pending = backend.sample(&buffer, &[draw]);
            let error = backend.finish_samples(pending).expect_err("bad");
            assert_eq!(error.to_string(), expected.to_string());
        }
    }
}

#[test]
fn what_there_is_no_kernel_for_is_refused_by_name() {
    let (mut backend, _one) = common::emulated();
    let mut x = backend.activations(2, 16).unwrap();
    let bytes = cases::matrix_bytes(&[0.5; 16 * 16], Dtype::Bf16);
    let w = backend
        .load_matrix(&[MatrixView {
            rows: 16,
            cols: 16,
            dtype: Dtype::Bf16,
            bytes: &bytes,
        }])
        .unwrap();
    let mut out = backend.activations(2, 16).unwrap();
    backend.linear(&x, &w, None, 2, false, &mut out);
    // Everything after it is refused, too, until the error has been told.
    backend.relu(&mut x, 2);
    let pending = backend.read(&out, 0..2);
    let error = backend.finish_read(pending).expect_err("refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("2 x 16 x 16"), "{error}");
    let layout = KvLayout {
        head_dim: 24,
        ..small_layout()
    };
    let error = backend.check_layout(&layout).expect_err("refused");
    assert!(error.to_string().contains("head dimension 24"), "{error}");
}
