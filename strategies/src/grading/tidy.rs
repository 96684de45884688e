//! What a group of nodes becomes once all of it is there.

use super::latex::Node;

/// Space has a meaning only beside numbers, letters and words: "3 1/2", "no solution", "3 R 2".
pub(super) fn without_idle_space(nodes: Vec<Node>) -> Vec<Node> {
    let text = |n: &Node| match n {
        Node::Char(c) => c.is_alphabetic(),
        node => matches!(node, Node::Number(_) | Node::Word(_)),
    };
    let ends = |n: &Node| match n {
        Node::Char(c) => ")]!%'".contains(*c),
        node => matches!(node, Node::Group(_) | Node::Command(_)),
    };
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut space = false;
    for node in nodes {
        if node == Node::Space {
            space = true;
            continue;
        }
        if let Some(last) = kept.last().filter(|_| space)
            && ((text(last) && text(&node)) || (ends(last) && matches!(node, Node::Word(_))))
        {
            kept.push(Node::Space);
        }
        space = false;
        match node {
            // x^{\prime\prime} is x''
            Node::Char('\'') if kept.last() == Some(&Node::Char('^')) => {
                kept.pop();
                kept.push(node);
            }
            Node::Group(ref inner)
                if kept.last() == Some(&Node::Char('^'))
                    && !inner.is_empty()
                    && inner.iter().all(|n| *n == Node::Char('\'')) =>
            {
                kept.pop();
                kept.extend(inner.iter().cloned());
            }
            node => kept.push(node),
        }
    }
    kept
}

/// `a \over b` as `\frac{a}{b}`, and `n \choose k` as `\binom{n}{k}`.
pub(super) fn fractions_of_tex(mut nodes: Vec<Node>) -> Vec<Node> {
    for (tex, command) in [("over", "frac"), ("choose", "binom")] {
        if let Some(at) = nodes.iter().position(|n| n.is(tex)) {
            let below = nodes.split_off(at + 1);
            nodes.pop();
            return vec![
                Node::Command(command.into()),
                Node::Group(nodes),
                Node::Group(below),
            ];
        }
    }
    nodes
}
