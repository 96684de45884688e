//! Every kernel there is: sources, specialisations, and the caps the compile gate holds them to.

use super::cubin::Compiled;
use super::tiling::Tiling;
use crate::Activation;

/// What all sources include.
pub const COMMON: (&str, &str) = ("common.cuh", include_str!("../../cuda/common.cuh"));

/// One source with its constants: a unit of compilation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// File name below `kernels/cuda`.
    pub file: &'static str,
    /// Names and values of the constants it is specialised by.
    pub constants: Vec<(&'static str, usize)>,
}

/// What must hold of a compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The function's name.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: usize,
    /// Shared memory asked for at the launch, in bytes.
    pub shared: usize,
    /// Most registers a thread may have.
    pub registers: usize,
    /// Blocks that must fit on one multiprocessor.
    pub resident: usize,
    /// Whether it must have tensor-core instructions.
    pub tensor: bool,
}

/// The row-wise operations.
pub fn rows() -> Module {
    Module {
        file: "rows.cu",
        constants: Vec::new(),
    }
}

/// The products that are not gated.
pub fn linear() -> Module {
    Module {
        file: "linear.cu",
        constants: vec![("ACTIVATION", 0)],
    }
}

/// The gated products of an activation.
pub fn linear_gated(activation: Activation) -> Module {
    // As `enum Activation` in `common.cuh`.
    let number = match activation {
        Activation::Silu => 1,
        Activation::GeluTanh => 2,
    };
    Module {
        file: "linear.cu",
        constants: vec![("ACTIVATION", number)],
    }
}

/// Sampling.
pub fn sample() -> Module {
    Module {
        file: "sample.cu",
        constants: Vec::new(),
    }
}

/// Tree attention of one head dimension.
pub fn tree_attention(tiling: &Tiling) -> Module {
    Module {
        file: "tree_attention.cu",
        constants: vec![
            ("HEAD_DIM", tiling.head_dim),
            ("SLOTS", tiling.slots),
            ("SHARED_BYTES", tiling.shared_bytes()),
            ("RESIDENT", tiling.resident),
        ],
    }
}

/// Shared memory of a skinny product of `16 mt` rows, `8 nt` columns and `stages` stages.
pub const fn skinny_shared(mt: usize, nt: usize, stages: usize) -> usize {
    stages * (16 * mt + 8 * nt) * 128 * 2
}

/// Shared memory of a tiled product.
pub const fn tiled_shared(bm: usize, bn: usize) -> usize {
    4 * (bm + bn) * 32 * 2
}

impl Module {
    /// The source.
    pub fn source(&self) -> &'static str {
        match self.file {
            "rows.cu" => include_str!("../../cuda/rows.cu"),
            "linear.cu" => include_str!("../../cuda/linear.cu"),
            "sample.cu" => include_str!("../../cuda/sample.cu"),
            "tree_attention.cu" => include_str!("../../cuda/tree_attention.cu"),
            other => unreachable!("no source {other}"),
        }
    }

    /// The file and its constants, for messages.
    pub fn title(&self) -> String {
        let constants: Vec<String> = self
            .constants
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match constants.is_empty() {
            true => self.file.into(),
            false => format!("{} {}", self.file, constants.join(" ")),
        }
    }

    /// Options of the compiler for an architecture such as `sm_90a` or `compute_80`.
    pub fn options(&self, arch: &str) -> Vec<String> {
        let mut options = vec![
            format!("-arch={arch}"),
            "-std=c++17".into(),
            "-lineinfo".into(),
        ];
        let constants = self.constants.iter();
        options.extend(constants.map(|(name, value)| format!("-D{name}={value}")));
        options
    }

    /// The kernels of this module.
    pub fn kernels(&self) -> Vec<Kernel> {
        let kernel = |name, threads, shared, registers, resident, tensor| Kernel {
            name,
            threads,
            shared,
            registers,
            resident,
            tensor,
        };
        match self.file {
            "rows.cu" => ROWS
                .iter()
                .map(|name| kernel(name, 128, 0, 64, 8, false))
                .collect(),
            "linear.cu" => {
                let variants = match self.constants[..] {
                    [("ACTIVATION", 0)] => 0..2,
                    _ => 2..3,
                };
                let mut all = Vec::new();
                for (names, mt, nt, stages, registers) in SKINNY {
                    for name in &names[variants.clone()] {
                        let shared = skinny_shared(mt, nt, stages);
                        all.push(kernel(name, 128, shared, registers, 2, true));
                    }
                }
                for (names, bm, bn) in TILED {
                    for name in &names[variants.clone()] {
                        all.push(kernel(name, 256, tiled_shared(bm, bn), 128, 1, true));
                    }
                }
                all
            }
            "sample.cu" => vec![
                kernel("sample", 512, 0, 96, 1, false),
                kernel("feed", 128, 0, 32, 16, false),
            ],
            "tree_attention.cu" => {
                let value = |name| {
                    let found = self.constants.iter().find(|c| c.0 == name);
                    found.map_or(0, |c| c.1)
                };
                vec![
                    kernel("tree_attention", 128, value("SHARED_BYTES"), 255, 1, true),
                    kernel("merge", 128, 0, 64, 8, false),
                ]
            }
            other => unreachable!("no source {other}"),
        }
    }
}

const ROWS: [&str; 27] = [
    "embed_f32",
    "embed_bf16",
    "rms_norm_f32_f32",
    "rms_norm_f32_bf16",
    "rms_norm_bf16_f32",
    "rms_norm_bf16_bf16",
    "add_rms_norm_f32_f32",
    "add_rms_norm_bf16_f32",
    "gather_f32_f32",
    "gather_f32_bf16",
    "gather_bf16_f32",
    "gather_bf16_bf16",
    "silu_f32_f32",
    "silu_f32_bf16",
    "silu_bf16_f32",
    "silu_bf16_bf16",
    "gelu_tanh_f32_f32",
    "gelu_tanh_f32_bf16",
    "gelu_tanh_bf16_f32",
    "gelu_tanh_bf16_bf16",
    "relu_f32",
    "relu_bf16",
    "qk_norm_f32",
    "qk_norm_bf16",
    "rope_and_append_f32",
    "rope_and_append_bf16",
    "copy_blocks",
];

/// Names (f32 and bf16 output, gated), row tiles of 16, column tiles of 8, stages, register cap: more,
/// and registers, not shared memory, would decide how many blocks share a multiprocessor.
pub(crate) const SKINNY: [([&str; 3], usize, usize, usize, usize); 6] = [
    (
        ["skinny_1_2_f32", "skinny_1_2_bf16", "skinny_1_2_gated"],
        1,
        2,
        4,
        80,
    ),
    (
        ["skinny_1_4_f32", "skinny_1_4_bf16", "skinny_1_4_gated"],
        1,
        4,
        4,
        96,
    ),
    (
        ["skinny_2_2_f32", "skinny_2_2_bf16", "skinny_2_2_gated"],
        2,
        2,
        4,
        112,
    ),
    (
        ["skinny_2_4_f32", "skinny_2_4_bf16", "skinny_2_4_gated"],
        2,
        4,
        4,
        112,
    ),
    (
        ["skinny_4_2_f32", "skinny_4_2_bf16", "skinny_4_2_gated"],
        4,
        2,
        3,
        144,
    ),
    (
        ["skinny_4_4_f32", "skinny_4_4_bf16", "skinny_4_4_gated"],
        4,
        4,
        3,
        160,
    ),
];

/// Names, rows and columns of a tile.
pub(crate) const TILED: [([&str; 3], usize, usize); 2] = [
    (
        ["tiled_64_64_f32", "tiled_64_64_bf16", "tiled_64_64_gated"],
        64,
        64,
    ),
    (
        [
            "tiled_128_128_f32",
            "tiled_128_128_bf16",
            "tiled_128_128_gated",
        ],
        128,
        128,
    ),
];

/// Head dimensions that the gate compiles attention for: those of published models and the nano
/// family. Others (multiples of 16 up to 256) are compiled when a model asks for them.
pub const HEAD_DIMS: [usize; 6] = [32, 64, 80, 96, 128, 256];

/// The system keeps this much shared memory of every block's share.
const RESERVED: usize = 1024;

/// What bounds a multiprocessor of an architecture (CUDA programming guide, "compute capabilities").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The compiler's name for it.
    pub name: &'static str,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_sm: usize,
    /// The most one block may have.
    pub shared_per_block: usize,
    /// Threads of a multiprocessor.
    pub threads: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

const fn architecture(
    name: &'static str,
    shared_kib: usize,
    threads: usize,
    blocks: usize,
) -> Architecture {
    Architecture {
        name,
        shared_per_sm: shared_kib << 10,
        shared_per_block: (shared_kib - 1) << 10,
        threads,
        blocks,
    }
}

/// A100, RTX 30, RTX 40, H100 and H200, B200, RTX 50.
pub const ARCHITECTURES: [Architecture; 6] = [
    architecture("sm_80", 164, 2048, 32),
    architecture("sm_86", 100, 1536, 16),
    architecture("sm_89", 100, 1536, 24),
    architecture("sm_90a", 228, 2048, 32),
    architecture("sm_100", 228, 2048, 32),
    architecture("sm_120", 100, 1536, 32),
];

impl Architecture {
    /// By the compiler's name.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    /// Everything the gate compiles for it.
    pub fn modules(&self) -> Vec<Module> {
        let attention = HEAD_DIMS
            .iter()
            .map(|&d| tree_attention(&Tiling::new(d, self.shared_per_sm, self.shared_per_block)));
        [rows(), linear(), sample()]
            .into_iter()
            .chain(Activation::ALL.map(linear_gated))
            .chain(attention)
            .collect()
    }

    /// Blocks of a kernel that fit on a multiprocessor: by registers (64 Ki, given to warps by 256),
    /// shared memory (1 KiB of each block's is the system's) and threads.
    pub fn resident(&self, kernel: &Kernel, compiled: &Compiled) -> usize {
        let warps = kernel.threads.div_ceil(32);
        let registers = (compiled.registers * 32).next_multiple_of(256) * warps;
        let shared = self.shared(kernel, compiled) + RESERVED;
        (65_536 / registers.max(1))
            .min(self.shared_per_sm / shared)
            .min(self.threads / kernel.threads)
            .min(self.blocks)
    }

    /// Bytes of shared memory of a block, the system's share aside.
    pub fn shared(&self, kernel: &Kernel, compiled: &Compiled) -> usize {
        // From sm_90 on the compiler counts the system's share as the kernel's, if it has any.
        let own = match self.name {
            "sm_80" | "sm_86" | "sm_89" => compiled.shared,
            _ => compiled.shared.saturating_sub(RESERVED),
        };
        kernel.shared + own
    }

    /// What is wrong with a compiled kernel: one sentence each.
    pub fn complaints(&self, kernel: &Kernel, compiled: &Compiled) -> Vec<String> {
        let mut all = Vec::new();
        let mut complain = |wrong: bool, what: String| all.extend(wrong.then_some(what));
        complain(
            compiled.registers == 0 || compiled.registers > kernel.registers,
            format!(
                "{} registers, the cap is {}",
                compiled.registers, kernel.registers
            ),
        );
        complain(
            compiled.stack > 0,
            format!("{} bytes of stack", compiled.stack),
        );
        complain(
            compiled.local > 0,
            format!("{} accesses to local memory", compiled.local),
        );
        complain(
            kernel.tensor != (compiled.tensor > 0),
            format!("{} tensor-core products", compiled.tensor),
        );
        let shared = self.shared(kernel, compiled);
        complain(
            shared > self.shared_per_block,
            format!("{shared} bytes of shared memory"),
        );
        // Smaller cards have room for one block of the large tiles.
        let wanted = match self.shared_per_sm >= 164 << 10 {
            true => kernel.resident,
            false => 1,
        };
        let resident = self.resident(kernel, compiled);
        complain(
            resident < wanted,
            format!("{resident} blocks fit on a multiprocessor, not {wanted}"),
        );
        all
    }
}
