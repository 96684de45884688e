//! `offshoot bench` on the nano models: every measurement runs, leaves its files, and refuses what
//! it cannot measure. Times are only checked to be there.

use std::path::Path;

use crate::common::{json_of, offshoot, scratch, stdout_of};
use serde_json::Value;

/// Runs `offshoot bench` with these words, once with `--json` and once for its table and files.
fn measured(folder: &Path, words: &str, files: &[&str]) -> Value {
    let call = |more: &str| {
        let all = format!("bench {words} {more}");
        let arguments: Vec<&str> = all.split_whitespace().collect();
        offshoot(folder, &arguments, "")
    };
    let report = json_of(&call("--json"));
    let table = stdout_of(&call("--out results/new"));
    assert!(
        table.contains("GFLOP/s") && table.contains("Limits with 1 thread: "),
        "{table}"
    );
    for file in files {
        let text = std::fs::read_to_string(folder.join("results/new").join(file));
        let text = text.unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(!text.contains("NaN"), "{file}");
        let whole = if file.ends_with(".svg") {
            text.starts_with("<svg") && text.contains("</svg>")
        } else {
            text.contains("bench")
        };
        assert!(whole, "{file}");
    }
    for part in ["host", "limits", "settings", "command", "date"] {
        assert!(!report[part].is_null(), "no {part} in {report}");
    }
    assert!(report["limits"][0]["fma_peak"]["median"].as_f64() > Some(0.0));
    report
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} of {value}"))
}

#[test]
fn throughput_of_a_policy() {
    let folder = scratch("bench-throughput");
    let report = measured(
        &folder,
        "throughput nano-small --prompt 32,64 --branches 1,4 --generate 6 --repeat 2 --threads 1 \
         --kv-memory 16 --device cpu",
        &[
            "throughput.json",
            "throughput.md",
            "throughput-prefill.svg",
            "throughput-decode.svg",
        ],
    );
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(4));
    let row = &report["rows"][3];
    assert_eq!((&row["prompt"], &row["branches"]), (&64.into(), &4.into()));
    assert_eq!(number(row, "/prefill/tokens"), 64.0);
    assert_eq!(number(row, "/decode/tokens"), 24.0);
    assert_eq!(number(row, "/decode/seconds/runs"), 2.0);
    assert!(number(row, "/decode/tokens_per_second/median") > 0.0);
    assert!(number(row, "/kv_bytes") < number(row, "/kv_unshared_bytes"));
    assert!(number(&report, "/settings/first_token_seconds") > 0.0);
}

#[test]
fn throughput_of_a_shape_and_of_both_models() {
    let folder = scratch("bench-roles");
    let report = measured(
        &folder,
        "throughput --shape nano --role prm --prompt 32 --branches 3 --generate 8 --step-tokens 4 \
         --unshared --repeat 1 --warm-up 0 --threads 1 --kv-memory 16 --device cpu",
        &["throughput-score.svg"],
    );
    assert_eq!(number(&report, "/rows/0/score/tokens"), 3.0 * 40.0);
    let report = measured(
        &folder,
        "throughput nano-small --prm nano-prm --role both --prompt 32 --branches 3 --generate 8 \
         --step-tokens 4 --repeat 1 --warm-up 0 --threads 1 --kv-memory 16 --device cpu",
        &["throughput-search.svg"],
    );
    assert_eq!(number(&report, "/rows/0/search/tokens"), 32.0 + 2.0 * 24.0);
}

#[test]
fn linear_layers_and_attention() {
    let folder = scratch("bench-kernels");
    let report = measured(
        &folder,
        "linear --shape nano --layer gate-up --rows 1,4 --weights bf16,int8 --threads 1 --repeat 1",
        &[
            "linear.json",
            "linear.md",
            "linear-fma-1.svg",
            "linear-read-1.svg",
        ],
    );
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(4));
    assert!(number(&report, "/rows/0/achieved/bytes_per_second") > 0.0);
    let report = measured(
        &folder,
        "attention --shape nano --prompt 64 --branches 4 --own 16 --threads 1 --repeat 1",
        &["attention.json", "attention.md", "attention-rows-1.svg"],
    );
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(2 * 4 + 5));
}

#[test]
fn a_whole_search() {
    let folder = scratch("bench-search");
    let report = measured(
        &folder,
        "search --limit 2 --n 4 --repeat 1 --warm-up 0 --threads 1 --kv-memory 64 --device cpu",
        &["search.json", "search.md", "search-time.svg"],
    );
    // Both models read prompts and steps; only the policy decodes every row.
    let rows = report["rows"].as_array().expect("rows");
    let has = |model: &str, phase: &str| {
        rows.iter()
            .any(|row| row["model"] == model && row["phase"] == phase)
    };
    assert!(
        has("nano-small", "prefill") && has("nano-small", "decode"),
        "{rows:?}"
    );
    assert!(has("nano-prm", "prefill"), "{rows:?}");
    assert_eq!(number(&report, "/settings/problems"), 2.0);
    assert!(number(&report, "/settings/models/0/tokens_generated") > 0.0);
    let within: f64 = rows.iter().map(|row| number(row, "/seconds/median")).sum();
    assert!(within <= number(&report, "/settings/seconds/median"));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = scratch("bench-refused");
    std::fs::write(folder.join("a-file"), "").expect("a file");
    for (words, says) in [
        ("throughput", "<MODEL|--shape <SHAPE>>"),
        ("throughput nano-small --shape nano", "--shape"),
        ("throughput --shape gpt-5", "expected one of nano, "),
        (
            "throughput ./nowhere",
            "MODEL is ./nowhere (no such directory)",
        ),
        (
            "throughput nano-prm",
            "nano-prm: a reward model cannot write, expected --role prm",
        ),
        (
            "throughput nano-small --prm nano-prm",
            "--prm: expected --role both",
        ),
        (
            "throughput nano-small --temperature=-1",
            "--temperature -1: expected",
        ),
        ("throughput nano-small --branches 0", "--branches"),
        (
            "throughput nano-small --without graphs --device cpu",
            "--without: expected a GPU",
        ),
        (
            "throughput nano-small --prompt 600",
            "--prompt 600 and --generate 64: 666 tokens",
        ),
        (
            "throughput nano-small --kv-memory 1 --prompt 64 --branches 4096",
            "--kv-memory: ",
        ),
        (
            "linear --weights int3",
            "expected one of bf16, f32, f16, int8, int4",
        ),
        (
            "linear --layer gate",
            "--layer gate: expected one of qkv, output, gate-up, down, head",
        ),
        ("attention --kv int2", "expected one of bf16, f32, f16"),
        ("search --n 6", "--n is 6"),
        (
            "linear --shape nano --layer down --rows 1 --threads 1 --repeat 1 --out a-file",
            "--out a-file: ",
        ),
    ] {
        let all = format!("bench {words}");
        let arguments: Vec<&str> = all.split_whitespace().collect();
        let output = offshoot(&folder, &arguments, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {errors}");
        assert!(errors.contains(says), "{words}: {errors}");
        assert!(!errors.contains("panicked"), "{words}: {errors}");
    }
}
