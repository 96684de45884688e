//! Digits and the base they are in: `204_5`, `FACE_{16}`, "4210 (base 5)".

use super::latex::Node;

/// The number as text, its digits with their base.
pub(super) fn based_number(nodes: &[Node]) -> Option<String> {
    let (core, base) = digits_and_base(nodes)?;
    let core = match core {
        [Node::Char('('), inner @ .., Node::Char(')')] => inner,
        core => core,
    };
    let (mut negative, mut digits, mut letters) = (false, String::new(), 0);
    for node in core {
        match node {
            Node::Number(part) if !part.contains('.') => digits += part,
            Node::Char('-') if digits.is_empty() && !negative => negative = true,
            Node::Space if !digits.is_empty() => {}
            Node::Char(c) if c.is_ascii_alphabetic() => {
                digits.push(*c);
                letters += 1;
            }
            Node::Word(word) if word.chars().all(|c| c.is_ascii_alphabetic()) => {
                digits += word;
                letters += word.len();
            }
            _ => return None,
        }
    }
    // small letters are digits in hexadecimal only: 2a_{11} is a term of a sequence
    let small = digits.contains(|c: char| c.is_ascii_lowercase());
    let has_digit = letters < digits.len() || letters >= 2;
    let fits = digits.chars().all(|c| c.is_digit(base)) && (!small || base == 16);
    if !has_digit || !fits || digits.is_empty() {
        return None;
    }
    let digits = match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let sign = if negative { "-" } else { "" };
    Some(format!("{sign}{}_{base}", digits.to_uppercase()))
}

/// The digits, and the base that an index or words give.
fn digits_and_base(nodes: &[Node]) -> Option<(&[Node], u32)> {
    match nodes {
        [core @ .., Node::Char('_'), Node::Group(inner)] => match inner.as_slice() {
            [base] => Some((core, base_of(base)?)),
            [word, Node::Space, base] if word.says("base") => Some((core, base_of(base)?)),
            _ => None,
        },
        [core @ .., Node::Char('_'), base] => Some((core, base_of(base)?)),
        [
            core @ ..,
            Node::Char('('),
            word,
            Node::Space,
            base,
            Node::Char(')'),
        ]
        | [core @ .., Node::Space, word, Node::Space, base]
            if word.says("base") =>
        {
            let core = match core {
                [core @ .., Node::Space] => core,
                core => core,
            };
            let core = match core {
                [core @ .., Node::Space, word] if word.says("in") => core,
                [core @ .., Node::Space, Node::Char('i'), Node::Char('n')] => core,
                core => core,
            };
            Some((core, base_of(base)?))
        }
        _ => None,
    }
}

fn base_of(node: &Node) -> Option<u32> {
    const WORDS: [&str; 11] = [
        "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    ];
    let base = match node {
        Node::Number(digits) => digits.parse().ok()?,
        Node::Word(word) if word == "sixteen" => 16,
        Node::Word(word) => 2 + WORDS.iter().position(|w| w == word)? as u32,
        _ => return None,
    };
    (2..=36).contains(&base).then_some(base)
}
