//! Search over branches: how a small policy, guided by a process reward model (PRM), spends
//! compute on one problem.
//!
//! A strategy is one file and reads like its paper: [`cot`](Strategy::Cot),
//! [`majority`](Strategy::Majority), [`best-of-n`](Strategy::BestOfN), [`beam`](Strategy::Beam),
//! [`dvts`](Strategy::Dvts), [`rebase`](Strategy::Rebase), [`dora`](Strategy::Dora),
//! [`ets`](Strategy::Ets), [`mur`](Strategy::Mur),
//! [`particle-filtering`](Strategy::ParticleFiltering), [`budget-forcing`](Strategy::BudgetForcing),
//! [`certaindex`](Strategy::Certaindex), [`first-finished`](Strategy::FirstFinished). It works on a
//! [`Search`] over two traits, [`Policy`] and [`Prm`], and never sees a tensor, a block or a device; it awaits
//! many branches at once and the engine batches them. [`solve`] runs one problem and reports every
//! aggregation and selection of its scores.
//! `SEMANTICS.md` is the specification.
//!
//! Words: *N* is the budget, the candidates a strategy may hold at once; *M* the beam width, the
//! children of a kept branch; *kept* = N/M branches survive a step.
//!
//! ```
//! use offshoot_strategies::{
//!     Config, Error, NoPrm, Policy, Problem, Step, StepEnd, StepParams, Strategy, solve,
//! };
//!
//! /// A policy that always writes the same.
//! struct Parrot;
//!
//! impl Policy for Parrot {
//!     type Branch = ();
//!     async fn start(&self, _problem: &str, _stream: u64) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn fork(&self, _: &()) {}
//!     fn twin(&self, _: &()) {}
//!     fn num_tokens(&self, _: &()) -> usize {
//!         9
//!     }
//!     async fn step(&self, _: &mut (), _: &StepParams<'_>) -> Result<Step, Error> {
//!         let text = "2 + 2 = 4.\n\nThe answer is \\boxed{4}.".into();
//!         Ok(Step { text, num_tokens: 14, logprob: -0.1, confidences: vec![], end: StepEnd::Eos })
//!     }
//! }
//!
//! let mut problem = Problem::new("1", "What is 2 + 2?");
//! problem.answer = Some("4.0".into());
//! let config = Config { n: 4, ..Config::new(Strategy::Majority) };
//! let solving = solve(&Parrot, None::<&NoPrm>, &problem, &config);
//! let outcome = futures::executor::block_on(solving)?;
//! assert_eq!(outcome.prediction.as_deref(), Some("4"));
//! assert_eq!(outcome.correct, Some(true));
//! assert_eq!(outcome.policy_tokens, 4 * 14);
//! # Ok::<(), Error>(())
//! ```
//!
//! Traps: a score belongs to the text of a step, a continuation to its branch, so among siblings
//! with the same text the lowest branch index survives. No result depends on which future finishes
//! first, as long as the results of the two models do not.

mod adaptive;
mod aggregate;
mod calibration;
mod cluster;
mod confidence;
mod config;
mod context_overflow;
mod cost;
mod error;
mod first_error;
mod grading;
mod leaf_selection;
mod model;
mod object;
mod plan;
mod policy;
mod prm;
mod problem;
mod prompt;
mod search;
mod select;
mod solve;
mod stop;
mod strategy;
mod subsample;
mod trace;

pub use aggregate::Aggregation;
pub use calibration::{Bin, Isotonic, Reliability, Sample, wilson};
pub use confidence::SolutionConfidence;
pub use config::{BeamMode, Config, check_sampling};
pub use context_overflow::ContextOverflow;
pub use cost::Cost;
pub use engine::{Confidence, ConfidenceWindow, Confidences, FlopRates, Sampling, Setting, Work};
pub use error::Error;
pub use first_error::{FirstErrors, Ranking, ScoredSolution, best_threshold, labelled_steps};
pub use grading::{
    Comparison, Extraction, ExtractionCounts, ExtractionRule, Grader, count_extractions, last_boxed,
};
pub use model::{NoPrm, Policy, Prm, Step, StepEnd, StepParams};
pub use object::{Object, Record, read_object, read_objects, spans_lines, text_of};
pub use plan::{Choice, Learned, Plan, Rule, difficulty};
pub use policy::EnginePolicy;
pub use prm::{EnginePrm, PrmBranch, PrmFormat, PrmKind};
pub use problem::{BadLine, Level, Problem, read_problems};
pub use prompt::{PROBE, PromptKind, PromptStyle, REASON_STEP_BY_STEP};
pub use search::{Expansion, News, Path, Search, stream};
pub use select::{ConfidenceKind, Selected, Selection, select};
pub use solve::{Ending, Outcome, Solution, Subsample, Verdict, solve, solve_watched};
pub use stop::StopRule;
pub use strategy::Strategy;
pub use subsample::smaller_budgets;
pub use trace::{Node, NodeState, Trace};
