//! What a job says while it runs.

/// One piece of news of a job.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Text of a generation that has become final.
    Text(String),
}
