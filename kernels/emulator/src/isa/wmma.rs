//! wmma: fragments whose layout is the implementation's own (C++ `nvcuda::wmma`).
//!
//! Here a lane holds consecutive elements: element `n` of lane `l` is number `l * per lane + n` of
//! the matrix, A and C by rows and B by columns. If the lanes hold more elements than the matrix
//! has, the numbers start over. Sums are taken as in `mma.rs`: in f64, in the order of k, beginning
//! with C, and rounded once, or in the steps of a card.

use super::Decode;
use super::half::{Bf16, F16, Format};
use super::matrix::whole_warp;
use super::memory::{Access, addresses, resolve, space_of};
use super::operands::{address, registers};
use crate::checks::{FaultKind, Touch};
use crate::float::canon;
use crate::lower::{Builder, Form, Res};
use crate::machine::{Choice, Class, Cx, Exec, Field, Ins, Place, choice, immediate, lanes_of};
use crate::tensor::{self, Accumulator, Factors, TensorCore};
use crate::types::Ty;

pub const DEFS: &[(&str, Decode)] = &[("wmma", wmma)];

choice! {
    enum Element {
        F16 = "f16",
        Bf16 = "bf16",
        Tf32 = "tf32",
        F32 = "f32",
        F64 = "f64",
        S32 = "s32",
        U8 = "u8",
        S8 = "s8",
        U4 = "u4",
        S4 = "s4",
        B1 = "b1",
    }
}

impl Element {
    fn bits(self) -> u32 {
        match self {
            Element::F64 => 64,
            Element::Tf32 | Element::F32 | Element::S32 => 32,
            Element::F16 | Element::Bf16 => 16,
            Element::U8 | Element::S8 => 8,
            Element::U4 | Element::S4 => 4,
            Element::B1 => 1,
        }
    }

    /// Elements of a register.
    fn per_register(self) -> u32 {
        (32 / self.bits()).max(1)
    }

    /// Whether a register has 64 bits.
    fn wide(self) -> bool {
        self == Element::F64
    }

    /// The type of a fragment's registers.
    fn register(self) -> Ty {
        if self.wide() { Ty::B64 } else { Ty::B32 }
    }

    /// The value of an element. Integers are exact in f64.
    fn value(self, raw: u64) -> f64 {
        match self {
            Element::F16 => f64::from(F16::wide(raw as u16)),
            Element::Bf16 => f64::from(Bf16::wide(raw as u16)),
            // The hardware reads the upper 19 bits.
            Element::Tf32 => f64::from(f32::from_bits(raw as u32 & 0xffff_e000)),
            Element::F32 => f64::from(f32::from_bits(raw as u32)),
            Element::F64 => f64::from_bits(raw),
            Element::S32 => f64::from(raw as i32),
            Element::S8 => f64::from(raw as i8),
            Element::S4 => f64::from((raw as i8) << 4 >> 4),
            Element::U8 | Element::U4 | Element::B1 => raw as f64,
        }
    }

    /// The least exponent of a normal number, where `tensor.rs` has a card's way of adding.
    fn least_exponent(self) -> Option<i32> {
        match self {
            Element::F16 => Some(F16::LEAST_EXPONENT),
            Element::Bf16 => Some(Bf16::LEAST_EXPONENT),
            Element::Tf32 => Some(-126),
            _ => None,
        }
    }

    /// A sum rounded to the element: the types of D.
    fn round(self, x: f64, saturate: bool) -> u64 {
        match self {
            Element::F16 => u64::from(F16::narrow64(x)),
            Element::F32 => u64::from(canon(x as f32).to_bits()),
            Element::F64 => x.to_bits(),
            // The sum is exact in f64; without saturation it wraps.
            _ if saturate => {
                (x as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32 as u64
            }
            _ => u64::from(x as i64 as u32),
        }
    }
}

const SHAPES: [(&str, [u32; 3]); 7] = [
    ("m16n16k16", [16, 16, 16]),
    ("m32n8k16", [32, 8, 16]),
    ("m8n32k16", [8, 32, 16]),
    ("m16n16k8", [16, 16, 8]),
    ("m8n8k4", [8, 8, 4]),
    ("m8n8k32", [8, 8, 32]),
    ("m8n8k128", [8, 8, 128]),
];

/// The matrix of a fragment, as the first words of a list give it.
#[derive(Clone, Copy)]
struct Matrix {
    element: Element,
    /// Elements of a row (of a column of B), which lie side by side in a fragment.
    inner: u32,
    /// Rows (columns of B).
    outer: u32,
}

impl Matrix {
    const WORDS: usize = 3;

    fn new(role: char, [m, n, k]: [u32; 3], element: Element) -> Matrix {
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

    fn to_list(self) -> [u32; Matrix::WORDS] {
        [self.element as u32, self.inner, self.outer]
    }

    /// The matrix at the head of a list, and the rest of the list.
    fn split_off(list: &[u32]) -> (Matrix, &[u32]) {
        let matrix = Matrix {
            element: Element::from_bits(u64::from(list[0])),
            inner: list[1],
            outer: list[2],
        };
        (matrix, &list[Matrix::WORDS..])
    }

    fn count(self) -> u32 {
        self.inner * self.outer
    }

    /// All elements by number, from the registers of a fragment.
    fn read(self, cx: &Cx<'_>, registers: &[u32]) -> Vec<f64> {
        let (bits, per) = (self.element.bits(), self.element.per_register());
        let each = registers.len() * per as usize;
        let mask = u64::MAX >> (64 - bits);
        (0..self.count() as usize)
            .map(|n| {
                let (lane, k) = (n / each, n % each);
                let reg = registers[k / per as usize];
                let word = cx.warp.regs.get_bits(reg, lane, self.element.wide());
                self.element.value(word >> (k as u32 % per * bits) & mask)
            })
            .collect()
    }
}

immediate! {
    /// `wmma.load` or `wmma.store`. `src`: the registers of address and stride. `list`: the matrix,
    /// then the registers of the fragment.
    struct Transfer {
        access: Access [50],
        /// Rows in memory are columns of the fragment.
        across: bool [1],
        /// There is a stride operand; otherwise rows follow one another.
        strided: bool [1],
    }
}

/// Where a matrix lies in memory.
struct Placement {
    matrix: Matrix,
    base: u64,
    /// Elements from one row in memory to the next.
    stride: u64,
    across: bool,
}

impl Placement {
    /// The placement that all lanes name. `None` after a fault.
    fn of(cx: &mut Cx<'_>, i: &Ins, matrix: Matrix, transfer: Transfer) -> Option<Placement> {
        let bases = addresses(cx, i.src[0], transfer.access.offset);
        let strides = if transfer.strided {
            cx.warp.regs.all::<u32>(i.src[1])
        } else {
            let row = if transfer.across {
                matrix.outer
            } else {
                matrix.inner
            };
            [row; 32]
        };
        let differs = |l: &usize| bases[*l] != bases[0] || strides[*l] != strides[0];
        if let Some(lane) = (0..32).find(differs) {
            cx.fail(
                FaultKind::BadOperand,
                lane as u32,
                "all threads must name one matrix and one stride",
            );
            return None;
        }
        Some(Placement {
            matrix,
            base: bases[0],
            stride: u64::from(strides[0]),
            across: transfer.across,
        })
    }

    /// Where element number `n` lies, in bits from the base.
    fn bit_offset(&self, n: u32) -> u64 {
        let n = n % self.matrix.count();
        let (row, column) = (
            u64::from(n / self.matrix.inner),
            u64::from(n % self.matrix.inner),
        );
        let elements = if self.across {
            column * self.stride + row
        } else {
            row * self.stride + column
        };
        u64::from(self.matrix.element.bits()) * elements
    }

    /// How many of a lane's `each` elements one access takes: up to 16 aligned bytes side by side.
    fn elements_per_access(&self, each: u32) -> u32 {
        let bits = self.matrix.element.bits();
        let mut together = if self.across {
            1
        } else {
            each.min(self.matrix.inner).min(128 / bits)
        };
        let misaligned = |together: u32| {
            let bytes = u64::from((together * bits / 8).max(1));
            (0..32).any(|l| !(self.base + self.bit_offset(l * each) / 8).is_multiple_of(bytes))
                || !(self.stride * u64::from(bits)).is_multiple_of(u64::from(together * bits))
        };
        while together > 1 && together * bits > 32 && misaligned(together) {
            together /= 2;
        }
        together
    }
}

/// A fragment as bytes: those of each lane's registers, one after the other.
type Bytes = [[u8; 32]; 32];

/// `wmma.load` (into registers) and `wmma.store` (from registers).
fn transfer<const STORE: bool>(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let (matrix, registers) = Matrix::split_off(&env.program.lists[i.list as usize]);
    let transfer = Transfer::unpack(i.imm);
    let Some(place) = Placement::of(cx, i, matrix, transfer) else {
        return;
    };
    let element = matrix.element;
    let each = registers.len() as u32 * element.per_register();
    let together = place.elements_per_access(each);
    if together * element.bits() < 8 {
        return cx.fail(
            FaultKind::BadOperand,
            0,
            "elements of less than a byte must lie side by side",
        );
    }
    let access = Access {
        bytes: together * element.bits() / 8,
        ..transfer.access
    };
    let width = element.bits().max(32) as usize / 8;
    let mut data: Bytes = [[0; 32]; 32];
    if STORE {
        for (k, &reg) in registers.iter().enumerate() {
            for (lane, bytes) in data.iter_mut().enumerate() {
                let word = cx.warp.regs.get_bits(reg, lane, element.wide());
                bytes[k * width..][..width].copy_from_slice(&word.to_le_bytes()[..width]);
            }
        }
    }
    for chunk in 0..each / together {
        let mut addrs: [u64; 32] = std::array::from_fn(|l| {
            place.base + place.bit_offset(l as u32 * each + chunk * together) / 8
        });
        let first = (chunk * access.bytes) as usize;
        if !exchange::<STORE>(cx, access, &mut addrs, first, &mut data) {
            return;
        }
    }
    if STORE {
        return;
    }
    for (k, &reg) in registers.iter().enumerate() {
        for (lane, bytes) in data.iter().enumerate() {
            let mut v = [0; 8];
            v[..width].copy_from_slice(&bytes[k * width..][..width]);
            let word = u64::from_le_bytes(v);
            cx.warp.regs.set_bits(reg, lane, element.wide(), word);
        }
    }
}

/// Moves the bytes of one access between memory and `data[lane][first..]`. False after a fault.
fn exchange<const STORE: bool>(
    cx: &mut Cx<'_>,
    access: Access,
    addrs: &mut [u64; 32],
    first: usize,
    data: &mut Bytes,
) -> bool {
    let part = access.bytes.min(8);
    let size = part as usize;
    resolve(cx, access, addrs, !0, |cx, place, addrs, lanes| {
        for lane in lanes_of(lanes) {
            for k in (0..access.bytes).step_by(size) {
                let here = &mut data[lane][first + k as usize..][..size];
                let addr = addrs[lane] + u64::from(k);
                if STORE {
                    let mut v = [0; 8];
                    v[..size].copy_from_slice(here);
                    cx.store(place, lane, addr, part, u64::from_le_bytes(v));
                } else {
                    let v = cx.load(place, lane, addr, part);
                    here.copy_from_slice(&v.to_le_bytes()[..size]);
                }
            }
        }
    })
}

immediate! {
    /// `wmma.mma`. `list`: the matrices A, B, C and D, the register counts of D, A, B, then the
    /// registers of D, A, B, C.
    struct Wmma {
        /// `.satfinite`
        saturate: bool [1],
        /// `.xor`: counts the bits that differ, else those that are 1 in both.
        xor: bool [1],
    }
}

fn wmma_mma(cx: &mut Cx<'_>, i: &Ins, mask: u32) {
    if !whole_warp(cx, mask) {
        return;
    }
    let env = cx.env;
    let options = Wmma::unpack(i.imm);
    let (ma, rest) = Matrix::split_off(&env.program.lists[i.list as usize]);
    let (mb, rest) = Matrix::split_off(rest);
    let (mc, rest) = Matrix::split_off(rest);
    let (md, rest) = Matrix::split_off(rest);
    let (counts, rest) = rest.split_at(3);
    let (d_regs, rest) = rest.split_at(counts[0] as usize);
    let (a_regs, rest) = rest.split_at(counts[1] as usize);
    let (b_regs, c_regs) = rest.split_at(counts[2] as usize);
    let (a, b) = (ma.read(cx, a_regs), mb.read(cx, b_regs));
    let mut sums = mc.read(cx, c_regs);
    let (rows, columns, k) = (ma.outer as usize, mb.outer as usize, ma.inner as usize);
    match env.tensor_core {
        Some(core) if ma.element.least_exponent().is_some() => {
            multiply_as_card(core, ma.element, md.element, k, &a, &b, &mut sums);
        }
        _ => multiply(k, options.xor, &a, &b, &mut sums),
    }
    if let Some(counts) = &mut cx.counts {
        let holds = |m: &[f64]| m.chunks(k).filter(|l| l.iter().any(|x| *x != 0.0)).count();
        counts.tensor_products += (rows * columns * k) as u64;
        counts.tensor_useful += (holds(&a) * holds(&b) * k) as u64;
    }
    write_sums(cx, md.element, d_regs, &sums, options.saturate);
}

/// Adds A B to the sums, in the order of k. `b` goes by columns; `xor`: of single bits that differ.
fn multiply(k: usize, xor: bool, a: &[f64], b: &[f64], sums: &mut [f64]) {
    let columns = b.len() / k;
    for (i, sum) in sums.iter_mut().enumerate() {
        let (row, column) = (&a[i / columns * k..][..k], &b[i % columns * k..][..k]);
        for (x, y) in row.iter().zip(column) {
            *sum = if xor {
                *sum + if x == y { 0.0 } else { 1.0 }
            } else {
                x.mul_add(*y, *sum)
            };
        }
    }
}

/// Adds A B to the sums as a card does. `b` goes by columns, of which there are a multiple of 8.
fn multiply_as_card(
    core: TensorCore,
    element: Element,
    d: Element,
    k: usize,
    a: &[f64],
    b: &[f64],
    sums: &mut [f64],
) {
    let least = element.least_exponent().unwrap_or(0);
    let products = (core.products * element.per_register() / 2) as usize;
    let format = if d == Element::F16 {
        Accumulator::F16
    } else {
        Accumulator::F32
    };
    let columns = b.len() / k;
    let exponents = |values: &[f64]| -> Vec<i32> {
        (values.iter())
            .map(|x| tensor::exponent(*x, least))
            .collect()
    };
    for eight in (0..columns).step_by(8) {
        let by_k: Vec<tensor::Columns<f64>> = (0..k)
            .map(|n| std::array::from_fn(|j| b[(eight + j) * k + n]))
            .collect();
        let by_k_exponents: Vec<tensor::Columns<i32>> = (by_k.iter())
            .map(|x| x.map(|x| tensor::exponent(x, least)))
            .collect();
        for (a, sums) in a.chunks_exact(k).zip(sums.chunks_exact_mut(columns)) {
            let factors = Factors {
                a,
                a_exponents: &exponents(a),
                b: &by_k,
                b_exponents: &by_k_exponents,
            };
            let mut eight_sums: tensor::Columns<f64> = std::array::from_fn(|j| sums[eight + j]);
            tensor::add_products(core, products, factors, format, &mut eight_sums);
            sums[eight..eight + 8].copy_from_slice(&eight_sums);
        }
    }
}

/// Rounds the sums into the fragment of D.
fn write_sums(cx: &mut Cx<'_>, d: Element, regs: &[u32], sums: &[f64], saturate: bool) {
    let (bits, per) = (d.bits(), d.per_register() as usize);
    let each = regs.len() * per;
    for lane in 0..32 {
        for (r, &reg) in regs.iter().enumerate() {
            let mut word = 0u64;
            for e in 0..per {
                let x = sums[(lane * each + r * per + e) % sums.len()];
                word |= d.round(x, saturate) << (e as u32 * bits);
            }
            cx.warp.regs.set_bits(reg, lane, d.wide(), word);
        }
    }
}

/// Registers of a fragment, as the PTX manual has them.
fn register_count(role: char, [m, n, k]: [u32; 3], element: Element) -> usize {
    let elements = match role {
        // f16 fragments of A and B hold every element twice.
        'a' | 'b' if element == Element::F16 => return 8,
        'a' => m * k,
        'b' => k * n,
        _ => m * n,
    };
    (elements / 32 / element.per_register()).max(1) as usize
}

fn wmma(b: &mut Builder, f: &Form) -> Res {
    f.has("sync");
    f.has("aligned");
    let Some(&(_, shape)) = SHAPES.iter().find(|s| f.has(s.0)) else {
        return f.refuse("this shape is not supported");
    };
    let mut elements = Vec::new();
    for name in &f.inst.modifiers {
        if let Some((_, e)) = Element::ALL.iter().find(|e| e.0 == name) {
            f.has(name);
            elements.push(*e);
        }
    }
    if f.has("mma") {
        mma_form(b, f, shape, &elements)
    } else {
        transfer_form(b, f, shape, &elements)
    }
}

/// `wmma.load` and `wmma.store`.
fn transfer_form(b: &mut Builder, f: &Form, shape: [u32; 3], elements: &[Element]) -> Res {
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
    let [element] = elements[..] else {
        return f.refuse("one type is expected");
    };
    let place = space_of(f).and_then(Place::of);
    let ops = &f.inst.operands;
    if !(2..=3).contains(&ops.len()) {
        return f.refuse("2 or 3 operands are expected");
    }
    let (data, addr) = if store {
        (&ops[1], &ops[0])
    } else {
        (&ops[0], &ops[1])
    };
    let (base, offset) = address(b, f, addr)?;
    let stride = match ops.get(2) {
        Some(op) => Some(b.src(f, op, Ty::U32)?),
        None => None,
    };
    let n = register_count(role, shape, element);
    let regs = registers(b, f, data, n, element.register(), !store)?;
    let mut list = Matrix::new(role, shape, element).to_list().to_vec();
    list.extend(regs);
    let list = b.list(list);
    let touch = if store { Touch::Write } else { Touch::Read };
    let options = Transfer {
        access: Access {
            offset,
            ..Access::new(place, touch)
        },
        // B's fragment goes by columns, the others by rows.
        across: (by_column == 1) != (role == 'b'),
        strided: stride.is_some(),
    };
    let (exec, class): (Exec, Class) = if store {
        (transfer::<true>, Class::Store)
    } else {
        (transfer::<false>, Class::Load)
    };
    b.emit(exec, class, |i| {
        i.src = [base, stride.unwrap_or(0), 0];
        i.list = list;
        i.imm = options.pack();
    });
    Ok(())
}

/// The types of D, A, B, C, if they exist together.
fn mma_types(f: &Form, elements: &[Element]) -> Res<[Element; 4]> {
    use Element::{Bf16, F16, F32, F64, S32, Tf32};
    let types @ [d, a, b, c] = match *elements {
        // f16 of A and B is not written.
        [d, c] => [d, F16, F16, c],
        [d, a, b, c] => [d, a, b, c],
        _ => return f.refuse("two or four types are expected"),
    };
    let fits = match (a, b) {
        (F16, F16) => [d, c].iter().all(|e| matches!(e, F16 | F32)),
        (Bf16, Bf16) | (Tf32, Tf32) => d == F32 && c == F32,
        (F64, F64) => d == F64 && c == F64,
        (x, y) => x == y && d == S32 && c == S32 && x.bits() <= 8,
    };
    if !fits {
        return f.refuse("this combination of types is not supported");
    }
    Ok(types)
}

/// `wmma.mma`.
fn mma_form(b: &mut Builder, f: &Form, shape: [u32; 3], elements: &[Element]) -> Res {
    // The layouts are those of the fragments, which is this file's own.
    f.has("row");
    f.has("col");
    f.has("rn");
    let saturate = f.has("satfinite");
    let xor = f.has("xor");
    if f.has("popc") != (xor || f.has("and")) {
        return f.refuse(".xor.popc or .and.popc is expected");
    }
    let [d, ea, eb, c] = mma_types(f, elements)?;
    let ops = f.operands(4)?;
    let counts = [
        register_count('c', shape, d),
        register_count('a', shape, ea),
        register_count('b', shape, eb),
        register_count('c', shape, c),
    ];
    let ra = registers(b, f, &ops[1], counts[1], ea.register(), false)?;
    let rb = registers(b, f, &ops[2], counts[2], eb.register(), false)?;
    let rc = registers(b, f, &ops[3], counts[3], c.register(), false)?;
    let rd = registers(b, f, &ops[0], counts[0], d.register(), true)?;
    let mut list = Vec::new();
    for (role, element) in [('a', ea), ('b', eb), ('c', c), ('c', d)] {
        list.extend(Matrix::new(role, shape, element).to_list());
    }
    list.extend(counts[..3].iter().map(|n| *n as u32));
    list.extend(rd.into_iter().chain(ra).chain(rb).chain(rc));
    let list = b.list(list);
    b.emit(wmma_mma, Class::Tensor, |i| {
        i.list = list;
        i.imm = Wmma { saturate, xor }.pack();
    });
    Ok(())
}
