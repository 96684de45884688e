//! Attention over the tree plan: its cases and its check.

use super::inputs::{as_stored, numbers, stored, widen};
use super::trees::{Tree, trees};
use super::{Device, U, fail, rounding, within};
use crate::plan::{BatchPlan, BlockId, SequenceRows};
use crate::reference;
use crate::{Dtype, KvDtype, KvLayout, RopeTable};

/// Heads, KV heads and head dimension: groups of 1 to 16, dimensions in and out of panels.
pub const HEADS: [(usize, usize, usize); 10] = [
    (1, 1, 8),
    (4, 2, 32),
    (3, 1, 16),
    (5, 5, 6),
    (8, 1, 64),
    (6, 3, 24),
    (7, 1, 128),
    (16, 1, 96),
    (4, 2, 256),
    (10, 2, 80),
];

/// Attention over a tree.
#[derive(Clone, Debug)]
pub struct AttentionCase {
    /// The sequences of the batch.
    pub tree: Tree,
    /// `(heads, kv_heads, head_dim)`.
    pub heads: (usize, usize, usize),
    /// Tokens per block.
    pub block_tokens: usize,
    /// Type of K and V.
    pub dtype: KvDtype,
    /// Sliding window: the maximum number of tokens a row sees.
    pub window: Option<u32>,
    /// Scores are divided by its root.
    pub query_scalar: usize,
}

/// All storage types of K and V.
pub const KV_DTYPES: [KvDtype; 4] = [
    KvDtype::Float(Dtype::F32),
    KvDtype::Float(Dtype::Bf16),
    KvDtype::Int8,
    KvDtype::Float(Dtype::F16),
];

/// All cases of attention to test: every tree with every shape of heads, with block sizes and types
/// in turn, every third with a sliding window.
pub fn attention_cases() -> Vec<AttentionCase> {
    let mut cases = Vec::new();
    for tree in trees() {
        for heads in HEADS {
            let turn = cases.len();
            cases.push(AttentionCase {
                tree: tree.clone(),
                heads,
                block_tokens: [16, 1, 32, 4, 2][turn % 5],
                dtype: KV_DTYPES[turn / 5 % 4],
                window: [None, None, Some([1, 7, 16, 33, 64][turn / 3 % 5])][turn % 3],
                // Every fourth as Gemma 3 27B has it: 168 at a head dimension of 128.
                query_scalar: heads.2 + [0, 0, 0, heads.2 * 5 / 16][turn % 4],
            });
        }
    }
    cases
}

impl AttentionCase {
    /// The layout: two layers, so that a wrong stride is detected.
    pub fn layout(&self) -> KvLayout {
        let (heads, kv_heads, head_dim) = self.heads;
        let mut layout = KvLayout {
            layers: 2,
            heads,
            kv_heads,
            head_dim,
            query_scalar: self.query_scalar,
            block_tokens: self.block_tokens,
            dtype: self.dtype,
            unit_bytes: 64,
        };
        layout.unit_bytes = layout.block_bytes().next_multiple_of(64);
        layout
    }

    /// The nodes from the root to `node`.
    fn path(&self, node: usize) -> Vec<usize> {
        let mut path = vec![node];
        while let Some(parent) = self.tree.nodes[path[path.len() - 1]].parent {
            path.push(parent);
        }
        path.reverse();
        path
    }

    /// Tokens before `node`'s own.
    fn before(&self, node: usize) -> usize {
        let mut path = self.path(node);
        path.pop();
        path.iter().map(|&n| self.tree.nodes[n].tokens).sum()
    }

    /// The block tables of all nodes, and the number of blocks. Ids are scattered; 0 is unused.
    #[allow(clippy::type_complexity)] // a list of block tables
    fn tables(&self) -> (Vec<Vec<(BlockId, u32)>>, usize) {
        let total: usize = self
            .tree
            .nodes
            .iter()
            .map(|n| n.tokens.div_ceil(self.block_tokens))
            .sum();
        // Multiplying by 5 modulo a number that 5 does not divide is a permutation.
        let modulus = (total + 1).next_multiple_of(5) + 1;
        let mut next = 0;
        let mut tables: Vec<Vec<(BlockId, u32)>> = Vec::new();
        for node in &self.tree.nodes {
            let mut table = node.parent.map_or(Vec::new(), |p| tables[p].clone());
            for first in (0..node.tokens).step_by(self.block_tokens) {
                next += 1;
                let id = BlockId((next * 5 % modulus) as u32);
                table.push((id, self.block_tokens.min(node.tokens - first) as u32));
            }
            tables.push(table);
        }
        (tables, modulus)
    }
}

/// The fused row of token `index` of `node`. Q is three times as large as K, so that some tokens
/// dominate.
fn qkv_row(layout: &KvLayout, node: usize, index: usize) -> Vec<f32> {
    let seed = 1000 + (node * 1_000 + index) as u64 * 2 + LAYER as u64;
    let mut row = numbers(seed, layout.qkv_cols());
    for q in &mut row[..layout.heads * layout.head_dim] {
        *q *= 3.0;
    }
    row
}

/// The output rows of a node, `[rows][heads * head_dim]`, by (node, row).
pub type NodeRows = Vec<((usize, usize), Vec<f32>)>;

/// Runs rope, append and attention of one layer over the nodes of `batch`, after an earlier batch
/// has written all tokens of all nodes; checks every output row.
pub fn check_attention<D: Device>(
    device: &mut D,
    case: &AttentionCase,
    batch: &[usize],
) -> Result<NodeRows, String> {
    let mut setup = Setup::new(device, case)?;
    let nodes = &case.tree.nodes;
    let all: Vec<usize> = (0..nodes.len()).collect();
    setup.append(device, &all, |n| nodes[n].tokens, |_| true)?;
    // Of every other node, K and V are in the cache already and not written again.
    let batch = setup.append(device, batch, |n| nodes[n].rows, |n| n % 2 == 0)?;
    let outputs = setup.attend(device, &batch)?;

    let half = device.half_dtype();
    // Scores: D terms, then e^s of |s| up to about 16, which turns an absolute error into a
    // relative one; a sum of as many terms as there are tokens; the polynomial and the division.
    let (d, longest) = (setup.layout.head_dim as f64, setup.longest as f64);
    let bound = U * (16.0 * (2.0 + (d / 6.0).sqrt()) + 4.0 * (longest / 6.0).sqrt() + 8.0);
    // K is rounded after the rotation in f32. If that falls on the other side of a tie than in f64,
    // one bf16 differs by 2^-8 of itself.
    let bound = match setup.layout.dtype {
        KvDtype::Float(Dtype::F32) => bound,
        KvDtype::Float(Dtype::Bf16 | Dtype::F16) => bound + 2e-3 / d.sqrt(),
        // As much, of the largest element.
        KvDtype::Int8 => bound + 1e-2 / d.sqrt(),
    };
    // A half-precision device rounds the weights of V and the output: each at random, by about 0.4
    // of the unit roundoff.
    let bound = bound + rounding(half);
    for ((n, i), out) in &outputs {
        let expected = expected_row(case, &setup.layout, &setup.frequencies, half, *n, *i);
        within(out, &expected, bound).map_err(|why| format!("node {n} row {i}: {why}"))?;
    }
    Ok(outputs)
}

/// The layer that is tested; the other one holds NaN.
const LAYER: usize = 1;

/// A case on a device.
struct Setup<'a, D: Device> {
    case: &'a AttentionCase,
    layout: KvLayout,
    tables: Vec<Vec<(BlockId, u32)>>,
    arena: D::Arena,
    /// Frequencies of the rotary embedding, `[head_dim / 2]`.
    frequencies: Vec<f64>,
    rope: D::Rope,
    /// One more than the tokens of the longest sequence.
    longest: usize,
}

/// A batch whose K and V are in the cache.
struct Appended<D: Device> {
    plan: D::Plan,
    qkv: D::Activations,
    rows: usize,
    /// `((node, row of the node), row of the batch)`.
    node_rows: Vec<((usize, usize), usize)>,
}

impl<'a, D: Device> Setup<'a, D> {
    fn new(device: &mut D, case: &'a AttentionCase) -> Result<Setup<'a, D>, String> {
        let layout = case.layout();
        let (tables, blocks) = case.tables();
        let mut arena = device.arena(blocks * layout.unit_bytes).map_err(fail)?;
        device.poison(&mut arena);
        let ends = (0..case.tree.nodes.len()).map(|n| case.before(n) + case.tree.nodes[n].tokens);
        let longest = 1 + ends.max().unwrap_or(0);
        let half_dim = layout.head_dim / 2;
        let frequencies: Vec<f64> = (0..half_dim)
            .map(|i| f64::powf(10_000.0, -(i as f64) / half_dim as f64))
            .collect();
        let angles = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..longest)
                .flat_map(|p| frequencies.iter().map(move |w| f(p as f64 * w) as f32))
                .collect()
        };
        let table = RopeTable {
            half_dim,
            cos: angles(f64::cos),
            sin: angles(f64::sin),
        };
        let rope = device.load_rope(table).map_err(fail)?;
        Ok(Setup {
            case,
            layout,
            tables,
            arena,
            frequencies,
            rope,
            longest,
        })
    }

    /// Rotates and appends the last `rows_of(n)` tokens of every node `n` of `nodes`, whose K and V
    /// are written if `write(n)`.
    fn append(
        &mut self,
        device: &mut D,
        nodes: &[usize],
        rows_of: impl Fn(usize) -> usize,
        write: impl Fn(usize) -> bool,
    ) -> Result<Appended<D>, String> {
        let layout = &self.layout;
        let tokens: Vec<Vec<u32>> = nodes.iter().map(|&n| vec![0; rows_of(n)]).collect();
        let sequences: Vec<SequenceRows<'_>> = nodes
            .iter()
            .zip(&tokens)
            .map(|(&n, tokens)| SequenceRows {
                table: &self.tables[n],
                token_ids: tokens,
                write: write(n),
                outputs: &[],
            })
            .collect();
        let (plan, first_rows) = BatchPlan::build(&sequences, layout.block_tokens);
        let (rows, cols) = (plan.rows.len(), layout.qkv_cols());
        let mut values = vec![f32::NAN; (rows + 1) * cols];
        let mut node_rows = Vec::new();
        for ((&n, tokens), &first_row) in nodes.iter().zip(&tokens).zip(&first_rows) {
            for i in 0..tokens.len() {
                let index = self.case.tree.nodes[n].tokens - tokens.len() + i;
                let row = qkv_row(layout, n, index);
                values[(first_row + i) * cols..][..cols].copy_from_slice(&row);
                node_rows.push(((n, i), first_row + i));
            }
        }
        let mut qkv = device.half_activations(rows + 1, cols).map_err(fail)?;
        device.write(&mut qkv, &values);
        let plan = device.upload(&plan).map_err(fail)?;
        let arena = &mut self.arena;
        device.rope_and_append(&mut qkv, &self.rope, &plan, layout, LAYER, arena);
        Ok(Appended {
            plan,
            qkv,
            rows,
            node_rows,
        })
    }

    /// The attention of a batch, by (node, row).
    fn attend(&self, device: &mut D, batch: &Appended<D>) -> Result<NodeRows, String> {
        let (layout, rows) = (&self.layout, batch.rows);
        let width = layout.heads * layout.head_dim;
        let mut out = device.half_activations(rows + 1, width).map_err(fail)?;
        device.write(&mut out, &vec![f32::NAN; rows * width]);
        device.tree_attention(
            &batch.qkv,
            &batch.plan,
            layout,
            LAYER,
            self.case.window,
            &self.arena,
            &mut out,
        );
        let pending = device.read(&out, 0..rows);
        let out = device.finish_read(pending).map_err(fail)?;
        let row = |row: usize| out[row * width..][..width].to_vec();
        let rows = batch.node_rows.iter();
        Ok(rows.map(|&(node_row, r)| (node_row, row(r))).collect())
    }
}

/// The vector of one token and head, after rounding to the cache's type.
fn as_kv(values: &[f64], dtype: KvDtype) -> Vec<f64> {
    let floats: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    match dtype {
        KvDtype::Float(dtype) => widen(&as_stored(&floats, dtype)),
        KvDtype::Int8 => {
            let scale = floats.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0;
            let number = |&v: &f32| {
                if scale == 0.0 {
                    0.0
                } else {
                    f64::from((v / scale).round_ties_even()) * f64::from(scale)
                }
            };
            floats.iter().map(number).collect()
        }
    }
}

/// The reference output of row `i` of a node.
fn expected_row(
    case: &AttentionCase,
    layout: &KvLayout,
    frequencies: &[f64],
    half: Dtype,
    node: usize,
    i: usize,
) -> Vec<f64> {
    let d = layout.head_dim;
    let own = case.tree.nodes[node].tokens - case.tree.nodes[node].rows + i;
    let tokens: Vec<(usize, usize)> = case
        .path(node)
        .into_iter()
        .flat_map(|n| {
            let count = if n == node {
                own + 1
            } else {
                case.tree.nodes[n].tokens
            };
            (0..count).map(move |index| (n, index))
        })
        .collect();
    let first = tokens
        .len()
        .saturating_sub(case.window.unwrap_or(u32::MAX) as usize);
    let rows: Vec<Vec<f32>> = tokens
        .iter()
        .map(|&(n, index)| as_stored(&qkv_row(layout, n, index), half))
        .collect();
    let rotated = |position: usize, head: usize| -> Vec<f64> {
        let mut values = widen(&rows[position][head * d..][..d]);
        reference::rope(&mut values, frequencies, position as f64);
        values
    };
    let store = |values: Vec<f64>| as_kv(&values, layout.dtype);
    let group = layout.heads / layout.kv_heads;
    (0..layout.heads)
        .flat_map(|head| {
            let kv_head = layout.heads + head / group;
            let keys: Vec<Vec<f64>> = (first..rows.len())
                .map(|p| store(rotated(p, kv_head)))
                .collect();
            let values: Vec<Vec<f64>> = rows[first..]
                .iter()
                .map(|row| {
                    let v = &row[(kv_head + layout.kv_heads) * d..][..d];
                    store(widen(v))
                })
                .collect();
            let q: Vec<f64> = rotated(rows.len() - 1, head)
                .into_iter()
                .map(|v| f64::from(stored(v as f32, half)))
                .collect();
            reference::attention(&q, &keys, &values, layout.query_scalar as f64)
        })
        .collect()
}
