//! The children of a path: sampled, scored, without duplicates, looked ahead.
//!
//! All children of a round are written at once, and each is scored as soon as its own step is
//! done. Among siblings that say the same the one with the lowest branch index stands, whichever
//! came first, so no result depends on timing.

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

/// A step that was written below a node, and the path it makes if it is valid.
struct Child<P: Policy, R: Prm> {
    node: Node,
    logprob: f64,
    path: Option<Path<P, R>>,
}

/// A step on a branch of its own, before duplicates are sorted out.
struct Written<P: Policy, R: Prm> {
    policy: P::Branch,
    step: Step,
    /// The step, trimmed.
    text: String,
    /// The PRM's branch after the step and its score, if this sibling was first with this text.
    scored: Option<Scored<R>>,
}

type Scored<R> = (<R as Prm>::Branch, f64);

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
        let children = (parents.iter().zip(widths)).map(|(p, &width)| self.children(p, width));
        let children = try_join_all(children).await?;

        let mut expansion = Expansion {
            candidates: Vec::new(),
            dead_ends: Vec::new(),
        };
        for (parent, children) in parents.into_iter().zip(children) {
            let paths = self.record(parent.node, children);
            if paths.is_empty() {
                expansion.dead_ends.push(self.give_up(parent));
            }
            expansion.candidates.extend(paths);
        }
        Ok(expansion)
    }

    /// Enters children into the trace; returns the valid ones.
    fn record(&self, parent: usize, children: Vec<Child<P, R>>) -> Vec<Path<P, R>> {
        let mut paths = Vec::new();
        for child in children {
            let undecided = child.node.state == NodeState::Kept;
            let node = self.trace.borrow_mut().add(parent, child.node);
            if !undecided {
                self.report(node);
            }
            paths.extend(child.path.map(|path| Path { node, ..path }));
        }
        paths
    }

    /// All children of one path, those of failed tries included.
    async fn children(&self, parent: &Path<P, R>, width: usize) -> Result<Vec<Child<P, R>>, Error> {
        let Some(live) = &parent.live else {
            return Ok(Vec::new());
        };
        let mut siblings: Vec<Child<P, R>> = Vec::new();
        for attempt in 0..self.config.max_retries {
            let rows = match parent.last_row.replace(LastRow::Drawn) {
                LastRow::Pending => 1,
                LastRow::Drawn if attempt == 0 => 0,
                LastRow::Drawn | LastRow::Read => width,
            };
            self.count_last_row(&live.policy, rows);
            siblings.extend(self.sample_children(parent, live, width).await?);
            if siblings.iter().any(|child| child.path.is_some()) {
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

    /// One try: `width` children in the order of their branches.
    async fn sample_children(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        width: usize,
    ) -> Result<Vec<Child<P, R>>, Error> {
        let claimed = RefCell::new(HashSet::new());
        let written = try_join_all((0..width).map(|_| {
            let branch = self.policy.fork(&live.policy);
            self.write_step(parent, live, branch, &claimed)
        }))
        .await?;

        // The text was scored once, by whichever sibling came first; the lowest index gets it.
        let mut scored_texts: HashMap<String, Scored<R>> = HashMap::new();
        let mut steps = Vec::new();
        for Written {
            policy,
            step,
            text,
            scored,
        } in written
        {
            scored_texts.extend(scored.map(|scored| (text.clone(), scored)));
            steps.push((policy, step, text));
        }
        let mut stops_here = false;
        let children = steps.into_iter().map(|(policy, step, text)| {
            let refuse = |text: &str, state| Child {
                node: Node::new(text.into(), step.num_tokens, state),
                logprob: step.logprob,
                path: None,
            };
            match step.end {
                StepEnd::Length => refuse(&text, NodeState::LengthCut),
                StepEnd::Delimiter if text.is_empty() => refuse(&text, NodeState::Empty),
                StepEnd::Eos if text.is_empty() && stops_here => refuse("", NodeState::Duplicate),
                StepEnd::Eos if text.is_empty() => {
                    stops_here = true;
                    self.child(parent, &step, text, None, None)
                }
                _ => match scored_texts.remove(&text) {
                    Some((prm, score)) => {
                        let prm = Some(prm);
                        let live = Live { policy, prm };
                        self.child(parent, &step, text, Some(score), Some(live))
                    }
                    None => refuse(&text, NodeState::Duplicate),
                },
            }
        });
        Ok(children.collect())
    }

    /// Writes one step on `branch` and scores it, if it is valid and no sibling was first.
    async fn write_step(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        branch: P::Branch,
        claimed: &RefCell<HashSet<String>>,
    ) -> Result<Written<P, R>, Error> {
        let mut policy = branch;
        let params = self.step_params(parent.num_tokens, self.config.sampling);
        let (step, _) = self.write(&mut policy, &params).await?;
        let text = step.text.trim().to_string();
        let valid = step.end != StepEnd::Length && !text.is_empty();
        let first = valid && claimed.borrow_mut().insert(text.clone());
        let scored = if first {
            Some(self.score_step(live, &text).await?)
        } else {
            None
        };
        Ok(Written {
            policy,
            step,
            text,
            scored,
        })
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
        let mut path = parent.without_branches();
        path.last_row = Rc::default();
        path.num_tokens += step.num_tokens;
        path.logprob += step.logprob;
        path.scores.extend(score);
        let last = path.steps.len() + 1 == self.config.max_steps;
        path.ending = match step.end {
            StepEnd::Length | StepEnd::LowConfidence => Some(Ending::LengthCut),
            StepEnd::Eos => Some(Ending::Finished),
            StepEnd::Delimiter if self.has_answer(&text) => Some(Ending::Finished),
            StepEnd::Delimiter if path.num_tokens >= self.config.max_tokens => {
                Some(Ending::LengthCut)
            }
            StepEnd::Delimiter if last => Some(Ending::StepLimit),
            StepEnd::Delimiter => None,
        };
        path.live = live.filter(|_| path.ending.is_none());
        path.parent_value = parent.value;
        path.value = self.config.aggregation.of(&path.scores);
        let state = match path.ending {
            None => NodeState::Kept,
            Some(Ending::Finished) => NodeState::Finished,
            Some(Ending::LengthCut | Ending::LowConfidence) => NodeState::LengthCut,
            Some(Ending::StepLimit | Ending::DeadEnd) => NodeState::Stopped,
        };
        let node = Node {
            reward: score,
            value: Some(path.value),
            ..Node::new(text.clone(), step.num_tokens, state)
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

    /// Makes paths of first steps that were cut, each text once, if they say anything.
    async fn keep_cut_steps(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        siblings: &mut [Child<P, R>],
    ) -> Result<(), Error> {
        let mut said = HashSet::new();
        for child in &mut *siblings {
            let first = said.insert(child.node.text.clone());
            if !first && child.node.state == NodeState::LengthCut {
                child.node.state = NodeState::Duplicate;
            }
        }
        let cut = siblings.iter_mut().filter(|child| {
            child.node.state == NodeState::LengthCut && !child.node.text.is_empty()
        });
        let kept = cut.map(|child| async move {
            let text = child.node.text.clone();
            let (_, score) = self.score_step(live, &text).await?;
            let step = Step {
                text: text.clone(),
                num_tokens: child.node.num_tokens,
                logprob: child.logprob,
                confidences: Vec::new(),
                end: StepEnd::Length,
            };
            *child = self.child(parent, &step, text, Some(score), None);
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
        child.node.value = Some(path.value);
        path.last_row.set(LastRow::Read);
        child.node.lookahead_tokens = written - path.num_tokens;
        Ok(())
    }

    /// A fork of the parent's PRM branch with one more step, and the score of that step.
    async fn score_step(&self, parent: &Live<P, R>, text: &str) -> Result<Scored<R>, Error> {
        let strategy = self.config.strategy.name();
        let mut prm = self.fork_prm(parent).ok_or(Error::NoPrm { strategy })?;
        let scores = self.score(&mut prm, &[text]).await?;
        Ok((prm, scores[0]))
    }

    /// Whether a step holds an answer, which ends its path.
    fn has_answer(&self, step: &str) -> bool {
        let marker = &self.config.answer_marker;
        !marker.is_empty() && step.contains(marker)
    }

    fn step_params(&self, written: usize, sampling: Sampling) -> StepParams<'_> {
        let left = self.config.max_tokens.saturating_sub(written);
        StepParams {
            delimiter: Some(&self.config.delimiter),
            include_delimiter: true,
            max_tokens: self.config.max_step_tokens.min(left),
            sampling,
            confidences: Confidences::None,
        }
    }
}
