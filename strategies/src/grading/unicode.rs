//! Characters outside of ASCII, and those that LaTeX has commands for.

use super::latex::Node;

/// Full-width forms, as Chinese and Japanese keyboards write them, and their ASCII.
pub(super) fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        '\u{3000}' | '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{205f}' => ' ',
        '、' => ',',
        '。' => '.',
        '【' | '〔' => '[',
        '】' | '〕' => ']',
        '“' | '”' => '"',
        '‘' | '’' => '\'',
        _ => c,
    }
}

/// Greek letters with the names of their commands.
const GREEK: [(char, &str); 33] = [
    ('α', "alpha"),
    ('β', "beta"),
    ('γ', "gamma"),
    ('δ', "delta"),
    ('ε', "epsilon"),
    ('ζ', "zeta"),
    ('η', "eta"),
    ('θ', "theta"),
    ('ι', "iota"),
    ('κ', "kappa"),
    ('λ', "lambda"),
    ('μ', "mu"),
    ('µ', "mu"),
    ('ν', "nu"),
    ('ξ', "xi"),
    ('π', "pi"),
    ('ρ', "rho"),
    ('σ', "sigma"),
    ('τ', "tau"),
    ('υ', "upsilon"),
    ('φ', "phi"),
    ('ϕ', "phi"),
    ('χ', "chi"),
    ('ψ', "psi"),
    ('ω', "omega"),
    ('Γ', "Gamma"),
    ('Δ', "Delta"),
    ('Θ', "Theta"),
    ('Λ', "Lambda"),
    ('Π', "Pi"),
    ('Σ', "Sigma"),
    ('Φ', "Phi"),
    ('Ω', "Omega"),
];

/// Signs with the names of their commands.
const SIGNS: [(char, &str); 38] = [
    ('√', "sqrt"),
    ('∞', "infty"),
    ('±', "pm"),
    ('∓', "mp"),
    ('≤', "leq"),
    ('≦', "leq"),
    ('⩽', "leq"),
    ('≥', "geq"),
    ('≧', "geq"),
    ('⩾', "geq"),
    ('≠', "neq"),
    ('≈', "approx"),
    ('≃', "approx"),
    ('≅', "cong"),
    ('≡', "equiv"),
    ('∅', "emptyset"),
    ('∪', "cup"),
    ('∩', "cap"),
    ('∈', "in"),
    ('∖', "setminus"),
    ('∧', "wedge"),
    ('∨', "vee"),
    ('∘', "circ"),
    ('∠', "angle"),
    ('△', "triangle"),
    ('→', "to"),
    ('↦', "mapsto"),
    ('…', "ldots"),
    ('⋯', "ldots"),
    ('⌊', "lfloor"),
    ('⌋', "rfloor"),
    ('⌈', "lceil"),
    ('⌉', "rceil"),
    ('∥', "|"),
    ('⊥', "perp"),
    ('∑', "sum"),
    ('∫', "int"),
    ('ℓ', "ell"),
];

/// Fractions of one character: the character, above and below the line.
const FRACTIONS: [(char, u8, u8); 18] = [
    ('½', 1, 2),
    ('⅓', 1, 3),
    ('⅔', 2, 3),
    ('¼', 1, 4),
    ('¾', 3, 4),
    ('⅕', 1, 5),
    ('⅖', 2, 5),
    ('⅗', 3, 5),
    ('⅘', 4, 5),
    ('⅙', 1, 6),
    ('⅚', 5, 6),
    ('⅐', 1, 7),
    ('⅛', 1, 8),
    ('⅜', 3, 8),
    ('⅝', 5, 8),
    ('⅞', 7, 8),
    ('⅑', 1, 9),
    ('⅒', 1, 10),
];

/// Raised characters, and what they raise.
const RAISED: &str = "⁰0¹1²2³3⁴4⁵5⁶6⁷7⁸8⁹9⁺+⁻-⁽(⁾)ⁿnⁱi";

/// Lowered characters.
const LOWERED: &str = "₀0₁1₂2₃3₄4₅5₆6₇7₈8₉9₊+₋-ₙnᵢiₖk";

fn paired(table: &str, c: char) -> Option<char> {
    let chars: Vec<char> = table.chars().collect();
    let pair = chars.chunks(2).find(|pair| pair[0] == c)?;
    pair.get(1).copied()
}

/// The nodes of a character; `before` are the nodes so far, whose last index or power it may
/// extend.
pub(super) fn nodes(c: char, before: &mut Vec<Node>) -> Vec<Node> {
    let command = |name: &str| Node::Command(name.into());
    let number = |n: u8| Node::Number(n.to_string());
    match c {
        '"' => return vec![Node::Char('\''), Node::Char('\'')],
        c if c.is_ascii() => return vec![Node::Char(c)],
        _ => {}
    }
    let named = GREEK.iter().chain(&SIGNS).find(|(sign, _)| *sign == c);
    if let Some((_, name)) = named {
        return vec![command(name)];
    }
    if let Some((_, top, bottom)) = FRACTIONS.iter().find(|(sign, ..)| *sign == c) {
        let part = |n: u8| Node::Group(vec![number(n)]);
        return vec![command("frac"), part(*top), part(*bottom)];
    }
    for (table, sign) in [(RAISED, '^'), (LOWERED, '_')] {
        if let Some(raised) = paired(table, c) {
            return moved(sign, raised, before);
        }
    }
    let root = |index: u8| {
        let close = [Node::Char('['), number(index), Node::Char(']')];
        std::iter::once(command("sqrt")).chain(close).collect()
    };
    let blackboard = |c: char| vec![command("mathbb"), Node::Group(vec![Node::Char(c)])];
    match c {
        '−' | '–' | '‐' | '‑' | '﹣' => vec![Node::Char('-')],
        '×' | '·' | '⋅' | '∗' | '∙' | '•' => vec![Node::Char('*')],
        '÷' | '⁄' | '∕' => vec![Node::Char('/')],
        '∶' => vec![Node::Char(':')],
        '∣' => vec![Node::Char('|')],
        '⟨' | '〈' => vec![Node::Char('(')],
        '⟩' | '〉' => vec![Node::Char(')')],
        '∛' => root(3),
        '∜' => root(4),
        '′' => vec![Node::Char('\'')],
        '″' => vec![Node::Char('\''), Node::Char('\'')],
        'ℝ' => blackboard('R'),
        'ℤ' => blackboard('Z'),
        'ℕ' => blackboard('N'),
        'ℚ' => blackboard('Q'),
        'ℂ' => blackboard('C'),
        '°' => vec![Node::Char('^'), command("circ")],
        '℃' => vec![Node::Char('^'), command("circ"), Node::Char('C')],
        '℉' => vec![Node::Char('^'), command("circ"), Node::Char('F')],
        '✓' | '✔' | '\u{200b}' | '\u{feff}' | '\u{2061}' | '\u{2062}' => Vec::new(),
        c => vec![Node::Char(c)],
    }
}

/// A raised or lowered character: one more of the power or index before it, or a new one.
fn moved(sign: char, c: char, before: &mut Vec<Node>) -> Vec<Node> {
    let node = |c: char| match c {
        '0'..='9' => Node::Number(c.into()),
        c => Node::Char(c),
    };
    if let [.., Node::Char(last), Node::Group(group)] = before.as_mut_slice()
        && *last == sign
        && group
            .iter()
            .all(|n| matches!(n, Node::Number(_) | Node::Char(_)))
    {
        match (group.last_mut(), c) {
            (Some(Node::Number(digits)), '0'..='9') => digits.push(c),
            _ => group.push(node(c)),
        }
        return Vec::new();
    }
    vec![Node::Char(sign), Node::Group(vec![node(c)])]
}
