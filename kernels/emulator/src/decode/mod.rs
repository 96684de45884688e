//! A kernel's syntax to a program: names, calls (inlined), control flow, layout.

mod flow;
mod layout;

use crate::isa;
use crate::lower::{Builder, Form, Name, PRED, PtxError, Res, Symbol, refuse};
use crate::machine::{Class, Debug, Param, Program};
use crate::ptx::tree::{Func, Inst, Module, Operand, Stmt, Var};
use crate::types::{Space, Ty};
use std::collections::HashMap;
use std::sync::Arc;

/// Limit of a kernel's instructions after inlining.
const MAX_CODE: usize = 1 << 20;

/// Decodes one kernel of a module whose variables already have addresses.
pub fn kernel(
    module: &Module,
    symbols: &HashMap<String, Symbol>,
    name: &str,
    source: &Arc<str>,
) -> Result<Program, PtxError> {
    let Some(func) = module
        .funcs
        .iter()
        .find(|f| f.name == name && f.entry && f.body.is_some())
    else {
        return refuse(1, format!("the module has no kernel {name:?}"));
    };
    // Dynamic shared memory follows the static variables, whose size is known after a first pass.
    let first = lower(module, symbols, func, 0)?;
    let base = first
        .shared_bytes
        .next_multiple_of(first.dynamic_align.max(1));
    let b = if first.dynamic_align > 0 && base > 0 {
        lower(module, symbols, func, base)?
    } else {
        first
    };
    let (params, param_bytes) = parameters(func)?;
    let mut program = Program {
        name: name.to_owned(),
        code: Vec::new(),
        debug: Vec::new(),
        lists: Vec::new(),
        slots: 0,
        preds: b.preds as usize,
        constants: b
            .constants
            .iter()
            .map(|(k, reg)| (*reg, k.0, k.1))
            .collect(),
        specials: b.specials.clone(),
        params,
        param_bytes,
        local_bytes: b.local_bytes,
        shared_bytes: if b.dynamic_align > 0 {
            base
        } else {
            b.shared_bytes
        },
        registers: b.registers.clamp(16, 255),
        max_threads: func
            .required_threads
            .or(func.max_threads)
            .map_or(1024, |t| t.iter().fold(1, |n, x| n.saturating_mul(*x))),
        files: module.files.clone(),
        source: source.clone(),
        leaves: Vec::new(),
        watched: Vec::new(),
        communicates: b.communicates,
    };
    layout::place(b, &mut program)?;
    Ok(program)
}

/// The parameter bytes of a kernel that PTX allows ("Parameter State Space" in the manual).
const MAX_PARAM_BYTES: u64 = 32_764;

/// Offsets of the parameters in the buffer, by natural alignment, and the buffer's bytes.
fn parameters(func: &Func) -> Res<(Vec<Param>, u32)> {
    let mut end = 0u64;
    let mut out = Vec::new();
    for p in &func.params {
        let (offset, bytes) = (end.next_multiple_of(u64::from(p.align.max(1))), p.bytes());
        end = offset.saturating_add(bytes);
        if end > MAX_PARAM_BYTES {
            let why = format!(
                "the parameters of {:?} take more than {MAX_PARAM_BYTES} bytes",
                func.name
            );
            return refuse(p.line, why);
        }
        out.push(Param {
            offset: offset as u32,
            bytes: bytes as u32,
        });
    }
    Ok((out, end as u32))
}

fn lower<'s>(
    module: &Module,
    symbols: &'s HashMap<String, Symbol>,
    func: &Func,
    dynamic_base: u32,
) -> Res<Builder<'s>> {
    let mut b = Builder::new(symbols, dynamic_base);
    let (params, bytes) = parameters(func)?;
    b.param_bytes = bytes;
    for (v, p) in func.params.iter().zip(params) {
        b.declare(&v.name, Name::Param(p.offset));
    }
    let mut l = Lowering {
        module,
        b,
        stack: vec![func.name.clone()],
        statics: HashMap::new(),
        returns: None,
        temporaries: 0,
    };
    l.body(func)?;
    let mut b = l.b;
    b.set_guard(0, 0);
    b.emit(isa::EXIT, Class::Hidden, |_| {}).ends = true;
    Ok(b)
}

struct Lowering<'m, 's> {
    module: &'m Module,
    b: Builder<'s>,
    /// Functions being inlined, outermost first.
    stack: Vec<String>,
    /// Shared variables of functions: one each, however often the function is inlined.
    statics: HashMap<(String, String), u32>,
    /// Where `ret` goes; `None` in the kernel itself.
    returns: Option<u32>,
    temporaries: u32,
}

impl Lowering<'_, '_> {
    fn body(&mut self, func: &Func) -> Res {
        let Some(stmts) = &func.body else {
            return refuse(func.line, format!("function {:?} has no body", func.name));
        };
        self.b.scopes.push(HashMap::new());
        self.labels(stmts);
        for (i, s) in stmts.iter().enumerate() {
            match s {
                Stmt::Open => {
                    self.b.scopes.push(HashMap::new());
                    self.labels(&stmts[i + 1..]);
                }
                Stmt::Close => {
                    self.b.scopes.pop();
                }
                Stmt::Regs {
                    line,
                    ty,
                    vector,
                    names,
                } => self.registers(*line, *ty, *vector, names)?,
                Stmt::Var(v) => self.variable(func, v)?,
                Stmt::Label(name) => match self.b.lookup(name) {
                    Some(Name::Label(l)) => {
                        let l = *l;
                        if self.b.labels[l as usize] != usize::MAX {
                            return refuse(
                                self.b.line_info.line,
                                format!("label {name:?} is defined twice"),
                            );
                        }
                        self.b.place_label(l);
                    }
                    _ => {
                        return refuse(
                            self.b.line_info.line,
                            format!("label {name:?} clashes with another name"),
                        );
                    }
                },
                Stmt::Loc(file, row) => {
                    self.b.line_info.file = *file;
                    self.b.line_info.row = *row;
                }
                Stmt::Targets(..) | Stmt::Prototype(..) => {}
                Stmt::Inst(inst) => {
                    self.instruction(inst)?;
                    if self.b.code.len() > MAX_CODE {
                        return refuse(inst.line, "the kernel is too large after inlining");
                    }
                }
            }
        }
        self.b.scopes.pop();
        Ok(())
    }

    /// Declares the labels of the scope that starts here, so that jumps may go forward.
    fn labels(&mut self, stmts: &[Stmt]) {
        let mut depth = 0;
        for s in stmts {
            match s {
                Stmt::Open => depth += 1,
                Stmt::Close if depth == 0 => return,
                Stmt::Close => depth -= 1,
                Stmt::Label(name) if depth == 0 => {
                    let l = self.b.new_label();
                    self.b.declare(name, Name::Label(l));
                }
                Stmt::Targets(name, list) if depth == 0 => {
                    self.b.declare(name, Name::Targets(list.clone()))
                }
                Stmt::Prototype(name, returns, params) if depth == 0 => {
                    let bytes = |v: &[Var]| v.iter().map(|v| v.bytes() as u32).collect();
                    self.b
                        .declare(name, Name::Prototype(bytes(returns), bytes(params)));
                }
                _ => {}
            }
        }
    }

    fn registers(
        &mut self,
        line: u32,
        ty: Ty,
        vector: u32,
        names: &[(String, Option<u32>)],
    ) -> Res {
        if vector > 1 {
            return refuse(line, "vector registers are not supported");
        }
        for (name, count) in names {
            match count {
                None => self.b.register(name, ty),
                Some(n) => {
                    for i in 0..*n {
                        self.b.register(&format!("{name}{i}"), ty);
                    }
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, func: &Func, v: &Var) -> Res {
        let meaning = match v.space {
            Space::Local | Space::Param => Name::Local(self.b.local(v.bytes(), v.align, v.line)?),
            Space::Shared => {
                let key = (func.name.clone(), v.name.clone());
                let offset = match self.statics.get(&key) {
                    Some(offset) => *offset,
                    None => self.b.shared(v.bytes(), v.align, v.line)?,
                };
                self.statics.insert(key, offset);
                Name::Shared(offset)
            }
            // The loader has given it an address.
            _ => return Ok(()),
        };
        self.b.declare(&v.name, meaning);
        Ok(())
    }

    fn instruction(&mut self, inst: &Inst) -> Res {
        self.b.line_info.line = inst.line;
        let f = Form::new(inst);
        self.b.set_guard(0, 0);
        if let Some((p, negated)) = &inst.guard {
            match self.b.lookup(p) {
                Some(Name::Pred(p)) => {
                    let p = *p;
                    self.b.set_guard(p, if *negated { !0 } else { 0 });
                }
                _ => return f.refuse(format!("guard {p:?} is not a predicate")),
            }
        }
        match inst.opcode.as_str() {
            "bra" => self.branch(&f),
            "brx" => self.table(&f),
            "call" => self.call(&f),
            "ret" => self.ret(&f),
            _ => {
                isa::decode(&mut self.b, &f)?;
                if inst.opcode == "exit"
                    && inst.guard.is_none()
                    && let Some(m) = self.b.meta.last_mut()
                {
                    m.ends = true;
                }
                Ok(())
            }
        }
    }

    fn label(&self, f: &Form, name: &str) -> Res<u32> {
        match self.b.lookup(name) {
            Some(Name::Label(l)) => Ok(*l),
            _ => f.refuse(format!("{name:?} is not a label")),
        }
    }

    fn branch(&mut self, f: &Form) -> Res {
        f.has("uni");
        let ops = f.operands(1)?;
        let Operand::Name(name) = &ops[0] else {
            return f.refuse("a label is expected");
        };
        let target = self.label(f, name)?;
        self.jump(target, Class::Control, f.inst.guard.is_none());
        f.finish()
    }

    fn jump(&mut self, target: u32, class: Class, always: bool) {
        let m = self
            .b
            .emit(isa::BRANCH, class, |i| i.imm = u64::from(target));
        m.jump = true;
        m.ends = always;
    }

    fn table(&mut self, f: &Form) -> Res {
        f.has("idx");
        f.has("uni");
        let ops = f.operands(2)?;
        let Operand::Name(list) = &ops[1] else {
            return f.refuse("a list of targets is expected");
        };
        let Some(Name::Targets(names)) = self.b.lookup(list).cloned() else {
            return f.refuse(format!("{list:?} is not a list of targets"));
        };
        let mut labels = Vec::new();
        for n in &names {
            labels.push(self.label(f, n)?);
        }
        let a = self.b.src(f, &ops[0], Ty::U32)?;
        let list = self.b.list(labels.clone());
        let guarded = f.inst.guard.is_some();
        let m = self.b.emit(isa::TABLE, Class::Control, |i| {
            i.src[0] = a;
            i.list = list;
        });
        m.table = labels;
        m.ends = !guarded;
        f.finish()
    }

    fn ret(&mut self, f: &Form) -> Res {
        f.has("uni");
        let always = f.inst.guard.is_none();
        match self.returns {
            Some(target) => self.jump(target, Class::Control, always),
            None => self.b.emit(isa::EXIT, Class::Control, |_| {}).ends = always,
        }
        f.finish()
    }

    /// Where a call's argument or result variable lies.
    fn slot(&self, f: &Form, op: &Operand) -> Res<u32> {
        match op {
            Operand::Name(n) => match self.b.lookup(n) {
                Some(Name::Local(o)) => Ok(*o),
                _ => f.refuse(format!("{n:?} is not a .param variable of this call")),
            },
            _ => f.refuse("arguments must be .param variables"),
        }
    }

    fn call(&mut self, f: &Form) -> Res {
        f.has("uni");
        f.finish()?;
        let mut ops = f.inst.operands.as_slice();
        let mut returns = Vec::new();
        if let Some(Operand::List(l)) = ops.first() {
            for op in l {
                returns.push(self.slot(f, op)?);
            }
            ops = &ops[1..];
        }
        let Some(Operand::Name(name)) = ops.first() else {
            return f.refuse("a function is expected");
        };
        let mut args = Vec::new();
        let mut ops = &ops[1..];
        let mut arg_ops: &[Operand] = &[];
        if let Some(Operand::List(l)) = ops.first() {
            arg_ops = l;
            for op in l {
                args.push(self.slot(f, op)?);
            }
            ops = &ops[1..];
        }
        // A guarded call jumps around itself.
        let skip = f.inst.guard.as_ref().map(|_| self.b.new_label());
        if let Some(skip) = skip {
            self.b.flip_guard();
            self.jump(skip, Class::Hidden, false);
            self.b.set_guard(0, 0);
        }
        self.b.emit(crate::machine::NOTHING, Class::Control, |_| {});
        if matches!(self.b.lookup(name), Some(Name::Reg(_))) {
            self.indirect(f, name, ops.first(), &returns, &args)?;
        } else {
            match (name.as_str(), arg_ops) {
                ("vprintf", [format, list]) => self.printf(f, format, list, returns.first())?,
                ("__assertfail", [message, file, line, ..]) => {
                    self.assert(f, message, file, line)?
                }
                _ => {
                    let module = self.module;
                    let Some(callee) = module
                        .funcs
                        .iter()
                        .find(|c| c.name == *name && c.body.is_some())
                    else {
                        return f.refuse(format!("function {name:?} has no body in this module"));
                    };
                    self.inline(f, callee, &returns, &args)?;
                }
            }
        }
        if let Some(skip) = skip {
            self.b.place_label(skip);
        }
        Ok(())
    }

    fn inline(&mut self, f: &Form, callee: &Func, returns: &[u32], args: &[u32]) -> Res {
        if self.stack.contains(&callee.name) {
            return f.refuse(format!(
                "{} calls itself: recursion is not supported",
                callee.name
            ));
        }
        if callee.params.len() != args.len() || callee.returns.len() != returns.len() {
            return f.refuse(format!(
                "{} takes {} arguments and returns {} values",
                callee.name,
                callee.params.len(),
                callee.returns.len()
            ));
        }
        let outer = std::mem::replace(&mut self.b.scopes, vec![HashMap::new()]);
        for (v, offset) in callee
            .params
            .iter()
            .zip(args)
            .chain(callee.returns.iter().zip(returns))
        {
            self.b.declare(&v.name, Name::Local(*offset));
        }
        let end = self.b.new_label();
        let before = self.returns.replace(end);
        let line_info: Debug = self.b.line_info;
        self.stack.push(callee.name.clone());
        self.body(callee)?;
        self.stack.pop();
        self.b.line_info = line_info;
        self.b.set_guard(0, 0);
        self.b.place_label(end);
        self.returns = before;
        self.b.scopes = outer;
        Ok(())
    }

    /// A call through a register: every function of that shape is a candidate.
    fn indirect(
        &mut self,
        f: &Form,
        register: &str,
        prototype: Option<&Operand>,
        returns: &[u32],
        args: &[u32],
    ) -> Res {
        let Some(Operand::Name(p)) = prototype else {
            return f.refuse("an indirect call needs a prototype");
        };
        let module = self.module;
        let (want_returns, want_params, only) = match self.b.lookup(p).cloned() {
            Some(Name::Prototype(r, a)) => (Some(r), Some(a), None),
            Some(Name::Targets(names)) => (None, None, Some(names)),
            _ => return f.refuse(format!("{p:?} is not a prototype")),
        };
        let end = self.b.new_label();
        let bytes = |v: &[Var]| v.iter().map(|v| v.bytes() as u32).collect::<Vec<_>>();
        for callee in &module.funcs {
            let fits = match &only {
                Some(names) => names.contains(&callee.name),
                None => {
                    Some(bytes(&callee.returns)) == want_returns
                        && Some(bytes(&callee.params)) == want_params
                }
            };
            if callee.entry || callee.body.is_none() || !fits || self.stack.contains(&callee.name) {
                continue;
            }
            let next = self.b.new_label();
            let p = self.temporary(Ty::Pred);
            self.synthetic(
                f,
                "setp",
                &["ne", "u64"],
                vec![name(&p), name(register), name(&callee.name)],
            )?;
            let Some(Name::Pred(index)) = self.b.lookup(&p).cloned() else {
                return f.refuse("no predicate");
            };
            self.b.set_guard(index, 0);
            self.jump(next, Class::Hidden, false);
            self.b.set_guard(0, 0);
            self.inline(f, callee, returns, args)?;
            self.jump(end, Class::Hidden, true);
            self.b.place_label(next);
        }
        self.b.emit(isa::BAD_CALL, Class::Hidden, |_| {});
        self.b.place_label(end);
        Ok(())
    }

    fn temporary(&mut self, ty: Ty) -> String {
        self.temporaries += 1;
        let name = format!("%call_temporary{}", self.temporaries);
        self.b.register(&name, ty);
        name
    }

    /// An instruction that the call sequence needs, uncounted.
    fn synthetic(
        &mut self,
        f: &Form,
        opcode: &str,
        modifiers: &[&str],
        operands: Vec<Operand>,
    ) -> Res {
        let modifiers = modifiers.iter().map(|m| (*m).to_owned()).collect();
        let inst = Inst {
            line: f.line(),
            guard: None,
            opcode: opcode.to_owned(),
            modifiers,
            operands,
        };
        let first = self.b.code.len();
        isa::decode(&mut self.b, &Form::new(&inst))?;
        for i in &mut self.b.code[first..] {
            i.class = Class::Hidden;
        }
        Ok(())
    }

    fn load_argument(&mut self, f: &Form, op: &Operand, ty: Ty) -> Res<(String, u32)> {
        let Operand::Name(n) = op else {
            return f.refuse("arguments must be .param variables");
        };
        let t = self.temporary(ty);
        let bits = if ty.bytes() == 8 { "b64" } else { "b32" };
        self.synthetic(
            f,
            "ld",
            &["param", bits],
            vec![name(&t), Operand::Address(Some(n.clone()), 0)],
        )?;
        match self.b.lookup(&t) {
            Some(Name::Reg(r)) => {
                let reg = r.index;
                self.b.also_uses(reg);
                Ok((t, reg))
            }
            _ => f.refuse("no register"),
        }
    }

    fn printf(&mut self, f: &Form, format: &Operand, list: &Operand, result: Option<&u32>) -> Res {
        let (_, format) = self.load_argument(f, format, Ty::B64)?;
        let (_, args) = self.load_argument(f, list, Ty::B64)?;
        let d = self.b.scratch(false);
        self.b.emit(isa::PRINTF, Class::Other, |i| {
            i.dst = d;
            i.src[0] = format;
            i.src[1] = args;
        });
        // The result is the number of arguments in CUDA. Compiled code ignores it, but it must be
        // written.
        if let Some(offset) = result {
            let zero = self.temporary(Ty::B32);
            self.synthetic(f, "mov", &["u32"], vec![name(&zero), Operand::Int(0)])?;
            let slot = format!("%call_result{}", self.temporaries);
            self.b.declare(&slot, Name::Local(*offset));
            self.synthetic(
                f,
                "st",
                &["param", "b32"],
                vec![Operand::Address(Some(slot), 0), name(&zero)],
            )?;
        }
        Ok(())
    }

    fn assert(&mut self, f: &Form, message: &Operand, file: &Operand, line: &Operand) -> Res {
        let (_, message) = self.load_argument(f, message, Ty::B64)?;
        let (_, file) = self.load_argument(f, file, Ty::B64)?;
        let (_, line) = self.load_argument(f, line, Ty::B32)?;
        self.b.emit(isa::ASSERT, Class::Other, |i| {
            i.src[0] = message;
            i.src[1] = file;
            i.src[2] = line;
        });
        Ok(())
    }
}

fn name(n: &str) -> Operand {
    Operand::Name(n.to_owned())
}

/// Whether a register number of [`crate::lower::Meta`] is a predicate.
fn is_pred(r: u32) -> bool {
    r & PRED != 0
}
