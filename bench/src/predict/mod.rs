//! Predicted times of batches on a card, before anything ran there: `offshoot kernels predict`.
//!
//! What the code launches and moves is counted: from the launches that `kernels::cuda` would make, from the
//! attention planner's own work lists, from a model's tensors. How fast a card does it is assumed: constants
//! with a range and a source ([`cards`]). A prediction has every constant at its fast end (`lo`) and at its
//! slow end (`hi`). Its words are always *predicted*; the first run on a card stands beside it, line by line
//! ([`measured`]).
//!
//! - [`constants`], [`cards`]: the assumptions as data.
//! - [`linear`], [`attention`], [`rows`]: kernels.
//! - [`operations`], [`batch`]: whole batches; [`stock`]: a stock engine by the same constants.
//! - [`model`], [`case`], [`lines`]: what is predicted, by name.
//! - [`report`], [`table`], [`page`]: what is printed.

pub mod attention;
pub mod batch;
pub mod cards;
pub mod case;
pub mod constants;
pub mod linear;
pub mod lines;
pub mod measured;
pub mod model;
pub mod operations;
pub mod page;
pub mod report;
pub mod rows;
pub mod stock;
pub mod table;

use kernels::cuda::catalog::{Kernel, Module};
use serde::Serialize;

use self::batch::{Batch, Predicted, fits};
use self::cards::Card;
use self::constants::Printed;
use self::lines::{Line, PREFILL_ROWS, listed};
use self::measured::Comparison;
use self::model::Model;

/// A kernel of the CUDA backend's catalogue.
fn kernel(module: &Module, name: &str) -> Kernel {
    let found = module
        .kernels()
        .into_iter()
        .find(|kernel| kernel.name == name);
    found.unwrap_or_else(|| panic!("{name} is in the catalogue"))
}

/// Everything that is predicted for a card, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// The card's word.
    pub card: &'static str,
    /// Every constant behind the lines.
    pub assumptions: Vec<Printed>,
    /// The figures.
    pub lines: Vec<Line>,
    /// A card's run beside them, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Comparison>,
}

/// The lines of some models on a card.
///
/// # Errors
/// A batch that does not fit the card in one pass.
pub fn predict(
    card: &'static Card,
    models: &[Model],
    branches: &[usize],
    prompt: usize,
) -> Result<Prediction, String> {
    for model in models {
        for &n in branches {
            fits(card, model, n)?;
        }
    }
    let mut lines = Vec::new();
    for case in listed(card, models, branches, prompt) {
        lines.extend(case.lines(card, models)?);
    }
    Ok(Prediction {
        card: card.word,
        assumptions: card.printed(),
        lines,
        measured: None,
    })
}

/// A batch of a table: what it is, and both engines' times.
#[derive(Debug)]
pub struct TableRow {
    /// Such as `decode, 64 branches`.
    pub title: String,
    /// Offshoot.
    pub ours: Predicted,
    /// A stock engine.
    pub stock: Predicted,
}

/// The batches of one model on a card: decode by branches, then prefill.
///
/// # Errors
/// A batch that does not fit the card in one pass.
pub fn batches(
    card: &'static Card,
    model: &Model,
    branches: &[usize],
    prompt: usize,
) -> Result<Vec<TableRow>, String> {
    let row = |title: String, batch: &Batch<'_>| TableRow {
        title,
        ours: batch.predict(),
        stock: stock::predict(batch),
    };
    let mut rows = Vec::new();
    for &n in branches {
        let words = if n == 1 { "branch" } else { "branches" };
        let batch = Batch::decode(card, model, n, prompt)?;
        rows.push(row(format!("decode, {n} {words}"), &batch));
    }
    let batch = Batch::prefill(card, model, PREFILL_ROWS)?;
    rows.push(row(format!("prefill, {PREFILL_ROWS} rows"), &batch));
    Ok(rows)
}
