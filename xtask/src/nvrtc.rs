//! NVIDIA's run-time compiler, for the tests of the emulator crate.
//!
//! The tests compile CUDA C++ with NVIDIA's NVRTC, which runs without a GPU. It is installed from
//! four PyPI wheels, of the CUDA version of the crate's bindings.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Done, metadata, run};

/// The variable that names the folder of the unpacked wheels.
pub const DIR_VARIABLE: &str = "OFFSHOOT_NVRTC_DIR";

/// The crate whose tests need NVRTC.
const CRATE: &str = "offshoot-emulator";

const WHEELS: [&str; 4] = [
    "nvidia-cuda-nvrtc-cu12==12.9.86",
    "nvidia-cuda-runtime-cu12==12.9.79",
    // Headers: libcu++ and what cooperative_groups needs of it, and crt/mma.h.
    "nvidia-cuda-cccl-cu12==12.9.27",
    "nvidia-cuda-nvcc-cu12==12.9.86",
];

/// Files that must be in the folder.
const NEEDED: [&str; 4] = [
    "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
    "nvidia/cuda_runtime/include/cuda_runtime.h",
    "nvidia/cuda_cccl/include/nv/target",
    "nvidia/cuda_nvcc/include/crt/mma.h",
];

/// The folder with NVRTC, downloaded if it is not there; `None` if no member needs it.
pub fn install_if_needed() -> Done<Option<PathBuf>> {
    let metadata = metadata::read()?;
    if !metadata::is_member(&metadata, CRATE) {
        return Ok(None);
    }
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        let dir = PathBuf::from(dir);
        return match missing(&dir) {
            None => Ok(Some(dir)),
            Some(file) => Err(format!("{DIR_VARIABLE}: {} is not there", file.display())),
        };
    }
    let dir = metadata::target(&metadata).join("nvrtc");
    if missing(&dir).is_some() {
        install(&dir)?;
    }
    match missing(&dir) {
        None => Ok(Some(dir)),
        Some(file) => Err(format!("{}: not in the wheels", file.display())),
    }
}

fn missing(dir: &Path) -> Option<PathBuf> {
    let files = NEEDED.iter().map(|file| dir.join(file));
    files.into_iter().find(|file| !file.exists())
}

fn install(dir: &Path) -> Done {
    let wheels = dir.join("wheels");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(&wheels)
        .args(WHEELS))?;
    let files = std::fs::read_dir(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))?;
    for file in files.flatten() {
        run(Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(file.path())
            .arg(dir))?;
    }
    std::fs::remove_dir_all(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))
}
