//! What a run of `solve` comes to: a table for people, one JSON object for programs.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use engine::{KvUsage, Usage};
use serde::Serialize;
use strategies::{ContextOverflow, Grader, Selection, Strategy};

use crate::results::Line;

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
    /// The strategy.
    pub strategy: Strategy,
    /// N.
    pub n: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The verdict that counts.
    pub verdict: Selection,
    /// Who compared answers.
    pub grader: Grader,
    /// The device.
    pub device: String,
    /// What becomes of tokens past a model's positions.
    pub past_limit: &'static str,
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
    /// As named.
    pub name: String,
    /// Parameters.
    pub params: usize,
    /// Its work.
    pub usage: Usage,
    /// Its KV cache.
    pub kv: KvUsage,
}

impl Counted {
    fn summary(&self) -> ModelSummary {
        ModelSummary {
            name: self.name.clone(),
            params: self.params,
            tokens_processed: self.usage.tokens_processed,
            tokens_reused: self.usage.tokens_reused,
            tokens_generated: self.usage.tokens_generated,
        }
    }
}

/// Sums a run up.
pub fn summarise(
    lines: &[&Line],
    failed: usize,
    config: &strategies::Config,
    (device, past_limit): (String, ContextOverflow),
    policy: &Counted,
    prm: Option<&Counted>,
    seconds: f64,
) -> Summary {
    let mut all = Score::default();
    let mut any_correct = Score::default();
    let mut by_level: BTreeMap<String, Score> = BTreeMap::new();
    let mut verdicts: BTreeMap<String, Score> = BTreeMap::new();
    let mut by_n: BTreeMap<usize, BTreeMap<String, Score>> = BTreeMap::new();
    for line in lines {
        all.add(line.correct);
        any_correct.add(line.any_correct);
        let level = line.level.map_or("-".into(), |l| l.to_string());
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
    let models = || std::iter::once(policy).chain(prm);
    let bytes =
        |count: fn(&KvUsage) -> usize| models().map(|m| count(&m.kv) * m.kv.block_bytes).sum();
    Summary {
        problems: lines.len(),
        correct: all.correct,
        accuracy: (all.problems > 0).then_some(all.accuracy),
        failed,
        strategy: config.strategy,
        n: config.n,
        seed: config.seed,
        verdict: config.selection_or_default(),
        grader: config.grader,
        device,
        past_limit: past_limit.name(),
        policy: policy.summary(),
        prm: prm.map(Counted::summary),
        kv: KvSummary {
            block_tokens: policy.kv.block_tokens,
            peak_blocks: models().map(|m| m.kv.peak_blocks).sum(),
            peak_bytes: bytes(|kv| kv.peak_blocks),
            unshared_bytes: bytes(|kv| kv.unshared_blocks),
        },
        flops: Flops {
            policy: policy.usage.flops,
            prm: prm.map_or(0, |m| m.usage.flops),
        },
        seconds,
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
    let verdicts: Vec<String> = s
        .verdicts
        .iter()
        .map(|(rule, score)| format!("{rule} {}", percent(score)))
        .collect();
    out += &format!("Every verdict: {}\n", verdicts.join(", "));
    out += &format!("Any solution right: {}\n", percent(&s.any_correct));
    out += &format!(
        "{}, N = {}, verdict {}, seed {}, grader {}, {}, past a model's positions: {}\n",
        s.strategy.name(),
        s.n,
        s.verdict,
        s.seed,
        s.grader.name(),
        s.device,
        s.past_limit
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
