//! `mma` and `wmma` as cards add: cases worked out by hand, through PTX. The rule of a step and its sources
//! are in `src/tensor.rs`, and a model in integers beside it.

use crate::common::{download, upload};
use crate::model::{nb, nh};
use cuda::{Accumulation, Gpu, Options, Profile, Shape};

/// Bits of an f32.
fn bits(x: f32) -> u32 {
    x.to_bits()
}

fn two(exponent: i32) -> f32 {
    2f64.powi(exponent) as f32
}

fn card(word: &str) -> Gpu {
    let profile = Profile::by_word(word).expect("a profile").clone();
    Gpu::new(Options {
        profile,
        accumulation: Accumulation::Card,
        ..Options::default()
    })
    .expect("address space for a device")
}

fn exact() -> Gpu {
    Gpu::new(Options::default()).expect("address space for a device")
}

/// Types of an `mma` with four registers of A and two of B.
#[derive(Clone, Copy)]
struct Kind {
    /// Shape and types.
    ptx: &'static str,
    /// Elements of a register.
    per: usize,
    /// Registers of C and of D.
    sums: usize,
    /// An element's bits.
    element: fn(f32) -> u32,
}

const BF16: Kind = Kind {
    ptx: "m16n8k16.row.col.f32.bf16.bf16.f32",
    per: 2,
    sums: 4,
    element: |x| nb(f64::from(x)) as u32,
};
const F16: Kind = Kind {
    ptx: "m16n8k16.row.col.f32.f16.f16.f32",
    per: 2,
    sums: 4,
    element: |x| nh(f64::from(x)) as u32,
};
const F16_SUMS: Kind = Kind {
    ptx: "m16n8k16.row.col.f16.f16.f16.f16",
    per: 2,
    sums: 2,
    element: |x| nh(f64::from(x)) as u32,
};
const TF32: Kind = Kind {
    ptx: "m16n8k8.row.col.f32.tf32.tf32.f32",
    per: 1,
    sums: 4,
    element: f32::to_bits,
};

/// The kernel of an `mma`: 14 words a lane, A, B, C, D.
fn kernel_text(kind: Kind) -> String {
    let list = |name: &str, n: usize| {
        let all: Vec<String> = (0..n).map(|i| format!("%{name}{i}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    let mut code = String::from(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {\n\
         .reg .b64 %rd<4>; .reg .b32 %t, %a<4>, %b<2>, %c<4>, %d<4>;\n\
         ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %rd2, %t, 56; add.u64 %rd3, %rd1, %rd2;\n",
    );
    for (name, first, count) in [("a", 0, 4), ("b", 4, 2), ("c", 6, kind.sums)] {
        for i in 0..count {
            code += &format!("ld.global.b32 %{name}{i}, [%rd3+{}];\n", (first + i) * 4);
        }
    }
    code += &format!(
        "mma.sync.aligned.{} {}, {}, {}, {};\n",
        kind.ptx,
        list("d", kind.sums),
        list("a", 4),
        list("b", 2),
        list("c", kind.sums)
    );
    for i in 0..kind.sums {
        code += &format!("st.global.b32 [%rd3+{}], %d{i};\n", (10 + i) * 4);
    }
    code + "ret;\n}\n"
}

/// D[0][0]: `c` plus the products of row 0 of A and column 0 of B, which are zero but for the places given.
fn sum(gpu: &Gpu, kind: Kind, c: u32, products: &[(usize, f32, f32)]) -> u32 {
    let mut data = vec![[0u32; 14]; 32];
    data[0][6] = c;
    for &(k, x, y) in products {
        // Lane t of the first row and column has k = t per + e, and 4 per further on.
        let (half, lane, e) = (k / (4 * kind.per), k / kind.per % 4, k % kind.per);
        let shift = 16 * e;
        data[lane][2 * half] |= (kind.element)(x) << shift;
        data[lane][4 + half] |= (kind.element)(y) << shift;
    }
    let module = gpu.load(&kernel_text(kind)).expect("PTX");
    let kernel = module.kernel("k").expect("the kernel");
    let at = upload(gpu, &data);
    let params = kernel.pack(&[&at.to_le_bytes()]).expect("one pointer");
    gpu.launch(&kernel, Shape::line(1, 32), params)
        .expect("a launch");
    let sum = download::<[u32; 14]>(gpu, at, 32)[0][10];
    assert!(gpu.free(at));
    sum
}

#[test]
fn a_sum_is_cut_towards_zero() {
    // Three quarters of the last bit of 1: the nearest number is the next one, a card cuts.
    let products = [(0, 1.5, two(-24))];
    assert_eq!(sum(&exact(), BF16, bits(1.0), &products), 0x3f80_0001);
    for word in ["a100", "rtx4090", "h100", "h200", "b200"] {
        let gpu = card(word);
        assert_eq!(sum(&gpu, BF16, bits(1.0), &products), 0x3f80_0000, "{word}");
        // Towards zero, not down.
        let negative = [(0, -1.5, two(-24))];
        let below = sum(&gpu, BF16, bits(-1.0), &negative);
        assert_eq!(below, 0xbf80_0000, "{word}");
        // A whole bit arrives.
        let whole = [(0, 1.0, two(-23))];
        assert_eq!(sum(&gpu, BF16, bits(1.0), &whole), 0x3f80_0001, "{word}");
    }
}

#[test]
fn bits_behind_the_window_are_lost_one_by_one() {
    // Four products of a quarter of the last bit. Ampere keeps half a bit, Hopper a quarter.
    let quarters = [0, 1, 2, 3].map(|k| (k, 1.0, two(-25)));
    let halves = [0, 1].map(|k| (k, 1.0, two(-24)));
    for (word, quarter_sum) in [
        ("a100", 0x3f80_0000),
        ("rtx4090", 0x3f80_0000),
        ("h100", 0x3f80_0001),
        ("b200", 0x3f80_0001),
    ] {
        let gpu = card(word);
        for kind in [BF16, F16] {
            // 2^-25 is no f16: one of its factors is 2^-12.
            let split = |p: [(usize, f32, f32); 4]| p.map(|(k, _, y)| (k, two(-12), y * two(12)));
            let got = sum(&gpu, kind, bits(1.0), &split(quarters));
            assert_eq!(got, quarter_sum, "{word}");
        }
        assert_eq!(sum(&gpu, BF16, bits(1.0), &halves), 0x3f80_0001, "{word}");
    }
}

#[test]
fn a_cancellation_shows_what_the_window_kept() {
    // 1 - 1 + 2^-25: what is left lies in Hopper's window and below Ampere's.
    let products = [(0, -1.0, 1.0), (1, 1.0, two(-25))];
    assert_eq!(sum(&exact(), BF16, bits(1.0), &products), bits(two(-25)));
    assert_eq!(sum(&card("a100"), BF16, bits(1.0), &products), 0);
    let kept = sum(&card("h100"), BF16, bits(1.0), &products);
    assert_eq!(kept, bits(two(-25)));
    let below = [(0, -1.0, 1.0), (1, 1.0, two(-26))];
    assert_eq!(sum(&card("h100"), BF16, bits(1.0), &below), 0);
}

#[test]
fn a_product_of_two_or_more_moves_no_window() {
    // 1.5 * 1.5 has the exponent 0 of its factors, so 2^-24 stays in Ampere's window. Of 2.25 in the
    // accumulator the exponent is 1, and it is lost.
    let product = [(0, 1.5, 1.5), (1, -2.25, 1.0), (2, 1.0, two(-24))];
    let gpu = card("a100");
    // -2.25 * 1 has exponent 1 as well: so take it off in the factors, too.
    let denormal = [(0, 1.5, 1.5), (1, -1.5, 1.5), (2, 1.0, two(-24))];
    assert_eq!(sum(&gpu, BF16, 0, &denormal), bits(two(-24)));
    assert_eq!(sum(&gpu, BF16, 0, &product), 0);
    assert_eq!(
        sum(
            &gpu,
            BF16,
            bits(-2.25),
            &[(0, 1.5, 1.5), (2, 1.0, two(-24))]
        ),
        0
    );
}

#[test]
fn a_step_takes_as_many_products_as_the_card() {
    // Half a bit in each half of k: Ampere cuts twice, Hopper adds both before it cuts.
    let in_two_halves = [(0, 1.0, two(-24)), (8, 1.0, two(-24))];
    let in_one_half = [(0, 1.0, two(-24)), (7, 1.0, two(-24))];
    let in_tf32 = [(0, 1.0, two(-24)), (4, 1.0, two(-24))];
    for (word, apart) in [
        ("a100", 0x3f80_0000),
        ("rtx4090", 0x3f80_0000),
        ("h200", 0x3f80_0001),
        ("b200", 0x3f80_0001),
    ] {
        let gpu = card(word);
        let one = bits(1.0);
        assert_eq!(sum(&gpu, BF16, one, &in_two_halves), apart, "{word}");
        assert_eq!(sum(&gpu, BF16, one, &in_one_half), 0x3f80_0001, "{word}");
        assert_eq!(sum(&gpu, TF32, one, &in_tf32), apart, "{word}");
    }
}

#[test]
fn infinities_nan_and_the_ends_of_the_range() {
    let infinity = f32::INFINITY;
    for word in ["a100", "h100"] {
        let gpu = card(word);
        let of = |c: f32, products: &[(usize, f32, f32)]| sum(&gpu, BF16, bits(c), products);
        assert_eq!(of(1.0, &[(3, infinity, 2.0)]), 0x7f80_0000);
        assert_eq!(of(1.0, &[(3, infinity, -2.0)]), 0xff80_0000);
        assert_eq!(of(-infinity, &[(3, 1.0, 2.0)]), 0xff80_0000);
        assert_eq!(of(-infinity, &[(3, infinity, 2.0)]), 0x7fff_ffff);
        assert_eq!(of(0.0, &[(3, infinity, 0.0)]), 0x7fff_ffff);
        assert_eq!(of(0.0, &[(3, f32::NAN, 1.0)]), 0x7fff_ffff);
        // Beyond the largest number a sum is infinite. Less than a bit beyond it is cut.
        assert_eq!(of(f32::MAX, &[(0, two(103), 1.0)]), 0x7f7f_ffff);
        assert_eq!(of(f32::MAX, &[(0, two(104), 1.0)]), 0x7f80_0000);
        assert_eq!(of(0.0, &[(0, two(100), two(100))]), 0x7f80_0000);
        // Products beyond it may cancel.
        let cancel = [(0, two(100), two(100)), (1, -two(100), two(100))];
        assert_eq!(of(0.0, &cancel), 0);
        // Subnormal sums and factors.
        assert_eq!(of(f32::from_bits(1), &[]), 1);
        assert_eq!(of(0.0, &[(0, two(-75), two(-74))]), 1);
        assert_eq!(of(0.0, &[(0, two(-130), 1.0)]), bits(two(-130)));
        assert_eq!(of(0.0, &[(0, two(-75), two(-75))]), 0);
    }
}

#[test]
fn sums_of_f16_are_rounded_to_nearest_even() {
    // Half of the last bit of 1 is a tie, three quarters are not.
    let one = nh(1.0) as u32;
    for word in ["a100", "h100"] {
        let gpu = card(word);
        assert_eq!(sum(&gpu, F16_SUMS, one, &[(0, two(-11), 1.0)]), one);
        assert_eq!(sum(&gpu, F16_SUMS, one, &[(0, two(-11), 1.5)]), one + 1);
        assert_eq!(sum(&gpu, F16_SUMS, one + 1, &[(0, two(-11), 1.0)]), one + 2);
    }
}

/// `wmma` takes the steps of `mma`: a product of 16 x 16 matrices of which row 0, column 0 count.
#[test]
fn wmma_adds_as_mma_does() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n\
        .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) {\n\
        .reg .b64 %rd<4>; .reg .b32 %a<4>, %b<4>; .reg .f32 %c<8>;\n\
        ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c];\n\
        wmma.load.a.sync.aligned.row.m16n16k16.global.bf16 {%a0,%a1,%a2,%a3}, [%rd1], 16;\n\
        wmma.load.b.sync.aligned.col.m16n16k16.global.bf16 {%b0,%b1,%b2,%b3}, [%rd2], 16;\n\
        wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7}, [%rd3], 16;\n\
        wmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32 {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7}, \
        {%a0,%a1,%a2,%a3}, {%b0,%b1,%b2,%b3}, {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7};\n\
        wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd3], {%c0,%c1,%c2,%c3,%c4,%c5,%c6,%c7}, 16;\n\
        ret;\n}\n";
    let mut a = [0u16; 256];
    let mut b = [0u16; 256];
    let mut c = [0f32; 256];
    // Row 3 and columns 0 and 12; b goes by columns.
    for (column, places) in [(0, [0, 8]), (12, [0, 7])] {
        for k in places {
            a[3 * 16 + k] = nb(1.0) as u16;
            b[column * 16 + k] = nb(f64::from(two(-24))) as u16;
        }
        c[3 * 16 + column] = 1.0;
    }
    for (word, apart) in [("a100", 0x3f80_0000), ("h100", 0x3f80_0001)] {
        let gpu = card(word);
        let module = gpu.load(text).expect("PTX");
        let kernel = module.kernel("k").expect("the kernel");
        let at = [upload(&gpu, &a), upload(&gpu, &b), upload(&gpu, &c)].map(u64::to_le_bytes);
        let params = kernel.pack(&[&at[0], &at[1], &at[2]]).expect("pointers");
        gpu.launch(&kernel, Shape::line(1, 32), params)
            .expect("a launch");
        let d = download::<f32>(&gpu, u64::from_le_bytes(at[2]), 256);
        assert_eq!(bits(d[3 * 16]), apart, "{word}");
        assert_eq!(bits(d[3 * 16 + 12]), 0x3f80_0001, "{word}");
        assert_eq!(d.iter().filter(|x| **x != 0.0).count(), 2);
    }
}
