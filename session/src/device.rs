//! Devices in words, and the backend that a word means.

use std::fmt;
use std::str::FromStr;

use engine::{DeviceModels, ModelSpec, Setting};
use kernels::cpu::Isa;
use kernels::cuda::Which;
use kernels::{Backend, CpuBackend, CudaBackend, Dtype, KvDtype, Quantization};
use strategies::ContextOverflow;

use crate::Error;

/// A device by its word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// `auto`: the first CUDA card if there is one, else the CPU.
    #[default]
    Auto,
    /// `cpu`.
    Cpu,
    /// `cuda` or `cuda:INDEX`: an NVIDIA card.
    Cuda(usize),
    /// `emulated`: the CUDA kernels on an emulated card.
    Emulated,
}

impl FromStr for Device {
    type Err = Setting;

    fn from_str(word: &str) -> Result<Device, Setting> {
        let index = |index: &str| index.parse().ok().map(Device::Cuda);
        match word {
            "auto" => Some(Device::Auto),
            "cpu" => Some(Device::Cpu),
            "cuda" => Some(Device::Cuda(0)),
            "emulated" => Some(Device::Emulated),
            _ => word.strip_prefix("cuda:").and_then(index),
        }
        .ok_or_else(|| {
            let expected = "auto, cpu, cuda, cuda:INDEX or emulated";
            Setting::new("device", word, expected)
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Emulated => f.write_str("emulated"),
        }
    }
}

impl Device {
    /// The device that `auto` means, the first CUDA card or the CPU; any other is itself.
    pub(crate) fn resolved(self) -> Device {
        match (self, kernels::cuda::cards()) {
            (Device::Auto, Ok(cards)) if cards.first().is_some_and(|card| !card.emulated) => {
                Device::Cuda(0)
            }
            (Device::Auto, _) => Device::Cpu,
            (named, _) => named,
        }
    }
}

/// The device of a session and how its memory is used.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Where the models run.
    pub device: Device,
    /// Threads of the CPU backend; 0 takes every core.
    pub threads: usize,
    /// The instruction set of the CPU backend; `None`: the best there is.
    pub isa: Option<Isa>,
    /// MiB of KV cache for all models of a device together. `None`: on a card what `gpu_memory_fraction` leaves
    /// beside the weights, else 1024, committed as it is used.
    pub kv_memory: Option<f64>,
    /// Share of a card's free memory that weights, activations and KV cache may take; `None`: 0.9, and
    /// 0.5 on a card that shares the host's memory.
    pub gpu_memory_fraction: Option<f64>,
    /// Tokens in a KV block.
    pub block_tokens: usize,
    /// Storage of K and V; `None`: as each model's weights.
    pub kv_dtype: Option<KvDtype>,
    /// Bits of the linear layers' weights; `None`: as they are stored.
    pub quantize: Option<Quantization>,
    /// Rows of one model in one batch; `None`: 512 on the CPU, 2048 on a card.
    pub max_batch_rows: Option<usize>,
    /// Sequences of one model that decode in one batch: the oldest; `None`: as many as raise the
    /// device's throughput.
    pub max_num_seqs: Option<usize>,
    /// What happens when a sequence exceeds a model's context length.
    pub context_overflow: ContextOverflow,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            device: Device::Auto,
            threads: 0,
            isa: None,
            kv_memory: None,
            gpu_memory_fraction: None,
            block_tokens: 16,
            kv_dtype: None,
            quantize: None,
            max_batch_rows: None,
            max_num_seqs: None,
            context_overflow: ContextOverflow::default(),
        }
    }
}

/// The types that the KV cache can be stored in.
pub const KV_DTYPES: [KvDtype; 4] = [
    KvDtype::Float(Dtype::F32),
    KvDtype::Float(Dtype::Bf16),
    KvDtype::Float(Dtype::F16),
    KvDtype::Int8,
];

/// The word of a KV storage type in flags, JSON and results files.
pub fn kv_dtype_word(dtype: KvDtype) -> &'static str {
    match dtype {
        KvDtype::Float(Dtype::F32) => "f32",
        KvDtype::Float(Dtype::Bf16) => "bf16",
        KvDtype::Float(Dtype::F16) => "f16",
        KvDtype::Int8 => "int8",
    }
}

/// The device of a session, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its full name, with the CPU's threads.
    pub name: String,
    /// `CPU`, or the card with its architecture. With the instruction set it decides the bits of
    /// results.
    pub device: String,
    /// The CPU's instruction set; `None` on a card.
    pub instruction_set: Option<&'static str>,
    /// Why `auto` does not use a card that is there.
    pub unused_card: Option<String>,
}

impl Machine {
    /// This as the policy's device and another as the PRM's.
    pub(crate) fn with_prm_on(self, prm: Machine) -> Machine {
        let both = |policy: String, prm: String| format!("{policy}; PRM: {prm}");
        Machine {
            name: both(self.name, prm.name),
            device: both(self.device, prm.device),
            instruction_set: self.instruction_set.or(prm.instruction_set),
            unused_card: self.unused_card.or(prm.unused_card),
        }
    }
}

/// The most threads of the CPU backend: more than any machine has cores, and few enough to start.
const MOST_THREADS: usize = 1024;

/// The backend that a device's word means.
pub enum AnyBackend {
    /// The CPU.
    Cpu(CpuBackend),
    /// A card, held to its share of memory.
    Cuda(Box<CudaBackend>),
}

impl AnyBackend {
    /// Loads models onto it.
    ///
    /// # Errors
    /// A checkpoint whose tensors do not match its config, or too little memory.
    pub(crate) fn load(
        self,
        specs: &[ModelSpec<'_>],
        options: &engine::Options,
    ) -> Result<DeviceModels, engine::Error> {
        match self {
            AnyBackend::Cpu(cpu) => DeviceModels::load(cpu, specs, options),
            AnyBackend::Cuda(card) => DeviceModels::load(*card, specs, options),
        }
    }
}

impl EngineOptions {
    /// Refuses options out of range.
    ///
    /// # Errors
    /// The first of them.
    pub(crate) fn validate(&self) -> Result<(), Setting> {
        let useless = |fraction: &f64| !(*fraction > 0.0 && *fraction <= 1.0);
        if let Some(fraction) = self.gpu_memory_fraction.filter(useless) {
            let expected = "a number above 0, at most 1";
            return Err(Setting::new("gpu_memory_fraction", fraction, expected));
        }
        self.engine(0).map(drop)
    }

    /// The engine's options.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn engine(&self, seed: u64) -> Result<engine::Options, Setting> {
        let range = |name, found: usize, max: usize| match (1..=max).contains(&found) {
            true => Ok(found),
            false => {
                let expected = format!("a number from 1 to {max}");
                Err(Setting::new(name, found, expected))
            }
        };
        if self.threads > MOST_THREADS {
            let expected = format!("a number from 0 to {MOST_THREADS}");
            return Err(Setting::new("threads", self.threads, expected));
        }
        if let Some(found) = self.kv_memory.filter(|mib| !(*mib > 0.0 && *mib < 1e9)) {
            return Err(Setting::new("kv_memory", found, "MiB above 0"));
        }
        Ok(engine::Options {
            kv_bytes: (self.kv_memory).map(|mib| (mib * f64::from(1 << 20)) as usize),
            block_tokens: range("block_tokens", self.block_tokens, 1024)?,
            kv_dtype: self.kv_dtype,
            quantize: self.quantize,
            max_batch_rows: (self.max_batch_rows)
                .map(|found| range("max_batch_rows", found, 65_536))
                .transpose()?,
            max_num_seqs: (self.max_num_seqs)
                .map(|found| range("max_num_seqs", found, 65_536))
                .transpose()?,
            seed,
            async_scheduling: None,
        })
    }

    /// The device, opened.
    ///
    /// # Errors
    /// A device that is not there or cannot be used.
    pub fn open(&self) -> Result<(AnyBackend, Machine), Error> {
        self.validate()?;
        let (card, unused_card) = cuda(self.device)?;
        let Some(mut card) = card else {
            let (cpu, machine) = self.cpu();
            let machine = Machine {
                unused_card,
                ..machine
            };
            return Ok((AnyBackend::Cpu(cpu), machine));
        };
        let fraction = self.gpu_memory_fraction;
        card.set_memory_fraction(fraction.unwrap_or(card.default_memory_fraction()));
        let machine = Machine {
            name: card.name(),
            device: card.name(),
            instruction_set: None,
            unused_card: None,
        };
        Ok((AnyBackend::Cuda(Box::new(card)), machine))
    }

    /// The CPU backend.
    pub fn cpu(&self) -> (CpuBackend, Machine) {
        let isa = self.isa.unwrap_or_else(Isa::best);
        let backend = CpuBackend::with_isa(self.threads, isa);
        let machine = Machine {
            name: backend.name(),
            device: "CPU".into(),
            instruction_set: Some(isa.name()),
            unused_card: None,
        };
        (backend, machine)
    }
}

/// The CUDA device that a word means; `None` for the CPU, with the reason why `auto` does not take
/// a card that is there.
///
/// # Errors
/// A card that is named and cannot be used.
pub fn cuda(device: Device) -> Result<(Option<CudaBackend>, Option<String>), Error> {
    let which = match device {
        Device::Cpu => return Ok((None, None)),
        Device::Cuda(index) => Which::Card(index),
        Device::Emulated => Which::Emulated,
        Device::Auto => match kernels::cuda::cards() {
            // The emulator is thousands of times slower than the CPU: only by name.
            Ok(cards) if cards.first().is_some_and(|card| !card.emulated) => {
                return Ok(match CudaBackend::open(Which::Card(0)) {
                    Ok(card) => (Some(card), None),
                    Err(why) => (None, Some(why.to_string())),
                });
            }
            // Without a driver, nobody expects a card to be used.
            _ => return Ok((None, None)),
        },
    };
    Ok((Some(CudaBackend::open(which)?), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_words() {
        for (word, device) in [
            ("auto", Some(Device::Auto)),
            ("cuda", Some(Device::Cuda(0))),
            ("cuda:3", Some(Device::Cuda(3))),
            ("emulated", Some(Device::Emulated)),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
        ] {
            assert_eq!(word.parse().ok(), device, "{word}");
            if let Some(device) = device {
                assert_eq!(device.to_string().parse(), Ok(device), "{word}");
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let with = |change: fn(&mut EngineOptions)| {
            let mut options = EngineOptions::default();
            change(&mut options);
            let error = options.engine(0).err().map(|setting| setting.to_string());
            error.or(options.open().err().map(|error| error.to_string()))
        };
        assert_eq!(with(|_| ()), None);
        for (change, expected) in [
            (
                (|o| o.kv_memory = Some(-1.0)) as fn(&mut EngineOptions),
                "`kv_memory` is -1; expected MiB above 0",
            ),
            (
                |o| o.block_tokens = 0,
                "`block_tokens` is 0; expected a number from 1 to 1024",
            ),
            (
                |o| o.max_batch_rows = Some(0),
                "`max_batch_rows` is 0; expected a number from 1 to 65536",
            ),
            (
                |o| o.threads = usize::MAX,
                "`threads` is 18446744073709551615; expected a number from 0 to 1024",
            ),
            (
                |o| o.gpu_memory_fraction = Some(1.5),
                "`gpu_memory_fraction` is 1.5; expected a number above 0, at most 1",
            ),
        ] {
            assert_eq!(with(change).as_deref(), Some(expected));
        }
    }
}
