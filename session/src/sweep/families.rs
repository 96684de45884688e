//! Plans of a few families over the searches of a sweep: all of them, and the best.

use super::searches::Searches;

/// A tree of searches, by their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// The search.
    pub search: usize,
    /// The highest difficulty of each branch, ascending; nothing: a leaf.
    pub branches: Vec<(f64, Option<Tree>)>,
}

/// Plans of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// One search.
    One,
    /// A second search above a difficulty.
    Two,
    /// A second search between two difficulties, a third one above.
    ByDifficulty,
    /// A second search above a difficulty, and after it a third one above another.
    Cascade,
}

/// The families, the simplest first.
pub const FAMILIES: [Family; 4] = [
    Family::One,
    Family::Two,
    Family::ByDifficulty,
    Family::Cascade,
];

/// Parts of equal size into which difficulties are cut: thresholds lie between them.
const PARTS: usize = 16;

/// What a plan is to meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most so much cost a problem, in the mean.
    Budget(f64),
    /// At least this accuracy.
    Accuracy(f64),
}

/// Right answers and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub right: f64,
    pub cost: f64,
}

impl Sums {
    pub fn plus(self, other: Sums) -> Sums {
        Sums {
            right: self.right + other.right,
            cost: self.cost + other.cost,
        }
    }

    fn minus(self, other: Sums) -> Sums {
        Sums {
            right: self.right - other.right,
            cost: self.cost - other.cost,
        }
    }
}

impl Goal {
    /// Whether means meet it. Sums of the same numbers in another order differ in their last digits.
    pub(super) fn is_met(self, found: Sums) -> bool {
        match self {
            Goal::Budget(budget) => found.cost <= budget * (1.0 + 1e-9),
            Goal::Accuracy(accuracy) => found.right >= accuracy - 1e-9,
        }
    }

    /// Whether of two that meet it the first is better.
    pub(super) fn prefers(self, a: Sums, b: Sums) -> bool {
        match self {
            Goal::Budget(_) => (a.right, -a.cost) > (b.right, -b.cost),
            Goal::Accuracy(_) => (-a.cost, a.right) > (-b.cost, b.right),
        }
    }

    /// What comes nearest to a goal that nothing meets.
    pub(super) fn extreme(self) -> Goal {
        match self {
            Goal::Budget(_) => Goal::Accuracy(0.0),
            Goal::Accuracy(_) => Goal::Budget(f64::INFINITY),
        }
    }

    /// The goal with what was missed on top.
    pub(super) fn raised(self, goal: Goal, found: Sums) -> Goal {
        match (self, goal) {
            (Goal::Budget(budget), Goal::Budget(own)) => Goal::Budget(own * budget / found.cost),
            (Goal::Accuracy(accuracy), Goal::Accuracy(own)) => {
                Goal::Accuracy(own + accuracy - found.right)
            }
            (_, goal) => goal,
        }
    }
}

/// The best tree so far.
struct Best {
    goal: Goal,
    /// Points over which the sums are.
    count: f64,
    found: Option<(Sums, Tree)>,
}

impl Best {
    fn offer(&mut self, sums: Sums, tree: impl FnOnce() -> Tree) {
        let means = Sums {
            right: sums.right / self.count,
            cost: sums.cost / self.count,
        };
        let best = self.found.as_ref().map(|(best, _)| *best);
        if self.goal.is_met(means) && best.is_none_or(|best| self.goal.prefers(means, best)) {
            self.found = Some((means, tree()));
        }
    }
}

/// Difficulties after a search, cut into parts.
struct Parts {
    /// The highest difficulty of each part but the last.
    thresholds: Vec<f64>,
    /// By point of the subset: its part.
    of: Vec<usize>,
}

impl Parts {
    fn new(difficulties: &[f64]) -> Parts {
        let mut sorted = difficulties.to_vec();
        sorted.sort_by(f64::total_cmp);
        let highest = sorted.last().copied();
        let mut thresholds: Vec<f64> = (1..PARTS)
            .map(|k| sorted[k * sorted.len() / PARTS])
            .collect();
        thresholds.dedup();
        // Above the last threshold there must be something.
        thresholds.retain(|&threshold| Some(threshold) < highest);
        let part = |difficulty: &f64| thresholds.partition_point(|t| t < difficulty);
        Parts {
            of: difficulties.iter().map(part).collect(),
            thresholds,
        }
    }

    fn count(&self) -> usize {
        self.thresholds.len() + 1
    }
}

/// Sums over the parts from each on; the last one is of nothing.
fn from_each(sums: &[Sums]) -> Vec<Sums> {
    let mut from = vec![Sums::default(); sums.len() + 1];
    for (place, sum) in sums.iter().enumerate().rev() {
        from[place] = from[place + 1].plus(*sum);
    }
    from
}

/// Some points and the searches that a plan may use.
pub struct Trial<'a> {
    pub searches: &'a Searches,
    pub points: &'a [usize],
    pub candidates: Vec<usize>,
}

impl Trial<'_> {
    fn parts(&self, search: usize) -> Parts {
        let difficulty = &self.searches.known[search].difficulty;
        Parts::new(
            &self
                .points
                .iter()
                .map(|&p| difficulty[p])
                .collect::<Vec<_>>(),
        )
    }

    /// What a point gains and pays by a search after others.
    fn change(&self, point: usize, search: usize, before: &[usize]) -> Sums {
        let known = &self.searches.known;
        let right = |search: usize| f64::from(u8::from(known[search].right[point]));
        let had = before.last().map_or(0.0, |&last| right(last));
        Sums {
            right: right(search) - had,
            cost: self.searches.cost(point, search, before),
        }
    }

    /// The changes by a search after others, summed by part and from each part on.
    fn changes(&self, parts: &Parts, search: usize, before: &[usize]) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); parts.count()];
        for (&point, &part) in self.points.iter().zip(&parts.of) {
            sums[part] = sums[part].plus(self.change(point, search, before));
        }
        from_each(&sums)
    }

    /// The best tree of a family.
    pub fn best(&self, goal: Goal, family: Family) -> Option<Tree> {
        let mut best = Best {
            goal,
            count: self.points.len() as f64,
            found: None,
        };
        for &first in &self.candidates {
            let changes = self
                .points
                .iter()
                .map(|&point| self.change(point, first, &[]));
            let alone = changes.fold(Sums::default(), Sums::plus);
            best.offer(alone, || leaf(first));
            if family != Family::One {
                self.followed(first, alone, family, &mut best);
            }
        }
        best.found.map(|(_, tree)| tree)
    }

    /// Trees of more than one search that begin with one.
    fn followed(&self, first: usize, alone: Sums, family: Family, best: &mut Best) {
        let parts = self.parts(first);
        let others = self
            .candidates
            .iter()
            .copied()
            .filter(|&search| search != first);
        let seconds: Vec<(usize, Vec<Sums>)> = others
            .map(|second| (second, self.changes(&parts, second, &[first])))
            .collect();
        for (second, changes) in &seconds {
            for (place, &threshold) in parts.thresholds.iter().enumerate() {
                let sums = alone.plus(changes[place + 1]);
                best.offer(sums, || above(first, threshold, leaf(*second)));
            }
            match family {
                Family::One | Family::Two => {}
                Family::ByDifficulty => {
                    for (third, harder) in seconds.iter().filter(|(third, _)| third != second) {
                        for (low, &from) in parts.thresholds.iter().enumerate() {
                            for (high, &to) in parts.thresholds.iter().enumerate().skip(low + 1) {
                                let middle = changes[low + 1].minus(changes[high + 1]);
                                let sums = alone.plus(middle).plus(harder[high + 1]);
                                best.offer(sums, || Tree {
                                    search: first,
                                    branches: vec![
                                        (from, None),
                                        (to, Some(leaf(*second))),
                                        (1.0, Some(leaf(*third))),
                                    ],
                                });
                            }
                        }
                    }
                }
                Family::Cascade => self.cascades(first, alone, (*second, changes), &parts, best),
            }
        }
    }

    /// Trees of three searches, each of which follows the one before.
    fn cascades(
        &self,
        first: usize,
        alone: Sums,
        (second, changes): (usize, &[Sums]),
        parts: &Parts,
        best: &mut Best,
    ) {
        let then = self.parts(second);
        let chain = [first, second];
        let thirds = self
            .candidates
            .iter()
            .copied()
            .filter(|third| !chain.contains(third));
        for third in thirds {
            // By the part after the first search, then by that after the second; from each on.
            let mut sums = vec![vec![Sums::default(); then.count()]; parts.count()];
            for (place, &point) in self.points.iter().enumerate() {
                let sum = &mut sums[parts.of[place]][then.of[place]];
                *sum = sum.plus(self.change(point, third, &chain));
            }
            let mut from = vec![Sums::default(); then.count() + 1];
            for (place, row) in sums.iter().enumerate().skip(1).rev() {
                let row = from_each(row);
                from = from.into_iter().zip(row).map(|(a, b)| a.plus(b)).collect();
                let threshold = parts.thresholds[place - 1];
                for (later, &next) in then.thresholds.iter().enumerate() {
                    let sums = alone.plus(changes[place]).plus(from[later + 1]);
                    best.offer(sums, || {
                        above(first, threshold, above(second, next, leaf(third)))
                    });
                }
            }
        }
    }
}

/// A search that nothing follows.
pub fn leaf(search: usize) -> Tree {
    Tree {
        search,
        branches: Vec::new(),
    }
}

fn above(search: usize, threshold: f64, then: Tree) -> Tree {
    Tree {
        search,
        branches: vec![(threshold, None), (1.0, Some(then))],
    }
}

impl Tree {
    /// Searches from the first to the last.
    pub fn depth(&self) -> usize {
        let below = self.branches.iter().filter_map(|(_, tree)| tree.as_ref());
        1 + below.map(Tree::depth).max().unwrap_or(0)
    }
}
