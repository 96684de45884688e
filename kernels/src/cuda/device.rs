//! The driver: found without panics, a card opened, its kernels compiled, loaded and launched.
#![allow(unsafe_code)] // Calls of the driver; each states what it relies on.

use super::cache;
use super::catalog::{COMMON, Module};
use super::memory::PinnedPool;
use super::nvrtc::{Compiler, Job, Output};
use crate::Error;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// The emulator's library, where it is not beside the program.
pub const EMULATOR_VARIABLE: &str = "OFFSHOOT_EMULATOR";

/// Which CUDA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// A card, by its number.
    Card(usize),
    /// The emulated one.
    Emulated,
}

/// What a driver says, in words.
pub(crate) fn words(error: &DriverError) -> String {
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

/// The emulator's library, if it is there.
pub fn emulator() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(EMULATOR_VARIABLE) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!(
                "{EMULATOR_VARIABLE}: {} is no file",
                path.display()
            )),
        };
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = program.with_file_name("libcuda.so");
    match beside.is_file() {
        true => Ok(beside),
        false => Err(format!(
            "the emulator's library is not at {} (nor named by {EMULATOR_VARIABLE}); to build it: \
             cargo build --release -p offshoot-emulator",
            beside.display()
        )),
    }
}

/// How often the emulator's entry point `name` (as it is exported: `cuMemAlloc_v2`) has been called by
/// this process.
///
/// # Errors
///
/// The emulator's library is not there.
pub fn emulator_calls(name: &str) -> Result<u64, Error> {
    type Calls = unsafe extern "C" fn(*const std::ffi::c_char, *mut u64) -> i32;
    let library = load_emulator()?;
    let name = CString::new(name).map_err(|e| setup(e.to_string()))?;
    let mut calls = 0;
    // SAFETY: the signature that `kernels/emulator/README.md` gives; both pointers live.
    let code = unsafe {
        let function = library.get::<Calls>(b"offshoot_emulator_calls\0");
        function.map_err(|e| setup(e.to_string()))?(name.as_ptr(), &mut calls)
    };
    match code {
        0 => Ok(calls),
        code => Err(setup(format!("offshoot_emulator_calls returned {code}"))),
    }
}

/// Loads the emulator, so that its SONAME answers for `libcuda.so` from now on.
fn load_emulator() -> Result<ManuallyDrop<libloading::Library>, Error> {
    let path = emulator().map_err(setup)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    // SAFETY: a library of this project, whose initialisers have no preconditions.
    let library = unsafe { libloading::Library::new(&path) };
    let library = library.map_err(|e| setup(format!("{}: {e}", path.display())))?;
    // Never unloaded: cudarc keeps pointers into it.
    Ok(ManuallyDrop::new(library))
}

/// Whether there is a driver that can be asked anything.
fn driver() -> Result<(), String> {
    // SAFETY: tries to load the library; its initialisers have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcuda.so is not on the library path: no NVIDIA driver is installed".into());
    }
    result::init().map_err(|e| format!("the driver does not start: {}", words(&e)))
}

/// A card as `offshoot devices` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Whether it is the emulator's, whose library was found in place of a driver's.
    pub emulated: bool,
    /// Why it cannot be used, if it cannot.
    pub unfit: Option<String>,
}

/// The cards the driver knows.
///
/// # Errors
///
/// Why there is no driver to ask.
pub fn cards() -> Result<Vec<Found>, String> {
    driver()?;
    let count = result::device::get_count().map_err(|e| words(&e))?;
    (0..count)
        .map(|index| {
            let device = result::device::get(index).map_err(|e| words(&e))?;
            let attribute = |which| {
                // SAFETY: a device that the driver just named.
                unsafe { result::device::get_attribute(device, which) }.map_err(|e| words(&e))
            };
            let capability = (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            );
            let name = result::device::get_name(device).map_err(|e| words(&e))?;
            Ok(Found {
                index: index as usize,
                emulated: name.contains("(emulated)"),
                name,
                capability,
                // SAFETY: as above.
                memory: unsafe { result::device::total_mem(device) }.map_err(|e| words(&e))?,
                unfit: too_old(capability),
            })
        })
        .collect()
}

fn too_old((major, minor): (i32, i32)) -> Option<String> {
    (major < 8).then(|| format!("compute capability {major}.{minor}, expected 8.0 or more"))
}

/// What launching depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Multiprocessors.
    pub sms: usize,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_sm: usize,
    /// The most one block may have.
    pub shared_per_block: usize,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Whether kernels are handed over as PTX: to the emulator.
    pub emulated: bool,
}

/// An open card: context, one stream, the kernels loaded so far. It stays on its thread.
pub struct Card {
    name: String,
    limits: Limits,
    compiler: Compiler,
    cache: Option<PathBuf>,
    stream: sys::CUstream,
    modules: RefCell<HashMap<Module, sys::CUmodule>>,
    functions: RefCell<HashMap<(Module, &'static str), Function>>,
    pinned: PinnedPool,
    /// Events that are done with.
    events: RefCell<Vec<sys::CUevent>>,
    /// Page-locked memory that copies to the device are made from, until their events.
    uploads: RefCell<VecDeque<(sys::CUevent, (*mut u8, usize))>>,
    context: Arc<CudaContext>,
}

/// A loaded kernel.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    handle: sys::CUfunction,
    name: &'static str,
}

/// Blocks, threads of a block, bytes of shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: (usize, usize),
    pub threads: usize,
    pub shared: usize,
}

impl Card {
    /// Opens a card.
    ///
    /// # Errors
    ///
    /// What is missing, and the command that installs it.
    pub fn open(which: Which) -> Result<Rc<Card>, Error> {
        let index = match which {
            Which::Card(index) => index,
            Which::Emulated => {
                load_emulator()?;
                0
            }
        };
        let found = cards().map_err(setup)?;
        let count = found.len();
        let card = found
            .into_iter()
            .nth(index)
            .ok_or_else(|| setup(format!("no card {index}, the driver knows {count}")))?;
        if let Some(reason) = card.unfit {
            return Err(Error::Setup {
                device: card.name,
                reason,
            });
        }
        let emulated = card.emulated;
        if which == Which::Emulated && !emulated {
            return Err(setup(
                "the emulator cannot be used any more: this process has loaded a driver before",
            ));
        }
        let compiler = Compiler::find().map_err(setup)?;
        let device = card.name.clone();
        let failed = |e: DriverError| Error::Setup {
            device: device.clone(),
            reason: words(&e),
        };
        let context = CudaContext::new(index).map_err(failed)?;
        let attribute = |which| context.attribute(which).map_err(failed);
        use Attribute::*;
        let limits = Limits {
            sms: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            shared_per_sm: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?
                as usize,
            shared_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
            capability: card.capability,
            emulated,
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(failed)?;
        Ok(Rc::new(Card {
            name: card.name,
            limits,
            compiler,
            cache: cache::folder(),
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of memory that nobody has.
    pub(crate) fn free_memory(&self) -> Result<usize, Error> {
        self.bind()?;
        result::mem_get_info()
            .map(|(free, _)| free)
            .map_err(|e| self.failure("asking for the free memory", &words(&e)))
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(crate) fn pinned(&self) -> &PinnedPool {
        &self.pinned
    }

    /// Makes the context the current one of this thread.
    pub(crate) fn bind(&self) -> Result<(), Error> {
        self.context
            .bind_to_thread()
            .map_err(|e| self.failure("the context", &words(&e)))
    }

    /// A failure of something that is no kernel.
    pub(crate) fn failure(&self, what: &str, reason: &str) -> Error {
        Error::Kernel {
            device: self.name.clone(),
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// Waits for all work.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream lives as long as the card.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|e| self.failure("waiting for the device", &words(&e)))
    }

    /// An event after all work enqueued so far. [`Card::wait_for`] ends it.
    pub(crate) fn event(&self) -> Result<sys::CUevent, Error> {
        let failed = |e: DriverError| self.failure("an event", &words(&e));
        let event = match self.events.borrow_mut().pop() {
            Some(event) => event,
            None => result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(failed)?,
        };
        // SAFETY: both live.
        unsafe { result::event::record(event, self.stream) }.map_err(failed)?;
        Ok(event)
    }

    /// Waits for an event and ends it.
    pub(crate) fn wait_for(&self, event: sys::CUevent) -> Result<(), Error> {
        // SAFETY: made by `event`.
        let done = unsafe { result::event::synchronize(event) };
        self.events.borrow_mut().push(event);
        done.map_err(|e| self.failure("waiting for results", &words(&e)))
    }

    /// Keeps page-locked memory until an event is done.
    pub(crate) fn keep_until(&self, event: sys::CUevent, part: (*mut u8, usize)) {
        self.uploads.borrow_mut().push_back((event, part));
    }

    /// Gives the memory of copies that are done back to the pool.
    pub(crate) fn reclaim_uploads(&self) {
        let mut uploads = self.uploads.borrow_mut();
        while let Some(&(event, part)) = uploads.front() {
            // SAFETY: made by `event`.
            if unsafe { result::event::query(event) }.is_err() {
                // Not done, or failed: then so does what is waited for next.
                break;
            }
            uploads.pop_front();
            self.events.borrow_mut().push(event);
            self.pinned.give(part);
        }
    }

    /// A kernel, compiled and loaded at its first use. `shared` is what its launches ask for.
    pub(crate) fn function(
        &self,
        module: &Module,
        name: &'static str,
        shared: usize,
    ) -> Result<Function, Error> {
        let key = (module.clone(), name);
        if let Some(&function) = self.functions.borrow().get(&key) {
            return Ok(function);
        }
        let failed = |e: DriverError| self.failure(&format!("loading kernel {name}"), &words(&e));
        let loaded = self.modules.borrow().get(module).copied();
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => {
                let mut image = compile(&self.compiler, module, &self.limits, self.cache())
                    .map_err(|e| self.failure(&format!("compiling {}", module.title()), &e))?;
                // PTX is read as a C string.
                image.push(0);
                // SAFETY: PTX that ends in zero, or a cubin, which knows its own length.
                let loaded = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) }
                    .map_err(failed)?;
                self.modules.borrow_mut().insert(module.clone(), loaded);
                loaded
            }
        };
        let c_name = CString::new(name).expect("kernels' names have no zero byte");
        // SAFETY: a module that is never unloaded before its context ends.
        let handle = unsafe { result::module::get_function(loaded, c_name) }.map_err(failed)?;
        if shared > 48 << 10 {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just loaded.
            unsafe { result::function::set_function_attribute(handle, most, shared as i32) }
                .map_err(failed)?;
        }
        let function = Function { handle, name };
        self.functions.borrow_mut().insert(key, function);
        Ok(function)
    }

    fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// Enqueues a kernel; nothing if there are no blocks. `shape` is for the message of a failure.
    ///
    /// # Safety
    ///
    /// `arguments` point to values of the kernel's parameters' types, in order; what they point to
    /// on the device is large enough and lives until the work is done.
    pub(crate) unsafe fn launch(
        &self,
        function: Function,
        grid: Grid,
        shape: &dyn Fn() -> String,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return Ok(());
        }
        // SAFETY: a loaded function and the card's stream; the rest is the caller's promise.
        unsafe {
            result::launch_kernel(
                function.handle,
                (grid.blocks.0 as u32, grid.blocks.1 as u32, 1),
                (grid.threads as u32, 1, 1),
                grid.shared as u32,
                self.stream,
                arguments,
            )
        }
        .map_err(|e| {
            self.failure(
                &format!("kernel {} ({})", function.name, shape()),
                &words(&e),
            )
        })
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Failures at the end have nobody to go to.
        let _ = self.context.bind_to_thread();
        let _ = self.synchronize();
        for (event, part) in self.uploads.take() {
            self.events.borrow_mut().push(event);
            self.pinned.give(part);
        }
        self.pinned.free();
        // SAFETY: nothing uses the stream, its events or the modules any more: buffers hold the card
        // alive.
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

/// Compiles a module for a card, or takes it from the cache: machine code of its architecture, or
/// PTX for the emulator and for a card that is newer than the compiler.
fn compile(
    compiler: &Compiler,
    module: &Module,
    limits: &Limits,
    cache: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let (major, minor) = limits.capability;
    let ptx = || compile_for(compiler, module, "compute_80", cache);
    if limits.emulated {
        return ptx();
    }
    match compile_for(compiler, module, &format!("sm_{major}{minor}"), cache) {
        Err(message) if message.contains("nvrtc: error: invalid value for --gpu-architecture") => {
            ptx()
        }
        result => result,
    }
}

/// Compiles a module for an architecture: `sm_..` gives machine code, `compute_..` PTX.
///
/// # Errors
///
/// What the compiler said.
pub fn compile_for(
    compiler: &Compiler,
    module: &Module,
    arch: &str,
    cache: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let options = module.options(arch);
    let job = Job {
        name: module.file,
        source: module.source(),
        headers: &[COMMON],
        options: &options,
        output: match arch.starts_with("compute_") {
            true => Output::Ptx,
            false => Output::Cubin,
        },
    };
    cache::compile(compiler, &job, cache)
}

/// Enqueues a kernel with its arguments by value.
///
/// The caller promises what [`Card::launch`] asks for.
macro_rules! launch {
    ($card:expr, $function:expr, $grid:expr, $shape:expr, $($argument:expr),* $(,)?) => {{
        let arguments = ($($argument,)*);
        // SAFETY: every call of this macro passes the parameters of the kernel it names, in
        // order, with buffers whose sizes it has checked.
        unsafe { $crate::cuda::device::Arguments::launch(arguments, $card, $function, $grid, $shape) }
    }};
}
pub(crate) use launch;

/// A tuple of kernel arguments.
pub(crate) trait Arguments: Sized {
    /// [`Card::launch`] with pointers to the members.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn launch(
        self,
        card: &Card,
        function: Function,
        grid: Grid,
        shape: &dyn Fn() -> String,
    ) -> Result<(), Error>;
}

macro_rules! arguments {
    ($($name:ident)*) => {
        impl<$($name: Copy),*> Arguments for ($($name,)*) {
            unsafe fn launch(
                mut self,
                card: &Card,
                function: Function,
                grid: Grid,
                shape: &dyn Fn() -> String,
            ) -> Result<(), Error> {
                #[allow(non_snake_case)]
                let ($($name,)*) = &mut self;
                let mut pointers = [$(std::ptr::from_mut($name).cast::<c_void>()),*];
                // SAFETY: the caller's promise; the driver reads the values before it returns.
                unsafe { card.launch(function, grid, shape, &mut pointers) }
            }
        }
    };
}
arguments!(A);
arguments!(A B C);
arguments!(A B C D);
arguments!(A B C D E);
arguments!(A B C D E F);
arguments!(A B C D E F G);
arguments!(A B C D E F G H);
arguments!(A B C D E F G H I);
arguments!(A B C D E F G H I J K);
arguments!(A B C D E F G H I J K L);
