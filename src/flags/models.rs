//! Flags of the commands over one model: `generate`, `score`, `inspect`, `quantize`,
//! `export`.

use std::path::PathBuf;

use clap::Args;
use kernels::Quantization;
use strategies::{Aggregation, PrmKind};

use super::{EngineFlags, SamplingFlags, words};

/// Flags of `generate`.
#[derive(Args, Debug)]
pub struct GenerateFlags {
    /// The model: a directory, a hub name (org/name or org/name@revision), nano-small or nano-big.
    #[arg(long, default_value = "nano-small", value_name = "MODEL")]
    pub model: String,
    /// The prompt; `-` reads it from standard input.
    pub prompt: String,
    /// Give the prompt to the model as it is, without a chat template.
    #[arg(long)]
    pub raw: bool,
    /// System message; none unless given.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Beginning of the answer, which the model continues; taken as it is written ($'\n' is a line
    /// break in bash).
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub assistant: Option<String>,
    /// Maximum tokens to draw.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Text that ends the generation and is not part of it; may be repeated. \n stands for a line
    /// break, but where it begins a LaTeX command such as \neq; nothing else is an escape.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Log-probabilities of --json: raw, of the model's own distribution (temperature 1, no filter,
    /// no penalty), or processed, of the one that tokens are drawn from (0 for greedy ones).
    #[arg(long, value_enum, default_value = "raw", value_name = "KIND")]
    pub logprobs: Logprobs,
    /// Print one JSON object on standard output instead of streaming the text.
    #[arg(long)]
    pub json: bool,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingFlags,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

/// Whose log-probabilities: the names of vLLM's `--logprobs-mode` are understood too.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logprobs {
    /// The model's own.
    #[value(alias = "raw_logprobs")]
    Raw,
    /// Those of the distribution that is drawn from.
    #[value(alias = "processed_logprobs")]
    Processed,
}

/// Flags of `score`.
#[derive(Args, Debug)]
pub struct ScoreFlags {
    /// The PRM: a directory, a hub name (org/name or org/name@revision) or nano-prm.
    #[arg(long, default_value = "nano-prm", value_name = "MODEL")]
    pub prm: String,
    /// How the PRM is read. Default: as its head says; an LM head needs a name it is known by, or
    /// this flag.
    #[arg(long, value_parser = words(&PrmKind::ALL, PrmKind::name), value_name = "FORMAT")]
    pub prm_format: Option<PrmKind>,
    /// The problem.
    #[arg(long, value_name = "TEXT")]
    pub problem: String,
    /// File with the steps, separated by blank lines; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub steps: PathBuf,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

/// Flags of `prm-eval`.
#[derive(Args, Debug)]
pub struct PrmEvalFlags {
    /// Labelled solutions, a JSON object a line: problem, steps (a list of texts) and label (the index of
    /// the first wrong step, -1 where there is none), as ProcessBench's. Each file is a row.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The PRM: a directory, a hub name (org/name or org/name@revision) or nano-prm.
    #[arg(long, default_value = "nano-prm", value_name = "MODEL")]
    pub prm: String,
    /// How the PRM is read. Default: as its head says; an LM head needs a name it is known by, or
    /// this flag.
    #[arg(long, value_parser = words(&PrmKind::ALL, PrmKind::name), value_name = "FORMAT")]
    pub prm_format: Option<PrmKind>,
    /// A step with a score below this is called wrong.
    #[arg(long, default_value_t = 0.5, value_name = "SCORE")]
    pub threshold: f64,
    /// Take the threshold with the highest F1 on this file of labelled solutions instead.
    #[arg(long, value_name = "FILE", conflicts_with = "threshold")]
    pub threshold_from: Option<PathBuf>,
    /// How the scores of a solution become the one by which solutions of a problem are ranked.
    #[arg(long, default_value = "last", value_parser = words(&Aggregation::ALL, Aggregation::name), value_name = "AGGREGATION")]
    pub aggregation: Aggregation,
    /// Take only the first COUNT solutions of each file.
    #[arg(long, value_name = "COUNT", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// Write the scores to FILE, one JSON object a solution.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

/// Flags of `inspect`.
#[derive(Args, Debug)]
pub struct InspectFlags {
    /// The model: a directory, a hub name (org/name or org/name@revision), nano-small, nano-big or
    /// nano-prm.
    pub model: String,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `quantize`.
#[derive(Args, Debug)]
pub struct QuantizeFlags {
    /// The model: a directory, a hub name (org/name or org/name@revision), nano-small, nano-big or
    /// nano-prm.
    pub model: String,
    /// The folder to write, which must not be there yet.
    pub to: PathBuf,
    /// Bits of a weight.
    #[arg(long, value_parser = words(&Quantization::ALL, Quantization::name), default_value = "int8", value_name = "KIND")]
    pub kind: Quantization,
    /// Leave the LM head as it is: for a PRM that is read from it.
    #[arg(long)]
    pub keep_head: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `export`.
#[derive(Args, Debug)]
pub struct ExportFlags {
    /// The embedded model: nano-small, nano-big or nano-prm.
    pub model: String,
    /// The folder to write, which must not be there yet.
    pub to: PathBuf,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}
