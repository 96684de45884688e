//! The checks of a sanitizer: the kinds of fault, the report, and the shadow state that finds
//! races.

mod clock;
mod global;
mod shared;

pub use clock::{Clock, WarpClock};
pub use global::{Order, race_read, race_write, read_before};
pub use shared::{Conflict, SharedShadow, Touch};

/// What went wrong. The name is what a report starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside of every allocation, or past its end.
    OutOfBounds,
    /// An access to an allocation that was freed.
    UseAfterFree,
    /// A write to constant memory.
    ReadOnly,
    /// An address that is not a multiple of the access width.
    Misaligned,
    /// A read of bytes or of a register that were never written.
    Uninitialised,
    /// Two threads of a block access one shared byte, at least one writes, and no barrier lies
    /// between.
    SharedRace,
    /// Two blocks of a launch access one global byte, at least one writes, and nothing orders them.
    GlobalRace,
    /// A `.sync` instruction that not all threads it names execute.
    DivergentSync,
    /// A barrier used with two different thread counts or kinds.
    BarrierMismatch,
    /// Warps wait for one another and none can go on.
    Deadlock,
    /// More instructions than the option allows.
    Limit,
    /// An access to the bytes of an asynchronous copy before the wait for it.
    AsyncCopy,
    /// `trap`.
    Trap,
    /// A device-side assertion failed.
    Assert,
    /// An operand value that the instruction does not define.
    BadOperand,
}

impl FaultKind {
    /// The words a report starts with.
    pub fn title(self) -> &'static str {
        match self {
            FaultKind::OutOfBounds => "out of bounds",
            FaultKind::UseAfterFree => "use after free",
            FaultKind::ReadOnly => "write to constant memory",
            FaultKind::Misaligned => "misaligned access",
            FaultKind::Uninitialised => "uninitialised read",
            FaultKind::SharedRace => "shared memory race",
            FaultKind::GlobalRace => "global memory race",
            FaultKind::DivergentSync => "divergent sync",
            FaultKind::BarrierMismatch => "barrier mismatch",
            FaultKind::Deadlock => "deadlock",
            FaultKind::Limit => "instruction limit",
            FaultKind::AsyncCopy => "async copy not waited for",
            FaultKind::Trap => "trap",
            FaultKind::Assert => "assertion failed",
            FaultKind::BadOperand => "bad operand",
        }
    }
}

/// A fault at an instruction and thread, before its names and lines are looked up.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub pc: usize,
    pub thread: u32,
    pub message: String,
}

/// A failed check, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What went wrong.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// PTX line, counted from 1.
    pub line: u32,
    /// The instruction on that line.
    pub instruction: String,
    /// File and line of the source, where the PTX has line information.
    pub source: Option<(String, u32)>,
    /// Block index.
    pub block: [u32; 3],
    /// Thread index inside the block.
    pub thread: [u32; 3],
    /// Addresses, values and lanes.
    pub message: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        writeln!(
            f,
            "offshoot-emulator: {} in kernel {}: {}",
            self.kind.title(),
            self.kernel,
            self.message
        )?;
        writeln!(f, "    at PTX line {}: {}", self.line, self.instruction)?;
        if let Some((file, line)) = &self.source {
            writeln!(f, "    source {file}:{line}")?;
        }
        write!(f, "    block ({bx},{by},{bz}) thread ({tx},{ty},{tz})")
    }
}
