//! The scheduler: which rows of which sequences the device computes next.
//!
//! [`Scheduler::run_batch`] has three phases:
//!
//! 1. [`Scheduler::schedule`] gathers, for each model, everything that is ready from all requests:
//!    one row for each sequence that decodes, then chunks of sequences with more to compute, up to
//!    the row limit. Nothing waits for a batch to end.
//! 2. [`Scheduler::launch`] turns each draft into a plan and enqueues it on the device.
//! 3. [`Scheduler::deliver`] hands samples and numbers of finished batches to their requests.
//!
//! Around it:
//!
//! - [`request`]: the work that branches ask for, and their answers.
//! - [`sequence`]: the tokens of a branch, how far they are computed, the states it goes through.
//! - [`batch`]: the batch being built.
//! - [`confidence`]: confidences of tokens, and the bar that ends a generation.
//! - [`preemption`]: blocks for a sequence in need, taken from others.
//! - [`executor`]: the seam to devices; [`local`] is the one over a `Backend`, [`devices`] several of
//!   them as one.
//! - [`usage`]: counts of the work done.
//! - `simulation`: random programs on a simulated device (tests only).
//!
//! # Async scheduling
//!
//! A device that works on its own gets its next batch before the one in flight is done, so that it
//! never waits for the host. The tokens that the batch in flight samples are not known then. A
//! branch is assumed to continue, and its row takes the sampled token on the device
//! ([`Batch::substitutions`]). When the branch turns out to have ended, the row is wasted and its slot in
//! the table is taken back ([`Table::take_back`]). That is safe because a device works in order:
//! the next owner of the slot writes to it later. For the same reason blocks count as computed as
//! soon as their batch is enqueued. Between two calls of [`Scheduler::run_batch`] all tokens in all
//! tables are known.

mod batch;
pub(crate) mod confidence;
pub(crate) mod devices;
pub(crate) mod executor;
pub(crate) mod local;
mod preemption;
pub(crate) mod request;
pub(crate) mod sequence;
#[cfg(test)]
mod simulation;
pub(crate) mod usage;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use kernels::Sample;

use crate::Error;
use crate::kv::memory::ArenaLayout;
use crate::kv::{KvMemory, SharedMemory, Table};
use batch::{BatchDraft, Chunk, OutputRead, WantedOutput};
use executor::{Batch, BatchResult, Executor, ModelShape};
use request::{Finish, InFlightSample, Output, Request, Work};
use sequence::{Sequence, Shared, State};
use usage::{KvUsage, Usage};

/// Where the KV blocks of a model lie.
#[derive(Clone)]
pub(crate) struct Placement {
    /// The memory of its device.
    pub memory: SharedMemory,
    /// Its pool there.
    pub pool: usize,
}

impl Placement {
    /// The placements of all models of an arena, in its order.
    pub fn all(arena: &ArenaLayout, block_tokens: usize) -> Vec<Placement> {
        let memory: SharedMemory = Rc::new(RefCell::new(KvMemory::new(arena, block_tokens)));
        let place = |pool| Placement {
            memory: Rc::clone(&memory),
            pool,
        };
        (0..arena.strides.len()).map(place).collect()
    }

    /// Whether two models share one memory.
    fn same_memory(&self, other: &Placement) -> bool {
        Rc::ptr_eq(&self.memory, &other.memory)
    }
}

/// Requests, the sequences they are on, and the batches in flight for them.
pub(crate) struct Scheduler {
    executor: Box<dyn Executor>,
    models: Vec<ModelShape>,
    /// Of every model.
    placements: Vec<Placement>,
    /// Tokens in a KV block.
    block_tokens: usize,
    async_scheduling: bool,
    /// Calls of [`Scheduler::run_batch`] that enqueued something or waited for it.
    batches: u64,
    /// Enqueued by the last call and not waited for.
    in_flight: Vec<InFlight>,
    /// By arrival.
    requests: BTreeMap<RequestId, Request>,
    next_request: RequestId,
    /// Every sequence there is, for finding victims.
    sequences: Vec<Weak<RefCell<Sequence>>>,
    next_age: u64,
    usage: Vec<Usage>,
    /// Tokens a stateless engine would have computed for the requests answered.
    needed: Vec<u64>,
    unshared_peak: Vec<usize>,
}

/// The number of a request, in the order of arrival.
pub(crate) type RequestId = u64;

/// One model's batch on the device, and whom its outputs are for.
struct InFlight {
    model: usize,
    batch: u64,
    /// For every draw, its request.
    drawn_for: Vec<RequestId>,
    reads: Vec<OutputRead>,
}

impl Scheduler {
    pub fn new(
        executor: Box<dyn Executor>,
        models: Vec<ModelShape>,
        placements: Vec<Placement>,
        block_tokens: usize,
        async_scheduling: bool,
    ) -> Scheduler {
        Scheduler {
            usage: vec![Usage::default(); models.len()],
            needed: vec![0; models.len()],
            unshared_peak: vec![0; models.len()],
            executor,
            models,
            placements,
            block_tokens,
            async_scheduling,
            batches: 0,
            in_flight: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            sequences: Vec::new(),
            next_age: 0,
        }
    }

    /// The device in words.
    pub fn device(&self) -> String {
        self.executor.device()
    }

    pub fn shape(&self, model: usize) -> &ModelShape {
        &self.models[model]
    }

    pub fn usage(&self, model: usize) -> Usage {
        let mut usage = self.usage[model];
        usage.tokens_reused = self.needed[model].saturating_sub(usage.tokens_processed);
        usage
    }

    pub fn kv_usage(&self, model: usize) -> KvUsage {
        let Placement { memory, pool } = &self.placements[model];
        let memory = memory.borrow();
        KvUsage {
            block_tokens: self.block_tokens,
            block_bytes: self.models[model].block_bytes,
            live_blocks: memory.live(*pool),
            peak_blocks: memory.peak_live(*pool),
            unshared_blocks: self.unshared_peak[model],
            cached_blocks: memory.cached(*pool),
        }
    }

    #[cfg(test)]
    pub fn check(&self) {
        for placement in &self.placements {
            placement.memory.borrow().check();
        }
    }

    fn age(&mut self) -> u64 {
        self.next_age += 1;
        self.next_age
    }

    fn register(&mut self, sequence: Sequence) -> Shared {
        let shared = Rc::new(RefCell::new(sequence));
        self.sequences.push(Rc::downgrade(&shared));
        shared
    }

    /// The root of a new tree.
    pub fn root(&mut self, model: usize, key: u64) -> Shared {
        let age = self.age();
        let Placement { memory, pool } = &self.placements[model];
        let table = Table::new(memory, *pool, self.block_tokens);
        self.register(Sequence::root(model, (age, age), table, key))
    }

    /// A child of `parent`.
    pub fn fork(&mut self, parent: &Shared) -> Shared {
        let key = parent.borrow_mut().next_key();
        self.child(parent, key)
    }

    /// A sequence with the tokens of another and its random numbers.
    pub fn twin(&mut self, of: &Shared) -> Shared {
        let key = of.borrow().key;
        self.child(of, key)
    }

    fn child(&mut self, parent: &Shared, key: u64) -> Shared {
        let tree = parent.borrow().age.0;
        let stem_age = (tree, self.age());
        let age = (tree, self.age());
        let (child, stem) = parent.borrow_mut().child(key, age, stem_age);
        if let Some(stem) = stem {
            self.sequences.push(Rc::downgrade(&stem));
        }
        self.register(child)
    }

    /// Takes a request.
    pub fn submit(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        self.requests.insert(self.next_request, request);
        self.next_request
    }

    /// Forgets a request whose future was dropped.
    pub fn withdraw(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// Whether any request waits.
    pub fn busy(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Schedules and launches one batch of every model that has work, and delivers what is done:
    /// that batch or, with async scheduling, the one before.
    ///
    /// # Errors
    /// A device that failed: no request can be served any more.
    pub fn run_batch(&mut self) -> Result<(), Error> {
        let drafts = self.schedule();
        let idle = drafts.iter().all(BatchDraft::is_empty);
        self.free_stuck_memories(&drafts);
        if idle && self.in_flight.is_empty() {
            return Ok(());
        }
        if !idle {
            self.count_unshared();
        }
        self.batches += 1;
        let mut launched = Vec::new();
        for (model, draft) in drafts.into_iter().enumerate() {
            if !draft.is_empty() {
                launched.push(self.launch(model, draft)?);
            }
        }
        let done = if self.async_scheduling {
            std::mem::replace(&mut self.in_flight, launched)
        } else {
            launched
        };
        for batch in done {
            let result = self.executor.finish()?;
            self.deliver(batch, &result);
        }
        Ok(())
    }

    /// Phase 1: a draft for every model, decoding sequences first, then the others, each oldest
    /// first.
    fn schedule(&mut self) -> Vec<BatchDraft> {
        self.sequences.retain(|s| s.strong_count() > 0);
        let mut drafts: Vec<BatchDraft> = (self.models.iter())
            .map(|_| BatchDraft::default())
            .collect();
        let mut order: Vec<(bool, (u64, u64), RequestId)> = (self.requests.iter())
            .map(|(&id, request)| {
                let seq = request.seq.borrow();
                (seq.state() != State::Decoding, seq.age, id)
            })
            .collect();
        order.sort_unstable();
        let mut decoding = vec![0; self.models.len()];
        for (waits, _, id) in order {
            let request = &self.requests[&id];
            let model = request.seq.borrow().model;
            if !waits && decoding[model] == self.models[model].max_num_seqs {
                continue;
            }
            let rows = drafts[model].rows;
            match request.in_flight_sample() {
                Some(draw) => self.schedule_ahead(id, draw, &mut drafts),
                None => self.schedule_request(id, &mut drafts),
            }
            decoding[model] += usize::from(!waits && drafts[model].rows > rows);
        }
        drafts
    }

    /// Adds the next rows of one request, or of the stem it waits for, to its model's draft.
    fn schedule_request(&mut self, id: RequestId, drafts: &mut [BatchDraft]) {
        let request = &self.requests[&id];
        let seq = Rc::clone(&request.seq);
        let mut wanted = request.wanted();
        if wanted.is_empty() {
            // All of it is in flight.
            return;
        }
        let model = seq.borrow().model;
        let draft = &mut drafts[model];
        let hidden_layer = request.hidden_layer();
        if let (Some(drafted), Some(wanted)) = (draft.hidden_layer, hidden_layer)
            && drafted != wanted
        {
            // A batch gives the hidden states of one layer.
            return;
        }
        let Some(next) = next_to_compute(&seq, draft) else {
            return;
        };
        if !Rc::ptr_eq(&next, &seq) && !seq.borrow().ends_at_stem() {
            wanted.clear();
        }
        let chunk = match draft.chunk_of(&next) {
            Some(chunk) => chunk,
            None => match self.add_chunk(&next, &wanted, model, draft) {
                Some(chunk) => chunk,
                None => return,
            },
        };
        draft.hidden_layer = draft.hidden_layer.or(hidden_layer);
        draft.want(chunk, id, wanted, self.models[model].max_outputs);
    }

    /// Adds a row for the token that is being sampled for a generation, if the generation will
    /// continue with that token as far as is known. A row that may be wasted preempts nobody.
    fn schedule_ahead(&mut self, id: RequestId, draw: usize, drafts: &mut [BatchDraft]) {
        let Request { seq, work } = &self.requests[&id];
        let (model, position) = {
            let seq = seq.borrow();
            (seq.model, seq.token_ids.len())
        };
        let shape = &self.models[model];
        let draft = &mut drafts[model];
        let continues = match work {
            Work::Generate(generation) => generation.continues(position, shape.context_length),
            Work::Read(_) => false,
        };
        let room = draft.rows < shape.max_rows && draft.outputs < shape.max_outputs;
        let computed = || {
            // Its stem adopted, and not preempted since.
            let adopted = next_to_compute(seq, draft).is_some_and(|next| Rc::ptr_eq(&next, seq));
            adopted && seq.borrow().pending() == 0
        };
        if !(continues && room && computed()) {
            return;
        }
        let Some((_, copy)) = seq.borrow_mut().table.push() else {
            return;
        };
        seq.borrow_mut().in_batch = true;
        draft.copies.extend(copy);
        draft.outputs += 1;
        draft.add(Chunk {
            seq: Rc::clone(seq),
            first: position,
            rows: 1,
            write: true,
            fed_by: Some(draw),
            wanted: vec![WantedOutput {
                request: id,
                position,
            }],
        });
    }

    /// Adds the next rows of `seq`, as many as rows, outputs and memory allow. Tokens before the
    /// first of the `wanted` positions may come from the cache.
    fn add_chunk(
        &mut self,
        seq: &Shared,
        wanted: &[usize],
        model: usize,
        draft: &mut BatchDraft,
    ) -> Option<usize> {
        let max_outputs = self.models[model].max_outputs - draft.outputs;
        let (first, pending) = seq.borrow_mut().reuse_cached(wanted.first().copied());
        let mut max_rows = pending.max(1).min(self.models[model].max_rows - draft.rows);
        if let Some(&beyond) = wanted.get(max_outputs) {
            max_rows = max_rows.min(beyond.saturating_sub(first));
        }
        if max_rows == 0 {
            return None;
        }
        let (first, rows, write) = if pending == 0 {
            // Everything is computed, but the last token's output was not kept.
            (first - 1, 1, false)
        } else {
            seq.borrow_mut().in_batch = true;
            let mut rows = 0;
            while rows < max_rows {
                let Some(copy) = self.grow(seq) else { break };
                draft.copies.extend(copy);
                rows += 1;
            }
            (first, rows, true)
        };
        seq.borrow_mut().in_batch = rows > 0;
        (rows > 0).then(|| {
            draft.add(Chunk {
                seq: Rc::clone(seq),
                first,
                rows,
                write,
                fed_by: None,
                wanted: Vec::new(),
            })
        })
    }

    /// Counts the blocks that branches would hold without sharing.
    fn count_unshared(&mut self) {
        let mut held = vec![0; self.models.len()];
        for seq in self.sequences.iter().filter_map(Weak::upgrade) {
            let seq = seq.borrow();
            if seq.is_branch {
                // Without sharing, a branch would hold what its stem holds.
                let stem = seq.stem.as_ref();
                let stem = stem.map_or(0, |stem| stem.borrow().table.blocks());
                held[seq.model] += seq.table.blocks().max(stem);
            }
        }
        for (peak, held) in self.unshared_peak.iter_mut().zip(held) {
            *peak = (*peak).max(held);
        }
    }

    /// Phase 2: enqueues a draft on the device.
    fn launch(&mut self, model: usize, mut draft: BatchDraft) -> Result<InFlight, Error> {
        let ready = draft.ready(&self.requests, self.block_tokens);
        let batch = Batch {
            model,
            plan: &ready.plan,
            substitutions: &ready.substitutions,
            copies: &ready.copies,
            draws: &ready.draws,
            read: ready.reads_head(),
            hidden_layer: draft.hidden_layer,
        };
        let heads = if batch.needs_head() {
            ready.plan.outputs.len()
        } else {
            0
        };
        self.usage[model].add_batch(&self.models[model], &ready.plan, heads);
        self.executor.enqueue(&batch)?;
        let launched = InFlight {
            model,
            batch: self.batches,
            drawn_for: ready.drawn_for,
            reads: ready.reads,
        };
        for chunk in &draft.chunks {
            let mut seq = chunk.seq.borrow_mut();
            seq.in_batch = false;
            seq.remember();
        }
        for (draw, id) in launched.drawn_for.iter().enumerate() {
            if let Some(generation) = self.requests.get_mut(id).and_then(Request::generation) {
                generation.in_flight = Some(InFlightSample {
                    batch: self.batches,
                    draw,
                });
            }
        }
        for read in &launched.reads {
            let request = self.requests.get_mut(&read.request);
            if let Some(reading) = request.and_then(Request::reading) {
                reading.mark_enqueued(read.position);
            }
        }
        Ok(launched)
    }

    /// Phase 3: hands the results of a batch to the requests they are for.
    fn deliver(&mut self, batch: InFlight, result: &BatchResult) {
        for read in &batch.reads {
            let shape = &self.models[batch.model];
            let (values, width) = match read.output {
                Output::Head => (&result.head, shape.head_width),
                Output::Hidden { .. } => (&result.hidden_states, shape.hidden),
            };
            let values = &values[read.row * width..(read.row + 1) * width];
            let request = self.requests.get_mut(&read.request);
            if let Some(reading) = request.and_then(Request::reading)
                && reading.take(read.position, values)
            {
                self.answer(read.request, None);
            }
        }
        for (id, sample) in batch.drawn_for.iter().zip(&result.samples) {
            self.deliver_sample(&batch, *id, *sample);
        }
    }

    fn deliver_sample(&mut self, batch: &InFlight, id: RequestId, sample: Sample) {
        let context_length = self.models[batch.model].context_length;
        let Some(Request {
            work: Work::Generate(generation),
            seq,
        }) = self.requests.get_mut(&id)
        else {
            return;
        };
        self.usage[batch.model].tokens_generated += 1;
        if (generation.in_flight).is_some_and(|sample| sample.batch == batch.batch) {
            generation.in_flight = None;
        }
        let taken = {
            let mut seq = seq.borrow_mut();
            let Sequence {
                token_ids, table, ..
            } = &mut *seq;
            let taken = generation.take(token_ids, sample, context_length);
            // A stop string may cut off what is in the cache already, and where the branch has
            // ended the slot of a wasted row is taken back.
            table.truncate(generation.unchanged);
            table.take_back(token_ids.len());
            seq.remember();
            taken
        };
        let ended = !matches!(taken, Ok(None));
        generation.stream(ended);
        match taken {
            Ok(None) => {}
            Ok(Some(finish)) => self.answer(id, Some(finish)),
            Err(error) => {
                if let Some(request) = self.requests.remove(&id) {
                    request.fail(error);
                }
            }
        }
    }

    /// Answers a request whose work is done; `finish` says why a generation ended.
    fn answer(&mut self, id: RequestId, finish: Option<Finish>) {
        if let Some(request) = self.requests.remove(&id) {
            let (model, tokens) = {
                let seq = request.seq.borrow();
                (seq.model, seq.token_ids.len())
            };
            self.needed[model] += tokens as u64;
            request.answer(finish);
        }
    }
}

/// The sequence that must be computed next for `seq`: itself, or the topmost stem it waits for.
/// `None` when that stem is in the draft already and does not end where `seq` does.
fn next_to_compute(seq: &Shared, draft: &BatchDraft) -> Option<Shared> {
    let mut path = vec![Rc::clone(seq)];
    while let Some(stem) = path.last().and_then(|s| s.borrow().stem.clone()) {
        path.push(stem);
    }
    // Adopt from the top down: a stem may wait for a stem of its own.
    for i in (0..path.len() - 1).rev() {
        if path[i].borrow_mut().adopt_stem() {
            continue;
        }
        let next = &path[i + 1];
        let direct = i == 0 && seq.borrow().ends_at_stem();
        let drafted = draft.chunk_of(next).is_some();
        return (direct || !drafted).then(|| Rc::clone(next));
    }
    Some(Rc::clone(seq))
}
