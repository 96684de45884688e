//! What the CUDA tests share: the emulator built and opened, NVRTC found or the test ended.
#![allow(dead_code, clippy::unwrap_used)] // Not every test uses all; a failed step fails the test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use offshoot_kernels::cuda::{Compiler, CublasLtLibrary, CudaBackend, Which};

/// The target folder this test was built into: target/<profile>/deps/<test>.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    exe.ancestors().nth(3).expect("three folders up").to_owned()
}

/// NVRTC, or the end of the test run with one line, past the harness, which would keep it to
/// itself.
pub fn compiler() -> Compiler {
    Compiler::find().unwrap_or_else(|why| {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{why}");
        std::process::exit(101);
    })
}

/// Builds the emulator's library; cargo leaves it beside the tests, where the device layer looks.
fn build_emulator() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let exe = std::env::current_exe().expect("a test knows its own path");
        let profile = exe.ancestors().nth(2).and_then(|dir| dir.file_name());
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "offshoot-emulator"]);
        cargo.args(["-p", "offshoot-emulator-cublaslt"]);
        if profile.is_some_and(|name| name == "release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(target());
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(
            status.is_ok_and(|s| s.success()),
            "the emulator cannot be built"
        );
    });
}

/// The emulator's cuBLASLt, beside the tests.
pub fn cublaslt() -> CublasLtLibrary {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let target = exe.ancestors().nth(2).expect("two folders up");
    CublasLtLibrary::load(&target.join("libcublasLt.so")).unwrap()
}

/// The emulated device, for one test at a time: a fault ends the context for all of the process,
/// and its calls are counted. The guard comes first because a pattern's last binding is dropped
/// first: the next test must not begin while this one's backend still frees its memory.
pub fn emulated() -> (MutexGuard<'static, ()>, CudaBackend) {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    build_emulator();
    let _ = compiler();
    (guard, CudaBackend::open(Which::Emulated).unwrap())
}
