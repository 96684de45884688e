//! Environments: rows of cells, or a layout that means nothing.

use super::latex::{Node, Parser};

/// Environments that only lay out what is in them.
const LAYOUTS: [&str; 13] = [
    "aligned",
    "align",
    "align*",
    "alignedat",
    "equation",
    "equation*",
    "gather",
    "gather*",
    "gathered",
    "split",
    "math",
    "displaymath",
    "center",
];

impl Parser<'_> {
    /// The star and the length that may follow `\\`.
    pub(super) fn row_break(&mut self) -> Option<()> {
        if self.peek(0) == Some('*') {
            self.at += 1;
        }
        let unit = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || ".- ".contains(c);
        let rest = self.chars.get(self.at..)?;
        if rest.first() == Some(&'[')
            && let Some(length) = rest.iter().position(|c| *c == ']')
            && length > 1
            && rest[1..length].iter().all(|c| unit(*c))
            && rest[1..length].iter().any(|c| c.is_ascii_lowercase())
        {
            self.at += length + 1;
        }
        Some(())
    }

    /// `\begin{name} ... \end{name}`: rows of cells, or only its content.
    pub(super) fn environment(&mut self, depth: usize, nodes: &mut Vec<Node>) -> Option<()> {
        let kind = self.braced_name()?;
        if kind == "array" || kind == "alignedat" {
            self.skip_spaces();
            if self.peek(0) == Some('{') {
                self.braced_name()?; // the alignment of the columns
            }
        }
        let outer = std::mem::replace(&mut self.cells, true);
        let brackets = std::mem::replace(&mut self.brackets, 1); // commas separate in cells
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        loop {
            row.push(self.nodes(depth + 1)?);
            match self.peek(0)? {
                '&' => self.at += 1,
                '\\' => {
                    self.at += 1;
                    let name = self.name();
                    match name.as_str() {
                        "" => {
                            self.at += 1;
                            self.row_break()?;
                            rows.push(std::mem::take(&mut row));
                        }
                        "cr" => rows.push(std::mem::take(&mut row)),
                        _ => {
                            (self.braced_name()? == kind).then_some(())?;
                            rows.push(row);
                            break;
                        }
                    }
                }
                _ => return None,
            }
        }
        (self.cells, self.brackets) = (outer, brackets);
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        if LAYOUTS.contains(&kind.as_str()) || (kind == "cases" && columns == 1) {
            for (index, row) in rows.into_iter().enumerate() {
                if index > 0 {
                    nodes.push(Node::Char(','));
                }
                nodes.extend(row.into_iter().flatten());
            }
        } else {
            nodes.push(Node::Rows(kind, rows));
        }
        Some(())
    }

    /// The text of a pair of braces, without what it means.
    fn braced_name(&mut self) -> Option<String> {
        self.skip_spaces();
        (self.peek(0)? == '{').then_some(())?;
        let rest = &self.chars[self.at + 1..];
        let length = rest.iter().position(|c| *c == '}')?;
        self.at += length + 2;
        Some(rest[..length].iter().collect())
    }

    /// Whether a cell ends here.
    pub(super) fn ends_cell(&self) -> bool {
        let next = |text: &str| {
            let mut chars = text.chars().enumerate();
            chars.all(|(i, c)| self.peek(i) == Some(c))
        };
        let command = |text: &str| {
            next(text) && !(self.peek(text.len())).is_some_and(|c| c.is_ascii_alphabetic())
        };
        next("&") || next("\\\\") || command("\\cr") || command("\\end")
    }
}
