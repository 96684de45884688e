//! PTX of another compiler (Triton), loaded through the driver API from Python.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn triton_kernels_run_from_python() {
    let lib = std::env::current_exe()
        .unwrap()
        .with_file_name("libcuda.so");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/triton/drive.py");
    let out = match Command::new("python3").arg(script).arg(&lib).output() {
        Ok(out) => out,
        Err(e) => {
            eprintln!("python3 cannot be started ({e}): install Python 3 to run this test");
            std::process::exit(101);
        }
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && text.contains("3 kernels of Triton ran"),
        "{text}{errors}"
    );
    assert!(!errors.contains("leak"), "{errors}");
}
