//! News of a search while it runs, for whoever shows it.

use super::Search;
use crate::trace::Node;
use crate::{Policy, Prm, Solution};

/// One piece of news. News never changes a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum News<'a> {
    /// A step whose state is known: refused or finished as soon as it is written; kept or dropped when
    /// its round is decided. A finished step may be dropped later, in news of its own.
    Step {
        /// Which of the independent trees of a strategy (DVTS) it is in; 0 with one tree.
        tree: usize,
        /// The step. Its ids count within its tree, until the trees are merged.
        node: &'a Node,
    },
    /// A solution: whole solutions as soon as they are written and scored, those of a step search when
    /// the search ends. Its answer is read at the end.
    Solution(&'a Solution),
}

impl<'a, P: Policy, R: Prm> Search<'a, P, R> {
    /// The same search, whose news `watch` sees.
    pub fn watched(self, watch: &'a dyn Fn(News<'_>)) -> Search<'a, P, R> {
        Search {
            watch: Some(watch),
            ..self
        }
    }

    /// Tells the news of a node of the trace.
    pub(super) fn report(&self, node: usize) {
        if let Some(watch) = self.watch {
            let node = &self.trace.borrow().nodes[node];
            let tree = self.tree;
            watch(News::Step { tree, node });
        }
    }

    /// Tells the news of a solution.
    pub(crate) fn report_solution(&self, solution: &Solution) {
        if let Some(watch) = self.watch {
            self.solutions_reported.set(true);
            watch(News::Solution(solution));
        }
    }
}
