//! Numbers as people write them: separators of thousands, scientific notation.

use super::latex::{Node, Parser};

/// Separators of thousands, and whether each can be nothing else. A plain comma may also part a
/// list, and does so inside of brackets.
const SEPARATORS: [(&str, bool); 5] = [
    (",\\!", true),
    ("{,}", true),
    ("\\,", true),
    ("\\!", true),
    (",", false),
];

/// A whole number with its separators of thousands, or a decimal.
pub(super) fn number(parser: &mut Parser) -> Node {
    let start = parser.at;
    let mut digits = String::new();
    take_digits(parser, &mut digits);
    let whole = digits.len();
    let grouped = (1..=3).contains(&whole) && !digits.starts_with('0');
    if grouped && start >= parser.list_until {
        take_groups(parser, &mut digits);
    }
    // "5." is 5, unless the point begins the three of an ellipsis
    let point = parser.peek(0) == Some('.') && parser.peek(1) != Some('.');
    if point && (parser.digit(1) || whole > 0) {
        parser.at += 1;
        digits.push('.');
        take_digits(parser, &mut digits);
    }
    if parser.peek(0) == Some(',') && parser.digit(1) {
        // 1.5,200,300: these commas part a list
        parser.list_until = parser.list_until.max(end_of_list(parser));
    }
    Node::Number(digits)
}

fn take_digits(parser: &mut Parser, digits: &mut String) {
    while let Some(c) = parser.peek(0).filter(char::is_ascii_digit) {
        digits.push(c);
        parser.at += 1;
    }
}

/// The groups behind the first digits, if the whole number is grouped in threes.
fn take_groups(parser: &mut Parser, digits: &mut String) {
    let first = parser.at;
    let (mut groups, mut certain) = (Vec::new(), true);
    while let Some(length) = separator(parser) {
        certain &= length > 1; // 1{,}000,5 is 1000 and 5
        let start = parser.at + length;
        groups.push(start);
        parser.at = start + 3;
    }
    // what a comma and other digits follow is a list, not a number
    let list = parser.peek(0) == Some(',') && parser.digit(1) && !certain;
    if list || groups.is_empty() {
        parser.at = first;
        return;
    }
    for start in groups {
        digits.extend(&parser.chars[start..start + 3]);
    }
}

/// The length of a separator here, if exactly three digits follow it.
fn separator(parser: &Parser) -> Option<usize> {
    for (spelling, certain) in SEPARATORS {
        let mut end = parser.at;
        let here = spelling.chars().all(|c| {
            end += 1;
            parser.chars.get(end - 1) == Some(&c)
        });
        if !here || !(certain || parser.brackets == 0) {
            continue;
        }
        while spelling == ",\\!" && parser.chars.get(end) == Some(&' ') {
            end += 1;
        }
        let digit = |i: usize| parser.chars.get(end + i).is_some_and(char::is_ascii_digit);
        if digit(0) && digit(1) && digit(2) && !digit(3) {
            return Some(end - parser.at);
        }
    }
    None
}

/// Where a list of numbers ends whose elements plain commas part.
fn end_of_list(parser: &Parser) -> usize {
    let rest = &parser.chars[parser.at..];
    let list = rest
        .iter()
        .take_while(|c| c.is_ascii_digit() || ",.".contains(**c));
    parser.at + list.count()
}

/// The exponent after the digits of 1.5e-3: `e` and a sign make an exponent only after a point
/// or a lone 1, because 2e-3 may be a multiple of e less 3.
pub(super) fn exponent(parser: &mut Parser, mantissa: &str) -> Option<[Node; 4]> {
    let letter = parser.peek(0);
    let sign = parser.peek(1).filter(|c| "+-−".contains(*c));
    let start = 1 + usize::from(sign.is_some());
    let certain = letter == Some('E') || mantissa.contains('.') || mantissa == "1";
    if !matches!(letter, Some('e' | 'E')) || !parser.digit(start) || !(sign.is_none() || certain) {
        return None;
    }
    // 4E36_{16} is a number in base 16
    let rest = &parser.chars[parser.at..];
    let digits = rest.iter().take_while(|c| c.is_ascii_hexdigit()).count();
    if rest.get(digits) == Some(&'_') {
        return None;
    }
    parser.at += start;
    let mut exponent = String::new();
    take_digits(parser, &mut exponent);
    let mut power = vec![Node::Number(exponent)];
    if matches!(sign, Some('-' | '−')) {
        power.insert(0, Node::Char('-'));
    }
    Some([
        Node::Char('*'),
        Node::Number("10".into()),
        Node::Char('^'),
        Node::Group(power),
    ])
}
