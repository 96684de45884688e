//! `offshoot kernels`: what the compiler makes of the CUDA kernels, and what they do.

mod time;

use std::process::Command;

use ::kernels::cases;
use ::kernels::cuda::catalog::Architecture;
use ::kernels::cuda::items::Sharing;
use ::kernels::cuda::study::large::{self, Compared};
use ::kernels::cuda::study::{self, Beam, Budget};
use ::kernels::cuda::{Compiler, cache_folder, compile_for, cubin};
use ::kernels::{Backend, CudaBackend};
use bench::figures::{self, Figure};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::{print, print_json};
use crate::error::{Done, Failure};
use crate::flags::{
    ArchFlags, Card, CheckFlags, KernelsCommand, ProfileFlags, ProfiledKernel, ReportFlags,
    SharingWord,
};

/// Runs the command.
pub fn run(command: &KernelsCommand) -> Done {
    match command {
        KernelsCommand::Compile(flags) => compile(flags),
        KernelsCommand::List(flags) => list(flags),
        KernelsCommand::Profile(flags) => profile(flags),
        KernelsCommand::Check(flags) => check(flags),
        KernelsCommand::Time(flags) => time::run(flags),
        KernelsCommand::Report(flags) => report(flags),
        KernelsCommand::Predict(flags) => super::predict::run(flags),
    }
}

/// A kernel as compiled.
#[derive(Serialize)]
struct Entry {
    module: String,
    kernel: &'static str,
    registers: usize,
    stack_bytes: usize,
    shared_bytes: usize,
    resident_blocks: usize,
    threads: usize,
    instructions: usize,
    tensor_products: usize,
    complaints: Vec<String>,
}

/// Every kernel of an architecture, compiled or from the cache.
fn compiled(architecture: &Architecture) -> Done<Vec<Entry>> {
    let compiler = Compiler::find().map_err(Failure::new)?;
    let cache = cache_folder();
    let mut entries = Vec::new();
    for module in architecture.modules() {
        let image = compile_for(&compiler, &module, architecture.name, cache.as_deref())
            .and_then(|image| cubin::kernels(&image))
            .map_err(|why| Failure::new(format!("{}: {why}", module.title())))?;
        for kernel in module.kernels() {
            let Some(compiled) = image.iter().find(|c| c.name == kernel.name) else {
                let title = module.title();
                return Err(Failure::new(format!("{title}: no kernel {}", kernel.name)));
            };
            entries.push(Entry {
                module: module.title(),
                kernel: kernel.name,
                registers: compiled.registers,
                stack_bytes: compiled.stack,
                shared_bytes: architecture.shared(&kernel, compiled),
                resident_blocks: architecture.resident(&kernel, compiled),
                threads: kernel.threads,
                instructions: compiled.instructions,
                tensor_products: compiled.tensor,
                complaints: architecture.complaints(&kernel, compiled),
            });
        }
    }
    Ok(entries)
}

fn compile(flags: &ArchFlags) -> Done {
    let entries = compiled(flags.arch)?;
    let folder = cache_folder().map(|dir| dir.display().to_string());
    let printed = json!({
        "architecture": flags.arch.name,
        "kernels": entries.len(),
        "folder": folder,
    });
    match (flags.json, folder) {
        (true, _) => print_json(&printed),
        (false, Some(folder)) => print(&format!(
            "{} kernels for {} in {folder}\n",
            entries.len(),
            flags.arch.name
        )),
        (false, None) => Err(Failure::new(
            "there is no folder for compiled kernels: set HOME or OFFSHOOT_KERNEL_CACHE",
        )),
    }
}

fn list(flags: &ArchFlags) -> Done {
    let entries = compiled(flags.arch)?;
    if flags.json {
        return print_json(&json!({
            "architecture": flags.arch.name,
            "kernels": entries,
        }));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "module",
        "kernel",
        "registers",
        "stack",
        "shared",
        "blocks/SM",
        "warps/SM",
        "SASS",
        "HMMA",
    ]);
    for entry in &entries {
        let numbers = [
            entry.registers,
            entry.stack_bytes,
            entry.shared_bytes,
            entry.resident_blocks,
            entry.resident_blocks * entry.threads.div_ceil(32),
            entry.instructions,
            entry.tensor_products,
        ];
        let words = [entry.module.clone(), entry.kernel.into()];
        table.add_row(words.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{}\n{table}\n", flags.arch.name);
    for entry in entries.iter().filter(|e| !e.complaints.is_empty()) {
        text += &format!("{}: {}\n", entry.kernel, entry.complaints.join("; "));
    }
    print(&text)
}

fn profile(flags: &ProfileFlags) -> Done {
    if flags.inner {
        return inner(flags);
    }
    let (heads, kv_heads, _) = flags.heads;
    if !heads.is_multiple_of(kv_heads) || flags.beam_width > flags.n {
        return Err(Failure::new(
            "--heads H/KV/D: H must be a multiple of KV; --beam-width may not exceed --n",
        ));
    }
    // The emulator writes its counters when the process ends: so it is another one.
    let program = std::env::current_exe().map_err(|e| Failure::io("this program", &e))?;
    let counters = std::env::temp_dir().join(format!("offshoot-{}.json", std::process::id()));
    let card = match flags.card {
        Card::A100 => "a100",
        Card::Rtx4090 => "rtx4090",
        Card::H100 => "h100",
        Card::H200 => "h200",
        Card::B200 => "b200",
    };
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .arg("--inner")
        .env("OFFSHOOT_EMULATOR_DEVICE", card)
        .env("OFFSHOOT_EMULATOR_COUNTERS", &counters)
        .env(
            "OFFSHOOT_EMULATOR_CHECKS",
            if flags.checks { "all" } else { "none" },
        );
    let output = command
        .output()
        .map_err(|e| Failure::io("this program", &e))?;
    let text = std::fs::read_to_string(&counters);
    let _ = std::fs::remove_file(&counters);
    let _ = std::fs::remove_file(counters.with_extension("json.txt"));
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(why.trim().trim_start_matches("error: ")));
    }
    let text = text.map_err(|e| Failure::io("the emulator's counters", &e))?;
    let parse = |text: &str| -> Done<Value> {
        serde_json::from_str(text).map_err(|e| Failure::new(format!("the counters: {e}")))
    };
    let budget = parse(&String::from_utf8_lossy(&output.stdout))?;
    let counted = parse(&text)?;
    let launches = counted["launches"].as_array().into_iter().flatten();
    let kernels: Vec<Value> = launches.map(shortened).collect();
    let device = &counted["device"];
    let printed = json!({"device": device, "budget": budget, "launches": kernels});
    match flags.json {
        true => print_json(&printed),
        false => print(&render(&printed)),
    }
}

/// The counters of a launch with the SMs' balance in place of their long lists.
fn shortened(launch: &Value) -> Value {
    let mut launch = launch.clone();
    let per_sm: Vec<f64> = (launch["sm_warp_instructions"].as_array())
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    let mean = per_sm.iter().sum::<f64>() / per_sm.len().max(1) as f64;
    let heaviest = per_sm.iter().copied().fold(0.0, f64::max);
    if let Some(fields) = launch.as_object_mut() {
        for long in [
            "executions_by_ptx_line",
            "sm_blocks",
            "sm_warp_instructions",
        ] {
            fields.remove(long);
        }
        fields.insert("sm_heaviest_by_mean".into(), json!(heaviest / mean));
    }
    launch
}

/// Runs the case and prints its budget.
fn inner(flags: &ProfileFlags) -> Done {
    let failed = |e: ::kernels::Error| Failure::new(e.to_string());
    match flags.kernel {
        ProfiledKernel::Attention => {
            let beam = Beam {
                beams: flags.n as usize,
                width: flags.beam_width as usize,
                prompt: flags.prompt as usize,
                steps: flags.steps as usize,
                step_tokens: flags.step_tokens as usize,
                seed: flags.seed,
            };
            let sharing = match flags.sharing {
                SharingWord::Tree => Sharing::Tree,
                SharingWord::Cascade => Sharing::Cascade,
                SharingWord::Flat => Sharing::Flat,
            };
            let budget: Budget = study::attention(&beam, flags.heads, sharing).map_err(failed)?;
            print_json(&budget)
        }
        ProfiledKernel::Linear => {
            let (rows, n, k) = flags.shape;
            study::linear(rows, n, k).map_err(failed)?;
            print_json(&json!({
                "weight_bytes": 2 * n * k,
                "activation_bytes": 2 * rows * (n + k),
                "useful_products": rows * n * k,
            }))
        }
        ProfiledKernel::Gated => {
            let (rows, n, k) = flags.shape;
            study::linear_gated(rows, n, k).map_err(failed)?;
            print_json(&json!({
                "weight_bytes": 4 * n * k,
                "activation_bytes": 2 * rows * (n + k),
                "useful_products": 2 * rows * n * k,
            }))
        }
    }
}

fn render(printed: &Value) -> String {
    let mut text = format!(
        "counted on {}; counts, not times\n",
        printed["device"].as_str().unwrap_or("an emulated card")
    );
    let fields = |title: &str, value: &Value| {
        let mut text = format!("{title}\n");
        for (name, value) in value.as_object().into_iter().flatten() {
            text += &format!("  {name:<28} {value}\n");
        }
        text
    };
    text += &fields("budget", &printed["budget"]);
    for launch in printed["launches"].as_array().into_iter().flatten() {
        text += &fields("launch", launch);
    }
    text
}

/// An operation's cases on a device.
#[derive(Serialize)]
struct Checked {
    operation: &'static str,
    cases: usize,
    /// What the device has no kernel for.
    refused: usize,
    failures: Vec<String>,
}

/// Checks every k-th case of an operation.
fn check_cases<C: std::fmt::Debug>(
    operation: &'static str,
    cases: &[C],
    every: usize,
    mut check: impl FnMut(&C) -> Result<(), String>,
) -> Checked {
    let mut checked = Checked {
        operation,
        cases: 0,
        refused: 0,
        failures: Vec::new(),
    };
    for case in cases.iter().step_by(every) {
        checked.cases += 1;
        if let Err(why) = check(case) {
            checked.failures.push(format!("{case:?}: {why}"));
        }
    }
    checked
}

/// Checks every k-th case of all operations.
fn run_cases(b: &mut CudaBackend, every: usize) -> Done<Vec<Checked>> {
    let heads: Vec<_> = cases::HEADS.iter().map(|&heads| (5, heads)).collect();
    let attention: Vec<_> = cases::attention_cases()
        .into_iter()
        .map(|mut case| {
            case.dtype = b.kv_dtype(kernels::Dtype::Bf16);
            case
        })
        .filter(|case| b.check_layout(&case.layout()).is_ok())
        .collect();
    let mut all = Vec::new();
    if b.cublaslt_products().is_some() {
        all.extend(linear_cases(
            b,
            every,
            ["linear_by_cublaslt", "linear_gated_by_cublaslt"],
        ));
        // The kernels here must be right at any number of rows, also where the library takes their place.
        b.set_cublaslt(None)?;
    }
    all.extend(linear_cases(b, every, ["linear", "linear_gated"]));
    all.extend([
        check_cases("rms_norm", &cases::ROW_SHAPES, every, |c| {
            cases::check_rms_norm(b, c).map(drop)
        }),
        check_cases("add_rms_norm", &cases::ROW_SHAPES, every, |c| {
            cases::check_add_rms_norm(b, c).map(drop)
        }),
        check_cases("gated", &cases::gated_cases(), every, |c| {
            cases::check_gated(b, c).map(drop)
        }),
        check_cases("relu", &cases::ROW_SHAPES, every, |c| {
            cases::check_relu(b, c).map(drop)
        }),
        check_cases("qk_norm", &heads, every, |c| {
            cases::check_qk_norm(b, c).map(drop)
        }),
        Checked {
            refused: cases::attention_cases().len() - attention.len(),
            ..check_cases("tree_attention", &attention, every, |case| {
                let nodes: Vec<usize> = (0..case.tree.nodes.len()).collect();
                cases::check_attention(b, case, &nodes).map(drop)
            })
        },
    ]);
    Ok(all)
}

/// Checks every k-th linear layer, gated or not, under these names.
fn linear_cases(b: &mut CudaBackend, every: usize, names: [&'static str; 2]) -> [Checked; 2] {
    [
        check_cases(names[0], &cases::linear_cases(), every, |c| {
            cases::check_linear(b, c).map(drop)
        }),
        check_cases(names[1], &cases::gated_linear_cases(), every, |s| {
            cases::check_linear_gated(b, s).map(drop)
        }),
    ]
}

/// Large shapes against each other: the largest linear layers of models in use (on the emulator a small
/// one), and blocks at the end of an arena that takes the card's free memory but for 2 GiB.
fn run_large(b: &mut CudaBackend) -> Done<Vec<Compared>> {
    let shapes: &[_] = match b.emulated() {
        true => &[(3, 96, 1024)],
        false => &[(64, 3584, 18_944), (7, 2048, 8192), (64, 152_064, 896)],
    };
    let mut all = large::linear(b, shapes)?;
    // What is left is for activations, plans and other programs. The emulator commits what is touched.
    let arena = b.free_memory()?.saturating_sub(2 << 30);
    if arena < 1 << 30 {
        let left = arena >> 20;
        return Err(Failure::new(format!(
            "--large: {left} MiB of memory are free beyond 2 GiB, expected 1024 or more"
        )));
    }
    all.push(large::far_blocks(b, arena, (32, 8, 128))?);
    Ok(all)
}

fn check(flags: &CheckFlags) -> Done {
    let Some(mut backend) = session::device::cuda(flags.device)?.0 else {
        return Err(Failure::new(
            "--device: the CPU backend is checked by its own tests; expected cuda, cuda:INDEX or emulated",
        ));
    };
    let all = run_cases(&mut backend, flags.every as usize)?;
    let large = match flags.large {
        true => run_large(&mut backend)?,
        false => Vec::new(),
    };
    let mut failures: Vec<String> = all.iter().flat_map(|c| c.failures.clone()).collect();
    failures.extend(large.iter().filter(|c| !c.right()).map(|compared| {
        let Compared {
            case,
            difference,
            bound,
        } = compared;
        format!("{case}: they differ by {difference}, at most {bound}")
    }));
    let device = backend.name();
    if flags.figures {
        print_checked(&all, &large, backend.emulated())?;
    } else if flags.json {
        print_json(&json!({"device": device, "operations": all, "large": large}))?;
    } else {
        print(&render_checked(&device, &all, &large))?;
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(format!(
            "{} cases fail; the first: {first}",
            failures.len()
        ))),
    }
}

/// The figures of a check, a line each.
fn print_checked(all: &[Checked], large: &[Compared], emulated: bool) -> Done {
    let print = |case: &str, figure: &str, value: f64, unit: &str| {
        let figure = Figure::new("check", case, figure, (value, unit));
        let figure = Figure { emulated, ..figure };
        figure.print().map_err(Failure::new)
    };
    for checked in all {
        let right = checked.cases - checked.failures.len();
        print(checked.operation, "right", right as f64, "cases")?;
        print(checked.operation, "checked", checked.cases as f64, "cases")?;
    }
    for compared in large {
        print(
            &compared.case,
            "difference",
            compared.difference,
            "bf16 steps",
        )?;
        print(&compared.case, "bound", compared.bound, "bf16 steps")?;
    }
    Ok(())
}

fn render_checked(device: &str, all: &[Checked], large: &[Compared]) -> String {
    let mut text = format!("{device}\n");
    for checked in all {
        text += &format!(
            "{:<16} {} of {} cases right, {} refused\n",
            checked.operation,
            checked.cases - checked.failures.len(),
            checked.cases,
            checked.refused
        );
    }
    for Compared {
        case,
        difference,
        bound,
    } in large
    {
        text += &format!("{case}: {difference:.2} bf16 steps, at most {bound}\n");
    }
    text
}

/// The report of a file of figures.
fn report(flags: &ReportFlags) -> Done {
    let name = flags.file.display().to_string();
    let text = std::fs::read_to_string(&flags.file).map_err(|e| Failure::io(&name, &e))?;
    let figures = figures::parse(&name, &text).map_err(Failure::new)?;
    let figures: Vec<Figure> = figures.into_iter().map(|(_, figure)| figure).collect();
    print(&figures::report(&figures))
}
