//! Writing a quantised checkpoint; `packed.rs` describes its form.

use std::borrow::Cow;
use std::path::Path;

use kernels::{Quantization, QuantizedMatrix};
use serde_json::Value;

use super::Checkpoint;
use super::config::{HeadKind, ModelConfig};
use super::container::StoredDtype;
use super::json::Fields;
use super::layout::{TensorSpec, lm_head};
use super::new_folder::NewFolder;
use super::packed::parts;
use super::quantization::{FIELD, to_config};
use super::safetensors::{INDEX, ShardWriter, Writing, failed, is_pickle};
use crate::error::{Error, Result};

/// A checkpoint that was written, in figures.
#[derive(Clone, Debug)]
pub struct Written {
    /// Bytes of its tensors before.
    pub bytes_before: usize,
    /// Bytes of its tensors after.
    pub bytes: usize,
    /// Matrices that are quantised now.
    pub quantized: usize,
    /// Matrices that are not: other heads, and widths that are not a multiple of the group.
    pub left: Vec<String>,
}

/// Writes `checkpoint` to the new folder `to` with the matrices of its linear layers quantised and
/// everything else unchanged. The folder appears when all of it is written; an error leaves nothing. The embedding stays in floating point, so a tied LM head becomes a
/// matrix of its own; `keep_head` leaves the LM head alone (a PRM's, say). Other heads are never
/// changed.
///
/// # Errors
/// `to` exists, or cannot be written; a checkpoint that is quantised already.
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
    let folder = NewFolder::new(to).map_err(|error| failed(to, error))?;
    // Of a file that the user never sees, the folder that was asked for is named.
    let named = |error| match error {
        Error::Write { source, .. } => failed(to, source),
        other => other,
    };
    let written = write_tensors(checkpoint, kind, keep_head, folder.path()).map_err(named)?;
    copy_other_files(checkpoint, folder.path()).map_err(named)?;

    let mut object = Fields::parse(config_file, &config_bytes)?.into_map();
    if config.head == HeadKind::Causal {
        let tied = config.tied_embeddings && keep_head;
        object.insert("tie_word_embeddings".into(), tied.into());
    }
    let modules = (written.left.iter()).map(|name| name.trim_end_matches(".weight"));
    object.insert(FIELD.into(), to_config(kind, modules));
    let text = format!("{:#}\n", Value::Object(object));
    let path = folder.path().join(ModelConfig::FILE);
    let finished = std::fs::write(path, text).and_then(|()| folder.finish());
    finished.map_err(|error| failed(to, error))?;
    Ok(written)
}

/// Whether the embedding is the LM head too.
fn is_tied(config: &ModelConfig) -> bool {
    config.head == HeadKind::Causal && config.tied_embeddings
}

/// Writes the weight files.
fn write_tensors(
    checkpoint: &Checkpoint,
    kind: Quantization,
    keep_head: bool,
    to: &Path,
) -> Result<Written> {
    let config = &checkpoint.config;
    let layout = checkpoint.layout();
    let own_head = (is_tied(config) && !keep_head).then(|| lm_head(config));
    let own_head = own_head.iter().flat_map(|linear| &linear.matrices);
    // Each with the tensor of the checkpoint that holds its numbers.
    let tensors: Vec<(&TensorSpec, &TensorSpec)> = (layout.tensors().map(|spec| (spec, spec)))
        .chain(own_head.map(|spec| (spec, &layout.embedding)))
        .collect();
    let mut shards = ShardWriter::new(to);
    let mut left = Vec::new();
    let mut quantized = 0;
    for (spec, stored) in tensors {
        let kept = keep_head && spec.name == config.names().lm_head;
        if spec.quantizable && kind.fits(spec.cols()) && !kept {
            push_quantized(&mut shards, checkpoint, spec, stored, kind)?;
            quantized += 1;
            continue;
        }
        let tensor = checkpoint.tensors.float(stored, "the model")?;
        shards.push(Writing {
            name: spec.name.clone(),
            dtype: StoredDtype::Float(tensor.dtype),
            shape: spec.shape.clone(),
            bytes: tensor.bytes.into(),
        })?;
        if spec.shape.len() == 2 && *spec != layout.embedding {
            left.push(spec.name.clone());
        }
    }
    if is_tied(config) && keep_head {
        left.push(config.names().lm_head.to_string());
    }
    Ok(Written {
        bytes_before: checkpoint.bytes(),
        bytes: shards.finish()?,
        quantized,
        left,
    })
}

/// Adds the tensors of the matrix `spec`, quantised from the numbers of `stored`.
fn push_quantized<'a>(
    shards: &mut ShardWriter<'a>,
    checkpoint: &'a Checkpoint,
    spec: &TensorSpec,
    stored: &TensorSpec,
    kind: Quantization,
) -> Result<()> {
    let matrix = QuantizedMatrix::new(&checkpoint.matrix(stored)?, kind);
    let shape = [spec.rows() as i64, spec.cols() as i64];
    let shape = shape.iter().flat_map(|n| n.to_le_bytes()).collect();
    let bytes = [matrix.values, matrix.scales, Cow::Owned(shape)];
    for (part, bytes) in parts(spec, kind).into_iter().zip(bytes) {
        shards.push(Writing {
            name: part.name,
            dtype: part.dtype,
            shape: part.shape,
            bytes,
        })?;
    }
    Ok(())
}

/// Copies every file that is neither weights nor the config: tokenizer, templates, licence.
fn copy_other_files(checkpoint: &Checkpoint, to: &Path) -> Result<()> {
    let source = checkpoint.source();
    for file in source.files()? {
        let weights = file == INDEX || file.ends_with(".safetensors");
        if weights || file == ModelConfig::FILE || is_pickle(&file) {
            continue;
        }
        // A folder inside is none of the model's files.
        if let Ok(Some(bytes)) = source.read(&file) {
            let path = to.join(&file);
            std::fs::write(&path, &bytes).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}
