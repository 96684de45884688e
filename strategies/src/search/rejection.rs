//! Steps that are begun before it is decided which of them are completed
//! ([`Config::early_rejection`](crate::Config::early_rejection)).

use super::expand::Scored;
use super::{Live, Path, Search};
use crate::trace::{Node, NodeState};
use crate::{Error, Policy, Prm, Step, StepEnd, StepParams};
use futures::future::try_join_all;
use std::collections::{HashMap, HashSet};

/// A child on a branch of its own, as far as its first step is written.
pub(super) struct BegunChild<P: Policy, R: Prm> {
    pub branch: P::Branch,
    pub begun: Begun,
    /// The PRM's branch behind a whole step, and its score.
    pub scored: Option<Scored<R>>,
    /// What it is ranked by: its score and the value of its path, as if the step ended here.
    rank: Option<(Option<f64>, f64)>,
}

/// How much of a step is written.
pub(super) enum Begun {
    Nothing,
    /// Up to where the policy was interrupted.
    Part(Step),
    Whole(Step),
    /// It will not be a child.
    Refused(Node),
}

impl<P: Policy, R: Prm> BegunChild<P, R> {
    /// A child that is not scored.
    pub fn new(branch: P::Branch, begun: Begun) -> BegunChild<P, R> {
        BegunChild {
            branch,
            begun,
            scored: None,
            rank: None,
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.begun, Begun::Refused(_))
    }

    /// The text so far, trimmed, of a step that is not refused.
    fn text(&self) -> &str {
        match &self.begun {
            Begun::Part(step) | Begun::Whole(step) => step.text.trim(),
            Begun::Nothing | Begun::Refused(_) => "",
        }
    }

    /// Whether it may become a child. A whole step that is not valid is refused when it is entered.
    fn is_promising(&self) -> bool {
        match &self.begun {
            Begun::Part(_) => true,
            Begun::Whole(step) => match step.end {
                StepEnd::Eos => true,
                StepEnd::Delimiter => !self.text().is_empty(),
                StepEnd::Length | StepEnd::LowConfidence => false,
            },
            Begun::Nothing | Begun::Refused(_) => false,
        }
    }

    fn refuse(&mut self, state: NodeState) {
        if let Begun::Part(step) | Begun::Whole(step) = &self.begun {
            let (reward, value) = match self.rank.take() {
                Some((reward, value)) => (reward, Some(value)),
                None => (None, None),
            };
            self.begun = Begun::Refused(Node {
                reward,
                value,
                ..Node::new(step.text.trim().into(), step.num_tokens, state)
            });
            self.scored = None;
        }
    }
}

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// Begins `widths[i]` steps below the i-th parent, scores them, and refuses all but the best 1/M of
    /// the round: the higher value, then the higher value of the parent, then the lower index.
    pub(super) async fn begun_children(
        &self,
        parents: &[Path<P, R>],
        widths: &[usize],
    ) -> Result<Vec<Vec<BegunChild<P, R>>>, Error> {
        let begin = |(parent, &width)| self.begin_children(parent, width);
        let mut children = try_join_all(parents.iter().zip(widths).map(begin)).await?;
        let mut ranking: Vec<(f64, f64, &mut BegunChild<P, R>)> = Vec::new();
        for (parent, children) in parents.iter().zip(&mut children) {
            for child in children {
                if let Some((_, value)) = child.rank {
                    ranking.push((value, parent.value, child));
                }
            }
        }
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
        let kept = (widths.iter().sum::<usize>() / self.config.beam_width).max(1);
        for (_, _, child) in ranking.into_iter().skip(kept) {
            child.refuse(NodeState::Rejected);
        }
        Ok(children)
    }

    /// The children of one path, begun and scored.
    async fn begin_children(
        &self,
        parent: &Path<P, R>,
        width: usize,
    ) -> Result<Vec<BegunChild<P, R>>, Error> {
        let Some(live) = &parent.live else {
            return Ok(Vec::new());
        };
        let forks = self.fork_children(parent, live, width, true).into_iter();
        let begin = forks.map(|child| self.begin_step(parent, child.branch));
        let mut children = try_join_all(begin).await?;
        let mut said = HashSet::new();
        for child in &mut children {
            let is_whole = matches!(child.begun, Begun::Whole(_));
            if is_whole && !child.text().is_empty() && !said.insert(child.text().to_string()) {
                child.refuse(NodeState::Duplicate);
            }
        }
        self.score_begun(parent, live, &mut children).await?;
        Ok(children)
    }

    /// Writes up to [`Config::early_rejection`](crate::Config::early_rejection) tokens of a step.
    async fn begin_step(
        &self,
        parent: &Path<P, R>,
        mut branch: P::Branch,
    ) -> Result<BegunChild<P, R>, Error> {
        let whole = self.step_params(parent.num_tokens, self.config.sampling);
        let params = StepParams {
            max_tokens: whole.max_tokens.min(self.config.early_rejection),
            ..whole
        };
        let (step, _) = self.write(&mut branch, &params).await?;
        let interrupted =
            step.num_tokens == params.max_tokens && params.max_tokens < whole.max_tokens;
        let begun = if step.end == StepEnd::Length && interrupted {
            Begun::Part(step)
        } else {
            Begun::Whole(step)
        };
        Ok(BegunChild::new(branch, begun))
    }

    /// Scores what is begun and may become a child, each text once. A whole step keeps the PRM's branch.
    async fn score_begun(
        &self,
        parent: &Path<P, R>,
        live: &Live<P, R>,
        children: &mut [BegunChild<P, R>],
    ) -> Result<(), Error> {
        let mut texts: Vec<&str> = (children.iter().filter(|child| child.is_promising()))
            .map(BegunChild::text)
            .collect();
        texts.sort_unstable();
        texts.dedup();
        let scoring = texts.into_iter().map(|text| async move {
            let steps: &[&str] = if text.is_empty() { &[] } else { &[text] };
            let scored = self.score_texts(live, steps).await?;
            Ok::<_, Error>((text.to_string(), scored))
        });
        let scored: HashMap<String, Scored<R>> = try_join_all(scoring).await?.into_iter().collect();
        let prm = self.prm()?;
        for child in children.iter_mut().filter(|child| child.is_promising()) {
            let Some((branch, scores)) = scored.get(child.text()) else {
                continue;
            };
            let path: Vec<f64> = parent.scores.iter().chain(scores).copied().collect();
            child.rank = Some((scores.first().copied(), self.config.aggregation.of(&path)));
            if matches!(child.begun, Begun::Whole(_)) {
                child.scored = Some((prm.fork(branch), scores.clone()));
            }
        }
        Ok(())
    }

    /// Writes the rest of a step that was interrupted.
    pub(super) async fn complete(
        &self,
        branch: &mut P::Branch,
        begun: Step,
        whole: &StepParams<'_>,
    ) -> Result<Step, Error> {
        let params = StepParams {
            max_tokens: whole.max_tokens - begun.num_tokens,
            begun: begun.num_tokens,
            ..*whole
        };
        self.count_last_row(branch, 1);
        let (step, _) = self.write(branch, &params).await?;
        Ok(Step {
            num_tokens: begun.num_tokens + step.num_tokens,
            logprob: begun.logprob + step.logprob,
            ..step
        })
    }
}
