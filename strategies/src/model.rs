//! The two models a strategy talks to. It sees text, scores and branches; never a tensor, a
//! block or a device.
//!
//! Both traits are single-threaded: futures need not be `Send`. All batching happens below
//! them, so a strategy simply awaits many branches at once.

use crate::Error;
use engine::{Confidence, Confidences, Finish, Sampling};

/// The model that writes.
#[expect(
    async_fn_in_trait,
    reason = "strategies run on one thread; no bound on the futures is wanted"
)]
pub trait Policy {
    /// One partial solution. Dropping it frees its memory.
    type Branch;

    /// Opens the stem of `problem`: everything the model reads before its first own token.
    ///
    /// `stream` keys all random numbers of this tree, together with a branch's path and the
    /// position of the token.
    async fn start(&self, problem: &str, stream: u64) -> Result<Self::Branch, Error>;

    /// A second branch with the same content, in O(1). The i-th fork (from 0) of a branch with
    /// path `p` has the path `p/i`, whatever was written on either in between.
    fn fork(&self, branch: &Self::Branch) -> Self::Branch;

    /// A second stem with the same content, in O(1), of which the i-th fork (from 0) has the path that the
    /// i-th fork of `stem` has. `stem` is as [`start`](Policy::start) gave it.
    fn twin(&self, stem: &Self::Branch) -> Self::Branch;

    /// Writes up to and including the next delimiter, or to the end of sequence, or until
    /// `params.max_tokens` (or the model's context) is used up.
    async fn step(&self, branch: &mut Self::Branch, params: &StepParams<'_>)
    -> Result<Step, Error>;

    /// Tokens on a branch: the prompt and all that was written.
    fn num_tokens(&self, branch: &Self::Branch) -> usize;

    /// Appends a text that the policy did not write; false, and nothing is appended, if the context has no
    /// room for it and a token more.
    ///
    /// # Errors
    /// The model takes no texts (unless a policy says otherwise); its own failures.
    fn append(&self, branch: &mut Self::Branch, text: &str) -> Result<bool, Error> {
        let _ = (branch, text);
        Err(Error::NoTexts)
    }

    /// The text of a branch from its token number `from` on, without ends of sequence: what was written and
    /// what was appended.
    ///
    /// # Errors
    /// As [`Policy::append`].
    fn text(&self, branch: &Self::Branch, from: usize) -> Result<String, Error> {
        let _ = (branch, from);
        Err(Error::NoTexts)
    }

    /// Whether a branch has as many tokens as the context.
    ///
    /// # Errors
    /// It has, and that is to be an error ([`ContextOverflow::Refuse`](crate::ContextOverflow::Refuse)).
    fn is_full(&self, branch: &Self::Branch) -> Result<bool, Error> {
        let _ = branch;
        Ok(false)
    }

    /// Whether what the model reads before its first own token ends with `text`, white space aside.
    ///
    /// # Errors
    /// A prompt that cannot be made.
    fn prompt_ends_with(&self, problem: &str, text: &str) -> Result<bool, Error> {
        let _ = (problem, text);
        Ok(false)
    }

    /// The sum of the final hidden states of the branch's last `tokens` tokens, `[hidden]`: with it a
    /// strategy sees which branches say the same.
    ///
    /// # Errors
    /// The model has no hidden states to read (unless a policy says otherwise); its own failures.
    async fn hidden_sum(&self, branch: &Self::Branch, tokens: usize) -> Result<Vec<f64>, Error> {
        let _ = (branch, tokens);
        Err(Error::NoHiddenStates)
    }
}

/// The model that scores: a process reward model.
#[expect(
    async_fn_in_trait,
    reason = "strategies run on one thread; no bound on the futures is wanted"
)]
pub trait Prm {
    /// One solution as far as it has been scored. Dropping it frees its memory.
    type Branch;

    /// Opens the stem of `problem`, before any step.
    async fn start(&self, problem: &str) -> Result<Self::Branch, Error>;

    /// A second branch with the same content, in O(1).
    fn fork(&self, branch: &Self::Branch) -> Self::Branch;

    /// Appends `steps` and returns one score for each, processing only their tokens. A score
    /// depends on the problem and the steps up to its own, never on how calls were split.
    async fn score(&self, branch: &mut Self::Branch, steps: &[&str]) -> Result<Vec<f64>, Error>;

    /// Tokens on a branch: the problem and every step that was read.
    fn num_tokens(&self, branch: &Self::Branch) -> usize;
}

/// How the next step is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepParams<'a> {
    /// Text that ends a step and belongs to it; `None` writes the whole solution.
    pub delimiter: Option<&'a str>,
    /// Whether it stays on the branch and in the text.
    pub include_delimiter: bool,
    /// The maximum number of tokens to write.
    pub max_tokens: usize,
    /// Tokens at the branch's end that are the beginning of the step: an earlier call wrote them and ended
    /// by its `max_tokens`. The step that the call gives has their text too, but counts the new tokens
    /// alone.
    pub begun: usize,
    /// How a token is drawn.
    pub sampling: Sampling,
    /// What is done with the confidences of the tokens.
    pub confidences: Confidences,
}

/// The text of one call of [`Policy::step`].
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The new text, with its delimiter, without any end-of-sequence token.
    pub text: String,
    /// Tokens written, the end-of-sequence token included.
    pub num_tokens: usize,
    /// Sum of their log-probabilities, in nats.
    pub logprob: f64,
    /// The confidence at every token, one to one; empty unless [`StepParams::confidences`] asks for
    /// them.
    pub confidences: Vec<Confidence>,
    /// Why it ended.
    pub end: StepEnd,
}

impl Step {
    /// Nothing, where there was no room for a token.
    pub fn no_room() -> Step {
        Step {
            text: String::new(),
            num_tokens: 0,
            logprob: 0.0,
            confidences: Vec::new(),
            end: StepEnd::Length,
        }
    }
}

/// Why a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// The delimiter was written.
    Delimiter,
    /// An end-of-sequence token was drawn.
    Eos,
    /// The token limit or the context was used up.
    Length,
    /// The confidence fell below the bar of [`Confidences::StopBelow`].
    LowConfidence,
}

impl StepEnd {
    /// How a step ended whose generation ended so.
    pub fn of(finish: Finish) -> StepEnd {
        match finish {
            Finish::StopString(_) => StepEnd::Delimiter,
            Finish::StopToken(_) => StepEnd::Eos,
            Finish::Length | Finish::Context => StepEnd::Length,
            Finish::LowConfidence => StepEnd::LowConfidence,
        }
    }
}

/// The reward model of strategies that need none: `solve(&policy, None::<&NoPrm>, ..)`. It has
/// no values, so its methods can never run.
#[derive(Debug, Clone, Copy)]
pub enum NoPrm {}

impl Prm for NoPrm {
    type Branch = NoPrm;

    async fn start(&self, _: &str) -> Result<NoPrm, Error> {
        match *self {}
    }

    fn fork(&self, branch: &NoPrm) -> NoPrm {
        *branch
    }

    async fn score(&self, branch: &mut NoPrm, _: &[&str]) -> Result<Vec<f64>, Error> {
        match *branch {}
    }

    fn num_tokens(&self, branch: &NoPrm) -> usize {
        match *branch {}
    }
}
