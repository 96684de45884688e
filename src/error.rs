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

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        match error.names_settings() {
            true => Failure::Sentence(with_flags(&error.to_string())),
            false => Failure::Sentence(error.to_string()),
        }
    }
}

/// A sentence about settings (`` `kv_memory` ``) as one about flags (`--kv-memory`).
fn with_flags(sentence: &str) -> String {
    let mut out = String::new();
    for (i, part) in sentence.split('`').enumerate() {
        match i % 2 == 1 {
            true => out += &format!("--{}", part.replace('_', "-")),
            false => out += part,
        }
    }
    out
}

impl From<strategies::Error> for Failure {
    fn from(error: strategies::Error) -> Failure {
        Failure::Sentence(sentence(&error))
    }
}

/// An error of a strategy as a sentence about flags.
pub fn sentence(error: &strategies::Error) -> String {
    match error.names_settings() {
        true => with_flags(&error.to_string()),
        false => error.to_string(),
    }
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
            ("nothing of that kind", "nothing of that kind"),
        ] {
            assert_eq!(with_flags(sentence), expected);
        }
    }
}
