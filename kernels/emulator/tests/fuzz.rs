//! Damaged PTX must be refused, never panic or hang. `OFFSHOOT_FUZZ_ROUNDS` (default 3000) sets how
//! long it looks.
#![allow(clippy::unwrap_used)]

mod common;

use common::Random;
use std::time::{Duration, Instant};

const SEEDS: [&str; 3] = [
    include_str!("triton/add.ptx"),
    include_str!("triton/softmax.ptx"),
    include_str!("triton/matmul.ptx"),
];

const PIECES: [&str; 24] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    "@",
    "!",
    ":",
    "::",
    "0f",
    "0x",
    "\"",
    "/*",
    ".reg",
    ".entry",
    "%r<999999999>;",
    "-9223372036854775808",
    "call",
    "brx.idx",
    "bra $L__BB0_1;",
    "\u{fffd}",
];

fn damage(text: &str, rng: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + rng.bits() % 6 {
        let at = (rng.bits() % bytes.len() as u64) as usize;
        let end = (at + (rng.bits() % 40) as usize).min(bytes.len());
        match rng.bits() % 6 {
            0 => bytes[at] = rng.bits() as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = PIECES[rng.bits() as usize % PIECES.len()];
                bytes.splice(at..at, piece.bytes());
            }
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = (rng.bits() % bytes.len() as u64) as usize;
                bytes.splice(to..to, copy);
            }
            4 => bytes.truncate(at.max(1)),
            _ => {
                let opcodes = cuda::opcodes();
                let op = opcodes[rng.bits() as usize % opcodes.len()];
                bytes.splice(at..at, op.bytes());
            }
        }
        if bytes.is_empty() {
            bytes.push(b' ');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn damaged_ptx_is_refused_and_no_more() {
    let rounds: u64 = std::env::var("OFFSHOOT_FUZZ_ROUNDS")
        .ok()
        .map_or(3000, |v| v.parse().unwrap());
    let gpu = common::gpu();
    let mut refused = 0;
    for round in 0..rounds {
        let mut rng = Random(round);
        let text = damage(SEEDS[round as usize % SEEDS.len()], &mut rng);
        let start = Instant::now();
        let result = std::panic::catch_unwind(|| match gpu.load(&text) {
            Err(e) => {
                assert!(e.line >= 1 && !e.message.is_empty());
                true
            }
            Ok(m) => {
                let mut bad = false;
                for k in m.kernels() {
                    match m.kernel(&k) {
                        Ok(_) => {}
                        Err(e) => {
                            assert!(!e.message.is_empty());
                            bad = true;
                        }
                    }
                }
                gpu.unload(&m);
                bad
            }
        });
        match result {
            Ok(bad) => refused += u64::from(bad),
            Err(_) => panic!("round {round} panicked on:\n{text}"),
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "round {round} took {:?}",
            start.elapsed()
        );
    }
    assert!(
        refused > rounds / 2,
        "{refused} of {rounds} refused: the damage is too small to mean anything"
    );
}
