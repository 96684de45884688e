//! Branches, the end of a thread, traps, printf.

use super::Decode;
use super::memory::addresses;
use crate::checks::FaultKind;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, lanes_of};
use crate::memory::WINDOW_SHIFT;
use std::sync::PoisonError;

pub const DEFS: &[(&str, Decode)] = &[
    ("trap", trap),
    ("exit", exit_form),
    ("brkpt", trap),
    ("pmevent", hint),
];

/// `bra`: the lanes of the guard go to instruction `imm`.
pub const BRANCH: Exec = branch;
/// `brx.idx`: to the instruction in `list` whose index is in `src[0]`.
pub const TABLE: Exec = table;
/// Lanes leave the kernel.
pub const EXIT: Exec = exit;
const TRAP: Exec = trap_exec;
/// `vprintf(format, arguments)`: addresses in `src`, result in `dst`.
pub const PRINTF: Exec = printf;
/// `__assertfail(message, file, line)`, in `src`.
pub const ASSERT: Exec = assert_fail;

/// A call to a function that is none of the candidates.
pub const BAD_CALL: Exec = bad_call;

fn bad_call(cx: &mut Cx<'_>, _: &Ins, m: u32) {
    if m != 0 {
        cx.fail(
            FaultKind::BadOperand,
            m.trailing_zeros(),
            "the called address is not a function of this prototype (recursion is not supported)",
        );
    }
}

fn branch(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    cx.branch(m, i.imm as usize);
}

fn table(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let prog = cx.env.program;
    let targets = &prog.lists[i.list as usize];
    let index = cx.warp.regs.all::<u32>(i.src[0]);
    let mut left = m;
    while left != 0 {
        let lane = left.trailing_zeros();
        let n = index[lane as usize];
        let same = lanes_of(left)
            .filter(|&l| index[l] == n)
            .fold(0, |s, l| s | 1 << l);
        let Some(target) = targets.get(n as usize) else {
            return cx.fail(
                FaultKind::BadOperand,
                lane,
                format!(
                    "branch index {n}, but the table has {} targets",
                    targets.len()
                ),
            );
        };
        left &= !same;
        if left == 0 {
            return cx.branch(same, *target as usize);
        }
        cx.split_off(same, *target as usize);
    }
}

fn exit(cx: &mut Cx<'_>, _: &Ins, m: u32) {
    if m != 0 {
        cx.exit(m);
    }
}

fn trap_exec(cx: &mut Cx<'_>, _: &Ins, m: u32) {
    if m != 0 {
        cx.fail(
            FaultKind::Trap,
            m.trailing_zeros(),
            "the kernel executed trap",
        );
    }
}

fn trap(b: &mut Builder, _: &Form) -> Res {
    b.emit(TRAP, Class::Control, |_| {});
    Ok(())
}

fn exit_form(b: &mut Builder, _: &Form) -> Res {
    b.emit(EXIT, Class::Control, |_| {});
    Ok(())
}

fn no_op(_: &mut Cx<'_>, _: &Ins, _: u32) {}

fn hint(b: &mut Builder, _: &Form) -> Res {
    b.emit(no_op, Class::Other, |_| {});
    Ok(())
}

/// One byte at a generic address; memory other than global and local reads as 0.
fn byte(cx: &Cx<'_>, lane: usize, addr: u64) -> u8 {
    let local = addr & ((1 << WINDOW_SHIFT) - 1);
    match addr >> WINDOW_SHIFT {
        0 if cx.env.heap.find(addr).is_some() => cx.env.heap.load(addr, 1) as u8,
        2 => cx
            .warp
            .local
            .get(lane * cx.env.program.local_bytes as usize + local as usize)
            .copied()
            .unwrap_or(0),
        _ => 0,
    }
}

fn text(cx: &Cx<'_>, lane: usize, addr: u64) -> Vec<u8> {
    (0..4096)
        .map(|i| byte(cx, lane, addr + i))
        .take_while(|b| *b != 0)
        .collect()
}

fn word(cx: &Cx<'_>, lane: usize, addr: u64, bytes: u64) -> u64 {
    (0..bytes).fold(0, |v, i| v | u64::from(byte(cx, lane, addr + i)) << (i * 8))
}

fn printf(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let (formats, args) = (addresses(cx, i.src[0], 0), addresses(cx, i.src[1], 0));
    for lane in lanes_of(m) {
        let format = text(cx, lane, formats[lane]);
        let mut args = Args {
            cx,
            lane,
            addr: args[lane],
        };
        let out = format_text(&format, &mut args);
        cx.env
            .print
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(out);
        cx.warp.regs.set::<u32>(i.dst, lane, 0);
    }
}

/// The flags, width and precision of a conversion.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    /// The integer has 64 bits.
    long: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    /// Parses a conversion behind its `%`, with its letter; `None` if the format ends first.
    fn parse(format: &mut std::slice::Iter<'_, u8>, args: &mut Args<'_>) -> Option<(Spec, u8)> {
        let mut s = Spec::default();
        loop {
            let &c = format.next()?;
            match c {
                b'-' => s.left = true,
                b'0' if s.width == 0 && s.precision.is_none() => s.zero = true,
                b'+' => s.plus = true,
                b' ' | b'#' | b'h' => {}
                b'l' | b'z' | b'j' | b't' => s.long = true,
                b'*' => s.width = args.take(4) as usize,
                b'.' => s.precision = Some(0),
                b'0'..=b'9' => {
                    let digit = usize::from(c - b'0');
                    match &mut s.precision {
                        Some(p) => *p = (*p * 10 + digit).min(1000),
                        None => s.width = (s.width * 10 + digit).min(1000),
                    }
                }
                _ => return Some((s, c)),
            }
        }
    }

    /// The argument in the letter's format, without padding.
    fn text(&self, letter: u8, args: &mut Args<'_>) -> String {
        let integer = if self.long { 8 } else { 4 };
        match letter {
            b'%' => "%".to_owned(),
            b'd' | b'i' => {
                let v = args.take(integer);
                let v = if self.long {
                    v as i64
                } else {
                    i64::from(v as i32)
                };
                self.signed(v >= 0, v.to_string())
            }
            b'u' => args.take(integer).to_string(),
            b'x' => format!("{:x}", args.take(integer)),
            b'X' => format!("{:X}", args.take(integer)),
            b'o' => format!("{:o}", args.take(integer)),
            b'c' => char::from(args.take(4) as u8).to_string(),
            b'p' => format!("{:#x}", args.take(8)),
            b's' => {
                let s = text(args.cx, args.lane, args.take(8));
                String::from_utf8_lossy(&s).into_owned()
            }
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' => {
                let v = f64::from_bits(args.take(8));
                let p = self.precision.unwrap_or(6);
                let body = match letter {
                    b'f' | b'F' => format!("{v:.p$}"),
                    b'e' | b'E' => exponent(v, p),
                    _ => general(v, p.max(1)),
                };
                self.signed(v >= 0.0, body)
            }
            other => format!("%{}", char::from(other)),
        }
    }

    fn signed(&self, positive: bool, body: String) -> String {
        if self.plus && positive {
            format!("+{body}")
        } else {
            body
        }
    }

    /// Appends the body, padded to the width.
    fn pad(&self, body: &str, out: &mut Vec<u8>) {
        let pad = self.width.saturating_sub(body.len());
        if self.left {
            out.extend(body.bytes());
            out.extend(std::iter::repeat_n(b' ', pad));
        } else if self.zero {
            let sign = usize::from(body.starts_with(['-', '+']));
            out.extend(body.bytes().take(sign));
            out.extend(std::iter::repeat_n(b'0', pad));
            out.extend(body.bytes().skip(sign));
        } else {
            out.extend(std::iter::repeat_n(b' ', pad));
            out.extend(body.bytes());
        }
    }
}

/// A lane's arguments in memory, laid out by their natural alignment.
struct Args<'a> {
    cx: &'a Cx<'a>,
    lane: usize,
    addr: u64,
}

impl Args<'_> {
    fn take(&mut self, bytes: u64) -> u64 {
        self.addr = self.addr.next_multiple_of(bytes);
        let v = word(self.cx, self.lane, self.addr, bytes);
        self.addr += bytes;
        v
    }
}

/// C's printf.
fn format_text(format: &[u8], args: &mut Args<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut format = format.iter();
    while let Some(&c) = format.next() {
        if c != b'%' {
            out.push(c);
            continue;
        }
        let Some((spec, letter)) = Spec::parse(&mut format, args) else {
            break;
        };
        let body = spec.text(letter, args);
        spec.pad(&body, &mut out);
    }
    out
}

/// `%e`: at least two digits of exponent.
fn exponent(v: f64, precision: usize) -> String {
    let s = format!("{v:.precision$e}");
    match s.split_once('e') {
        Some((m, e)) => {
            let (sign, digits) = e.strip_prefix('-').map_or(('+', e), |d| ('-', d));
            format!("{m}e{sign}{digits:0>2}")
        }
        None => s,
    }
}

/// `%g`.
fn general(v: f64, precision: usize) -> String {
    if v == 0.0 || !v.is_finite() {
        return format!("{v}");
    }
    let s = exponent(v, precision - 1);
    let e: i32 = s
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let trim = |s: &str| {
        if s.contains('.') {
            s.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            s.to_owned()
        }
    };
    if e < -4 || e >= precision as i32 {
        let (m, x) = s.split_once('e').unwrap_or((&s, "+00"));
        format!("{}e{x}", trim(m))
    } else {
        trim(&format!(
            "{v:.*}",
            (precision as i32 - 1 - e).max(0) as usize
        ))
    }
}

fn assert_fail(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    if m == 0 {
        return;
    }
    let lane = m.trailing_zeros() as usize;
    let (what, file) = (
        addresses(cx, i.src[0], 0)[lane],
        addresses(cx, i.src[1], 0)[lane],
    );
    let line = cx.warp.regs.get::<u32>(i.src[2], lane);
    let (what, file) = (text(cx, lane, what), text(cx, lane, file));
    let message = format!(
        "{}:{line}: {}",
        String::from_utf8_lossy(&file),
        String::from_utf8_lossy(&what)
    );
    cx.fail(FaultKind::Assert, lane as u32, message);
}

#[cfg(test)]
mod tests {
    use super::{exponent, general};

    #[test]
    fn numbers_print_as_c_prints_them() {
        assert_eq!(exponent(12345.678, 3), "1.235e+04");
        assert_eq!(exponent(0.00012, 1), "1.2e-04");
        assert_eq!(general(0.5, 6), "0.5");
        assert_eq!(general(1e10, 6), "1e+10");
        assert_eq!(general(123456.0, 6), "123456");
        assert_eq!(general(0.0001, 6), "0.0001");
    }
}
