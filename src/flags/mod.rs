//! The command line, a file for each group of commands. The flags of one measurement stand beside
//! it in the crate `bench`.

mod bench;
mod engine;
mod kernels;
mod models;
mod plan;
mod search;
mod sweep;

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use strategies::{Aggregation, Grader};

pub use self::bench::{BenchCommand, BenchSearchFlags, ThroughputFlags, Without};
pub use self::engine::{EngineFlags, SamplingFlags};
pub use self::kernels::{
    ArchFlags, Card, CheckFlags, KernelsCommand, PredictFlags, ProfileFlags, ProfiledKernel,
    ReportFlags, SharingWord, TimeFlags, TimedTopic,
};
pub use self::models::{
    ExportFlags, GenerateFlags, InspectFlags, Logprobs, PrmEvalFlags, QuantizeFlags, ScoreFlags,
};
pub use self::plan::PlanFlags;
pub use self::search::{SearchFlags, SolveFlags};
pub use self::sweep::SweepFlags;

/// External test-time scaling: a small policy writes many solutions step by step, a process
/// reward model (PRM) scores the steps, a search keeps the best.
#[derive(Parser, Debug)]
#[command(name = "offshoot", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Solve problems. Without arguments: the embedded models on the bundled problems, beam
    /// search with N = 16.
    Solve(Box<SolveFlags>),
    /// Run strategies, budgets and seeds over a problem set, for each policy and PRM, and say what each
    /// comes to. What is there already is not run again.
    Sweep(Box<SweepFlags>),
    /// Learn from a sweep which search fits which difficulty, for `solve --strategy auto --plan`.
    Plan(PlanFlags),
    /// Draw the search tree of one problem of a results file.
    Show(ShowFlags),
    /// Continue a prompt and stream the text.
    Generate(GenerateFlags),
    /// Score the steps of a solution with a PRM.
    Score(ScoreFlags),
    /// Grade the answers of any system: lines of answer and prediction in, the same lines with
    /// verdicts out.
    Grade(GradeFlags),
    /// Learn how likely a PRM's score is to be the start of a right solution, from a results file, and
    /// show how reliable the scores are.
    Calibrate(CalibrateFlags),
    /// Say how good a PRM is at finding the first wrong step of labelled solutions (ProcessBench).
    PrmEval(PrmEvalFlags),
    /// Say what a checkpoint is and how it can serve.
    Inspect(InspectFlags),
    /// Write a checkpoint with the weights of its linear layers in 8 or 4 bits.
    Quantize(QuantizeFlags),
    /// Write an embedded model as a Hugging Face directory, for tools that need its files.
    Export(ExportFlags),
    /// List the devices models can run on, and why others cannot be used.
    Devices(DevicesFlags),
    /// Compile, list and count the CUDA kernels; no GPU is needed.
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Measure: throughput, linear layers, attention, whole searches, against the machine's limits.
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, of one command if named.
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Flags of `devices`.
#[derive(Args, Debug)]
pub struct DevicesFlags {
    /// Print one JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowFlags {
    /// A results file written with --trees.
    pub results: PathBuf,
    /// The problem's id, or its number in the file counted from 1.
    pub problem: String,
    /// Draw dropped branches as well, not only their number.
    #[arg(long)]
    pub all: bool,
    /// Columns to draw in. Default: the terminal's.
    #[arg(long, value_name = "COLUMNS")]
    pub width: Option<usize>,
}

/// Flags of `calibrate`.
#[derive(Args, Debug)]
pub struct CalibrateFlags {
    /// Results of `solve --strategy best-of-n --trees`. The map is fitted on half of the problems, by
    /// their text, and its reliability is shown on the others.
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,
    /// How the scores of a prefix become the one that is mapped.
    #[arg(long, default_value = "last", value_parser = words(&Aggregation::ALL, Aggregation::name), value_name = "AGGREGATION")]
    pub aggregation: Aggregation,
    /// Write the map to FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `grade`.
#[derive(Args, Debug)]
pub struct GradeFlags {
    /// One JSON object a line: answer, the true one, and prediction, or a whole solution or
    /// response to read the prediction off; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Who compares answers; qwen has the leniencies of Qwen2.5-Math's grader.
    #[arg(long, default_value = "strict", value_parser = words(&Grader::ALL, Grader::name), value_name = "GRADER")]
    pub grader: Grader,
    /// Write the graded lines to FILE instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A second grader to compare with: a command that is given {"answer", "prediction"}, an
    /// object a line, and answers {"correct": true} or false, a line each.
    #[arg(long, value_name = "COMMAND")]
    pub external: Option<String>,
    /// Seconds the second grader may take over a line; then it is started anew, and the line has no
    /// verdict of it.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", requires = "external", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub external_timeout: u32,
    /// Write the lines on which the two graders disagree to FILE.
    #[arg(long, value_name = "FILE", requires = "external")]
    pub disagreements: Option<PathBuf>,
}

/// A parser of the words of `all`: their names, which help and errors list.
pub(crate) fn words<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    words_with(all, name, &[])
}

/// As [`words`], with old spellings of some of them: (old, new).
pub(crate) fn words_with<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
    old: &'static [(&'static str, &'static str)],
) -> impl TypedValueParser<Value = T> {
    let values = all.iter().map(move |&one| {
        let aliases = old.iter().filter(move |(_, new)| *new == name(one));
        PossibleValue::new(name(one)).aliases(aliases.map(|(old, _)| *old))
    });
    PossibleValuesParser::new(values).try_map(move |word| {
        let new = old.iter().find(|(old, _)| *old == word);
        let word = new.map_or(word.as_str(), |(_, new)| *new);
        let found = all.iter().copied().find(|&one| name(one) == word);
        found.ok_or_else(|| format!("unknown word {word}"))
    })
}

/// LaTeX commands that begin with an n, of the kernel, amsmath, amssymb and common use in answers.
const COMMANDS_WITH_N: [&str; 49] = [
    "nabla",
    "natural",
    "ncong",
    "ne",
    "nearrow",
    "neg",
    "neq",
    "newcommand",
    "newline",
    "nexists",
    "ngeq",
    "ngeqq",
    "ngeqslant",
    "ngtr",
    "ni",
    "nicefrac",
    "nleftarrow",
    "nLeftarrow",
    "nleftrightarrow",
    "nLeftrightarrow",
    "nleq",
    "nleqq",
    "nleqslant",
    "nless",
    "nmid",
    "nobreak",
    "noindent",
    "nolimits",
    "nonumber",
    "normalsize",
    "not",
    "notin",
    "nparallel",
    "nprec",
    "npreceq",
    "nrightarrow",
    "nRightarrow",
    "nsim",
    "nsubseteq",
    "nsucc",
    "nsucceq",
    "nsupseteq",
    "ntriangleleft",
    "ntrianglelefteq",
    "ntriangleright",
    "nu",
    "null",
    "nvdash",
    "nwarrow",
];

/// A text with line breaks for each `\n` typed in a shell. LaTeX stays as it is written: a `\n`
/// that begins one of its commands (`\neq`), one after another backslash (`\\n`), and every other
/// backslash. A line break before letters that are such a command can be typed as one: `$'\n'` in
/// bash.
pub fn line_breaks(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out += before;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let word = &after[..letters.unwrap_or(after.len())];
        rest = match after.strip_prefix('n') {
            Some(after) if !COMMANDS_WITH_N.contains(&word) => {
                out.push('\n');
                after
            }
            _ => {
                out.push('\\');
                // A backslash after it belongs to it.
                let one = usize::from(after.starts_with('\\'));
                out += &after[..one];
                &after[one..]
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn line_breaks_can_be_typed_and_latex_stays() {
        for (typed, meant) in [
            ("\\n\\n", "\n\n"),
            ("\\nStep", "\nStep"),
            ("a\\nuser:\\n", "a\nuser:\n"),
            ("\\n$x$", "\n$x$"),
            ("\\times", "\\times"),
            ("a\\tb", "a\\tb"),
            ("\\neq", "\\neq"),
            ("x \\ne 1\\n", "x \\ne 1\n"),
            ("\\nabla\\nu\\n", "\\nabla\\nu\n"),
            ("\\\\n", "\\\\n"),
            ("\\\\\\n", "\\\\\n"),
            ("\\x", "\\x"),
            ("\\", "\\"),
            ("\\boxed{\\text{a}}", "\\boxed{\\text{a}}"),
        ] {
            assert_eq!(line_breaks(typed), meant, "{typed:?}");
        }
    }
}
