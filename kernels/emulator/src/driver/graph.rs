//! Graphs: what a capture recorded, replayed in the order of the calls.

use super::ops::{Op, run};
use super::state::{Node, current};
use super::{Cu, api, code, get, put, put_opt};
use crate::gpu::Shape;
use std::ffi::{c_char, c_int, c_uint, c_void};

fn instantiate(out: *mut usize, graph: usize) -> Cu {
    let (mut s, _) = current()?;
    let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?.clone();
    let h = s.handle();
    s.execs.insert(h, nodes);
    put(out, h)
}

fn replay(exec: usize, stream: usize) -> Cu {
    let (mut s, gpu) = current()?;
    let nodes = s.execs.get(&exec).ok_or(code::INVALID_HANDLE)?.clone();
    if stream > 2 {
        let Some(st) = s.streams.get_mut(&stream) else {
            return Err(code::INVALID_HANDLE);
        };
        if st.capture.is_some() {
            eprintln!(
                "offshoot-emulator: a graph launch inside of a capture (child graph) is not supported"
            );
            s.not_while_capturing()?;
        }
    } else {
        s.not_while_capturing()?;
    }
    drop(s);
    for n in nodes {
        run(current()?.0, &gpu, &n.op)?;
    }
    Ok(())
}

/// Same kinds of nodes in the same order, kernels of the same name.
fn update(exec: usize, graph: usize) -> Cu<(c_int, usize)> {
    let (mut s, _) = current()?;
    let new = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?.clone();
    let old = s.execs.get(&exec).ok_or(code::INVALID_HANDLE)?;
    if old.len() != new.len() {
        return Ok((2, 0));
    }
    for (a, b) in old.iter().zip(&new) {
        if a.op.node_type() != b.op.node_type() {
            return Ok((3, b.id));
        }
        if let (Op::Launch { function: x, .. }, Op::Launch { function: y, .. }) = (&a.op, &b.op) {
            let name = |f: &usize| s.functions.get(f).map(|f| f.kernel.program.name.clone());
            if name(x) != name(y) {
                return Ok((4, b.id));
            }
        }
    }
    // Handles of the instantiated nodes stay valid.
    let merged = old
        .iter()
        .zip(new)
        .map(|(a, b)| Node { id: a.id, op: b.op })
        .collect();
    s.execs.insert(exec, merged);
    Ok((0, 0))
}

/// `CUgraphExecUpdateResultInfo`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UpdateResult {
    result: c_int,
    error_node: usize,
    error_from_node: usize,
}

/// `CUDA_KERNEL_NODE_PARAMS_v2`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelNode {
    function: usize,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    params: *const *const c_void,
    extra: *const usize,
    kernel: usize,
    context: usize,
}

fn set_kernel(exec: usize, node: usize, p: *const KernelNode) -> Cu {
    let (mut s, _) = current()?;
    let k = get(p)?;
    let f = s.functions.get(&k.function).ok_or(code::INVALID_HANDLE)?;
    let params = super::launch::parameters(f, k.params, k.extra)?;
    let nodes = s.execs.get_mut(&exec).ok_or(code::INVALID_HANDLE)?;
    let n = nodes
        .iter_mut()
        .find(|n| n.id == node)
        .ok_or(code::INVALID_HANDLE)?;
    if !matches!(n.op, Op::Launch { .. }) {
        return Err(code::INVALID_VALUE);
    }
    n.op = Op::Launch {
        function: k.function,
        shape: Shape {
            grid: k.grid,
            block: k.block,
            shared: k.shared,
            cooperative: false,
        },
        params,
    };
    Ok(())
}

fn node_kind(node: usize) -> Cu<c_int> {
    let (s, _) = current()?;
    let mut all = s.graphs.values().chain(s.execs.values()).flatten();
    all.find(|n| n.id == node)
        .map(|n| n.op.node_type())
        .ok_or(code::INVALID_HANDLE)
}

api! {
    fn cuGraphCreate(out: *mut usize, _flags: c_uint) {
        let (mut s, _) = current()?;
        let h = s.handle();
        s.graphs.insert(h, Vec::new());
        put(out, h)
    }
    fn cuGraphDestroy(graph: usize) {
        let (mut s, _) = current()?;
        s.graphs.remove(&graph).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuGraphClone(out: *mut usize, graph: usize) {
        let (mut s, _) = current()?;
        let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?.clone();
        let h = s.handle();
        s.graphs.insert(h, nodes);
        put(out, h)
    }
    fn cuGraphInstantiateWithFlags(out: *mut usize, graph: usize, _flags: u64) {
        instantiate(out, graph)
    }
    fn cuGraphInstantiate_v2(out: *mut usize, graph: usize, _error: *mut usize, _log: *mut c_char, _len: usize) {
        instantiate(out, graph)
    }
    fn cuGraphInstantiateWithParams(out: *mut usize, graph: usize, _params: *mut c_void) {
        instantiate(out, graph)
    }
    fn cuGraphUpload(exec: usize, _stream: usize) {
        let (s, _) = current()?;
        s.execs.get(&exec).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuGraphLaunch(exec: usize, stream: usize) {
        replay(exec, stream)
    }
    fn cuGraphExecDestroy(exec: usize) {
        let (mut s, _) = current()?;
        s.execs.remove(&exec).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuGraphExecUpdate_v2(exec: usize, graph: usize, info: *mut UpdateResult) {
        let (result, error_node) = update(exec, graph)?;
        put_opt(info, UpdateResult { result, error_node, error_from_node: 0 });
        if result == 0 { Ok(()) } else { Err(code::GRAPH_EXEC_UPDATE_FAILURE) }
    }
    fn cuGraphExecKernelNodeSetParams_v2(exec: usize, node: usize, params: *const KernelNode) {
        set_kernel(exec, node, params)
    }
    fn cuGraphGetNodes(graph: usize, out: *mut usize, n: *mut usize) {
        let (s, _) = current()?;
        let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
        if out.is_null() {
            return put(n, nodes.len());
        }
        let room = get(n)?;
        for (i, node) in nodes.iter().take(room).enumerate() {
            put(out.wrapping_add(i), node.id)?;
        }
        put(n, nodes.len().min(room))
    }
    fn cuGraphNodeGetType(node: usize, out: *mut c_int) {
        put(out, node_kind(node)?)
    }
}
