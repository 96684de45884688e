//! A checkpoint: config, generation defaults and tensors, memory-mapped and checked on opening.

pub mod arch;
pub mod config;
pub mod generation;
pub mod hub;
pub(crate) mod json;
pub(crate) mod quantization;
pub mod quantize;
pub mod source;

use std::collections::{BTreeMap, HashMap};

use kernels::{Dtype, MatrixView, Quantization, Quantized, philox};
use safetensors::tensor::Metadata;

use self::arch::TensorSpec;
use self::config::{HeadKind, ModelConfig};
use self::generation::GenerationConfig;
use self::json::Fields;
use self::source::{Bytes, Source};
use crate::error::{Error, Result};

/// The weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The names of the files of weights in shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A model's files, opened: every tensor the model needs is known to be there, in the right shape
/// and in a type the engine computes with. Nothing is read from the weights themselves yet.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Shapes and constants.
    pub config: ModelConfig,
    /// GenerationConfig defaults.
    pub generation: GenerationConfig,
    source: Source,
    tensors: Tensors,
    params: usize,
    bytes: usize,
}

impl Checkpoint {
    /// Opens a checkpoint and compares its tensors with its config.
    pub fn open(source: Source) -> Result<Checkpoint> {
        let mut config = ModelConfig::open(&source)?;
        let generation = GenerationConfig::open(&source)?;
        let files = weight_files(&source, &config)?;
        let tensors = Tensors::open(&source, &files)?;
        config.head = head(&config, &tensors);
        let (mut params, mut bytes) = (0, 0);
        for spec in arch::tensors(&config) {
            if spec.optional && !tensors.contains(&spec.name) {
                continue;
            }
            if let [rows, cols] = spec.shape[..]
                && let Some(kind) = config.quantization.filter(|_| spec.quantizable)
                && let Some(matrix) = tensors.quantized(&spec.name, kind, rows, cols)?
            {
                params += rows * cols;
                bytes += matrix.values.len() + matrix.scales.len();
                continue;
            }
            let tensor = tensors.checked(&spec, &config.architecture)?;
            params += tensor.elements;
            bytes += tensor.range.len();
        }
        let embedding = TensorSpec {
            name: config.names().embedding.to_string(),
            shape: vec![config.vocab, config.hidden],
            optional: false,
            quantizable: false,
        };
        config.dtype = tensors.checked(&embedding, &config.architecture)?.dtype;
        Ok(Checkpoint {
            config,
            generation,
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
    /// A config that is not there or not served.
    pub fn random(source: Source, seed: u64) -> Result<Checkpoint> {
        let mut config = ModelConfig::open(&source)?;
        config.dtype = Dtype::Bf16;
        let specs = arch::tensors(&config);
        let (tensors, params) = Tensors::random(&specs, seed);
        Ok(Checkpoint {
            config,
            generation: GenerationConfig::open(&source)?,
            source,
            tensors,
            params,
            bytes: 2 * params,
        })
    }

    /// Where the files are.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A weight matrix `[rows, cols]`, as it lies in the file.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixView<'_>> {
        self.tensors.matrix(name, rows, cols)
    }

    /// A weight matrix `[rows, cols]` that may be stored quantised, if it is.
    pub fn quantized(&self, name: &str, rows: usize, cols: usize) -> Result<Option<Quantized<'_>>> {
        match self.config.quantization {
            Some(kind) => self.tensors.quantized(name, kind, rows, cols),
            None => Ok(None),
        }
    }

    /// A tensor's type and bytes, as they lie in the file.
    pub(crate) fn stored(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<(safetensors::Dtype, &[u8])> {
        let (file, tensor) = self.tensors.find(name, shape, "the model")?;
        Ok((tensor.dtype, &file.bytes[tensor.range.clone()]))
    }

    /// A vector of `len`, converted to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.tensors.vector(name, len)
    }

    /// Whether the files hold a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains(name)
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
        self.tensors.files.iter().map(|file| file.name.as_str())
    }

    /// Tokens that end a text: the generation config's, else the config's.
    pub fn eos(&self) -> &[u32] {
        if self.generation.eos.is_empty() {
            &self.config.eos
        } else {
            &self.generation.eos
        }
    }

    /// The token a text begins with: the config's, else the generation config's.
    pub fn bos(&self) -> Option<u32> {
        self.config.bos.or(self.generation.bos)
    }
}

/// What the last layer is: a PRM's head beside the body counts for more than the class name, which
/// is often that of the model it was trained from.
fn head(config: &ModelConfig, tensors: &Tensors) -> HeadKind {
    let names = config.names();
    if tensors.contains(names.value) {
        HeadKind::Value
    } else if tensors.contains(names.process_inner) && tensors.contains(names.process_outer) {
        HeadKind::Process
    } else {
        config.head.clone()
    }
}

/// The names of a checkpoint's weight files: the single one, or the shards its index names.
fn weight_files(source: &Source, config: &ModelConfig) -> Result<Vec<String>> {
    let names = source.files()?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(SINGLE) {
        return Ok(vec![SINGLE.to_string()]);
    }
    if let Some(bytes) = source.read(INDEX)? {
        let shards = shards(&source.place(INDEX), &bytes)?;
        if let Some((file, tensor)) = shards.iter().find(|(file, _)| !has(file)) {
            return Err(Error::MissingFile {
                place: source.name(),
                file: file.to_string(),
                expected: format!("expected it there because {INDEX} has {tensor} in it"),
            });
        }
        return Ok(shards.into_keys().collect());
    }
    let pickle = names.iter().find(|name| is_pickle(name));
    if let Some(file) = pickle {
        let place = source.name();
        return Err(Error::PytorchWeights {
            command: format!(
                "python -c \"from transformers import {class} as M; M.from_pretrained('{place}', \
                 dtype='auto').save_pretrained('{place}')\"",
                class = config.architecture,
            ),
            place,
            file: file.clone(),
        });
    }
    Err(Error::MissingFile {
        place: source.name(),
        file: SINGLE.to_string(),
        expected: format!("expected the weights in it, or in shards with {INDEX}"),
    })
}

/// Whether a file of this name is PyTorch's, with weights or the list of them.
pub(crate) fn is_pickle(name: &str) -> bool {
    name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".index.json"))
}

/// The shards that the index `place` names, each a plain name, with the first tensor of each.
pub(crate) fn shards(place: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let fields = Fields::parse(place.to_string(), bytes)?;
    let map = fields
        .object("weight_map")?
        .ok_or_else(|| fields.wrong("weight_map", "an object of file names by tensor"))?;
    let mut files = BTreeMap::new();
    for (tensor, file) in map.entries() {
        let plain = (file.as_str()).filter(|name| !name.contains(['/', '\\']) && *name != "..");
        let file = plain.ok_or_else(|| map.wrong(tensor, "the name of a file beside the index"))?;
        files
            .entry(file.to_string())
            .or_insert_with(|| tensor.clone());
    }
    if files.is_empty() {
        return Err(fields.wrong("weight_map", "at least one tensor"));
    }
    Ok(files)
}

/// The tensors of one or several safetensors files.
#[derive(Clone, Debug)]
pub struct Tensors {
    files: Vec<File>,
    tensors: HashMap<String, Tensor>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    /// The name for messages.
    place: String,
    bytes: Bytes,
}

#[derive(Clone, Debug)]
struct Tensor {
    file: usize,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    /// Bytes of the file; known to lie inside it.
    range: std::ops::Range<usize>,
}

/// A tensor found to be what was expected.
struct Checked<'a> {
    file: &'a File,
    dtype: Dtype,
    elements: usize,
    range: std::ops::Range<usize>,
}

impl Checked<'_> {
    fn bytes(&self) -> &[u8] {
        &self.file.bytes[self.range.clone()]
    }
}

impl Tensors {
    /// Maps the files and reads their headers.
    pub fn open(source: &Source, names: &[String]) -> Result<Tensors> {
        let mut all = Tensors {
            files: Vec::new(),
            tensors: HashMap::new(),
        };
        for name in names {
            let place = source.place(name);
            let bytes = source.map(name)?.ok_or_else(|| Error::MissingFile {
                place: source.name(),
                file: name.clone(),
                expected: "expected tensors in it".to_string(),
            })?;
            let (start, header) = header(&place, &bytes)?;
            for (tensor, info) in header.tensors() {
                let (from, to) = info.data_offsets;
                let found = Tensor {
                    file: all.files.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                };
                if let Some(other) = all.tensors.insert(tensor.clone(), found) {
                    let other = &all.files[other.file].name;
                    let problem = format!("tensor {tensor} is in it and in {other} too");
                    return Err(Error::Safetensors {
                        file: place,
                        problem,
                    });
                }
            }
            all.files.push(File {
                name: name.clone(),
                place,
                bytes,
            });
        }
        Ok(all)
    }

    /// The tensors of `specs` in memory, and how many numbers they have; see
    /// [`Checkpoint::random`].
    fn random(specs: &[TensorSpec], seed: u64) -> (Tensors, usize) {
        let elements = |spec: &TensorSpec| spec.shape.iter().product::<usize>();
        let longest = |vectors: bool| {
            let wanted = specs.iter().filter(|s| (s.shape.len() == 1) == vectors);
            wanted.map(elements).max().unwrap_or(0)
        };
        let bf16 = |values: &mut dyn Iterator<Item = f32>| -> Bytes {
            let bytes = values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes());
            Bytes::Owned(bytes.collect())
        };
        // The sum of four uniform numbers is near enough to a normal one: deviation 1 / sqrt(3).
        let normal = |i: usize| {
            let word = philox::uniform_u64(seed, i as u64);
            let uniform = |k: u32| ((word >> (16 * k)) & 0xffff) as f32 / 65_536.0 - 0.5;
            (0..4).map(uniform).sum::<f32>() * 3f32.sqrt() * 0.02
        };
        let files = [
            ("matrices", bf16(&mut (0..longest(false)).map(normal))),
            ("norms", bf16(&mut (0..longest(true)).map(|_| 1.0))),
            ("biases", bf16(&mut (0..longest(true)).map(|_| 0.0))),
        ];
        let files = files.map(|(name, bytes)| File {
            name: name.to_string(),
            place: format!("random {name}"),
            bytes,
        });
        let tensors = specs.iter().map(|spec| {
            let file = match spec.shape.len() {
                1 if spec.name.ends_with(".bias") => 2,
                1 => 1,
                _ => 0,
            };
            let tensor = Tensor {
                file,
                dtype: safetensors::Dtype::BF16,
                shape: spec.shape.clone(),
                range: 0..2 * elements(spec),
            };
            (spec.name.clone(), tensor)
        });
        let tensors = Tensors {
            files: files.into(),
            tensors: tensors.collect(),
        };
        (tensors, specs.iter().map(elements).sum())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A matrix `[rows, cols]`, as it lies in the file.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixView<'_>> {
        let tensor = self.lookup(name, &[rows, cols], "the model")?;
        let bytes = &tensor.file.bytes[tensor.range.clone()];
        Ok(MatrixView {
            rows,
            cols,
            dtype: tensor.dtype,
            bytes,
        })
    }

    /// The matrix `[rows, cols]` that `name` would be, if it is stored quantised.
    pub fn quantized(
        &self,
        name: &str,
        kind: Quantization,
        rows: usize,
        cols: usize,
    ) -> Result<Option<Quantized<'_>>> {
        let parts = quantization::parts(name, kind, rows, cols);
        if !(kind.fits(cols) && self.contains(&parts[0].name)) {
            return Ok(None);
        }
        let bytes = |part: &quantization::StoredTensor| {
            let (file, tensor) = self.find(&part.name, &part.shape, "a quantised matrix")?;
            if tensor.dtype != part.dtype {
                return Err(Error::TensorDtype {
                    file: file.place.clone(),
                    name: part.name.clone(),
                    found: format!("{:?}", tensor.dtype),
                    expected: format!("{:?}", part.dtype),
                });
            }
            Ok(&file.bytes[tensor.range.clone()])
        };
        let [values, scales] = [bytes(&parts[0])?, bytes(&parts[1])?];
        Ok(Some(Quantized {
            rows,
            cols,
            kind,
            values: values.into(),
            scales: scales.into(),
        }))
    }

    /// A vector of `len`, converted to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.lookup(name, &[len], "the model")?;
        Ok(to_f32(tensor.dtype, tensor.bytes()))
    }

    fn checked(&self, spec: &TensorSpec, architecture: &str) -> Result<Checked<'_>> {
        self.lookup(&spec.name, &spec.shape, architecture)
    }

    /// A tensor of that name and shape, and the file it lies in.
    fn find(&self, name: &str, shape: &[usize], needed_by: &str) -> Result<(&File, &Tensor)> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_string(),
            files: self
                .files
                .iter()
                .map(|f| f.place.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            architecture: needed_by.to_string(),
        })?;
        let file = &self.files[tensor.file];
        if tensor.shape != shape {
            return Err(Error::TensorShape {
                file: file.place.clone(),
                name: name.to_string(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok((file, tensor))
    }

    fn lookup(&self, name: &str, shape: &[usize], needed_by: &str) -> Result<Checked<'_>> {
        let (file, tensor) = self.find(name, shape, needed_by)?;
        let dtype = match tensor.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            safetensors::Dtype::F16 => Dtype::F16,
            other => {
                return Err(Error::TensorDtype {
                    file: file.place.clone(),
                    name: name.to_string(),
                    found: format!("{other:?}"),
                    expected: "F32, BF16 or F16".to_string(),
                });
            }
        };
        let elements = shape.iter().product();
        Ok(Checked {
            file,
            dtype,
            elements,
            range: tensor.range.clone(),
        })
    }
}

/// Little-endian numbers of `dtype` as f32.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Dtype::Bf16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        Dtype::F16 => bytes
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
    }
}

/// Reads a safetensors header and makes sure that it describes the file: where the data begins,
/// and tensors that lie end to end from there to the end of the file.
fn header(place: &str, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let wrong = |problem: String| Error::Safetensors {
        file: place.to_string(),
        problem,
    };
    let size = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!(
            "it has {size} bytes; expected at least the 8 of a header's length"
        )));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length));
    let Some(header) = header else {
        return Err(wrong(format!(
            "its header claims {length} bytes, but only {} follow; the file may be truncated",
            rest.len()
        )));
    };
    // The metadata's own validation: offsets without gaps or overlaps, sizes as shape and type say.
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| wrong(format!("its header is not valid: {error}")))?;
    let data = rest.len() - header.len();
    let claimed = metadata.data_len();
    if claimed != data {
        let hint = if claimed > data {
            "; the file may be truncated"
        } else {
            ""
        };
        return Err(wrong(format!(
            "its tensors take {claimed} bytes, but {data} follow the header{hint}"
        )));
    }
    Ok((8 + header.len(), metadata))
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
            let head = opened.matrix(config.names().embedding, config.vocab, config.hidden);
            let head = head.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(
                head.bytes.len(),
                config.vocab * config.hidden * head.dtype.bytes(),
                "{case}"
            );
            let norm = opened.vector(NORM, config.hidden);
            let norm = norm.unwrap_or_else(|error| panic!("{case}: {error}"));
            // Made as 1 + 0.2 * noise.
            assert!(
                norm.iter().all(|x| (x - 1.0).abs() < 1.5),
                "{case} {norm:?}"
            );
            assert!(
                norm.iter().any(|x| (x - 1.0).abs() > 0.1),
                "{case} {norm:?}"
            );
        }
        assert_eq!(cases, 22);
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
            let c = &random.config;
            let table = random.matrix(c.names().embedding, c.vocab, c.hidden);
            let table = to_f32(Dtype::Bf16, table.expect("a matrix").bytes);
            let mean = table.iter().sum::<f32>() / table.len() as f32;
            let square = table.iter().map(|x| x * x).sum::<f32>() / table.len() as f32;
            assert!(
                mean.abs() < 1e-3 && (square.sqrt() - 0.02).abs() < 1e-3,
                "{case}: mean {mean}, mean square {square}"
            );
            let norm = random.vector(NORM, c.hidden).expect("a vector");
            assert!(norm.iter().all(|&x| x == 1.0), "{case}");
        }
    }

    #[test]
    fn an_unused_head_is_left_alone() {
        // Tied models may keep an lm_head in the file: transformers uses the embedding all the same.
        let mut config: Value =
            serde_json::from_slice(&read("llama-g2-biased-f32", "config.json")).expect("JSON");
        let untied = Checkpoint::open(golden("llama-g2-biased-f32")).expect("opens");
        config["tie_word_embeddings"] = json!(true);
        let tied = Checkpoint::open(embedded(vec![
            ("config.json", config.to_string().into_bytes()),
            (
                "model.safetensors",
                read("llama-g2-biased-f32", "model.safetensors"),
            ),
        ]));
        let tied = tied.expect("opens");
        assert_eq!(untied.params() - tied.params(), 320 * 32);
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

    /// Bytes of a header changed at random: an error, or tensors inside the file; never a panic.
    #[test]
    fn random_headers() {
        let model = read(CASE, "model.safetensors");
        let length = u64::from_le_bytes(model[..8].try_into().expect("8 bytes")) as usize;
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let (mut opened, mut refused) = (0, 0);
        let mut file = model.clone();
        for round in 0..5000 {
            file[..8 + length].copy_from_slice(&model[..8 + length]);
            for _ in 0..1 + next(3) {
                let at = next(8 + length);
                file[at] = b"0123456789[]{}\",:F\xff"[next(19)];
            }
            match header("x", &file) {
                Err(_) => refused += 1,
                Ok((start, metadata)) => {
                    opened += 1;
                    for (name, info) in metadata.tensors() {
                        let (from, to) = info.data_offsets;
                        assert!(
                            file.get(start + from..start + to).is_some(),
                            "{round} {name}"
                        );
                    }
                }
            }
        }
        // Names may change and leave a valid header; most changes do not.
        assert!(
            opened > 100 && refused > 1000,
            "{opened} opened, {refused} refused"
        );
    }
}
