//! Tables in Markdown, and putting them between markers.

use crate::Done;

/// A table; the first `words` columns are text, the others numbers.
pub fn table(header: &[String], words: usize, rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = (0..header.len())
        .map(|i| if i < words { "---" } else { "---:" }.to_string())
        .collect();
    let mut out = line(header) + &line(&rule);
    for row in rows {
        out += &line(row);
    }
    out
}

/// The document with `text` between the lines `<!-- name:begin -->` and `<!-- name:end -->`.
pub fn put_between(document: &str, name: &str, text: &str) -> Done<String> {
    let (begin, end) = (
        format!("<!-- {name}:begin -->"),
        format!("<!-- {name}:end -->"),
    );
    let once = |marker: &str| match document.matches(marker).count() {
        1 => Ok(document.find(marker).unwrap_or_default()),
        count => Err(format!("{marker}: expected once, found {count} times")),
    };
    let (from, to) = (once(&begin)? + begin.len(), once(&end)?);
    if from > to {
        return Err(format!("{end} comes before {begin}"));
    }
    let (before, after) = (&document[..from], &document[to..]);
    Ok(format!("{before}\n{}\n{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_markers_is_replaced() {
        let document = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\nb\n";
        let once = put_between(document, "t", "new\n").expect("markers");
        assert_eq!(once, "a\n<!-- t:begin -->\nnew\n<!-- t:end -->\nb\n");
        assert_eq!(put_between(&once, "t", "new").as_ref(), Ok(&once));
    }

    #[test]
    fn markers_must_be_there_once_and_in_order() {
        for document in [
            "",
            "<!-- t:begin -->",
            "<!-- t:end --> <!-- t:begin -->",
            "<!-- t:begin --> <!-- t:begin --> <!-- t:end -->",
        ] {
            assert!(put_between(document, "t", "x").is_err(), "{document:?}");
        }
    }
}
