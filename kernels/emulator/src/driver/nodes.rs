//! Nodes of graphs: made by hand, and their parameters read and changed, in a graph or in an
//! instantiated one.

use super::graph::{find, find_mut};
use super::launch::parameters;
use super::memory::Copy3d;
use super::ops::Op;
use super::state::{Node, State, current};
use super::{Cu, api, code, get, put};
use crate::gpu::Shape;
use std::ffi::{c_int, c_uint, c_void};

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

/// `CUDA_MEMSET_NODE_PARAMS`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FillNode {
    to: u64,
    pitch: usize,
    value: c_uint,
    element: c_uint,
    width: usize,
    height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HostNode {
    function: usize,
    data: usize,
}

fn kernel_op(s: &State, p: *const KernelNode) -> Cu<Op> {
    let k = get(p)?;
    let function = if k.function == 0 {
        k.kernel
    } else {
        k.function
    };
    let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
    if k.shared > f.max_dynamic {
        return Err(code::INVALID_VALUE);
    }
    Ok(Op::Launch {
        function,
        shape: Shape {
            grid: k.grid,
            block: k.block,
            shared: k.shared,
            cooperative: false,
        },
        params: parameters(f, k.params, k.extra)?,
    })
}

fn fill_op(p: *const FillNode) -> Cu<Op> {
    let f = get(p)?;
    if !matches!(f.element, 1 | 2 | 4) {
        return Err(code::INVALID_VALUE);
    }
    Ok(Op::Fill {
        to: f.to,
        width: f.element,
        value: f.value,
        count: f.width as u64,
        rows: f.height as u64,
        pitch: f.pitch as u64,
    })
}

fn host_op(p: *const HostNode) -> Cu<Op> {
    let h = get(p)?;
    if h.function == 0 {
        return Err(code::INVALID_VALUE);
    }
    Ok(Op::Host {
        function: h.function,
        data: h.data,
    })
}

fn handles(array: *const usize, n: usize) -> Cu<Vec<usize>> {
    (0..n).map(|i| get(array.wrapping_add(i))).collect()
}

fn add(out: *mut usize, graph: usize, after: *const usize, n: usize, op: Op) -> Cu {
    let (mut s, _) = current()?;
    let after = handles(after, n)?;
    let id = s.handle();
    let nodes = s.graphs.get_mut(&graph).ok_or(code::INVALID_HANDLE)?;
    if !after.iter().all(|a| nodes.iter().any(|n| n.id == *a)) {
        return Err(code::INVALID_VALUE);
    }
    nodes.push(Node {
        id,
        op,
        after,
        twin: 0,
    });
    put(out, id)
}

/// The parameters of a node of an instantiated graph become those of `op`.
fn change(s: &mut State, exec: usize, node: usize, op: Op) -> Cu {
    let e = s.execs.get_mut(&exec).ok_or(code::INVALID_HANDLE)?;
    exchange(
        e.nodes
            .iter_mut()
            .find(|n| n.id == node)
            .ok_or(code::INVALID_HANDLE)?,
        op,
    )
}

fn exchange(n: &mut Node, mut op: Op) -> Cu {
    if n.op.node_type() != op.node_type() {
        return Err(code::INVALID_VALUE);
    }
    // Cooperation is not among the parameters: it is an attribute of the node and stays.
    if let (Op::Launch { shape: old, .. }, Op::Launch { shape: new, .. }) = (&n.op, &mut op) {
        new.cooperative = old.cooperative;
    }
    n.op = op;
    Ok(())
}

/// The parameters of a kernel node. The pointers stay valid until the next query of the parameters.
fn kernel_params(node: usize, out: *mut KernelNode) -> Cu {
    let (mut s, _) = current()?;
    let Op::Launch {
        function,
        shape,
        params,
    } = find(&s, node)?.1.op.clone()
    else {
        return Err(code::INVALID_VALUE);
    };
    let f = s.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
    let base = params.as_ptr() as usize;
    let pointers: Vec<usize> = f
        .kernel
        .program
        .params
        .iter()
        .map(|p| base + p.offset as usize)
        .collect();
    let list = pointers.as_ptr();
    s.shown.insert(node, (params, pointers));
    put(
        out,
        KernelNode {
            function,
            grid: shape.grid,
            block: shape.block,
            shared: shape.shared,
            params: list.cast(),
            extra: std::ptr::null(),
            kernel: 0,
            context: super::CURRENT.get(),
        },
    )
}

fn depend(graph: usize, from: *const usize, to: *const usize, n: usize, add: bool) -> Cu {
    let (mut s, _) = current()?;
    let (from, to) = (handles(from, n)?, handles(to, n)?);
    let nodes = s.graphs.get_mut(&graph).ok_or(code::INVALID_HANDLE)?;
    for (a, b) in from.iter().zip(&to) {
        if !nodes.iter().any(|n| n.id == *a) {
            return Err(code::INVALID_VALUE);
        }
        let n = nodes
            .iter_mut()
            .find(|n| n.id == *b)
            .ok_or(code::INVALID_VALUE)?;
        if n.after.contains(a) == add {
            return Err(code::INVALID_VALUE);
        }
        if add {
            n.after.push(*a);
        } else {
            n.after.retain(|x| x != a);
        }
    }
    Ok(())
}

fn remove(node: usize) -> Cu {
    let (mut s, _) = current()?;
    let graph = find(&s, node)?.0;
    if let Some(nodes) = s.graphs.get_mut(&graph) {
        nodes.retain(|n| n.id != node);
        for n in nodes {
            n.after.retain(|a| *a != node);
        }
    }
    s.shown.remove(&node);
    Ok(())
}

fn child(graph: usize) -> Cu<Op> {
    let (s, _) = current()?;
    let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
    Ok(Op::Child(super::graph::in_order(nodes)?))
}

fn copy_op(p: *const Copy3d) -> Cu<Op> {
    Ok(Op::Copy(get(p)?.span()?))
}

api! {
    fn cuGraphAddKernelNode_v2(out: *mut usize, graph: usize, after: *const usize, n: usize, p: *const KernelNode) {
        let op = kernel_op(&current()?.0, p)?;
        add(out, graph, after, n, op)
    }
    fn cuGraphAddMemcpyNode(out: *mut usize, graph: usize, after: *const usize, n: usize, p: *const Copy3d, _ctx: usize) {
        add(out, graph, after, n, copy_op(p)?)
    }
    fn cuGraphAddMemsetNode(out: *mut usize, graph: usize, after: *const usize, n: usize, p: *const FillNode, _ctx: usize) {
        add(out, graph, after, n, fill_op(p)?)
    }
    fn cuGraphAddHostNode(out: *mut usize, graph: usize, after: *const usize, n: usize, p: *const HostNode) {
        add(out, graph, after, n, host_op(p)?)
    }
    fn cuGraphAddEmptyNode(out: *mut usize, graph: usize, after: *const usize, n: usize) {
        add(out, graph, after, n, Op::Empty)
    }
    fn cuGraphAddChildGraphNode(out: *mut usize, graph: usize, after: *const usize, n: usize, inner: usize) {
        add(out, graph, after, n, child(inner)?)
    }
    fn cuGraphAddDependencies(graph: usize, from: *const usize, to: *const usize, n: usize) {
        depend(graph, from, to, n, true)
    }
    fn cuGraphRemoveDependencies(graph: usize, from: *const usize, to: *const usize, n: usize) {
        depend(graph, from, to, n, false)
    }
    fn cuGraphDestroyNode(node: usize) {
        remove(node)
    }
    fn cuGraphKernelNodeGetParams_v2(node: usize, out: *mut KernelNode) {
        kernel_params(node, out)
    }
    fn cuGraphKernelNodeSetParams_v2(node: usize, p: *const KernelNode) {
        let (mut s, _) = current()?;
        let op = kernel_op(&s, p)?;
        exchange(find_mut(&mut s, node)?, op)
    }
    fn cuGraphExecKernelNodeSetParams_v2(exec: usize, node: usize, p: *const KernelNode) {
        let (mut s, _) = current()?;
        let op = kernel_op(&s, p)?;
        change(&mut s, exec, node, op)
    }
    fn cuGraphKernelNodeGetAttribute(node: usize, which: c_int, out: *mut [u32; 16]) {
        let (s, _) = current()?;
        let Op::Launch { shape, .. } = &find(&s, node)?.1.op else { return Err(code::INVALID_VALUE) };
        let mut value = [0; 16];
        if which == super::launch::COOPERATIVE {
            value[0] = u32::from(shape.cooperative);
        }
        put(out, value)
    }
    fn cuGraphKernelNodeSetAttribute(node: usize, which: c_int, value: *const [u32; 16]) {
        let (mut s, _) = current()?;
        let Op::Launch { shape, .. } = &mut find_mut(&mut s, node)?.op else { return Err(code::INVALID_VALUE) };
        if which == super::launch::COOPERATIVE {
            shape.cooperative = get(value)?[0] != 0;
        }
        Ok(())
    }
    fn cuGraphMemcpyNodeGetParams(node: usize, out: *mut Copy3d) {
        let (s, gpu) = current()?;
        let Op::Copy(span) = &find(&s, node)?.1.op else { return Err(code::INVALID_VALUE) };
        put(out, Copy3d::of(span, |a| gpu.heap().reserved(a)))
    }
    fn cuGraphMemcpyNodeSetParams(node: usize, p: *const Copy3d) {
        let (mut s, _) = current()?;
        exchange(find_mut(&mut s, node)?, copy_op(p)?)
    }
    fn cuGraphExecMemcpyNodeSetParams(exec: usize, node: usize, p: *const Copy3d, _ctx: usize) {
        let (mut s, _) = current()?;
        change(&mut s, exec, node, copy_op(p)?)
    }
    fn cuGraphMemsetNodeGetParams(node: usize, out: *mut FillNode) {
        let (s, _) = current()?;
        let Op::Fill { to, width, value, count, rows, pitch } = find(&s, node)?.1.op else {
            return Err(code::INVALID_VALUE);
        };
        put(out, FillNode { to, pitch: pitch as usize, value, element: width, width: count as usize, height: rows as usize })
    }
    fn cuGraphMemsetNodeSetParams(node: usize, p: *const FillNode) {
        let (mut s, _) = current()?;
        exchange(find_mut(&mut s, node)?, fill_op(p)?)
    }
    fn cuGraphExecMemsetNodeSetParams(exec: usize, node: usize, p: *const FillNode, _ctx: usize) {
        let (mut s, _) = current()?;
        change(&mut s, exec, node, fill_op(p)?)
    }
    fn cuGraphHostNodeGetParams(node: usize, out: *mut HostNode) {
        let (s, _) = current()?;
        let Op::Host { function, data } = find(&s, node)?.1.op else { return Err(code::INVALID_VALUE) };
        put(out, HostNode { function, data })
    }
    fn cuGraphHostNodeSetParams(node: usize, p: *const HostNode) {
        let (mut s, _) = current()?;
        exchange(find_mut(&mut s, node)?, host_op(p)?)
    }
    fn cuGraphExecHostNodeSetParams(exec: usize, node: usize, p: *const HostNode) {
        let (mut s, _) = current()?;
        change(&mut s, exec, node, host_op(p)?)
    }
    fn cuGraphExecChildGraphNodeSetParams(exec: usize, node: usize, inner: usize) {
        let op = child(inner)?;
        let (mut s, _) = current()?;
        change(&mut s, exec, node, op)
    }
}
