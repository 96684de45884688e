//! What sampling, attention and the row-wise operations cost.
//!
//!     cargo run --release -p offshoot-kernels --example operations -- [threads]
//!
//! Every figure is the median of seven repetitions of at least 20 ms.

use offshoot_kernels::{
    Backend, BlockId, CpuBackend, Draw, Dtype, Error, KvLayout, RopeTable, Sampling, SequenceRows,
    StepPlan,
};
use timing::median_seconds;

mod timing;

fn main() -> Result<(), Error> {
    let threads = std::env::args()
        .nth(1)
        .map_or(Ok(1), |t| t.parse())
        .expect("threads: a number");
    let mut backend = CpuBackend::new(threads);
    println!("{}", backend.name());
    sampling(&mut backend)?;
    row_wise(&mut backend)?;
    for (heads, kv_heads, head_dim) in [(4, 2, 32), (14, 2, 64)] {
        for (stem, own, branches) in [(96, 48, 64), (1024, 128, 64), (1024, 128, 1)] {
            decode(
                &mut backend,
                (heads, kv_heads, head_dim),
                stem,
                own,
                branches,
            )?;
        }
        prefill(&mut backend, (heads, kv_heads, head_dim), 512)?;
    }
    Ok(())
}

fn sampling(backend: &mut CpuBackend) -> Result<(), Error> {
    let plain = Sampling {
        temperature: 0.8,
        ..Sampling::default()
    };
    let greedy = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    let filtered = Sampling {
        top_k: 50,
        top_p: 0.9,
        ..plain
    };
    for vocabulary in [512, 151_936] {
        let rows = 64;
        let mut logits = backend.activations(rows, vocabulary)?;
        for (i, l) in logits.data_mut().iter_mut().enumerate() {
            let u = offshoot_kernels::philox::uniform_u64(1, i as u64) >> 40;
            *l = u as f32 / (1 << 20) as f32;
        }
        for (name, sampling) in [
            ("greedy", &greedy),
            ("temperature", &plain),
            ("top-k, top-p", &filtered),
        ] {
            let draws: Vec<Draw<'_>> = (0..rows)
                .map(|row| Draw {
                    row,
                    sampling,
                    history: &[],
                    key: row as u64,
                    position: 0,
                })
                .collect();
            let seconds = median_seconds(|| {
                let pending = backend.sample(&logits, &draws);
                std::hint::black_box(backend.finish_samples(pending)).expect("good logits");
            });
            println!(
                "sample, vocabulary {vocabulary:6}, {name:12}: {:8.2} us a draw",
                1e6 * seconds / rows as f64
            );
        }
    }
    Ok(())
}

fn row_wise(backend: &mut CpuBackend) -> Result<(), Error> {
    for (rows, cols) in [(64, 128), (64, 2048)] {
        let mut x = backend.activations(rows, 2 * cols)?;
        x.data_mut().fill(0.3);
        let mut half = backend.activations(rows, cols)?;
        let mut out = backend.activations(rows, 2 * cols)?;
        let weight = backend.load_vector(&vec![1.0; 2 * cols])?;
        let norm = median_seconds(|| backend.rms_norm(&x, &weight, 1e-5, rows, &mut out));
        let gate = median_seconds(|| backend.swiglu(&x, rows, &mut half));
        println!(
            "{rows} rows: rms_norm of {} {:.1} us, swiglu to {cols} {:.1} us",
            2 * cols,
            1e6 * norm,
            1e6 * gate
        );
    }
    Ok(())
}

/// One decode row for each of `branches` branches: a stem, then tokens of its own.
fn decode(
    backend: &mut CpuBackend,
    heads: (usize, usize, usize),
    stem: u32,
    own: u32,
    branches: usize,
) -> Result<(), Error> {
    let mut next = 0;
    let mut blocks = |tokens: u32| -> Vec<(BlockId, u32)> {
        (0..tokens / 16)
            .map(|_| {
                next += 1;
                (BlockId(next - 1), 16)
            })
            .collect()
    };
    let shared = blocks(stem);
    let tables: Vec<Vec<(BlockId, u32)>> = (0..branches)
        .map(|_| [shared.clone(), blocks(own)].concat())
        .collect();
    let what = format!("decode, {branches:2} branches, stem {stem:4} + {own:3}");
    attention(backend, heads, &tables, 1, &what)
}

fn prefill(
    backend: &mut CpuBackend,
    heads: (usize, usize, usize),
    tokens: usize,
) -> Result<(), Error> {
    let table = (0..tokens as u32 / 16).map(|b| (BlockId(b), 16)).collect();
    let what = format!("prefill of {tokens}");
    attention(backend, heads, &[table], tokens, &what)
}

fn attention(
    backend: &mut CpuBackend,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    tables: &[Vec<(BlockId, u32)>],
    rows_each: usize,
    what: &str,
) -> Result<(), Error> {
    let mut layout = KvLayout {
        layers: 1,
        heads,
        kv_heads,
        head_dim,
        block_tokens: 16,
        dtype: Dtype::Bf16.into(),
        unit_bytes: 0,
    };
    layout.unit_bytes = layout.block_bytes().next_multiple_of(64);
    let tokens = vec![0; rows_each];
    let sequences: Vec<SequenceRows<'_>> = tables
        .iter()
        .map(|table| SequenceRows {
            table,
            tokens: &tokens,
            write: true,
            outputs: &[],
        })
        .collect();
    let planning = median_seconds(|| {
        std::hint::black_box(StepPlan::build(&sequences, 16));
    });
    let (plan, _) = StepPlan::build(&sequences, 16);
    let rows = plan.rows.len();
    let last = plan.blocks.iter().map(|b| b.0).max().unwrap_or(0);
    let mut arena = backend.arena((last as usize + 1) * layout.unit_bytes)?;
    let mut qkv = backend.activations(rows, layout.qkv_cols())?;
    qkv.data_mut().fill(0.1);
    let mut out = backend.activations(rows, heads * head_dim)?;
    let positions = 2048;
    let rope = backend.load_rope(RopeTable {
        half_dim: head_dim / 2,
        cos: vec![1.0; positions * head_dim / 2],
        sin: vec![0.0; positions * head_dim / 2],
    })?;
    let uploaded = backend.upload(&plan)?;
    let append = median_seconds(|| {
        backend.rope_and_append(&mut qkv, &rope, &uploaded, &layout, 0, &mut arena)
    });
    let attend = median_seconds(|| {
        backend.tree_attention(&qkv, &uploaded, &layout, 0, None, &arena, &mut out)
    });
    let visible: usize = plan.rows.iter().map(|r| r.position as usize + 1).sum();
    println!(
        "{heads:2} heads of {head_dim}, {kv_heads} kv; {what}: attention {:8.1} us ({:4.1} GFLOP/s), \
         rope and append {:6.1} us, plan {:5.1} us",
        1e6 * attend,
        4e-9 * (heads * head_dim * visible) as f64 / attend,
        1e6 * append,
        1e6 * planning
    );
    Ok(())
}
