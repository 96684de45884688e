//! wmma: fragments whose layout is the implementation's own (C++ `nvcuda::wmma`).
//!
//! Here a lane holds consecutive elements: element `n` of lane `l` is number `l * per lane + n` of the matrix, A and C
//! by rows and B by columns; where the lanes hold more elements than the matrix has, the numbers start over. Sums are
//! taken as in `mma.rs`: in f64, in the order of k, beginning with C, and rounded once.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::matrix::whole_warp;
use super::memory::{Access, resolve, space_of};
use super::operands::registers;
use crate::checks::{FaultKind, Touch};
use crate::float::canon;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Class, Cx, Exec, Ins, Place};
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("wmma", wmma)];

const ELEMENTS: [(&str, u32); 11] = [
    ("f16", 16),
    ("bf16", 16),
    ("tf32", 32),
    ("f32", 32),
    ("f64", 64),
    ("s32", 32),
    ("u8", 8),
    ("s8", 8),
    ("u4", 4),
    ("s4", 4),
    ("b1", 1),
];

const SHAPES: [(&str, [u32; 3]); 7] = [
    ("m16n16k16", [16, 16, 16]),
    ("m32n8k16", [32, 8, 16]),
    ("m8n32k16", [8, 32, 16]),
    ("m16n16k8", [16, 16, 8]),
    ("m8n8k4", [8, 8, 4]),
    ("m8n8k32", [8, 8, 32]),
    ("m8n8k128", [8, 8, 128]),
];

fn element(name: &str) -> Option<u32> {
    ELEMENTS
        .iter()
        .position(|e| e.0 == name)
        .map(|at| at as u32)
}

/// Bits of an element and elements of a register.
fn size(element: u32) -> (u32, u32) {
    let bits = ELEMENTS[element as usize].1;
    (bits, (32 / bits).max(1))
}

/// Value of an element. Integers are exact in f64.
fn value(element: u32, raw: u64) -> f64 {
    match ELEMENTS[element as usize].0 {
        "f16" => f64::from(F16::wide(raw as u16)),
        "bf16" => f64::from(Bf16::wide(raw as u16)),
        // The hardware reads the upper 19 bits.
        "tf32" => f64::from(f32::from_bits(raw as u32 & 0xffff_e000)),
        "f32" => f64::from(f32::from_bits(raw as u32)),
        "f64" => f64::from_bits(raw),
        "s32" => f64::from(raw as i32),
        "s8" => f64::from(raw as i8),
        "s4" => f64::from((raw as i8) << 4 >> 4),
        _ => raw as f64,
    }
}

/// A fragment's matrix, as the first words of a list give it.
#[derive(Clone, Copy)]
struct Matrix {
    element: u32,
    /// Elements side by side in a lane, and how many such lines there are.
    inner: u32,
    outer: u32,
}

impl Matrix {
    const WORDS: usize = 3;

    fn list(self) -> [u32; Matrix::WORDS] {
        [self.element, self.inner, self.outer]
    }

    fn unlist(l: &[u32]) -> Matrix {
        Matrix {
            element: l[0],
            inner: l[1],
            outer: l[2],
        }
    }

    /// All elements by number, from the registers of a fragment.
    fn read(self, cx: &Cx<'_>, registers: &[u32]) -> Vec<f64> {
        let (bits, per) = size(self.element);
        let count = (self.inner * self.outer) as usize;
        let each = registers.len() * per as usize;
        let mask = if bits == 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        };
        (0..count)
            .map(|n| {
                let (lane, at) = (n / each, n % each);
                let line = registers[at / per as usize];
                let word = if bits == 64 {
                    cx.warp.regs.get::<u64>(line, lane)
                } else {
                    u64::from(cx.warp.regs.get::<u32>(line, lane))
                };
                value(self.element, word >> (at as u32 % per * bits) & mask)
            })
            .collect()
    }
}

/// A load or a store. `list`: the matrix, then the registers. `a`: address, `b`: elements from line to line (`c` says
/// whether there is such an operand), bit 8 of `d`: lines lie across the fragment's.
fn transfer<const STORE: bool>(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let list = &env.program.lists[i.list as usize][..];
    let m = Matrix::unlist(list);
    let registers = &list[Matrix::WORDS..];
    let across = i.dst >> 8 & 1 == 1;
    let access = Access::unpack(i.imm);
    let base = cx
        .warp
        .regs
        .all::<u64>(i.src[0])
        .map(|a| a.wrapping_add(access.offset as i64 as u64));
    let strides = if i.src[2] == 1 {
        cx.warp.regs.all::<u32>(i.src[1])
    } else {
        [if across { m.outer } else { m.inner }; 32]
    };
    let differs = |l: &usize| base[*l] != base[0] || strides[*l] != strides[0];
    if let Some(lane) = (0..32).find(differs) {
        return cx.fail(
            FaultKind::BadOperand,
            lane as u32,
            "all threads must name one matrix and one stride",
        );
    }
    let (base, stride) = (base[0], u64::from(strides[0]));
    let (bits, per) = size(m.element);
    let each = registers.len() as u32 * per;
    // Where number `n` lies, in bits from the base.
    let place = |n: u32| {
        let n = n % (m.inner * m.outer);
        let (line, at) = (u64::from(n / m.inner), u64::from(n % m.inner));
        u64::from(bits)
            * if across {
                at * stride + line
            } else {
                line * stride + at
            }
    };
    // Elements that a lane touches at once: up to 16 bytes side by side.
    let mut together = if across {
        1
    } else {
        each.min(m.inner).min(128 / bits)
    };
    while together > 1
        && ((0..32).any(|l| {
            !(base + place(l * each) / 8).is_multiple_of(u64::from((together * bits / 8).max(1)))
        }) || stride * u64::from(bits) % u64::from(together * bits) != 0)
        && together * bits > 32
    {
        together /= 2;
    }
    if together * bits < 8 {
        return cx.fail(
            FaultKind::BadOperand,
            0,
            "elements of less than a byte must lie side by side",
        );
    }
    let bytes = together * bits / 8;
    let mut data = [[0u8; 32]; 32];
    if STORE {
        for (k, &line) in registers.iter().enumerate() {
            for (lane, bytes) in data.iter_mut().enumerate() {
                let word = if bits == 64 {
                    cx.warp.regs.get::<u64>(line, lane)
                } else {
                    u64::from(cx.warp.regs.get::<u32>(line, lane))
                };
                let width = bits.max(32) as usize / 8;
                bytes[k * width..][..width].copy_from_slice(&word.to_le_bytes()[..width]);
            }
        }
    }
    for chunk in 0..each / together {
        let mut addrs: [u64; 32] =
            std::array::from_fn(|l| base + place(l as u32 * each + chunk * together) / 8);
        let a = Access {
            bytes,
            count: 1,
            ..access
        };
        let at = (chunk * bytes) as usize;
        let part = bytes.min(8);
        let fine = resolve(cx, a, &mut addrs, !0, |cx, place, addrs, lanes| {
            for lane in crate::machine::lanes_of(lanes) {
                for k in (0..bytes).step_by(part as usize) {
                    let here = &mut data[lane][at + k as usize..][..part as usize];
                    let addr = addrs[lane] + u64::from(k);
                    if STORE {
                        let mut v = [0; 8];
                        v[..part as usize].copy_from_slice(here);
                        cx.store(place, lane, addr, part, u64::from_le_bytes(v));
                    } else {
                        let v = cx.load(place, lane, addr, part);
                        here.copy_from_slice(&v.to_le_bytes()[..part as usize]);
                    }
                }
            }
        });
        if !fine {
            return;
        }
    }
    if STORE {
        return;
    }
    for (k, &line) in registers.iter().enumerate() {
        for (lane, bytes) in data.iter().enumerate() {
            let width = bits.max(32) as usize / 8;
            let mut v = [0; 8];
            v[..width].copy_from_slice(&bytes[k * width..][..width]);
            if width == 8 {
                cx.warp.regs.set::<u64>(line, lane, u64::from_le_bytes(v));
            } else {
                cx.warp
                    .regs
                    .set::<u32>(line, lane, u64::from_le_bytes(v) as u32);
            }
        }
    }
}

/// `list`: matrices A, B, C, the element of D, register counts of D, A, B, then the registers of D, A, B, C.
/// `imm` bit 0 saturates, bit 1: bits that differ and not bits that both hold.
fn product(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let l = &env.program.lists[i.list as usize][..];
    let (ma, rest) = l.split_at(Matrix::WORDS);
    let (mb, rest) = rest.split_at(Matrix::WORDS);
    let (mc, rest) = rest.split_at(Matrix::WORDS);
    let (ma, mb, mc) = (Matrix::unlist(ma), Matrix::unlist(mb), Matrix::unlist(mc));
    let (d_element, counts, rest) = (rest[0], &rest[1..4], &rest[4..]);
    let (d_regs, rest) = rest.split_at(counts[0] as usize);
    let (a_regs, rest) = rest.split_at(counts[1] as usize);
    let (b_regs, c_regs) = rest.split_at(counts[2] as usize);
    let (a, b, mut c) = (
        ma.read(cx, a_regs),
        mb.read(cx, b_regs),
        mc.read(cx, c_regs),
    );
    let (rows, columns, k) = (ma.outer as usize, mb.outer as usize, ma.inner as usize);
    let differ = i.imm >> 1 & 1 == 1;
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = c[row * columns + column];
            for n in 0..k {
                let (x, y) = (a[row * k + n], b[column * k + n]);
                sum = if differ {
                    sum + if x == y { 0.0 } else { 1.0 }
                } else {
                    x.mul_add(y, sum)
                };
            }
            c[row * columns + column] = sum;
        }
    }
    if let Some(counts) = &mut cx.counts {
        let holds = |m: &[f64]| m.chunks(k).filter(|l| l.iter().any(|x| *x != 0.0)).count();
        counts.tensor_products += (rows * columns * k) as u64;
        counts.tensor_useful += (holds(&a) * holds(&b) * k) as u64;
    }
    let (bits, per) = size(d_element);
    let each = d_regs.len() * per as usize;
    for lane in 0..32 {
        for (r, &line) in d_regs.iter().enumerate() {
            let mut word = 0u64;
            for e in 0..per as usize {
                let x = c[(lane * each + r * per as usize + e) % c.len()];
                let raw = match ELEMENTS[d_element as usize].0 {
                    "f16" => u64::from(F16::narrow64(x)),
                    "f32" => u64::from(canon(x as f32).to_bits()),
                    "f64" => x.to_bits(),
                    // The sum is exact in f64; without saturation it wraps.
                    _ if i.imm & 1 == 1 => {
                        (x as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32 as u64
                    }
                    _ => u64::from(x as i64 as u32),
                };
                word |= raw << (e as u32 * bits);
            }
            if bits == 64 {
                cx.warp.regs.set::<u64>(line, lane, word);
            } else {
                cx.warp.regs.set::<u32>(line, lane, word as u32);
            }
        }
    }
}

/// Registers of a fragment, as the PTX manual has them.
fn register_count(role: char, shape: [u32; 3], element: u32) -> usize {
    let [m, n, k] = shape;
    let (_, per) = size(element);
    let elements = match role {
        'a' => m * k,
        'b' => k * n,
        _ => m * n,
    };
    // f16 fragments of A and B hold every element twice.
    let twice = if ELEMENTS[element as usize].0 == "f16" && role != 'c' {
        return 8;
    } else {
        elements
    };
    (twice / 32 / per).max(1) as usize
}

fn matrix(role: char, [m, n, k]: [u32; 3], element: u32) -> Matrix {
    let (inner, outer) = match role {
        'a' => (k, m),
        'b' => (k, n),
        _ => (n, m),
    };
    Matrix {
        element,
        inner,
        outer,
    }
}

fn wmma(b: &mut Builder, f: &Form) -> Res {
    f.has("sync");
    f.has("aligned");
    let Some(&(_, shape)) = SHAPES.iter().find(|s| f.has(s.0)) else {
        return f.refuse("this shape is not supported");
    };
    let mut kinds = Vec::new();
    for name in &f.inst.modifiers {
        if let Some(e) = element(name) {
            f.has(name);
            kinds.push(e);
        }
    }
    if f.has("mma") {
        return product_form(b, f, shape, &kinds);
    }
    let store = f.has("store");
    let role = match (f.has("load"), f.pick(&["a", "b", "c", "d"])) {
        (true, Some(0)) => 'a',
        (true, Some(1)) => 'b',
        (true, Some(2)) => 'c',
        (false, Some(3)) if store => 'c',
        _ => return f.refuse("load of a, b or c, store of d or mma is expected"),
    };
    let Some(by_column) = f.pick(&["row", "col"]) else {
        return f.refuse("a layout is expected");
    };
    let [e] = kinds[..] else {
        return f.refuse("one type is expected");
    };
    let place = space_of(f).and_then(Place::of);
    let ops = &f.inst.operands;
    if !(2..=3).contains(&ops.len()) {
        return f.refuse("2 or 3 operands are expected");
    }
    let (data, address) = if store {
        (&ops[1], &ops[0])
    } else {
        (&ops[0], &ops[1])
    };
    let (a, offset, _) = b.address(f, address)?;
    let Ok(offset) = i32::try_from(offset) else {
        return f.refuse("the offset is too large");
    };
    let stride = match ops.get(2) {
        Some(op) => Some(b.src(f, op, Ty::U32)?),
        None => None,
    };
    let ty = if size(e).0 == 64 { Ty::B64 } else { Ty::B32 };
    let lines = registers(b, f, data, register_count(role, shape, e), ty, !store)?;
    let mut list = matrix(role, shape, e).list().to_vec();
    list.extend(lines);
    let list = b.list(list);
    let touch = if store { Touch::Write } else { Touch::Read };
    let access = Access {
        offset,
        bytes: 1,
        count: 1,
        place,
        touch,
        signed: false,
    };
    // B's fragment goes by columns, the others by rows.
    let across = (by_column == 1) != (role == 'b');
    let class = if store { Class::Store } else { Class::Load };
    let exec: Exec = if store {
        transfer::<true>
    } else {
        transfer::<false>
    };
    b.emit(exec, class, |i| {
        i.src[0] = a;
        i.src[1] = stride.unwrap_or(0);
        i.src[2] = u32::from(stride.is_some());
        i.dst = u32::from(across) << 8;
        i.list = list;
        i.imm = access.pack();
    });
    Ok(())
}

fn product_form(b: &mut Builder, f: &Form, shape: [u32; 3], kinds: &[u32]) -> Res {
    // Both layouts are the fragments' own affair.
    f.has("row");
    f.has("col");
    f.has("rn");
    let saturate = f.has("satfinite");
    let differ = f.has("xor");
    if f.has("popc") != (differ || f.has("and")) {
        return f.refuse(".xor.popc or .and.popc is expected");
    }
    let (d, ea, eb, c) = match *kinds {
        // f16 is not written out.
        [d, c] => (d, 0, 0, c),
        [d, ea, eb, c] => (d, ea, eb, c),
        _ => return f.refuse("two or four types are expected"),
    };
    let name = |e: u32| ELEMENTS[e as usize].0;
    let fits = match (name(ea), name(eb)) {
        ("f16", "f16") => [d, c].iter().all(|e| matches!(name(*e), "f16" | "f32")),
        ("bf16", "bf16") | ("tf32", "tf32") => name(d) == "f32" && name(c) == "f32",
        ("f64", "f64") => name(d) == "f64" && name(c) == "f64",
        (x, y) => x == y && name(d) == "s32" && name(c) == "s32" && size(ea).0 <= 8,
    };
    if !fits {
        return f.refuse("this combination of types is not supported");
    }
    let ops = f.operands(4)?;
    let ty = |e: u32| if size(e).0 == 64 { Ty::B64 } else { Ty::B32 };
    let counts = [
        register_count('c', shape, d),
        register_count('a', shape, ea),
        register_count('b', shape, eb),
        register_count('c', shape, c),
    ];
    let ra = registers(b, f, &ops[1], counts[1], ty(ea), false)?;
    let rb = registers(b, f, &ops[2], counts[2], ty(eb), false)?;
    let rc = registers(b, f, &ops[3], counts[3], ty(c), false)?;
    let rd = registers(b, f, &ops[0], counts[0], ty(d), true)?;
    let mut list = Vec::new();
    list.extend(matrix('a', shape, ea).list());
    list.extend(matrix('b', shape, eb).list());
    list.extend(matrix('c', shape, c).list());
    list.push(d);
    list.extend(counts[..3].iter().map(|n| *n as u32));
    list.extend(rd.into_iter().chain(ra).chain(rb).chain(rc));
    let list = b.list(list);
    b.emit(product, Class::Tensor, |i| {
        i.list = list;
        i.imm = u64::from(saturate) | u64::from(differ) << 1;
    });
    Ok(())
}
