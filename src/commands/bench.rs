//! `offshoot bench`: measurements on this machine.

use std::time::Instant;

use ::kernels::cuda::items::Sharing;
use bench::profile::{self, Run};
use bench::throughput::{self, Role, Subject};
use bench::timed::{Profile, Timed};
use bench::{attention, kernels, limits, linear, scaling};
use clap::ValueEnum;
use engine::checkpoint::Checkpoint;
use engine::checkpoint::config::HeadKind;
use engine::{Engine, Model, ModelSpec};
use futures::executor::block_on;
use session::device::AnyBackend;
use session::local::{Local, Sources};
use session::models::source;
use session::results::Settings;
use session::{Job, Need, Options, Session};
use strategies::ContextOverflow;

use super::calibrate::calibrate;
use super::{print, say_notes, say_unused_card, solve};
use crate::downloads::Downloads;
use crate::error::{Done, Failure, sentence_with};
use crate::flags::{BenchCommand, BenchSearchFlags, EngineFlags, ThroughputFlags, Without};

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

fn named(setting: &'static str, model: &str) -> Done<Named> {
    let found = source(setting, model, Need::Weights, &mut Downloads::default())
        .map_err(|error| Failure::new(sentence_with(error, &[("model", "MODEL")])))?;
    Ok(Named {
        name: model.into(),
        checkpoint: Checkpoint::open(found)?,
    })
}

/// Refuses flags that do not go together.
fn check_throughput(flags: &ThroughputFlags) -> Done {
    if flags.work.figures && flags.work.role != Role::Policy {
        return Err(Failure::new("--figures: expected --role policy beside it"));
    }
    for (flag, given) in [
        ("--prm", flags.prm.is_some()),
        ("--beam-width", flags.work.beam_width.is_some()),
    ] {
        if given && flags.work.role != Role::Both {
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
    Ok(())
}

/// The policy, or the PRM of `--role prm`.
fn first_model(flags: &ThroughputFlags) -> Done<Named> {
    let first = match (&flags.model, flags.shape) {
        (_, Some(shape)) => Named {
            name: format!("{} (random weights)", shape.name),
            checkpoint: Checkpoint::random(shape.source(), 0)?,
        },
        (Some(model), None) => named("model", model)?,
        // The command line requires one of the two.
        (None, None) => return Err(Failure::new("expected a model or --shape")),
    };
    if flags.work.role != Role::Prm && first.checkpoint.config.head != HeadKind::Causal {
        return Err(Failure::new(format!(
            "{}: a reward model cannot write, expected --role prm",
            first.name
        )));
    }
    Ok(first)
}

fn throughput(flags: &ThroughputFlags) -> Done<String> {
    let began = Instant::now();
    check_throughput(flags)?;
    let role = flags.work.role;
    let first = first_model(flags)?;
    let second = match &flags.prm {
        Some(prm) => Some(named("prm", prm)?),
        None => None,
    };
    let prm = second.as_ref().unwrap_or(&first);

    let extend_context = flags.engine.context_overflow == ContextOverflow::Extend;
    let part = |model| ModelSpec {
        extend_context,
        ..ModelSpec::new(model, None)
    };
    let scorer = || ModelSpec {
        head_rows: Some(PRM_HEAD_ROWS.to_vec()),
        ..part(&prm.checkpoint)
    };
    let writer = || part(&first.checkpoint);
    let (parts, measured) = match role {
        Role::Policy => (vec![writer()], vec![&first]),
        Role::Prm => (vec![scorer()], vec![prm]),
        Role::Both => (vec![writer(), scorer()], vec![&first, prm]),
    };
    let (engine, on_device, profile) = timed_engine(&flags.engine, &parts, &flags.without)?;
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
        without: without_words(&flags.without),
        load_seconds: began.elapsed().as_secs_f64(),
        weight_bytes: measured.iter().map(|m| m.checkpoint.bytes()).sum(),
        engine,
    };
    throughput::run(&subject, &flags.work, &flags.output).map_err(Failure::new)
}

/// What is turned off, as a suffix.
fn without_words(without: &[Without]) -> String {
    let words: Vec<String> = (without.iter())
        .filter_map(|what| Some(what.to_possible_value()?.get_name().to_string()))
        .collect();
    match words.is_empty() {
        true => String::new(),
        false => format!(" without={}", words.join(",")),
    }
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
    let plan = flags.search.plan_file()?;
    let config = flags.search.config(plan.as_ref().map(|(_, file)| file));
    let words = format!("{}, N = {}", config.strategy.name(), config.n);
    profile::give(words, device, &runs, &flags.output).map_err(Failure::new)
}

/// The device in words, and its threads if it is the CPU.
type DeviceWords = (String, Option<usize>);

fn search_once(flags: &BenchSearchFlags) -> Done<(Run, DeviceWords)> {
    let began = Instant::now();
    let search = &flags.search;
    let plan = search.plan_file()?;
    let mut config = search.config(plan.as_ref().map(|(_, file)| file));
    let calibration = calibrate(search, &mut config)?;
    config.validate()?;
    let (problems, _) = solve::problems(None, search)?;
    let options = search.session();
    let sources = Sources::find(&options, &mut Downloads::default())?;
    let (session, profile) = Session::over(&options, move |options| clocked(options, sources))?;
    if let Some((path, file)) = &plan {
        file.must_fit(path, session.info())?;
    }
    if let Some(calibration) = calibration {
        calibration.must_fit(&Settings::new(&options, session.info(), &config))?;
    }
    say_notes(session.info());
    let load_seconds = began.elapsed().as_secs_f64();

    let start = Instant::now();
    let jobs: Vec<_> = (problems.into_iter())
        .map(|problem| session.solve(problem, config.clone()))
        .collect();
    let solved = (jobs.into_iter().map(Job::wait)).collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let right = (solved.iter()).filter(|outcome| outcome.correct == Some(true));
    let (info, usages) = (session.info(), block_on(session.usage())?);
    let models = (info.policy.iter().zip(&usages.policy)).chain(info.prm.iter().zip(&usages.prm));
    let run = Run {
        load_seconds,
        seconds,
        problems: (solved.len(), right.count()),
        counts: profile.as_ref().map(|p| p.take()).unwrap_or_default(),
        models: models
            .map(|(model, usage)| (model.name.clone(), usage.work, usage.kv))
            .collect(),
    };
    let threads = profile.map(|_| limits::threads_of(search.engine.threads));
    Ok((run, (info.machine.name.clone(), threads)))
}

/// The models on their device; the CPU's operations are clocked.
fn clocked(
    options: &Options,
    sources: Sources,
) -> Result<(Local, Option<Profile>), session::Error> {
    if options.prm_device.is_some() {
        // Two devices work at the same time: one's operations do not add up to the search's seconds.
        return Local::open(options, sources, |_| Ok(None));
    }
    let (backend, machine) = options.engine.open()?;
    match backend {
        AnyBackend::Cuda(card) => Local::over(*card, machine, options, sources, |_| Ok(None)),
        AnyBackend::Cpu(cpu) => {
            let (timed, profile) = Timed::new(cpu);
            Local::over(timed, machine, options, sources, |_| Ok(Some(profile)))
        }
    }
}

/// Puts models onto the device, a GPU without some of its optimisations; the CPU's operations are clocked.
fn timed_engine(
    flags: &EngineFlags,
    parts: &[ModelSpec<'_>],
    without: &[Without],
) -> Done<(Engine, Vec<Model>, Option<Profile>)> {
    let options = flags.options();
    let mut engine_options = options.engine(0)?;
    // A case's branches decode together, also where more of them no longer raise the throughput.
    engine_options.max_num_seqs.get_or_insert(usize::MAX);
    let (backend, machine) = options.open()?;
    say_unused_card(&machine);
    match backend {
        AnyBackend::Cuda(mut card) => {
            for what in without {
                match what {
                    Without::Graphs => card.set_graphs(false),
                    Without::AsyncScheduling => engine_options.async_scheduling = Some(false),
                    Without::Cublaslt => card.set_cublaslt(None).map_err(engine::Error::from)?,
                    Without::Sharing => card.set_sharing(Sharing::Flat),
                }
            }
            let (engine, models) = Engine::new(*card, parts, &engine_options)?;
            Ok((engine, models, None))
        }
        AnyBackend::Cpu(_) if !without.is_empty() => Err(Failure::new(
            "--without: expected a GPU, the CPU has none of these optimisations",
        )),
        AnyBackend::Cpu(cpu) => {
            let (timed, profile) = Timed::new(cpu);
            let (engine, models) = Engine::new(timed, parts, &engine_options)?;
            Ok((engine, models, Some(profile)))
        }
    }
}
