//! Time, tokens and bytes of a whole search: by model, by phase, by operation.

use clap::Args;
use engine::{KvUsage, Usage};
use serde::{Deserialize, Serialize};

use crate::Done;
use crate::limits::{Achieved, Limits};
use crate::plot::Bars;
use crate::report::{Output, Report, peak_memory};
use crate::stats::Stat;
use crate::timed::{Cost, Counts, Operation, Phase, Work};

/// The number of repetitions.
#[derive(Args, Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// Measured repetitions; each loads the models again, so that none hits the prefix cache.
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Repetitions before them that are not measured.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warm_up: u32,
}

/// One run of a search.
#[derive(Clone, Debug)]
pub struct Run {
    /// Seconds from opening the files to the models on the device.
    pub load_seconds: f64,
    /// Seconds from there to the last answer.
    pub seconds: f64,
    /// Problems solved, and the number of right answers.
    pub problems: (usize, usize),
    /// Times of operations; empty for a device whose operations are not timed.
    pub counts: Counts,
    /// The models' names and the engine's counts, the policy first.
    pub models: Vec<(String, Usage, KvUsage)>,
}

/// The search and its totals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The search in words.
    pub search: String,
    /// Problems solved.
    pub problems: usize,
    /// Right answers.
    pub correct: usize,
    /// Seconds from opening the files to the models on the device.
    pub load_seconds: Stat,
    /// Seconds from there to the last answer.
    pub seconds: Stat,
    /// Seconds of those outside of the device's operations: scheduling, text, the search itself.
    /// `None` where operations are not timed.
    pub seconds_outside: Option<Stat>,
    /// The work of each model.
    pub models: Vec<ModelUse>,
    /// Peak memory of the process; `None` where the system does not report it.
    pub peak_memory_bytes: Option<u64>,
}

/// The work of a model as the engine counts it; the same in every repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelUse {
    /// Its name.
    pub name: String,
    /// Tokens computed.
    pub tokens_processed: u64,
    /// Tokens that an engine without a cache would have computed beyond these.
    pub tokens_reused: u64,
    /// Tokens drawn.
    pub tokens_generated: u64,
    /// Bytes of KV at the peak.
    pub kv_peak_bytes: usize,
    /// Bytes of KV without sharing.
    pub kv_unshared_bytes: usize,
}

/// The work of one model in batches of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The model.
    pub model: String,
    /// The phase.
    pub phase: Phase,
    /// Batches of a repetition.
    #[serde(alias = "steps")]
    pub batches: u64,
    /// Rows computed in them.
    pub rows: u64,
    /// Rows whose head was computed.
    pub outputs: u64,
    /// Seconds of a repetition in operations.
    pub seconds: Stat,
    /// Share of all seconds of the search.
    pub share_of_time: f64,
    /// By operation.
    pub operations: Vec<Spent>,
}

/// One kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Which.
    pub operation: Operation,
    /// Means over the repetitions.
    #[serde(flatten)]
    pub cost: Cost,
    /// Against the limits, for operations that are counted.
    pub achieved: Option<Achieved>,
}

/// The report of these runs.
///
/// # Errors
/// No run, or a file that cannot be written.
pub fn give(
    search: String,
    (device, threads): (String, Option<usize>),
    runs: &[Run],
    output: &Output,
) -> Done<String> {
    let limits = threads.map(Limits::measure);
    let settings = settings(search, runs)?;
    let mut report = Report::new("search", device, limits.into_iter().collect(), settings);
    report.rows = rows(runs, limits.as_ref(), &report.settings)?;
    let (header, cells) = table(&report);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let plots = if report.rows.is_empty() {
        Vec::new()
    } else {
        vec![("time".to_string(), plot(&report)?)]
    };
    let mut text = report.give(output, (&header, 2, &cells), &plots)?;
    if !output.json {
        text += &words(&report.settings);
    }
    Ok(text)
}

/// A number of every run.
fn stat(runs: &[Run], of: impl Fn(&Run) -> f64) -> Done<Stat> {
    let values: Vec<f64> = runs.iter().map(of).collect();
    Stat::of(&values).ok_or("a measurement without a repetition".into())
}

fn settings(search: String, runs: &[Run]) -> Done<Settings> {
    let first = runs.first().ok_or("a measurement without a repetition")?;
    let outside = |run: &Run| run.seconds - run.counts.values().map(|w| w.seconds()).sum::<f64>();
    let timed = !first.counts.is_empty();
    Ok(Settings {
        search,
        problems: first.problems.0,
        correct: first.problems.1,
        load_seconds: stat(runs, |run| run.load_seconds)?,
        seconds: stat(runs, |run| run.seconds)?,
        seconds_outside: timed.then(|| stat(runs, outside)).transpose()?,
        models: first.models.iter().map(model_use).collect(),
        peak_memory_bytes: peak_memory(),
    })
}

/// A row for each model and phase of the first run.
fn rows(runs: &[Run], limits: Option<&Limits>, settings: &Settings) -> Done<Vec<Row>> {
    let first = runs.first().ok_or("a measurement without a repetition")?;
    let row = |(&(model, phase), work): (&(usize, Phase), &Work)| {
        let seconds = stat(runs, |run| {
            run.counts.get(&(model, phase)).map_or(0.0, Work::seconds)
        })?;
        let operations = Operation::ALL.into_iter();
        Ok(Row {
            model: first
                .models
                .get(model)
                .map_or("?", |(name, ..)| name)
                .into(),
            phase,
            batches: work.steps,
            rows: work.rows,
            outputs: work.outputs,
            seconds,
            share_of_time: seconds.median / settings.seconds.median,
            operations: operations
                .filter_map(|operation| spent(runs, (model, phase), operation, limits))
                .collect(),
        })
    };
    first.counts.iter().map(row).collect()
}

/// The mean cost of an operation over the runs; `None` if it was never called.
fn spent(
    runs: &[Run],
    key: (usize, Phase),
    operation: Operation,
    limits: Option<&Limits>,
) -> Option<Spent> {
    let mut cost = Cost::default();
    for run in runs {
        let work = run.counts.get(&key);
        cost += work.map(|work| work.cost(operation)).unwrap_or_default();
    }
    let count = runs.len() as f64;
    cost.calls /= runs.len() as u64;
    cost.seconds /= count;
    cost.flops /= count;
    cost.bytes /= count;
    let achieved = |l: &Limits| Achieved::of(cost.flops, cost.bytes, cost.seconds, l);
    (cost.calls > 0).then(|| Spent {
        operation,
        cost,
        achieved: limits.filter(|_| cost.flops > 0.0).map(achieved),
    })
}

fn model_use((name, usage, kv): &(String, Usage, KvUsage)) -> ModelUse {
    ModelUse {
        name: name.clone(),
        tokens_processed: usage.tokens_processed,
        tokens_reused: usage.tokens_reused,
        tokens_generated: usage.tokens_generated,
        kv_peak_bytes: kv.peak_blocks * kv.block_bytes,
        kv_unshared_bytes: kv.unshared_blocks * kv.block_bytes,
    }
}

/// The search and the models, in sentences.
fn words(settings: &Settings) -> String {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let mut out = format!(
        "\n{}: {} problems, {} right, {} s",
        settings.search,
        settings.problems,
        settings.correct,
        settings.seconds.words(1.0, 2)
    );
    if let Some(outside) = &settings.seconds_outside {
        out += &format!(
            ", of them {} s outside of operations",
            outside.words(1.0, 2)
        );
    }
    out += &format!("; loading {} s\n", settings.load_seconds.words(1.0, 2));
    for model in &settings.models {
        out += &format!(
            "{}: {} tokens computed, {} reused, {} drawn; KV {:.1} MiB at the peak, {:.1} unshared\n",
            model.name,
            model.tokens_processed,
            model.tokens_reused,
            model.tokens_generated,
            mib(model.kv_peak_bytes),
            mib(model.kv_unshared_bytes)
        );
    }
    out
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
    }
}

fn table(report: &Report<Settings, Row>) -> (Vec<String>, Vec<Vec<String>>) {
    let mut header: Vec<String> = ["model", "phase", "batches", "rows/batch", "s", "of time"]
        .map(String::from)
        .to_vec();
    header.extend(Operation::ALL.map(|operation| operation.name().to_string()));
    header.extend(["GFLOP/s", "of peak", "GB/s", "of read"].map(String::from));
    let rows = report.rows.iter().map(|row| {
        let mut cells = vec![
            row.model.clone(),
            phase(row.phase).to_string(),
            row.batches.to_string(),
            format!("{:.1}", row.rows as f64 / row.batches.max(1) as f64),
            row.seconds.words(1.0, 3),
            format!("{:.0}%", 100.0 * row.share_of_time),
        ];
        let found = |operation| row.operations.iter().find(|s| s.operation == operation);
        cells.extend(Operation::ALL.map(|operation| {
            let share = |s: &Spent| s.cost.seconds / report.settings.seconds.median;
            found(operation).map_or("-".into(), |s| format!("{:.1}%", 100.0 * share(s)))
        }));
        let linear = found(Operation::Linear).and_then(|spent| spent.achieved);
        cells.extend(Achieved::cells(linear.as_ref()));
        cells
    });
    (header, rows.collect())
}

fn plot(report: &Report<Settings, Row>) -> Done<String> {
    let mut bars: Vec<(String, Vec<f64>)> = (report.rows.iter())
        .map(|row| {
            let seconds = |operation| {
                let found = row.operations.iter().find(|s| s.operation == operation);
                found.map_or(0.0, |spent| spent.cost.seconds)
            };
            let name = row.model.rsplit('/').next().unwrap_or_default();
            let name = format!("{name}, {}", phase(row.phase));
            (name, Operation::ALL.map(seconds).to_vec())
        })
        .collect();
    let mut parts: Vec<String> = Operation::ALL.map(|o| o.name().to_string()).to_vec();
    if let Some(outside) = &report.settings.seconds_outside {
        let mut lengths = vec![0.0; parts.len()];
        lengths.push(outside.median);
        parts.push("outside".into());
        bars.push(("outside of operations".into(), lengths));
    }
    let picture = Bars {
        title: report.settings.search.clone(),
        x: "seconds".into(),
        parts,
        bars,
    };
    picture.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scale: f64) -> Run {
        let mut work = Work {
            steps: 3,
            rows: 12,
            outputs: 12,
            ..Work::default()
        };
        let cost = |seconds: f64, flops| Cost {
            calls: 5,
            seconds: seconds * scale,
            flops,
            bytes: 10.0,
        };
        work.costs.insert(Operation::Linear, cost(2.0, 100.0));
        work.costs.insert(Operation::Norms, cost(1.0, 0.0));
        Run {
            load_seconds: 0.5,
            seconds: 4.0 * scale,
            problems: (2, 1),
            counts: Counts::from([((0, Phase::Decode), work)]),
            models: vec![("nano-small".into(), Usage::default(), KvUsage::default())],
        }
    }

    #[test]
    fn time_beside_operations_is_outside() {
        let output = |json| Output { json, out: None };
        let runs = [run(1.0), run(2.0), run(3.0)];
        let give = |json| {
            let device = ("CPU".to_string(), None);
            super::give("beam".into(), device, &runs, &output(json)).expect("a report")
        };
        let report: Report<Settings, Row> = serde_json::from_str(&give(true)).expect("JSON");
        assert_eq!(report.settings.seconds.median, 8.0);
        assert_eq!(
            report.settings.seconds_outside.expect("clocked").median,
            2.0
        );
        let row = &report.rows[0];
        assert_eq!((row.seconds.median, row.share_of_time), (6.0, 0.75));
        assert_eq!(row.operations[0].cost.seconds, 4.0);
        let text = give(false);
        assert!(
            text.contains("beam: 2 problems, 1 right, 8.00 ±50% s"),
            "{text}"
        );
        assert!(text.contains("nano-small"), "{text}");
    }

    #[test]
    fn no_run_is_an_error() {
        let output = Output::default();
        assert!(give("x".into(), ("CPU".into(), None), &[], &output).is_err());
    }
}
