//! Registers, constants, addresses, code.

use super::form::Form;
use super::{Res, refuse};
use crate::machine::{Class, Debug, Exec, Ins, Special};
use crate::ptx::tree::Operand;
use crate::types::{Space, Ty};
use std::collections::HashMap;

/// A branch target.
pub type Label = u32;

/// A declared register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg {
    /// The register, or the first of its two slots.
    pub index: u32,
    /// 64 bits.
    pub wide: bool,
    /// 16-bit registers hold their value in the low half of a cell.
    pub short: bool,
}

/// What a name means where it is used.
#[derive(Clone, Debug)]
pub enum Name {
    Reg(Reg),
    Pred(u32),
    /// Offset in the thread's local memory.
    Local(u32),
    Shared(u32),
    /// Offset in the kernel's parameter buffer.
    Param(u32),
    Label(Label),
    Targets(Vec<String>),
    Prototype(Vec<u32>, Vec<u32>),
}

/// A module-level name.
#[derive(Clone, Debug)]
pub enum Symbol {
    /// Global or constant variable at a device address.
    Device(u64),
    /// Static shared variable: bytes and alignment.
    Shared(u32, u32),
    /// `extern __shared__`: alignment.
    DynamicShared(u32),
    /// A function, as the number that stands for its address.
    Func(u64),
}

/// Which registers an instruction reads and writes; predicates have the top bit set.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    pub uses: Vec<u32>,
    pub defs: Vec<u32>,
    /// The instruction jumps: its `imm` is a label.
    pub jump: bool,
    /// Further labels it may jump to (`brx`).
    pub table: Vec<Label>,
    /// Control does not go on to the next instruction.
    pub ends: bool,
    /// Copies a register: an unwritten source is not a fault yet.
    pub copies: bool,
}

/// Marks a predicate in [`Meta`].
pub const PRED: u32 = 1 << 31;

/// Suffixes for the halves of a 128-bit register. PTX names contain no spaces.
const HALVES: [&str; 2] = [" low", " high"];

/// Collects a kernel's code.
pub struct Builder<'s> {
    symbols: &'s HashMap<String, Symbol>,
    pub code: Vec<Ins>,
    pub meta: Vec<Meta>,
    pub debug: Vec<Debug>,
    pub lists: Vec<Vec<u32>>,
    pub labels: Vec<usize>,
    /// Size of the register file so far, in slots of 32 lanes of 4 bytes.
    pub slots: u32,
    pub preds: u32,
    pub constants: HashMap<(u64, bool), u32>,
    pub specials: Vec<(u32, Special)>,
    /// Names of the declared registers and predicates.
    pub declared: HashMap<u32, String>,
    pub scopes: Vec<HashMap<String, Name>>,
    /// Bytes of the kernel's parameters.
    pub param_bytes: u32,
    pub local_bytes: u32,
    pub shared_bytes: u32,
    shared_at: HashMap<String, u32>,
    /// Where dynamic shared memory starts, known from a first pass over the kernel.
    dynamic_base: u32,
    /// Its strictest alignment; 0 when the kernel does not use it.
    pub dynamic_align: u32,
    pub registers: u32,
    pub communicates: bool,
    /// Line information for the next instruction.
    pub line_info: Debug,
    guard: u32,
    flip: u32,
    uses: Vec<u32>,
    defs: Vec<u32>,
}

impl<'s> Builder<'s> {
    pub fn new(symbols: &'s HashMap<String, Symbol>, dynamic_base: u32) -> Builder<'s> {
        Builder {
            symbols,
            code: Vec::new(),
            meta: Vec::new(),
            debug: Vec::new(),

            lists: Vec::new(),
            labels: Vec::new(),
            slots: 0,
            // 0 always holds, 1 is the carry flag.
            preds: 2,
            constants: HashMap::new(),
            specials: Vec::new(),
            declared: HashMap::new(),
            scopes: vec![HashMap::new()],
            param_bytes: 0,
            local_bytes: 0,
            shared_bytes: 0,
            shared_at: HashMap::new(),
            dynamic_base,
            dynamic_align: 0,
            registers: 0,
            communicates: false,
            line_info: Debug::default(),
            guard: 0,
            flip: 0,
            uses: Vec::new(),
            defs: Vec::new(),
        }
    }

    // ---- names ----

    pub fn declare(&mut self, name: &str, meaning: Name) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), meaning);
        }
    }

    /// Declares a register.
    pub fn register(&mut self, name: &str, ty: Ty) {
        let meaning = match ty {
            Ty::Pred => {
                let p = self.preds;
                self.preds += 1;
                self.declared.insert(p | PRED, name.to_owned());
                Name::Pred(p)
            }
            Ty::B128 => {
                for half in HALVES {
                    self.register(&format!("{name}{half}"), Ty::B64);
                }
                return;
            }
            _ => {
                let wide = ty.bytes() == 8;
                let index = self.scratch(wide);
                self.declared.insert(index, name.to_owned());
                self.registers += 1 + u32::from(wide);
                Name::Reg(Reg {
                    index,
                    wide,
                    short: ty.bytes() <= 2,
                })
            }
        };
        self.declare(name, meaning);
    }

    /// The two registers of 64 bits that a 128-bit one stands for, low half first.
    pub fn halves(&self, op: &Operand) -> Option<[Operand; 2]> {
        let Operand::Name(name) = op else { return None };
        let parts = HALVES.map(|h| format!("{name}{h}"));
        parts
            .iter()
            .all(|p| self.lookup(p).is_some())
            .then(|| parts.map(Operand::Name))
    }

    pub fn lookup(&self, name: &str) -> Option<&Name> {
        self.scopes.iter().rev().find_map(|s| s.get(name))
    }

    /// A new unnamed register.
    pub fn scratch(&mut self, wide: bool) -> u32 {
        let reg = self.slots;
        self.slots += 1 + u32::from(wide);
        reg
    }

    /// The register that holds a constant.
    pub fn constant(&mut self, value: u64, wide: bool) -> u32 {
        let value = if wide { value } else { value & 0xffff_ffff };
        if let Some(reg) = self.constants.get(&(value, wide)) {
            return *reg;
        }
        let reg = self.scratch(wide);
        self.constants.insert((value, wide), reg);
        reg
    }

    fn special(&mut self, s: Special) -> u32 {
        if let Some((reg, _)) = self.specials.iter().find(|x| x.1 == s) {
            return *reg;
        }
        let reg = self.scratch(false);
        self.specials.push((reg, s));
        reg
    }

    /// Room in the thread's local memory.
    pub fn local(&mut self, bytes: u64, align: u32, line: u32) -> Res<u32> {
        let offset = self.local_bytes.next_multiple_of(align.max(1));
        match u32::try_from(u64::from(offset) + bytes) {
            Ok(end) if end <= 1 << 20 => {
                // Lanes lie one after the other, so the size keeps the strictest alignment.
                self.local_bytes = end.next_multiple_of(16);
                Ok(offset)
            }
            _ => refuse(line, format!("{bytes} bytes of local memory are too many")),
        }
    }

    /// Room in the block's static shared memory.
    pub fn shared(&mut self, bytes: u64, align: u32, line: u32) -> Res<u32> {
        let offset = self.shared_bytes.next_multiple_of(align.max(1));
        match u32::try_from(u64::from(offset) + bytes) {
            Ok(end) if end <= 1 << 20 => {
                self.shared_bytes = end;
                Ok(offset)
            }
            _ => refuse(line, format!("{bytes} bytes of shared memory are too many")),
        }
    }

    /// The value of a name used as an address, and its space.
    fn address_of(&mut self, name: &str, line: u32) -> Res<Option<(u64, Space)>> {
        match self.lookup(name) {
            Some(Name::Local(o)) => return Ok(Some((u64::from(*o), Space::Local))),
            Some(Name::Shared(o)) => return Ok(Some((u64::from(*o), Space::Shared))),
            Some(Name::Param(o)) => return Ok(Some((u64::from(*o), Space::Param))),
            Some(_) => return Ok(None),
            None => {}
        }
        let found = match self.symbols.get(name) {
            None => return Ok(None),
            Some(Symbol::Device(a)) => (*a, Space::Global),
            Some(Symbol::Func(f)) => (*f, Space::Global),
            Some(Symbol::Shared(bytes, align)) => {
                let (bytes, align) = (*bytes, *align);
                let offset = match self.shared_at.get(name) {
                    Some(o) => *o,
                    None => {
                        let o = self.shared(u64::from(bytes), align, line)?;
                        self.shared_at.insert(name.to_owned(), o);
                        o
                    }
                };
                (u64::from(offset), Space::Shared)
            }
            Some(Symbol::DynamicShared(align)) => {
                self.dynamic_align = self.dynamic_align.max(*align);
                (u64::from(self.dynamic_base), Space::Shared)
            }
        };
        Ok(Some(found))
    }

    // ---- operands ----

    fn special_operand(&mut self, name: &str) -> Option<u32> {
        let axis = |s: &str| match s {
            "x" => Some(0),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        let (base, part) = name.split_once('.').unwrap_or((name, ""));
        let s = match base {
            "%tid" => Special::Tid(axis(part)?),
            "%ntid" => Special::Ntid(axis(part)?),
            "%ctaid" => Special::Ctaid(axis(part)?),
            "%nctaid" => Special::Nctaid(axis(part)?),
            "%laneid" => Special::LaneId,
            "%warpid" => Special::WarpId,
            "%nwarpid" => Special::WarpCount,
            "%smid" => Special::SmId,
            "%nsmid" => Special::SmCount,
            "%gridid" => Special::GridId,
            "%lanemask_eq" => Special::LaneMaskEq,
            "%lanemask_le" => Special::LaneMaskLe,
            "%lanemask_lt" => Special::LaneMaskLt,
            "%lanemask_ge" => Special::LaneMaskGe,
            "%lanemask_gt" => Special::LaneMaskGt,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            "%envreg1" => Special::GridWorkspaceHigh,
            "%envreg2" => Special::GridWorkspaceLow,
            "WARP_SZ" => return Some(self.constant(32, false)),
            _ => return None,
        };
        Some(self.special(s))
    }

    /// The register of an operand, whatever its width. `None` when it is not a register.
    pub fn reg_of(&self, op: &Operand) -> Option<Reg> {
        match op {
            Operand::Name(n) => match self.lookup(n) {
                Some(Name::Reg(r)) => Some(*r),
                _ => None,
            },
            _ => None,
        }
    }

    /// The register that holds the operand as a value of the type: 64 bits wide, or 32 for types of
    /// up to 4 bytes.
    pub fn src(&mut self, f: &Form, op: &Operand, ty: Ty) -> Res<u32> {
        let wide = ty.bytes() == 8;
        match op {
            Operand::Name(n) => {
                if let Some(name) = self.lookup(n).cloned() {
                    match name {
                        Name::Reg(r) => {
                            self.uses.push(r.index);
                            if r.wide == wide {
                                return Ok(r.index);
                            }
                            if r.wide {
                                return Ok(self.low_half(r.index));
                            }
                            return f.refuse(format!(
                                "{n} is 32 bits wide or less, {} are needed",
                                ty.bytes() * 8
                            ));
                        }
                        Name::Pred(_) => return f.refuse(format!("{n} is a predicate")),
                        _ => {}
                    }
                }
                if let Some(reg) = self.special_operand(n) {
                    return if wide { Ok(self.widen(reg)) } else { Ok(reg) };
                }
                if matches!(
                    n.as_str(),
                    "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo"
                ) {
                    return Ok(self.clock(wide));
                }
                match self.address_of(n, f.line())? {
                    Some((a, _)) => Ok(self.constant(a, wide)),
                    None => f.refuse(format!("{n:?} is not declared")),
                }
            }
            Operand::Address(Some(n), offset) => match self.address_of(n, f.line())? {
                Some((a, _)) => Ok(self.constant(a.wrapping_add(*offset as u64), wide)),
                None => f.refuse(format!("{n:?} is not a variable")),
            },
            Operand::Int(v) => Ok(match ty {
                Ty::F32 => self.constant(u64::from((*v as i64 as f32).to_bits()), false),
                Ty::F64 => self.constant((*v as i64 as f64).to_bits(), true),
                _ if ty.bytes() <= 2 => self.constant(v & 0xffff, false),
                _ => self.constant(*v, wide),
            }),
            Operand::Float(v, bits) => Ok(match (ty.bytes(), bits) {
                (8, _) => self.constant(v.to_bits(), true),
                (4, Some(b)) => self.constant(u64::from(*b), false),
                (4, None) => self.constant(u64::from((*v as f32).to_bits()), false),
                _ => return f.refuse("a float immediate needs a 32-bit or 64-bit type"),
            }),
            other => f.refuse(format!("{other:?} is not a value")),
        }
    }

    /// Emits an instruction without PTX text of its own, unguarded, before the one being decoded.
    fn hidden(&mut self, exec: Exec, dst: u32, source: Option<u32>, imm: u64) {
        let uses = std::mem::replace(&mut self.uses, source.into_iter().collect());
        let defs = std::mem::take(&mut self.defs);
        let (guard, flip) = (self.guard, self.flip);
        (self.guard, self.flip) = (0, 0);
        self.emit(exec, Class::Hidden, |i| {
            i.dst = dst;
            i.src[0] = source.unwrap_or(0);
            i.imm = imm;
        });
        (self.uses, self.defs, self.guard, self.flip) = (uses, defs, guard, flip);
    }

    /// The low half of a 64-bit register.
    fn low_half(&mut self, wide: u32) -> u32 {
        let dst = self.scratch(false);
        self.hidden(crate::machine::NARROW, dst, Some(wide), 0);
        dst
    }

    /// A 32-bit register, zero-extended.
    fn widen(&mut self, short: u32) -> u32 {
        let dst = self.scratch(true);
        self.hidden(crate::machine::WIDEN, dst, Some(short), 0);
        dst
    }

    /// The value of the clock where it is read.
    fn clock(&mut self, wide: bool) -> u32 {
        let dst = self.scratch(wide);
        self.hidden(crate::machine::CLOCK, dst, None, u64::from(wide));
        dst
    }

    /// The register an instruction writes, of exactly the type's width.
    pub fn dst(&mut self, f: &Form, op: &Operand, ty: Ty) -> Res<u32> {
        let wide = ty.bytes() == 8;
        match op {
            Operand::Sink => Ok(self.scratch(wide)),
            _ => {
                let r = self.dst_any(f, op)?;
                if r.wide != wide {
                    return f.refuse(format!(
                        "destination {op:?} is not {} bits wide",
                        ty.bytes() * 8
                    ));
                }
                Ok(r.index)
            }
        }
    }

    /// The register an instruction writes, of any width.
    pub fn dst_any(&mut self, f: &Form, op: &Operand) -> Res<Reg> {
        match self.reg_of(op) {
            Some(r) => {
                self.defs.push(r.index);
                Ok(r)
            }
            None if *op == Operand::Sink => Ok(Reg {
                index: self.scratch(true),
                wide: true,
                short: false,
            }),
            None => f.refuse(format!("destination {op:?} is not a register")),
        }
    }

    /// Whether the operand is a predicate.
    pub fn is_pred(&self, op: &Operand) -> bool {
        matches!(op, Operand::Name(n) | Operand::Not(n) if matches!(self.lookup(n), Some(Name::Pred(_))))
    }

    /// A predicate read, and all ones if it is negated.
    pub fn pred(&mut self, f: &Form, op: &Operand) -> Res<(u32, u32)> {
        let (name, flip) = match op {
            Operand::Name(n) => (n, 0),
            Operand::Not(n) => (n, !0),
            Operand::Int(v) => return Ok((0, if *v != 0 { 0 } else { !0 })),
            other => return f.refuse(format!("{other:?} is not a predicate")),
        };
        match self.lookup(name) {
            Some(Name::Pred(p)) => {
                let p = *p;
                self.uses.push(p | PRED);
                Ok((p, flip))
            }
            _ => f.refuse(format!("{name:?} is not a predicate")),
        }
    }

    /// A predicate written.
    pub fn pred_dst(&mut self, f: &Form, op: &Operand) -> Res<u32> {
        match op {
            Operand::Sink => {
                self.preds += 1;
                Ok(self.preds - 1)
            }
            Operand::Name(n) => match self.lookup(n) {
                Some(Name::Pred(p)) => {
                    let p = *p;
                    self.defs.push(p | PRED);
                    Ok(p)
                }
                _ => f.refuse(format!("{n:?} is not a predicate")),
            },
            other => f.refuse(format!("{other:?} is not a predicate")),
        }
    }

    /// An address operand: the register of its 64-bit base and the offset to add. A named variable
    /// yields its space.
    pub fn address(&mut self, f: &Form, op: &Operand) -> Res<(u32, i64, Option<Space>)> {
        let Operand::Address(base, offset) = op else {
            return f.refuse(format!("{op:?} is not an address"));
        };
        let Some(name) = base else {
            return Ok((self.constant(*offset as u64, true), 0, None));
        };
        if let Some(Name::Reg(r)) = self.lookup(name).cloned() {
            self.uses.push(r.index);
            let reg = if r.wide { r.index } else { self.widen(r.index) };
            return Ok((reg, *offset, None));
        }
        match self.address_of(name, f.line())? {
            Some((a, space)) => Ok((
                self.constant(a.wrapping_add(*offset as u64), true),
                0,
                Some(space),
            )),
            None => f.refuse(format!("{name:?} is not declared")),
        }
    }

    /// An index into [`Builder::lists`] for an instruction with many operands.
    pub fn list(&mut self, items: Vec<u32>) -> u32 {
        self.lists.push(items);
        (self.lists.len() - 1) as u32
    }

    // ---- code ----

    /// Everything emitted until the next call is guarded by this predicate.
    pub fn set_guard(&mut self, guard: u32, flip: u32) {
        self.guard = guard;
        self.flip = flip;
    }

    /// Inverts the guard.
    pub fn flip_guard(&mut self) {
        self.flip = !self.flip;
    }

    /// Records a register read that is not an operand.
    pub fn also_uses(&mut self, reg: u32) {
        self.uses.push(reg);
    }

    /// Appends an instruction. The registers allocated or looked up since the last one are its
    /// operands.
    pub fn emit(&mut self, exec: Exec, class: Class, fill: impl FnOnce(&mut Ins)) -> &mut Meta {
        let mut ins = Ins {
            guard: self.guard,
            flip: self.flip,
            ..Ins::new(exec, class)
        };
        fill(&mut ins);
        let mut uses = std::mem::take(&mut self.uses);
        if self.guard != 0 {
            uses.push(self.guard | PRED);
        }
        let defs = std::mem::take(&mut self.defs);
        self.code.push(ins);
        self.debug.push(self.line_info);
        let i = self.meta.len();
        self.meta.push(Meta {
            uses,
            defs,
            ..Meta::default()
        });
        &mut self.meta[i]
    }

    /// Changes the instruction emitted last.
    pub fn patch(&mut self, change: impl FnOnce(&mut Ins)) {
        if let Some(i) = self.code.last_mut() {
            change(i);
        }
    }

    pub fn new_label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        (self.labels.len() - 1) as Label
    }

    pub fn place_label(&mut self, label: Label) {
        self.labels[label as usize] = self.code.len();
    }
}
