//! What a run of `solve` comes to: a table for people, one JSON object for programs.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use strategies::{ContextOverflow, Grader, Level, Selection, Strategy};

use session::results::Line;
use session::{ModelInfo, ModelUsage};

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

/// Floating-point operations.
#[derive(Debug, Serialize)]
pub struct Flops {
    /// Of the policy.
    pub policy: u64,
    /// Of the PRM.
    pub prm: u64,
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
}

impl Score {
    fn add(&mut self, correct: Option<bool>) {
        if let Some(correct) = correct {
            self.problems += 1;
            self.correct += usize::from(correct);
            self.accuracy = self.correct as f64 / self.problems as f64;
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
    /// Wall-clock time of this run, loading included.
    pub seconds: f64,
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
    let mut by_level: BTreeMap<String, Score> = BTreeMap::new();
    let mut verdicts: BTreeMap<String, Score> = BTreeMap::new();
    let mut by_n: BTreeMap<usize, BTreeMap<String, Score>> = BTreeMap::new();
    for line in lines {
        all.add(line.correct);
        any_correct.add(line.any_correct);
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
    let models = || std::iter::once(&run.policy).chain(&run.prm);
    let kv = || models().map(|model| &model.usage.kv);
    Summary {
        problems: lines.len(),
        correct: all.correct,
        accuracy: (all.problems > 0).then_some(all.accuracy),
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
        kv: KvSummary {
            block_tokens: run.policy.usage.kv.block_tokens,
            peak_blocks: kv().map(|kv| kv.peak_blocks).sum(),
            peak_bytes: kv().map(|kv| kv.peak_blocks * kv.block_bytes).sum(),
            unshared_bytes: kv().map(|kv| kv.unshared_blocks * kv.block_bytes).sum(),
        },
        flops: Flops {
            policy: run.policy.usage.work.flops,
            prm: run.prm.as_ref().map_or(0, |prm| prm.usage.work.flops),
        },
        seconds: run.seconds,
        by_level,
        verdicts,
        by_n,
        any_correct,
    }
}

fn percent(score: &Score) -> String {
    match score.problems {
        0 => "-".into(),
        _ => format!("{:.1}%", 100.0 * score.accuracy),
    }
}

/// The summary as text: accuracy by level, every verdict, the counts.
pub fn render(s: &Summary) -> String {
    let mut levels = Table::new();
    levels.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    levels.set_header(["level", "problems", "right", "accuracy"]);
    let row = |name: &str, score: &Score| {
        [
            name.to_string(),
            score.problems.to_string(),
            score.correct.to_string(),
            percent(score),
        ]
    };
    for (level, score) in &s.by_level {
        levels.add_row(row(level, score));
    }
    let graded = s.by_level.values().map(|score| score.problems).sum();
    let all = Score {
        problems: graded,
        correct: s.correct,
        accuracy: s.accuracy.unwrap_or(0.0),
    };
    levels.add_row(row("all", &all));
    for column in levels.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("{levels}\n\n");
    if !s.regraded.is_empty() {
        let ids = s.regraded.join(", ");
        out += &format!("Graded anew, as the problem file has another answer now: {ids}\n");
    }
    let verdicts: Vec<String> = s
        .verdicts
        .iter()
        .map(|(rule, score)| format!("{rule} {}", percent(score)))
        .collect();
    out += &format!("Every verdict: {}\n", verdicts.join(", "));
    out += &format!("Any solution right: {}\n", percent(&s.any_correct));
    out += &format!(
        "{}, N = {}, selection {}, seed {}, grader {}, {}, context overflow: {}\n",
        s.strategy.name(),
        s.n,
        s.selection,
        s.seed,
        s.grader.name(),
        s.device,
        s.context_overflow
    );
    for (role, model) in
        std::iter::once(("policy", &s.policy)).chain(s.prm.iter().map(|m| ("PRM", m)))
    {
        out += &format!(
            "{role} {}: {} parameters, {} tokens computed, {} reused, {} drawn\n",
            model.name,
            model.params,
            model.tokens_processed,
            model.tokens_reused,
            model.tokens_generated
        );
    }
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    out += &format!(
        "KV cache at its peak: {:.2} MiB ({:.2} MiB without sharing); {:.3e} FLOPs; {:.1} s\n",
        mib(s.kv.peak_bytes),
        mib(s.kv.unshared_bytes),
        (s.flops.policy + s.flops.prm) as f64,
        s.seconds
    );
    out
}
