//! Offshoot as a library: models by name, problems in, events and answers out.
//!
//! A [`Session`] is opened with [`Options`]: a policy, a PRM or both, named by an embedded word, a
//! directory or a hub name, on one device. It is a handle: `Clone + Send`, fed from any thread and by
//! any async runtime. One thread owns the engine; it computes what all jobs ask for in common batches
//! and sleeps when there is nothing to do.
//!
//! ```
//! use offshoot_session::{Config, Options, Problem, Session, Strategy};
//!
//! let session = Session::open(&Options::default())?;
//! let problem = Problem::new("1", "A crew has 509 stamps. They make 322 more. How many stamps are there?");
//! let config = Config { n: 4, ..Config::new(Strategy::Beam) };
//! let outcome = session.solve(problem, config).wait()?;
//! assert_eq!(outcome.prediction.as_deref(), Some("831"));
//! # Ok::<(), offshoot_session::Error>(())
//! ```
//!
//! - [`Session::solve`], [`Session::generate`], [`Session::score`] give [`Job`]s: streams of [`Event`]s
//!   with an outcome, cancelled by dropping.
//! - [`Session::stem`] gives a [`Branch`], with which a program outside searches as a strategy does:
//!   fork, write a step, score, read.
//! - [`local`] is the same wiring on the caller's thread, over a backend of the caller's.
//! - [`sweep`] runs many configurations over a problem set and keeps what they came to.
//! - [`results`] has the lines of results files; [`device`] the words of devices; [`embedded`] the nano
//!   family.
//!
//! # Traps
//!
//! - The trees of a job do not depend on the other jobs, on threads or on memory; its events may come in
//!   another order relative to those of other jobs.
//! - A job that nobody holds is cancelled: keep it until its outcome is there.
//! - Events are kept until they are read, or until the outcome is waited for.
//! - Dropping the last clone of a session waits until all of its jobs have ended.

mod admission;
mod branch;
pub mod device;
pub mod embedded;
mod error;
mod event;
mod generate;
mod job;
pub mod local;
pub mod models;
mod options;
mod plan_file;
pub mod results;
mod session;
pub mod sweep;

pub use branch::{Branch, BranchText, StepOptions, WrittenStep};
pub use device::{Device, EngineOptions, Machine};
pub use engine::checkpoint::hub::{Need, Watch};
pub use engine::text::chat::Message;
pub use engine::{Finish, Sampling, Setting};
pub use engine::{KvUsage, Usage};
pub use error::Error;
pub use event::Event;
pub use generate::{GenerateRequest, Generation, Prompt};
pub use job::Job;
pub use kernels::cpu::Isa;
pub use kernels::{KvDtype, Quantization};
pub use local::{Info, ModelInfo, ModelUsage, Role, Usages};
pub use options::Options;
pub use plan_file::{PlanFile, SCHEMA as PLAN_SCHEMA};
pub use session::Session;
pub use strategies::{
    Aggregation, BeamMode, Config, ContextOverflow, Ending, Grader, Node, NodeState, Outcome, Plan,
    PrmKind, Problem, PromptKind, PromptStyle, Selection, Solution, StepEnd, StopRule, Strategy,
    Trace, Verdict,
};
