//! What predictions count, against what the emulated card counts and what an engine calls.
#![allow(clippy::unwrap_used)] // A failed step fails the test.

// The name that the shared helpers of the kernels' tests know them by.
extern crate kernels as offshoot_kernels;

#[path = "../../kernels/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;

use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::{Branch, Confidences, Engine, Generate, ModelSpec, Options, Sampling};
use futures::future::try_join_all;
use kernels::cuda::items::Sharing;
use kernels::cuda::study::{self, Beam};
use kernels::cuda::{LinearLaunch, emulator_calls, emulator_count, emulator_counters};
use kernels::{Backend, BatchPlan, BlockId, CpuBackend, SequenceRows};
use offshoot_bench::machine::root;
use offshoot_bench::predict::attention;
use offshoot_bench::predict::batch::Batch;
use offshoot_bench::predict::cards::Card;
use offshoot_bench::predict::model::Model;
use offshoot_bench::predict::operations::{Operation, operations};
use offshoot_bench::shapes::Shape;
use offshoot_bench::timed::{self, Phase, Timed};
use serde_json::Value;

/// The emulator's default card.
fn card() -> &'static Card {
    Card::parse("a100").unwrap()
}

/// Bytes that the launches of `call` request from L2 by loads of global memory, by kernel.
fn requested(call: impl FnOnce()) -> Vec<(String, f64)> {
    emulator_count(true).unwrap();
    call();
    let counters: Value = serde_json::from_str(&emulator_counters().unwrap()).unwrap();
    emulator_count(false).unwrap();
    let launches = counters["launches"].as_array().unwrap();
    let bytes = |launch: &Value| {
        let sectors = launch.pointer("/global_load/sectors").unwrap();
        let kernel = launch["kernel"].as_str().unwrap().to_string();
        (kernel, 32.0 * sectors.as_f64().unwrap())
    };
    launches.iter().map(bytes).collect()
}

/// Complains where two figures are further apart than a share.
fn close(complaints: &mut Vec<String>, what: &str, predicted: f64, counted: f64, share: f64) {
    let apart = (predicted / counted - 1.0).abs();
    if apart.is_nan() || apart > share {
        complaints.push(format!("{what}: predicted {predicted}, counted {counted}"));
    }
}

#[test]
fn linear_layers_request_the_predicted_bytes() {
    let (_one, backend) = common::emulated();
    drop(backend);
    let (mut complaints, mut tiles) = (Vec::new(), BTreeSet::new());
    // Every tile, and shapes that no tile divides.
    for (rows, n, k) in [
        (1, 256, 512),
        (16, 3520, 256),
        (24, 512, 384),
        (32, 3520, 128),
        (64, 3520, 128),
        (40, 264, 200),
        (100, 192, 256),
        (130, 200, 96),
        (1152, 1536, 64),
    ] {
        let launch = LinearLaunch::of(rows, n, card().sms);
        let predicted = launch.requested_bytes(rows, n, k) as f64;
        let counted = requested(|| study::linear(rows, n, k).unwrap());
        let what = format!("{rows} x {n} x {k} by {}", counted[0].0);
        assert!(counted[0].0.starts_with(launch.kernel.name), "{what}");
        tiles.insert(launch.kernel.name);
        // Bias and old outputs are not there, so only W and x are loaded. Where a row of x is no whole number
        // of sectors, both its ends are counted whole.
        let share = if k % 16 == 0 { 1e-9 } else { 0.06 };
        close(&mut complaints, &what, predicted, counted[0].1, share);
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    // Six skinny and two tiled ones.
    assert_eq!(tiles.len(), 8, "{tiles:?}");
}

#[test]
fn attention_requests_the_predicted_bytes() {
    let (_one, backend) = common::emulated();
    drop(backend);
    let mut complaints = Vec::new();
    for (heads, beams, prompt) in [
        ((8, 2, 64), 4, 128),
        ((8, 2, 64), 16, 64),
        ((4, 4, 128), 8, 96),
    ] {
        let beam = Beam {
            beams,
            width: 4,
            prompt,
            steps: 4,
            step_tokens: 32,
            seed: 0,
        };
        for sharing in [Sharing::Tree, Sharing::Cascade, Sharing::Flat] {
            let (plan, _) = beam.plan();
            let predicted = attention::count(card(), &plan, heads, None, sharing, 16);
            let counted = requested(|| {
                study::attention(&beam, heads, sharing).unwrap();
            });
            let attend = counted.iter().find(|(name, _)| name == "tree_attention");
            let what = format!("{heads:?} x {beams}, {sharing:?}");
            // Positions and destinations are counted by the row, not by the sector.
            let found = attend.unwrap().1;
            close(
                &mut complaints,
                &what,
                predicted.requested_bytes,
                found,
                0.01,
            );
            assert_eq!(predicted.launches(), counted.len(), "{what}");
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// A decode batch of branches that share a prompt, each `own` tokens behind it.
fn forked(branches: usize, prompt: usize, own: usize) -> BatchPlan {
    let tables: Vec<Vec<(BlockId, u32)>> = (0..branches)
        .map(|branch| {
            let shared = (0..prompt / 16).map(|block| (BlockId(block as u32), 16));
            let own = (BlockId((prompt / 16 + branch) as u32), own as u32);
            shared.chain([own]).collect()
        })
        .collect();
    let sequences: Vec<SequenceRows<'_>> = (tables.iter())
        .map(|table| SequenceRows {
            table,
            token_ids: &[0],
            write: true,
            outputs: &[0],
        })
        .collect();
    BatchPlan::build(&sequences, 16).0
}

const PROMPT: usize = 64;
const BRANCHES: usize = 4;

/// Generates `tokens` tokens on each of some branches that share a prompt.
fn generate<B: Backend + 'static>(backend: B, source: Source, tokens: usize) {
    let checkpoint = Checkpoint::random(source, 0).unwrap();
    let options = Options {
        kv_bytes: Some(4 << 20),
        ..Options::default()
    };
    let specs = [ModelSpec::new(&checkpoint, None)];
    let (engine, models) = Engine::new(backend, &specs, &options).unwrap();
    let mut root: Branch = models[0].root(0);
    root.append(&vec![1; PROMPT]).unwrap();
    let branches: Vec<Branch> = (0..BRANCHES).map(|_| root.fork()).collect();
    let all = branches.into_iter().map(|mut branch| async move {
        let how = Generate {
            sampling: Sampling::default(),
            max_tokens: tokens,
            stop_strings: Vec::new(),
            include_stop: false,
            stop_token_ids: Vec::new(),
            stream: None,
            confidences: Confidences::None,
        };
        branch.generate(how).await
    });
    let texts = engine.run(try_join_all(all)).unwrap().unwrap();
    assert!(texts.iter().all(|text| text.token_ids.len() == tokens));
}

/// Llama's pass; one with norms of heads; one with norms behind the blocks and with windows.
fn models() -> [(Source, Model); 3] {
    let folder = |name: &str| {
        let path = root().join("tests/golden/data").join(name);
        let model = Model::find(&path.display().to_string()).unwrap();
        (Source::directory(path).unwrap(), model)
    };
    let nano = Shape::parse("nano").unwrap().source();
    [
        (nano, Model::find("nano").unwrap()),
        folder("qwen3-g8-untied-bf16"),
        folder("gemma3-g2-tied-bf16"),
    ]
}

#[test]
fn decode_batches_launch_the_predicted_kernels() {
    let names = [
        "cuLaunchKernel",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
    ];
    for (source, model) in models() {
        let calls = |tokens| {
            let (_one, mut backend) = common::emulated();
            backend.set_graphs(false);
            let before = names.map(|name| emulator_calls(name).unwrap());
            generate(backend, source.clone(), tokens);
            let after = names.map(|name| emulator_calls(name).unwrap());
            [0, 1, 2].map(|i| after[i] - before[i])
        };
        // Longer runs differ by decode batches alone.
        let (short, long) = (calls(4), calls(12));
        let [kernels, there, back] = [0, 1, 2].map(|i| (long[i] - short[i]) as f64 / 8.0);
        let batch = Batch::decoding(card(), &model, &forked(BRANCHES, PROMPT, 8));
        let predicted = (batch.launches() as f64, batch.copies as f64);
        let name = &model.name;
        assert_eq!(
            (kernels, there + back),
            predicted,
            "{name}: {there}, {back}"
        );
    }
}

#[test]
fn the_operations_are_those_that_an_engine_calls() {
    for (source, model) in models() {
        compare_operations(source, &model);
    }
}

fn compare_operations(source: Source, model: &Model) {
    let name = &model.name;
    let (backend, profile) = Timed::new(CpuBackend::new(1));
    generate(backend, source, 12);
    let counts = profile.take();
    let decode = &counts[&(0, Phase::Decode)];
    let rows = BRANCHES;
    let predicted = operations(model, rows, rows, false);
    let calls = |kind: timed::Operation| {
        let of = predicted.iter().map(|operation| match (kind, operation) {
            // The CPU leaves the activation to another call as well.
            (timed::Operation::Linear, Operation::Linear { output_bytes, .. }) => {
                usize::from(*output_bytes != 4)
            }
            (timed::Operation::Linear, Operation::LinearGated { .. })
            | (timed::Operation::Activations, Operation::LinearGated { .. })
            | (
                timed::Operation::Head,
                Operation::Linear {
                    output_bytes: 4, ..
                },
            )
            | (timed::Operation::Norms, Operation::Norm { .. } | Operation::QkNorm)
            | (timed::Operation::Append, Operation::Rope)
            | (timed::Operation::Attention, Operation::Attention { .. })
            | (timed::Operation::Sampling, Operation::Sample) => 1,
            _ => 0,
        });
        of.sum::<usize>() as u64
    };
    for kind in timed::Operation::ALL {
        if kind != timed::Operation::Other {
            let counted = decode.cost(kind).calls;
            assert_eq!(
                counted,
                decode.steps * calls(kind),
                "{name}: {}",
                kind.name()
            );
        }
    }
    let flops = predicted.iter().map(|operation| match operation {
        Operation::Linear { shape, .. } | Operation::LinearGated { shape, .. } => {
            2.0 * (shape.rows * shape.n * shape.k) as f64
        }
        _ => 0.0,
    });
    let counted =
        decode.cost(timed::Operation::Linear).flops + decode.cost(timed::Operation::Head).flops;
    assert_eq!(counted, decode.steps as f64 * flops.sum::<f64>(), "{name}");
}
