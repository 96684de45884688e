//! Files as people have them: problem files of other layouts, results behind links, folders that
//! cannot be finished.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::{cheap, complaint};
use crate::common::{finish, json_of, offshoot, report, scratch, stdout_of};

const PROBLEM: &str = "A crew has 5 books. Then 2 more come in. How many books are left?";

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).expect("a file is written");
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect("a text file")
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into()
        })
        .collect();
    names.sort();
    names
}

/// Solves a problem file by chain of thought.
fn cot(folder: &Path, problems: &str, out: &str) -> Output {
    let call = [
        "solve",
        "--problems",
        problems,
        "--strategy",
        "cot",
        "--json",
    ];
    offshoot(folder, &[&call[..], &["--out", out]].concat(), "")
}

/// Whatever the layout of a file, its problems are the same and none is lost.
#[test]
fn problem_files_of_every_layout() {
    let folder = scratch("layouts");
    let (context, question) = PROBLEM.split_at(PROBLEM.find(" How").expect("a question"));
    let question = question.trim();
    let one = format!(r#"{{"problem": "{PROBLEM}", "answer": "7", "level": "Hard"}}"#);
    let array = format!(
        "[\n  {{\n    \"question\": \"{PROBLEM}\",\n    \"final_answer\": [\n      \"7\"\n    ],\n    \"level\": null\n  }},\n  {{\"question\": \"{question}\", \"context\": \"{context}\", \"final_answer\": [\"7\"]}}\n]\n"
    );
    let split = format!("{context}\n{question}");
    for (name, text, problems) in [
        (
            "crlf.jsonl",
            format!("\u{feff}\r\n{one}\r\n\r\n"),
            vec![PROBLEM],
        ),
        ("array.json", array, vec![PROBLEM, &split]),
        (
            "body.jsonl",
            format!(r#"{{"Body": "{context}", "Question": "{question}", "Answer": 7.0}}"#),
            vec![PROBLEM],
        ),
        (
            "printed.json",
            format!("{{\n \"problem\": \"{PROBLEM}\",\n \"answer\": 7\n}}\n"),
            vec![PROBLEM],
        ),
    ] {
        write(&folder, name, text);
        let out = format!("{name}.out");
        let summary = json_of(&cot(&folder, name, &out));
        assert_eq!(summary["problems"], problems.len(), "{name}");
        let found = lines(&read(&folder, &out));
        for (line, problem) in found.iter().zip(problems) {
            assert_eq!(line["problem"], problem, "{name}");
            assert_eq!(line["answer"], "7", "{name}");
        }
    }
    let found = lines(&read(&folder, "crlf.jsonl.out"));
    assert_eq!(found[0]["level"], "Hard");

    // A file of another kind is a few sentences, not one for every line.
    write(&folder, "table.csv", "problem,answer\n".repeat(500));
    let output = cot(&folder, "table.csv", "table.out");
    let says = [
        "table.csv line 1: is not JSON",
        "480 lines more",
        "no problem",
    ];
    assert_eq!(complaint(&output, &says, Some(22)), None);
    let cut = "[\n{\"problem\": \"a\"},\n{\"problem\": ";
    write(&folder, "cut.json", cut);
    let says = ["cut.json line 3: is not JSON", "no problem"];
    assert_eq!(
        complaint(&cot(&folder, "cut.json", "cut.out"), &says, Some(2)),
        None
    );
}

/// An answer that is corrected after the run counts: the predictions are in the file.
#[test]
fn a_corrected_answer_is_graded_anew() {
    let folder = scratch("corrected");
    let other =
        "A bill is 40 dollars. A coupon takes off 12 dollars. How many dollars is the bill?";
    let file = |answer: &str| {
        format!(
            "{{\"id\":\"x1\",\"problem\":\"{PROBLEM}\",\"answer\":\"{answer}\"}}\n\
             {{\"id\":\"x2\",\"problem\":\"{other}\",\"answer\":\"28\"}}\n"
        )
    };
    write(&folder, "before.jsonl", file("8"));
    write(&folder, "after.jsonl", file("7"));
    let unknown = format!("{{\"id\":\"x1\",\"problem\":\"{PROBLEM}\"}}\n");
    write(&folder, "unknown.jsonl", unknown);
    for more in [&["--trees"][..], &[]] {
        let solve = |problems, out| {
            let flags = ["--problems", problems, "--out", out];
            offshoot(&folder, &cheap(&[&flags, more].concat()), "")
        };
        let json = |problems, out| {
            let flags = ["--problems", problems, "--out", out, "--json"];
            json_of(&offshoot(&folder, &cheap(&[&flags, more].concat()), ""))
        };
        let [r, fresh] = [
            format!("r{}.jsonl", more.len()),
            format!("fresh{}.jsonl", more.len()),
        ];
        let first = json("before.jsonl", &r);
        assert_eq!(first["regraded"], Value::Array(Vec::new()));
        // A file without answers says nothing about those that are known.
        let before = read(&folder, &r);
        stdout_of(&solve("unknown.jsonl", &r));
        assert_eq!(read(&folder, &r), before);
        // Told to people and to programs; the second time there is nothing to tell.
        let text = stdout_of(&solve("after.jsonl", &r));
        assert!(
            text.contains("x1: another answer in the problem file"),
            "{text}"
        );
        let again = json("after.jsonl", &r);
        assert_eq!(again["regraded"], Value::Array(Vec::new()));
        assert_eq!(again["policy"]["tokens_generated"], 0);
        let expected = json("after.jsonl", &fresh);
        assert_ne!(first["correct"], expected["correct"]);
        for field in ["correct", "accuracy", "verdicts", "by_n", "by_level"] {
            assert_eq!(again[field], expected[field], "{field}");
        }
        // With the solutions in it, the file is that of a run with the right answer.
        if !more.is_empty() {
            assert_eq!(read(&folder, &r), read(&folder, &fresh));
        }
    }
}

/// Sorting and regrading change a file's lines and nothing else: links, mode, the folder.
#[test]
fn a_results_file_keeps_its_place() {
    let folder = scratch("place");
    let real = folder.join("d");
    fs::create_dir(&real).expect("a folder");
    let text = crate::common::heldout();
    let backwards: Vec<&str> = text.lines().rev().take(12).collect();
    write(&folder, "problems.jsonl", backwards.join("\n"));
    let flags = ["--problems", "problems.jsonl", "--out"];
    let solve = |out| offshoot(&folder, &cheap(&[&flags[..], &[out]].concat()), "");
    stdout_of(&solve("whole.jsonl"));
    let whole = read(&folder, "whole.jsonl");
    let unsorted: String = whole.lines().rev().flat_map(|line| [line, "\n"]).collect();

    // What earlier versions wrote to while sorting is a user's file as any other.
    write(&real, "r.sorting", "mine");
    write(&folder, "link.sorting", "mine");
    write(&real, "r.jsonl", &unsorted);
    fs::set_permissions(real.join("r.jsonl"), fs::Permissions::from_mode(0o640)).expect("a mode");
    symlink("d/r.jsonl", folder.join("link.jsonl")).expect("a link");
    stdout_of(&solve("link.jsonl"));
    let link = fs::symlink_metadata(folder.join("link.jsonl")).expect("it is there");
    assert!(link.is_symlink(), "the link was replaced");
    assert_eq!(read(&real, "r.jsonl"), whole);
    let mode = fs::metadata(real.join("r.jsonl"))
        .expect("it is there")
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(names(&real), ["r.jsonl", "r.sorting"]);
    assert_eq!(read(&real, "r.sorting"), "mine");
    assert_eq!(read(&folder, "link.sorting"), "mine");

    // Another name of the same file would keep the old lines: they stay as they are, and whole.
    write(&real, "r.jsonl", &unsorted);
    fs::hard_link(real.join("r.jsonl"), real.join("other.jsonl")).expect("a hard link");
    let output = solve("d/r.jsonl");
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warning.contains("warning: the results stay in the order"),
        "{warning}"
    );
    assert!(
        stdout_of(&output).contains("any solution right"),
        "the summary is not lost"
    );
    assert_eq!(read(&real, "r.jsonl"), unsorted);
    assert_eq!(read(&real, "other.jsonl"), unsorted);
    assert_eq!(names(&real), ["other.jsonl", "r.jsonl", "r.sorting"]);
}

/// A user's file under the name of `--out` is refused, whether or not its last line is ended;
/// results that an editor has been over are read.
#[test]
fn only_results_are_continued() {
    let folder = scratch("not-results");
    let solve = |out| offshoot(&folder, &cheap(&["--limit", "2", "--out", out]), "");
    let mut complaints = Vec::new();
    for (name, content) in [
        ("note.txt", "hello"),
        ("notes.txt", "hello\nworld"),
        ("one.json", r#"{"id":"7","problem":"p"}"#),
        ("config.json", r#"{"schema": 1, "hidden_size": 64}"#),
        ("array.json", "[1, 2]"),
    ] {
        write(&folder, name, content);
        let what = complaint(&solve(name), &[name, "not a result"], Some(1));
        complaints.extend(what.map(|what| format!("{name}: {what}")));
        if read(&folder, name) != content {
            complaints.push(format!("{name} was touched"));
        }
    }
    report(&complaints);
    stdout_of(&solve("r.jsonl"));
    let whole = read(&folder, "r.jsonl");
    for (name, content) in [
        ("unended.jsonl", whole.trim_end().to_string()),
        ("cut.jsonl", whole[..whole.len() - 9].to_string()),
        ("begun.jsonl", format!("{whole}{{\"sch")),
    ] {
        write(&folder, name, content);
        stdout_of(&solve(name));
        assert_eq!(read(&folder, name), whole, "{name}");
    }
    // Put together from several: a problem twice is no harm, two results of it are.
    write(&folder, "twice.jsonl", format!("{whole}{whole}"));
    assert_eq!(
        json_of(&offshoot(
            &folder,
            &cheap(&["--limit", "2", "--json", "--out", "twice.jsonl"]),
            ""
        ))["problems"],
        2
    );
    let other = whole.replacen("\"correct\":true", "\"correct\":false", 1);
    assert_ne!(other, whole);
    write(&folder, "mixed.jsonl", format!("{whole}{other}"));
    let says = ["mixed.jsonl line 3", "has another result on line 1"];
    assert_eq!(complaint(&solve("mixed.jsonl"), &says, Some(1)), None);
    let edited = format!("\u{feff}{}\r\n\r\n", whole.trim_end().replace('\n', "\r\n"));
    write(&folder, "edited.jsonl", &edited);
    stdout_of(&solve("edited.jsonl"));
    assert_eq!(read(&folder, "edited.jsonl"), edited);
}

/// A folder appears whole or not at all: on a disk that fills, and when the call is ended.
#[test]
fn a_folder_that_cannot_be_finished_leaves_nothing() {
    let folder = scratch("folders");
    for (command, says) in [
        ("quantize nano-big q8", "cannot write q8: the disk is full"),
        ("export nano-big e8", "e8: File too large"),
    ] {
        let before = names(&folder);
        let words: Vec<&str> = command.split(' ').collect();
        let mut limited = Command::new("bash");
        let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
        limited.current_dir(&folder).args(["-c", script]);
        limited.arg(env!("CARGO_BIN_EXE_offshoot")).args(&words);
        let output = finish(&mut limited, "");
        assert_eq!(complaint(&output, &[says], Some(1)), None, "{command}");
        assert_eq!(names(&folder), before, "{command} left something");
        stdout_of(&offshoot(&folder, &words, ""));
        // Nor is a folder overwritten that is there.
        let again = offshoot(&folder, &words, "");
        let says = [words[2], "exists already"];
        assert_eq!(complaint(&again, &says, Some(1)), None, "{command}");
        let model = ["generate", "--model", words[2], "--max-tokens", "1", "x"];
        if words[0] == "quantize" {
            stdout_of(&offshoot(&folder, &model, ""));
        }
    }
    assert_eq!(names(&folder), ["e8", "q8"]);
}

/// What a shell gives is what the model reads: LaTeX stays as it is typed.
#[test]
fn latex_in_arguments_stays() {
    let folder = scratch("latex");
    let tokens = |begun: &str| {
        let call = [
            "generate",
            "--json",
            "--max-tokens",
            "1",
            "--assistant",
            begun,
            "x",
        ];
        json_of(&offshoot(&folder, &call, ""))["prompt_tokens"]
            .as_u64()
            .expect("a count")
    };
    // The figure of transformers for this text.
    assert_eq!(tokens(r"Step 1: $2 \times 3$"), 16);
    assert_eq!(tokens(r"\neq"), tokens("") + tokens(r"\neq") - tokens(""));
    let call = |stop| ["generate", "--json", "--stop", stop, PROBLEM];
    let whole = json_of(&offshoot(&folder, &call(r"\neq"), ""));
    let text = whole["text"].as_str().expect("a text");
    assert!(
        text.contains("\n\n") && text.contains("\\boxed"),
        "{text:?}"
    );
    for (stop, meant) in [
        (r"\n\n", "\n\n"),
        (r"\boxed", "\\boxed"),
        (r"\nThe", "\nThe"),
    ] {
        let stopped = json_of(&offshoot(&folder, &call(stop), ""));
        let until = text.find(meant).unwrap_or(text.len());
        assert_eq!(stopped["text"], text[..until], "{stop}");
    }
}
