//! The one place where errors end: one sentence on stderr, exit code 2.

use std::io;

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
    match &error.into() {
        // The problem of a file may have backticks of its own.
        session::Error::File {
            setting,
            file,
            problem,
        } => format!("{} {file}: {problem}", with_flags(&format!("`{setting}`"))),
        error if error.names_settings() => with_flags(&error.to_string()),
        error => error.to_string(),
    }
}

/// The settings that a command takes as arguments without a flag.
const ARGUMENTS: [(&str, &str); 3] = [
    ("model_argument", "MODEL"),
    ("results_argument", "RESULTS"),
    ("to_argument", "TO"),
];

/// A sentence about settings (`` `kv_memory` ``) as one about flags (`--kv-memory`).
fn with_flags(sentence: &str) -> String {
    let mut out = String::new();
    for (i, part) in sentence.split('`').enumerate() {
        let argument = ARGUMENTS.iter().find(|(setting, _)| *setting == part);
        match (i % 2 == 1, argument) {
            (false, _) => out += part,
            (true, Some((_, word))) => out += word,
            (true, None) => out += &format!("--{}", part.replace('_', "-")),
        }
    }
    out
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
                "`model_argument` is x; expected a directory",
                "MODEL is x; expected a directory",
            ),
            ("nothing of that kind", "nothing of that kind"),
        ] {
            assert_eq!(with_flags(sentence), expected);
        }
    }
}
