//! Linear layers against the machine's limits, swept over rows, shapes, weight types and threads.
//!
//! The weight matrices of one shape together exceed the caches and are used in turn, as in a
//! model's forward pass. So the bytes per second of few rows come from memory.

use clap::Args;
use kernels::cpu::Stored;
use kernels::{Backend, CpuBackend, Dtype, MatrixView, Quantization, QuantizedMatrix};
use serde::{Deserialize, Serialize};

use crate::limits::{Achieved, Limits};
use crate::plot::{Lines, Series, add_point};
use crate::report::{Output, Report};
use crate::shapes::Shape;
use crate::stats::{Stat, time};
use crate::sweep::Cpu;
use crate::{Done, named};

/// Bytes of the weights that are used in turn: more than caches hold.
const SET_BYTES: usize = 192 << 20;
/// Bound on the number of matrices of a set, for small ones.
const MAX_MATRICES: usize = 256;
/// Seconds of a repetition.
const SECONDS: f64 = 0.04;

/// Storage types of weights by name.
const KINDS: [(&str, Stored); 5] = [
    ("bf16", Stored::Float(Dtype::Bf16)),
    ("f32", Stored::Float(Dtype::F32)),
    ("f16", Stored::Float(Dtype::F16)),
    ("int8", Stored::Quantized(Quantization::Int8)),
    ("int4", Stored::Quantized(Quantization::Int4)),
];

/// The ranges of the sweep.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// Take the linear layers of this model: nano, qwen2.5-0.5b, llama-3.2-1b, qwen2.5-1.5b,
    /// qwen2.5-7b or llama-3.1-8b.
    #[arg(long, default_value = "qwen2.5-0.5b", value_name = "SHAPE", value_parser = Shape::word)]
    pub shape: String,
    /// Rows of the activations.
    #[arg(long, default_value = "1,2,4,8,16,32,64,128,256,512", value_delimiter = ',', value_name = "ROWS,...", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub rows: Vec<u32>,
    /// How weights are stored: bf16, f32, f16, int8, int4.
    #[arg(long, default_value = "bf16", value_delimiter = ',', value_name = "KIND,...", value_parser = kind)]
    pub weights: Vec<String>,
    /// How the CPU is used.
    #[command(flatten)]
    #[serde(flatten)]
    pub cpu: Cpu,
    /// Only the layer of this name: qkv, output, gate-up, down or head.
    #[arg(long, alias = "product", value_name = "LAYER")]
    #[serde(alias = "product")]
    pub layer: Option<String>,
    /// Measured repetitions.
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
}

fn kind(word: &str) -> Result<String, String> {
    named(word, &KINDS).map(|(name, _)| name.to_string())
}

/// One linear layer with a number of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How the weights are stored.
    pub weights: String,
    /// Threads.
    pub threads: usize,
    /// Which layer of the model.
    #[serde(alias = "product")]
    pub layer: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Rows.
    pub rows: u32,
    /// Seconds of one call.
    pub seconds: Stat,
    /// Against the limits of this number of threads; bytes are the weights'.
    pub achieved: Achieved,
}

/// A linear layer of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layer {
    name: &'static str,
    /// Output features.
    n: usize,
    /// Input features.
    k: usize,
}

/// The distinct linear layers of a model.
fn layers(shape: Shape) -> Done<Vec<Layer>> {
    let config = engine::checkpoint::config::ModelConfig::open(&shape.source())
        .map_err(|e| e.to_string())?;
    let c = &config;
    let attended = c.heads * c.head_dim;
    let layer = |name, n, k| Layer { name, n, k };
    Ok(vec![
        layer("qkv", attended + 2 * c.kv_heads * c.head_dim, c.hidden),
        layer("output", c.hidden, attended),
        layer("gate-up", 2 * c.intermediate, c.hidden),
        layer("down", c.hidden, c.intermediate),
        layer("head", c.vocab, c.hidden),
    ])
}

/// The layers that the flags select.
fn selected(flags: &Flags) -> Done<Vec<Layer>> {
    let mut layers = layers(Shape::parse(&flags.shape)?)?;
    if let Some(only) = &flags.layer {
        let names: Vec<_> = layers.iter().map(|layer| layer.name).collect();
        layers.retain(|layer| layer.name == only);
        if layers.is_empty() {
            let names = names.join(", ");
            return Err(format!("--layer {only}: expected one of {names}"));
        }
    }
    Ok(layers)
}

/// Measures; progress goes to standard error.
///
/// # Errors
/// A layer that the model does not have, or too little memory.
pub fn run(flags: &Flags, output: &Output) -> Done<String> {
    let layers = selected(flags)?;
    let (mut report, isa) = flags.cpu.report("linear", flags.clone())?;
    for limits in &report.limits {
        let mut backend = CpuBackend::with_isa(limits.threads, isa);
        for &(kind, stored) in &KINDS {
            if !flags.weights.iter().any(|wanted| wanted == kind) {
                continue;
            }
            for &layer in &layers {
                eprintln!("{} threads, {kind}, {}", limits.threads, layer.name);
                let set = Set::load(&mut backend, stored, layer).map_err(|e| e.to_string())?;
                for &rows in &flags.rows {
                    let seconds = set
                        .time(&mut backend, rows as usize, flags.repeat as usize)
                        .map_err(|e| e.to_string())?;
                    let row = set.row(kind, rows, seconds, limits);
                    report.rows.push(row);
                }
            }
        }
    }
    let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
    let plots = plots(&report)?;
    report.give(output, (&HEADER, 3, &rows), &plots)
}

/// Matrices of one layer's shape, together larger than the caches.
struct Set {
    matrices: Vec<kernels::cpu::Weight>,
    layer: Layer,
    /// Bytes of one matrix.
    bytes: usize,
}

impl Set {
    fn load(backend: &mut CpuBackend, stored: Stored, layer: Layer) -> Result<Set, kernels::Error> {
        // Bytes 0x3c are a small positive number in every type.
        let dtype = match stored {
            Stored::Float(dtype) => dtype,
            Stored::Quantized(_) => Dtype::Bf16,
        };
        let data = vec![0x3c; layer.n * layer.k * dtype.bytes()];
        let view = MatrixView {
            rows: layer.n,
            cols: layer.k,
            dtype,
            bytes: &data,
        };
        let quantized = match stored {
            Stored::Float(_) => None,
            Stored::Quantized(kind) => Some([QuantizedMatrix::new(&view, kind)]),
        };
        let load = |backend: &mut CpuBackend| match &quantized {
            None => backend.load_matrix(&[view]),
            Some(parts) => backend.load_quantized(parts),
        };
        let first = load(backend)?;
        let bytes = backend.weight_bytes(&first);
        let count = SET_BYTES.div_ceil(bytes.max(1)).clamp(1, MAX_MATRICES);
        let mut matrices = vec![first];
        for _ in 1..count {
            matrices.push(load(backend)?);
        }
        Ok(Set {
            matrices,
            layer,
            bytes,
        })
    }

    /// Seconds of a call with the set's next matrix.
    fn time(
        &self,
        backend: &mut CpuBackend,
        rows: usize,
        runs: usize,
    ) -> Result<Stat, kernels::Error> {
        let mut x = backend.half_activations(rows, self.layer.k)?;
        x.data_mut().fill(0.5);
        let mut out = backend.activations(rows, self.layer.n)?;
        let mut turn = self.matrices.iter().cycle();
        Ok(time(runs, SECONDS, || {
            if let Some(w) = turn.next() {
                backend.linear(&x, w, None, rows, false, &mut out);
            }
        }))
    }

    fn row(&self, weights: &str, rows: u32, seconds: Stat, limits: &Limits) -> Row {
        let Layer { name, n, k } = self.layer;
        let flops = 2.0 * f64::from(rows) * n as f64 * k as f64;
        Row {
            weights: weights.into(),
            threads: limits.threads,
            layer: name.into(),
            n,
            k,
            rows,
            seconds,
            achieved: Achieved::of(flops, self.bytes as f64, seconds.median, limits),
        }
    }
}

const HEADER: [&str; 10] = [
    "weights", "layer", "N x K", "threads", "rows", "us", "GFLOP/s", "of peak", "GB/s", "of read",
];

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![
        row.weights.clone(),
        row.layer.clone(),
        format!("{} x {}", row.n, row.k),
        row.threads.to_string(),
        row.rows.to_string(),
        row.seconds.words(1e6, 1),
    ];
    cells.extend(Achieved::cells(Some(&row.achieved)));
    cells
}

/// By number of threads: both shares over rows, a curve per storage type and layer.
fn plots(report: &Report<Flags, Row>) -> Done<Vec<(String, String)>> {
    type Share = fn(&Achieved) -> f64;
    let shares: [(&str, &str, Share); 2] = [
        ("fma", "share of the f32 multiply-add peak", |a| {
            a.share_of_fma_peak
        }),
        ("read", "share of the read bandwidth", |a| {
            a.share_of_read_bandwidth
        }),
    ];
    let mut plots = Vec::new();
    for limits in &report.limits {
        for (name, label, share) in shares {
            let mut series: Vec<Series> = Vec::new();
            let rows = report.rows.iter();
            for row in rows.filter(|row| row.threads == limits.threads) {
                let curve = format!("{} {}", row.weights, row.layer);
                let point = (f64::from(row.rows), share(&row.achieved));
                add_point(&mut series, curve, point);
            }
            let picture = Lines {
                title: format!(
                    "Linear layers of {}, {}",
                    report.settings.shape,
                    limits.threads_in_words()
                ),
                x: "rows".into(),
                y: label.into(),
                series,
                limits: vec![("limit".into(), 1.0)],
            };
            plots.push((format!("{name}-{}", limits.threads), picture.svg()?));
        }
    }
    Ok(plots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_five_layers() {
        let shape = Shape::parse("qwen2.5-0.5b").expect("a shape");
        let layers = layers(shape).expect("a config");
        let parameters: usize = layers.iter().map(|layer| layer.n * layer.k).sum();
        let facts = |layer: Layer| (layer.name, layer.n, layer.k);
        assert_eq!(facts(layers[0]), ("qkv", 1152, 896));
        assert_eq!(facts(layers[2]), ("gate-up", 9728, 896));
        assert_eq!(
            parameters,
            1152 * 896 + 896 * 896 + 3 * 4864 * 896 + 151_936 * 896
        );
    }

    #[test]
    fn a_small_sweep_has_a_row_for_each_case() {
        let flags = Flags {
            shape: "nano".into(),
            rows: vec![1, 8],
            weights: vec!["int8".into(), "bf16".into()],
            cpu: Cpu {
                threads: vec![1],
                isa: None,
            },
            layer: Some("down".into()),
            repeat: 1,
        };
        let output = Output {
            json: true,
            out: None,
        };
        let text = run(&flags, &output).expect("runs");
        let report: Report<Flags, Row> = serde_json::from_str(&text).expect("JSON");
        let cases: Vec<_> = report
            .rows
            .iter()
            .map(|r| (r.weights.as_str(), r.rows))
            .collect();
        assert_eq!(cases, [("bf16", 1), ("bf16", 8), ("int8", 1), ("int8", 8)]);
        for row in &report.rows {
            assert_eq!((row.n, row.k), (32, 64));
            assert!(row.seconds.median > 0.0 && row.achieved.share_of_fma_peak > 0.0);
        }
        let unknown = Flags {
            layer: Some("gate".into()),
            ..flags
        };
        let error = run(&unknown, &output).expect_err("no such layer");
        assert!(
            error.starts_with("--layer gate: expected one of qkv,"),
            "{error}"
        );
    }

    #[test]
    fn a_committed_report_is_read() {
        let folder = "bench/results/2026-11-28-intel-xeon-model-167-amx-2-cores/linear";
        let path = crate::machine::root().join(folder).join("linear.json");
        let text = std::fs::read_to_string(path).expect("a committed report");
        let report: Report<Flags, Row> = serde_json::from_str(&text).expect("a report");
        assert!(!report.rows.is_empty() && !report.limits.is_empty());
        assert!(report.rows.iter().any(|row| row.layer == "gate-up"));
    }
}
