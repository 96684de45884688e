//! What the Qwen2.5-Math grader accepts beyond `strict` in texts (SEMANTICS.md, "Answers and
//! grading"): where a solution's answer is, and which differences in wording are ignored.

use super::answer::Answer;
use super::extract::last_boxed;

/// The answer of a solution, in this order: `final answer is $...$. I hope`, the last `\boxed{}`,
/// whether or not it is closed, the text after "the answer is" or "final answer is", the last
/// number.
pub(super) fn answer(solution: &str) -> Option<String> {
    let hoped = || {
        let (_, rest) = solution.split_once("final answer is $")?;
        Some(rest.split_once("$. I hope")?.0)
    };
    let cut = || Some(solution.rsplit_once("\\boxed{")?.1);
    let stated = |words: &str| {
        let (_, rest) = solution.rsplit_once(words)?;
        let line = rest.lines().next().unwrap_or_default();
        let end = line.find(". ").unwrap_or(line.len());
        Some(line[..end].trim_matches(|c: char| c.is_whitespace() || ":.$".contains(c)))
    };
    (hoped().or_else(|| last_boxed(solution)).or_else(cut))
        .or_else(|| stated("he answer is"))
        .or_else(|| stated("final answer is"))
        .map(str::trim)
        .filter(|answer| !answer.is_empty())
        .map(String::from)
        .or_else(|| last_number(solution))
}

/// The last number of a text, its thousands separators left out.
fn last_number(text: &str) -> Option<String> {
    let text: Vec<char> = text.chars().filter(|c| *c != ',').collect();
    let digit = |at: usize| text.get(at).is_some_and(char::is_ascii_digit);
    let end = text.iter().rposition(char::is_ascii_digit)? + 1;
    let mut start = end;
    while start > 0
        && (digit(start - 1) || (text[start - 1] == '.' && !text[start..end].contains(&'.')))
    {
        start -= 1;
    }
    if start > 0 && text[start - 1] == '-' {
        start -= 1;
    }
    Some(text[start..end].iter().collect())
}

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
        let product = !x.key.contains(|c: char| c.is_ascii_digit());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_without_a_box() {
        let cases = [
            ("so \\boxed{5} and 6", Some("5")),
            (
                "The final answer is $\\frac12$. I hope it is correct.",
                Some("\\frac12"),
            ),
            (
                "Then \\boxed{3}. The final answer is $4$. I hope it is correct.",
                Some("4"),
            ),
            ("Thus the answer is 12. Done", Some("12")),
            ("The answer is: $3x$", Some("3x")),
            ("we get 1,234 apples", Some("1234")),
            ("cut at -2.5", Some("-2.5")),
            ("costs 12.", Some("12")),
            ("\\boxed{7x", Some("7x")),
            ("\\boxed{", None),
            ("My final answer is 9.", Some("9")),
            ("no idea", None),
            ("", None),
        ];
        for (solution, want) in cases {
            assert_eq!(answer(solution).as_deref(), want, "in {solution:?}");
        }
    }
}
