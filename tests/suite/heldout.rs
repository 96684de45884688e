//! The bundled problems and the embedded family are what the README says of them.

use std::collections::{BTreeMap, HashSet};

use crate::common::{embedded, heldout, open, report, repository};
use serde_json::{Map, Value};
use strategies::{Grader, last_boxed};

fn problems() -> Vec<Map<String, Value>> {
    let text = heldout();
    (text.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// FNV-1a, 64 bits, over the UTF-8 bytes of a text.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The generator's rule (bench/nano/problems.py, `split_of`): a problem is held out if and only if
/// the hash of its text is a multiple of 16. Training keeps only texts that are on its own side.
fn is_held_out(text: &str) -> bool {
    fnv1a64(text).is_multiple_of(16)
}

#[test]
fn the_hash_is_fnv1a() {
    // From the test vectors of the algorithm's authors.
    for (text, hash) in [
        ("", 0xcbf2_9ce4_8422_2325),
        ("a", 0xaf63_dc4c_8601_ec8c),
        ("foobar", 0x8594_4171_f739_67e8),
    ] {
        assert_eq!(fnv1a64(text), hash, "{text:?}");
    }
}

#[test]
fn every_problem_is_whole() {
    let mut complaints = Vec::new();
    let mut by_level: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut ids, mut texts) = (HashSet::new(), HashSet::new());
    for (number, fields) in problems().iter().enumerate() {
        let mut complain = |what: String| complaints.push(format!("line {}: {what}", number + 1));
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        for name in ["problem", "solution", "answer", "subject", "unique_id"] {
            if text(name).is_empty() {
                complain(format!("{name} is not a text"));
            }
        }
        let Some(level) = fields.get("level").and_then(Value::as_u64) else {
            complain("level is not a number".into());
            continue;
        };
        *by_level.entry(level).or_default() += 1;
        match last_boxed(text("solution")) {
            Some(boxed) if Grader::Strict.equivalent(boxed, text("answer")) => {}
            boxed => complain(format!("{boxed:?} in the box, answer {:?}", text("answer"))),
        }
        if !ids.insert(text("unique_id").to_string()) {
            complain(format!("{} twice", text("unique_id")));
        }
        if !texts.insert(text("problem").to_string()) {
            complain("a problem that stands further up".into());
        }
        if !is_held_out(text("problem")) {
            complain("a problem that may be in the training set".into());
        }
    }
    report(&complaints);
    let expected: BTreeMap<u64, usize> = (1..=5).map(|level| (level, 40)).collect();
    assert_eq!(by_level, expected, "problems by level");
}

/// The reader of the command line takes all of them, under their own ids.
#[test]
fn every_problem_is_read() {
    let (read, bad) = strategies::read_problems(heldout().as_bytes());
    assert!(bad.is_empty(), "{bad:?}");
    let ids: Vec<&str> = read.iter().map(|p| p.id.as_str()).collect();
    let problems = problems();
    let expected: Vec<&str> = (problems.iter())
        .filter_map(|fields| fields.get("unique_id")?.as_str())
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(read.len(), 200);
}

#[test]
fn the_family_is_small_and_shares_a_tokenizer() {
    let words = ["nano-small", "nano-big", "nano-prm"];
    let tokenizers = words.map(|word| {
        std::fs::read(embedded(word).join("tokenizer.json")).expect("every model has a tokenizer")
    });
    for (word, tokenizer) in words.iter().zip(&tokenizers) {
        assert!(*tokenizer == tokenizers[0], "{word} has another tokenizer");
    }

    let folder = repository("session/src/embedded");
    let mut bytes = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let about = entry.metadata().expect("its size");
            if about.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += about.len();
            }
        }
    }
    assert!(
        bytes <= 12_000_000,
        "{bytes} bytes are embedded, at most 12 MB"
    );

    let params = |word: &str| open(word).checkpoint.params();
    let (small, big) = (params("nano-small"), params("nano-big"));
    assert!(
        big >= 8 * small,
        "nano-big has {big} parameters, nano-small {small}"
    );
}
