//! Checkpoints: the files of a model, opened and checked.
//!
//! From the bottom up:
//!
//! - [`source`]: where the files are: a directory, or bytes inside the program. `json`: their
//!   fields. [`hub`]: directories fetched from the Hugging Face hub.
//! - [`arch`]: what distinguishes model families, one row each. [`rope`], `quantization`: objects
//!   inside a config. [`config`]: `config.json`. [`generation`]: `generation_config.json`.
//! - [`layout`]: the tensors of a model with a given config: the only list of them.
//! - `container`: tensors by name, whichever format holds them. `safetensors`: the one format.
//!   `packed`: matrices of 8 and 4 bits.
//! - [`Checkpoint`]: all of these opened, every tensor known to be there.
//! - [`quantize`]: writes a checkpoint with quantised matrices. [`new_folder`]: whole or not at all.

pub mod arch;
pub mod config;
mod container;
pub mod generation;
pub mod hub;
pub(crate) mod json;
pub mod layout;
pub mod new_folder;
mod packed;
mod quantization;
pub mod quantize;
mod random;
pub mod rope;
mod safetensors;
pub mod source;

use kernels::{Dtype, MatrixView, Quantization, QuantizedMatrix};

use self::config::{HeadKind, ModelConfig};
use self::container::{Tensors, to_f32};
use self::generation::GenerationConfig;
use self::layout::{LinearSpec, ModelLayout, TensorSpec};
use self::source::Source;
use crate::error::{Error, Result};

/// A model's files, opened: every tensor the model needs is known to be there, in the right shape
/// and in a type the engine computes with. Of the weights themselves at most a second copy of the
/// embedding has been read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Shapes and constants.
    pub config: ModelConfig,
    /// Generation defaults.
    pub generation: GenerationConfig,
    /// What its user should know: sentences about files that contradict each other.
    pub warnings: Vec<String>,
    layout: ModelLayout,
    source: Source,
    tensors: Tensors,
    params: usize,
    bytes: usize,
}

impl Checkpoint {
    /// Opens a checkpoint and compares its tensors with its config. A config that ties the LM head
    /// to the embedding and weights with a head of their own agree in [`Checkpoint::config`]
    /// afterwards.
    ///
    /// # Errors
    /// A file that is missing, is not readable or contradicts itself; a tensor that is missing or
    /// has another shape or type than the config implies.
    pub fn open(source: Source) -> Result<Checkpoint> {
        let mut config = ModelConfig::open(&source)?;
        let generation = GenerationConfig::open(&source)?;
        let tensors = safetensors::open(&source, &config.architecture)?;
        config.head = head(&config, &tensors, &source)?;
        let warnings = untie(&mut config, &tensors, &source)?.into_iter().collect();
        let mut layout = ModelLayout::new(&config);
        layout.follow(config.names().lm_head, |name| tensors.contains(name));
        let (mut params, mut bytes) = (0, 0);
        for spec in layout.tensors() {
            bytes += match packed::find(&tensors, spec, config.quantization)? {
                Some(matrix) => matrix.values.len() + matrix.scales.len(),
                None => tensors.float(spec, &config.architecture)?.bytes.len(),
            };
            params += spec.elements();
        }
        config.dtype = (tensors.float(&layout.embedding, &config.architecture)?).dtype;
        Ok(Checkpoint {
            config,
            generation,
            warnings,
            layout,
            source,
            tensors,
            params,
            bytes,
        })
    }

    /// A model of the shape that the config of `source` describes, with random bf16 weights: for
    /// measurements. Matrices are normal with deviation 0.02, norms are ones, biases are zeros. All
    /// matrices begin with the same numbers, so that the memory this takes is the largest one's.
    ///
    /// # Errors
    /// A config that is missing or not served.
    pub fn random(source: Source, seed: u64) -> Result<Checkpoint> {
        let mut config = ModelConfig::open(&source)?;
        config.dtype = Dtype::Bf16;
        let layout = ModelLayout::new(&config);
        let params = layout.tensors().map(TensorSpec::elements).sum();
        Ok(Checkpoint {
            generation: GenerationConfig::open(&source)?,
            warnings: Vec::new(),
            tensors: random::tensors(&layout, seed),
            config,
            layout,
            source,
            params,
            bytes: Dtype::Bf16.bytes() * params,
        })
    }

    /// Where the files are.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The tensors, without the optional ones that the files do not have.
    pub fn layout(&self) -> &ModelLayout {
        &self.layout
    }

    /// A weight matrix, as it lies in the file.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape or type.
    pub fn matrix(&self, spec: &TensorSpec) -> Result<MatrixView<'_>> {
        self.tensors.matrix(spec)
    }

    /// A weight matrix that may be stored quantised, if it is.
    ///
    /// # Errors
    /// Parts that are missing or have another shape or type.
    pub fn quantized(&self, spec: &TensorSpec) -> Result<Option<QuantizedMatrix<'_>>> {
        packed::find(&self.tensors, spec, self.config.quantization)
    }

    /// How one of a layer's matrices is stored quantised; `None`: all are stored in floating point.
    pub fn stored_quantization(&self, linear: &LinearSpec) -> Option<Quantization> {
        let kind = self.config.quantization?;
        let stored = |spec| packed::is_stored(&self.tensors, spec, kind);
        linear.matrices.iter().any(stored).then_some(kind)
    }

    /// A vector, converted to f32.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape or type.
    pub fn vector(&self, spec: &TensorSpec) -> Result<Vec<f32>> {
        self.tensors.vector(spec)
    }

    /// Parameters of the model; a tied head counts once, tensors it doesn't use not at all.
    pub fn params(&self) -> usize {
        self.params
    }

    /// Bytes those parameters take in the files.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The weight files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.file_names()
    }

    /// Tokens that end a text: the generation config's, else the config's. With neither, the
    /// tokenizer may name one: see [`crate::text::tokenizer::Tokenizer::end_tokens`].
    pub fn eos(&self) -> &[u32] {
        if self.generation.eos.is_empty() {
            &self.config.eos
        } else {
            &self.generation.eos
        }
    }
}

/// The head by the tensors: a PRM's head overrides the class name, which is often that of the model
/// it was trained from.
///
/// # Errors
/// A classifier's head below a config that names no class: its labels' meaning is unknown.
fn head(config: &ModelConfig, tensors: &Tensors, source: &Source) -> Result<HeadKind> {
    let names = config.names();
    if tensors.contains(names.value) {
        Ok(HeadKind::Value)
    } else if tensors.contains(names.process_inner) && tensors.contains(names.process_outer) {
        Ok(HeadKind::Process)
    } else if !config.class_is_named && tensors.contains(names.score) {
        Err(Error::Field {
            file: source.place(ModelConfig::FILE),
            field: arch::NAMED_BY.to_string(),
            found: "missing".to_string(),
            expected: format!(
                "the class of these weights, which have a head that writes nothing ({})",
                names.score
            ),
        })
    } else {
        Ok(config.head.clone())
    }
}

/// Where a config says that the embedding is the LM head too, and the weights have another LM head,
/// that head is used, as transformers 5 does (its `tie_weights`): which of the two is wrong nobody
/// can tell, but a head that was saved was trained. Returns what the user should know.
///
/// This compares all of both matrices where they are equal.
///
/// # Errors
/// An LM head of another shape.
fn untie(config: &mut ModelConfig, tensors: &Tensors, source: &Source) -> Result<Option<String>> {
    let names = config.names();
    let own = config.head == HeadKind::Causal && tensors.contains(names.lm_head);
    if !own || !config.tied_embeddings || !tensors.contains(names.embedding) {
        return Ok(None);
    }
    let head = layout::lm_head(config).matrices.remove(0);
    let embedding = TensorSpec {
        name: names.embedding.to_string(),
        ..head.clone()
    };
    let [head, embedding] = [&head, &embedding].map(|spec| tensors.float(spec, "the model"));
    let (head, embedding) = (head?, embedding?);
    let equal = if head.dtype == embedding.dtype {
        head.bytes == embedding.bytes
    } else {
        to_f32(head.dtype, head.bytes) == to_f32(embedding.dtype, embedding.bytes)
    };
    if equal {
        return Ok(None);
    }
    config.tied_embeddings = false;
    Ok(Some(format!(
        "{}: `tie_word_embeddings` is true, but the weights have a {} that differs from the \
         embedding; that head is used",
        source.place(ModelConfig::FILE),
        names.lm_head
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Files, embedded, golden};
    use serde_json::{Value, json};

    const CASE: &str = "llama-g1-tied-f32";
    const NORM: &str = "model.norm.weight";

    fn read(case: &str, file: &str) -> Vec<u8> {
        golden(case)
            .read(file)
            .expect("readable")
            .expect("there")
            .to_vec()
    }

    /// A safetensors file with its header changed, the data left as it is.
    fn with_header(file: &[u8], change: impl Fn(&mut Value)) -> Vec<u8> {
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        let mut header: Value = serde_json::from_slice(&file[8..8 + length]).expect("a header");
        change(&mut header);
        let header = header.to_string();
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.extend(&file[8 + length..]);
        out
    }

    #[test]
    fn golden_models_open() {
        let mut cases = 0;
        for case in golden(".").files().expect("a directory") {
            let source = golden(&case);
            if source.read("golden.json").expect("readable").is_none() {
                continue;
            }
            cases += 1;
            let opened = Checkpoint::open(source).unwrap_or_else(|error| panic!("{case}: {error}"));
            let dtype = match () {
                () if case.contains("bf16") => Dtype::Bf16,
                () if case.contains("-f16") => Dtype::F16,
                () => Dtype::F32,
            };
            assert_eq!(opened.config.dtype, dtype, "{case}");
            assert_eq!(opened.bytes(), opened.params() * dtype.bytes(), "{case}");
            assert_eq!(
                opened.file_names().count() > 1,
                case.contains("sharded"),
                "{case}"
            );
            let config = &opened.config;
            assert_eq!(config.tied_embeddings, case.contains("-tied"), "{case}");
            let group = format!("-g{}-", config.heads / config.kv_heads);
            assert!(case.contains(&group), "{case} {group}");
            let head = opened.matrix(&opened.layout().embedding);
            let head = head.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                head.bytes.len(),
                config.vocab * config.hidden * head.dtype.bytes(),
                "{case}"
            );
            let norm = opened.vector(&opened.layout().final_norm);
            let norm = norm.unwrap_or_else(|error| panic!("{case}: {error}"));
            // Made as 1 + 0.2 * noise; Gemma's as another constant + 0.2 * noise.
            let centre = if case.contains("gemma") {
                norm.iter().sum::<f32>() / norm.len() as f32
            } else {
                1.0
            };
            let far = |limit: f32| norm.iter().any(|x| (x - centre).abs() > limit);
            assert!(!far(1.5) && far(0.1), "{case} {norm:?}");
        }
        assert_eq!(cases, 26);
    }

    #[test]
    fn a_random_model_has_its_config_s_shape() {
        for case in ["qwen2-g1-untied-bf16", "llama-g8-tied-bf16"] {
            let real = Checkpoint::open(golden(case)).expect("opens");
            let random = Checkpoint::random(golden(case), 7).expect("a config");
            assert_eq!(
                (random.params(), random.bytes()),
                (real.params(), real.bytes()),
                "{case}"
            );
            let table = random.matrix(&random.layout().embedding);
            let table = to_f32(Dtype::Bf16, table.expect("a matrix").bytes);
            let mean = table.iter().sum::<f32>() / table.len() as f32;
            let square = table.iter().map(|x| x * x).sum::<f32>() / table.len() as f32;
            assert!(
                mean.abs() < 1e-3 && (square.sqrt() - 0.02).abs() < 1e-3,
                "{case}: mean {mean}, mean square {square}"
            );
            let norm = random
                .vector(&random.layout().final_norm)
                .expect("a vector");
            assert!(norm.iter().all(|&x| x == 1.0), "{case}");
        }
    }

    /// A head beside a tied embedding is used where it differs, as in transformers 5, and the
    /// embedding is taken from the head's name where it is saved under that alone.
    #[test]
    fn a_head_beside_a_tied_embedding() {
        const BIASED: &str = "llama-g2-biased-f32";
        let open = |weights: Vec<u8>| {
            let mut config: Value =
                serde_json::from_slice(&read(BIASED, "config.json")).expect("JSON");
            config["tie_word_embeddings"] = json!(true);
            let config = ("config.json", config.to_string().into_bytes());
            Checkpoint::open(embedded(vec![config, ("model.safetensors", weights)]))
        };
        let weights = read(BIASED, "model.safetensors");
        let untied = Checkpoint::open(golden(BIASED)).expect("opens");
        let other = open(weights.clone()).expect("opens");
        assert_eq!(untied.params(), other.params());
        assert!(!other.config.tied_embeddings);
        let [warning] = &other.warnings[..] else {
            panic!("{:?}", other.warnings);
        };
        let says = "config.json of the embedded test: `tie_word_embeddings` is true, but";
        assert!(warning.starts_with(says), "{warning}");

        let moved = |from: &'static str, to: &'static str| {
            with_header(&weights, |header| {
                let tensor = header[from].clone();
                let header = header.as_object_mut().expect("an object");
                header.shift_remove(from);
                header.insert(to.into(), tensor);
            })
        };
        // The head's data lies where it did, unused.
        let named = moved("model.embed_tokens.weight", "x");
        let alone = open(named).expect("opens");
        assert_eq!(alone.layout().embedding.name, "lm_head.weight");
        assert!(alone.config.tied_embeddings && alone.warnings.is_empty());
        let unused = open(moved("lm_head.weight", "x")).expect("opens");
        for tied in [alone, unused] {
            assert_eq!(untied.params() - tied.params(), 320 * 32);
        }
    }

    #[test]
    fn refused() {
        let config = || ("config.json", read(CASE, "config.json"));
        let model = read(CASE, "model.safetensors");
        let with = |weights: Vec<u8>| -> Files { vec![config(), ("model.safetensors", weights)] };
        let changed = |change: &dyn Fn(&mut Value)| with(with_header(&model, change));
        let configured = |field: &str, value: Value| -> Files {
            let mut config: Value = serde_json::from_slice(&config().1).expect("JSON");
            config[field] = value;
            vec![
                ("config.json", config.to_string().into_bytes()),
                ("model.safetensors", model.clone()),
            ]
        };
        let lying_length = |length: u64| {
            let mut file = model.clone();
            file[..8].copy_from_slice(&length.to_le_bytes());
            with(file)
        };
        let index = |text: &str| -> Files {
            vec![
                config(),
                ("model.safetensors.index.json", text.as_bytes().to_vec()),
                ("a.safetensors", model.clone()),
            ]
        };
        let file = "model.safetensors of the embedded test";
        let header = format!("{file} is not a valid safetensors file: its header");
        #[rustfmt::skip]
        let cases: Vec<(Files, String)> = vec![
            (vec![], "test has no config.json; a model is a directory in Hugging Face's layout".into()),
            (vec![("config.json", b"{\"a\": ".to_vec())], "config.json of the embedded test is not valid JSON: EOF".into()),
            (vec![("config.json", b"\xff".to_vec())], "config.json of the embedded test is not valid JSON: ".into()),
            (vec![("config.json", vec![b'['; 100_000])], "config.json of the embedded test is not valid JSON: recursion limit".into()),
            (configured("architectures", json!(["MambaForCausalLM"])), "the architecture MambaForCausalLM is not supported; known are LlamaForCausalLM,".into()),
            (vec![config()], "test has no model.safetensors; expected the weights in it, or in shards".into()),
            (vec![config(), ("pytorch_model.bin", vec![])],
             "test has its weights only as pytorch_model.bin, a PyTorch pickle, which is never read; convert it once with: python -c \"from transformers import LlamaForCausalLM as M;".into()),
            (vec![config(), ("pytorch_model.bin.index.json", vec![])], "weights only as pytorch_model.bin.index.json".into()),
            (with(vec![]), format!("{file} is not a valid safetensors file: it has 0 bytes")),
            (with(model[..7].to_vec()), format!("{file} is not a valid safetensors file: it has 7 bytes")),
            (with(model[..100].to_vec()), format!("{header} claims ")),
            (with(model[..model.len() - 1].to_vec()), "follow the header; the file may be truncated".into()),
            (with([&model[..], b"x"].concat()), "follow the header".into()),
            (lying_length(u64::MAX), format!("{header} claims 18446744073709551615 bytes, but only ")),
            (lying_length(model.len() as u64), format!("{header} claims ")),
            (lying_length(10), format!("{header} is not valid: ")),
            (lying_length(0), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["data_offsets"] = json!([0, 1u64 << 60])), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["data_offsets"][1] = json!(u64::MAX)), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["data_offsets"] = json!([128, 0])), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["data_offsets"] = h["model.embed_tokens.weight"]["data_offsets"].clone()), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["shape"] = json!([1u64 << 40, 1u64 << 40])), format!("{header} is not valid: ")),
            (changed(&|h| h[NORM]["dtype"] = json!("F7")), format!("{header} is not valid: ")),
            (with([&8u64.to_le_bytes()[..], b"{}      "].concat()), "tensor model.embed_tokens.weight is missing from model.safetensors of the embedded test; LlamaForCausalLM needs it".into()),
            // One tensor whose size overflows when the header's length is added to it.
            (with({
                let header = br#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
                [&(header.len() as u64).to_le_bytes()[..], &header[..]].concat()
            }), format!("{file} is not a valid safetensors file: ")),
            (changed(&|h| h[NORM]["shape"] = json!([1, 32])), format!("{file}: tensor {NORM} has shape [1, 32]; expected [32] from config.json")),
            (configured("intermediate_size", json!(55)), "has shape [56, 32]; expected [55, 32] from config.json".into()),
            (configured("num_hidden_layers", json!(3)), "tensor model.layers.2.input_layernorm.weight is missing from".into()),
            (configured("tie_word_embeddings", json!(false)), "tensor lm_head.weight is missing from".into()),
            (changed(&|h| { h[NORM]["dtype"] = json!("F16"); h[NORM]["shape"] = json!([64]); }), "has shape [64]; expected [32]".into()),
            (changed(&|h| h[NORM]["dtype"] = json!("I32")), format!("{file}: tensor {NORM} is stored as I32; expected F32, BF16 or F16")),
            (changed(&|h| {
                let norm = h.as_object_mut().and_then(|h| h.remove(NORM)).expect("a norm");
                h["model.norm.wait"] = norm;
            }), format!("tensor {NORM} is missing from {file}; LlamaForCausalLM needs it")),
            (index("{}"), "index.json of the embedded test: `weight_map` is missing; expected an object of file names".into()),
            (index(r#"{"weight_map": {}}"#), "`weight_map` is {}; expected at least one tensor".into()),
            (index(r#"{"weight_map": {"a": 1}}"#), "`weight_map.a` is 1; expected the name of a file beside the index".into()),
            (index(r#"{"weight_map": {"a": "../../etc/passwd"}}"#), "expected the name of a file beside the index".into()),
            (index(r#"{"weight_map": {"a": "b.safetensors"}}"#), "test has no b.safetensors; expected it there because model.safetensors.index.json has a in it".into()),
        ];
        for (files, expected) in cases {
            let error = Checkpoint::open(embedded(files))
                .expect_err(&expected)
                .to_string();
            assert!(error.contains(&expected), "{error}\nexpected {expected}");
            assert!(!error.contains('\n'), "one sentence: {error}");
        }
    }

    #[test]
    fn directories_refused() {
        let here = env!("CARGO_MANIFEST_DIR");
        for (path, expected) in [
            (
                format!("{here}/nowhere"),
                "nowhere is not a model directory: ",
            ),
            (
                format!("{here}/Cargo.toml"),
                "Cargo.toml is not a model directory: it is a file",
            ),
        ] {
            let error = Source::directory(&path).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Checkpoint::open(Source::Directory(here.into())).expect_err("no config");
        assert!(error.to_string().contains("has no config.json"), "{error}");
        let error = Source::Directory(here.into())
            .read("src")
            .expect_err("a directory");
        assert!(
            error.to_string().ends_with("src: not a regular file"),
            "{error}"
        );
    }
}
