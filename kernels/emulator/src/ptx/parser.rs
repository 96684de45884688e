//! Tokens to the tree.

use super::lexer::{Token, lex};
use super::tree::{Func, Init, Inst, Module, Operand, Stmt, Var};
use super::{PtxError, refuse};
use crate::types::{Space, Ty};

/// Parses a PTX module.
pub fn parse(text: &str) -> Result<Module, PtxError> {
    let tokens = lex(text)?;
    let last = tokens.last().map_or(1, |t| t.1);
    let mut p = Parser {
        tokens,
        pos: 0,
        last,
    };
    let mut m = Module::default();
    while p.pos < p.tokens.len() {
        p.top(&mut m)?;
    }
    Ok(m)
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    pos: usize,
    last: u32,
}

type Res<T> = Result<T, PtxError>;

impl Parser {
    fn line(&self) -> u32 {
        self.tokens.get(self.pos).map_or(self.last, |t| t.1)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.pos).map(|t| &t.0)
    }

    fn next(&mut self, wanted: &str) -> Res<Token> {
        match self.tokens.get(self.pos) {
            Some(t) => {
                self.pos += 1;
                Ok(t.0.clone())
            }
            None => refuse(self.last, format!("text ends where {wanted} is expected")),
        }
    }

    fn is(&self, c: char) -> bool {
        self.peek() == Some(&Token::Punct(c))
    }

    fn accept(&mut self, c: char) -> bool {
        let hit = self.is(c);
        self.pos += usize::from(hit);
        hit
    }

    fn expect(&mut self, c: char) -> Res<()> {
        let line = self.line();
        match self.next(&format!("{c:?}"))? {
            Token::Punct(p) if p == c => Ok(()),
            other => refuse(line, format!("expected {c:?}, found {}", show(&other))),
        }
    }

    fn word(&mut self, what: &str) -> Res<String> {
        let line = self.line();
        match self.next(what)? {
            Token::Word(w) => Ok(w),
            other => refuse(line, format!("expected {what}, found {}", show(&other))),
        }
    }

    fn int(&mut self, what: &str) -> Res<u64> {
        let negative = self.accept('-');
        let line = self.line();
        match self.next(what)? {
            Token::Int(v) => Ok(if negative { v.wrapping_neg() } else { v }),
            other => refuse(line, format!("expected {what}, found {}", show(&other))),
        }
    }

    fn small(&mut self, what: &str) -> Res<u32> {
        let line = self.line();
        let v = self.int(what)?;
        u32::try_from(v).or_else(|_| refuse(line, format!("{what} {v} is out of range")))
    }

    fn top(&mut self, m: &mut Module) -> Res<()> {
        let line = self.line();
        let word = self.word("a directive")?;
        match word.as_str() {
            ".version" => {
                self.next("a version number")?;
            }
            ".target" => {
                m.target = self.word("a target")?;
                while self.accept(',') {
                    self.word("a target option")?;
                }
            }
            ".address_size" => {
                let bits = self.int("an address size")?;
                if bits != 64 {
                    return refuse(
                        line,
                        format!("address size {bits} is not supported, only 64"),
                    );
                }
            }
            ".file" => {
                let index = self.small("a file index")?;
                match self.next("a file name")? {
                    Token::Text(name) => m.files.push((index, name)),
                    other => {
                        return refuse(
                            line,
                            format!("expected a file name, found {}", show(&other)),
                        );
                    }
                }
                while self.accept(',') {
                    self.int("a number")?;
                }
            }
            ".section" => {
                // Debug sections contain no code.
                self.word("a section name")?;
                self.skip_braces()?;
            }
            ".pragma" => self.skip_to_semicolon()?,
            ".visible" | ".weak" | ".common" | ".extern" | ".global" | ".const" | ".shared"
            | ".entry" | ".func" => {
                self.pos -= 1;
                self.declaration(m)?;
            }
            ".alias" => return refuse(line, ".alias is not supported"),
            _ => return refuse(line, format!("{word:?} is not a module-level directive")),
        }
        Ok(())
    }

    fn declaration(&mut self, m: &mut Module) -> Res<()> {
        let mut external = false;
        loop {
            let line = self.line();
            let w = self.word("a declaration")?;
            match w.as_str() {
                ".visible" | ".weak" | ".common" => {}
                ".extern" => external = true,
                ".entry" | ".func" => {
                    let f = self.function(w == ".entry", line)?;
                    m.funcs.push(f);
                    return Ok(());
                }
                _ => {
                    let Some(space) = w.strip_prefix('.').and_then(Space::parse) else {
                        return refuse(line, format!("{w:?} does not start a declaration"));
                    };
                    self.variables(space, external, &mut m.vars)?;
                    self.expect(';')?;
                    return Ok(());
                }
            }
        }
    }

    /// The declaration behind a state space: alignment, type, names with dimensions and
    /// initialisers.
    fn variables(&mut self, space: Space, external: bool, out: &mut Vec<Var>) -> Res<()> {
        let mut first = self.variable(space)?;
        first.external = external;
        let shape = (first.ty, first.align);
        self.tail(&mut first)?;
        out.push(first);
        while self.accept(',') {
            let line = self.line();
            let name = self.word("a variable name")?;
            let mut v = Var {
                line,
                space,
                ty: shape.0,
                align: shape.1,
                name,
                count: 1,
                external,
                init: Vec::new(),
            };
            self.tail(&mut v)?;
            out.push(v);
        }
        Ok(())
    }

    fn variable(&mut self, space: Space) -> Res<Var> {
        let line = self.line();
        let (mut align, mut ty, mut lanes) = (0, None, 1);
        loop {
            let pos = self.line();
            let w = self.word("a type or name")?;
            match w.as_str() {
                ".align" => align = self.small("an alignment")?,
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".ptr" => {}
                ".attribute" => {
                    return refuse(pos, ".attribute is not supported");
                }
                _ if w.starts_with('.') => match Ty::parse(&w[1..]) {
                    Some(t) => ty = Some(t),
                    // `.param .u64 .ptr .global .align 4 p`: the space a pointer points to.
                    None if Space::parse(&w[1..]).is_some() => {}
                    None => return refuse(pos, format!("{w:?} is not a type")),
                },
                _ => {
                    let Some(ty) = ty else {
                        return refuse(pos, format!("variable {w:?} has no type"));
                    };
                    let bytes = ty.bytes() * lanes;
                    if align == 0 {
                        align = bytes;
                    }
                    if !align.is_power_of_two() || align > 1 << 20 {
                        return refuse(
                            pos,
                            format!("alignment {align} is not a small power of two"),
                        );
                    }
                    return Ok(Var {
                        line,
                        space,
                        ty,
                        align,
                        name: w,
                        count: u64::from(lanes),
                        external: false,
                        init: Vec::new(),
                    });
                }
            }
        }
    }

    /// Dimensions and initialiser.
    fn tail(&mut self, v: &mut Var) -> Res<()> {
        // `name<4>` declares name0 .. name3; only registers use it in practice.
        while self.accept('[') {
            if self.accept(']') {
                v.count = 0;
                continue;
            }
            let line = self.line();
            let n = self.int("an array size")?;
            self.expect(']')?;
            v.count = v.count.saturating_mul(n);
            if v.bytes() > 1 << 40 {
                return refuse(
                    line,
                    format!("variable {:?} is larger than any device", v.name),
                );
            }
        }
        if self.accept('=') {
            self.initialiser(v)?;
            if v.count == 0 {
                v.count = v.init.len() as u64;
            }
            if v.init.len() as u64 > v.count {
                return refuse(
                    v.line,
                    format!(
                        "variable {:?} has more initial values than elements",
                        v.name
                    ),
                );
            }
        }
        Ok(())
    }

    fn initialiser(&mut self, v: &mut Var) -> Res<()> {
        let mut depth = 0u32;
        loop {
            let line = self.line();
            if self.accept('{') {
                depth += 1;
                continue;
            }
            if self.accept('}') {
                depth = depth.saturating_sub(1);
            } else if !self.accept(',') {
                let item = self.init_item(v.ty, line)?;
                v.init.push(item);
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn init_item(&mut self, ty: Ty, line: u32) -> Res<Init> {
        let negative = self.accept('-');
        Ok(match self.next("an initial value")? {
            Token::Int(n) => Init::Bits(if negative { n.wrapping_neg() } else { n }),
            Token::Float(value, bits) => {
                let value = if negative { -value } else { value };
                Init::Bits(match (ty, bits) {
                    (Ty::F32, Some(b)) => u64::from(b) ^ (u64::from(negative) << 31),
                    (Ty::F32, None) => u64::from((value as f32).to_bits()),
                    (Ty::F64, _) => value.to_bits(),
                    _ => {
                        return refuse(
                            line,
                            format!("float initialiser for a variable of type {ty:?}"),
                        );
                    }
                })
            }
            Token::Word(w) if w == "generic" => {
                self.expect('(')?;
                let name = self.word("a symbol")?;
                self.expect(')')?;
                Init::Address(name, self.plus()?)
            }
            Token::Word(name) => Init::Address(name, self.plus()?),
            other => {
                return refuse(
                    line,
                    format!("expected an initial value, found {}", show(&other)),
                );
            }
        })
    }

    /// An optional `+n` or `-n`.
    fn plus(&mut self) -> Res<i64> {
        let signed = self.accept('+') || self.is('-');
        if signed {
            Ok(self.int("an offset")? as i64)
        } else {
            Ok(0)
        }
    }

    fn params(&mut self) -> Res<Vec<Var>> {
        let mut out = Vec::new();
        self.expect('(')?;
        if self.accept(')') {
            return Ok(out);
        }
        loop {
            let line = self.line();
            let w = self.word("a parameter")?;
            let space = match w.as_str() {
                ".param" => Space::Param,
                ".reg" => return refuse(line, "register parameters (.reg) are not supported"),
                _ => return refuse(line, format!("expected .param, found {w:?}")),
            };
            let mut v = self.variable(space)?;
            self.tail(&mut v)?;
            out.push(v);
            if !self.accept(',') {
                break;
            }
        }
        self.expect(')')?;
        Ok(out)
    }

    fn function(&mut self, entry: bool, line: u32) -> Res<Func> {
        let returns = if self.is('(') {
            self.params()?
        } else {
            Vec::new()
        };
        let name = self.word("a function name")?;
        let params = if self.is('(') {
            self.params()?
        } else {
            Vec::new()
        };
        let mut f = Func {
            line,
            name,
            entry,
            returns,
            params,
            body: None,
            max_threads: None,
            required_threads: None,
        };
        loop {
            let pos = self.line();
            match self.peek() {
                Some(Token::Punct(';')) => {
                    self.pos += 1;
                    return Ok(f);
                }
                Some(Token::Punct('{')) => {
                    self.pos += 1;
                    f.body = Some(self.body()?);
                    return Ok(f);
                }
                Some(Token::Word(w)) => {
                    let w = w.clone();
                    self.pos += 1;
                    match w.as_str() {
                        ".maxntid" => f.max_threads = Some(self.triple()?),
                        ".reqntid" => f.required_threads = Some(self.triple()?),
                        ".minnctapersm" | ".maxnreg" | ".maxnctapersm" => {
                            self.triple()?;
                        }
                        ".noreturn" => {}
                        ".pragma" => self.skip_to_semicolon()?,
                        _ => {
                            return refuse(
                                pos,
                                format!("{w:?} is not a supported function directive"),
                            );
                        }
                    }
                }
                Some(other) => {
                    return refuse(
                        pos,
                        format!("expected a function body, found {}", show(other)),
                    );
                }
                None => return refuse(self.last, "text ends before the function body"),
            }
        }
    }

    fn triple(&mut self) -> Res<[u32; 3]> {
        let mut t = [1; 3];
        t[0] = self.small("a count")?;
        for slot in &mut t[1..] {
            if self.accept(',') {
                *slot = self.small("a count")?;
            }
        }
        Ok(t)
    }

    fn body(&mut self) -> Res<Vec<Stmt>> {
        let mut out = Vec::new();
        let mut depth = 1u32;
        loop {
            let line = self.line();
            match self.next("a statement or '}'")? {
                Token::Punct('{') => {
                    depth += 1;
                    out.push(Stmt::Open);
                }
                Token::Punct('}') => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(out);
                    }
                    out.push(Stmt::Close);
                }
                Token::Punct(';') => {}
                Token::Punct('@') => {
                    let negated = self.accept('!');
                    let p = self.word("a predicate")?;
                    let op = self.word("an instruction")?;
                    out.push(Stmt::Inst(self.instruction(
                        op,
                        line,
                        Some((p, negated)),
                    )?));
                }
                Token::Word(w) if w.starts_with('.') => self.directive(&w, line, &mut out)?,
                Token::Word(w) if self.is(':') => {
                    self.pos += 1;
                    self.label(w, &mut out)?;
                }
                Token::Word(w) => out.push(Stmt::Inst(self.instruction(w, line, None)?)),
                other => {
                    return refuse(
                        line,
                        format!("expected a statement, found {}", show(&other)),
                    );
                }
            }
        }
    }

    fn label(&mut self, name: String, out: &mut Vec<Stmt>) -> Res<()> {
        match self.peek() {
            Some(Token::Word(w)) if w == ".branchtargets" || w == ".calltargets" => {
                self.pos += 1;
                let mut list = vec![self.word("a target")?];
                while self.accept(',') {
                    list.push(self.word("a target")?);
                }
                self.expect(';')?;
                out.push(Stmt::Targets(name, list));
            }
            Some(Token::Word(w)) if w == ".callprototype" => {
                self.pos += 1;
                let returns = if self.is('(') {
                    self.params()?
                } else {
                    Vec::new()
                };
                self.word("_")?;
                let params = if self.is('(') {
                    self.params()?
                } else {
                    Vec::new()
                };
                self.skip_to_semicolon()?;
                out.push(Stmt::Prototype(name, returns, params));
            }
            _ => out.push(Stmt::Label(name)),
        }
        Ok(())
    }

    fn directive(&mut self, w: &str, line: u32, out: &mut Vec<Stmt>) -> Res<()> {
        // `.reg.b16` is `.reg .b16` written together.
        if let Some(rest) = w.strip_prefix(".reg.") {
            let regs = self.reg_directive(line, Some(format!(".{rest}")))?;
            out.push(regs);
            return Ok(());
        }
        match w {
            ".reg" => out.push(self.reg_directive(line, None)?),
            ".local" | ".shared" | ".param" | ".global" | ".const" => {
                let mut vars = Vec::new();
                let space = Space::parse(&w[1..]).unwrap_or(Space::Local);
                self.variables(space, false, &mut vars)?;
                self.expect(';')?;
                out.extend(vars.into_iter().map(Stmt::Var));
            }
            ".loc" => out.push(self.loc_directive(line)?),
            ".pragma" => self.skip_to_semicolon()?,
            _ => {
                return refuse(
                    line,
                    format!("{w:?} is not a supported directive inside a function"),
                );
            }
        }
        Ok(())
    }

    /// The rest of `.reg`. The type may have been part of its word.
    fn reg_directive(&mut self, line: u32, mut type_word: Option<String>) -> Res<Stmt> {
        let mut vector = 1;
        let ty = loop {
            let t = match type_word.take() {
                Some(t) => t,
                None => self.word("a register type")?,
            };
            match t.as_str() {
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                _ => match t.strip_prefix('.').and_then(Ty::parse) {
                    Some(ty) => break ty,
                    None => return refuse(line, format!("{t:?} is not a register type")),
                },
            }
        };
        let mut names = Vec::new();
        loop {
            let name = self.word("a register name")?;
            let mut count = None;
            if self.accept('<') {
                let n = self.small("a register count")?;
                if n > 1 << 20 {
                    let why = format!("{n} registers named {name:?} are too many");
                    return refuse(line, why);
                }
                count = Some(n);
                self.expect('>')?;
            }
            names.push((name, count));
            if !self.accept(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(Stmt::Regs {
            line,
            ty,
            vector,
            names,
        })
    }

    /// The rest of `.loc`.
    fn loc_directive(&mut self, line: u32) -> Res<Stmt> {
        let file = self.small("a file index")?;
        let row = self.small("a line")?;
        self.int("a column")?;
        while self.accept(',') {
            match self.word("function_name or inlined_at")?.as_str() {
                "function_name" => {
                    self.word("a label")?;
                    self.plus()?;
                }
                "inlined_at" => {
                    self.int("a file index")?;
                    self.int("a line")?;
                    self.int("a column")?;
                }
                other => return refuse(line, format!("{other:?} does not belong to .loc")),
            }
        }
        Ok(Stmt::Loc(file, row))
    }

    fn instruction(&mut self, word: String, line: u32, guard: Option<(String, bool)>) -> Res<Inst> {
        let mut parts = word.split('.');
        let opcode = parts.next().unwrap_or_default().to_owned();
        let modifiers: Vec<String> = parts.map(str::to_owned).collect();
        if opcode.is_empty() {
            return refuse(line, format!("{word:?} is not an instruction"));
        }
        let mut operands = Vec::new();
        if !self.accept(';') {
            loop {
                operands.push(self.operand(0)?);
                if self.accept(';') {
                    break;
                }
                self.expect(',')?;
            }
        }
        Ok(Inst {
            line,
            guard,
            opcode,
            modifiers,
            operands,
        })
    }

    fn operand(&mut self, depth: u32) -> Res<Operand> {
        let line = self.line();
        if depth > 3 {
            return refuse(line, "operands are nested too deeply");
        }
        let one = match self.next("an operand")? {
            Token::Word(w) if w == "_" => Operand::Sink,
            Token::Word(w) => match self.peek() {
                // `symbol+4` outside of an address, as in `mov.u64 %rd, table+4`.
                Some(Token::Punct('+')) => Operand::Address(Some(w), self.plus()?),
                _ => Operand::Name(w),
            },
            Token::Int(v) => Operand::Int(v),
            Token::Float(v, bits) => Operand::Float(v, bits),
            Token::Punct('-') => match self.next("a number")? {
                Token::Int(v) => Operand::Int(v.wrapping_neg()),
                Token::Float(v, bits) => Operand::Float(-v, bits.map(|b| b ^ 0x8000_0000)),
                other => {
                    return refuse(
                        line,
                        format!("expected a number after '-', found {}", show(&other)),
                    );
                }
            },
            Token::Punct('!') => Operand::Not(self.word("a predicate")?),
            Token::Punct('{') => Operand::Vector(self.list('}', depth)?),
            Token::Punct('(') => Operand::List(self.list(')', depth)?),
            Token::Punct('[') => {
                let base = match self.peek() {
                    Some(Token::Word(_)) => Some(self.word("an address")?),
                    _ => None,
                };
                let offset = match (&base, self.peek()) {
                    (None, _) => self.int("an address")? as i64,
                    (Some(_), Some(Token::Punct(','))) => {
                        return refuse(line, "texture and tensor-map addresses are not supported");
                    }
                    _ => self.plus()?,
                };
                self.expect(']')?;
                Operand::Address(base, offset)
            }
            other => return refuse(line, format!("expected an operand, found {}", show(&other))),
        };
        if self.accept('|') {
            let second = self.operand(depth + 1)?;
            return Ok(Operand::Pair(Box::new(one), Box::new(second)));
        }
        Ok(one)
    }

    fn list(&mut self, close: char, depth: u32) -> Res<Vec<Operand>> {
        let mut out = Vec::new();
        if self.accept(close) {
            return Ok(out);
        }
        loop {
            out.push(self.operand(depth + 1)?);
            if self.accept(close) {
                return Ok(out);
            }
            self.expect(',')?;
        }
    }

    fn skip_to_semicolon(&mut self) -> Res<()> {
        while self.next("';'")? != Token::Punct(';') {}
        Ok(())
    }

    fn skip_braces(&mut self) -> Res<()> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next("'}'")? {
                Token::Punct('{') => depth += 1,
                Token::Punct('}') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}

fn show(t: &Token) -> String {
    match t {
        Token::Word(w) => format!("{w:?}"),
        Token::Int(v) => format!("{v}"),
        Token::Float(v, _) => format!("{v}"),
        Token::Text(t) => format!("the string {t:?}"),
        Token::Punct(c) => format!("{c:?}"),
    }
}
