//! One emulated device: its memory, its modules, launches. The driver API is a thin layer over it;
//! tests that need the whole report use it directly.

use crate::checks::Report;
use crate::counters::{self, L2, LaunchCounts, Modelled, Range};
use crate::decode;
use crate::device::{PROFILES, Profile};
use crate::lower::Symbol;
use crate::machine::{self, LaunchSetup, Program};
use crate::memory::{Heap, Kind};
use crate::ptx::tree::{self, Init, Stmt, Var};
use crate::ptx::{self, PtxError, refuse};
use crate::types::Space;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a device behaves. [`Options::from_env`] reads `OFFSHOOT_EMULATOR_*`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The card.
    pub profile: Profile,
    /// Sanitizer checks.
    pub checks: bool,
    /// Whether launches are counted.
    pub counters: bool,
    /// Order of the blocks; 0 is launch order.
    pub seed: u64,
    /// Maximum of warp instructions that a host thread may run for one launch.
    pub limit: u64,
    /// Host threads for a launch; 0: all cores for kernels whose blocks do not communicate, else
    /// one.
    pub threads: usize,
    /// The version of CUDA that the driver serves: 1000 major + 10 minor.
    pub driver: i32,
    /// Devices of the driver, all of this profile.
    pub devices: i32,
    /// How `mma` and `wmma` of bf16, f16 and tf32 add.
    pub accumulation: Accumulation,
}

/// How the tensor cores add products of bf16, f16 and tf32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulation {
    /// In f64, in the order of k, with one rounding for an instruction.
    #[default]
    Exact,
    /// As the profile's [`TensorCore`](crate::TensorCore): cut terms, in steps, each rounded.
    Card,
}

impl Accumulation {
    /// The values of `OFFSHOOT_EMULATOR_MMA`.
    const WORDS: [(&str, Accumulation); 2] =
        [("exact", Accumulation::Exact), ("card", Accumulation::Card)];
}

/// The driver versions that can be played: the newest of CUDA 11, an early one of 12, the first of 13.
const DRIVERS: [(&str, i32); 4] = [
    ("11.8", 11080),
    ("12.4", 12040),
    ("12.9", 12090),
    ("13.0", 13000),
];

impl Default for Options {
    fn default() -> Options {
        Options {
            profile: PROFILES[0].clone(),
            checks: true,
            counters: false,
            seed: 0,
            limit: u64::MAX,
            threads: 0,
            driver: 12090,
            devices: 1,
            accumulation: Accumulation::Exact,
        }
    }
}

/// The value of `OFFSHOOT_EMULATOR_{name}`, unless it is unset or empty.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(format!("OFFSHOOT_EMULATOR_{name}")).ok();
    value.filter(|v| !v.is_empty())
}

/// What is wrong with a variable's value.
fn unexpected<T>(name: &str, value: &str, expected: &str) -> Result<T, String> {
    Err(format!(
        "OFFSHOOT_EMULATOR_{name} is {value:?}, expected {expected}"
    ))
}

/// The choice that a variable's word stands for; the present one if it is not set.
fn choice<T>(name: &str, words: Vec<(&str, T)>, present: T) -> Result<T, String> {
    let Some(value) = variable(name) else {
        return Ok(present);
    };
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let expected = match names[..] {
        [one, other] => format!("{one} or {other}"),
        _ => format!("one of {}", names.join(", ")),
    };
    let found = (words.into_iter()).find(|(word, _)| word.eq_ignore_ascii_case(&value));
    match found {
        Some((_, chosen)) => Ok(chosen),
        None => unexpected(name, &value, &expected),
    }
}

/// A variable's number, which is `least` or more; the present one if it is not set.
fn number<T: std::str::FromStr + PartialOrd>(
    name: &str,
    least: T,
    expected: &str,
    present: T,
) -> Result<T, String> {
    let Some(value) = variable(name) else {
        return Ok(present);
    };
    match value.parse() {
        Ok(n) if n >= least => Ok(n),
        _ => unexpected(name, &value, expected),
    }
}

impl Options {
    /// Options from the environment.
    ///
    /// # Errors
    /// Names the variable, the value found and the values expected.
    pub fn from_env() -> Result<Options, String> {
        let o = Options::default();
        let cards = PROFILES.iter().map(|p| (p.word, p.clone())).collect();
        let instructions = "a number of warp instructions above 0";
        let few = "a number from 1 to 16";
        Ok(Options {
            profile: choice("DEVICE", cards, o.profile)?,
            checks: choice("CHECKS", vec![("all", true), ("none", false)], o.checks)?,
            counters: variable("COUNTERS").is_some(),
            seed: number("SEED", 0, "a number", o.seed)?,
            limit: number("LIMIT", 1, instructions, o.limit)?,
            threads: number("THREADS", 1, "a number above 0", o.threads)?,
            driver: choice("DRIVER", DRIVERS.to_vec(), o.driver)?,
            devices: match number("DEVICES", 1, few, o.devices)? {
                n @ ..=16 => n,
                n => unexpected("DEVICES", &n.to_string(), few)?,
            },
            accumulation: choice("MMA", Accumulation::WORDS.to_vec(), o.accumulation)?,
        })
    }
}

/// The toolkit whose compiler wrote a PTX text, by its major version: PTX 7 came with CUDA 11, PTX 8
/// with 12, PTX 9 with 13.
pub(crate) fn toolkit(ptx: &str) -> Option<i32> {
    let version = ptx
        .lines()
        .find_map(|line| line.trim().strip_prefix(".version"))?;
    let major: i32 = version.trim().split('.').next()?.parse().ok()?;
    Some(major + 4)
}

/// An emulated device.
pub struct Gpu {
    options: Options,
    heap: Heap,
    l2: Arc<Mutex<L2>>,
    launches: AtomicU64,
    counting: AtomicBool,
    counts: Mutex<Vec<LaunchCounts>>,
    ranges: Mutex<Arc<[Range]>>,
    workspace: u64,
}

/// PTX loaded on a device.
pub struct Module {
    tree: tree::Module,
    symbols: HashMap<String, Symbol>,
    /// Device variables: name, address, bytes.
    globals: Vec<(String, u64, u64)>,
    source: Arc<str>,
    programs: Mutex<HashMap<String, Arc<Program>>>,
}

/// A kernel ready to launch.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) program: Arc<Program>,
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// All blocks are resident at once.
    pub cooperative: bool,
}

impl Shape {
    /// A one-dimensional launch.
    pub fn line(blocks: u32, threads: u32) -> Shape {
        Shape {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared: 0,
            cooperative: false,
        }
    }
}

/// Why a launch did not run to its end.
#[derive(Debug)]
pub enum LaunchError {
    /// The launch is not possible; nothing ran.
    Invalid(String),
    /// More resources than the card has.
    Resources(String),
    /// A check failed while it ran.
    Check(Box<Report>),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LaunchError::Invalid(m) | LaunchError::Resources(m) => {
                write!(f, "offshoot-emulator: {m}")
            }
            LaunchError::Check(r) => write!(f, "{r}"),
        }
    }
}

impl std::error::Error for LaunchError {}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// A device with empty memory.
    pub fn new(options: Options) -> io::Result<Gpu> {
        let heap = Heap::new(options.profile.memory, options.checks)?;
        let l2 = Arc::new(Mutex::new(L2::new(options.profile.l2)));
        // The barrier word that cooperative_groups' grid barrier finds through `%envreg1` and
        // `%envreg2`.
        let workspace = heap.alloc(64, Kind::Device).unwrap_or(0);
        heap.fill(workspace, 64, 0);
        Ok(Gpu {
            counting: AtomicBool::new(options.counters),
            ranges: Mutex::new(Arc::from([])),
            options,
            heap,
            l2,
            launches: AtomicU64::new(0),
            counts: Mutex::new(Vec::new()),
            workspace,
        })
    }

    /// The card.
    pub fn profile(&self) -> &Profile {
        &self.options.profile
    }

    pub(crate) fn heap(&self) -> &Heap {
        &self.heap
    }

    /// Device memory; `None` when the card is full.
    pub fn alloc(&self, bytes: u64) -> Option<u64> {
        self.heap.alloc(bytes, Kind::Device)
    }

    /// Frees an allocation; false if there is none at `addr`.
    pub fn free(&self, addr: u64) -> bool {
        self.heap.free(addr)
    }

    /// Copies to the device; false when the range is not inside one allocation.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> bool {
        let inside = self.inside(addr, bytes.len() as u64);
        if inside {
            self.heap.copy_in(addr, bytes);
        }
        inside
    }

    /// Copies from the device; false when the range is not inside one allocation.
    pub fn read(&self, addr: u64, to: &mut [u8]) -> bool {
        let inside = self.inside(addr, to.len() as u64);
        if inside {
            self.heap.copy_out(addr, to);
        }
        inside
    }

    pub(crate) fn inside(&self, addr: u64, len: u64) -> bool {
        len == 0
            || self
                .heap
                .find(addr)
                .is_some_and(|e| addr.checked_add(len).is_some_and(|end| end <= e.end))
    }

    /// Parses PTX and allocates its variables. Kernels are decoded on first use.
    pub fn load(&self, text: &str) -> Result<Module, PtxError> {
        let tree = ptx::parse(text)?;
        let mut vars: Vec<&Var> = tree.vars.iter().collect();
        for f in &tree.funcs {
            for s in f.body.iter().flatten() {
                if let Stmt::Var(
                    v @ Var {
                        space: Space::Global | Space::Const,
                        ..
                    },
                ) = s
                {
                    vars.push(v);
                }
            }
        }
        let mut symbols = HashMap::new();
        for (i, f) in tree.funcs.iter().enumerate() {
            symbols.insert(
                f.name.clone(),
                Symbol::Func(FUNCTIONS | (i as u64 + 1) << 4),
            );
        }
        let mut globals = Vec::new();
        for v in &vars {
            let bytes = v.bytes();
            let symbol = match v.space {
                Space::Shared if v.count == 0 || v.external => Symbol::DynamicShared(v.align),
                Space::Shared => Symbol::Shared(
                    u32::try_from(bytes)
                        .or_else(|_| refuse(v.line, "shared variable is too large"))?,
                    v.align,
                ),
                _ if v.external => {
                    return refuse(
                        v.line,
                        format!("external variable {:?}: linking is not supported", v.name),
                    );
                }
                _ => {
                    let kind = Kind::Variable(v.name.clone());
                    let Some(addr) = self.heap.alloc(bytes.max(1), kind) else {
                        return refuse(
                            v.line,
                            format!("no room for variable {:?} of {bytes} bytes", v.name),
                        );
                    };
                    globals.push((v.name.clone(), addr, bytes));
                    Symbol::Device(addr)
                }
            };
            if symbols.insert(v.name.clone(), symbol).is_some() {
                return refuse(v.line, format!("{:?} is declared twice", v.name));
            }
        }
        for v in vars {
            if let Some(Symbol::Device(addr)) = symbols.get(&v.name) {
                self.initialise(v, *addr, &symbols)?;
            }
        }
        Ok(Module {
            tree,
            symbols,
            globals,
            source: Arc::from(text),
            programs: Mutex::new(HashMap::new()),
        })
    }

    fn initialise(
        &self,
        v: &Var,
        addr: u64,
        symbols: &HashMap<String, Symbol>,
    ) -> Result<(), PtxError> {
        // Device variables without initialiser are zero, as in CUDA C++.
        self.heap.fill(addr, v.bytes().max(1), 0);
        let width = u64::from(v.ty.bytes());
        if width > 8 && !v.init.is_empty() {
            return refuse(v.line, "128-bit initialisers are not supported");
        }
        for (i, init) in v.init.iter().enumerate() {
            let value = match init {
                Init::Bits(b) => *b,
                Init::Address(name, offset) => match symbols.get(name) {
                    Some(Symbol::Device(a) | Symbol::Func(a)) if width == 8 => {
                        a.wrapping_add(*offset as u64)
                    }
                    _ => {
                        return refuse(
                            v.line,
                            format!(
                                "initialiser of {:?}: {name:?} has no address of that width",
                                v.name
                            ),
                        );
                    }
                },
            };
            self.heap.copy_in(
                addr + i as u64 * width,
                &value.to_le_bytes()[..width as usize],
            );
        }
        if v.space == Space::Const {
            self.heap.set_read_only(addr);
        }
        Ok(())
    }

    /// Frees the module's variables.
    pub fn unload(&self, module: &Module) {
        for (_, addr, _) in &module.globals {
            self.heap.free(*addr);
        }
    }

    /// Checks a launch against the card. Returns the blocks that one multiprocessor and the device
    /// hold at once. `params`: bytes of parameters.
    fn resources(
        &self,
        p: &Program,
        shape: Shape,
        params: usize,
    ) -> Result<(u32, u64), LaunchError> {
        let threads: u64 = shape.block.iter().map(|n| u64::from(*n)).product();
        if threads == 0 || shape.grid.contains(&0) {
            return Err(LaunchError::Invalid(format!(
                "{}: grid {:?} and block {:?} must not contain 0",
                p.name, shape.grid, shape.block
            )));
        }
        if threads > u64::from(p.max_threads) || shape.block[2] > 64 || threads > 1024 {
            return Err(LaunchError::Resources(format!(
                "{}: {threads} threads in a block, at most {} are possible",
                p.name,
                p.max_threads.min(1024)
            )));
        }
        if shape.grid[1] > 65535 || shape.grid[2] > 65535 || shape.grid[0] > 0x7fff_ffff {
            return Err(LaunchError::Invalid(format!(
                "{}: grid {:?} is too large",
                p.name, shape.grid
            )));
        }
        let shared = p.shared_bytes + shape.shared;
        if shared > self.options.profile.shared_optin {
            return Err(LaunchError::Invalid(format!(
                "{}: {shared} bytes of shared memory, the card has {}",
                p.name, self.options.profile.shared_optin
            )));
        }
        if params != p.param_bytes as usize {
            return Err(LaunchError::Invalid(format!(
                "{}: {} parameter bytes, {} are expected",
                p.name, params, p.param_bytes
            )));
        }
        let per_sm = self.options.profile.resident_blocks(threads as u32, shared);
        let blocks: u64 = shape.grid.iter().map(|g| u64::from(*g)).product();
        let resident = u64::from(per_sm) * u64::from(self.options.profile.sms);
        if shape.cooperative && blocks > resident {
            return Err(LaunchError::Resources(format!(
                "{}: a cooperative launch of {blocks} blocks, {resident} fit",
                p.name
            )));
        }
        Ok((per_sm, resident))
    }

    /// Launches a kernel and waits for it. `params` is the parameter buffer, laid out as the PTX
    /// declares it.
    pub fn launch(
        &self,
        kernel: &Kernel,
        shape: Shape,
        params: Vec<u8>,
    ) -> Result<(), LaunchError> {
        let p = &kernel.program;
        let (per_sm, resident) = self.resources(p, shape, params.len())?;
        let number = self.launches.fetch_add(1, Relaxed);
        let epoch = number % 1023 + 1;
        if epoch == 1 && number > 0 {
            self.heap.forget_races();
        }
        let modelled = self.counting.load(Relaxed).then(|| Modelled {
            ranges: lock(&self.ranges).clone(),
            l2: self.l2.clone(),
            sms: self.options.profile.sms,
            blocks_per_sm: per_sm,
            warps_per_sm: self.options.profile.threads_per_sm / 32,
            grid: shape.grid,
            block: shape.block,
            shared_bytes: p.shared_bytes + shape.shared,
        });
        let counts = machine::run(LaunchSetup {
            program: p,
            heap: &self.heap,
            params,
            grid: shape.grid,
            block: shape.block,
            dynamic_shared: shape.shared,
            cooperative: shape.cooperative,
            resident,
            sms: self.options.profile.sms,
            threads: self.options.threads,
            seed: self.options.seed,
            limit: self.options.limit,
            epoch,
            modelled,
            tensor_core: match self.options.accumulation {
                Accumulation::Exact => None,
                Accumulation::Card => Some(self.options.profile.tensor_core),
            },
            workspace: self.workspace,
        })
        .map_err(LaunchError::Check)?;
        if let Some(c) = counts {
            lock(&self.counts).push(c);
        }
        Ok(())
    }

    pub(crate) fn options_counters(&self) -> bool {
        self.options.counters
    }

    /// Starts counting from nothing, with an empty L2, or stops. The counts are kept until the next
    /// start.
    pub fn count(&self, on: bool) {
        if on {
            lock(&self.counts).clear();
            lock(&self.l2).clear();
        }
        self.counting.store(on, Relaxed);
    }

    /// Counts the traffic of `bytes` at `from` also under `name`, in later launches. The same name
    /// again moves the range; 0 bytes remove it. Ranges may overlap.
    pub fn name_range(&self, name: &str, from: u64, bytes: u64) {
        let mut ranges = lock(&self.ranges);
        let mut all: Vec<Range> = ranges.iter().filter(|r| r.name != name).cloned().collect();
        if bytes != 0 {
            all.push(Range {
                name: name.to_owned(),
                from,
                to: from.saturating_add(bytes),
            });
        }
        *ranges = all.into();
    }

    /// The counts so far, as JSON.
    pub fn counters_json(&self) -> String {
        counters::json(self.options.profile.name, &lock(&self.counts))
    }

    /// The counts so far, as a table.
    pub fn counters_table(&self) -> String {
        counters::table(self.options.profile.name, &lock(&self.counts))
    }

    /// Allocations that were not freed: address and bytes.
    pub fn leaks(&self) -> Vec<(u64, u64)> {
        self.heap
            .live()
            .into_iter()
            .filter(|(a, _, k)| *k == Kind::Device && *a != self.workspace)
            .map(|(a, n, _)| (a, n))
            .collect()
    }
}

/// Function addresses: outside of all memory.
const FUNCTIONS: u64 = 0x7f << 48;

impl Module {
    /// A kernel by name, decoded on first use.
    pub fn kernel(&self, name: &str) -> Result<Kernel, PtxError> {
        let mut programs = lock(&self.programs);
        if let Some(p) = programs.get(name) {
            return Ok(Kernel { program: p.clone() });
        }
        let p = Arc::new(decode::kernel(
            &self.tree,
            &self.symbols,
            name,
            &self.source,
        )?);
        programs.insert(name.to_owned(), p.clone());
        Ok(Kernel { program: p })
    }

    /// Names of all kernels.
    pub fn kernels(&self) -> Vec<String> {
        self.tree
            .funcs
            .iter()
            .filter(|f| f.entry && f.body.is_some())
            .map(|f| f.name.clone())
            .collect()
    }

    /// Address and size of a device variable.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals
            .iter()
            .find(|g| g.0 == name)
            .map(|g| (g.1, g.2))
    }
}

impl Kernel {
    /// Packs arguments into a parameter buffer. Each is the bytes of one parameter.
    pub fn pack(&self, args: &[&[u8]]) -> Result<Vec<u8>, LaunchError> {
        let p = &self.program;
        if args.len() != p.params.len() {
            return Err(LaunchError::Invalid(format!(
                "{}: {} arguments, {} are expected",
                p.name,
                args.len(),
                p.params.len()
            )));
        }
        let mut out = vec![0; p.param_bytes as usize];
        for (a, slot) in args.iter().zip(&p.params) {
            if a.len() != slot.bytes as usize {
                return Err(LaunchError::Invalid(format!(
                    "{}: an argument of {} bytes where {} are expected",
                    p.name,
                    a.len(),
                    slot.bytes
                )));
            }
            out[slot.offset as usize..][..a.len()].copy_from_slice(a);
        }
        Ok(out)
    }

    /// Decoded instructions, inserted ones included.
    pub fn instructions(&self) -> usize {
        self.program.code.len()
    }
}
