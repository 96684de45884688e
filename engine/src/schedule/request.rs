//! What branches ask of the engine.

use std::rc::Rc;

use futures::channel::{mpsc, oneshot};
use kernels::{Sample, Sampling};

use crate::Error;
use crate::schedule::sequence::Shared;
use crate::text::stop::StopMatcher;
use crate::text::tokenizer::{TokenStream, Tokenizer};

/// How a branch is to be continued.
#[derive(Clone, Debug)]
pub struct Generate {
    /// The distribution tokens are drawn from.
    pub sampling: Sampling,
    /// Tokens drawn at most.
    pub max_tokens: usize,
    /// Texts that end the generation, wherever they fall in the tokens.
    pub stop_strings: Vec<String>,
    /// Whether the stop string stays part of text and branch.
    pub include_stop: bool,
    /// Token ids that end the generation; they become no part of text or branch.
    pub stop_token_ids: Vec<u32>,
    /// Receives text as it becomes final.
    pub stream: Option<mpsc::UnboundedSender<String>>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This one of the stop strings was completed.
    StopString(usize),
    /// This stop token was drawn.
    StopToken(u32),
    /// `max_tokens` were drawn.
    Length,
    /// The model's context is full.
    Context,
}

/// A branch's continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The tokens the branch grew by. When a stop string ends inside a token, that token is
    /// replaced by the tokens of its part up to there.
    pub token_ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Natural-log probability of every drawn token, a drawn stop token included.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// A request in the scheduler's hands.
pub(crate) struct Request {
    pub seq: Shared,
    pub work: Work,
}

pub(crate) enum Work {
    Generate(Box<Generation>),
    Read(Reading),
}

/// The state of a [`Generate`] under way.
pub(crate) struct Generation {
    pub how: Generate,
    /// Length of the sequence when the request came.
    pub start: usize,
    /// Leading tokens of the sequence that a cut at a stop string has left as they were.
    pub unchanged: usize,
    pub logprobs: Vec<f32>,
    pub matcher: StopMatcher,
    /// Turns tokens into text; `None` for a model without a tokenizer.
    pub detokenizer: Option<Detokenizer>,
    /// Bytes of text already streamed.
    pub streamed: usize,
    /// The draw of its next token, while that is under way.
    pub drawing: Option<Drawing>,
    /// Distinct tokens of the sequence, for the repetition penalty; empty when it is off.
    pub history: Vec<u32>,
    pub reply: oneshot::Sender<Result<Generated, Error>>,
}

/// A draw under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawing {
    /// The number of the scheduler's step.
    pub step: u64,
    /// Which of the draws of its model in that step.
    pub draw: usize,
}

/// Turns the drawn tokens into text.
pub(crate) struct Detokenizer {
    pub tokenizer: Rc<Tokenizer>,
    pub stream: TokenStream,
    /// Length of the sequence when its text was last whole (no character half written).
    pub whole: usize,
}

/// The state of a read-out under way: the head's numbers at some positions.
pub(crate) struct Reading {
    /// By position, ascending.
    pub at: Vec<Wanted>,
    pub reply: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
}

/// The head's numbers at a position.
pub(crate) struct Wanted {
    /// In the sequence.
    pub position: usize,
    /// Whether a step that gives the numbers has been enqueued.
    pub enqueued: bool,
    pub values: Option<Vec<f32>>,
}

impl Request {
    /// Answers with an error.
    pub fn fail(self, error: Error) {
        // A receiver that is gone asked for nothing any more.
        match self.work {
            Work::Generate(g) => drop(g.reply.send(Err(error))),
            Work::Read(r) => drop(r.reply.send(Err(error))),
        }
    }

    /// Positions whose output is still to be computed, ascending.
    pub fn wanted(&self) -> Vec<usize> {
        match &self.work {
            Work::Generate(g) if g.drawing.is_some() => Vec::new(),
            Work::Generate(_) => vec![self.seq.borrow().tokens.len() - 1],
            Work::Read(r) => {
                r.at.iter()
                    .filter(|wanted| !wanted.enqueued)
                    .map(|wanted| wanted.position)
                    .collect()
            }
        }
    }
}

impl Generation {
    /// Whether it is certain to go on after the token that is being drawn, but for stop tokens and
    /// stop strings, and to need nothing else of that token: a repetition penalty needs it on the
    /// host.
    pub fn goes_on(&self, tokens: usize, context_length: usize) -> bool {
        self.logprobs.len() + 1 < self.how.max_tokens
            && tokens + 1 < context_length
            && self.how.sampling.repetition_penalty == 1.0
    }

    /// Takes a drawn token. `Some` when the generation has ended.
    pub fn take(
        &mut self,
        tokens: &mut Vec<u32>,
        sample: Sample,
        context_length: usize,
    ) -> Result<Option<Finish>, Error> {
        self.logprobs.push(sample.logprob);
        if self.how.stop_token_ids.contains(&sample.token) {
            return self.ended(Finish::StopToken(sample.token));
        }
        tokens.push(sample.token);
        if self.how.sampling.repetition_penalty != 1.0 && !self.history.contains(&sample.token) {
            self.history.push(sample.token);
        }
        if let Some(text) = &mut self.detokenizer {
            let piece = text.stream.push(sample.token)?.to_string();
            if !piece.is_empty() {
                let (before, whole) = (self.matcher.text().len(), text.whole);
                text.whole = tokens.len();
                if let Some(stop) = self.matcher.push(&piece) {
                    let keep = if self.how.include_stop {
                        stop.end
                    } else {
                        stop.start
                    };
                    self.cut(tokens, before, whole, keep)?;
                    return Ok(Some(Finish::StopString(stop.index)));
                }
            }
        }
        if self.logprobs.len() >= self.how.max_tokens {
            self.ended(Finish::Length)
        } else if tokens.len() >= context_length {
            self.ended(Finish::Context)
        } else {
            Ok(None)
        }
    }

    /// The end of a generation that no stop string cut: what was held back of the text comes now.
    fn ended(&mut self, finish: Finish) -> Result<Option<Finish>, Error> {
        if let Some(text) = &mut self.detokenizer {
            self.matcher.push(text.stream.finish()?);
        }
        Ok(Some(finish))
    }

    /// Cuts the text to `keep` bytes and makes the tokens match: the tokens up to `whole` spell
    /// the first `before` bytes, what is kept of the rest is encoded anew.
    fn cut(
        &mut self,
        tokens: &mut Vec<u32>,
        before: usize,
        whole: usize,
        keep: usize,
    ) -> Result<(), Error> {
        if keep == self.matcher.text().len() {
            return Ok(());
        }
        let Some(text) = &self.detokenizer else {
            return Ok(());
        };
        // A stop string that began in an earlier piece and is not kept: start from the beginning.
        let (from, length) = if keep >= before {
            (before, whole)
        } else {
            (0, self.start)
        };
        tokens.truncate(length);
        self.unchanged = length;
        let tail = self.matcher.text()[from..keep].to_string();
        self.matcher.truncate(keep);
        if !tail.is_empty() {
            tokens.extend(text.tokenizer.encode(&tail, false)?);
        }
        Ok(())
    }

    /// Sends text that has become final to the stream, all of it when `ended`.
    pub fn stream(&mut self, ended: bool) {
        let Some(stream) = &self.how.stream else {
            return;
        };
        let until = if ended {
            self.matcher.text().len()
        } else {
            self.matcher.settled()
        };
        if until > self.streamed {
            // A receiver that is gone reads nothing any more.
            let _ = stream.unbounded_send(self.matcher.text()[self.streamed..until].to_string());
            self.streamed = until;
        }
    }
}
