//! Flags of the device and of drawing a token.

use clap::Args;
use kernels::cpu::Isa;
use kernels::{KvDtype, Quantization};
use session::device::{KV_DTYPES, kv_dtype_word};
use session::{Device, EngineOptions};
use strategies::{ContextOverflow, Sampling};

use super::{words, words_with};

/// Flags of the device and its memory.
#[derive(Args, Debug)]
pub struct EngineFlags {
    /// Where models run: auto (the first CUDA card, else the CPU), cpu, cuda, cuda:INDEX, or
    /// emulated (the CUDA kernels on an emulated card: slow, for checking and counting them).
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = device)]
    pub device: Device,
    /// Threads of the CPU backend; 0 takes every core.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub threads: usize,
    /// Instruction set of the CPU backend: portable, avx2, avx-512 or amx. Default: the best the CPU has.
    /// avx2 and avx-512 draw the same tokens; amx rounds differently.
    #[arg(long, value_name = "SET", value_parser = Isa::parse)]
    pub isa: Option<Isa>,
    /// Memory for the KV cache of all models of a device together, in MiB. Default: on a CUDA card what
    /// --gpu-memory-fraction leaves beside the weights, else 1024, committed as it is used.
    #[arg(long, value_name = "MIB")]
    pub kv_memory: Option<f64>,
    /// How much of a CUDA card's free memory weights, activations and KV cache may take, allocated at
    /// the start; the rest is for plans, scratch memory and other programs. Default: 0.9, and 0.5 on a
    /// card that shares the host's memory.
    #[arg(long, value_name = "FRACTION")]
    pub gpu_memory_fraction: Option<f64>,
    /// Tokens in a KV block.
    #[arg(long, default_value_t = 16, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub block_tokens: u32,
    /// Storage of the KV cache; as the weights unless given.
    #[arg(long, value_parser = words(&KV_DTYPES, kv_dtype_word), value_name = "DTYPE")]
    pub kv_dtype: Option<KvDtype>,
    /// Keep the weights of linear layers in 8 or 4 bits, in groups of 32. Embeddings, norms and PRM
    /// heads stay as they are. Only on the CPU.
    #[arg(long, value_parser = words(&Quantization::ALL, Quantization::name), value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Rows of one model in one batch. Default: 512 on the CPU, 2048 on a card.
    #[arg(long, alias = "max-rows", value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_batch_rows: Option<u32>,
    /// Sequences of one model that decode in one batch: the oldest. Default: as many as raise the
    /// device's throughput.
    #[arg(long, value_name = "SEQUENCES", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_num_seqs: Option<u32>,
    /// What to do when a sequence exceeds the model's context length: truncate (the solution ends
    /// there; a PRM gives later steps its last score), extend (compute up to eight times as many
    /// tokens) or refuse (the problem fails).
    #[arg(
        long,
        alias = "past-limit",
        default_value = "truncate",
        value_parser = words_with(&ContextOverflow::ALL, ContextOverflow::name, &[("run-on", "extend")]),
        value_name = "HOW"
    )]
    pub context_overflow: ContextOverflow,
}

/// Reads a device's word.
pub(super) fn device(word: &str) -> Result<Device, String> {
    word.parse()
        .map_err(|setting: session::Setting| format!("expected {}", setting.expected))
}

impl EngineFlags {
    /// The device these flags describe.
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            device: self.device,
            threads: self.threads,
            isa: self.isa,
            kv_memory: self.kv_memory,
            gpu_memory_fraction: self.gpu_memory_fraction,
            block_tokens: self.block_tokens as usize,
            kv_dtype: self.kv_dtype,
            quantize: self.quantize,
            max_batch_rows: self.max_batch_rows.map(|rows| rows as usize),
            max_num_seqs: self.max_num_seqs.map(|sequences| sequences as usize),
            context_overflow: self.context_overflow,
        }
    }
}

/// Flags of drawing a token.
#[derive(Args, Debug)]
pub struct SamplingFlags {
    /// Divides the logits; 0 takes the most likely token. Default: 0 for cot and generate, else
    /// 0.7.
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Keep the K most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose probabilities reach P.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f32,
    /// Keep tokens at least P times as likely as the most likely one.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub min_p: f32,
    /// Make tokens already present less likely; 1 is off.
    #[arg(long, default_value_t = 1.0, value_name = "PENALTY")]
    pub repetition_penalty: f32,
}

impl SamplingFlags {
    /// The distribution, with this temperature unless one is given.
    pub fn sampling(&self, temperature: f32) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }
}
