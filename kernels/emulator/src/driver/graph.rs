//! Graphs: nodes with their dependencies, instantiated in an order that keeps them, launched,
//! updated.

use super::ops::{Op, run};
use super::state::{Exec, Node, State, current};
use super::{Cu, api, code, get, put, put_opt, text};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_uint};

/// The nodes in topological order; among several possible ones, the one added first.
pub fn in_order(nodes: &[Node]) -> Cu<Vec<Node>> {
    let mut left: Vec<&Node> = nodes.iter().collect();
    let mut out: Vec<Node> = Vec::with_capacity(nodes.len());
    while !left.is_empty() {
        let waits = |n: &Node| left.iter().any(|l| n.after.contains(&l.id));
        let Some(i) = (0..left.len()).find(|&i| !waits(left[i])) else {
            eprintln!("offshoot-emulator: the graph's dependencies form a circle");
            return Err(code::INVALID_VALUE);
        };
        out.push(left.remove(i).clone());
    }
    Ok(out)
}

fn instantiate(out: *mut usize, graph: usize, flags: u64) -> Cu {
    let (mut s, _) = current()?;
    let nodes = in_order(s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?)?;
    let h = s.handle();
    s.execs.insert(
        h,
        Exec {
            nodes,
            flags,
            disabled: Vec::new(),
        },
    );
    put(out, h)
}

fn launch(exec: usize, stream: usize) -> Cu {
    let (s, gpu) = current()?;
    let e = s.execs.get(&exec).ok_or(code::INVALID_HANDLE)?;
    let nodes = e
        .nodes
        .iter()
        .filter(|n| !e.disabled.contains(&n.id))
        .cloned()
        .collect();
    super::ops::submit(s, &gpu, stream, Op::Child(nodes))
}

/// Carries out the nodes of a graph, which are in order.
pub fn replay(nodes: &[Node]) -> Cu {
    for n in nodes {
        let (s, gpu) = current()?;
        run(s, &gpu, &n.op)?;
    }
    Ok(())
}

/// `CUgraphExecUpdateResult` and the node it refers to. The graph must be the instantiated one but
/// for parameters: nodes of the same kinds in the same order, with the same dependencies.
fn update(s: &mut State, exec: usize, graph: usize) -> Cu<(c_int, usize)> {
    const TOPOLOGY_CHANGED: c_int = 2;
    const NODE_TYPE_CHANGED: c_int = 3;
    let new = in_order(s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?)?;
    let old = s.execs.get_mut(&exec).ok_or(code::INVALID_HANDLE)?;
    if old.nodes.len() != new.len() {
        return Ok((TOPOLOGY_CHANGED, 0));
    }
    let twin: HashMap<usize, usize> = new
        .iter()
        .zip(&old.nodes)
        .map(|(n, o)| (n.id, o.id))
        .collect();
    for (a, b) in old.nodes.iter().zip(&new) {
        if a.op.node_type() != b.op.node_type() {
            return Ok((NODE_TYPE_CHANGED, b.id));
        }
        let same = a.after.len() == b.after.len()
            && b.after
                .iter()
                .all(|x| twin.get(x).is_some_and(|t| a.after.contains(t)));
        if !same {
            return Ok((TOPOLOGY_CHANGED, b.id));
        }
    }
    // Handles of the instantiated nodes stay valid.
    for (o, n) in old.nodes.iter_mut().zip(new) {
        o.op = n.op;
    }
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

/// Fills a caller's array of node handles, or returns their number.
pub fn list(nodes: &[usize], out: *mut usize, n: *mut usize) -> Cu {
    if out.is_null() {
        return put(n, nodes.len());
    }
    let room = get(n)?;
    for i in 0..room {
        // Entries beyond the last are null.
        put(out.wrapping_add(i), nodes.get(i).copied().unwrap_or(0))?;
    }
    put(n, nodes.len().min(room))
}

fn nodes_of(graph: usize, which: impl Fn(&Node) -> bool) -> Cu<Vec<usize>> {
    let (s, _) = current()?;
    let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
    Ok(nodes.iter().filter(|n| which(n)).map(|n| n.id).collect())
}

/// A node of any graph that is not instantiated.
pub fn find(s: &State, node: usize) -> Cu<(usize, &Node)> {
    s.graphs
        .iter()
        .find_map(|(g, nodes)| Some((*g, nodes.iter().find(|n| n.id == node)?)))
        .ok_or(code::INVALID_HANDLE)
}

pub fn find_mut(s: &mut State, node: usize) -> Cu<&mut Node> {
    s.graphs
        .values_mut()
        .flatten()
        .find(|n| n.id == node)
        .ok_or(code::INVALID_HANDLE)
}

fn enable(exec: usize, node: usize, on: bool) -> Cu {
    let (mut s, _) = current()?;
    let e = s.execs.get_mut(&exec).ok_or(code::INVALID_HANDLE)?;
    let n = e
        .nodes
        .iter()
        .find(|n| n.id == node)
        .ok_or(code::INVALID_HANDLE)?;
    if !matches!(n.op, Op::Launch { .. } | Op::Copy { .. } | Op::Fill { .. }) {
        return Err(code::INVALID_VALUE);
    }
    e.disabled.retain(|d| *d != node);
    if !on {
        e.disabled.push(node);
    }
    Ok(())
}

fn clone(graph: usize) -> Cu<usize> {
    let (mut s, _) = current()?;
    let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?.clone();
    let ids: HashMap<usize, usize> = nodes.iter().map(|n| (n.id, s.handle())).collect();
    let copy = nodes
        .into_iter()
        .map(|n| Node {
            id: ids[&n.id],
            after: n.after.iter().filter_map(|a| ids.get(a).copied()).collect(),
            twin: n.id,
            op: n.op,
        })
        .collect();
    let h = s.handle();
    s.graphs.insert(h, copy);
    Ok(h)
}

fn dot(graph: usize, path: *const c_char) -> Cu {
    let (s, _) = current()?;
    let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
    let mut body = "digraph {\n".to_owned();
    for n in nodes {
        body += &format!("  n{} [label={:?}];\n", n.id, s.label(&n.op));
        for a in &n.after {
            body += &format!("  n{a} -> n{};\n", n.id);
        }
    }
    body += "}\n";
    std::fs::write(text(path)?, body).map_err(|_| code::INVALID_VALUE)
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
        put(out, clone(graph)?)
    }
    fn cuGraphNodeFindInClone(out: *mut usize, node: usize, graph: usize) {
        let (s, _) = current()?;
        let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
        put(out, nodes.iter().find(|n| n.twin == node).ok_or(code::INVALID_VALUE)?.id)
    }
    fn cuGraphInstantiateWithFlags(out: *mut usize, graph: usize, flags: u64) {
        instantiate(out, graph, flags)
    }
    fn cuGraphInstantiate_v2(out: *mut usize, graph: usize, _error: *mut usize, _log: *mut c_char, _len: usize) {
        instantiate(out, graph, 0)
    }
    fn cuGraphInstantiateWithParams(out: *mut usize, graph: usize, params: *const u64) {
        instantiate(out, graph, get(params)?)
    }
    fn cuGraphExecGetFlags(exec: usize, flags: *mut u64) {
        let (s, _) = current()?;
        put(flags, s.execs.get(&exec).ok_or(code::INVALID_HANDLE)?.flags)
    }
    fn cuGraphUpload(exec: usize, _stream: usize) {
        let (s, _) = current()?;
        s.execs.get(&exec).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuGraphLaunch(exec: usize, stream: usize) {
        launch(exec, stream)
    }
    fn cuGraphExecDestroy(exec: usize) {
        let (mut s, _) = current()?;
        s.execs.remove(&exec).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuGraphExecUpdate_v2(exec: usize, graph: usize, info: *mut UpdateResult) {
        let (mut s, _) = current()?;
        let (result, error_node) = update(&mut s, exec, graph)?;
        put_opt(info, UpdateResult { result, error_node, error_from_node: 0 });
        if result == 0 { Ok(()) } else { Err(code::GRAPH_EXEC_UPDATE_FAILURE) }
    }
    fn cuGraphGetNodes(graph: usize, out: *mut usize, n: *mut usize) {
        list(&nodes_of(graph, |_| true)?, out, n)
    }
    fn cuGraphGetRootNodes(graph: usize, out: *mut usize, n: *mut usize) {
        list(&nodes_of(graph, |n| n.after.is_empty())?, out, n)
    }
    fn cuGraphGetEdges(graph: usize, from: *mut usize, to: *mut usize, n: *mut usize) {
        let (s, _) = current()?;
        let nodes = s.graphs.get(&graph).ok_or(code::INVALID_HANDLE)?;
        let edges: Vec<(usize, usize)> =
            nodes.iter().flat_map(|n| n.after.iter().map(|a| (*a, n.id))).collect();
        if from.is_null() || to.is_null() {
            return put(n, edges.len());
        }
        let room = get(n)?.min(edges.len());
        for (i, (a, b)) in edges[..room].iter().enumerate() {
            put(from.wrapping_add(i), *a)?;
            put(to.wrapping_add(i), *b)?;
        }
        put(n, room)
    }
    fn cuGraphNodeGetDependencies(node: usize, out: *mut usize, n: *mut usize) {
        let (s, _) = current()?;
        list(&find(&s, node)?.1.after, out, n)
    }
    fn cuGraphNodeGetDependentNodes(node: usize, out: *mut usize, n: *mut usize) {
        let (s, _) = current()?;
        let graph = find(&s, node)?.0;
        drop(s);
        list(&nodes_of(graph, |m| m.after.contains(&node))?, out, n)
    }
    fn cuGraphNodeGetType(node: usize, out: *mut c_int) {
        let (s, _) = current()?;
        put(out, find(&s, node)?.1.op.node_type())
    }
    fn cuGraphNodeSetEnabled(exec: usize, node: usize, on: c_uint) {
        enable(exec, node, on != 0)
    }
    fn cuGraphNodeGetEnabled(exec: usize, node: usize, on: *mut c_uint) {
        let (s, _) = current()?;
        let e = s.execs.get(&exec).ok_or(code::INVALID_HANDLE)?;
        put(on, c_uint::from(!e.disabled.contains(&node)))
    }
    fn cuGraphDebugDotPrint(graph: usize, path: *const c_char, _flags: c_uint) {
        dot(graph, path)
    }
}
