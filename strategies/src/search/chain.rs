//! Steps that need no branching ([`Config::chain_threshold`](crate::Config::chain_threshold)): where the
//! children of a path mostly say the same, one of them goes on alone.

use super::rejection::{Begun, BegunChild};
use super::{Live, Path, Search};
use crate::cluster::clusters;
use crate::trace::{Node, NodeState};
use crate::{Error, Policy, Prm, Step, StepEnd};
use futures::future::try_join_all;

/// A path behind the steps that were taken without branching.
pub(super) struct Chain<P: Policy, R: Prm> {
    pub path: Path<P, R>,
    pub links: Vec<Link>,
    /// The children that disagree, with their steps; none behind a path that has ended.
    pub begun: Vec<BegunChild<P, R>>,
}

/// A step of a chain and its siblings, in the order of their branches.
pub(super) struct Link {
    nodes: Vec<Node>,
    /// Which one it is.
    chosen: usize,
}

impl<P: Policy, R: Prm> Search<'_, P, R> {
    /// Writes `width` next steps of a path, and goes on with one of them as long as they agree.
    pub(super) async fn chain(&self, path: Path<P, R>, width: usize) -> Result<Chain<P, R>, Error> {
        let mut chain = Chain {
            path,
            links: Vec::new(),
            begun: Vec::new(),
        };
        while let Some(live) = chain.path.live.as_ref().filter(|_| width > 1) {
            let forks = self
                .fork_children(&chain.path, live, width, true)
                .into_iter();
            let params = self.step_params(chain.path.num_tokens, self.config.sampling);
            let writing = forks.map(|mut fork| async move {
                let (step, _) = self.write(&mut fork.branch, &params).await?;
                Ok::<_, Error>((fork.branch, step))
            });
            let mut written = try_join_all(writing).await?;
            let labels = self.directions(live, &written).await?;
            let Some(chosen) = agreed(&labels, self.config.chain_threshold) else {
                let begin = |(branch, step)| BegunChild::new(branch, Begun::Whole(step));
                chain.begun = written.into_iter().map(begin).collect();
                break;
            };
            let mut nodes: Vec<Node> = (written.iter().zip(&labels))
                .map(|((_, step), label)| {
                    aside(step, label.is_some_and(|l| labels[chosen] == Some(l)))
                })
                .collect();
            let (branch, step) = written.swap_remove(chosen);
            let text = step.text.trim().to_string();
            let (prm, scores) = self.score_texts(live, &[&text]).await?;
            let live = Live {
                policy: branch,
                prm: Some(prm),
            };
            let child = self.child(&chain.path, vec![(step, text)], scores, Some(live));
            let (Some(path), Some(node)) = (child.path, child.nodes.into_iter().next()) else {
                break;
            };
            nodes[chosen] = node;
            chain.links.push(Link { nodes, chosen });
            chain.path = path;
        }
        Ok(chain)
    }

    /// The cluster of what each step says, by the mean of its hidden states; `None` for a step that is not
    /// valid or says nothing.
    async fn directions(
        &self,
        parent: &Live<P, R>,
        written: &[(P::Branch, Step)],
    ) -> Result<Vec<Option<usize>>, Error> {
        let before = self.policy.num_tokens(&parent.policy);
        let says = |step: &Step| {
            matches!(step.end, StepEnd::Delimiter | StepEnd::Eos) && !step.text.trim().is_empty()
        };
        let saying = written.iter().filter(|(_, step)| says(step));
        // The cosine of sums is that of means.
        let reading = saying.map(|(branch, _)| async move {
            self.hidden_sum(branch, self.policy.num_tokens(branch) - before)
                .await
        });
        let sums = try_join_all(reading).await?;
        let mut labels = clusters(&sums, self.config.cluster_distance).into_iter();
        let label = |(_, step): &(P::Branch, Step)| says(step).then(|| labels.next()).flatten();
        Ok(written.iter().map(label).collect())
    }

    /// Enters the steps of a chain into the trace; returns its path.
    pub(super) fn record_chain(&self, links: Vec<Link>, path: Path<P, R>) -> Path<P, R> {
        let round = links.len();
        let mut last = path.node;
        for Link { nodes, chosen } in links {
            let parent = last;
            for (i, node) in nodes.into_iter().enumerate() {
                let node = self.trace.borrow_mut().add(parent, node);
                self.report(node);
                if i == chosen {
                    last = node;
                }
            }
        }
        Path {
            node: last,
            round,
            ..path
        }
    }
}

/// The first step of the largest cluster, if that has at least `threshold` of all steps; of equal clusters
/// the one with the earlier first step.
fn agreed(labels: &[Option<usize>], threshold: f64) -> Option<usize> {
    let size = |label: usize| labels.iter().filter(|&&other| other == Some(label)).count();
    let sizes =
        (labels.iter().enumerate()).filter_map(|(first, label)| Some((first, size((*label)?))));
    let largest = sizes.reduce(|best, other| if other.1 > best.1 { other } else { best });
    let (first, size) = largest?;
    (size as f64 >= threshold * labels.len() as f64).then_some(first)
}

/// A sibling of a chain's step.
fn aside(step: &Step, says_the_same: bool) -> Node {
    let text = step.text.trim();
    let state = match step.end {
        StepEnd::Length | StepEnd::LowConfidence => NodeState::LengthCut,
        StepEnd::Delimiter if text.is_empty() => NodeState::Empty,
        _ if says_the_same => NodeState::Duplicate,
        _ => NodeState::Dropped,
    };
    Node::new(text.into(), step.num_tokens, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreed_table() {
        const A: Option<usize> = Some(0);
        const B: Option<usize> = Some(1);
        const C: Option<usize> = Some(2);
        type Case = (&'static [Option<usize>], f64, Option<usize>);
        let cases: &[Case] = &[
            (&[A, A, B, C], 0.5, Some(0)),
            (&[A, A, B, C], 0.6, None),
            (&[A, B, C, B], 0.5, Some(1)),
            // Of equal clusters that of the earlier step.
            (&[B, A, A, B], 0.5, Some(0)),
            // A step that is not valid agrees with nothing, and counts.
            (&[None, A, A, None], 0.5, Some(1)),
            (&[None, A, A, None], 0.51, None),
            (&[None, None], 0.1, None),
            (&[A, A, A], 1.0, Some(0)),
            (&[A, A, B], 1.0, None),
        ];
        for &(labels, threshold, expected) in cases {
            assert_eq!(
                agreed(labels, threshold),
                expected,
                "{labels:?} {threshold}"
            );
        }
    }
}
