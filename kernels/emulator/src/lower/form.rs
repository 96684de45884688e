//! An instruction as written.

use super::{Res, refuse};
use crate::machine::Choice;
use crate::ptx::tree::{Inst, Operand};
use crate::types::Ty;
use std::cell::RefCell;

/// One PTX instruction with its modifiers.
pub struct Form<'a> {
    pub inst: &'a Inst,
    checked: RefCell<Vec<bool>>,
}

impl<'a> Form<'a> {
    pub fn new(inst: &'a Inst) -> Form<'a> {
        Form {
            inst,
            checked: RefCell::new(vec![false; inst.modifiers.len()]),
        }
    }

    pub fn line(&self) -> u32 {
        self.inst.line
    }

    /// Opcode and modifiers as written.
    pub fn text(&self) -> String {
        let mut s = self.inst.opcode.clone();
        for m in &self.inst.modifiers {
            s.push('.');
            s.push_str(m);
        }
        s
    }

    /// Whether the modifier is there.
    pub fn has(&self, name: &str) -> bool {
        let mut hit = false;
        for (m, a) in self
            .inst
            .modifiers
            .iter()
            .zip(self.checked.borrow_mut().iter_mut())
        {
            if m == name {
                *a = true;
                hit = true;
            }
        }
        hit
    }

    /// The place in `names` of the first modifier that is there.
    pub fn pick(&self, names: &[&str]) -> Option<usize> {
        names.iter().position(|n| self.has(n))
    }

    /// The first of the choice's modifiers that is there.
    pub fn choose<T: Choice>(&self) -> Option<T> {
        T::ALL.iter().find(|(name, _)| self.has(name)).map(|c| c.1)
    }

    /// All type modifiers in order.
    pub fn types(&self) -> Vec<Ty> {
        let mut out = Vec::new();
        for (m, a) in self
            .inst
            .modifiers
            .iter()
            .zip(self.checked.borrow_mut().iter_mut())
        {
            if let Some(t) = Ty::parse(m) {
                *a = true;
                out.push(t);
            }
        }
        out
    }

    /// The only type.
    pub fn ty(&self) -> Res<Ty> {
        match self.types()[..] {
            [t] => Ok(t),
            _ => self.refuse("exactly one type is expected"),
        }
    }

    /// Refuses the instruction unless it has this type and no other.
    pub fn only_type(&self, ty: Ty, name: &str) -> Res {
        match self.types()[..] {
            [t] if t == ty => Ok(()),
            _ => self.refuse(format!("the type .{name} is expected")),
        }
    }

    /// The operands, which must be `n`.
    pub fn operands(&self, n: usize) -> Res<&'a [Operand]> {
        if self.inst.operands.len() != n {
            return self.refuse(format!(
                "{n} operands are expected, {} are there",
                self.inst.operands.len()
            ));
        }
        Ok(&self.inst.operands)
    }

    /// Refuses modifiers that the decoder did not check.
    pub fn finish(&self) -> Res {
        for (m, a) in self.inst.modifiers.iter().zip(self.checked.borrow().iter()) {
            if !a {
                return self.refuse(format!("modifier .{m} is not supported"));
            }
        }
        Ok(())
    }

    /// An error with the PTX line and the instruction's text.
    pub fn refuse<T>(&self, why: impl std::fmt::Display) -> Res<T> {
        refuse(self.inst.line, format!("{}: {why}", self.text()))
    }
}
