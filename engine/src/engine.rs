//! The engine: models on a device, and the branches grown on them.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::channel::oneshot;
use kernels::{Backend, DEFAULT_KV_BYTES, KvDtype, KvLayout, Quantization, philox};

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::executor::{Executor, ModelShape};
use crate::kv::memory::Cut;
use crate::kv::{KvMemory, SharedMemory};
use crate::local::Local;
use crate::request::{
    Detokenizer, Generate, Generated, Generation, Reading, Request, Wanted, Work,
};
use crate::scheduler::{Limits, RequestId, Scheduler};
use crate::sequence::Shared;
use crate::stop::StopMatcher;
use crate::tokenizer::Tokenizer;
use crate::usage::{KvUsage, Usage};

/// How an engine is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bytes of KV cache, shared by all models. `None`: what a device with memory of its own has left
    /// beside the weights, else 1 GiB, committed as it is first used.
    pub kv_bytes: Option<usize>,
    /// Tokens in a KV block.
    pub block_tokens: usize,
    /// Storage of K and V; `None`: as each model's weights.
    pub kv_dtype: Option<KvDtype>,
    /// How the matrices of products are kept that are stored in floating point; `None`: as they
    /// are. Embeddings, norms, biases and PRMs' heads always are.
    pub quantize: Option<Quantization>,
    /// Rows of one model in one device step.
    pub rows: usize,
    /// Seed of all sampling.
    pub seed: u64,
    /// Whether the next step is planned and enqueued while one runs, before its tokens are known:
    /// a branch is assumed to go on, and where it ended a row was computed in vain. `None`: as it
    /// suits the device.
    pub run_ahead: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            kv_bytes: None,
            block_tokens: 16,
            kv_dtype: None,
            quantize: None,
            rows: 512,
            seed: 0,
            run_ahead: None,
        }
    }
}

/// How many times its config's positions a model that runs on may reach.
const RUN_ON: usize = 8;

/// One model for an engine to load, and how it is to be used.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Its weights.
    pub checkpoint: &'a Checkpoint,
    /// A model without a tokenizer draws tokens but no text, and no stop string ends it.
    pub tokenizer: Option<Rc<Tokenizer>>,
    /// Rows of the LM head that are wanted, by token id; `None`: all. A PRM that is read as two
    /// tokens' logits has no use for the others. Without effect on other heads.
    pub head_rows: Option<Vec<u32>>,
    /// Whether branches may have more tokens than the config's positions: eight times as many.
    pub run_on: bool,
}

impl<'a> Part<'a> {
    /// A model used as its config says.
    pub fn new(checkpoint: &'a Checkpoint, tokenizer: Option<Rc<Tokenizer>>) -> Part<'a> {
        Part {
            checkpoint,
            tokenizer,
            head_rows: None,
            run_on: false,
        }
    }
}

/// Models on a device with one KV memory, and the scheduler that feeds them.
#[derive(Clone)]
pub struct Engine {
    scheduler: Rc<RefCell<Scheduler>>,
    kv_bytes: usize,
}

impl Engine {
    /// Loads models onto `backend`; they come back in the same order.
    ///
    /// # Errors
    /// A checkpoint that does not hold what its config promises, or too little memory.
    pub fn new<B: Backend + 'static>(
        mut backend: B,
        parts: &[Part<'_>],
        options: &Options,
    ) -> Result<(Engine, Vec<Model>), Error> {
        let mut layouts: Vec<KvLayout> = (parts.iter())
            .map(|part| {
                let c = &part.checkpoint.config;
                KvLayout {
                    layers: c.layers,
                    heads: c.heads,
                    kv_heads: c.kv_heads,
                    head_dim: c.head_dim,
                    query_scalar: c.head_dim,
                    block_tokens: options.block_tokens,
                    dtype: options.kv_dtype.unwrap_or(backend.kv_dtype(c.dtype)),
                    unit_bytes: 64,
                }
            })
            .collect();
        for layout in &layouts {
            backend.check_layout(layout)?;
        }
        let blocks: Vec<usize> = layouts.iter().map(KvLayout::block_bytes).collect();
        let load = |backend: &mut B, part: &Part<'_>, layout: KvLayout, kv_bytes: usize| {
            let config = &part.checkpoint.config;
            let how = crate::model::Use {
                max_rows: options.rows,
                max_positions: match part.run_on {
                    true => RUN_ON * config.max_positions,
                    false => config.max_positions,
                },
                capacity: kv_bytes / layout.block_bytes() * layout.block_tokens,
                head_rows: part.head_rows.clone(),
                quantize: options.quantize,
            };
            let shape = crate::model::shape(config, &layout, &how);
            let model = crate::model::Model::load(backend, part.checkpoint, layout, &how)?;
            Ok::<_, Error>((model, shape))
        };
        let kv_bytes = match backend.count_memory() {
            false => options.kv_bytes,
            true => {
                let most = options.kv_bytes.unwrap_or(usize::MAX);
                for (part, &layout) in parts.iter().zip(&layouts) {
                    load(&mut backend, part, layout, most)?;
                }
                let least = blocks.iter().sum();
                Some(backend.reserve(options.kv_bytes, least)?)
            }
        };
        let cut = Cut::new(kv_bytes.unwrap_or(DEFAULT_KV_BYTES), &blocks);
        for layout in &mut layouts {
            layout.unit_bytes = cut.unit_bytes;
        }
        let arena = backend.arena(cut.supers * cut.super_bytes)?;
        let mut models = Vec::new();
        let mut shapes = Vec::new();
        for (part, layout) in parts.iter().zip(layouts) {
            let bytes = cut.supers * cut.super_bytes;
            let (model, shape) = load(&mut backend, part, layout, bytes)?;
            models.push(model);
            shapes.push(shape);
        }
        let executor = Box::new(Local::new(backend, arena, models));
        let engine = Engine::over(executor, shapes, &cut, options);
        let models = (parts.iter().enumerate())
            .map(|(index, part)| Model {
                scheduler: Rc::clone(&engine.scheduler),
                index,
                tokenizer: part.tokenizer.clone(),
                seed: options.seed,
            })
            .collect();
        Ok((engine, models))
    }

    /// An engine over any executor; its models have no tokenizer.
    pub(crate) fn over(
        executor: Box<dyn Executor>,
        shapes: Vec<ModelShape>,
        cut: &Cut,
        options: &Options,
    ) -> Engine {
        let memory: SharedMemory = Rc::new(RefCell::new(KvMemory::new(cut, options.block_tokens)));
        let limits = Limits {
            rows: options.rows,
            block_tokens: options.block_tokens,
        };
        let run_ahead = options.run_ahead.unwrap_or(executor.runs_ahead());
        Engine {
            kv_bytes: cut.supers * cut.super_bytes,
            scheduler: Rc::new(RefCell::new(Scheduler::new(
                executor, shapes, memory, limits, run_ahead,
            ))),
        }
    }

    /// A model without a tokenizer.
    #[cfg(test)]
    pub(crate) fn bare_model(&self, index: usize, seed: u64) -> Model {
        Model {
            scheduler: Rc::clone(&self.scheduler),
            index,
            tokenizer: None,
            seed,
        }
    }

    /// Panics if an invariant of the KV memory is broken.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.scheduler.borrow().check();
    }

    /// Bytes of the KV cache.
    pub fn kv_bytes(&self) -> usize {
        self.kv_bytes
    }

    /// The device in words.
    pub fn device(&self) -> String {
        self.scheduler.borrow().device()
    }

    /// Whether no request waits for the device.
    pub fn is_idle(&self) -> bool {
        !self.scheduler.borrow().busy()
    }

    /// Computes one batch: whatever is ready of all requests, one forward pass of every model that has
    /// work. Answers go to the futures that wait for them. Does nothing on an idle engine.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_batch(&self) -> Result<(), Error> {
        let mut scheduler = self.scheduler.borrow_mut();
        match scheduler.busy() {
            true => scheduler.step(),
            false => Ok(()),
        }
    }

    /// Runs `future` to its end, stepping the device whenever it waits.
    ///
    /// Many tasks run at once by being joined in one future; what they ask for between two steps
    /// is computed together.
    ///
    /// # Errors
    /// The device failed, or the future waits for something that is not the engine's.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            while flag.0.swap(false, Ordering::Relaxed) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Ok(output);
                }
            }
            if self.is_idle() {
                return Err(Error::Stalled);
            }
            self.run_batch()?;
        }
    }
}

/// One of an engine's models.
#[derive(Clone)]
pub struct Model {
    scheduler: Rc<RefCell<Scheduler>>,
    index: usize,
    tokenizer: Option<Rc<Tokenizer>>,
    seed: u64,
}

impl Model {
    /// An empty branch: the root of a tree. Branches of equal `stream` draw equal random numbers.
    pub fn root(&self, stream: u64) -> Branch {
        let key = philox::root_key(self.seed, stream);
        let seq = self.scheduler.borrow_mut().root(self.index, key);
        Branch {
            model: self.clone(),
            seq,
        }
    }

    /// Tokens a branch may have.
    pub fn max_positions(&self) -> usize {
        self.scheduler.borrow().shape(self.index).max_positions
    }

    /// Work done so far.
    pub fn usage(&self) -> Usage {
        self.scheduler.borrow().usage(self.index)
    }

    /// The KV cache so far.
    pub fn kv_usage(&self) -> KvUsage {
        self.scheduler.borrow().kv_usage(self.index)
    }

    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        let vocab = self.scheduler.borrow().shape(self.index).vocab;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(&token) => Err(Error::TokenOutOfVocabulary { token, vocab }),
            None => Ok(()),
        }
    }
}

/// One partial solution: tokens, with their K and V in shared blocks. Dropping it frees what only
/// it held; dropping a future of it takes its request back.
pub struct Branch {
    model: Model,
    seq: Shared,
}

impl Branch {
    /// A child with the same tokens, sharing everything computed and, once, everything that is
    /// still to be computed. The i-th child draws random numbers of its own, by its path.
    pub fn fork(&self) -> Branch {
        let seq = self.model.scheduler.borrow_mut().fork(&self.seq);
        Branch {
            model: self.model.clone(),
            seq,
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> Vec<u32> {
        self.seq.borrow().tokens.clone()
    }

    /// Number of tokens so far.
    pub fn len(&self) -> usize {
        self.seq.borrow().tokens.len()
    }

    /// Whether there are no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends tokens. They are computed when something is first asked of them.
    ///
    /// # Errors
    /// A token outside the vocabulary, or more tokens than the model has positions.
    pub fn append(&mut self, tokens: &[u32]) -> Result<(), Error> {
        self.model.check(tokens)?;
        let (len, limit) = (self.len() + tokens.len(), self.model.max_positions());
        if len > limit {
            return Err(Error::ContextFull { tokens: len, limit });
        }
        self.seq.borrow_mut().tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Continues the branch.
    ///
    /// # Errors
    /// An empty branch, a full context, memory too small for this branch alone, a tokenizer that
    /// cannot decode.
    pub async fn generate(&mut self, how: Generate) -> Result<Generated, Error> {
        let (start, limit) = (self.len(), self.model.max_positions());
        if start == 0 {
            return Err(Error::EmptyBranch);
        }
        if start >= limit {
            return Err(Error::ContextFull {
                tokens: start + 1,
                limit,
            });
        }
        let (reply, answer) = oneshot::channel();
        let history = match how.sampling.repetition_penalty == 1.0 {
            true => Vec::new(),
            false => {
                let mut tokens = self.tokens();
                tokens.sort_unstable();
                tokens.dedup();
                tokens
            }
        };
        let detokenizer = self.model.tokenizer.as_ref().map(|tokenizer| Detokenizer {
            stream: tokenizer.stream(true),
            tokenizer: Rc::clone(tokenizer),
            whole: start,
        });
        let generation = Generation {
            start,
            unchanged: usize::MAX,
            logprobs: Vec::new(),
            matcher: StopMatcher::new(&how.stop_strings),
            detokenizer,
            streamed: 0,
            drawing: None,
            history,
            how,
            reply,
        };
        self.ask(Work::Generate(Box::new(generation)), answer).await
    }

    /// Appends `tokens` and reads the head's numbers at the offsets `at` of them (ascending).
    ///
    /// # Errors
    /// As [`Branch::append`]; an offset of no token; memory too small for this branch alone.
    pub async fn read(&mut self, tokens: &[u32], at: &[usize]) -> Result<Vec<Vec<f32>>, Error> {
        if let Some(&offset) = at.iter().find(|&&at| at >= tokens.len()) {
            let tokens = tokens.len();
            return Err(Error::NoSuchOffset { offset, tokens });
        }
        let start = self.len();
        self.append(tokens)?;
        let at: Vec<_> = (at.iter())
            .map(|&at| Wanted {
                position: start + at,
                enqueued: false,
                values: None,
            })
            .collect();
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Work::Read(Reading { at, reply }), answer).await
    }

    async fn ask<T>(
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

/// Takes a request back when the future that waits for it is dropped.
struct Withdraw<'a> {
    scheduler: &'a RefCell<Scheduler>,
    id: RequestId,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.scheduler.borrow_mut().withdraw(self.id);
    }
}
