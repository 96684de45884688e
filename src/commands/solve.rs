//! `offshoot solve`: problems in, answers out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::FuturesUnordered;
use session::results::{Line, Results, Settings};
use session::{Config, Info, Options, Outcome, PlanFile, Problem, Session};
use strategies::Solution;

use super::calibrate::{Calibration, calibrate};
use super::{print, print_json, read_problems, read_stdin, say_notes};
use crate::downloads::Downloads;
use crate::error::{Done, Failure, sentence};
use crate::flags::{SearchFlags, SolveFlags};
use crate::progress::Progress;
use crate::summary::{Counted, Run, Summary, render, summarise};

const NO_POLICY: session::Error = session::Error::NoModel { role: "policy" };

/// Runs the command.
pub fn run(flags: &SolveFlags) -> Done {
    let began = Instant::now();
    let plan = flags.search.plan_file()?;
    let mut config = flags.search.config(plan.as_ref().map(|(_, file)| file));
    let calibration = calibrate(&flags.search, &mut config)?;
    config.validate()?;
    let (problems, malformed) = problems(flags.problem.as_deref(), &flags.search)?;
    let options = flags.search.session();
    let (session, opened) = open(&options, &config, calibration, flags, plan, &problems)?;
    say_notes(session.info());
    // The file may have other problems too.
    let is_done = |p: &&Problem| opened.lines.contains_key(&p.id);
    let done = problems.iter().filter(is_done).count();
    if problems.len() > done + 1 {
        announce(problems.len() - done, session.info(), &config);
    }
    let mut solving = Solving {
        progress: Progress::new(problems.len(), done, config.n, config.max_tokens),
        failed: malformed,
        trees: keeps_trees(flags),
        opened,
    };
    let outcome = futures::executor::block_on(solving.run(&session, &problems, &config));
    solving.progress.end();
    outcome?;
    let ids: Vec<&str> = problems.iter().map(|p| p.id.as_str()).collect();
    let sorted = match &mut solving.opened.out {
        Some(out) => out.sort(&ids),
        None => Ok(()),
    };
    let usages = futures::executor::block_on(session.usage())?;
    let info = session.info().clone();
    drop(session);

    let Solving { failed, opened, .. } = solving;
    let in_order: Vec<&Line> = (problems.iter())
        .filter_map(|p| opened.lines.get(&p.id))
        .collect();
    let summary = summarise(Run {
        lines: &in_order,
        failed,
        config: &config,
        device: info.machine.name,
        context_overflow: options.engine.context_overflow,
        policy: Counted::of(info.policy, usages.policy).ok_or(NO_POLICY)?,
        prm: Counted::of(info.prm, usages.prm),
        seconds: began.elapsed().as_secs_f64(),
        regraded: opened.out.as_ref().map_or(&[], Results::regraded),
    });
    report(flags, &in_order, &summary)?;
    if let Err(error) = sorted {
        // Nothing is lost: it is the order alone.
        let why = sentence(error);
        eprintln!("warning: the results stay in the order in which they came: {why}");
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("1 problem has no result")),
        _ => Err(Failure::new(format!("{failed} problems have no result"))),
    }
}

/// Whether results hold trees: the answer to one problem shows the solution chosen.
fn keeps_trees(flags: &SolveFlags) -> bool {
    flags.trees || flags.problem.is_some()
}

/// Says on stderr what is about to run, with every default resolved.
fn announce(problems: usize, info: &Info, config: &Config) {
    let name = |model: &session::ModelInfo| model.name.clone();
    let models: Vec<String> = info.policy.iter().chain(&info.prm).map(name).collect();
    let mut search = format!("{}, N = {}", config.strategy.name(), config.n);
    if config.strategy.uses_beam_width() {
        let (width, kept) = (config.beam_width, config.n / config.beam_width.max(1));
        search += &format!(
            " ({kept} paths x {width} candidates, {} steps)",
            config.max_steps
        );
    }
    eprintln!(
        "{problems} problems: {search}, at most {} tokens a solution, temperature {}, seed {}; {} \
         on {}",
        config.max_tokens,
        config.sampling.temperature,
        config.seed,
        models.join(" and "),
        info.machine.name
    );
}

/// The settings of a run, its results file, and what is in it already.
struct Opened {
    settings: Settings,
    out: Option<Results>,
    lines: HashMap<String, Line>,
}

/// Opens the session; the results file before models are loaded, so that one of other settings is
/// refused at once.
fn open(
    options: &Options,
    config: &Config,
    calibration: Option<Calibration>,
    flags: &SolveFlags,
    plan: Option<(PathBuf, PlanFile)>,
    problems: &[Problem],
) -> Done<(Session, Opened)> {
    let trees = keeps_trees(flags);
    let check = {
        let (options, config) = (options.clone(), config.clone());
        let (path, problems) = (flags.out.clone(), problems.to_vec());
        move |info: &Info| {
            info.must_take_problems()?;
            if let Some((path, file)) = &plan {
                file.must_fit(path, info)?;
            }
            let settings = Settings::new(&options, info, &config);
            if let Some(calibration) = calibration {
                calibration.must_fit(&settings)?;
            }
            let (out, lines) = match &path {
                Some(path) => {
                    let (out, lines) = Results::open(path, &settings, trees, &problems)?;
                    (Some(out), lines)
                }
                None => (None, HashMap::new()),
            };
            Ok(Opened {
                settings,
                out,
                lines,
            })
        }
    };
    Ok(Session::open_checked(
        options,
        &mut Downloads::default(),
        check,
    )?)
}

/// How often the progress is brought up to date.
const TICK: Duration = Duration::from_millis(500);

/// A stream that says every `interval` that time has passed.
fn ticks(interval: Duration) -> mpsc::Receiver<()> {
    // Ticks that nobody has taken are not added up.
    let (mut sender, receiver) = mpsc::channel(0);
    let wait = move || {
        loop {
            std::thread::sleep(interval);
            if sender
                .try_send(())
                .is_err_and(|error| error.is_disconnected())
            {
                return;
            }
        }
    };
    // Without the thread there are no ticks: problems that end still show.
    drop(std::thread::Builder::new().name("ticks".into()).spawn(wait));
    receiver
}

/// Problems being solved.
struct Solving {
    opened: Opened,
    progress: Progress,
    /// Problems without a result.
    failed: usize,
    trees: bool,
}

impl Solving {
    /// Solves what the results file does not have; a line is written as soon as its problem ends.
    async fn run(&mut self, session: &Session, problems: &[Problem], config: &Config) -> Done {
        let todo = (problems.iter()).filter(|p| !self.opened.lines.contains_key(&p.id));
        let mut ended: FuturesUnordered<_> = todo
            .map(|problem| {
                let job = session.solve(problem.clone(), config.clone());
                async move { (problem, job.outcome().await) }
            })
            .collect();
        let mut ticks = ticks(TICK);
        loop {
            let (problem, solved) = futures::select_biased! {
                ended = ended.next() => match ended {
                    Some(ended) => ended,
                    None => return Ok(()),
                },
                () = ticks.select_next_some() => {
                    self.progress.worked(&session.usage().await?);
                    continue;
                }
            };
            match solved {
                Ok(outcome) => self.solved(problem, outcome)?,
                // The device failed, or its thread ended: so will all that is left.
                Err(error @ (session::Error::Device(_) | session::Error::Ended)) => {
                    return Err(error.into());
                }
                Err(error) => {
                    self.failed += 1;
                    self.progress.say(&format!(
                        "error: problem {}: {}",
                        problem.id,
                        sentence(error)
                    ));
                }
            }
        }
    }

    fn solved(&mut self, problem: &Problem, outcome: Outcome) -> Done {
        let line = Line::new(problem, outcome, &self.opened.settings, self.trees);
        if let Some(out) = &mut self.opened.out {
            out.append(&line)?;
        }
        self.progress.solved(line.correct, line.tokens.policy);
        self.opened.lines.insert(line.id.clone(), line);
        Ok(())
    }
}

fn report(flags: &SolveFlags, lines: &[&Line], summary: &Summary) -> Done {
    if flags.json {
        return print_json(summary);
    }
    if flags.problem.is_some() {
        return lines.iter().try_for_each(|line| print(&answer(line)));
    }
    print(&render(summary))
}

/// The problems to solve, and how many lines of the file were none.
pub(super) fn problems(text: Option<&str>, flags: &SearchFlags) -> Done<(Vec<Problem>, usize)> {
    let Some(text) = text else {
        return read_problems(
            flags.problems.as_deref(),
            flags.limit,
            flags.fail_on_malformed,
        );
    };
    let text = match text {
        "-" => read_stdin("the problem")?,
        text => text.to_string(),
    };
    if text.trim().is_empty() {
        return Err(Failure::new("the problem is empty, expected text"));
    }
    Ok((vec![Problem::new("1", text.trim())], 0))
}

/// The chosen solution of one problem and its answer, as text.
fn answer(line: &Line) -> String {
    let chosen =
        (line.verdicts.iter().find(|v| v.selection == line.selection)).and_then(|v| v.solution);
    let solution: Option<&Solution> = line.solutions.as_ref().and_then(|all| all.get(chosen?));
    let mut out = String::new();
    if let Some(solution) = solution {
        for (i, step) in solution.steps.iter().enumerate() {
            match solution.scores.get(i) {
                Some(score) => out += &format!("{score:.3}  {step}\n"),
                None => out += &format!("{step}\n"),
            }
        }
    }
    match &line.prediction {
        Some(prediction) => out += &format!("\nAnswer: {prediction}\n"),
        None => out += "No solution gave an answer.\n",
    }
    out
}
