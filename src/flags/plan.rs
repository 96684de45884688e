//! Flags of `offshoot plan`.

use std::path::PathBuf;

use clap::Args;
use session::sweep::Unit;

use super::words;

/// Flags of `plan`.
#[derive(Args, Debug)]
pub struct PlanFlags {
    /// The folder of a sweep over calibration problems.
    #[arg(value_name = "SWEEP")]
    pub sweep: PathBuf,
    /// The policy. Default: the sweep's only one.
    #[arg(long, value_name = "MODEL")]
    pub policy: Option<String>,
    /// The PRM. Default: the sweep's only one.
    #[arg(long, value_name = "MODEL")]
    pub prm: Option<String>,
    /// What a problem may cost in the mean. Without a budget and without --accuracy, the table of what plans
    /// reach at the costs of the best fixed searches.
    #[arg(long, value_name = "COST", conflicts_with = "accuracy")]
    pub budget: Option<f64>,
    /// The share of right answers to reach, from 0 to 1, at the least cost.
    #[arg(long, value_name = "SHARE")]
    pub accuracy: Option<f64>,
    /// What is counted: FLOPs of both models, FLOPs by the paper's convention (2 · parameters · tokens, no
    /// PRM), tokens drawn, or seconds (from the sweep's times).
    #[arg(long, default_value = "flops", value_parser = words(&Unit::ALL, Unit::name), value_name = "UNIT")]
    pub unit: Unit,
    /// The folder of a sweep of the same searches over other problems, on which the plan is reported beside
    /// the fixed searches.
    #[arg(long, value_name = "SWEEP")]
    pub held_out: Option<PathBuf>,
    /// Write the plan to FILE.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print one JSON object on standard output instead of tables.
    #[arg(long)]
    pub json: bool,
}
