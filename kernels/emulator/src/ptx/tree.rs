//! The syntax tree of a PTX module.

use crate::types::{Space, Ty};

#[derive(Debug, Default)]
pub struct Module {
    pub target: String,
    pub vars: Vec<Var>,
    pub funcs: Vec<Func>,
    /// `.file` index to path.
    pub files: Vec<(u32, String)>,
}

/// A variable in any state space, or a parameter.
#[derive(Debug, Clone)]
pub struct Var {
    pub line: u32,
    pub space: Space,
    pub ty: Ty,
    pub align: u32,
    pub name: String,
    /// Elements; 0 for an unsized array (`extern __shared__`).
    pub count: u64,
    pub external: bool,
    pub init: Vec<Init>,
}

impl Var {
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(u64::from(self.ty.bytes()))
    }
}

/// One element of an initialiser.
#[derive(Debug, Clone)]
pub enum Init {
    Bits(u64),
    /// Address of a symbol plus an offset.
    Address(String, i64),
}

#[derive(Debug, Clone)]
pub struct Func {
    pub line: u32,
    pub name: String,
    pub entry: bool,
    pub returns: Vec<Var>,
    pub params: Vec<Var>,
    /// `None` for a prototype.
    pub body: Option<Vec<Stmt>>,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
}

#[derive(Debug, Clone)]
pub enum Stmt {
    Label(String),
    Open,
    Close,
    Regs {
        line: u32,
        ty: Ty,
        vector: u32,
        names: Vec<(String, Option<u32>)>,
    },
    Var(Var),
    Inst(Inst),
    /// `.loc`: file index and source line of the instructions that follow.
    Loc(u32, u32),
    /// `name: .branchtargets a, b;` or `.calltargets`.
    Targets(String, Vec<String>),
    /// `name: .callprototype ...;` with the return and parameter shapes.
    Prototype(String, Vec<Var>, Vec<Var>),
}

#[derive(Debug, Clone)]
pub struct Inst {
    pub line: u32,
    /// Guard predicate and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub modifiers: Vec<String>,
    pub operands: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, variable, label or special register.
    Name(String),
    /// `!p`
    Not(String),
    Int(u64),
    /// An immediate float: its value, and its f32 bits if written as such.
    Float(f64, Option<u32>),
    Vector(Vec<Operand>),
    /// `[base + offset]`; no base is an absolute address.
    Address(Option<String>, i64),
    /// `a | b`, the two results of `setp`, `shfl` and `match`.
    Pair(Box<Operand>, Box<Operand>),
    /// The argument list of a call.
    List(Vec<Operand>),
    /// `_`
    Sink,
}
