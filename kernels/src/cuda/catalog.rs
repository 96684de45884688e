//! The table of all CUDA modules: their sources, their kernels with the caps that the compile gate
//! checks, and the constants they share with Rust.
//!
//! A constant that both sides need stands in Rust only, beside the launcher that uses it, and
//! reaches the source by the compiler's `-D`. To add a kernel: write it in its `.cu`, add its row
//! here, launch it.

mod architecture;

pub use self::architecture::{ARCHITECTURES, Architecture, HEAD_DIMS, architecture_name};

use super::items::{FEW_ROWS, MANY_ROWS, TILE, WorkItem, address_unit, max_rows};
use super::study::card;
use super::tiling::Tiling;
use super::{attention, linear, rows, sample};
use crate::Activation;
use std::hash::{Hash, Hasher};

/// The header that all sources include: its name and its text.
pub const COMMON: (&str, &str) = ("common.cuh", include_str!("../../cuda/common.cuh"));

/// A source with its constants and kernels: a row of the table.
#[derive(Debug)]
struct Source {
    /// Its name below `kernels/cuda`.
    file: &'static str,
    text: &'static str,
    /// The constants it shares with Rust, for `-D`.
    constants: fn() -> Vec<(&'static str, String)>,
    kernels: fn() -> Vec<Kernel>,
}

/// A unit of compilation: a source, specialised by a tiling or an activation where it has one.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    source: &'static Source,
    tiling: Option<Tiling>,
    activation: Option<Activation>,
}

/// A kernel, and what must hold of it once it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The function's name.
    pub name: &'static str,
    /// Threads per block.
    pub threads: usize,
    /// Dynamic shared memory per block in bytes; `None` in the table: the module's tiling decides.
    pub shared: Option<usize>,
    /// Registers a thread may have at most.
    pub registers: usize,
    /// Blocks that must fit on a multiprocessor.
    pub resident: usize,
    /// Whether it must have tensor-core instructions; a kernel without this must have none.
    pub tensor: bool,
}

static ROWS: Source = Source {
    file: "rows.cu",
    text: include_str!("../../cuda/rows.cu"),
    constants: || {
        constants(&[
            ("THREADS", rows::THREADS),
            ("COPY_BLOCK_BYTES", rows::COPY_BLOCK_BYTES),
        ])
    },
    kernels: || ROW_KERNELS.map(row_kernel).to_vec(),
};

static LINEAR: Source = Source {
    file: "linear.cu",
    text: include_str!("../../cuda/linear.cu"),
    constants: linear_constants,
    kernels: || linear_tiles().flat_map(|t| [t.f32, t.bf16]).collect(),
};

/// The gated kernels of `linear.cu`, which is compiled again for each activation.
static LINEAR_GATED: Source = Source {
    kernels: || linear_tiles().map(|t| t.gated).collect(),
    ..LINEAR
};

static SAMPLE: Source = Source {
    file: "sample.cu",
    text: include_str!("../../cuda/sample.cu"),
    constants: || {
        constants(&[
            ("THREADS", sample::THREADS),
            ("SUBSTITUTE_THREADS", sample::SUBSTITUTE_THREADS),
            ("MAX_WEIGHT", sample::MAX_WEIGHT),
            ("TOP_TOKENS", crate::sampling::TOP_TOKENS),
            ("MAX_BELOW", crate::sampling::MAX_BELOW as usize),
            ("DRAW_BYTES", size_of::<sample::DeviceDraw>()),
            ("DRAWN_BYTES", size_of::<sample::Drawn>()),
        ])
    },
    kernels: || {
        vec![
            kernel("sample", sample::THREADS, Some(0), 96, 1, false),
            kernel(
                "substitute_tokens",
                sample::SUBSTITUTE_THREADS,
                Some(0),
                32,
                16,
                false,
            ),
        ]
    },
};

/// What a card reaches: no operation of a model.
static CARD: Source = Source {
    file: "card.cu",
    text: include_str!("../../cuda/card.cu"),
    constants: || constants(&[("THREADS", card::THREADS)]),
    kernels: || {
        vec![
            kernel("read", card::THREADS, Some(0), 64, 4, false),
            kernel("empty", card::THREADS, Some(0), 32, 8, false),
            kernel("place", card::THREADS, Some(0), 32, 8, false),
        ]
    },
};

static TREE_ATTENTION: Source = Source {
    file: "tree_attention.cu",
    text: include_str!("../../cuda/tree_attention.cu"),
    constants: || {
        constants(&[
            ("THREADS", attention::THREADS),
            ("TILE", TILE),
            ("MANY_ROWS", MANY_ROWS),
            ("FEW_ROWS", FEW_ROWS),
            ("WORK_ITEM_BYTES", size_of::<WorkItem>()),
            ("PARAMS_BYTES", size_of::<attention::AttentionParams>()),
        ])
    },
    kernels: || {
        vec![
            kernel("tree_attention", attention::THREADS, None, 255, 1, true),
            kernel("merge", attention::THREADS, Some(0), 64, 8, false),
        ]
    },
};

fn linear_tiles() -> impl Iterator<Item = &'static LinearTile> {
    SKINNY.iter().chain(&TILED)
}

fn linear_constants() -> Vec<(&'static str, String)> {
    let mut all = constants(&[
        ("SKINNY_THREADS", linear::SKINNY_THREADS),
        ("SKINNY_STAGE_COLS", linear::SKINNY_STAGE_COLS),
        ("TILED_THREADS", linear::TILED_THREADS),
        ("TILED_STAGE_COLS", linear::TILED_STAGE_COLS),
        ("TILED_STAGES", linear::TILED_STAGES),
    ]);
    let instances = |tiles: &[LinearTile]| tiles.iter().map(|tile| tile.instance).collect();
    all.push(("SKINNY_TILES", instances(&SKINNY)));
    all.push(("TILED_TILES", instances(&TILED)));
    all
}

const fn kernel(
    name: &'static str,
    threads: usize,
    shared: Option<usize>,
    registers: usize,
    resident: usize,
    tensor: bool,
) -> Kernel {
    Kernel {
        name,
        threads,
        shared,
        registers,
        resident,
        tensor,
    }
}

const fn row_kernel(name: &'static str) -> Kernel {
    kernel(name, rows::THREADS, Some(0), 64, 8, false)
}

const ROW_KERNELS: [&str; 27] = [
    "embed_f32",
    "embed_bf16",
    "rms_norm_f32_f32",
    "rms_norm_f32_bf16",
    "rms_norm_bf16_f32",
    "rms_norm_bf16_bf16",
    "add_rms_norm_f32_f32",
    "add_rms_norm_bf16_f32",
    "gather_f32_f32",
    "gather_f32_bf16",
    "gather_bf16_f32",
    "gather_bf16_bf16",
    "silu_f32_f32",
    "silu_f32_bf16",
    "silu_bf16_f32",
    "silu_bf16_bf16",
    "gelu_tanh_f32_f32",
    "gelu_tanh_f32_bf16",
    "gelu_tanh_bf16_f32",
    "gelu_tanh_bf16_bf16",
    "relu_f32",
    "relu_bf16",
    "qk_norm_f32",
    "qk_norm_bf16",
    "rope_and_append_f32",
    "rope_and_append_bf16",
    "copy_blocks",
];

/// A tile of `linear.cu`: a template instance with its three kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearTile {
    /// The kernel with f32 output.
    pub f32: Kernel,
    /// The kernel with bf16 output.
    pub bf16: Kernel,
    /// The gated kernel, with bf16 output.
    pub gated: Kernel,
    /// Rows of x in a tile.
    pub rows: usize,
    /// Rows of W in a tile.
    pub cols: usize,
    /// The macro call in `linear.cu` that defines the kernels.
    instance: &'static str,
}

/// A skinny tile of 16 `mt` rows of x and 8 `nt` rows of W, `stages` stages, and its register cap:
/// more, and registers, not shared memory, would decide how many blocks share a multiprocessor.
macro_rules! skinny {
    ($mt:literal, $nt:literal, $stages:literal, $registers:literal) => {{
        let (rows, cols) = (16 * $mt, 8 * $nt);
        let shared = $stages * (rows + cols) * linear::SKINNY_STAGE_COLS * 2;
        let base = kernel(
            "",
            linear::SKINNY_THREADS,
            Some(shared),
            $registers,
            2,
            true,
        );
        linear_tile!("skinny", "SKINNY", rows, cols, base, $mt, $nt, $stages)
    }};
}

/// A tile of `bm` rows of x and `bn` rows of W.
macro_rules! tiled {
    ($bm:literal, $bn:literal) => {{
        let shared = linear::TILED_STAGES * ($bm + $bn) * linear::TILED_STAGE_COLS * 2;
        let base = kernel("", linear::TILED_THREADS, Some(shared), 128, 1, true);
        linear_tile!("tiled", "TILED", $bm, $bn, base, $bm, $bn)
    }};
}

macro_rules! linear_tile {
    ($name:literal, $macro:literal, $rows:expr, $cols:expr, $base:expr, $a:literal, $b:literal $(, $more:literal)?) => {
        LinearTile {
            f32: Kernel { name: concat!($name, "_", $a, "_", $b, "_f32"), ..$base },
            bf16: Kernel { name: concat!($name, "_", $a, "_", $b, "_bf16"), ..$base },
            gated: Kernel { name: concat!($name, "_", $a, "_", $b, "_gated"), ..$base },
            rows: $rows,
            cols: $cols,
            instance: concat!($macro, "(", $a, ",", $b $(, ",", $more)?, ")"),
        }
    };
}

/// Tiles of up to 16, 32 and 64 rows: each narrow, then wide.
pub(super) static SKINNY: [LinearTile; 6] = [
    skinny!(1, 2, 4, 80),
    skinny!(1, 4, 4, 96),
    skinny!(2, 2, 4, 112),
    skinny!(2, 4, 4, 112),
    skinny!(4, 2, 3, 144),
    skinny!(4, 4, 3, 160),
];

/// Tiles of any number of rows: small, then large.
pub(super) static TILED: [LinearTile; 2] = [tiled!(64, 64), tiled!(128, 128)];

/// The row-wise operations.
pub fn rows() -> Module {
    Module::of(&ROWS)
}

/// The linear layers that are not gated.
pub fn linear() -> Module {
    Module::of(&LINEAR)
}

/// The gated linear layers of an activation.
pub fn linear_gated(activation: Activation) -> Module {
    Module {
        activation: Some(activation),
        ..Module::of(&LINEAR_GATED)
    }
}

/// Sampling.
pub fn sample() -> Module {
    Module::of(&SAMPLE)
}

/// What a card reaches, for studies.
pub fn card() -> Module {
    Module::of(&CARD)
}

/// Tree attention of one head dimension.
pub fn tree_attention(tiling: &Tiling) -> Module {
    Module {
        tiling: Some(*tiling),
        ..Module::of(&TREE_ATTENTION)
    }
}

fn constants(values: &[(&'static str, usize)]) -> Vec<(&'static str, String)> {
    let text = |&(name, value): &(&'static str, usize)| (name, value.to_string());
    values.iter().map(text).collect()
}

/// What specialises a source to a tiling.
fn tiling_constants(tiling: &Tiling) -> [(&'static str, usize); 6] {
    [
        ("HEAD_DIM", tiling.head_dim),
        ("STAGES", tiling.stages),
        ("SHARED_BYTES", tiling.shared_bytes()),
        ("RESIDENT", tiling.resident),
        ("MAX_ROWS", max_rows(tiling.head_dim)),
        ("ADDRESS_UNIT", address_unit(tiling.head_dim)),
    ]
}

/// The activation's name in `common.cuh`.
fn activation_constant(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "SILU",
        Activation::GeluTanh => "GELU_TANH",
    }
}

impl Module {
    const fn of(source: &'static Source) -> Module {
        Module {
            source,
            tiling: None,
            activation: None,
        }
    }

    /// The source's file name below `kernels/cuda`.
    pub fn file(&self) -> &'static str {
        self.source.file
    }

    /// The source's text.
    pub fn source(&self) -> &'static str {
        self.source.text
    }

    /// The file and the constants that specialise it, for messages.
    pub fn title(&self) -> String {
        let mut title = self.file().to_owned();
        for (name, value) in self.specialisation() {
            title += &format!(" {name}={value}");
        }
        title
    }

    /// The constants that distinguish this module from others of its source.
    fn specialisation(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        if let Some(tiling) = &self.tiling {
            all.extend(constants(&tiling_constants(tiling)));
        }
        if let Some(activation) = self.activation {
            all.push(("ACTIVATION", activation_constant(activation).into()));
        }
        all
    }

    /// Compiler options for an architecture such as `sm_90a` or `compute_80`.
    pub fn options(&self, arch: &str) -> Vec<String> {
        let mut options = vec![
            format!("-arch={arch}"),
            "-std=c++17".into(),
            "-lineinfo".into(),
        ];
        let mut all = (self.source.constants)();
        all.extend(self.specialisation());
        options.extend(all.iter().map(|(name, value)| format!("-D{name}={value}")));
        options
    }

    /// The kernels of this module.
    pub fn kernels(&self) -> Vec<Kernel> {
        let mut kernels = (self.source.kernels)();
        for kernel in &mut kernels {
            kernel.shared = (kernel.shared).or(self.tiling.map(|tiling| tiling.shared_bytes()));
        }
        kernels
    }
}

// Rows are statics: a module's row is compared and hashed by its address, on every launch.
impl PartialEq for Module {
    fn eq(&self, other: &Module) -> bool {
        std::ptr::eq(self.source, other.source)
            && self.tiling == other.tiling
            && self.activation == other.activation
    }
}

impl Eq for Module {}

impl Hash for Module {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::hash(self.source, state);
        self.tiling.hash(state);
        self.activation.hash(state);
    }
}
