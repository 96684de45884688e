//! The limits of each architecture's multiprocessor, and the check of a kernel compiled for it.

use super::{Kernel, Module, card, linear, linear_gated, rows, sample, tree_attention};
use crate::Activation;
use crate::cuda::cubin::Compiled;
use crate::cuda::tiling::{SYSTEM_SHARED, Tiling};

/// Head dimensions that the gate compiles attention for: those of published models and the nano
/// family. Others (multiples of 16 up to 256) are compiled when a model needs them.
pub const HEAD_DIMS: [usize; 6] = [32, 64, 80, 96, 128, 256];

/// The limits of a multiprocessor (CUDA programming guide, "compute capabilities").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The compiler's name for it: [`architecture_name`] of its compute capability.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_sm: usize,
    /// Shared memory of one block at most, in bytes.
    pub shared_per_block: usize,
    /// Threads of a multiprocessor.
    pub threads: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

const fn architecture(
    name: &'static str,
    capability: (i32, i32),
    shared_kib: usize,
    threads: usize,
    blocks: usize,
) -> Architecture {
    Architecture {
        name,
        capability,
        shared_per_sm: shared_kib << 10,
        shared_per_block: (shared_kib - 1) << 10,
        threads,
        blocks,
    }
}

/// The compiler's name for the architecture of a compute capability, for the gate, for
/// `offshoot kernels compile` and for what a card runs alike: one name, so that a cache that was
/// filled ahead of time is hit, and what runs is what the gate saw. Hopper's `a` admits its
/// instructions for warpgroups, which no other architecture has.
pub fn architecture_name((major, minor): (i32, i32)) -> String {
    match (major, minor) {
        (9, 0) => "sm_90a".into(),
        _ => format!("sm_{major}{minor}"),
    }
}

/// A100, RTX 30, RTX 40, H100 and H200, B200, RTX 50.
pub const ARCHITECTURES: [Architecture; 6] = [
    architecture("sm_80", (8, 0), 164, 2048, 32),
    architecture("sm_86", (8, 6), 100, 1536, 16),
    architecture("sm_89", (8, 9), 100, 1536, 24),
    architecture("sm_90a", (9, 0), 228, 2048, 32),
    architecture("sm_100", (10, 0), 228, 2048, 32),
    architecture("sm_120", (12, 0), 100, 1536, 32),
];

impl Architecture {
    /// The architecture of that name.
    pub fn find(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|a| a.name == name)
    }

    /// All modules that the gate compiles for it.
    pub fn modules(&self) -> Vec<Module> {
        let attention = HEAD_DIMS
            .iter()
            .map(|&d| tree_attention(&Tiling::new(d, self.shared_per_sm, self.shared_per_block)));
        [rows(), linear(), sample(), card()]
            .into_iter()
            .chain(Activation::ALL.map(linear_gated))
            .chain(attention)
            .collect()
    }

    /// Blocks of a kernel that fit on a multiprocessor: by registers (64 Ki, allocated to warps in
    /// units of 256), shared memory (1 KiB of each block is the system's) and threads.
    pub fn resident(&self, kernel: &Kernel, compiled: &Compiled) -> usize {
        let warps = kernel.threads.div_ceil(32);
        let registers = (compiled.registers * 32).next_multiple_of(256) * warps;
        let shared = self.shared(kernel, compiled) + SYSTEM_SHARED;
        (65_536 / registers.max(1))
            .min(self.shared_per_sm / shared)
            .min(self.threads / kernel.threads)
            .min(self.blocks)
    }

    /// Shared memory of a block in bytes, without the system's.
    pub fn shared(&self, kernel: &Kernel, compiled: &Compiled) -> usize {
        // From sm_90 on the compiler counts the system's share as the kernel's, if it has any.
        let fixed = match self.name {
            "sm_80" | "sm_86" | "sm_89" => compiled.shared,
            _ => compiled.shared.saturating_sub(SYSTEM_SHARED),
        };
        kernel.shared.unwrap_or(0) + fixed
    }

    /// What is wrong with a compiled kernel: one sentence each.
    pub fn complaints(&self, kernel: &Kernel, compiled: &Compiled) -> Vec<String> {
        let mut all = Vec::new();
        let mut complain = |wrong: bool, what: String| all.extend(wrong.then_some(what));
        let (registers, cap) = (compiled.registers, kernel.registers);
        complain(
            registers == 0 || registers > cap,
            format!("{registers} registers, the cap is {cap}"),
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
            format!("{} tensor-core instructions", compiled.tensor),
        );
        let shared = self.shared(kernel, compiled);
        complain(
            shared > self.shared_per_block,
            format!("{shared} bytes of shared memory"),
        );
        // Smaller cards have room for one block of the large tiles.
        let large = self.shared_per_sm >= 164 << 10;
        let wanted = if large { kernel.resident } else { 1 };
        let resident = self.resident(kernel, compiled);
        complain(
            resident < wanted,
            format!("{resident} blocks fit on a multiprocessor, not {wanted}"),
        );
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_compiles_for_what_cards_ask_for() {
        for architecture in ARCHITECTURES {
            assert_eq!(
                architecture_name(architecture.capability),
                architecture.name
            );
        }
        assert_eq!(architecture_name((12, 1)), "sm_121");
    }
}
