//! `offshoot devices`: what models can run on, and what is missing for the rest.

use kernels::cuda::{self, Compiler, CublasLtLibrary, NVRTC_INSTALL};
use kernels::{Backend, CpuBackend};
use serde::Serialize;

use super::{print, print_json};
use crate::error::{Done, Failure};
use crate::flags::DevicesFlags;

/// One device.
#[derive(Serialize)]
struct Entry {
    /// The word for `--device`.
    device: String,
    /// What it is.
    name: String,
    /// Bytes of its memory, if it has its own.
    memory: Option<usize>,
    /// Why it cannot be used, and what would help.
    missing: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    devices: Vec<Entry>,
    /// The run-time compiler's file and version.
    nvrtc: Option<String>,
    /// The library of GEMMs on cards: its file and version.
    cublaslt: Option<String>,
    /// Where compiled kernels are kept.
    kernel_cache: Option<String>,
}

/// Runs the command.
pub fn run(flags: &DevicesFlags) -> Done {
    let compiler = Compiler::find();
    let no_compiler = compiler.as_ref().err().cloned();
    let mut devices = vec![Entry {
        device: "cpu".into(),
        name: CpuBackend::new(0).name(),
        memory: None,
        missing: None,
    }];
    match cuda::cards() {
        Ok(cards) => devices.extend(cards.into_iter().map(|card| {
            let (major, minor) = card.capability;
            Entry {
                device: format!("cuda:{}", card.index),
                name: format!("{}, compute capability {major}.{minor}", card.name),
                memory: Some(card.memory),
                missing: card.unfit.or_else(|| no_compiler.clone()),
            }
        })),
        Err(why) => devices.push(Entry {
            device: "cuda".into(),
            name: "an NVIDIA card".into(),
            memory: None,
            missing: Some(why),
        }),
    }
    devices.push(Entry {
        device: "emulated".into(),
        name: "the CUDA kernels on an emulated card".into(),
        memory: None,
        missing: cuda::emulator().err().or(no_compiler),
    });
    let cublaslt = CublasLtLibrary::find(false, cuda::driver_version()).map_err(Failure::new)?;
    let printed = Printed {
        devices,
        cublaslt: cublaslt.map(|library| {
            let (major, minor, patch) = library.version();
            format!("{} ({major}.{minor}.{patch})", library.path().display())
        }),
        nvrtc: compiler.ok().map(|compiler| {
            let (major, minor) = compiler.version();
            format!("{} ({major}.{minor})", compiler.path().display())
        }),
        kernel_cache: cuda::cache_folder().map(|dir| dir.display().to_string()),
    };
    match flags.json {
        true => print_json(&printed),
        false => print(&render(&printed)),
    }
}

fn render(printed: &Printed) -> String {
    let mut text = String::new();
    for entry in &printed.devices {
        text += &format!("{:<9} {}", entry.device, entry.name);
        if let Some(memory) = entry.memory {
            text += &format!(", {:.1} GiB", memory as f64 / f64::from(1 << 30));
        }
        text.push('\n');
        if let Some(why) = &entry.missing {
            text += &format!("          not usable: {why}\n");
        }
    }
    match &printed.nvrtc {
        Some(nvrtc) => text += &format!("NVRTC     {nvrtc}\n"),
        None => text += &format!("NVRTC     not found; to install it: {NVRTC_INSTALL}\n"),
    }
    match &printed.cublaslt {
        Some(cublaslt) => text += &format!("cuBLASLt  {cublaslt}: GEMMs of many rows\n"),
        None => {
            text +=
                "cuBLASLt  not found, and not needed: linear layers run on Offshoot's own kernels\n"
        }
    }
    if let Some(folder) = &printed.kernel_cache {
        text += &format!("kernels   kept in {folder}\n");
    }
    text
}
