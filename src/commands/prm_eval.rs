//! `offshoot prm-eval`: how good a PRM is, on solutions whose first wrong step is known.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use session::{EngineOptions, Job, Options, Session};
use strategies::{
    ContextOverflow, FirstErrors, Object, Ranking, Reliability, ScoredSolution, best_threshold,
    labelled_steps, read_objects,
};

use super::{print, print_json, say_notes};
use crate::downloads::Downloads;
use crate::error::{Done, Failure};
use crate::flags::PrmEvalFlags;
use crate::table::{percent, table};

/// A solution of a file: the fields of ProcessBench.
#[derive(Debug, Deserialize)]
struct Labelled {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(alias = "question")]
    problem: String,
    steps: Vec<String>,
    label: i64,
}

/// A file of solutions and their scores.
struct Evaluated {
    file: String,
    /// Solutions that the PRM could not read, left out of the rest.
    unread: usize,
    ids: Vec<serde_json::Value>,
    problems: Vec<String>,
    solutions: Vec<ScoredSolution>,
}

/// The result of one file.
#[derive(Serialize)]
struct Row {
    file: String,
    solutions: usize,
    /// Solutions beyond the PRM's context length, which are in none of the figures.
    unread: usize,
    #[serde(flatten)]
    counts: FirstErrors,
    accuracy_erroneous: Option<f64>,
    accuracy_correct: Option<f64>,
    f1: Option<f64>,
    /// Steps before and at the first wrong one: whether high scores are right steps. `None` for a PRM
    /// whose scores are not from 0 to 1.
    steps: Option<Reliability>,
    /// Of pairs of a correct and an erroneous solution of one problem.
    ranking: Ranking,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    prm: String,
    prm_format: Option<&'static str>,
    /// A step that scores below it is called wrong.
    threshold: f64,
    /// The mean F1 of the files; `None` unless each has one.
    average_f1: Option<f64>,
    files: Vec<Row>,
    tokens_processed: u64,
}

/// Runs the command.
pub fn run(flags: &PrmEvalFlags) -> Done {
    if !flags.threshold.is_finite() {
        return Err(Failure::new("--threshold: expected a number"));
    }
    // Every file is read before the model is loaded.
    let files: Vec<Vec<Labelled>> = (flags.files.iter())
        .map(|file| read(file, flags.limit))
        .collect::<Done<_>>()?;
    let tuning = flags.threshold_from.as_deref();
    let tuning = tuning.map(|file| Ok::<_, Failure>((file, read(file, None)?)));
    let tuning = tuning.transpose()?;
    let options = Options {
        prm: Some(flags.prm.clone()),
        prm_format: flags.prm_format,
        engine: engine(flags),
        ..Options::without_models()
    };
    let mut out = match &flags.out {
        Some(path) => Some(open_out(path)?),
        None => None,
    };
    let session = Session::open_watched(&options, &mut Downloads::default())?;
    say_notes(session.info());
    let threshold = match tuning {
        Some((file, labelled)) => {
            let tuned = score(&session, file, labelled)?;
            best_threshold(&tuned.solutions).ok_or_else(|| {
                Failure::new(format!(
                    "--threshold-from {}: expected solutions with and without a wrong step",
                    file.display()
                ))
            })?
        }
        None => flags.threshold,
    };
    let mut rows = Vec::new();
    for (file, labelled) in flags.files.iter().zip(files) {
        let evaluated = score(&session, file, labelled)?;
        if let Some((name, out)) = &mut out {
            write_scores(out, &evaluated).map_err(|e| Failure::io(name, &e))?;
        }
        rows.push(evaluated.row(threshold, flags));
    }
    let f1s: Option<Vec<f64>> = rows.iter().map(|row| row.f1).collect();
    let info = session.info().prm.as_ref();
    let printed = Printed {
        prm: flags.prm.clone(),
        prm_format: info.and_then(|prm| prm.prm_format),
        threshold,
        average_f1: f1s.map(|f1s| f1s.iter().sum::<f64>() / f1s.len() as f64),
        files: rows,
        tokens_processed: (block_on(session.usage())?.prm).map_or(0, |p| p.work.tokens_processed),
    };
    match flags.json {
        true => print_json(&printed),
        false => print(&render(&printed)),
    }
}

/// The device's options. Steps beyond the context length have no score of their own, so that a solution
/// that does not fit is left out and counted.
fn engine(flags: &PrmEvalFlags) -> EngineOptions {
    let options = flags.engine.options();
    EngineOptions {
        context_overflow: match options.context_overflow {
            ContextOverflow::Truncate => ContextOverflow::Refuse,
            other => other,
        },
        ..options
    }
}

/// The solutions of a file.
fn read(path: &Path, limit: Option<usize>) -> Done<Vec<Labelled>> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::io(&name.to_string(), &e))?;
    let mut all = Vec::new();
    for record in read_objects(&bytes)
        .into_iter()
        .take(limit.unwrap_or(usize::MAX))
    {
        let line = record.line;
        let wrong = |what: String| Failure::new(format!("{name} line {line}: {what}"));
        let object = record.object.map_err(&wrong)?;
        all.push(labelled(&object).map_err(wrong)?);
    }
    if all.is_empty() {
        return Err(Failure::new(format!(
            "{name}: no solution in it; expected objects with problem, steps and label"
        )));
    }
    Ok(all)
}

/// A solution, or what is wrong with it.
fn labelled(object: &Object) -> Result<Labelled, String> {
    let text = serde_json::to_string(object).map_err(|e| e.to_string())?;
    let labelled: Labelled = serde_json::from_str(&text).map_err(|e| {
        format!("{e}; expected problem (a text), steps (a list of texts) and label (a number)")
    })?;
    let steps = labelled.steps.len();
    if steps == 0 || labelled.steps.iter().any(|step| step.trim().is_empty()) {
        return Err("`steps` is empty or has an empty step; expected texts".into());
    }
    if !(-1..steps as i64).contains(&labelled.label) {
        return Err(format!(
            "`label` is {}; expected -1 (no wrong step) or the index of one of {steps} steps",
            labelled.label
        ));
    }
    Ok(labelled)
}

/// Scores the solutions of a file, all in flight together.
fn score(session: &Session, file: &Path, labelled: Vec<Labelled>) -> Done<Evaluated> {
    let file = file.display().to_string();
    eprintln!("{file}: {} solutions", labelled.len());
    let jobs: Vec<_> = (labelled.into_iter())
        .map(|solution| {
            let job: Job<Vec<f64>> = session.score(solution.problem.clone(), solution.steps);
            (job, solution.problem, solution.label, solution.id)
        })
        .collect();
    let mut evaluated = Evaluated {
        file,
        unread: 0,
        ids: Vec::new(),
        problems: Vec::new(),
        solutions: Vec::new(),
    };
    for (job, problem, label, id) in jobs {
        let scores = match job.wait() {
            Ok(scores) => scores,
            Err(error) if error.is_context_overflow() => {
                evaluated.unread += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        evaluated.ids.push(id);
        evaluated.problems.push(problem);
        evaluated.solutions.push(ScoredSolution {
            scores,
            first_error: usize::try_from(label).ok(),
        });
    }
    Ok(evaluated)
}

impl Evaluated {
    fn row(&self, threshold: f64, flags: &PrmEvalFlags) -> Row {
        let counts = FirstErrors::of(&self.solutions, threshold);
        let mut by_problem: BTreeMap<&str, Vec<&ScoredSolution>> = BTreeMap::new();
        for (problem, solution) in self.problems.iter().zip(&self.solutions) {
            by_problem.entry(problem).or_default().push(solution);
        }
        let samples = labelled_steps(&self.solutions);
        let mut ranking = Ranking::default();
        for solutions in by_problem.values() {
            ranking.add(solutions, flags.aggregation);
        }
        Row {
            file: self.file.clone(),
            solutions: self.solutions.len(),
            unread: self.unread,
            counts,
            accuracy_erroneous: counts.accuracy_erroneous(),
            accuracy_correct: counts.accuracy_correct(),
            f1: counts.f1(),
            steps: (samples.iter().all(|s| (0.0..=1.0).contains(&s.score)))
                .then(|| Reliability::of(&samples)),
            ranking,
        }
    }
}

/// The file of scores and its name in messages.
fn open_out(path: &Path) -> Done<(String, std::io::BufWriter<std::fs::File>)> {
    let name = format!("--out {}", path.display());
    let file = std::fs::File::create(path).map_err(|e| Failure::io(&name, &e))?;
    Ok((name, std::io::BufWriter::new(file)))
}

/// One JSON object a solution: its file, id, label and scores.
fn write_scores(out: &mut impl Write, evaluated: &Evaluated) -> std::io::Result<()> {
    for (solution, id) in evaluated.solutions.iter().zip(&evaluated.ids) {
        let label = solution.first_error.map_or(-1, |index| index as i64);
        let line = serde_json::json!({
            "file": evaluated.file,
            "id": id,
            "label": label,
            "scores": solution.scores,
        });
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn render(printed: &Printed) -> String {
    let header = [
        "file",
        "solutions",
        "wrong step found",
        "correct passed",
        "F1",
        "steps: AUROC",
        "Brier",
        "pairs in order",
    ];
    let or_dash = |share: Option<f64>| share.map_or("-".into(), percent);
    let mut table = table(header, 1);
    for row in &printed.files {
        let steps = row.steps.as_ref();
        let auroc = steps.and_then(|steps| steps.auroc);
        let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
        let pairs = match row.ranking.share() {
            Some(share) => format!("{} of {}", percent(share), row.ranking.pairs),
            None => "-".into(),
        };
        table.add_row([
            row.file.clone(),
            match row.unread {
                0 => row.solutions.to_string(),
                unread => format!("{} ({unread} too long)", row.solutions),
            },
            or_dash(row.accuracy_erroneous),
            or_dash(row.accuracy_correct),
            or_dash(row.f1),
            number(auroc),
            number(steps.map(|steps| steps.brier)),
            pairs,
        ]);
    }
    let format = printed.prm_format.unwrap_or("?");
    let average = match (printed.files.len(), printed.average_f1) {
        (2.., Some(f1)) => format!("average F1 {}\n", percent(f1)),
        _ => String::new(),
    };
    format!(
        "{} ({format}); a step below {:.4} is called wrong; F1 is the harmonic mean of the two shares \
         before it\n\n{table}\n\n{average}",
        printed.prm, printed.threshold
    )
}
