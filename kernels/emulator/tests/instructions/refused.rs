//! Refusals: unsupported instructions, and text that is not PTX.

use crate::common::gpu;
use crate::{row, warp::warp};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn what_is_not_known_is_refused_by_name_and_line() {
    for (body, words) in [
        (
            "tex.2d.v4.f32.f32 {%r, %r, %r, %r}, [%rd1, {%x1, %x2}];",
            "PTX line 8",
        ),
        (
            "wgmma.fence.sync.aligned;",
            "wgmma.fence.sync.aligned: this instruction is not supported",
        ),
        (
            "add.frob.u32 %r, %t, 1;",
            "add.frob.u32: modifier .frob is not supported",
        ),
        ("add.u32 %r, %t;", "3 operands"),
        ("add.u32 %r, %nowhere, 1;", "\"%nowhere\" is not declared"),
        ("bra NOWHERE;", "is not a label"),
        ("mov.u32 %rd1, %t;", "is not 32 bits wide"),
        ("add.cc %r, %t, 1;", "add.cc: exactly one type is expected"),
        ("sub.cc %r, %t, 1;", "sub.cc: exactly one type is expected"),
        ("addc %r, %t, 1;", "addc: exactly one type is expected"),
        (
            "addc.cc %r, %t, 1;",
            "addc.cc: exactly one type is expected",
        ),
        ("subc %r, %t, 1;", "subc: exactly one type is expected"),
        (
            "subc.cc %r, %t, 1;",
            "subc.cc: exactly one type is expected",
        ),
        (
            "mad.lo.cc %r, %t, 1, 2;",
            "mad.lo.cc: exactly one type is expected",
        ),
        (
            "madc.hi %r, %t, 1, 2;",
            "madc.hi: exactly one type is expected",
        ),
        (
            "madc.lo.cc %r, %t, 1, 2;",
            "madc.lo.cc: exactly one type is expected",
        ),
        (
            "add.cc.f32 %r, %t, 1;",
            "add.cc.f32: carry needs a 32-bit or 64-bit integer type",
        ),
        (
            "shfl.sync.idx %r, %t, 1, 31, -1;",
            "shfl.sync.idx: the type .b32 is expected",
        ),
        (
            "shfl.sync.idx.b64 %r, %t, 1, 31, -1;",
            "shfl.sync.idx.b64: the type .b32 is expected",
        ),
        (
            "vote.sync.ballot.pred %r, %q1, -1;",
            "vote.sync.ballot.pred: the type .b32 is expected",
        ),
        (
            "match.any.sync.b16 %r, %t, -1;",
            "match.any.sync.b16: the type .b32 or .b64 is expected",
        ),
        (
            "redux.sync.add.b32 %r, %t, -1;",
            "redux.sync.add.b32: the type .u32 or .s32 is expected",
        ),
        ("activemask %r;", "activemask: the type .b32 is expected"),
    ] {
        let e = warp(body).unwrap_err();
        assert!(e.starts_with("PTX line 8: "), "{e}");
        if words != "PTX line 8" && words != "3 operands" {
            assert!(e.contains(words), "{e}");
        }
    }
}

/// Declarations whose sizes could overflow or run past a value.
#[test]
fn impossible_declarations_are_refused() {
    for (text, words) in [
        (
            ".visible .entry k(.param .b8 a[4294967295], .param .b8 b[4294967295]) { ret; }",
            "take more than 32764 bytes",
        ),
        (
            ".global .b128 x = 5;\n.visible .entry k() { ret; }",
            "128-bit initialisers are not supported",
        ),
        (
            ".visible .entry k() { .local .b8 a[1099511627776]; ret; }",
            "local memory are too many",
        ),
        (
            ".visible .entry k() { .shared .b8 a[4294967296]; ret; }",
            "shared memory are too many",
        ),
    ] {
        let text = format!(".version 8.6\n.target sm_90\n.address_size 64\n{text}\n");
        let e = gpu().load(&text).and_then(|m| m.kernel("k"));
        let e = e.err().unwrap().to_string();
        assert!(e.starts_with("PTX line ") && e.contains(words), "{e}");
    }
    let wide = ".version 8.6\n.target sm_90\n.address_size 64\n\
                .visible .entry k() .maxntid 65536, 65536, 65536 { ret; }\n";
    assert!(gpu().load(wide).and_then(|m| m.kernel("k")).is_ok());
    let empty = ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k() { }\n";
    assert!(gpu().load(empty).and_then(|m| m.kernel("k")).is_ok());
}

/// The statement with one modifier or operand left out, with all of either left out, and with an
/// operand too many.
fn shortened(statement: &str) -> Vec<String> {
    // Braces, guards and labels stay.
    let word = statement
        .split_whitespace()
        .find(|w| w.starts_with(|c: char| c.is_ascii_lowercase()) && !w.ends_with(':'));
    let Some(word) = word else { return Vec::new() };
    let Some((before, after)) = statement.split_once(word) else {
        return Vec::new();
    };
    let parts: Vec<&str> = word.split('.').collect();
    let operands: Vec<&str> = after.split(',').collect();
    let mut out = vec![
        format!("{before}{}{after}", parts[0]),
        format!("{before}{word}"),
        format!("{before}{}", parts[0]),
        format!("{statement}, %t"),
    ];
    for skip in 1..parts.len() {
        let kept: Vec<&str> = without(&parts, skip);
        out.push(format!("{before}{}{after}", kept.join(".")));
    }
    for skip in 0..operands.len() {
        let kept: Vec<&str> = without(&operands, skip);
        out.push(format!("{before}{word} {}", kept.join(",")));
    }
    out
}

/// The statement without its types, and without each one of several. Nothing if it has none.
fn untyped(statement: &str) -> Vec<String> {
    let word = (statement.split_whitespace())
        .find(|w| w.starts_with(|c: char| c.is_ascii_lowercase()) && !w.ends_with(':'));
    let Some((word, (before, after))) = word.and_then(|w| Some((w, statement.split_once(w)?)))
    else {
        return Vec::new();
    };
    const TYPES: [&str; 22] = [
        "pred", "b8", "b16", "b32", "b64", "b128", "u8", "u16", "u32", "u64", "s8", "s16", "s32",
        "s64", "u16x2", "s16x2", "f16", "f16x2", "bf16", "bf16x2", "f32", "f64",
    ];
    let parts: Vec<&str> = word.split('.').collect();
    let places: Vec<usize> = (1..parts.len())
        .filter(|&i| TYPES.contains(&parts[i]))
        .collect();
    if places.is_empty() {
        return Vec::new();
    }
    let mut out: Vec<String> = (places.iter())
        .map(|&skip| format!("{before}{}{after}", without(&parts, skip).join(".")))
        .collect();
    let bare = (parts.iter().enumerate()).filter(|(i, _)| !places.contains(i));
    let bare: Vec<&str> = bare.map(|(_, x)| *x).collect();
    out.push(format!("{before}{}{after}", bare.join(".")));
    out
}

fn without<'a>(list: &[&'a str], skip: usize) -> Vec<&'a str> {
    let all = list.iter().enumerate();
    all.filter(|(i, _)| *i != skip).map(|(_, x)| *x).collect()
}

/// Whatever is left out of an instruction, it is decoded or refused: a decoder that takes an
/// element of a list without a check would panic here.
#[test]
fn shortened_instructions_are_decoded_or_refused() {
    let mut codes = BTreeSet::new();
    let mut add = |ptx: &str, code: &dyn Fn(&str) -> String| {
        let statements: Vec<&str> = ptx.split(';').collect();
        for (i, statement) in statements.iter().enumerate() {
            for short in shortened(statement) {
                let mut with = statements.clone();
                with[i] = &short;
                codes.insert(code(&with.join(";")));
            }
        }
    };
    for r in crate::rows() {
        add(r.0, &|ptx| row::code(ptx, r.1, r.2));
    }
    for r in crate::families() {
        add(&r.ptx, &|ptx| row::code(ptx, r.result, &r.sources));
    }
    for (_, body, _) in crate::warp_rows() {
        add(&body, &crate::warp::code);
    }
    let gpu = gpu();
    let mut refused = 0;
    for code in &codes {
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let module = gpu.load(code)?;
            let kernel = module.kernel("k").map(|_| ());
            gpu.unload(&module);
            kernel
        }));
        match decoded {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                refused += 1;
                assert!(e.to_string().starts_with("PTX line "), "{e}\n{code}");
            }
            Err(_) => panic!("the decoder panics on\n{code}"),
        }
    }
    assert!(
        refused > codes.len() / 2,
        "{refused} of {} are refused",
        codes.len()
    );
}

/// An instruction with a type says nothing without it: it is refused by its name and line.
#[test]
fn an_instruction_without_its_type_is_refused() {
    let mut codes = Vec::new();
    let mut add = |ptx: &str, code: &dyn Fn(&str) -> String| {
        let statements: Vec<&str> = ptx.split(';').collect();
        for (i, statement) in statements.iter().enumerate() {
            for short in untyped(statement) {
                let mut with = statements.clone();
                with[i] = &short;
                codes.push((short.clone(), code(&with.join(";"))));
            }
        }
    };
    for r in crate::rows() {
        add(r.0, &|ptx| row::code(ptx, r.1, r.2));
    }
    for r in crate::families() {
        add(&r.ptx, &|ptx| row::code(ptx, r.result, &r.sources));
    }
    for (_, body, _) in crate::warp_rows() {
        add(&body, &crate::warp::code);
    }
    for mma in [
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%x1,%x2,%x3,%x4}, {%x5,%x6}, {%x7}, {%x1,%x2,%x3,%x4}",
        "wmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%x1,%x2,%x3,%x4,%x5,%x6,%x7,%x8}, {%x1,%x2,%x3,%x4,%x5,%x6,%x7,%x8}, {%x1,%x2,%x3,%x4,%x5,%x6,%x7,%x8}, {%x1,%x2,%x3,%x4,%x5,%x6,%x7,%x8}",
    ] {
        add(mma, &|ptx| crate::warp::code(&format!("{ptx};")));
    }
    let gpu = gpu();
    let mut wrong = BTreeSet::new();
    for (statement, code) in &codes {
        let module = gpu
            .load(code)
            .unwrap_or_else(|e| panic!("{statement}: {e}"));
        match module.kernel("k") {
            Ok(_) => {
                wrong.insert(format!("{statement}: decoded"));
            }
            Err(e) => {
                let e = e.to_string();
                let named = (statement.split_whitespace()).any(|word| {
                    word.starts_with(|c: char| c.is_ascii_lowercase())
                        && e.contains(&format!(": {word}: "))
                });
                if !(e.starts_with("PTX line ") && named) {
                    wrong.insert(format!("{statement}: {e}"));
                }
            }
        }
        gpu.unload(&module);
    }
    assert!(codes.len() > 500, "{} statements", codes.len());
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
