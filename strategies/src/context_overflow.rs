//! What happens when a sequence exceeds a model's context length.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What to do when a sequence exceeds a model's context length (SEMANTICS.md, "Context overflow").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextOverflow {
    /// Compute on (the paper's code), up to eight times the context length. The model never saw
    /// such positions in training.
    #[serde(alias = "run-on")]
    Extend,
    /// Cut a solution there. A PRM reads no step that does not fit whole, nor any step after it;
    /// such steps have the score of the last step that was read.
    #[default]
    Truncate,
    /// Fail the problem with an error.
    Refuse,
}

impl ContextOverflow {
    /// Every choice.
    pub const ALL: [ContextOverflow; 3] = [
        ContextOverflow::Extend,
        ContextOverflow::Truncate,
        ContextOverflow::Refuse,
    ];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            ContextOverflow::Extend => "extend",
            ContextOverflow::Truncate => "truncate",
            ContextOverflow::Refuse => "refuse",
        }
    }
}

impl FromStr for ContextOverflow {
    type Err = String;

    /// Reads a word; `run-on`, as earlier releases wrote extend, is one.
    fn from_str(word: &str) -> Result<ContextOverflow, String> {
        let found = ContextOverflow::ALL.into_iter().find(|c| c.name() == word);
        match (found, word) {
            (Some(found), _) => Ok(found),
            (None, "run-on") => Ok(ContextOverflow::Extend),
            _ => Err(format!(
                "expected one of {}",
                ContextOverflow::ALL.map(ContextOverflow::name).join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ContextOverflow;

    #[test]
    fn words_are_read_wherever_they_stand() {
        for (word, expected) in [
            ("extend", Some(ContextOverflow::Extend)),
            ("run-on", Some(ContextOverflow::Extend)),
            ("truncate", Some(ContextOverflow::Truncate)),
            ("refuse", Some(ContextOverflow::Refuse)),
            ("cut", None),
        ] {
            assert_eq!(word.parse().ok(), expected, "{word}");
            let json = serde_json::from_value(word.into()).ok();
            assert_eq!(json, expected, "{word} as JSON");
        }
    }
}
