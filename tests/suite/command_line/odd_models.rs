//! Models whose files are odd: what transformers runs, runs here with the same tokens, or one
//! sentence says why not. Every row is a copy of nano-small with one thing changed.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::broken_models::{copy_of, edit, edit_json, edit_weights};
use crate::common::{json_of, offshoot, report, scratch, stdout_of};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer_config.json";
const QUESTION: &str = "A crew has 509 stamps. They make 322 more. How many stamps are there?";

/// One change that does no harm.
type Harmless = (&'static str, fn(&Path));

#[rustfmt::skip]
const HARMLESS: [Harmless; 26] = [
    ("no-architectures", |d| set(d, CONFIG, "architectures", json!(null))),
    ("empty-architectures", |d| set(d, CONFIG, "architectures", json!([]))),
    ("no-model-type", |d| set(d, CONFIG, "model_type", json!(null))),
    ("pad-id-minus-1", |d| set(d, CONFIG, "pad_token_id", json!(-1))),
    ("bos-id-minus-1", |d| set(d, CONFIG, "bos_token_id", json!(-1))),
    ("unused-nan", |d| literal(d, CONFIG, "initializer_range", "NaN")),
    ("top-k-minus-1", |d| set(d, GENERATION, "top_k", json!(-1))),
    ("temperature-below-0", |d| set(d, GENERATION, "temperature", json!(-1))),
    ("temperature-in-words", |d| set(d, GENERATION, "temperature", json!("warm"))),
    ("top-p-of-2", |d| set(d, GENERATION, "top_p", json!(2))),
    ("no-penalty", |d| set(d, GENERATION, "repetition_penalty", json!(0))),
    ("sample-in-words", |d| set(d, GENERATION, "do_sample", json!("yes"))),
    ("bos-in-words", |d| set(d, GENERATION, "bos_token_id", json!("x"))),
    ("infinite-top-p", |d| literal(d, GENERATION, "top_p", "Infinity")),
    ("eos-and-minus-1", |d| set(d, GENERATION, "eos_token_id", json!([1, -1]))),
    ("unknown-pad", |d| set(d, TOKENIZER, "pad_token", json!("[PAD]"))),
    ("unknown-unk", |d| set(d, TOKENIZER, "unk_token", json!("[UNK]"))),
    ("unknown-sep", |d| set(d, TOKENIZER, "sep_token", json!("[SEP]"))),
    ("unknown-cls", |d| set(d, TOKENIZER, "cls_token", json!("[CLS]"))),
    ("unknown-mask", |d| set(d, TOKENIZER, "mask_token", json!("[MASK]"))),
    ("extra-token-without-room", |d| set(d, TOKENIZER, "extra_special_tokens", json!(["<x>"]))),
    ("long-model", |d| set(d, TOKENIZER, "model_max_length", json!(1e30))),
    ("infinite-model", |d| literal(d, TOKENIZER, "model_max_length", "Infinity")),
    ("head-of-embedding", |d| add_head(d, |_| ())),
    ("embedding-named-as-head", |d| edit_names(d, |header| {
        let embedding = header.shift_remove(EMBEDDING).expect("an embedding");
        header.insert(HEAD.into(), embedding);
    })),
    ("metadata", |d| edit_names(d, |header| {
        header.insert("__metadata__".into(), json!({"format": "pt"}));
    })),
];

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Sets a field; null removes it.
fn set(folder: &Path, file: &str, field: &str, value: Value) {
    edit_json(folder, file, |fields| match value {
        Value::Null => drop(
            fields
                .as_object_mut()
                .expect("an object")
                .shift_remove(field),
        ),
        value => fields[field] = value,
    });
}

/// Sets a field to a number that JSON does not have and Python's `json` writes.
fn literal(folder: &Path, file: &str, field: &str, number: &str) {
    set(folder, file, field, json!("@@"));
    edit(folder, file, |text| text.replace("\"@@\"", number));
}

/// Changes the weight file's header.
fn edit_names(folder: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    edit_weights(folder, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        let Value::Object(mut header) = header else {
            panic!("a header is an object");
        };
        change(&mut header);
        let header = Value::Object(header).to_string();
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.extend(&bytes[8 + length..]);
        *bytes = out;
    });
}

/// Adds an LM head: the embedding's bytes, changed.
fn add_head(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    edit_weights(folder, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
        let at = |i: usize| {
            let offset = header[EMBEDDING]["data_offsets"][i].as_u64();
            8 + length + offset.expect("an offset") as usize
        };
        let mut head = bytes[at(0)..at(1)].to_vec();
        change(&mut head);
        bytes.extend(head);
    });
    let end = |header: &serde_json::Map<String, Value>| {
        let ends = header
            .values()
            .filter_map(|t| t["data_offsets"][1].as_u64());
        ends.max().expect("tensors")
    };
    edit_names(folder, |header| {
        let mut head = header[EMBEDDING].clone();
        let offsets = &head["data_offsets"];
        let bytes = offsets[1]
            .as_u64()
            .zip(offsets[0].as_u64())
            .map(|(b, a)| b - a);
        let from = end(header);
        head["data_offsets"] = json!([from, from + bytes.expect("offsets")]);
        header.insert(HEAD.into(), head);
    });
}

fn generate(folder: &Path, name: &str, more: &[&str]) -> Output {
    let arguments = [
        "generate",
        "--json",
        "--threads=1",
        "--model",
        name,
        QUESTION,
    ];
    offshoot(folder, &[&arguments, more].concat(), "")
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_does_no_harm_changes_nothing() {
    let folder = scratch("odd");
    copy_of("nano-small", &folder.join("whole"));
    let whole = stdout_of(&generate(&folder, "whole", &[]));
    let mut complaints = Vec::new();
    for (name, change) in HARMLESS {
        copy_of("nano-small", &folder.join(name));
        change(&folder.join(name));
        let output = generate(&folder, name, &[]);
        let warned = stderr_of(&output).contains("warning");
        if String::from_utf8_lossy(&output.stdout) != whole || warned {
            complaints.push(format!("{name}: {output:?}"));
        }
        let inspected = offshoot(&folder, &["inspect", name], "");
        if !inspected.status.success() {
            complaints.push(format!("{name}: {}", stderr_of(&inspected)));
        }
    }
    report(&complaints);
}

/// A head that the config denies is used, and said to be; memory, layout and what `quantize` writes
/// agree with that.
#[test]
fn a_head_of_its_own_is_used() {
    let folder = scratch("odd-head");
    for (name, tied) in [("tied", true), ("untied", false)] {
        copy_of("nano-small", &folder.join(name));
        // Every row of the embedding in the place of the one before.
        add_head(&folder.join(name), |head| head.rotate_left(64 * 10));
        set(
            &folder.join(name),
            CONFIG,
            "tie_word_embeddings",
            json!(tied),
        );
    }
    let [tied, untied] = ["tied", "untied"].map(|name| generate(&folder, name, &[]));
    assert_eq!(json_of(&tied), json_of(&untied));
    assert_ne!(
        json_of(&tied),
        json_of(&generate(&folder, "nano-small", &[]))
    );
    let (warning, silence) = (stderr_of(&tied), stderr_of(&untied));
    let says = [
        "warning: tied/config.json: ",
        "`tie_word_embeddings` is true",
        HEAD,
    ];
    assert!(says.iter().all(|text| warning.contains(text)), "{warning}");
    assert!(!silence.contains("warning"), "{silence}");
    let inspect = |name: &str| json_of(&offshoot(&folder, &["inspect", "--json", name], ""));
    let (tied, untied) = (inspect("tied"), inspect("untied"));
    assert_eq!(tied["tied_embeddings"], json!(false));
    assert_eq!(tied["parameters"], untied["parameters"]);
    assert_eq!(tied["warnings"].as_array().map(Vec::len), Some(1), "{tied}");

    let quantized = ["tied", "untied"].map(|name| {
        let to = format!("{name}-8");
        stdout_of(&offshoot(&folder, &["quantize", name, &to], ""));
        json_of(&generate(&folder, &to, &[]))
    });
    assert_eq!(quantized[0], quantized[1]);
}

#[test]
fn a_text_ends_at_the_tokenizers_eos() {
    let folder = scratch("odd-eos");
    let ended = json_of(&generate(&folder, "nano-small", &[]));
    assert_eq!(ended["finish_reason"], json!("stop"), "{ended}");
    copy_of("nano-small", &folder.join("eos"));
    set(&folder.join("eos"), CONFIG, "eos_token_id", json!(null));
    fs::remove_file(folder.join("eos").join(GENERATION)).expect("the copy is writable");
    assert_eq!(json_of(&generate(&folder, "eos", &[])), ended);
    let inspected = stdout_of(&offshoot(&folder, &["inspect", "eos"], ""));
    assert!(inspected.contains("ends at its eos token"), "{inspected}");
    // Named nowhere, it ends nothing.
    set(&folder.join("eos"), TOKENIZER, "eos_token", json!(null));
    let endless = json_of(&generate(&folder, "eos", &["--max-tokens", "100"]));
    assert_eq!(endless["finish_reason"], json!("length"));
    let inspected = stdout_of(&offshoot(&folder, &["inspect", "eos"], ""));
    assert!(inspected.contains("it names no eos token"), "{inspected}");
}

/// The sentence of the prompt goes where the template takes it; a template that takes nothing is
/// refused once, before anything starts.
#[test]
fn templates_without_a_system_role() {
    const LOOP: &str =
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}";
    let folder = scratch("odd-system");
    let with_template = |name: &str, template: String| {
        copy_of("nano-small", &folder.join(name));
        set(
            &folder.join(name),
            TOKENIZER,
            "chat_template",
            json!(template),
        );
    };
    let refuse = "{% if messages[0]['role'] == 'system' %}\
                  {{ raise_exception('System role not supported') }}{% endif %}";
    with_template("refuses", format!("{refuse}{LOOP}"));
    with_template("takes", LOOP.into());
    with_template("fails", "{{ raise_exception('only in verse') }}".into());
    let solve = |name: &str, more: &[&str]| {
        let arguments = [
            "solve",
            "--policy",
            name,
            "--strategy",
            "cot",
            "--limit",
            "3",
        ];
        let limits = ["--max-tokens", "8", "--threads=1", "--json"];
        offshoot(&folder, &[&arguments, &limits[..], more].concat(), "")
    };
    let solved = solve("refuses", &[]);
    assert_eq!(json_of(&solved)["failed"], json!(0));
    let note = stderr_of(&solved);
    let says = "warning: refuses: its chat template takes no system message, so the system prompt \
                goes into the user's message";
    assert_eq!(note.matches(says).count(), 1, "{note}");
    for (name, more) in [("refuses", &["--system", ""][..]), ("takes", &[])] {
        let output = solve(name, more);
        assert_eq!(json_of(&output)["failed"], json!(0));
        assert!(
            !stderr_of(&output).contains("warning"),
            "{}",
            stderr_of(&output)
        );
    }
    let failed = solve("fails", &[]);
    let said = stderr_of(&failed);
    assert_eq!(failed.status.code(), Some(2), "{said}");
    assert_eq!(said.matches("only in verse").count(), 1, "{said}");
    assert!(said.contains("error: --policy fails: "), "{said}");
    // It can continue a text all the same.
    let raw = [
        "generate",
        "--raw",
        "--model",
        "fails",
        "--max-tokens",
        "4",
        "1 + 1",
    ];
    stdout_of(&offshoot(&folder, &raw, ""));
    for (name, role, says) in [
        ("refuses", "policy", "takes no system message, so"),
        (
            "fails",
            "policy",
            "no: its chat template fails on a problem: ",
        ),
        (
            "nano-small",
            "policy",
            "its chat template leaves system messages out",
        ),
    ] {
        let text = stdout_of(&offshoot(&folder, &["inspect", name], ""));
        let line = text.lines().find(|line| line.starts_with(role));
        assert!(line.is_some_and(|line| line.contains(says)), "{text}");
    }
}
