//! The objects behind the handles.

use super::ops::Op;
use super::{CURRENT, Cu, code};
use crate::gpu::{Gpu, Kernel, Module, Options};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

pub struct Context {
    /// The error that ended it, if one did.
    pub sticky: i32,
    pub primary: bool,
    pub flags: u32,
    /// The number of its device.
    pub device: i32,
}

#[derive(Default)]
pub struct Stream {
    pub context: usize,
    pub flags: u32,
    pub priority: i32,
    /// The graph being recorded and the stream's last event-visible position in it.
    pub capture: Option<Recording>,
}

#[derive(Clone)]
pub struct Recording {
    pub capture: usize,
    /// Nodes that the stream's next one comes after.
    pub last: Vec<usize>,
    /// Operations this stream has recorded.
    pub ops: usize,
    /// How many of them another stream has waited for.
    pub joined: usize,
}

/// A capture in progress.
pub struct Capture {
    pub origin: usize,
    pub nodes: Vec<Node>,
    pub invalid: bool,
    /// `CUstreamCaptureMode`: which waiting or allocating calls break the capture.
    pub mode: i32,
    pub thread: ThreadId,
}

#[derive(Clone)]
pub struct Node {
    pub id: usize,
    pub op: Op,
    /// Nodes it waits for.
    pub after: Vec<usize>,
    /// In a clone, the node it was copied from.
    pub twin: usize,
}

/// An instantiated graph.
pub struct Exec {
    /// In an order that keeps every dependency.
    pub nodes: Vec<Node>,
    pub flags: u64,
    pub disabled: Vec<usize>,
}

#[derive(Default)]
pub struct Event {
    pub context: usize,
    pub recorded: bool,
    /// Recorded while its stream was capturing: the stream, and its recording then.
    pub captured: Option<(usize, Recording)>,
}

pub struct Function {
    pub kernel: Kernel,
    pub name: std::ffi::CString,
    pub module: usize,
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
    pub max_dynamic: u32,
}

pub struct LoadedModule {
    pub context: usize,
    pub module: Arc<Module>,
    pub functions: HashMap<String, usize>,
}

#[derive(Default)]
pub struct State {
    pub options: Option<Options>,
    pub gpu: Option<Arc<Gpu>>,
    pub contexts: HashMap<usize, Context>,
    /// By device: its primary context and how often it is retained.
    pub primaries: HashMap<i32, (usize, u32)>,
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Event>,
    pub modules: HashMap<usize, LoadedModule>,
    pub functions: HashMap<usize, Function>,
    pub captures: HashMap<usize, Capture>,
    pub graphs: HashMap<usize, Vec<Node>>,
    pub execs: HashMap<usize, Exec>,
    /// Kernel parameters a caller holds pointers to, by node: the bytes, and where each begins.
    pub shown: HashMap<usize, (Vec<u8>, Vec<usize>)>,
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

/// Refuses an object of a context that is not the current one.
pub fn of_current(context: usize, what: &str) -> Cu {
    if context == CURRENT.get() {
        return Ok(());
    }
    eprintln!("offshoot-emulator: {what} of another context than the current one");
    Err(code::INVALID_CONTEXT)
}

impl State {
    /// A new handle: neither null nor one of the small numbers with a fixed meaning.
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

    /// For calls that wait for the device or allocate: they break captures whose mode forbids them.
    pub fn not_while_capturing(&mut self) -> Cu {
        const GLOBAL: i32 = 0;
        const THREAD_LOCAL: i32 = 1;
        let here = std::thread::current().id();
        self.break_captures(|_, c| c.mode == GLOBAL || c.mode == THREAD_LOCAL && c.thread == here)
    }

    /// For work on the legacy stream, which waits for all blocking streams.
    pub fn not_while_blocking_capture(&mut self) -> Cu {
        const NON_BLOCKING: u32 = 1;
        let blocking: Vec<usize> = self
            .streams
            .values()
            .filter(|s| s.flags & NON_BLOCKING == 0)
            .filter_map(|s| Some(s.capture.as_ref()?.capture))
            .collect();
        self.break_captures(|id, _| blocking.contains(&id))
    }

    /// For calls that a capturing stream cannot take part in.
    pub fn not_on_capturing(&mut self, stream: usize) -> Cu {
        let capture = self
            .streams
            .get(&stream)
            .and_then(|s| Some(s.capture.as_ref()?.capture));
        match capture {
            Some(c) => self.break_captures(|id, _| id == c),
            None => Ok(()),
        }
    }

    fn break_captures(&mut self, which: impl Fn(usize, &Capture) -> bool) -> Cu {
        let mut any = false;
        for (id, c) in &mut self.captures {
            if which(*id, c) {
                c.invalid = true;
                any = true;
            }
        }
        if any {
            Err(code::CAPTURE_UNSUPPORTED)
        } else {
            Ok(())
        }
    }

    /// A node's operation in words.
    pub fn label(&self, op: &Op) -> String {
        match op {
            Op::Launch {
                function, shape, ..
            } => {
                let name = self
                    .functions
                    .get(function)
                    .map_or("?", |f| &f.kernel.program.name);
                format!("{name} {:?} {:?}", shape.grid, shape.block)
            }
            Op::Copy(span) => format!("copy {} bytes", span.width * span.rows * span.layers),
            Op::Fill { count, width, .. } => format!("fill {count} x {width} bytes"),
            Op::Host { .. } => "host function".to_owned(),
            Op::Child(nodes) => format!("graph of {} nodes", nodes.len()),
            Op::Empty => "empty".to_owned(),
        }
    }
}
