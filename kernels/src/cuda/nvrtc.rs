//! NVRTC, NVIDIA's run-time compiler: found, loaded and called without headers or toolkit.
//!
//! It is not loaded through cudarc, which returns PTX but not cubins and searches fewer folders.
//! The interface is that of `nvrtc.h`, unchanged since CUDA 11.1.
#![allow(unsafe_code)] // A C library: each call states what it relies on.

use super::libraries::{self, Version};
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// The folder of NVIDIA's unpacked wheels, or of the library itself.
pub const DIR_VARIABLE: &str = "OFFSHOOT_NVRTC_DIR";

/// How to get NVRTC where it is missing.
pub const INSTALL: &str = "pip download --no-deps nvidia-cuda-nvrtc-cu12 && unzip -d nvrtc \
     nvidia_cuda_nvrtc_cu12-*.whl && export OFFSHOOT_NVRTC_DIR=$PWD/nvrtc";

/// A loaded compiler.
pub struct Compiler {
    library: Library,
    path: PathBuf,
    version: Version,
}

/// The output of a compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Text that the driver compiles further: for the emulator, and for cards newer than the
    /// compiler.
    Ptx,
    /// Machine code of one architecture.
    Cubin,
}

/// A compilation.
pub struct Job<'a> {
    /// File name, for messages.
    pub name: &'a str,
    /// CUDA C++.
    pub source: &'a str,
    /// Name and text of the headers it includes.
    pub headers: &'a [(&'a str, &'a str)],
    /// Command-line options.
    pub options: &'a [String],
    /// The output.
    pub output: Output,
}

/// `nvrtcProgram`.
type Program = *mut c_void;

impl Compiler {
    /// Looks for the library in `OFFSHOOT_NVRTC_DIR`, in `nvrtc` beside or above the program, in
    /// Python environments, in the CUDA toolkit, and where the system looks.
    ///
    /// # Errors
    ///
    /// The library is nowhere or cannot be loaded; one line with the places and how to get it.
    pub fn find() -> Result<Compiler, String> {
        Compilers::find(None).map(|found| found.current)
    }

    /// Loads one file.
    ///
    /// # Errors
    ///
    /// It is not NVRTC, or cannot be loaded.
    pub fn load(path: &Path) -> Result<Compiler, String> {
        // SAFETY: loading NVRTC runs its initialisers, which have no preconditions.
        match unsafe { Library::new(path) } {
            Ok(library) => Compiler::new(library, path.to_owned()),
            Err(error) => Err(format!("{} cannot be loaded: {error}", path.display())),
        }
    }

    fn new(library: Library, path: PathBuf) -> Result<Compiler, String> {
        let mut compiler = Compiler {
            library,
            path,
            version: (0, 0),
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the signature is nvrtc.h's, both pointers are to live integers.
        let code = unsafe {
            let version: Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                compiler.symbol(b"nvrtcVersion\0")?;
            version(&mut major, &mut minor)
        };
        compiler.check("nvrtcVersion", code)?;
        compiler.version = (major, minor);
        Ok(compiler)
    }

    /// The library's file, or the name it was found by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Compiles.
    ///
    /// # Errors
    ///
    /// The compiler's log.
    pub fn compile(&self, job: &Job<'_>) -> Result<Vec<u8>, String> {
        let c = |text: &str| CString::new(text).map_err(|e| format!("{}: {e}", job.name));
        let (name, source) = (c(job.name)?, c(job.source)?);
        let texts = |which: fn(&(&str, &str)) -> String| -> Result<Vec<CString>, String> {
            job.headers.iter().map(|h| c(&which(h))).collect()
        };
        let (header_names, headers) = (texts(|h| h.0.into())?, texts(|h| h.1.into())?);
        let options: Vec<CString> = job.options.iter().map(|o| c(o)).collect::<Result<_, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (header_names, headers) = (pointers(&header_names), pointers(&headers));
        let options = pointers(&options);

        let mut program: Program = std::ptr::null_mut();
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        // SAFETY: nvrtc.h's signature; all strings end in zero and outlive the call, which copies
        // them; the arrays have the length stated.
        let code = unsafe {
            self.symbol::<Create>(b"nvrtcCreateProgram\0")?(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                headers.as_ptr(),
                header_names.as_ptr(),
            )
        };
        self.check("nvrtcCreateProgram", code)?;
        let result = self.compile_program(program, &options, job);
        // SAFETY: nvrtc.h's signature; the program was made above and is not used again.
        unsafe {
            type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
            self.symbol::<Destroy>(b"nvrtcDestroyProgram\0")?(&mut program);
        }
        result
    }

    fn compile_program(
        &self,
        program: Program,
        options: &[*const c_char],
        job: &Job<'_>,
    ) -> Result<Vec<u8>, String> {
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        // SAFETY: nvrtc.h's signature; a live program, an array of the length stated.
        let code = unsafe {
            self.symbol::<Compile>(b"nvrtcCompileProgram\0")?(
                program,
                options.len() as c_int,
                options.as_ptr(),
            )
        };
        if code != 0 {
            let log = self.bytes(program, "nvrtcGetProgramLog")?;
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_matches(['\0', '\n', ' ']);
            return Err(format!("{}: {}\n{log}", job.name, self.message(code)));
        }
        let (what, text) = match job.output {
            Output::Ptx => ("nvrtcGetPTX", true),
            Output::Cubin => ("nvrtcGetCUBIN", false),
        };
        let mut bytes = self.bytes(program, what)?;
        if text {
            // C's final zero is not part of the text.
            bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
        }
        Ok(bytes)
    }

    /// A result that NVRTC returns by two functions, its size and its bytes.
    fn bytes(&self, program: Program, what: &str) -> Result<Vec<u8>, String> {
        let mut size = 0usize;
        // SAFETY: nvrtc.h's signatures; a live program; the buffer has the size the library returned.
        unsafe {
            type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
            type Get = unsafe extern "C" fn(Program, *mut u8) -> c_int;
            let name = format!("{what}Size\0");
            let code = self.symbol::<Size>(name.as_bytes())?(program, &mut size);
            self.check(what, code)?;
            let mut bytes = vec![0u8; size];
            let name = format!("{what}\0");
            let code = self.symbol::<Get>(name.as_bytes())?(program, bytes.as_mut_ptr());
            self.check(what, code)?;
            Ok(bytes)
        }
    }

    /// A function of the library.
    ///
    /// # Safety
    ///
    /// `T` is its type.
    unsafe fn symbol<T>(&self, name: &[u8]) -> Result<Symbol<'_, T>, String> {
        // SAFETY: as the caller promises.
        unsafe { self.library.get(name) }.map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn message(&self, code: c_int) -> String {
        type Words = unsafe extern "C" fn(c_int) -> *const c_char;
        // SAFETY: nvrtc.h's signature; the result is a constant string for any code.
        unsafe {
            match self.symbol::<Words>(b"nvrtcGetErrorString\0") {
                Ok(words) => CStr::from_ptr(words(code)).to_string_lossy().into_owned(),
                Err(_) => format!("error {code}"),
            }
        }
    }

    fn check(&self, what: &str, code: c_int) -> Result<(), String> {
        match code {
            0 => Ok(()),
            _ => Err(format!("{what}: {}", self.message(code))),
        }
    }
}

const NAMES: [&str; 4] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so",
];

/// The installed compilers, the one that fits the driver best first, each loaded when it is needed.
pub(super) struct Compilers {
    current: Compiler,
    others: std::vec::IntoIter<PathBuf>,
}

impl Compilers {
    /// `driver` is the CUDA version that the driver serves, where it is known.
    ///
    /// # Errors
    ///
    /// As [`Compiler::find`].
    pub fn find(driver: Option<Version>) -> Result<Compilers, String> {
        let mut candidates = libraries::candidates(&["cuda_nvrtc", "cu13"], &NAMES, driver);
        let (mut tried, mut broken) = (0, Vec::new());
        while let Some(path) = candidates.next() {
            match Compiler::load(&path) {
                Ok(current) => {
                    return Ok(Compilers {
                        current,
                        others: candidates,
                    });
                }
                Err(error) if path.is_absolute() => broken.push(error),
                Err(_) => tried += 1,
            }
        }
        let broken = match broken.first() {
            Some(error) => format!("; {error}"),
            None => String::new(),
        };
        Err(format!(
            "libnvrtc.so is neither in {DIR_VARIABLE}, nor in a CUDA toolkit or Python environment, \
             nor on the library path ({tried} names tried){broken}; to install it: {INSTALL}"
        ))
    }

    /// The compiler in use.
    pub fn current(&self) -> &Compiler {
        &self.current
    }

    /// Goes on to the next compiler; `false` if there is none that loads.
    pub fn advance(&mut self) -> bool {
        let loaded = self.current.version;
        let next = (self.others.by_ref())
            .filter_map(|path| Compiler::load(&path).ok())
            // The same library by another name would do the same.
            .find(|next| next.version != loaded);
        match next {
            Some(next) => {
                self.current = next;
                true
            }
            None => false,
        }
    }
}
