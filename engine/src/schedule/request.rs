//! Requests: the work that branches ask of the engine, and its answers.

use std::rc::Rc;

use futures::channel::{mpsc, oneshot};
use kernels::{Confidence, Sample, Sampling};

use crate::Error;
use crate::schedule::confidence::{ConfidenceWindow, Confidences};
use crate::schedule::sequence::Shared;
use crate::text::stop::StopMatcher;
use crate::text::stream::TokenStream;
use crate::text::tokenizer::Tokenizer;

/// Options of a generation.
#[derive(Clone, Debug)]
pub struct Generate {
    /// The distribution that tokens are sampled from.
    pub sampling: Sampling,
    /// The largest number of tokens sampled.
    pub max_tokens: usize,
    /// Texts that end the generation, wherever they fall in the tokens.
    pub stop_strings: Vec<String>,
    /// Whether the stop string stays part of text and branch.
    pub include_stop: bool,
    /// Token ids that end the generation; they do not become part of text or branch.
    pub stop_token_ids: Vec<u32>,
    /// Receives text as it becomes final.
    pub stream: Option<mpsc::UnboundedSender<String>>,
    /// What is done with the confidences of the tokens.
    pub confidences: Confidences,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This one of the stop strings was completed.
    StopString(usize),
    /// This stop token was sampled.
    StopToken(u32),
    /// `max_tokens` were sampled.
    Length,
    /// The model's context is full.
    Context,
    /// The tokens' confidence fell below the bar of [`Confidences::StopBelow`].
    LowConfidence,
}

/// A branch's continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The tokens the branch grew by. When a stop string ends inside a token, that token is
    /// replaced by the tokens of its part up to the end of the stop string, which were never
    /// sampled: log-probabilities belong to [`Generated::sampled_ids`].
    pub token_ids: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Every token that was sampled, in order: those of a stop string and a stop token included, as
    /// in vLLM's `token_ids`. So importance weights and policy gradients have the tokens that the
    /// probabilities are of. (TensorRT-LLM #18190 trims both lists instead, which loses the
    /// probability of ending.)
    pub sampled_ids: Vec<u32>,
    /// Natural-log probability of every token of `sampled_ids`, one to one, under the model's own
    /// distribution (temperature 1, no filter, no penalty).
    pub logprobs: Vec<f32>,
    /// The same under the distribution that the token was drawn from; 0 for a greedy one.
    pub processed_logprobs: Vec<f32>,
    /// The confidence at every token of `sampled_ids`, one to one; empty unless
    /// [`Generate::confidences`] asks for them.
    pub confidences: Vec<Confidence>,
    /// Why it ended.
    pub finish: Finish,
}

/// A request that the scheduler serves.
pub(crate) struct Request {
    pub seq: Shared,
    pub work: Work,
}

/// The work of a request.
pub(crate) enum Work {
    /// Samples tokens.
    Generate(Box<Generation>),
    /// Reads numbers at some positions.
    Read(Reading),
}

/// The state of a generation.
pub(crate) struct Generation {
    pub options: Generate,
    /// Length of the sequence before the text: when the request came, less what was begun before it.
    pub start: usize,
    /// Leading tokens of the sequence that a cut at a stop string has left unchanged.
    pub unchanged: usize,
    pub sampled_ids: Vec<u32>,
    pub logprobs: Vec<f32>,
    pub processed_logprobs: Vec<f32>,
    pub confidences: Vec<Confidence>,
    /// The bar of [`Confidences::StopBelow`], and the means that it is for.
    pub bar: Option<(f64, ConfidenceWindow)>,
    pub matcher: StopMatcher,
    /// Turns tokens into text; `None` for a model without a tokenizer.
    pub detokenizer: Option<Detokenizer>,
    /// Bytes of text already streamed.
    pub streamed: usize,
    /// The sample of its next token, while that is in flight.
    pub in_flight: Option<InFlightSample>,
    /// Distinct tokens of the sequence, for the repetition penalty; empty when it is off.
    pub history: Vec<u32>,
    pub reply: oneshot::Sender<Result<Generated, Error>>,
}

/// A sample that the device has not delivered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightSample {
    /// The number of the scheduler's batch.
    pub batch: u64,
    /// Which of the draws of its model in that batch.
    pub draw: usize,
}

/// Turns the sampled tokens into text.
pub(crate) struct Detokenizer {
    pub tokenizer: Rc<Tokenizer>,
    pub stream: TokenStream,
    /// Length of the sequence when its text was last whole (without a part of a character at its
    /// end).
    pub whole: usize,
}

/// The state of a read: numbers at some positions.
pub(crate) struct Reading {
    pub output: Output,
    /// By position, ascending.
    pub rows: Vec<ReadRow>,
    pub reply: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
}

/// Which numbers of an output row a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// The head's.
    Head,
    /// The hidden state of a layer.
    Hidden {
        /// As [`Branch::hidden_states`](crate::Branch::hidden_states) counts layers.
        layer: usize,
    },
}

/// The numbers at a position.
pub(crate) struct ReadRow {
    /// In the sequence.
    pub position: usize,
    /// Whether a batch that gives the numbers has been enqueued.
    pub enqueued: bool,
    pub values: Option<Vec<f32>>,
}

impl Request {
    /// Answers with an error.
    pub fn fail(self, error: Error) {
        // A receiver that is gone waits for nothing.
        match self.work {
            Work::Generate(g) => drop(g.reply.send(Err(error))),
            Work::Read(r) => drop(r.reply.send(Err(error))),
        }
    }

    /// Answers with the results; `finish` says why a generation ended.
    pub fn answer(self, finish: Option<Finish>) {
        // A receiver that is gone waits for nothing.
        match (self.work, finish) {
            (Work::Read(reading), _) => {
                let values = reading.rows.into_iter().filter_map(|row| row.values);
                drop(reading.reply.send(Ok(values.collect())));
            }
            (Work::Generate(generation), Some(finish)) => {
                let generated = Generated {
                    token_ids: self.seq.borrow().token_ids[generation.start..].to_vec(),
                    text: generation.matcher.text().to_string(),
                    sampled_ids: generation.sampled_ids,
                    logprobs: generation.logprobs,
                    processed_logprobs: generation.processed_logprobs,
                    confidences: generation.confidences,
                    finish,
                };
                drop(generation.reply.send(Ok(generated)));
            }
            (Work::Generate(_), None) => {}
        }
    }

    /// The generation, if it is one.
    pub fn generation(&mut self) -> Option<&mut Generation> {
        match &mut self.work {
            Work::Generate(generation) => Some(generation),
            Work::Read(_) => None,
        }
    }

    /// The read, if it is one.
    pub fn reading(&mut self) -> Option<&mut Reading> {
        match &mut self.work {
            Work::Generate(_) => None,
            Work::Read(reading) => Some(reading),
        }
    }

    /// The layer whose hidden states it reads.
    pub fn hidden_layer(&self) -> Option<usize> {
        match &self.work {
            Work::Read(Reading {
                output: Output::Hidden { layer },
                ..
            }) => Some(*layer),
            _ => None,
        }
    }

    /// The draw that gives a generation's next token, while it is in flight.
    pub fn in_flight_sample(&self) -> Option<usize> {
        match &self.work {
            Work::Generate(generation) => generation.in_flight.map(|sample| sample.draw),
            Work::Read(_) => None,
        }
    }

    /// Positions whose output is still to be computed, ascending.
    pub fn wanted(&self) -> Vec<usize> {
        match &self.work {
            Work::Generate(g) if g.in_flight.is_some() => Vec::new(),
            Work::Generate(_) => vec![self.seq.borrow().token_ids.len() - 1],
            Work::Read(reading) => (reading.rows.iter())
                .filter(|row| !row.enqueued)
                .map(|row| row.position)
                .collect(),
        }
    }
}

impl Reading {
    /// Notes that a batch that gives the numbers at `position` has been enqueued.
    pub fn mark_enqueued(&mut self, position: usize) {
        let rows = self.rows.iter_mut().filter(|row| row.position == position);
        rows.for_each(|row| row.enqueued = true);
    }

    /// Takes the numbers at `position`. Whether all have come.
    pub fn take(&mut self, position: usize, values: &[f32]) -> bool {
        for row in self.rows.iter_mut().filter(|row| row.position == position) {
            row.values = Some(values.to_vec());
        }
        self.rows.iter().all(|row| row.values.is_some())
    }
}

impl Generation {
    /// Whether it continues after the in-flight token unless a stop token, a stop string or a low
    /// confidence ends it, and needs nothing of that token on the host, as a repetition penalty does. `tokens` is the
    /// sequence's length.
    pub fn continues(&self, tokens: usize, context_length: usize) -> bool {
        self.logprobs.len() + 1 < self.options.max_tokens
            && tokens + 1 < context_length
            && self.options.sampling.repetition_penalty == 1.0
    }

    /// Takes a sampled token. `Some` when the generation has ended.
    ///
    /// # Errors
    /// A tokenizer that cannot decode or encode.
    pub fn take(
        &mut self,
        tokens: &mut Vec<u32>,
        sample: Sample,
        context_length: usize,
    ) -> Result<Option<Finish>, Error> {
        self.sampled_ids.push(sample.token_id);
        self.logprobs.push(sample.logprob);
        self.processed_logprobs.push(sample.processed_logprob);
        let too_low = self.take_confidence(sample.confidence);
        if self.options.stop_token_ids.contains(&sample.token_id) {
            return self.ended(Finish::StopToken(sample.token_id));
        }
        tokens.push(sample.token_id);
        if self.options.sampling.repetition_penalty != 1.0
            && !self.history.contains(&sample.token_id)
        {
            self.history.push(sample.token_id);
        }
        if let Some(text) = &mut self.detokenizer {
            let piece = text.stream.push(sample.token_id)?.to_string();
            if !piece.is_empty() {
                let (before, whole) = (self.matcher.text().len(), text.whole);
                text.whole = tokens.len();
                if let Some(stop) = self.matcher.push(&piece) {
                    let keep = if self.options.include_stop {
                        stop.end
                    } else {
                        stop.start
                    };
                    self.cut(tokens, before, whole, keep)?;
                    return Ok(Some(Finish::StopString(stop.index)));
                }
            }
        }
        if too_low {
            self.ended(Finish::LowConfidence)
        } else if self.logprobs.len() >= self.options.max_tokens {
            self.ended(Finish::Length)
        } else if tokens.len() >= context_length {
            self.ended(Finish::Context)
        } else {
            Ok(None)
        }
    }

    /// Takes the confidence at a token; whether the bar ends the generation there.
    fn take_confidence(&mut self, confidence: Option<Confidence>) -> bool {
        let Some(confidence) = confidence else {
            return false;
        };
        self.confidences.push(confidence);
        let Some((bar, window)) = &mut self.bar else {
            return false;
        };
        window.push(confidence.top).is_some_and(|mean| mean < *bar)
    }

    /// Ends a generation without a stop string: text that was held back is final now.
    fn ended(&mut self, finish: Finish) -> Result<Option<Finish>, Error> {
        if let Some(text) = &mut self.detokenizer {
            self.matcher.push(text.stream.finish()?);
        }
        Ok(Some(finish))
    }

    /// Cuts the text to `keep` bytes and makes the tokens match: the tokens up to `whole` spell the
    /// first `before` bytes; the kept rest of the text is encoded again.
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
        let Some(stream) = &self.options.stream else {
            return;
        };
        let until = if ended {
            self.matcher.text().len()
        } else {
            self.matcher.settled()
        };
        if until > self.streamed {
            // A receiver that is gone reads nothing.
            let _ = stream.unbounded_send(self.matcher.text()[self.streamed..until].to_string());
            self.streamed = until;
        }
    }
}
