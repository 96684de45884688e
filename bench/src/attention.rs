//! Tree attention, and the operations around linear layers, against the machine's limits.
//!
//! Attention of one decode batch over a tree: branches below a prompt, beam searches, and a prompt
//! being prefilled. Bytes are those of the distinct keys and values, which the batch must read at
//! least once; beside them stands what the branches would read each for itself.

use clap::Args;
use engine::checkpoint::config::ModelConfig;
use kernels::cuda::study::Beam;
use kernels::philox::uniform_u64;
use kernels::{
    Activation, Backend, BatchPlan, BlockId, CpuBackend, Draw, Dtype, KvDtype, KvLayout, RopeTable,
    Sampling, SequenceRows,
};
use serde::{Deserialize, Serialize};

use crate::limits::{Achieved, Limits};
use crate::plot::{Lines, Series, add_point};
use crate::report::{Output, Report};
use crate::shapes::Shape;
use crate::stats::{Stat, time};
use crate::sweep::Cpu;
use crate::{Done, named};

/// Tokens in a block, as the engine's by default.
const BLOCK_TOKENS: usize = 16;
/// Seconds of a repetition.
const SECONDS: f64 = 0.03;
/// Bytes of KV of several layers that are read in turn, so that they come from memory, as in a
/// model's forward pass.
const KV_BYTES: usize = 96 << 20;
/// Bound on the number of these layers.
const MAX_LAYERS: usize = 32;

/// How K and V are stored.
const KV: [(&str, KvDtype); 4] = [
    ("bf16", KvDtype::Float(Dtype::Bf16)),
    ("f32", KvDtype::Float(Dtype::F32)),
    ("f16", KvDtype::Float(Dtype::F16)),
    ("int8", KvDtype::Int8),
];

/// The ranges of the sweep.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// Take the heads, the vocabulary and the widths of this model: nano, qwen2.5-0.5b,
    /// llama-3.2-1b, qwen2.5-1.5b, qwen2.5-7b or llama-3.1-8b.
    #[arg(long, default_value = "qwen2.5-0.5b", value_name = "SHAPE", value_parser = Shape::word)]
    pub shape: String,
    /// Tokens of the prompt.
    #[arg(long, default_value = "512,2048", value_delimiter = ',', value_name = "TOKENS,...", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt: Vec<u32>,
    /// Branches below it.
    #[arg(long, default_value = "1,4,16,64", value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub branches: Vec<u32>,
    /// Tokens of each branch below the prompt; a beam search writes them in 16 steps.
    #[arg(long, default_value_t = 256, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub own: u32,
    /// How K and V are stored: bf16, f32, f16, int8.
    #[arg(long, default_value = "bf16", value_delimiter = ',', value_name = "KIND,...", value_parser = kind)]
    pub kv: Vec<String>,
    /// How the CPU is used.
    #[command(flatten)]
    #[serde(flatten)]
    pub cpu: Cpu,
    /// Only the trees, without sampling and the row-wise operations.
    #[arg(long)]
    pub trees_only: bool,
    /// Measured repetitions.
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
}

fn kind(word: &str) -> Result<String, String> {
    named(word, &KV).map(|(name, _)| name.to_string())
}

/// The shape of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tree {
    /// Branches that share nothing.
    Flat,
    /// Branches below one prompt.
    Shared,
    /// The end of a beam search with 4 children per survivor; survivors are random.
    Beam,
    /// All rows of one prompt in one batch.
    Prefill,
}

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Tree::Flat => "flat",
            Tree::Shared => "shared",
            Tree::Beam => "beam",
            Tree::Prefill => "prefill",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The operation.
    pub operation: String,
    /// Threads.
    pub threads: usize,
    /// How K and V are stored; `None` for operations that do not read them.
    pub kv: Option<String>,
    /// The tree; `None` for operations that do not depend on one.
    pub tree: Option<Tree>,
    /// Tokens of the prompt; 0 without a tree.
    pub prompt: u32,
    /// Rows of the batch.
    pub rows: usize,
    /// Seconds of one call; of attention: in one layer.
    pub seconds: Stat,
    /// Against the limits, for attention only; bytes are the distinct keys and values.
    pub achieved: Option<Achieved>,
    /// Bytes that the rows would read each for itself, as a multiple of those.
    pub sharing: Option<f64>,
}

/// Measures; progress goes to standard error.
///
/// # Errors
/// Too little memory.
pub fn run(flags: &Flags, output: &Output) -> Done<String> {
    let config = ModelConfig::open(&Shape::parse(&flags.shape)?.source());
    let config = config.map_err(|e| e.to_string())?;
    let (mut report, isa) = flags.cpu.report("attention", flags.clone())?;
    for limits in &report.limits {
        let mut study = Study {
            backend: CpuBackend::with_isa(limits.threads, isa),
            config: &config,
            limits,
            runs: flags.repeat as usize,
            rows: Vec::new(),
        };
        study.all(flags).map_err(|e| e.to_string())?;
        report.rows.append(&mut study.rows);
    }
    let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
    let plots = plots(&report)?;
    report.give(output, (&HEADER, 3, &rows), &plots)
}

struct Study<'a> {
    backend: CpuBackend,
    config: &'a ModelConfig,
    limits: &'a Limits,
    runs: usize,
    rows: Vec<Row>,
}

impl Study<'_> {
    fn all(&mut self, flags: &Flags) -> Result<(), kernels::Error> {
        for &(kv, dtype) in KV
            .iter()
            .filter(|(name, _)| flags.kv.iter().any(|k| k == name))
        {
            for &prompt in &flags.prompt {
                eprintln!("{} threads, {kv}, prompt {prompt}", self.limits.threads);
                for &branches in &flags.branches {
                    for tree in [Tree::Flat, Tree::Shared, Tree::Beam] {
                        let plan =
                            tree_plan(tree, prompt as usize, branches as usize, flags.own as usize);
                        self.tree((kv, dtype), tree, prompt, &plan)?;
                    }
                }
                let plan = prefill_plan(prompt as usize);
                self.tree((kv, dtype), Tree::Prefill, prompt, &plan)?;
            }
        }
        if !flags.trees_only {
            self.sampling()?;
            self.row_wise()?;
        }
        Ok(())
    }

    fn add(&mut self, operation: &str, rows: usize, seconds: Stat) {
        self.rows.push(Row {
            operation: operation.into(),
            threads: self.limits.threads,
            kv: None,
            tree: None,
            prompt: 0,
            rows,
            seconds,
            achieved: None,
            sharing: None,
        });
    }

    /// Attention, and rotation with appending, over the plan of a batch.
    fn tree(
        &mut self,
        (kv, dtype): (&str, KvDtype),
        tree: Tree,
        prompt: u32,
        (plan, blocks): &(BatchPlan, usize),
    ) -> Result<(), kernels::Error> {
        let layout = self.layout(dtype, *blocks);
        let [append, attend] = self.time_tree(&layout, plan, *blocks)?;
        let visible: f64 = (plan.rows.iter())
            .map(|r| f64::from(r.position) + 1.0)
            .sum();
        let unique: f64 = plan.runs.iter().map(|run| f64::from(run.num_tokens)).sum();
        let token_bytes = (layout.token_bytes() / layout.layers) as f64;
        let flops = 4.0 * (layout.heads * layout.head_dim) as f64 * visible;
        let achieved = Achieved::of(flops, unique * token_bytes, attend.median, self.limits);
        let row = Row {
            operation: "attention".into(),
            threads: self.limits.threads,
            kv: Some(kv.into()),
            tree: Some(tree),
            prompt,
            rows: plan.rows.len(),
            seconds: attend,
            achieved: Some(achieved),
            sharing: Some(visible / unique),
        };
        self.rows.push(row.clone());
        self.rows.push(Row {
            operation: "rotate and append".into(),
            seconds: append,
            achieved: None,
            sharing: None,
            ..row
        });
        Ok(())
    }

    /// The layout of `blocks` blocks in so many layers that they exceed the caches.
    fn layout(&self, dtype: KvDtype, blocks: usize) -> KvLayout {
        let c = self.config;
        let mut layout = KvLayout {
            layers: 1,
            heads: c.heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            query_scalar: c.head_dim,
            block_tokens: BLOCK_TOKENS,
            dtype,
            unit_bytes: 64,
        };
        let layer_bytes = blocks * layout.block_bytes();
        layout.layers = KV_BYTES.div_ceil(layer_bytes).clamp(1, MAX_LAYERS);
        layout.unit_bytes = layout.block_bytes().next_multiple_of(64);
        layout
    }

    /// Seconds in one layer: of rotation with appending, and of attention.
    fn time_tree(
        &mut self,
        layout: &KvLayout,
        plan: &BatchPlan,
        blocks: usize,
    ) -> Result<[Stat; 2], kernels::Error> {
        let (backend, runs) = (&mut self.backend, self.runs);
        let mut arena = backend.arena(blocks * layout.unit_bytes)?;
        // Bytes 0x3c are a small positive number in bf16, f16 and f32, and as int8's scales.
        arena.bytes_mut().fill(0x3c);
        let rows = plan.rows.len();
        let mut qkv = backend.half_activations(rows, layout.qkv_cols())?;
        qkv.data_mut().fill(0.1);
        let mut out = backend.half_activations(rows, layout.heads * layout.head_dim)?;
        let last = plan.rows.iter().map(|row| row.position as usize).max();
        let half_dim = layout.head_dim / 2;
        let angles = (last.unwrap_or(0) + 1) * half_dim;
        let rope = backend.load_rope(RopeTable {
            half_dim,
            cos: vec![1.0; angles],
            sin: vec![0.0; angles],
        })?;
        let uploaded = backend.upload(plan)?;
        let mut layer = 0;
        let append = time(runs, SECONDS, || {
            layer = (layer + 1) % layout.layers;
            backend.rope_and_append(&mut qkv, &rope, &uploaded, layout, layer, &mut arena);
        });
        let attend = time(runs, SECONDS, || {
            layer = (layer + 1) % layout.layers;
            backend.tree_attention(&qkv, &uploaded, layout, layer, None, &arena, &mut out);
        });
        Ok([append, attend])
    }

    /// Sampling one token for each of 64 rows.
    fn sampling(&mut self) -> Result<(), kernels::Error> {
        const ROWS: usize = 64;
        let vocab = self.config.vocab;
        let plain = Sampling {
            temperature: 0.8,
            ..Sampling::default()
        };
        let greedy = Sampling {
            temperature: 0.0,
            ..plain
        };
        let filtered = Sampling {
            top_k: 50,
            top_p: 0.9,
            ..plain
        };
        let mut logits = self.backend.activations(ROWS, vocab)?;
        for (i, logit) in logits.data_mut().iter_mut().enumerate() {
            *logit = (uniform_u64(1, i as u64) >> 40) as f32 / (1 << 20) as f32;
        }
        for (name, sampling) in [
            ("sample, greedy", greedy),
            ("sample, temperature", plain),
            ("sample, top-k and top-p", filtered),
        ] {
            let draws: Vec<Draw<'_>> = (0..ROWS)
                .map(|row| Draw {
                    row,
                    sampling: &sampling,
                    history: &[],
                    key: row as u64,
                    position: 0,
                    confidence: false,
                })
                .collect();
            let mut failed = None;
            let seconds = time(self.runs, SECONDS, || {
                let pending = self.backend.sample(&logits, &draws);
                failed = self.backend.finish_samples(pending).err();
            });
            match failed {
                Some(error) => return Err(error),
                None => self.add(name, ROWS, seconds),
            }
        }
        Ok(())
    }

    /// Norms and SwiGLU of 64 rows.
    fn row_wise(&mut self) -> Result<(), kernels::Error> {
        const ROWS: usize = 64;
        let (hidden, inner) = (self.config.hidden, self.config.intermediate);
        let backend = &mut self.backend;
        let mut x = backend.activations(ROWS, hidden)?;
        x.data_mut().fill(0.3);
        let mut normed = backend.half_activations(ROWS, hidden)?;
        let weight = backend.load_vector(&vec![1.0; hidden])?;
        let mut gate_up = backend.half_activations(ROWS, 2 * inner)?;
        gate_up.data_mut().fill(0.3);
        let mut out = backend.half_activations(ROWS, inner)?;
        let norm = time(self.runs, SECONDS, || {
            backend.rms_norm(&x, &weight, 1e-5, ROWS, &mut normed);
        });
        let gate = time(self.runs, SECONDS, || {
            backend.gated(&gate_up, Activation::Silu, ROWS, &mut out)
        });
        self.add("RMS norm", ROWS, norm);
        self.add("SwiGLU", ROWS, gate);
        Ok(())
    }
}

/// The plan of a decode batch, and the number of blocks.
fn tree_plan(tree: Tree, prompt: usize, branches: usize, own: usize) -> (BatchPlan, usize) {
    let steps = 16;
    let (prompt, steps, step_tokens) = match tree {
        Tree::Flat => (0, 1, prompt + own),
        Tree::Beam => (prompt, steps, own / steps),
        Tree::Shared | Tree::Prefill => (prompt, 1, own),
    };
    let beam = Beam {
        beams: branches,
        width: 4,
        prompt,
        steps,
        step_tokens,
        seed: 0,
    };
    beam.plan()
}

/// The plan of prefilling a prompt in one batch.
fn prefill_plan(tokens: usize) -> (BatchPlan, usize) {
    let table: Vec<(BlockId, u32)> = (0..tokens)
        .step_by(BLOCK_TOKENS)
        .enumerate()
        .map(|(block, first)| {
            (
                BlockId(block as u32),
                BLOCK_TOKENS.min(tokens - first) as u32,
            )
        })
        .collect();
    let rows = SequenceRows {
        table: &table,
        token_ids: &vec![0; tokens],
        write: true,
        outputs: &[],
    };
    (BatchPlan::build(&[rows], BLOCK_TOKENS).0, table.len())
}

const HEADER: [&str; 11] = [
    "operation",
    "tree",
    "KV",
    "threads",
    "prompt",
    "rows",
    "us",
    "GFLOP/s",
    "of peak",
    "GB/s of distinct KV",
    "read by rows / distinct",
];

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |cell: Option<String>| cell.unwrap_or("-".into());
    let mut cells = vec![
        row.operation.clone(),
        or_dash(row.tree.map(|tree| tree.name().into())),
        or_dash(row.kv.clone()),
        row.threads.to_string(),
        or_dash(row.tree.map(|_| row.prompt.to_string())),
        row.rows.to_string(),
        row.seconds.words(1e6, 1),
    ];
    let [flops, of_peak, bytes, _] = Achieved::cells(row.achieved.as_ref());
    cells.extend([flops, of_peak, bytes]);
    cells.push(or_dash(row.sharing.map(|sharing| format!("{sharing:.1}"))));
    cells
}

/// By number of threads: microseconds of attention over branches, a curve per tree and prompt.
fn plots(report: &Report<Flags, Row>) -> Done<Vec<(String, String)>> {
    let mut plots = Vec::new();
    for limits in &report.limits {
        let mut series: Vec<Series> = Vec::new();
        let rows = report.rows.iter();
        for row in rows.filter(|row| row.threads == limits.threads && row.achieved.is_some()) {
            let (Some(tree), Some(kv)) = (row.tree, &row.kv) else {
                continue;
            };
            if tree == Tree::Prefill {
                continue;
            }
            let curve = format!("{} of {}, {kv}", tree.name(), row.prompt);
            let point = (row.rows as f64, 1e6 * row.seconds.median / row.rows as f64);
            add_point(&mut series, curve, point);
        }
        let picture = Lines {
            title: format!(
                "Attention of a decode batch, {}, {}",
                report.settings.shape,
                limits.threads_in_words()
            ),
            x: "branches".into(),
            y: "microseconds a row, one layer".into(),
            series,
            limits: Vec::new(),
        };
        plots.push((format!("rows-{}", limits.threads), picture.svg()?));
    }
    Ok(plots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_share_what_they_say() {
        let tokens = |tree| {
            let (plan, _) = tree_plan(tree, 64, 8, 32);
            let unique: u32 = plan.runs.iter().map(|run| run.num_tokens).sum();
            let visible: u32 = plan.rows.iter().map(|row| row.position + 1).sum();
            (unique, visible)
        };
        assert_eq!(tokens(Tree::Flat), (8 * 96, 8 * 96));
        assert_eq!(tokens(Tree::Shared), (64 + 8 * 32, 8 * 96));
        let (unique, visible) = tokens(Tree::Beam);
        assert!(
            unique < 64 + 8 * 32 && visible == 8 * 96,
            "{unique} {visible}"
        );
        let (plan, blocks) = prefill_plan(100);
        assert_eq!((plan.rows.len(), blocks), (100, 7));
    }

    #[test]
    fn a_small_sweep_has_a_row_for_each_case() {
        let flags = Flags {
            shape: "nano".into(),
            prompt: vec![64],
            branches: vec![1, 8],
            own: 16,
            kv: vec!["bf16".into()],
            cpu: Cpu {
                threads: vec![1],
                isa: None,
            },
            trees_only: false,
            repeat: 1,
        };
        let output = Output {
            json: true,
            out: None,
        };
        let text = run(&flags, &output).expect("runs");
        let report: Report<Flags, Row> = serde_json::from_str(&text).expect("JSON");
        // Two operations of three trees with two numbers of branches, and of the prefill; three
        // samplers, two row-wise operations.
        assert_eq!(report.rows.len(), 2 * (3 * 2 + 1) + 5);
        assert!(report.rows.iter().all(|row| row.seconds.median > 0.0));
        let sharing = |tree, rows| {
            let found = report
                .rows
                .iter()
                .find(|r| r.tree == Some(tree) && r.rows == rows);
            found
                .and_then(|row| row.sharing)
                .expect("attention comes first")
        };
        assert_eq!(sharing(Tree::Flat, 8), 1.0);
        assert_eq!(sharing(Tree::Shared, 8), 640.0 / 192.0);
    }

    #[test]
    fn a_committed_report_is_read() {
        let folder = "bench/results/2026-11-28-intel-xeon-model-167-amx-2-cores/attention";
        let path = crate::machine::root().join(folder).join("attention.json");
        let text = std::fs::read_to_string(path).expect("a committed report");
        let report: Report<Flags, Row> = serde_json::from_str(&text).expect("a report");
        assert!(!report.rows.is_empty() && !report.limits.is_empty());
    }
}
