//! How 8 and 4 bit weights and an 8 bit KV cache change the logits of a real checkpoint, as
//! Offshoot computes them: its integer matmuls quantize activations as well.
//! (`bench/real/logits.py` quantizes the weights alone.)

use std::path::{Path, PathBuf};

use clap::Args;
use engine::checkpoint::Checkpoint;
use engine::checkpoint::config::HeadKind;
use engine::checkpoint::source::Source;
use engine::text::tokenizer::Tokenizer;
use engine::{Engine, ModelSpec, Options};
use kernels::{CpuBackend, Dtype, KvDtype, Quantization};
use serde::Serialize;

use crate::Done;
use crate::machine::{Machine, root};
use crate::markdown::table;

/// Flags of `quantized`.
#[derive(Args, Debug)]
pub struct Flags {
    /// A checkpoint's folder, not quantised.
    #[arg(long, value_name = "FOLDER")]
    policy: PathBuf,
    /// The text whose tokens are predicted; the repository's README unless given.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Number of its tokens that are read; each takes 8 bytes per entry of the vocabulary.
    #[arg(long, value_name = "COUNT", default_value_t = 400, value_parser = clap::value_parser!(u16).range(2..=4096))]
    tokens: u16,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    json: bool,
}

/// One way to store weights and KV, against the weights as stored and KV in bf16.
#[derive(Debug, Serialize)]
struct Case {
    weights: &'static str,
    kv: &'static str,
    #[serde(flatten)]
    change: Change,
}

/// The effect on the logits.
#[derive(Debug, Serialize)]
struct Change {
    /// Norm of the logits' difference over that of the logits, all positions together.
    relative_difference: f64,
    /// Share of the positions whose most likely token is the same.
    same_token: f64,
    /// Mean negative log-likelihood of the text's next token, in nats.
    negative_log_likelihood: f64,
}

const BF16: KvDtype = KvDtype::Float(Dtype::Bf16);

/// The first is what the others are compared with.
const CASES: [(Option<Quantization>, KvDtype); 5] = [
    (None, BF16),
    (Some(Quantization::Int8), BF16),
    (Some(Quantization::Int4), BF16),
    (None, KvDtype::Int8),
    (Some(Quantization::Int8), KvDtype::Int8),
];

/// Runs the study.
///
/// # Errors
/// A checkpoint or text that cannot be read, a text too short, a model that does not write or is
/// quantised already: one sentence.
pub fn run(flags: &Flags) -> Done {
    let sentence = |e: engine::Error| e.to_string();
    let source = Source::directory(&flags.policy).map_err(sentence)?;
    let checkpoint = Checkpoint::open(source.clone()).map_err(sentence)?;
    let refuse = |why: &str| Err(format!("--policy {}: {why}", flags.policy.display()));
    if checkpoint.config.head != HeadKind::Causal {
        return refuse("it has no LM head, expected a causal language model");
    }
    if checkpoint.config.quantization.is_some() {
        return refuse("it is quantised already, expected weights in floating point");
    }
    let tokenizer = Tokenizer::open(&source, Some(&checkpoint.config)).map_err(sentence)?;
    let file = flags
        .text
        .clone()
        .unwrap_or_else(|| root().join("README.md"));
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut tokens = tokenizer.encode(&text, true).map_err(sentence)?;
    if tokens.len() < flags.tokens.into() {
        return Err(format!(
            "{}: {} tokens, expected at least --tokens {}",
            file.display(),
            tokens.len(),
            flags.tokens
        ));
    }
    tokens.truncate(flags.tokens.into());
    let mut exact = Vec::new();
    let mut cases = Vec::new();
    for (quantize, kv_dtype) in CASES {
        let logits = logits(&checkpoint, &tokens, quantize, kv_dtype).map_err(sentence)?;
        if exact.is_empty() {
            exact.clone_from(&logits);
        }
        cases.push(Case {
            weights: quantize.map_or("as stored", Quantization::name),
            kv: kv_dtype.name(),
            change: compare(&logits, &exact, &tokens),
        });
    }
    print(flags, &file, &cases)
}

/// The logits after each of the tokens.
fn logits(
    checkpoint: &Checkpoint,
    tokens: &[u32],
    quantize: Option<Quantization>,
    kv_dtype: KvDtype,
) -> Result<Vec<Vec<f32>>, engine::Error> {
    let options = Options {
        quantize,
        kv_dtype: Some(kv_dtype),
        ..Options::default()
    };
    let part = ModelSpec::new(checkpoint, None);
    let (engine, models) = Engine::new(CpuBackend::new(0), &[part], &options)?;
    let positions: Vec<usize> = (0..tokens.len()).collect();
    engine.run(models[0].root(0).read(tokens, &positions))?
}

fn compare(logits: &[Vec<f32>], exact: &[Vec<f32>], tokens: &[u32]) -> Change {
    let (mut apart, mut size, mut same) = (0.0, 0.0, 0);
    for (row, exact) in logits.iter().zip(exact) {
        for (a, b) in row.iter().zip(exact) {
            apart += f64::from(a - b).powi(2);
            size += f64::from(*b).powi(2);
        }
        same += usize::from(largest(row) == largest(exact));
    }
    let surprise = |(row, &next): (&Vec<f32>, &u32)| {
        let max = f64::from(row[largest(row)]);
        let sum: f64 = row.iter().map(|&l| (f64::from(l) - max).exp()).sum();
        max + sum.ln() - f64::from(row[next as usize])
    };
    let surprises: f64 = logits.iter().zip(&tokens[1..]).map(surprise).sum();
    Change {
        relative_difference: (apart / size).sqrt(),
        same_token: same as f64 / logits.len() as f64,
        negative_log_likelihood: surprises / (tokens.len() - 1) as f64,
    }
}

/// The index of the largest of the numbers.
fn largest(row: &[f32]) -> usize {
    (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .unwrap_or(0)
}

fn print(flags: &Flags, file: &Path, cases: &[Case]) -> Done {
    let machine = Machine::this();
    if flags.json {
        let object = serde_json::json!({
            "policy": flags.policy, "text": file, "tokens": flags.tokens,
            "machine": machine, "cases": cases,
        });
        println!("{object}");
        return Ok(());
    }
    let header = [
        "weights",
        "KV cache",
        "logits, relative difference",
        "same most likely token",
        "mean negative log-likelihood",
    ];
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            vec![
                case.weights.into(),
                case.kv.into(),
                format!("{:.4}", case.change.relative_difference),
                format!("{:.1}%", 100.0 * case.change.same_token),
                format!("{:.4}", case.change.negative_log_likelihood),
            ]
        })
        .collect();
    print!("{}", table(&header.map(String::from), 2, &rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_relative_and_a_likelihood_is_in_nats() {
        let exact = vec![vec![3.0, 4.0], vec![0.0, 0.0]];
        let case = compare(&exact, &exact, &[7, 1]);
        assert_eq!((case.relative_difference, case.same_token), (0.0, 1.0));
        // One position has a next token, the likelier one: -ln(e / (1 + e)).
        let expected = (1.0 + (-1.0f64).exp()).ln();
        assert!((case.negative_log_likelihood - expected).abs() < 1e-12);

        let other = vec![vec![4.0, 3.0], vec![0.0, 0.0]];
        let case = compare(&other, &exact, &[7, 1]);
        assert!((case.relative_difference - 2f64.sqrt() / 5.0).abs() < 1e-12);
        assert_eq!(case.same_token, 0.5);
    }
}
