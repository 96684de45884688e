//! `calibrate`: the map from scores to success, and the files it cannot be learned from.

use serde_json::Value;

use super::complaint;
use crate::common::{json_of, offshoot, scratch, stdout_of};

#[test]
fn scores_become_probabilities() {
    let folder = scratch("calibrate");
    let solve = |strategy: &str, out: &str, more: &[&str]| {
        let mut arguments = vec!["solve", "--strategy", strategy, "--n", "8", "--limit", "40"];
        arguments.extend(["--out", out]);
        arguments.extend(more);
        stdout_of(&offshoot(&folder, &arguments, ""));
    };
    solve("best-of-n", "scored.jsonl", &["--trees"]);
    solve("best-of-n", "bare.jsonl", &[]);
    solve("beam", "beam.jsonl", &["--trees"]);
    let out = ["calibrate", "scored.jsonl", "--json", "--out", "map.json"];
    let printed: Value = json_of(&offshoot(&folder, &out, ""));
    let text = std::fs::read_to_string(folder.join("map.json")).expect("a file");
    let map: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(map, printed["calibration"]);
    assert_eq!(map["policy"], "nano-small");
    assert_eq!(map["prm"], "nano-prm");
    let numbers = |name: &str| -> Vec<f64> {
        let list = map[name].as_array().expect(name);
        list.iter().filter_map(Value::as_f64).collect()
    };
    let (scores, probabilities) = (numbers("scores"), numbers("probabilities"));
    assert!(
        scores.len() > 2 && scores.len() == probabilities.len(),
        "{map}"
    );
    assert!(scores.is_sorted() && probabilities.is_sorted(), "{map}");
    // Problems of the other half: a monotone map keeps the order, but for ties.
    let held_out = &printed["held_out"];
    let number = |path: &str| held_out.pointer(path).and_then(Value::as_f64).expect(path);
    assert_eq!(
        number("/problems") + map["problems"].as_f64().expect("a count"),
        40.0
    );
    assert!(number("/raw/auroc") > 0.6, "{held_out}");
    assert!(
        (number("/raw/auroc") - number("/calibrated/auroc")).abs() < 0.1,
        "{held_out}"
    );
    assert!(number("/calibrated/ece") < number("/raw/ece"), "{held_out}");

    // As many solutions as the map asks for, of its own models alone.
    let tokens = |more: &[&str]| {
        let mut arguments = vec![
            "solve",
            "--strategy",
            "best-of-n",
            "--n",
            "64",
            "--limit",
            "8",
        ];
        arguments.extend(["--confidence", "0.5", "--json"]);
        arguments.extend(more);
        let summary: Value = json_of(&offshoot(&folder, &arguments, ""));
        summary.to_string()
    };
    let adaptive = tokens(&["--calibration", "map.json"]);
    assert_ne!(adaptive, tokens(&[]));
    let other = text.replace("nano-small", "nano-big");
    std::fs::write(folder.join("other.json"), other).expect("a file");
    for (file, says) in [
        (
            "other.json",
            "--calibration is of nano-big scored by nano-prm",
        ),
        (
            "scored.jsonl",
            "--calibration scored.jsonl: expected a file of calibrate",
        ),
        ("none.json", "--calibration none.json"),
    ] {
        let arguments = ["solve", "--strategy", "best-of-n", "--calibration", file];
        let output = offshoot(&folder, &arguments, "");
        assert_eq!(complaint(&output, &[says], Some(1)), None);
    }

    let table = stdout_of(&offshoot(&folder, &["calibrate", "scored.jsonl"], ""));
    assert!(table.contains("expected calibration error"), "{table}");
    for (file, says) in [
        ("bare.jsonl", "run solve with --trees"),
        ("beam.jsonl", "expected those of best-of-n"),
        ("none.jsonl", "none.jsonl"),
    ] {
        let output = offshoot(&folder, &["calibrate", file], "");
        assert_eq!(complaint(&output, &[says], Some(1)), None);
    }
}
