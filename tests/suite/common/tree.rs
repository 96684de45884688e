//! Random solution trees, scored node by node on forks or path by path as wholes.

use engine::Engine;
use strategies::{EnginePrm, Error, Prm};

/// A random tree: `parent` is an earlier node, or the stem.
pub struct Node {
    /// Its parent.
    pub parent: Option<usize>,
    /// Its step.
    pub text: String,
}

/// SplitMix64 (Steele et al. 2014): small, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// A step of one to four sums, so from a few tokens to more than two blocks.
    pub fn step(&mut self) -> String {
        let sums = 1 + self.below(4);
        let sum = |r: &mut Random| {
            let (a, b) = (r.below(900), r.below(99));
            format!("{a} + {b} = {}", a + b + r.below(2))
        };
        let sums: Vec<String> = (0..sums).map(|_| sum(self)).collect();
        format!("Step {}: {}.", 1 + self.below(9), sums.join(". "))
    }

    /// Parents come before their children; a chain, a bush or anything between.
    pub fn tree(&mut self, nodes: usize) -> Vec<Node> {
        let reach = 1 + self.below(nodes as u64);
        (0..nodes)
            .map(|i| {
                let back = 1 + self.below(reach) as usize;
                Node {
                    parent: i.checked_sub(back),
                    text: self.step(),
                }
            })
            .collect()
    }
}

/// Scores a tree node by node on forks: all nodes of a depth at once, or one after the other.
pub fn grow(
    engine: &Engine,
    prm: &EnginePrm,
    problem: &str,
    tree: &[Node],
    at_once: bool,
) -> Vec<f64> {
    grow_counted(engine, prm, problem, tree, at_once).0
}

/// As [`grow`], with the tokens that were given to the PRM.
pub fn grow_counted(
    engine: &Engine,
    prm: &EnginePrm,
    problem: &str,
    tree: &[Node],
    at_once: bool,
) -> (Vec<f64>, u64) {
    let grow = async {
        let root = prm.start(problem).await?;
        let mut tokens = prm.num_tokens(&root) as u64;
        let mut branches = Vec::new();
        let mut scores = vec![f64::NAN; tree.len()];
        branches.resize_with(tree.len(), || None);
        loop {
            let ready = (0..tree.len()).filter(|&i| {
                let parent = tree[i].parent;
                scores[i].is_nan() && parent.is_none_or(|p| branches[p].is_some())
            });
            let ready: Vec<usize> = ready.take(if at_once { tree.len() } else { 1 }).collect();
            if ready.is_empty() {
                return Ok::<_, Error>((scores, tokens));
            }
            let round = ready.iter().map(|&i| {
                let parent = tree[i].parent.and_then(|p| branches[p].as_ref());
                let mut branch = prm.fork(parent.unwrap_or(&root));
                async move {
                    let before = prm.num_tokens(&branch);
                    let scores = prm.score(&mut branch, &[&tree[i].text]).await?;
                    assert_eq!(scores.len(), 1, "one score for one step");
                    let read = (prm.num_tokens(&branch) - before) as u64;
                    Ok::<_, Error>((i, branch, scores[0], read))
                }
            });
            for (i, branch, score, read) in futures::future::try_join_all(round).await? {
                tokens += read;
                branches[i] = Some(branch);
                scores[i] = score;
            }
        }
    };
    engine
        .run(grow)
        .expect("the engine runs")
        .expect("every step is scored")
}

/// Scores a whole solution in one reading.
pub fn read(engine: &Engine, prm: &EnginePrm, problem: &str, steps: &[&str]) -> Vec<f64> {
    try_read(engine, prm, problem, steps).expect("every step is scored")
}

/// As [`read`], with the tokens that were given to the PRM.
pub fn read_counted(
    engine: &Engine,
    prm: &EnginePrm,
    problem: &str,
    steps: &[&str],
) -> (Vec<f64>, u64) {
    let read = async {
        let mut branch = prm.start(problem).await?;
        let scores = prm.score(&mut branch, steps).await?;
        Ok::<_, Error>((scores, prm.num_tokens(&branch) as u64))
    };
    let read = engine.run(read).expect("the engine runs");
    read.expect("every step is scored")
}

/// As [`read`], with the PRM's error if it has one.
pub fn try_read(
    engine: &Engine,
    prm: &EnginePrm,
    problem: &str,
    steps: &[&str],
) -> Result<Vec<f64>, Error> {
    let read = async {
        let mut branch = prm.start(problem).await?;
        prm.score(&mut branch, steps).await
    };
    engine.run(read).expect("the engine runs")
}

/// The nodes from the stem to `node`.
pub fn path(tree: &[Node], node: usize) -> Vec<usize> {
    let mut path: Vec<usize> = std::iter::successors(Some(node), |&i| tree[i].parent).collect();
    path.reverse();
    path
}
