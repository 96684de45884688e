//! Which commands and words are functions, letters and names.

use super::latex::Node;

pub(super) const FUNCTIONS: [&str; 26] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "sinh",
    "cosh", "tanh", "ln", "log", "exp", "arg", "gcd", "lcm", "max", "min", "Re", "Im", "det",
    "cis", "lg",
];

/// Fonts and accents that make a name with their argument.
pub(super) const DECORATIONS: [&str; 16] = [
    "overline",
    "bar",
    "vec",
    "hat",
    "tilde",
    "widehat",
    "mathbb",
    "mathcal",
    "mathbf",
    "mathfrak",
    "mathscr",
    "overleftarrow",
    "widetilde",
    "ddot",
    "check",
    "dot",
];

/// Commands that are names.
pub(super) const LETTERS: [&str; 46] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "infty",
    "ell",
    "hbar",
    "emptyset",
    "varnothing",
    "aleph",
    "Upsilon",
    "imath",
    "jmath",
    "Re",
    "nabla",
];

/// Whether a word is the name of a number: one letter, or capitals such as AB.
pub(super) fn is_name(word: &str) -> bool {
    word.chars().count() == 1 || word.chars().all(char::is_uppercase)
}

/// The command of a function such as `\sin`.
pub(super) fn is_function(node: &Node) -> bool {
    matches!(node, Node::Command(name) if FUNCTIONS.contains(&name.as_str()))
}

/// `\circ`, in braces or not.
pub(super) fn is_circ(node: &Node) -> bool {
    match node {
        Node::Command(name) => name == "circ",
        Node::Group(inner) => matches!(inner.as_slice(), [Node::Command(c)] if c == "circ"),
        _ => false,
    }
}

/// An index or the argument of an accent, if it is letters, digits, commas and signs.
pub(super) fn plain_text(node: &Node) -> Option<String> {
    match node {
        Node::Number(digits) => Some(digits.clone()),
        Node::Char(c) if c.is_alphanumeric() || ",+-".contains(*c) => Some(c.to_string()),
        Node::Command(name) if LETTERS.contains(&name.as_str()) => Some(format!("\\{name}")),
        Node::Word(text) => Some(text.clone()),
        Node::Space => Some(String::new()),
        Node::Group(inner) => inner.iter().map(plain_text).collect(),
        _ => None,
    }
}
