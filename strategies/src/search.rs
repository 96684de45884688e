//! What beam search and DVTS share: one node's expansion into distinct, scored children.
//!
//! All children of a node are written at once, and each is scored as soon as its own step is
//! done. Among siblings that say the same the one with the lowest branch index stands, whichever
//! came first, so no result depends on timing.

use crate::trace::{Node, NodeState, Trace};
use crate::{Config, Ending, Error, Policy, Prm, Sampling, Solution, Step, StepEnd, StepParams};
use futures::future::try_join_all;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// The two models and the options of one search.
pub(crate) struct Search<'a, P, R> {
    pub policy: &'a P,
    pub prm: &'a R,
    pub config: &'a Config,
}

/// One path of the search, from the stem to its latest step.
pub(crate) struct Path<P: Policy, R: Prm> {
    /// Both models' branches, until the path ends.
    live: Option<Live<P, R>>,
    /// Why it ended; `None` while it can go on.
    pub ending: Option<Ending>,
    /// What it is ranked by, and what its parent was.
    pub value: f64,
    pub parent_value: f64,
    /// Its latest step in the trace.
    pub node: usize,
    steps: Vec<String>,
    scores: Vec<f64>,
    tokens: usize,
    logprob: f64,
}

struct Live<P: Policy, R: Prm> {
    policy: P::Branch,
    prm: R::Branch,
}

/// A step that was written below a node, and the path it makes if it is valid.
pub(crate) struct Child<P: Policy, R: Prm> {
    node: Node,
    logprob: f64,
    path: Option<Path<P, R>>,
}

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// The stem of a problem as a path without steps.
    pub async fn root(&self, problem: &str, stream: u64) -> Result<Path<P, R>, Error> {
        let (policy, prm) =
            futures::try_join!(self.policy.start(problem, stream), self.prm.start(problem))?;
        Ok(Path {
            live: Some(Live { policy, prm }),
            ending: None,
            value: 0.0,
            parent_value: 0.0,
            node: 0,
            steps: Vec::new(),
            scores: Vec::new(),
            tokens: 0,
            logprob: 0.0,
        })
    }

    /// A second path with the same content.
    pub fn fork(&self, path: &Path<P, R>) -> Path<P, R> {
        let live = path.live.as_ref().map(|live| Live {
            policy: self.policy.fork(&live.policy),
            prm: self.prm.fork(&live.prm),
        });
        Path {
            live,
            ..path.record()
        }
    }

    /// Writes `width` next steps below `parent`, again while none is valid, up to the number of
    /// tries. If even the first step of a solution cannot be had, cut ones are better than
    /// nothing: they are kept as the ends of their paths (TTS.md 2.2).
    pub async fn expand(
        &self,
        parent: &Path<P, R>,
        width: usize,
    ) -> Result<Vec<Child<P, R>>, Error> {
        let Some(live) = &parent.live else {
            return Ok(Vec::new());
        };
        let mut family: Vec<Child<P, R>> = Vec::new();
        for _ in 0..self.config.tries {
            family.extend(self.litter(parent, live, width).await?);
            if family.iter().any(|child| child.path.is_some()) {
                break;
            }
        }
        if parent.steps.is_empty() && family.iter().all(|child| child.path.is_none()) {
            let mut said = HashSet::new();
            for child in &mut family {
                if !said.insert(child.node.text.clone()) && child.node.state == NodeState::LengthCut
                {
                    child.node.state = NodeState::Duplicate;
                }
            }
            let rescued = family
                .iter_mut()
                .map(|child| self.rescue(parent, live, child));
            try_join_all(rescued).await?;
        }
        if self.config.lookahead > 0 {
            let paths = family.iter_mut().filter(|child| child.path.is_some());
            try_join_all(paths.map(|child| self.look_ahead(child))).await?;
        }
        Ok(family)
    }

    /// One try of [`Search::expand`]: the children in the order of their branches.
    async fn litter(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        width: usize,
    ) -> Result<Vec<Child<P, R>>, Error> {
        let how = self.next_step(parent.tokens, self.config.sampling);
        let claimed = RefCell::new(HashSet::new());
        let written = try_join_all((0..width).map(|_| {
            let mut policy = self.policy.fork(&live.policy);
            let claimed = &claimed;
            async move {
                let step = self.policy.step(&mut policy, &how).await?;
                let text = step.text.trim().to_string();
                let valid = step.end != StepEnd::Length && !text.is_empty();
                let scored = match valid && claimed.borrow_mut().insert(text.clone()) {
                    true => Some(self.score_one(&live.prm, &text).await?),
                    false => None,
                };
                Ok((policy, step, text, scored))
            }
        }))
        .await?;

        let mut scores = HashMap::new();
        let written: Vec<_> = written
            .into_iter()
            .map(|(policy, step, text, scored)| {
                scores.extend(scored.map(|scored| (text.clone(), scored)));
                (policy, step, text)
            })
            .collect();
        let mut stops_here = false;
        let children = written.into_iter().map(|(policy, step, text)| {
            let refuse = |state| Child {
                node: Node::new(step.text.trim().into(), step.tokens, state),
                logprob: step.logprob,
                path: None,
            };
            match step.end {
                StepEnd::Length => refuse(NodeState::LengthCut),
                StepEnd::Delimiter if text.is_empty() => refuse(NodeState::Empty),
                StepEnd::Eos if text.is_empty() && stops_here => refuse(NodeState::Duplicate),
                StepEnd::Eos if text.is_empty() => {
                    stops_here = true;
                    self.child(parent, &step, text, None, None)
                }
                _ => match scores.remove(&text) {
                    Some((prm, score)) => {
                        let live = Live { policy, prm };
                        self.child(parent, &step, text, Some(score), Some(live))
                    }
                    None => refuse(NodeState::Duplicate),
                },
            }
        });
        Ok(children.collect())
    }

    /// The path that `step` makes of `parent`, with its node.
    fn child(
        &self,
        parent: &Path<P, R>,
        step: &Step,
        text: String,
        score: Option<f64>,
        live: Option<Live<P, R>>,
    ) -> Child<P, R> {
        let mut path = parent.record();
        path.tokens += step.tokens;
        path.logprob += step.logprob;
        path.scores.extend(score);
        let last = path.steps.len() + 1 == self.config.max_steps;
        path.ending = match step.end {
            StepEnd::Length => Some(Ending::LengthCut),
            StepEnd::Eos => Some(Ending::Finished),
            StepEnd::Delimiter if text.contains("\\boxed{") => Some(Ending::Finished),
            StepEnd::Delimiter if path.tokens >= self.config.total_tokens => {
                Some(Ending::LengthCut)
            }
            StepEnd::Delimiter if last => Some(Ending::StepLimit),
            StepEnd::Delimiter => None,
        };
        path.live = live.filter(|_| path.ending.is_none());
        path.parent_value = parent.value;
        path.value = self.config.value.of(&path.scores);
        let state = match path.ending {
            None => NodeState::Kept,
            Some(Ending::Finished) => NodeState::Finished,
            Some(Ending::LengthCut) => NodeState::LengthCut,
            Some(Ending::StepLimit | Ending::DeadEnd) => NodeState::Stopped,
        };
        let node = Node {
            reward: score,
            value: Some(path.value),
            ..Node::new(text.clone(), step.tokens, state)
        };
        if !text.is_empty() {
            path.steps.push(text);
        }
        Child {
            node,
            logprob: step.logprob,
            path: Some(path),
        }
    }

    /// Makes a path of a first step that was cut, if it says anything.
    async fn rescue(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        child: &mut Child<P, R>,
    ) -> Result<(), Error> {
        if child.node.state == NodeState::LengthCut && !child.node.text.is_empty() {
            let text = child.node.text.clone();
            let (_, score) = self.score_one(&live.prm, &text).await?;
            let step = Step {
                text: text.clone(),
                tokens: child.node.tokens,
                logprob: child.logprob,
                end: StepEnd::Length,
            };
            *child = self.child(parent, &step, text, Some(score), None);
        }
        Ok(())
    }

    /// Values a child by where it leads: up to k further greedy steps are written and scored on
    /// forks that are then dropped (search-and-learn `generate_k_steps`). The child's own
    /// scores stay those of its own steps.
    async fn look_ahead(&self, child: &mut Child<P, R>) -> Result<(), Error> {
        let Some(Path {
            live: Some(live),
            tokens,
            scores,
            value,
            ..
        }) = &mut child.path
        else {
            return Ok(());
        };
        let mut policy = self.policy.fork(&live.policy);
        let mut ahead: Vec<String> = Vec::new();
        let mut written = *tokens;
        while ahead.len() < self.config.lookahead && written < self.config.total_tokens {
            let how = self.next_step(written, Sampling::GREEDY);
            let step = self.policy.step(&mut policy, &how).await?;
            written += step.tokens;
            let text = step.text.trim().to_string();
            let ends = step.end != StepEnd::Delimiter || text.contains("\\boxed{");
            ahead.extend((!text.is_empty()).then_some(text));
            if ends || step.text.trim().is_empty() {
                break;
            }
        }
        let texts: Vec<&str> = ahead.iter().map(String::as_str).collect();
        let mut extended = scores.clone();
        extended.extend(score(self.prm, &mut self.prm.fork(&live.prm), &texts).await?);
        *value = self.config.value.of(&extended);
        child.node.value = Some(*value);
        child.node.lookahead_tokens = written - *tokens;
        Ok(())
    }

    /// A fork of the parent's PRM branch with one more step, and the score of that step.
    async fn score_one(&self, parent: &R::Branch, text: &str) -> Result<(R::Branch, f64), Error> {
        let mut prm = self.prm.fork(parent);
        let scores = score(self.prm, &mut prm, &[text]).await?;
        Ok((prm, scores[0]))
    }

    fn next_step(&self, written: usize, sampling: Sampling) -> StepParams<'_> {
        let left = self.config.total_tokens.saturating_sub(written);
        StepParams {
            delimiter: Some(&self.config.delimiter),
            max_tokens: self.config.step_tokens.min(left),
            sampling,
        }
    }
}

/// One finite score for each step, or an error.
pub(crate) async fn score<R: Prm>(
    prm: &R,
    branch: &mut R::Branch,
    steps: &[&str],
) -> Result<Vec<f64>, Error> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let scores = prm.score(branch, steps).await?;
    if scores.len() != steps.len() {
        return Err(Error::ScoreCount {
            expected: steps.len(),
            found: scores.len(),
        });
    }
    match scores
        .iter()
        .zip(steps)
        .find(|(score, _)| !score.is_finite())
    {
        Some((&score, step)) => Err(Error::Score {
            score,
            step: step.to_string(),
        }),
        None => Ok(scores),
    }
}

/// Enters what was written below `parent` into the trace; returns the valid paths.
pub(crate) fn record<P: Policy, R: Prm>(
    trace: &mut Trace,
    parent: usize,
    family: Vec<Child<P, R>>,
) -> Vec<Path<P, R>> {
    let mut paths = Vec::new();
    for child in family {
        let node = trace.add(parent, child.node);
        paths.extend(child.path.map(|path| Path { node, ..path }));
    }
    paths
}

/// Keeps the `count` best paths, in the order of their branches, and drops the others.
///
/// The order is total: the higher value, then the higher value of the parent, then the lower
/// index.
pub(crate) fn keep_best<P: Policy, R: Prm>(
    paths: Vec<Path<P, R>>,
    count: usize,
    trace: &mut Trace,
) -> Vec<Path<P, R>> {
    let mut ranking: Vec<usize> = (0..paths.len()).collect();
    ranking.sort_by(|&a, &b| {
        let (a, b) = (&paths[a], &paths[b]);
        (b.value.total_cmp(&a.value)).then(b.parent_value.total_cmp(&a.parent_value))
    }); // the sort is stable, so the lower index stays in front
    let best: HashSet<usize> = ranking.into_iter().take(count).collect();
    let mut kept = Vec::new();
    for (index, path) in paths.into_iter().enumerate() {
        match best.contains(&index) {
            true => kept.push(path),
            false => trace.nodes[path.node].state = NodeState::Dropped,
        }
    }
    kept
}

impl<P: Policy, R: Prm> Path<P, R> {
    /// Ends the path where it is, because no valid step follows.
    pub fn give_up(mut self, trace: &mut Trace) -> Path<P, R> {
        trace.nodes[self.node].state = NodeState::Stopped;
        self.live = None;
        self.ending = Some(Ending::DeadEnd);
        self
    }

    /// The path as a result; its answer is read later.
    pub fn solution(self) -> Solution {
        Solution {
            steps: self.steps,
            scores: self.scores,
            answer: None,
            correct: None,
            ending: self.ending.unwrap_or(Ending::StepLimit),
            tokens: self.tokens,
            logprob: self.logprob,
            node: self.node,
        }
    }

    /// Everything but the branches.
    fn record(&self) -> Path<P, R> {
        Path {
            live: None,
            ending: self.ending,
            value: self.value,
            parent_value: self.parent_value,
            node: self.node,
            steps: self.steps.clone(),
            scores: self.scores.clone(),
            tokens: self.tokens,
            logprob: self.logprob,
        }
    }
}
