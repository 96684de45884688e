//! `offshoot grade`: verdicts for the answers of any system.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use strategies::{
    ExtractionCounts, ExtractionRule, Grader, Object, read_object, read_objects, spans_lines,
};

use crate::error::{Done, Failure, print_failure};
use crate::external::External;
use crate::flags::GradeFlags;
use crate::table::rules;

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

impl Counts {
    fn seen(&self) -> usize {
        self.graded + self.malformed
    }
}

/// Grades a file line by line, so that it may be longer than memory; one whose objects span lines
/// at once.
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
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        if grading.counts.seen() == 0 && spans_lines(&bytes) {
            let read = input.read_to_end(&mut bytes);
            read.map_err(|e| Failure::io(&grading.name, &e))?;
            for record in read_objects(&bytes) {
                grading.object(record.object, number - 1 + record.line)?;
            }
            break;
        }
        grading.object(read_object(&bytes), number)?;
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
        // First what can fail for another reason: files are emptied when they are opened.
        let external = flags.external.as_ref();
        let external = external.map(|command| External::start(command, timeout));
        let external = external.transpose()?;
        let out: Box<dyn Write> = match create("--out", &flags.out)? {
            Some(file) => Box::new(file),
            None => Box::new(BufWriter::new(stdout().lock())),
        };
        Ok(Grading {
            flags,
            name,
            out,
            disagreements: create("--disagreements", &flags.disagreements)?,
            external,
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

    /// Grades an object and writes it as a line.
    fn object(&mut self, object: Result<Object, String>, number: usize) -> Done {
        let graded = object.and_then(|object| Graded::new(object, self.flags.grader));
        let mut graded = match graded {
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
        write_line(&mut self.out, &graded.line).map_err(|e| self.written(e))
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
        insert(&mut graded.line, "external", &verdict)?;
        let Some(verdict) = verdict else {
            return Ok(());
        };
        self.counts.compared += 1;
        self.counts.agreed += usize::from(verdict == graded.correct);
        let file = self.disagreements.as_mut();
        if let Some(file) = file.filter(|_| verdict != graded.correct) {
            let line = graded.disagreement(number)?;
            write_line(file, &line).map_err(|e| Failure::io("--disagreements", &e))?;
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
            let timed_out = self.external.as_ref().map_or(0, External::timed_out);
            eprintln!("{}", summary(counts, timed_out, self.flags));
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
    let mut seen = vec![("the file to grade", Place::of(input))];
    for (flag, path) in outputs {
        let Some(path) = path else { continue };
        let place = Place::of(path);
        let same = |(_, other): &&(&str, Option<Place>)| place.is_some() && *other == place;
        if let Some((what, _)) = seen.iter().find(same) {
            return Err(Failure::new(format!(
                "{flag} {}: this is {what}; expected another file",
                path.display()
            )));
        }
        seen.push((flag, place));
    }
    Ok(())
}

/// Where a path leads.
#[derive(PartialEq)]
enum Place {
    /// To a file, whatever its names.
    #[cfg(unix)]
    File { device: u64, inode: u64 },
    /// To a file by its only known name, or to one that is not there yet, by its folder and name.
    Name(PathBuf),
}

impl Place {
    /// `None` for what may be opened twice, such as a device, and for a place that there is not.
    fn of(path: &Path) -> Option<Place> {
        match path.metadata() {
            Ok(file) if !file.is_file() => None,
            #[cfg(unix)]
            Ok(file) => {
                use std::os::unix::fs::MetadataExt;
                let (device, inode) = (file.dev(), file.ino());
                Some(Place::File { device, inode })
            }
            #[cfg(not(unix))]
            Ok(_) => path.canonicalize().ok().map(Place::Name),
            Err(_) => {
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
                Some(Place::Name(folder.join(path.file_name()?)))
            }
        }
    }
}

/// Writes an object and a line break.
fn write_line(out: &mut impl Write, object: &Object) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.write_all(b"\n")
}

fn insert(object: &mut Object, name: &str, value: &impl Serialize) -> Done {
    (object.insert(name, value)).map_err(|e| Failure::new(format!("{name}: {e}")))
}

fn create(flag: &str, path: &Path) -> Done<BufWriter<File>> {
    let file = File::create(path);
    let file = file.map_err(|e| Failure::io(&format!("{flag} {}", path.display()), &e))?;
    Ok(BufWriter::new(file))
}

fn summary(counts: &Counts, timed_out: usize, flags: &GradeFlags) -> String {
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
        text += &format!("; answers found by: {}", rules(&counts.extractions));
    }
    if flags.external.is_some() {
        text += &format!(
            "; the external grader agrees on {} of {} ({}), {} without its verdict",
            counts.agreed,
            counts.compared,
            share(counts.agreed, counts.compared),
            counts.graded - counts.compared
        );
        if timed_out > 0 {
            text += &format!(" ({timed_out} took more than {} s)", flags.external_timeout);
        }
    }
    text
}

/// A line with its verdict.
struct Graded {
    line: Object,
    answer: String,
    prediction: Option<String>,
    /// The rule that found the prediction in a solution.
    extraction: Option<ExtractionRule>,
    correct: bool,
}

impl Graded {
    /// Grades a line, or says what is wrong with it.
    fn new(mut line: Object, grader: Grader) -> Result<Graded, String> {
        let answer = text(&line, "answer")?.ok_or("the field \"answer\" is missing")?;
        let mut extraction = None;
        let stated = text(&line, "prediction")?;
        let prediction = match stated.clone() {
            Some(prediction) => Some(prediction),
            None => {
                let whole = match text(&line, "solution")? {
                    Some(solution) => Some(solution),
                    None => text(&line, "response")?,
                };
                if whole.is_none() && line.get("prediction").is_none() {
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
        let mut insert = || -> serde_json::Result<()> {
            // What was there stays as it was written.
            if stated.is_none() {
                line.insert("prediction", &prediction)?;
            }
            if let Some(rule) = extraction {
                line.insert("extraction", &rule)?;
            }
            line.insert("correct", &correct)?;
            line.insert("grader", &grader)?;
            line.insert("answer_form", &answer_form)?;
            line.insert("prediction_form", &prediction_form)
        };
        insert().map_err(|e| e.to_string())?;
        Ok(Graded {
            line,
            answer,
            prediction,
            extraction,
            correct,
        })
    }

    /// What there is to see of a line on which two graders disagree.
    fn disagreement(&self, number: usize) -> Done<Object> {
        let mut shown = Object::default();
        insert(&mut shown, "line", &number)?;
        for name in [
            "answer",
            "prediction",
            "correct",
            "external",
            "grader",
            "answer_form",
            "prediction_form",
        ] {
            insert(&mut shown, name, &self.line.get(name))?;
        }
        Ok(shown)
    }
}

/// A text or a number, as text; absent and null are the same.
fn text(line: &Object, name: &str) -> Result<Option<String>, String> {
    match line.get(name).filter(|value| value.get() != "null") {
        None => Ok(None),
        Some(value) => match strategies::text_of(value) {
            Some(text) => Ok(Some(text)),
            None => Err(format!("the field {name:?} is no text")),
        },
    }
}
