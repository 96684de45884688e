//! `offshoot grade`: verdicts for the answers of any system.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use strategies::{ExtractionCounts, ExtractionRule, Grader};

use crate::error::{Done, Failure, print_failure};
use crate::external::External;
use crate::flags::GradeFlags;

/// What came of all lines.
#[derive(Default)]
struct Counts {
    graded: usize,
    correct: usize,
    malformed: usize,
    /// The rules that found answers in solutions; empty where lines have predictions.
    extractions: ExtractionCounts,
    /// Verdicts the second grader gave, and how many of them are ours.
    compared: usize,
    agreed: usize,
}

/// Grades a file line by line, so that it may be longer than memory.
pub fn run(flags: &GradeFlags) -> Done {
    let written_files = [
        ("--out", &flags.out),
        ("--disagreements", &flags.disagreements),
    ];
    let (name, mut input) = open_input(&flags.file)?;
    refuse_one_file_twice(&flags.file, written_files)?;
    let mut grading = Grading::open(flags, name)?;
    let (mut bytes, mut number) = (Vec::new(), 0);
    loop {
        bytes.clear();
        let read = input.read_until(b'\n', &mut bytes);
        if read.map_err(|e| Failure::io(&grading.name, &e))? == 0 {
            break;
        }
        number += 1;
        if !bytes.iter().all(u8::is_ascii_whitespace) {
            grading.line(&bytes, number)?;
        }
    }
    grading.end()
}

/// The lines to grade, and their name in messages.
fn open_input(path: &Path) -> Done<(String, Box<dyn BufRead>)> {
    if path.as_os_str() == "-" {
        return Ok(("standard input".into(), Box::new(stdin().lock())));
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::io(&name, &e))?;
    Ok((name, Box::new(BufReader::new(file))))
}

/// A file being graded.
struct Grading<'a> {
    flags: &'a GradeFlags,
    /// The input in messages.
    name: String,
    out: Box<dyn Write>,
    disagreements: Option<BufWriter<File>>,
    external: Option<External>,
    counts: Counts,
}

impl Grading<'_> {
    fn open(flags: &GradeFlags, name: String) -> Done<Grading<'_>> {
        let timeout = Duration::from_secs(flags.external_timeout.into());
        let create = |flag, path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| create(flag, path)).transpose()
        };
        let out: Box<dyn Write> = match create("--out", &flags.out)? {
            Some(file) => Box::new(file),
            None => Box::new(BufWriter::new(stdout().lock())),
        };
        let external = flags.external.as_ref();
        Ok(Grading {
            flags,
            name,
            out,
            disagreements: create("--disagreements", &flags.disagreements)?,
            external: external
                .map(|command| External::start(command, timeout))
                .transpose()?,
            counts: Counts::default(),
        })
    }

    /// A failure of writing the graded lines.
    fn written(&self, error: std::io::Error) -> Failure {
        match &self.flags.out {
            Some(path) => Failure::io(&format!("--out {}", path.display()), &error),
            None => Failure::stdout(error),
        }
    }

    /// Grades a line and writes it.
    fn line(&mut self, bytes: &[u8], number: usize) -> Done {
        let mut graded = match Graded::read(bytes, self.flags.grader) {
            Ok(graded) => graded,
            Err(reason) => {
                self.counts.malformed += 1;
                let name = &self.name;
                print_failure(&Failure::new(format!("{name} line {number}: {reason}")));
                return Ok(());
            }
        };
        self.counts.graded += 1;
        self.counts.correct += usize::from(graded.correct);
        if let Some(rule) = graded.extraction {
            *self.counts.extractions.entry(rule).or_default() += 1;
        }
        self.compare(&mut graded, number)?;
        let line = Value::Object(graded.line);
        writeln!(self.out, "{line}").map_err(|e| self.written(e))
    }

    /// Adds the second grader's verdict to a line, if there is a second grader.
    fn compare(&mut self, graded: &mut Graded, number: usize) -> Done {
        let (Some(external), Some(prediction)) = (&mut self.external, &graded.prediction) else {
            return Ok(());
        };
        let verdict = external.grade(&graded.answer, prediction);
        let verdict = verdict.map_err(|failure| match failure {
            Failure::Sentence(what) => Failure::new(format!("{} line {number}: {what}", self.name)),
            closed => closed,
        })?;
        graded.line.insert("external".into(), json!(verdict));
        let Some(verdict) = verdict else {
            return Ok(());
        };
        self.counts.compared += 1;
        self.counts.agreed += usize::from(verdict == graded.correct);
        let file = self.disagreements.as_mut();
        if let Some(file) = file.filter(|_| verdict != graded.correct) {
            let line = graded.disagreement(number);
            writeln!(file, "{line}").map_err(|e| Failure::io("--disagreements", &e))?;
        }
        Ok(())
    }

    /// Completes the files and says what came of all lines.
    fn end(mut self) -> Done {
        self.out.flush().map_err(|e| self.written(e))?;
        if let Some(file) = &mut self.disagreements {
            file.flush()
                .map_err(|e| Failure::io("--disagreements", &e))?;
        }
        let (name, counts) = (&self.name, &self.counts);
        if counts.graded > 0 || counts.malformed == 0 {
            eprintln!("{}", summary(counts, self.flags));
        }
        match counts.malformed {
            0 => Ok(()),
            1 => Err(Failure::new(format!("{name}: 1 line is not graded"))),
            n => Err(Failure::new(format!("{name}: {n} lines are not graded"))),
        }
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
    if !counts.extractions.is_empty() {
        let rules = counts.extractions.iter();
        let rules: Vec<String> = rules
            .map(|(rule, n)| format!("{} {n}", rule.name()))
            .collect();
        text += &format!("; answers found by: {}", rules.join(", "));
    }
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
    /// The rule that found the prediction in a solution.
    extraction: Option<ExtractionRule>,
    correct: bool,
}

impl Graded {
    /// Grades a line, or says what is wrong with it.
    fn read(bytes: &[u8], grader: Grader) -> Result<Graded, String> {
        let mut line = strategies::read_object(bytes)?;
        let answer = text(&line, "answer")?.ok_or("the field \"answer\" is missing")?;
        let mut extraction = None;
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
                let found = whole.map(|whole| grader.extract(&whole));
                extraction = found.as_ref().map(|found| found.rule);
                found.and_then(|found| found.text)
            }
        };
        let compared = prediction.as_deref().map(|p| grader.compare(p, &answer));
        let correct = compared.as_ref().is_some_and(|compared| compared.equal);
        let (prediction_form, answer_form) = match compared.map(|compared| compared.forms) {
            Some([prediction, answer]) => (Some(prediction), answer),
            None => (None, grader.canonical(&answer)),
        };
        line.insert("prediction".into(), json!(prediction));
        if let Some(rule) = extraction {
            line.insert("extraction".into(), json!(rule));
        }
        line.insert("correct".into(), json!(correct));
        line.insert("grader".into(), json!(grader));
        line.insert("answer_form".into(), json!(answer_form));
        line.insert("prediction_form".into(), json!(prediction_form));
        Ok(Graded {
            line,
            answer,
            prediction,
            extraction,
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
