//! A checkpoint: config, generation defaults and tensors, memory-mapped and checked on opening.

use std::collections::{BTreeSet, HashMap};

use kernels::{Dtype, MatrixView};
use safetensors::tensor::Metadata;

use crate::arch::{self, TensorSpec};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::json::Fields;
use crate::source::{Bytes, Source};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A model's files, opened: every tensor the model needs is known to be there, in the right shape
/// and in a type the engine computes with. Nothing is read from the weights themselves yet.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Shapes and constants.
    pub config: ModelConfig,
    /// Generation defaults.
    pub generation: Generation,
    source: Source,
    tensors: Tensors,
    params: usize,
    bytes: usize,
}

impl Checkpoint {
    /// Opens a checkpoint and compares its tensors with its config.
    pub fn open(source: Source) -> Result<Checkpoint> {
        let mut config = ModelConfig::open(&source)?;
        let generation = Generation::open(&source)?;
        let files = weight_files(&source, &config)?;
        let tensors = Tensors::open(&source, &files)?;
        let (mut params, mut bytes) = (0, 0);
        for spec in arch::tensors(&config) {
            if spec.optional && !tensors.contains(&spec.name) {
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

    /// Where the files are.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// A weight matrix `[rows, cols]`, as it lies in the file.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixView<'_>> {
        self.tensors.matrix(name, rows, cols)
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

/// The names of a checkpoint's weight files: the single one, or the shards its index names.
fn weight_files(source: &Source, config: &ModelConfig) -> Result<Vec<String>> {
    let names = source.files()?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(SINGLE) {
        return Ok(vec![SINGLE.to_string()]);
    }
    if let Some(bytes) = source.read(INDEX)? {
        return shards(source, &bytes);
    }
    let pickle = names.iter().find(|name| {
        name.starts_with("pytorch_model")
            && (name.ends_with(".bin") || name.ends_with(".index.json"))
    });
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

/// The shards that an index names, each checked to be a plain name of a file that is there.
fn shards(source: &Source, bytes: &[u8]) -> Result<Vec<String>> {
    let fields = Fields::parse(source.place(INDEX), bytes)?;
    let map = fields
        .object("weight_map")?
        .ok_or_else(|| fields.wrong("weight_map", "an object of file names by tensor"))?;
    let present = source.files()?;
    let mut files = BTreeSet::new();
    for (tensor, file) in map.entries() {
        let plain = file.as_str().filter(|name| !name.contains(['/', '\\']));
        let file = plain.ok_or_else(|| map.wrong(tensor, "the name of a file beside the index"))?;
        if !present.iter().any(|name| name == file) {
            return Err(Error::MissingFile {
                place: source.name(),
                file: file.to_string(),
                expected: format!("expected it there because {INDEX} has {tensor} in it"),
            });
        }
        files.insert(file.to_string());
    }
    if files.is_empty() {
        return Err(fields.wrong("weight_map", "at least one tensor"));
    }
    Ok(files.into_iter().collect())
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

    /// A vector of `len`, converted to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.lookup(name, &[len], "the model")?;
        Ok(to_f32(tensor.dtype, tensor.bytes()))
    }

    fn checked(&self, spec: &TensorSpec, architecture: &str) -> Result<Checked<'_>> {
        self.lookup(&spec.name, &spec.shape, architecture)
    }

    fn lookup(&self, name: &str, shape: &[usize], needed_by: &str) -> Result<Checked<'_>> {
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
        let dtype = match tensor.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => {
                return Err(Error::TensorDtype {
                    file: file.place.clone(),
                    name: name.to_string(),
                    found: format!("{other:?}"),
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
