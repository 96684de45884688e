//! Recorded passes: CUDA graphs of decode batches, one launch in place of hundreds.
//!
//! The first batch of a number of rows runs kernel by kernel: kernels are loaded, scratch memory
//! grows. The second is recorded by stream capture, and launched. From then on the host writes the
//! plan and the attention's work to their fixed places and launches the recording, as long as no
//! address in it has changed (its [`Stamp`]); after a change it is recorded anew. A pass the driver
//! cannot capture is never captured again; it runs kernel by kernel.
#![allow(unsafe_code)] // Calls of the driver; each states what it relies on.

use super::device::{Card, driver_message};
use super::plan::{Needs, Plan};
use super::{CudaBackend, attention, attention_work};
use crate::Error;
use cudarc::driver::{DriverError, result, sys};
use std::collections::HashMap;
use std::rc::Rc;

/// The recorded passes of one model, by number of rows.
#[derive(Default)]
pub struct Recordings(HashMap<usize, Recording>);

enum Recording {
    /// A batch has run; its operations relied on this.
    Warm(Needs),
    Recorded(Graph),
    /// The driver did not record it.
    Never,
}

/// Addresses and versions of the memory that may move from one batch to the next.
type Stamp = Vec<u64>;

struct Graph {
    launches: Captured,
    needs: Needs,
    stamp: Stamp,
}

/// An instantiated graph of launches.
pub(super) struct Captured {
    card: Rc<Card>,
    handle: sys::CUgraphExec,
}

impl Captured {
    /// Enqueues all of its launches.
    ///
    /// # Safety
    ///
    /// The memory that the launches use lives, at the addresses of the capture.
    pub(super) unsafe fn launch(&self) -> Result<(), Error> {
        self.card.bind()?;
        // SAFETY: instantiated by `capture`; the caller's promise.
        unsafe { result::graph::launch(self.handle, self.card.stream()) }
            .map_err(|e| self.card.failure("launching a graph", &driver_message(&e)))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // It may still run. Nobody can handle a failure here.
        let _ = self.card.bind();
        let _ = self.card.synchronize();
        // SAFETY: instantiated by `capture`, and not used after this.
        let _ = unsafe { result::graph::exec_destroy(self.handle) };
    }
}

/// Runs a pass, from its recording if there is one.
pub(super) fn run(
    backend: &mut CudaBackend,
    recordings: &mut Recordings,
    plan: &Plan,
    pass: &mut dyn FnMut(&mut CudaBackend),
) {
    let rows = plan.step.rows.len();
    if !backend.graphs || plan.place().is_none() || backend.failed.is_some() {
        return pass(backend);
    }
    let needs = match recordings.0.get(&rows) {
        Some(Recording::Recorded(graph)) => &graph.needs,
        Some(Recording::Warm(needs)) => needs,
        Some(Recording::Never) => return pass(backend),
        None => {
            pass(backend);
            let needs = plan.needs.borrow().clone();
            recordings.0.insert(rows, Recording::Warm(needs));
            return;
        }
    };
    needs.check(plan);
    let stamp = match stamp(backend, plan, needs) {
        Ok(stamp) => stamp,
        Err(error) => {
            backend.failed = Some(error);
            return;
        }
    };
    if let Some(Recording::Recorded(graph)) = recordings.0.get(&rows)
        && graph.stamp == stamp
    {
        // SAFETY: buffers that live as long as the model, and those in the stamp, just compared.
        backend.failed = unsafe { graph.launches.launch() }.err();
        return;
    }
    let needs = needs.clone();
    let recording = match capture(backend, pass) {
        Some(launches) => {
            // SAFETY: captured just now.
            backend.failed = unsafe { launches.launch() }.err();
            Recording::Recorded(Graph {
                launches,
                needs,
                stamp,
            })
        }
        None => {
            // If capture was not the reason, it fails again.
            pass(backend);
            Recording::Never
        }
    };
    recordings.0.insert(rows, recording);
}

/// Builds the attention's work of a plan, and returns where it and its scratch memory are.
fn stamp(backend: &mut CudaBackend, plan: &Plan, needs: &Needs) -> Result<Stamp, Error> {
    let mut stamp = vec![plan.at()];
    for shape in &needs.attention {
        let work = attention_work::of_plan(backend, plan, shape)?;
        attention::scratch(backend, &work, shape)?;
        stamp.push(work.version());
    }
    // Final only when the last shape has grown them.
    stamp.extend(backend.attention.at());
    Ok(stamp)
}

/// A capture in progress on a card's stream. It ends with this, also where a pass panics: a stream
/// that captures takes no work.
struct Capturing<'a>(&'a Card);

impl Capturing<'_> {
    /// The graph.
    fn end(self) -> Result<sys::CUgraph, DriverError> {
        let card = std::mem::ManuallyDrop::new(self).0;
        // SAFETY: the capture began with this value, which is not dropped.
        unsafe { result::stream::end_capture(card.stream()) }
    }
}

impl Drop for Capturing<'_> {
    fn drop(&mut self) {
        // SAFETY: the capture began with this value.
        if let Ok(graph) = unsafe { result::stream::end_capture(self.0.stream()) }
            && !graph.is_null()
        {
            // SAFETY: just made, used by nobody.
            let _ = unsafe { result::graph::destroy(graph) };
        }
    }
}

/// Captures what `pass` enqueues, launches alone; `None` if the driver cannot capture it or an
/// operation failed.
pub(super) fn capture(
    backend: &mut CudaBackend,
    pass: &mut dyn FnMut(&mut CudaBackend),
) -> Option<Captured> {
    let card = Rc::clone(&backend.card);
    // Other threads may allocate during the capture; this one does not.
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    card.bind().ok()?;
    // SAFETY: the card's stream lives; a pass enqueues nothing but launches.
    unsafe { result::stream::begin_capture(card.stream(), mode) }.ok()?;
    let capturing = Capturing(&card);
    pass(backend);
    let graph = capturing.end();
    let whole = backend.failed.take().is_none();
    let graph = graph.ok().filter(|graph| !graph.is_null())?;
    // SAFETY: a graph that the driver just made, destroyed once; nothing else has it.
    let handle = unsafe {
        let handle = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
        let _ = result::graph::destroy(graph);
        handle.ok()?
    };
    let captured = Captured { card, handle };
    whole.then_some(captured)
}
