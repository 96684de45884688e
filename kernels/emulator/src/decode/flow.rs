//! Registers that may be read before they are written.
//!
//! Most registers are written on every path to every read, which data flow proves before the kernel
//! runs. The others are watched: a check before each doubtful read, a mark after each write. A
//! plain `mov` of an unwritten register is not a fault, since compilers copy undefined values; its
//! destination counts as unwritten.

use super::is_pred;
use super::layout::Block;
use crate::lower::Builder;
use crate::machine::{CHECK_REG, COPY_WRITTEN, Class, Ins, MARK};
use std::collections::HashMap;

/// Which registers are watched, and where a read is doubtful.
pub struct Watch {
    index: HashMap<u32, u32>,
    pub names: Vec<String>,
    /// Instruction to the registers to check before it.
    doubtful: HashMap<usize, Vec<u32>>,
}

#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn meet(&mut self, o: &Set) {
        for (a, b) in self.0.iter_mut().zip(&o.0) {
            *a &= b;
        }
    }
}

/// Adds the registers that are certainly written after an instruction.
fn step(b: &Builder, pc: usize, slot: &HashMap<u32, usize>, set: &mut Set) {
    let m = &b.meta[pc];
    if b.code[pc].guard != 0 {
        return;
    }
    if m.copies
        && m.uses
            .iter()
            .any(|u| slot.get(u).is_some_and(|s| !set.has(*s)))
    {
        return;
    }
    for d in &m.defs {
        if let Some(s) = slot.get(d) {
            set.insert(*s);
        }
    }
}

/// The registers to watch.
pub fn watched(b: &Builder, blocks: &[Block], order: &[usize]) -> Watch {
    let mut registers: Vec<u32> = b.declared.keys().copied().collect();
    registers.sort_unstable();
    let slot: HashMap<u32, usize> = registers.iter().enumerate().map(|(i, r)| (*r, i)).collect();
    let words = registers.len().div_ceil(64).max(1);
    let full = Set(vec![u64::MAX; words]);
    let mut at_entry = vec![full; blocks.len()];
    at_entry[0] = Set(vec![0; words]);
    loop {
        let mut changed = false;
        for &k in order {
            let mut set = at_entry[k].clone();
            for pc in blocks[k].first..blocks[k].end {
                step(b, pc, &slot, &mut set);
            }
            for s in blocks[k].successors() {
                let before = at_entry[s].clone();
                at_entry[s].meet(&set);
                changed |= at_entry[s] != before;
            }
        }
        if !changed {
            break;
        }
    }
    let mut watch = Watch {
        index: HashMap::new(),
        names: Vec::new(),
        doubtful: HashMap::new(),
    };
    for &k in order {
        let mut set = at_entry[k].clone();
        for pc in blocks[k].first..blocks[k].end {
            for u in &b.meta[pc].uses {
                let Some(s) = slot.get(u) else { continue };
                if !set.has(*s) {
                    watch.add(b, *u);
                    if b.meta[pc].copies {
                        for d in b.meta[pc].defs.clone() {
                            watch.add(b, d);
                        }
                    } else {
                        watch.doubtful.entry(pc).or_default().push(*u);
                    }
                }
            }
            step(b, pc, &slot, &mut set);
        }
    }
    watch
}

fn hidden(exec: crate::machine::Exec, from: &Ins) -> Ins {
    Ins {
        guard: from.guard,
        flip: from.flip,
        ..Ins::new(exec, Class::Hidden)
    }
}

impl Watch {
    fn add(&mut self, b: &Builder, register: u32) {
        if self.index.contains_key(&register) {
            return;
        }
        let Some(name) = b.declared.get(&register) else {
            return;
        };
        self.index.insert(register, self.names.len() as u32);
        self.names.push(name.clone());
    }

    /// Checks that go before an instruction.
    pub fn before(&self, b: &Builder, pc: usize) -> Vec<Ins> {
        let Some(list) = self.doubtful.get(&pc) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for r in list {
            // The guard itself must hold something for all lanes.
            let guard = is_pred(*r) && b.code[pc].guard == *r & !crate::lower::PRED;
            let mut i = hidden(CHECK_REG, &b.code[pc]);
            if guard {
                (i.guard, i.flip) = (0, 0);
            }
            i.imm = u64::from(self.index[r]);
            if !out.iter().any(|o: &Ins| o.imm == i.imm) {
                out.push(i);
            }
        }
        out.sort_by_key(|i| i.guard != 0);
        out
    }

    /// Marks that go after it.
    pub fn after(&self, b: &Builder, pc: usize) -> Vec<Ins> {
        let m = &b.meta[pc];
        let mut out = Vec::new();
        for d in &m.defs {
            let Some(index) = self.index.get(d) else {
                continue;
            };
            let source = m.uses.first().and_then(|u| self.index.get(u));
            let mut i = hidden(MARK, &b.code[pc]);
            i.imm = u64::from(*index);
            if let (true, Some(source)) = (m.copies, source) {
                i.exec = COPY_WRITTEN;
                i.src[0] = *source;
            }
            out.push(i);
        }
        out
    }
}
