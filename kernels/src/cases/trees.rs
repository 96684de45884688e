//! The trees that attention is tested over.

/// One sequence of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct TreeNode {
    /// The sequence whose whole block table its own begins with.
    pub parent: Option<usize>,
    /// Number of its own tokens, in blocks of its own. A parent's last block is not filled further.
    pub tokens: usize,
    /// How many of them, the last ones, are rows of the batch.
    pub rows: usize,
}

/// A batch over a forest of sequences.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its name in messages.
    pub name: &'static str,
    /// Parents before children.
    pub nodes: Vec<TreeNode>,
}

/// All trees to test.
pub fn trees() -> Vec<Tree> {
    let node = |parent, tokens, rows| TreeNode {
        parent,
        tokens,
        rows,
    };
    let mut trees = vec![
        Tree {
            name: "one token",
            nodes: vec![node(None, 1, 1)],
        },
        Tree {
            name: "a prefill of one",
            nodes: vec![node(None, 37, 37)],
        },
        Tree {
            name: "a chunk after a prefix, at block boundaries",
            nodes: vec![node(None, 64, 32)],
        },
        Tree {
            name: "a decode row just past a block",
            nodes: vec![node(None, 33, 1)],
        },
        Tree {
            name: "siblings below a full stem",
            nodes: std::iter::once(node(None, 32, 0))
                .chain((0..7).map(|i| node(Some(0), 1 + 5 * i, 1)))
                .collect(),
        },
        Tree {
            name: "siblings below a sealed tail, one still at the stem",
            nodes: vec![
                node(None, 21, 1),
                node(Some(0), 1, 1),
                node(Some(0), 16, 2),
                node(Some(0), 40, 1),
            ],
        },
        Tree {
            name: "strangers",
            nodes: vec![node(None, 3, 1), node(None, 50, 1), node(None, 17, 9)],
        },
        Tree {
            name: "decode beside prefill of a forest",
            nodes: vec![
                node(None, 18, 0),
                node(Some(0), 30, 30),
                node(Some(0), 2, 1),
                node(Some(1), 5, 2),
                node(Some(1), 1, 1),
                node(None, 19, 19),
            ],
        },
    ];
    trees.push(Tree {
        name: "deep",
        nodes: (0..12)
            .map(|i: usize| node(i.checked_sub(1), 1 + i * 7 % 19, 1))
            .collect(),
    });
    trees.push(Tree {
        name: "wide",
        nodes: std::iter::once(node(None, 70, 0))
            .chain((0..40).map(|i| node(Some(0), 1 + i % 3, 1)))
            .collect(),
    });
    trees
}
