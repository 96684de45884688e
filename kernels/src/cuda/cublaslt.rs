//! cuBLASLt, NVIDIA's GEMM library: found, loaded and called without its headers.
//!
//! It computes linear layers of many rows without a bias; `linear.cu` computes the others, and all
//! of them where the library is not installed. A row-major `out = x w^T` is `D = A^T B` with A = w,
//! B = x, D = out in the library's column-major terms. Sums and scales are f32; `beta` adds the old
//! output. The library's heuristic chooses a kernel once per shape.
//!
//! Names, values and structures follow NVIDIA's documentation of the cuBLASLt API.
#![allow(unsafe_code)] // A C library: each call states what it relies on.

use super::device::Card;
use super::libraries::{self, Version};
use super::{Activations, Buffer, Weight};
use crate::{Dtype, Error};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The library's file, or `off`.
pub const VARIABLE: &str = "OFFSHOOT_CUBLASLT";

const R_32F: c_int = 0;
const R_16BF: c_int = 14;
const COMPUTE_32F: c_int = 68;
const OP_T: c_int = 1;
const DESC_TRANSA: c_int = 3;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS_POINTER: c_int = 8;
/// Adds a vector as long as D has rows (in the library's column-major terms), of D's type.
const EPILOGUE_BIAS: c_int = 4;
const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
/// The alignment of A; those of B, C and D are the next three numbers.
const PREF_MIN_ALIGNMENT_BYTES: c_int = 5;

/// NVIDIA's recommendation for Hopper, in bytes; older cards need less.
const WORKSPACE: usize = 32 << 20;
/// Shapes kept at most; one more, and all are dropped.
const MAX_SHAPES: usize = 1024;

type Pointer = *mut c_void;
type Create = unsafe extern "C" fn(*mut Pointer) -> c_int;
type Destroy = unsafe extern "C" fn(Pointer) -> c_int;
type SetAttribute = unsafe extern "C" fn(Pointer, c_int, *const c_void, usize) -> c_int;
type CreateDesc = unsafe extern "C" fn(*mut Pointer, c_int, c_int) -> c_int;
type CreateLayout = unsafe extern "C" fn(*mut Pointer, c_int, u64, u64, i64) -> c_int;
type Heuristic = unsafe extern "C" fn(
    Pointer,
    Pointer,
    Pointer,
    Pointer,
    Pointer,
    Pointer,
    Pointer,
    c_int,
    *mut HeuristicResult,
    *mut c_int,
) -> c_int;
type Matmul = unsafe extern "C" fn(
    Pointer,
    Pointer,
    *const c_void,
    u64,
    Pointer,
    u64,
    Pointer,
    *const c_void,
    u64,
    Pointer,
    u64,
    Pointer,
    *const Algo,
    u64,
    usize,
    Pointer,
) -> c_int;

/// `cublasLtMatmulAlgo_t`: opaque.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Algo([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Default)]
struct HeuristicResult {
    algo: Algo,
    workspace_bytes: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// The loaded library.
pub struct Library {
    path: PathBuf,
    version: usize,
    create: Create,
    destroy: Destroy,
    create_desc: CreateDesc,
    set_desc: SetAttribute,
    destroy_desc: Destroy,
    create_layout: CreateLayout,
    destroy_layout: Destroy,
    create_preference: Create,
    set_preference: SetAttribute,
    destroy_preference: Destroy,
    heuristic: Heuristic,
    matmul: Matmul,
    /// Last, so that it outlives the functions.
    _library: libloading::Library,
}

impl Library {
    /// The library that `OFFSHOOT_CUBLASLT` names, else, unless `named` is wanted, the one that is
    /// installed beside NVRTC, in the CUDA toolkit, or where the system looks, of a version that
    /// `driver` serves; `None` if there is none or the variable says `off`.
    ///
    /// # Errors
    ///
    /// The named file is not cuBLASLt.
    pub fn find(named: bool, driver: Option<Version>) -> Result<Option<Library>, String> {
        match std::env::var_os(VARIABLE) {
            Some(word) if word == "off" => Ok(None),
            Some(path) => Library::load(Path::new(&path))
                .map(Some)
                .map_err(|why| format!("{VARIABLE}: {why}")),
            None if named => Ok(None),
            None => {
                let mut files = libraries::candidates(&["cublas", "cu13"], &NAMES, driver);
                Ok(files.find_map(|path| Library::load(&path).ok()))
            }
        }
    }

    /// Loads one file.
    ///
    /// # Errors
    ///
    /// It cannot be loaded or lacks a function.
    pub fn load(path: &Path) -> Result<Library, String> {
        let words = |e: libloading::Error| format!("{}: {e}", path.display());
        // SAFETY: loading cuBLASLt runs its initialisers, which have no preconditions.
        let library = unsafe { libloading::Library::new(path) }.map_err(words)?;
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the documented type of the function of that name; it is called only while
                // the library is loaded.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(words)?
            }};
        }
        let version: unsafe extern "C" fn() -> usize = function!("cublasLtGetVersion");
        Ok(Library {
            path: path.to_owned(),
            // SAFETY: takes nothing, reads a constant.
            version: unsafe { version() },
            create: function!("cublasLtCreate"),
            destroy: function!("cublasLtDestroy"),
            create_desc: function!("cublasLtMatmulDescCreate"),
            set_desc: function!("cublasLtMatmulDescSetAttribute"),
            destroy_desc: function!("cublasLtMatmulDescDestroy"),
            create_layout: function!("cublasLtMatrixLayoutCreate"),
            destroy_layout: function!("cublasLtMatrixLayoutDestroy"),
            create_preference: function!("cublasLtMatmulPreferenceCreate"),
            set_preference: function!("cublasLtMatmulPreferenceSetAttribute"),
            destroy_preference: function!("cublasLtMatmulPreferenceDestroy"),
            heuristic: function!("cublasLtMatmulAlgoGetHeuristic"),
            matmul: function!("cublasLtMatmul"),
            _library: library,
        })
    }

    /// The file, or the name it was found by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major, minor and patch version.
    pub fn version(&self) -> (usize, usize, usize) {
        let v = self.version;
        (v / 10_000, v / 100 % 100, v % 100)
    }
}

const NAMES: [&str; 4] = [
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "libcublasLt.so.11",
    "libcublasLt.so",
];

/// Everything that the library's choice of a kernel depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct GemmShape {
    rows: usize,
    n: usize,
    k: usize,
    x_pitch: usize,
    w_pitch: usize,
    out_pitch: usize,
    out: c_int,
    bias: bool,
    /// The smallest alignment of the three addresses, up to 256 bytes.
    alignment: u32,
}

impl GemmShape {
    fn of(x: &Activations, w: &Weight, bias: bool, rows: usize, out: &Activations) -> GemmShape {
        let places = x.buffer.at() | w.buffer.at() | out.buffer.at();
        GemmShape {
            rows,
            n: w.rows,
            k: w.cols,
            x_pitch: x.pitch,
            w_pitch: w.pitch,
            out_pitch: out.pitch,
            out: match out.dtype {
                Dtype::F32 => R_32F,
                _ => R_16BF,
            },
            bias,
            alignment: 1 << places.trailing_zeros().min(8),
        }
    }
}

/// The descriptors of a GEMM, and the algorithm the library chose for it.
struct Gemm {
    desc: Pointer,
    w: Pointer,
    x: Pointer,
    out: Pointer,
    algo: Algo,
}

/// The library in use on one card.
pub(super) struct CublasLt {
    library: Library,
    handle: Pointer,
    workspace: Buffer,
    /// `None`: the library has nothing for this shape.
    gemms: HashMap<GemmShape, Option<Gemm>>,
    calls: u64,
    min_rows: usize,
}

/// The rows from which the library computes linear layers. The kernels of `linear.cu` read the
/// activations once per tile of 16 to 32 rows of weights. Counted: they request 2.06 times the
/// weights' bytes at 17 rows, 3.0 times at 32, 5.0 times at 64 (`offshoot kernels profile linear
/// --shape 17/2048/1024 --card h200`). Where the library wins on a card is not measured.
pub(super) const MIN_ROWS: usize = 17;

impl CublasLt {
    pub(super) fn open(card: &Rc<Card>, library: Library) -> Result<CublasLt, Error> {
        card.bind()?;
        let workspace = Buffer::new(card, WORKSPACE, "cuBLASLt's workspace")?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; a place for the handle.
        let code = unsafe { (library.create)(&mut handle) };
        check(code).map_err(|why| {
            let what = format!("cublasLtCreate of {}", library.path.display());
            card.failure(&what, &why)
        })?;
        Ok(CublasLt {
            library,
            handle,
            workspace,
            gemms: HashMap::new(),
            calls: 0,
            min_rows: MIN_ROWS,
        })
    }

    /// The rows from which it computes linear layers.
    pub(super) fn min_rows(&self) -> usize {
        self.min_rows
    }

    pub(super) fn set_min_rows(&mut self, rows: usize) {
        self.min_rows = rows;
    }

    /// GEMMs computed so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Shapes that the library has chosen a kernel for.
    pub(super) fn shapes(&self) -> usize {
        self.gemms.len()
    }

    /// `out = x w^T (+ bias) (+ out)`, of sizes the caller has checked; `bias`: the address of a
    /// vector of the output's type. False if the library has no kernel for the shape.
    #[allow(clippy::too_many_arguments)] // The operation's own.
    pub(super) fn linear(
        &mut self,
        card: &Card,
        x: &Activations,
        w: &Weight,
        bias: Option<u64>,
        rows: usize,
        accumulate: bool,
        out: &mut Activations,
    ) -> Result<bool, Error> {
        let shape = GemmShape::of(x, w, bias.is_some(), rows, out);
        let failed = |why: String| {
            let what = format!("cuBLASLt ({rows} x {} x {})", shape.n, shape.k);
            card.failure(&what, &why)
        };
        card.bind()?;
        if !self.gemms.contains_key(&shape) {
            if self.gemms.len() >= MAX_SHAPES {
                self.drop_all();
            }
            let made = self.describe(&shape).map_err(failed)?;
            self.gemms.insert(shape, made);
        }
        let Some(gemm) = &self.gemms[&shape] else {
            return Ok(false);
        };
        if let Some(bias) = bias {
            let at = std::ptr::from_ref(&bias).cast();
            // SAFETY: a handle made by this library; an address of 8 bytes, read during the call.
            let code = unsafe { (self.library.set_desc)(gemm.desc, DESC_BIAS_POINTER, at, 8) };
            check(code).map_err(failed)?;
        }
        let alpha = 1.0f32;
        let beta = f32::from(u8::from(accumulate));
        // SAFETY: handles made by this library; the matrices have at least the sizes the layouts
        // say, as the caller has checked; the scalars are read before the call returns; only this
        // stream uses the workspace.
        let code = unsafe {
            (self.library.matmul)(
                self.handle,
                gemm.desc,
                std::ptr::from_ref(&alpha).cast(),
                w.buffer.at(),
                gemm.w,
                x.buffer.at(),
                gemm.x,
                std::ptr::from_ref(&beta).cast(),
                out.buffer.at(),
                gemm.out,
                out.buffer.at(),
                gemm.out,
                &gemm.algo,
                self.workspace.at(),
                self.workspace.bytes(),
                card.stream().cast(),
            )
        };
        check(code).map_err(failed)?;
        self.calls += 1;
        Ok(true)
    }

    /// The GEMM of a shape; `None` if the library has no kernel for it.
    fn describe(&self, shape: &GemmShape) -> Result<Option<Gemm>, String> {
        let l = &self.library;
        let mut gemm = Gemm {
            desc: std::ptr::null_mut(),
            w: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
            algo: Algo::default(),
        };
        let mut preference = std::ptr::null_mut();
        let found = self.fill(shape, &mut gemm, &mut preference);
        if !preference.is_null() {
            // SAFETY: made by this library, not used again.
            unsafe { (l.destroy_preference)(preference) };
        }
        if !matches!(found, Ok(true)) {
            self.destroy(&gemm);
        }
        found.map(|found| found.then_some(gemm))
    }

    fn fill(
        &self,
        shape: &GemmShape,
        gemm: &mut Gemm,
        preference: &mut Pointer,
    ) -> Result<bool, String> {
        let l = &self.library;
        let (rows, n, k) = (shape.rows as u64, shape.n as u64, shape.k as u64);
        // SAFETY: places for handles; attributes of the documented sizes, read during the calls.
        unsafe {
            check((l.create_desc)(&mut gemm.desc, COMPUTE_32F, R_32F))?;
            let transposed = std::ptr::from_ref(&OP_T).cast();
            check((l.set_desc)(gemm.desc, DESC_TRANSA, transposed, 4))?;
            if shape.bias {
                let epilogue = std::ptr::from_ref(&EPILOGUE_BIAS).cast();
                check((l.set_desc)(gemm.desc, DESC_EPILOGUE, epilogue, 4))?;
            }
            let layout = |at: &mut Pointer, kind, rows, cols, pitch: usize| {
                check((l.create_layout)(at, kind, rows, cols, pitch as i64))
            };
            layout(&mut gemm.w, R_16BF, k, n, shape.w_pitch)?;
            layout(&mut gemm.x, R_16BF, k, rows, shape.x_pitch)?;
            layout(&mut gemm.out, shape.out, n, rows, shape.out_pitch)?;
            check((l.create_preference)(preference))?;
            let bytes = WORKSPACE as u64;
            let at = std::ptr::from_ref(&bytes).cast();
            check((l.set_preference)(
                *preference,
                PREF_MAX_WORKSPACE_BYTES,
                at,
                8,
            ))?;
            for matrix in 0..4 {
                let at = std::ptr::from_ref(&shape.alignment).cast();
                let which = PREF_MIN_ALIGNMENT_BYTES + matrix;
                check((l.set_preference)(*preference, which, at, 4))?;
            }
            let (mut result, mut count) = (HeuristicResult::default(), 0);
            let code = (l.heuristic)(
                self.handle,
                gemm.desc,
                gemm.w,
                gemm.x,
                gemm.out,
                gemm.out,
                *preference,
                1,
                &mut result,
                &mut count,
            );
            gemm.algo = result.algo;
            match code {
                NOT_SUPPORTED => Ok(false),
                _ => check(code).map(|()| count > 0 && result.state == 0),
            }
        }
    }

    fn destroy(&self, gemm: &Gemm) {
        let l = &self.library;
        for (at, destroy) in [
            (gemm.desc, l.destroy_desc),
            (gemm.w, l.destroy_layout),
            (gemm.x, l.destroy_layout),
            (gemm.out, l.destroy_layout),
        ] {
            if !at.is_null() {
                // SAFETY: made by this library, not used again.
                unsafe { destroy(at) };
            }
        }
    }

    fn drop_all(&mut self) {
        for gemm in std::mem::take(&mut self.gemms).values().flatten() {
            self.destroy(gemm);
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // Nobody can handle a failure here.
        let _ = self.workspace.card().bind();
        self.drop_all();
        // SAFETY: made by this library, not used again; the workspace keeps its card alive.
        unsafe { (self.library.destroy)(self.handle) };
    }
}

const NOT_SUPPORTED: c_int = 15;

/// `cublasStatus_t` in words.
fn check(code: c_int) -> Result<(), String> {
    let words = match code {
        0 => return Ok(()),
        1 => "not initialized",
        3 => "allocation failed",
        7 => "invalid value",
        8 => "architecture mismatch",
        11 => "mapping error",
        13 => "execution failed",
        14 => "internal error",
        NOT_SUPPORTED => "not supported",
        _ => "unknown error",
    };
    Err(format!("{words} (cublasStatus {code})"))
}
