//! Writing a quantised checkpoint; its form is described in [`super::quantization`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use kernels::quant::GROUP;
use kernels::{Quantization, Quantized};
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Map, Value, json};

use super::arch::{self, TensorSpec};
use super::config::{HeadKind, ModelConfig};
use super::json::Fields;
use super::quantization::{FIELD, FORMAT, METHOD, StoredTensor, parts};
use super::{Checkpoint, INDEX, SINGLE};
use crate::error::{Error, Result};

/// Bytes of weights of one file, as transformers shards them.
const SHARD_BYTES: usize = 5_000_000_000;

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
                let part = StoredTensor {
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
        if weights || file == ModelConfig::FILE || super::is_pickle(&file) {
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
    open: Vec<(StoredTensor, Cow<'a, [u8]>)>,
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

    fn push(&mut self, part: StoredTensor, bytes: Cow<'a, [u8]>) -> Result<()> {
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
