//! Single instructions against an independent model: integers bit for bit, floats through f64. A
//! module holds the rows of the decoder in `src/isa/` of the same name.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

mod arith;
mod asynccopy;
mod atomics;
mod bits;
mod card;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod control;
mod convert;
mod float;
mod half;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod model;
mod moves;
mod refused;
mod row;
mod sync;
mod video;
mod warp;
mod warpwide;
mod wmma;

use row::{Made, Row, check, check_one};
use warp::WarpRow;

fn rows() -> Vec<Row> {
    [
        arith::rows(),
        bits::rows(),
        compare::rows(),
        convert::rows(),
        float::rows(),
        half::rows(),
        memory::rows(),
        moves::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The rows made for several types or modes.
fn families() -> Vec<Made> {
    [
        arith::typed(),
        bits::typed(),
        compare::typed(),
        convert::typed(),
        float::typed(),
        half::typed(),
        moves::typed(),
        video::typed(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn warp_rows() -> Vec<WarpRow> {
    [
        asynccopy::warp_rows(),
        atomics::warp_rows(),
        control::warp_rows(),
        matrix::warp_rows(),
        mbarrier::warp_rows(),
        memory::warp_rows(),
        moves::warp_rows(),
        sync::warp_rows(),
        warpwide::warp_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_row_agrees_with_its_model() {
    let rows = rows();
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|r| check(r).err().map(|e| format!("{}: {e}", r.0)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

#[test]
fn families_agree_with_their_models() {
    let rows = families();
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|r| {
            check_one(&r.ptx, r.result, &r.sources, &r.model)
                .err()
                .map(|e| format!("{}: {e}", r.ptx))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

/// Opcodes in a piece of PTX: the first word after a brace, a semicolon or a guard.
fn opcodes_of(ptx: &str, into: &mut std::collections::BTreeSet<String>) {
    for statement in ptx.split([';', '{', '}', '\n']) {
        let words = statement
            .split_whitespace()
            .filter(|w| !w.starts_with('@') && !w.ends_with(':'));
        if let Some(word) = words.into_iter().next() {
            into.insert(word.split('.').next().unwrap_or(word).to_owned());
        }
    }
}

#[test]
fn every_opcode_has_a_row() {
    let mut seen = std::collections::BTreeSet::new();
    for r in rows() {
        opcodes_of(r.0, &mut seen);
    }
    for r in families() {
        opcodes_of(&r.ptx, &mut seen);
    }
    for (_, body, _) in warp_rows() {
        opcodes_of(&body, &mut seen);
    }
    for (op, _) in float::approximations() {
        opcodes_of(op, &mut seen);
    }
    seen.extend(["mma", "wmma"].map(str::to_owned));
    let missing: Vec<&str> = cuda::opcodes()
        .into_iter()
        .filter(|o| !seen.contains(*o))
        .collect();
    assert!(missing.is_empty(), "no row in these files has {missing:?}");
}
