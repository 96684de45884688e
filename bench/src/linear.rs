//! Linear layers against the machine's limits, swept over rows, shapes, weight types and threads.
//!
//! A weight is multiplied with after as many others as fit no cache, as in a model's pass; so the
//! bytes per second of few rows are memory's.

use clap::Args;
use kernels::cpu::Stored;
use kernels::{Backend, CpuBackend, Dtype, MatrixView, Quantization, Quantized};
use serde::{Deserialize, Serialize};

use crate::limits::{Achieved, Limits, isa_of, isa_word, threads_of};
use crate::plot::Lines;
use crate::report::{Output, Report};
use crate::shapes::Shape;
use crate::stats::{Stat, time};
use crate::{Done, named};

/// Bytes of weights that are multiplied with in turn: more than caches hold.
const SET_BYTES: usize = 192 << 20;
/// The most matrices of a set, where they are small.
const MOST_MATRICES: usize = 256;
/// Seconds of a repetition.
const SECONDS: f64 = 0.04;

/// How weights are stored, and what they are called.
const KINDS: [(&str, Stored); 5] = [
    ("bf16", Stored::Float(Dtype::Bf16)),
    ("f32", Stored::Float(Dtype::F32)),
    ("f16", Stored::Float(Dtype::F16)),
    ("int8", Stored::Quantized(Quantization::Int8)),
    ("int4", Stored::Quantized(Quantization::Int4)),
];

/// What is swept.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// Take the products of this model: nano, qwen2.5-0.5b, llama-3.2-1b, qwen2.5-1.5b or
    /// llama-3.1-8b.
    #[arg(long, default_value = "qwen2.5-0.5b", value_name = "SHAPE", value_parser = Shape::word)]
    pub shape: String,
    /// Rows of the activations.
    #[arg(long, default_value = "1,2,4,8,16,32,64,128,256,512", value_delimiter = ',', value_name = "ROWS,...", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub rows: Vec<u32>,
    /// How weights are stored: bf16, f32, f16, int8, int4.
    #[arg(long, default_value = "bf16", value_delimiter = ',', value_name = "KIND,...", value_parser = kind)]
    pub weights: Vec<String>,
    /// Threads; 0 takes every core. Several numbers are several sweeps.
    #[arg(
        long,
        default_value = "1,0",
        value_delimiter = ',',
        value_name = "COUNT,..."
    )]
    pub threads: Vec<usize>,
    /// Hold the CPU to an instruction set: portable, avx2, avx-512 or amx. Default: the best there is.
    #[arg(long, value_name = "SET", value_parser = isa_word)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
    /// Only the product of this name: qkv, output, gate-up, down or head.
    #[arg(long, value_name = "PRODUCT")]
    pub product: Option<String>,
    /// Repetitions that count.
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
}

fn kind(word: &str) -> Result<String, String> {
    named(word, &KINDS).map(|(name, _)| name.to_string())
}

/// One product with so many rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How the weights are stored.
    pub weights: String,
    /// Threads.
    pub threads: usize,
    /// Which product of the model.
    pub product: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Rows.
    pub rows: u32,
    /// Seconds of a product.
    pub seconds: Stat,
    /// Against the limits of so many threads; bytes are the weights'.
    pub achieved: Achieved,
}

/// A model's products: name, output and input features.
fn products(shape: Shape) -> Done<Vec<(&'static str, usize, usize)>> {
    let config = engine::checkpoint::config::ModelConfig::open(&shape.source())
        .map_err(|e| e.to_string())?;
    let c = &config;
    let attended = c.heads * c.head_dim;
    Ok(vec![
        ("qkv", attended + 2 * c.kv_heads * c.head_dim, c.hidden),
        ("output", c.hidden, attended),
        ("gate-up", 2 * c.intermediate, c.hidden),
        ("down", c.hidden, c.intermediate),
        ("head", c.vocab, c.hidden),
    ])
}

/// Measures; progress goes to standard error.
///
/// # Errors
/// A product that the model does not have, or too little memory.
pub fn run(flags: &Flags, output: &Output) -> Done<String> {
    let mut products = products(Shape::parse(&flags.shape)?)?;
    if let Some(only) = &flags.product {
        let names: Vec<_> = products.iter().map(|p| p.0).collect();
        products.retain(|p| p.0 == only);
        if products.is_empty() {
            return Err(format!(
                "--product {only}: expected one of {}",
                names.join(", ")
            ));
        }
    }
    let mut threads: Vec<usize> = flags.threads.iter().map(|&t| threads_of(t)).collect();
    threads.dedup();
    let limits: Vec<Limits> = threads.iter().map(|&t| Limits::measure(t)).collect();
    let isa = isa_of(flags.isa.as_deref())?;
    let device = CpuBackend::with_isa(1, isa).name();
    let mut report = Report::new("linear", device, limits.clone(), flags.clone());
    for limits in &limits {
        let mut backend = CpuBackend::with_isa(limits.threads, isa);
        for &(kind, stored) in KINDS
            .iter()
            .filter(|k| flags.weights.iter().any(|w| w == k.0))
        {
            for &(product, n, k) in &products {
                eprintln!("{} threads, {kind}, {product}", limits.threads);
                let set = Set::load(&mut backend, stored, n, k).map_err(|e| e.to_string())?;
                for &rows in &flags.rows {
                    let seconds = set
                        .time(&mut backend, rows as usize, flags.repeat as usize)
                        .map_err(|e| e.to_string())?;
                    let flops = 2.0 * f64::from(rows) * n as f64 * k as f64;
                    let bytes = set.bytes as f64;
                    report.rows.push(Row {
                        weights: kind.into(),
                        threads: limits.threads,
                        product: product.into(),
                        n,
                        k,
                        rows,
                        seconds,
                        achieved: Achieved::of(flops, bytes, seconds.median, limits),
                    });
                }
            }
        }
    }
    let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
    let plots = plots(&report)?;
    report.give(output, (&HEADER, 3, &rows), &plots)
}

/// Matrices of one shape, together larger than the caches.
struct Set {
    matrices: Vec<kernels::cpu::Weight>,
    n: usize,
    k: usize,
    /// Of one.
    bytes: usize,
}

impl Set {
    fn load(
        backend: &mut CpuBackend,
        stored: Stored,
        n: usize,
        k: usize,
    ) -> Result<Set, kernels::Error> {
        // A small number above 0, whatever the type: 0x3c3c.
        let dtype = match stored {
            Stored::Float(dtype) => dtype,
            Stored::Quantized(_) => Dtype::Bf16,
        };
        let data = vec![0x3c; n * k * dtype.bytes()];
        let view = MatrixView {
            rows: n,
            cols: k,
            dtype,
            bytes: &data,
        };
        let quantized = match stored {
            Stored::Float(_) => None,
            Stored::Quantized(kind) => Some([Quantized::new(&view, kind)]),
        };
        let load = |backend: &mut CpuBackend| match &quantized {
            None => backend.load_matrix(&[view]),
            Some(parts) => backend.load_quantized(parts),
        };
        let first = load(backend)?;
        let bytes = backend.weight_bytes(&first);
        let count = SET_BYTES.div_ceil(bytes.max(1)).clamp(1, MOST_MATRICES);
        let mut matrices = vec![first];
        for _ in 1..count {
            matrices.push(load(backend)?);
        }
        Ok(Set {
            matrices,
            n,
            k,
            bytes,
        })
    }

    /// Seconds of a product with the set's next matrix.
    fn time(
        &self,
        backend: &mut CpuBackend,
        rows: usize,
        runs: usize,
    ) -> Result<Stat, kernels::Error> {
        let mut x = backend.product_activations(rows, self.k)?;
        x.data_mut().fill(0.5);
        let mut out = backend.activations(rows, self.n)?;
        let mut turn = self.matrices.iter().cycle();
        Ok(time(runs, SECONDS, || {
            if let Some(w) = turn.next() {
                backend.linear(&x, w, None, rows, false, &mut out);
            }
        }))
    }
}

const HEADER: [&str; 10] = [
    "weights", "product", "N x K", "threads", "rows", "us", "GFLOP/s", "of peak", "GB/s", "of read",
];

fn cells(row: &Row) -> Vec<String> {
    let a = &row.achieved;
    vec![
        row.weights.clone(),
        row.product.clone(),
        format!("{} x {}", row.n, row.k),
        row.threads.to_string(),
        row.rows.to_string(),
        row.seconds.words(1e6, 1),
        format!("{:.1}", 1e-9 * a.flops_per_second),
        format!("{:.0}%", 100.0 * a.share_of_fma_peak),
        format!("{:.1}", 1e-9 * a.bytes_per_second),
        format!("{:.0}%", 100.0 * a.share_of_read_bandwidth),
    ]
}

/// By number of threads: both shares over rows, a curve per kind and product.
fn plots(report: &Report<Flags, Row>) -> Done<Vec<(String, String)>> {
    let measures = [
        ("fma", "share of the f32 multiply-add peak"),
        ("read", "share of the read bandwidth"),
    ];
    let mut plots = Vec::new();
    for limits in &report.limits {
        for (name, label) in measures {
            let mut series: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
            for row in report
                .rows
                .iter()
                .filter(|row| row.threads == limits.threads)
            {
                let curve = format!("{} {}", row.weights, row.product);
                let share = match name {
                    "fma" => row.achieved.share_of_fma_peak,
                    _ => row.achieved.share_of_read_bandwidth,
                };
                let point = (f64::from(row.rows), share);
                match series.iter_mut().find(|(name, _)| *name == curve) {
                    Some((_, points)) => points.push(point),
                    None => series.push((curve, vec![point])),
                }
            }
            let picture = Lines {
                title: format!(
                    "Products of {}, {} thread{}",
                    report.settings.shape,
                    limits.threads,
                    if limits.threads == 1 { "" } else { "s" }
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
    fn a_model_has_five_products() {
        let shape = Shape::parse("qwen2.5-0.5b").expect("a shape");
        let products = products(shape).expect("a config");
        let parameters: usize = products.iter().map(|&(_, n, k)| n * k).sum();
        assert_eq!(products[0], ("qkv", 1152, 896));
        assert_eq!(products[2], ("gate-up", 9728, 896));
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
            threads: vec![1],
            isa: None,
            product: Some("down".into()),
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
            product: Some("gate".into()),
            ..flags
        };
        let error = run(&unknown, &output).expect_err("no such product");
        assert!(
            error.starts_with("--product gate: expected one of qkv,"),
            "{error}"
        );
    }
}
