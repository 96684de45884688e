//! Errors of a session. They speak of settings; the interfaces above turn names in backticks into
//! flags, JSON fields or keywords.

use engine::Setting;

/// What is wrong with a TOML text, and in which line, from 1.
pub(crate) fn toml_problem(text: &str, error: &toml::de::Error) -> (Option<usize>, String) {
    let line = |span: std::ops::Range<usize>| 1 + text[..span.start].matches('\n').count();
    let problem = error.message().replace('\n', " ");
    (error.span().map(line), problem)
}

/// A failure of a session or of one of its jobs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be honoured.
    #[error(transparent)]
    Setting(#[from] Setting),
    /// A failure of a model, its files or its device.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A failure of a search.
    #[error(transparent)]
    Strategies(#[from] strategies::Error),
    /// A model that cannot do the work it is named for.
    #[error("`{setting}` {name}: {problem}")]
    Model {
        /// The setting that names it.
        setting: &'static str,
        /// Its name there.
        name: String,
        /// What is wrong with it, and what is expected.
        problem: String,
    },
    /// The job needs a model that the session was opened without.
    #[error("this session has no {role}; open it with `{role}`")]
    NoModel {
        /// The setting that names the model: `policy` or `prm`.
        role: &'static str,
    },
    /// A results file that cannot be read, written or continued.
    #[error("`{setting}` {file}{}: {problem}", at_line(*line))]
    File {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        file: String,
        /// The line, from 1, where known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// Text that must have tokens has none.
    #[error("the {what} has no tokens; expected text")]
    Empty {
        /// Which text.
        what: &'static str,
    },
    /// An earlier call on this branch, or on one it was forked from, failed or was dropped before it
    /// ended.
    #[error("the branch was given up: an earlier call on it failed or was dropped")]
    BranchGivenUp,
    /// The device failed, or Offshoot has a defect: no job can go on.
    #[error("{0}")]
    Device(String),
    /// The thread that owns the engine has ended.
    #[error("the session has ended")]
    Ended,
}

/// A line of a file, in words.
pub(crate) fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" line {line}")).unwrap_or_default()
}

impl From<kernels::Error> for Error {
    fn from(error: kernels::Error) -> Error {
        Error::Engine(error.into())
    }
}

impl Error {
    /// Whether a text did not fit a model's context length.
    pub fn is_context_overflow(&self) -> bool {
        use strategies::Error as Search;
        matches!(
            self,
            Error::Engine(engine::Error::ContextFull { .. })
                | Error::Strategies(
                    Search::Engine(engine::Error::ContextFull { .. })
                        | Search::ContextOverflow { .. }
                        | Search::NothingRead { .. }
                )
        )
    }

    /// Whether the names in backticks in this error's text are those of settings.
    pub fn names_settings(&self) -> bool {
        match self {
            Error::Setting(_) | Error::Model { .. } | Error::NoModel { .. } => true,
            Error::Engine(error) => error.names_settings(),
            Error::Strategies(error) => error.names_settings(),
            // A file's problem may have backticks of its own: see [`Error::File`].
            Error::File { .. }
            | Error::Empty { .. }
            | Error::BranchGivenUp
            | Error::Device(_)
            | Error::Ended => false,
        }
    }
}
