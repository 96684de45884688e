//! Measured figures, one JSON object a line, written as soon as each is known: a run that is cut off
//! has lost nothing. `offshoot kernels time`, `kernels check`, `bench throughput` (each with
//! `--figures`), `bench/gpu-check` and `bench/gpu-torch.py` write this format; [`report`] reads it.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::Done;
use crate::markdown::table;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What is measured: `linear`, `attention`, `decode`, ...
    pub section: String,
    /// Its shape or setting: `64/8192/2048`.
    pub case: String,
    /// Which figure of the case: `kernel`, `cublaslt`.
    pub figure: String,
    /// Its unit.
    pub unit: String,
    /// Its value.
    pub value: f64,
    /// Whether it comes from the emulator: it shows that the measurement works, and nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emulated: bool,
}

impl Figure {
    /// A figure of a card.
    pub fn new(section: &str, case: &str, figure: &str, (value, unit): (f64, &str)) -> Figure {
        Figure {
            section: section.into(),
            case: case.into(),
            figure: figure.into(),
            unit: unit.into(),
            value,
            emulated: false,
        }
    }

    /// Writes it as a line of standard output, at once.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self) -> Done {
        let line = serde_json::to_string(self).map_err(|e| e.to_string())?;
        let mut out = std::io::stdout().lock();
        (writeln!(out, "{line}").and_then(|()| out.flush()))
            .map_err(|e| format!("standard output: {e}"))
    }

    /// Its words for people.
    pub fn words(&self) -> String {
        format!(
            "{:<11} {:<44} {:<12} {:>12.3} {}",
            self.section, self.case, self.figure, self.value, self.unit
        )
    }
}

/// Reads a file of figures, each with the number of its line; `name` is the file's name in errors.
///
/// # Errors
/// A line that is no figure, with its number.
pub fn parse(name: &str, text: &str) -> Done<Vec<(usize, Figure)>> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let figure = serde_json::from_str(line).map(|figure| (index + 1, figure));
            figure.map_err(|why| {
                format!(
                    "{name} line {}: {why}; expected a figure with section, case, figure, unit and \
                     value",
                    index + 1
                )
            })
        })
        .collect()
}

/// A run of `bench/gpu-check` as Markdown: a table for each section, cases down and figures across.
pub fn report(figures: &[Figure]) -> String {
    let mut out = String::from("# A run of bench/gpu-check\n");
    if figures.iter().any(|figure| figure.emulated) {
        out += "\n**Emulated: these figures show that the run works from end to end. None of them \
                is a measurement.**\n";
    }
    for section in in_order(figures.iter().map(|f| &f.section)) {
        let of_section: Vec<&Figure> = figures.iter().filter(|f| f.section == *section).collect();
        let columns = in_order(of_section.iter().map(|f| &f.figure));
        let heads = columns.iter().map(|&column| {
            let unit = of_section.iter().find(|f| f.figure == *column);
            format!("{column}, {}", unit.map_or("", |f| &f.unit))
        });
        let mut header = vec!["case".to_string()];
        header.extend(heads);
        let rows: Vec<Vec<String>> = in_order(of_section.iter().map(|f| &f.case))
            .into_iter()
            .map(|case| {
                let cell = |column: &&String| {
                    // The last, if a section was run again.
                    let mut found = of_section.iter().rev();
                    let found = found.find(|f| f.case == *case && f.figure == **column);
                    found.map_or("-".into(), |f| number(f.value))
                };
                let mut row = vec![case.clone()];
                row.extend(columns.iter().map(cell));
                row
            })
            .collect();
        out += &format!("\n## {section}\n\n{}", table(&header, 1, &rows));
    }
    out
}

/// A value with about four digits.
fn number(value: f64) -> String {
    match value.abs() {
        v if v == v.trunc() && v < 1e9 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// Each once, in the order of first appearance.
fn in_order<'a>(words: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut all: Vec<&String> = Vec::new();
    for word in words {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_their_lines_and_become_tables() {
        let kernel = Figure::new("linear", "64/8192/2048", "kernel", (17.25, "us"));
        let library = Figure::new("linear", "64/8192/2048", "cublaslt", (9.0, "us"));
        let small = Figure::new("linear", "1/8192/2048", "kernel", (8.0, "us"));
        let all = [kernel.clone(), library, small];
        let lines: Vec<String> = (all.iter())
            .map(|f| serde_json::to_string(f).expect("JSON"))
            .collect();
        let parsed = parse("f", &format!("\n{}", lines.join("\n"))).expect("figures");
        assert_eq!(parsed[0].0, 2);
        assert!(parsed.iter().map(|(_, figure)| figure).eq(&all));
        let text = report(&all);
        assert!(text.contains("| 64/8192/2048 | 17.250 | 9 |"), "{text}");
        assert!(text.contains("| 1/8192/2048 | 8 | - |"), "{text}");
        assert!(!text.contains("Emulated"), "{text}");
        let emulated = Figure {
            emulated: true,
            ..kernel
        };
        assert!(report(&[emulated]).contains("None of them is a measurement"));
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        let error = parse("gpu.jsonl", "\n{\"section\": 1}\n").expect_err("no figure");
        assert!(error.starts_with("gpu.jsonl line 2: "), "{error}");
    }
}
