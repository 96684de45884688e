//! The failures of a search: one clear sentence each.

use engine::Setting;

/// Any failure of a strategy. One failed problem never affects another: each has its own future.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that no run could honour.
    #[error(transparent)]
    Setting(#[from] Setting),

    /// An option that a written configuration names and that does not exist, or whose value is not
    /// of its kind.
    #[error("`{name}` {problem}")]
    Option {
        /// The name as it was written.
        name: String,
        /// The problem with it.
        problem: String,
    },

    /// The strategy scores steps, but no process reward model was given.
    #[error("the strategy {strategy} needs a process reward model (`prm`)")]
    NoPrm {
        /// The strategy.
        strategy: &'static str,
    },

    /// The strategy compares hidden states, but the policy gives none.
    #[error("the policy gives no hidden states, which the strategy compares")]
    NoHiddenStates,

    /// The strategy puts texts into solutions, but the policy takes none.
    #[error("the policy takes no texts, which the strategy puts into its solutions")]
    NoTexts,

    /// A checkpoint that cannot be read as a PRM.
    #[error("{0}")]
    PrmFormat(String),

    /// The reward model returned another number of scores than steps.
    #[error("the PRM returned {found} scores for {expected} steps")]
    ScoreCount {
        /// Steps given.
        expected: usize,
        /// Scores returned.
        found: usize,
    },

    /// A solution reached the policy's context length, and that is to be an error.
    #[error(
        "a solution reached the policy's context length of {context_length} tokens \
         (`context_overflow` is refuse)"
    )]
    ContextOverflow {
        /// The policy's context length in tokens.
        context_length: usize,
    },

    /// Not even the first step fits the PRM's context length.
    #[error(
        "the problem and its first step do not fit the PRM's context length of {context_length} \
         tokens; with extend as `context_overflow` they are read all the same"
    )]
    NothingRead {
        /// The PRM's context length in tokens.
        context_length: usize,
    },

    /// A score that cannot be ordered.
    #[error("the PRM returned {score} for the step {step:?}: scores must be finite numbers")]
    Score {
        /// The value returned.
        score: f64,
        /// The step it belongs to.
        step: String,
    },

    /// A failure of the engine.
    #[error(transparent)]
    Engine(#[from] engine::Error),

    /// A failure of a policy or a reward model that is not the engine's.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error of a policy or a reward model, whose own sentence is shown.
    pub fn model(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Model(error.into())
    }

    /// Whether the names in backticks in this error's text are names of settings.
    pub fn names_settings(&self) -> bool {
        match self {
            Error::Setting(_)
            | Error::Option { .. }
            | Error::NoPrm { .. }
            | Error::PrmFormat(_)
            | Error::ContextOverflow { .. }
            | Error::NothingRead { .. } => true,
            Error::Engine(error) => error.names_settings(),
            Error::ScoreCount { .. }
            | Error::Score { .. }
            | Error::NoHiddenStates
            | Error::NoTexts
            | Error::Model(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn settings_of_the_engine_stay_settings() {
        let engine = engine::Error::from(engine::Setting::new("kv_memory", 0, "more"));
        assert!(Error::from(engine).names_settings());
        assert!(!Error::model("the `file`").names_settings());
    }
}
