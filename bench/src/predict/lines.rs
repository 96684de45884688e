//! The figures of a case, and the cases that are listed for a model.

use kernels::cuda::MAX_BATCH_ROWS;
use kernels::cuda::study::Beam;
use serde::Serialize;

use super::attention;
use super::batch::{BLOCK_TOKENS, Batch, Part, beam, max_branches, star};
use super::cards::Card;
use super::case::{Case, Ceiling, PLANS};
use super::constants::{Constant, Span};
use super::linear::{self, Output, Shape};
use super::model::Model;
use super::rows::{self, Filters};
use super::stock;

/// One predicted figure, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The section.
    pub section: &'static str,
    /// The case.
    pub case: String,
    /// The figure.
    pub figure: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Every constant at its fast end; of a bandwidth, the smaller end.
    pub lo: f64,
    /// Every constant at its slow end; of a bandwidth, the larger end.
    pub hi: f64,
}

impl Case {
    /// Every figure of the case on a card; of decode and prefill, `batch`, its parts and `stock`.
    ///
    /// # Errors
    /// A model that no shape's word and none of `models` names, or a batch that does not fit: one sentence.
    pub fn lines(&self, card: &'static Card, models: &[Model]) -> Result<Vec<Line>, String> {
        let line = |figure, unit, span: Span| Line {
            section: self.section(),
            case: self.to_string(),
            figure,
            unit,
            lo: span.lo,
            hi: span.hi,
        };
        let gap = card.range(Constant::LaunchGap);
        // A kernel alone is timed with its gap.
        let with_gap = |time: Span| Span {
            lo: time.lo + gap.lo,
            hi: time.hi + gap.hi,
        };
        Ok(match self {
            Case::Ceiling(ceiling) => {
                let (figure, unit, constant) = match ceiling {
                    Ceiling::Read | Ceiling::Copy => ("bandwidth", "TB/s", Constant::Dram),
                    Ceiling::L2Read => ("bandwidth", "TB/s", Constant::L2Rate),
                    Ceiling::GraphLaunch => ("gap", "us", Constant::LaunchGap),
                };
                vec![line(figure, unit, card.range(constant))]
            }
            Case::Linear(shape) => {
                let output = Output::HALF;
                let own = Span::of(card, |m| linear::kernel(m, *shape, output).time);
                let library = Span::of(card, |m| linear::cublaslt(m, *shape, output).time);
                vec![
                    line("kernel", "us", with_gap(own)),
                    line("cublaslt", "us", with_gap(library)),
                ]
            }
            Case::Sampling {
                draws,
                vocab,
                filters,
            } => {
                let time = Span::of(card, |m| rows::sample(m, *draws, *vocab, *filters));
                vec![line("sample", "us", with_gap(time))]
            }
            Case::Attention {
                heads,
                n,
                prompt,
                sharing,
            } => {
                let (plan, _) = beam(*n, *prompt).plan();
                let counted = attention::count(card, &plan, *heads, None, *sharing, BLOCK_TOKENS);
                let time = Span::of(card, |m| {
                    counted.time(m) + counted.launches() as f64 * m.value(Constant::LaunchGap)
                });
                vec![line("attention", "us", time)]
            }
            Case::Decode {
                model,
                branches,
                prompt,
                below,
            } => {
                let model = named(model, models)?;
                let tree = tree(*branches, *prompt, *below);
                batch_lines(&Batch::decode_tree(card, &model, &tree)?, line)
            }
            Case::Prefill { model, rows } => {
                let model = named(model, models)?;
                batch_lines(&Batch::prefill(card, &model, *rows)?, line)
            }
        })
    }
}

/// The tree of a decode case.
fn tree(branches: usize, prompt: usize, below: Option<usize>) -> Beam {
    match below {
        None => beam(branches, prompt),
        Some(tokens) => star(branches, prompt, tokens),
    }
}

/// The model of that name: of those given, else by its word.
fn named(name: &str, models: &[Model]) -> Result<Model, String> {
    match models.iter().find(|model| model.name == name) {
        Some(model) => Ok(model.clone()),
        None => Model::find(name),
    }
}

fn batch_lines(
    batch: &Batch<'_>,
    line: impl Fn(&'static str, &'static str, Span) -> Line,
) -> Vec<Line> {
    let predicted = batch.predict();
    let mut all = vec![line("batch", "ms", predicted.total)];
    all.extend(Part::ALL.map(|part| line(part.name(), "ms", predicted.parts[&part])));
    all.push(line("stock", "ms", stock::predict(batch).total));
    all
}

/// The cases that are listed for some models: the card's ceilings, then each model's linear layers, sampling,
/// attention, decode batches and prefill.
pub fn listed(card: &Card, models: &[Model], branches: &[usize], prompt: usize) -> Vec<Case> {
    let mut all: Vec<Case> = Ceiling::ALL.map(Case::Ceiling).into();
    let mut add = |case: Case| {
        if !all.contains(&case) {
            all.push(case);
        }
    };
    for model in models {
        let fitting = max_branches(card, model);
        let branches: Vec<usize> = branches.iter().copied().filter(|&n| n <= fitting).collect();
        for (n, k) in model.linear_shapes() {
            for &rows in branches.iter().chain(&[PREFILL_ROWS]) {
                add(Case::Linear(Shape { rows, n, k }));
            }
        }
        let (vocab, _) = model.head();
        for &draws in &branches {
            for filters in [Filters::NONE, FILTERED] {
                add(Case::Sampling {
                    draws,
                    vocab,
                    filters,
                });
            }
        }
        for &n in &branches {
            for (_, sharing) in PLANS {
                add(Case::Attention {
                    heads: model.heads(),
                    n,
                    prompt,
                    sharing,
                });
            }
        }
        for &branches in &branches {
            add(Case::Decode {
                model: model.name.clone(),
                branches,
                prompt,
                below: None,
            });
        }
        add(Case::Prefill {
            model: model.name.clone(),
            rows: PREFILL_ROWS,
        });
    }
    all
}

/// Rows of the prefill batch that is listed.
pub const PREFILL_ROWS: usize = MAX_BATCH_ROWS;

/// The filters that are listed: Qwen2.5's generation config.
const FILTERED: Filters = Filters {
    top_k: 20,
    top_p: 0.8,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_case_has_figures_and_reads_back() {
        let models = [Model::find("nano").expect("a shape")];
        for word in ["a100", "rtx4090", "h100", "h200", "b200"] {
            let card = Card::parse(word).expect("a card");
            for case in listed(card, &models, &[1, 16], 128) {
                assert_eq!(
                    Case::parse(case.section(), &case.to_string()).as_ref(),
                    Some(&case)
                );
                let lines = case.lines(card, &models).expect("figures");
                assert!(!lines.is_empty());
                for line in lines {
                    assert!(0.0 < line.lo || line.figure == "sampling", "{line:?}");
                    assert!(line.lo <= line.hi && line.hi.is_finite(), "{line:?}");
                }
            }
        }
    }
}
