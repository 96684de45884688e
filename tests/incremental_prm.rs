//! The PRM scores a tree of steps by computing every step once (strategies/src/prm.rs).
//!
//! A tree grown by forks must give every step the score that a full reading of its whole solution
//! gives. The backend's rows do not depend on what else is in a step, so the scores are equal to
//! the last bit, not merely to 1e-5. And the tokens the PRM computes are the tree's own: those of
//! the prompt, and for every node its step and its marker.

mod common;

use common::{Pair, Parts, open, pair, problems, report, scorer};
use engine::chat::Message;
use engine::{Engine, Model, Options, Part};
use kernels::CpuBackend;
use std::rc::Rc;
use strategies::{Config, EnginePrm, Error, Prm, Strategy};

/// A random tree: `parent` is an earlier node, or the stem.
struct Node {
    parent: Option<usize>,
    text: String,
}

/// SplitMix64 (Steele et al. 2014): small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// A step of one to four sums, so from a few tokens to more than two blocks.
    fn step(&mut self) -> String {
        let sums = 1 + self.below(4);
        let sum = |r: &mut Random| {
            let (a, b) = (r.below(900), r.below(99));
            format!("{a} + {b} = {}", a + b + r.below(2))
        };
        let sums: Vec<String> = (0..sums).map(|_| sum(self)).collect();
        format!("Step {}: {}.", 1 + self.below(9), sums.join(". "))
    }

    /// Parents come before their children; a chain, a bush or anything between.
    fn tree(&mut self, nodes: usize) -> Vec<Node> {
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

struct Scorer {
    engine: Engine,
    model: Model,
    prm: EnginePrm,
}

fn load(parts: &Parts, options: &Options) -> Scorer {
    let tokenizer = Some(Rc::clone(&parts.tokenizer));
    let (engine, mut models) = Engine::new(
        CpuBackend::new(2),
        &[Part::new(&parts.checkpoint, tokenizer)],
        options,
    )
    .expect("nano-prm loads");
    let model = models.remove(0);
    Scorer {
        engine,
        prm: scorer(parts, &model),
        model,
    }
}

impl Scorer {
    /// Scores a tree node by node on forks: all nodes of a depth at once, or one after the other.
    fn grow(&self, problem: &str, tree: &[Node], at_once: bool) -> Vec<f64> {
        let grow = async {
            let root = self.prm.start(problem).await?;
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
                    return Ok::<_, Error>(scores);
                }
                let round = ready.iter().map(|&i| {
                    let parent = tree[i].parent.and_then(|p| branches[p].as_ref());
                    let mut branch = self.prm.fork(parent.unwrap_or(&root));
                    async move {
                        let scores = self.prm.score(&mut branch, &[&tree[i].text]).await?;
                        assert_eq!(scores.len(), 1, "one score for one step");
                        Ok::<_, Error>((i, branch, scores[0]))
                    }
                });
                for (i, branch, score) in futures::future::try_join_all(round).await? {
                    branches[i] = Some(branch);
                    scores[i] = score;
                }
            }
        };
        self.engine
            .run(grow)
            .expect("the engine runs")
            .expect("every step is scored")
    }

    /// Scores a whole solution in one reading.
    fn read(&self, problem: &str, steps: &[&str]) -> Vec<f64> {
        let read = async {
            let mut branch = self.prm.start(problem).await?;
            self.prm.score(&mut branch, steps).await
        };
        self.engine
            .run(read)
            .expect("the engine runs")
            .expect("every step is scored")
    }
}

fn prompt_tokens(parts: &Parts, problem: &str) -> u64 {
    let prompt = (parts.chat)
        .render(&[Message::new("user", problem)], true, false)
        .expect("the template renders a user's turn");
    tokens(parts, &prompt)
}

fn tokens(parts: &Parts, text: &str) -> u64 {
    let ids = parts.tokenizer.encode(text, false);
    ids.expect("plain text has tokens").len() as u64
}

/// The nodes from the stem to `node`.
fn path(tree: &[Node], node: usize) -> Vec<usize> {
    let mut path: Vec<usize> = std::iter::successors(Some(node), |&i| tree[i].parent).collect();
    path.reverse();
    path
}

#[test]
fn a_tree_scores_like_whole_solutions() {
    let parts = open("nano-prm");
    let problems = problems(6);
    let mut random = Random(7);
    let mut complaints = Vec::new();
    // Nodes, rows of a step, tokens of a block, all nodes of a depth at once.
    for (case, (nodes, rows, block_tokens, at_once)) in [
        (1, 512, 16, true),
        (2, 512, 16, false),
        (9, 512, 16, true),
        (17, 512, 1, true),
        (24, 7, 16, true),
        (24, 512, 4, false),
        (40, 64, 32, true),
        (60, 512, 16, true),
    ]
    .into_iter()
    .enumerate()
    {
        let problem = &problems[case % problems.len()].problem;
        let tree = random.tree(nodes);
        let options = Options {
            rows,
            block_tokens,
            ..Options::default()
        };
        let grown = load(&parts, &options);
        let scores = grown.grow(problem, &tree, at_once);
        let name = format!("{nodes} nodes, {rows} rows, blocks of {block_tokens}");

        let unique: u64 = prompt_tokens(&parts, problem)
            + (tree.iter())
                .map(|node| tokens(&parts, &node.text) + 1)
                .sum::<u64>();
        let counted = [
            grown.model.usage().tokens_processed,
            grown.prm.tokens_read(),
        ];
        if counted != [unique; 2] {
            complaints.push(format!("{name}: {counted:?} tokens, {unique} are unique"));
        }

        let whole = load(&parts, &Options::default());
        for leaf in 0..nodes {
            if tree.iter().any(|node| node.parent == Some(leaf)) {
                continue;
            }
            let path = path(&tree, leaf);
            let steps: Vec<&str> = path.iter().map(|&i| tree[i].text.as_str()).collect();
            let expected = whole.read(problem, &steps);
            let found: Vec<f64> = path.iter().map(|&i| scores[i]).collect();
            if found != expected || !found.iter().all(|s| (0.0..=1.0).contains(s)) {
                complaints.push(format!(
                    "{name}, leaf {leaf}: {found:?}, whole {expected:?}"
                ));
            }
        }
    }
    report(&complaints);
}

/// In a search every step that is scored is computed once, whatever is dropped.
#[test]
fn a_search_reads_every_scored_step_once() {
    let parts = open("nano-prm");
    let mut complaints = Vec::new();
    for strategy in [Strategy::Beam, Strategy::Dvts, Strategy::BestOfN] {
        for problem in &problems(3) {
            let pair: Pair = pair(2, &Options::default());
            let config = Config {
                n: 8,
                ..Config::new(strategy)
            };
            let outcome = &pair.solve(&[problem], &config)[0];
            let scored = outcome.trace.nodes.iter().filter(|n| n.reward.is_some());
            let steps: u64 = scored.map(|n| tokens(&parts, &n.text) + 1).sum();
            let unique = prompt_tokens(&parts, &problem.problem) + steps;
            let processed = pair.prm_model.usage().tokens_processed;
            if processed != unique || steps == 0 {
                let (id, name) = (&problem.id, strategy.name());
                complaints.push(format!("{name}, {id}: {processed} of {unique} tokens"));
            }
        }
    }
    report(&complaints);
}
