//! Results of large shapes against each other: what the case tables, checked against f64 on the host,
//! have no room for.

use super::{Attention, Beam, Linear};
use crate::cuda::items::Sharing;
use crate::cuda::memory::Buffer;
use crate::cuda::{Arena, CublasLtLibrary, CudaBackend, device};
use crate::philox::uniform_u64;
use crate::plan::{BatchPlan, BlockId};
use crate::{Backend, Dtype, Error, MatrixView};

/// A comparison of two ways to one result.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Compared {
    /// The shape and the two ways.
    pub case: String,
    /// The largest difference, in steps of bf16.
    pub difference: f64,
    /// What it may be.
    pub bound: f64,
}

impl Compared {
    /// Whether the difference is within its bound; a NaN is not.
    pub fn right(&self) -> bool {
        self.difference <= self.bound
    }
}

/// Steps of bf16 between two roundings of nearly the same number.
const STEPS: f64 = 2.0;

/// Linear layers of `shapes` (rows up to 64, n, k): the kernel for few rows, the one for many (the
/// same rows and one more), and cuBLASLt where it is installed, against the first.
///
/// # Errors
///
/// The device failed.
pub fn linear(
    backend: &mut CudaBackend,
    shapes: &[(usize, usize, usize)],
) -> Result<Vec<Compared>, Error> {
    // The kernel for few rows takes up to 64.
    const MANY: usize = 65;
    let mut all = Vec::new();
    for &(rows, n, k) in shapes {
        assert!(rows < MANY, "{rows} rows of the kernel for few");
        let mut layer = Linear::random(backend, (MANY, n, k))?;
        let mut result = |backend: &mut CudaBackend, computed: usize| {
            let Linear { weight, x, out, .. } = &mut layer;
            backend.write(out, &vec![f32::NAN; MANY * n])?;
            backend.linear(x, weight, None, computed, false, out);
            let pending = backend.read(out, 0..rows);
            backend.finish_read(pending)
        };
        backend.set_cublaslt(None)?;
        let few = result(backend, rows)?;
        let many = result(backend, MANY)?;
        let mut compare = |what: &str, found: &[f32]| {
            all.push(Compared {
                case: format!("linear {rows}/{n}/{k}: {what}"),
                difference: difference(&few, found),
                bound: STEPS,
            });
        };
        compare("few rows against many", &many);
        // As when a card is opened, a library that does not start is left out.
        let library = CublasLtLibrary::find(backend.emulated(), device::driver_version());
        let library = library.map_err(|e| backend.card.failure("cuBLASLt", &e))?;
        if library.is_some() && backend.set_cublaslt(library).is_ok() {
            backend.set_cublaslt_min_rows(1);
            let found = result(backend, rows)?;
            // Where it has no kernel, ours has computed the layer again.
            if backend.cublaslt_products() > Some(0) {
                compare("few rows against cuBLASLt", &found);
            }
        }
        backend.set_cublaslt(None)?;
    }
    Ok(all)
}

/// Attention over blocks at the beginning of an arena of `bytes`, and over copies of them at its end:
/// the results must have equal bits.
///
/// # Errors
///
/// The device failed.
pub fn far_blocks(
    backend: &mut CudaBackend,
    bytes: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
) -> Result<Compared, Error> {
    backend.set_sharing(Sharing::Tree);
    let beam = Beam {
        beams: 4,
        width: 2,
        prompt: 100,
        steps: 2,
        step_tokens: 20,
        seed: 0,
    };
    let mut near = Attention::in_arena(backend, &beam, (heads, kv_heads, head_dim), bytes)?;
    let (plan, blocks) = beam.plan();
    assert!(
        bytes >= 2 * blocks * near.layout.unit_bytes,
        "an arena of {bytes} bytes"
    );
    let first = (bytes / near.layout.unit_bytes - blocks) as u32;
    let pairs: Vec<_> = (0..blocks as u32)
        .map(|block| (BlockId(block), BlockId(first + block)))
        .collect();
    backend.copy_blocks(&near.layout, &pairs, &mut near.arena);
    let expected = near.result(backend)?;
    near.uploaded = backend.upload(&moved(&plan, first))?;
    let found = near.result(backend)?;
    let equal = (expected.iter().zip(&found)).all(|(a, b)| a.to_bits() == b.to_bits());
    let unequal = difference(&expected, &found).max(f64::MIN_POSITIVE);
    Ok(Compared {
        case: format!("attention over blocks at 0 and at {} GiB", bytes >> 30),
        difference: if equal { 0.0 } else { unequal },
        bound: 0.0,
    })
}

/// The plan with every block `by` further on.
fn moved(plan: &BatchPlan, by: u32) -> BatchPlan {
    let mut plan = plan.clone();
    for block in &mut plan.blocks {
        block.0 += by;
    }
    for row in &mut plan.rows {
        // Nothing is written.
        row.slot = None;
    }
    plan
}

/// The largest difference of two numbers in steps of bf16, 1/128 of the larger; where sums cancel, a
/// thousandth of the root of the mean square counts too. NaN where a number is.
fn difference(expected: &[f32], found: &[f32]) -> f64 {
    let squares: f64 = expected.iter().map(|&v| f64::from(v).powi(2)).sum();
    let scale = (squares / expected.len() as f64).sqrt();
    let steps = |(&a, &b): (&f32, &f32)| {
        let (a, b) = (f64::from(a), f64::from(b));
        (a - b).abs() / (a.abs().max(b.abs()) / 128.0 + scale / 1000.0)
    };
    let all = expected.iter().zip(found).map(steps);
    // `max` would pass over a NaN.
    all.fold(0.0, |largest, d| {
        if d.is_nan() || d > largest {
            d
        } else {
            largest
        }
    })
}

/// Numbers in [-1, 1).
fn numbers(seed: u64, count: usize) -> impl Iterator<Item = f32> {
    (0..count).map(move |i| (uniform_u64(seed, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0)
}

impl Linear {
    /// A layer of numbers at random; its output has `n` columns.
    fn random(
        backend: &mut CudaBackend,
        (rows, n, k): (usize, usize, usize),
    ) -> Result<Linear, Error> {
        let bytes: Vec<u8> = numbers(1, n * k)
            .flat_map(|v| half::bf16::from_f32(v).to_le_bytes())
            .collect();
        let weight = backend.load_matrix(&[MatrixView {
            rows: n,
            cols: k,
            dtype: Dtype::Bf16,
            bytes: &bytes,
        }])?;
        let mut x = backend.half_activations(rows, k)?;
        let values: Vec<f32> = numbers(2, rows * k).collect();
        backend.write(&mut x, &values)?;
        Ok(Linear {
            weight,
            x,
            out: backend.half_activations(rows, n)?,
            rows,
        })
    }
}

impl Attention {
    /// One layer over numbers at random, in an arena of `bytes` whose other blocks hold nothing.
    fn in_arena(
        backend: &mut CudaBackend,
        beam: &Beam,
        heads: (usize, usize, usize),
        bytes: usize,
    ) -> Result<Attention, Error> {
        let mut attention = Attention::new(backend, beam, heads, 1)?;
        let kv: Vec<half::bf16> = numbers(3, attention.arena.buffer.bytes() / 2)
            .map(half::bf16::from_f32)
            .collect();
        attention.arena = Arena {
            buffer: Buffer::new(&backend.card, bytes, "the KV arena")?,
        };
        attention.arena.buffer.write(0, &kv)?;
        let rows = attention.plan.rows.len();
        let q: Vec<f32> = numbers(4, rows * attention.layout.qkv_cols()).collect();
        backend.write(&mut attention.qkv, &q)?;
        Ok(attention)
    }

    fn result(&mut self, backend: &mut CudaBackend) -> Result<Vec<f32>, Error> {
        self.clear(backend)?;
        self.run(backend, 0);
        let pending = backend.read(&self.out, 0..self.plan.rows.len());
        backend.finish_read(pending)
    }
}
