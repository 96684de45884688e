//! The binary as a user meets it: good calls print what the README promises, bad ones end in one
//! clear sentence and exit code 2.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{
    embedded, finish, heldout, json_of, offshoot, open, pair, report, repository, scratch,
    stdout_of,
};
use engine::Options;
use serde_json::{Value, json};
use strategies::Prm;

/// A call that cannot work.
struct Bad<'a> {
    arguments: &'a [&'a str],
    input: &'a str,
    /// What its first sentence must name.
    says: &'a [&'a str],
    /// Lines on stderr; `None` where clap adds its hints.
    lines: Option<usize>,
}

fn bad<'a>(arguments: &'a [&'a str], says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        arguments,
        input: "",
        says,
        lines: Some(1),
    }
}

/// A call that clap refuses.
fn usage<'a>(arguments: &'a [&'a str], says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        lines: None,
        ..bad(arguments, says)
    }
}

/// What is wrong with how a bad call ended, if anything.
fn complaint(output: &Output, says: &[&str], lines: Option<usize>) -> Option<String> {
    // A slow machine sees lines of progress before the end.
    let all = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = (all.lines().filter(|line| !line.contains(" problems, "))).collect();
    let first = said.first().copied().unwrap_or_default();
    let stderr = said.join("\n");
    let what = if output.status.code() != Some(2) {
        format!("{}, exit code 2 expected", output.status)
    } else if stderr.contains("panicked") {
        "it panicked".into()
    } else if !first.starts_with("error: ") {
        "no sentence".into()
    } else if let Some(missing) = says.iter().find(|s| !stderr.contains(**s)) {
        format!("{missing:?} is not named")
    } else if lines.is_some_and(|lines| stderr.lines().count() != lines) {
        format!("{lines:?} lines expected")
    } else {
        return None;
    };
    Some(format!("{what}: {stderr:?}"))
}

fn check(folder: &Path, cases: &[Bad<'_>]) {
    let mut complaints = Vec::new();
    for case in cases {
        let output = offshoot(folder, case.arguments, case.input);
        if let Some(what) = complaint(&output, case.says, case.lines) {
            complaints.push(format!("{:?}: {what}", case.arguments));
        }
    }
    report(&complaints);
}

#[test]
fn flags_that_cannot_be_honoured_are_named() {
    let folder = scratch("flags");
    fs::write(folder.join("empty.txt"), "\n\n \n").expect("a file is written");
    fs::write(folder.join("binary.txt"), b"\xff\xfe\n\n\x80").expect("a file is written");
    fs::write(folder.join("empty.jsonl"), "").expect("a file is written");
    fs::write(folder.join("notes.txt"), "hello\n").expect("a file is written");
    let long = "A crew has 12 stamps. ".repeat(200);
    let (solve_long, generate_long) = (["solve", &long], ["generate", &long]);
    let score_long = ["score", "--problem", &long, "--steps", "-"];
    let tiny = ["--kv-memory", "0.002", "--limit", "1", "--n", "4"];
    let tiny: Vec<&str> = ["solve"].into_iter().chain(tiny).collect();
    let per_problem = |arguments, says| Bad {
        lines: Some(2), // the problem's sentence, and that it has no result
        ..bad(arguments, says)
    };
    let cases = [
        // The search.
        bad(&["solve", "--n", "6"], &["--n 6", "--beam-width 4"]),
        bad(&["solve", "--n", "0"], &["--n", "0"]),
        bad(&["solve", "--beam-width", "0"], &["--beam-width", "0"]),
        bad(&["solve", "--strategy", "dvts", "--n", "5"], &["--n 5"]),
        bad(&["solve", "--strategy", "cot", "--n", "2"], &["--n", "2"]),
        bad(
            &["solve", "--strategy", "majority", "--lookahead", "1"],
            &["--lookahead"],
        ),
        bad(
            &["solve", "--strategy", "majority", "--verdict", "last-max"],
            &["--verdict last-max"],
        ),
        bad(&["solve", "--max-steps", "0"], &["--max-steps"]),
        bad(&["solve", "--step-tokens", "0"], &["--step-tokens"]),
        bad(&["solve", "--total-tokens", "0"], &["--total-tokens"]),
        bad(&["solve", "--tries", "0"], &["--tries"]),
        bad(&["solve", "--delimiter", ""], &["--delimiter"]),
        bad(&["solve", "--temperature", "-1"], &["--temperature", "-1"]),
        bad(
            &["solve", "--temperature", "nan"],
            &["--temperature", "NaN"],
        ),
        bad(&["solve", "--top-p", "0"], &["--top-p"]),
        bad(&["solve", "--top-p", "1.5"], &["--top-p", "1.5"]),
        bad(&["solve", "--min-p", "2"], &["--min-p", "2"]),
        bad(
            &["solve", "--repetition-penalty", "0"],
            &["--repetition-penalty"],
        ),
        usage(
            &["solve", "--strategy", "magic"],
            &["--strategy", "magic", "best-of-n"],
        ),
        usage(
            &["solve", "--beam-mode", "wide"],
            &["--beam-mode", "search-and-learn"],
        ),
        usage(
            &["solve", "--value", "median"],
            &["--value", "median", "product"],
        ),
        usage(&["solve", "--verdict", "best"], &["--verdict", "best"]),
        usage(&["solve", "--n", "many"], &["--n", "many"]),
        usage(&["solve", "--n", "-4"], &["-4"]),
        usage(&["solve", "--concurrency", "0"], &["--concurrency", "0"]),
        usage(&["solve", "--problems", "x.jsonl", "text"], &["--problems"]),
        usage(&["solve", "--no-such-flag"], &["--no-such-flag"]),
        usage(&["dissolve"], &["dissolve"]),
        // The device.
        bad(
            &["solve", "--limit", "1", "--kv-memory", "0"],
            &["--kv-memory 0"],
        ),
        bad(
            &["solve", "--limit", "1", "--kv-memory", "-3"],
            &["--kv-memory -3"],
        ),
        bad(
            &["solve", "--limit", "1", "--kv-memory", "nan"],
            &["--kv-memory NaN"],
        ),
        per_problem(
            &tiny,
            &[
                "problem heldout/",
                "--kv-memory",
                "too small for one branch",
            ],
        ),
        per_problem(
            &["solve", "--limit", "1", "--kv-memory", "0.0001"],
            &["--kv-memory"],
        ),
        usage(&["solve", "--block-tokens", "0"], &["--block-tokens", "0"]),
        usage(&["solve", "--max-rows", "0"], &["--max-rows", "0"]),
        usage(&["solve", "--kv-dtype", "int2"], &["--kv-dtype", "int2"]),
        // Problems and prompts.
        bad(&["solve", ""], &["problem is empty"]),
        bad(&["solve", " \n\t"], &["problem is empty"]),
        bad(&["solve", "-"], &["problem is empty"]),
        per_problem(&solve_long, &["problem 1", "context of 512"]),
        bad(
            &["solve", "--problems", "none.jsonl"],
            &["--problems none.jsonl"],
        ),
        bad(&["solve", "--problems", "."], &["--problems ."]),
        bad(
            &["solve", "--problems", "empty.jsonl"],
            &["--problems empty.jsonl", "no problem"],
        ),
        bad(&generate_long, &["context of 512"]),
        bad(&["generate", "--raw", ""], &["prompt has no tokens"]),
        bad(
            &["generate", "--model", "nano-prm", "x"],
            &["--model nano-prm", "cannot write"],
        ),
        bad(
            &["generate", "--temperature", "-1", "x"],
            &["--temperature"],
        ),
        usage(&["generate"], &["PROMPT"]),
        usage(
            &["generate", "--max-tokens", "0", "x"],
            &["--max-tokens", "0"],
        ),
        usage(
            &["generate", "--raw", "--system", "s", "x"],
            &["--raw", "--system"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "none.txt"],
            &["--steps none.txt"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "empty.txt"],
            &["--steps empty.txt", "no step"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "binary.txt"],
            &["--steps binary.txt", "UTF-8"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "-"],
            &["--steps -", "no step"],
        ),
        Bad {
            input: "Step 1: 1 + 1 = 2.",
            ..bad(&score_long, &["context of 512"])
        },
        // Models in the wrong part.
        bad(
            &["solve", "--policy", "nano-prm"],
            &["--policy nano-prm", "cannot write"],
        ),
        bad(
            &["solve", "--prm", "nano-big"],
            &["--prm nano-big", "no reward head"],
        ),
        bad(
            &[
                "score",
                "--prm",
                "nano-small",
                "--problem",
                "x",
                "--steps",
                "notes.txt",
            ],
            &["--prm nano-small", "no reward head"],
        ),
        bad(
            &["solve", "--policy", "nano-smal"],
            &["--policy nano-smal", "nano-small"],
        ),
        bad(&["solve", "--prm", "no/where"], &["--prm no/where"]),
        bad(&["inspect", "no/where"], &["no/where"]),
        bad(&["inspect", "notes.txt"], &["notes.txt"]),
        // Results.
        bad(&["show", "none.jsonl", "1"], &["none.jsonl"]),
        bad(
            &["show", "notes.txt", "1"],
            &["notes.txt line 1", "not a result"],
        ),
        bad(&["show", "empty.jsonl", "1"], &["empty.jsonl", "\"1\""]),
        bad(
            &["solve", "--limit", "1", "--out", "notes.txt"],
            &["notes.txt line 1", "not a result"],
        ),
        bad(
            &["solve", "--limit", "1", "--out", "no/where.jsonl"],
            &["--out no/where.jsonl"],
        ),
        bad(&["solve", "--limit", "1", "--out", "."], &["--out ."]),
        bad(&["man", "dissolve"], &["dissolve"]),
        usage(&["completions", "tcl"], &["tcl"]),
    ];
    check(&folder, &cases);
    let notes = fs::read_to_string(folder.join("notes.txt")).expect("it is still there");
    assert_eq!(
        notes, "hello\n",
        "--out touched a file that is no results file"
    );
}

/// A copy of nano-small with one thing broken.
struct Broken {
    name: &'static str,
    break_it: fn(&Path),
    says: &'static [&'static str],
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).expect("a file of the copy");
    let changed = change(text.clone());
    assert_ne!(text, changed, "{file} was not changed");
    fs::write(path, changed).expect("the copy is writable");
}

/// Changes the weight file's bytes; its header starts at byte 8.
fn edit_weights(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("the copy has weights");
    change(&mut bytes);
    fs::write(path, bytes).expect("the copy is writable");
}

/// Puts `new` for the first `old` of the weight file's header; both are of one length.
fn edit_header(folder: &Path, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    edit_weights(folder, |bytes| {
        let at = (bytes.windows(old.len()))
            .position(|window| window == old.as_bytes())
            .unwrap_or_else(|| panic!("{old} is in the header"));
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    });
}

fn edit_json(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    edit(folder, file, |text| {
        let mut value: Value = serde_json::from_str(&text).expect("the copy's JSON");
        change(&mut value);
        value.to_string()
    });
}

const BROKEN: [Broken; 24] = [
    Broken {
        name: "empty",
        break_it: |d| {
            for entry in fs::read_dir(d).expect("the copy") {
                fs::remove_file(entry.expect("an entry").path()).expect("the copy is writable");
            }
        },
        says: &["config.json"],
    },
    Broken {
        name: "config-cut",
        break_it: |d| edit(d, "config.json", |t| t[..t.len() / 2].into()),
        says: &["config.json", "JSON"],
    },
    Broken {
        name: "config-directory",
        break_it: |d| {
            fs::remove_file(d.join("config.json")).expect("the copy is writable");
            fs::create_dir(d.join("config.json")).expect("the copy is writable");
        },
        says: &["config.json"],
    },
    Broken {
        name: "config-loop",
        break_it: |d| {
            fs::remove_file(d.join("config.json")).expect("the copy is writable");
            std::os::unix::fs::symlink("config.json", d.join("config.json")).expect("a link");
        },
        says: &["config.json"],
    },
    Broken {
        name: "architecture",
        break_it: |d| edit(d, "config.json", |t| t.replace("LlamaFor", "MambaFor")),
        says: &["config.json", "MambaForCausalLM", "LlamaForCausalLM"],
    },
    Broken {
        name: "no-layers",
        break_it: |d| edit_json(d, "config.json", |c| c["num_hidden_layers"] = json!(-1)),
        says: &["config.json", "num_hidden_layers", "-1"],
    },
    Broken {
        name: "more-layers",
        break_it: |d| edit_json(d, "config.json", |c| c["num_hidden_layers"] = json!(4)),
        says: &["model.layers.3", "missing", "model.safetensors"],
    },
    Broken {
        name: "wider",
        break_it: |d| edit_json(d, "config.json", |c| c["intermediate_size"] = json!(65)),
        says: &["model.safetensors", "mlp", "[64, 32]", "[65, 32]"],
    },
    Broken {
        name: "no-weights",
        break_it: |d| fs::remove_file(d.join("model.safetensors")).expect("the copy is writable"),
        says: &["safetensors"],
    },
    Broken {
        name: "weights-empty",
        break_it: |d| edit_weights(d, Vec::clear),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut",
        break_it: |d| edit_weights(d, |b| b.truncate(b.len() / 2)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut-by-one",
        break_it: |d| edit_weights(d, |b| b.truncate(b.len() - 1)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut-in-the-header",
        break_it: |d| edit_weights(d, |b| b.truncate(100)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-beyond-the-file",
        break_it: |d| edit_weights(d, |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-not-json",
        break_it: |d| edit_weights(d, |b| b[8] = b'!'),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-lies-about-a-shape",
        break_it: |d| edit_header(d, "\"shape\":[480,32]", "\"shape\":[480,33]"),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-lies-about-an-offset",
        break_it: |d| edit_header(d, "\"data_offsets\":[0,", "\"data_offsets\":[9,"),
        says: &["model.safetensors"],
    },
    Broken {
        name: "dtype",
        break_it: |d| edit_header(d, "\"BF16\"", "\"I16\" "),
        says: &["model.safetensors", "I16", "BF16"],
    },
    Broken {
        name: "tensor-renamed",
        break_it: |d| edit_header(d, "model.norm.weight", "model.Norm.weight"),
        says: &["model.norm.weight", "missing", "model.safetensors"],
    },
    Broken {
        name: "no-tokenizer",
        break_it: |d| fs::remove_file(d.join("tokenizer.json")).expect("the copy is writable"),
        says: &["tokenizer.json"],
    },
    Broken {
        name: "tokenizer-cut",
        break_it: |d| edit(d, "tokenizer.json", |t| t[..t.len() / 2].into()),
        says: &["tokenizer.json"],
    },
    Broken {
        name: "tokenizer-of-another",
        break_it: |d| {
            edit_json(d, "tokenizer.json", |t| {
                let mut token = t["added_tokens"][3].clone();
                token["id"] = json!(1234);
                token["content"] = json!("<beyond>");
                let tokens = t["added_tokens"].as_array_mut().expect("a list");
                tokens.push(token);
                // The tokenizer crate numbers added tokens itself; a word cannot be argued with.
                t["model"]["vocab"]["<beyond>"] = json!(1234);
            });
        },
        says: &["tokenizer.json", "<beyond>", "1234", "480"],
    },
    Broken {
        name: "template-syntax",
        break_it: |d| {
            edit_json(d, "tokenizer_config.json", |c| {
                c["chat_template"] = json!("{% for message in %}{{ message }}");
            });
        },
        says: &["tokenizer_config.json", "line 1"],
    },
    Broken {
        name: "template-refuses",
        break_it: |d| {
            edit_json(d, "tokenizer_config.json", |c| {
                c["chat_template"] = json!("{{ raise_exception('only in verse') }}");
            });
        },
        says: &["only in verse"],
    },
];

fn copy_of(word: &str, folder: &Path) {
    fs::create_dir(folder).expect("a folder in the scratch folder");
    for entry in fs::read_dir(embedded(word)).expect("an embedded model") {
        let from = entry.expect("a readable entry").path();
        let name = from.file_name().expect("a file has a name");
        fs::copy(&from, folder.join(name)).expect("the scratch folder is writable");
    }
}

#[test]
fn broken_models_are_refused_by_name() {
    let folder = scratch("broken");
    let mut complaints = Vec::new();
    copy_of("nano-small", &folder.join("whole"));
    stdout_of(&offshoot(&folder, &["inspect", "whole"], ""));
    for Broken {
        name,
        break_it,
        says,
    } in BROKEN
    {
        copy_of("nano-small", &folder.join(name));
        break_it(&folder.join(name));
        // A template that refuses is a fault of its messages: inspect shows none. And it describes
        // a model without weights as far as the config goes.
        let described = ["template-refuses", "no-weights"].contains(&name);
        let generate = ["generate", "--model", name, "1 + 1"];
        let inspect = ["inspect", name];
        let calls: [&[&str]; 2] = [&generate, &inspect];
        for arguments in &calls[..2 - usize::from(described)] {
            let output = offshoot(&folder, arguments, "");
            if let Some(what) = complaint(&output, says, Some(1)) {
                complaints.push(format!("{name}, {}: {what}", arguments[0]));
            }
        }
    }

    // A pipe in place of the weights must not be waited for.
    copy_of("nano-small", &folder.join("pipe"));
    let pipe = folder.join("pipe/model.safetensors");
    fs::remove_file(&pipe).expect("the copy is writable");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let output = offshoot(&folder, &["inspect", "pipe"], "");
    if let Some(what) = complaint(&output, &["model.safetensors"], Some(1)) {
        complaints.push(format!("pipe: {what}"));
    }
    report(&complaints);
}

/// Permissions do not bind root, so a test run by root becomes somebody else for the call. The
/// binary is copied to where anybody may run it.
#[test]
fn an_unreadable_model_is_refused() {
    let folder = std::env::temp_dir().join(format!("offshoot-unreadable-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder for temporary files");
    let binary = folder.join("offshoot");
    fs::copy(env!("CARGO_BIN_EXE_offshoot"), &binary).expect("the binary is copied");
    let root = fs::metadata(&folder).expect("the folder").uid() == 0;
    let everyone = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
    };
    everyone(&folder, 0o755);
    everyone(&binary, 0o755);

    let call = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir(&folder).args(arguments);
        if root {
            command.uid(65534).gid(65534);
        }
        finish(&mut command, "")
    };
    let mut complaints = Vec::new();
    let closed: [(&str, &str); 3] = [
        ("directory", "."),
        ("config", "config.json"),
        ("weights", "model.safetensors"),
    ];
    for (name, what) in closed {
        copy_of("nano-small", &folder.join(name));
        everyone(&folder.join(name).join(what), 0o000);
        let output = call(&["generate", "--model", name, "1 + 1"]);
        everyone(&folder.join(name).join(what), 0o755);
        let says = [name, "ermission denied"];
        if let Some(what) = complaint(&output, &says, Some(1)) {
            complaints.push(format!("{name}: {what}"));
        }
    }
    fs::remove_dir_all(&folder).expect("our own folder");
    report(&complaints);
}

/// The cheapest search there is.
const CHEAP: [&str; 3] = ["solve", "--n", "4"];

fn cheap<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CHEAP.iter().chain(more).copied().collect()
}

#[test]
fn malformed_problems_lose_only_themselves() {
    let folder = scratch("problems");
    let lines: [&[u8]; 9] = [
        br#"{"problem": "A crew has 5 books. Then 2 more come in. How many books are left?", "answer": "7"}"#,
        br#"{"problem": "cut"#,
        br#"{"problem": "A crew has 6 books. Then 2 more come in. How many books are left?", "answer": 8}"#,
        br#"["problem"]"#,
        b"",
        br#"{"answer": "3"}"#,
        b"{\"problem\": \"\xe9\"}",
        br#"{"problem": "  "}"#,
        br#"{"id": "1", "problem": "The id of the first line."}"#,
    ];
    fs::write(folder.join("problems.jsonl"), lines.join(&b'\n')).expect("a file is written");
    let bad_lines = [
        "line 2:", "line 4:", "line 6:", "line 7:", "line 8:", "line 9:",
    ];

    let flags = [
        "--problems",
        "problems.jsonl",
        "--json",
        "--out",
        "out.jsonl",
    ];
    let output = offshoot(&folder, &cheap(&flags), "");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(complaint(&output, &bad_lines, None), None);
    assert!(stderr.contains("6 problems have no result"), "{stderr}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the others are summed up");
    assert_eq!(summary["problems"], 2);
    let out = fs::read_to_string(folder.join("out.jsonl")).expect("the others are written");
    assert_eq!(out.lines().count(), 2);

    let output = offshoot(&folder, &cheap(&[&flags[..3], &["--strict"]].concat()), "");
    assert_eq!(
        complaint(&output, &["problems.jsonl line 2:"], Some(1)),
        None
    );
    assert!(output.stdout.is_empty(), "--strict solves nothing");
}

#[test]
fn a_results_file_is_never_mixed_or_lost() {
    let folder = scratch("results");
    let solve = |more: &[&str]| {
        let flags = ["--limit", "2", "--out", "r.jsonl"];
        offshoot(&folder, &cheap(&[&flags, more].concat()), "")
    };
    let bytes = || fs::read(folder.join("r.jsonl")).expect("the results are there");
    stdout_of(&solve(&[]));
    let before = bytes();

    let mut complaints = Vec::new();
    for (more, says) in [
        (vec!["--seed", "1"], "seed 0 in the file, 1 now"),
        (vec!["--beam-width", "2"], "beam_width 4 in the file, 2 now"),
        (
            vec!["--strategy", "dvts"],
            "strategy \"beam\" in the file, \"dvts\" now",
        ),
        (vec!["--temperature", "1"], "temperature"),
        (
            vec!["--policy", "nano-big"],
            "policy \"nano-small\" in the file, \"nano-big\" now",
        ),
        (vec!["--system", "Be brief."], "system"),
        (
            vec!["--kv-dtype", "f32"],
            "kv_dtype null in the file, \"f32\" now",
        ),
        (vec!["--trees"], "without --trees"),
    ] {
        let what = complaint(&solve(&more), &["--out r.jsonl line 1", says], Some(1));
        complaints.extend(what.map(|what| format!("{more:?}: {what}")));
        if bytes() != before {
            complaints.push(format!("{more:?}: the file was touched"));
        }
    }
    report(&complaints);

    // What does not change a result may differ; nothing is solved again.
    let summary = json_of(&solve(&["--json", "--threads", "1", "--block-tokens", "4"]));
    assert_eq!(summary["problems"], 2);
    assert_eq!(summary["policy"]["tokens_generated"], 0);
    assert_eq!(bytes(), before);
}

/// A lone problem is always called 1: the file must not take one for the other.
#[test]
fn one_problem_is_not_another() {
    let folder = scratch("one-problem");
    let solve = |problem| offshoot(&folder, &cheap(&[problem, "--out", "r.jsonl"]), "");
    let [one, two] = ["5", "6"]
        .map(|n| format!("A crew has {n} books. Then 2 more come in. How many books are left?"));
    let first = stdout_of(&solve(&one));
    let before = fs::read(folder.join("r.jsonl")).expect("the results are there");
    assert_eq!(stdout_of(&solve(&one)), first, "read back from the file");
    let says = ["--out r.jsonl line 1", "another problem"];
    assert_eq!(complaint(&solve(&two), &says, Some(1)), None);
    let after = fs::read(folder.join("r.jsonl")).expect("the results are there");
    assert!(before == after, "the file was touched");
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = scratch("full");
    let output = offshoot(&folder, &cheap(&["--limit", "2", "--out", "/dev/full"]), "");
    assert_eq!(
        complaint(&output, &["--out /dev/full", "No space left"], Some(1)),
        None
    );

    // A real file that may not grow beyond a few lines, then the same with room.
    let flags = ["--limit", "12", "--concurrency", "1", "--out"];
    let whole = cheap(&[&flags[..], &["whole.jsonl"]].concat());
    stdout_of(&offshoot(&folder, &whole, ""));
    let whole = fs::read(folder.join("whole.jsonl")).expect("the results are there");
    let blocks = whole.len() / 2 / 1024; // of 1,024 bytes, as bash counts
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let cut = cheap(&[&flags[..], &["cut.jsonl"]].concat());
    let mut limited = Command::new("bash");
    limited.current_dir(&folder).args(["-c", &script]);
    limited.arg(env!("CARGO_BIN_EXE_offshoot")).args(&cut);
    let output = finish(&mut limited, "");
    assert_eq!(
        complaint(&output, &["--out cut.jsonl", "too large"], Some(1)),
        None
    );
    let kept = fs::read(folder.join("cut.jsonl")).expect("the results are there");
    assert!(
        kept.len() <= blocks * 1024 && kept.contains(&b'\n'),
        "{} bytes",
        kept.len()
    );
    stdout_of(&offshoot(&folder, &cut, ""));
    let resumed = fs::read(folder.join("cut.jsonl")).expect("the results are there");
    assert!(resumed.starts_with(&kept) && resumed == whole);
}

/// The fields the README names, as paths.
const SUMMARY: [&str; 25] = [
    "problems",
    "correct",
    "accuracy",
    "strategy",
    "n",
    "seed",
    "grader",
    "policy/name",
    "policy/params",
    "policy/tokens_processed",
    "policy/tokens_reused",
    "policy/tokens_generated",
    "prm/name",
    "prm/params",
    "prm/tokens_processed",
    "prm/tokens_reused",
    "prm/tokens_generated",
    "kv/block_tokens",
    "kv/peak_blocks",
    "kv/peak_bytes",
    "kv/unshared_bytes",
    "flops/policy",
    "flops/prm",
    "seconds",
    "verdict",
];

const LINE: [&str; 13] = [
    "id",
    "problem",
    "level",
    "subject",
    "answer",
    "prediction",
    "correct",
    "strategy",
    "n",
    "seed",
    "verdicts",
    "tokens/policy",
    "tokens/prm",
];

fn missing<'a>(value: &Value, paths: &[&'a str]) -> Vec<&'a str> {
    let there = |path: &&&str| value.pointer(&format!("/{path}")).is_none();
    paths.iter().filter(there).copied().collect()
}

#[test]
fn solve_reports_every_field() {
    let folder = scratch("solve");
    let mut complaints = Vec::new();
    for (strategy, n, verdicts) in [
        ("cot", "1", 1),
        ("majority", "4", 1),
        ("best-of-n", "4", 9),
        ("beam", "4", 9),
        ("dvts", "4", 9),
    ] {
        let out = format!("{strategy}.jsonl");
        let flags = [
            "solve",
            "--strategy",
            strategy,
            "--n",
            n,
            "--limit",
            "3",
            "--json",
        ];
        let summary = json_of(&offshoot(
            &folder,
            &[&flags[..], &["--trees", "--out", &out]].concat(),
            "",
        ));
        let needs_prm = verdicts > 1;
        let wanted: Vec<&str> = SUMMARY
            .into_iter()
            .filter(|path| needs_prm || !path.starts_with("prm/"))
            .collect();
        complaints.extend(
            missing(&summary, &wanted)
                .iter()
                .map(|path| format!("{strategy}: the summary has no {path}")),
        );
        for (path, expected) in [
            ("/problems", json!(3)),
            ("/strategy", json!(strategy)),
            ("/seed", json!(0)),
            ("/kv/block_tokens", json!(16)),
            ("/policy/name", json!("nano-small")),
        ] {
            if summary.pointer(path) != Some(&expected) {
                complaints.push(format!("{strategy}: {path} is not {expected}: {summary}"));
            }
        }
        let number = |path: &str| summary.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let shared = number("/kv/peak_bytes") < number("/kv/unshared_bytes") || n == "1";
        if number("/flops/policy") == 0 || needs_prm == (number("/flops/prm") == 0) || !shared {
            complaints.push(format!("{strategy}: counts that cannot be: {summary}"));
        }

        let lines = fs::read_to_string(folder.join(&out)).expect("the results are there");
        let lines: Vec<Value> = (lines.lines())
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect();
        for line in &lines {
            let nodes = line.pointer("/tree/nodes").and_then(Value::as_array);
            let found = line["verdicts"].as_array().map(Vec::len);
            if !missing(line, &LINE).is_empty() || nodes.is_none_or(|n| n.len() < 2) {
                complaints.push(format!(
                    "{strategy}: a line lacks {:?}",
                    missing(line, &LINE)
                ));
            }
            if found != Some(verdicts) {
                complaints.push(format!(
                    "{strategy}: {found:?} verdicts, {verdicts} expected"
                ));
            }
        }
        let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
        let bundled = heldout();
        let expected: Vec<Value> = (bundled.lines().take(3))
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["unique_id"].clone())
            .collect();
        if ids != expected.iter().collect::<Vec<_>>() {
            complaints.push(format!("{strategy}: the first three problems are {ids:?}"));
        }
        let correct = lines.iter().filter(|line| line["correct"] == true).count();
        if summary["correct"] != correct {
            complaints.push(format!("{strategy}: {correct} lines are right: {summary}"));
        }
    }
    report(&complaints);
}

#[test]
fn one_problem_as_argument_or_on_standard_input() {
    let folder = scratch("argument");
    let problem = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let argument = stdout_of(&offshoot(&folder, &cheap(&[problem]), ""));
    let input = stdout_of(&offshoot(&folder, &cheap(&["-"]), &format!("{problem}\n")));
    assert_eq!(argument, input);
    assert!(argument.contains("Answer: "), "{argument}");
    let plain = stdout_of(&offshoot(
        &folder,
        &["solve", "--limit", "2", "--n", "4"],
        "",
    ));
    for word in ["level", "accuracy", "last-vote", "nano-small", "nano-prm"] {
        assert!(plain.contains(word), "no {word:?} in {plain}");
    }
}

#[test]
fn show_draws_a_tree() {
    let folder = scratch("show");
    let flags = ["--limit", "2", "--out", "r.jsonl"];
    stdout_of(&offshoot(
        &folder,
        &cheap(&[&flags[..], &["--trees"]].concat()),
        "",
    ));
    let flags = ["--limit", "1", "--out", "plain.jsonl"];
    stdout_of(&offshoot(&folder, &cheap(&flags), ""));

    let lines = fs::read_to_string(folder.join("r.jsonl")).expect("the results are there");
    for (number, line) in lines.lines().enumerate() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let id = line["id"].as_str().expect("an id");
        let nodes = line["tree"]["nodes"].as_array().expect("a tree");
        let number = (number + 1).to_string();
        let by_id = stdout_of(&offshoot(&folder, &["show", "r.jsonl", id, "--all"], ""));
        let by_number = stdout_of(&offshoot(
            &folder,
            &["show", "r.jsonl", &number, "--all"],
            "",
        ));
        assert_eq!(by_id, by_number);
        assert!(
            by_id.starts_with(line["problem"].as_str().expect("a text")),
            "{by_id}"
        );
        // One line for every step but the stem; the chosen path is marked from top to bottom.
        let drawn = |mark: &str| by_id.lines().filter(|l| l.contains(mark)).count();
        let steps = drawn("\u{2514} ") + drawn("\u{251c} ");
        assert_eq!(steps, nodes.len() - 1, "{by_id}");
        let chosen = nodes[1..].iter().filter(|n| n["chosen"] == true).count();
        assert_eq!(drawn("\u{2514} *") + drawn("\u{251c} *"), chosen, "{by_id}");
        assert!(chosen > 0, "{by_id}");
        let narrow = ["show", "r.jsonl", id, "--width", "50"];
        let narrow = stdout_of(&offshoot(&folder, &narrow, ""));
        let tree = narrow
            .lines()
            .filter(|l| l.contains(['\u{2514}', '\u{251c}']));
        assert!(tree.clone().count() > 0 && tree.clone().all(|l| l.chars().count() <= 50));
    }
    check(
        &folder,
        &[
            bad(&["show", "r.jsonl", "3"], &["r.jsonl", "\"3\""]),
            bad(&["show", "r.jsonl", "0"], &["r.jsonl", "\"0\""]),
            bad(&["show", "plain.jsonl", "1"], &["plain.jsonl", "--trees"]),
        ],
    );
}

#[test]
fn generate_streams_what_json_tells() {
    let folder = scratch("generate");
    let prompt = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let run = |more: &[&str]| offshoot(&folder, &[&["generate"], more].concat(), "");
    let whole = json_of(&run(&["--json", prompt]));
    let fields = [
        "prompt_tokens",
        "tokens",
        "text",
        "logprobs",
        "finish_reason",
    ];
    assert_eq!(missing(&whole, &fields), [""; 0]);
    let text = whole["text"].as_str().expect("a text");
    assert!(
        !text.is_empty() && whole["finish_reason"] == "stop",
        "{whole}"
    );
    assert_eq!(stdout_of(&run(&[prompt])), format!("{text}\n"), "streamed");
    assert_eq!(
        stdout_of(&offshoot(&folder, &["generate", "-"], prompt)),
        format!("{text}\n")
    );

    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let logprobs = whole["logprobs"].as_array().expect("a list");
    assert_eq!(
        logprobs.len(),
        count(&whole["tokens"]) + 1,
        "the end's own one too"
    );
    assert!(
        logprobs
            .iter()
            .all(|l| l.as_f64().is_some_and(|l| l <= 0.0)),
        "{whole}"
    );

    // The template adds tokens around the prompt, --raw does not.
    let parts = open("nano-small");
    let raw = json_of(&run(&["--json", "--raw", prompt]));
    let encoded = parts.tokenizer.encode(prompt, true).expect("plain text");
    assert_eq!(raw["prompt_tokens"], encoded.len());
    assert!(whole["prompt_tokens"].as_u64() > raw["prompt_tokens"].as_u64());

    // A stop text is no part of the text, wherever it falls in the tokens.
    for stop in ["=", "= ", "\\n\\n", &text[1..4], "\\boxed"] {
        let meant = stop.replace("\\n", "\n");
        let stopped = json_of(&run(&["--json", "--stop", stop, "--stop", "never", prompt]));
        let cut = text.find(&meant).expect("the stop text is in the text");
        assert_eq!(stopped["text"], text[..cut], "--stop {stop:?}");
        assert_eq!(stopped["finish_reason"], "stop");
    }
    let short = json_of(&run(&["--json", "--max-tokens", "3", prompt]));
    assert_eq!(count(&short["tokens"]), 3);
    assert_eq!(short["finish_reason"], "length");

    let drawn = |seed| stdout_of(&run(&["--temperature", "1.5", "--seed", seed, prompt]));
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn score_prints_what_the_library_scores() {
    let folder = scratch("score");
    let problem = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let steps = ["Step 1: 5 + 2 = 7.", "The answer is \\boxed{7}."];
    let expected = {
        let pair = pair(1, &Options::default());
        let scores = pair.engine.run(async {
            let mut branch = pair.prm.start(problem).await?;
            pair.prm.score(&mut branch, &steps).await
        });
        let scores = scores.expect("the engine runs").expect("two scores");
        (scores, pair.prm_model.usage().tokens_processed)
    };
    let text = format!("\n{}\r\n\r\n\n\n  {}\n", steps[0], steps[1]);
    fs::write(folder.join("steps.txt"), &text).expect("a file is written");
    for (file, input) in [("steps.txt", ""), ("-", text.as_str())] {
        let call = ["score", "--problem", problem, "--steps", file];
        let found = json_of(&offshoot(
            &folder,
            &[&call[..], &["--json"]].concat(),
            input,
        ));
        assert_eq!(found["tokens_processed"], expected.1);
        let scores = found["scores"].as_array().expect("a list");
        assert_eq!(scores.len(), 2);
        for (found, expected) in scores.iter().zip(&expected.0) {
            // Only what reading a decimal can lose.
            let found = found.as_f64().expect("a number");
            assert!((found - expected).abs() < 1e-15, "{found} and {expected}");
        }
        let plain = stdout_of(&offshoot(&folder, &call, input));
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines.len(), 2, "{plain}");
        for ((line, step), score) in lines.iter().zip(steps).zip(&expected.0) {
            assert_eq!(*line, format!("{score:.6}  {step}"));
        }
    }
}

#[test]
fn inspect_says_what_a_model_is() {
    let folder = scratch("inspect");
    for (word, writes) in [
        ("nano-small", true),
        ("nano-big", true),
        ("nano-prm", false),
    ] {
        let config = fs::read(embedded(word).join("config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("its JSON");
        let number = |name: &str| config[name].as_u64().unwrap_or_else(|| panic!("{name}"));
        let found = json_of(&offshoot(&folder, &["inspect", "--json", word], ""));
        let kv = 2
            * number("num_hidden_layers")
            * number("num_key_value_heads")
            * number("head_dim")
            * 2;
        for (field, expected) in [
            ("name", json!(word)),
            ("architecture", config["architectures"][0].clone()),
            ("parameters", json!(open(word).checkpoint.params())),
            ("context", config["max_position_embeddings"].clone()),
            ("kv_bytes_per_token", json!(kv)),
        ] {
            assert_eq!(found[field], expected, "{word}, {field}");
        }
        assert_eq!(found["policy"]["can"], writes, "{word}");
        assert_eq!(found["prm"]["can"], !writes, "{word}");
        // The same model from its directory.
        let path: PathBuf = repository("session/src/embedded").join(word);
        let path = path.to_str().expect("a path in UTF-8");
        let mut by_path = json_of(&offshoot(&folder, &["inspect", "--json", path], ""));
        assert_eq!(by_path["name"], path);
        for field in ["name", "files"] {
            by_path[field] = found[field].clone();
        }
        assert_eq!(by_path, found);
        let text = stdout_of(&offshoot(&folder, &["inspect", word], ""));
        assert!(
            text.contains(&format!("{kv} bytes of KV cache a token")),
            "{text}"
        );
    }
}

#[test]
fn completions_and_manual_pages() {
    let folder = scratch("completions");
    let commands = [
        "solve",
        "show",
        "generate",
        "score",
        "inspect",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = stdout_of(&offshoot(&folder, &["completions", shell], ""));
        for word in commands.iter().chain(&["beam-width"]) {
            assert!(
                script.contains(word),
                "{word} is not in the script for {shell}"
            );
        }
    }
    let page = stdout_of(&offshoot(&folder, &["man"], ""));
    assert!(page.contains(".TH offshoot 1"), "{page}");
    for command in commands {
        assert!(page.contains(command), "{command} is not in the page");
        let page = stdout_of(&offshoot(&folder, &["man", command], ""));
        assert!(
            page.contains(".SH NAME") && page.contains(command),
            "{page}"
        );
    }
    let page = stdout_of(&offshoot(&folder, &["man", "solve"], ""));
    assert!(page.contains("beam\\-width"), "{page}");
}

/// Whoever reads our output may stop reading.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = scratch("pipe");
    let script = "\"$0\" completions bash | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}";
    let mut bash = Command::new("bash");
    bash.current_dir(&folder).args(["-c", script]);
    let output = finish(bash.arg(env!("CARGO_BIN_EXE_offshoot")), "");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
