//! Labels: what stands before `=` and may be left out, such as `x`, `f(x)`, `P(A\cap B)`, "area".

use super::answer::trimmed;
use super::latex::Node;
use super::text;

/// The label that one side of an equation is, in a form that does not depend on its spelling: a
/// symbol, a function of symbols, a segment, an angle, words.
pub(super) fn label(nodes: &[Node]) -> Option<String> {
    let nodes = flat(trimmed(nodes));
    if let Some(words) = text::as_words(&nodes) {
        return Some(words);
    }
    if matches!(nodes.as_slice(), [Node::Char('e' | 'i')]) {
        return None;
    }
    let nodes: Vec<Node> = nodes.into_iter().filter(|n| *n != Node::Space).collect();
    name(&nodes).map(|()| nodes.iter().map(text::of).collect())
}

/// The nodes without braces that group nothing but a bracket: f{(x)} is f(x), as sympy prints it.
fn flat(nodes: &[Node]) -> Vec<Node> {
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::Group(inner)
                if matches!(inner.as_slice(), [Node::Char('('), .., Node::Char(')')]) =>
            {
                out.extend(inner.iter().cloned());
            }
            node => out.push(node.clone()),
        }
    }
    out
}

/// Whether the nodes are a name: `x`, `x_1`, `f'(x)`, `f^{-1}(x)`, `(f\circ g)(x)`, `AB`,
/// `m\angle B`, `P(A\cap B)`.
fn name(nodes: &[Node]) -> Option<()> {
    let mut rest = nodes;
    // m\angle B, \triangle ABC
    let mut sign = false;
    while let [Node::Command(name), more @ ..] = rest
        && matches!(
            name.as_str(),
            "angle" | "triangle" | "overline" | "vec" | "widehat" | "bar"
        )
    {
        (sign, rest) = (true, more);
    }
    if let [Node::Char('m'), Node::Command(angle), more @ ..] = rest
        && angle == "angle"
    {
        (sign, rest) = (true, more);
    }
    rest = match rest {
        [Node::Char('('), f, circ, g, Node::Char(')'), more @ ..]
            if circ.is("circ") && is_symbol(f) && is_symbol(g) =>
        {
            (!more.is_empty()).then_some(more)?
        }
        [Node::Group(inner), more @ ..] if sign && inner.iter().all(is_symbol) => more,
        [first, more @ ..] if is_symbol(first) || is_capitals(first) => more,
        _ => return None,
    };
    if sign {
        // \angle ABC, in letters of its own
        while let [Node::Char(c), more @ ..] = rest
            && c.is_uppercase()
        {
            rest = more;
        }
    }
    loop {
        rest = match rest {
            [] => return Some(()),
            [Node::Char('\''), more @ ..] => more,
            [Node::Char('_'), _, more @ ..] => more,
            [Node::Char('^'), Node::Group(inverse), more @ ..]
                if matches!(
                    inverse.as_slice(),
                    [Node::Char('-'), Node::Number(one)] if one == "1"
                ) && more.first() == Some(&Node::Char('(')) =>
            {
                more
            }
            [Node::Char('^'), Node::Char('*'), more @ ..] => more,
            [Node::Char('('), inner @ .., Node::Char(')')] if is_arguments(inner) => {
                return Some(());
            }
            _ => return None,
        };
    }
}

/// Whether the content of brackets is what a function or a probability is of.
fn is_arguments(nodes: &[Node]) -> bool {
    let event = |n: &Node| {
        matches!(n, Node::Command(name) if matches!(name.as_str(), "cap" | "cup" | "mid"))
            || matches!(n, Node::Char(',' | '|' | '\'') | Node::Space)
    };
    !nodes.is_empty()
        && nodes
            .iter()
            .all(|n| is_symbol(n) || is_capitals(n) || event(n))
        && nodes.iter().any(|n| !event(n))
}

fn is_capitals(node: &Node) -> bool {
    matches!(node, Node::Word(word) if word.chars().all(char::is_uppercase))
}

/// A letter, or a command for one.
pub(super) fn is_symbol(node: &Node) -> bool {
    const GREEK: [&str; 20] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "rho", "sigma",
        "tau", "phi", "varphi", "omega", "Delta", "ell", "psi", "nu", "xi", "eta",
    ];
    match node {
        Node::Char(c) => c.is_alphabetic(),
        Node::Word(word) => word.chars().count() == 1,
        Node::Command(name) => GREEK.contains(&name.as_str()),
        _ => false,
    }
}
