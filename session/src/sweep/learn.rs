//! Learns a [`Plan`] from a sweep: which search to begin with, and what follows at which difficulty.
//!
//! Every search of the sweep is known for every problem and seed: whether its answer is right, what
//! supports it, what it cost. With one seed a search finds the same whether another ran before
//! (SEMANTICS.md, "Auto"), so what a plan would have come to follows from the records exactly. So all plans
//! of some families are tried: all searches on the frontier, all thresholds of a grid.
//!
//! The best of many is not as good on other problems. So the goal is raised until cross-validation over
//! the problems meets it, and the family is the one that cross-validation finds best.

use std::collections::BTreeMap;

use strategies::{Learned, Plan, Rule, Strategy};

use super::families::{FAMILIES, Family, Goal, Sums, Tree, Trial, leaf};
use super::searches::{Found, Searches};
use super::summary::average;

/// Parts of the problems in cross-validation.
const FOLDS: usize = 5;

/// How often the goal is raised.
const RAISES: usize = 3;

/// A family, and the goal with which its trees meet the one given.
#[derive(Clone, Copy, Debug)]
struct Trained {
    family: Family,
    goal: Goal,
    /// By cross-validation.
    expected: Sums,
}

impl Trained {
    fn is_better(self, other: Trained, goal: Goal) -> bool {
        let (here, there) = (self.expected, other.expected);
        match (goal.is_met(here), goal.is_met(there)) {
            (true, true) => goal.prefers(here, there),
            (false, false) => goal.extreme().prefers(here, there),
            (met, _) => met,
        }
    }
}

impl Searches {
    /// The searches that a plan may use: each by the selection that is most often right, and no other is as
    /// good and clearly cheaper.
    fn frontier(&self, points: &[usize]) -> Vec<usize> {
        let total = |i: usize| {
            let known = &self.known[i];
            let right = points.iter().filter(|&&p| known.right[p]).count() as f64;
            let cost: f64 = points.iter().map(|&p| known.cost[p]).sum();
            (right / points.len() as f64, cost)
        };
        let totals: Vec<(f64, f64)> = (0..self.known.len()).map(total).collect();
        let mut best: BTreeMap<&(String, usize), usize> = BTreeMap::new();
        for (i, known) in self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.scored)
        {
            let place = best.entry(&known.name).or_insert(i);
            if totals[i].0 > totals[*place].0 {
                *place = i;
            }
        }
        let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 && a.1 <= 0.8 * b.1;
        let is_good = |&i: &usize| !totals.iter().any(|&other| beats(other, totals[i]));
        best.into_values().filter(is_good).collect()
    }

    /// What a search adds to those before it.
    pub(super) fn cost(&self, point: usize, search: usize, before: &[usize]) -> f64 {
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

    /// The best tree of a family on some points.
    fn best(&self, points: &[usize], goal: Goal, family: Family) -> Option<Tree> {
        let trial = Trial {
            searches: self,
            points,
            candidates: self.frontier(points),
        };
        trial.best(goal, family)
    }

    /// Learns the plan that meets a goal; `None` if no search does.
    pub fn learn(&self, goal: Goal) -> Option<Learnt> {
        let all: Vec<usize> = (0..self.points()).collect();
        let mut best: Option<Trained> = None;
        for trained in FAMILIES
            .map(|family| self.trained(goal, family))
            .into_iter()
            .flatten()
        {
            if best.is_none_or(|best| trained.is_better(best, goal)) {
                best = Some(trained);
            }
        }
        let Trained {
            goal: raised,
            family,
            ..
        } = best?;
        // What is sure to meet it on other problems, or what meets it here.
        let tree = (self.best(&all, raised, family)).or_else(|| self.best(&all, goal, family))?;
        Some(self.learnt(&tree))
    }

    /// The plan of a tree, and what it comes to here.
    fn learnt(&self, tree: &Tree) -> Learnt {
        let all: Vec<usize> = (0..self.points()).collect();
        Learnt {
            plan: self.plan(tree, &all, self.points() as f64),
            result: self.result_on(&all, tree),
            searches: tree.depth(),
        }
    }

    /// Raises the goal for the trees of a family until cross-validation meets it; `None` if there are none.
    fn trained(&self, goal: Goal, family: Family) -> Option<Trained> {
        let mut trained = Trained {
            expected: self.cross_validated(goal, family)?,
            goal,
            family,
        };
        for _ in 0..RAISES {
            if goal.is_met(trained.expected) {
                break;
            }
            let raised = goal.raised(trained.goal, trained.expected);
            trained.expected = self.cross_validated(raised, family)?;
            trained.goal = raised;
        }
        Some(trained)
    }

    /// The means of trees on problems that they were not learned from.
    fn cross_validated(&self, goal: Goal, family: Family) -> Option<Sums> {
        let mut sums = Sums::default();
        for fold in 0..FOLDS {
            let (held, rest): (Vec<usize>, Vec<usize>) =
                (0..self.points()).partition(|&p| self.problem_of[p] % FOLDS == fold);
            // With one problem there are no others.
            let rest = if rest.is_empty() { held.clone() } else { rest };
            let tree = self.best(&rest, goal, family);
            // What comes nearest where nothing meets it.
            let tree = tree.or_else(|| self.best(&rest, goal.extreme(), family))?;
            for point in held {
                let (right, cost) = self.follow(&tree, point);
                let right = f64::from(u8::from(right));
                sums = sums.plus(Sums { right, cost });
            }
        }
        let count = self.points() as f64;
        Some(Sums {
            right: sums.right / count,
            cost: sums.cost / count,
        })
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
        let mut best: Option<(Sums, usize)> = None;
        for search in 0..self.known.len() {
            let result = self.result_on(&all, &leaf(search));
            let (right, cost) = (result.accuracy().0, result.cost().0);
            // To the last digit: the caller asks for what costs less than another one.
            let met = match goal {
                Goal::Budget(budget) => cost <= budget,
                Goal::Accuracy(accuracy) => right >= accuracy,
            };
            let means = Sums { right, cost };
            if met && best.is_none_or(|(best, _)| goal.prefers(means, best)) {
                best = Some((means, search));
            }
        }
        best.map(|(_, search)| self.learnt(&leaf(search)))
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
