//! Predictions as text.

use std::ops::Range;

use comfy_table::{CellAlignment, Table, presets};

use super::TableRow;
use super::batch::Part;
use super::cards::Card;
use super::constants::Span;
use super::measured::Comparison;

/// A table whose columns of `numbers` are aligned to the right.
fn table(header: &[&str], numbers: Range<usize>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let columns = table.column_iter_mut().skip(numbers.start);
    for column in columns.take(numbers.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A number with three significant digits.
pub(super) fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

/// `1.24-1.41`.
pub(super) fn span(span: Span) -> String {
    format!("{}-{}", digits(span.lo), digits(span.hi))
}

/// The columns of a table of batches.
pub(super) const COLUMNS: [&str; 11] = [
    "batch",
    "Offshoot ms",
    "linear",
    "attention",
    "sampling",
    "other",
    "launches",
    "kernels",
    "linear layers bound by",
    "stock ms",
    "stock / Offshoot",
];

/// The cells of a batch.
pub(super) fn cells(row: &TableRow) -> Vec<String> {
    let mut cells = vec![row.title.clone(), span(row.ours.total)];
    cells.extend(Part::ALL.map(|part| span(row.ours.parts[&part])));
    cells.push(row.ours.kernels.map_or(String::new(), |n| n.to_string()));
    cells.push(match row.ours.limiter {
        Some((limiter, share)) => format!("{} ({:.0}%)", limiter.name(), 100.0 * share),
        None => String::new(),
    });
    cells.push(span(row.stock.total));
    let ratio = row.stock.total.middle() / row.ours.total.middle();
    cells.push(format!("{ratio:.2}"));
    cells
}

/// What stands above the tables.
pub(super) const TITLE: &str = "predicted, not measured";

/// The batches of one model on a card.
pub fn batches(card: &Card, model: &str, prompt: usize, rows: &[TableRow]) -> String {
    let rows = rows.iter().map(cells).collect();
    format!(
        "{model} on {}, prompt {prompt}: {TITLE}\n{}\n",
        card.title,
        table(&COLUMNS, 1..COLUMNS.len(), rows)
    )
}

/// How to read the numbers.
pub(super) const LEGEND: &str = "The first number of a range has every assumption at its fast end, the second \
     at its slow end; the ratio is of the middles, above 1 where Offshoot is faster. cuBLASLt is taken to be \
     installed. Stock: an engine by the same assumptions, whose branches read their whole contexts. Host time \
     is left out on both sides. Sources: review and SASS are arithmetic over this code and cycles estimated \
     from its machine code before it ran anywhere; an estimate is nobody's figure.";

/// The legend and every assumption.
pub fn assumptions(card: &Card) -> String {
    let rows = card.printed().into_iter().map(|a| {
        let range = if a.lo == a.hi {
            digits(a.lo)
        } else {
            span(Span { lo: a.lo, hi: a.hi })
        };
        vec![a.name.into(), range, a.unit.into(), a.source.into()]
    });
    format!(
        "Decode: the last batch of a beam search of 16 steps of 64 tokens, 4 children of a kept branch. \
         {LEGEND}\n\nAssumptions\n{}\n",
        table(&["name", "range", "unit", "source"], 1..2, rows.collect())
    )
}

/// A card's run beside the predictions.
pub fn comparison(found: &Comparison) -> String {
    let rows = found.lines.iter().map(|line| {
        let p = &line.predicted;
        let place = match line.measured {
            v if v < p.lo => "below",
            v if v > p.hi => "above",
            _ => "inside",
        };
        vec![
            p.section.into(),
            p.case.clone(),
            p.figure.into(),
            p.unit.into(),
            span(Span { lo: p.lo, hi: p.hi }),
            digits(line.measured),
            place.into(),
        ]
    });
    let header = [
        "section",
        "case",
        "figure",
        "unit",
        "predicted",
        "measured",
        "",
    ];
    format!(
        "measured beside predicted\n{}\n{} measured figures have no prediction\n",
        table(&header, 4..6, rows.collect()),
        found.without
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::batches as rows_of;
    use crate::predict::model::Model;

    #[test]
    fn a_table_says_that_it_is_predicted() {
        let card = Card::parse("h200").expect("a card");
        let model = Model::find("nano").expect("a shape");
        let rows = rows_of(card, &model, &[1, 16], 128).expect("they fit");
        let text = batches(card, "nano", 128, &rows);
        assert!(text.starts_with("nano on H200, prompt 128: predicted, not measured\n"));
        for word in [
            "decode, 1 branch ",
            "decode, 16 branches",
            "prefill, 2048 rows",
        ] {
            assert!(text.contains(word), "{text}");
        }
        let all = assumptions(card);
        for assumption in card.printed() {
            assert!(all.contains(assumption.name), "{all}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.2345, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
