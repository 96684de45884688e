//! Problem files and results files: one bad line loses only itself, and no file is mixed or lost.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{cheap, complaint};
use crate::common::{finish, json_of, offshoot, report, repository, scratch, stdout_of};

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
        (vec!["--trees"], "without trees"),
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

/// Files of version 0, written by release 0.1 before there were versions, are read and continued.
#[test]
fn a_results_file_outlives_its_release() {
    let folder = scratch("old-results");
    let old = repository("strategies/tests/old_results/beam-0.1.jsonl");
    let before = fs::read_to_string(&old).expect("a committed file");
    fs::copy(&old, folder.join("old.jsonl")).expect("a copy");
    let drawn = stdout_of(&offshoot(&folder, &["show", "old.jsonl", "1"], ""));
    assert!(drawn.contains("Step 1: 509 + 322 = 831."), "{drawn}");

    // With the settings it was made with, in their new spelling: only the third problem is solved.
    let flags = "solve --strategy beam --n 4 --aggregation min --selection min-vote \
                 --max-step-tokens 128 --max-tokens 512 --max-retries 2 --context-overflow extend \
                 --trees --limit 3 --json --device cpu --out old.jsonl";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let summary = json_of(&offshoot(&folder, &flags, ""));
    assert_eq!(summary["problems"], 3);
    let after = fs::read_to_string(folder.join("old.jsonl")).expect("the results are there");
    let third = after
        .strip_prefix(&before)
        .expect("the old lines are as they were");
    let third: Value = serde_json::from_str(third).expect("one line more");
    assert_eq!(third["schema"], 1);
    assert_eq!(third["settings"]["device"], "CPU");

    // The first two lines, solved by this build, say the same in today's words.
    let flags = flags.join(" ").replace("old.jsonl", "new.jsonl");
    let flags: Vec<&str> = flags.split_whitespace().collect();
    json_of(&offshoot(&folder, &flags, ""));
    let new = fs::read_to_string(folder.join("new.jsonl")).expect("the results are there");
    for (old, new) in before.lines().zip(new.lines()) {
        let [old, new]: [Value; 2] =
            [old, new].map(|line| serde_json::from_str(line).expect("JSON"));
        assert_eq!(old["prediction"], new["prediction"]);
        assert_eq!(old["verdict"], new["selection"]);
        assert_eq!(old["tokens"], new["tokens"]);
        assert_eq!(old["solutions"][0]["scores"], new["solutions"][0]["scores"]);
    }
}

/// Trees of different arithmetic are not mixed in silence, and a newer program's file is refused.
#[test]
fn a_results_file_knows_its_device_and_its_version() {
    let folder = scratch("other-machine");
    let flags = |out| cheap(&["--limit", "1", "--device", "cpu", "--out", out]);
    stdout_of(&offshoot(&folder, &flags("here.jsonl"), ""));
    let line = fs::read_to_string(folder.join("here.jsonl")).expect("the results are there");
    let line: Value = serde_json::from_str(&line).expect("one line");
    let own = line["settings"]["instruction_set"].as_str().expect("a CPU");
    // Sets with fused multiply-add give the same bits.
    let same = if own == "AVX2" { "AVX-512" } else { "AVX2" };
    let mut complaints = Vec::new();
    for (field, value, says) in [
        (
            "/settings/device",
            "NVIDIA H200 (CUDA, sm_90)",
            Some("device"),
        ),
        ("/settings/instruction_set", "AMX", Some("instruction_set")),
        ("/settings/instruction_set", same, None),
    ] {
        // On a machine with AMX or without either set, what is refused is another pair.
        if value == own || (says.is_none() && !["AVX2", "AVX-512"].contains(&own)) {
            continue;
        }
        let mut other = line.clone();
        *other.pointer_mut(field).expect("the field is there") = value.into();
        fs::write(folder.join("there.jsonl"), format!("{other}\n")).expect("a file is written");
        let output = offshoot(&folder, &flags("there.jsonl"), "");
        let what = match says {
            Some(says) => complaint(&output, &["--out there.jsonl line 1", says], Some(1)),
            None => (!output.status.success()).then(|| "refused".to_string()),
        };
        complaints.extend(what.map(|what| format!("{field} {value}: {what}")));
    }
    let mut newer = line.clone();
    newer["schema"] = 2.into();
    fs::write(folder.join("newer.jsonl"), format!("{newer}\n")).expect("a file is written");
    let output = offshoot(&folder, &flags("newer.jsonl"), "");
    let says = ["newer.jsonl line 1", "newer offshoot (schema 2"];
    complaints.extend(complaint(&output, &says, Some(1)));
    report(&complaints);
}
