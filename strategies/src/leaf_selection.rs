//! Which leaves of a tree are kept: the integer program of ETS (arXiv 2502.13575, section 4), solved
//! exactly.
//!
//! ```text
//! maximise  sum of the shares of the kept leaves
//!           - kv_weight       * nodes of the tree that are kept / nodes
//!           + coverage_weight * clusters with a kept leaf       / clusters
//! ```
//!
//! over the sets of at least one leaf; a node is kept if a leaf below it is. The program is NP-hard
//! in general (it contains group Steiner tree), but without the last term it is a sum over the tree,
//! bottom up. So the condition "a cluster counts only if one of its leaves is kept" is priced: each
//! cluster pays its leaves a price from 0 to its worth, whatever is not paid it has for certain, and
//! the tree is solved with the prices. The result is never below the optimum (Lagrangian relaxation);
//! subgradient steps lower it. Branch and bound over the leaves of clusters that are paid twice or
//! not at all closes the gap: a proof, not a heuristic, as long as the fuel lasts.

/// The program, on the nodes that lie above leaves.
pub(crate) struct LeafSelection {
    /// The parent of each inner node, which comes before it; `None` for the stem.
    up: Vec<Option<usize>>,
    /// The parent of each leaf.
    parent: Vec<usize>,
    /// What each leaf gives by itself: its share less its own node's cost.
    gain: Vec<f64>,
    /// The cluster that a leaf can cover: that of the leaf, for the best leaf of a parent's.
    covers: Vec<Option<usize>>,
    /// What an inner node costs.
    cost: f64,
    /// What a covered cluster gives.
    worth: f64,
    clusters: usize,
}

/// A set of leaves and what it gives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub leaves: Vec<bool>,
    pub objective: f64,
    /// Whether the fuel sufficed: `leaves` is then an optimum.
    pub proven: bool,
}

/// The weights of the two last terms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    pub kv: f64,
    pub coverage: f64,
}

/// Trees that are solved at most: what bounds the work, equal on every machine.
const FUEL: usize = 5_000;
/// Subgradient steps at the first and at every later branching.
const STEPS: (usize, usize) = (200, 30);
/// Objectives closer than this are equal.
const TOLERANCE: f64 = 1e-9;

impl LeafSelection {
    /// Leaf i has the share `shares[i]`, the cluster `clusters[i]` (numbered from 0 without gaps) and
    /// the nodes `lineages[i]` above it, from the stem on; equal numbers are one node.
    pub fn new(
        shares: &[f64],
        lineages: &[Vec<usize>],
        clusters: &[usize],
        weights: Weights,
    ) -> LeafSelection {
        let mut nodes: Vec<usize> = lineages.iter().flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let index = |node: usize| nodes.partition_point(|&other| other < node);
        let mut up = vec![None; nodes.len()];
        for lineage in lineages {
            for pair in lineage.windows(2) {
                up[index(pair[1])] = Some(index(pair[0]));
            }
        }
        let parent: Vec<usize> = (lineages.iter())
            .map(|lineage| lineage.last().map_or(0, |&node| index(node)))
            .collect();
        let count = clusters.iter().max().map_or(0, |last| last + 1);
        let cost = weights.kv / (nodes.len() + shares.len()).max(1) as f64;
        // Of siblings in one cluster the best is kept if any is, so it alone stands for the cluster.
        let stands = |leaf: usize| {
            let better = |other: usize| {
                let same = (parent[other], clusters[other]) == (parent[leaf], clusters[leaf]);
                let before = shares[other] == shares[leaf] && other < leaf;
                same && (shares[other] > shares[leaf] || before)
            };
            !(0..shares.len()).any(better)
        };
        LeafSelection {
            covers: (0..shares.len())
                .map(|leaf| stands(leaf).then_some(clusters[leaf]))
                .collect(),
            up,
            parent,
            gain: shares.iter().map(|share| share - cost).collect(),
            cost,
            worth: weights.coverage / count.max(1) as f64,
            clusters: count,
        }
    }

    /// The optimum. Leaves without effect on the objective are kept.
    pub fn solve(&self) -> Kept {
        let mut bound = BranchAndBound {
            program: self,
            best: Kept {
                leaves: vec![true; self.gain.len()],
                objective: self.objective(&vec![true; self.gain.len()]),
                proven: true,
            },
            fuel: FUEL,
        };
        if !self.gain.is_empty() {
            let prices = vec![self.worth / 2.0; self.clusters];
            bound.branch(&vec![None; self.gain.len()], prices, STEPS.0);
        }
        bound.best
    }

    /// What a set of leaves gives.
    fn objective(&self, leaves: &[bool]) -> f64 {
        let mut open = vec![false; self.up.len()];
        let mut covered = vec![false; self.clusters];
        let mut sum = 0.0;
        for leaf in (0..leaves.len()).filter(|&leaf| leaves[leaf]) {
            open[self.parent[leaf]] = true;
            sum += self.gain[leaf];
            if let Some(cluster) = self.covers[leaf] {
                covered[cluster] = true;
            }
        }
        for node in (0..open.len()).rev() {
            if let (true, Some(up)) = (open[node], self.up[node]) {
                open[up] = true;
            }
        }
        let count = |of: &[bool]| of.iter().filter(|&&is| is).count() as f64;
        sum - self.cost * count(&open) + self.worth * count(&covered)
    }

    /// The best non-empty set of leaves if leaf i gives `gains[i]` and some are decided, without
    /// clusters; `None` if all are out. Bottom up: a node gives the sum of its parts that give
    /// something or are decided to be in, or else its best part.
    fn solve_tree(&self, gains: &[f64], decided: &[Option<bool>]) -> Option<(f64, Vec<bool>)> {
        let mut nodes = vec![Sum::default(); self.up.len()];
        for (leaf, &gain) in gains.iter().enumerate() {
            if decided[leaf] != Some(false) {
                nodes[self.parent[leaf]].add(gain, decided[leaf] == Some(true), leaf, true);
            }
        }
        for node in (1..nodes.len()).rev() {
            if let (Some((value, forced)), Some(up)) = (nodes[node].value(self.cost), self.up[node])
            {
                nodes[up].add(value, forced, node, false);
            }
        }
        let (value, _) = nodes[0].value(self.cost)?;
        // Top down: which nodes are open, then which leaves are in.
        let mut open = vec![false; nodes.len()];
        open[0] = true;
        for node in 1..nodes.len() {
            let Some(up) = self.up[node] else { continue };
            let part = nodes[node].value(self.cost);
            open[node] =
                open[up] && part.is_some_and(|(v, forced)| nodes[up].takes(v, forced, node, false));
        }
        let leaves = (0..gains.len()).map(|leaf| {
            let up = self.parent[leaf];
            let forced = decided[leaf] == Some(true);
            open[up]
                && decided[leaf] != Some(false)
                && nodes[up].takes(gains[leaf], forced, leaf, true)
        });
        Some((value, leaves.collect()))
    }

    /// A set made better: leaves that cost something and cover nothing alone go, clusters that can be
    /// covered below an open node at a profit are.
    fn polish(&self, leaves: &mut [bool], decided: &[Option<bool>]) {
        let mut covering = vec![0; self.clusters];
        let mut kept = 0;
        let mut below = vec![0; self.up.len()];
        for leaf in (0..leaves.len()).filter(|&leaf| leaves[leaf]) {
            kept += 1;
            below[self.parent[leaf]] += 1;
            if let Some(cluster) = self.covers[leaf] {
                covering[cluster] += 1;
            }
        }
        for leaf in (0..leaves.len())
            .rev()
            .filter(|&leaf| decided[leaf].is_none())
        {
            let Some(cluster) = self.covers[leaf] else {
                continue;
            };
            if leaves[leaf] && self.gain[leaf] < 0.0 && covering[cluster] > 1 && kept > 1 {
                leaves[leaf] = false;
                covering[cluster] -= 1;
                kept -= 1;
                below[self.parent[leaf]] -= 1;
            }
        }
        for leaf in (0..leaves.len()).filter(|&leaf| decided[leaf].is_none()) {
            let Some(cluster) = self.covers[leaf] else {
                continue;
            };
            let profit = self.gain[leaf] + self.worth >= 0.0;
            if !leaves[leaf] && covering[cluster] == 0 && below[self.parent[leaf]] > 0 && profit {
                leaves[leaf] = true;
                covering[cluster] += 1;
            }
        }
    }
}

/// What the parts of a node give together.
#[derive(Clone, Default)]
struct Sum {
    /// The parts that give something or must be in.
    sum: f64,
    taken: bool,
    forced: bool,
    /// The best part, if no part is taken: what it gives, and which it is.
    best: Option<(f64, usize, bool)>,
}

impl Sum {
    fn add(&mut self, value: f64, forced: bool, part: usize, is_leaf: bool) {
        if forced || value >= 0.0 {
            self.sum += value;
            self.taken = true;
            self.forced |= forced;
        } else if self.best.is_none_or(|(best, ..)| value > best) {
            self.best = Some((value, part, is_leaf));
        }
    }

    /// What the node gives with at least one leaf, and whether it must be kept.
    fn value(&self, cost: f64) -> Option<(f64, bool)> {
        let sum = match (self.taken, self.best) {
            (true, _) => self.sum,
            (false, best) => best?.0,
        };
        Some((sum - cost, self.forced))
    }

    /// Whether a part is in if the node is.
    fn takes(&self, value: f64, forced: bool, part: usize, is_leaf: bool) -> bool {
        let best = self
            .best
            .is_some_and(|(_, best, leaf)| (best, leaf) == (part, is_leaf));
        forced || value >= 0.0 || !self.taken && best
    }
}

struct BranchAndBound<'a> {
    program: &'a LeafSelection,
    best: Kept,
    fuel: usize,
}

impl BranchAndBound<'_> {
    /// Improves on the best set with the leaves that are `decided`, or proves that there is nothing to
    /// improve.
    fn branch(&mut self, decided: &[Option<bool>], mut prices: Vec<f64>, steps: usize) {
        let program = self.program;
        self.settle(decided, &mut prices);
        let mut counts = vec![0.0; program.clusters];
        for _ in 0..steps {
            if self.fuel == 0 {
                self.best.proven = false;
                return;
            }
            self.fuel -= 1;
            let price = |cluster: Option<usize>| cluster.map_or(0.0, |cluster| prices[cluster]);
            let gains: Vec<f64> = (program.gain.iter().zip(&program.covers))
                .map(|(gain, &cluster)| gain + price(cluster))
                .collect();
            let Some((value, leaves)) = program.solve_tree(&gains, decided) else {
                return;
            };
            let bound = value
                + prices
                    .iter()
                    .map(|price| program.worth - price)
                    .sum::<f64>();
            counts.fill(0.0);
            for leaf in (0..leaves.len()).filter(|&leaf| leaves[leaf]) {
                if let Some(cluster) = program.covers[leaf] {
                    counts[cluster] += 1.0;
                }
            }
            self.try_set(leaves, decided);
            let gap = bound - self.best.objective;
            if gap <= TOLERANCE {
                return;
            }
            if !lower(&mut prices, &counts, program.worth, gap) {
                break;
            }
        }
        let Some(leaf) = self.undecided(decided, &prices, &counts) else {
            return;
        };
        for is_in in [true, false] {
            let mut decided = decided.to_vec();
            decided[leaf] = Some(is_in);
            self.branch(&decided, prices.clone(), STEPS.1);
        }
    }

    /// Prices that decisions leave no choice about: a leaf that is in covers its cluster for nothing; a
    /// cluster whose leaves are all out is not covered, so it has nothing for certain.
    fn settle(&self, decided: &[Option<bool>], prices: &mut [f64]) {
        let mut open = vec![false; prices.len()];
        let mut covered = vec![false; prices.len()];
        for (leaf, cluster) in self.program.covers.iter().enumerate() {
            if let Some(cluster) = *cluster {
                open[cluster] |= decided[leaf] != Some(false);
                covered[cluster] |= decided[leaf] == Some(true);
            }
        }
        for cluster in 0..prices.len() {
            if covered[cluster] {
                prices[cluster] = 0.0;
            } else if !open[cluster] {
                prices[cluster] = self.program.worth;
            }
        }
    }

    fn try_set(&mut self, mut leaves: Vec<bool>, decided: &[Option<bool>]) {
        self.program.polish(&mut leaves, decided);
        let objective = self.program.objective(&leaves);
        if objective > self.best.objective + TOLERANCE {
            self.best.leaves = leaves;
            self.best.objective = objective;
        }
    }

    /// A leaf of the cluster that holds the bound up most: one that is paid more than once, or not at
    /// all though it has a part of its worth for certain.
    fn undecided(&self, decided: &[Option<bool>], prices: &[f64], counts: &[f64]) -> Option<usize> {
        let slack = |cluster: usize| match counts[cluster] {
            0.0 => self.program.worth - prices[cluster],
            count => prices[cluster] * (count - 1.0),
        };
        let free = (0..decided.len()).filter(|&leaf| decided[leaf].is_none());
        let (leaf, _) = free
            .filter_map(|leaf| Some((leaf, slack(self.program.covers[leaf]?))))
            .reduce(|best, other| if other.1 > best.1 { other } else { best })?;
        Some(leaf)
    }
}

/// A step against the subgradient, of Polyak's length; `false` if there is nowhere to go.
fn lower(prices: &mut [f64], counts: &[f64], worth: f64, gap: f64) -> bool {
    let slope = |price: f64, count: f64| {
        let slope = count - 1.0;
        let held = slope > 0.0 && price <= 0.0 || slope < 0.0 && price >= worth;
        if held { 0.0 } else { slope }
    };
    let slopes: Vec<f64> = (prices.iter().zip(counts))
        .map(|(&price, &count)| slope(price, count))
        .collect();
    let norm: f64 = slopes.iter().map(|slope| slope * slope).sum();
    if norm == 0.0 {
        return false;
    }
    for (price, slope) in prices.iter_mut().zip(slopes) {
        *price = (*price - gap / norm * slope).clamp(0.0, worth);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::philox::uniform_u64;

    const PUBLISHED: Weights = Weights {
        kv: 1.0,
        coverage: 1.5,
    };

    #[test]
    fn by_hand() {
        type Case = (
            &'static str,
            &'static [f64],
            &'static [&'static [usize]],
            &'static [usize],
            Weights,
            &'static [usize],
        );
        let weights = |kv, coverage| Weights { kv, coverage };
        let cases: &[Case] = &[
            (
                "one leaf is kept, whatever it costs",
                &[1.0],
                &[&[0]],
                &[0],
                weights(9.0, 0.0),
                &[1],
            ),
            // Nodes 0 and two leaves: a third each. 1/2 - 1/3 is more than nothing.
            (
                "two halves",
                &[0.5, 0.5],
                &[&[0], &[0]],
                &[0, 0],
                weights(1.0, 0.0),
                &[1, 1],
            ),
            // With a weight of 2 a leaf costs 2/3: the first alone.
            (
                "at a price",
                &[0.5, 0.5],
                &[&[0], &[0]],
                &[0, 0],
                weights(2.0, 0.0),
                &[1, 0],
            ),
            (
                "a leaf without a share costs",
                &[1.0, 0.0],
                &[&[0], &[0]],
                &[0, 0],
                PUBLISHED,
                &[1, 0],
            ),
            // A cluster gives 0.75, a leaf costs 1/3.
            (
                "but a cluster is worth it",
                &[1.0, 0.0],
                &[&[0], &[0]],
                &[0, 1],
                PUBLISHED,
                &[1, 1],
            ),
            (
                "no price: all",
                &[1.0, 0.0, 0.0],
                &[&[0], &[0], &[0]],
                &[0, 0, 0],
                weights(0.0, 0.0),
                &[1, 1, 1],
            ),
            // Six nodes: 1/6 each. The second branch costs 2/6 and has 0.3; with the same cluster there
            // it goes, and its leaf of another cluster brings it back.
            (
                "a branch too dear",
                &[0.7, 0.3],
                &[&[0, 1], &[0, 2]],
                &[0, 0],
                weights(1.0, 0.0),
                &[1, 0],
            ),
            (
                "a cluster keeps it",
                &[0.7, 0.3],
                &[&[0, 1], &[0, 2]],
                &[0, 1],
                PUBLISHED,
                &[1, 1],
            ),
            // Both clusters are in both branches: the cheaper way is within the first.
            (
                "clusters are covered below nodes that are kept anyway",
                &[0.6, 0.0, 0.4, 0.0],
                &[&[0, 1], &[0, 1], &[0, 2], &[0, 2]],
                &[0, 1, 0, 1],
                weights(2.0, 1.5),
                &[1, 1, 0, 0],
            ),
        ];
        for &(name, shares, lineages, clusters, weights, expected) in cases {
            let lineages: Vec<Vec<usize>> = lineages.iter().map(|l| l.to_vec()).collect();
            let kept = LeafSelection::new(shares, &lineages, clusters, weights).solve();
            let found: Vec<usize> = kept.leaves.iter().map(|&is| usize::from(is)).collect();
            assert_eq!(found, expected, "{name}");
            assert!(kept.proven, "{name}");
        }
    }

    /// A random program: trees of some depth, shares of which many are 0, clusters anywhere.
    fn random(seed: u64, leaves: usize, depth: usize) -> (Vec<f64>, Vec<Vec<usize>>, Vec<usize>) {
        let mut drawn = 0;
        let mut below = |count: usize| {
            drawn += 1;
            (uniform_u64(seed, drawn) % count as u64) as usize
        };
        let mut lineages = vec![vec![0]; leaves];
        let mut nodes = 1;
        for level in 0..depth {
            // Each leaf goes on from a node of the level, or shares the next one with the leaf before.
            for leaf in 0..leaves {
                let same = leaf > 0 && lineages[leaf - 1][..=level] == lineages[leaf][..=level];
                if same && below(3) > 0 {
                    let shared = lineages[leaf - 1][level + 1];
                    lineages[leaf].push(shared);
                } else {
                    lineages[leaf].push(nodes);
                    nodes += 1;
                }
            }
        }
        let widths: Vec<usize> = (0..leaves).map(|_| below(6).saturating_sub(2)).collect();
        let total = widths.iter().sum::<usize>().max(1) as f64;
        let shares = widths.iter().map(|&width| width as f64 / total).collect();
        let count = 1 + below(leaves);
        let mut seen = Vec::new();
        let clusters = (0..leaves).map(|_| {
            let drawn = below(count);
            seen.iter()
                .position(|&label| label == drawn)
                .unwrap_or_else(|| {
                    seen.push(drawn);
                    seen.len() - 1
                })
        });
        let clusters = clusters.collect();
        (shares, lineages, clusters)
    }

    #[test]
    fn as_every_subset_says() {
        for seed in 0..400 {
            let leaves = 1 + seed as usize % 9;
            let (shares, lineages, clusters) = random(seed, leaves, seed as usize % 4);
            let weights = Weights {
                kv: [0.0, 0.5, 1.0, 2.0, 4.0][seed as usize % 5],
                coverage: [0.0, 0.5, 1.5, 3.0][seed as usize % 4],
            };
            let program = LeafSelection::new(&shares, &lineages, &clusters, weights);
            let found = program.solve();
            let subsets = (1u32..1 << leaves)
                .map(|bits| objective(&shares, &lineages, &clusters, weights, bits));
            let best = subsets.fold(f64::NEG_INFINITY, f64::max);
            let bits = (found.leaves.iter().enumerate())
                .fold(0, |bits, (leaf, &is)| bits | u32::from(is) << leaf);
            assert!(found.proven, "{seed}");
            assert_ne!(bits, 0, "{seed}");
            let value = objective(&shares, &lineages, &clusters, weights, bits);
            assert!((value - best).abs() < 1e-8, "{seed}: {value} of {best}");
        }
    }

    /// The published objective of a subset, from its definition.
    fn objective(
        shares: &[f64],
        lineages: &[Vec<usize>],
        clusters: &[usize],
        weights: Weights,
        bits: u32,
    ) -> f64 {
        use std::collections::HashSet;
        let kept: Vec<usize> = (0..shares.len())
            .filter(|leaf| bits >> leaf & 1 == 1)
            .collect();
        let all: HashSet<usize> = lineages.iter().flatten().copied().collect();
        let nodes: HashSet<usize> = kept
            .iter()
            .flat_map(|&leaf| lineages[leaf].clone())
            .collect();
        let covered: HashSet<usize> = kept.iter().map(|&leaf| clusters[leaf]).collect();
        let groups: HashSet<usize> = clusters.iter().copied().collect();
        kept.iter().map(|&leaf| shares[leaf]).sum::<f64>()
            - weights.kv * (nodes.len() + kept.len()) as f64 / (all.len() + shares.len()) as f64
            + weights.coverage * covered.len() as f64 / groups.len() as f64
    }

    /// `cargo test --release -p offshoot-strategies --lib leaf_selection -- --ignored --nocapture`
    #[test]
    #[ignore = "measures; asserts nothing about time"]
    fn measure() {
        for (leaves, depth) in [(16, 10), (64, 20), (256, 5), (256, 20), (256, 39)] {
            let mut times = Vec::new();
            let mut proven = 0;
            for seed in 0..50 {
                let (shares, lineages, clusters) = random(seed, leaves, depth);
                let began = std::time::Instant::now();
                let kept = LeafSelection::new(&shares, &lineages, &clusters, PUBLISHED).solve();
                times.push(began.elapsed().as_secs_f64() * 1e3);
                proven += usize::from(kept.proven);
            }
            times.sort_by(f64::total_cmp);
            println!(
                "{leaves} leaves, depth {depth}: median {:.2} ms, most {:.2} ms, {proven} of 50 proven",
                times[25], times[49]
            );
        }
    }
}
