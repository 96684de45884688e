//! What a sweep came to: the table, `summary.csv`, `difficulty.csv` and `results.parquet`.

use comfy_table::Cell as Text;
use serde::Serialize;
use session::sweep::{
    Difficulty, Filled, Folder, Manifest, Row, Timing, difficulties, read_cells, rows,
};

use super::{parquet, shown};
use crate::commands::{print, print_json};
use crate::error::{Done, Failure};
use crate::flags::SweepFlags;
use crate::table::{percent, table};

/// A row with its time.
#[derive(Serialize)]
struct Timed {
    #[serde(flatten)]
    row: Row,
    /// A problem's; `None` if it was not timed.
    seconds: Option<f64>,
    kv_peak_bytes: Option<u64>,
}

/// Writes and prints what all cells of the folder came to.
pub fn run(flags: &SweepFlags, folder: &Folder, manifest: &Manifest) -> Done {
    // Another grid of this folder may not be whole.
    let whole = read_cells(&folder.file(""), manifest)?;
    let params = |policy: &str| {
        let of_policy = manifest.pairs.iter().find(|p| p.settings.policy == policy);
        of_policy.map_or(0, |pair| pair.settings.policy_params)
    };
    let cells: Vec<Filled<'_>> = (whole.iter())
        .filter(|(_, records)| !records.is_empty())
        .map(|(cell, records)| Filled {
            cell,
            policy_params: params(&cell.policy),
            records,
        })
        .collect();
    let rows = rows(&cells);
    folder.write("summary.csv", summary(&rows).as_bytes())?;
    folder.write("difficulty.csv", difficulty(&cells).as_bytes())?;
    let table = parquet::file(&cells)
        .map_err(|e| Failure::new(format!("{}: {e}", shown(folder, "results.parquet"))))?;
    folder.write("results.parquet", &table)?;
    let timings = folder.timings()?;
    let rows = rows
        .into_iter()
        .map(|row| with_time(row, &timings))
        .collect::<Vec<_>>();
    match flags.json {
        true => print_json(&rows),
        false => print(&render(&rows, manifest.problems, &timings)),
    }
}

fn with_time(row: Row, timings: &[Timing]) -> Timed {
    let timing = timings.iter().rfind(|t| {
        let named = (&t.policy, &t.prm, &t.configuration, t.n);
        named == (&row.policy, &row.prm, &row.configuration, row.n)
    });
    Timed {
        seconds: timing.map(|t| t.seconds / t.problems as f64),
        kv_peak_bytes: timing.map(|t| t.kv_peak_bytes),
        row,
    }
}

fn render(rows: &[Timed], problems: usize, timings: &[Timing]) -> String {
    let header = [
        "policy",
        "PRM",
        "configuration",
        "N",
        "accuracy",
        "±",
        "pass@N",
        "tokens",
        "policy",
        "PRM",
        "whole",
        "paper's",
        "s",
        "KV",
    ];
    let mut table = table(header, 3);
    for Timed {
        row,
        seconds,
        kv_peak_bytes,
    } in rows
    {
        let number = |x: f64| Text::new(short(x));
        let none = || "-".to_string();
        table.add_row([
            Text::new(&row.policy),
            Text::new(row.prm.as_deref().unwrap_or("-")),
            Text::new(&row.configuration),
            Text::new(row.n),
            Text::new(percent(row.accuracy)),
            Text::new(format!("{:.1}", 100.0 * row.interval)),
            Text::new(percent(row.oracle)),
            Text::new(format!("{:.0}", row.policy_tokens)),
            number(row.policy_flops),
            number(row.prm_flops),
            number(row.policy_flops + row.prm_flops),
            number(row.paper_flops),
            Text::new(seconds.map_or_else(none, |s| format!("{s:.3}"))),
            Text::new(kv_peak_bytes.map_or_else(none, |bytes| short(bytes as f64))),
        ]);
    }
    let seeds = rows.iter().map(|row| row.row.seeds).max().unwrap_or(0);
    let mut text = format!(
        "{table}\n{problems} problems, {seeds} seeds. Each problem: tokens drawn; FLOPs of the policy, of \
         the PRM, of both, and by the paper's convention (2 · parameters · tokens drawn, no PRM)"
    );
    if let Some(timing) = timings.last() {
        text += &format!(
            "; seconds and the peak of the KV cache in bytes with the first {} problems, each \
             configuration alone on {}",
            timing.problems, timing.machine
        );
    }
    text + ".\n"
}

/// Three digits and a unit: `12.3G`.
pub fn short(x: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E", "Z"];
    let (mut x, mut unit) = (x, 0);
    // What would print as 1000 is one of the next unit.
    while x >= 999.5 && unit + 1 < units.len() {
        (x, unit) = (x / 1000.0, unit + 1);
    }
    let digits = match x {
        _ if unit == 0 && x.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{x:.digits$}{}", units[unit])
}

/// One line for each row, with all digits.
fn summary(rows: &[Row]) -> String {
    let bins = Difficulty::ALL
        .map(|bin| format!("accuracy_{}", bin.name()))
        .join(",");
    let mut csv = format!(
        "policy,prm,configuration,n,seeds,problems,accuracy,interval,seed_deviation,pass_rate,oracle,\
         policy_tokens,prm_tokens,policy_flops,prm_flops,paper_flops,{bins}\n"
    );
    for row in rows {
        let names = [
            &row.policy,
            row.prm.as_deref().unwrap_or(""),
            &row.configuration,
        ];
        let counts = [row.n, row.seeds, row.problems].map(|count| count.to_string());
        let numbers = [
            row.accuracy,
            row.interval,
            row.seed_deviation,
            row.pass_rate,
            row.oracle,
            row.policy_tokens,
            row.prm_tokens,
            row.policy_flops,
            row.prm_flops,
            row.paper_flops,
        ];
        let bins = Difficulty::ALL.map(|bin| {
            let accuracy = row.by_difficulty.get(bin.name());
            accuracy.map(f64::to_string).unwrap_or_default()
        });
        let fields = names.map(quoted).into_iter().chain(counts);
        let fields = fields.chain(numbers.map(|x| x.to_string())).chain(bins);
        csv += &(fields.collect::<Vec<_>>().join(",") + "\n");
    }
    csv
}

/// One line for each policy and problem: its pass@1.
fn difficulty(cells: &[Filled<'_>]) -> String {
    let mut csv = "policy,id,right,samples,pass_at_1,low,high,difficulty\n".to_string();
    for d in difficulties(cells) {
        let [low, high] = d.interval;
        csv += &format!(
            "{},{},{},{},{},{low},{high},{}\n",
            quoted(&d.policy),
            quoted(&d.id),
            d.right,
            d.samples,
            d.pass_at_1,
            d.difficulty.name()
        );
    }
    csv
}

/// A field of a CSV file (RFC 4180).
fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (1.5, "1.50"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (12_345.0, "12.3k"),
            (2e21, "2.00Z"),
            (2e24, "2000Z"),
        ] {
            assert_eq!(short(x), text);
        }
    }

    #[test]
    fn fields_are_quoted_where_they_must() {
        assert_eq!(quoted("a-b=1"), "a-b=1");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
