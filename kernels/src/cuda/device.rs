//! A CUDA device: the context, one stream, events, and the kernels loaded so far.
//!
//! `emulator` finds the emulator's library, `cards` lists the devices of the driver, `compile`
//! compiles and loads kernels, `launch` enqueues them.
#![allow(unsafe_code)] // Calls of the driver; each states what it relies on.

mod cards;
mod compile;
mod emulator;
mod launch;

pub use self::cards::{Found, cards, driver_version};
pub use self::compile::compile_for;
pub use self::emulator::{
    EMULATOR_VARIABLE, emulator, emulator_calls, emulator_count, emulator_counters,
};
pub(crate) use self::launch::{Arguments, Function, Grid, launch};

use self::emulator::load_emulator;
use super::cache;
use super::catalog::Module;
use super::memory::PinnedPool;
use super::nvrtc::Compilers;
use crate::Error;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Which CUDA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// A card, by its number.
    Card(usize),
    /// The emulated one.
    Emulated,
}

/// The driver's text and name for an error.
pub(crate) fn driver_message(error: &DriverError) -> String {
    let text = |s: Result<&std::ffi::CStr, DriverError>| {
        s.map_or_else(
            |_| "unknown error".into(),
            |s| s.to_string_lossy().into_owned(),
        )
    };
    format!(
        "{} ({})",
        text(error.error_string()),
        text(error.error_name())
    )
}

fn setup(reason: impl Into<String>) -> Error {
    Error::Setup {
        device: "CUDA".into(),
        reason: reason.into(),
    }
}

/// The properties of a card that launches depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardLimits {
    /// Multiprocessors.
    pub sms: usize,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_sm: usize,
    /// Shared memory of one block at most, in bytes.
    pub shared_per_block: usize,
    /// Device memory, in bytes.
    pub memory: usize,
    /// Whether it is the host's memory: what the card takes, the system lacks.
    pub integrated: bool,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Whether it is the emulator, which takes kernels as PTX.
    pub emulated: bool,
}

impl CardLimits {
    fn read(context: &CudaContext, found: &Found) -> Result<CardLimits, DriverError> {
        use Attribute::*;
        let attribute = |which| context.attribute(which).map(|value| value as usize);
        Ok(CardLimits {
            sms: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_sm: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            shared_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            memory: found.memory,
            integrated: attribute(CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            capability: found.capability,
            emulated: found.emulated,
        })
    }
}

/// The card, once its driver or the emulator is loaded.
fn find(which: Which) -> Result<Found, Error> {
    let index = match which {
        Which::Card(index) => index,
        Which::Emulated => {
            load_emulator()?;
            0
        }
    };
    let mut found = cards().map_err(setup)?;
    let count = found.len();
    if index >= count {
        return Err(setup(format!("no card {index}, the driver has {count}")));
    }
    let found = found.swap_remove(index);
    if let Some(reason) = found.unfit {
        return Err(Error::Setup {
            device: found.name,
            reason,
        });
    }
    if which == Which::Emulated && !found.emulated {
        return Err(setup(
            "the emulator cannot be used any more: this process has loaded a driver before",
        ));
    }
    Ok(found)
}

/// An open card: context, one stream, the kernels loaded so far. It stays on its thread.
pub struct Card {
    name: String,
    limits: CardLimits,
    compilers: RefCell<Compilers>,
    /// The folder of compiled kernels.
    kernel_cache: Option<PathBuf>,
    stream: sys::CUstream,
    modules: RefCell<HashMap<Module, sys::CUmodule>>,
    functions: RefCell<HashMap<(Module, &'static str), Function>>,
    pinned: PinnedPool,
    /// Events that can be reused.
    events: RefCell<Vec<sys::CUevent>>,
    /// Page-locked sources of copies to the device, each in use until its event.
    uploads: RefCell<VecDeque<(sys::CUevent, (*mut u8, usize))>>,
    context: Arc<CudaContext>,
}

impl Card {
    /// Opens a card.
    ///
    /// # Errors
    ///
    /// There is no such card, it is too old, or the compiler is missing (with the command to get it).
    pub fn open(which: Which) -> Result<Rc<Card>, Error> {
        let found = find(which)?;
        let compilers = Compilers::find(driver_version()).map_err(setup)?;
        let failed = |e: DriverError| Error::Setup {
            device: found.name.clone(),
            reason: driver_message(&e),
        };
        let context = CudaContext::new(found.index).map_err(failed)?;
        let limits = CardLimits::read(&context, &found).map_err(failed)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(failed)?;
        Ok(Rc::new(Card {
            name: found.name,
            limits,
            compilers: RefCell::new(compilers),
            kernel_cache: cache::folder(),
            stream,
            modules: RefCell::default(),
            functions: RefCell::default(),
            pinned: PinnedPool::default(),
            events: RefCell::default(),
            uploads: RefCell::default(),
            context,
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn limits(&self) -> &CardLimits {
        &self.limits
    }

    /// Bytes of free device memory.
    pub(crate) fn free_memory(&self) -> Result<usize, Error> {
        self.bind()?;
        result::mem_get_info()
            .map(|(free, _)| free)
            .map_err(|e| self.failure("querying the free memory", &driver_message(&e)))
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(crate) fn pinned(&self) -> &PinnedPool {
        &self.pinned
    }

    /// Makes the context the current one of this thread, if another card's is. Every call of the driver
    /// that works in the current context comes after it, so that cards can take turns on a thread.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        self.context
            .bind_to_thread()
            .map_err(|e| self.failure("the context", &driver_message(&e)))
    }

    /// A failed driver call; `what` names the call, or the kernel and its shape.
    pub(crate) fn failure(&self, what: &str, reason: &str) -> Error {
        Error::Kernel {
            device: self.name.clone(),
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// Waits for all work.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.bind()?;
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|e| self.failure("waiting for the device", &driver_message(&e)))
    }

    /// An event behind all work enqueued so far. [`Card::wait_for`] takes it back.
    pub(crate) fn event(&self) -> Result<sys::CUevent, Error> {
        self.bind()?;
        let failed = |e: DriverError| self.failure("an event", &driver_message(&e));
        let event = match self.events.borrow_mut().pop() {
            Some(event) => event,
            None => result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(failed)?,
        };
        // SAFETY: both live.
        unsafe { result::event::record(event, self.stream) }.map_err(failed)?;
        Ok(event)
    }

    /// Waits for an event, which can then be reused.
    pub(crate) fn wait_for(&self, event: sys::CUevent) -> Result<(), Error> {
        let bound = self.bind();
        // SAFETY: made by `event`.
        let done = unsafe { result::event::synchronize(event) };
        self.events.borrow_mut().push(event);
        bound?;
        done.map_err(|e| self.failure("waiting for results", &driver_message(&e)))
    }

    /// Keeps page-locked memory until an event is done.
    pub(crate) fn keep_until(&self, event: sys::CUevent, part: (*mut u8, usize)) {
        self.uploads.borrow_mut().push_back((event, part));
    }

    /// Returns the memory of finished copies to the pool.
    pub(crate) fn reclaim_uploads(&self) {
        let mut uploads = self.uploads.borrow_mut();
        while let Some(&(event, part)) = uploads.front() {
            // SAFETY: made by `event`.
            if unsafe { result::event::query(event) }.is_err() {
                // Not done, or failed: then the next wait fails, too.
                break;
            }
            uploads.pop_front();
            self.events.borrow_mut().push(event);
            self.pinned.give(part);
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Nobody can handle a failure here.
        let _ = self.context.bind_to_thread();
        let _ = self.synchronize();
        for (event, part) in self.uploads.take() {
            self.events.borrow_mut().push(event);
            self.pinned.give(part);
        }
        self.pinned.free();
        // SAFETY: nothing uses the stream, its events or the modules any more: a buffer keeps its
        // card alive.
        unsafe {
            for event in self.events.take() {
                let _ = result::event::destroy(event);
            }
            for &module in self.modules.get_mut().values() {
                let _ = result::module::unload(module);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}
