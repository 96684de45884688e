//! Damaged model files: whatever config.json, the tokenizer's files, safetensors headers, their
//! index or a chat template hold, loading ends in an error or a model: no panic, no hang, no
//! memory beyond the files' size times a small constant.
//!
//! A binary of its own: it measures memory with a global allocator, sets the panic hook, and aborts
//! the process when a case hangs.
//!
//! `OFFSHOOT_FUZZ_ROUNDS` (default 1500) sets how long it looks, `OFFSHOOT_FUZZ_SEED` (default 0)
//! at what. A long run, 200,000 executions (measured on an AMD EPYC, 2 cores shared with builds:
//! 155,787 refused, no failure, at most 31 MB and 1.6 s for one, a minute of CPU time for each
//! seed):
//!
//!     for seed in 1 2 3 4; do OFFSHOOT_FUZZ_SEED=$seed OFFSHOOT_FUZZ_ROUNDS=50000 \
//!         cargo test -p offshoot --test loading_fuzz -- --nocapture; done

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::text::chat::{ChatTemplate, Message};
use engine::text::tokenizer::Tokenizer;
use serde_json::Value;

#[path = "suite/common/mod.rs"]
mod common;

#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Memory that loading may take for every byte of a file: a parsed JSON value is many times larger
/// than its text.
const PER_BYTE: usize = 100;
/// Memory that loading may take in any case, most of it for regular expressions.
const BASE: usize = 48 << 20;
/// Time limit of a case on a busy machine; beyond it the case counts as a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// The files of a model.
type Files = BTreeMap<&'static str, Vec<u8>>;

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const TEMPLATE: &str = "chat_template.jinja";

/// Every file that is changed.
const NAMES: [&str; 10] = [
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    INDEX,
    TEMPLATE,
    "model.safetensors",
    "model-00001-of-00004.safetensors",
];

/// Undamaged models: embedded, golden and sharded ones, with every golden tokenizer and template.
fn seeds() -> Vec<Files> {
    let golden = |path: &str| common::repository("tests/golden/data").join(path);
    let shards = [
        "model-00001-of-00004.safetensors",
        "model-00002-of-00004.safetensors",
        "model-00003-of-00004.safetensors",
        "model-00004-of-00004.safetensors",
    ];
    let names = NAMES.iter().chain(&shards[1..]);
    let read = |folders: &[&Path]| -> Files {
        let mut files = Files::new();
        for folder in folders {
            for &name in names.clone() {
                if let Ok(bytes) = std::fs::read(folder.join(name)) {
                    files.insert(name, bytes);
                }
            }
        }
        files
    };
    let mut seeds = vec![read(&[&common::embedded("nano-small")])];
    let models = [
        "qwen2-g2-score3-bf16",
        "qwen3-g2-tied-f32",
        "mistral-g2-untied-bf16",
        "llama3-g2-untied-f32",
        "llama-g4-untied-f32-sharded",
    ];
    let templates = ["llama3", "mistral", "qwen25", "qwen3", "smol", "blocks"];
    for (i, template) in templates.iter().enumerate() {
        let model = golden(models[i % models.len()]);
        let tokenizer = golden(["tokenizers/bpe", "tokenizers/byte-fallback"][i % 2]);
        let mut files = read(&[&model, &tokenizer]);
        let text = std::fs::read(golden(&format!("chat/{template}.jinja"))).expect("a template");
        files.insert(TEMPLATE, text);
        // Older checkpoints have a file for what is in the tokenizer's config now.
        let map = files["tokenizer_config.json"].clone();
        files.insert("special_tokens_map.json", map);
        let added = br#"{"<a>": 320, "<|pad|>": 2, "word": 5000000}"#.to_vec();
        files.insert("added_tokens.json", added);
        seeds.push(files);
    }
    seeds
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const NUMBERS: [&str; 18] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "64",
    "1e308",
    "1e400",
    "-0.0",
    "0.5",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
];
const JSON: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "\\u0000",
    "\\ud800",
    "1e99999",
    "\u{fffd}",
    "{\"type\":\"Sequence\"}",
    "\"Regex\"",
    "(a*)*b",
];
const JINJA: [&str; 34] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{#",
    "#}",
    "{% if true %}",
    "{% endif %}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% set x = [x, x] %}",
    "{% macro m() %}",
    "{{ m() }}",
    "{% endmacro %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% break %}",
    " not ",
    "range(99999999)",
    " * 99999999",
    "messages",
    "loop.previtem",
    "namespace(a=1)",
    ".split('')",
    "[::-1]",
    "[0:99999999]",
    "|tojson(indent=99)",
    "|join('x' * 999)",
    "raise_exception('x')",
    "strftime_now('%-')",
    "{% raw %}",
    "\u{fffd}",
];
/// Pieces that nest deeply when repeated.
const NESTS: [&str; 20] = [
    "[",
    "{\"a\":",
    "[{\"a\":",
    "(",
    "((",
    "{{",
    "{% if 1 %}",
    "{% for a in b %}",
    "not ",
    "-",
    "a.",
    "a[",
    "a|b",
    "a~",
    "1+",
    "a if b else ",
    "{{ a(",
    "*",
    ".a",
    "1 and ",
];

/// A file as the fuzzer has changed it.
fn damage(name: &str, bytes: &[u8], rng: &mut Random) -> Vec<u8> {
    if !name.ends_with(".safetensors") {
        return damage_text(name, bytes, rng);
    }
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let (header, data) = bytes[8..].split_at(length);
    if rng.below(8) == 0 {
        let mut out = bytes.to_vec();
        match rng.below(3) {
            0 => out.truncate(rng.below(out.len())),
            1 => {
                let number = rng.one::<&str>(&NUMBERS).parse::<f64>().expect("a number");
                out[..8].copy_from_slice(&(number as u64).to_le_bytes());
            }
            _ => {
                for _ in 0..8 {
                    let at = rng.below(8 + length);
                    out[at] ^= 1 << rng.below(8);
                }
            }
        }
        return out;
    }
    let header = damage_text(name, header, rng);
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    out
}

fn damage_text(name: &str, bytes: &[u8], rng: &mut Random) -> Vec<u8> {
    if name != TEMPLATE && rng.below(3) > 0 {
        // JSON that stays JSON.
        let mut value: Value = serde_json::from_slice(bytes).expect("the seeds are JSON");
        for _ in 0..1 + rng.below(4) {
            change(&mut value, rng);
        }
        return value.to_string().into_bytes();
    }
    let pieces: &[&str] = match name {
        TEMPLATE => &JINJA,
        _ => &JSON,
    };
    let mut out = bytes.to_vec();
    for _ in 0..1 + rng.below(5) {
        let at = rng.below(out.len() + 1);
        let end = (at + rng.below(60)).min(out.len());
        match rng.below(8) {
            0 if at < out.len() => out[at] ^= 1 << rng.below(8),
            1 => drop(out.drain(at..end)),
            2 | 3 => drop(out.splice(at..at, rng.one(pieces).bytes())),
            4 => {
                let copy = out[at..end].to_vec();
                let to = rng.below(out.len() + 1);
                out.splice(to..to, copy);
            }
            5 => out.truncate(at),
            6 => {
                // A number where there was one, or anywhere.
                let digits = out[at..].iter().position(u8::is_ascii_digit);
                let from = digits.map_or(at, |n| at + n);
                let length = out[from..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                drop(out.splice(from..from + length, rng.one(&NUMBERS).bytes()));
            }
            _ if rng.below(6) == 0 => {
                let open = if name == TEMPLATE && rng.below(2) == 0 {
                    "{{ "
                } else {
                    ""
                };
                let nest = rng.one(&NESTS).repeat(*rng.one(&[10, 200, 3000, 60000]));
                out.splice(at..at, open.bytes().chain(nest.bytes()));
            }
            _ => {}
        }
    }
    out
}

/// Changes one value somewhere inside.
fn change(value: &mut Value, rng: &mut Random) {
    let deeper = rng.below(8) > 0;
    match value {
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = rng.below(list.len());
            match rng.below(12) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                2 => list.swap(at, 0),
                _ => change(&mut list[at], rng),
            }
        }
        Value::Object(map) if deeper && !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = rng.one(&keys).clone();
            match rng.below(12) {
                0 => drop(map.remove(&key)),
                1 => {
                    // Another field's value.
                    let other = map[rng.one(&keys)].clone();
                    map.insert(key, other);
                }
                2 => {
                    if let Some(value) = map.remove(&key) {
                        map.insert(format!("{key}x"), value);
                    }
                }
                _ => change(&mut map[&key], rng),
            }
        }
        other => *other = made_up(other, rng),
    }
}

fn made_up(old: &Value, rng: &mut Random) -> Value {
    let number = |rng: &mut Random| {
        serde_json::from_str::<Value>(rng.one::<&str>(&NUMBERS))
            .unwrap_or_else(|_| Value::from(f64::MAX))
    };
    match (rng.below(8), old) {
        // Mostly of the same type.
        (0..=4, Value::Number(_)) => number(rng),
        (0..=4, Value::Bool(old)) => Value::from(!old),
        (0..=2, Value::String(old)) => {
            let mut text = old.clone();
            let piece = *rng.one(&["", "a", "\u{2581}", "\u{120}", "\0", "(", "$", "🦀", "/../"]);
            let offset = rng.below(text.len() + 1);
            if text.is_char_boundary(offset) {
                text.insert_str(offset, piece);
            } else {
                text.clear();
            }
            Value::from(text)
        }
        (3, Value::String(_)) => {
            #[rustfmt::skip]
            let words = [
                "BPE", "WordPiece", "WordLevel", "Unigram", "ByteLevel", "Metaspace", "Replace",
                "Prepend", "NFC", "Precompiled", "Strip", "Fuse", "ByteFallback", "Split", "Digits",
                "Isolated", "MergedWithNext", "Removed", "Sequence", "llama3", "linear", "F16", "I64",
                "LlamaForCausalLM", "Qwen3ForCausalLM", "float16", "silu", "(a*)*$", "\\p{L}+|(?=x)",
            ];
            Value::from(*rng.one(&words))
        }
        (5, _) => Value::Null,
        (6, _) => Value::from("x".repeat(*rng.one(&[0, 1, 40, 70_000]))),
        (7, _) => {
            let mut nested = number(rng);
            for _ in 0..*rng.one(&[1, 3, 100]) {
                nested = match rng.below(2) {
                    0 => Value::from(vec![nested]),
                    _ => serde_json::json!({"type": nested}),
                };
            }
            nested
        }
        _ => number(rng),
    }
}

/// Loads and uses a little whatever depends on the file `name`; whether all went well.
/// `tokenizer` is the undamaged one.
fn load(source: &Source, name: &str, tokenizer: &Tokenizer) -> bool {
    let weights = name.ends_with(".safetensors") || name == INDEX;
    if weights || [CONFIG, "generation_config.json"].contains(&name) {
        let Ok(checkpoint) = Checkpoint::open(source.clone()) else {
            return false;
        };
        let embedding = checkpoint.matrix(&checkpoint.layout().embedding);
        assert!(embedding.is_ok(), "an opened checkpoint has its tensors");
        return true;
    }
    if name == TEMPLATE {
        return chat(source, tokenizer);
    }
    let Ok(tokenizer) = Tokenizer::open(source, None) else {
        return false;
    };
    let text = "Step 1: 12 + 3 = 15.\n\n <s>héllo  🦀</s>";
    let Ok(ids) = tokenizer.encode(text, true) else {
        return false;
    };
    let mut stream = tokenizer.stream(false);
    let streamed = ids.iter().all(|&id| stream.push(id).is_ok()) && stream.finish().is_ok();
    streamed && tokenizer.decode(&ids, true).is_ok() && chat(source, &tokenizer)
}

fn chat(source: &Source, tokenizer: &Tokenizer) -> bool {
    let Ok(chat) = ChatTemplate::open(source, tokenizer) else {
        return false;
    };
    let messages = ["system", "user", "assistant"].map(|r| Message::new(r, "1 + 1?"));
    let prompt = chat.render(&messages[..2], true, false);
    let continued = chat.render(&messages, false, true);
    prompt.is_ok() && continued.is_ok()
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: expected a number"))
    })
}

#[test]
fn damaged_models_are_refused_and_no_more() {
    let rounds = number_of("OFFSHOOT_FUZZ_ROUNDS", 1500);
    let first = number_of("OFFSHOOT_FUZZ_SEED", 0) << 32;
    let seeds = seeds();
    let folder = common::scratch(&format!("loading-fuzz-{first}"));
    let sources: Vec<Source> = (seeds.iter().enumerate())
        .map(|(i, files)| {
            let folder = folder.join(i.to_string());
            std::fs::create_dir_all(&folder).expect("a folder");
            for (name, bytes) in files {
                std::fs::write(folder.join(name), bytes).expect("a file");
            }
            Source::Directory(folder)
        })
        .collect();
    let tokenizers: Vec<_> = (sources.iter())
        .map(|source| Tokenizer::open(source, None).expect("an undamaged tokenizer"))
        .collect();
    for (which, files) in seeds.iter().enumerate() {
        for name in files.keys().filter(|name| **name != TEMPLATE) {
            let well = load(&sources[which], name, &tokenizers[which]);
            assert!(well, "{which}/{name} undamaged");
        }
    }

    // A case that never ends cannot be seen from its own thread.
    static ROUND: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(move || {
        let mut seen = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let round = ROUND.load(Ordering::Relaxed);
            if round != seen.0 {
                seen = (round, Instant::now());
            } else if seen.1.elapsed() > 2 * LIMIT {
                eprintln!("round {round} of seed {} hangs", first >> 32);
                std::process::abort();
            }
        }
    });

    // Panics of the tokenizers crate are caught and would fill the screen; ours are reported at the
    // end.
    static PANIC: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    let mut failures = Vec::new();
    let (mut refused, mut largest, mut longest) = (0, 0, Duration::ZERO);
    for round in 0..rounds {
        ROUND.store(round, Ordering::Relaxed);
        let mut rng = Random::new(first + round);
        let which = rng.below(seeds.len());
        let (files, Source::Directory(folder)) = (&seeds[which], &sources[which]) else {
            continue;
        };
        let present: Vec<_> = NAMES
            .iter()
            .filter(|name| files.contains_key(**name))
            .collect();
        let name = **rng.one(&present);
        let bytes = damage(name, &files[name], &mut rng);
        let path = folder.join(name);
        std::fs::write(&path, &bytes).expect("a file");

        let total: usize = files.values().map(Vec::len).sum::<usize>() + bytes.len();
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            load(&sources[which], name, &tokenizers[which])
        }));
        let took = start.elapsed();
        let peak = MEMORY.peak_usage().saturating_sub(before);
        (largest, longest) = (largest.max(peak), longest.max(took));

        let problem = match result {
            Err(_) => Some(PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            Ok(_) if took > LIMIT => Some(format!("it takes {took:?}")),
            Ok(_) if peak > BASE + PER_BYTE * total => {
                Some(format!("it takes {peak} bytes for {total}"))
            }
            Ok(well) => {
                refused += u64::from(!well);
                None
            }
        };
        if let Some(problem) = problem {
            let kept = folder.with_file_name(format!("round-{round}-{name}"));
            std::fs::write(&kept, &bytes).expect("a file");
            failures.push(format!("{problem}: {} as {which}/{name}", kept.display()));
        }
        std::fs::write(&path, &files[name]).expect("a file");
        if failures.len() > 20 {
            break;
        }
    }
    let _ = std::panic::take_hook();
    println!("{rounds} rounds: {refused} refused, at most {largest} bytes and {longest:?} for one");
    common::report(&failures);
    assert!(
        refused > rounds / 4,
        "{refused} of {rounds} refused: the damage is too small to mean anything"
    );
}
