//! A CUDA driver in software: runs, checks and counts real PTX without a GPU.
//!
//! Built as `libcuda.so` it replaces the driver: a program that uses the driver API (cudarc,
//! ctypes) loads it unchanged. It executes the PTX of NVRTC or another compiler, one warp at a
//! time; it checks every access as a sanitizer does and counts as a profiler does. `README.md`
//! lists its checks, counts and refusals.
//!
//! Modules, each of which uses only those before it: `types`, `float` and `tensor` (how a card's
//! tensor cores add); `ptx` (text to tree);
//! `memory`; `checks`; `counters` and `machine` (registers, warps, blocks, launches); `lower` (the
//! types that decoders work with); `isa` (the instructions); `decode` (a kernel's calls and control
//! flow); `gpu` (a device); `driver` (the C interface). One circle is left: counters read the
//! classes of a program, and the machine feeds the counters.
//!
//! ```
//! use cuda::{Gpu, Options, Shape};
//! let gpu = Gpu::new(Options::default())?;
//! let module = gpu.load(
//!     ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry put(.param .u64 p) {\n\
//!      .reg .b64 %rd<2>; .reg .b32 %r<2>;\n ld.param.u64 %rd1, [p];\n mov.u32 %r1, 7;\n st.global.u32 [%rd1], %r1;\n ret; }",
//! )?;
//! let kernel = module.kernel("put")?;
//! let at = gpu.alloc(4).ok_or("full")?;
//! gpu.launch(&kernel, Shape::line(1, 1), kernel.pack(&[&at.to_le_bytes()])?)?;
//! let mut out = [0; 4];
//! assert!(gpu.read(at, &mut out));
//! assert_eq!(u32::from_le_bytes(out), 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checks;
mod counters;
mod decode;
mod device;
mod driver;
mod float;
mod gpu;
mod isa;
mod lower;
mod machine;
mod memory;
mod ptx;
mod simd;
mod tensor;
mod types;

pub use checks::{FaultKind, Report};
pub use device::{PROFILES, Profile};
pub use gpu::{Accumulation, Gpu, Kernel, LaunchError, Module, Options, Shape};
pub use ptx::PtxError;
pub use tensor::TensorCore;

/// Every opcode the emulator supports.
pub fn opcodes() -> Vec<&'static str> {
    isa::opcodes().collect()
}
