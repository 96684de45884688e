//! `offshoot grade`: verdicts for the answers of any system.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use strategies::Grader;

use crate::error::{Done, Failure, print_failure};
use crate::external::External;
use crate::flags::GradeFlags;

/// What came of all lines.
#[derive(Default)]
struct Counts {
    graded: usize,
    correct: usize,
    malformed: usize,
    /// Verdicts the second grader gave, and how many of them are ours.
    compared: usize,
    agreed: usize,
}

/// Grades a file line by line, so that it may be longer than memory.
pub fn run(flags: &GradeFlags) -> Done {
    let name = match flags.file.as_os_str() == "-" {
        true => "standard input".to_string(),
        false => flags.file.display().to_string(),
    };
    let mut input: Box<dyn BufRead> = match flags.file.as_os_str() == "-" {
        true => Box::new(stdin().lock()),
        false => {
            let file = File::open(&flags.file).map_err(|e| Failure::io(&name, &e))?;
            Box::new(BufReader::new(file))
        }
    };
    let written_files = [
        ("--out", &flags.out),
        ("--disagreements", &flags.disagreements),
    ];
    refuse_one_file_twice(&flags.file, written_files)?;
    let mut out: Box<dyn Write> = match &flags.out {
        Some(path) => Box::new(create("--out", path)?),
        None => Box::new(BufWriter::new(stdout().lock())),
    };
    let mut disagreements = match &flags.disagreements {
        Some(path) => Some(create("--disagreements", path)?),
        None => None,
    };
    let timeout = Duration::from_secs(flags.external_timeout.into());
    let mut external = match &flags.external {
        Some(command) => Some(External::start(command, timeout)?),
        None => None,
    };
    let written = |error: std::io::Error| match &flags.out {
        Some(path) => Failure::io(&format!("--out {}", path.display()), &error),
        None => Failure::stdout(error),
    };

    let mut counts = Counts::default();
    let (mut bytes, mut number) = (Vec::new(), 0);
    loop {
        bytes.clear();
        let read = input.read_until(b'\n', &mut bytes);
        if read.map_err(|e| Failure::io(&name, &e))? == 0 {
            break;
        }
        number += 1;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut graded = match Graded::read(&bytes, flags.grader) {
            Ok(graded) => graded,
            Err(reason) => {
                counts.malformed += 1;
                print_failure(&Failure::new(format!("{name} line {number}: {reason}")));
                continue;
            }
        };
        counts.graded += 1;
        counts.correct += usize::from(graded.correct);
        if let (Some(external), Some(prediction)) = (&mut external, &graded.prediction) {
            let verdict = external.grade(&graded.answer, prediction);
            let verdict = verdict.map_err(|failure| match failure {
                Failure::Sentence(what) => Failure::new(format!("{name} line {number}: {what}")),
                closed => closed,
            })?;
            graded.line.insert("external".into(), json!(verdict));
            if let Some(verdict) = verdict {
                counts.compared += 1;
                counts.agreed += usize::from(verdict == graded.correct);
                if let Some(file) = disagreements.as_mut().filter(|_| verdict != graded.correct) {
                    let line = graded.disagreement(number);
                    writeln!(file, "{line}").map_err(|e| Failure::io("--disagreements", &e))?;
                }
            }
        }
        let line = Value::Object(graded.line);
        writeln!(out, "{line}").map_err(written)?;
    }
    out.flush().map_err(written)?;
    if let Some(file) = &mut disagreements {
        file.flush()
            .map_err(|e| Failure::io("--disagreements", &e))?;
    }
    if counts.graded > 0 || counts.malformed == 0 {
        eprintln!("{}", summary(&counts, flags));
    }
    match counts.malformed {
        0 => Ok(()),
        1 => Err(Failure::new(format!("{name}: 1 line is not graded"))),
        n => Err(Failure::new(format!("{name}: {n} lines are not graded"))),
    }
}

/// A file that is opened to be written is emptied at once: no line of it would be read.
fn refuse_one_file_twice(input: &Path, outputs: [(&str, &Option<PathBuf>); 2]) -> Done {
    let mut seen = vec![("the file to grade", input.canonicalize())];
    for (flag, path) in outputs {
        let Some(path) = path else { continue };
        // One that is not there yet has a folder, and is there from now on under that name.
        let place = path.canonicalize().or_else(|_| {
            let name = path.file_name().unwrap_or_default();
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            Ok::<_, std::io::Error>(folder.unwrap_or(Path::new(".")).canonicalize()?.join(name))
        });
        if let Ok(place) = &place {
            // Devices may be written twice.
            let same = |(_, other): &&(&str, std::io::Result<PathBuf>)| {
                other.as_ref().is_ok_and(|other| other == place) && !place.starts_with("/dev")
            };
            if let Some((what, _)) = seen.iter().find(same) {
                return Err(Failure::new(format!(
                    "{flag} {}: this is {what}; expected another file",
                    path.display()
                )));
            }
        }
        seen.push((flag, place));
    }
    Ok(())
}

fn create(flag: &str, path: &Path) -> Done<BufWriter<File>> {
    let file = File::create(path);
    let file = file.map_err(|e| Failure::io(&format!("{flag} {}", path.display()), &e))?;
    Ok(BufWriter::new(file))
}

fn summary(counts: &Counts, flags: &GradeFlags) -> String {
    let share = |part: usize, all: usize| match all {
        0 => "-".into(),
        _ => format!("{:.1}%", 100.0 * part as f64 / all as f64),
    };
    let mut text = format!(
        "{} of {} correct ({}), grader {}",
        counts.correct,
        counts.graded,
        share(counts.correct, counts.graded),
        flags.grader.name()
    );
    if flags.external.is_some() {
        text += &format!(
            "; the external grader agrees on {} of {} ({}), {} without its verdict",
            counts.agreed,
            counts.compared,
            share(counts.agreed, counts.compared),
            counts.graded - counts.compared
        );
    }
    text
}

/// A line with its verdict.
struct Graded {
    line: Map<String, Value>,
    answer: String,
    prediction: Option<String>,
    correct: bool,
}

impl Graded {
    /// Grades a line, or says what is wrong with it.
    fn read(bytes: &[u8], grader: Grader) -> Result<Graded, String> {
        let mut line = strategies::read_object(bytes)?;
        let answer = text(&line, "answer")?.ok_or("the field \"answer\" is missing")?;
        let prediction = match text(&line, "prediction")? {
            Some(prediction) => Some(prediction),
            None => {
                let whole = match text(&line, "solution")? {
                    Some(solution) => Some(solution),
                    None => text(&line, "response")?,
                };
                if whole.is_none() && !line.contains_key("prediction") {
                    let wanted = "\"prediction\", \"solution\", \"response\"";
                    return Err(format!("none of the fields {wanted} is there"));
                }
                whole.and_then(|whole| grader.answer(&whole))
            }
        };
        let correct = (prediction.as_deref()).is_some_and(|p| grader.equivalent(p, &answer));
        let form = |answer: &str| grader.canonical(answer);
        line.insert("prediction".into(), json!(prediction));
        line.insert("correct".into(), json!(correct));
        line.insert("grader".into(), json!(grader));
        line.insert("answer_form".into(), json!(form(&answer)));
        let prediction_form = prediction.as_deref().map(form);
        line.insert("prediction_form".into(), json!(prediction_form));
        Ok(Graded {
            line,
            answer,
            prediction,
            correct,
        })
    }

    /// What there is to see of a line on which two graders disagree.
    fn disagreement(&self, number: usize) -> Value {
        let mut shown = Map::new();
        shown.insert("line".into(), json!(number));
        let names = ["answer", "prediction", "correct", "external", "grader"];
        for name in names
            .iter()
            .chain(&["answer_form", "prediction_form"])
            .copied()
        {
            let value = self.line.get(name).cloned().unwrap_or_default();
            shown.insert(name.into(), value);
        }
        Value::Object(shown)
    }
}

/// A text or a number, as text; absent and null are the same.
fn text(line: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match line.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match strategies::text_of(value) {
            Some(text) => Ok(Some(text)),
            None => Err(format!("the field {name:?} is no text")),
        },
    }
}
