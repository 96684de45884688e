//! The scheduler: which rows of which sequences the device computes next.
//!
//! Every [`Scheduler::step`] gathers, for each model, whatever is ready from all requests: one row
//! for each sequence that decodes, then chunks of sequences with more to compute, up to the row
//! limit. Nothing waits for a whole batch.
//!
//! # Memory
//!
//! A block that is not to be had by evicting cached ones is taken from other work: first from
//! sequences younger than the one in need, youngest first, then from idle branches (nobody's
//! request is on them or waits for them now). What was taken is computed again when it is next
//! needed. The oldest request can thus take everything but its own blocks, so it always ends, or
//! the memory is too small for one branch, which is an error.
//!
//! # Running ahead
//!
//! A device that works on its own gets its next step before the one under way is done, so that it
//! never waits for the host. What that step will draw is not known then; a branch is assumed to go
//! on, and its row takes the drawn token on the device ([`Batch::feeds`]). When the branch turns out
//! to have ended, the row was computed in vain and its place in the table is taken back
//! ([`Table::take_back`]). That is safe because a device works in order: whoever gets the place next
//! writes to it later. For the same reason blocks count as computed as soon as their step is
//! enqueued. Between two calls of [`Scheduler::step`] all tokens in all tables are known.

pub(crate) mod executor;
pub(crate) mod local;
pub(crate) mod request;
pub(crate) mod sequence;
#[cfg(test)]
mod simulation;
pub(crate) mod usage;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::{Rc, Weak};

use kernels::{Draw, Feed, SequenceRows, StepPlan};

use crate::Error;
use crate::kv::{CopyOnWrite, SharedMemory, Table};
use crate::schedule::executor::{Batch, BatchResult, Executor, ModelShape};
use crate::schedule::request::{Drawing, Finish, Generated, Request, Work};
use crate::schedule::sequence::{Sequence, Shared};
use crate::schedule::usage::{KvUsage, Usage};

/// Limits of one device step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Rows of one model in one step.
    pub rows: usize,
    /// Tokens in a KV block.
    pub block_tokens: usize,
}

pub(crate) struct Scheduler {
    executor: Box<dyn Executor>,
    models: Vec<ModelShape>,
    memory: SharedMemory,
    limits: Limits,
    async_scheduling: bool,
    /// Steps so far, and what was enqueued in the last one and not waited for.
    steps: u64,
    under_way: Vec<Enqueued>,
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

pub(crate) type RequestId = u64;

/// Rows of one sequence in the step being built.
struct Item {
    seq: Shared,
    /// Position of the first row.
    first: usize,
    rows: usize,
    write: bool,
    /// The draw under way that gives the token of its only row.
    fed: Option<usize>,
    wants: Vec<Want>,
}

/// An output of an item that a request waits for.
struct Want {
    request: RequestId,
    position: usize,
}

/// One model's step being built.
#[derive(Default)]
struct Draft {
    items: Vec<Item>,
    by_seq: HashMap<*const RefCell<Sequence>, usize>,
    copies: Vec<CopyOnWrite>,
    rows: usize,
    outputs: usize,
}

/// What one model was asked to do, and for whom.
struct Enqueued {
    model: usize,
    step: u64,
    /// For every draw, its request; for every read, its request, position and output row.
    draws: Vec<RequestId>,
    reads: Vec<(RequestId, usize, usize)>,
}

impl Scheduler {
    pub fn new(
        executor: Box<dyn Executor>,
        models: Vec<ModelShape>,
        memory: SharedMemory,
        limits: Limits,
        async_scheduling: bool,
    ) -> Scheduler {
        Scheduler {
            usage: vec![Usage::default(); models.len()],
            needed: vec![0; models.len()],
            unshared_peak: vec![0; models.len()],
            executor,
            models,
            memory,
            limits,
            async_scheduling,
            steps: 0,
            under_way: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            sequences: Vec::new(),
            next_age: 0,
        }
    }

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
        let memory = self.memory.borrow();
        KvUsage {
            block_tokens: self.limits.block_tokens,
            block_bytes: self.models[model].block_bytes,
            live_blocks: memory.live(model),
            peak_blocks: memory.peak_live(model),
            unshared_blocks: self.unshared_peak[model],
            cached_blocks: memory.cached(model),
        }
    }

    #[cfg(test)]
    pub fn check(&self) {
        self.memory.borrow().check();
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
        let table = Table::new(&self.memory, model, self.limits.block_tokens);
        self.register(Sequence::root(model, (age, age), table, key))
    }

    /// A child of `parent`.
    pub fn fork(&mut self, parent: &Shared) -> Shared {
        let tree = parent.borrow().age.0;
        let stem_age = (tree, self.age());
        let age = (tree, self.age());
        let (child, stem) = parent.borrow_mut().fork(age, stem_age);
        if let Some(stem) = stem {
            self.sequences.push(Rc::downgrade(&stem));
        }
        self.register(child)
    }

    pub fn submit(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        self.requests.insert(self.next_request, request);
        self.next_request
    }

    /// Forgets a request nobody waits for any more.
    pub fn withdraw(&mut self, id: RequestId) {
        self.requests.remove(&id);
    }

    /// Whether any request waits.
    pub fn busy(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Enqueues one step of every model that has work and delivers what is done: that step, or, when
    /// running ahead, the one before.
    ///
    /// # Errors
    /// A device that failed: no request can be served any more.
    pub fn step(&mut self) -> Result<(), Error> {
        self.sequences.retain(|s| s.strong_count() > 0);
        let mut drafts: Vec<Draft> = self.models.iter().map(|_| Draft::default()).collect();
        self.fill(&mut drafts);
        let idle = drafts.iter().all(|d| d.items.is_empty());
        if idle && self.under_way.is_empty() {
            self.give_up_oldest();
            return Ok(());
        }
        if !idle {
            self.count_unshared();
        }
        self.steps += 1;
        let mut enqueued = Vec::new();
        for (model, draft) in drafts.into_iter().enumerate() {
            if !draft.items.is_empty() {
                enqueued.push(self.enqueue(model, draft)?);
            }
        }
        let done = match self.async_scheduling {
            true => std::mem::replace(&mut self.under_way, enqueued),
            false => enqueued,
        };
        for step in done {
            let result = self.executor.finish()?;
            self.deliver(step, &result);
        }
        Ok(())
    }

    /// Puts rows into the drafts: decoding sequences first, then the others, each oldest first.
    fn fill(&mut self, drafts: &mut [Draft]) {
        let mut order: Vec<(bool, (u64, u64), RequestId)> = (self.requests.iter())
            .map(|(&id, r)| {
                let seq = r.seq.borrow();
                (seq.stem.is_some() || seq.pending() > 1, seq.age, id)
            })
            .collect();
        order.sort_unstable();
        for (_, _, request) in order {
            self.place(request, drafts);
        }
    }

    /// Puts the next rows of one request, or of the stem it waits for, into its model's draft.
    fn place(&mut self, id: RequestId, drafts: &mut [Draft]) {
        let request = &self.requests[&id];
        if let Work::Generate(generation) = &request.work
            && let Some(Drawing { draw, .. }) = generation.drawing
        {
            return self.place_ahead(id, draw, drafts);
        }
        let seq = Rc::clone(&request.seq);
        let mut wanted = request.wanted();
        if wanted.is_empty() {
            // All of it is under way.
            return;
        }
        let model = seq.borrow().model;
        let Some(lead) = lead(&seq, &drafts[model]) else {
            return;
        };
        if !Rc::ptr_eq(&lead, &seq) && !seq.borrow().ends_at_stem() {
            wanted.clear();
        }
        let item = match drafts[model].by_seq.get(&Rc::as_ptr(&lead)) {
            Some(&item) => item,
            None => match self.chunk(&lead, &wanted, model, drafts) {
                Some(item) => item,
                None => return,
            },
        };
        let most = self.models[model].max_outputs;
        let draft = &mut drafts[model];
        let item = &mut draft.items[item];
        let rows = item.first..item.first + item.rows;
        for position in wanted.into_iter().filter(|p| rows.contains(p)) {
            let new = !item.wants.iter().any(|w| w.position == position);
            if new && draft.outputs == most {
                // Only for a stem drafted without outputs: its end is run again next time.
                return;
            }
            draft.outputs += usize::from(new);
            item.wants.push(Want {
                request: id,
                position,
            });
        }
    }

    /// Drafts a row for the token that a generation is drawing, if it is to go on with that token as
    /// far as is known. What may be in vain takes no block from anybody.
    fn place_ahead(&mut self, id: RequestId, draw: usize, drafts: &mut [Draft]) {
        let Request { seq, work } = &self.requests[&id];
        let (model, position) = {
            let seq = seq.borrow();
            (seq.model, seq.tokens.len())
        };
        let shape = &self.models[model];
        let draft = &mut drafts[model];
        let goes_on = match work {
            Work::Generate(generation) => generation.goes_on(position, shape.context_length),
            Work::Read(_) => false,
        };
        let room = draft.rows < self.limits.rows && draft.outputs < shape.max_outputs;
        let computed = || {
            // Its stem adopted, and not preempted since.
            let adopted = lead(seq, draft).is_some_and(|lead| Rc::ptr_eq(&lead, seq));
            adopted && seq.borrow().pending() == 0
        };
        if !(goes_on && room && computed()) {
            return;
        }
        let mut sequence = seq.borrow_mut();
        let Some((_, copy)) = sequence.table.push() else {
            return;
        };
        sequence.in_step = true;
        draft.copies.extend(copy);
        draft.rows += 1;
        draft.outputs += 1;
        draft.by_seq.insert(Rc::as_ptr(seq), draft.items.len());
        draft.items.push(Item {
            seq: Rc::clone(seq),
            first: position,
            rows: 1,
            write: true,
            fed: Some(draw),
            wants: vec![Want {
                request: id,
                position,
            }],
        });
    }

    /// Drafts the next rows of `seq`, as many as rows, outputs and memory allow. Tokens before the
    /// first of the `wanted` positions may come from the cache.
    fn chunk(
        &mut self,
        seq: &Shared,
        wanted: &[usize],
        model: usize,
        drafts: &mut [Draft],
    ) -> Option<usize> {
        let room = self.limits.rows - drafts[model].rows;
        let outputs = self.models[model].max_outputs - drafts[model].outputs;
        let (first, pending) = {
            let Sequence { table, tokens, .. } = &mut *seq.borrow_mut();
            if table.is_empty() {
                let limit = wanted
                    .first()
                    .copied()
                    .unwrap_or(usize::MAX)
                    .min(tokens.len() - 1);
                table.reuse(tokens, limit);
            }
            (table.len(), tokens.len() - table.len())
        };
        let mut most = pending.max(1).min(room);
        if let Some(&beyond) = wanted.get(outputs) {
            most = most.min(beyond.saturating_sub(first));
        }
        if most == 0 {
            return None;
        }
        let (first, rows, write) = if pending == 0 {
            // Everything is computed, but the last token's output was not kept.
            (first - 1, 1, false)
        } else {
            seq.borrow_mut().in_step = true;
            let mut rows = 0;
            while rows < most {
                let Some(copy) = self.push(seq) else { break };
                drafts[model].copies.extend(copy);
                rows += 1;
            }
            (first, rows, true)
        };
        seq.borrow_mut().in_step = rows > 0;
        if rows == 0 {
            return None;
        }
        let draft = &mut drafts[model];
        draft.rows += rows;
        draft.by_seq.insert(Rc::as_ptr(seq), draft.items.len());
        draft.items.push(Item {
            seq: Rc::clone(seq),
            first,
            rows,
            write,
            fed: None,
            wants: Vec::new(),
        });
        Some(draft.items.len() - 1)
    }

    /// Makes room for one more token of `seq`, taking blocks from others if it must.
    fn push(&mut self, seq: &Shared) -> Option<Option<CopyOnWrite>> {
        loop {
            if let Some((_, copy)) = seq.borrow_mut().table.push() {
                return Some(copy);
            }
            let victim = self.victim(seq)?;
            let mut victim = victim.borrow_mut();
            self.usage[victim.model].preemptions += 1;
            victim.preempt();
        }
    }

    /// The sequence to take blocks from: one that is younger than `seq` before one that is idle,
    /// one that alone holds a block before one that shares them all, the youngest of those.
    fn victim(&self, seq: &Shared) -> Option<Shared> {
        let age = seq.borrow().age;
        let with_stems = |r: &Request| {
            std::iter::successors(Some(Rc::clone(&r.seq)), |s| s.borrow().stem.clone())
        };
        let busy: HashSet<_> = (self.requests.values())
            .flat_map(with_stems)
            .map(|s| Rc::as_ptr(&s))
            .collect();
        (self.sequences.iter().filter_map(Weak::upgrade))
            .filter(|s| !Rc::ptr_eq(s, seq))
            .filter_map(|s| {
                let rank = {
                    let v = s.borrow();
                    let (younger, idle) = (v.age > age, !busy.contains(&Rc::as_ptr(&s)));
                    let possible = !v.in_step && !v.table.is_empty() && (younger || idle);
                    possible.then(|| (v.table.frees_something(), younger, v.age))
                };
                Some((rank?, s))
            })
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, s)| s)
    }

    /// Nothing could be placed although requests wait. What is held is given back, so that the
    /// oldest request begins anew without half-filled blocks; if nothing is held, or it would not
    /// fit alone, it cannot be served.
    fn give_up_oldest(&mut self) {
        let oldest = self
            .requests
            .iter()
            .min_by_key(|(_, r)| r.seq.borrow().age)
            .map(|(&id, _)| id);
        let Some(id) = oldest else { return };
        let (model, tokens) = {
            let seq = self.requests[&id].seq.borrow();
            (seq.model, seq.tokens.len())
        };
        let needed = tokens.div_ceil(self.limits.block_tokens);
        let blocks = self.memory.borrow().capacity(model);
        let mut held = false;
        for seq in self.sequences.iter().filter_map(Weak::upgrade) {
            let mut seq = seq.borrow_mut();
            if !seq.table.is_empty() {
                held = true;
                self.usage[seq.model].preemptions += 1;
                seq.preempt();
            }
        }
        if needed > blocks || !held {
            let block_bytes = self.models[model].block_bytes;
            if let Some(request) = self.requests.remove(&id) {
                request.fail(Error::PoolTooSmall {
                    needed,
                    blocks,
                    block_bytes,
                });
            }
        }
    }

    fn count_unshared(&mut self) {
        let mut held = vec![0; self.models.len()];
        for seq in self.sequences.iter().filter_map(Weak::upgrade) {
            let seq = seq.borrow();
            if seq.is_branch {
                // What a branch waits for in a stem, it would have to hold itself.
                let stem = seq
                    .stem
                    .as_ref()
                    .map_or(0, |stem| stem.borrow().table.blocks());
                held[seq.model] += seq.table.blocks().max(stem);
            }
        }
        for (peak, held) in self.unshared_peak.iter_mut().zip(held) {
            *peak = (*peak).max(held);
        }
    }

    fn enqueue(&mut self, model: usize, mut draft: Draft) -> Result<Enqueued, Error> {
        struct Rows {
            table: Vec<(kernels::BlockId, u32)>,
            tokens: Vec<u32>,
            outputs: Vec<u32>,
        }
        let parts: Vec<Rows> = (draft.items.iter_mut())
            .map(|item| {
                item.wants.sort_by_key(|w| w.position);
                let mut outputs: Vec<u32> = item
                    .wants
                    .iter()
                    .map(|w| (w.position - item.first) as u32)
                    .collect();
                outputs.dedup();
                let seq = item.seq.borrow();
                Rows {
                    table: seq.table.entries(),
                    tokens: match item.fed {
                        Some(_) => vec![0],
                        None => seq.tokens[item.first..item.first + item.rows].to_vec(),
                    },
                    outputs,
                }
            })
            .collect();
        let rows: Vec<SequenceRows<'_>> = (parts.iter().zip(&draft.items))
            .map(|(p, item)| SequenceRows {
                table: &p.table,
                tokens: &p.tokens,
                write: item.write,
                outputs: &p.outputs,
            })
            .collect();
        let (plan, first_rows) = StepPlan::build(&rows, self.limits.block_tokens);

        let (mut feeds, mut draws) = (Vec::new(), Vec::new());
        let mut drawing = Vec::new();
        let mut reads = Vec::new();
        for (item, &first_row) in draft.items.iter().zip(&first_rows) {
            feeds.extend(item.fed.map(|draw| Feed {
                row: first_row as u32,
                draw: draw as u32,
            }));
            for want in &item.wants {
                let row = (first_row + want.position - item.first) as u32;
                let output = plan
                    .outputs
                    .binary_search(&row)
                    .expect("a wanted row is an output");
                match &self.requests[&want.request].work {
                    Work::Read(_) => reads.push((want.request, want.position, output)),
                    Work::Generate(generation) => {
                        let seq = self.requests[&want.request].seq.borrow();
                        drawing.push(want.request);
                        draws.push(Draw {
                            row: output,
                            sampling: &generation.how.sampling,
                            history: &generation.history,
                            key: seq.key,
                            position: want.position as u64 + 1,
                        });
                    }
                }
            }
        }
        let copies: Vec<_> = draft.copies.iter().map(|c| (c.from.id(), c.to)).collect();
        let usage = &mut self.usage[model];
        let shape = &self.models[model];
        let visible: u64 = plan.rows.iter().map(|r| u64::from(r.position) + 1).sum();
        usage.batches += 1;
        usage.tokens_processed += plan.rows.len() as u64;
        usage.flops += shape.flops_per_row * plan.rows.len() as u64
            + shape.flops_per_output * plan.outputs.len() as u64
            + shape.flops_per_visible * visible;
        let read = !reads.is_empty();
        self.executor.enqueue(&Batch {
            model,
            plan: &plan,
            feeds: &feeds,
            copies: &copies,
            draws: &draws,
            read,
        })?;
        for item in &draft.items {
            let mut seq = item.seq.borrow_mut();
            seq.in_step = false;
            seq.remember();
        }
        let step = self.steps;
        for (draw, id) in drawing.iter().enumerate() {
            if let Some(request) = self.requests.get_mut(id)
                && let Work::Generate(generation) = &mut request.work
            {
                generation.drawing = Some(Drawing { step, draw });
            }
        }
        for (id, position, _) in &reads {
            if let Some(request) = self.requests.get_mut(id)
                && let Work::Read(reading) = &mut request.work
            {
                let wanted = reading.at.iter_mut().filter(|w| w.position == *position);
                wanted.for_each(|wanted| wanted.enqueued = true);
            }
        }
        Ok(Enqueued {
            model,
            step,
            draws: drawing,
            reads,
        })
    }

    fn deliver(&mut self, step: Enqueued, result: &BatchResult) {
        let ModelShape {
            head_width: width,
            context_length,
            ..
        } = self.models[step.model];
        for (id, position, output) in step.reads {
            let Some(Request {
                work: Work::Read(reading),
                ..
            }) = self.requests.get_mut(&id)
            else {
                continue;
            };
            let values = &result.head[output * width..(output + 1) * width];
            for wanted in reading.at.iter_mut().filter(|w| w.position == position) {
                wanted.values = Some(values.to_vec());
            }
            if reading.at.iter().all(|wanted| wanted.values.is_some()) {
                self.end(id, Ok(None));
            }
        }
        for (id, sample) in step.draws.into_iter().zip(&result.samples) {
            let Some(Request {
                work: Work::Generate(generation),
                seq,
            }) = self.requests.get_mut(&id)
            else {
                continue;
            };
            self.usage[step.model].tokens_generated += 1;
            if generation.drawing.is_some_and(|d| d.step == step.step) {
                generation.drawing = None;
            }
            let taken = {
                let mut seq = seq.borrow_mut();
                let Sequence { tokens, table, .. } = &mut *seq;
                let taken = generation.take(tokens, *sample, context_length);
                // A stop string may cut off what is in the cache already, and where the branch has
                // ended a place was taken ahead for nothing.
                table.truncate(generation.unchanged);
                table.take_back(tokens.len());
                seq.remember();
                taken
            };
            generation.stream(!matches!(taken, Ok(None)));
            if !matches!(taken, Ok(None)) {
                self.end(id, taken);
            }
        }
    }

    /// Answers a request whose work is done.
    fn end(&mut self, id: RequestId, ended: Result<Option<Finish>, Error>) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let finish = match ended {
            Ok(finish) => finish,
            Err(error) => return request.fail(error),
        };
        let seq = request.seq.borrow();
        self.needed[seq.model] += seq.tokens.len() as u64;
        // A receiver that is gone asked for nothing any more.
        match (request.work, finish) {
            (Work::Read(r), _) => {
                drop(
                    r.reply.send(Ok(r
                        .at
                        .into_iter()
                        .filter_map(|wanted| wanted.values)
                        .collect())),
                );
            }
            (Work::Generate(g), Some(finish)) => {
                let token_ids = seq.tokens[g.start..].to_vec();
                let text = g.matcher.text().to_string();
                drop(g.reply.send(Ok(Generated {
                    token_ids,
                    text,
                    logprobs: g.logprobs,
                    finish,
                })));
            }
            (Work::Generate(_), None) => {}
        }
    }
}

/// The sequence that must be computed next for `seq`: itself, or the topmost stem it waits for.
/// `None` when that stem is in the draft already and does not end where `seq` does.
fn lead(seq: &Shared, draft: &Draft) -> Option<Shared> {
    let mut path = vec![Rc::clone(seq)];
    while let Some(stem) = path.last().and_then(|s| s.borrow().stem.clone()) {
        path.push(stem);
    }
    // Adopt from the top down: a stem may wait for a stem of its own.
    for i in (0..path.len() - 1).rev() {
        if path[i].borrow_mut().adopt_stem() {
            continue;
        }
        let lead = &path[i + 1];
        let direct = i == 0 && seq.borrow().ends_at_stem();
        let placed = draft.by_seq.contains_key(&Rc::as_ptr(lead));
        return (direct || !placed).then(|| Rc::clone(lead));
    }
    Some(Rc::clone(seq))
}
