//! What can go wrong in a search: one clear sentence each.

/// Any failure of a strategy. One failed problem never affects another: each has its own future.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that no run could honour; the sentence names the flags.
    #[error("{0}")]
    Config(String),

    /// The strategy scores steps, but no process reward model was given.
    #[error("--strategy {strategy} needs a process reward model: name one with --prm")]
    NoPrm {
        /// The strategy asked for.
        strategy: &'static str,
    },

    /// The reward model returned another number of scores than steps.
    #[error("the PRM returned {found} scores for {expected} steps")]
    ScoreCount {
        /// Steps given.
        expected: usize,
        /// Scores returned.
        found: usize,
    },

    /// A solution reached the end of the policy's positions, and that is to be an error.
    #[error(
        "a solution reached the end of the policy's {positions} positions (--past-limit refuse)"
    )]
    PastLimit {
        /// Positions of the policy.
        positions: usize,
    },

    /// Not even the first step fits the PRM's positions.
    #[error(
        "the problem and its first step do not fit the PRM's {positions} positions; --past-limit \
         run-on reads on all the same"
    )]
    NothingRead {
        /// Positions of the PRM.
        positions: usize,
    },

    /// A score that cannot be ordered.
    #[error("the PRM returned {score} for the step {step:?}: scores must be finite numbers")]
    Score {
        /// The value returned.
        score: f64,
        /// The step it belongs to.
        step: String,
    },

    /// A failure below this crate, in the policy or the reward model.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the names in backticks in this error's text are those of settings.
    pub fn names_settings(&self) -> bool {
        false
    }

    /// Wraps an error of the models below, whose own sentence is shown.
    pub fn model(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Model(error.into())
    }
}
