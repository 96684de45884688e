//! Choices: the letter of an option before its answer, as in `\textbf{(C)}\ 24`, "C. 24".

use super::latex::Node;

/// The letter of an option and the answer that follows it.
pub(super) fn choice(nodes: &[Node]) -> Option<(char, &[Node])> {
    let letter = |node: &Node| {
        let letter = match node {
            Node::Char(c) => *c,
            Node::Word(word) if word.len() == 1 => word.chars().next()?,
            _ => return None,
        };
        ('A'..='J').contains(&letter).then_some(letter)
    };
    let skip = |nodes: &[Node]| usize::from(nodes.first() == Some(&Node::Space));
    let at = skip(nodes);
    let (letter, mut rest) = match &nodes[at..] {
        [Node::Char('('), option, Node::Char(')'), rest @ ..] => (letter(option)?, rest),
        [option, Node::Char('.' | ')'), rest @ ..] => (letter(option)?, rest),
        // \textbf{C:} 24, but A:B is a ratio
        [option @ Node::Word(_), Node::Char(':'), rest @ ..]
        | [
            option @ Node::Word(_),
            Node::Space,
            Node::Char(':'),
            rest @ ..,
        ] => (letter(option)?, rest),
        _ => return None,
    };
    while let [Node::Space | Node::Char('.' | ':'), more @ ..] = rest {
        rest = more;
    }
    // in text a letter is an option; elsewhere (C) may be a factor
    let text = nodes.iter().take(3).any(|n| matches!(n, Node::Word(_)));
    let operator = match rest {
        [] | [Node::Char('+' | '*' | '/' | '=' | '^' | '_' | ','), ..] => true,
        [Node::Char('(' | '-'), ..] => !text,
        _ => false,
    };
    (!operator).then_some((letter, rest))
}
