//! `offshoot solve`: problems in, answers out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use strategies::{
    Config, EnginePolicy, EnginePrm, NoPrm, Outcome, PrmFormat, Problem, PromptKind, PromptStyle,
    Solution,
};

use super::{print, print_json, read_stdin};
use crate::embedded;
use crate::error::{Done, Failure, print_failure, sentence};
use crate::flags::{KvDtype, SearchFlags, SolveFlags};
use crate::models::{self, Loaded};
use crate::progress::Progress;
use crate::results::{Line, Results, Settings, Tokens};
use crate::summary::{Counted, render, summarise};

/// Rows that keep the device busy: problems in work at once are chosen to give about as many.
const ROWS_WANTED: usize = 384;

/// Runs the command.
pub fn run(flags: &SolveFlags) -> Done {
    let began = Instant::now();
    let search = &flags.search;
    let config = search.config();
    config.validate()?;
    let (problems, bad_lines) = problems(flags.problem.as_deref(), search)?;
    let Opened {
        policy,
        prm,
        format,
    } = open(search, &config)?;

    // The answer to one problem shows the solution chosen.
    let trees = flags.trees || flags.problem.is_some();
    let style = prompt_style(search, &policy);
    let parts = (&policy, prm.as_ref(), format.as_deref());
    let settings = settings(search, &config, &style, parts);
    let (mut out, done) = match &flags.out {
        Some(path) => {
            let (out, done) = Results::open(path, &settings, trees, &problems)?;
            (Some(out), done)
        }
        None => (None, HashMap::new()),
    };

    let scorer = prm.iter().map(|prm| (prm, format.as_deref()));
    let loaded: Vec<_> = std::iter::once((&policy, None)).chain(scorer).collect();
    let (engine, models) = models::engine(&search.engine, config.seed, &loaded)?;
    let past_limit = search.engine.past_limit;
    let writer = policy.policy(models[0].clone(), style, past_limit);
    let scorer = format
        .clone()
        .map(|format| EnginePrm::new(models[1].clone(), format, past_limit));

    let todo: Vec<&Problem> = problems
        .iter()
        .filter(|p| !done.contains_key(&p.id))
        .collect();
    let progress = RefCell::new(Progress::new(problems.len(), problems.len() - todo.len()));
    let mut lines: HashMap<String, Line> = done;
    let mut failed = bad_lines;
    let at_once = at_once(search, &config);
    let run = async {
        let tasks = todo.iter().map(|problem| async {
            let solved = solve_one(&writer, scorer.as_ref(), problem, &config).await;
            (*problem, solved)
        });
        let mut ended = stream::iter(tasks).buffer_unordered(at_once);
        while let Some((problem, solved)) = ended.next().await {
            match solved {
                Ok((outcome, tokens)) => {
                    let line = Line::new(problem, outcome, &settings, tokens, trees);
                    if let Some(out) = &mut out {
                        out.append(&line)?;
                    }
                    progress.borrow_mut().solved(line.correct);
                    lines.insert(line.id.clone(), line);
                }
                Err(error) => {
                    failed += 1;
                    progress.borrow().say(&format!(
                        "error: problem {}: {}",
                        problem.id,
                        sentence(&error)
                    ));
                }
            }
        }
        Ok(())
    };
    let ran: Done = match engine.run(run) {
        Ok(done) => done,
        Err(error) => Err(error.into()),
    };
    progress.borrow().end();
    ran?;
    if let Some(out) = &mut out {
        out.sort(&problems.iter().map(|p| p.id.as_str()).collect::<Vec<_>>())?;
    }

    let in_order: Vec<&Line> = problems.iter().filter_map(|p| lines.get(&p.id)).collect();
    let count = |i: usize, loaded: &Loaded| Counted {
        name: loaded.name.clone(),
        params: loaded.checkpoint.params(),
        usage: models[i].usage(),
        kv: models[i].kv_usage(),
    };
    let counted = count(0, &policy);
    let counted_prm = prm.as_ref().map(|prm| count(1, prm));
    let seconds = began.elapsed().as_secs_f64();
    let summary = summarise(
        &in_order,
        failed,
        &config,
        (engine.device(), past_limit),
        &counted,
        counted_prm.as_ref(),
        seconds,
    );
    if flags.json {
        print_json(&summary)?;
    } else if flags.problem.is_some() {
        for line in &in_order {
            print(&answer(line))?;
        }
    } else {
        print(&render(&summary))?;
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("1 problem has no result")),
        _ => Err(Failure::new(format!("{failed} problems have no result"))),
    }
}

/// The models of a search.
pub(super) struct Opened {
    pub policy: Loaded,
    pub prm: Option<Loaded>,
    pub format: Option<Rc<PrmFormat>>,
}

/// Opens the models that a search needs.
pub(super) fn open(flags: &SearchFlags, config: &Config) -> Done<Opened> {
    let policy = models::open("--policy", &flags.policy)?;
    policy.must_write("--policy")?;
    let prm = match config.strategy.needs_prm() {
        true => Some(models::open("--prm", &flags.prm)?),
        false => None,
    };
    let format = prm
        .as_ref()
        .map(|prm| prm.prm_format("--prm", flags.prm_format))
        .transpose()?;
    Ok(Opened {
        policy,
        prm,
        format,
    })
}

/// Problems in work at once.
pub(super) fn at_once(flags: &SearchFlags, config: &Config) -> usize {
    match flags.concurrency {
        Some(count) => count as usize,
        None => (ROWS_WANTED / config.n).clamp(1, 64),
    }
}

/// Searches for the answer of one problem.
pub(super) async fn solve_one(
    policy: &EnginePolicy,
    prm: Option<&EnginePrm>,
    problem: &Problem,
    config: &Config,
) -> Result<(Outcome, Tokens), strategies::Error> {
    let outcome = match prm {
        Some(prm) => strategies::solve(policy, Some(prm), problem, config).await?,
        None => strategies::solve(policy, None::<&NoPrm>, problem, config).await?,
    };
    let tokens = Tokens {
        policy: outcome.policy_tokens as u64,
        prm: outcome.prm_tokens as u64,
    };
    Ok((outcome, tokens))
}

/// The problems to solve, and how many lines of the file were none.
pub(super) fn problems(text: Option<&str>, flags: &SearchFlags) -> Done<(Vec<Problem>, usize)> {
    let (mut problems, bad) = match (text, &flags.problems) {
        (Some(text), _) => {
            let text = if text == "-" {
                read_stdin("the problem")?
            } else {
                text.to_string()
            };
            if text.trim().is_empty() {
                return Err(Failure::new("the problem is empty, expected text"));
            }
            (vec![Problem::new("1", text.trim())], Vec::new())
        }
        (None, Some(path)) => {
            let bytes = std::fs::read(path)
                .map_err(|e| Failure::io(&format!("--problems {}", path.display()), &e))?;
            let (problems, bad) = strategies::read_problems(&bytes);
            for line in &bad {
                let sentence = format!("--problems {} {line}", path.display());
                if flags.strict {
                    return Err(Failure::new(sentence));
                }
                print_failure(&Failure::new(sentence));
            }
            if problems.is_empty() {
                return Err(Failure::new(format!(
                    "--problems {}: no problem in it",
                    path.display()
                )));
            }
            (problems, bad)
        }
        (None, None) => strategies::read_problems(embedded::PROBLEMS),
    };
    problems.truncate(flags.limit.unwrap_or(usize::MAX));
    Ok((problems, bad.len()))
}

/// The prompt the flags ask for, else the one of the paper that fits the policy.
pub(super) fn prompt_style(flags: &SearchFlags, policy: &Loaded) -> PromptStyle {
    let recognised = || PromptKind::recognise(&policy.checkpoint.config, &policy.tokenizer);
    let style = flags.prompt.unwrap_or_else(recognised).style();
    let given = |flag: &Option<String>, own| match flag {
        Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        None => own,
    };
    PromptStyle {
        system: given(&flags.system, style.system),
        instruction: given(&flags.instruction, style.instruction),
    }
}

fn settings(
    flags: &SearchFlags,
    config: &Config,
    style: &PromptStyle,
    (policy, prm, format): (&Loaded, Option<&Loaded>, Option<&PrmFormat>),
) -> Settings {
    Settings {
        policy: flags.policy.clone(),
        policy_params: policy.checkpoint.params() as u64,
        prm: prm.map(|prm| prm.name.clone()),
        prm_params: prm.map(|prm| prm.checkpoint.params() as u64),
        prm_format: format.map(|format| format.kind().name().to_string()),
        system: style.system.clone(),
        instruction: style.instruction.clone(),
        past_limit: flags.engine.past_limit.name().to_string(),
        kv_dtype: flags.engine.kv_dtype.map(|dtype| match dtype {
            KvDtype::F32 => "f32".into(),
            KvDtype::Bf16 => "bf16".into(),
            KvDtype::F16 => "f16".into(),
            KvDtype::Int8 => "int8".into(),
        }),
        quantize: (flags.engine.quantize).map(|quantize| quantize.kind().name().to_string()),
        search: config.clone(),
    }
}

/// The chosen solution of one problem and its answer, as text.
fn answer(line: &Line) -> String {
    let chosen =
        (line.verdicts.iter().find(|v| v.selection == line.verdict)).and_then(|v| v.solution);
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
