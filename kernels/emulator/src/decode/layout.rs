//! Basic blocks, their order, and the final code.
//!
//! The order is topological, with every loop in one piece: strongly connected components in
//! topological order, and inside each the same again without the edges back to its entry. A
//! diverged warp runs its lowest subset, so the subsets that left a loop or an arm early wait at
//! the first instruction that all others must pass.

use super::flow;
use crate::lower::{Builder, Meta, Res, refuse};
use crate::machine::{Class, Debug, Ins, JUMP, Program};

/// One basic block: its instructions and where it goes.
#[derive(Debug, Default)]
pub struct Block {
    pub first: usize,
    pub end: usize,
    /// Jump targets, as blocks.
    pub jumps: Vec<usize>,
    pub falls: Option<usize>,
}

impl Block {
    pub fn successors(&self) -> impl Iterator<Item = usize> + '_ {
        self.jumps.iter().copied().chain(self.falls)
    }
}

/// Cuts the code into blocks. Block 0 is the entry.
fn blocks(b: &Builder) -> Res<Vec<Block>> {
    let n = b.code.len();
    let mut leader = vec![false; n + 1];
    leader[0] = true;
    for &l in &b.labels {
        if l <= n {
            leader[l] = true;
        }
    }
    for (i, m) in b.meta.iter().enumerate() {
        if m.jump || m.ends || !m.table.is_empty() {
            leader[i + 1] = true;
        }
    }
    let mut number = vec![usize::MAX; n + 1];
    let mut out: Vec<Block> = Vec::new();
    for i in 0..n {
        if leader[i] {
            number[i] = out.len();
            out.push(Block {
                first: i,
                end: i + 1,
                ..Block::default()
            });
        } else if let Some(last) = out.last_mut() {
            last.end = i + 1;
        }
    }
    let target = |label: u64, line: u32| match b.labels.get(label as usize) {
        Some(&pc) if pc < n => Ok(number[pc]),
        _ => refuse(line, "a jump goes to a label that is not defined"),
    };
    for k in 0..out.len() {
        let last = out[k].end - 1;
        let m: &Meta = &b.meta[last];
        let line = b.debug[last].line;
        let mut jumps = Vec::new();
        if m.jump {
            jumps.push(target(b.code[last].imm, line)?);
        }
        for &l in &m.table {
            jumps.push(target(u64::from(l), line)?);
        }
        out[k].jumps = jumps;
        if !m.ends {
            if k + 1 == out.len() {
                return refuse(line, "the code runs over the end of the function");
            }
            out[k].falls = Some(k + 1);
        }
    }
    Ok(out)
}

/// The blocks that can be reached, in the order the module text describes.
pub fn order(blocks: &[Block]) -> Vec<usize> {
    let mut reached = vec![false; blocks.len()];
    let mut todo = vec![0];
    while let Some(b) = todo.pop() {
        if !std::mem::replace(&mut reached[b], true) {
            todo.extend(blocks[b].successors());
        }
    }
    let all: Vec<usize> = (0..blocks.len()).filter(|&b| reached[b]).collect();
    let mut out = Vec::new();
    // Regions still to be ordered, each with the entry whose incoming edges no longer count; a
    // stack, not recursion, so that deep nesting cannot overflow.
    enum Item {
        Region(Vec<usize>, usize),
        Block(usize),
    }
    let mut work = vec![Item::Region(all, usize::MAX)];
    while let Some(item) = work.pop() {
        let (region, ignored) = match item {
            Item::Block(b) => {
                out.push(b);
                continue;
            }
            Item::Region(r, e) => (r, e),
        };
        let components = components(blocks, &region, ignored);
        // Components come out last first, which is what a stack wants.
        for c in components {
            let looped = c.len() > 1;
            if !looped {
                work.push(Item::Block(c[0]));
                continue;
            }
            // The entry: a block some edge from outside reaches; in irreducible code the lowest of
            // them.
            let inside: std::collections::HashSet<usize> = c.iter().copied().collect();
            let mut entered: Vec<usize> = Vec::new();
            for (b, blk) in blocks.iter().enumerate() {
                if reached[b] && !inside.contains(&b) {
                    entered.extend(blk.successors().filter(|s| inside.contains(s)));
                }
            }
            if c.contains(&0) {
                entered.push(0);
            }
            if ignored != usize::MAX && inside.contains(&ignored) {
                entered.push(ignored);
            }
            let entry = entered.into_iter().min().unwrap_or(c[0]);
            work.push(Item::Region(c, entry));
        }
    }
    out
}

/// Strongly connected components of a region, in reverse topological order; edges into `ignored` do
/// not count.
fn components(blocks: &[Block], region: &[usize], ignored: usize) -> Vec<Vec<usize>> {
    use std::collections::HashMap;
    let slot: HashMap<usize, usize> = region.iter().enumerate().map(|(i, b)| (*b, i)).collect();
    let n = region.len();
    let edges: Vec<Vec<usize>> = region
        .iter()
        .map(|&b| {
            blocks[b]
                .successors()
                .filter(|s| *s != ignored)
                .filter_map(|s| slot.get(&s).copied())
                .collect()
        })
        .collect();
    let (mut index, mut low, mut on) = (vec![usize::MAX; n], vec![0; n], vec![false; n]);
    let (mut stack, mut out, mut next) = (Vec::new(), Vec::new(), 0);
    let start = slot.get(&ignored).copied();
    for root in start.into_iter().chain(0..n) {
        if index[root] != usize::MAX {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some(&(v, e)) = calls.last() {
            if e == 0 {
                index[v] = next;
                low[v] = next;
                next += 1;
                stack.push(v);
                on[v] = true;
            }
            if let Some(&w) = edges[v].get(e) {
                if let Some(top) = calls.last_mut() {
                    top.1 += 1;
                }
                if index[w] == usize::MAX {
                    calls.push((w, 0));
                } else if on[w] {
                    low[v] = low[v].min(index[w]);
                }
                continue;
            }
            calls.pop();
            if let Some(&(parent, _)) = calls.last() {
                low[parent] = low[parent].min(low[v]);
            }
            if low[v] == index[v] {
                let mut c = Vec::new();
                while let Some(w) = stack.pop() {
                    on[w] = false;
                    c.push(region[w]);
                    if w == v {
                        break;
                    }
                }
                c.sort_unstable();
                out.push(c);
            }
        }
    }
    out
}

/// Lays out the code and fills the program in.
pub fn place(b: Builder, program: &mut Program) -> Res {
    let blocks = blocks(&b)?;
    let order = order(&blocks);
    let watch = flow::watched(&b, &blocks, &order);
    program.watched = watch.names.clone();
    let mut starts = vec![0usize; blocks.len()];
    let mut code: Vec<Ins> = Vec::new();
    let mut debug: Vec<Debug> = Vec::new();
    // Instructions whose `imm` or list holds blocks until all starts are known.
    let mut jumps: Vec<(usize, usize)> = Vec::new();
    let mut tables: Vec<(u32, Vec<usize>)> = Vec::new();
    let mut leaves: Vec<usize> = Vec::new();
    for (place, &k) in order.iter().enumerate() {
        let blk = &blocks[k];
        starts[k] = code.len();
        for pc in blk.first..blk.end {
            let mut push = |i: Ins| {
                code.push(i);
                debug.push(b.debug[pc]);
            };
            for i in watch.before(&b, pc) {
                push(i);
            }
            push(b.code[pc]);
            if b.meta[pc].ends && blk.jumps.is_empty() {
                leaves.push(code.len() - 1);
            }
            if b.meta[pc].jump {
                jumps.push((code.len() - 1, blk.jumps[0]));
            } else if !b.meta[pc].table.is_empty() {
                tables.push((b.code[pc].list, blk.jumps.clone()));
            }
            for i in watch.after(&b, pc) {
                code.push(i);
                debug.push(b.debug[pc]);
            }
        }
        if let Some(next) = blk.falls
            && order.get(place + 1) != Some(&next)
        {
            jumps.push((code.len(), next));
            code.push(Ins::new(JUMP, Class::Hidden));
            debug.push(b.debug[blk.end - 1]);
        }
    }
    for &(pc, block) in &jumps {
        code[pc].imm = starts[block] as u64;
    }
    program.leaves = vec![false; code.len()];
    for pc in leaves {
        program.leaves[pc] = true;
    }
    // Jumps without a condition, the last first: most go forward.
    for &(pc, block) in jumps.iter().rev() {
        if code[pc].guard == 0 && program.leaves[starts[block]] {
            program.leaves[pc] = true;
        }
    }
    let mut lists = b.lists;
    for (list, targets) in tables {
        lists[list as usize] = targets.iter().map(|t| starts[*t] as u32).collect();
    }
    program.code = code;
    program.debug = debug;
    program.lists = lists;
    program.slots = b.slots as usize;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Block, order};

    fn graph(edges: &[&[usize]]) -> Vec<Block> {
        edges
            .iter()
            .map(|e| Block {
                jumps: e.to_vec(),
                ..Block::default()
            })
            .collect()
    }

    #[test]
    fn loops_stay_in_one_piece() {
        // 0 -> 1; loop 1 {2, 3} with an exit from 2 to 4 that the text puts first; 3 -> 1.
        let g = graph(&[&[1], &[2], &[4, 3], &[1], &[]]);
        assert_eq!(order(&g), [0, 1, 2, 3, 4]);
        // The exit block lies inside the loop's text.
        let g = graph(&[&[1], &[3, 2], &[], &[1, 2]]);
        assert_eq!(order(&g), [0, 1, 3, 2]);
    }

    #[test]
    fn a_cold_arm_at_the_end_comes_before_the_join() {
        let g = graph(&[&[3, 1], &[2], &[], &[1]]);
        assert_eq!(order(&g), [0, 3, 1, 2]);
    }

    #[test]
    fn irreducible_and_nested_code_keeps_every_block_once() {
        let g = graph(&[&[1, 2], &[2, 5], &[1, 3], &[4], &[3, 5], &[]]);
        let mut o = order(&g);
        assert_eq!(o[0], 0);
        assert_eq!(o.last(), Some(&5));
        o.sort_unstable();
        assert_eq!(o, [0, 1, 2, 3, 4, 5]);
    }
}
