//! Branches: partial solutions that are forked, continued and read.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use futures::channel::oneshot;
use kernels::Setting;

use crate::Error;
use crate::engine::Model;
use crate::schedule::request::{
    Detokenizer, Generate, Generated, Generation, Output, ReadRow, Reading, Request, Work,
};
use crate::schedule::sequence::Shared;
use crate::schedule::{RequestId, Scheduler};
use crate::text::stop::StopMatcher;

/// One partial solution: tokens, with their K and V in shared blocks. Dropping it frees the blocks
/// that no other branch holds; dropping a future of it withdraws its request.
pub struct Branch {
    model: Model,
    seq: Shared,
}

impl Branch {
    pub(crate) fn new(model: Model, seq: Shared) -> Branch {
        Branch { model, seq }
    }

    /// A child with the same tokens. It shares everything that is computed; tokens that are not
    /// computed yet are computed once for both. The i-th child samples with random numbers of its
    /// own, by its path.
    pub fn fork(&self) -> Branch {
        let seq = self.model.scheduler.borrow_mut().fork(&self.seq);
        Branch::new(self.model.clone(), seq)
    }

    /// A second branch with the same tokens and the random numbers of this one: what is forked from it
    /// draws as what was forked from this one. It shares everything that is computed.
    pub fn twin(&self) -> Branch {
        let seq = self.model.scheduler.borrow_mut().twin(&self.seq);
        Branch::new(self.model.clone(), seq)
    }

    /// The tokens so far.
    pub fn token_ids(&self) -> Vec<u32> {
        self.seq.borrow().token_ids.clone()
    }

    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.seq.borrow().token_ids.len()
    }

    /// Whether there are no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends tokens. They are computed with the next `generate` or `read`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or more tokens than the context length.
    pub fn append(&mut self, token_ids: &[u32]) -> Result<(), Error> {
        self.model.check(token_ids)?;
        let (tokens, limit) = (self.len() + token_ids.len(), self.model.context_length());
        if tokens > limit {
            return Err(Error::ContextFull { tokens, limit });
        }
        self.seq.borrow_mut().token_ids.extend_from_slice(token_ids);
        Ok(())
    }

    /// Continues the branch.
    ///
    /// # Errors
    /// An empty branch, a full context, memory too small for this branch alone, a tokenizer that
    /// cannot decode.
    pub async fn generate(&mut self, options: Generate) -> Result<Generated, Error> {
        self.resume(0, options).await
    }

    /// Continues a generation that `max_tokens` interrupted: the branch's last `begun` tokens are the
    /// beginning of its text. A stop string may begin in them, and so may a character. Text and token
    /// ids of the result begin with theirs; its other lists are of the new tokens.
    ///
    /// # Errors
    /// As [`Branch::generate`]; more begun tokens than the branch has.
    pub async fn resume(&mut self, begun: usize, options: Generate) -> Result<Generated, Error> {
        let (length, limit) = (self.len(), self.model.context_length());
        let Some(start) = length.checked_sub(begun) else {
            let expected = format!("at most the branch's tokens, {length}");
            return Err(Setting::new("begun", begun, expected).into());
        };
        if length == 0 {
            return Err(Error::EmptyBranch);
        }
        if length >= limit {
            return Err(Error::ContextFull {
                tokens: length + 1,
                limit,
            });
        }
        let mut history = Vec::new();
        if options.sampling.repetition_penalty != 1.0 {
            history = self.token_ids();
            history.sort_unstable();
            history.dedup();
        }
        let mut matcher = StopMatcher::new(&options.stop_strings);
        let mut detokenizer = self.model.tokenizer.as_ref().map(|tokenizer| Detokenizer {
            stream: tokenizer.stream(true),
            tokenizer: Rc::clone(tokenizer),
            whole: start,
        });
        if let Some(text) = &mut detokenizer {
            for (i, &id) in self.seq.borrow().token_ids[start..].iter().enumerate() {
                let piece = text.stream.push(id)?;
                if !piece.is_empty() {
                    matcher.push(piece);
                    text.whole = start + i + 1;
                }
            }
        }
        let (reply, answer) = oneshot::channel();
        let generation = Generation {
            start,
            unchanged: usize::MAX,
            sampled_ids: Vec::new(),
            logprobs: Vec::new(),
            processed_logprobs: Vec::new(),
            confidences: Vec::new(),
            bar: options.confidences.bar(),
            streamed: matcher.text().len(),
            matcher,
            detokenizer,
            in_flight: None,
            history,
            options,
            reply,
        };
        self.request(Work::Generate(Box::new(generation)), answer)
            .await
    }

    /// Appends `token_ids` and reads the head's numbers at the `offsets` of them (ascending):
    /// `[offsets][head width]`.
    ///
    /// # Errors
    /// As [`Branch::append`]; an offset past the end; memory too small for this branch alone.
    pub async fn read(
        &mut self,
        token_ids: &[u32],
        offsets: &[usize],
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.read_output(Output::Head, token_ids, offsets).await
    }

    /// The hidden states of a layer at `positions` of the branch: `[positions][hidden]`. Layers
    /// are counted as in `hidden_states` of Hugging Face's transformers: 0 is the embedding (scaled
    /// where the architecture scales it), `i` the residual stream behind the `i`-th layer, and the
    /// number of layers the stream behind the final norm.
    ///
    /// The rows from the first position on are computed once more; the tokens before it come from
    /// the cache where it has them. A batch gives the hidden states of one layer; reads of other
    /// layers wait for the next.
    ///
    /// # Errors
    /// A layer or position that is not there; memory too small for this branch alone.
    pub async fn hidden_states(
        &self,
        layer: usize,
        positions: Range<usize>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let (layers, tokens) = (self.model.num_layers(), self.token_ids());
        if layer > layers {
            let expected = format!("a number from 0 to {layers}, the model's layers");
            return Err(Setting::new("layer", layer, expected).into());
        }
        if positions.end > tokens.len() || positions.start > positions.end {
            let found = format!("{}..{}", positions.start, positions.end);
            let expected = format!("a range within the branch's {} tokens", tokens.len());
            return Err(Setting::new("positions", found, expected).into());
        }
        let mut copy = self.model.root(0);
        copy.append(&tokens[..positions.start])?;
        let offsets: Vec<usize> = (0..positions.len()).collect();
        copy.read_output(Output::Hidden { layer }, &tokens[positions], &offsets)
            .await
    }

    /// Appends `token_ids` and reads an output at the `offsets` of them.
    async fn read_output(
        &mut self,
        output: Output,
        token_ids: &[u32],
        offsets: &[usize],
    ) -> Result<Vec<Vec<f32>>, Error> {
        let tokens = token_ids.len();
        if let Some(&offset) = offsets.iter().find(|&&offset| offset >= tokens) {
            return Err(Error::NoSuchOffset { offset, tokens });
        }
        let start = self.len();
        self.append(token_ids)?;
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        let row = |&offset: &usize| ReadRow {
            position: start + offset,
            enqueued: false,
            values: None,
        };
        let rows = offsets.iter().map(row).collect();
        let (reply, answer) = oneshot::channel();
        let reading = Reading {
            output,
            rows,
            reply,
        };
        self.request(Work::Read(reading), answer).await
    }

    /// Submits a request and waits for its answer.
    async fn request<T>(
        &self,
        work: Work,
        answer: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        let scheduler = &self.model.scheduler;
        let id = scheduler.borrow_mut().submit(Request {
            seq: Rc::clone(&self.seq),
            work,
        });
        let _withdraw = Withdraw { scheduler, id };
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}

/// Withdraws a request when the future that waits for it is dropped.
struct Withdraw<'a> {
    scheduler: &'a RefCell<Scheduler>,
    id: RequestId,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.scheduler.borrow_mut().withdraw(self.id);
    }
}
