//! What a run of `solve` comes to: a table for people, one JSON object for programs.

use std::collections::BTreeMap;

use comfy_table::Table;
use serde::Serialize;
use strategies::{ContextOverflow, ExtractionCounts, Grader, Level, Selection, Strategy};

use session::results::Line;
use session::{ModelInfo, ModelUsage};

use crate::table::{percent, rules, table};

/// One model's work.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// As named on the command line.
    pub name: String,
    /// Parameters.
    pub params: usize,
    /// Tokens computed by this run.
    pub tokens_processed: u64,
    /// Tokens an engine without a cache would have computed beyond these.
    pub tokens_reused: u64,
    /// Tokens drawn.
    pub tokens_generated: u64,
}

/// The KV cache of policy and PRM.
#[derive(Debug, Serialize)]
pub struct KvSummary {
    /// Tokens a block holds.
    pub block_tokens: usize,
    /// The most blocks in use at once, of all models: the sum of their peaks.
    pub peak_blocks: usize,
    /// Their bytes.
    pub peak_bytes: usize,
    /// Bytes the branches would have taken without sharing: the sum of the models' peaks.
    pub unshared_bytes: usize,
}

impl KvSummary {
    fn of(policy: &Counted, prm: Option<&Counted>) -> KvSummary {
        let kv = || {
            std::iter::once(policy)
                .chain(prm)
                .map(|model| &model.usage.kv)
        };
        KvSummary {
            block_tokens: policy.usage.kv.block_tokens,
            peak_blocks: kv().map(|kv| kv.peak_blocks).sum(),
            peak_bytes: kv().map(|kv| kv.peak_blocks * kv.block_bytes).sum(),
            unshared_bytes: kv().map(|kv| kv.unshared_blocks * kv.block_bytes).sum(),
        }
    }
}

/// Floating-point operations.
#[derive(Debug, Serialize)]
pub struct Flops {
    /// Of the policy.
    pub policy: u64,
    /// Of the PRM.
    pub prm: u64,
}

/// Mean numbers of tokens.
#[derive(Debug, Serialize)]
pub struct TokensPerProblem {
    /// Drawn from the policy.
    pub policy: f64,
    /// Given to the PRM.
    pub prm: f64,
}

/// One row by level, verdict or budget.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Score {
    /// Problems with a known answer.
    pub problems: usize,
    /// Right ones.
    pub correct: usize,
    /// Their share.
    pub accuracy: f64,
    /// Of that share, over the problems: sqrt(p (1 - p) / problems).
    pub standard_error: f64,
}

impl Score {
    fn add(&mut self, correct: Option<bool>) {
        if let Some(correct) = correct {
            self.problems += 1;
            self.correct += usize::from(correct);
            let (problems, p) = (
                self.problems as f64,
                self.correct as f64 / self.problems as f64,
            );
            self.accuracy = p;
            self.standard_error = (p * (1.0 - p) / problems).sqrt();
        }
    }
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Problems with a result, those of an earlier run into the same file included.
    pub problems: usize,
    /// Right ones among those with a known answer.
    pub correct: usize,
    /// Their share of the problems with a known answer; null when none has one.
    pub accuracy: Option<f64>,
    /// Its standard error, over the problems.
    pub standard_error: Option<f64>,
    #[serde(skip)]
    all: Score,
    /// Problems that could not be solved.
    pub failed: usize,
    /// Problems whose stored predictions were graded anew, as their answer in the problem file has
    /// changed.
    pub regraded: Vec<String>,
    /// The strategy.
    pub strategy: Strategy,
    /// N.
    pub n: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// How the answer is selected.
    pub selection: Selection,
    /// Who compared answers.
    pub grader: Grader,
    /// The device.
    pub device: String,
    /// What happens past a model's context length.
    pub context_overflow: &'static str,
    /// The policy.
    pub policy: ModelSummary,
    /// The PRM; null for a strategy without one.
    pub prm: Option<ModelSummary>,
    /// The KV cache.
    pub kv: KvSummary,
    /// Floating-point operations of this run.
    pub flops: Flops,
    /// Tokens of a problem, the mean over all results.
    pub tokens_per_problem: TokensPerProblem,
    /// Wall-clock time of this run, loading included.
    pub seconds: f64,
    /// How many solutions' answers each rule found, over all results; `none` counts those without an
    /// answer.
    pub extractions: ExtractionCounts,
    /// By level of the problems.
    pub by_level: BTreeMap<String, Score>,
    /// By verdict.
    pub verdicts: BTreeMap<String, Score>,
    /// By smaller budget, then by verdict.
    pub by_n: BTreeMap<usize, BTreeMap<String, Score>>,
    /// Problems for which any solution is right.
    pub any_correct: Score,
}

/// What the engine counted for one model.
pub struct Counted {
    /// The model.
    pub model: ModelInfo,
    /// Its work and its KV cache.
    pub usage: ModelUsage,
}

impl Counted {
    /// Both, if there is such a model.
    pub fn of(model: Option<ModelInfo>, usage: Option<ModelUsage>) -> Option<Counted> {
        Some(Counted {
            model: model?,
            usage: usage?,
        })
    }

    fn summary(&self) -> ModelSummary {
        ModelSummary {
            name: self.model.name.clone(),
            params: self.model.params,
            tokens_processed: self.usage.work.tokens_processed,
            tokens_reused: self.usage.work.tokens_reused,
            tokens_generated: self.usage.work.tokens_generated,
        }
    }
}

/// A run to sum up.
pub struct Run<'a> {
    /// Its results and those of earlier runs into the same file.
    pub lines: &'a [&'a Line],
    /// Problems without a result.
    pub failed: usize,
    /// The search.
    pub config: &'a strategies::Config,
    /// The device in words.
    pub device: String,
    /// What happens past a model's context length.
    pub context_overflow: ContextOverflow,
    /// The policy.
    pub policy: Counted,
    /// The PRM.
    pub prm: Option<Counted>,
    /// Wall-clock time.
    pub seconds: f64,
    /// Problems that were graded anew.
    pub regraded: &'a [String],
}

/// Sums a run up.
pub fn summarise(run: Run<'_>) -> Summary {
    let (lines, config) = (run.lines, run.config);
    let mut all = Score::default();
    let mut any_correct = Score::default();
    let mut extractions = ExtractionCounts::new();
    let mut by_level: BTreeMap<String, Score> = BTreeMap::new();
    let mut verdicts: BTreeMap<String, Score> = BTreeMap::new();
    let mut by_n: BTreeMap<usize, BTreeMap<String, Score>> = BTreeMap::new();
    for line in lines {
        all.add(line.correct);
        any_correct.add(line.any_correct);
        for (&rule, count) in &line.extractions {
            *extractions.entry(rule).or_default() += count;
        }
        let level = line.level.as_ref().map_or("-".into(), Level::to_string);
        by_level.entry(level).or_default().add(line.correct);
        for verdict in &line.verdicts {
            verdicts
                .entry(verdict.selection.to_string())
                .or_default()
                .add(verdict.correct);
        }
        for smaller in &line.by_n {
            let row = by_n.entry(smaller.n).or_default();
            for verdict in &smaller.verdicts {
                row.entry(verdict.selection.to_string())
                    .or_default()
                    .add(verdict.correct);
            }
        }
    }
    Summary {
        problems: lines.len(),
        correct: all.correct,
        accuracy: (all.problems > 0).then_some(all.accuracy),
        standard_error: (all.problems > 0).then_some(all.standard_error),
        all,
        failed: run.failed,
        regraded: run.regraded.to_vec(),
        strategy: config.strategy,
        n: config.n,
        seed: config.seed,
        selection: config.selection_or_default(),
        grader: config.grader,
        device: run.device,
        context_overflow: run.context_overflow.name(),
        policy: run.policy.summary(),
        prm: run.prm.as_ref().map(Counted::summary),
        kv: KvSummary::of(&run.policy, run.prm.as_ref()),
        flops: Flops {
            policy: run.policy.usage.work.flops,
            prm: run.prm.as_ref().map_or(0, |prm| prm.usage.work.flops),
        },
        tokens_per_problem: TokensPerProblem {
            policy: mean(lines.iter().map(|line| line.tokens.policy)),
            prm: mean(lines.iter().map(|line| line.tokens.prm)),
        },
        seconds: run.seconds,
        extractions,
        by_level,
        verdicts,
        by_n,
        any_correct,
    }
}

/// 0 for nothing.
fn mean(counts: impl ExactSizeIterator<Item = u64>) -> f64 {
    let count = counts.len().max(1) as f64;
    counts.sum::<u64>() as f64 / count
}

fn accuracy(score: &Score) -> String {
    match score.problems {
        0 => "-".into(),
        _ => percent(score.accuracy),
    }
}

/// The summary as text: accuracy by level, every selection at every budget, the models, the run.
pub fn render(s: &Summary) -> String {
    let tables = [levels(s), selections(s), models(s), run(s)];
    let mut out = tables.map(|table| table.to_string()).join("\n\n");
    out.push('\n');
    out
}

fn levels(s: &Summary) -> Table {
    let mut table = table(
        ["level", "problems", "right", "accuracy", "standard error"],
        1,
    );
    let row = |name: &str, score: &Score| {
        [
            name.to_string(),
            score.problems.to_string(),
            score.correct.to_string(),
            accuracy(score),
            match score.problems {
                0 => "-".into(),
                _ => percent(score.standard_error),
            },
        ]
    };
    for (level, score) in &s.by_level {
        table.add_row(row(level, score));
    }
    table.add_row(row("all", &s.all));
    table
}

/// The accuracy of every selection, with the run's budget and with smaller ones.
fn selections(s: &Summary) -> Table {
    let mut header = vec!["selection".to_string()];
    header.extend(s.by_n.keys().map(|n| format!("N = {n}")));
    header.push(format!("N = {}", s.n));
    let mut table = table(header, 1);
    let chosen = s.selection.to_string();
    for (name, score) in &s.verdicts {
        let mark = if *name == chosen { " (chosen)" } else { "" };
        let mut row = vec![format!("{name}{mark}")];
        for smaller in s.by_n.values() {
            row.push(smaller.get(name).map_or("-".into(), accuracy));
        }
        row.push(accuracy(score));
        table.add_row(row);
    }
    let mut any = vec!["any solution right".to_string()];
    any.extend(s.by_n.keys().map(|_| String::new()));
    any.push(accuracy(&s.any_correct));
    table.add_row(any);
    table
}

/// What each model did in this run.
fn models(s: &Summary) -> Table {
    let header = [
        "model",
        "",
        "parameters",
        "tokens computed",
        "reused",
        "drawn",
        "FLOPs",
    ];
    let mut table = table(header, 2);
    let policy = Some(("policy", &s.policy, s.flops.policy));
    let prm = s.prm.as_ref().map(|prm| ("PRM", prm, s.flops.prm));
    for (role, model, flops) in policy.into_iter().chain(prm) {
        table.add_row([
            role.to_string(),
            model.name.clone(),
            grouped(model.params as u64),
            grouped(model.tokens_processed),
            grouped(model.tokens_reused),
            grouped(model.tokens_generated),
            format!("{:.3e}", flops as f64),
        ]);
    }
    table
}

/// The settings and what the run took.
fn run(s: &Summary) -> Table {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let mut table = table(["run", ""], 2);
    let search = format!("{}, N = {}, seed {}", s.strategy.name(), s.n, s.seed);
    let kv = format!(
        "{:.2} MiB at its peak, {:.2} MiB without sharing",
        mib(s.kv.peak_bytes),
        mib(s.kv.unshared_bytes)
    );
    let tokens = &s.tokens_per_problem;
    let per_problem = format!(
        "{:.0} tokens by the policy, {:.0} read by the PRM",
        tokens.policy, tokens.prm
    );
    let solutions: usize = s.extractions.values().sum();
    let found_by = format!("{} of {solutions} solutions", rules(&s.extractions));
    let rate = s.policy.tokens_generated as f64 / s.seconds.max(1e-9);
    let mut rows = vec![
        ("strategy", search),
        ("grader", s.grader.name().to_string()),
        ("device", s.device.clone()),
        ("context overflow", s.context_overflow.to_string()),
        ("answers found by", found_by),
        ("per problem", per_problem),
        ("KV cache", kv),
        (
            "time",
            format!("{:.1} s, {rate:.0} drawn tokens/s", s.seconds),
        ),
    ];
    if s.failed > 0 {
        rows.push(("problems without a result", s.failed.to_string()));
    }
    if !s.regraded.is_empty() {
        let ids = s.regraded.join(", ");
        rows.push((
            "graded anew",
            format!("{ids}: another answer in the problem file"),
        ));
    }
    for (name, value) in rows {
        table.add_row([name.to_string(), value]);
    }
    table
}

/// A number with a space between groups of three digits: `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}
