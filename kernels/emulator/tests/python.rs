//! PTX of another compiler (Triton), loaded through the driver API from Python, and what the
//! environment changes.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

/// Runs the script with some environment; its stderr.
fn drive(env: &[(&str, &str)], arguments: &[&str]) -> (bool, String) {
    let lib = std::env::current_exe()
        .unwrap()
        .with_file_name("libcuda.so");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/triton/drive.py");
    let out = Command::new("python3")
        .arg(script)
        .arg(&lib)
        .args(arguments)
        .envs(env.iter().copied())
        .output();
    let out = match out {
        Ok(out) => out,
        Err(e) => common::give_up(&format!(
            "python3 cannot be started ({e}): install Python 3 to run this test"
        )),
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    (
        out.status.success() && text.contains("3 kernels of Triton ran"),
        format!("{text}{errors}"),
    )
}

#[test]
fn triton_kernels_run_and_leave_nothing() {
    let (ok, text) = drive(&[], &[]);
    assert!(ok && !text.contains("leak"), "{text}");
    let (ok, text) = drive(
        &[
            ("OFFSHOOT_EMULATOR_DEVICE", "h200"),
            ("OFFSHOOT_EMULATOR_CHECKS", "none"),
            ("OFFSHOOT_EMULATOR_SEED", "3"),
        ],
        &[],
    );
    assert!(ok, "{text}");
}

#[test]
fn what_is_not_freed_is_reported_when_the_context_ends() {
    let (ok, text) = drive(&[], &["leak"]);
    assert!(ok && text.contains("leak: 8 allocations, "), "{text}");
}

#[test]
fn counters_are_written_and_two_runs_agree() {
    let path = std::env::temp_dir().join(format!("offshoot-counters-{}.json", std::process::id()));
    let name = path.to_string_lossy().into_owned();
    let read = || {
        let (ok, text) = drive(&[("OFFSHOOT_EMULATOR_COUNTERS", &name)], &[]);
        assert!(ok, "{text}");
        (
            std::fs::read_to_string(&path).unwrap(),
            std::fs::read_to_string(format!("{name}.txt")).unwrap(),
        )
    };
    let (json, table) = read();
    assert_eq!((json.clone(), table.clone()), read());
    // 64 x 64 x 96 products, every one of them useful.
    assert!(
        json.contains("\"tensor_products\": 393216, \"tensor_useful\": 393216"),
        "{json}"
    );
    assert!(table.contains("softmax"), "{table}");
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(format!("{name}.txt")).unwrap();
}

#[test]
fn a_wrong_option_is_named() {
    for (name, value, words) in [
        (
            "OFFSHOOT_EMULATOR_DEVICE",
            "gtx1",
            "expected one of a100, rtx4090, h100, h200, b200",
        ),
        ("OFFSHOOT_EMULATOR_CHECKS", "some", "expected all or none"),
        (
            "OFFSHOOT_EMULATOR_DRIVER",
            "10.0",
            "expected one of 11.8, 12.4, 12.9, 13.0",
        ),
        (
            "OFFSHOOT_EMULATOR_THREADS",
            "0",
            "expected a number above 0",
        ),
        ("OFFSHOOT_EMULATOR_MMA", "rz", "expected exact or card"),
    ] {
        let (ok, text) = drive(&[(name, value)], &[]);
        assert!(
            !ok && text.contains(&format!("{name} is \"{value}\", {words}")),
            "{text}"
        );
    }
}
