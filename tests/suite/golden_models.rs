//! Every model of `tests/golden/data` gives the numbers transformers gives
//! (tests/golden/README.md).
//!
//! Compared is ‖a - b‖ / ‖b‖ over the output at all 33 positions, read in one call and so through
//! paged attention over three blocks:
//!
//! - arithmetic in f32 with K and V in f32 against transformers in f32 on the same stored weights,
//!   bf16 weights included (a bf16 weight is an f32 exactly): at most 1e-4;
//! - models stored in 16 bits, with K and V stored so as the command line runs them: at most 2e-2,
//!   both against f32 and against transformers' own 16 bits, which are themselves up to 1.2e-2 off;
//! - hidden states of every layer, f32 arithmetic: at most 1e-4;
//! - greedy text, f32 arithmetic: all 64 tokens.

use std::path::Path;

use crate::common::{report, repository};
use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::{
    Branch, Confidences, Dtype, Engine, Finish, Generate, Model, ModelSpec, Options, Sampling,
};
use futures::future::try_join_all;
use kernels::CpuBackend;
use safetensors::SafeTensors;
use serde_json::Value;

/// Positions of the committed hidden states.
const HIDDEN_POSITIONS: [usize; 4] = [0, 15, 16, 32];

/// A directory of `tests/golden/data`; the 16-bit type it is stored in, if it is, and whether it
/// writes.
struct Case {
    directory: &'static str,
    half: Option<&'static str>,
    causal: bool,
}

const CASES: [Case; 26] = [
    case("gemma3-g1-tied-f32", None, true),
    case("gemma3-g2-tied-bf16", Some("bf16"), true),
    case("gemma3-g4-tied-f32", None, true),
    case("gemma3-g8-untied-bf16", Some("bf16"), true),
    case("llama-g1-tied-f32", None, true),
    case("llama-g2-biased-f32", None, true),
    case("llama-g2-score2-f32", None, false),
    case("llama-g2-untied-bf16", Some("bf16"), true),
    case("llama-g2-untied-f16", Some("f16"), true),
    case("llama-g4-untied-f32-sharded", None, true),
    case("llama-g8-tied-bf16", Some("bf16"), true),
    case("llama3-g2-untied-f32", None, true),
    case("llama3-g4-tied-bf16", Some("bf16"), true),
    case("mistral-g2-untied-bf16", Some("bf16"), true),
    case("mistral-g4-untied-f32", None, true),
    case("mistral-g8-tied-bf16", Some("bf16"), true),
    case("qwen2-g1-untied-bf16", Some("bf16"), true),
    case("qwen2-g2-score3-bf16", Some("bf16"), false),
    case("qwen2-g2-tied-f32", None, true),
    case("qwen2-g2-untied-f32-window", None, true),
    case("qwen2-g4-score2-f32", None, false),
    case("qwen2-g4-tied-bf16-sharded", Some("bf16"), true),
    case("qwen2-g8-untied-f32", None, true),
    case("qwen3-g1-untied-f32", None, true),
    case("qwen3-g2-tied-f32", None, true),
    case("qwen3-g8-untied-bf16", Some("bf16"), true),
];

const fn case(directory: &'static str, half: Option<&'static str>, causal: bool) -> Case {
    Case {
        directory,
        half,
        causal,
    }
}

/// The golden files of one directory.
struct Golden {
    notes: Value,
    tensors: Vec<u8>,
}

impl Golden {
    fn read(folder: &Path) -> Golden {
        let file = |name| std::fs::read(folder.join(name)).expect("golden files are committed");
        Golden {
            notes: serde_json::from_slice(&file("golden.json")).expect("golden.json is JSON"),
            tensors: file("golden.safetensors"),
        }
    }

    fn tokens(&self, name: &str) -> Vec<u32> {
        serde_json::from_value(self.notes[name].clone()).expect("a list of token ids")
    }

    /// A tensor's values in row order, as f64.
    fn values(&self, name: &str) -> Vec<f64> {
        let all = SafeTensors::deserialize(&self.tensors).expect("golden.safetensors is whole");
        let tensor = all.tensor(name).expect("the golden tensor is there");
        let bytes = tensor.data();
        match tensor.dtype() {
            safetensors::Dtype::F32 => (bytes.chunks_exact(4))
                .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
            safetensors::Dtype::F16 => (bytes.chunks_exact(2))
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64())
                .collect(),
            safetensors::Dtype::BF16 => (bytes.chunks_exact(2))
                .map(|b| f64::from(f32::from_le_bytes([0, 0, b[0], b[1]])))
                .collect(),
            other => panic!("{name} is {other:?}"),
        }
    }
}

/// The model of a directory, alone on an engine.
fn load(folder: &Path, kv: Option<Dtype>) -> (Engine, Model) {
    let source = Source::directory(folder).expect("a directory of tests/golden/data");
    let checkpoint = Checkpoint::open(source).expect("a golden checkpoint opens");
    let options = Options {
        kv_bytes: Some(4 << 20),
        kv_dtype: kv.map(Into::into),
        ..Options::default()
    };
    let (engine, mut models) = Engine::new(
        CpuBackend::new(2),
        &[ModelSpec::new(&checkpoint, None)],
        &options,
    )
    .expect("it loads");
    (engine, models.remove(0))
}

/// The head's numbers at every one of `tokens`, in row order.
fn outputs(folder: &Path, kv: Option<Dtype>, tokens: &[u32]) -> Vec<f64> {
    let (engine, model) = load(folder, kv);
    let mut branch: Branch = model.root(0);
    let at: Vec<usize> = (0..tokens.len()).collect();
    let rows = engine
        .run(branch.read(tokens, &at))
        .expect("the engine runs")
        .expect("a row at every position");
    rows.into_iter().flatten().map(f64::from).collect()
}

fn greedy(folder: &Path, prompt: &[u32], count: usize) -> (Vec<u32>, Finish) {
    let (engine, model) = load(folder, Some(Dtype::F32));
    let mut branch = model.root(0);
    branch.append(prompt).expect("the prompt fits");
    let how = Generate {
        sampling: Sampling::GREEDY,
        max_tokens: count,
        stop_strings: Vec::new(),
        include_stop: false,
        stop_token_ids: vec![1],
        stream: None,
        confidences: Confidences::None,
    };
    let generated = engine
        .run(branch.generate(how))
        .expect("the engine runs")
        .expect("the prompt is continued");
    (generated.token_ids, generated.finish)
}

/// ‖a - b‖ / ‖b‖; infinite when the lengths differ.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (difference / size).sqrt()
}

#[test]
fn the_list_is_what_the_folder_holds() {
    let mut found: Vec<String> = std::fs::read_dir(repository("tests/golden/data"))
        .expect("the golden data is there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.join("golden.json").exists())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    found.sort();
    let listed: Vec<&str> = CASES.iter().map(|c| c.directory).collect();
    assert_eq!(found, listed);
}

#[test]
fn outputs_are_those_of_transformers() {
    let mut complaints = Vec::new();
    for Case {
        directory,
        half,
        causal,
    } in CASES
    {
        let folder = repository("tests/golden/data").join(directory);
        let golden = Golden::read(&folder);
        let tokens = golden.tokens("input_ids");
        let name = if causal { "logits" } else { "scores" };
        let exact = golden.values(name);
        let mut check = |what: &str, ours: &[f64], theirs: &[f64], most: f64| {
            let error = relative_error(ours, theirs);
            if error.is_nan() || error > most {
                complaints.push(format!(
                    "{directory}, {what}: relative error {error:.2e}, at most {most:.0e} expected"
                ));
            }
        };
        let ours = outputs(&folder, Some(Dtype::F32), &tokens);
        check("f32 KV against f32", &ours, &exact, 1e-4);
        if let Some(half) = half {
            let theirs = golden.values(&format!("{name}_{half}"));
            check("f32 KV against 16 bits", &ours, &theirs, 2e-2);
            let ours = outputs(&folder, None, &tokens);
            check("16-bit KV against f32", &ours, &exact, 2e-2);
            check("16-bit KV against 16 bits", &ours, &theirs, 2e-2);
        }
    }
    report(&complaints);
}

/// The hidden states of one directory by layer: `[positions, hidden]` each.
fn golden_hidden_states(directory: &str) -> Vec<Vec<f64>> {
    let file = repository("tests/golden/data/hidden/hidden_states.safetensors");
    let bytes = std::fs::read(file).expect("golden files are committed");
    let all = SafeTensors::deserialize(&bytes).expect("the file is whole");
    let tensor = all.tensor(directory).expect("every model is there");
    let values: Vec<f64> = (tensor.data().chunks_exact(4))
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let layers = tensor.shape()[0];
    assert_eq!(tensor.shape()[1], HIDDEN_POSITIONS.len());
    (values.chunks_exact(values.len() / layers))
        .map(<[f64]>::to_vec)
        .collect()
}

#[test]
fn hidden_states_are_those_of_transformers() {
    let mut complaints = Vec::new();
    for Case { directory, .. } in CASES {
        let folder = repository("tests/golden/data").join(directory);
        let tokens = Golden::read(&folder).tokens("input_ids");
        let (engine, model) = load(&folder, Some(Dtype::F32));
        let mut branch = model.root(0);
        branch.append(&tokens).expect("the tokens fit");
        let expected = golden_hidden_states(directory);
        assert_eq!(expected.len(), model.num_layers() + 1, "{directory}");
        // All layers at once: their batches take turns.
        let reads = (0..expected.len()).map(|layer| branch.hidden_states(layer, 0..tokens.len()));
        let found = engine.run(try_join_all(reads)).expect("the engine runs");
        let found = found.expect("hidden states");
        for (layer, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let found: Vec<f64> = (HIDDEN_POSITIONS.iter())
                .flat_map(|&position| &found[position])
                .map(|&number| f64::from(number))
                .collect();
            let error = relative_error(&found, expected);
            if error.is_nan() || error > 1e-4 {
                complaints.push(format!("{directory}, layer {layer}: error {error:.2e}"));
            }
        }
        assert_eq!(branch.token_ids(), tokens);
    }
    report(&complaints);
}

#[test]
fn greedy_text_is_that_of_transformers() {
    let mut complaints = Vec::new();
    for Case { directory, .. } in CASES.iter().filter(|c| c.causal) {
        let folder = repository("tests/golden/data").join(directory);
        let golden = Golden::read(&folder);
        let (expected, prompt) = (golden.tokens("greedy"), golden.tokens("prompt"));
        assert_eq!(expected.len(), 64, "{directory}");
        let found = greedy(&folder, &prompt, expected.len());
        if found != (expected.clone(), Finish::Length) {
            let same = (found.0.iter().zip(&expected))
                .take_while(|(a, b)| a == b)
                .count();
            complaints.push(format!(
                "{directory}: {same} of 64 tokens the same, then {:?} for {:?}, ended by {:?}",
                found.0.get(same),
                expected.get(same),
                found.1
            ));
        }
    }
    report(&complaints);
}
