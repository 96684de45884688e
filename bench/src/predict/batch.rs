//! Time of a whole batch: the kernels that each operation of a forward pass launches, the gaps between them,
//! and the small copies. A test compares kernels and copies with those of an engine on the emulated card.
//!
//! The host is left out: it is taken to plan and to enqueue while the card works. A prefill batch is not
//! recorded; its launches are taken to hide behind its kernels, which are long.

use std::collections::BTreeMap;

use kernels::cuda::items::Sharing;
use kernels::cuda::study::Beam;
use kernels::cuda::{MAX_BATCH_ROWS, max_head_bytes, padded_rows, taken_by_cublaslt};
use kernels::{BatchPlan, BlockId, SequenceRows};

use super::attention::{self, Counted};
use super::cards::Card;
use super::constants::{CardEnd, Constant, Span};
use super::linear::{self, Limiter, Output, Shape};
use super::model::Model;
use super::operations::{Operation, operations};
use super::rows::{self, Filters};

/// Tokens of a KV block, as in an engine by default.
pub(super) const BLOCK_TOKENS: usize = 16;

/// The parts of a batch's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Linear layers, the head included.
    Linear,
    /// Attention and its merge.
    Attention,
    /// Drawing tokens.
    Sampling,
    /// Norms, rotation, activations, embedding, gathering.
    Other,
    /// Gaps between kernels, and small copies.
    Launches,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [
        Part::Linear,
        Part::Attention,
        Part::Sampling,
        Part::Other,
        Part::Launches,
    ];

    /// Its name in lines and tables.
    pub fn name(self) -> &'static str {
        match self {
            Part::Linear => "linear",
            Part::Attention => "attention",
            Part::Sampling => "sampling",
            Part::Other => "other",
            Part::Launches => "launches",
        }
    }
}

/// A kernel's part of a batch: its time, the launch gap aside, and what bounds it if it is a linear layer's.
pub(super) struct Launched {
    pub part: Part,
    pub time: f64,
    pub limiter: Option<Limiter>,
    /// Kernels that this time is of.
    pub kernels: usize,
}

impl Launched {
    fn one(part: Part, time: f64) -> Launched {
        Launched {
            part,
            time,
            limiter: None,
            kernels: 1,
        }
    }
}

/// A batch of a model on a card, counted.
#[derive(Debug)]
pub struct Batch<'m> {
    pub(super) card: &'static Card,
    pub(super) model: &'m Model,
    /// Rows, padding included.
    pub rows: usize,
    /// Draws.
    pub draws: usize,
    /// Whether its rows are a prompt's.
    pub prefill: bool,
    pub(super) operations: Vec<Operation>,
    pub(super) attention: Vec<(Option<u32>, Counted)>,
    /// Copies between host and device.
    pub copies: usize,
}

/// What a batch was predicted to take, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// The whole.
    pub total: Span,
    /// Its parts.
    pub parts: BTreeMap<Part, Span>,
    /// Kernels launched, where they were counted.
    pub kernels: Option<usize>,
    /// What bounds the linear layers for most of their time, and the share of it, at the slow end.
    pub limiter: Option<(Limiter, f64)>,
}

/// The beam search whose last decode batch is predicted: 16 steps of 64 tokens, four children of a kept
/// branch, survivors at random.
pub fn beam(branches: usize, prompt: usize) -> Beam {
    Beam {
        beams: branches,
        width: 4,
        prompt,
        steps: 16,
        step_tokens: 64,
        seed: 0,
    }
}

/// Branches that share a prompt and nothing else, each with tokens of its own: what `bench throughput`
/// decodes.
pub fn star(branches: usize, prompt: usize, tokens: usize) -> Beam {
    Beam {
        steps: 1,
        step_tokens: tokens,
        ..beam(branches, prompt)
    }
}

/// The largest decode batch of a model on a card, by its logits.
pub fn max_branches(card: &Card, model: &Model) -> usize {
    let (vocab, _) = model.head();
    engine::max_outputs(max_head_bytes(card.memory), vocab, MAX_BATCH_ROWS)
}

/// Whether a decode batch of some branches is one pass.
///
/// # Errors
/// It is not: one sentence.
pub fn fits(card: &Card, model: &Model, branches: usize) -> Result<(), String> {
    let most = max_branches(card, model);
    if (1..=most).contains(&branches) {
        return Ok(());
    }
    Err(format!(
        "{branches} branches of {}: a decode batch on {} has at most {most} rows",
        model.name, card.word
    ))
}

impl<'m> Batch<'m> {
    /// A decode batch at the end of [`beam`], a draw on every branch.
    ///
    /// # Errors
    /// More branches than one pass has room for.
    pub fn decode(
        card: &'static Card,
        model: &'m Model,
        branches: usize,
        prompt: usize,
    ) -> Result<Batch<'m>, String> {
        Batch::decode_tree(card, model, &beam(branches, prompt))
    }

    /// The decode batch at the end of a beam search's tree.
    ///
    /// # Errors
    /// More branches than one pass has room for.
    pub fn decode_tree(
        card: &'static Card,
        model: &'m Model,
        tree: &Beam,
    ) -> Result<Batch<'m>, String> {
        fits(card, model, tree.beams)?;
        let (mut plan, _) = tree.plan();
        plan.outputs = (0..plan.rows.len() as u32).collect();
        Ok(Batch::decoding(card, model, &plan))
    }

    /// A decode batch of a plan, whose inputs are the draws of the last batch.
    pub fn decoding(card: &'static Card, model: &'m Model, plan: &BatchPlan) -> Batch<'m> {
        let draws = plan.outputs.len();
        // As the engine pads: never beyond what the head's buffer holds.
        let most = max_branches(card, model).max(plan.rows.len());
        let padded = padded_rows(plan, taken_by_cublaslt(plan.rows.len()));
        let plan = plan.padded(padded.min(most));
        Batch::of(card, model, &plan, draws, true)
    }

    /// A prompt of `rows` tokens in one batch, of which the last is drawn from.
    ///
    /// # Errors
    /// More rows than a batch has.
    pub fn prefill(
        card: &'static Card,
        model: &'m Model,
        rows: usize,
    ) -> Result<Batch<'m>, String> {
        if !(1..=MAX_BATCH_ROWS).contains(&rows) {
            return Err(format!(
                "a prefill batch of {rows} rows: expected 1 to {MAX_BATCH_ROWS}"
            ));
        }
        let table: Vec<(BlockId, u32)> = (0..rows)
            .step_by(BLOCK_TOKENS)
            .map(|first| {
                let tokens = BLOCK_TOKENS.min(rows - first) as u32;
                (BlockId((first / BLOCK_TOKENS) as u32), tokens)
            })
            .collect();
        let tokens = vec![0; rows];
        let outputs = [rows as u32 - 1];
        let sequence = SequenceRows {
            table: &table,
            token_ids: &tokens,
            write: true,
            outputs: &outputs,
        };
        let (plan, _) = BatchPlan::build(&[sequence], BLOCK_TOKENS);
        let plan = plan.padded(padded_rows(&plan, taken_by_cublaslt(rows)).min(MAX_BATCH_ROWS));
        Ok(Batch::of(card, model, &plan, 1, false))
    }

    fn of(
        card: &'static Card,
        model: &'m Model,
        plan: &BatchPlan,
        draws: usize,
        substituted: bool,
    ) -> Batch<'m> {
        let windows = model.windows().into_iter();
        let count = |window| {
            let heads = model.heads();
            let counted = attention::count(card, plan, heads, window, Sharing::Tree, BLOCK_TOKENS);
            (window, counted)
        };
        let attention: Vec<_> = windows.map(count).collect();
        let rows = plan.rows.len();
        Batch {
            card,
            model,
            rows,
            draws,
            prefill: !substituted,
            operations: operations(model, rows, plan.outputs.len(), substituted),
            // The plan, the draws and the substitutions there, a work list for each window, the tokens back.
            copies: 3 + usize::from(substituted) + attention.len(),
            attention,
        }
    }

    /// The kernels of an operation.
    pub(super) fn kernels(&self, m: &CardEnd, operation: &Operation) -> Vec<Launched> {
        let (c, rows) = (&self.model.config, self.rows);
        let heads = c.heads + c.kv_heads;
        let other = |time| vec![Launched::one(Part::Other, time)];
        match *operation {
            Operation::Substitute => other(rows::substitute(m)),
            Operation::Embed => other(rows::embed(m, rows, c.hidden)),
            Operation::Norm { rows } => other(rows::norm(m, rows, c.hidden)),
            Operation::QkNorm => other(rows::qk_norm(m, rows, heads, c.head_dim)),
            Operation::Rope => other(rows::rope(m, rows, heads + c.kv_heads, c.head_dim)),
            Operation::Gather => other(rows::gather(m, self.draws, c.hidden)),
            Operation::Linear {
                shape,
                output_bytes,
            } => vec![linear_layer(m, shape, output_bytes)],
            Operation::LinearGated { shape } => gated_layer(m, shape),
            Operation::Attention { window } => {
                let counted = self.attention(window);
                vec![Launched {
                    kernels: counted.launches(),
                    ..Launched::one(Part::Attention, counted.time(m))
                }]
            }
            Operation::Sample => {
                let (vocab, _) = self.model.head();
                let time = rows::sample(m, self.draws, vocab, Filters::NONE);
                vec![Launched::one(Part::Sampling, time)]
            }
        }
    }

    pub(super) fn attention(&self, window: Option<u32>) -> &Counted {
        let found = self.attention.iter().find(|(of, _)| *of == window);
        &found.expect("every window of the model was counted").1
    }

    /// Kernels that the batch launches.
    pub fn launches(&self) -> usize {
        let [m, _] = CardEnd::ends(self.card);
        let kernels = |operation| self.kernels(&m, operation);
        let all = self.operations.iter().flat_map(kernels);
        all.map(|launched| launched.kernels).sum()
    }

    /// Microseconds of the parts at one end, and of the linear layers by what bounds them.
    fn parts(&self, m: &CardEnd) -> (BTreeMap<Part, f64>, BTreeMap<Limiter, f64>) {
        let (mut parts, mut limiters) = (BTreeMap::new(), BTreeMap::new());
        let launched = (self.operations.iter()).flat_map(|operation| self.kernels(m, operation));
        for launched in launched {
            *parts.entry(launched.part).or_default() += launched.time;
            if let Some(limiter) = launched.limiter {
                *limiters.entry(limiter).or_default() += launched.time;
            }
        }
        let gaps = self.launches() as f64 * m.value(Constant::LaunchGap);
        let copies = self.copies as f64 * m.value(Constant::SmallCopy);
        parts.insert(Part::Launches, gaps + copies);
        (parts, limiters)
    }

    /// What the batch takes.
    pub fn predict(&self) -> Predicted {
        let [(fast, _), (slow, limiters)] = CardEnd::ends(self.card).map(|m| self.parts(&m));
        let linear: f64 = limiters.values().sum();
        let most = limiters.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        Predicted {
            kernels: Some(self.launches()),
            limiter: most.map(|(limiter, time)| (limiter, time / linear)),
            ..Predicted::of_parts(&fast, &slow)
        }
    }
}

impl Predicted {
    /// Of the microseconds of the parts at both ends.
    pub(super) fn of_parts(fast: &BTreeMap<Part, f64>, slow: &BTreeMap<Part, f64>) -> Predicted {
        let of = |part: &Part| {
            let at = |parts: &BTreeMap<Part, f64>| parts.get(part).copied().unwrap_or(0.0) / 1e3;
            Span {
                lo: at(fast),
                hi: at(slow),
            }
        };
        let parts: BTreeMap<Part, Span> = Part::ALL.iter().map(|part| (*part, of(part))).collect();
        Predicted {
            total: Span {
                lo: parts.values().map(|span| span.lo).sum(),
                hi: parts.values().map(|span| span.hi).sum(),
            },
            parts,
            kernels: None,
            limiter: None,
        }
    }
}

fn bounded(found: linear::Bounded) -> Launched {
    Launched {
        limiter: Some(found.limiter),
        ..Launched::one(Part::Linear, found.time)
    }
}

/// A linear layer by cuBLASLt or by `linear.cu`, as the backend decides where the library is installed.
fn linear_layer(m: &CardEnd, shape: Shape, bytes: usize) -> Launched {
    let output = Output {
        halved: false,
        bytes,
    };
    bounded(match taken_by_cublaslt(shape.rows) {
        true => linear::cublaslt(m, shape, output),
        false => linear::kernel(m, shape, output),
    })
}

/// The library leaves the activation to a kernel of its own.
fn gated_layer(m: &CardEnd, shape: Shape) -> Vec<Launched> {
    if taken_by_cublaslt(shape.rows) {
        let activation = rows::gated(m, shape.rows, shape.n / 2);
        return vec![
            bounded(linear::cublaslt(m, shape, Output::HALF)),
            Launched::one(Part::Other, activation),
        ];
    }
    let output = Output {
        halved: true,
        ..Output::HALF
    };
    vec![bounded(linear::kernel(m, shape, output))]
}

#[cfg(test)]
mod tests {
    use super::super::stock;
    use super::*;

    fn both(model: &str, branches: usize) -> [Span; 2] {
        let card = Card::parse("h200").expect("a card");
        let model = Model::find(model).expect("a shape");
        let batch = Batch::decode(card, &model, branches, 512).expect("it fits");
        [batch.predict().total, stock::predict(&batch).total]
    }

    #[test]
    fn the_reviews_batches_are_inside_the_range() {
        // The review's milliseconds of decode batches on an H200 with a prompt of 512, Offshoot at 7daabc2
        // and a stock engine. From 17 rows on Offshoot's linear layers are cuBLASLt's since, and 256 rows
        // are one pass: less than the review has.
        let mut apart = Vec::new();
        for (model, branches, ours, stocks) in [
            ("llama-3.2-1b", 1, [1.25, 1.34], [1.15, 1.15]),
            ("llama-3.2-1b", 64, [1.9, 2.3], [1.6, 2.5]),
            ("llama-3.2-1b", 256, [3.4, 3.4], [3.3, 3.3]),
            ("qwen2.5-7b", 1, [4.15, 4.45], [4.15, 4.3]),
            ("qwen2.5-7b", 64, [7.8, 10.7], [6.2, 6.2]),
            ("qwen2.5-7b", 256, [17.0, 19.5], [12.7, 12.7]),
        ] {
            let [predicted, stock] = both(model, branches);
            let inside = |span: Span, [lo, hi]: [f64; 2]| span.lo <= lo && hi <= span.hi;
            let right = match branches {
                1 => inside(predicted, ours),
                _ => predicted.hi < ours[1],
            };
            if !right || !inside(stock, stocks) {
                apart.push(format!(
                    "{model} x {branches}: {predicted:?}, stock {stock:?}"
                ));
            }
        }
        assert!(apart.is_empty(), "{apart:#?}");
    }

    #[test]
    fn a_batch_is_padded_and_bounded_as_the_engine_does() {
        let card = Card::parse("h200").expect("a card");
        let model = Model::find("llama-3.2-1b").expect("a shape");
        let batch = Batch::decode(card, &model, 5, 64).expect("it fits");
        assert_eq!((batch.rows, batch.draws), (6, 5));
        // 512 MiB of f32 logits of 128,256 tokens.
        assert_eq!(max_branches(card, &model), 1046);
        for branches in [0, 1047] {
            let error = Batch::decode(card, &model, branches, 64).expect_err("it does not fit");
            assert!(error.contains("at most 1046 rows"), "{error}");
        }
        for rows in [0, 2049] {
            let error = Batch::prefill(card, &model, rows).expect_err("it does not fit");
            assert!(error.contains("expected 1 to 2048"), "{error}");
        }
    }
}
