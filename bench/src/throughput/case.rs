//! One case of the throughput measurement: its branches, and the work that is timed.

use std::cell::Cell;
use std::future::Future;
use std::time::Instant;

use engine::{Branch, Confidences, Generate, Model, Sampling};
use futures::future::try_join_all;
use kernels::philox::uniform_u64;

use super::{Flags, Part, Row, Subject};
use crate::Done;
use crate::limits::Limits;
use crate::timed::{Counts, Profile};

/// A prompt length and a number of branches.
pub(super) struct Case<'a> {
    subject: &'a Subject,
    flags: &'a Flags,
    prompt: usize,
    branches: usize,
    /// Bytes of KV that the branches held at their greatest length.
    kv_bytes: Cell<usize>,
}

/// A part of a case's work.
#[derive(Clone, Copy)]
enum Work {
    Prefill,
    Decode,
    Score,
    Search,
}

/// Seconds of the measured repetitions, one entry each, and the times of their operations.
#[derive(Default)]
struct Record {
    seconds: Vec<f64>,
    counts: Counts,
}

/// One record for each kind of [`Work`].
type Records = [Record; 4];

impl<'a> Case<'a> {
    pub(super) fn new(
        subject: &'a Subject,
        flags: &'a Flags,
        prompt: u32,
        branches: u32,
    ) -> Case<'a> {
        Case {
            subject,
            flags,
            prompt: prompt as usize,
            branches: branches as usize,
            kv_bytes: Cell::new(0),
        }
    }

    fn models(&self) -> impl Iterator<Item = &Model> {
        [&self.subject.policy, &self.subject.prm]
            .into_iter()
            .flatten()
    }

    /// Refuses a case whose branches the KV memory cannot hold all at once: it would measure
    /// preemption.
    pub(super) fn fits(&self) -> Done {
        let own = self.flags.generate as usize + 2;
        let mut needed = 0;
        for model in self.models() {
            let kv = model.kv_usage();
            let blocks = |tokens: usize| tokens.div_ceil(kv.block_tokens) + 1;
            let all = if self.flags.unshared {
                self.branches * blocks(self.prompt + own)
            } else {
                blocks(self.prompt) + self.branches * blocks(own)
            };
            needed += all * kv.block_bytes;
            let (tokens, limit) = (self.prompt + own, model.context_length());
            if tokens > limit {
                return Err(format!(
                    "--prompt {} and --generate {}: {tokens} tokens, but the model's context length \
                     is {limit}",
                    self.prompt, self.flags.generate
                ));
            }
        }
        // 2% of slack: a superblock belongs to one model at a time.
        let needed = needed.saturating_mul(102) / 100;
        if needed > self.subject.kv_bytes {
            return Err(format!(
                "--kv-memory: {} branches below a prompt of {} need {} MiB, there are {}",
                self.branches,
                self.prompt,
                needed.div_ceil(1 << 20),
                self.subject.kv_bytes >> 20
            ));
        }
        Ok(())
    }

    /// The row, and the seconds to the first token of the first repetition.
    pub(super) fn measure(&self, limits: Option<&Limits>) -> Done<(Row, f64)> {
        let mut records = Records::default();
        let mut first_seconds = None;
        for repetition in 0..self.flags.warm_up + self.flags.repeat {
            let seed = u64::from(repetition) << 32 | (self.prompt * self.branches) as u64;
            self.take_counts();
            self.repeat(seed, |work, seconds| {
                let counts = self.take_counts();
                first_seconds.get_or_insert(seconds);
                if repetition >= self.flags.warm_up {
                    records[work as usize].add(seconds, counts);
                }
            })?;
        }
        Ok((self.row(&records, limits)?, first_seconds.unwrap_or(0.0)))
    }

    /// One repetition; `done` is called after each part of the work with its seconds.
    fn repeat(&self, seed: u64, mut done: impl FnMut(Work, f64)) -> Done {
        match (&self.subject.policy, &self.subject.prm) {
            (Some(policy), None) => {
                let (mut branches, seconds) = self.prefill(policy, seed)?;
                done(Work::Prefill, seconds);
                done(Work::Decode, self.decode(&mut branches)?);
            }
            (None, Some(prm)) => done(Work::Score, self.score(prm, seed)?),
            (Some(policy), Some(prm)) => done(Work::Search, self.search(policy, prm, seed)?),
            (None, None) => return Err("no model to measure".into()),
        }
        Ok(())
    }

    /// Takes the times of operations since the last call.
    fn take_counts(&self) -> Counts {
        let profile = self.subject.profile.as_ref();
        profile.map(Profile::take).unwrap_or_default()
    }

    fn row(&self, records: &Records, limits: Option<&Limits>) -> Done<Row> {
        let own = self.branches * self.flags.generate as usize;
        let prompts = if self.flags.unshared {
            self.branches * self.prompt
        } else {
            self.prompt
        };
        let part = |work: Work, tokens: usize| {
            let Record { seconds, counts } = &records[work as usize];
            if seconds.is_empty() {
                return Ok(None);
            }
            Part::new(tokens as u64, seconds, counts, limits).map(Some)
        };
        let unshared = |model: &Model| {
            let kv = model.kv_usage();
            let tokens = self.prompt + self.flags.generate as usize;
            self.branches * tokens.div_ceil(kv.block_tokens) * kv.block_bytes
        };
        Ok(Row {
            prompt: self.prompt as u32,
            branches: self.branches as u32,
            prefill: part(Work::Prefill, prompts)?,
            decode: part(Work::Decode, own)?,
            score: part(Work::Score, prompts + own)?,
            search: part(Work::Search, prompts + 2 * own)?,
            kv_bytes: self.kv_bytes.get(),
            kv_unshared_bytes: self.models().map(unshared).sum(),
            batches: self.models().map(|model| model.usage().batches).sum(),
        })
    }

    /// Runs `work` to its end.
    fn wait<T>(&self, work: impl Future<Output = Result<T, engine::Error>>) -> Done<T> {
        let done = self.subject.engine.run(work);
        done.and_then(|done| done)
            .map_err(|error| error.to_string())
    }

    /// Runs `work` to its end; its result and its seconds.
    fn timed<T>(&self, work: impl Future<Output = Result<T, engine::Error>>) -> Done<(T, f64)> {
        let start = Instant::now();
        let done = self.wait(work)?;
        let seconds = start.elapsed().as_secs_f64();
        let held = |model: &Model| model.kv_usage().live_blocks * model.kv_usage().block_bytes;
        let held = self.models().map(held).sum();
        self.kv_bytes.set(self.kv_bytes.get().max(held));
        Ok((done, seconds))
    }

    /// The branches below their prompts; nothing is computed yet.
    fn fork_branches(&self, model: &Model, vocab: usize, seed: u64) -> Done<Vec<Branch>> {
        let root = |stream: u64| {
            let mut root = model.root(stream);
            root.append(&token_ids(self.prompt, vocab, stream))
                .map_err(|error| error.to_string())?;
            Ok(root)
        };
        if self.flags.unshared {
            return (0..self.branches)
                .map(|i| root(seed ^ ((i as u64 + 1) << 24)))
                .collect();
        }
        let root = root(seed)?;
        Ok((0..self.branches).map(|_| root.fork()).collect())
    }

    /// The options that draw `tokens` tokens and never stop earlier.
    fn options(&self, tokens: usize) -> Generate {
        Generate {
            sampling: Sampling {
                temperature: self.flags.temperature,
                ..Sampling::default()
            },
            max_tokens: tokens,
            stop_strings: Vec::new(),
            include_stop: true,
            stop_token_ids: Vec::new(),
            stream: None,
            confidences: Confidences::None,
        }
    }

    fn prefill(&self, model: &Model, seed: u64) -> Done<(Vec<Branch>, f64)> {
        let mut branches = self.fork_branches(model, self.subject.vocab.0, seed)?;
        let first = try_join_all(branches.iter_mut().map(|b| b.generate(self.options(1))));
        let (_, seconds) = self.timed(first)?;
        Ok((branches, seconds))
    }

    fn decode(&self, branches: &mut [Branch]) -> Done<f64> {
        let tokens = self.flags.generate as usize;
        let rest = try_join_all(
            branches
                .iter_mut()
                .map(|b| b.generate(self.options(tokens))),
        );
        Ok(self.timed(rest)?.1)
    }

    /// The lengths of a branch's steps.
    fn steps(&self) -> impl Iterator<Item = usize> + '_ {
        let (all, step) = (
            self.flags.generate as usize,
            self.flags.step_tokens as usize,
        );
        (0..all).step_by(step).map(move |from| step.min(all - from))
    }

    /// Reads all branches step by step: the next steps once the scores of the last are there.
    fn score(&self, model: &Model, seed: u64) -> Done<f64> {
        let vocab = self.subject.vocab.1;
        let mut branches = self.fork_branches(model, vocab, seed)?;
        let work = async {
            for (number, step) in self.steps().enumerate() {
                let readings = branches.iter_mut().enumerate().map(|(i, branch)| {
                    let stream = seed ^ 0x5eed ^ ((number as u64) << 40) ^ ((i as u64 + 1) << 24);
                    let step = token_ids(step, vocab, stream);
                    async move { branch.read(&step, &[step.len() - 1]).await }
                });
                try_join_all(readings).await?;
            }
            Ok(())
        };
        Ok(self.timed(work)?.1)
    }

    /// The policy writes a step of every branch, the PRM reads it.
    fn search(&self, policy: &Model, prm: &Model, seed: u64) -> Done<f64> {
        let mut writers = self.fork_branches(policy, self.subject.vocab.0, seed)?;
        let mut readers = self.fork_branches(prm, self.subject.vocab.1, seed)?;
        let vocab = self.subject.vocab.1 as u32;
        let last = self.steps().count() - 1;
        let work = async {
            for (number, step) in self.steps().enumerate() {
                let both = writers
                    .iter_mut()
                    .zip(&mut readers)
                    .map(|(writer, reader)| {
                        let options = self.options(step);
                        async move {
                            let written = writer.generate(options).await?.token_ids;
                            let read: Vec<u32> = written.iter().map(|t| t % vocab).collect();
                            let scores = reader.read(&read, &[read.len() - 1]).await?;
                            Ok::<f32, engine::Error>(scores[0][0])
                        }
                    });
                let scores = try_join_all(both).await?;
                if let Some(width) = self.flags.beam_width.filter(|_| number < last) {
                    let kept = best(&scores, self.branches.div_ceil(width as usize));
                    writers = children(&writers, &kept, width as usize, self.branches);
                    readers = children(&readers, &kept, width as usize, self.branches);
                }
            }
            Ok(())
        };
        Ok(self.timed(work)?.1)
    }
}

/// The indices of the `count` largest scores, the largest first; of equal ones the first.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    indices.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    indices.truncate(count);
    indices
}

/// `width` children of each of the `kept` branches, at most `max` in all.
fn children(branches: &[Branch], kept: &[usize], width: usize, max: usize) -> Vec<Branch> {
    let parents = kept.iter().flat_map(|&index| vec![index; width]);
    (parents.take(max))
        .map(|index| branches[index].fork())
        .collect()
}

impl Record {
    fn add(&mut self, seconds: f64, counts: Counts) {
        self.seconds.push(seconds);
        for (key, work) in counts {
            let sum = self.counts.entry(key).or_default();
            for (operation, cost) in work.costs {
                *sum.costs.entry(operation).or_default() += cost;
            }
        }
    }
}

/// Random token ids below `vocab`.
fn token_ids(count: usize, vocab: usize, stream: u64) -> Vec<u32> {
    (0..count as u64)
        .map(|i| (uniform_u64(stream, i) % vocab as u64) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use crate::shapes::Shape;
    use crate::timed::{Operation, Timed};
    use engine::checkpoint::Checkpoint;
    use engine::{Engine, ModelSpec, Options};
    use kernels::CpuBackend;

    fn subject(role: Role) -> Subject {
        let shape = Shape::parse("nano").expect("a shape");
        let checkpoint = Checkpoint::random(shape.source(), 1).expect("a config");
        let part = || ModelSpec::new(&checkpoint, None);
        let options = Options {
            kv_bytes: Some(8 << 20),
            ..Options::default()
        };
        let parts = match role {
            Role::Both => vec![part(), part()],
            _ => vec![part()],
        };
        let (backend, profile) = Timed::new(CpuBackend::new(1));
        let (engine, models) = Engine::new(backend, &parts, &options).expect("loads");
        let vocab = checkpoint.config.vocab;
        Subject {
            kv_bytes: engine.kv_bytes(),
            engine,
            policy: (role != Role::Prm).then(|| models[0].clone()),
            prm: (role != Role::Policy).then(|| models[models.len() - 1].clone()),
            vocab: (vocab, vocab),
            profile: Some(profile),
            threads: None,
            names: vec!["nano".into()],
            without: String::new(),
            load_seconds: 0.0,
            weight_bytes: checkpoint.bytes(),
        }
    }

    fn flags(role: Role, unshared: bool) -> Flags {
        Flags {
            role,
            prompt: vec![64],
            branches: vec![4],
            generate: 10,
            step_tokens: 4,
            beam_width: None,
            unshared,
            temperature: 1.0,
            repeat: 2,
            warm_up: 1,
            figures: false,
        }
    }

    fn case<'a>(subject: &'a Subject, flags: &'a Flags) -> Case<'a> {
        Case::new(subject, flags, 64, 4)
    }

    fn measure(role: Role, unshared: bool) -> (Row, engine::Usage) {
        let (subject, flags) = (subject(role), flags(role, unshared));
        let case = case(&subject, &flags);
        case.fits().expect("fits");
        let (row, _) = case.measure(None).expect("runs");
        let model = subject
            .prm
            .as_ref()
            .or(subject.policy.as_ref())
            .expect("a model");
        (row, model.usage())
    }

    #[test]
    fn a_policy_computes_what_the_case_says() {
        let (row, usage) = measure(Role::Policy, false);
        let (prefill, decode) = (row.prefill.expect("prefill"), row.decode.expect("decode"));
        assert_eq!((prefill.tokens, decode.tokens), (64, 40));
        assert_eq!((prefill.seconds.runs, decode.seconds.runs), (2, 2));
        // Three repetitions of the prompt and ten rows of each branch.
        assert_eq!(usage.tokens_processed, 3 * (64 + 40));
        assert_eq!(usage.tokens_generated, 3 * (4 + 40));
        assert!(row.kv_bytes < row.kv_unshared_bytes);
        let linear = decode.operation(Operation::Linear).expect("linear layers");
        assert!(linear.share_of_time > 0.0 && linear.share_of_time < 1.0);
    }

    #[test]
    fn unshared_prompts_are_computed_by_every_branch() {
        let (row, usage) = measure(Role::Policy, true);
        assert_eq!(row.prefill.expect("prefill").tokens, 256);
        assert_eq!(usage.tokens_processed, 3 * (256 + 40));
        assert_eq!(row.kv_bytes, row.kv_unshared_bytes);
    }

    #[test]
    fn a_prm_reads_steps() {
        let (row, usage) = measure(Role::Prm, false);
        assert_eq!(row.score.expect("score").tokens, 64 + 40);
        assert_eq!(usage.tokens_processed, 3 * (64 + 40));
        assert_eq!(usage.tokens_generated, 0);
    }

    #[test]
    fn both_take_turns() {
        let (row, usage) = measure(Role::Both, false);
        assert_eq!(row.search.expect("search").tokens, 64 + 40 + 40);
        assert_eq!(usage.tokens_processed, 3 * (64 + 40));
    }

    #[test]
    fn a_beam_search_forks_the_best() {
        assert_eq!(best(&[0.5, 2.0, -1.0, 2.0], 2), [1, 3]);
        let (subject, mut flags) = (subject(Role::Both), flags(Role::Both, false));
        flags.beam_width = Some(2);
        let case = case(&subject, &flags);
        let (row, _) = case.measure(None).expect("runs");
        assert_eq!(row.search.expect("search").tokens, 64 + 40 + 40);
        // Children share their parents' steps: less is held than by branches on their own, which
        // hold 5 blocks each below 4 of the prompt.
        let kv = subject.policy.as_ref().expect("a policy").kv_usage();
        assert!(row.kv_bytes < 2 * (4 + 4 * 5) * kv.block_bytes);
        assert_eq!(
            subject.prm.expect("a PRM").usage().tokens_processed,
            3 * (64 + 40)
        );
    }

    #[test]
    fn a_case_that_does_not_fit_is_refused() {
        let (subject, flags) = (subject(Role::Policy), flags(Role::Policy, true));
        for (prompt, branches, says) in [
            (
                400,
                4096,
                "--kv-memory: 4096 branches below a prompt of 400 need ",
            ),
            (
                510,
                1,
                "--prompt 510 and --generate 10: 522 tokens, but the model's context length is 512",
            ),
        ] {
            let case = Case::new(&subject, &flags, prompt, branches);
            let error = case.fits().expect_err("too much");
            assert!(error.starts_with(says), "{error}");
        }
    }
}
