//! `prm-eval`: ProcessBench's measure on labelled solutions, and files that are none.

use serde_json::{Value, json};

use super::complaint;
use crate::common::{json_of, offshoot, problems, scratch, stdout_of};

/// Solutions of bundled problems, each as it is and with the result of its first step raised by one.
fn labelled() -> String {
    let mut lines = String::new();
    for problem in problems(30) {
        let solution = problem.solution.as_deref().expect("a solution");
        let steps: Vec<&str> = solution.split("\n\n").collect();
        let mut line = |steps: &[&str], label: i64| {
            let object = json!({"problem": problem.problem, "steps": steps, "label": label});
            lines += &format!("{object}\n");
        };
        line(&steps, -1);
        let (before, result) = steps[0].rsplit_once("= ").expect("a calculation");
        let result: i64 = result.trim_end_matches('.').parse().expect("a number");
        let wrong = format!("{before}= {}.", result + 1);
        let mut steps = steps.clone();
        steps[0] = &wrong;
        line(&steps, 0);
    }
    lines
}

#[test]
fn wrong_steps_are_found() {
    let folder = scratch("prm-eval");
    std::fs::write(folder.join("labelled.jsonl"), labelled()).expect("a file");
    let arguments = [
        "prm-eval",
        "labelled.jsonl",
        "--json",
        "--out",
        "scores.jsonl",
    ];
    let printed: Value = json_of(&offshoot(&folder, &arguments, ""));
    let row = &printed["files"][0];
    let number = |path: &str| row.pointer(path).and_then(Value::as_f64).expect(path);
    assert_eq!((number("/erroneous"), number("/correct")), (30.0, 30.0));
    // nano-prm has learned such errors.
    assert!(number("/f1") > 0.8, "{row}");
    assert_eq!(printed["average_f1"], row["f1"]);
    assert_eq!(number("/ranking/pairs"), 30.0);
    assert!(number("/steps/auroc") > 0.9, "{row}");
    // The counts are those of the scores in the file, which are those of `score`.
    let text = std::fs::read_to_string(folder.join("scores.jsonl")).expect("scores");
    let lines: Vec<Value> = (text.lines())
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 60);
    let found = lines.iter().filter(|line| {
        let scores = line["scores"].as_array().expect("scores");
        let below = scores.iter().position(|score| score.as_f64() < Some(0.5));
        line["label"] == 0 && below == Some(0)
    });
    assert_eq!(found.count() as f64, number("/found"));
    let first: Value =
        serde_json::from_str(labelled().lines().next().expect("a line")).expect("JSON");
    let steps: Vec<&str> = first["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let problem = first["problem"].as_str().expect("a problem");
    let arguments = ["score", "--problem", problem, "--steps", "-", "--json"];
    let scored: Value = json_of(&offshoot(&folder, &arguments, &steps.join("\n\n")));
    assert_eq!(scored["scores"], lines[0]["scores"]);

    let tuned = [
        "prm-eval",
        "labelled.jsonl",
        "--threshold-from",
        "labelled.jsonl",
        "--json",
    ];
    let tuned: Value = json_of(&offshoot(&folder, &tuned, ""));
    assert!(
        tuned["average_f1"].as_f64() >= printed["average_f1"].as_f64(),
        "{tuned}"
    );
    // A solution beyond the PRM's context length is counted, and in none of the figures.
    let long = json!({"problem": "p", "steps": vec!["1 + 1 = 2."; 200], "label": -1});
    let text = format!("{}{long}\n", labelled());
    std::fs::write(folder.join("long.jsonl"), text).expect("a file");
    let printed_long: Value = json_of(&offshoot(
        &folder,
        &["prm-eval", "long.jsonl", "--json"],
        "",
    ));
    let long = &printed_long["files"][0];
    assert_eq!(
        (&long["unread"], &long["solutions"]),
        (&json!(1), &json!(60))
    );
    assert_eq!(long["f1"], row["f1"]);

    let table = stdout_of(&offshoot(&folder, &["prm-eval", "labelled.jsonl"], ""));
    assert!(
        table.contains("labelled.jsonl") && table.contains("F1"),
        "{table}"
    );
}

#[test]
fn files_without_labels_are_refused_before_a_model_is_loaded() {
    let folder = scratch("prm-eval-bad");
    for (name, text, says) in [
        ("empty.jsonl", "", &["empty.jsonl", "no solution"][..]),
        (
            "no-label.jsonl",
            r#"{"problem": "p", "steps": ["a"]}"#,
            &["line 1", "label"],
        ),
        (
            "far.jsonl",
            r#"{"problem": "p", "steps": ["a"], "label": 1}"#,
            &["line 1", "`label` is 1"],
        ),
        (
            "none.jsonl",
            r#"{"problem": "p", "steps": [], "label": -1}"#,
            &["line 1", "`steps`"],
        ),
        ("text.jsonl", "hello", &["line 1", "not JSON"]),
    ] {
        std::fs::write(folder.join(name), text).expect("a file");
        let output = offshoot(&folder, &["prm-eval", name, "--prm", "no-such-model"], "");
        assert_eq!(complaint(&output, says, Some(1)), None, "{name}");
    }
    let both = [
        "prm-eval",
        "empty.jsonl",
        "--threshold",
        "1",
        "--threshold-from",
        "x",
    ];
    assert_eq!(
        complaint(&offshoot(&folder, &both, ""), &["--threshold"], None),
        None
    );
    let one_kind = folder.join("one-kind.jsonl");
    std::fs::write(one_kind, r#"{"problem": "p", "steps": ["a"], "label": 0}"#).expect("a file");
    let tuned = [
        "prm-eval",
        "one-kind.jsonl",
        "--threshold-from",
        "one-kind.jsonl",
    ];
    let output = offshoot(&folder, &tuned, "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("with and without a wrong step"), "{error}");
    assert_eq!(output.status.code(), Some(2));
}
