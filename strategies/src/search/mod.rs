//! One search on one problem: the two models, the options, and the tree as it grows.
//!
//! A strategy starts at the [`root`](Search::root), [`expand`](Search::expand)s paths,
//! [`keep_best`](Search::keep_best)s, and turns what has ended into solutions; or it writes whole
//! solutions ([`Search::write_solutions`]). The search records every step in its [`Trace`] and
//! counts the tokens of both models, so a strategy has neither in its text.
//!
//! - `draft.rs`: solutions written in parts, with texts between them that the policy did not write.
//! - `expand.rs`: the children of a path: sampled, scored, without duplicates, looked ahead.
//! - `chain.rs`: steps that need no branching.
//! - `rejection.rs`: children that are begun before it is decided which are completed.
//! - `watch.rs`: news of the search while it runs.
//! - `whole.rs`: whole solutions, written in one go.

mod chain;
pub(crate) mod draft;
mod expand;
mod rejection;
mod watch;
mod whole;

use crate::trace::{NodeState, Trace};
use crate::{
    Choice, Config, Cost, Ending, Error, Policy, Prm, Problem, Solution, Step, StepParams,
};
use engine::{Work, philox};
use futures::future::try_join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

pub use expand::Expansion;
pub use watch::News;

/// One search on one problem.
///
/// A strategy outside of this crate uses it as those inside do:
///
/// ```
/// use offshoot_strategies::{Config, Error, Outcome, Path, Policy, Prm, Problem, Search, Strategy};
///
/// /// Greedy search by the PRM: the best of M children, step by step.
/// async fn greedy<P: Policy, R: Prm>(
///     policy: &P,
///     prm: &R,
///     problem: &Problem,
/// ) -> Result<Outcome, Error> {
///     let config = Config { n: 4, ..Config::new(Strategy::Beam) };
///     let search = Search::new(policy, Some(prm), problem, &config)?;
///     let mut paths = vec![search.root().await?];
///     while paths.iter().any(|path| !path.has_ended()) {
///         let expansion = search.expand(paths, config.beam_width).await?;
///         paths = search.keep_best(expansion.candidates, 1);
///         paths.extend(expansion.dead_ends);
///     }
///     let solutions = paths.into_iter().map(Path::into_solution).collect();
///     Ok(search.outcome(solutions))
/// }
/// ```
pub struct Search<'a, P: Policy, R: Prm> {
    /// The options.
    pub config: &'a Config,
    pub(crate) problem: &'a Problem,
    pub(crate) trace: RefCell<Trace>,
    pub(crate) cost: Cell<Cost>,
    /// The part of the cost that opening the problem was.
    pub(crate) stem: Cell<Cost>,
    policy: &'a P,
    /// `None` for a strategy that needs no PRM.
    prm: Option<&'a R>,
    watch: Option<&'a dyn Fn(News<'_>)>,
    /// Which of the independent trees this is, and how many there are.
    tree: usize,
    trees: Rc<Cell<usize>>,
    pub(crate) solutions_reported: Cell<bool>,
    /// The stem that another search has opened; `None`: this search opens its own.
    opened: Option<&'a Stem<P, R>>,
    /// What the strategy auto chose.
    pub(crate) choice: Cell<Option<Choice>>,
}

/// The stem of a problem for several searches, one after the other.
pub(crate) struct Stem<P: Policy, R: Prm> {
    live: Live<P, R>,
    /// Whether a search has drawn from it, so that its last row is computed.
    is_used: Cell<bool>,
}

/// One path of a search, from the stem to its latest step.
pub struct Path<P: Policy, R: Prm> {
    /// Both models' branches, until the path ends.
    live: Option<Live<P, R>>,
    ending: Option<Ending>,
    value: f64,
    parent_value: f64,
    /// Its latest step in the trace, and how many the latest round wrote.
    node: usize,
    round: usize,
    steps: Vec<String>,
    scores: Vec<f64>,
    num_tokens: usize,
    logprob: f64,
    embedded: Embedded,
    /// One for all forks of the path.
    last_row: Rc<Cell<LastRow>>,
}

/// The row of a path's last token, from which its children draw.
#[derive(Clone, Copy, Default, PartialEq)]
enum LastRow {
    /// Not computed.
    #[default]
    Pending,
    /// Computed for children, once for all of them.
    Drawn,
    /// Computed before there were children, each of which computes it again for the head's output.
    Read,
}

/// The sum of a path's hidden states, over its first tokens: [`Search::embed`] adds the others.
#[derive(Clone, Default)]
struct Embedded {
    sum: Vec<f64>,
    tokens: usize,
}

/// A branch of each model with the same content.
struct Live<P: Policy, R: Prm> {
    policy: P::Branch,
    /// `None` for a strategy that needs no PRM.
    prm: Option<R::Branch>,
}

impl<'a, P: Policy, R: Prm> Search<'a, P, R> {
    /// A search that has not started. The PRM is left out if the strategy does not need one.
    ///
    /// # Errors
    /// Options that cannot be honoured ([`Config::validate`]); no PRM for a strategy that
    /// needs one.
    pub fn new(
        policy: &'a P,
        prm: Option<&'a R>,
        problem: &'a Problem,
        config: &'a Config,
    ) -> Result<Search<'a, P, R>, Error> {
        config.validate()?;
        let strategy = config.strategy;
        let search = Search {
            config,
            problem,
            trace: RefCell::default(),
            cost: Cell::default(),
            stem: Cell::default(),
            policy,
            prm: prm.filter(|_| strategy.needs_prm()),
            watch: None,
            tree: 0,
            trees: Rc::default(),
            solutions_reported: Cell::new(false),
            opened: None,
            choice: Cell::default(),
        };
        if strategy.needs_prm() {
            search.prm()?;
        }
        Ok(search)
    }

    /// The stem of the problem as a path without steps.
    ///
    /// # Errors
    /// A failure of either model.
    pub async fn root(&self) -> Result<Path<P, R>, Error> {
        let live = self.start().await?;
        let last_row = self.use_stem();
        Ok(Path {
            live: Some(live),
            ending: None,
            value: 0.0,
            parent_value: 0.0,
            node: 0,
            round: 0,
            steps: Vec::new(),
            scores: Vec::new(),
            num_tokens: 0,
            logprob: 0.0,
            embedded: Embedded::default(),
            last_row: Rc::new(Cell::new(last_row)),
        })
    }

    /// A second path with the same content.
    pub fn fork(&self, path: &Path<P, R>) -> Path<P, R> {
        let live = path.live.as_ref().map(|live| Live {
            policy: self.policy.fork(&live.policy),
            prm: self.fork_prm(live),
        });
        Path {
            live,
            ..path.without_branches()
        }
    }

    /// Keeps the `count` best paths, in the order in which they were given, and drops the others.
    ///
    /// The order is total: the higher value, then the higher value of the parent, then the lower
    /// index.
    pub fn keep_best(&self, paths: Vec<Path<P, R>>, count: usize) -> Vec<Path<P, R>> {
        let mut ranking: Vec<usize> = (0..paths.len()).collect();
        ranking.sort_by(|&a, &b| {
            let (a, b) = (&paths[a], &paths[b]);
            (b.value.total_cmp(&a.value)).then(b.parent_value.total_cmp(&a.parent_value))
        }); // the sort is stable, so the lower index stays in front
        let best: HashSet<usize> = ranking.into_iter().take(count).collect();
        self.keep(paths, |index| best.contains(&index))
    }

    /// Keeps the paths whose index `keep` accepts, and drops the others.
    pub fn keep(&self, paths: Vec<Path<P, R>>, keep: impl Fn(usize) -> bool) -> Vec<Path<P, R>> {
        let mut kept = Vec::new();
        for (index, path) in paths.into_iter().enumerate() {
            if keep(index) {
                if !path.has_ended() {
                    self.latest(&path)
                        .into_iter()
                        .for_each(|node| self.report(node));
                }
                kept.push(path);
            } else {
                for node in self.latest(&path) {
                    self.set_state(node, NodeState::Dropped);
                }
            }
        }
        kept
    }

    /// Keeps the i-th path `counts[i]` times, in the order of the paths: the path, then forks of it.
    pub fn copy(&self, paths: Vec<Path<P, R>>, counts: &[usize]) -> Vec<Path<P, R>> {
        let kept = self.keep(paths, |index| counts[index] > 0);
        let mut copies = Vec::new();
        for (path, &count) in kept
            .into_iter()
            .zip(counts.iter().filter(|&&count| count > 0))
        {
            let forks: Vec<_> = (1..count).map(|_| self.fork(&path)).collect();
            copies.push(path);
            copies.extend(forks);
        }
        copies
    }

    /// The `index`-th random number of a round of this search, from 0 to 1 (exclusive). It depends on
    /// the seed and the problem's text alone.
    pub fn uniform(&self, round: usize, index: usize) -> f64 {
        let key = stream(self.config.seed, &self.problem.problem);
        let key = philox::fork_key(philox::fork_key(key, RESAMPLING), round as u64);
        // 53 bits: every value is an f64.
        (philox::uniform_u64(key, index as u64) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The mean of the policy's final hidden states over each path's tokens, `[paths][hidden]`. The
    /// policy computes the tokens that are new since the last call once more.
    ///
    /// # Errors
    /// A failure of the policy; a policy without hidden states.
    pub async fn embed(&self, paths: Vec<&mut Path<P, R>>) -> Result<Vec<Vec<f64>>, Error> {
        let means = paths.into_iter().map(|path| async move {
            let new = path.num_tokens - path.embedded.tokens;
            if let Some(live) = path.live.as_ref().filter(|_| new > 0) {
                let sum = self.hidden_sum(&live.policy, new).await?;
                path.embedded.sum.resize(sum.len(), 0.0);
                for (all, new) in path.embedded.sum.iter_mut().zip(sum) {
                    *all += new;
                }
                path.embedded.tokens = path.num_tokens;
            }
            let tokens = path.embedded.tokens.max(1) as f64;
            Ok(path.embedded.sum.iter().map(|sum| sum / tokens).collect())
        });
        try_join_all(means).await
    }

    /// The sum of the hidden states of a branch's last `tokens` tokens, which are computed once more.
    async fn hidden_sum(&self, branch: &P::Branch, tokens: usize) -> Result<Vec<f64>, Error> {
        let end = self.policy.num_tokens(branch);
        self.count_policy(Work::rows(end.saturating_sub(tokens)..end, 0));
        self.policy.hidden_sum(branch, tokens).await
    }

    /// The nodes that the latest round wrote of a path.
    fn latest(&self, path: &Path<P, R>) -> Vec<usize> {
        let mut nodes = self.lineage(path);
        nodes.push(path.node);
        nodes.split_off(nodes.len() - path.round.min(nodes.len()))
    }

    /// The steps of a path before its latest one, as nodes of the trace, from the stem on.
    pub fn lineage(&self, path: &Path<P, R>) -> Vec<usize> {
        let nodes = &self.trace.borrow().nodes;
        let mut lineage: Vec<usize> =
            std::iter::successors(nodes[path.node].parent, |&node| nodes[node].parent).collect();
        lineage.reverse();
        lineage
    }

    /// Ends a path where it is, because no valid step follows.
    pub fn give_up(&self, path: Path<P, R>) -> Path<P, R> {
        self.set_state(path.node, NodeState::Stopped);
        Path {
            live: None,
            ending: Some(Ending::DeadEnd),
            ..path
        }
    }

    /// A search of the same problem with a tree of its own, for a strategy of independent parts:
    /// [`merge`](Search::merge) puts the parts together in an order that does not depend on which
    /// of them ends first.
    pub fn separate(&self) -> Search<'a, P, R> {
        let tree = self.trees.get();
        self.trees.set(tree + 1);
        Search {
            config: self.config,
            problem: self.problem,
            trace: RefCell::default(),
            cost: Cell::default(),
            stem: Cell::default(),
            policy: self.policy,
            prm: self.prm,
            watch: self.watch,
            tree,
            trees: Rc::clone(&self.trees),
            solutions_reported: Cell::new(false),
            opened: None,
            choice: Cell::default(),
        }
    }

    /// As [`separate`](Search::separate), with other options and from a stem that this search has opened
    /// for it.
    pub(crate) fn within<'b>(
        &'b self,
        config: &'b Config,
        stem: &'b Stem<P, R>,
    ) -> Search<'b, P, R> {
        Search {
            config,
            prm: self.prm.filter(|_| config.strategy.needs_prm()),
            opened: Some(stem),
            ..self.separate()
        }
    }

    /// Adds the tree of a [`separate`](Search::separate) search to this one; returns its solution
    /// as one of this search.
    pub fn merge(&self, part: Search<'_, P, R>, solution: Solution) -> Solution {
        let cost = part.cost.get();
        let merged = self.merge_all(part, vec![solution]).pop();
        let solution = merged.expect("as many solutions as were given");
        Solution { cost, ..solution }
    }

    /// As [`merge`](Search::merge), of several solutions, whose costs stay what they are.
    pub(crate) fn merge_all(
        &self,
        part: Search<'_, P, R>,
        solutions: Vec<Solution>,
    ) -> Vec<Solution> {
        self.count(part.cost.get());
        if part.solutions_reported.get() {
            self.solutions_reported.set(true);
        }
        let shift = self.trace.borrow_mut().graft(part.trace.into_inner());
        let moved = |node| match node {
            0 => 0, // the stem is the same one
            node => node + shift,
        };
        let solutions = solutions.into_iter().map(|solution| Solution {
            node: moved(solution.node),
            ..solution
        });
        solutions.collect()
    }

    /// Opens the stem for [`within`](Search::within).
    pub(crate) async fn open_stem(&self) -> Result<Stem<P, R>, Error> {
        Ok(Stem {
            live: self.start().await?,
            is_used: Cell::new(false),
        })
    }

    /// Whether the stem's last row is computed already.
    fn is_warm(&self) -> bool {
        self.opened.is_some_and(|stem| stem.is_used.get())
    }

    /// The stem's last row, for children that are about to draw from it.
    fn use_stem(&self) -> LastRow {
        let last_row = match self.is_warm() {
            true => LastRow::Read,
            false => LastRow::Pending,
        };
        self.opened.inspect(|stem| stem.is_used.set(true));
        last_row
    }

    /// Opens the stem on both models.
    async fn start(&self) -> Result<Live<P, R>, Error> {
        if let Some(Stem { live, .. }) = self.opened {
            return Ok(Live {
                policy: self.policy.twin(&live.policy),
                prm: self.fork_prm(live),
            });
        }
        let text = &self.problem.problem;
        let prm = async {
            let Some(prm) = self.prm else {
                return Ok(None);
            };
            Ok::<_, Error>(Some(prm.start(text).await?))
        };
        let stream = stream(self.config.seed, text);
        let (policy, prm) = futures::try_join!(self.policy.start(text, stream), prm)?;
        let scored = self.prm.zip(prm.as_ref());
        let scored = scored.map_or(0, |(prm, branch)| prm.num_tokens(branch));
        // The last row comes with the first step.
        let tokens = self.policy.num_tokens(&policy).saturating_sub(1);
        let stem = Cost {
            policy: Work::rows(0..tokens, 0),
            prm: Work::rows(0..scored, 0),
            drawn: 0,
        };
        self.count(stem);
        self.stem.set(stem);
        Ok(Live { policy, prm })
    }

    /// Appends steps to a branch of the PRM; returns one finite score for each.
    async fn score(&self, branch: &mut R::Branch, steps: &[&str]) -> Result<Vec<f64>, Error> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let prm = self.prm()?;
        let before = prm.num_tokens(branch);
        let scores = prm.score(branch, steps).await?;
        self.count_prm(scored(before..prm.num_tokens(branch), steps.len()));
        if scores.len() != steps.len() {
            return Err(Error::ScoreCount {
                expected: steps.len(),
                found: scores.len(),
            });
        }
        let bad = scores.iter().zip(steps).find(|(s, _)| !s.is_finite());
        match bad {
            Some((&score, step)) => Err(Error::Score {
                score,
                step: step.to_string(),
            }),
            None => Ok(scores),
        }
    }

    fn prm(&self) -> Result<&'a R, Error> {
        let strategy = self.config.strategy.name();
        self.prm.ok_or(Error::NoPrm { strategy })
    }

    fn fork_prm(&self, live: &Live<P, R>) -> Option<R::Branch> {
        let (prm, branch) = (self.prm?, live.prm.as_ref()?);
        Some(prm.fork(branch))
    }

    /// Counts the row of a branch's last token, from which steps are drawn, so many times.
    fn count_last_row(&self, branch: &P::Branch, times: usize) {
        let tokens = self.policy.num_tokens(branch);
        for _ in 0..times {
            self.count_policy(Work::rows(tokens.saturating_sub(1)..tokens, 1));
        }
    }

    /// Writes a step, and counts the rows of its tokens but the last, which is computed if another step
    /// follows. Returns the count too.
    async fn write(
        &self,
        branch: &mut P::Branch,
        params: &StepParams<'_>,
    ) -> Result<(Step, Cost), Error> {
        let first = self.policy.num_tokens(branch);
        let step = self.policy.step(branch, params).await?;
        let rows = step.num_tokens.saturating_sub(1);
        let cost = Cost {
            policy: Work::rows(first..first + rows, rows),
            prm: Work::default(),
            drawn: step.num_tokens as u64,
        };
        self.count(cost);
        Ok((step, cost))
    }

    fn count_policy(&self, policy: Work) {
        self.count(Cost {
            policy,
            ..Cost::default()
        });
    }

    fn count_prm(&self, prm: Work) {
        self.count(Cost {
            prm,
            ..Cost::default()
        });
    }

    pub(crate) fn count(&self, cost: Cost) {
        self.cost.update(|mut sum| {
            sum += cost;
            sum
        });
    }

    fn set_state(&self, node: usize, state: NodeState) {
        self.trace.borrow_mut().nodes[node].state = state;
        self.report(node);
    }
}

impl<P: Policy, R: Prm> Path<P, R> {
    /// Whether nothing can follow its latest step.
    pub fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// Why it ended; `None` while it can go on.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// What it is ranked by: its scores, and those of the steps looked ahead, aggregated by
    /// [`Config::aggregation`]; 0 for the stem.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The policy's tokens on it, behind the stem.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// The sum of their log-probabilities, in nats.
    pub fn logprob(&self) -> f64 {
        self.logprob
    }

    /// The path for another expansion, after a fork of it was expanded.
    pub(crate) fn again(self) -> Path<P, R> {
        self.last_row.set(LastRow::Read);
        self
    }

    /// Its steps, trimmed.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The PRM's score of each step.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The path as a result; [`Search::outcome`] reads its answer.
    pub fn into_solution(self) -> Solution {
        Solution {
            steps: self.steps,
            scores: self.scores,
            answer: None,
            extraction: None,
            correct: None,
            ending: self.ending.unwrap_or(Ending::StepLimit),
            num_tokens: self.num_tokens,
            logprob: self.logprob,
            node: self.node,
            cost: Cost::default(),
            confidence: None,
        }
    }

    /// Everything but the branches.
    fn without_branches(&self) -> Path<P, R> {
        Path {
            live: None,
            ending: self.ending,
            value: self.value,
            parent_value: self.parent_value,
            node: self.node,
            round: self.round,
            steps: self.steps.clone(),
            scores: self.scores.clone(),
            num_tokens: self.num_tokens,
            logprob: self.logprob,
            embedded: self.embedded.clone(),
            last_row: Rc::clone(&self.last_row),
        }
    }
}

/// The PRM's rows at `positions`, which give so many scores; a step beyond its context gives none.
fn scored(positions: Range<usize>, scores: usize) -> Work {
    let outputs = scores.min(positions.len());
    Work::rows(positions, outputs)
}

/// Parts the random numbers of strategies from those of the policy's branches, which are keyed by the
/// numbers of forks.
const RESAMPLING: u64 = u64::MAX;

/// The key of a problem's random numbers: the same text and seed give the same tree, wherever
/// the problem stands in its file. FNV-1a over the seed and the text.
pub fn stream(seed: u64, text: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
