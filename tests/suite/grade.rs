//! `offshoot grade` from the command line, and `solve --grader`.

#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::common::{json_of, offshoot, scratch, stdout_of};
use serde_json::{Value, json};

/// Lines of another system, good ones only.
const LINES: &str = r#"{"id": 7, "answer": "\\frac{1}{2}", "prediction": "0.5", "model": "x"}
{"answer": "5", "prediction": "6"}

{"answer": 27.0, "solution": "First 3, then \\boxed{27}."}
{"answer": "3", "response": "So there are 3 of them."}
{"answer": "3", "prediction": null}
{"answer": "x=4", "prediction": 4, "correct": false}
"#;

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn verdicts(lines: &[Value]) -> Vec<&Value> {
    lines.iter().map(|line| &line["correct"]).collect()
}

#[test]
fn lines_come_back_graded_in_order() {
    let folder = scratch("grade-lines");
    let output = offshoot(&folder, &["grade", "-"], LINES);
    let graded = lines(&stdout_of(&output));
    assert_eq!(verdicts(&graded), [true, false, true, false, false, true]);
    assert_eq!(
        graded[0],
        json!({
            "id": 7, "answer": "\\frac{1}{2}", "prediction": "0.5", "model": "x", "correct": true,
            "grader": "strict", "answer_form": "1/2", "prediction_form": "1/2"
        })
    );
    assert_eq!(graded[2]["prediction"], "27");
    assert_eq!(graded[3]["prediction"], Value::Null);
    assert_eq!(graded[3]["prediction_form"], Value::Null);
    assert_eq!(graded[5]["answer_form"], "4");
    assert_eq!(
        stderr(&output),
        "3 of 6 correct (50.0%), grader strict; answers found by: boxed 1, none 1\n"
    );
    assert_eq!(graded[2]["extraction"], "boxed");
    assert_eq!(graded[3]["extraction"], "none");

    // the last number counts for the Qwen grader; a file gives what standard input gave
    fs::write(folder.join("lines.jsonl"), LINES).expect("a file is written");
    let arguments = [
        "grade",
        "--grader",
        "qwen",
        "lines.jsonl",
        "--out",
        "graded.jsonl",
    ];
    let output = offshoot(&folder, &arguments, "");
    assert_eq!(stdout_of(&output), "");
    let written = fs::read_to_string(folder.join("graded.jsonl")).expect("the graded lines");
    let graded = lines(&written);
    assert_eq!(verdicts(&graded), [true, false, true, true, false, true]);
    assert!(graded.iter().all(|line| line["grader"] == "qwen"));
    assert_eq!(
        stderr(&output),
        "4 of 6 correct (66.7%), grader qwen; answers found by: boxed 1, last-number 1\n"
    );
}

#[test]
fn malformed_lines_are_named_and_the_others_graded() {
    let folder = scratch("grade-malformed");
    let bad = "{\"answer\": \"1\", \"prediction\": \"1\"}\n{oops\n[1]\n{\"prediction\": \"1\"}\n{\"answer\": \"1\"}\n{\"answer\": [1], \"prediction\": \"1\"}\n{\"answer\": \"2\", \"prediction\": \"3\"}";
    fs::write(folder.join("bad.jsonl"), bad).expect("a file is written");
    let output = offshoot(&folder, &["grade", "bad.jsonl"], "");
    assert_eq!(output.status.code(), Some(2));
    let graded = lines(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(verdicts(&graded), [true, false]);
    let expected = [
        "error: bad.jsonl line 2: is not JSON at column 2: key must be a string",
        "error: bad.jsonl line 3: expected a JSON object, found a list",
        "error: bad.jsonl line 4: the field \"answer\" is missing",
        "error: bad.jsonl line 5: none of the fields \"prediction\", \"solution\", \"response\" is there",
        "error: bad.jsonl line 6: the field \"answer\" is no text",
        "1 of 2 correct (50.0%), grader strict",
        "error: bad.jsonl: 5 lines are not graded",
    ];
    assert_eq!(stderr(&output).lines().collect::<Vec<_>>(), expected);
}

/// Ends with exit code 2 and one sentence that has all of `says`.
fn fails(folder: &Path, arguments: &[&str], says: &[&str]) {
    let output = offshoot(folder, arguments, LINES);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(error.starts_with("error: "), "{arguments:?}: {error}");
    for what in says {
        assert!(
            error.contains(what),
            "{arguments:?}: no {what:?} in {error}"
        );
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn no_file_is_read_and_written() {
    let folder = scratch("grade-one-file");
    fs::write(folder.join("lines.jsonl"), LINES).expect("a file is written");
    let same = ["grade", "lines.jsonl", "--out", "./lines.jsonl"];
    let says = ["--out ./lines.jsonl: this is the file to grade"];
    fails(&folder, &same, &says);
    let twice = [
        "--external",
        "cat",
        "--out",
        "new",
        "--disagreements",
        "new",
    ];
    let arguments = [&["grade", "lines.jsonl"], &twice[..]].concat();
    fails(&folder, &arguments, &["--disagreements new: this is --out"]);
    let kept = fs::read_to_string(folder.join("lines.jsonl")).expect("the file");
    assert_eq!(kept, LINES);
}

#[test]
fn bad_calls_are_one_sentence() {
    let folder = scratch("grade-calls");
    fails(&folder, &["grade", "gone.jsonl"], &["gone.jsonl"]);
    fails(&folder, &["grade", "."], &[": Is a directory"]);
    fails(
        &folder,
        &["grade", "-", "--grader", "kind"],
        &["--grader", "strict, qwen"],
    );
    fails(
        &folder,
        &["grade", "-", "--out", "no/such/file"],
        &["--out no/such/file"],
    );
    fails(
        &folder,
        &["grade", "-", "--disagreements", "d.jsonl"],
        &["--external"],
    );
    fails(
        &folder,
        &["solve", "--grader", "kind"],
        &["--grader", "strict, qwen"],
    );
}

#[test]
fn an_external_grader_is_compared() {
    let folder = scratch("grade-external");
    // says that everything is right, and nothing about the second pair it sees
    let script = "n=0\nwhile read -r line; do n=$((n+1)); echo \"$line\" >> seen.jsonl\nif [ $n = 2 ]; then echo '{\"correct\": null}'; else echo '{\"correct\": true}'; fi; done\n";
    fs::write(folder.join("yes.sh"), script).expect("a file is written");
    let arguments = [
        "grade",
        "-",
        "--external",
        "sh yes.sh",
        "--disagreements",
        "differ.jsonl",
    ];
    let input = format!("{LINES}{{\"answer\": \"8\", \"prediction\": \"9\"}}\n");
    let output = offshoot(&folder, &arguments, &input);
    let graded = lines(&stdout_of(&output));
    let external: Vec<Option<&Value>> = graded.iter().map(|line| line.get("external")).collect();
    let (yes, null) = (json!(true), Value::Null);
    // lines without a prediction are not sent
    let expected = [
        Some(&yes),
        Some(&null),
        Some(&yes),
        None,
        None,
        Some(&yes),
        Some(&yes),
    ];
    assert_eq!(external, expected);
    assert_eq!(
        stderr(&output),
        "3 of 7 correct (42.9%), grader strict; answers found by: boxed 1, none 1; the external grader agrees on 3 of 4 (75.0%), 3 without its verdict\n"
    );
    let differ = lines(&fs::read_to_string(folder.join("differ.jsonl")).expect("the report"));
    let wanted = json!({
        "line": 8, "answer": "8", "prediction": "9", "correct": false, "external": true,
        "grader": "strict", "answer_form": "8", "prediction_form": "9"
    });
    assert_eq!(differ, [wanted]);
    let seen = lines(&fs::read_to_string(folder.join("seen.jsonl")).expect("what it was given"));
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[2], json!({"answer": "27", "prediction": "27"}));
}

/// A pair that the second grader hangs on costs that pair's verdict and no other.
#[test]
fn an_external_grader_that_hangs_is_started_anew() {
    let folder = scratch("grade-hangs");
    let script = "while read -r line; do case \"$line\" in *hang*) exec sleep 600;; esac\n\
                  echo '{\"correct\": true}'; done\n";
    fs::write(folder.join("hangs.sh"), script).expect("a file is written");
    let pairs = ["1", "hang", "3", "hang", "5"]
        .map(|p| format!("{{\"answer\": \"1\", \"prediction\": \"{p}\"}}\n"));
    let flags = ["--external-timeout", "1", "--external", "sh hangs.sh"];
    let arguments = [&["grade", "-"], &flags[..]].concat();
    let output = offshoot(&folder, &arguments, &pairs.concat());
    let graded = lines(&stdout_of(&output));
    let external: Vec<&Value> = graded.iter().map(|line| &line["external"]).collect();
    let (yes, null) = (json!(true), Value::Null);
    assert_eq!(external, [&yes, &null, &yes, &null, &yes]);
    let summary = stderr(&output);
    let says = "2 without its verdict (2 took more than 1 s)";
    assert!(summary.contains(says), "{summary}");
}

#[test]
fn a_broken_external_grader_is_one_sentence() {
    let folder = scratch("grade-broken");
    for (command, says) in [
        ("no-such-command", &["no-such-command", "No such file"][..]),
        ("", &["expected a command"]),
        ("sh -c 'exit 3", &["a quote is not closed"]),
        (
            "sh -c 'exit 3'",
            &["line 1", "ended without an answer", "exit status: 3"],
        ),
        (
            "sh -c 'read x; echo hello; cat'",
            &["line 1", "answered \"hello\""],
        ),
        (
            "sh -c 'read x; echo \"{}\"; cat'",
            &["line 1", "answered \"{}\""],
        ),
        ("sleep 600", &["line 1", "no answer within 1 s"]),
        (
            "sh -c 'read x; echo {\\\"correct\\\": true}'",
            &["line 2", "ended without an answer"],
        ),
    ] {
        let arguments = [
            "grade",
            "-",
            "--external-timeout",
            "1",
            "--external",
            command,
        ];
        fails(&folder, &arguments, &[&["--external"], says].concat());
        let output = offshoot(&folder, &arguments, LINES);
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

/// The grader is part of a run's settings and of every result.
#[test]
fn solve_takes_a_grader() {
    let folder = scratch("grade-solve");
    let arguments = [
        "solve",
        "--limit",
        "2",
        "--n",
        "4",
        "--grader",
        "qwen",
        "--json",
        "--out",
        "out.jsonl",
    ];
    let summary = json_of(&offshoot(&folder, &arguments, ""));
    assert_eq!(summary["grader"], "qwen");
    let results = fs::read_to_string(folder.join("out.jsonl")).expect("the results");
    assert!(lines(&results).iter().all(|line| line["grader"] == "qwen"));
    let other = ["solve", "--limit", "2", "--n", "4", "--out", "out.jsonl"];
    fails(
        &folder,
        &other,
        &["grader \"qwen\" in the file, \"strict\" now"],
    );

    // and its results can be graded again
    let output = offshoot(&folder, &["grade", "out.jsonl"], "");
    let again = lines(&stdout_of(&output));
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|line| line["grader"] == "strict"));
}

/// Numbers keep their digits, in verdicts and in the lines that come back.
#[test]
fn numbers_keep_their_digits() {
    let folder = scratch("grade-digits");
    let input = "{\"answer\": 123456789012345678901, \"prediction\": \"123456789012345678901\", \"x\": [1.50, 1e5]}\n\
                 {\"answer\": 12345678901234567890123, \"prediction\": 12345678901234567890124}\n\
                 {\"answer\": 0.1234567890123456789, \"prediction\": \"0.1234567890123456789\"}\n\
                 {\"answer\": 2e3, \"prediction\": 2000}\n";
    let graded = stdout_of(&offshoot(&folder, &["grade", "-"], input));
    assert_eq!(verdicts(&lines(&graded)), [true, false, true, true]);
    for (line, as_written) in graded.lines().zip([
        "{\"answer\":123456789012345678901,\"prediction\":\"123456789012345678901\",\"x\":[1.50, 1e5],\"correct\"",
        "{\"answer\":12345678901234567890123,\"prediction\":12345678901234567890124,\"correct\"",
        "{\"answer\":0.1234567890123456789,\"prediction\":\"0.1234567890123456789\",\"correct\"",
        "{\"answer\":2e3,\"prediction\":2000,\"correct\"",
    ]) {
        assert!(line.starts_with(as_written), "{line}");
    }
}

/// A list, objects over several lines, a byte order mark and other line ends.
#[test]
fn files_of_every_layout_are_graded() {
    let folder = scratch("grade-layouts");
    let pairs = [
        "{\"answer\": \"1\", \"prediction\": \"1\"}",
        "{\"answer\": \"1\", \"prediction\": \"2\"}",
    ];
    let expected = stdout_of(&offshoot(&folder, &["grade", "-"], &pairs.join("\n")));
    let printed = pairs.map(|pair| pair.replace('{', "{\n ").replace('}', "\n}"));
    for text in [
        format!("\u{feff}{}\r\n\r\n{}\r\n", pairs[0], pairs[1]),
        format!("\n[{}]", pairs.join(",\n")),
        format!("[\r\n{}\r\n]\r\n", printed.join(",")),
        printed.join("\n"),
    ] {
        let graded = stdout_of(&offshoot(&folder, &["grade", "-"], &text));
        assert_eq!(graded, expected, "{text:?}");
    }
    let bad = "\n[\n{\"answer\": \"1\", \"prediction\": \"1\"},\n{\"answer\": \"1\"}\n]";
    let output = offshoot(&folder, &["grade", "-"], bad);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("standard input line 4: none of the fields"),
        "{}",
        stderr(&output)
    );
}

/// Nothing is emptied for a call that cannot be carried out, nor a file by another of its names.
#[test]
fn no_file_is_emptied_for_nothing() {
    let folder = scratch("grade-emptied");
    for name in ["lines.jsonl", "out.jsonl"] {
        fs::write(folder.join(name), LINES).expect("a file is written");
    }
    let arguments = ["grade", "lines.jsonl", "--out", "out.jsonl", "--external"];
    fails(
        &folder,
        &[&arguments[..], &["no-such-command"]].concat(),
        &["no-such-command"],
    );
    std::os::unix::fs::symlink("lines.jsonl", folder.join("soft")).expect("a link");
    fs::hard_link(folder.join("lines.jsonl"), folder.join("hard")).expect("a link");
    for link in ["soft", "hard"] {
        let arguments = ["grade", "lines.jsonl", "--out", link];
        fails(&folder, &arguments, &["this is the file to grade"]);
    }
    for name in ["lines.jsonl", "out.jsonl"] {
        let kept = fs::read_to_string(folder.join(name)).expect("the file");
        assert_eq!(kept, LINES, "{name}");
    }
}
