//! The batch being built: rows of sequences, and the outputs that requests want of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use kernels::{BatchPlan, BlockId, Draw, SequenceRows, Substitution};

use super::RequestId;
use super::request::{Output, Request, Work};
use super::sequence::Shared;
use crate::kv::CopyOnWrite;

/// Rows of one sequence in the batch being built.
pub(super) struct Chunk {
    pub seq: Shared,
    /// Position of the first row.
    pub first: usize,
    pub rows: usize,
    /// Whether K and V of the rows are written: not for a computed token that runs again for its
    /// output.
    pub write: bool,
    /// The sample in flight that gives the token of its only row.
    pub fed_by: Option<usize>,
    pub wanted: Vec<WantedOutput>,
}

/// An output of a chunk that a request waits for.
pub(super) struct WantedOutput {
    pub request: RequestId,
    pub position: usize,
}

/// One model's batch being built.
#[derive(Default)]
pub(super) struct BatchDraft {
    pub chunks: Vec<Chunk>,
    by_seq: HashMap<*const RefCell<super::Sequence>, usize>,
    pub copies: Vec<CopyOnWrite>,
    pub rows: usize,
    pub outputs: usize,
    /// The layer whose hidden states the batch gives: of the first request that wants any.
    pub hidden_layer: Option<usize>,
}

/// A batch ready for the device, and whom its outputs are for.
pub(super) struct ReadyBatch<'a> {
    pub plan: BatchPlan,
    pub substitutions: Vec<Substitution>,
    pub copies: Vec<(BlockId, BlockId)>,
    pub draws: Vec<Draw<'a>>,
    /// For every draw, its request.
    pub drawn_for: Vec<RequestId>,
    pub reads: Vec<OutputRead>,
}

/// An output row whose numbers a request reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputRead {
    pub request: RequestId,
    pub position: usize,
    /// Which of the plan's outputs.
    pub row: usize,
    /// Which of its numbers.
    pub output: Output,
}

impl BatchDraft {
    /// Whether no sequence has rows in it.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk of a sequence.
    pub fn chunk_of(&self, seq: &Shared) -> Option<usize> {
        self.by_seq.get(&Rc::as_ptr(seq)).copied()
    }

    /// Adds a sequence's rows; its index.
    pub fn add(&mut self, chunk: Chunk) -> usize {
        let index = self.chunks.len();
        self.rows += chunk.rows;
        self.by_seq.insert(Rc::as_ptr(&chunk.seq), index);
        self.chunks.push(chunk);
        index
    }

    /// Notes that `request` wants the outputs at those of `positions` that are rows of the chunk,
    /// while fewer than `max_outputs` are wanted.
    pub fn want(
        &mut self,
        chunk: usize,
        request: RequestId,
        positions: Vec<usize>,
        max_outputs: usize,
    ) {
        let chunk = &mut self.chunks[chunk];
        let rows = chunk.first..chunk.first + chunk.rows;
        for position in positions.into_iter().filter(|p| rows.contains(p)) {
            let new = !chunk.wanted.iter().any(|w| w.position == position);
            if new && self.outputs == max_outputs {
                // Only for a stem drafted without outputs: its end is run again next time.
                return;
            }
            self.outputs += usize::from(new);
            chunk.wanted.push(WantedOutput { request, position });
        }
    }

    /// The plan of the batch, with draws and reads in the order of its chunks.
    pub fn ready<'a>(
        &mut self,
        requests: &'a BTreeMap<RequestId, Request>,
        block_tokens: usize,
    ) -> ReadyBatch<'a> {
        let contents: Vec<ChunkContent> = self.chunks.iter_mut().map(Chunk::content).collect();
        let rows: Vec<SequenceRows<'_>> = (contents.iter().zip(&self.chunks))
            .map(|(content, chunk)| SequenceRows {
                table: &content.table,
                token_ids: &content.token_ids,
                write: chunk.write,
                outputs: &content.outputs,
            })
            .collect();
        let (plan, first_rows) = BatchPlan::build(&rows, block_tokens);
        let copies = self.copies.iter().map(|c| (c.from.id(), c.to)).collect();
        let mut ready = ReadyBatch {
            plan,
            substitutions: Vec::new(),
            copies,
            draws: Vec::new(),
            drawn_for: Vec::new(),
            reads: Vec::new(),
        };
        for (chunk, &first_row) in self.chunks.iter().zip(&first_rows) {
            ready.add_outputs(chunk, first_row, requests);
        }
        ready
    }
}

/// A chunk as the plan is built from it: the table, the rows' tokens, and the wanted rows, counted
/// from the chunk's first.
struct ChunkContent {
    table: Vec<(BlockId, u32)>,
    token_ids: Vec<u32>,
    outputs: Vec<u32>,
}

impl Chunk {
    /// Sorts the wanted outputs by position.
    fn content(&mut self) -> ChunkContent {
        self.wanted.sort_by_key(|w| w.position);
        let mut outputs: Vec<u32> = (self.wanted.iter())
            .map(|w| (w.position - self.first) as u32)
            .collect();
        outputs.dedup();
        let seq = self.seq.borrow();
        ChunkContent {
            table: seq.table.entries(),
            token_ids: match self.fed_by {
                Some(_) => vec![0],
                None => seq.token_ids[self.first..self.first + self.rows].to_vec(),
            },
            outputs,
        }
    }
}

impl<'a> ReadyBatch<'a> {
    /// Whether any request reads the head's numbers.
    pub fn reads_head(&self) -> bool {
        (self.reads.iter()).any(|read| read.output == Output::Head)
    }

    /// Adds the draws and reads of a chunk whose first row is the plan's row `first_row`.
    fn add_outputs(
        &mut self,
        chunk: &Chunk,
        first_row: usize,
        requests: &'a BTreeMap<RequestId, Request>,
    ) {
        self.substitutions
            .extend(chunk.fed_by.map(|draw| Substitution {
                row: first_row as u32,
                draw: draw as u32,
            }));
        for wanted in &chunk.wanted {
            let row = (first_row + wanted.position - chunk.first) as u32;
            let row = (self.plan.outputs.binary_search(&row)).expect("a wanted row is an output");
            let request = &requests[&wanted.request];
            match &request.work {
                Work::Read(reading) => self.reads.push(OutputRead {
                    request: wanted.request,
                    position: wanted.position,
                    row,
                    output: reading.output,
                }),
                Work::Generate(generation) => {
                    self.drawn_for.push(wanted.request);
                    self.draws.push(Draw {
                        row,
                        sampling: &generation.options.sampling,
                        history: &generation.history,
                        key: request.seq.borrow().key,
                        position: wanted.position as u64 + 1,
                        confidence: generation.options.confidences.are_wanted(),
                    });
                }
            }
        }
    }
}
