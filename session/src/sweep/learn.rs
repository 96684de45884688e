//! Learns a [`Plan`] from a sweep: which search to begin with, and what follows at which difficulty.
//!
//! Every search of the sweep is known for every problem and seed: whether its answer is right, what
//! supports it, what it cost. With one seed a search finds the same whether another ran before
//! (SEMANTICS.md, "Auto"), so what a plan would have come to follows from the records exactly. The plan is
//! the tree of searches with the most right answers less λ times the cost, and λ is what meets the budget.
//! How deep the tree may be is decided by cross-validation over the problems.

use std::collections::BTreeMap;

use strategies::{Learned, Plan, Rule, Strategy};

use super::searches::{Found, Searches};
use super::summary::average;

/// A tree of searches, by their places.
#[derive(Clone, Debug, PartialEq)]
struct Tree {
    search: usize,
    /// The highest difficulty of each branch, ascending; nothing: a leaf.
    branches: Vec<(f64, Option<Tree>)>,
}

/// How far a tree may go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    searches: usize,
    bins: usize,
}

/// The shapes that cross-validation chooses from, the simplest first.
const SHAPES: [Shape; 4] = [
    Shape {
        searches: 1,
        bins: 1,
    },
    Shape {
        searches: 2,
        bins: 4,
    },
    Shape {
        searches: 2,
        bins: 8,
    },
    Shape {
        searches: 3,
        bins: 6,
    },
];

/// Points that a branch must have.
const LEAST_POINTS: usize = 30;

/// Parts of the problems in cross-validation.
const FOLDS: usize = 5;

/// Halvings of the interval in which λ is sought.
const HALVINGS: usize = 30;

/// What a plan is to meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most so much cost a problem, in the mean.
    Budget(f64),
    /// At least this accuracy.
    Accuracy(f64),
}

impl Searches {
    /// The searches that a plan may use: no other is nearly as good and clearly cheaper.
    fn frontier(&self, points: &[usize]) -> Vec<usize> {
        let total = |i: usize| {
            let known = &self.known[i];
            let right = points.iter().filter(|&&p| known.right[p]).count() as f64;
            let cost: f64 = points.iter().map(|&p| known.cost[p]).sum();
            (right / points.len() as f64, cost)
        };
        let totals: Vec<(f64, f64)> = (0..self.known.len()).map(total).collect();
        let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 + 0.01 && a.1 <= 0.8 * b.1;
        let is_good = |&i: &usize| {
            self.known[i].scored && !totals.iter().any(|&other| beats(other, totals[i]))
        };
        (0..self.known.len()).filter(is_good).collect()
    }

    /// The best tree for λ.
    fn best(
        &self,
        points: &[usize],
        candidates: &[usize],
        before: &[usize],
        shape: Shape,
        lambda: f64,
    ) -> Option<(f64, Tree)> {
        let mut best: Option<(f64, Tree)> = None;
        for &search in candidates.iter().filter(|search| !before.contains(search)) {
            let found = self.grown(points, candidates, before, search, shape, lambda);
            if best.as_ref().is_none_or(|(value, _)| found.0 > *value) {
                best = Some(found);
            }
        }
        best
    }

    /// The best tree for λ that begins with a search.
    fn grown(
        &self,
        points: &[usize],
        candidates: &[usize],
        before: &[usize],
        search: usize,
        shape: Shape,
        lambda: f64,
    ) -> (f64, Tree) {
        let known = &self.known[search];
        let spent: f64 = points.iter().map(|&p| self.cost(p, search, before)).sum();
        let right = |points: &[usize]| points.iter().filter(|&&p| known.right[p]).count() as f64;
        let leaf = Tree {
            search,
            branches: Vec::new(),
        };
        let alone = right(points) - lambda * spent;
        let is_last = before.len() + 1 >= shape.searches;
        if is_last || points.len() < 2 * LEAST_POINTS {
            return (alone, leaf);
        }
        let chain: Vec<usize> = before.iter().copied().chain([search]).collect();
        let mut value = -lambda * spent;
        let mut branches: Vec<(f64, Option<Tree>)> = Vec::new();
        for bin in bins(points, &known.difficulty, shape.bins) {
            let stands = right(&bin);
            let follows = self.best(&bin, candidates, &chain, shape, lambda);
            let follows = follows.filter(|(value, _)| *value > stands);
            let highest = bin.last().map_or(1.0, |&p| known.difficulty[p]);
            value += follows.as_ref().map_or(stands, |(value, _)| *value);
            let follows = follows.map(|(_, tree)| tree);
            match branches.last_mut() {
                Some((difficulty, last)) if *last == follows => *difficulty = highest,
                _ => branches.push((highest, follows)),
            }
        }
        if let Some((difficulty, _)) = branches.last_mut() {
            *difficulty = 1.0;
        }
        match branches.iter().all(|(_, follows)| follows.is_none()) {
            true => (alone, leaf),
            false => (value, Tree { search, branches }),
        }
    }

    /// What a search adds to those before it.
    fn cost(&self, point: usize, search: usize, before: &[usize]) -> f64 {
        let cost = self.known[search].cost[point];
        match before {
            [] => cost,
            // Best-of-N goes on where a smaller one ended.
            [.., last] if self.goes_on(*last, search) => cost - self.known[*last].cost[point],
            _ => cost - self.known[search].stem[point],
        }
    }

    fn goes_on(&self, before: usize, search: usize) -> bool {
        let (before, search) = (&self.known[before], &self.known[search]);
        let is_best_of_n = search.cell.search.strategy == Strategy::BestOfN;
        is_best_of_n && before.name.0 == search.name.0 && before.name.1 <= search.name.1
    }

    /// What a tree does with a point: whether its answer is right, and what it cost.
    fn follow(&self, tree: &Tree, point: usize) -> (bool, f64) {
        let (mut tree, mut before, mut cost) = (tree, Vec::new(), 0.0);
        loop {
            cost += self.cost(point, tree.search, &before);
            let known = &self.known[tree.search];
            let fits = |(highest, _): &&(f64, Option<Tree>)| known.difficulty[point] <= *highest;
            match tree.branches.iter().find(fits) {
                Some((_, Some(next))) => {
                    before.push(tree.search);
                    tree = next;
                }
                _ => return (known.right[point], cost),
            }
        }
    }

    fn result_on(&self, points: &[usize], tree: &Tree) -> Found {
        let mut by_problem: BTreeMap<usize, Vec<(bool, f64)>> = BTreeMap::new();
        for &point in points {
            let found = self.follow(tree, point);
            by_problem
                .entry(self.problem_of[point])
                .or_default()
                .push(found);
        }
        let means = |of: &dyn Fn(&(bool, f64)) -> f64| -> Vec<f64> {
            let problems = by_problem.values();
            problems
                .map(|all| average(&all.iter().map(of).collect::<Vec<_>>()))
                .collect()
        };
        Found {
            right: means(&|(right, _)| f64::from(u8::from(*right))),
            cost: means(&|(_, cost)| *cost),
        }
    }

    /// The tree of a shape that meets a goal on some points, if one does.
    fn meeting(&self, points: &[usize], goal: Goal, shape: Shape) -> Option<Tree> {
        let candidates = self.frontier(points);
        let of = |lambda| {
            self.best(points, &candidates, &[], shape, lambda)
                .map(|(_, tree)| tree)
        };
        let meets = |tree: &Tree| {
            let result = self.result_on(points, tree);
            match goal {
                Goal::Budget(budget) => result.cost().0 <= budget,
                Goal::Accuracy(accuracy) => result.accuracy().0 >= accuracy,
            }
        };
        let dearest =
            (self.known.iter().flat_map(|known| &known.cost)).fold(1.0, |a: f64, &b| a.max(b));
        // From all for the answers to all for the cost.
        let (mut low, mut high) = (1e-6 / dearest, 1e6 / dearest);
        let mut found = None;
        for _ in 0..HALVINGS {
            let lambda = (low * high).sqrt();
            let tree = of(lambda)?;
            let met = meets(&tree);
            // Less λ costs more and is right more often.
            match (goal, met) {
                (Goal::Budget(_), true) | (Goal::Accuracy(_), false) => high = lambda,
                (Goal::Budget(_), false) | (Goal::Accuracy(_), true) => low = lambda,
            }
            if met {
                found = Some(tree);
            }
        }
        found
    }

    /// Learns the plan that meets a goal; `None` if no search does.
    pub fn learn(&self, goal: Goal) -> Option<Learnt> {
        let all: Vec<usize> = (0..self.points()).collect();
        let shape = self.shape(goal);
        let tree = self.meeting(&all, goal, shape)?;
        Some(Learnt {
            plan: self.plan(&tree, &all, self.points() as f64),
            result: self.result_on(&all, &tree),
            searches: tree.depth(),
        })
    }

    /// The shape whose trees are best on problems that they were not learned from.
    fn shape(&self, goal: Goal) -> Shape {
        let score = |shape: Shape| -> Option<f64> {
            let (mut right, mut cost) = (Vec::new(), Vec::new());
            for fold in 0..FOLDS {
                let (held, rest): (Vec<usize>, Vec<usize>) =
                    (0..self.points()).partition(|&p| self.problem_of[p] % FOLDS == fold);
                let tree = self.meeting(&rest, goal, shape)?;
                let result = self.result_on(&held, &tree);
                right.extend(result.right);
                cost.extend(result.cost);
            }
            Some(match goal {
                Goal::Budget(budget) => {
                    // What is beyond the budget does not count as a gain.
                    let over = (average(&cost) / budget - 1.0).max(0.0);
                    average(&right) - over
                }
                Goal::Accuracy(accuracy) => {
                    let short = (accuracy - average(&right)).max(0.0);
                    -average(&cost) * (1.0 + 20.0 * short)
                }
            })
        };
        let scores = SHAPES.map(|shape| score(shape).unwrap_or(f64::NEG_INFINITY));
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let place = scores.iter().position(|&score| score == best).unwrap_or(0);
        SHAPES[place]
    }

    /// The plan of a tree, with what it came to.
    fn plan(&self, tree: &Tree, points: &[usize], all: f64) -> Plan {
        let known = &self.known[tree.search];
        let share_right = |points: &[usize], of: &dyn Fn(usize) -> bool| {
            points.iter().filter(|&&p| of(p)).count() as f64 / points.len().max(1) as f64
        };
        let mut rest = points.to_vec();
        let mut rules = Vec::new();
        for (highest, follows) in &tree.branches {
            let (here, harder): (Vec<usize>, Vec<usize>) = rest
                .into_iter()
                .partition(|&p| known.difficulty[p] <= *highest);
            let after = |p: usize| match follows {
                Some(tree) => self.follow(tree, p).0,
                None => known.right[p],
            };
            rules.push(Rule {
                difficulty: *highest,
                learned: Some(Learned {
                    share: here.len() as f64 / all,
                    before: share_right(&here, &|p| known.right[p]),
                    after: share_right(&here, &after),
                }),
                then: (follows.as_ref()).map(|tree| Box::new(self.plan(tree, &here, all))),
            });
            rest = harder;
        }
        Plan {
            search: known.options(),
            rules,
        }
    }

    /// What a plan comes to on these problems.
    ///
    /// # Errors
    /// The first search that is not here.
    pub fn result(&self, plan: &Plan) -> Result<Found, String> {
        let tree = self.tree(plan)?;
        let all: Vec<usize> = (0..self.points()).collect();
        Ok(self.result_on(&all, &tree))
    }

    fn tree(&self, plan: &Plan) -> Result<Tree, String> {
        let found = self
            .known
            .iter()
            .position(|known| known.options() == plan.search);
        let search =
            found.ok_or_else(|| serde_json::Value::from(plan.search.clone()).to_string())?;
        let branch = |rule: &Rule| {
            let then = rule.then.as_deref().map(|plan| self.tree(plan));
            Ok((rule.difficulty, then.transpose()?))
        };
        let branches: Result<Vec<_>, String> = plan.rules.iter().map(branch).collect();
        Ok(Tree {
            search,
            branches: branches?,
        })
    }

    /// The one search that is best within a goal.
    pub fn fixed(&self, goal: Goal) -> Option<Learnt> {
        let all: Vec<usize> = (0..self.points()).collect();
        let tree = |search| Tree {
            search,
            branches: Vec::new(),
        };
        let results =
            (0..self.known.len()).map(|search| (search, self.result_on(&all, &tree(search))));
        let met = results.filter(|(_, result)| match goal {
            Goal::Budget(budget) => result.cost().0 <= budget,
            Goal::Accuracy(accuracy) => result.accuracy().0 >= accuracy,
        });
        // Of equal ones the other way round.
        let key = |result: &Found| match goal {
            Goal::Budget(_) => (-result.accuracy().0, result.cost().0),
            Goal::Accuracy(_) => (result.cost().0, -result.accuracy().0),
        };
        let best = met.min_by(|(_, a), (_, b)| {
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        best.map(|(search, result)| Learnt {
            plan: Plan {
                search: self.known[search].options(),
                rules: Vec::new(),
            },
            result,
            searches: 1,
        })
    }
}

/// A plan and what it came to where it was learned.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// The plan.
    pub plan: Plan,
    /// On the problems that it was learned from.
    pub result: Found,
    /// The most searches of a problem.
    pub searches: usize,
}

impl Tree {
    fn depth(&self) -> usize {
        let below = self.branches.iter().filter_map(|(_, tree)| tree.as_ref());
        1 + below.map(Tree::depth).max().unwrap_or(0)
    }
}

/// Points in at most `count` parts of about the same size, by difficulty. Equal ones stay together.
fn bins(points: &[usize], difficulty: &[f64], count: usize) -> Vec<Vec<usize>> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|&a, &b| difficulty[a].total_cmp(&difficulty[b]));
    let size = sorted.len().div_ceil(count.max(1)).max(LEAST_POINTS);
    let mut bins: Vec<Vec<usize>> = Vec::new();
    for point in sorted {
        match bins.last_mut() {
            Some(bin)
                if bin.len() < size
                    || bin
                        .last()
                        .is_some_and(|&last| difficulty[last] == difficulty[point]) =>
            {
                bin.push(point);
            }
            _ => bins.push(vec![point]),
        }
    }
    // A rest too small to tell anything goes to its neighbour.
    if bins.len() > 1 && bins.last().is_some_and(|bin| bin.len() < LEAST_POINTS) {
        let rest = bins.pop().unwrap_or_default();
        bins.last_mut()
            .into_iter()
            .for_each(|bin| bin.extend(&rest));
    }
    bins
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use strategies::Config;

    use super::super::grid::Cell;
    use super::super::record::{Judged, Record, SCHEMA};
    use super::super::searches::Unit;
    use super::super::timing::Timing;
    use super::*;

    fn record(id: usize, n: usize, correct: bool, support: f32, flops: u64) -> Record {
        let judged = Judged {
            correct: Some(correct),
            support: Some(support),
        };
        Record {
            schema: SCHEMA,
            id: format!("{id:03}"),
            level: None,
            n,
            correct: Some(correct),
            verdicts: BTreeMap::from([("last-vote".into(), judged)]),
            solutions: 1,
            right: Some(usize::from(correct)),
            policy_tokens: flops / 10,
            prm_tokens: 0,
            policy_flops: flops - 2,
            prm_flops: 2,
            policy_stem_flops: 3,
            prm_stem_flops: 2,
        }
    }

    /// Beam search at 4 costs 10, and is right and sure of it for the `easy` of 200 problems; at 16 it
    /// costs 105 and is right but for every tenth of the others.
    fn cells(easy: usize) -> Vec<(Cell, Vec<Record>)> {
        let cell = |n| Cell {
            policy: "a".into(),
            prm: Some("p".into()),
            configuration: "beam".into(),
            search: Config {
                n,
                ..Config::new(Strategy::Beam)
            },
        };
        let small = (0..200).map(|id| {
            let support = if id < easy { 0.9 } else { 0.2 };
            record(id, 4, id < easy, support, 10)
        });
        let large = (0..200).map(|id| record(id, 16, id < easy || id % 10 > 0, 0.9, 105));
        vec![(cell(4), small.collect()), (cell(16), large.collect())]
    }

    fn searches(easy: usize) -> Searches {
        Searches::new(&cells(easy), &[], ("a", 1), "p", Unit::Flops)
    }

    #[test]
    fn easy_problems_keep_the_cheap_answer() {
        let all = searches(100);
        // 100 easy, 90 of the hard ones.
        let found = all.learn(Goal::Accuracy(0.95)).expect("a plan");
        assert_eq!((found.result.accuracy().0, found.searches), (0.95, 2));
        // All pay 10; half pay another 105 less the 5 of reading the problem.
        assert!((found.result.cost().0 - 60.0).abs() < 1e-9);
        let plan = serde_json::to_value(&found.plan).expect("JSON");
        assert_eq!(
            plan["search"],
            json!({"strategy": "beam", "n": 4, "selection": "last-vote"})
        );
        let rules = plan["rules"].as_array().expect("rules");
        assert_eq!(rules.len(), 2);
        assert!((rules[0]["difficulty"].as_f64().expect("a number") - 0.1).abs() < 1e-6);
        assert_eq!(rules[0]["then"], serde_json::Value::Null);
        assert_eq!(rules[1]["difficulty"], 1.0);
        assert_eq!(rules[1]["then"]["search"]["n"], 16);
        assert_eq!(
            rules[1]["learned"],
            json!({"share": 0.5, "before": 0.0, "after": 0.9})
        );
        found
            .plan
            .validate(&Config::new(Strategy::Auto))
            .expect("a plan");
        // By a budget: the same.
        let same = all.learn(Goal::Budget(60.0)).expect("a plan");
        assert_eq!(same.plan, found.plan);
        // On other problems, of which fewer are easy: 40 and 144 are right.
        let other = searches(40).result(&found.plan).expect("both searches");
        assert_eq!(other.accuracy().0, (40.0 + 144.0) / 200.0);
        let gain = found.result.gain(&other);
        assert!((gain.0 - 0.03).abs() < 1e-9 && gain.1 > 0.0);
    }

    #[test]
    fn fixed_searches_and_goals_that_nothing_meets() {
        let searches = searches(100);
        let fixed = |goal| {
            searches
                .fixed(goal)
                .map(|found| found.plan.search["n"].clone())
        };
        assert_eq!(fixed(Goal::Budget(104.0)), Some(json!(4)));
        assert_eq!(fixed(Goal::Budget(105.0)), Some(json!(16)));
        assert_eq!(fixed(Goal::Accuracy(0.5)), Some(json!(4)));
        assert_eq!(fixed(Goal::Accuracy(0.51)), Some(json!(16)));
        assert_eq!(fixed(Goal::Budget(9.0)), None);
        assert_eq!(fixed(Goal::Accuracy(0.96)), None);
        assert!(searches.learn(Goal::Budget(9.0)).is_none());
        assert!(searches.learn(Goal::Accuracy(0.96)).is_none());
        // A budget for the cheap search alone.
        let cheap = searches.learn(Goal::Budget(10.0)).expect("a plan");
        assert_eq!((cheap.searches, cheap.plan.rules.len()), (1, 0));
    }

    #[test]
    fn what_a_sweep_does_not_have_is_named() {
        let found = searches(100).learn(Goal::Accuracy(0.95)).expect("a plan");
        let small = Searches::new(&cells(100)[..1], &[], ("a", 1), "p", Unit::Flops);
        let error = small.result(&found.plan).expect_err("no beam search at 16");
        assert_eq!(
            error,
            r#"{"strategy":"beam","n":16,"selection":"last-vote"}"#
        );
        let other = Searches::new(&cells(100), &[], ("b", 1), "p", Unit::Flops);
        assert_eq!(other.points(), 0);
    }

    #[test]
    fn units_by_hand() {
        for (unit, cost) in [
            (Unit::Flops, 105.0),
            (Unit::Tokens, 10.0),
            (Unit::PaperFlops, 2.0 * 7.0 * 10.0),
        ] {
            let searches = Searches::new(&cells(100), &[], ("a", 7), "p", unit);
            let fixed = searches.fixed(Goal::Accuracy(0.9)).expect("a search");
            assert_eq!(fixed.result.cost().0, cost, "{}", unit.name());
        }
        let timing = |n, seconds| Timing {
            policy: "a".into(),
            prm: Some("p".into()),
            configuration: "beam".into(),
            n,
            seed: 0,
            problems: 20,
            seconds,
            kv_peak_bytes: 0,
            machine: "m".into(),
        };
        // Twenty problems in 40 seconds; the small search was not timed.
        let timings = [timing(16, 40.0)];
        let searches = Searches::new(&cells(100), &timings, ("a", 7), "p", Unit::Seconds);
        let fixed = searches.fixed(Goal::Accuracy(0.0)).expect("a search");
        assert!((fixed.result.cost().0 - 2.0).abs() < 1e-9);
    }
}
