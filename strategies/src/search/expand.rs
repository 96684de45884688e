//! The children of a path: sampled, scored, without duplicates, looked ahead.
//!
//! All children of a round are written at once, and each is scored as soon as its own steps are
//! done: one, or as many as [`Config::verify_every`](crate::Config::verify_every) says. Among siblings
//! that say the same the one with the lowest branch index stands, whichever came first, so no result
//! depends on timing.

use super::rejection::{Begun, BegunChild};
use super::{LastRow, Live, Path, Search};
use crate::trace::{Node, NodeState};
use crate::{Confidences, Ending, Error, Policy, Prm, Sampling, Step, StepEnd, StepParams};
use futures::future::try_join_all;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// What one round of a step search gives.
pub struct Expansion<P: Policy, R: Prm> {
    /// The valid children, in the order of their parents and then of their branches.
    pub candidates: Vec<Path<P, R>>,
    /// The parents that no valid child follows, ended where they are.
    pub dead_ends: Vec<Path<P, R>>,
}

/// What was written below a node, and the path it makes if it is valid.
pub(super) struct Child<P: Policy, R: Prm> {
    /// Each step's, the first below the parent: those of the path, then one that was refused after it.
    pub nodes: Vec<Node>,
    /// Of the first step.
    logprob: f64,
    pub path: Option<Path<P, R>>,
}

impl<P: Policy, R: Prm> Child<P, R> {
    fn is_rejected(&self) -> bool {
        let state = self.nodes.first().map(|node| node.state);
        state == Some(NodeState::Rejected)
    }
}

/// The steps on a branch of its own, before duplicates are sorted out.
struct Written<P: Policy, R: Prm> {
    policy: P::Branch,
    /// The valid ones, trimmed; an end of sequence without text is one without text.
    steps: Vec<(Step, String)>,
    /// One that is not valid, after them.
    refused: Option<Node>,
    /// The log-probability of the first step, valid or not.
    logprob: f64,
    /// The PRM's branch after the steps and their scores, if this sibling was first with these texts.
    scored: Option<Scored<R>>,
}

/// Paths, and for each of them its children if they are begun.
type Begins<P, R> = (Vec<Path<P, R>>, Vec<Vec<BegunChild<P, R>>>);

pub(super) type Scored<R> = (<R as Prm>::Branch, Vec<f64>);

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// Writes `budget` next steps below `parents`, shared round-robin, so that the first parents
    /// have one more where it does not divide.
    ///
    /// A parent without a valid child is tried again, up to [`Config::max_retries`] times in all.
    /// If even the first step of a solution fails so, steps cut by the token limit are better than
    /// nothing: they are kept as the ends of their paths (SEMANTICS.md, "Expansion").
    ///
    /// # Errors
    /// A failure of either model.
    ///
    /// [`Config::max_retries`]: crate::Config::max_retries
    pub async fn expand(
        &self,
        parents: Vec<Path<P, R>>,
        budget: usize,
    ) -> Result<Expansion<P, R>, Error> {
        let count = parents.len();
        let width = |i| budget / count + usize::from(i < budget % count);
        let widths: Vec<usize> = (0..count).map(width).collect();
        self.expand_by(parents, &widths).await
    }

    /// As [`expand`](Search::expand), with `widths[i]` next steps below the i-th parent.
    ///
    /// # Errors
    /// A failure of either model.
    pub async fn expand_by(
        &self,
        parents: Vec<Path<P, R>>,
        widths: &[usize],
    ) -> Result<Expansion<P, R>, Error> {
        let (parents, begun) = self.prepare(parents, widths).await?;
        let children = (parents.iter().zip(widths).zip(begun))
            .map(|((parent, &width), begun)| self.children(parent, width, begun));
        let children = try_join_all(children).await?;

        let mut expansion = Expansion {
            candidates: Vec::new(),
            dead_ends: Vec::new(),
        };
        for (parent, children) in parents.into_iter().zip(children) {
            if parent.has_ended() {
                expansion.candidates.push(parent); // in a chain
                continue;
            }
            let is_rejected = !children.is_empty() && children.iter().all(Child::is_rejected);
            let paths = self.record(parent.node, children);
            if paths.is_empty() && !is_rejected {
                expansion.dead_ends.push(self.give_up(parent));
            }
            expansion.candidates.extend(paths);
        }
        Ok(expansion)
    }

    /// The paths to expand, behind the steps that need no branching, and as much of their children as is
    /// written by then.
    async fn prepare(
        &self,
        parents: Vec<Path<P, R>>,
        widths: &[usize],
    ) -> Result<Begins<P, R>, Error> {
        if self.config.chain_threshold > 0.0 {
            let chains = (parents.into_iter().zip(widths)).map(|(p, &width)| self.chain(p, width));
            let chains = try_join_all(chains).await?.into_iter();
            return Ok(chains
                .map(|chain| (self.record_chain(chain.links, chain.path), chain.begun))
                .unzip());
        }
        let begun = if self.config.early_rejection > 0 {
            self.begun_children(&parents, widths).await?
        } else {
            parents.iter().map(|_| Vec::new()).collect()
        };
        Ok((parents, begun))
    }

    /// Enters children into the trace; returns the valid ones.
    fn record(&self, parent: usize, children: Vec<Child<P, R>>) -> Vec<Path<P, R>> {
        let mut paths = Vec::new();
        for child in children {
            let (length, has_ended) = match &child.path {
                Some(path) => (path.round, path.has_ended()),
                None => (child.nodes.len(), true),
            };
            let mut last = parent;
            for (i, node) in child.nodes.into_iter().enumerate() {
                let node = self.trace.borrow_mut().add(last, node);
                if has_ended || i >= length {
                    self.report(node);
                }
                if i < length {
                    last = node;
                }
            }
            paths.extend(child.path.map(|path| Path { node: last, ..path }));
        }
        paths
    }

    /// All children of one path, those of failed tries included; `begun` are those of the first try if
    /// they are begun.
    async fn children(
        &self,
        parent: &Path<P, R>,
        width: usize,
        begun: Vec<BegunChild<P, R>>,
    ) -> Result<Vec<Child<P, R>>, Error> {
        let Some(live) = &parent.live else {
            return Ok(Vec::new());
        };
        // What was refused in the middle of a step is not tried again.
        let width = width - begun.iter().filter(|child| child.is_refused()).count();
        let mut begun = Some(begun).filter(|begun| !begun.is_empty());
        let mut siblings: Vec<Child<P, R>> = Vec::new();
        for attempt in 0..self.config.max_retries {
            let begun = match begun.take() {
                Some(begun) => begun,
                None => self.fork_children(parent, live, width, attempt == 0),
            };
            siblings.extend(self.sample_children(parent, live, begun).await?);
            if width == 0 || siblings.iter().any(|child| child.path.is_some()) {
                break;
            }
        }
        if parent.steps.is_empty() && siblings.iter().all(|child| child.path.is_none()) {
            self.keep_cut_steps(parent, live, &mut siblings).await?;
        }
        if self.config.lookahead > 0 {
            let valid = siblings.iter_mut().filter(|child| child.path.is_some());
            try_join_all(valid.map(|child| self.look_ahead(child))).await?;
        }
        Ok(siblings)
    }

    /// Branches for `width` children, of which nothing is written.
    pub(super) fn fork_children(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        width: usize,
        is_first_try: bool,
    ) -> Vec<BegunChild<P, R>> {
        let rows = match parent.last_row.replace(LastRow::Drawn) {
            LastRow::Pending => 1,
            LastRow::Drawn if is_first_try => 0,
            LastRow::Drawn | LastRow::Read => width,
        };
        self.count_last_row(&live.policy, rows);
        let child = |_| BegunChild::new(self.policy.fork(&live.policy), Begun::Nothing);
        (0..width).map(child).collect()
    }

    /// One try: the children in the order of their branches.
    async fn sample_children(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        begun: Vec<BegunChild<P, R>>,
    ) -> Result<Vec<Child<P, R>>, Error> {
        let claimed = RefCell::new(HashSet::new());
        let writing = begun.into_iter();
        let writing = writing.map(|child| self.write_steps(parent, live, child, &claimed));
        let written = try_join_all(writing).await?;

        // Texts were scored once, by whichever sibling came first; the lowest index gets the scores.
        let mut scored: HashMap<Vec<String>, Scored<R>> = HashMap::new();
        let mut children = Vec::new();
        for mut written in written {
            let scores = written.scored.take();
            scored.extend(scores.map(|scores| (texts(&written.steps), scores)));
            children.push(written);
        }
        let children = children.into_iter().map(|written| {
            let Written {
                policy,
                steps,
                refused,
                logprob,
                ..
            } = written;
            let mut child = match scored.remove(&texts(&steps)) {
                Some((prm, scores)) => {
                    let live = Live {
                        policy,
                        prm: Some(prm),
                    };
                    self.child(parent, steps, scores, Some(live))
                }
                None => Child {
                    nodes: (steps.into_iter())
                        .map(|(step, text)| Node::new(text, step.num_tokens, NodeState::Duplicate))
                        .collect(),
                    logprob,
                    path: None,
                },
            };
            child.nodes.extend(refused);
            child
        });
        Ok(children.collect())
    }

    /// Writes up to [`Config::verify_every`](crate::Config::verify_every) steps on a branch, the first of
    /// which may be begun, and scores them at once, if one is valid and no sibling was first with the
    /// same.
    async fn write_steps(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        child: BegunChild<P, R>,
        claimed: &RefCell<HashSet<Vec<String>>>,
    ) -> Result<Written<P, R>, Error> {
        let mut written = Written {
            policy: child.branch,
            steps: Vec::new(),
            refused: None,
            logprob: 0.0,
            scored: None,
        };
        let mut begun = child.begun;
        if let Begun::Refused(node) = begun {
            written.refused = Some(node);
            return Ok(written);
        }
        let mut tokens = parent.num_tokens;
        while written.steps.len() < self.config.verify_every {
            let params = self.step_params(tokens, self.config.sampling);
            let first = written.steps.is_empty();
            // A later step that is not valid leaves the branch where it was.
            let mut later = (!first).then(|| self.policy.fork(&written.policy));
            let on = later.as_mut().unwrap_or(&mut written.policy);
            if !first {
                self.count_last_row(on, 1);
            }
            let step = match std::mem::replace(&mut begun, Begun::Nothing) {
                Begun::Whole(step) => step,
                Begun::Part(step) => self.complete(on, step, &params).await?,
                Begun::Nothing | Begun::Refused(_) => self.write(on, &params).await?.0,
            };
            let text = step.text.trim().to_string();
            if first {
                written.logprob = step.logprob;
            }
            let refused = match step.end {
                StepEnd::Length | StepEnd::LowConfidence => Some(NodeState::LengthCut),
                StepEnd::Delimiter if text.is_empty() => Some(NodeState::Empty),
                StepEnd::Delimiter | StepEnd::Eos => None,
            };
            if let Some(state) = refused {
                written.refused = Some(Node::new(text, step.num_tokens, state));
                break;
            }
            written.policy = later.unwrap_or(written.policy);
            tokens += step.num_tokens;
            let number = parent.steps.len() + written.steps.len() + 1;
            let ends = self.ending(&step, &text, tokens, number).is_some();
            written.steps.push((step, text));
            if ends {
                break;
            }
        }
        let texts = texts(&written.steps);
        if !texts.is_empty() && claimed.borrow_mut().insert(texts) {
            written.scored = match child.scored {
                Some(scored) => Some(scored),
                None => Some(self.score_steps(live, &written.steps).await?),
            };
        }
        Ok(written)
    }

    /// Why a path ends with a step, its `number`-th, of which it has `num_tokens` in all.
    fn ending(&self, step: &Step, text: &str, num_tokens: usize, number: usize) -> Option<Ending> {
        match step.end {
            StepEnd::Length | StepEnd::LowConfidence => Some(Ending::LengthCut),
            StepEnd::Eos => Some(Ending::Finished),
            StepEnd::Delimiter if self.has_answer(text) => Some(Ending::Finished),
            StepEnd::Delimiter if num_tokens >= self.config.max_tokens => Some(Ending::LengthCut),
            StepEnd::Delimiter if number == self.config.max_steps => Some(Ending::StepLimit),
            StepEnd::Delimiter => None,
        }
    }

    /// The path that `steps` make of `parent`, with its nodes; every step with text has a score.
    pub(super) fn child(
        &self,
        parent: &Path<P, R>,
        steps: Vec<(Step, String)>,
        scores: Vec<f64>,
        live: Option<Live<P, R>>,
    ) -> Child<P, R> {
        let mut path = parent.without_branches();
        path.last_row = Rc::default();
        let mut scores = scores.into_iter();
        let mut nodes = Vec::new();
        let logprob = steps.first().map_or(0.0, |(step, _)| step.logprob);
        for (step, text) in steps {
            path.num_tokens += step.num_tokens;
            path.logprob += step.logprob;
            path.ending = self.ending(&step, &text, path.num_tokens, path.steps.len() + 1);
            let score = if text.is_empty() { None } else { scores.next() };
            path.scores.extend(score);
            path.value = self.config.aggregation.of(&path.scores);
            let state = match path.ending {
                None => NodeState::Kept,
                Some(Ending::Finished) => NodeState::Finished,
                Some(Ending::LengthCut | Ending::LowConfidence) => NodeState::LengthCut,
                Some(Ending::StepLimit | Ending::DeadEnd) => NodeState::Stopped,
            };
            nodes.push(Node {
                reward: score,
                value: Some(path.value),
                ..Node::new(text.clone(), step.num_tokens, state)
            });
            if !text.is_empty() {
                path.steps.push(text);
            }
        }
        path.live = live.filter(|_| path.ending.is_none());
        path.parent_value = parent.value;
        path.round = nodes.len();
        Child {
            nodes,
            logprob,
            path: Some(path),
        }
    }

    /// Makes paths of first steps that were cut, each text once, if they say anything.
    async fn keep_cut_steps(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        siblings: &mut [Child<P, R>],
    ) -> Result<(), Error> {
        // Without a valid child each one is a single step that was refused.
        let mut said = HashSet::new();
        for node in siblings.iter_mut().flat_map(|child| &mut child.nodes) {
            let first = said.insert(node.text.clone());
            if !first && node.state == NodeState::LengthCut {
                node.state = NodeState::Duplicate;
            }
        }
        let kept = siblings.iter_mut().map(|child| async move {
            let cut = |node: &&Node| node.state == NodeState::LengthCut && !node.text.is_empty();
            let Some(node) = child.nodes.first().filter(cut) else {
                return Ok(());
            };
            let text = node.text.clone();
            let step = Step {
                text: text.clone(),
                num_tokens: node.num_tokens,
                logprob: child.logprob,
                confidences: Vec::new(),
                end: StepEnd::Length,
            };
            let steps = vec![(step, text)];
            let (_, scores) = self.score_steps(live, &steps).await?;
            *child = self.child(parent, steps, scores, None);
            Ok::<_, Error>(())
        });
        try_join_all(kept).await?;
        Ok(())
    }

    /// Values a child by where it leads: up to k further greedy steps are written and scored on
    /// forks that are then dropped (search-and-learn `generate_k_steps`). The child's own
    /// scores stay those of its own steps.
    async fn look_ahead(&self, child: &mut Child<P, R>) -> Result<(), Error> {
        let Some(path) = &mut child.path else {
            return Ok(());
        };
        let Some(live) = &path.live else {
            return Ok(());
        };
        let mut policy = self.policy.fork(&live.policy);
        let mut ahead: Vec<String> = Vec::new();
        let mut written = path.num_tokens;
        while ahead.len() < self.config.lookahead && written < self.config.max_tokens {
            let params = self.step_params(written, Sampling::GREEDY);
            self.count_last_row(&policy, 1);
            let (step, _) = self.write(&mut policy, &params).await?;
            written += step.num_tokens;
            let text = step.text.trim().to_string();
            let empty = text.is_empty();
            let ends = empty || step.end != StepEnd::Delimiter || self.has_answer(&text);
            ahead.extend((!empty).then_some(text));
            if ends {
                break;
            }
        }
        let texts: Vec<&str> = ahead.iter().map(String::as_str).collect();
        let mut extended = path.scores.clone();
        if let Some(mut prm) = self.fork_prm(live) {
            extended.extend(self.score(&mut prm, &texts).await?);
        }
        path.value = self.config.aggregation.of(&extended);
        path.last_row.set(LastRow::Read);
        let node = &mut child.nodes[path.round - 1];
        node.value = Some(path.value);
        node.lookahead_tokens = written - path.num_tokens;
        Ok(())
    }

    /// A fork of the parent's PRM branch with more steps, and their scores.
    async fn score_steps(
        &self,
        parent: &Live<P, R>,
        steps: &[(Step, String)],
    ) -> Result<Scored<R>, Error> {
        let texts: Vec<&str> = (steps.iter().map(|(_, text)| text.as_str()))
            .filter(|text| !text.is_empty())
            .collect();
        self.score_texts(parent, &texts).await
    }

    pub(super) async fn score_texts(
        &self,
        parent: &Live<P, R>,
        texts: &[&str],
    ) -> Result<Scored<R>, Error> {
        let strategy = self.config.strategy.name();
        let mut prm = self.fork_prm(parent).ok_or(Error::NoPrm { strategy })?;
        let scores = self.score(&mut prm, texts).await?;
        Ok((prm, scores))
    }

    /// Whether a step holds an answer, which ends its path.
    fn has_answer(&self, step: &str) -> bool {
        let marker = &self.config.answer_marker;
        !marker.is_empty() && step.contains(marker)
    }

    pub(super) fn step_params(&self, written: usize, sampling: Sampling) -> StepParams<'_> {
        let left = self.config.max_tokens.saturating_sub(written);
        StepParams {
            delimiter: Some(&self.config.delimiter),
            include_delimiter: true,
            max_tokens: self.config.max_step_tokens.min(left),
            begun: 0,
            sampling,
            confidences: Confidences::None,
        }
    }
}

fn texts(steps: &[(Step, String)]) -> Vec<String> {
    steps.iter().map(|(_, text)| text.clone()).collect()
}
