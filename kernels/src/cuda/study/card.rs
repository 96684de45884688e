//! What a card reaches: bandwidths, the cost of a launch, resident blocks, where blocks are placed
//! (`card.cu`).
#![allow(unsafe_code)] // Launches and queries of the driver; each states what it relies on.

use super::time::Stopwatch;
use crate::cuda::CudaBackend;
use crate::cuda::catalog::{self, Kernel, Module};
use crate::cuda::device::{Grid, driver_message, launch};
use crate::cuda::memory::{Buffer, Pinned};
use crate::cuda::tiling::Tiling;
use crate::{Activation, Error};
use cudarc::driver::{result, sys};

/// Threads per block of the kernels of `card.cu`.
pub(in crate::cuda) const THREADS: usize = 256;
/// Blocks of a reading kernel for each multiprocessor.
const READERS: usize = 4;

/// Blocks of a kernel that fit on a multiprocessor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Occupancy {
    /// The module's source and what specialises it.
    pub module: String,
    /// The kernel.
    pub kernel: &'static str,
    /// As the driver says.
    pub resident: usize,
    /// As the catalogue requires, for cards with room for two large tiles.
    pub wanted: usize,
}

impl Stopwatch {
    /// Bytes per second that a kernel reads from `bytes` of memory, in `rounds` rounds: with more
    /// bytes than L2 has and one round those of DRAM, with fewer and several rounds those of L2.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn read(&mut self, bytes: usize, rounds: usize) -> Result<f64, Error> {
        let card = std::rc::Rc::clone(&self.backend().card);
        let from = Buffer::zeroed(&card, bytes, "memory to read")?;
        let out = Buffer::zeroed(&card, 4, "a sum")?;
        let function = card.function(&catalog::card(), "read", 0)?;
        let grid = Grid {
            blocks: (READERS * card.limits().sms, 1),
            threads: THREADS,
            shared: 0,
        };
        let (at, chunks, sum) = (from.at(), (bytes / 16) as u64, out.at());
        let shape = || format!("{bytes} bytes");
        let rounds_word = rounds as u32;
        let read = move |backend: &mut CudaBackend, _| {
            backend.enqueue(|b| {
                let (card, shape) = (&b.card, &shape);
                launch!(card, function, grid, shape, at, chunks, rounds_word, sum)
            });
        };
        read(self.backend(), 0);
        let seconds = self.graphed(2, read)?;
        Ok((bytes * rounds) as f64 / seconds)
    }

    /// Bytes per second that a copy of `bytes` on the device moves, read and written.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn copy(&mut self, bytes: usize) -> Result<f64, Error> {
        let card = std::rc::Rc::clone(&self.backend().card);
        let from = Buffer::zeroed(&card, bytes, "memory to copy")?;
        let to = Buffer::new(&card, bytes, "memory to copy to")?;
        let seconds = self.spans(2, |_| {
            for _ in 0..2 {
                card.bind()?;
                // SAFETY: two buffers of that size.
                unsafe { result::memcpy_dtod_async(to.at(), from.at(), bytes, card.stream()) }
                    .map_err(|e| card.failure("a copy on the device", &driver_message(&e)))?;
            }
            Ok(())
        })?;
        Ok(2.0 * bytes as f64 / seconds)
    }

    /// Seconds from one launch of an empty kernel to the next in a graph.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn graph_launch(&mut self) -> Result<f64, Error> {
        let card = std::rc::Rc::clone(&self.backend().card);
        let function = card.function(&catalog::card(), "empty", 0)?;
        let grid = Grid {
            blocks: (1, 1),
            threads: THREADS,
            shared: 0,
        };
        let empty = |backend: &mut CudaBackend, _| {
            backend.enqueue(|b| {
                let (card, shape) = (&b.card, &|| "nothing".to_owned());
                // SAFETY: the kernel has no parameters.
                unsafe { card.launch(function, grid, shape, &mut []) }
            });
        };
        empty(self.backend(), 0);
        self.graphed(100, empty)
    }

    /// The multiprocessor of each block of a launch of two blocks for every multiprocessor, which all
    /// fit on the card at once.
    ///
    /// # Errors
    ///
    /// The device failed.
    pub fn placement(&mut self) -> Result<Vec<u32>, Error> {
        let card = std::rc::Rc::clone(&self.backend().card);
        let limits = *card.limits();
        let blocks = 2 * limits.sms;
        // So much shared memory that a third block does not fit.
        let shared = (limits.shared_per_sm / 2 - 2048).min(limits.shared_per_block);
        let function = card.function(&catalog::card(), "place", shared)?;
        let grid = Grid {
            blocks: (blocks, 1),
            threads: THREADS,
            shared,
        };
        let out = Buffer::zeroed(&card, 4 * blocks, "places of blocks")?;
        let (at, factor) = (out.at(), 0.5f32);
        let shape = || format!("{blocks} blocks");
        launch!(&card, function, grid, &shape, at, factor)?;
        let to = Pinned::new(&card, 4 * blocks)?;
        out.read(0, to)?.finish()
    }

    /// The resident blocks of every kernel that models with heads of these dimensions use, compiled
    /// where the cache does not hold them.
    ///
    /// # Errors
    ///
    /// A kernel that does not compile or load.
    pub fn occupancy(&mut self, head_dims: &[usize]) -> Result<Vec<Occupancy>, Error> {
        let limits = *self.backend().card.limits();
        let attention = head_dims.iter().map(|&d| {
            let tiling = Tiling::new(d, limits.shared_per_sm, limits.shared_per_block);
            catalog::tree_attention(&tiling)
        });
        let modules = [catalog::rows(), catalog::linear(), catalog::sample()]
            .into_iter()
            .chain(Activation::ALL.map(catalog::linear_gated))
            .chain(attention);
        let mut all = Vec::new();
        for module in modules {
            for kernel in module.kernels() {
                all.push(self.resident(&module, &kernel)?);
            }
        }
        Ok(all)
    }

    fn resident(&mut self, module: &Module, kernel: &Kernel) -> Result<Occupancy, Error> {
        let card = &self.backend().card;
        let shared = kernel.shared.unwrap_or(0);
        let function = card.function(module, kernel.name, shared)?;
        let mut resident = 0;
        // SAFETY: a loaded kernel, a place for the number.
        unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut resident,
                function.handle(),
                kernel.threads as i32,
                shared,
            )
        }
        .result()
        .map_err(|e| card.failure("the occupancy", &driver_message(&e)))?;
        Ok(Occupancy {
            module: module.title(),
            kernel: kernel.name,
            resident: resident as usize,
            wanted: kernel.resident,
        })
    }
}
