//! What the records of a sweep come to: one row for each configuration and budget.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use strategies::wilson;

use super::grid::Cell;
use super::record::Record;

/// How hard a problem is for a policy, by the share of its samples that are right: the bins of the
/// paper (arXiv 2502.06703, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difficulty {
    /// At least 50 %.
    Easy,
    /// At least 10 %.
    Medium,
    /// Less.
    Hard,
}

impl Difficulty {
    /// All, the easiest first.
    pub const ALL: [Difficulty; 3] = [Difficulty::Easy, Difficulty::Medium, Difficulty::Hard];

    /// The bin of a pass@1.
    pub fn of(pass_at_1: f64) -> Difficulty {
        match pass_at_1 {
            0.5.. => Difficulty::Easy,
            0.1.. => Difficulty::Medium,
            _ => Difficulty::Hard,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Difficulty::Easy => "easy",
            Difficulty::Medium => "medium",
            Difficulty::Hard => "hard",
        }
    }
}

/// A policy's samples of one problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemDifficulty {
    /// The policy.
    pub policy: String,
    /// The problem.
    pub id: String,
    /// Right samples.
    pub right: usize,
    /// Samples.
    pub samples: usize,
    /// The share of right ones.
    pub pass_at_1: f64,
    /// Its 95 % interval (Wilson 1927).
    pub interval: [f64; 2],
    /// Its bin.
    pub difficulty: Difficulty,
}

/// One configuration at one budget, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The policy.
    pub policy: String,
    /// The PRM, if any.
    pub prm: Option<String>,
    /// The strategy with its options.
    pub configuration: String,
    /// N.
    pub n: usize,
    /// Seeds.
    pub seeds: usize,
    /// Problems with a known answer.
    pub problems: usize,
    /// The share of right answers, over problems and seeds.
    pub accuracy: f64,
    /// Half its 95 % interval, over the problems: 1.96 standard errors of the problems' means.
    pub interval: f64,
    /// The standard deviation of the seeds' accuracies; 0 for one seed.
    pub seed_deviation: f64,
    /// The share of right solutions.
    pub pass_rate: f64,
    /// The share of problems of which any solution is right (pass@N).
    pub oracle: f64,
    /// Tokens drawn, a problem.
    pub policy_tokens: f64,
    /// Tokens that the PRM computed, a problem.
    pub prm_tokens: f64,
    /// Floating-point operations of the policy, a problem.
    pub policy_flops: f64,
    /// Those of the PRM.
    pub prm_flops: f64,
    /// By the paper's convention: 2 · parameters · tokens drawn, the PRM left out.
    pub paper_flops: f64,
    /// The accuracy by the policy's own difficulty, if its samples are in the sweep.
    pub by_difficulty: BTreeMap<&'static str, f64>,
}

/// A cell with its records.
pub struct Filled<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Parameters of its policy.
    pub policy_params: u64,
    /// Its records.
    pub records: &'a [Record],
}

/// The samples of every policy for every problem: of the best-of-N and majority cells with the paper's
/// sampling, at their own N.
pub fn difficulties(cells: &[Filled<'_>]) -> Vec<ProblemDifficulty> {
    // Best-of-N and majority draw the same solutions with one seed: the larger run has the smaller's.
    let mut of_seed: BTreeMap<(&str, &str, u64), (usize, usize)> = BTreeMap::new();
    for Filled { cell, records, .. } in cells {
        if cell.configuration != "best-of-n" && cell.configuration != "majority" {
            continue;
        }
        for record in records.iter().filter(|record| record.n == cell.search.n) {
            if let Some(right) = record.right {
                let key = (cell.policy.as_str(), record.id.as_str(), cell.search.seed);
                let found = of_seed.entry(key).or_default();
                if record.solutions > found.1 {
                    *found = (right, record.solutions);
                }
            }
        }
    }
    let mut samples: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for ((policy, id, _), (right, count)) in of_seed {
        let sum = samples.entry((policy, id)).or_default();
        *sum = (sum.0 + right, sum.1 + count);
    }
    let all = samples.into_iter().filter(|(_, (_, samples))| *samples > 0);
    all.map(|((policy, id), (right, samples))| {
        let pass_at_1 = right as f64 / samples as f64;
        ProblemDifficulty {
            policy: policy.into(),
            id: id.into(),
            right,
            samples,
            pass_at_1,
            interval: wilson(pass_at_1, samples as f64),
            difficulty: Difficulty::of(pass_at_1),
        }
    })
    .collect()
}

/// The rows, in the order of the cells, then by budget.
pub fn rows(cells: &[Filled<'_>]) -> Vec<Row> {
    let bins: HashMap<(String, String), Difficulty> = (difficulties(cells).into_iter())
        .map(|d| ((d.policy, d.id), d.difficulty))
        .collect();
    let mut groups: Vec<(Key<'_>, Vec<&Record>)> = Vec::new();
    let mut place: HashMap<Key<'_>, usize> = HashMap::new();
    for filled in cells {
        for record in filled.records {
            let key = Key {
                policy: &filled.cell.policy,
                prm: filled.cell.prm.as_deref(),
                configuration: &filled.cell.configuration,
                n: record.n,
                params: filled.policy_params,
            };
            let at = *place.entry(key).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(record);
        }
    }
    (groups.iter())
        .map(|(key, records)| row(key, records, &bins))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    policy: &'a str,
    prm: Option<&'a str>,
    configuration: &'a str,
    n: usize,
    params: u64,
}

fn row(key: &Key<'_>, records: &[&Record], bins: &HashMap<(String, String), Difficulty>) -> Row {
    let mean = |value: &dyn Fn(&Record) -> f64| {
        records.iter().map(|record| value(record)).sum::<f64>() / records.len().max(1) as f64
    };
    // The k-th record of a problem is that of the k-th seed.
    let mut by_problem: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut by_bin: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
    let (mut right, mut solutions, mut oracle) = (0, 0, 0.0);
    for record in records {
        let Some(correct) = record.correct else {
            continue;
        };
        let correct = f64::from(u8::from(correct));
        by_problem.entry(&record.id).or_default().push(correct);
        right += record.right.unwrap_or(0);
        solutions += record.solutions;
        oracle += f64::from(u8::from(record.right > Some(0)));
        if let Some(bin) = bins.get(&(key.policy.to_string(), record.id.clone())) {
            let sums = by_bin.entry(bin.name()).or_default();
            *sums = (sums.0 + correct, sums.1 + 1.0);
        }
    }
    let graded: usize = by_problem.values().map(Vec::len).sum();
    let seeds = by_problem.values().map(Vec::len).max().unwrap_or(0);
    let means: Vec<f64> = by_problem.values().map(|all| average(all)).collect();
    let of_seed = |seed: usize| -> Vec<f64> {
        by_problem
            .values()
            .filter_map(|all| all.get(seed).copied())
            .collect()
    };
    let accuracies: Vec<f64> = (0..seeds).map(|seed| average(&of_seed(seed))).collect();
    let policy_tokens = mean(&|r| r.policy_tokens as f64);
    Row {
        policy: key.policy.into(),
        prm: key.prm.map(String::from),
        configuration: key.configuration.into(),
        n: key.n,
        seeds,
        problems: by_problem.len(),
        accuracy: average(&means),
        interval: 1.96 * deviation(&means) / (means.len().max(1) as f64).sqrt(),
        seed_deviation: deviation(&accuracies),
        pass_rate: right as f64 / solutions.max(1) as f64,
        oracle: oracle / graded.max(1) as f64,
        policy_tokens,
        prm_tokens: mean(&|r| r.prm_tokens as f64),
        policy_flops: mean(&|r| r.policy_flops as f64),
        prm_flops: mean(&|r| r.prm_flops as f64),
        paper_flops: 2.0 * key.params as f64 * policy_tokens,
        by_difficulty: (by_bin.into_iter())
            .map(|(bin, (right, count))| (bin, right / count))
            .collect(),
    }
}

/// The mean; 0 of nothing.
pub fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The sample standard deviation; 0 of less than two values.
pub fn deviation(values: &[f64]) -> f64 {
    let mean = average(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    match values.len() {
        0 | 1 => 0.0,
        count => (squares / (count - 1) as f64).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use strategies::{Config, Strategy};

    use super::*;

    fn record(id: &str, n: usize, correct: bool, right: usize) -> Record {
        Record {
            schema: super::super::SCHEMA,
            id: id.into(),
            level: None,
            n,
            correct: Some(correct),
            verdicts: BTreeMap::new(),
            solutions: n,
            right: Some(right),
            policy_tokens: 10 * n as u64,
            prm_tokens: 5,
            policy_flops: 1000,
            prm_flops: 500,
            policy_stem_flops: 100,
            prm_stem_flops: 100,
        }
    }

    #[test]
    fn rows_by_hand() {
        let cell = |seed| Cell {
            policy: "a".into(),
            prm: Some("p".into()),
            configuration: "best-of-n".into(),
            search: Config {
                n: 4,
                seed,
                ..Config::new(Strategy::BestOfN)
            },
        };
        let (first, second) = (cell(0), cell(1));
        let records = [
            vec![
                record("x", 1, true, 1),
                record("x", 4, true, 4),
                record("y", 1, false, 0),
                record("y", 4, true, 1),
            ],
            vec![
                record("x", 1, true, 1),
                record("x", 4, true, 3),
                record("y", 1, false, 0),
                record("y", 4, false, 0),
            ],
        ];
        let filled = |cell, records| Filled {
            cell,
            policy_params: 100,
            records,
        };
        let cells = [filled(&first, &records[0]), filled(&second, &records[1])];
        let found = difficulties(&cells);
        let pass: Vec<(usize, usize, Difficulty)> = (found.iter())
            .map(|d| (d.right, d.samples, d.difficulty))
            .collect();
        assert_eq!(pass, [(7, 8, Difficulty::Easy), (1, 8, Difficulty::Medium)]);
        let rows = rows(&cells);
        assert_eq!(rows.len(), 2);
        let row = &rows[1];
        assert_eq!((row.n, row.seeds, row.problems), (4, 2, 2));
        // x 1, y 1/2; seeds 1 and 1/2.
        assert_eq!(row.accuracy, 0.75);
        assert!((row.seed_deviation - 0.125_f64.sqrt()).abs() < 1e-12);
        assert!((row.interval - 1.96 * 0.125_f64.sqrt() / 2.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((row.pass_rate, row.oracle), (0.5, 0.75));
        assert_eq!((row.policy_tokens, row.paper_flops), (40.0, 8000.0));
        let bins: Vec<_> = row.by_difficulty.iter().map(|(b, a)| (*b, *a)).collect();
        assert_eq!(bins, [("easy", 1.0), ("medium", 0.5)]);
    }

    #[test]
    fn the_papers_bins() {
        let bins = [1.0, 0.5, 0.499, 0.1, 0.0999, 0.0].map(Difficulty::of);
        use Difficulty::{Easy, Hard, Medium};
        assert_eq!(bins, [Easy, Easy, Medium, Medium, Hard, Hard]);
    }
}
