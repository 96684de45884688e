//! Sweeps: what they keep, that a kill changes nothing of it, that two do not write one folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{heldout, json_of, offshoot, scratch, start, stdout_of};

/// Problems of the sweep that is killed, and its cells: 2 PRM formats of one pair would be two pairs, so
/// strategies, N and seeds make them.
const PROBLEMS: usize = 30;
const GRID: &str = "\
problems = 'problems.jsonl'
policies = ['nano-small', 'nano-big']
prms = ['nano-prm']
seeds = 2

[[configurations]]
strategy = ['best-of-n', 'beam']
n = [4, 8]

[[configurations]]
strategy = 'majority'
n = 8
temperature = [0.6, 0.8]
";

/// Records written before a kill, one run each.
const KILLS: [usize; 10] = [0, 1, 40, 3, 100, 0, 57, 210, 20, 81];

fn grid(folder: &Path) {
    let text = heldout();
    // Hard and slow ones first, so that records do not come in the order of the file.
    let lines: Vec<&str> = text.lines().rev().take(PROBLEMS).collect();
    fs::write(folder.join("problems.jsonl"), lines.join("\n")).expect("a file is written");
    fs::write(folder.join("sweep.toml"), GRID).expect("a file is written");
}

fn arguments(out: &str) -> Vec<&str> {
    let fixed = "sweep --config sweep.toml --timed 0 --json --out";
    fixed.split(' ').chain([out]).collect()
}

/// The files of a folder that may not differ: all but the lock.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder");
    let named = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.to_string(), fs::read(&path).expect("a file"))
    });
    named.filter(|(name, _)| name != ".lock").collect()
}

/// Whole lines in the files of records, finished or not.
fn records(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let of_records = |path: &Path| {
        let name = path.to_string_lossy();
        name.ends_with(".jsonl") || name.ends_with(".jsonl.part")
    };
    let bytes = paths.filter(|path| of_records(path)).map(fs::read);
    let lines = |bytes: Vec<u8>| bytes.iter().filter(|&&b| b == b'\n').count();
    bytes.flatten().map(lines).sum()
}

#[test]
fn ten_kills_of_a_sweep_change_nothing() {
    let folder = scratch("sweep_kills");
    grid(&folder);
    let rows = json_of(&offshoot(&folder, &arguments("whole"), ""));
    let whole = files(&folder.join("whole"));
    let killed = folder.join("killed");
    let mut before = 0;
    for (number, more) in KILLS.into_iter().enumerate() {
        let mut run = start(&folder, &arguments("killed"));
        let patience = Instant::now() + Duration::from_secs(120);
        while records(&killed) < before + more {
            assert!(
                Instant::now() < patience,
                "no {more} records in two minutes"
            );
            assert!(
                run.try_wait().expect("our own run").is_none(),
                "run {number} ended before it could be killed"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        run.kill().expect("our own run");
        run.wait().expect("our own run");
        let after = records(&killed);
        assert!(after >= before, "run {number}: records were lost");
        before = after;
    }
    let rows_after = json_of(&offshoot(&folder, &arguments("killed"), ""));
    assert_eq!(rows_after, rows);
    let after = files(&killed);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&whole));
    for (name, bytes) in &whole {
        assert!(&after[name] == bytes, "{name} differs");
    }
    // Once more, with everything there.
    json_of(&offshoot(&folder, &arguments("killed"), ""));
    assert!(files(&killed) == whole);
    what_a_sweep_keeps(&folder.join("whole"), &rows);
}

/// Rows, records and the manifest tell one story.
fn what_a_sweep_keeps(folder: &Path, rows: &Value) {
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let rows = rows.as_array().expect("rows");
    // Best-of-N at 1, 2, 4 and 8; beam at 4 and 8; majority at 1, 2, 4 and 8, twice; two policies.
    assert_eq!(rows.len(), 2 * (4 + 2 + 8));
    for row in rows {
        assert_eq!(
            (&row["seeds"], &row["problems"]),
            (&2.into(), &PROBLEMS.into())
        );
    }
    let file = "nano-small+nano-prm.beam.n8.s1.jsonl";
    let lines = read(file);
    let records: Vec<Value> = (lines.lines())
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect();
    let text = read("../problems.jsonl");
    let ids: Vec<Value> = (text.lines())
        .map(|line| serde_json::from_str::<Value>(line).expect("a problem")["unique_id"].clone())
        .collect();
    let found: Vec<Value> = records.iter().map(|record| record["id"].clone()).collect();
    assert_eq!(found, ids, "not in the order of the problems");
    let of_row = |row: &&Value| {
        row["policy"] == "nano-small" && row["configuration"] == "beam" && row["n"] == 8
    };
    let row = rows.iter().find(of_row).expect("a row of beam search");
    let right = [0, 1].map(|seed| {
        let lines = read(&file.replace("s1", &format!("s{seed}")));
        let of_line = |line: &str| serde_json::from_str::<Value>(line).expect("a record");
        let right = lines
            .lines()
            .filter(|line| of_line(line)["correct"] == true);
        right.count()
    });
    let accuracy = row["accuracy"].as_f64().expect("a number");
    let expected = (right[0] + right[1]) as f64 / (2 * PROBLEMS) as f64;
    assert!((accuracy - expected).abs() < 1e-12);
    let csv = read("summary.csv");
    assert_eq!(csv.lines().count(), 1 + rows.len());
    // 16 samples of each problem for each policy: N = 8 with two seeds.
    let difficulty = read("difficulty.csv");
    assert_eq!(difficulty.lines().count(), 1 + 2 * PROBLEMS);
    assert!(difficulty.lines().skip(1).all(|line| line.contains(",16,")));
    let parquet = fs::read(folder.join("results.parquet")).expect("a table");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[test]
fn one_sweep_at_a_time_writes_a_folder() {
    let folder = scratch("sweep_lock");
    grid(&folder);
    let mut first = start(&folder, &arguments("out"));
    let patience = Instant::now() + Duration::from_secs(60);
    while records(&folder.join("out")) == 0 {
        assert!(Instant::now() < patience, "no record in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    let second = offshoot(&folder, &arguments("out"), "");
    first.kill().expect("our own run");
    first.wait().expect("our own run");
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&second.stderr),
        "error: --out out: another sweep is writing this folder\n"
    );
}

#[test]
fn times_stand_beside_the_results() {
    let folder = scratch("sweep_times");
    let flags = "sweep --limit 4 --strategies beam,majority --n 4 --timed 2 --out out --json";
    let flags: Vec<&str> = flags.split(' ').collect();
    let rows = json_of(&offshoot(&folder, &flags, ""));
    let times = fs::read_to_string(folder.join("out/timings.jsonl")).expect("times");
    // Beam search at 4; majority at 1, 2 and 4.
    assert_eq!(times.lines().count(), 4);
    for row in rows.as_array().expect("rows") {
        assert!(row["seconds"].as_f64().expect("a time") > 0.0);
        assert!(row["kv_peak_bytes"].as_u64().expect("a size") > 0);
        let scored = row["prm"] == "nano-prm";
        assert_eq!(row["prm_flops"].as_f64().expect("a number") > 0.0, scored);
    }
    // What was timed is not timed again.
    stdout_of(&offshoot(&folder, &flags, ""));
    let after = fs::read_to_string(folder.join("out/timings.jsonl")).expect("times");
    assert_eq!(after, times);
    let table = stdout_of(&offshoot(&folder, &flags[..flags.len() - 1], ""));
    assert!(table.contains("4 problems, 1 seeds"), "{table}");
}

#[test]
fn a_dry_run_says_what_it_would_take_and_writes_nothing() {
    let folder = scratch("sweep_dry");
    let flags = "sweep --dry-run --limit 40 --strategies beam,best-of-n --n 4,64 --seeds 3 --json";
    let plan = json_of(&offshoot(
        &folder,
        &flags.split(' ').collect::<Vec<_>>(),
        "",
    ));
    // Beam search at 4 and 64, best-of-N at 64 with all below.
    assert_eq!(
        (&plan["cells"], &plan["searches"]),
        (&9.into(), &360.into())
    );
    let rows = plan["configurations"].as_array().expect("rows");
    let tokens = |row: &Value| row["policy_tokens"].as_f64().expect("tokens");
    assert!((tokens(&rows[1]) / tokens(&rows[0]) - 16.0).abs() < 1e-6);
    assert!(plan["hours"].as_f64().expect("hours") > 0.0);
    let left: Vec<_> = fs::read_dir(&folder).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_sweep_that_cannot_be_is_one_sentence() {
    let folder = scratch("sweep_bad");
    let config = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    config("empty.toml", "");
    config(
        "field.toml",
        "policies = ['nano-small']\nprm = ['nano-prm']\n",
    );
    config(
        "option.toml",
        "policies = ['nano-small']\nprms = ['nano-prm']\n[[configurations]]\nstrategy = 'beam'\nbeem = 3\n",
    );
    config(
        "width.toml",
        "policies = ['nano-small']\nprms = ['nano-prm']\n[[configurations]]\nstrategy = 'beam'\nn = 6\n",
    );
    config("not.toml", "policies = [");
    config("bad.jsonl", "{}\n");
    stdout_of(&offshoot(
        &folder,
        &"sweep --limit 2 --strategies beam --n 4 --timed 0 --out there"
            .split(' ')
            .collect::<Vec<_>>(),
        "",
    ));
    for (flags, sentence) in [
        (
            "--config empty.toml --out o",
            "--config empty.toml: `policies` is empty; expected at least one",
        ),
        (
            "--config field.toml --out o",
            "--config field.toml line 2: unknown field `prm`, expected one of `problems`, `limit`, `policies`, `prms`, `seeds`, `configurations`",
        ),
        (
            "--config option.toml --out o",
            "--config option.toml: `beem` is not an option of a search",
        ),
        (
            "--config width.toml --out o",
            "--config width.toml: `n` is 6; expected a multiple of `beam_width` (4): the strategy beam keeps n / 4 branches",
        ),
        (
            "--config no.toml --out o",
            "--config no.toml: No such file or directory (os error 2)",
        ),
        (
            "--problems bad.jsonl --out o",
            "--problems bad.jsonl line 1: ",
        ),
        (
            "--limit 3 --strategies beam --n 4 --out there",
            "--out there: made with other problems (2 there, 3 here); name another folder",
        ),
        (
            "--limit 2 --strategies beam --n 8 --out there --instruction Think.",
            "--out there: made with other settings (instruction",
        ),
        (
            "--policies no-such-model --strategies cot --out o",
            "--policy is no-such-model",
        ),
    ] {
        let arguments: Vec<&str> = ["sweep"].into_iter().chain(flags.split(' ')).collect();
        let output = offshoot(&folder, &arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {stderr}");
        assert!(
            stderr.starts_with(&format!("error: {sentence}")),
            "{flags}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{flags}: {stderr}");
    }
    let both = offshoot(
        &folder,
        &["sweep", "--config", "empty.toml", "--n", "4", "--out", "o"],
        "",
    );
    assert_eq!(both.status.code(), Some(2));
}
