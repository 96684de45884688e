//! Tokens per second of a policy, a PRM or both: a prompt, branches below it, tokens on every branch.
//!
//! One case is a prompt's length and a number of branches. The policy's work is that of independent
//! samples: the prompt is computed (once, or by every branch for itself), every branch draws its
//! first token, and then, clocked apart, `generate` more, one step of all branches after the other.
//! The PRM's is that of a step-level search: every branch's tokens are read in steps, one number per
//! step. With both, the policy writes a step of every branch and the PRM reads it, in turn; with a beam
//! width only the best have children.
//!
//! Every repetition has a prompt of its own, so that nothing is found in the cache.

use std::cell::Cell;
use std::future::Future;
use std::time::Instant;

use clap::{Args, ValueEnum};
use engine::{Branch, Engine, Generate, Model, Sampling};
use futures::future::try_join_all;
use kernels::philox::uniform_u64;
use serde::{Deserialize, Serialize};

use crate::Done;
use crate::limits::{Achieved, Limits};
use crate::plot::Lines;
use crate::report::{Output, Report, peak_memory};
use crate::stats::Stat;
use crate::timed::{Counts, Operation, Profile};

/// What a model does.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Writes branches.
    Policy,
    /// Scores the steps of branches.
    Prm,
    /// One writes, one scores what was written.
    Both,
}

/// The work, and how often it is done.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// What the model does; for both, it serves as policy and as PRM unless --prm names another.
    #[arg(long, value_enum, default_value = "policy", value_name = "ROLE")]
    pub role: Role,
    /// Tokens of the prompt; several lengths are several cases.
    #[arg(long, default_value = "512", value_delimiter = ',', value_name = "TOKENS,...", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub prompt: Vec<u32>,
    /// Branches; several numbers are several cases.
    #[arg(long, default_value = "1,4,16,64", value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub branches: Vec<u32>,
    /// Tokens of every branch below the prompt.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub generate: u32,
    /// Tokens of a step: a PRM gives a number for each. Without effect on a policy alone.
    #[arg(long, default_value_t = 64, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub step_tokens: u32,
    /// After every step keep one in M branches, those the PRM scores highest, with M children each: a
    /// beam search. Only with --role both.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub beam_width: Option<u32>,
    /// Give every branch a prompt of its own, of the same length, instead of one they share.
    #[arg(long)]
    pub unshared: bool,
    /// Draw tokens at this temperature; 0 takes the most likely one.
    #[arg(long, default_value_t = 0.7, value_name = "T")]
    pub temperature: f32,
    /// Repetitions that count.
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Repetitions before them that do not.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub warm_up: u32,
}

/// The models that do it.
pub struct Subject {
    /// The engine they are on.
    pub engine: Engine,
    /// The policy, unless the role is the PRM's.
    pub policy: Option<Model>,
    /// The PRM, unless the role is the policy's.
    pub prm: Option<Model>,
    /// Tokens the policy and the PRM may be given, each: random ones below these bounds.
    pub vocab: (usize, usize),
    /// What is clocked; `None` for a device whose operations are not.
    pub profile: Option<Profile>,
    /// Bytes of KV cache the engine has.
    pub kv_bytes: usize,
    /// Threads of the CPU backend; `None` on another device.
    pub threads: Option<usize>,
    /// The models in words.
    pub names: Vec<String>,
    /// Seconds it took to open the files and to put the weights onto the device.
    pub load_seconds: f64,
    /// Bytes of the weights as they are stored.
    pub weight_bytes: usize,
}

/// What holds for all cases.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The models: the policy, then the PRM.
    pub models: Vec<String>,
    /// Bytes of their weights as they are stored.
    pub weight_bytes: usize,
    /// The flags.
    #[serde(flatten)]
    pub flags: Flags,
    /// From opening the files to the models on the device.
    pub load_seconds: f64,
    /// From opening the files to the first token (or score) of the first case, cold.
    pub first_token_seconds: Option<f64>,
    /// The most memory the process had, all cases over; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
}

/// One part of a case's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Tokens per repetition.
    pub tokens: u64,
    /// Seconds.
    pub seconds: Stat,
    /// Tokens per second.
    pub tokens_per_second: Stat,
    /// Where the seconds went; empty for a device whose operations are not clocked.
    pub operations: Vec<Spent>,
}

impl Part {
    fn new(tokens: u64, seconds: &[f64], counts: &Counts, limits: Option<&Limits>) -> Done<Part> {
        let stat = Stat::of(seconds).ok_or("a measurement without a repetition")?;
        Ok(Part {
            tokens,
            seconds: stat,
            tokens_per_second: stat.rate(tokens as f64),
            operations: spent(counts, seconds.iter().sum(), limits),
        })
    }

    /// What an operation came to.
    pub fn operation(&self, operation: Operation) -> Option<&Spent> {
        self.operations
            .iter()
            .find(|spent| spent.operation == operation)
    }
}

/// Time in one kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Which.
    pub operation: Operation,
    /// Seconds, over all repetitions that count.
    pub seconds: f64,
    /// Of the part's seconds.
    pub share_of_time: f64,
    /// Against the limits, for operations that are counted.
    pub achieved: Option<Achieved>,
}

/// Where time went, over models and phases.
fn spent(counts: &Counts, seconds: f64, limits: Option<&Limits>) -> Vec<Spent> {
    let mut all = Vec::new();
    for operation in Operation::ALL {
        let mut cost = crate::timed::Cost::default();
        for work in counts.values() {
            cost += work.cost(operation);
        }
        if cost.calls > 0 {
            let counted = limits.filter(|_| cost.flops > 0.0);
            all.push(Spent {
                operation,
                seconds: cost.seconds,
                share_of_time: cost.seconds / seconds,
                achieved: counted.map(|l| Achieved::of(cost.flops, cost.bytes, cost.seconds, l)),
            });
        }
    }
    all
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Branches.
    pub branches: u32,
    /// The policy's prompt and each branch's first token; tokens are the prompt's, of every branch
    /// if unshared.
    pub prefill: Option<Part>,
    /// The tokens of all branches after the first.
    pub decode: Option<Part>,
    /// The PRM's reading: tokens of all steps and of the prompt.
    pub score: Option<Part>,
    /// With both models: all of it, tokens of policy and PRM together.
    pub search: Option<Part>,
    /// Bytes of KV the branches held when they were longest.
    pub kv_bytes: usize,
    /// What they would have held without sharing.
    pub kv_unshared_bytes: usize,
    /// Steps of the device, all repetitions and the warm-up included.
    pub steps: u64,
}

/// Measures; progress goes to standard error.
///
/// # Errors
/// Too little KV memory for a case, a prompt longer than the model's positions, a device that failed.
pub fn run(subject: &Subject, flags: &Flags, output: &Output) -> Done<String> {
    let limits = subject.threads.map(Limits::measure);
    let settings = Settings {
        models: subject.names.clone(),
        weight_bytes: subject.weight_bytes,
        flags: flags.clone(),
        load_seconds: subject.load_seconds,
        first_token_seconds: None,
        peak_memory_bytes: None,
    };
    let device = subject.engine.device();
    let mut report = Report::new("throughput", device, limits.into_iter().collect(), settings);
    for &prompt in &flags.prompt {
        for &branches in &flags.branches {
            eprintln!("prompt {prompt}, {branches} branches");
            let case = Case {
                subject,
                flags,
                prompt: prompt as usize,
                branches: branches as usize,
                kv_bytes: Cell::new(0),
            };
            case.fits()?;
            let (row, cold) = case.measure(limits.as_ref())?;
            let first = &mut report.settings.first_token_seconds;
            first.get_or_insert(subject.load_seconds + cold);
            report.rows.push(row);
        }
    }
    report.settings.peak_memory_bytes = peak_memory();
    let (header, rows) = table(&report);
    let plots = plots(&report)?;
    report.give(output, (&header, 2, &rows), &plots)
}

struct Case<'a> {
    subject: &'a Subject,
    flags: &'a Flags,
    prompt: usize,
    branches: usize,
    /// Bytes of KV that the branches held when they were longest.
    kv_bytes: Cell<usize>,
}

/// Seconds of one repetition's parts.
#[derive(Default)]
struct Times {
    prefill: Vec<f64>,
    decode: Vec<f64>,
    score: Vec<f64>,
    search: Vec<f64>,
}

impl Case<'_> {
    /// Refuses a case that the KV memory cannot hold all at once, which would measure preemption.
    fn fits(&self) -> Done {
        let own = self.flags.generate as usize + 2;
        let models = [&self.subject.policy, &self.subject.prm];
        let mut needed = 0;
        for model in models.into_iter().flatten() {
            let kv = model.kv_usage();
            let blocks = |tokens: usize| tokens.div_ceil(kv.block_tokens) + 1;
            let all = match self.flags.unshared {
                true => self.branches * blocks(self.prompt + own),
                false => blocks(self.prompt) + self.branches * blocks(own),
            };
            needed += all * kv.block_bytes;
            let (tokens, limit) = (self.prompt + own, model.context_length());
            if tokens > limit {
                return Err(format!(
                    "--prompt {} and --generate {}: {tokens} tokens, but the model has {limit} \
                     positions",
                    self.prompt, self.flags.generate
                ));
            }
        }
        // One superblock of slack for each model: memory is cut for all of them.
        match needed.saturating_mul(102) / 100 <= self.subject.kv_bytes {
            true => Ok(()),
            false => Err(format!(
                "--kv-memory: {} branches below a prompt of {} need {} MiB, there are {}",
                self.branches,
                self.prompt,
                (needed.saturating_mul(102) / 100).div_ceil(1 << 20),
                self.subject.kv_bytes >> 20
            )),
        }
    }

    /// The row, and the seconds to the first token of the first repetition.
    fn measure(&self, limits: Option<&Limits>) -> Done<(Row, f64)> {
        let take = || {
            self.subject
                .profile
                .as_ref()
                .map(Profile::take)
                .unwrap_or_default()
        };
        let mut times = Times::default();
        let mut counts: [Counts; 3] = Default::default();
        let mut cold = None;
        for repetition in 0..self.flags.warm_up + self.flags.repeat {
            let seed = u64::from(repetition) << 32 | (self.prompt * self.branches) as u64;
            take();
            let mut add = |part: usize, times: &mut Vec<f64>, seconds: f64| {
                let now = take();
                cold.get_or_insert(seconds);
                if repetition >= self.flags.warm_up {
                    times.push(seconds);
                    for (key, work) in now {
                        let sum = counts[part].entry(key).or_default();
                        for (operation, cost) in work.costs {
                            *sum.costs.entry(operation).or_default() += cost;
                        }
                    }
                }
            };
            match (&self.subject.policy, &self.subject.prm) {
                (Some(policy), None) => {
                    let (mut branches, seconds) = self.prefill(policy, seed)?;
                    add(0, &mut times.prefill, seconds);
                    let seconds = self.decode(&mut branches)?;
                    add(1, &mut times.decode, seconds);
                }
                (None, Some(prm)) => add(2, &mut times.score, self.score(prm, seed)?),
                (Some(policy), Some(prm)) => {
                    add(2, &mut times.search, self.search(policy, prm, seed)?);
                }
                (None, None) => return Err("no model to measure".into()),
            }
        }
        let own = self.flags.generate as usize;
        let prompts = match self.flags.unshared {
            true => self.branches * self.prompt,
            false => self.prompt,
        };
        let part = |tokens: usize, seconds: &[f64], counts: &Counts| match seconds {
            [] => Ok(None),
            _ => Part::new(tokens as u64, seconds, counts, limits).map(Some),
        };
        let read = prompts + self.branches * own;
        let models = [&self.subject.policy, &self.subject.prm];
        let usages: Vec<_> = models.into_iter().flatten().collect();
        let alone = |model: &&Model| {
            let kv = model.kv_usage();
            self.branches * (self.prompt + own).div_ceil(kv.block_tokens) * kv.block_bytes
        };
        let row = Row {
            prompt: self.prompt as u32,
            branches: self.branches as u32,
            prefill: part(prompts, &times.prefill, &counts[0])?,
            decode: part(self.branches * own, &times.decode, &counts[1])?,
            score: part(read, &times.score, &counts[2])?,
            search: part(read + self.branches * own, &times.search, &counts[2])?,
            kv_bytes: self.kv_bytes.get(),
            kv_unshared_bytes: usages.iter().map(alone).sum(),
            steps: usages.iter().map(|m| m.usage().batches).sum(),
        };
        Ok((row, cold.unwrap_or(0.0)))
    }

    /// Runs `work` to its end.
    fn wait<T>(&self, work: impl Future<Output = Result<T, engine::Error>>) -> Done<T> {
        let done = self.subject.engine.run(work);
        done.and_then(|done| done)
            .map_err(|error| error.to_string())
    }

    fn clocked<T>(&self, work: impl Future<Output = Result<T, engine::Error>>) -> Done<(T, f64)> {
        let start = Instant::now();
        let done = self.wait(work)?;
        let seconds = start.elapsed().as_secs_f64();
        let held = |model: &Model| model.kv_usage().live_blocks * model.kv_usage().block_bytes;
        let models = [&self.subject.policy, &self.subject.prm];
        let held = models.into_iter().flatten().map(held).sum();
        self.kv_bytes.set(self.kv_bytes.get().max(held));
        Ok((done, seconds))
    }

    /// The branches, nothing computed yet.
    fn plant(&self, model: &Model, vocab: usize, seed: u64) -> Done<Vec<Branch>> {
        let grow = |stream: u64| {
            let mut root = model.root(stream);
            root.append(&tokens(self.prompt, vocab, stream))
                .map_err(|error| error.to_string())?;
            Ok(root)
        };
        if self.flags.unshared {
            return (0..self.branches)
                .map(|i| grow(seed ^ ((i as u64 + 1) << 24)))
                .collect();
        }
        let root = grow(seed)?;
        Ok((0..self.branches).map(|_| root.fork()).collect())
    }

    fn how(&self, tokens: usize) -> Generate {
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
        }
    }

    fn prefill(&self, model: &Model, seed: u64) -> Done<(Vec<Branch>, f64)> {
        let mut branches = self.plant(model, self.subject.vocab.0, seed)?;
        let first = try_join_all(branches.iter_mut().map(|b| b.generate(self.how(1))));
        let (_, seconds) = self.clocked(first)?;
        Ok((branches, seconds))
    }

    fn decode(&self, branches: &mut [Branch]) -> Done<f64> {
        let tokens = self.flags.generate as usize;
        let rest = try_join_all(branches.iter_mut().map(|b| b.generate(self.how(tokens))));
        Ok(self.clocked(rest)?.1)
    }

    /// The lengths of a branch's steps.
    fn steps(&self) -> impl Iterator<Item = usize> + '_ {
        let (all, step) = (
            self.flags.generate as usize,
            self.flags.step_tokens as usize,
        );
        (0..all).step_by(step).map(move |from| step.min(all - from))
    }

    /// All branches' steps are read, the next ones when those before are scored.
    fn score(&self, model: &Model, seed: u64) -> Done<f64> {
        let vocab = self.subject.vocab.1;
        let mut branches = self.plant(model, vocab, seed)?;
        let work = async {
            for (number, step) in self.steps().enumerate() {
                let readings = branches.iter_mut().enumerate().map(|(i, branch)| {
                    let stream = seed ^ 0x5eed ^ ((number as u64) << 40) ^ ((i as u64 + 1) << 24);
                    let step = tokens(step, vocab, stream);
                    async move { branch.read(&step, &[step.len() - 1]).await }
                });
                try_join_all(readings).await?;
            }
            Ok(())
        };
        Ok(self.clocked(work)?.1)
    }

    /// The policy writes a step of every branch, the PRM reads it.
    fn search(&self, policy: &Model, prm: &Model, seed: u64) -> Done<f64> {
        let mut writers = self.plant(policy, self.subject.vocab.0, seed)?;
        let mut readers = self.plant(prm, self.subject.vocab.1, seed)?;
        let vocab = self.subject.vocab.1 as u32;
        let last = self.steps().count() - 1;
        let work = async {
            for (number, step) in self.steps().enumerate() {
                let both = writers
                    .iter_mut()
                    .zip(&mut readers)
                    .map(|(writer, reader)| {
                        let how = self.how(step);
                        async move {
                            let written = writer.generate(how).await?.token_ids;
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
        Ok(self.clocked(work)?.1)
    }
}

/// The places of the `count` largest scores, the largest first; of equal ones the first.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places.truncate(count);
    places
}

/// `width` children of each of the `kept` branches, `most` in all.
fn children(branches: &[Branch], kept: &[usize], width: usize, most: usize) -> Vec<Branch> {
    let all = kept.iter().flat_map(|&place| vec![place; width]);
    all.take(most).map(|place| branches[place].fork()).collect()
}

/// Random tokens below `vocab`.
fn tokens(count: usize, vocab: usize, stream: u64) -> Vec<u32> {
    (0..count as u64)
        .map(|i| (uniform_u64(stream, i) % vocab as u64) as u32)
        .collect()
}

fn table(report: &Report<Settings, Row>) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = vec![
        "prompt",
        "branches",
        "prefill tok/s",
        "decode tok/s",
        "score tok/s",
        "search tok/s",
        "products: GFLOP/s",
        "of peak",
        "GB/s",
        "of read",
        "KV MiB",
        "unshared",
    ];
    let rows = report.rows.iter().map(|row| {
        let rate = |part: &Option<Part>| {
            let words = |part: &Part| part.tokens_per_second.words(1.0, 1);
            part.as_ref().map_or("-".into(), words)
        };
        let last = [&row.search, &row.score, &row.decode];
        let part = last.into_iter().flatten().next();
        let products = part.and_then(|p| p.operation(Operation::Products)?.achieved);
        let of =
            |number: &dyn Fn(&Achieved) -> String| products.as_ref().map_or("-".into(), number);
        let mib = |bytes: usize| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        vec![
            row.prompt.to_string(),
            row.branches.to_string(),
            rate(&row.prefill),
            rate(&row.decode),
            rate(&row.score),
            rate(&row.search),
            of(&|a| format!("{:.1}", 1e-9 * a.flops_per_second)),
            of(&|a| format!("{:.0}%", 100.0 * a.share_of_fma_peak)),
            of(&|a| format!("{:.1}", 1e-9 * a.bytes_per_second)),
            of(&|a| format!("{:.0}%", 100.0 * a.share_of_read_bandwidth)),
            mib(row.kv_bytes),
            mib(row.kv_unshared_bytes),
        ]
    });
    (header, rows.collect())
}

fn plots(report: &Report<Settings, Row>) -> Done<Vec<(String, String)>> {
    let part = |row: &Row, name| {
        match name {
            "prefill" => &row.prefill,
            "decode" => &row.decode,
            "score" => &row.score,
            _ => &row.search,
        }
        .clone()
    };
    let mut plots = Vec::new();
    for name in ["prefill", "decode", "score", "search"] {
        let mut series = Vec::new();
        for &prompt in &report.settings.flags.prompt {
            let rows = report.rows.iter().filter(|row| row.prompt == prompt);
            let points: Vec<(f64, f64)> = rows
                .filter_map(|row| {
                    let rate = part(row, name)?.tokens_per_second.median;
                    Some((f64::from(row.branches), rate))
                })
                .collect();
            if !points.is_empty() {
                series.push((format!("prompt {prompt}"), points));
            }
        }
        if !series.is_empty() {
            let picture = Lines {
                title: format!("{}: {name}", report.settings.models.join(" and ")),
                x: "branches".into(),
                y: "tokens/s".into(),
                series,
                limits: Vec::new(),
            };
            plots.push((name.to_string(), picture.svg()?));
        }
    }
    Ok(plots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Shape;
    use crate::timed::Timed;
    use engine::checkpoint::Checkpoint;
    use engine::{ModelSpec, Options};
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
        }
    }

    fn case<'a>(subject: &'a Subject, flags: &'a Flags) -> Case<'a> {
        Case {
            subject,
            flags,
            prompt: 64,
            branches: 4,
            kv_bytes: Cell::new(0),
        }
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
        let products = decode.operation(Operation::Products).expect("products");
        assert!(products.share_of_time > 0.0 && products.share_of_time < 1.0);
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
                "--prompt 510 and --generate 10: 522 tokens, but the model has 512 positions",
            ),
        ] {
            let case = Case {
                subject: &subject,
                flags: &flags,
                prompt,
                branches,
                kv_bytes: Cell::new(0),
            };
            let error = case.fits().expect_err("too much");
            assert!(error.starts_with(says), "{error}");
        }
    }
}
