//! Flags of `offshoot kernels`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use session::Device;

use super::engine::device;

/// What to do with the CUDA kernels.
#[derive(Subcommand, Debug)]
pub enum KernelsCommand {
    /// Compile every kernel for an architecture, so that the first run on such a card need not.
    Compile(ArchFlags),
    /// Print registers, stack, shared memory and resident blocks of every kernel, as compiled.
    List(ArchFlags),
    /// Count what a kernel does on an emulated card, beside what it must do.
    Profile(ProfileFlags),
    /// Run the tables of test cases on a card (or the emulated one) and compare with f64.
    Check(CheckFlags),
    /// Time operations on a card, each beside its alternatives, or measure what the card reaches.
    Time(TimeFlags),
    /// Print the figures of a run of bench/gpu-check as tables.
    Report(ReportFlags),
    /// Predict decode and prefill batches on a card, beside a stock engine's, by a model whose constants
    /// are printed.
    Predict(PredictFlags),
}

/// Flags of `kernels predict`.
#[derive(Args, Debug)]
pub struct PredictFlags {
    /// The card: a100, rtx4090, h100, h200 or b200.
    #[arg(long, value_name = "CARD", value_parser = bench::predict::cards::Card::parse)]
    pub card: &'static bench::predict::cards::Card,
    /// Models: a shape's word (nano, qwen2.5-0.5b, llama-3.2-1b, qwen2.5-1.5b, qwen2.5-7b or llama-3.1-8b),
    /// a config.json, or a folder that has one. Its weights are not read.
    #[arg(
        long,
        default_value = "llama-3.2-1b",
        value_delimiter = ',',
        value_name = "MODEL,..."
    )]
    pub model: Vec<String>,
    /// Branches of the beam search, one decode batch for each number; 4 children of a kept branch, 16 steps
    /// of 64 tokens.
    #[arg(long, default_value = "1,16,64,256", value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=bench::predict::case::MAX_BRANCHES as i64))]
    pub branches: Vec<u32>,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=bench::predict::case::MAX_PROMPT as i64))]
    pub prompt: u32,
    /// Put a card's run beside the predictions: a file of lines {"section", "case", "figure", "unit", "value"},
    /// as bench/gpu-check writes it.
    #[arg(long, value_name = "FILE")]
    pub measured: Option<std::path::PathBuf>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `kernels check`.
#[derive(Args, Debug)]
pub struct CheckFlags {
    /// Where: cuda, cuda:INDEX or emulated.
    #[arg(long, default_value = "cuda", value_name = "DEVICE", value_parser = device)]
    pub device: Device,
    /// Only every K-th case.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Also compare large shapes with each other: linear layers by every kernel and cuBLASLt, and
    /// attention over blocks at both ends of an arena of 7/10 of the free memory.
    #[arg(long)]
    pub large: bool,
    /// Print one JSON object a figure (section, case, figure, unit, value).
    #[arg(long, conflicts_with = "json")]
    pub figures: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `kernels time`.
#[derive(Args, Debug)]
pub struct TimeFlags {
    /// What to time.
    #[arg(value_enum, default_value = "attention")]
    pub topic: TimedTopic,
    /// Where: cuda, cuda:INDEX, or emulated, whose figures show only that the command works.
    #[arg(long, default_value = "cuda", value_name = "DEVICE", value_parser = device)]
    pub device: Device,
    /// Attention, occupancy: query heads, KV heads and head dimension. Default: Llama-3.2-1B's.
    #[arg(long, default_value = "32/8/64", value_delimiter = ',', value_name = "H/KV/D,...", value_parser = parse_triple)]
    pub heads: Vec<(usize, usize, usize)>,
    /// Attention: branches of the beam search, N; up to 4 children of a kept branch.
    #[arg(long, default_value = "64", value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub n: Vec<u32>,
    /// Attention: tokens of the prompt.
    #[arg(long, default_value = "512", value_delimiter = ',', value_name = "TOKENS,...", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub prompt: Vec<u32>,
    /// Attention: steps of the search. With one step nothing but the prompt is shared.
    #[arg(long, default_value_t = 16, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: u32,
    /// Attention: tokens of a step.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub step_tokens: u32,
    /// Linear, gated: rows, output and input features.
    #[arg(long = "shape", alias = "linear", default_value = "16/8192/2048", value_delimiter = ',', value_name = "R/N/K,...", value_parser = parse_triple)]
    pub shapes: Vec<(usize, usize, usize)>,
    /// Sampling: tokens drawn at once.
    #[arg(long, default_value = "1,64,256", value_delimiter = ',', value_name = "COUNT,...", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub draws: Vec<u32>,
    /// Sampling: vocabulary entries.
    #[arg(long, default_value = "128256", value_delimiter = ',', value_name = "COUNT,...", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub vocab: Vec<u32>,
    /// Print one JSON object a figure (section, case, figure, unit, value), each as soon as it is known.
    #[arg(long)]
    pub figures: bool,
}

/// What `kernels time` measures.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedTopic {
    /// Tree attention, by the plans tree, cascade and flat; calls take layers in turn, so that L2 holds
    /// no K and V.
    Attention,
    /// A linear layer, by Offshoot's kernel and by cuBLASLt where it is installed.
    Linear,
    /// A gated linear layer, SwiGLU in the same kernel and behind it.
    Gated,
    /// Drawing tokens, with and without top-k and top-p.
    Sampling,
    /// What the card reaches: bandwidths of DRAM and L2, launches in a graph, a large GEMM.
    Ceilings,
    /// Resident blocks of every kernel, as the driver says and as required; where blocks are placed.
    Occupancy,
}

impl TimedTopic {
    /// Its word: the section of its figures.
    pub fn word(self) -> &'static str {
        match self {
            TimedTopic::Attention => "attention",
            TimedTopic::Linear => "linear",
            TimedTopic::Gated => "gated",
            TimedTopic::Sampling => "sampling",
            TimedTopic::Ceilings => "ceilings",
            TimedTopic::Occupancy => "occupancy",
        }
    }
}

/// Flags of `kernels report`.
#[derive(Args, Debug)]
pub struct ReportFlags {
    /// The figures of a run: the gpu.jsonl of bench/gpu-check.
    pub file: PathBuf,
}

/// Flags of `kernels compile` and `kernels list`.
#[derive(Args, Debug)]
pub struct ArchFlags {
    /// The architecture: sm_80 (A100), sm_86 (RTX 30), sm_89 (RTX 40), sm_90a (H100, H200), sm_100
    /// (B200), sm_120 (RTX 50).
    #[arg(long, default_value = "sm_90a", value_name = "ARCH", value_parser = parse_arch)]
    pub arch: &'static kernels::cuda::catalog::Architecture,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

fn parse_arch(word: &str) -> Result<&'static kernels::cuda::catalog::Architecture, String> {
    use kernels::cuda::catalog::{ARCHITECTURES, Architecture};
    let names = ARCHITECTURES.map(|a| a.name).join(", ");
    Architecture::find(word).ok_or_else(|| format!("expected one of {names}"))
}

/// Flags of `kernels profile`.
#[derive(Args, Debug)]
pub struct ProfileFlags {
    /// The kernel.
    #[arg(value_enum)]
    pub kernel: ProfiledKernel,
    /// The emulated card.
    #[arg(long, value_enum, default_value = "h200", value_name = "CARD")]
    pub card: Card,
    /// Attention: query heads, KV heads and head dimension. Default: Llama-3.2-1B's.
    #[arg(long, default_value = "32/8/64", value_name = "H/KV/D", value_parser = parse_triple)]
    pub heads: (usize, usize, usize),
    /// Attention: branches of the beam search, N.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub n: u32,
    /// Attention: children of a kept branch, M.
    #[arg(long, default_value_t = 4, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub beam_width: u32,
    /// Attention: tokens of the prompt.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub prompt: u32,
    /// Attention: steps of the search.
    #[arg(long, default_value_t = 16, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: u32,
    /// Attention: tokens of a step.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub step_tokens: u32,
    /// Attention: how much of the tree is read once.
    #[arg(long, value_enum, default_value = "tree", value_name = "HOW")]
    pub sharing: SharingWord,
    /// Attention: seed of the choice of survivors.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Linear and gated: rows, output features and input features.
    #[arg(long, default_value = "16/2048/2048", value_name = "R/N/K", value_parser = parse_triple)]
    pub shape: (usize, usize, usize),
    /// Check every access as well as counting it.
    #[arg(long)]
    pub checks: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
    /// Run the case in this process and print its budget: what the command starts for itself.
    #[arg(long, hide = true)]
    pub inner: bool,
}

fn parse_triple(text: &str) -> Result<(usize, usize, usize), String> {
    let numbers: Option<Vec<usize>> = text
        .split('/')
        .map(|n| n.parse().ok().filter(|&n| n > 0 && n <= 1 << 20))
        .collect();
    match numbers.as_deref() {
        Some(&[a, b, c]) => Ok((a, b, c)),
        _ => Err("expected three numbers from 1 up, such as 32/8/64".into()),
    }
}

/// A kernel that can be profiled.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfiledKernel {
    /// Tree attention, a decode step of a beam search.
    Attention,
    /// A linear layer.
    Linear,
    /// The gated linear layer (gate and up, SwiGLU): twice as many rows of weights as outputs.
    Gated,
}

/// A card the emulator knows.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Card {
    A100,
    Rtx4090,
    H100,
    H200,
    B200,
}

/// How much of the tree attention reads once.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharingWord {
    /// Every level, where it pays.
    Tree,
    /// What all branches share.
    Cascade,
    /// Nothing: every branch reads its own path.
    Flat,
}
