//! The one place where errors end: one sentence on stderr, exit code 2.

use std::collections::HashSet;
use std::io;

use clap::CommandFactory;

use crate::flags::Cli;

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// One sentence for the user.
    Sentence(String),
    /// The reader of our standard output went away.
    ClosedPipe,
}

/// What every command returns.
pub type Done<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure that says `sentence`.
    pub fn new(sentence: impl Into<String>) -> Failure {
        Failure::Sentence(sentence.into())
    }

    /// A failure of reading or writing `what`.
    pub fn io(what: &str, error: &io::Error) -> Failure {
        Failure::Sentence(format!("{what}: {error}"))
    }

    /// A failure of writing to standard output.
    pub fn stdout(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::io("standard output", &error),
        }
    }
}

/// An error of a library: its sentence, with flags in place of settings.
impl<E: Into<session::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Sentence(sentence(error))
    }
}

/// An error of a library as the command line says it.
pub fn sentence(error: impl Into<session::Error>) -> String {
    sentence_with(error, &[])
}

/// As [`sentence`], for a command that calls some settings otherwise: (setting, flag or argument). An empty
/// word is left out: the argument it names stands in the sentence itself.
pub fn sentence_with(error: impl Into<session::Error>, names: &[(&str, &str)]) -> String {
    match &error.into() {
        // The problem of a file may have backticks of its own.
        session::Error::File {
            setting,
            file,
            line,
            problem,
        } => {
            let line = line.map(|line| format!(" line {line}")).unwrap_or_default();
            let flag = flag(setting, names);
            format!("{flag} {file}{line}: {problem}")
                .trim_start()
                .into()
        }
        error if error.names_settings() => with_flags(&error.to_string(), names),
        error => error.to_string(),
    }
}

/// The flag that sets a setting.
fn flag(setting: &str, names: &[(&str, &str)]) -> String {
    match names.iter().find(|(name, _)| *name == setting) {
        Some((_, word)) => word.to_string(),
        None => format!("--{}", setting.replace('_', "-")),
    }
}

/// A sentence about settings (`` `kv_memory` ``) as one about flags (`--kv-memory`). Other names in
/// backticks stay as they are: a sentence may repeat what a user or a file said.
fn with_flags(sentence: &str, names: &[(&str, &str)]) -> String {
    let flags = flags();
    let is_setting = |word: &str| {
        let named = names.iter().any(|(name, _)| *name == word);
        named || flags.contains(&word.replace('_', "-"))
    };
    let mut out = String::new();
    let mut rest = sentence;
    while let Some((before, quoted)) = rest.split_once('`') {
        out += before;
        match quoted.split_once('`') {
            Some((word, after)) if is_setting(word) => {
                out += &flag(word, names);
                rest = after;
            }
            _ => {
                out.push('`');
                rest = quoted;
            }
        }
    }
    out + rest
}

/// The long flags of all commands.
fn flags() -> HashSet<String> {
    let mut flags = HashSet::new();
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        let longs = command.get_arguments().filter_map(|a| a.get_long());
        flags.extend(longs.map(String::from));
        commands.extend(command.get_subcommands().cloned());
    }
    flags
}

/// Prints a failure as the command line does.
pub fn print_failure(failure: &Failure) {
    if let Failure::Sentence(sentence) = failure {
        eprintln!("error: {sentence}");
    }
}

#[cfg(test)]
mod tests {
    use super::with_flags;

    #[test]
    fn settings_become_flags() {
        for (sentence, expected) in [
            (
                "`beam_width` is 0; expected a divisor of `n`",
                "--beam-width is 0; expected a divisor of --n",
            ),
            (
                "`model` is x; expected a directory",
                "MODEL is x; expected a directory",
            ),
            ("nothing of that kind", "nothing of that kind"),
            (
                "`beam_mode` is x: unknown variant `x`, expected `paper`",
                "--beam-mode is x: unknown variant `x`, expected `paper`",
            ),
            ("a lone ` before `n`", "a lone ` before --n"),
        ] {
            assert_eq!(with_flags(sentence, &[("model", "MODEL")]), expected);
        }
    }
}
