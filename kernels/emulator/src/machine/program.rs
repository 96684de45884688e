//! A decoded kernel.

use super::warp::Cx;

/// The class under which an instruction is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Inserted by the decoder; never counted.
    Hidden,
    Move,
    Integer,
    Compare,
    Convert,
    Float32,
    Float64,
    Half,
    Special,
    Load,
    Store,
    Atomic,
    AsyncCopy,
    WarpExchange,
    Sync,
    Matrix,
    Tensor,
    Control,
    Other,
}

impl Class {
    /// The name in counters.
    pub fn name(self) -> &'static str {
        match self {
            Class::Hidden => "hidden",
            Class::Move => "move",
            Class::Integer => "integer",
            Class::Compare => "compare",
            Class::Convert => "convert",
            Class::Float32 => "float32",
            Class::Float64 => "float64",
            Class::Half => "half",
            Class::Special => "special_function",
            Class::Load => "load",
            Class::Store => "store",
            Class::Atomic => "atomic",
            Class::AsyncCopy => "async_copy",
            Class::WarpExchange => "warp_exchange",
            Class::Sync => "sync",
            Class::Matrix => "matrix_move",
            Class::Tensor => "tensor_core",
            Class::Control => "control",
            Class::Other => "other",
        }
    }
}

/// Carries out one instruction for the lanes of a mask.
pub type Exec = unsafe fn(&mut Cx<'_>, &Ins, u32);

/// A decoded instruction. Only the instruction's decoder and its `exec` interpret the operands.
#[derive(Clone, Copy)]
pub struct Ins {
    /// Safe to call for a warp made for the same program: `dst`, `src` and lists name registers and
    /// predicates that exist, and a variant for newer processors is chosen only if the processor
    /// has its features.
    pub exec: Exec,
    /// The register or predicate written.
    pub dst: u32,
    /// The registers or predicates read, in the order of the PTX operands.
    pub src: [u32; 3],
    /// An immediate operand, or the fields of a type declared by `immediate!`.
    pub imm: u64,
    /// Predicate index of the guard; 0 always holds.
    pub guard: u32,
    /// All ones when the guard is negated.
    pub flip: u32,
    /// Index into `Program::lists` for instructions with many operands.
    pub list: u32,
    pub class: Class,
}

impl Ins {
    /// An instruction without operands that every lane executes.
    pub fn new(exec: Exec, class: Class) -> Ins {
        Ins {
            exec,
            dst: 0,
            src: [0; 3],
            imm: 0,
            guard: 0,
            flip: 0,
            list: 0,
            class,
        }
    }
}

/// The text an instruction was decoded from.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Debug {
    /// PTX line.
    pub line: u32,
    /// File and line of the CUDA source; `row` 0 is unknown.
    pub file: u32,
    pub row: u32,
}

/// Read-only registers, filled at the start of a warp.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    WarpCount,
    SmId,
    SmCount,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicShared,
    TotalShared,
    GridWorkspaceHigh,
    GridWorkspaceLow,
}

/// A kernel parameter's place in the parameter buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub bytes: u32,
}

/// A kernel ready to run.
pub struct Program {
    pub name: String,
    pub code: Vec<Ins>,
    pub debug: Vec<Debug>,
    pub lists: Vec<Vec<u32>>,
    /// Size of a warp's register file, in slots of 32 lanes of 4 bytes.
    pub slots: usize,
    pub preds: usize,
    /// Register, value, whether it is 64 bits wide.
    pub constants: Vec<(u32, u64, bool)>,
    pub specials: Vec<(u32, Special)>,
    pub params: Vec<Param>,
    pub param_bytes: u32,
    pub local_bytes: u32,
    pub shared_bytes: u32,
    /// 32-bit registers as declared, for `cuFuncGetAttribute`.
    pub registers: u32,
    pub max_threads: u32,
    pub files: Vec<(u32, String)>,
    /// The module's text, for reports.
    pub source: std::sync::Arc<str>,
    /// For each instruction, whether nothing but the lane's exit comes from there on.
    pub leaves: Vec<bool>,
    /// Names of the registers that may be read before they are written.
    pub watched: Vec<String>,
    /// Blocks of the kernel can communicate: it has atomics or strong accesses to global memory.
    pub communicates: bool,
}

impl Program {
    /// The text of the instruction at a PTX line.
    pub fn text(&self, line: u32) -> String {
        let text = self
            .source
            .lines()
            .nth((line as usize).saturating_sub(1))
            .unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
