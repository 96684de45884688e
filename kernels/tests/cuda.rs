//! The CUDA backend on the emulated GPU against the tables of cases.
#![allow(clippy::unwrap_used)] // A failed operation fails the test.

mod common;

use std::process::Command;

use offshoot_kernels::cases::{self, Device, check_all};
use offshoot_kernels::cuda::{CudaBackend, emulator_calls};
use offshoot_kernels::sampling::{Sampler, Sampling};
use offshoot_kernels::{
    Allocation, Backend, BatchPlan, BlockId, Draw, Dtype, Error, KvLayout, MatrixView,
    SequenceRows, Substitution,
};

#[test]
fn linear_is_right() {
    let (_one, mut backend) = common::emulated();
    check_all(&cases::linear_cases(), |case| {
        cases::check_linear(&mut backend, case).map(drop)
    });
}

#[test]
fn gated_linear_layers_are_right() {
    let (_one, mut backend) = common::emulated();
    check_all(&cases::gated_linear_cases(), |case| {
        cases::check_linear_gated(&mut backend, case).map(drop)
    });
}

#[test]
fn linear_layers_by_cublaslt_are_right() {
    let (_one, mut backend) = common::emulated();
    assert_eq!(backend.cublaslt_products(), None);
    backend.set_cublaslt(Some(common::cublaslt())).unwrap();
    check_all(&cases::linear_cases(), |case| {
        let before = backend.cublaslt_products();
        cases::check_linear(&mut backend, case).map(drop)?;
        let used = backend.cublaslt_products() != before;
        if used == (case.rows >= 17) {
            Ok(())
        } else {
            Err(format!("computed by the library: {used}"))
        }
    });
    check_all(&cases::gated_linear_cases(), |case| {
        cases::check_linear_gated(&mut backend, case).map(drop)
    });
}

/// The library adds a bias of the output's type. One that bf16 would round is added in f32, by the
/// kernel here.
#[test]
fn a_bias_that_bf16_would_round_is_not_the_librarys() {
    let (_one, mut backend) = common::emulated();
    backend.set_cublaslt(Some(common::cublaslt())).unwrap();
    let (w, values) = embedding(&mut backend, 24, 16);
    let x = backend.half_activations(32, 16).unwrap();
    for (bias, by_library) in [(0.5f32, true), (0.1, false)] {
        let vector = backend.load_vector(&[bias; 24]).unwrap();
        let mut out = backend.half_activations(32, 24).unwrap();
        let before = backend.cublaslt_products();
        backend.linear(&x, &w, Some(&vector), 32, false, &mut out);
        assert_eq!(backend.cublaslt_products() != before, by_library, "{bias}");
        let pending = backend.read(&out, 0..32);
        let rounded = half::bf16::from_f32(bias).to_f32();
        let out = backend.finish_read(pending).unwrap();
        assert!(out.iter().all(|&v| v == rounded), "0 w + {bias}");
    }
    assert!(values.iter().any(|&v| v != 0.0));
}

/// Chunks of a prefill have any number of rows; the library chooses a kernel for few of them.
#[test]
fn chunks_of_a_prefill_have_few_numbers_of_rows() {
    let (_one, mut backend) = common::emulated();
    backend.set_cublaslt(Some(common::cublaslt())).unwrap();
    let (w, _) = embedding(&mut backend, 24, 16);
    let x = backend.half_activations(256, 16).unwrap();
    let mut out = backend.half_activations(256, 24).unwrap();
    let token_ids = [1; 256];
    for rows in 65..=192 {
        let entries: Vec<(BlockId, u32)> = (0..rows as u32).map(|b| (BlockId(b), 1)).collect();
        let sequence = SequenceRows {
            table: &entries,
            token_ids: &token_ids[..rows],
            write: true,
            outputs: &[0],
        };
        let (plan, _) = BatchPlan::build(&[sequence], 1);
        let padded = backend.padded_rows(&plan);
        backend.linear(&x, &w, None, padded, false, &mut out);
    }
    assert_eq!(backend.cublaslt_shapes(), Some(2));
}

/// Runs the test below in a process of its own, whose emulator adds in the way and on the card given.
/// Returns the bits of its long sums, in one word.
fn long_sums(way: &str, card: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "linear_layers_are_right_as_cards_sum",
        "--nocapture",
    ]);
    child.env("OFFSHOOT_EMULATOR_MMA", way);
    child.env("OFFSHOOT_EMULATOR_DEVICE", card);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{way} {card}: {text}{errors}");
    let word = text.split_once("long sums: ").expect("a word").1;
    word.split_whitespace().next().unwrap().to_owned()
}

/// The linear layers again, summed as the tensor cores of Ampere and Hopper sum.
#[test]
fn linear_layers_are_right_as_cards_sum() {
    let Some(way) = std::env::var_os("OFFSHOOT_EMULATOR_MMA") else {
        let exact = long_sums("exact", "a100");
        let (ampere, hopper) = (long_sums("card", "a100"), long_sums("card", "h100"));
        assert!(exact != ampere && exact != hopper && ampere != hopper);
        return;
    };
    let (_one, mut backend) = common::emulated();
    // Long sums differ most. Of the others every seventh, where they may.
    let (long, others): (Vec<_>, Vec<_>) =
        (cases::linear_cases().into_iter()).partition(|case| case.k >= 8192);
    if way == "card" {
        let some: Vec<_> = others.into_iter().step_by(7).collect();
        check_all(&some, |case| {
            cases::check_linear(&mut backend, case).map(drop)
        });
    }
    let mut word = 0u64;
    for library in [None, Some(common::cublaslt())] {
        backend.set_cublaslt(library).unwrap();
        check_all(&long, |case| {
            for sum in cases::check_linear(&mut backend, case)? {
                word = word.rotate_left(5).wrapping_mul(0x9e37_79b9) ^ u64::from(sum.to_bits());
            }
            Ok(())
        });
    }
    println!("long sums: {word:x}");
}

#[test]
fn row_wise_operations_are_right() {
    let (_one, mut backend) = common::emulated();
    let b = &mut backend;
    check_all(&cases::ROW_SHAPES, |s| {
        cases::check_rms_norm(b, s).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |s| {
        cases::check_add_rms_norm(b, s).map(drop)
    });
    check_all(&cases::gated_cases(), |c| {
        cases::check_gated(b, c).map(drop)
    });
    check_all(&cases::ROW_SHAPES, |s| cases::check_relu(b, s).map(drop));
    let heads: Vec<_> = cases::HEADS.iter().map(|&heads| (5, heads)).collect();
    check_all(&heads, |s| cases::check_qk_norm(b, s).map(drop));
}

#[test]
fn attention_is_right() {
    let (_one, mut backend) = common::emulated();
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
    // Head dimensions that are not a multiple of 16, the depth of an mma; no others.
    assert_eq!(refused, [6, 8, 24].into());
}

/// A table of numbers in bf16, and the numbers.
fn embedding(
    backend: &mut CudaBackend,
    vocabulary: usize,
    cols: usize,
) -> (<CudaBackend as Backend>::Weight, Vec<f32>) {
    let values = cases::numbers(8, vocabulary * cols);
    let bytes = cases::matrix_bytes(&values, Dtype::Bf16);
    let view = MatrixView {
        rows: vocabulary,
        cols,
        dtype: Dtype::Bf16,
        bytes: &bytes,
    };
    (backend.load_matrix(&[view]).unwrap(), values)
}

#[test]
fn embed_and_gather_copy_rows() {
    let (_one, mut backend) = common::emulated();
    let (vocabulary, cols) = (37, 20);
    let (table, values) = embedding(&mut backend, vocabulary, cols);
    let tokens: Vec<u32> = (0..vocabulary as u32).rev().collect();
    let entries: Vec<(BlockId, u32)> = (0..37).map(|b| (BlockId(b), 1)).collect();
    let outputs = [0, 5, 36];
    let sequence = SequenceRows {
        table: &entries,
        token_ids: &tokens,
        write: true,
        outputs: &outputs,
    };
    let (plan, _) = BatchPlan::build(&[sequence], 1);
    let plan = backend.upload(&plan).unwrap();
    let mut all = backend.activations(vocabulary, cols).unwrap();
    let mut some = backend.activations(4, cols).unwrap();
    backend.embed(&table, &plan, 1.0, &mut all);
    let mut scaled = backend.activations(vocabulary, cols).unwrap();
    backend.embed(&table, &plan, 5.65, &mut scaled);
    backend.gather_outputs(&all, &plan, &mut some);
    let pending = backend.read(&scaled, 0..vocabulary);
    let scaled = backend.finish_read(pending).unwrap();
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
        let expected: Vec<f32> = expected.iter().map(|v| 5.65 * v).collect();
        assert_eq!(
            scaled[r * cols..][..cols],
            expected,
            "token {token}, scaled"
        );
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
        query_scalar: 32,
        block_tokens: 4,
        dtype: Dtype::Bf16.into(),
        unit_bytes: 64,
    };
    layout.unit_bytes = layout.block_bytes();
    layout
}

#[test]
fn a_copied_block_is_attended_to_like_its_original() {
    let (_one, mut backend) = common::emulated();
    let layout = small_layout();
    let rope = offshoot_kernels::RopeTable {
        half_dim: 16,
        cos: vec![1.0; 16 * 8],
        sin: vec![0.0; 16 * 8],
    };
    let rope = backend.load_rope(rope).unwrap();
    let mut arena = backend.arena(6 * layout.unit_bytes).unwrap();
    backend.poison(&mut arena);
    let mut qkv = backend.half_activations(7, layout.qkv_cols()).unwrap();
    let numbers = cases::numbers(9, 7 * layout.qkv_cols());
    let mut answers = Vec::new();
    // Seven tokens into blocks 0 and 3; then, the blocks copied, the last row again through the
    // copies.
    for (blocks, rows, write) in [([0, 3], 0..7, true), ([5, 1], 6..7, false)] {
        let table = [(BlockId(blocks[0]), 4), (BlockId(blocks[1]), 3)];
        let tokens = vec![0; rows.len()];
        let sequence = SequenceRows {
            table: &table,
            token_ids: &tokens,
            write,
            outputs: &[],
        };
        let (plan, _) = BatchPlan::build(&[sequence], layout.block_tokens);
        let plan = backend.upload(&plan).unwrap();
        let width = layout.heads * layout.head_dim;
        let mut out = backend.half_activations(rows.len(), width).unwrap();
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
    let (_one, mut backend) = common::emulated();
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
                confidence: i % 3 != 0,
            })
            .collect();
        let pending = backend.sample(&buffer, &draws);
        let samples = backend.finish_samples(pending).unwrap();
        for (draw, sample) in draws.iter().zip(samples) {
            let row = &logits[draw.row * vocabulary..][..vocabulary];
            let expected = Sampler::new().draw(row, draw).unwrap();
            assert_eq!(sample.token_id, expected.token_id, "{vocabulary}: {draw:?}");
            let error = (sample.logprob - expected.logprob).abs();
            assert!(error <= 1e-6 * expected.logprob.abs().max(1.0), "{draw:?}");
            assert_eq!(sample.confidence.is_some(), draw.confidence);
            if let (Some(found), Some(expected)) = (sample.confidence, expected.confidence) {
                let apart = |a: f32, b: f32| (a - b).abs() > 1e-6 * b.abs().max(1.0);
                let certainty = apart(found.self_certainty, expected.self_certainty);
                assert!(
                    !certainty && !apart(found.top, expected.top),
                    "{vocabulary}: {found:?}, not {expected:?}"
                );
            }
            // Of integers, which are exact.
            assert_eq!(
                sample.processed_logprob, expected.processed_logprob,
                "{draw:?}"
            );
        }
    }
}

#[test]
fn unusable_logits_are_the_cpus_error() {
    let (_one, mut backend) = common::emulated();
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
                confidence: false,
            };
            let expected = Sampler::new().draw(&logits, &draw).expect_err("bad");
            let pending = backend.sample(&buffer, &[draw]);
            let error = backend.finish_samples(pending).expect_err("bad");
            assert_eq!(error.to_string(), expected.to_string());
        }
    }
}

#[test]
fn operations_without_a_kernel_are_refused_by_name() {
    let (_one, mut backend) = common::emulated();
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
    // Everything after it is refused, too, until the error has been returned.
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

/// Calls of the driver's entry points for memory: of the device and of the host.
fn allocations() -> u64 {
    ([
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemAllocHost_v2",
        "cuMemHostAlloc",
    ]
    .iter())
    .map(|name| emulator_calls(name).unwrap())
    .sum()
}

#[test]
fn buffers_of_models_lie_in_one_allocation() {
    let (_one, mut backend) = common::emulated();
    backend.set_memory_fraction(0.5);
    let numbers = cases::numbers(3, 100 * 72);
    let bytes = cases::matrix_bytes(&numbers, Dtype::F32);
    let view = MatrixView {
        rows: 100,
        cols: 72,
        dtype: Dtype::F32,
        bytes: &bytes,
    };
    let load = |backend: &mut CudaBackend| {
        let w = backend.load_matrix(&[view, view]).unwrap();
        let bias = backend.load_vector(&numbers[..200]).unwrap();
        let x = backend.half_activations(3, 72).unwrap();
        let out = backend.activations(3, 200).unwrap();
        (w, bias, x, out)
    };
    let models = [
        Allocation::Matrix {
            rows: 200,
            cols: 72,
        },
        Allocation::Vector { len: 200 },
        Allocation::HalfActivations { rows: 3, cols: 72 },
        Allocation::Activations { rows: 3, cols: 200 },
    ];
    let mut answers = Vec::new();
    for reserved in [false, true] {
        let before = allocations();
        if reserved {
            assert_eq!(backend.reserve(&models, &[], Some(4096)).unwrap(), 4096);
        }
        let (w, bias, mut x, mut out) = load(&mut backend);
        let taken = allocations() - before;
        assert_eq!(taken, if reserved { 1 } else { 4 });
        Device::write(&mut backend, &mut x, &numbers[..3 * 72]);
        backend.linear(&x, &w, Some(&bias), 3, false, &mut out);
        let pending = backend.read(&out, 0..3);
        answers.push(backend.finish_read(pending).unwrap());
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn models_that_do_not_fit_are_refused_with_the_bytes_needed_and_free() {
    let (_one, mut backend) = common::emulated();
    // The emulated A100 has 80 GiB.
    for (fraction, kv, words) in [
        (1e-5, None, "the models take 2.0 MiB with their buffers and"),
        (
            0.001,
            Some(1 << 30),
            "and the KV cache 1.0 GiB; 81.9 MiB may be used, 0.001 of the",
        ),
    ] {
        backend.set_memory_fraction(fraction);
        let models = [Allocation::Activations {
            rows: 1 << 10,
            cols: 1 << 9,
        }];
        let error = backend.reserve(&models, &[], kv).expect_err("does not fit");
        assert!(matches!(error, Error::DoesNotFit { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // The rest goes to the KV cache; the emulated card leaves this machine some memory.
    backend.set_memory_fraction(0.5);
    assert_eq!(backend.reserve(&[], &[], None).unwrap(), 1 << 30);
    // The kernel's offsets have 32 bits, in units of 64 bytes, or of 32 where a head's token has an
    // odd number of these.
    for (head_dim, reachable) in [(64, 256_usize << 30), (80, 128 << 30)] {
        let layouts = [KvLayout {
            head_dim,
            ..small_layout()
        }];
        let kv = Some(reachable + 1);
        let error = backend.reserve(&[], &layouts, kv).expect_err("too large");
        let words = format!("(at most {reachable})");
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[test]
fn substituted_tokens_are_those_drawn() {
    let (_one, mut backend) = common::emulated();
    let (vocabulary, cols, draws) = (40, 8, 300);
    let (table, values) = embedding(&mut backend, vocabulary, cols);
    let mut logits = backend.activations(1, vocabulary).unwrap();
    Device::write(&mut backend, &mut logits, &cases::numbers(5, vocabulary));
    let sampling = Sampling::default();
    let draws: Vec<Draw<'_>> = (0..draws)
        .map(|i| Draw {
            row: 0,
            sampling: &sampling,
            history: &[],
            key: 3,
            position: i,
            confidence: false,
        })
        .collect();
    // Every second row of a sequence goes on with a draw, from the last on.
    let tokens = vec![7; 2 * draws.len()];
    let entries: Vec<_> = (0..tokens.len() as u32).map(|b| (BlockId(b), 1)).collect();
    let sequence = SequenceRows {
        table: &entries,
        token_ids: &tokens,
        write: true,
        outputs: &[],
    };
    let (plan, _) = BatchPlan::build(&[sequence], 1);
    let substitutions: Vec<Substitution> = (0..draws.len() as u32)
        .map(|i| Substitution {
            row: 2 * i,
            draw: draws.len() as u32 - 1 - i,
        })
        .collect();
    let first = backend.sample(&logits, &draws);
    // Another call in between, as of another model, does not overwrite its tokens.
    let second = backend.sample(&logits, &draws[..1]);
    let mut plan = backend.upload(&plan).unwrap();
    backend.substitute_tokens(&mut plan, &substitutions, &first);
    let mut out = backend.activations(tokens.len(), cols).unwrap();
    backend.embed(&table, &plan, 1.0, &mut out);
    let pending = backend.read(&out, 0..tokens.len());
    let out = backend.finish_read(pending).unwrap();
    let drawn = backend.finish_samples(first).unwrap();
    assert_eq!(backend.finish_samples(second).unwrap(), drawn[..1]);
    for (r, row) in out.chunks(cols).enumerate() {
        let token = match r % 2 {
            0 => drawn[draws.len() - 1 - r / 2].token_id as usize,
            _ => 7,
        };
        let expected: Vec<f32> = values[token * cols..][..cols]
            .iter()
            .map(|&v| half::bf16::from_f32(v).to_f32())
            .collect();
        assert_eq!(row, expected, "row {r}");
    }
}

/// Decode batches over a growing tree: the attention outputs of each batch, padding aside, and the
/// number of driver calls that begin a recording, launch one, and launch a kernel.
fn decode(backend: &mut CudaBackend, graphs: bool) -> (Vec<Vec<f32>>, [u64; 3]) {
    backend.set_graphs(graphs);
    let calls = || {
        ["cuStreamBeginCapture_v2", "cuGraphLaunch", "cuLaunchKernel"]
            .map(|name| emulator_calls(name).unwrap())
    };
    let layout = small_layout();
    let (width, cols, vocabulary) = (layout.heads * layout.head_dim, layout.qkv_cols(), 50);
    let bytes = cases::matrix_bytes(&cases::numbers(4, vocabulary * cols), Dtype::Bf16);
    let view = MatrixView {
        rows: vocabulary,
        cols,
        dtype: Dtype::Bf16,
        bytes: &bytes,
    };
    let table = backend.load_matrix(&[view]).unwrap();
    let rope = offshoot_kernels::RopeTable {
        half_dim: 16,
        cos: cases::numbers(5, 16 * 64),
        sin: cases::numbers(6, 16 * 64),
    };
    let rope = backend.load_rope(rope).unwrap();
    let mut arena = backend.arena(200 * layout.unit_bytes).unwrap();
    backend.poison(&mut arena);
    let mut qkv = backend.half_activations(16, cols).unwrap();
    let mut out = backend.half_activations(16, width).unwrap();
    let mut gathered = backend.activations(16, width).unwrap();
    let mut recordings = Default::default();

    // A prompt of six tokens, and branches with blocks of their own behind it.
    let prompt = [(BlockId(0), 4), (BlockId(1), 2)];
    let mut branches: Vec<Vec<(BlockId, u32)>> = vec![prompt.to_vec(); 5];
    let mut next_block = 2;
    let mut answers = Vec::new();
    let before = calls();
    // Five branches take six rows. Other numbers of them come between.
    for (step, rows) in [0, 3, 5, 5, 4, 5, 3, 5, 2, 4, 5, 5, 3]
        .into_iter()
        .cycle()
        .take(40)
        .enumerate()
    {
        let tokens: Vec<u32> = (0..6).map(|i| (7 * step as u32 + i) % 50).collect();
        let sequences: Vec<SequenceRows<'_>> = match step {
            0 => vec![SequenceRows {
                table: &prompt,
                token_ids: &tokens,
                write: true,
                outputs: &[],
            }],
            _ => {
                for table in &mut branches[..rows] {
                    let full = table.last().is_none_or(|last| last.1 == 4);
                    match table.last_mut() {
                        Some(last) if !full && last.0.0 > 1 => last.1 += 1,
                        _ => {
                            table.push((BlockId(next_block), 1));
                            next_block += 1;
                        }
                    }
                }
                (branches[..rows].iter().zip(tokens.chunks(1)))
                    .map(|(table, tokens)| SequenceRows {
                        table,
                        token_ids: tokens,
                        write: true,
                        outputs: &[0],
                    })
                    .collect()
            }
        };
        let (plan, _) = BatchPlan::build(&sequences, layout.block_tokens);
        let count = plan.outputs.len();
        let plan = plan.padded(backend.padded_rows(&plan));
        let on_device = backend.upload(&plan).unwrap();
        backend.record(&mut recordings, &on_device, &mut |b| {
            b.embed(&table, &on_device, 1.0, &mut qkv);
            for layer in 0..2 {
                b.rope_and_append(&mut qkv, &rope, &on_device, &layout, layer, &mut arena);
                b.tree_attention(&qkv, &on_device, &layout, layer, None, &arena, &mut out);
            }
            b.gather_outputs(&out, &on_device, &mut gathered);
        });
        let pending = backend.read(&gathered, 0..count);
        answers.push(backend.finish_read(pending).unwrap());
    }
    let after = calls();
    (answers, [0, 1, 2].map(|i| after[i] - before[i]))
}

#[test]
fn recorded_passes_give_the_bits_of_launched_ones() {
    let (_one, mut backend) = common::emulated();
    // Recorded first: after the other run the fixed places would be large enough from the start.
    let (found, [captures, launches, fewer]) = decode(&mut backend, true);
    let (expected, [none, never, kernels]) = decode(&mut backend, false);
    assert_eq!((none, never), (0, 0));
    assert!(expected.iter().flatten().all(|v| v.is_finite()));
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "step {step}");
    }
    // Fixed places of 2, 4 and 6 rows. The first batch of each runs kernel by kernel, and so do the
    // prompt's and the three without rows. When the blocks outgrow their place, the pass is recorded
    // anew.
    assert_eq!(launches, 40 - 4 - 3);
    assert!((4..12).contains(&captures), "{captures} recordings");
    assert!(
        fewer < kernels / 2,
        "{fewer} kernels launched, {kernels} without"
    );
}
