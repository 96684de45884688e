//! The output of `offshoot inspect` for the paper's policies and PRMs, from `config.json` alone
//! (tests/golden/configs; tests/golden/README.md says where their facts are from).
//!
//! Parameter counts are those of transformers' own classes, built from the same files without
//! memory; a PRM's are its body's and its reward head's, without an LM head it has no use for and
//! without the value head's one bias, which a checkpoint may lack.

use crate::common::{json_of, offshoot, report, repository, scratch, stdout_of};
use serde_json::{Value, json};
use strategies::PrmKind;

/// A directory of `tests/golden/configs` and what must be said of it.
struct Case {
    directory: &'static str,
    architecture: &'static str,
    parameters: u64,
    context: u64,
    /// Bytes, in bf16.
    kv_per_token: u64,
    /// Positions of the sliding window, and how many layers have it if not all do.
    window: Option<(u64, Option<u64>)>,
    scaling: Option<&'static str>,
    tied: bool,
    /// Read as a PRM in this form; else it is a policy alone. An LM head can write in either case.
    prm: Option<PrmKind>,
}

impl Case {
    const fn new(
        directory: &'static str,
        architecture: &'static str,
        parameters: u64,
        context: u64,
        kv_per_token: u64,
    ) -> Case {
        Case {
            directory,
            architecture,
            parameters,
            context,
            kv_per_token,
            window: None,
            scaling: None,
            tied: false,
            prm: None,
        }
    }

    const fn tied(self) -> Case {
        Case { tied: true, ..self }
    }

    const fn llama3(self) -> Case {
        Case {
            scaling: Some("llama3"),
            ..self
        }
    }

    const fn window(self, positions: u64) -> Case {
        Case {
            window: Some((positions, None)),
            ..self
        }
    }

    const fn window_of_layers(self, positions: u64, layers: u64) -> Case {
        Case {
            window: Some((positions, Some(layers))),
            ..self
        }
    }

    const fn prm(self, kind: PrmKind) -> Case {
        Case {
            prm: Some(kind),
            ..self
        }
    }
}

const LLAMA: &str = "LlamaForCausalLM";
const MISTRAL: &str = "MistralForCausalLM";
const QWEN2: &str = "Qwen2ForCausalLM";
const QWEN3: &str = "Qwen3ForCausalLM";
const GEMMA3: &str = "Gemma3ForCausalLM";
const VALUE: &str = "Qwen2ForPrmModel";
const PROCESS: &str = "Qwen2ForProcessRewardModel";

#[rustfmt::skip]
const CASES: [Case; 33] = [
    Case::new("DeepSeek-R1-Distill-Llama-8B", LLAMA, 8_030_261_248, 131_072, 131_072).llama3(),
    Case::new("DeepSeek-R1-Distill-Qwen-1.5B", QWEN2, 1_777_088_000, 131_072, 28_672),
    Case::new("DeepSeek-R1-Distill-Qwen-14B", QWEN2, 14_770_033_664, 131_072, 196_608),
    Case::new("DeepSeek-R1-Distill-Qwen-32B", QWEN2, 32_763_876_352, 131_072, 262_144),
    Case::new("DeepSeek-R1-Distill-Qwen-7B", QWEN2, 7_615_616_512, 131_072, 57_344),
    Case::new("Llama-3.1-70B-Instruct", LLAMA, 70_553_706_496, 131_072, 327_680).llama3(),
    Case::new("Llama-3.1-8B-Instruct", LLAMA, 8_030_261_248, 131_072, 131_072).llama3(),
    Case::new("Llama-3.2-1B-Instruct", LLAMA, 1_235_814_400, 131_072, 32_768).llama3().tied(),
    Case::new("Llama-3.2-3B-Instruct", LLAMA, 3_212_749_824, 131_072, 114_688).llama3().tied(),
    Case::new("Llama3.1-8B-PRM-Deepseek-Data", LLAMA, 8_030_261_248, 131_072, 131_072).llama3().prm(PrmKind::RlhFlow),
    Case::new("Llama3.1-8B-PRM-Mistral-Data", LLAMA, 8_030_261_248, 131_072, 131_072).llama3().prm(PrmKind::RlhFlow),
    Case::new("Mistral-7B-Instruct-v0.1", MISTRAL, 7_241_732_096, 32_768, 131_072).window(4096),
    Case::new("Mistral-7B-Instruct-v0.3", MISTRAL, 7_248_023_552, 32_768, 131_072),
    Case::new("Qwen2.5-0.5B-Instruct", QWEN2, 494_032_768, 32_768, 12_288).tied(),
    Case::new("Qwen2.5-1.5B-Instruct", QWEN2, 1_543_714_304, 32_768, 28_672).tied(),
    Case::new("Qwen2.5-14B-Instruct", QWEN2, 14_770_033_664, 32_768, 196_608),
    Case::new("Qwen2.5-32B-Instruct", QWEN2, 32_763_876_352, 32_768, 262_144),
    Case::new("Qwen2.5-3B-Instruct", QWEN2, 3_085_938_688, 32_768, 36_864).tied(),
    Case::new("Qwen2.5-72B-Instruct", QWEN2, 72_706_203_648, 32_768, 327_680),
    Case::new("Qwen2.5-7B-Instruct", QWEN2, 7_615_616_512, 32_768, 57_344),
    Case::new("Qwen2.5-Math-1.5B-Instruct", QWEN2, 1_543_714_304, 4096, 28_672).tied(),
    Case::new("Qwen2.5-Math-7B-Instruct", QWEN2, 7_615_616_512, 4096, 57_344),
    Case::new("Qwen2.5-Math-7B-PRM800K", PROCESS, 7_083_474_946, 4096, 57_344).prm(PrmKind::QwenMath),
    Case::new("Qwen2.5-Math-PRM-72B", PROCESS, 71_527_628_802, 4096, 327_680).prm(PrmKind::QwenMath),
    Case::new("Qwen2.5-Math-PRM-7B", PROCESS, 7_083_474_946, 4096, 57_344).prm(PrmKind::QwenMath),
    Case::new("Qwen3-0.6B", QWEN3, 596_049_920, 40_960, 114_688).tied(),
    Case::new("Qwen3-1.7B", QWEN3, 1_720_574_976, 40_960, 114_688).tied(),
    Case::new("Qwen3-4B", QWEN3, 4_022_468_096, 40_960, 147_456).tied(),
    Case::new("Qwen3-8B", QWEN3, 8_190_735_360, 40_960, 147_456),
    Case::new("Skywork-o1-Open-PRM-Qwen-2.5-1.5B", VALUE, 1_543_715_840, 4096, 28_672).tied().prm(PrmKind::Skywork),
    Case::new("Skywork-o1-Open-PRM-Qwen-2.5-7B", VALUE, 7_070_622_720, 4096, 57_344).prm(PrmKind::Skywork),
    Case::new("gemma-3-1b-it", GEMMA3, 999_885_952, 32_768, 26_624).window_of_layers(512, 22).tied(),
    Case::new("math-shepherd-mistral-7b-prm", MISTRAL, 7_241_732_096, 32_768, 131_072).window(4096).prm(PrmKind::MathShepherd),
];

#[test]
fn the_list_is_what_the_folder_holds() {
    let mut found: Vec<String> = std::fs::read_dir(repository("tests/golden/configs"))
        .expect("the configs are there")
        .map(|entry| entry.expect("a readable entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, CASES.map(|case| case.directory));
}

/// The facts of a model that writes.
const WRITES: &str = "its LM head writes the next token; a text ends at its eos token";

#[test]
fn inspect_says_what_would_happen() {
    let folder = scratch("inspect-configs");
    let mut complaints = Vec::new();
    for case in &CASES {
        let directory = repository("tests/golden/configs").join(case.directory);
        let directory = directory.to_str().expect("a path in UTF-8");
        let found = json_of(&offshoot(&folder, &["inspect", "--json", directory], ""));
        let writes = !matches!(case.architecture, VALUE | PROCESS);
        let layers = found["layers"].clone();
        for (field, expected) in [
            ("name", json!(directory)),
            ("architecture", json!(case.architecture)),
            ("parameters", json!(case.parameters)),
            ("bytes", json!(2 * case.parameters)),
            ("dtype", json!("bfloat16")),
            ("files", json!([])),
            ("context", json!(case.context)),
            ("kv_bytes_per_token", json!(case.kv_per_token)),
            (
                "sliding_window",
                match case.window {
                    None => Value::Null,
                    Some((positions, some)) => {
                        let layers = some.map_or(layers, Value::from);
                        json!({"positions": positions, "layers": layers})
                    }
                },
            ),
            ("rope_scaling", json!(case.scaling)),
            ("tied_embeddings", json!(case.tied)),
            ("tokenizer", Value::Null),
        ] {
            if found[field] != expected {
                let (name, found) = (case.directory, &found[field]);
                complaints.push(format!("{name}: {field} is {found}, expected {expected}"));
            }
        }
        // Each verdict with how or why not, and that the weights are missing.
        let policy = match case.architecture {
            VALUE => "its head values tokens and writes none".to_string(),
            PROCESS => "its head judges steps and writes nothing".to_string(),
            _ => WRITES.to_string(),
        };
        let prm = match case.prm {
            Some(kind) => format!("{}: {}", kind.name(), kind.read_out()),
            None => format!(
                "{} has an LM head and no reward head; if it was trained to answer steps with + and \
                 -, name its form with --prm-format: math-shepherd or rlhflow",
                case.architecture
            ),
        };
        for (part, can, how) in [("policy", writes, policy), ("prm", case.prm.is_some(), prm)] {
            let expected = json!({"can": can, "how": how});
            if found[part] != expected {
                let (name, found) = (case.directory, &found[part]);
                complaints.push(format!("{name}: {part} is {found}, expected {expected}"));
            }
        }
        let missing = found["without_weights"].as_str().unwrap_or_default();
        if !(missing.contains(directory) && missing.contains("model.safetensors")) {
            complaints.push(format!("{}: missing weights: {missing:?}", case.directory));
        }
        let text = stdout_of(&offshoot(&folder, &["inspect", directory], ""));
        let positions = case.window.map_or(0, |(positions, _)| positions);
        let window = format!("layers see the last {positions}");
        for (what, expected) in [
            (format!("{} parameters", case.parameters), true),
            (
                format!("{} bytes of KV cache a token", case.kv_per_token),
                true,
            ),
            (format!("weights    {missing}\n"), true),
            ("(llama3 rotary scaling)".into(), case.scaling.is_some()),
            (window, case.window.is_some()),
        ] {
            if text.contains(&what) != expected {
                complaints.push(format!("{}: {what:?} in {text}", case.directory));
            }
        }
    }
    report(&complaints);
}
