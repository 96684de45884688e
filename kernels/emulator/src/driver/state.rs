//! Everything behind the handles.

use super::ops::Op;
use super::{CURRENT, Cu, code};
use crate::gpu::{Gpu, Kernel, Module, Options};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Context {
    /// The error that ended it, if one did.
    pub sticky: i32,
    pub primary: bool,
    pub flags: u32,
}

#[derive(Default)]
pub struct Stream {
    pub flags: u32,
    pub priority: i32,
    /// The graph being recorded and the stream's last event-visible position in it.
    pub capture: Option<Recording>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recording {
    pub capture: usize,
    /// Operations this stream has recorded.
    pub ops: usize,
    /// Of these, the ones another stream has waited for.
    pub joined: usize,
}

/// A capture in progress.
pub struct Capture {
    pub origin: usize,
    pub nodes: Vec<Node>,
    pub invalid: bool,
}

#[derive(Clone)]
pub struct Node {
    pub id: usize,
    pub op: Op,
}

#[derive(Default)]
pub struct Event {
    pub recorded: bool,
    /// Recorded while its stream was capturing: stream, and its position then.
    pub captured: Option<(usize, usize, usize)>,
}

pub struct Function {
    pub kernel: Kernel,
    pub module: usize,
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    pub max_dynamic: u32,
}

pub struct LoadedModule {
    pub module: Arc<Module>,
    pub functions: HashMap<String, usize>,
}

#[derive(Default)]
pub struct State {
    pub options: Option<Options>,
    pub gpu: Option<Arc<Gpu>>,
    pub contexts: HashMap<usize, Context>,
    pub primary: usize,
    pub primary_refs: u32,
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Event>,
    pub modules: HashMap<usize, LoadedModule>,
    pub functions: HashMap<usize, Function>,
    pub captures: HashMap<usize, Capture>,
    pub graphs: HashMap<usize, Vec<Node>>,
    pub execs: HashMap<usize, Vec<Node>>,
    /// Device allocations by owner, for `cuCtxDestroy`.
    pub owners: HashMap<u64, usize>,
    last: usize,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// The driver's state, locked.
pub struct Guard(MutexGuard<'static, Option<State>>);

impl std::ops::Deref for Guard {
    type Target = State;
    fn deref(&self) -> &State {
        match &*self.0 {
            Some(s) => s,
            None => unreachable!("`lock` fills it"),
        }
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut State {
        self.0.get_or_insert_with(State::default)
    }
}

pub fn lock() -> Guard {
    let mut g = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    g.get_or_insert_with(State::default);
    Guard(g)
}

/// The state of an initialised driver.
pub fn ready() -> Cu<Guard> {
    let s = lock();
    if s.options.is_none() {
        Err(code::NOT_INITIALIZED)
    } else {
        Ok(s)
    }
}

/// The state with a current context that no error has ended, and its device.
pub fn current() -> Cu<(Guard, Arc<Gpu>)> {
    let s = ready()?;
    let Some(c) = s.contexts.get(&CURRENT.get()) else {
        return Err(code::INVALID_CONTEXT);
    };
    if c.sticky != 0 {
        return Err(c.sticky);
    }
    let Some(gpu) = s.gpu.clone() else {
        return Err(code::INVALID_CONTEXT);
    };
    Ok((s, gpu))
}

impl State {
    /// A new handle: never null, never a small number with a meaning of its own.
    pub fn handle(&mut self) -> usize {
        self.last += 1;
        0x0001_0000 + self.last * 16
    }

    pub fn device(&mut self) -> Cu<Arc<Gpu>> {
        if let Some(g) = &self.gpu {
            return Ok(g.clone());
        }
        let options = self.options.clone().ok_or(code::NOT_INITIALIZED)?;
        let gpu = Gpu::new(options).map_err(|e| {
            eprintln!("offshoot-emulator: no address space for the device: {e}");
            code::OUT_OF_MEMORY
        })?;
        let gpu = Arc::new(gpu);
        self.gpu = Some(gpu.clone());
        Ok(gpu)
    }

    /// Ends the current context with an error, as the real driver does after a fault.
    pub fn fail(&mut self, error: i32) -> i32 {
        if let Some(c) = self.contexts.get_mut(&CURRENT.get()) {
            c.sticky = error;
        }
        error
    }

    /// For calls that must not be made while a stream captures. Such a call breaks the capture.
    pub fn not_while_capturing(&mut self) -> Cu {
        if self.captures.is_empty() {
            return Ok(());
        }
        for c in self.captures.values_mut() {
            c.invalid = true;
        }
        Err(code::CAPTURE_UNSUPPORTED)
    }
}
