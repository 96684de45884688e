//! Quantised checkpoints: what they look like, and making one.
//!
//! The form is that of the `compressed-tensors` package in its format `pack-quantized`
//! (<https://github.com/neuralmagic/compressed-tensors>), which vLLM and transformers read too:
//! weights of 8 or 4 bits, symmetric, in groups of 32 along the input features. Instead of `X.weight`
//! a checkpoint has `X.weight_packed` (`[rows, cols * bits / 32]` int32, the first of its integers in
//! the lowest bits, each plus 128 or 8), `X.weight_scale` (`[rows, cols / 32]` bf16) and
//! `X.weight_shape`. The same integers are made of a float checkpoint by [`crate::Options::quantize`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use kernels::quant::GROUP;
use kernels::{Quantization, Quantized};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Map, Value, json};

use crate::arch::{self, TensorSpec};
use crate::checkpoint::{self, Checkpoint, INDEX, SINGLE};
use crate::config::{HeadKind, ModelConfig};
use crate::error::{Error, Result};
use crate::json::Fields;

const FIELD: &str = "quantization_config";
const METHOD: &str = "compressed-tensors";
const FORMAT: &str = "pack-quantized";
/// Bytes of weights of one file, as transformers shards them.
const SHARD_BYTES: usize = 5_000_000_000;

/// What a config says of its matrices.
pub(crate) fn of_config(fields: &Fields) -> Result<Option<Quantization>> {
    let Some(config) = fields.object(FIELD)? else {
        return Ok(None);
    };
    if config.string("quant_method")? != Some(METHOD) {
        return Err(config.wrong("quant_method", format!("\"{METHOD}\"")));
    }
    if config.string("format")? != Some(FORMAT) {
        return Err(config.wrong("format", format!("\"{FORMAT}\"")));
    }
    let groups = (config.object("config_groups")?)
        .ok_or_else(|| config.wrong("config_groups", "an object"))?;
    let names: Vec<_> = groups.entries().map(|(name, _)| name.clone()).collect();
    let [name] = &names[..] else {
        return Err(config.wrong("config_groups", "one group"));
    };
    let group = (groups.object(name)?).ok_or_else(|| groups.wrong(name, "an object"))?;
    let weights = (group.object("weights")?)
        .ok_or_else(|| group.wrong("weights", "how weights are quantised"))?;
    for (field, expected) in [("type", "int"), ("strategy", "group")] {
        if weights.string(field)? != Some(expected) {
            return Err(weights.wrong(field, format!("\"{expected}\"")));
        }
    }
    if weights.boolean("symmetric")? != Some(true) {
        return Err(weights.wrong("symmetric", "true"));
    }
    if weights.count("group_size", 1 << 20)? != Some(GROUP) {
        return Err(weights.wrong("group_size", GROUP.to_string()));
    }
    let order = weights.get("actorder").and_then(Value::as_str);
    if order.is_some_and(|order| order != "static" && order != "weight") {
        return Err(weights.wrong("actorder", "none: columns in their own order"));
    }
    match weights.count("num_bits", 64)? {
        Some(8) => Ok(Some(Quantization::Int8)),
        Some(4) => Ok(Some(Quantization::Int4)),
        _ => Err(weights.wrong("num_bits", "8 or 4")),
    }
}

/// [`of_config`]'s opposite; `ignored` are modules that are left as they were.
fn to_config<'a>(kind: Quantization, ignored: impl Iterator<Item = &'a str>) -> Value {
    json!({
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": kind.bits(),
                "type": "int",
                "symmetric": true,
                "strategy": "group",
                "group_size": GROUP,
                "dynamic": false,
            },
            "input_activations": null,
            "output_activations": null,
        }},
        "ignore": ignored.collect::<Vec<_>>(),
    })
}

/// A tensor of a quantised matrix.
pub(crate) struct Part {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// The tensors that stand for the matrix `[rows, cols]` that `name` would be: integers, scales, shape.
pub(crate) fn parts(name: &str, kind: Quantization, rows: usize, cols: usize) -> [Part; 3] {
    let part = |suffix: &str, dtype, shape: &[usize]| Part {
        name: format!("{name}_{suffix}"),
        dtype,
        shape: shape.to_vec(),
    };
    [
        part("packed", Dtype::I32, &[rows, cols * kind.bits() / 32]),
        part("scale", Dtype::BF16, &[rows, cols / GROUP]),
        part("shape", Dtype::I64, &[2]),
    ]
}

/// What became of a checkpoint.
#[derive(Clone, Debug)]
pub struct Written {
    /// Bytes of its tensors before.
    pub bytes_before: usize,
    /// Bytes of its tensors after.
    pub bytes: usize,
    /// Matrices that are quantised now.
    pub quantized: usize,
    /// Matrices that are not: other heads, and widths that are no whole groups.
    pub left: Vec<String>,
}

/// Writes `checkpoint` with the matrices of its products quantised to the new folder `to`, everything
/// else as it is. A tied LM head becomes one of its own, for the embedding stays as it is;
/// `keep_head` leaves the LM head alone (a PRM's, say). Heads of other kinds are never changed.
///
/// # Errors
/// `to` is there already, or cannot be written; a checkpoint that is quantised already.
pub fn write(
    checkpoint: &Checkpoint,
    kind: Quantization,
    keep_head: bool,
    to: &Path,
) -> Result<Written> {
    let (source, config) = (checkpoint.source(), &checkpoint.config);
    let config_file = source.place(ModelConfig::FILE);
    let config_bytes = source.read(ModelConfig::FILE)?.unwrap_or_default();
    if config.quantization.is_some() {
        let fields = Fields::parse(config_file, &config_bytes)?;
        return Err(fields.wrong(FIELD, "none: a checkpoint that is not quantised yet"));
    }
    std::fs::create_dir(to).map_err(|error| failed(to, error))?;

    let names = config.names();
    let tied = config.head == HeadKind::Causal && config.tied_embeddings;
    let untied = tied && !keep_head;
    let mut specs = arch::tensors(config);
    specs.retain(|spec| !spec.optional || checkpoint.contains(&spec.name));
    if untied {
        specs.push(TensorSpec {
            name: names.lm_head.to_string(),
            shape: vec![config.vocab, config.hidden],
            optional: false,
            quantizable: true,
        });
    }
    let mut shards = Shards::new(to);
    let mut left = Vec::new();
    let mut quantized = 0;
    for spec in &specs {
        let head = spec.name == names.lm_head;
        let stored = if untied && head {
            names.embedding
        } else {
            &spec.name
        };
        match spec.shape[..] {
            [rows, cols] if spec.quantizable && kind.fits(cols) && !(keep_head && head) => {
                let matrix = Quantized::new(&checkpoint.matrix(stored, rows, cols)?, kind);
                let shape = [rows as i64, cols as i64];
                let shape = shape.iter().flat_map(|n| n.to_le_bytes()).collect();
                let bytes = [matrix.values, matrix.scales, Cow::Owned(shape)];
                for (part, bytes) in parts(&spec.name, kind, rows, cols).into_iter().zip(bytes) {
                    shards.push(part, bytes)?;
                }
                quantized += 1;
            }
            _ => {
                let (dtype, bytes) = checkpoint.stored(stored, &spec.shape)?;
                let part = Part {
                    name: spec.name.clone(),
                    dtype,
                    shape: spec.shape.clone(),
                };
                shards.push(part, bytes.into())?;
                if spec.shape.len() == 2 && spec.name != names.embedding {
                    left.push(spec.name.clone());
                }
            }
        }
    }
    if tied && keep_head {
        left.push(names.lm_head.to_string());
    }
    let bytes = shards.finish()?;

    for file in source.files()? {
        let weights = file == INDEX || file.ends_with(".safetensors");
        if weights || file == ModelConfig::FILE || checkpoint::is_pickle(&file) {
            continue;
        }
        // A folder inside is none of the model's files.
        if let Ok(Some(bytes)) = source.read(&file) {
            let path = to.join(&file);
            std::fs::write(&path, &bytes).map_err(|error| failed(&path, error))?;
        }
    }
    let mut object: Map<String, Value> =
        serde_json::from_slice(&config_bytes).map_err(|source| Error::Json {
            file: config_file,
            source,
        })?;
    if untied {
        object.insert("tie_word_embeddings".into(), false.into());
    }
    let modules = left.iter().map(|name| name.trim_end_matches(".weight"));
    object.insert(FIELD.into(), to_config(kind, modules));
    // Last: a folder without it is no model.
    let path = to.join(ModelConfig::FILE);
    let text = format!("{:#}\n", Value::Object(object));
    std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
    Ok(Written {
        bytes_before: checkpoint.bytes(),
        bytes,
        quantized,
        left,
    })
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        file: path.display().to_string(),
        source,
    }
}

/// Files of tensors being written, each when it is full.
struct Shards<'a> {
    to: &'a Path,
    open: Vec<(Part, Cow<'a, [u8]>)>,
    open_bytes: usize,
    /// The names of the tensors of each file written.
    written: Vec<Vec<String>>,
    bytes: usize,
}

impl<'a> Shards<'a> {
    fn new(to: &'a Path) -> Shards<'a> {
        Shards {
            to,
            open: Vec::new(),
            open_bytes: 0,
            written: Vec::new(),
            bytes: 0,
        }
    }

    /// The file's name while it is not known how many there will be.
    fn part(&self, number: usize) -> PathBuf {
        self.to.join(format!("part-{number}.safetensors"))
    }

    fn push(&mut self, part: Part, bytes: Cow<'a, [u8]>) -> Result<()> {
        if self.open_bytes + bytes.len() > SHARD_BYTES && self.open_bytes > 0 {
            self.close()?;
        }
        self.open_bytes += bytes.len();
        self.bytes += bytes.len();
        self.open.push((part, bytes));
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let path = self.part(self.written.len());
        let wrong = |error: safetensors::SafeTensorError| Error::Safetensors {
            file: path.display().to_string(),
            problem: error.to_string(),
        };
        let tensors = (self.open.iter())
            .map(|(part, bytes)| {
                let view = TensorView::new(part.dtype, part.shape.clone(), bytes);
                Ok((part.name.as_str(), view.map_err(wrong)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata = [("format".to_string(), "pt".to_string())].into();
        serialize_to_file(tensors, Some(metadata), &path).map_err(wrong)?;
        let names = self.open.drain(..).map(|(part, _)| part.name);
        self.written.push(names.collect());
        self.open_bytes = 0;
        Ok(())
    }

    /// Names the files, writes the index where there are several, and returns the bytes of all.
    fn finish(mut self) -> Result<usize> {
        self.close()?;
        let count = self.written.len();
        let mut map = Map::new();
        for (i, tensors) in self.written.iter().enumerate() {
            let name = match count {
                1 => SINGLE.to_string(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let path = self.to.join(&name);
            std::fs::rename(self.part(i), &path).map_err(|error| failed(&path, error))?;
            map.extend(tensors.iter().map(|t| (t.clone(), name.clone().into())));
        }
        if count > 1 {
            let index = json!({"metadata": {"total_size": self.bytes}, "weight_map": map});
            let path = self.to.join(INDEX);
            std::fs::write(&path, format!("{index:#}\n")).map_err(|e| failed(&path, e))?;
        }
        Ok(self.bytes)
    }
}
