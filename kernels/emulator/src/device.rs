//! Profiles of real cards, from their published figures.

use crate::tensor::TensorCore;

/// The properties of a card that programs query and counters model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The value of `OFFSHOOT_EMULATOR_DEVICE` that selects it.
    pub word: &'static str,
    /// The name that `cuDeviceGetName` returns.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub sms: u32,
    /// Device memory in bytes.
    pub memory: u64,
    /// Second-level cache in bytes.
    pub l2: u64,
    /// Shared memory of one multiprocessor in bytes.
    pub shared_per_sm: u32,
    /// Maximum of shared memory that a block may opt in to.
    pub shared_optin: u32,
    /// Threads that can be resident on one multiprocessor.
    pub threads_per_sm: u32,
    /// Blocks that can be resident on one multiprocessor.
    pub blocks_per_sm: u32,
    /// Boost clock in kHz.
    pub clock_khz: u32,
    /// Memory clock in kHz.
    pub memory_khz: u32,
    /// Memory bus in bits.
    pub bus_bits: u32,
    /// How its tensor cores add.
    pub tensor_core: TensorCore,
}

/// The tensor cores of Ampere and Ada.
const AMPERE: TensorCore = TensorCore {
    products: 8,
    fraction_bits: 24,
};

/// The tensor cores of Hopper, and of Blackwell.
const HOPPER: TensorCore = TensorCore {
    products: 16,
    fraction_bits: 25,
};

/// All profiles. The first is the default.
pub const PROFILES: [Profile; 5] = [
    Profile {
        word: "a100",
        name: "NVIDIA A100-SXM4-80GB (emulated)",
        capability: (8, 0),
        sms: 108,
        memory: 80 << 30,
        l2: 40 << 20,
        shared_per_sm: 164 << 10,
        shared_optin: 163 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        clock_khz: 1_410_000,
        memory_khz: 1_593_000,
        bus_bits: 5120,
        tensor_core: AMPERE,
    },
    Profile {
        word: "rtx4090",
        name: "NVIDIA GeForce RTX 4090 (emulated)",
        capability: (8, 9),
        sms: 128,
        memory: 24 << 30,
        l2: 72 << 20,
        shared_per_sm: 100 << 10,
        shared_optin: 99 << 10,
        threads_per_sm: 1536,
        blocks_per_sm: 24,
        clock_khz: 2_520_000,
        memory_khz: 10_501_000,
        bus_bits: 384,
        tensor_core: AMPERE,
    },
    Profile {
        word: "h100",
        name: "NVIDIA H100 80GB HBM3 (emulated)",
        capability: (9, 0),
        sms: 132,
        memory: 80 << 30,
        l2: 50 << 20,
        shared_per_sm: 228 << 10,
        shared_optin: 227 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        clock_khz: 1_980_000,
        memory_khz: 2_619_000,
        bus_bits: 5120,
        tensor_core: HOPPER,
    },
    Profile {
        word: "h200",
        name: "NVIDIA H200 (emulated)",
        capability: (9, 0),
        sms: 132,
        memory: 141 << 30,
        l2: 50 << 20,
        shared_per_sm: 228 << 10,
        shared_optin: 227 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        clock_khz: 1_980_000,
        memory_khz: 3_201_000,
        bus_bits: 6144,
        tensor_core: HOPPER,
    },
    Profile {
        word: "b200",
        name: "NVIDIA B200 (emulated)",
        capability: (10, 0),
        sms: 148,
        memory: 180 << 30,
        l2: 126 << 20,
        shared_per_sm: 228 << 10,
        shared_optin: 227 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
        clock_khz: 1_965_000,
        memory_khz: 3_996_000,
        bus_bits: 8192,
        tensor_core: HOPPER,
    },
];

impl Profile {
    /// The profile of that name.
    pub fn by_word(word: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|p| p.word.eq_ignore_ascii_case(word))
    }

    /// Blocks of a launch that fit on one multiprocessor, by threads and shared memory.
    pub fn resident_blocks(&self, threads: u32, shared: u32) -> u32 {
        let by_threads = self.threads_per_sm / threads.next_multiple_of(32).max(32);
        // The system reserves 1 KiB of every block's shared memory.
        let by_shared = self.shared_per_sm / (shared + 1024);
        by_threads.min(by_shared).min(self.blocks_per_sm)
    }
}
