//! A run into `--out` that is killed, again and again, ends in the bytes of one that is not.
//!
//! The moments are counted in results, not in time: each run is killed (SIGKILL, which no program
//! can prepare for) once it has written so many lines more, from none to several. The last part of
//! a line that a kill may leave is made by hand, at every kind of place.

#![cfg(unix)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use crate::common::{heldout, json_of, offshoot, scratch, start, stdout_of};

const PROBLEMS: usize = 120;

/// Lines a run may write before it is killed; one run each.
const KILLS: [usize; 10] = [0, 1, 3, 1, 0, 5, 2, 7, 4, 6];

/// The problems are the bundled ones from the last to the first, so that hard and slow ones come
/// first and results are not written in the order of the file.
fn problems(folder: &Path) {
    let text = heldout();
    let lines: Vec<&str> = text.lines().rev().take(PROBLEMS).collect();
    fs::write(folder.join("problems.jsonl"), lines.join("\n")).expect("a file is written");
}

fn arguments(out: &str) -> Vec<&str> {
    let fixed = "solve --problems problems.jsonl --strategy best-of-n --n 4 --concurrency 5 --out";
    fixed.split(' ').chain([out]).collect()
}

fn whole_lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8(bytes).expect("results are UTF-8");
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    text[..end].lines().map(str::to_string).collect()
}

/// Waits until there are `lines` lines at `path`. Whether the run was still going then.
fn wait_for(lines: usize, path: &Path, run: &mut Child) -> bool {
    let patience = Instant::now() + Duration::from_secs(120);
    while whole_lines(path).len() < lines {
        assert!(Instant::now() < patience, "no {lines} lines in two minutes");
        if run.try_wait().expect("the run can be asked").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    run.try_wait().expect("the run can be asked").is_none()
}

#[test]
fn ten_kills_change_nothing() {
    let folder = scratch("resume");
    problems(&folder);
    stdout_of(&offshoot(&folder, &arguments("whole.jsonl"), ""));
    let whole = fs::read(folder.join("whole.jsonl")).expect("the results are there");
    assert_eq!(whole_lines(&folder.join("whole.jsonl")).len(), PROBLEMS);

    let path = folder.join("killed.jsonl");
    let mut before: Vec<String> = Vec::new();
    for (number, more) in KILLS.into_iter().enumerate() {
        let mut run = start(&folder, &arguments("killed.jsonl"));
        let running = wait_for(before.len() + more, &path, &mut run);
        assert!(running, "run {number} ended before it could be killed");
        run.kill().expect("our own run");
        run.wait().expect("our own run");
        let after = whole_lines(&path);
        assert!(
            after.starts_with(&before),
            "run {number}: a finished line was changed, moved or lost"
        );
        assert!(after.len() >= before.len() + more && after.len() < PROBLEMS);
        before = after;
    }
    assert!(before.len() >= KILLS.iter().sum(), "{} lines", before.len());

    // The last run solves what is missing and nothing else.
    let arguments = arguments("killed.jsonl");
    let summary = json_of(&offshoot(
        &folder,
        &[&arguments[..], &["--json"]].concat(),
        "",
    ));
    assert_eq!(summary["problems"], PROBLEMS);
    let after = whole_lines(&path);
    let unique: HashSet<&String> = after.iter().collect();
    assert_eq!(unique.len(), PROBLEMS, "a problem was solved twice");
    assert!(before.iter().all(|line| unique.contains(line)));
    let drawn: u64 = (after.iter())
        .filter(|line| !before.contains(line))
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            line["tokens"]["policy"].as_u64().expect("a count")
        })
        .sum();
    assert_eq!(summary["policy"]["tokens_generated"], drawn, "solved again");
    assert!(fs::read(&path).expect("the results are there") == whole);
}

/// Wherever a write was cut, what was whole stays and the rest is solved again.
#[test]
fn a_line_cut_anywhere_is_repaired() {
    let folder = scratch("cut");
    problems(&folder);
    let flags = ["--limit", "3"];
    let run = |out| {
        let arguments = [&arguments(out)[..], &flags].concat();
        stdout_of(&offshoot(&folder, &arguments, ""))
    };
    run("whole.jsonl");
    let whole = fs::read(folder.join("whole.jsonl")).expect("the results are there");
    let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').collect();
    for cut in [
        0,
        1,
        ends[0],
        ends[0] + 1,
        ends[0] + 2,
        ends[1] - 1,
        ends[2],
    ] {
        fs::write(folder.join("cut.jsonl"), &whole[..cut]).expect("a file is written");
        run("cut.jsonl");
        let found = fs::read(folder.join("cut.jsonl")).expect("the results are there");
        assert!(found == whole, "cut at byte {cut} of {}", whole.len());
    }
    // Killed after the last line, before they were put in order.
    let text = String::from_utf8(whole.clone()).expect("results are UTF-8");
    let backwards: String = text.lines().rev().flat_map(|line| [line, "\n"]).collect();
    fs::write(folder.join("unsorted.jsonl"), backwards).expect("a file is written");
    run("unsorted.jsonl");
    let found = fs::read(folder.join("unsorted.jsonl")).expect("the results are there");
    assert!(found == whole, "the lines were not put in order");
}

/// Two runs on one file would each redo the other's problems.
#[test]
fn a_file_that_is_being_written_is_refused() {
    let folder = scratch("locked");
    problems(&folder);
    let path = folder.join("r.jsonl");
    let mut run = start(&folder, &arguments("r.jsonl"));
    let running = wait_for(1, &path, &mut run);
    let second = offshoot(&folder, &arguments("r.jsonl"), "");
    let still = run.try_wait().expect("the run can be asked").is_none();
    run.kill().expect("our own run");
    run.wait().expect("our own run");
    assert!(
        running && still,
        "the first run was too short for this test"
    );
    assert_eq!(second.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(stderr.contains("--out r.jsonl: another run"), "{stderr}");
}
