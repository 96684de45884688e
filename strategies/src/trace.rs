//! The search tree as data: every step that was written, and its fate.

use serde::{Deserialize, Serialize};

/// The tree of one problem. Node 0 is the stem; a child comes after its parent, and siblings
/// stand in the order of their branches, so equal searches give equal traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// All nodes; a node's id is its index.
    pub nodes: Vec<Node>,
}

/// One step in the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Index in [`Trace::nodes`].
    pub id: usize,
    /// The step before; `None` for the stem.
    pub parent: Option<usize>,
    /// Steps from the stem.
    pub depth: usize,
    /// The step, trimmed.
    pub text: String,
    /// The PRM's score of this step, of what is written of it if it was rejected; `None` where it was not
    /// scored.
    pub reward: Option<f64>,
    /// The value by which the search ranked it: the aggregated scores of its path, those of the
    /// steps looked ahead included.
    pub value: Option<f64>,
    /// Policy tokens written for it. A solution written in one call counts them on its last
    /// step.
    #[serde(alias = "tokens")]
    pub num_tokens: usize,
    /// Policy tokens written beyond it to look ahead, or by probes of it, then thrown away.
    pub lookahead_tokens: usize,
    /// Its fate.
    pub state: NodeState,
    /// Whether it is on the path whose answer was given.
    pub chosen: bool,
}

/// The fate of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Kept, and the search went on from it.
    Kept,
    /// Scored, and others were better.
    Dropped,
    /// Begun and scored, and not completed, as others were better.
    Rejected,
    /// Ends a solution: end of sequence or an answer.
    Finished,
    /// Has the text of an earlier sibling.
    Duplicate,
    /// Hit the token limit.
    LengthCut,
    /// Wrote nothing but a delimiter.
    Empty,
    /// Kept, but nothing could follow: the step limit, or no try gave a valid step.
    Stopped,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}

impl Trace {
    /// A tree that is only its stem.
    pub fn new() -> Trace {
        let stem = Node {
            id: 0,
            parent: None,
            depth: 0,
            text: String::new(),
            reward: None,
            value: None,
            num_tokens: 0,
            lookahead_tokens: 0,
            state: NodeState::Kept,
            chosen: false,
        };
        Trace { nodes: vec![stem] }
    }

    /// Adds a child of `parent`; id, parent and depth are set here.
    pub(crate) fn add(&mut self, parent: usize, node: Node) -> usize {
        let id = self.nodes.len();
        let depth = self.nodes[parent].depth + 1;
        self.nodes.push(Node {
            id,
            parent: Some(parent),
            depth,
            ..node
        });
        id
    }

    /// Moves another tree of the same stem below this one; returns what to add to its ids.
    pub(crate) fn graft(&mut self, tree: Trace) -> usize {
        let shift = self.nodes.len() - 1;
        let moved = |id: usize| if id == 0 { 0 } else { id + shift };
        self.nodes
            .extend(tree.nodes.into_iter().skip(1).map(|node| Node {
                id: moved(node.id),
                parent: node.parent.map(moved),
                ..node
            }));
        shift
    }

    /// Flags the path from the stem to `node`.
    pub(crate) fn choose(&mut self, node: usize) {
        let mut next = Some(node);
        while let Some(id) = next {
            self.nodes[id].chosen = true;
            next = self.nodes[id].parent;
        }
    }

    /// All policy tokens written in this tree.
    pub fn num_tokens(&self) -> usize {
        self.nodes
            .iter()
            .map(|n| n.num_tokens + n.lookahead_tokens)
            .sum()
    }
}

impl Node {
    /// A node that [`Trace::add`] will place.
    pub(crate) fn new(text: String, num_tokens: usize, state: NodeState) -> Node {
        Node {
            id: 0,
            parent: None,
            depth: 0,
            text,
            reward: None,
            value: None,
            num_tokens,
            lookahead_tokens: 0,
            state,
            chosen: false,
        }
    }
}
