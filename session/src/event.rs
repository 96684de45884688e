//! What a job says while it runs.

use strategies::{News, Node, Solution};

/// One piece of news of a job.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Text of a generation that has become final.
    Text(String),
    /// A step of a search whose state is known: kept, dropped, finished or refused, with its score.
    /// A finished step may be dropped later, in an event of its own.
    Step {
        /// Which of the independent trees of a strategy (DVTS) it is in; 0 with one tree.
        tree: usize,
        /// The step. Its ids count within its tree.
        node: Node,
    },
    /// A solution, in the order of finishing. Its answer and its node in the tree are set when the search
    /// ends.
    Solution(Solution),
}

impl From<News<'_>> for Event {
    fn from(news: News<'_>) -> Event {
        match news {
            News::Step { tree, node } => Event::Step {
                tree,
                node: node.clone(),
            },
            News::Solution(solution) => Event::Solution(solution.clone()),
        }
    }
}
