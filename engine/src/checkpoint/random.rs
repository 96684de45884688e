//! Random weights of a given layout, for measurements.

use kernels::{Dtype, philox};

use super::container::{Entry, StoredDtype, Tensors};
use super::layout::{ModelLayout, TensorSpec};
use super::source::Bytes;

/// The tensors of `layout` in memory; see [`super::Checkpoint::random`].
pub(super) fn tensors(layout: &ModelLayout, seed: u64) -> Tensors {
    let is_bias = |spec: &TensorSpec| spec.name.ends_with(".bias");
    let longest = |vectors: bool| {
        let of_kind = layout.tensors().filter(|s| (s.shape.len() == 1) == vectors);
        of_kind.map(TensorSpec::elements).max().unwrap_or(0)
    };
    let bf16 = |values: &mut dyn Iterator<Item = f32>| -> Bytes {
        let bytes = values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes());
        Bytes::Owned(bytes.collect())
    };
    // The sum of four uniform numbers is near enough to a normal one: deviation 1 / sqrt(3).
    let normal = |i: usize| {
        let word = philox::uniform_u64(seed, i as u64);
        let uniform = |k: u32| ((word >> (16 * k)) & 0xffff) as f32 / 65_536.0 - 0.5;
        (0..4).map(uniform).sum::<f32>() * 3f32.sqrt() * 0.02
    };
    let matrices = bf16(&mut (0..longest(false)).map(normal));
    let norms = bf16(&mut (0..longest(true)).map(|_| 1.0));
    let biases = bf16(&mut (0..longest(true)).map(|_| 0.0));
    let mut all = Tensors::default();
    let mut add = |name: &str, bytes: Bytes, of_kind: &dyn Fn(&TensorSpec) -> bool| {
        let specs = layout.tensors().filter(|spec| of_kind(spec));
        let entries = specs.map(|spec| {
            let entry = Entry {
                dtype: StoredDtype::Float(Dtype::Bf16),
                shape: spec.shape.clone(),
                range: 0..Dtype::Bf16.bytes() * spec.elements(),
            };
            (spec.name.clone(), entry)
        });
        all.add_file(name.to_string(), format!("random {name}"), bytes, entries)
            .expect("a layout names no tensor twice");
    };
    add("matrices", matrices, &|spec| spec.shape.len() == 2);
    add("norms", norms, &|spec| {
        spec.shape.len() == 1 && !is_bias(spec)
    });
    add("biases", biases, &|spec| {
        spec.shape.len() == 1 && is_bias(spec)
    });
    all
}
