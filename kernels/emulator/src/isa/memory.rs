//! ld, ldu, st, prefetch and their vectors.

use super::Decode;
use crate::checks::{FaultKind, Touch};
use crate::lower::{Builder, Form, Name, Res};
use crate::machine::{
    Class, Cx, Exec, Ins, Launch, Place, contiguous, immediate, lanes_of, listed,
};
use crate::ptx::tree::Operand;
use crate::types::{Space, Ty};

pub const DEFS: &[(&str, Decode)] = &[
    ("ld", ld),
    ("ldu", ld),
    ("st", st),
    ("prefetch", prefetch),
    ("prefetchu", prefetch),
    ("discard", prefetch),
    ("applypriority", prefetch),
    ("createpolicy", policy),
];

/// The width of a register that takes values of other widths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Bits32,
    Bits64,
    Bits16,
}

impl Width {
    pub fn of(wide: bool, short: bool) -> Width {
        if wide {
            Width::Bits64
        } else if short {
            Width::Bits16
        } else {
            Width::Bits32
        }
    }
}

listed!(Width, [Width::Bits32, Width::Bits64, Width::Bits16]);

listed!(
    Option<Place>,
    [
        None,
        Some(Place::Global),
        Some(Place::Shared),
        Some(Place::Local),
        Some(Place::Param),
    ]
);

listed!(
    Touch,
    [
        Touch::Read,
        Touch::Write,
        Touch::StrongRead,
        Touch::StrongWrite,
        Touch::Atomic,
    ]
);

immediate! {
    /// A memory access of a warp.
    pub struct Access {
        /// Added to each lane's address.
        pub offset: i32 [32],
        /// Bytes of an element.
        pub bytes: u32 [5],
        /// Elements of a lane, side by side.
        pub count: u32 [4],
        /// `None` is generic.
        pub place: Option<Place> [3],
        pub touch: Touch [3],
        /// A load extends the sign.
        pub signed: bool [1],
        /// The register of an element.
        pub width: Width [2],
    }
}

impl Access {
    /// An access of one byte without offset; callers set the other fields they need.
    pub fn new(place: Option<Place>, touch: Touch) -> Access {
        Access {
            offset: 0,
            bytes: 1,
            count: 1,
            place,
            touch,
            signed: false,
            width: Width::Bits32,
        }
    }

    /// A loaded element as its register holds it.
    #[inline(always)]
    fn extend(self, v: u64) -> u64 {
        let v = if self.signed {
            let shift = 64 - self.bytes * 8;
            ((v << shift) as i64 >> shift) as u64
        } else {
            v
        };
        if self.width == Width::Bits16 {
            v & 0xffff
        } else {
            v
        }
    }
}

/// The registers of an access: `one`, or for vectors the instruction's list.
#[inline(always)]
fn registers_of<'a>(env: &'a Launch<'_>, i: &'a Ins, a: Access, one: &'a u32) -> &'a [u32] {
    if a.count > 1 {
        &env.program.lists[i.list as usize]
    } else {
        std::slice::from_ref(one)
    }
}

/// Lane addresses: a 64-bit register plus an offset.
#[inline(always)]
pub fn addresses(cx: &Cx<'_>, reg: u32, offset: i32) -> [u64; 32] {
    let mut a = cx.warp.regs.all::<u64>(reg);
    for x in &mut a {
        *x = x.wrapping_add(offset as i64 as u64);
    }
    a
}

/// Runs `each` for every state space the lanes point to, after the checks. False after a fault.
#[inline(always)]
pub fn resolve(
    cx: &mut Cx<'_>,
    a: Access,
    addrs: &mut [u64; 32],
    m: u32,
    mut each: impl FnMut(&mut Cx<'_>, Place, &[u64; 32], u32),
) -> bool {
    if m == 0 {
        return true;
    }
    let whole = a.bytes * a.count;
    match a.place {
        Some(place) => {
            if !cx.check(place, addrs, m, whole, a.touch) {
                return false;
            }
            each(cx, place, addrs, m);
        }
        None => {
            for (place, lanes) in cx.places(addrs, m) {
                if lanes == 0 {
                    continue;
                }
                if !cx.check(place, addrs, lanes, whole, a.touch) {
                    return false;
                }
                each(cx, place, addrs, lanes);
            }
        }
    }
    true
}

/// Loads one or several 32-bit elements, the frequent case, into `dst` or the registers in `list`.
fn load32(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let env = cx.env;
    let list = registers_of(cx.env, i, a, &i.dst);
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for (k, &reg) in list.iter().enumerate() {
            let (offset, v) = (k as u64 * 4, cx.warp.regs.view());
            if place == Place::Global && list.len() == 1 && contiguous(addrs, lanes, 4) {
                let mut d = [0u32; 32];
                env.heap.load_words(addrs[0], &mut d);
                cx.warp.regs.put::<u32>(reg, lanes, &d);
            } else if place == Place::Shared && lanes == !0 {
                let words = &cx.block.shared[..];
                for (lane, a) in addrs.iter().enumerate() {
                    v.set::<u32>(reg, lane, words[*a as usize / 4 + k]);
                }
            } else {
                for lane in lanes_of(lanes) {
                    let word = cx.load(place, lane, addrs[lane] + offset, 4) as u32;
                    v.set::<u32>(reg, lane, word);
                }
            }
        }
    });
}

/// Loads elements of any size and number.
fn load_any(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let list = registers_of(cx.env, i, a, &i.dst);
    let wide = a.width == Width::Bits64;
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for lane in lanes_of(lanes) {
            for (k, &reg) in list.iter().enumerate() {
                let addr = addrs[lane] + k as u64 * u64::from(a.bytes);
                let v = a.extend(cx.load(place, lane, addr, a.bytes));
                cx.warp.regs.set_bits(reg, lane, wide, v);
            }
        }
    });
}

/// Stores 32-bit elements from `src[1]` or the registers in `list`.
fn store32(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let env = cx.env;
    let list = registers_of(cx.env, i, a, &i.src[1]);
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for (k, &reg) in list.iter().enumerate() {
            let (offset, v) = (k as u64 * 4, cx.warp.regs.view());
            if place == Place::Global && list.len() == 1 && contiguous(addrs, lanes, 4) {
                env.heap
                    .store_words(addrs[0], &cx.warp.regs.all::<u32>(reg));
                continue;
            }
            if place == Place::Shared && lanes == !0 {
                let words = &mut cx.block.shared[..];
                for (lane, a) in addrs.iter().enumerate() {
                    words[*a as usize / 4 + k] = v.get::<u32>(reg, lane);
                }
            } else {
                for lane in lanes_of(lanes) {
                    let word = u64::from(v.get::<u32>(reg, lane));
                    cx.store(place, lane, addrs[lane] + offset, 4, word);
                }
            }
            agree(cx, place, addrs, offset, lanes, 4, |_, lane| {
                u64::from(v.get::<u32>(reg, lane))
            });
        }
    });
}

/// Checks that lanes of one instruction that wrote one shared word wrote the same value: which lane
/// wins is undefined.
fn agree(
    cx: &mut Cx<'_>,
    place: Place,
    addrs: &[u64; 32],
    offset: u64,
    lanes: u32,
    bytes: u32,
    value: impl Fn(&Cx<'_>, usize) -> u64,
) {
    if place != Place::Shared || !cx.block.shadow.as_ref().is_some_and(|s| s.overlap) {
        return;
    }
    let mask = if bytes == 8 {
        u64::MAX
    } else {
        (1 << (bytes * 8)) - 1
    };
    if let Some(lane) = lanes_of(lanes)
        .find(|&l| cx.load(place, l, addrs[l] + offset, bytes) != value(cx, l) & mask)
    {
        let message = format!(
            "threads of one instruction write different values to shared address {:#x}",
            addrs[lane]
        );
        cx.fail(FaultKind::SharedRace, lane as u32, message);
    }
}

/// Stores elements of any size and number.
fn store_any(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let mut addrs = addresses(cx, i.src[0], a.offset);
    let list = registers_of(cx.env, i, a, &i.src[1]);
    let wide = a.width == Width::Bits64;
    let value = |cx: &Cx<'_>, reg: u32, lane: usize| cx.warp.regs.get_bits(reg, lane, wide);
    resolve(cx, a, &mut addrs, m, |cx, place, addrs, lanes| {
        for (k, &reg) in list.iter().enumerate() {
            let offset = k as u64 * u64::from(a.bytes);
            for lane in lanes_of(lanes) {
                let v = value(cx, reg, lane);
                cx.store(place, lane, addrs[lane] + offset, a.bytes, v);
            }
            agree(cx, place, addrs, offset, lanes, a.bytes, |cx, lane| {
                value(cx, reg, lane)
            });
        }
    });
}

/// Loads a kernel parameter at a fixed offset: the same value for all lanes.
fn load_param(cx: &mut Cx<'_>, i: &Ins, m: u32) {
    let a = Access::unpack(i.imm);
    let v = a.extend(cx.load(Place::Param, 0, a.offset as u64, a.bytes));
    if a.width == Width::Bits64 {
        cx.warp.regs.put::<u64>(i.dst, m, &[v; 32]);
    } else {
        cx.warp.regs.put::<u32>(i.dst, m, &[v as u32; 32]);
    }
}

/// The state space as written: `None` is generic.
pub fn space_of(f: &Form) -> Option<Space> {
    [
        "global",
        "shared",
        "shared::cta",
        "local",
        "const",
        "param",
        "param::entry",
        "param::func",
    ]
    .into_iter()
    .find(|s| f.has(s))
    .and_then(Space::parse)
}

/// Consumes caching hints; true for accesses that order.
pub fn strong(f: &Form) -> bool {
    for hint in [
        "ca",
        "cg",
        "cs",
        "lu",
        "cv",
        "wb",
        "wt",
        "nc",
        "L1::evict_last",
        "L1::evict_first",
        "L1::no_allocate",
        "L1::evict_normal",
        "L1::evict_unchanged",
        "L2::evict_last",
        "L2::evict_first",
        "L2::evict_normal",
        "L2::64B",
        "L2::128B",
        "L2::256B",
        "weak",
    ] {
        f.has(hint);
    }
    // No short circuit: `.mmio.relaxed` has two.
    let mut s = false;
    for m in ["volatile", "relaxed", "acquire", "release", "mmio"] {
        s |= f.has(m);
    }
    for scope in ["cta", "gpu", "sys", "cluster"] {
        f.has(scope);
    }
    s
}

/// `.L2::cache_hint` adds an operand that changes no result.
pub fn cache_hint<'a>(f: &'a Form<'_>, n: usize) -> Res<&'a [Operand]> {
    if f.has("L2::cache_hint") {
        return Ok(&f.operands(n + 1)?[..n]);
    }
    f.operands(n)
}

fn vector(f: &Form, op: &Operand) -> Res<Vec<Operand>> {
    let count = match f.pick(&["v2", "v4", "v8"]) {
        None => 1,
        Some(n) => 2 << n,
    };
    match op {
        Operand::Vector(parts) if parts.len() == count => Ok(parts.clone()),
        // `{ %r1 }` without a vector modifier is how Triton writes a scalar: the first arm takes
        // it.
        other if count == 1 && !matches!(other, Operand::Vector(_)) => Ok(vec![other.clone()]),
        _ => f.refuse(format!("{count} registers are expected")),
    }
}

/// The place of an access, its base register and its offset.
fn target(
    b: &mut Builder,
    f: &Form,
    op: &Operand,
    space: Option<Space>,
) -> Res<(Option<Place>, u32, i32)> {
    let (reg, offset, named) = b.address(f, op)?;
    let place = match (space, named) {
        // A `.param` variable of a call lives in local memory; see `slot` in `decode/mod.rs`.
        (Some(Space::Param), Some(Space::Local)) => Some(Place::Local),
        (Some(s), _) => Place::of(s),
        // Without a state space a name is a generic address, which only global variables have.
        (None, Some(Space::Global)) | (None, None) => None,
        (None, Some(_)) => {
            return f.refuse("a variable outside of global memory needs its state space");
        }
    };
    match i32::try_from(offset) {
        Ok(o) => Ok((place, reg, o)),
        Err(_) => f.refuse(format!("offset {offset} is too large")),
    }
}

fn ld(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let space = space_of(f);
    let strong = strong(f);
    f.has("unified");
    let ops = cache_hint(f, 2)?;
    let (t, dst) = match b.halves(&ops[0]) {
        Some(parts) if t == Ty::B128 => (Ty::B64, parts.to_vec()),
        _ => (t, vector(f, &ops[0])?),
    };
    if t.bytes() == 16 || t == Ty::Pred {
        return f.refuse("this type is not supported");
    }
    let touch = if strong {
        Touch::StrongRead
    } else {
        Touch::Read
    };
    if let (Some(Space::Param), Operand::Address(Some(name), offset)) = (space, &ops[1])
        && let Some(Name::Param(base)) = b.lookup(name).cloned()
    {
        return ld_param(b, f, t, &dst, i64::from(base) + offset);
    }
    let (place, base, offset) = target(b, f, &ops[1], space)?;
    let (regs, width) = destinations(b, f, t, &dst)?;
    if strong && matches!(place, None | Some(Place::Global)) {
        b.communicates = true;
    }
    let access = Access {
        offset,
        bytes: t.bytes(),
        count: regs.len() as u32,
        signed: t.signed(),
        width,
        ..Access::new(place, touch)
    };
    let exec: Exec = if t.bytes() == 4 && width == Width::Bits32 {
        load32
    } else {
        load_any
    };
    let first = regs[0];
    let list = if regs.len() > 1 { b.list(regs) } else { 0 };
    b.emit(exec, Class::Load, |i| {
        i.dst = first;
        i.src[0] = base;
        i.list = list;
        i.imm = access.pack();
    });
    Ok(())
}

/// A kernel parameter by name.
fn ld_param(b: &mut Builder, f: &Form, t: Ty, dst: &[Operand], first: i64) -> Res {
    for (k, op) in dst.iter().enumerate() {
        let d = b.dst_any(f, op)?;
        let offset = first + k as i64 * i64::from(t.bytes());
        if offset < 0 || offset + i64::from(t.bytes()) > i64::from(b.param_bytes) {
            return f.refuse(format!("parameter byte {offset} does not exist"));
        }
        let access = Access {
            offset: offset as i32,
            bytes: t.bytes(),
            signed: t.signed(),
            width: Width::of(d.wide, d.short),
            ..Access::new(Some(Place::Param), Touch::Read)
        };
        // A vector counts once.
        let class = if k == 0 { Class::Load } else { Class::Hidden };
        b.emit(load_param, class, |i| {
            i.dst = d.index;
            i.imm = access.pack();
        });
    }
    Ok(())
}

/// The registers that a load fills, and their common width.
fn destinations(b: &mut Builder, f: &Form, t: Ty, dst: &[Operand]) -> Res<(Vec<u32>, Width)> {
    let mut regs = Vec::new();
    let mut width = None;
    for op in dst {
        let d = b.dst_any(f, op)?;
        if t.bytes() == 8 && !d.wide {
            return f.refuse("the destination is too narrow");
        }
        if *op != Operand::Sink {
            let this = Width::of(d.wide, d.short);
            if width.is_some_and(|w| w != this) {
                return f.refuse("the destinations differ in width");
            }
            width = Some(this);
        }
        regs.push(d.index);
    }
    Ok((regs, width.unwrap_or(Width::of(t.bytes() == 8, false))))
}

fn st(b: &mut Builder, f: &Form) -> Res {
    let t = f.ty()?;
    let space = space_of(f);
    let strong = strong(f);
    let ops = cache_hint(f, 2)?;
    let (t, src) = match b.halves(&ops[1]) {
        Some(parts) if t == Ty::B128 => (Ty::B64, parts.to_vec()),
        _ => (t, vector(f, &ops[1])?),
    };
    if t.bytes() == 16 || t == Ty::Pred {
        return f.refuse("this type is not supported");
    }
    let (place, base, offset) = target(b, f, &ops[0], space)?;
    if matches!(place, Some(Place::Param)) || space == Some(Space::Const) {
        return f.refuse("this space cannot be written");
    }
    let mut regs = Vec::new();
    for op in &src {
        // A register wider than the type stores its low part.
        regs.push(b.src(
            f,
            op,
            if t.bytes() == 8 {
                Ty::B64
            } else if t.bytes() <= 2 {
                Ty::B16
            } else {
                t
            },
        )?);
    }
    if strong && matches!(place, None | Some(Place::Global)) {
        b.communicates = true;
    }
    let touch = if strong {
        Touch::StrongWrite
    } else {
        Touch::Write
    };
    let access = Access {
        offset,
        bytes: t.bytes(),
        count: regs.len() as u32,
        width: Width::of(t.bytes() == 8, false),
        ..Access::new(place, touch)
    };
    let exec: Exec = if t.bytes() == 4 { store32 } else { store_any };
    let first = regs[0];
    let list = if regs.len() > 1 { b.list(regs) } else { 0 };
    b.emit(exec, Class::Store, |i| {
        i.src[0] = base;
        i.src[1] = first;
        i.list = list;
        i.imm = access.pack();
    });
    Ok(())
}

fn no_op(_: &mut Cx<'_>, _: &Ins, _: u32) {}

/// Hints: no effect on any result.
fn prefetch(b: &mut Builder, f: &Form) -> Res {
    space_of(f);
    for m in [
        "L1",
        "L2",
        "L2::evict_last",
        "L2::evict_normal",
        "tensormap",
        "L2::128",
        "128",
    ] {
        f.has(m);
    }
    b.emit(no_op, Class::Other, |_| {});
    Ok(())
}

/// A cache policy is an opaque number that hints take.
fn policy(b: &mut Builder, f: &Form) -> Res {
    for m in [
        "fractional",
        "range",
        "cvt",
        "L2",
        "global",
        "L2::evict_last",
        "L2::evict_first",
        "L2::evict_normal",
        "L2::evict_unchanged",
    ] {
        f.has(m);
    }
    f.only_type(Ty::B64, "b64")?;
    let Some(op) = f.inst.operands.first() else {
        return f.refuse("a destination is expected");
    };
    let zero = b.constant(0, true);
    let d = b.dst(f, op, Ty::B64)?;
    b.emit(super::shapes::un(|a: u64| a), Class::Other, |i| {
        i.dst = d;
        i.src[0] = zero;
    });
    Ok(())
}
