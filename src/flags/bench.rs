//! Flags of `offshoot bench`; those of one measurement stand beside it in the crate `bench`.

use clap::{Args, Subcommand};

use super::{EngineFlags, SearchFlags};

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Tokens per second of a policy, a PRM or both: a prompt, branches below it, tokens on each.
    Throughput(ThroughputFlags),
    /// Linear layers of a model's shapes against the multiply-add peak and the read bandwidth.
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
    /// qwen2.5-1.5b, qwen2.5-7b or llama-3.1-8b.
    #[arg(long, value_name = "SHAPE", group = "weights", value_parser = bench::shapes::Shape::parse)]
    pub shape: Option<bench::shapes::Shape>,
    /// The PRM of --role both; the policy itself unless given.
    #[arg(long, value_name = "MODEL")]
    pub prm: Option<String>,
    /// Turn off GPU optimisations, to measure what each saves.
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

/// A GPU optimisation that can be turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Without {
    /// Decode batches replayed as CUDA graphs.
    Graphs,
    /// Async scheduling: the next batch enqueued before the tokens of the last are known.
    #[value(alias = "running-ahead")]
    AsyncScheduling,
    /// cuBLASLt for linear layers of many rows.
    Cublaslt,
    /// Shared prefixes read once by attention.
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
