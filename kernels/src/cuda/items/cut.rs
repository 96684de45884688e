//! The cut of the plan's tree into pieces: which runs are read once for all rows below them.

use super::{AttentionShape, Builder};
use crate::plan::Run;
use std::ops::Range;

/// Consecutive rows and the blocks they attend to together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) rows: Range<usize>,
    /// `[block, position of its first token, valid tokens, 0]`.
    pub(super) entries: Vec<[u32; 4]>,
}

/// A run in its tree.
pub(super) struct RunNode<'a> {
    run: &'a Run,
    children: Vec<usize>,
}

/// Which runs are pieces of their own; the blocks of the others go to every subtree below them.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum SharingRule {
    /// Those that cost less so.
    Cheaper,
    Always,
    Never,
    /// Those that all rows share.
    Root,
}

impl Builder<'_> {
    /// The runs as trees: nodes in preorder, and the roots.
    pub(super) fn forest(&self) -> (Vec<RunNode<'_>>, Vec<usize>) {
        let mut nodes: Vec<RunNode<'_>> = Vec::new();
        let (mut roots, mut path) = (Vec::new(), Vec::<usize>::new());
        for run in self.plan.runs.iter().filter(|run| !run.rows.is_empty()) {
            while let Some(&last) = path.last() {
                let above = nodes[last].run;
                let inside = above.rows.start <= run.rows.start && run.rows.end <= above.rows.end;
                if inside && above.start + above.num_tokens == run.start {
                    break;
                }
                path.pop();
            }
            let index = nodes.len();
            match path.last() {
                Some(&parent) => nodes[parent].children.push(index),
                None => roots.push(index),
            }
            path.push(index);
            nodes.push(RunNode {
                run,
                children: Vec::new(),
            });
        }
        (nodes, roots)
    }

    /// Cuts the subtree of `node` into pieces; `carried` are blocks above it that no piece has yet.
    pub(super) fn cut(
        &self,
        nodes: &[RunNode<'_>],
        node: usize,
        carried: Vec<[u32; 4]>,
        rule: SharingRule,
        pieces: &mut Vec<Piece>,
    ) {
        // A loop along chains, not a recursion: a branch may have thousands of sealed tails.
        let (mut node, mut entries) = (node, carried);
        loop {
            let RunNode { run, children } = &nodes[node];
            self.push_entries(run, &mut entries);
            match children[..] {
                [only] if nodes[only].run.rows == run.rows => node = only,
                _ => break,
            }
        }
        let RunNode { run, children } = &nodes[node];
        let branches = branches(nodes, &nodes[node]);
        let shared = match rule {
            _ if children.is_empty() => true,
            SharingRule::Always => true,
            SharingRule::Never => false,
            SharingRule::Root => run.rows == (0..self.plan.rows.len()),
            SharingRule::Cheaper => self.sharing_is_cheaper(run, entries.len(), &branches),
        };
        if shared {
            pieces.push(Piece {
                rows: run.rows.clone(),
                entries: std::mem::take(&mut entries),
            });
        }
        for (rows, child) in branches {
            match child {
                Some(child) => self.cut(nodes, child, entries.clone(), rule, pieces),
                None if shared => {}
                None => pieces.push(Piece {
                    rows,
                    entries: entries.clone(),
                }),
            }
        }
    }

    /// The entries of a run's blocks.
    fn push_entries(&self, run: &Run, entries: &mut Vec<[u32; 4]>) {
        let block_tokens = self.shape.block_tokens;
        for (i, block) in self.plan.blocks[run.blocks.clone()].iter().enumerate() {
            let before = i * block_tokens;
            let valid = block_tokens.min(run.num_tokens as usize - before);
            entries.push([block.0, run.start + before as u32, valid as u32, 0]);
        }
    }

    /// Whether `blocks` blocks cost less as a piece of all rows of `run`, each with one more
    /// partial result, than streamed again with each of the branches below.
    fn sharing_is_cheaper(&self, run: &Run, blocks: usize, branches: &[Branch]) -> bool {
        let AttentionShape {
            group,
            block_tokens,
            ..
        } = *self.shape;
        let (slots, min_tile) = (blocks * block_tokens, self.min_tile);
        let rows = run.rows.len() * group;
        let once =
            self.shape.cost(rows, slots, min_tile) + self.shape.partials(rows as u64, min_tile);
        let again = branches.iter().map(|(rows, child)| {
            let rows = rows.len() * group;
            match child {
                Some(_) => self.shape.stream(rows, slots, min_tile),
                None => self.shape.cost(rows, slots, min_tile),
            }
        });
        once <= again.sum()
    }

    /// Cost of the pieces before they are split, per KV head.
    pub(super) fn cost(&self, pieces: &[Piece]) -> u64 {
        let mut cover = vec![0u64; self.plan.rows.len()];
        let mut cost = 0;
        for piece in pieces {
            piece.rows.clone().for_each(|r| cover[r] += 1);
            self.tiles(piece).for_each(|(_, count, entries)| {
                let slots = entries.len() * self.shape.block_tokens;
                cost += self.shape.cost(count, slots, self.min_tile);
            });
        }
        let partials: u64 = cover.iter().filter(|&&n| n > 1).sum();
        let partials = partials * self.shape.group as u64;
        cost + self.shape.partials(partials, self.min_tile)
    }
}

/// Rows below a run, and the child they belong to; `None`: their path ends in the run.
type Branch = (Range<usize>, Option<usize>);

/// The rows of a run by branch, in order.
fn branches(nodes: &[RunNode<'_>], node: &RunNode<'_>) -> Vec<Branch> {
    let rows = &node.run.rows;
    let mut branches = Vec::new();
    let mut next = rows.start;
    for &child in &node.children {
        let below = nodes[child].run.rows.clone();
        if next < below.start {
            branches.push((next..below.start, None));
        }
        next = below.end;
        branches.push((below, Some(child)));
    }
    if next < rows.end {
        branches.push((next..rows.end, None));
    }
    branches
}
