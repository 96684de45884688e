//! The whole system on the emulated GPU, against the CPU.
//!
//! Skipped nowhere: `cargo xtask test` installs NVRTC, and the emulator is built here.

use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::common::{Parts, finish, json_of, open, problems, report, scratch};
use engine::{Branch, Confidences, Engine, Generate, Generated, Model, ModelSpec, Options};
use futures::future::try_join_all;
use kernels::cuda::{Compiler, Which, emulator_calls};
use kernels::{Backend, CpuBackend, CudaBackend, Sampling};
use serde_json::Value;

/// Builds the emulator's library, into the folder of the binary and of the tests.
fn build_emulator() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(why) = Compiler::find() {
            panic!("{why}");
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_offshoot"));
        let profile = binary.parent().expect("a binary lies in a folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "offshoot-emulator"]);
        cargo.args(["-p", "offshoot-emulator-cublaslt"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args(["--target-dir".as_ref(), profile.parent().expect("target")]);
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "the emulator cannot be built");
    });
}

/// A call of the binary, with a kernel cache that outlives the test.
fn solve(folder: &Path, device: &str, more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
    command
        .current_dir(folder)
        .env(
            "OFFSHOOT_KERNEL_CACHE",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache"),
        )
        .args(["solve", "--json", "--kv-memory", "64", "--device", device])
        .args(["--limit", "2", "--trees", "--out", device])
        .args(more);
    json_of(&finish(&mut command, ""))
}

/// A call of `offshoot kernels`, with the same cache.
fn kernels_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
    command
        .env(
            "OFFSHOOT_KERNEL_CACHE",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache"),
        )
        .arg("kernels")
        .args(arguments)
        .arg("--json");
    command
}

/// The JSON object that it prints.
fn kernels(arguments: &[&str]) -> Value {
    json_of(&finish(&mut kernels_command(arguments), ""))
}

#[test]
fn the_counted_targets_of_tree_attention_hold() {
    build_emulator();
    let counted = kernels(&["profile", "attention"]);
    let budget = |name: &str| counted["budget"][name].as_f64().expect(name);
    let total = |name: &str| -> f64 {
        let launches = counted["launches"].as_array().expect("launches");
        launches.iter().filter_map(|l| l[name].as_f64()).sum()
    };
    let mut complaints = Vec::new();
    let mut at_most = |what: &str, found: f64, limit: f64| {
        if found.is_nan() || found > limit {
            complaints.push(format!("{what} is {found:.3}, at most {limit}"));
        }
    };
    let unique = budget("unique_kv_bytes");
    at_most("DRAM / unique", total("dram_read_bytes") / unique, 1.05);
    let items = budget("item_tokens");
    at_most("requested / tiled", items / budget("tiled_tokens"), 1.2);
    at_most("requested / flat", items / budget("flat_tokens"), 1.0 / 8.0);
    let conflicts = total("bank_conflicts") / total("shared_passes");
    at_most("bank conflicts", conflicts, 0.01);
    let padding = total("tensor_products") / total("tensor_useful");
    at_most("issued / useful products", padding, 2.0);
    let balance = counted["launches"][0]["sm_heaviest_by_mean"].as_f64();
    at_most("heaviest SM / mean", balance.expect("balance"), 1.10);
    report(&complaints);
}

#[test]
fn the_counted_targets_of_products_hold() {
    build_emulator();
    for arguments in [
        "linear --shape 16/2048/2048",
        "linear --shape 64/2048/1024",
        "linear --shape 128/2048/512",
        "gated --shape 16/4096/512",
        "gated --shape 96/2048/512",
    ] {
        let mut words = vec!["profile"];
        words.extend(arguments.split(' '));
        let counted = kernels(&words);
        let launch = &counted["launches"][0];
        let number = |path: &str| launch.pointer(path).and_then(Value::as_f64).expect(path);
        let budget = |name: &str| counted["budget"][name].as_f64().expect(name);
        let bytes = budget("weight_bytes") + budget("activation_bytes");
        assert!(number("/dram_read_bytes") <= 1.05 * bytes, "{counted}");
        let requested = 32.0 * number("/global_load/sectors");
        let used = number("/global_load/bytes_used");
        assert!(used >= 0.99 * requested, "{counted}");
        let conflicts = number("/bank_conflicts") / number("/shared_passes");
        assert!(conflicts <= 0.01, "{counted}");
        let useful = number("/tensor_useful") / number("/tensor_products");
        assert!(useful >= 0.5, "{counted}");
    }
}

#[test]
fn a_sample_of_the_case_tables_is_right_from_the_command_line() {
    build_emulator();
    let checked = kernels(&["check", "--device", "emulated", "--every", "7"]);
    let operations = checked["operations"].as_array().expect("operations");
    assert_eq!(operations.len(), 8);
    for operation in operations {
        assert!(operation["cases"].as_u64() > Some(0), "{operation}");
        assert_eq!(operation["failures"], Value::Array(Vec::new()));
    }
}

#[test]
fn a_driver_that_is_older_than_the_compiler_is_one_sentence() {
    build_emulator();
    // The tests have the compiler of CUDA 12.
    for (driver, served) in [("11.8", false), ("12.4", true), ("13.0", true)] {
        let mut command = kernels_command(&["check", "--device", "emulated", "--every", "60"]);
        command.env("OFFSHOOT_EMULATOR_DRIVER", driver);
        let output = command.output().expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), served, "{driver}: {error}");
        let named = error.contains("CUDA_ERROR_UNSUPPORTED_PTX_VERSION");
        assert_eq!(named, !served, "{driver}: {error}");
    }
}

#[test]
fn products_of_many_rows_go_to_cublaslt_where_it_is() {
    build_emulator();
    let twin = Path::new(env!("CARGO_BIN_EXE_offshoot")).with_file_name("libcublasLt.so");
    for (rows, kernel) in [("16", "skinny_1_2_bf16"), ("17", "cublaslt_bf16")] {
        let shape = format!("{rows}/96/64");
        let mut command = kernels_command(&["profile", "linear", "--shape", &shape]);
        command.env("OFFSHOOT_CUBLASLT", &twin);
        let counted = json_of(&finish(&mut command, ""));
        assert_eq!(counted["launches"][0]["kernel"], kernel, "{counted}");
    }
    // A named library that is not cuBLASLt is an error; our own kernel must not replace it.
    let mut command = kernels_command(&["profile", "linear"]);
    command.env("OFFSHOOT_CUBLASLT", twin.with_file_name("libcuda.so"));
    let output = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("OFFSHOOT_CUBLASLT"), "{error}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn policy_and_prm_have_devices_of_their_own() {
    build_emulator();
    let folder = scratch("emulated-prm-device");
    let solve = |device: &str, prm: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
        command.env("OFFSHOOT_EMULATOR_DEVICES", "2");
        command.current_dir(&folder);
        command.args(["solve", "--json", "--kv-memory", "64", "--limit", "1"]);
        command.args(["--n", "4", "--out", prm]);
        command.args(["--device", device, "--prm-device", prm]);
        json_of(&finish(&mut command, ""))
    };
    let on_cpu = solve("cpu", "auto");
    let emulated = solve("emulated", "cuda:1");
    let mixed = solve("emulated", "cpu");
    let name = emulated["device"].as_str().unwrap_or_default();
    assert_eq!(name.matches("(emulated)").count(), 2, "{name}");
    let name = mixed["device"].as_str().unwrap_or_default();
    assert!(
        name.contains("(emulated)") && name.contains("; PRM: "),
        "{name}"
    );
    for found in [&emulated, &mixed] {
        for field in [
            "/correct",
            "/policy/tokens_generated",
            "/prm/tokens_processed",
        ] {
            assert_eq!(
                found.pointer(field),
                on_cpu.pointer(field),
                "{field}: {found}"
            );
        }
    }
}

/// The lines of a results file, without what rounding changes: rewards and log-probabilities.
fn words(folder: &Path, device: &str) -> Vec<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Object(fields) => {
                for rounded in ["scores", "reward", "value", "logprob", "support"] {
                    fields.remove(rounded);
                }
                fields.values_mut().for_each(strip);
            }
            _ => {}
        }
    }
    let text = std::fs::read_to_string(folder.join(device)).expect("a results file");
    text.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).expect("a line of results");
            strip(&mut value);
            // The settings name the device, which is what differs.
            for device in ["device", "instruction_set"] {
                value["settings"]
                    .as_object_mut()
                    .expect("settings")
                    .remove(device);
            }
            value
        })
        .collect()
}

#[test]
fn the_main_job_gives_the_cpus_trees() {
    build_emulator();
    let mut complaints = Vec::new();
    for strategy in ["beam", "cot"] {
        let folder = scratch(&format!("emulated-{strategy}"));
        let flags = ["--strategy", strategy];
        let [cpu, emulated] = ["cpu", "emulated"].map(|d| solve(&folder, d, &flags));
        let device = emulated["device"].as_str().unwrap_or_default();
        assert!(device.contains("(emulated) (CUDA, sm_80)"), "{device}");
        for field in ["/problems", "/correct", "/policy/tokens_generated"] {
            let [cpu, emulated] = [&cpu, &emulated].map(|found| found.pointer(field));
            if cpu != emulated || cpu.is_none() {
                complaints.push(format!(
                    "{strategy}: {field} is {emulated:?}, on the CPU {cpu:?}"
                ));
            }
        }
        // The device runs ahead: where a branch ends, it has computed one row more, and had a place
        // for it. Steps of this family are about ten tokens.
        for field in ["/policy/tokens_processed", "/kv/peak_blocks"] {
            let [cpu, emulated] = [&cpu, &emulated]
                .map(|found| found.pointer(field).and_then(Value::as_u64).expect(field));
            if emulated < cpu || emulated > cpu + cpu.div_ceil(8) {
                complaints.push(format!(
                    "{strategy}: {field} is {emulated}, on the CPU {cpu}"
                ));
            }
        }
        let lines = words(&folder, "cpu").into_iter();
        for (line, expected) in words(&folder, "emulated").into_iter().zip(lines) {
            if line != expected {
                complaints.push(format!("{strategy}: {line}\non the CPU {expected}"));
            }
        }
    }
    report(&complaints);
}

/// The emulator of this process, for one test at a time: its calls are counted.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    build_emulator();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// nano-small on a device.
fn engine<B: Backend + 'static>(backend: B, small: &Parts) -> (Engine, Model) {
    let part = ModelSpec::new(&small.checkpoint, Some(Rc::clone(&small.tokenizer)));
    let options = Options {
        kv_bytes: Some(16 << 20),
        ..Options::default()
    };
    let (engine, models) = Engine::new(backend, &[part], &options).expect("nano-small loads");
    (engine, models[0].clone())
}

/// The 40 most likely tokens after each prompt, one after the other.
fn greedy(subject: &(Engine, Model), prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let all = continued(subject, prompts, Sampling::GREEDY);
    all.into_iter()
        .map(|generated| generated.token_ids)
        .collect()
}

#[test]
fn hidden_states_are_the_cpus() {
    let _one = alone();
    let small = open("nano-small");
    let prompt = problems(1).remove(0).problem;
    let prompt = small.tokenizer.encode(&prompt, true).expect("tokens");
    let mut backend = CudaBackend::open(Which::Emulated).expect("the emulator opens");
    backend.set_memory_fraction(0.5);
    let emulated = hidden_states(&engine(backend, &small), &prompt);
    let cpu = hidden_states(&engine(CpuBackend::new(2), &small), &prompt);
    assert_eq!(emulated.len(), cpu.len());
    for (layer, (found, expected)) in emulated.iter().zip(&cpu).enumerate() {
        let norm = |of: &mut dyn Iterator<Item = f32>| of.map(|x| x * x).sum::<f32>().sqrt();
        let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        // Weights, K and V in bf16 on both; the card rounds the inputs of linear layers as well.
        let error = difference / size;
        assert!(error <= 2e-2, "layer {layer}: {error}");
    }
}

/// The hidden states of all layers, `[layers + 1][tokens * hidden]`, while a branch decodes.
fn hidden_states((engine, model): &(Engine, Model), prompt: &[u32]) -> Vec<Vec<f32>> {
    let mut branch = model.root(0);
    branch.append(prompt).expect("the prompt fits");
    let mut busy = branch.fork();
    let reads = (0..=model.num_layers()).map(|layer| branch.hidden_states(layer, 0..prompt.len()));
    let generate = busy.generate(Generate {
        sampling: Sampling::GREEDY,
        max_tokens: 8,
        stop_strings: Vec::new(),
        include_stop: false,
        stop_token_ids: Vec::new(),
        stream: None,
        confidences: Confidences::None,
    });
    let all = engine.run(async { futures::join!(try_join_all(reads), generate) });
    let (states, generated) = all.expect("the engine runs");
    assert_eq!(generated.expect("text").token_ids.len(), 8);
    let states = states.expect("hidden states").into_iter();
    states.map(|layer| layer.concat()).collect()
}

/// 40 tokens after each prompt, at once.
fn continued(
    (engine, model): &(Engine, Model),
    prompts: &[Vec<u32>],
    sampling: Sampling,
) -> Vec<Generated> {
    let each = prompts.iter().map(|prompt| async {
        let mut branch: Branch = model.root(0);
        branch.append(prompt)?;
        let how = Generate {
            sampling,
            max_tokens: 40,
            stop_strings: Vec::new(),
            include_stop: false,
            stop_token_ids: Vec::new(),
            stream: None,
            confidences: Confidences::None,
        };
        branch.generate(how).await
    });
    let all = engine.run(try_join_all(each)).expect("the engine runs");
    all.expect("every prompt is continued")
}

#[test]
fn a_warm_engine_allocates_nothing() {
    let _one = alone();
    let small = open("nano-small");
    let mut backend = CudaBackend::open(Which::Emulated).expect("the emulator opens");
    backend.set_memory_fraction(0.5);
    let allocations = || -> Vec<u64> {
        [
            "cuMemAlloc_v2",
            "cuMemFree_v2",
            "cuMemAllocHost_v2",
            "cuMemHostAlloc",
        ]
        .map(|name| emulator_calls(name).expect("the emulator is loaded"))
        .into()
    };
    let before = allocations()[0];
    let emulated = engine(backend, &small);
    // The memory plan is exact: one arena for weights and buffers, one for the KV cache.
    assert_eq!(allocations()[0] - before, 2);
    let prompts: Vec<Vec<u32>> = (problems(3).iter())
        .map(|p| small.tokenizer.encode(&p.problem, true).expect("tokens"))
        .collect();
    // Later runs find the prompts in the cache, so what is computed together differs from the first
    // run's, and with it the rounding: tokens that are nearly tied may fall otherwise.
    greedy(&emulated, &prompts);
    let warm = allocations();
    let launches = emulator_calls("cuLaunchKernel").expect("the emulator is loaded");
    let second = greedy(&emulated, &prompts);
    assert_eq!(greedy(&emulated, &prompts), second);
    assert_eq!(allocations(), warm);
    let more = emulator_calls("cuLaunchKernel").expect("the emulator is loaded");
    assert!(more > launches);
}

#[test]
fn recorded_steps_give_the_same_bits_and_are_launched_again() {
    let _one = alone();
    let small = open("nano-small");
    let prompts: Vec<Vec<u32>> = (problems(3).iter())
        .map(|p| small.tokenizer.encode(&p.problem, true).expect("tokens"))
        .collect();
    let calls = || {
        ["cuStreamBeginCapture_v2", "cuGraphLaunch", "cuLaunchKernel"]
            .map(|name| emulator_calls(name).expect("the emulator is loaded"))
    };
    let [(expected, plain), (found, recorded)] = [false, true].map(|graphs| {
        let mut backend = CudaBackend::open(Which::Emulated).expect("the emulator opens");
        backend.set_graphs(graphs);
        let emulated = engine(backend, &small);
        let before = calls();
        let generated = continued(&emulated, &prompts, Sampling::default());
        let after = calls();
        (generated, [0, 1, 2].map(|i| after[i] - before[i]))
    });
    assert_eq!(found, expected);
    assert_eq!(plain[..2], [0, 0]);
    let [captures, launches, kernels] = recorded;
    assert!(launches > 30 && captures * 4 < launches, "{recorded:?}");
    assert!(
        kernels * 4 < plain[2],
        "{recorded:?}, without graphs {plain:?}"
    );
}

#[test]
fn models_that_do_not_fit_are_an_error_of_the_command_line() {
    build_emulator();
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
    command.args(["solve", "--limit", "1", "--device", "emulated"]);
    command.args(["--gpu-memory-fraction", "0.00001"]);
    let output = command.output().expect("the binary starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    let words = ["the models take", "the KV cache", "838.9 KiB may be used"];
    for word in words {
        assert!(message.contains(word), "{message}");
    }
}

/// Every section of the run on a card, on small shapes: each ends well, and each figure is marked.
#[test]
fn the_gpu_check_runs_from_end_to_end() {
    build_emulator();
    let folder = scratch("gpu-check");
    let binary = Path::new(env!("CARGO_BIN_EXE_offshoot"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/gpu-check");
    let run = |device: &str| {
        let mut command = Command::new(&script);
        command.args([binary, &folder]).arg(device);
        command.env("OFFSHOOT_CUBLASLT", binary.with_file_name("libcublasLt.so"));
        command.output().expect("bash starts")
    };
    let output = run("emulated");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = std::fs::read_to_string(folder.join("gpu.log")).expect("a log");
    assert!(output.status.success(), "{said}\n{log}");
    let text = std::fs::read_to_string(folder.join("gpu.jsonl")).expect("figures");
    let figures: Vec<Value> = (text.lines())
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    for section in [
        "check",
        "occupancy",
        "ceilings",
        "decode",
        "prefill",
        "linear",
        "gated",
        "sampling",
        "attention",
        "nano",
    ] {
        let found = figures.iter().any(|figure| figure["section"] == section);
        assert!(found, "{section} is missing: {said}");
    }
    for (case, name) in [("20/64/64", "kernel"), ("20/64/64", "cublaslt")] {
        let is = |f: &&Value| f["case"] == case && f["figure"] == name && f["section"] == "linear";
        let figure = figures.iter().find(is).expect("a linear layer");
        assert_eq!(figure["emulated"], true, "{figure}");
    }
    let resident = |figure: &str| -> Vec<f64> {
        let of = (figures.iter()).filter(|f| f["section"] == "occupancy" && f["figure"] == figure);
        of.filter_map(|f| f["value"].as_f64()).collect()
    };
    assert!(resident("resident").len() > 50);
    assert_eq!(resident("resident").len(), resident("wanted").len());
    let report = std::fs::read_to_string(folder.join("report.txt")).expect("a report");
    assert!(report.contains("None of them is a measurement"), "{report}");
    assert!(report.contains("## attention"), "{report}");
    // A wrong call, and a machine without a card.
    assert_eq!(run("tpu").status.code(), Some(2));
    if kernels::cuda::cards().is_err() {
        assert_eq!(run("cuda").status.code(), Some(3));
    }
}

#[test]
fn throughput_is_measured_with_and_without_what_saves_time() {
    build_emulator();
    let counters = scratch("throughput-without").join("counters.json");
    let [all, without] = ["", "--without=graphs,running-ahead,cublaslt,sharing"].map(|without| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
        command.env("OFFSHOOT_EMULATOR_COUNTERS", &counters);
        command.args([
            "bench",
            "throughput",
            "nano-small",
            "--device=emulated",
            "--json",
        ]);
        command.args(["--prompt=128", "--branches=8", "--generate=4"]);
        command.args(["--repeat=1", "--warm-up=0"]);
        command.args((!without.is_empty()).then_some(without));
        let report = json_of(&finish(&mut command, ""));
        // The first token of a branch is the prefill's.
        assert_eq!(
            report["rows"][0]["decode"]["tokens"], 32,
            "{without}: {report}"
        );
        let text = std::fs::read_to_string(&counters).expect("counters");
        let counted: Value = serde_json::from_str(&text).expect("counters are JSON");
        let launches = counted["launches"].as_array().expect("launches");
        let attention = (launches.iter()).filter(|l| l["kernel"] == "tree_attention");
        let instructions = attention.filter_map(|l| l["warp_instructions"].as_f64());
        instructions.sum::<f64>()
    });
    assert!(
        all > 0.0 && 1.5 * all < without,
        "{all} instructions of attention, {without}"
    );
}

/// The logits after `tokens`.
fn logits((engine, model): &(Engine, Model), tokens: &[u32]) -> Vec<f32> {
    let mut branch = model.root(0);
    let read = engine
        .run(branch.read(tokens, &[tokens.len() - 1]))
        .expect("the engine runs");
    read.expect("logits").remove(0)
}

#[test]
fn greedy_tokens_are_the_cpus_or_nearly_tied() {
    let _one = alone();
    let small = open("nano-small");
    let cpu = engine(CpuBackend::new(1), &small);
    let backend = CudaBackend::open(Which::Emulated).expect("the emulator opens");
    let emulated = engine(backend, &small);
    let prompts: Vec<Vec<u32>> = (problems(24).iter())
        .map(|p| {
            small
                .tokenizer
                .encode(&p.problem, true)
                .expect("a problem's tokens")
        })
        .collect();

    let (mut complaints, mut parted) = (Vec::new(), 0);
    let on_cpu = greedy(&cpu, &prompts);
    for ((prompt, expected), found) in prompts.iter().zip(on_cpu).zip(greedy(&emulated, &prompts)) {
        let same = (found.iter().zip(&expected))
            .take_while(|(a, b)| a == b)
            .count();
        let tokens = [&prompt[..], &expected[..same]].concat();
        let (here, there) = (logits(&emulated, &tokens), logits(&cpu, &tokens));
        let apart: Vec<f32> = here.iter().zip(&there).map(|(a, b)| a - b).collect();
        let norm = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
        // Activations are rounded to bf16 (2^-8) about eight times a layer, three layers.
        let error = norm(&apart) / norm(&there);
        if error.is_nan() || error > 0.05 {
            complaints.push(format!(
                "{prompt:?}: logits differ by {error} of their size"
            ));
        }
        // Tokens may part only where the logits' differences are enough to change the order.
        let most = apart.iter().fold(0.0f32, |most, a| most.max(a.abs()));
        if let (Some(&here), Some(&cpus)) = (found.get(same), expected.get(same)) {
            parted += 1;
            let margin = there[cpus as usize] - there[here as usize];
            if margin > 2.0 * most {
                complaints.push(format!(
                    "{prompt:?}: token {same} with a margin of {margin}"
                ));
            }
        }
    }
    if parted > 3 {
        complaints.push(format!("{parted} of 24 continuations part"));
    }
    report(&complaints);
}
