//! Shared by the sweeps over CPU operations ([`crate::linear`], [`crate::attention`]): threads,
//! instruction set, and a report with the limits of each number of threads.

use clap::Args;
use kernels::cpu::Isa;
use kernels::{Backend, CpuBackend};
use serde::{Deserialize, Serialize};

use crate::Done;
use crate::limits::{Limits, threads_of};
use crate::report::Report;

/// How the CPU is used.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Cpu {
    /// Threads; 0 takes every core. Several numbers are several sweeps.
    #[arg(
        long,
        default_value = "1,0",
        value_delimiter = ',',
        value_name = "COUNT,...",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=1024)
    )]
    pub threads: Vec<usize>,
    /// Restrict the CPU to an instruction set: portable, avx2, avx-512 or amx. Default: the best
    /// one of this machine.
    #[arg(long, value_name = "SET", value_parser = isa_word)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
}

impl Cpu {
    /// A report without rows, with the limits measured for each number of threads, and the
    /// instruction set.
    ///
    /// # Errors
    /// An instruction set that this machine lacks.
    pub fn report<S: Serialize, R: Serialize>(
        &self,
        study: &str,
        settings: S,
    ) -> Done<(Report<S, R>, Isa)> {
        let mut threads: Vec<usize> = self.threads.iter().map(|&t| threads_of(t)).collect();
        threads.dedup();
        let limits = threads.iter().map(|&t| Limits::measure(t)).collect();
        let isa = (self.isa.as_deref()).map_or_else(|| Ok(Isa::best()), Isa::parse)?;
        let device = CpuBackend::with_isa(1, isa).name();
        Ok((Report::new(study, device, limits, settings), isa))
    }
}

/// The word, if it names an instruction set of this machine.
fn isa_word(word: &str) -> Result<String, String> {
    Isa::parse(word).map(|_| word.to_string())
}
