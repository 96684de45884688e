//! Every flag of the command line: its name, help and default stand here and nowhere else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kernels::Quantization;
use kernels::cpu::Isa;
use strategies::{
    Aggregation, BeamMode, Config, ContextOverflow, Grader, PrmKind, PromptKind, Sampling,
    Selection, Strategy,
};

/// External test-time scaling: a small policy writes many solutions step by step, a process
/// reward model (PRM) scores the steps, a search keeps the best.
#[derive(Parser, Debug)]
#[command(name = "offshoot", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Solve problems. Without arguments: the embedded models on the bundled problems, beam
    /// search with N = 16.
    Solve(Box<SolveFlags>),
    /// Draw the search tree of one problem of a results file.
    Show(ShowFlags),
    /// Continue a prompt and stream the text.
    Generate(GenerateFlags),
    /// Score the steps of a solution with a PRM.
    Score(ScoreFlags),
    /// Grade the answers of any system: lines of answer and prediction in, the same lines with
    /// verdicts out.
    Grade(GradeFlags),
    /// Say what a checkpoint is and how it can serve.
    Inspect(InspectFlags),
    /// Write a checkpoint with its matrices in 8 or 4 bits.
    Quantize(QuantizeFlags),
    /// List the devices models can run on, and why others cannot be used.
    Devices(DevicesFlags),
    /// Compile, list and count the CUDA kernels; no GPU is needed.
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Measure: throughput, products, attention, whole searches, against the machine's limits.
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, of one command if named.
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Flags of `devices`.
#[derive(Args, Debug)]
pub struct DevicesFlags {
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

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
    /// Time tree attention on a card, against the flat and the two-level plan; or a product.
    Time(TimeFlags),
}

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Tokens per second of a policy, a PRM or both: a prompt, branches below it, tokens on each.
    Throughput(ThroughputFlags),
    /// Products of a model's shape against the multiply-add peak and the read bandwidth.
    Linear {
        /// What is swept.
        #[command(flatten)]
        sweep: bench::linear::Flags,
        /// Where results go.
        #[command(flatten)]
        output: bench::report::Output,
    },
    /// Attention over trees, sampling and row-wise operations, against the same limits.
    Attention {
        /// What is swept.
        #[command(flatten)]
        sweep: bench::attention::Flags,
        /// Where results go.
        #[command(flatten)]
        output: bench::report::Output,
    },
    /// Where the time, tokens and bytes of a whole search went.
    Search(Box<BenchSearchFlags>),
    /// Accuracy and cost of every strategy against N, on the bundled problems (needs the sources).
    Scaling(bench::scaling::Flags),
    /// Tree attention counted on the emulated GPU, against flat and two-level plans (needs the
    /// sources).
    Kernels(bench::kernels::Flags),
}

/// Flags of `bench throughput`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("weights").required(true))]
pub struct ThroughputFlags {
    /// The model: a directory, a hub name (org/name or org/name@revision) or an embedded model.
    #[arg(group = "weights")]
    pub model: Option<String>,
    /// Random weights in the shape of this model instead: nano, qwen2.5-0.5b, llama-3.2-1b,
    /// qwen2.5-1.5b or llama-3.1-8b.
    #[arg(long, value_name = "SHAPE", group = "weights", value_parser = bench::shapes::Shape::parse)]
    pub shape: Option<bench::shapes::Shape>,
    /// The PRM of --role both; the policy itself unless given.
    #[arg(long, value_name = "MODEL")]
    pub prm: Option<String>,
    /// Leave out what saves time on a GPU, to see what it saves.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,...")]
    pub without: Vec<Without>,
    /// The work.
    #[command(flatten)]
    pub work: bench::throughput::Flags,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// Where results go.
    #[command(flatten)]
    pub output: bench::report::Output,
}

/// What a GPU can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Without {
    /// Decoding steps recorded as CUDA graphs.
    Graphs,
    /// The next step enqueued before the tokens of the last are known.
    RunningAhead,
    /// cuBLASLt for products of many rows.
    Cublaslt,
    /// What branches share read once by attention.
    Sharing,
}

/// Flags of `bench search`.
#[derive(Args, Debug)]
pub struct BenchSearchFlags {
    /// How often.
    #[command(flatten)]
    pub times: bench::profile::Flags,
    /// The search.
    #[command(flatten)]
    pub search: SearchFlags,
    /// Where results go.
    #[command(flatten)]
    pub output: bench::report::Output,
}

/// Flags of `kernels check`.
#[derive(Args, Debug)]
pub struct CheckFlags {
    /// Where: cuda, cuda:INDEX or emulated.
    #[arg(long, default_value = "cuda", value_name = "DEVICE", value_parser = parse_device)]
    pub device: Device,
    /// Only every K-th case.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `kernels time`.
#[derive(Args, Debug)]
pub struct TimeFlags {
    /// Where: cuda or cuda:INDEX.
    #[arg(long, default_value = "cuda", value_name = "DEVICE", value_parser = parse_device)]
    pub device: Device,
    /// Query heads, KV heads and head dimension. Default: Llama-3.2-1B's.
    #[arg(long, default_value = "32/8/64", value_name = "H/KV/D", value_parser = parse_heads)]
    pub heads: (usize, usize, usize),
    /// Branches of the beam search, N; 4 children of a kept branch.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=4096))]
    pub n: u32,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub prompt: u32,
    /// Instead of attention, a product of R rows, N output and K input features: by Offshoot's kernel,
    /// by cuBLASLt where it is installed, and fused with SwiGLU.
    #[arg(long, value_name = "R/N/K", value_parser = parse_heads)]
    pub product: Option<(usize, usize, usize)>,
    /// Steps of the search. With one step nothing but the prompt is shared.
    #[arg(long, default_value_t = 16, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: u32,
    /// Tokens of a step.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub step_tokens: u32,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
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
    #[arg(long, default_value = "32/8/64", value_name = "H/KV/D", value_parser = parse_heads)]
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
    #[arg(long, default_value = "16/2048/2048", value_name = "R/N/K", value_parser = parse_heads)]
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

fn parse_heads(text: &str) -> Result<(usize, usize, usize), String> {
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
    /// A product.
    Linear,
    /// A product of gates and ups with SwiGLU, of twice as many rows of weights as outputs.
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

/// A device by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA card if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA card.
    Cuda(usize),
    /// The emulated CUDA card.
    Emulated,
}

fn parse_device(word: &str) -> Result<Device, String> {
    let index = |index: &str| index.parse().ok().map(Device::Cuda);
    match word {
        "auto" => Some(Device::Auto),
        "cpu" => Some(Device::Cpu),
        "cuda" => Some(Device::Cuda(0)),
        "emulated" => Some(Device::Emulated),
        _ => word.strip_prefix("cuda:").and_then(index),
    }
    .ok_or_else(|| "expected auto, cpu, cuda, cuda:INDEX or emulated".into())
}

/// Flags of the device and its memory.
#[derive(Args, Debug)]
pub struct EngineFlags {
    /// Where models run: auto (the first CUDA card, else the CPU), cpu, cuda, cuda:INDEX, or
    /// emulated (the CUDA kernels on an emulated card: slow, for checking and counting them).
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = parse_device)]
    pub device: Device,
    /// Threads of the CPU backend; 0 takes every core.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub threads: usize,
    /// Hold the CPU backend to an instruction set: portable, avx2, avx-512 or amx. Default: the best there
    /// is. With avx2 and avx-512 all CPUs that have one of them draw the same tokens; amx rounds otherwise.
    #[arg(long, value_name = "SET", value_parser = Isa::parse)]
    pub isa: Option<Isa>,
    /// Memory for the KV cache of all models together, in MiB. Default: on a CUDA card what
    /// --gpu-memory-fraction leaves beside the weights, else 1024, committed as it is used.
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    pub kv_memory: Option<f64>,
    /// How much of a CUDA card's free memory weights, activations and KV cache may take, allocated at
    /// the start; the rest is for plans, scratch memory and other programs.
    #[arg(
        long,
        default_value_t = 0.9,
        value_name = "FRACTION",
        allow_negative_numbers = true
    )]
    pub gpu_memory_fraction: f64,
    /// Tokens in a KV block.
    #[arg(long, default_value_t = 16, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub block_tokens: u32,
    /// Storage of the KV cache; as the weights unless given.
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub kv_dtype: Option<KvDtype>,
    /// Keep the matrices of products in 8 or 4 bits: int8 or int4, in groups of 32. Embeddings, norms
    /// and PRMs' heads stay as they are. Only on the CPU.
    #[arg(long, value_enum, value_name = "KIND")]
    pub quantize: Option<Quantize>,
    /// Rows that one model computes in one step.
    #[arg(long, default_value_t = 512, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_rows: u32,
    /// Past the positions a model was made for: run-on (compute them all the same, up to eight
    /// times as many), truncate (cut the solution there; a PRM gives later steps the last score it
    /// has) or refuse (the problem fails).
    #[arg(long, default_value = "truncate", value_parser = parse_past_limit, value_name = "HOW")]
    pub past_limit: ContextOverflow,
}

/// Storage of the KV cache.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtype {
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floating point.
    F16,
    /// 8 bits, a scale for every token and head.
    Int8,
}

/// Bits of quantised weights.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// 8 bits and a scale for every 32.
    Int8,
    /// 4 bits and a scale for every 32.
    Int4,
}

impl Quantize {
    /// What the engine calls it.
    pub fn kind(self) -> Quantization {
        match self {
            Quantize::Int8 => Quantization::Int8,
            Quantize::Int4 => Quantization::Int4,
        }
    }
}

/// Flags of `quantize`.
#[derive(Args, Debug)]
pub struct QuantizeFlags {
    /// The model: a directory, a hub name (org/name or org/name@revision), nano-small, nano-big or
    /// nano-prm.
    pub model: String,
    /// The folder to write, which must not be there yet.
    pub to: PathBuf,
    /// Bits of a weight: int8 or int4.
    #[arg(long, value_enum, default_value = "int8", value_name = "KIND")]
    pub kind: Quantize,
    /// Leave the LM head as it is: for a PRM that is read from it.
    #[arg(long)]
    pub keep_head: bool,
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of drawing a token.
#[derive(Args, Debug)]
pub struct SamplingFlags {
    /// Divides the logits; 0 takes the most likely token. Default: 0 for cot and generate, else
    /// 0.7.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Keep the K most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose probabilities reach P.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "P",
        allow_negative_numbers = true
    )]
    pub top_p: f32,
    /// Keep tokens at least P times as likely as the most likely one.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "P",
        allow_negative_numbers = true
    )]
    pub min_p: f32,
    /// Make tokens already present less likely; 1 is off.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "PENALTY",
        allow_negative_numbers = true
    )]
    pub repetition_penalty: f32,
}

impl SamplingFlags {
    /// The distribution, with this temperature unless one is given.
    pub fn sampling(&self, temperature: f32) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }
}

/// Flags of `solve`.
#[derive(Args, Debug)]
pub struct SolveFlags {
    /// One problem as text; `-` reads it from standard input.
    #[arg(conflicts_with = "problems")]
    pub problem: Option<String>,
    /// The search.
    #[command(flatten)]
    pub search: SearchFlags,
    /// Append one JSON object per solved problem to FILE; what is in it already is not solved
    /// again.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Put every problem's whole search tree into the results.
    #[arg(long)]
    pub trees: bool,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of a search over problems.
#[derive(Args, Debug)]
pub struct SearchFlags {
    /// Problems, one JSON object a line, as MATH-500, AIME, AMC, GSM8K or OlympiadBench have them:
    /// problem, question or prompt; if known answer, solution, level, subject, id.
    /// Default: the bundled problems.
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// The model that writes: a directory, a hub name (org/name or org/name@revision), nano-small
    /// or nano-big.
    #[arg(long, default_value = "nano-small", value_name = "MODEL")]
    pub policy: String,
    /// The model that scores steps: a directory, a hub name (org/name or org/name@revision) or
    /// nano-prm.
    #[arg(long, default_value = "nano-prm", value_name = "MODEL")]
    pub prm: String,
    /// How the PRM is read: token-classification, math-shepherd, rlhflow, skywork or qwen-math.
    /// Default: as its head says; an LM head needs a name it is known by, or this flag.
    #[arg(long, value_parser = parse_prm_kind, value_name = "FORMAT")]
    pub prm_format: Option<PrmKind>,
    /// How to search: cot, majority, best-of-n, beam or dvts.
    #[arg(long, default_value = "beam", value_parser = parse_strategy, value_name = "STRATEGY")]
    pub strategy: Strategy,
    /// N: the candidates a search may hold at once. Default: 16, for cot 1.
    #[arg(long, value_name = "N")]
    pub n: Option<usize>,
    /// M: children of a kept branch, so that N/M branches survive a step (beam, dvts).
    #[arg(long, default_value_t = 4, value_name = "M")]
    pub beam_width: usize,
    /// Whether finished paths hold their slot (paper) or leave (search-and-learn).
    #[arg(long, default_value = "paper", value_parser = parse_beam_mode, value_name = "MODE")]
    pub beam_mode: BeamMode,
    /// Greedy steps to look ahead before a child is scored (beam, dvts).
    #[arg(long, default_value_t = 0, value_name = "STEPS")]
    pub lookahead: usize,
    /// Rank children by this aggregation of their path's scores: min, last, mean or product.
    #[arg(long, default_value = "last", value_parser = parse_aggregation, value_name = "AGGREGATION")]
    pub value: Aggregation,
    /// The verdict that counts: majority, or min, last, mean, product with -max or -vote.
    /// Default: last-vote with a PRM, else majority.
    #[arg(long, value_name = "VERDICT")]
    pub verdict: Option<Selection>,
    /// Who compares answers: strict, or qwen with the leniencies of Qwen2.5-Math's grader.
    #[arg(long, default_value = "strict", value_parser = parse_grader, value_name = "GRADER")]
    pub grader: Grader,
    /// Most steps of a path (beam, dvts).
    #[arg(long, default_value_t = 40, value_name = "STEPS")]
    pub max_steps: usize,
    /// Most tokens of one step (beam, dvts).
    #[arg(long, default_value_t = 2048, value_name = "TOKENS")]
    pub step_tokens: usize,
    /// Most tokens of a solution.
    #[arg(long, default_value_t = 8192, value_name = "TOKENS")]
    pub total_tokens: usize,
    /// Tries to find a valid next step before a path is given up (beam, dvts).
    #[arg(long, default_value_t = 3, value_name = "TRIES")]
    pub tries: usize,
    /// Text that ends a step; \n stands for a line break.
    #[arg(long, default_value = "\\n\\n", value_name = "TEXT")]
    pub delimiter: String,
    /// The paper's prompt for the policy: qwen (one sentence as system message), llama (Meta's
    /// prompt for mathematics), r1 (the sentence after the problem) or plain (the problem alone).
    /// Default: as the policy's chat tokens say.
    #[arg(long, value_parser = parse_prompt_kind, value_name = "PROMPT")]
    pub prompt: Option<PromptKind>,
    /// System message in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Line after the problem in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Solve only the first COUNT problems.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Problems in work at once. Default: as many as fill a step.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// End at the first malformed line of the problem file, before anything is solved.
    #[arg(long)]
    pub strict: bool,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingFlags,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

impl SearchFlags {
    /// The search these flags ask for.
    pub fn config(&self) -> Config {
        let defaults = Config::new(self.strategy);
        Config {
            n: self.n.unwrap_or(defaults.n),
            beam_width: self.beam_width,
            beam_mode: self.beam_mode,
            lookahead: self.lookahead,
            aggregation: self.value,
            max_steps: self.max_steps,
            max_step_tokens: self.step_tokens,
            max_tokens: self.total_tokens,
            max_retries: self.tries,
            delimiter: unescape(&self.delimiter),
            sampling: self.sampling.sampling(defaults.sampling.temperature),
            seed: self.seed,
            selection: self.verdict,
            grader: self.grader,
            ..defaults
        }
    }
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowFlags {
    /// A results file written with --trees.
    pub results: PathBuf,
    /// The problem's id, or its number in the file counted from 1.
    pub problem: String,
    /// Draw dropped branches as well, not only their number.
    #[arg(long)]
    pub all: bool,
    /// Columns to draw in. Default: the terminal's.
    #[arg(long, value_name = "COLUMNS")]
    pub width: Option<usize>,
}

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
    /// Beginning of the answer, which the model continues. \n stands for a line break.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub assistant: Option<String>,
    /// Most tokens to draw.
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Text that ends the generation and is not part of it; may be repeated. \n stands for a line
    /// break.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
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

/// Flags of `score`.
#[derive(Args, Debug)]
pub struct ScoreFlags {
    /// The PRM: a directory, a hub name (org/name or org/name@revision) or nano-prm.
    #[arg(long, default_value = "nano-prm", value_name = "MODEL")]
    pub prm: String,
    /// How the PRM is read: token-classification, math-shepherd, rlhflow, skywork or qwen-math.
    /// Default: as its head says; an LM head needs a name it is known by, or this flag.
    #[arg(long, value_parser = parse_prm_kind, value_name = "FORMAT")]
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

/// Flags of `grade`.
#[derive(Args, Debug)]
pub struct GradeFlags {
    /// One JSON object a line: answer, the true one, and prediction, or a whole solution or
    /// response to read the prediction off; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Who compares answers: strict, or qwen with the leniencies of Qwen2.5-Math's grader.
    #[arg(long, default_value = "strict", value_parser = parse_grader, value_name = "GRADER")]
    pub grader: Grader,
    /// Write the graded lines to FILE instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A second grader to compare with: a command that is given {"answer", "prediction"}, an
    /// object a line, and answers {"correct": true} or false, a line each.
    #[arg(long, value_name = "COMMAND")]
    pub external: Option<String>,
    /// Seconds the second grader may take over a line.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", requires = "external", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub external_timeout: u32,
    /// Write the lines on which the two graders disagree to FILE.
    #[arg(long, value_name = "FILE", requires = "external")]
    pub disagreements: Option<PathBuf>,
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

/// The one of `all` whose name is `word`.
fn named<T: Copy>(word: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let names = || all.iter().map(|&one| name(one)).collect::<Vec<_>>();
    (all.iter().copied())
        .find(|&one| name(one) == word)
        .ok_or_else(|| format!("expected one of {}", names().join(", ")))
}

fn parse_strategy(word: &str) -> Result<Strategy, String> {
    named(word, &Strategy::ALL, Strategy::name)
}

fn parse_grader(word: &str) -> Result<Grader, String> {
    named(word, &Grader::ALL, Grader::name)
}

fn parse_past_limit(word: &str) -> Result<ContextOverflow, String> {
    word.parse()
}

fn parse_prm_kind(word: &str) -> Result<PrmKind, String> {
    named(word, &PrmKind::ALL, PrmKind::name)
}

fn parse_prompt_kind(word: &str) -> Result<PromptKind, String> {
    named(word, &PromptKind::ALL, PromptKind::name)
}

fn parse_aggregation(word: &str) -> Result<Aggregation, String> {
    named(word, &Aggregation::ALL, Aggregation::name)
}

fn parse_beam_mode(word: &str) -> Result<BeamMode, String> {
    match word {
        "paper" => Ok(BeamMode::Paper),
        "search-and-learn" => Ok(BeamMode::SearchAndLearn),
        _ => Err("expected paper or search-and-learn".into()),
    }
}

/// `\n` and `\t` typed in a shell, as line break and tab; `\\` is a backslash.
pub fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next @ ('n' | 't' | '\\'))) => {
                chars.next();
                out.push(match next {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_have_words() {
        for (word, device) in [
            ("auto", Some(Device::Auto)),
            ("cuda", Some(Device::Cuda(0))),
            ("cuda:3", Some(Device::Cuda(3))),
            ("emulated", Some(Device::Emulated)),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
        ] {
            assert_eq!(parse_device(word).ok(), device, "{word}");
        }
    }

    #[test]
    fn line_breaks_can_be_typed() {
        for (typed, meant) in [
            ("\\n\\n", "\n\n"),
            ("a\\tb", "a\tb"),
            ("\\\\n", "\\n"),
            ("\\x", "\\x"),
            ("\\", "\\"),
        ] {
            assert_eq!(unescape(typed), meant, "{typed:?}");
        }
    }
}
