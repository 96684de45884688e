//! Entry points by name, and the output of the counters.

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
        super::nodes::table(),
        super::stream::table(),
        table(),
    ];
    let all: Vec<(&str, *const c_void)> = tables.into_iter().flatten().collect();
    let exact = |n: &str| all.iter().find(|e| e.0 == n).map(|e| e.1);
    // A plain name stands for the newest version that exists.
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

/// Registers [`at_exit`] once.
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

/// Copies text to the caller: as much as fits into `len` bytes with a terminating zero. Returns the
/// bytes of the whole text with that zero.
fn hand_out(text: &str, to: *mut c_char, len: usize) -> usize {
    for (i, b) in text.bytes().chain([0]).take(len).enumerate() {
        put_opt(
            to.wrapping_add(i),
            if i + 1 == len { 0 } else { b as c_char },
        );
    }
    text.len() + 1
}

api! {
    /// Starts counting from nothing, with an empty L2 (`on` not 0), or stops. Needs no environment
    /// variable.
    fn offshoot_emulator_count(on: c_int) {
        let mut s = super::state::ready()?;
        s.device()?.count(on != 0);
        Ok(())
    }
    /// Counts the traffic of `bytes` at `from` also under `name`, in later launches. The same name
    /// again moves the range; 0 bytes remove it.
    fn offshoot_emulator_name_range(name: *const c_char, from: u64, bytes: u64) {
        let name = text(name)?;
        let mut s = super::state::ready()?;
        s.device()?.name_range(name, from, bytes);
        Ok(())
    }
    /// The counts as JSON: as much as fits into `len` bytes at `to` with a terminating zero.
    /// `needed` takes the bytes of the whole with that zero; `to` may be null to query it.
    fn offshoot_emulator_counters(to: *mut c_char, len: usize, needed: *mut usize) {
        let mut s = super::state::ready()?;
        put_opt(needed, hand_out(&s.device()?.counters_json(), to, if to.is_null() { 0 } else { len }));
        Ok(())
    }
    /// Writes the files of `OFFSHOOT_EMULATOR_COUNTERS` now.
    fn offshoot_emulator_write_counters() {
        let mut s = super::state::ready()?;
        write_counters(&*s.device()?);
        Ok(())
    }
    /// How often the entry point `name` (as it is exported: `cuMemAlloc_v2`) has been called since
    /// the library was loaded.
    fn offshoot_emulator_calls(name: *const c_char, out: *mut u64) {
        put(out, super::calls(text(name)?))
    }
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
