//! Recorded passes: CUDA graphs of decoding steps, one launch in place of hundreds.
//!
//! The first step of a number of rows runs as it is: kernels are loaded, scratch memory grows. The
//! second is recorded by stream capture, and launched. From then on the host writes the plan and the
//! attention's work to their fixed places and launches the recording, as long as nothing it has
//! addresses of has moved (its [`Stamp`]); if something has, it is recorded anew. What cannot be
//! recorded runs as it is for ever.
#![allow(unsafe_code)] // Calls of the driver; each states what it relies on.

use super::device::{Card, words};
use super::plan::{Needs, Plan};
use super::{CudaBackend, attention};
use crate::Error;
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::rc::Rc;

/// The recorded passes of one model, by number of rows.
#[derive(Default)]
pub struct Recordings(HashMap<usize, Recording>);

enum Recording {
    /// A step has run, and its operations relied on this.
    Warm(Needs),
    Recorded(Graph),
    /// The driver did not record it.
    Never,
}

/// Addresses and versions of what may move from one step to the next.
type Stamp = Vec<u64>;

struct Graph {
    card: Rc<Card>,
    handle: sys::CUgraphExec,
    needs: Needs,
    stamp: Stamp,
}

impl Graph {
    fn launch(&self) -> Result<(), Error> {
        // SAFETY: instantiated by `record`; the addresses in it are those of buffers that live as
        // long as the model that owns it, and of those its stamp has been compared for.
        unsafe { result::graph::launch(self.handle, self.card.stream()) }
            .map_err(|e| self.card.failure("launching a graph", &words(&e)))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It may be under way. Failures have nobody to go to.
        let _ = self.card.bind();
        let _ = self.card.synchronize();
        // SAFETY: instantiated by `record`, and not used after this.
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
        backend.failed = graph.launch().err();
        return;
    }
    let needs = needs.clone();
    let recording = match record(backend, pass) {
        Some(handle) => {
            let graph = Graph {
                card: Rc::clone(&backend.card),
                handle,
                needs,
                stamp,
            };
            backend.failed = graph.launch().err();
            Recording::Recorded(graph)
        }
        None => {
            // If it was not for the recording, it fails again.
            pass(backend);
            Recording::Never
        }
    };
    recordings.0.insert(rows, recording);
}

/// Makes the attention's work of a plan and says where it and its scratch memory are.
fn stamp(backend: &mut CudaBackend, plan: &Plan, needs: &Needs) -> Result<Stamp, Error> {
    let mut stamp = vec![plan.at()];
    for (shape, head_dim) in &needs.attention {
        let work = attention::work(backend, plan, shape)?;
        attention::scratch(backend, &work, shape.kv_heads, *head_dim)?;
        stamp.push(work.version());
    }
    // Known when the last shape has grown them.
    stamp.extend(backend.attention.at());
    Ok(stamp)
}

/// Records a pass; `None` where that does not work.
fn record(
    backend: &mut CudaBackend,
    pass: &mut dyn FnMut(&mut CudaBackend),
) -> Option<sys::CUgraphExec> {
    let card = Rc::clone(&backend.card);
    // Other threads may allocate meanwhile; this one does not.
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    card.bind().ok()?;
    // SAFETY: the card's stream lives; nothing in a pass but launches goes to it.
    unsafe { result::stream::begin_capture(card.stream(), mode) }.ok()?;
    pass(backend);
    // SAFETY: the capture began above; it ends whatever happened since.
    let graph = unsafe { result::stream::end_capture(card.stream()) };
    let whole = backend.failed.take().is_none();
    let graph = graph.ok().filter(|graph| !graph.is_null())?;
    // SAFETY: a graph that the driver just made, destroyed once; nothing else has it.
    unsafe {
        let handle = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
        let _ = result::graph::destroy(graph);
        match handle.ok() {
            Some(handle) if !whole => {
                let _ = result::graph::exec_destroy(handle);
                None
            }
            handle => handle,
        }
    }
}
