//! How a token is drawn from logits: the parameters, and the exact arithmetic.

/// The distribution a token is drawn from, given its logits.
///
/// Applied in this order: repetition penalty, temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this. 0 means greedy: the largest logit, the lowest id on a tie.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this times the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens in the history are divided (if positive) or multiplied (if negative) by
    /// this; 1 changes nothing (Keskar et al. 2019, arXiv 1909.05858).
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        }
    }
}

/// One token to draw.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    /// Which row of the logits to draw from.
    pub row: usize,
    /// The distribution.
    pub sampling: &'a Sampling,
    /// Distinct token ids the repetition penalty applies to; ignored when it is 1.
    pub history: &'a [u32],
    /// Philox key: stands for (seed, branch path).
    pub key: u64,
    /// Philox counter: the position of the drawn token in its sequence.
    pub position: u64,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its id.
    pub token: u32,
    /// Its natural-log probability under the model's own distribution: temperature 1, no filter,
    /// no penalty.
    pub logprob: f32,
}
