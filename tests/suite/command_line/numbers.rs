//! No number panics, aborts or hangs: every numeric argument of every command, read off the
//! definition of the command line, with numbers that nobody means, while memory is held to 16 GiB.

use std::any::TypeId;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use clap::{Arg, CommandFactory};

use crate::common::{finish, offshoot, report, scratch, stdout_of};

/// The binary's own definition of its command line.
#[path = "../../../src/flags/mod.rs"]
#[allow(dead_code, unused_imports)]
mod flags;

const INTEGERS: [&str; 6] = [
    "0",
    "-1",
    "4000000000",
    "18446744073709551615",
    "99999999999999999999",
    "nan",
];

const FLOATS: [&str; 8] = ["0", "-1", "nan", "inf", "-inf", "1e308", "1e-320", "1e999"];

const TRIPLES: [&str; 3] = ["0/1/1", "4000000000/1/1", "18446744073709551615/1/1"];

/// Calls that are cheap, one for each command with numeric arguments.
const CALLS: [(&str, &[&str]); 17] = [
    (
        "solve",
        &["--problems=one.jsonl", "--n=4", "--max-tokens=48"],
    ),
    ("show", &["r.jsonl", "1"]),
    ("generate", &["--max-tokens=4", "x"]),
    ("score", &["--problem=x", "--steps=steps.txt"]),
    ("grade", &["--external=sh yes.sh", "pairs.jsonl"]),
    (
        "bench throughput",
        &[
            "nano-small",
            "--prompt=8",
            "--branches=2",
            "--generate=4",
            "--repeat=1",
            "--warm-up=0",
        ],
    ),
    (
        "bench linear",
        &["--shape=nano", "--rows=1", "--repeat=1", "--threads=1"],
    ),
    (
        "bench attention",
        &[
            "--shape=nano",
            "--prompt=16",
            "--branches=1",
            "--own=16",
            "--repeat=1",
            "--threads=1",
        ],
    ),
    (
        "bench search",
        &[
            "--problems=one.jsonl",
            "--n=4",
            "--max-tokens=48",
            "--repeat=1",
            "--warm-up=0",
        ],
    ),
    ("prm-eval", &["labelled.jsonl"]),
    (
        "sweep",
        &[
            "--dry-run",
            "--problems=one.jsonl",
            "--strategies=beam,best-of-n",
            "--n=4",
        ],
    ),
    ("plan", &["swept"]),
    // Without a binary to measure, there is nothing to wait for.
    ("bench scaling", &["--offshoot=none", "--out=scaling"]),
    // Without a card, but for the emulated one, which is slow.
    ("kernels time", &["--device=cuda:99"]),
    ("kernels check", &["--device=cuda:99"]),
    (
        "kernels predict",
        &["--card=h200", "--model=nano", "--branches=4", "--prompt=16"],
    ),
    (
        "kernels profile",
        &[
            "attention",
            "--heads=1/1/16",
            "--n=4",
            "--prompt=1",
            "--steps=1",
            "--step-tokens=1",
        ],
    ),
];

/// A numeric argument of a command, and the numbers to try.
struct Case {
    command: String,
    name: String,
    values: &'static [&'static str],
}

/// The numbers that fit the type of an argument; `None` for one that is no number.
fn values(argument: &Arg) -> Option<&'static [&'static str]> {
    let found = argument.get_value_parser().type_id();
    let is = |types: &[TypeId]| types.iter().any(|one| found == *one);
    let integers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
    ];
    if is(&integers) {
        return Some(&INTEGERS);
    }
    if is(&[TypeId::of::<f32>(), TypeId::of::<f64>()]) {
        return Some(&FLOATS);
    }
    is(&[TypeId::of::<(usize, usize, usize)>()]).then_some(&TRIPLES)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut commands = vec![(String::new(), flags::Cli::command())];
    while let Some((path, command)) = commands.pop() {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            commands.push((path.trim().into(), below.clone()));
        }
        let numeric = (command.get_arguments()).filter_map(|a| Some((a, values(a)?)));
        cases.extend(numeric.map(|(argument, values)| Case {
            command: path.clone(),
            name: match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_id().to_string(),
            },
            values,
        }));
    }
    cases
}

/// Calls the binary with one number; says what is wrong with its end.
fn attempt(folder: &Path, case: &Case, value: &str) -> Option<String> {
    let call = (CALLS.iter()).find(|(command, _)| *command == case.command);
    let Some((_, others)) = call else {
        return Some(format!(
            "{}: no cheap call of it in this test",
            case.command
        ));
    };
    let flag = format!("{}={value}", case.name);
    let same = format!("{}=", case.name);
    let mut bash = Command::new("bash");
    let script = "ulimit -v 16777216; exec timeout 100 \"$0\" \"$@\"";
    bash.current_dir(folder).args(["-c", script]);
    bash.env("HF_HUB_OFFLINE", "1");
    bash.arg(env!("CARGO_BIN_EXE_offshoot"));
    bash.args(case.command.split(' ')).arg(&flag);
    bash.args(others.iter().filter(|other| !other.starts_with(&same)));
    let output = finish(&mut bash, "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = (stderr.lines())
        .filter(|line| line.starts_with("error:"))
        .collect();
    let what = match output.status.code() {
        Some(0) if !stderr.contains("panicked") => return None,
        Some(2) if stderr.contains("panicked") => "it panicked",
        Some(2) if errors.is_empty() => "no sentence",
        // A command that cannot run here says so, whatever the number.
        Some(2) if errors.iter().any(|line| line.contains(&case.name)) => return None,
        Some(2)
            if ["kernels", "bench scaling"]
                .iter()
                .any(|c| case.command.starts_with(c)) =>
        {
            return None;
        }
        Some(2) => "the argument is not named",
        _ => "exit code 0 or 2 expected",
    };
    let status = output.status;
    Some(format!(
        "{} {flag}: {what}: {status}: {stderr:?}",
        case.command
    ))
}

#[test]
fn every_numeric_argument_survives_every_number() {
    let folder = scratch("numbers");
    let problem = r#"{"problem": "A crew has 5 books. Then 2 more come in. How many books are left?", "answer": "7"}"#;
    fs::write(folder.join("one.jsonl"), problem).expect("a file is written");
    let labelled = r#"{"problem": "1 + 1?", "steps": ["1 + 1 = 2."], "label": -1}"#;
    fs::write(folder.join("labelled.jsonl"), labelled).expect("a file is written");
    fs::write(folder.join("steps.txt"), "Step 1: 5 + 2 = 7.\n").expect("a file is written");
    let pair = r#"{"answer": "1", "prediction": "1"}"#;
    fs::write(folder.join("pairs.jsonl"), pair).expect("a file is written");
    let yes = "while read -r line; do echo '{\"correct\": true}'; done\n";
    fs::write(folder.join("yes.sh"), yes).expect("a file is written");
    let solve = "solve --problems one.jsonl --n 4 --trees --out r.jsonl";
    let solve: Vec<&str> = solve.split(' ').collect();
    stdout_of(&offshoot(&folder, &solve, ""));
    let sweep = "sweep --problems one.jsonl --strategies beam --n 4,8 --timed 0 --out swept";
    let sweep: Vec<&str> = sweep.split(' ').collect();
    stdout_of(&offshoot(&folder, &sweep, ""));

    let cases = cases();
    assert!(cases.len() > 60, "{} numeric arguments", cases.len());
    let attempts = cases
        .iter()
        .flat_map(|case| case.values.iter().map(move |v| (case, *v)));
    let (attempts, complaints) = (Mutex::new(attempts), Mutex::new(Vec::new()));
    let next = || attempts.lock().expect("no test panics here").next();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((case, value)) = next() {
                    let what = attempt(&folder, case, value);
                    complaints.lock().expect("no test panics here").extend(what);
                }
            });
        }
    });
    report(&complaints.into_inner().expect("no test panics here"));
}
