//! `offshoot bench`: measurements on this machine.

use std::time::Instant;

use bench::profile::{self, Run};
use bench::shapes::Shape;
use bench::throughput::{self, Role, Subject};
use bench::{attention, kernels, limits, linear, scaling};
use engine::checkpoint::Checkpoint;
use engine::checkpoint::config::HeadKind;
use engine::checkpoint::hub::Need;
use futures::StreamExt;
use futures::stream;
use strategies::EnginePrm;

use super::{print, solve};
use crate::error::{Done, Failure};
use crate::flags::{BenchCommand, BenchSearchFlags, EngineFlags, ThroughputFlags};
use crate::models;

/// Rows of an LM head that a PRM is read at: two tokens' logits, as Math-Shepherd's and RLHFlow's.
const PRM_HEAD_ROWS: [u32; 2] = [0, 1];

/// Runs the command.
pub fn run(command: &BenchCommand) -> Done {
    let text = match command {
        BenchCommand::Throughput(flags) => throughput(flags)?,
        BenchCommand::Linear { sweep, output } => {
            linear::run(sweep, output).map_err(Failure::new)?
        }
        BenchCommand::Attention { sweep, output } => {
            attention::run(sweep, output).map_err(Failure::new)?
        }
        BenchCommand::Search(flags) => search(flags)?,
        BenchCommand::Scaling(flags) => return scaling::run(flags).map_err(Failure::new),
        BenchCommand::Kernels(flags) => return kernels::run(flags).map_err(Failure::new),
    };
    print(&text)
}

/// A model to measure.
struct Named {
    name: String,
    checkpoint: Checkpoint,
}

fn named(argument: &str, model: &str) -> Done<Named> {
    Ok(Named {
        name: model.into(),
        checkpoint: Checkpoint::open(models::source(argument, model, Need::Weights)?)?,
    })
}

fn throughput(flags: &ThroughputFlags) -> Done<String> {
    let began = Instant::now();
    let role = flags.work.role;
    for (flag, given) in [
        ("--prm", flags.prm.is_some()),
        ("--beam-width", flags.work.beam_width.is_some()),
    ] {
        if given && role != Role::Both {
            return Err(Failure::new(format!(
                "{flag}: expected --role both beside it"
            )));
        }
    }
    if flags.work.temperature < 0.0 || !flags.work.temperature.is_finite() {
        let found = flags.work.temperature;
        return Err(Failure::new(format!(
            "--temperature {found}: expected a number from 0 up"
        )));
    }
    let random = |shape: Shape| -> Done<Named> {
        Ok(Named {
            name: format!("{} (random weights)", shape.name),
            checkpoint: Checkpoint::random(shape.source(), 0)?,
        })
    };
    let first = match (&flags.model, flags.shape) {
        (_, Some(shape)) => random(shape)?,
        (Some(model), None) => named("the model", model)?,
        // The command line asks for one of the two.
        (None, None) => return Err(Failure::new("expected a model or --shape")),
    };
    if role != Role::Prm && first.checkpoint.config.head != HeadKind::Causal {
        return Err(Failure::new(format!(
            "{}: a reward model cannot write, expected --role prm",
            first.name
        )));
    }
    let second = match &flags.prm {
        Some(prm) => Some(named("--prm", prm)?),
        None => None,
    };
    let prm = second.as_ref().unwrap_or(&first);

    let part = |model| models::part(&flags.engine, model, None);
    let scorer = || engine::ModelSpec {
        head_rows: Some(PRM_HEAD_ROWS.to_vec()),
        ..part(&prm.checkpoint)
    };
    let writer = || part(&first.checkpoint);
    let (parts, measured) = match role {
        Role::Policy => (vec![writer()], vec![&first]),
        Role::Prm => (vec![scorer()], vec![prm]),
        Role::Both => (vec![writer(), scorer()], vec![&first, prm]),
    };
    let options = models::options(&flags.engine, 0)?;
    let (engine, on_device, profile) =
        models::timed_engine(&flags.engine, options, &parts, &flags.without)?;
    let subject = Subject {
        policy: (role != Role::Prm).then(|| on_device[0].clone()),
        prm: (role != Role::Policy)
            .then(|| on_device.last().cloned())
            .flatten(),
        vocab: (first.checkpoint.config.vocab, prm.checkpoint.config.vocab),
        threads: profile.is_some().then_some(flags.engine.threads),
        profile,
        kv_bytes: engine.kv_bytes(),
        names: measured.iter().map(|model| model.name.clone()).collect(),
        load_seconds: began.elapsed().as_secs_f64(),
        weight_bytes: measured.iter().map(|m| m.checkpoint.bytes()).sum(),
        engine,
    };
    throughput::run(&subject, &flags.work, &flags.output).map_err(Failure::new)
}

fn search(flags: &BenchSearchFlags) -> Done<String> {
    let mut runs = Vec::new();
    let mut device = (String::new(), None);
    for repetition in 0..flags.times.warm_up + flags.times.repeat {
        eprintln!("repetition {}", repetition + 1);
        let (run, on) = search_once(flags)?;
        device = on;
        if repetition >= flags.times.warm_up {
            runs.push(run);
        }
    }
    let config = flags.search.config();
    let words = format!("{}, N = {}", config.strategy.name(), config.n);
    profile::give(words, device, &runs, &flags.output).map_err(Failure::new)
}

/// The device in words, and its threads if it is the CPU.
type DeviceWords = (String, Option<usize>);

fn search_once(flags: &BenchSearchFlags) -> Done<(Run, DeviceWords)> {
    let began = Instant::now();
    let search = &flags.search;
    let config = search.config();
    config.validate()?;
    let (problems, _) = solve::problems(None, search)?;
    let opened = solve::open(search, &config)?;
    let style = solve::prompt_style(search, &opened.policy);
    let (policy, format) = (&opened.policy, opened.format.as_deref());
    let scorer = opened.prm.iter().map(|prm| (prm, format));
    let loaded: Vec<_> = std::iter::once((policy, None)).chain(scorer).collect();
    let options = models::options(&search.engine, config.seed)?;
    let parts = models::parts(&search.engine, &loaded);
    let (engine, on_device, profile) = models::timed_engine(&search.engine, options, &parts, &[])?;
    let past_limit = search.engine.past_limit;
    let writer = policy.policy(on_device[0].clone(), style, past_limit);
    let scorer = opened
        .format
        .clone()
        .map(|format| EnginePrm::new(on_device[1].clone(), format, past_limit));
    let load_seconds = began.elapsed().as_secs_f64();

    let start = Instant::now();
    let work = async {
        let tasks = problems
            .iter()
            .map(|problem| solve::solve_one(&writer, scorer.as_ref(), problem, &config));
        let ended = stream::iter(tasks).buffer_unordered(solve::at_once(search, &config));
        ended.collect::<Vec<_>>().await
    };
    let solved = engine
        .run(work)?
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let right = solved
        .iter()
        .filter(|(outcome, _)| outcome.correct == Some(true));
    let run = Run {
        load_seconds,
        seconds,
        problems: (solved.len(), right.count()),
        counts: profile.as_ref().map(|p| p.take()).unwrap_or_default(),
        models: (loaded.iter().zip(&on_device))
            .map(|((model, _), on)| (model.name.clone(), on.usage(), on.kv_usage()))
            .collect(),
    };
    Ok((
        run,
        (engine.device(), profile.map(|_| threads(&search.engine))),
    ))
}

fn threads(flags: &EngineFlags) -> usize {
    limits::threads_of(flags.threads)
}
