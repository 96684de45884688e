//! Tables for people: what the summaries share.

use comfy_table::{CellAlignment, Row, Table, TableComponent, presets};
use strategies::ExtractionCounts;

/// An empty table without lines between its rows; the columns behind the first `names` are aligned
/// to the right.
pub fn table(header: impl Into<Row>, names: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    for between_rows in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(between_rows);
    }
    table.set_header(header);
    for column in table.column_iter_mut().skip(names) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A share as text: `61.0%`.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// `boxed 812, none 12`.
pub fn rules(counts: &ExtractionCounts) -> String {
    let rules: Vec<String> = (counts.iter())
        .map(|(rule, count)| format!("{} {count}", rule.name()))
        .collect();
    rules.join(", ")
}
