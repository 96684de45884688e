//! Quantised weights: made on loading or stored by `offshoot quantize`, the same numbers; near
//! those of the floats; and what cannot be quantised is refused.

use std::path::Path;

use crate::common::{json_of, offshoot, repository, scratch};
use engine::checkpoint::Checkpoint;
use engine::checkpoint::config::HeadKind;
use engine::checkpoint::quantize;
use engine::checkpoint::source::Source;
use engine::{Engine, ModelSpec, Options};
use kernels::{CpuBackend, Quantization};
use serde_json::{Value, json};

/// Tied, untied, sharded and PRMs' heads; every one has a width that is no whole groups.
const MODELS: [&str; 6] = [
    "llama-g4-untied-f32-sharded",
    "llama3-g4-tied-bf16",
    "llama-g2-untied-f16",
    "qwen2-g4-score2-f32",
    "qwen2-g4-tied-bf16-sharded",
    "qwen3-g8-untied-bf16",
];

fn golden(name: &str) -> Checkpoint {
    let folder = repository("tests/golden/data").join(name);
    open(&folder)
}

fn open(folder: &Path) -> Checkpoint {
    let source = Source::directory(folder).expect("a directory");
    Checkpoint::open(source).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// The head's numbers at each of 40 tokens.
fn outputs(
    checkpoint: &Checkpoint,
    quantize: Option<Quantization>,
    head_rows: Option<Vec<u32>>,
) -> Vec<f32> {
    let options = Options {
        kv_bytes: Some(4 << 20),
        quantize,
        ..Options::default()
    };
    let part = ModelSpec {
        head_rows,
        ..ModelSpec::new(checkpoint, None)
    };
    let (engine, models) = Engine::new(CpuBackend::new(2), &[part], &options).expect("it loads");
    let tokens: Vec<u32> = (0..40).map(|i| 5 + i * 7 % 50).collect();
    let at: Vec<usize> = (0..tokens.len()).collect();
    let rows = engine.run(models[0].root(0).read(&tokens, &at));
    rows.expect("the engine runs").expect("rows").concat()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn relative_error(a: &[f32], b: &[f32]) -> f32 {
    let size: f32 = b.iter().map(|b| b * b).sum();
    (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / size).sqrt()
}

#[test]
fn stored_or_made_on_loading_the_numbers_are_the_same() {
    let folder = scratch("quantized-stored");
    for name in MODELS {
        let checkpoint = golden(name);
        let exact = outputs(&checkpoint, None, None);
        for (kind, most) in [(Quantization::Int8, 0.06), (Quantization::Int4, 0.5)] {
            let made = outputs(&checkpoint, Some(kind), None);
            let to = folder.join(format!("{name}-{}", kind.name()));
            let written = quantize::write(&checkpoint, kind, false, &to).expect("it is written");
            assert!(written.quantized > 0 && written.bytes < 4 * checkpoint.params());
            let narrow = |name: &String| name.contains("down_proj");
            assert!(written.left.iter().any(narrow), "{:?}", written.left);
            let stored = open(&to);
            assert_eq!(stored.config.quantization, Some(kind));
            assert_eq!(
                bits(&outputs(&stored, None, None)),
                bits(&made),
                "{name} {kind:?}"
            );
            let error = relative_error(&made, &exact);
            assert!(error > 0.0 && error < most, "{name} {kind:?}: {error}");
        }
    }
}

#[test]
fn a_head_is_left_alone_or_read_by_the_row() {
    let folder = scratch("quantized-head");
    for name in ["llama3-g4-tied-bf16", "qwen3-g8-untied-bf16"] {
        let checkpoint = golden(name);
        let kind = Quantization::Int8;
        let (kept, changed) = (folder.join(name), folder.join(format!("{name}-changed")));
        let written = quantize::write(&checkpoint, kind, true, &kept).expect("it is written");
        assert!(written.left.contains(&"lm_head.weight".to_string()));
        quantize::write(&checkpoint, kind, false, &changed).expect("it is written");
        let rows = Some(vec![9, 4]);
        let exact = outputs(&checkpoint, Some(kind), rows.clone());
        // A PRM's rows are not quantised on loading, nor where the head was left alone.
        let kept = open(&kept);
        assert_eq!(
            kept.config.tied_embeddings,
            checkpoint.config.tied_embeddings
        );
        assert_eq!(
            bits(&outputs(&kept, None, rows.clone())),
            bits(&exact),
            "{name}"
        );
        let of_quantized = outputs(&open(&changed), None, rows);
        let error = relative_error(&of_quantized, &exact);
        assert!(error > 0.0 && error < 0.02, "{name}: {error}");
    }
    assert!(matches!(
        golden("qwen2-g4-score2-f32").config.head,
        HeadKind::TokenClassification { .. }
    ));
}

#[test]
fn the_command_writes_a_model_that_solves() {
    let folder = scratch("quantized-command");
    let made = ["quantize", "nano-small", "small8", "--json"];
    let said = json_of(&offshoot(&folder, &made, ""));
    assert_eq!(said["kind"], "int8");
    assert!(said["bytes"].as_u64() < said["bytes_before"].as_u64());
    let about = json_of(&offshoot(&folder, &["inspect", "small8", "--json"], ""));
    assert_eq!(about["quantization"], "int8");
    let solve = [
        "solve", "--limit", "2", "--n", "4", "--json", "--prm", "nano-prm",
    ];
    let stored = [&solve[..], &["--policy", "small8"]].concat();
    let stored = json_of(&offshoot(&folder, &stored, ""));
    assert_eq!(stored["problems"], 2);
    assert_eq!(stored["failed"], 0);
}

#[test]
fn what_cannot_be_is_one_sentence() {
    let folder = scratch("quantized-refused");
    let refused = |arguments: &[&str], says: &str| {
        let output = offshoot(&folder, arguments, "");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(
            error.starts_with("error: ") && error.contains(says),
            "{arguments:?}: {error}"
        );
    };
    std::fs::create_dir(folder.join("there")).expect("a folder");
    refused(
        &["quantize", "nano-small", "there"],
        "cannot write there: exists already",
    );
    refused(
        &["quantize", "nano-small", "no/where"],
        "cannot write no/where",
    );
    refused(
        &["quantize", "nano-small", "new", "--kind", "int3"],
        "--kind",
    );
    let made = offshoot(
        &folder,
        &["quantize", "nano-small", "made", "--kind", "int4"],
        "",
    );
    assert!(made.status.success());
    refused(&["quantize", "made", "again"], "`quantization_config`");
}

#[test]
fn configs_that_are_not_served_name_their_field() {
    let folder = scratch("quantized-configs");
    let to = folder.join("made");
    let checkpoint = golden("qwen3-g8-untied-bf16");
    quantize::write(&checkpoint, Quantization::Int8, false, &to).expect("it is written");
    let path = to.join("config.json");
    let text = std::fs::read_to_string(&path).expect("a config");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let weights = "/quantization_config/config_groups/group_0/weights";
    for (place, field, value) in [
        ("/quantization_config", "quant_method", json!("gptq")),
        ("/quantization_config", "format", json!("float-quantized")),
        ("/quantization_config", "config_groups", json!({})),
        (weights, "num_bits", json!(3)),
        (weights, "type", json!("float")),
        (weights, "symmetric", json!(false)),
        (weights, "strategy", json!("channel")),
        (weights, "group_size", json!(128)),
        (weights, "actorder", json!("group")),
    ] {
        let mut changed = config.clone();
        changed.pointer_mut(place).expect("a place")[field] = value;
        std::fs::write(&path, changed.to_string()).expect("a config is written");
        let error = Checkpoint::open(Source::directory(&to).expect("a directory"))
            .expect_err("this is refused")
            .to_string();
        assert!(error.contains(&format!(".{field}`")), "{field}: {error}");
    }
    // A scale that is missing is a tensor that is missing.
    std::fs::write(&path, &text).expect("a config is written");
    let weights = to.join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    let at = (bytes.windows(18).position(|w| w == b"lm_head.weight_sca")).expect("a scale");
    let mut changed = bytes;
    changed[at + 17] = b'x';
    std::fs::write(&weights, changed).expect("weights are written");
    let error = Checkpoint::open(Source::directory(&to).expect("a directory"))
        .expect_err("this is refused")
        .to_string();
    assert!(error.contains("lm_head.weight_scale"), "{error}");
}
