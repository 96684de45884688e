//! Random programs over branches, run on a simulated device.
//!
//! The device stores tokens where a real one stores K and V, and "computes" a hash of what a row
//! sees through its runs. So a wrong block, a missing copy, a row that sees too much or too
//! little, or two models in one place each change an answer. What the answer must be is computed
//! from the tokens alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, join_all};
use kernels::{Confidence, Sample, Sampling, Slot, philox};

use crate::branch::Branch;
use crate::engine::{DeviceModels, Engine, Model};
use crate::kv::memory::ArenaLayout;
use crate::schedule::confidence::{ConfidenceWindow, Confidences};
use crate::schedule::executor::{Batch, BatchResult, Executor, ModelShape};
use crate::schedule::request::{Finish, Generate};
use crate::schedule::usage::FlopRates;
use crate::{Error, Usage};

const VOCAB: u64 = 3;

/// What a row that sees `tokens` gives: the hidden state of the simulation.
fn seen(tokens: &[u32]) -> u64 {
    tokens
        .iter()
        .fold(7, |h, &t| philox::fork_key(h, u64::from(t)))
}

/// The number that stands for the hidden state of a layer.
fn hidden_state(seen: u64, layer: usize) -> f32 {
    ((seen >> layer) % 1024) as f32
}

fn drawn(hidden: u64, key: u64, position: u64) -> u32 {
    (philox::uniform_u64(hidden ^ key, position) % VOCAB) as u32
}

/// From 0 to 7 in eighths.
fn confidence(hidden: u64, position: u64) -> Confidence {
    let top = (philox::uniform_u64(hidden, position) % 64) as f32 / 8.0;
    Confidence {
        self_certainty: -top,
        top,
    }
}

/// Memory by byte address: (model, token, position). One for all models, as in an arena.
#[derive(Default)]
struct Memory {
    bytes: HashMap<usize, (usize, u32, u32)>,
    /// Of the batches not waited for, with their models.
    results: VecDeque<(usize, BatchResult)>,
    max_rows: usize,
}

struct Simulated {
    memory: Rc<RefCell<Memory>>,
    unit: usize,
    token_bytes: Vec<usize>,
    block_tokens: usize,
}

impl Simulated {
    fn address(&self, model: usize, slot: Slot) -> usize {
        slot.block.0 as usize * self.unit + slot.offset as usize * self.token_bytes[model]
    }
}

impl Executor for Simulated {
    fn device(&self) -> String {
        "simulated".into()
    }

    fn prefers_async(&self) -> bool {
        false
    }

    fn enqueue(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let model = batch.model;
        let mut plan = batch.plan.clone();
        let mut memory = self.memory.borrow_mut();
        if !batch.substitutions.is_empty() {
            let before = memory.results.iter().rfind(|(of, _)| *of == model);
            let samples = &before
                .expect("the batch that samples is in flight")
                .1
                .samples;
            for substitution in batch.substitutions {
                plan.rows[substitution.row as usize].token_id =
                    samples[substitution.draw as usize].token_id;
            }
        }
        memory.max_rows = memory.max_rows.max(plan.rows.len());
        for &(from, to) in batch.copies {
            for offset in 0..self.block_tokens as u32 {
                let from = self.address(
                    model,
                    Slot {
                        block: from,
                        offset,
                    },
                );
                let to = self.address(model, Slot { block: to, offset });
                if let Some(&value) = memory.bytes.get(&from) {
                    memory.bytes.insert(to, value);
                }
            }
        }
        for row in &plan.rows {
            if let Some(slot) = row.slot {
                memory.bytes.insert(
                    self.address(model, slot),
                    (model, row.token_id, row.position),
                );
            }
        }
        let hidden: Vec<u64> = (plan.rows.iter().enumerate())
            .map(|(index, row)| {
                let mut tokens = Vec::new();
                for run in plan.runs.iter().filter(|run| run.rows.contains(&index)) {
                    for i in 0..run.num_tokens.min(row.position + 1 - run.start) {
                        let block = plan.blocks[run.blocks.start + i as usize / self.block_tokens];
                        let slot = Slot {
                            block,
                            offset: i % self.block_tokens as u32,
                        };
                        let &(owner, token, position) = memory
                            .bytes
                            .get(&self.address(model, slot))
                            .expect("a read of what nothing wrote");
                        assert_eq!(
                            (owner, position),
                            (model, run.start + i),
                            "another's K and V"
                        );
                        assert_eq!(
                            position as usize,
                            tokens.len(),
                            "runs cover positions in order"
                        );
                        tokens.push(token);
                    }
                }
                assert_eq!(
                    tokens.len(),
                    row.position as usize + 1,
                    "every visible token is seen"
                );
                assert_eq!(tokens.last(), Some(&row.token_id));
                seen(&tokens)
            })
            .collect();
        let output = |i: usize| hidden[plan.outputs[i] as usize];
        let samples = (batch.draws.iter()).map(|d| Sample {
            token_id: drawn(output(d.row), d.key, d.position),
            logprob: 0.0,
            processed_logprob: 0.0,
            confidence: (d.confidence).then(|| confidence(output(d.row), d.position)),
        });
        let head = (0..plan.outputs.len()).map(|i| (output(i) % 1024) as f32);
        let hidden_states = (batch.hidden_layer.iter())
            .flat_map(|&layer| (0..plan.outputs.len()).map(move |i| (layer, i)))
            .map(|(layer, i)| hidden_state(output(i), layer));
        let result = BatchResult {
            samples: samples.collect(),
            head: head.collect(),
            hidden_states: hidden_states.collect(),
        };
        memory.results.push_back((model, result));
        Ok(())
    }

    fn finish(&mut self) -> Result<BatchResult, Error> {
        Ok(self
            .memory
            .borrow_mut()
            .results
            .pop_front()
            .expect("a batch was enqueued")
            .1)
    }
}

/// A machine for one random program.
struct World {
    engine: Engine,
    models: Vec<Model>,
    /// Of every device.
    memories: Vec<Rc<RefCell<Memory>>>,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    block_tokens: usize,
    bytes: usize,
    rows: usize,
    outputs: usize,
    async_scheduling: bool,
    max_num_seqs: usize,
    /// 1: both models on one; 2: one each.
    devices: usize,
}

fn world(setup: Setup) -> World {
    let token_bytes = [64, 96];
    let mut memories = Vec::new();
    let devices = token_bytes.chunks(token_bytes.len() / setup.devices);
    let loaded = devices.map(|token_bytes| {
        let memory = Rc::new(RefCell::new(Memory::default()));
        memories.push(Rc::clone(&memory));
        simulated(setup, token_bytes, memory)
    });
    let (engine, models) = Engine::of(loaded.collect(), 0, Some(setup.async_scheduling));
    World {
        engine,
        models,
        memories,
    }
}

/// A device whose models have tokens of these bytes.
fn simulated(setup: Setup, token_bytes: &[usize], memory: Rc<RefCell<Memory>>) -> DeviceModels {
    let blocks: Vec<usize> = token_bytes.iter().map(|b| b * setup.block_tokens).collect();
    let arena = ArenaLayout::new(setup.bytes, &blocks);
    let shapes = blocks.iter().map(|&block_bytes| ModelShape {
        vocab: VOCAB as usize,
        context_length: 40,
        head_width: 1,
        hidden: 1,
        layers: 8,
        block_bytes,
        flops: FlopRates {
            per_token: 1,
            per_output: 0,
            per_visible: 0,
        },
        max_rows: setup.rows,
        max_outputs: setup.outputs,
        max_num_seqs: setup.max_num_seqs,
    });
    let executor = Simulated {
        memory,
        unit: arena.unit_bytes,
        token_bytes: token_bytes.to_vec(),
        block_tokens: setup.block_tokens,
    };
    DeviceModels::over(
        Box::new(executor),
        shapes.collect(),
        &arena,
        setup.block_tokens,
    )
}

fn plain(max_tokens: usize) -> Generate {
    Generate {
        sampling: Sampling::default(),
        max_tokens,
        stop_strings: Vec::new(),
        include_stop: true,
        stop_token_ids: Vec::new(),
        stream: None,
        confidences: Confidences::None,
    }
}

struct Random(u64, u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        (philox::uniform_u64(self.0, self.1) % n as u64) as usize
    }
}

/// Tokens and branch path of every branch the program holds, beside the branch itself.
struct Known {
    branch: Branch,
    model: usize,
    tokens: Vec<u32>,
    key: u64,
    forks: u64,
}

/// Continues what is known by at most `count` tokens; whether a stop token ended it.
fn expect_generated(known: &mut Known, count: usize, stop: Option<u32>) -> bool {
    for _ in 0..count {
        let position = known.tokens.len() as u64;
        let token = drawn(seen(&known.tokens), known.key, position);
        if Some(token) == stop {
            return true;
        }
        known.tokens.push(token);
    }
    false
}

/// One random program. Every answer is compared, every invariant checked after every operation.
fn run_program(seed: u64) -> Usage {
    let mut random = Random(seed, 0);
    let setup = Setup {
        block_tokens: [1, 2, 3, 16][random.below(4)],
        // Room for one longest branch of the larger model, up to several of them.
        bytes: 48 * 128 * (1 + random.below(4)) + 2048 * random.below(2),
        rows: [1, 2, 5, 64][random.below(4)],
        outputs: [1, 2, 64][random.below(3)],
        async_scheduling: random.below(2) == 0,
        max_num_seqs: [usize::MAX, 1, 3][random.below(3)],
        devices: 1 + random.below(2),
    };
    let world = world(setup);
    let mut known: Vec<Known> = Vec::new();
    let mut streams = 0;
    for _ in 0..4 + random.below(24) {
        match random.below(if known.is_empty() { 1 } else { 10 }) {
            0 => {
                let model = random.below(2);
                // A repeated stream and prompt lets the prefix trie be hit.
                streams += random.below(2) as u64;
                let mut branch = world.models[model].root(streams);
                let tokens: Vec<u32> = (0..1 + random.below(12)).map(|i| i as u32 % 2).collect();
                branch.append(&tokens).expect("the prompt fits");
                known.push(Known {
                    branch,
                    model,
                    tokens,
                    key: philox::root_key(0, streams),
                    forks: 0,
                });
            }
            1..=3 => {
                let parent = random.below(known.len());
                for _ in 0..1 + random.below(3) {
                    let p = &mut known[parent];
                    let child = Known {
                        branch: p.branch.fork(),
                        model: p.model,
                        tokens: p.tokens.clone(),
                        key: philox::fork_key(p.key, p.forks),
                        forks: 0,
                    };
                    p.forks += 1;
                    known.push(child);
                }
            }
            4 => {
                let at = random.below(known.len());
                drop(known.swap_remove(at));
            }
            5 => {
                let at = random.below(known.len());
                let k = &mut known[at];
                let tokens: Vec<u32> = (0..random.below(4))
                    .map(|_| random.below(3) as u32)
                    .collect();
                if k.branch.append(&tokens).is_ok() {
                    k.tokens.extend(&tokens);
                }
            }
            op => advance(&world, &mut known, &mut random, op == 9),
        }
        world.engine.check();
        for k in &known {
            assert_eq!(k.branch.token_ids(), k.tokens, "tokens of a branch");
        }
    }
    let usage = world
        .models
        .iter()
        .map(Model::usage)
        .fold(Usage::default(), |mut sum, u| {
            sum.preemptions += u.preemptions;
            sum.tokens_reused += u.tokens_reused;
            sum.tokens_processed += u.tokens_processed;
            sum
        });
    assert!(
        (world.memories.iter()).all(|memory| memory.borrow().max_rows <= setup.rows),
        "the row limit holds"
    );
    drop(known);
    world.engine.check();
    for model in &world.models {
        assert_eq!(
            model.kv_usage().live_blocks,
            0,
            "all dropped: nothing is live"
        );
    }
    usage
}

/// Continues some branches and reads others, all at once; some of it is cancelled half way.
fn advance(world: &World, known: &mut [Known], random: &mut Random, cancel: bool) {
    let mut expected = BTreeMap::new();
    let mut tasks = Vec::new();
    for (i, k) in known.iter_mut().enumerate() {
        let (work, count) = (random.below(4), 1 + random.below(6));
        let room = 40 - k.tokens.len();
        if work == 0 || room == 0 {
            continue;
        }
        if work == 3 {
            let (layer, start) = (random.below(9), random.below(k.tokens.len() + 1));
            let positions = start..start + random.below(k.tokens.len() - start + 1);
            let hidden = (positions.clone())
                .map(|position| hidden_state(seen(&k.tokens[..position + 1]), layer));
            expected.insert(i, (k.tokens.clone(), hidden.collect::<Vec<f32>>()));
            let (branch, tokens) = (&k.branch, k.tokens.clone());
            tasks.push(Either::Left(async move {
                let got = branch.hidden_states(layer, positions).await;
                let got = got.expect("memory holds one branch").into_iter();
                (i, tokens, Some(got.map(|v| v[0]).collect::<Vec<f32>>()))
            }));
            continue;
        }
        let tokens: Vec<u32> = (0..count.min(room))
            .map(|_| random.below(3) as u32)
            .collect();
        let at: Vec<usize> = (0..tokens.len()).filter(|_| random.below(2) == 0).collect();
        let before = k.tokens.len();
        let stop = (random.below(2) == 0).then(|| random.below(3) as u32);
        let mut finish = if count > room {
            Finish::Context
        } else {
            Finish::Length
        };
        if work == 1 {
            if let (true, Some(token)) = (expect_generated(k, count.min(room), stop), stop) {
                finish = Finish::StopToken(token);
            }
        } else {
            k.tokens.extend(&tokens);
        }
        let hidden = (at.iter())
            .filter(|_| work == 2)
            .map(|&a| (seen(&k.tokens[..before + a + 1]) % 1024) as f32);
        expected.insert(
            i,
            (k.tokens[before..].to_vec(), hidden.collect::<Vec<f32>>()),
        );
        let branch = &mut k.branch;
        tasks.push(Either::Right(async move {
            if work == 1 {
                let mut how = plain(count);
                how.stop_token_ids.extend(stop);
                let got = (branch.generate(how).await).expect("memory holds one branch");
                assert_eq!(got.finish, finish);
                (i, got.token_ids, None)
            } else {
                let got = branch
                    .read(&tokens, &at)
                    .await
                    .expect("memory holds one branch");
                let got = got.into_iter().map(|v| v[0]).collect::<Vec<f32>>();
                (i, tokens, Some(got))
            }
        }));
    }
    if cancel {
        // Drop everything after a few polls: requests end, branches keep what came so far.
        let polls = random.below(3);
        let mut left = polls;
        let mut all = Box::pin(join_all(tasks));
        let stopped = world.engine.run(std::future::poll_fn(|cx| {
            if left == 0 || all.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }));
        stopped.expect("the simulated device does not fail");
        drop(all);
        for (i, _) in expected {
            known[i].tokens = known[i].branch.token_ids();
        }
        return;
    }
    let answers = world
        .engine
        .run(join_all(tasks))
        .expect("the simulated device does not fail");
    for (i, tokens, read) in answers {
        let (expected_tokens, expected_read) = &expected[&i];
        assert_eq!(&tokens, expected_tokens, "branch {i}");
        if let Some(read) = read {
            assert_eq!(&read, expected_read, "read-out of branch {i}");
        }
    }
}

#[test]
fn random_programs_give_the_answers_of_their_tokens_alone() {
    let mut total = Usage::default();
    for seed in 0..10_000 {
        let result = std::panic::catch_unwind(|| run_program(seed));
        match result {
            Ok(usage) => {
                total.preemptions += usage.preemptions;
                total.tokens_reused += usage.tokens_reused;
            }
            Err(cause) => {
                eprintln!("random program with seed {seed} failed");
                std::panic::resume_unwind(cause);
            }
        }
    }
    // The programs are worth nothing if they never get where it hurts.
    assert!(total.preemptions > 1000, "{total:?}");
    assert!(total.tokens_reused > 1000, "{total:?}");
}

#[test]
fn async_scheduling_wastes_a_row_where_a_branch_ends_unforeseen() {
    let answers = [false, true].map(|async_scheduling| {
        let world = world(Setup {
            block_tokens: 4,
            bytes: 1 << 16,
            rows: 64,
            outputs: 64,
            async_scheduling,
            max_num_seqs: usize::MAX,
            devices: 1,
        });
        let model = &world.models[0];
        let mut branches: Vec<Branch> = (0..8).map(|stream| model.root(stream)).collect();
        for branch in &mut branches {
            branch.append(&[1; 5]).expect("the prompt fits");
        }
        let grown = join_all(branches.iter_mut().map(|branch| {
            let mut how = plain(6);
            how.stop_token_ids.push(2);
            branch.generate(how)
        }));
        let grown = world.engine.run(grown).expect("runs");
        let grown: Vec<_> = grown.into_iter().map(|g| g.expect("generates")).collect();
        (grown, model.usage())
    });
    let [(expected, plain), (found, ahead)] = answers;
    assert_eq!(found, expected);
    assert_eq!(ahead.tokens_generated, plain.tokens_generated);
    // The length is foreseen. A stop token at the last place is, too.
    let stopped =
        |g: &&crate::Generated| matches!(g.finish, Finish::StopToken(_)) && g.logprobs.len() < 6;
    let stopped = expected.iter().filter(stopped).count() as u64;
    assert!(stopped > 0 && stopped < 8, "{expected:?}");
    assert_eq!(ahead.tokens_processed, plain.tokens_processed + stopped);
}

#[test]
fn a_low_confidence_ends_a_generation_at_the_token_that_brings_it() {
    const WINDOW: usize = 3;
    const BAR: f64 = 2.5;
    let written = |async_scheduling, confidences| {
        let world = world(Setup {
            block_tokens: 4,
            bytes: 1 << 16,
            rows: 64,
            outputs: 64,
            async_scheduling,
            max_num_seqs: usize::MAX,
            devices: 1,
        });
        let mut branches: Vec<Branch> = (0..8).map(|i| world.models[0].root(i)).collect();
        let grown = join_all(branches.iter_mut().map(|branch| {
            branch.append(&[1; 5]).expect("the prompt fits");
            let mut how = plain(12);
            how.confidences = confidences;
            branch.generate(how)
        }));
        let grown = world.engine.run(grown).expect("runs").into_iter();
        grown.map(|g| g.expect("generates")).collect::<Vec<_>>()
    };
    let stop = Confidences::StopBelow {
        bar: BAR,
        window: WINDOW,
    };
    for async_scheduling in [false, true] {
        let unasked = written(async_scheduling, Confidences::None);
        let whole = written(async_scheduling, Confidences::Record);
        let stopped = written(async_scheduling, stop);
        let mut low = 0;
        for ((unasked, whole), stopped) in unasked.iter().zip(&whole).zip(&stopped) {
            assert!(unasked.confidences.is_empty());
            assert_eq!(unasked.sampled_ids, whole.sampled_ids);
            assert_eq!(whole.confidences.len(), whole.sampled_ids.len());
            let mut window = ConfidenceWindow::new(WINDOW);
            let end = (whole.confidences.iter())
                .position(|c| window.push(c.top).is_some_and(|mean| mean < BAR));
            let length = end.map_or(whole.sampled_ids.len(), |last| last + 1);
            assert_eq!(stopped.token_ids, whole.token_ids[..length]);
            assert_eq!(stopped.confidences, whole.confidences[..length]);
            let finish = end.map_or(whole.finish, |_| Finish::LowConfidence);
            assert_eq!(stopped.finish, finish);
            low += usize::from(end.is_some());
        }
        assert!(low > 0 && low < 8, "{low} of 8 ended");
    }
}

#[test]
fn the_oldest_trees_decode_first() {
    let world = world(Setup {
        block_tokens: 4,
        bytes: 1 << 16,
        rows: 64,
        outputs: 64,
        async_scheduling: false,
        max_num_seqs: 4,
        devices: 1,
    });
    let model = &world.models[0];
    let order = RefCell::new(Vec::new());
    let trees = (0..4).map(|tree| {
        let mut root = model.root(tree);
        root.append(&[1; 5]).expect("the prompt fits");
        let mut branches: Vec<Branch> = (0..4).map(|_| root.fork()).collect();
        let order = &order;
        async move {
            let all = branches.iter_mut().map(|branch| branch.generate(plain(6)));
            futures::future::try_join_all(all).await.expect("generates");
            order.borrow_mut().push(tree);
        }
    });
    world.engine.run(join_all(trees)).expect("runs");
    assert_eq!(order.into_inner(), [0, 1, 2, 3]);
    // The first batch reads all prompts and samples every first token, and in the second every
    // branch takes over its stem; then one tree at a time takes four more.
    assert_eq!(model.usage().batches, 2 + 4 * 4);
}

#[test]
fn what_branches_share_is_computed_once() {
    let setup = Setup {
        block_tokens: 16,
        bytes: 1 << 16,
        rows: 64,
        outputs: 64,
        async_scheduling: false,
        max_num_seqs: usize::MAX,
        devices: 1,
    };
    let world = world(setup);
    let model = &world.models[0];
    let mut root = model.root(0);
    root.append(&[1; 20]).expect("the prompt fits");
    let mut children: Vec<Branch> = (0..8).map(|_| root.fork()).collect();
    let grown = join_all(children.iter_mut().map(|c| c.generate(plain(5))));
    world.engine.run(grown).expect("runs");
    // 20 prompt tokens once, then 4 of each child's 5: the last one is sampled, not computed.
    assert_eq!(model.usage().tokens_processed, 20 + 8 * 4);
    assert_eq!(model.usage().tokens_generated, 8 * 5);
    // One batch ends the prompt and samples every child's first token.
    assert_eq!(model.usage().batches, 5);

    let mut grandchildren: Vec<Branch> = (0..4).map(|_| children[0].fork()).collect();
    let read = join_all(grandchildren.iter_mut().map(|c| c.read(&[2, 2], &[1])));
    world.engine.run(read).expect("runs");
    // The pending fifth token of the child is computed once for its four children.
    assert_eq!(model.usage().tokens_processed, 20 + 8 * 4 + 1 + 4 * 2);
}

#[test]
fn many_branches_take_as_many_batches_as_one() {
    let batches = [1, 256].map(|count| {
        let world = world(Setup {
            block_tokens: 4,
            bytes: 1 << 20,
            rows: 512,
            outputs: 512,
            async_scheduling: false,
            max_num_seqs: usize::MAX,
            devices: 1,
        });
        let mut root = world.models[0].root(0);
        root.append(&[1; 5]).expect("the prompt fits");
        let mut branches: Vec<Branch> = (0..count).map(|_| root.fork()).collect();
        let grown = join_all(branches.iter_mut().map(|branch| branch.generate(plain(8))));
        world.engine.run(grown).expect("runs");
        world.models[0].usage().batches
    });
    assert_eq!(batches, [8, 8]);
}

#[test]
fn a_branch_larger_than_the_memory_is_an_error_and_harms_no_other() {
    let setup = Setup {
        block_tokens: 2,
        bytes: 10 * 128,
        rows: 8,
        outputs: 8,
        async_scheduling: false,
        max_num_seqs: usize::MAX,
        devices: 1,
    };
    let world = world(setup);
    let (mut small, mut large) = (world.models[0].root(0), world.models[0].root(1));
    small.append(&[1; 4]).expect("fits the context");
    large.append(&[1; 30]).expect("fits the context");
    let both = futures::future::join(small.generate(plain(3)), large.generate(plain(3)));
    let (small, large) = world.engine.run(both).expect("the device does not fail");
    assert_eq!(small.map(|g| g.token_ids.len()).ok(), Some(3));
    assert!(
        matches!(large, Err(Error::PoolTooSmall { needed: 15, .. })),
        "{large:?}"
    );
}

/// A request that fits no memory of its device fails while another device has work, not after it.
#[test]
fn a_device_without_room_does_not_wait_for_another() {
    let world = world(Setup {
        block_tokens: 2,
        // Ten blocks of the first model, six of the second.
        bytes: 10 * 128,
        rows: 8,
        outputs: 8,
        async_scheduling: false,
        max_num_seqs: usize::MAX,
        devices: 2,
    });
    let (mut small, mut large) = (world.models[0].root(0), world.models[1].root(1));
    small.append(&[1; 4]).expect("fits the context");
    large.append(&[1; 30]).expect("fits the context");
    let works = pin!(small.generate(plain(12)));
    let fails = pin!(large.generate(plain(3)));
    match world.engine.run(futures::future::select(works, fails)) {
        Ok(Either::Right((failed, _))) => {
            assert!(
                matches!(failed, Err(Error::PoolTooSmall { .. })),
                "{failed:?}"
            );
        }
        Ok(Either::Left(_)) => panic!("the other device's work ended first"),
        Err(error) => panic!("{error}"),
    }
}
