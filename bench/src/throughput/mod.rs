//! Tokens per second of a policy, a PRM or both: a prompt, branches below it, tokens on every
//! branch.
//!
//! One case is a prompt length and a number of branches. The policy draws independent samples: it
//! computes the prompt (once, or for every branch), draws each branch's first token, and then,
//! timed separately, `generate` more tokens, one batch of all branches after the other. The PRM
//! scores as in a step-level search: it reads every branch in steps, with one number per step. With
//! both, the policy writes a step of every branch and the PRM reads it, in turn; with a beam width
//! only the best branches have children.
//!
//! Every repetition has a prompt of its own, so that none hits the prefix cache.
//!
//! This file has the flags, the results and their tables; `case` does the work.

mod case;

use clap::{Args, ValueEnum};
use engine::{Engine, Model};
use serde::{Deserialize, Serialize};

use crate::Done;
use crate::figures::Figure;
use crate::limits::{Achieved, Limits};
use crate::plot::{Lines, Series, add_point};
use crate::report::{Output, Report, peak_memory};
use crate::stats::Stat;
use crate::timed::{Counts, Operation, Profile};

use case::Case;

/// The work of the models.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Writes branches.
    Policy,
    /// Scores the steps of branches.
    Prm,
    /// The policy writes, the PRM scores.
    Both,
}

/// The work, and the number of repetitions.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// Role of the model; with both, it is policy and PRM unless --prm names another.
    #[arg(long, value_enum, default_value = "policy", value_name = "ROLE")]
    pub role: Role,
    /// Tokens of the prompt; several lengths are several cases.
    #[arg(long, default_value = "512", value_delimiter = ',', value_name = "TOKENS,...", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub prompt: Vec<u32>,
    /// Branches; several numbers are several cases.
    #[arg(long, default_value = "1,4,16,64", value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub branches: Vec<u32>,
    /// Tokens of every branch below the prompt.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub generate: u32,
    /// Tokens of a reasoning step; the PRM gives one number per step. Ignored for a policy alone.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub step_tokens: u32,
    /// Beam search: after every step keep one in M branches, those the PRM scores highest, with M
    /// children each. Only with --role both.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub beam_width: Option<u32>,
    /// Give every branch its own prompt of the same length, instead of a shared one.
    #[arg(long)]
    pub unshared: bool,
    /// Draw tokens at this temperature; 0 takes the most likely one.
    #[arg(long, default_value_t = 0.7, value_name = "T")]
    pub temperature: f32,
    /// Measured repetitions.
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Repetitions before them that are not measured.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warm_up: u32,
    /// Print one JSON object a figure (section, case, figure, unit, value) as soon as it is known, and
    /// no report: milliseconds of a decode batch, and of the prefill below one branch. Only with --role
    /// policy.
    #[arg(long, conflicts_with = "json")]
    #[serde(default, skip)]
    pub figures: bool,
}

/// The models that do it.
pub struct Subject {
    /// The engine they are on.
    pub engine: Engine,
    /// The policy, unless the role is the PRM's.
    pub policy: Option<Model>,
    /// The PRM, unless the role is the policy's.
    pub prm: Option<Model>,
    /// Bounds of the random token ids that the policy and the PRM are given.
    pub vocab: (usize, usize),
    /// Times of operations; `None` for a device whose operations are not timed.
    pub profile: Option<Profile>,
    /// Bytes of KV cache the engine has.
    pub kv_bytes: usize,
    /// Threads of the CPU backend; `None` on another device.
    pub threads: Option<usize>,
    /// The models in words.
    pub names: Vec<String>,
    /// What is turned off, for the cases of figures: empty, or ` without=graphs`.
    pub without: String,
    /// Seconds to open the files and to load the weights onto the device.
    pub load_seconds: f64,
    /// Bytes of the weights as they are stored.
    pub weight_bytes: usize,
}

/// The settings of all cases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The models: the policy, then the PRM.
    pub models: Vec<String>,
    /// Bytes of their weights as they are stored.
    pub weight_bytes: usize,
    /// The flags.
    #[serde(flatten)]
    pub flags: Flags,
    /// Seconds from opening the files to the models on the device.
    pub load_seconds: f64,
    /// Seconds from opening the files to the first token (or score) of the first case, cold.
    pub first_token_seconds: Option<f64>,
    /// Peak memory of the process over all cases; `None` where the system does not report it.
    pub peak_memory_bytes: Option<u64>,
}

/// One part of a case's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Tokens per repetition.
    pub tokens: u64,
    /// Seconds.
    pub seconds: Stat,
    /// Tokens per second.
    pub tokens_per_second: Stat,
    /// The seconds by operation; empty for a device whose operations are not timed.
    pub operations: Vec<Spent>,
}

impl Part {
    fn new(tokens: u64, seconds: &[f64], counts: &Counts, limits: Option<&Limits>) -> Done<Part> {
        let stat = Stat::of(seconds).ok_or("a measurement without a repetition")?;
        Ok(Part {
            tokens,
            seconds: stat,
            tokens_per_second: stat.rate(tokens as f64),
            operations: spent(counts, seconds.iter().sum(), limits),
        })
    }

    /// The time of an operation.
    pub fn operation(&self, operation: Operation) -> Option<&Spent> {
        self.operations
            .iter()
            .find(|spent| spent.operation == operation)
    }
}

/// Time in one kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Which.
    pub operation: Operation,
    /// Seconds, over all measured repetitions.
    pub seconds: f64,
    /// Share of the part's seconds.
    pub share_of_time: f64,
    /// Against the limits, for operations that are counted.
    pub achieved: Option<Achieved>,
}

/// Time by operation, over models and phases.
fn spent(counts: &Counts, seconds: f64, limits: Option<&Limits>) -> Vec<Spent> {
    let mut all = Vec::new();
    for operation in Operation::ALL {
        let mut cost = crate::timed::Cost::default();
        for work in counts.values() {
            cost += work.cost(operation);
        }
        if cost.calls > 0 {
            let counted = limits.filter(|_| cost.flops > 0.0);
            all.push(Spent {
                operation,
                seconds: cost.seconds,
                share_of_time: cost.seconds / seconds,
                achieved: counted.map(|l| Achieved::of(cost.flops, cost.bytes, cost.seconds, l)),
            });
        }
    }
    all
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Branches.
    pub branches: u32,
    /// The policy's prompt and each branch's first token; tokens are the prompt's, of every branch
    /// if unshared.
    pub prefill: Option<Part>,
    /// The tokens of all branches after the first.
    pub decode: Option<Part>,
    /// The PRM's reading: tokens of all steps and of the prompt.
    pub score: Option<Part>,
    /// With both models: writing and reading, tokens of policy and PRM together.
    pub search: Option<Part>,
    /// Bytes of KV that the branches held at their greatest length.
    pub kv_bytes: usize,
    /// Bytes of KV that they would have held without sharing.
    pub kv_unshared_bytes: usize,
    /// Batches of the device, over all repetitions and the warm-up.
    #[serde(alias = "steps")]
    pub batches: u64,
}

/// Measures; progress goes to standard error.
///
/// # Errors
/// Too little KV memory for a case, a prompt beyond the model's context length, a device that
/// failed.
pub fn run(subject: &Subject, flags: &Flags, output: &Output) -> Done<String> {
    let limits = subject.threads.map(Limits::measure);
    let settings = Settings {
        models: subject.names.clone(),
        weight_bytes: subject.weight_bytes,
        flags: flags.clone(),
        load_seconds: subject.load_seconds,
        first_token_seconds: None,
        peak_memory_bytes: None,
    };
    let device = subject.engine.device();
    let mut report = Report::new("throughput", device, limits.into_iter().collect(), settings);
    for &prompt in &flags.prompt {
        for &branches in &flags.branches {
            eprintln!("prompt {prompt}, {branches} branches");
            let case = Case::new(subject, flags, prompt, branches);
            case.fits()?;
            let (row, cold) = case.measure(limits.as_ref())?;
            let first = &mut report.settings.first_token_seconds;
            first.get_or_insert(subject.load_seconds + cold);
            if flags.figures {
                print_figures(subject, &row, flags.generate)?;
            }
            report.rows.push(row);
        }
    }
    if flags.figures {
        return Ok(String::new());
    }
    report.settings.peak_memory_bytes = peak_memory();
    let (header, rows) = table(&report);
    let plots = plots(&report)?;
    report.give(output, (&header, 2, &rows), &plots)
}

/// The figures of a case of a policy.
fn print_figures(subject: &Subject, row: &Row, generate: u32) -> Done {
    let model = subject.names.join(" and ");
    let (model, without) = (
        model.trim_end_matches(" (random weights)"),
        &subject.without,
    );
    let emulated = subject.engine.device().contains("(emulated)");
    let print = |section: &str, case: String, ms: f64| {
        let case = case + without;
        let figure = Figure::new(section, &case, "batch", (ms, "ms"));
        Figure { emulated, ..figure }.print()
    };
    let (branches, prompt) = (row.branches, row.prompt);
    // Half of its own tokens are below the prompt, on average over the batches.
    let below = (generate / 2).max(1);
    if let Some(decode) = &row.decode {
        // One batch draws a token on every branch.
        let batches = decode.tokens as f64 / f64::from(branches);
        let ms = 1e3 * decode.seconds.median / batches;
        let case = format!("{model} branches={branches} prompt={prompt} below={below}");
        print("decode", case, ms)?;
    }
    match &row.prefill {
        Some(prefill) if branches == 1 => {
            let ms = 1e3 * prefill.seconds.median;
            print("prefill", format!("{model} rows={prompt}"), ms)
        }
        _ => Ok(()),
    }
}

fn table(report: &Report<Settings, Row>) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = vec![
        "prompt",
        "branches",
        "prefill tok/s",
        "decode tok/s",
        "score tok/s",
        "search tok/s",
        "linear: GFLOP/s",
        "of peak",
        "GB/s",
        "of read",
        "KV MiB",
        "unshared",
    ];
    let rows = report.rows.iter().map(|row| {
        let rate = |part: &Option<Part>| {
            let words = |part: &Part| part.tokens_per_second.words(1.0, 1);
            part.as_ref().map_or("-".into(), words)
        };
        let last = [&row.search, &row.score, &row.decode];
        let part = last.into_iter().flatten().next();
        let linear = part.and_then(|p| p.operation(Operation::Linear)?.achieved);
        let mib = |bytes: usize| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let mut cells = vec![
            row.prompt.to_string(),
            row.branches.to_string(),
            rate(&row.prefill),
            rate(&row.decode),
            rate(&row.score),
            rate(&row.search),
        ];
        cells.extend(Achieved::cells(linear.as_ref()));
        cells.extend([mib(row.kv_bytes), mib(row.kv_unshared_bytes)]);
        cells
    });
    (header, rows.collect())
}

fn plots(report: &Report<Settings, Row>) -> Done<Vec<(String, String)>> {
    type Of = fn(&Row) -> &Option<Part>;
    let parts: [(&str, Of); 4] = [
        ("prefill", |row| &row.prefill),
        ("decode", |row| &row.decode),
        ("score", |row| &row.score),
        ("search", |row| &row.search),
    ];
    let mut plots = Vec::new();
    for (name, part) in parts {
        let mut series: Vec<Series> = Vec::new();
        for row in &report.rows {
            if let Some(part) = part(row) {
                let point = (f64::from(row.branches), part.tokens_per_second.median);
                add_point(&mut series, format!("prompt {}", row.prompt), point);
            }
        }
        if !series.is_empty() {
            let picture = Lines {
                title: format!("{}: {name}", report.settings.models.join(" and ")),
                x: "branches".into(),
                y: "tokens/s".into(),
                series,
                limits: Vec::new(),
            };
            plots.push((name.to_string(), picture.svg()?));
        }
    }
    Ok(plots)
}
