//! Entry points by name, and the counters' way out.

use super::{api, code, put, put_opt, text};
use crate::gpu::Gpu;
use std::ffi::{c_char, c_int, c_void};

/// Finds an entry point by its plain or versioned name.
fn find(name: &str) -> Option<*const c_void> {
    let tables = [
        super::context::table(),
        super::graph::table(),
        super::launch::table(),
        super::memory::table(),
        super::module::table(),
        super::stream::table(),
        table(),
    ];
    let all: Vec<(&str, *const c_void)> = tables.into_iter().flatten().collect();
    let exact = |n: &str| all.iter().find(|e| e.0 == n).map(|e| e.1);
    // A plain name means the newest version that is there.
    exact(name).or_else(|| exact(&format!("{name}_v2")))
}

/// Writes `OFFSHOOT_EMULATOR_COUNTERS` and the table beside it.
pub fn write_counters(gpu: &Gpu) {
    let Ok(path) = std::env::var("OFFSHOOT_EMULATOR_COUNTERS") else {
        return;
    };
    for (path, body) in [
        (path.clone(), gpu.counters_json()),
        (format!("{path}.txt"), gpu.counters_table()),
    ] {
        if let Err(e) = std::fs::write(&path, body) {
            eprintln!("offshoot-emulator: cannot write counters to {path}: {e}");
        }
    }
}

/// For programs that never end their context.
extern "C" fn at_exit() {
    let gpu = super::state::lock().gpu.clone();
    if let Some(gpu) = gpu.filter(|g| g.options_counters()) {
        write_counters(&gpu);
    }
}

/// Asks for [`at_exit`] once.
pub fn register_exit() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: `at_exit` is a plain function without arguments.
        unsafe { libc::atexit(at_exit) };
    });
}

fn address(name: *const c_char, out: *mut *const c_void) -> super::Cu<bool> {
    let found = find(text(name)?);
    put(out, found.unwrap_or(std::ptr::null()))?;
    Ok(found.is_some())
}

api! {
    fn cuGetProcAddress(name: *const c_char, out: *mut *const c_void, _version: c_int, _flags: u64) {
        if address(name, out)? { Ok(()) } else { Err(code::NOT_FOUND) }
    }
    fn cuGetProcAddress_v2(name: *const c_char, out: *mut *const c_void, _version: c_int, _flags: u64, status: *mut c_int) {
        let found = address(name, out)?;
        put_opt(status, if found { 0 } else { 1 });
        if found { Ok(()) } else { Err(code::NOT_FOUND) }
    }
    fn cuProfilerStart() {
        Ok(())
    }
    fn cuProfilerStop() {
        Ok(())
    }
}
