//! The CPU backend's memory: activations, packed weights, the KV arena.

use super::quantized;
use super::tile::{COLS, Isa, padded_inputs, pair_offset};
use super::workers::Workers;
use crate::quant::{GROUP, Quantization, QuantizedMatrix};
use crate::{Dtype, Error, MatrixView};
use half::{bf16, f16};
use memmap2::MmapMut;

/// Buffers of at least this size request huge pages: a model's weights span more 4 KiB pages than
/// the TLB covers.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed, page-aligned memory. The operating system commits it on first touch.
#[derive(Debug)]
pub(crate) struct Bytes {
    map: MmapMut,
    len: usize,
}

impl Bytes {
    pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<Bytes, Error> {
        // A mapping cannot be empty.
        let map = MmapMut::map_anon(len.max(1)).map_err(|_| Error::OutOfMemory {
            device: "CPU".into(),
            bytes: len,
            what,
        })?;
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // A kernel without huge pages refuses, and the buffer works without them.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Bytes { map, len })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.map[..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}

/// Activations: row-major `[rows, cols]` f32, page-aligned.
#[derive(Debug)]
pub struct Activations {
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

impl Activations {
    pub(crate) fn zeroed(rows: usize, cols: usize) -> Result<Activations, Error> {
        let bytes = Bytes::zeroed(rows * cols * size_of::<f32>(), "activations")?;
        Ok(Activations { rows, cols, bytes })
    }

    /// Rows it can hold.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All elements, row-major.
    pub fn data(&self) -> &[f32] {
        bytemuck::cast_slice(self.bytes.as_slice())
    }

    /// All elements, row-major.
    pub fn data_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes.as_mut_slice())
    }

    /// One row, `[cols]`.
    ///
    /// # Panics
    ///
    /// If `row` is not below [`Activations::rows`].
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data()[row * self.cols..][..self.cols]
    }

    /// The first `rows` rows.
    pub(crate) fn first_rows_mut(&mut self, rows: usize) -> &mut [f32] {
        let len = rows * self.cols;
        &mut self.data_mut()[..len]
    }
}

/// The memory that holds all KV blocks.
#[derive(Debug)]
pub struct Arena {
    bytes: Bytes,
}

impl Arena {
    pub(crate) fn zeroed(bytes: usize) -> Result<Arena, Error> {
        let bytes = Bytes::zeroed(bytes, "the KV cache")?;
        Ok(Arena { bytes })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// All its bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut_slice()
    }
}

/// The storage type of a [`Weight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In floating point.
    Float(Dtype),
    /// As integers with scales.
    Quantized(Quantization),
}

impl Stored {
    /// Bytes of a panel of 16 output features and `cols` inputs.
    fn panel_bytes(self, cols: usize) -> usize {
        match self {
            Stored::Float(Dtype::Bf16) => padded_inputs(cols) * COLS * Dtype::Bf16.bytes(),
            Stored::Float(dtype) => cols * COLS * dtype.bytes(),
            Stored::Quantized(kind) => cols / GROUP * quantized::group_bytes(kind),
        }
    }
}

/// A weight matrix `[rows, cols]` (output features, input features), packed.
///
/// Layout: `[panel][cols][16]`. A *panel* is 16 consecutive output features; the last one is padded
/// with zeros. bf16 is `[panel][cols / 2][16][2]`, padded to `tile::padded_inputs`. `quantized`
/// describes quantised panels.
#[derive(Debug)]
pub struct Weight {
    rows: usize,
    cols: usize,
    stored: Stored,
    bytes: Bytes,
}

impl Weight {
    pub(crate) fn pack(parts: &[MatrixView<'_>], workers: &Workers) -> Result<Weight, Error> {
        let cols = parts.first().map_or(0, |part| part.cols);
        for part in parts {
            assert_eq!(part.cols, cols, "stacked matrices of different widths");
            assert_eq!(
                part.bytes.len(),
                part.rows * part.cols * part.dtype.bytes(),
                "bytes of a {} x {} matrix of {}",
                part.rows,
                part.cols,
                part.dtype.name()
            );
        }
        // Halves widen exactly, so stacked parts of several types become f32.
        let first = parts.first().map_or(Dtype::F32, |part| part.dtype);
        let dtype = if parts.iter().all(|part| part.dtype == first) {
            first
        } else {
            Dtype::F32
        };
        let rows: usize = parts.iter().map(|part| part.rows).sum();
        // For every packed row, its row in the file.
        let sources: Vec<(Dtype, &[u8])> = parts
            .iter()
            .flat_map(|part| {
                let width = part.cols * part.dtype.bytes();
                (0..part.rows).map(move |r| (part.dtype, &part.bytes[r * width..][..width]))
            })
            .collect();

        Weight::packed(
            rows,
            cols,
            Stored::Float(dtype),
            workers,
            |row, column, panel| {
                pack_column(sources[row], dtype, column, panel);
            },
        )
    }

    /// Packs quantised matrices stacked along the rows, in the layout of `isa`.
    ///
    /// # Panics
    ///
    /// If they differ in width or kind, or `parts` is empty.
    pub(crate) fn pack_quantized(
        parts: &[QuantizedMatrix<'_>],
        workers: &Workers,
        isa: Isa,
    ) -> Result<Weight, Error> {
        let (cols, kind) = (parts[0].cols, parts[0].kind);
        assert!(
            parts.iter().all(|p| (p.cols, p.kind) == (cols, kind)),
            "stacked matrices of different widths or kinds"
        );
        let rows = parts.iter().map(|part| part.rows).sum();
        let stored = Stored::Quantized(kind);
        Weight::packed(rows, cols, stored, workers, |mut row, column, panel| {
            let mut parts = parts.iter();
            let part = parts.find(|part| {
                let found = row < part.rows;
                if !found {
                    row -= part.rows;
                }
                found
            });
            quantized::pack_column(isa, part.expect("a part's row"), row, column, panel);
        })
    }

    /// Packs all rows, each by `pack(row, column, panel)`.
    fn packed(
        rows: usize,
        cols: usize,
        stored: Stored,
        workers: &Workers,
        pack: impl Fn(usize, usize, &mut [u8]) + Sync,
    ) -> Result<Weight, Error> {
        let panel_bytes = stored.panel_bytes(cols);
        let mut bytes = Bytes::zeroed(rows.div_ceil(COLS) * panel_bytes, "weights")?;
        if panel_bytes > 0 {
            workers.rows(
                bytes.as_mut_slice(),
                panel_bytes,
                rows * cols,
                |panel, packed| {
                    let first = panel * COLS;
                    for row in first..rows.min(first + COLS) {
                        pack(row, row - first, packed);
                    }
                },
            );
        }
        Ok(Weight {
            rows,
            cols,
            stored,
            bytes,
        })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Its storage type.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Its size in bytes, padding included.
    pub fn bytes(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// Panels of 16 output features.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(COLS)
    }

    /// The bytes of one panel.
    pub(crate) fn panel(&self, panel: usize) -> &[u8] {
        let width = self.stored.panel_bytes(self.cols);
        &self.bytes.as_slice()[panel * width..][..width]
    }
}

/// Writes one output feature's weights into its column of a panel.
fn pack_column(source: (Dtype, &[u8]), dtype: Dtype, column: usize, panel: &mut [u8]) {
    let (from, bytes) = source;
    match (from, dtype) {
        (Dtype::Bf16, Dtype::Bf16) => {
            let panel: &mut [u16] = bytemuck::cast_slice_mut(panel);
            for (k, value) in bytes.chunks_exact(2).enumerate() {
                panel[pair_offset(k, column)] = u16::from_le_bytes([value[0], value[1]]);
            }
        }
        (Dtype::F32, _) => {
            let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
            for (k, value) in bytes.chunks_exact(4).enumerate() {
                panel[k * COLS + column] =
                    f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
            }
        }
        (Dtype::Bf16, Dtype::F32) => {
            let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
            for (k, value) in bytes.chunks_exact(2).enumerate() {
                panel[k * COLS + column] = bf16::from_le_bytes([value[0], value[1]]).to_f32();
            }
        }
        (Dtype::F16, Dtype::F32) => {
            let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
            for (k, value) in bytes.chunks_exact(2).enumerate() {
                panel[k * COLS + column] = f16::from_le_bytes([value[0], value[1]]).to_f32();
            }
        }
        (Dtype::F16, _) => {
            let panel: &mut [u16] = bytemuck::cast_slice_mut(panel);
            for (k, value) in bytes.chunks_exact(2).enumerate() {
                panel[k * COLS + column] = u16::from_le_bytes([value[0], value[1]]);
            }
        }
        (Dtype::Bf16, Dtype::F16) => unreachable!("mixed parts become f32"),
    }
}
