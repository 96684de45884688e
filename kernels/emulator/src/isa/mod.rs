//! The instruction set: a file per family. An instruction is one entry in its family's `DEFS`, with
//! its syntax, meaning and class. Its tests are rows in the module of the same name in
//! `tests/instructions/`.

mod arith;
mod asynccopy;
mod atomics;
mod bits;
mod compare;
mod control;
mod convert;
mod float;
mod half;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod moves;
mod operands;
mod shapes;
mod sync;
mod video;
mod warpwide;
mod wmma;

pub use control::{ASSERT, BAD_CALL, BRANCH, EXIT, PRINTF, TABLE};

use crate::lower::{Builder, Form, Res};

/// Turns the syntax of one opcode into instructions.
pub type Decode = fn(&mut Builder<'_>, &Form<'_>) -> Res;

const FAMILIES: &[&[(&str, Decode)]] = &[
    arith::DEFS,
    asynccopy::DEFS,
    atomics::DEFS,
    bits::DEFS,
    compare::DEFS,
    control::DEFS,
    convert::DEFS,
    float::DEFS,
    matrix::DEFS,
    mbarrier::DEFS,
    memory::DEFS,
    mma::DEFS,
    moves::DEFS,
    sync::DEFS,
    video::DEFS,
    warpwide::DEFS,
    wmma::DEFS,
];

/// All opcodes, for the documentation and the fuzzer.
pub fn opcodes() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|f| f.iter().map(|d| d.0))
}

/// Decodes an instruction other than a branch, call or return.
pub fn decode(b: &mut Builder<'_>, f: &Form<'_>) -> Res {
    for family in FAMILIES {
        if let Some((_, decode)) = family.iter().find(|d| d.0 == f.inst.opcode) {
            decode(b, f)?;
            return f.finish();
        }
    }
    f.refuse("this instruction is not supported")
}
