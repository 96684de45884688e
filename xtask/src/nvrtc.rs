//! NVIDIA's run-time compiler, for the tests of the kernels and of the emulator.
//!
//! The tests compile CUDA C++ with NVIDIA's NVRTC, which runs without a GPU. It is installed from
//! PyPI's wheels, in two versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Done, metadata, run};

/// The crate whose tests need NVRTC.
const CRATE: &str = "offshoot-emulator";

/// A version of the compiler.
struct Version {
    /// The variable that names the folder of its unpacked wheels.
    variable: &'static str,
    /// The folder below `target` that they are put into without one.
    folder: &'static str,
    wheels: &'static [&'static str],
    /// Files that must be in the folder.
    needed: &'static [&'static str],
}

/// CUDA 12's, with which all tests run, and CUDA 13's, with which kernels must compile too: its
/// register allocation differs.
const VERSIONS: [Version; 2] = [
    Version {
        variable: "OFFSHOOT_NVRTC_DIR",
        folder: "nvrtc",
        wheels: &[
            "nvidia-cuda-nvrtc-cu12==12.9.86",
            "nvidia-cuda-runtime-cu12==12.9.79",
            // Headers: libcu++ and what cooperative_groups needs of it, and crt/mma.h.
            "nvidia-cuda-cccl-cu12==12.9.27",
            "nvidia-cuda-nvcc-cu12==12.9.86",
        ],
        needed: &[
            "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "nvidia/cuda_runtime/include/cuda_runtime.h",
            "nvidia/cuda_cccl/include/nv/target",
            "nvidia/cuda_nvcc/include/crt/mma.h",
        ],
    },
    Version {
        variable: "OFFSHOOT_NVRTC13_DIR",
        folder: "nvrtc13",
        wheels: &["nvidia-cuda-nvrtc==13.5.37"],
        needed: &["nvidia/cu13/lib/libnvrtc.so.13"],
    },
];

/// The variables that name the folders of both versions, downloaded where they are missing; none if
/// no member needs them.
pub fn install_if_needed() -> Done<Vec<(&'static str, PathBuf)>> {
    let metadata = metadata::read()?;
    if !metadata::is_member(&metadata, CRATE) {
        return Ok(Vec::new());
    }
    let target = metadata::target(&metadata);
    (VERSIONS.iter())
        .map(|version| Ok((version.variable, version.folder(&target)?)))
        .collect()
}

impl Version {
    /// Its folder, with everything that is needed in it.
    fn folder(&self, target: &Path) -> Done<PathBuf> {
        if let Some(dir) = std::env::var_os(self.variable) {
            let dir = PathBuf::from(dir);
            return match self.missing(&dir) {
                None => Ok(dir),
                Some(file) => Err(format!(
                    "{}: {} is not there",
                    self.variable,
                    file.display()
                )),
            };
        }
        let dir = target.join(self.folder);
        if self.missing(&dir).is_some() {
            self.install(&dir)?;
        }
        match self.missing(&dir) {
            None => Ok(dir),
            Some(file) => Err(format!("{}: not in the wheels", file.display())),
        }
    }

    fn missing(&self, dir: &Path) -> Option<PathBuf> {
        let files = self.needed.iter().map(|file| dir.join(file));
        files.into_iter().find(|file| !file.exists())
    }

    fn install(&self, dir: &Path) -> Done {
        let wheels = dir.join("wheels");
        run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(&wheels)
            .args(self.wheels))?;
        let files = std::fs::read_dir(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))?;
        for file in files.flatten() {
            run(Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(file.path())
                .arg(dir))?;
        }
        std::fs::remove_dir_all(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))
    }
}
