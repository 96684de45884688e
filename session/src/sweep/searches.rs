//! The searches of a sweep as a plan sees them: for every problem and seed whether the answer is right, what
//! supports it and what it cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use strategies::{Selection, difficulty};

use super::grid::{Cell, options_of};
use super::record::Record;
use super::summary::{average, deviation};
use super::timing::Timing;

/// The selections by which a search may answer in a plan; more would be more ways to fit chance.
const SELECTIONS: [&str; 5] = ["last-vote", "last-max", "min-max", "mean-max", "majority"];

/// What is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Floating-point operations of both models.
    Flops,
    /// Floating-point operations by the paper's convention: 2 · parameters · tokens drawn, no PRM.
    PaperFlops,
    /// Tokens drawn.
    Tokens,
    /// Seconds: the FLOPs of a problem by those of a second, as the configuration had them alone on the
    /// machine.
    Seconds,
}

impl Unit {
    /// All of them.
    pub const ALL: [Unit; 4] = [Unit::Flops, Unit::PaperFlops, Unit::Tokens, Unit::Seconds];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Flops => "flops",
            Unit::PaperFlops => "paper-flops",
            Unit::Tokens => "tokens",
            Unit::Seconds => "seconds",
        }
    }
}

/// What a plan or a search comes to on some problems.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// By problem: the share of seeds with a right answer.
    pub right: Vec<f64>,
    /// By problem: the mean cost over the seeds.
    pub cost: Vec<f64>,
}

impl Found {
    /// The mean over the problems, and half its 95 % interval.
    pub fn accuracy(&self) -> (f64, f64) {
        mean(&self.right)
    }

    /// The mean over the problems, and half its 95 % interval.
    pub fn cost(&self) -> (f64, f64) {
        mean(&self.cost)
    }

    /// How much more often it is right than another on the same problems, and half the 95 % interval of
    /// the paired difference.
    pub fn gain(&self, other: &Found) -> (f64, f64) {
        let pairs = self.right.iter().zip(&other.right);
        mean(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// Its cost by another's on the same problems, and half the 95 % interval of that ratio (by the delta
    /// method).
    pub fn cost_ratio(&self, other: &Found) -> (f64, f64) {
        let (own, others) = (average(&self.cost), average(&other.cost));
        let ratio = own / others;
        let pairs = self.cost.iter().zip(&other.cost);
        let rests: Vec<f64> = pairs.map(|(a, b)| (a - ratio * b) / others).collect();
        (ratio, mean(&rests).1)
    }
}

fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    (average(values), 1.96 * deviation(values) / count.sqrt())
}

/// A search of a sweep, with what it did.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The name of the search: configuration and N.
    pub name: (String, usize),
    pub selection: Selection,
    pub cell: Cell,
    /// Whether it has a PRM's scores. Auto reads the PRM's prompt in any case.
    pub scored: bool,
    /// By point.
    pub right: Vec<bool>,
    pub difficulty: Vec<f64>,
    pub cost: Vec<f64>,
    /// The part of the cost that reading the problem was.
    pub stem: Vec<f64>,
}

/// Records by problem and seed.
type ByPoint<'a> = HashMap<(&'a str, u64), &'a Record>;

/// The searches of a sweep for one policy and PRM, on the problems and seeds that all of them have.
pub struct Searches {
    /// Ids of the problems.
    problems: Vec<String>,
    /// By point: the place of its problem.
    pub(super) problem_of: Vec<usize>,
    pub(super) known: Vec<Known>,
}

impl Searches {
    /// From the cells of a sweep and their records. Searches for another policy or PRM are left out; by
    /// seconds those that were not timed too.
    pub fn new(
        cells: &[(Cell, Vec<Record>)],
        timings: &[Timing],
        (policy, policy_params): (&str, u64),
        prm: &str,
        unit: Unit,
    ) -> Searches {
        let mut by_search: BTreeMap<(String, usize), (&Cell, ByPoint<'_>)> = BTreeMap::new();
        for (cell, records) in cells {
            let fits = cell.prm.as_deref().is_none_or(|name| name == prm);
            if cell.policy != policy || !fits {
                continue;
            }
            for record in records.iter().filter(|record| record.correct.is_some()) {
                let key = (cell.configuration.clone(), record.n);
                let (_, found) = by_search.entry(key).or_insert((cell, HashMap::new()));
                found.insert((record.id.as_str(), cell.search.seed), record);
            }
        }
        let points = common(by_search.values().map(|(_, records)| records));
        let mut problems: Vec<String> = points.iter().map(|(id, _)| id.to_string()).collect();
        problems.dedup();
        let place = |id: &str| problems.binary_search_by(|p| p.as_str().cmp(id));
        let problem_of = (points.iter())
            .filter_map(|(id, _)| place(id).ok())
            .collect();
        let mut searches = Searches {
            problem_of,
            known: Vec::new(),
            problems: problems.clone(),
        };
        for ((_, n), (cell, records)) in &by_search {
            let price = match unit {
                Unit::Flops => Price::Flops(1.0),
                Unit::PaperFlops => Price::Tokens(2.0 * policy_params as f64),
                Unit::Tokens => Price::Tokens(1.0),
                Unit::Seconds => match seconds_per_flop(cells, timings, cell, *n) {
                    Some(seconds) => Price::Flops(seconds),
                    None => continue,
                },
            };
            let records: Vec<&Record> = points.iter().map(|point| records[point]).collect();
            for selection in SELECTIONS.iter().filter_map(|word| word.parse().ok()) {
                (searches.known).extend(known(*n, cell, selection, &records, price));
            }
        }
        searches
    }

    /// How many problems all searches have.
    pub fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Problems and seeds.
    pub fn points(&self) -> usize {
        self.problem_of.len()
    }
}

/// What a search's counts cost.
#[derive(Clone, Copy, Debug)]
enum Price {
    /// A FLOP of either model.
    Flops(f64),
    /// A token drawn.
    Tokens(f64),
}

/// A search by one of its selections, if it has that one.
fn known(
    n: usize,
    cell: &Cell,
    selection: Selection,
    records: &[&Record],
    price: Price,
) -> Option<Known> {
    let word = selection.to_string();
    let judged: Option<Vec<_>> = records.iter().map(|r| r.verdicts.get(&word)).collect();
    let judged = judged?;
    let cost = |record: &&Record| match price {
        Price::Flops(price) => price * record.flops() as f64,
        Price::Tokens(price) => price * record.policy_tokens as f64,
    };
    let stem = |record: &&Record| match price {
        Price::Flops(price) => price * (record.policy_stem_flops + record.prm_stem_flops) as f64,
        Price::Tokens(_) => 0.0,
    };
    Some(Known {
        name: (cell.configuration.clone(), n),
        selection,
        cell: cell.clone(),
        scored: cell.prm.is_some(),
        right: judged.iter().map(|j| j.correct == Some(true)).collect(),
        difficulty: (judged.iter())
            .map(|j| difficulty(j.support.map(f64::from)))
            .collect(),
        cost: records.iter().map(cost).collect(),
        stem: records.iter().map(stem).collect(),
    })
}

/// The seconds of a search by its FLOPs, on the problems on which it was timed.
fn seconds_per_flop(
    cells: &[(Cell, Vec<Record>)],
    timings: &[Timing],
    cell: &Cell,
    n: usize,
) -> Option<f64> {
    let timed = cells.iter().find_map(|(other, records)| {
        let same = (&other.policy, &other.prm, &other.configuration);
        let is_it = same == (&cell.policy, &cell.prm, &cell.configuration)
            && other.search.n == cell.search.n;
        let timing = timings
            .iter()
            .find(|t| is_it && t.is_of(other, n, t.problems));
        timing.map(|timing| (timing, records))
    });
    let (timing, records) = timed?;
    // The records are in the order of the problems, of which the first were timed.
    let records = records.iter().filter(|record| record.n == n);
    let flops: u64 = records.take(timing.problems).map(Record::flops).sum();
    Some(timing.seconds / flops as f64).filter(|rate| rate.is_finite())
}

impl Known {
    /// Its options as a plan has them.
    pub fn options(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut search = self.cell.search.clone();
        search.n = self.name.1;
        search.selection = Some(self.selection);
        options_of(&search)
    }
}

/// The points that all searches have, in order.
fn common<'a>(searches: impl Iterator<Item = &'a ByPoint<'a>>) -> Vec<(&'a str, u64)> {
    let mut common: Option<BTreeSet<(&str, u64)>> = None;
    for records in searches {
        let keys: BTreeSet<(&str, u64)> = records.keys().copied().collect();
        common = Some(match common {
            None => keys,
            Some(common) => &common & &keys,
        });
    }
    common.unwrap_or_default().into_iter().collect()
}
