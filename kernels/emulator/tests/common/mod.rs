//! What the tests share: where NVRTC is, compiling with it, and the built library.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Once;

/// The target folder this test was built into.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    exe.ancestors()
        .nth(3)
        .expect("a test lies three folders below target")
        .to_owned()
}

/// The folder of the unpacked wheels.
pub fn nvrtc_dir() -> PathBuf {
    std::env::var_os("OFFSHOOT_NVRTC_DIR").map_or_else(|| target().join("nvrtc"), PathBuf::from)
}

fn open(path: &Path) {
    let c =
        std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("no zero byte in a path");
    // SAFETY: loading a shared library that this workspace or NVIDIA built.
    let handle = unsafe { libc::dlopen(c.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    assert!(!handle.is_null(), "{} cannot be loaded", path.display());
}

/// Ends the test run with one line, past the harness, which would keep it to itself.
pub fn give_up(why: &str) -> ! {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{why}");
    std::process::exit(101);
}

/// Loads NVRTC, or ends the test with the line that says what to install.
pub fn need_nvrtc() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lib = nvrtc_dir().join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
        let headers = nvrtc_dir().join("nvidia/cuda_cccl/include/nv/target");
        if !lib.exists() || !headers.exists() {
            give_up(&format!(
                "NVRTC and its headers are not at {}: pip download --no-deps nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12 nvidia-cuda-cccl-cu12 nvidia-cuda-nvcc-cu12 and unzip the wheels into {} (or set OFFSHOOT_NVRTC_DIR)",
                nvrtc_dir().display(),
                nvrtc_dir().display()
            ));
        }
        open(&lib);
    });
}

/// Loads the emulator under its SONAME, so that cudarc finds it as `libcuda.so`.
pub fn need_driver() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let exe = std::env::current_exe().expect("a test knows its own path");
        open(&exe.with_file_name("libcuda.so"));
    });
}

/// CUDA C++ to PTX by the real compiler.
pub fn compile_with(source: &str, options: &[&str]) -> String {
    need_nvrtc();
    let mut all = vec!["-lineinfo".to_owned(), "-std=c++17".to_owned()];
    all.extend(options.iter().map(|o| (*o).to_owned()));
    let opts = cudarc::nvrtc::CompileOptions {
        arch: Some("compute_80"),
        include_paths: ["cuda_runtime", "cuda_cccl", "cuda_nvcc"]
            .map(|wheel| nvrtc_dir().join("nvidia").join(wheel).join("include"))
            .map(|path| path.to_string_lossy().into_owned())
            .to_vec(),
        options: all,
        name: Some("kernel.cu".to_owned()),
        ..Default::default()
    };
    match cudarc::nvrtc::compile_ptx_with_opts(source, opts) {
        Ok(ptx) => ptx.to_src(),
        Err(e) => panic!("NVRTC: {e:?}"),
    }
}

/// As [`compile_with`], without options.
pub fn compile(source: &str) -> String {
    compile_with(source, &[])
}

/// A device with its checks on.
pub fn gpu() -> cuda::Gpu {
    cuda::Gpu::new(cuda::Options::default()).expect("address space for a device")
}

/// Bytes of a slice of numbers.
pub fn bytes<T: Copy>(v: &[T]) -> &[u8] {
    // SAFETY: only called with plain numbers, which have no padding.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), std::mem::size_of_val(v)) }
}

/// A buffer on the device that holds `v`.
pub fn upload<T: Copy>(gpu: &cuda::Gpu, v: &[T]) -> u64 {
    let at = gpu
        .alloc(std::mem::size_of_val(v) as u64)
        .expect("room on the device");
    assert!(gpu.write(at, bytes(v)));
    at
}

/// What the device holds at `at`.
pub fn download<T: Copy + Default>(gpu: &cuda::Gpu, at: u64, n: usize) -> Vec<T> {
    let mut v = vec![T::default(); n];
    // SAFETY: as for `bytes`.
    let raw = unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), n * size_of::<T>()) };
    assert!(gpu.read(at, raw));
    v
}

/// A reproducible stream of numbers.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits (splitmix64).
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A float in -1 .. 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
