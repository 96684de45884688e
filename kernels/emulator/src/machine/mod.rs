//! Warps and blocks in execution: registers, divergence, barriers, memory access with its checks.
//!
//! A diverged warp is a set of divergent subsets, each a mask of lanes at one instruction. The
//! subset with the lowest instruction runs; two subsets that meet at one instruction are joined.
//! The decoder places a whole loop before the code that follows it (`decode/layout.rs`), so the
//! lowest subset is the one that the others wait for. A subset that only spins is put behind the
//! others after a while, so that diverged lanes make progress.

mod access;
mod block;
mod helpers;
mod imm;
mod lanes;
mod launch;
mod program;
mod turns;
mod warp;

pub use access::{Place, contiguous, lanes as lanes_of};
pub use block::{BarrierOptions, CopyInFlight, Reduction};
pub use helpers::{CHECK_REG, CLOCK, COPY_WRITTEN, JUMP, MARK, NARROW, NOTHING, WIDEN};
pub use imm::{Choice, Field};
pub(crate) use imm::{choice, immediate, listed};
pub use lanes::{Lane, View};
pub use launch::{Launch, LaunchSetup, run};
pub use program::{Class, Debug, Exec, Ins, Param, Program, Special};
pub use warp::{Cx, Stop};
