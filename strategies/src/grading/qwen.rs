//! What the Qwen2.5-Math grader accepts beyond `strict` in texts (SEMANTICS.md, "Answers and
//! grading"): which differences in wording are ignored.

use super::answer::Answer;

/// Words of small numbers.
const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// An answer with number words as numbers and j, after a digit or a sign, as i.
pub(super) fn simplified(answer: &str) -> String {
    let word = answer.trim().to_lowercase();
    let word = word
        .strip_prefix("\\text{")
        .and_then(|w| w.strip_suffix('}'))
        .unwrap_or(&word);
    if let Some(number) = NUMBERS.iter().position(|n| *n == word.trim()) {
        return number.to_string();
    }
    let chars: Vec<char> = answer.chars().collect();
    let letter = |at: Option<&char>| at.is_some_and(|c| c.is_alphabetic() || *c == '\\');
    (chars.iter().enumerate())
        .map(|(at, c)| {
            let before = at.checked_sub(1).and_then(|at| chars.get(at));
            let alone = before.is_some_and(|c| c.is_ascii_digit() || "+- ".contains(*c));
            if *c == 'j' && alone && !letter(chars.get(at + 1)) {
                'i'
            } else {
                *c
            }
        })
        .collect()
}

/// Whether the texts are equal but for case, brackets and space, or one is a choice letter that
/// the other names last.
pub(super) fn same_text(a: &Answer, b: &Answer) -> bool {
    let bare = |x: &Answer| {
        // AB is a name and ab a product
        let product = !x.key.contains(|c: char| c.is_ascii_digit()) && !x.key.ends_with('*');
        let kept = (x.key.chars()).filter(|c| !("{}()[] ".contains(*c) || (*c == '*' && product)));
        kept.collect::<String>().to_lowercase()
    };
    if a.choice.zip(b.choice).is_some_and(|(a, b)| a != b) {
        return false;
    }
    let (bare_a, bare_b) = (bare(a), bare(b));
    let letter = |x: &Answer| match x.key.as_bytes() {
        [letter @ b'A'..=b'E'] => Some(*letter as char),
        _ => None,
    };
    let named = |x: &Answer| {
        let words = x.key.split(|c: char| !c.is_alphanumeric());
        let mut letters = words.rev().filter_map(|word| match word.as_bytes() {
            [letter @ (b'A'..=b'E' | b'a'..=b'e')] => Some(letter.to_ascii_uppercase() as char),
            _ => None,
        });
        letters.next()
    };
    (bare_a == bare_b && !bare_a.is_empty())
        || letter(a).is_some_and(|letter| named(b) == Some(letter))
        || letter(b).is_some_and(|letter| named(a) == Some(letter))
}
