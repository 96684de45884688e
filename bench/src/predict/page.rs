//! The baseline: predictions for four cards and three models as one JSON file and a page made from it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::cards::Card;
use super::constants::{Printed, Span};
use super::lines::Line;
use super::model::Model;
use super::table::{COLUMNS, LEGEND, TITLE, cells, digits, span};
use super::{Prediction, batches, predict};
use crate::Done;
use crate::machine::{Machine, root, today};
use crate::markdown::table;

/// Flags of `predict`.
#[derive(Args, Debug)]
pub struct Flags {
    /// Folder for `predictions.json` and `predictions.md`.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const CARDS: [&str; 4] = ["a100", "h100", "h200", "b200"];
const MODELS: [&str; 3] = ["llama-3.2-1b", "qwen2.5-7b", "llama-3.1-8b"];
const BRANCHES: [usize; 4] = [1, 16, 64, 256];
const PROMPT: usize = 512;
/// The card whose kernels are printed one by one.
const SHOWN: &str = "h200";
const COMMAND: &str = "cargo run -p offshoot-bench -- predict";

/// The raw results.
#[derive(Serialize)]
struct Results {
    date: String,
    commit: String,
    command: &'static str,
    cards: Vec<Prediction>,
}

/// Writes the baseline.
pub fn run(flags: &Flags) -> Done {
    let out = flags.out.clone();
    let folder = out.unwrap_or_else(|| root().join("bench/results/predictions"));
    let models: Vec<Model> = MODELS
        .iter()
        .map(|word| Model::find(word))
        .collect::<Done<_>>()?;
    let cards = CARDS.iter().map(|word| {
        let card = Card::parse(word)?;
        predict(card, &models, &BRANCHES, PROMPT)
    });
    let results = Results {
        date: today(),
        commit: Machine::this().commit,
        command: COMMAND,
        cards: cards.collect::<Done<_>>()?,
    };
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let json = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
    for (name, text) in [
        ("predictions.json", json + "\n"),
        ("predictions.md", page(&results, &models)?),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn page(results: &Results, models: &[Model]) -> Done<String> {
    let mut out = format!(
        "# Batches on four cards: {TITLE}\n\nMade on {} at commit {} by `{}`. Nothing here was \
         measured: what the code launches and moves is counted, how fast a card does it \
         is assumed, and every assumption stands below with its range and source. `offshoot kernels predict \
         --card CARD --measured gpu.jsonl` puts a card's run beside these lines.\n\nDecode: the last batch of \
         a beam search of 16 steps of 64 tokens below a prompt of {PROMPT}, 4 children of a kept branch; \
         milliseconds. {LEGEND}\n\n",
        results.date, results.commit, results.command
    );
    for model in models {
        out += &format!("## {}\n\n", model.name);
        let mut header = vec!["card".to_string()];
        header.extend(COLUMNS.map(String::from));
        let mut rows = Vec::new();
        for prediction in &results.cards {
            let card = Card::parse(prediction.card)?;
            for row in batches(card, model, &BRANCHES, PROMPT)? {
                let mut all = vec![card.word.to_string()];
                all.extend(cells(&row));
                rows.push(all);
            }
        }
        out += &table(&header, 2, &rows);
        out += "\n";
    }
    let shown = (results.cards.iter()).find(|prediction| prediction.card == SHOWN);
    out += &format!(
        "## Kernels on {SHOWN}\n\nOne launch, its gap included. Other cards: `predictions.json`.\n\n"
    );
    out += &kernels(shown.map_or(&[], |prediction| &prediction.lines));
    out += "\n## Assumptions\n\nSources are those of each card in `predictions.json`; here, of the last card.\n\n";
    out += &assumptions(&results.cards);
    Ok(out)
}

/// The lines that are not of whole batches.
fn kernels(lines: &[Line]) -> String {
    let header = ["section", "case", "figure", "unit", "predicted"].map(String::from);
    let rows: Vec<Vec<String>> = (lines.iter())
        .filter(|line| !["decode", "prefill"].contains(&line.section))
        .map(|line| {
            let range = span(Span {
                lo: line.lo,
                hi: line.hi,
            });
            let words = [line.section, &line.case, line.figure, line.unit, &range];
            words.map(String::from).to_vec()
        })
        .collect();
    table(&header, 4, &rows)
}

fn assumptions(cards: &[Prediction]) -> String {
    let mut header = vec!["assumption".to_string(), "unit".into()];
    header.extend(cards.iter().map(|prediction| prediction.card.to_string()));
    header.push("source".into());
    let range = |a: &Printed| match a.lo == a.hi {
        true => digits(a.lo),
        false => span(Span { lo: a.lo, hi: a.hi }),
    };
    let last = cards
        .last()
        .map_or(&[][..], |prediction| &prediction.assumptions);
    let rows = last.iter().enumerate().map(|(index, a)| {
        let mut cells = vec![a.name.to_string(), a.unit.into()];
        // Every card has the same constants in the same order.
        cells.extend(cards.iter().map(|card| range(&card.assumptions[index])));
        cells.push(a.source.into());
        cells
    });
    table(&header, 2, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_its_commit_and_every_assumption() {
        let models = [Model::find("nano").expect("a shape")];
        let cards = CARDS.map(|word| {
            let card = Card::parse(word).expect("a card");
            predict(card, &models, &BRANCHES, PROMPT).expect("they fit")
        });
        let results = Results {
            date: "2026-12-01".into(),
            commit: "0123456789".into(),
            command: COMMAND,
            cards: cards.into(),
        };
        let page = page(&results, &models).expect("a page");
        assert!(page.contains("Made on 2026-12-01 at commit 0123456789 by `cargo run"));
        for assumption in Card::parse(SHOWN).expect("a card").printed() {
            assert!(page.contains(assumption.name), "{}", assumption.name);
        }
        for card in CARDS {
            assert!(
                page.contains(&format!("| {card} | decode, 256 branches |")),
                "{card}"
            );
        }
    }
}
