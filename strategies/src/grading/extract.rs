//! The answer in a solution.

/// The content of the last `\boxed{...}` whose braces are closed, trimmed; `None` when there is
/// none or it is empty. Escaped braces (`\{`) do not count. Of nested boxes the innermost last
/// one is read, so `\boxed{\boxed{5}}` gives `5`.
pub fn last_boxed(solution: &str) -> Option<&str> {
    const COMMAND: &str = "\\boxed";
    let mut last: Option<(usize, usize)> = None; // the content of the last closed box
    let mut open: Vec<Option<usize>> = Vec::new(); // open braces; for a box, where it starts
    let mut at = 0;
    while let Some(c) = solution[at..].chars().next() {
        let rest = &solution[at..];
        let inside = rest.strip_prefix(COMMAND).map(str::trim_start);
        if let Some(inside) = inside.and_then(|inside| inside.strip_prefix('{')) {
            at = solution.len() - inside.len();
            open.push(Some(at));
            continue;
        }
        match c {
            '\\' => at += rest.chars().nth(1).map_or(0, char::len_utf8), // skip what is escaped
            '{' => open.push(None),
            '}' => {
                let closed = open.pop().flatten().map(|start| (start, at));
                last = last.max(closed);
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    let (start, end) = last?;
    Some(solution[start..end].trim()).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extraction_table() {
        let cases = [
            ("", None),
            ("the answer is 5", None),
            (r"so \boxed{5}.", Some("5")),
            (r"so \boxed {5}.", Some("5")),
            (r"\boxed{ 5 }", Some("5")),
            (r"\boxed{}", None),
            (r"\boxed{ }", None),
            (r"\boxed5", None),
            (r"\boxed{1} then \boxed{2}", Some("2")),
            (r"\boxed{\frac{1}{2}}", Some(r"\frac{1}{2}")),
            (r"\boxed{\text{a {b} c}} x}", Some(r"\text{a {b} c}")),
            (r"\boxed{\{1,2\}}", Some(r"\{1,2\}")),
            (r"\boxed{\left\{ x \right\}}", Some(r"\left\{ x \right\}")),
            (r"\boxed{1, \} 2}", Some(r"1, \} 2")),
            (r"\boxed{\boxed{5}}", Some("5")),
            (r"\boxed{x=\boxed{5}}", Some("5")),
            (r"\boxed{1} and cut \boxed{2", Some("1")),
            (r"\boxed{1} and cut \boxed", Some("1")),
            (r"\boxed{2", None),
            (r"\fbox{3}", None),
            (r"\boxed{a\\b}", Some(r"a\\b")),
            (r"} { \boxed{5} {", Some("5")),
            (r"\boxed{5 and \boxed{6} and {", Some("6")),
            (r"\boxed{é}", Some("é")),
        ];
        for (solution, want) in cases {
            assert_eq!(last_boxed(solution), want, "in {solution:?}");
        }
    }

    #[test]
    fn many_open_boxes_are_no_answer() {
        // quadratic time would show as a test that takes minutes
        assert_eq!(last_boxed(&"\\boxed{".repeat(200_000)), None);
    }
}
