//! Warps and blocks in execution: registers, fragments of diverged warps, barriers, memory access with its checks.
//!
//! A warp is a set of fragments, each a mask of lanes at one instruction. The fragment with the lowest instruction
//! runs; where two fragments meet at one instruction they are one again. The decoder lays the code out so that all
//! of a loop comes before what follows it (`decode/layout.rs`), so the lowest fragment is the one the others wait
//! for. A fragment that only spins is put behind the others after a while: diverged lanes make progress.

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
