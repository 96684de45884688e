//! The engine: models on a device, and the branches grown on them.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use kernels::{Allocation, Backend, KvDtype, KvLayout, Quantization, philox};

use crate::Error;
use crate::branch::Branch;
use crate::checkpoint::Checkpoint;
use crate::kv::memory::ArenaLayout;
use crate::model::{self, LoadOptions, allocations, shape};
use crate::schedule::devices::Devices;
use crate::schedule::executor::{Executor, ModelShape};
use crate::schedule::local::Local;
use crate::schedule::usage::{FlopRates, KvUsage, Usage};
use crate::schedule::{Placement, Scheduler};
use crate::text::tokenizer::Tokenizer;

/// How an engine is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Bytes of KV cache, shared by all models. `None`: on a device with memory of its own, what is
    /// left beside the weights; else 1 GiB, committed as it is first used.
    pub kv_bytes: Option<usize>,
    /// Tokens in a KV block.
    pub block_tokens: usize,
    /// Storage of K and V; `None`: as each model's weights.
    pub kv_dtype: Option<KvDtype>,
    /// How to keep the matrices of linear layers that are stored in floating point; `None`: as they
    /// are stored. Embeddings, norms, biases and PRMs' heads are never quantised.
    pub quantize: Option<Quantization>,
    /// Rows of one model in one batch, at most. `None`: the device's default.
    pub max_batch_rows: Option<usize>,
    /// Sequences of one model that decode in one batch, at most: the oldest. `None`: as many as
    /// raise the device's throughput.
    pub max_num_seqs: Option<usize>,
    /// Seed of all sampling.
    pub seed: u64,
    /// Whether the next batch is planned and enqueued while one is in flight, before its tokens are
    /// known. Branches are assumed to continue; a row computed for one that ended is wasted.
    /// `None`: the device's default.
    pub async_scheduling: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            kv_bytes: None,
            block_tokens: 16,
            kv_dtype: None,
            quantize: None,
            max_batch_rows: None,
            max_num_seqs: None,
            seed: 0,
            async_scheduling: None,
        }
    }
}

impl Options {
    /// Rows of one model in one batch on `backend`.
    fn batch_rows<B: Backend>(&self, backend: &B) -> usize {
        self.max_batch_rows.unwrap_or(backend.max_batch_rows())
    }
}

/// How many times its context length a model may reach whose context is extended.
const EXTENSION: usize = 8;

/// One model for an engine to load.
#[derive(Clone, Debug)]
pub struct ModelSpec<'a> {
    /// Its weights.
    pub checkpoint: &'a Checkpoint,
    /// A model without a tokenizer samples tokens but has no text, and no stop string ends it.
    pub tokenizer: Option<Rc<Tokenizer>>,
    /// Rows of the LM head that are needed, by token id; `None`: all. A PRM that is read as two
    /// tokens' logits needs only their rows. Without effect on other heads.
    pub head_rows: Option<Vec<u32>>,
    /// Whether branches may have more tokens than the config's context length: eight times as many.
    pub extend_context: bool,
}

impl<'a> ModelSpec<'a> {
    /// A model with all of its head and its own context length.
    pub fn new(checkpoint: &'a Checkpoint, tokenizer: Option<Rc<Tokenizer>>) -> ModelSpec<'a> {
        ModelSpec {
            checkpoint,
            tokenizer,
            head_rows: None,
            extend_context: false,
        }
    }

    /// How the model is loaded beside a KV memory of `kv_bytes`.
    fn load_options<B: Backend>(
        &self,
        backend: &B,
        layout: &KvLayout,
        kv_bytes: usize,
        options: &Options,
    ) -> LoadOptions {
        let context_length = self.checkpoint.config.context_length;
        LoadOptions {
            max_rows: options.batch_rows(backend),
            max_head_bytes: backend.max_head_bytes(),
            context_length: if self.extend_context {
                EXTENSION * context_length
            } else {
                context_length
            },
            kv_tokens: kv_bytes / layout.block_bytes() * layout.block_tokens,
            head_rows: self.head_rows.clone(),
            quantize: options.quantize,
        }
    }
}

/// How K and V of each model lie in a block; the arena's unit is set later.
///
/// # Errors
/// A layout that the backend has no kernel for.
fn kv_layouts<B: Backend>(
    backend: &B,
    specs: &[ModelSpec<'_>],
    options: &Options,
) -> Result<Vec<KvLayout>, Error> {
    (specs.iter())
        .map(|spec| {
            let config = &spec.checkpoint.config;
            let layout = KvLayout {
                layers: config.layers,
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                query_scalar: config.scales.query_scalar,
                block_tokens: options.block_tokens,
                dtype: options.kv_dtype.unwrap_or(backend.kv_dtype(config.dtype)),
                unit_bytes: 64,
            };
            backend.check_layout(&layout)?;
            Ok(layout)
        })
        .collect()
}

/// Polls between two batches, at most: callers on other threads that wake the future without pause must
/// not keep the device waiting.
const MAX_POLLS: usize = 10_000;

/// Models on a device with one KV memory, and the scheduler that feeds them.
#[derive(Clone)]
pub struct Engine {
    scheduler: Rc<RefCell<Scheduler>>,
    kv_bytes: usize,
}

/// Models loaded onto one device: [`Engine::of`] makes an engine of one or several.
pub struct DeviceModels {
    executor: Box<dyn Executor>,
    shapes: Vec<ModelShape>,
    placements: Vec<Placement>,
    tokenizers: Vec<Option<Rc<Tokenizer>>>,
    kv_bytes: usize,
    block_tokens: usize,
}

impl DeviceModels {
    /// Loads models onto `backend`.
    ///
    /// # Errors
    /// A checkpoint whose tensors do not match its config, or too little memory.
    pub fn load<B: Backend + 'static>(
        mut backend: B,
        specs: &[ModelSpec<'_>],
        options: &Options,
    ) -> Result<DeviceModels, Error> {
        let mut layouts = kv_layouts(&backend, specs, options)?;
        let block_bytes: Vec<usize> = layouts.iter().map(KvLayout::block_bytes).collect();
        let max_kv_bytes = options.kv_bytes.unwrap_or(usize::MAX);
        let kept: Vec<Allocation> = (specs.iter().zip(&layouts))
            .flat_map(|(spec, layout)| {
                let load = spec.load_options(&backend, layout, max_kv_bytes, options);
                allocations(spec.checkpoint, layout, &load)
            })
            .collect();
        let kv_bytes = backend.reserve(&kept, &layouts, options.kv_bytes)?;
        let arena_layout = ArenaLayout::new(kv_bytes, &block_bytes);
        for layout in &mut layouts {
            layout.unit_bytes = arena_layout.unit_bytes;
        }
        let arena = backend.arena(arena_layout.bytes())?;
        let mut models = Vec::new();
        let mut shapes = Vec::new();
        for (index, (spec, layout)) in specs.iter().zip(layouts).enumerate() {
            let load = spec.load_options(&backend, &layout, arena_layout.bytes(), options);
            backend.select_model(index);
            let mut shape = shape(&spec.checkpoint.config, &layout, &load);
            shape.max_num_seqs = (options.max_num_seqs)
                .unwrap_or_else(|| backend.max_num_seqs(shape.flops.per_token))
                .max(1);
            shapes.push(shape);
            models.push(model::Model::load(
                &mut backend,
                spec.checkpoint,
                layout,
                &load,
            )?);
        }
        let executor = Box::new(Local::new(backend, arena, models));
        Ok(DeviceModels {
            tokenizers: specs.iter().map(|spec| spec.tokenizer.clone()).collect(),
            ..DeviceModels::over(executor, shapes, &arena_layout, options.block_tokens)
        })
    }

    /// Models of any executor, without tokenizers.
    pub(crate) fn over(
        executor: Box<dyn Executor>,
        shapes: Vec<ModelShape>,
        arena: &ArenaLayout,
        block_tokens: usize,
    ) -> DeviceModels {
        DeviceModels {
            executor,
            tokenizers: vec![None; shapes.len()],
            shapes,
            placements: Placement::all(arena, block_tokens),
            kv_bytes: arena.bytes(),
            block_tokens,
        }
    }
}

impl Engine {
    /// Loads models onto `backend`; they come back in the same order.
    ///
    /// # Errors
    /// A checkpoint whose tensors do not match its config, or too little memory.
    pub fn new<B: Backend + 'static>(
        backend: B,
        specs: &[ModelSpec<'_>],
        options: &Options,
    ) -> Result<(Engine, Vec<Model>), Error> {
        let device = DeviceModels::load(backend, specs, options)?;
        Ok(Engine::of(
            vec![device],
            options.seed,
            options.async_scheduling,
        ))
    }

    /// An engine over the models of all `devices`, which come back in that order. Each device has a
    /// KV cache of its own; batches of different devices run at the same time.
    ///
    /// # Panics
    /// If there is no device, or if the devices' blocks differ in their tokens.
    pub fn of(
        devices: Vec<DeviceModels>,
        seed: u64,
        async_scheduling: Option<bool>,
    ) -> (Engine, Vec<Model>) {
        let block_tokens = devices.first().expect("a device").block_tokens;
        let (mut executors, mut shapes) = (Vec::new(), Vec::new());
        let (mut placements, mut tokenizers) = (Vec::new(), Vec::new());
        let mut kv_bytes = 0;
        for device in devices {
            assert_eq!(device.block_tokens, block_tokens, "tokens in a KV block");
            executors.push((device.executor, device.shapes.len()));
            shapes.extend(device.shapes);
            placements.extend(device.placements);
            tokenizers.extend(device.tokenizers);
            kv_bytes += device.kv_bytes;
        }
        let executor: Box<dyn Executor> = match executors.len() {
            1 => executors.remove(0).0,
            _ => Box::new(Devices::new(executors)),
        };
        let async_scheduling = async_scheduling.unwrap_or(executor.prefers_async());
        let scheduler =
            Scheduler::new(executor, shapes, placements, block_tokens, async_scheduling);
        let scheduler = Rc::new(RefCell::new(scheduler));
        let models = (tokenizers.into_iter().enumerate())
            .map(|(index, tokenizer)| Model {
                scheduler: Rc::clone(&scheduler),
                index,
                tokenizer,
                seed,
            })
            .collect();
        (
            Engine {
                scheduler,
                kv_bytes,
            },
            models,
        )
    }

    /// Panics if an invariant of the KV memory is broken.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.scheduler.borrow().check();
    }

    /// Bytes of the KV cache, on all devices together.
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

    /// Computes one batch: everything that is ready of all requests, one forward pass of each model
    /// that has work. Answers go to the futures that wait for them. Does nothing on an idle engine.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_batch(&self) -> Result<(), Error> {
        let mut scheduler = self.scheduler.borrow_mut();
        if scheduler.busy() {
            scheduler.run_batch()
        } else {
            Ok(())
        }
    }

    /// Runs `future` to its end, computing a batch whenever it waits.
    ///
    /// Many tasks run at once by being joined in one future; their requests between two batches are
    /// computed together.
    ///
    /// # Errors
    /// The device failed, or the future waits for something that is not the engine's.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        self.drive(future, |woken| match woken.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(Error::Stalled),
        })
    }

    /// As [`Engine::run`], for a future that also waits for other threads: while no request waits
    /// for the device, the calling thread sleeps until the future is woken.
    ///
    /// # Errors
    /// The device failed.
    pub fn serve<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        self.drive(future, |woken| {
            while !woken.load(Ordering::Acquire) {
                std::thread::park();
            }
            Ok(())
        })
    }

    /// Polls `future` whenever it was woken, and between two polls computes a batch or, without any
    /// request, calls `idle`.
    fn drive<F: Future>(
        &self,
        future: F,
        idle: impl Fn(&AtomicBool) -> Result<(), Error>,
    ) -> Result<F::Output, Error> {
        struct Flag {
            woken: AtomicBool,
            thread: Thread,
        }
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.woken.store(true, Ordering::Release);
                self.thread.unpark();
            }
        }
        let flag = Arc::new(Flag {
            woken: AtomicBool::new(true),
            thread: std::thread::current(),
        });
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            let mut polls = 0;
            while polls < MAX_POLLS && flag.woken.swap(false, Ordering::Acquire) {
                polls += 1;
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Ok(output);
                }
            }
            if self.is_idle() {
                idle(&flag.woken)?;
            } else {
                self.run_batch()?;
            }
        }
    }
}

/// One of an engine's models.
#[derive(Clone)]
pub struct Model {
    pub(crate) scheduler: Rc<RefCell<Scheduler>>,
    index: usize,
    pub(crate) tokenizer: Option<Rc<Tokenizer>>,
    seed: u64,
}

impl Model {
    /// The same model with another seed of all sampling.
    pub fn with_seed(&self, seed: u64) -> Model {
        Model {
            seed,
            ..self.clone()
        }
    }

    /// An empty branch: the root of a tree. Branches of equal `stream` sample with equal random
    /// numbers.
    pub fn root(&self, stream: u64) -> Branch {
        let key = philox::root_key(self.seed, stream);
        let seq = self.scheduler.borrow_mut().root(self.index, key);
        Branch::new(self.clone(), seq)
    }

    /// Tokens that a branch may have.
    pub fn context_length(&self) -> usize {
        self.scheduler.borrow().shape(self.index).context_length
    }

    /// Layers of the model.
    pub fn num_layers(&self) -> usize {
        self.scheduler.borrow().shape(self.index).layers
    }

    /// What its rows cost.
    pub fn flop_rates(&self) -> FlopRates {
        self.scheduler.borrow().shape(self.index).flops
    }

    /// Work done so far.
    pub fn usage(&self) -> Usage {
        self.scheduler.borrow().usage(self.index)
    }

    /// The KV cache so far.
    pub fn kv_usage(&self) -> KvUsage {
        self.scheduler.borrow().kv_usage(self.index)
    }

    /// Refuses token ids outside of the vocabulary.
    pub(crate) fn check(&self, token_ids: &[u32]) -> Result<(), Error> {
        let vocab = self.scheduler.borrow().shape(self.index).vocab;
        match token_ids.iter().find(|&&t| t as usize >= vocab) {
            Some(&token) => Err(Error::TokenOutOfVocabulary { token, vocab }),
            None => Ok(()),
        }
    }
}
