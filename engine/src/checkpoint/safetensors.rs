//! The safetensors format: which files hold the weights, their headers, and writing them.
//!
//! A file is 8 bytes of header length, a JSON header (tensors with type, shape and byte range) and
//! the data (<https://github.com/huggingface/safetensors>). Weights are in one file or in shards
//! that an index names, as transformers writes them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::Dtype;
use safetensors::tensor::{Metadata, SafeTensorError, TensorView, serialize_to_file};
use serde_json::{Map, json};

use super::container::{Entry, StoredDtype, Tensors};
use super::json::Fields;
use super::source::Source;
use crate::error::{Error, Result};

/// The weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// The names of the files of weights in shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Bytes of weights of one file, as transformers shards them.
const SHARD_BYTES: usize = 5_000_000_000;

/// Maps the weight files of `source` and reads their headers. `class` is the model's class in
/// transformers, for the command that converts other formats.
///
/// # Errors
/// No safetensors file, or one whose header contradicts itself or the file.
pub(super) fn open(source: &Source, class: &str) -> Result<Tensors> {
    let mut all = Tensors::default();
    for name in weight_files(source, class)? {
        let place = source.place(&name);
        let bytes = source.map(&name)?.ok_or_else(|| Error::MissingFile {
            place: source.name(),
            file: name.clone(),
            expected: "expected tensors in it".to_string(),
        })?;
        let (start, header) = header(&place, &bytes)?;
        let entries: Vec<_> = (header.tensors().into_iter())
            .map(|(tensor, info)| {
                let (from, to) = info.data_offsets;
                let entry = Entry {
                    dtype: stored(info.dtype),
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                };
                (tensor, entry)
            })
            .collect();
        all.add_file(name, place.clone(), bytes, entries)
            .map_err(|problem| Error::Safetensors {
                file: place,
                problem,
            })?;
    }
    Ok(all)
}

fn stored(dtype: safetensors::Dtype) -> StoredDtype {
    match dtype {
        safetensors::Dtype::F32 => StoredDtype::Float(Dtype::F32),
        safetensors::Dtype::BF16 => StoredDtype::Float(Dtype::Bf16),
        safetensors::Dtype::F16 => StoredDtype::Float(Dtype::F16),
        safetensors::Dtype::I32 => StoredDtype::I32,
        safetensors::Dtype::I64 => StoredDtype::I64,
        other => StoredDtype::Other(format!("{other:?}")),
    }
}

/// The names of a checkpoint's weight files: the single one, or the shards its index names.
fn weight_files(source: &Source, class: &str) -> Result<Vec<String>> {
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
        // A pointer of Git LFS could not be converted either.
        if let Err(error @ Error::LfsPointer { .. }) = source.map(file) {
            return Err(error);
        }
        let place = source.name();
        return Err(Error::PytorchWeights {
            command: format!(
                "python -c \"from transformers import {class} as M; M.from_pretrained('{place}', \
                 dtype='auto').save_pretrained('{place}')\"",
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
pub(super) fn is_pickle(name: &str) -> bool {
    name.starts_with("pytorch_model") && (name.ends_with(".bin") || name.ends_with(".index.json"))
}

/// The shards that the index `place` names, each a plain name, with the first tensor of each.
pub(super) fn shards(place: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
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

/// The error of a file that cannot be written.
pub(super) fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        file: path.display().to_string(),
        source,
    }
}

/// A tensor to be written.
pub(super) struct Writing<'a> {
    pub name: String,
    pub dtype: StoredDtype,
    pub shape: Vec<usize>,
    pub bytes: Cow<'a, [u8]>,
}

/// Writes tensors to the files of one checkpoint, each file when it is full.
pub(super) struct ShardWriter<'a> {
    to: &'a Path,
    open: Vec<Writing<'a>>,
    open_bytes: usize,
    /// The names of the tensors of each file written.
    written: Vec<Vec<String>>,
    bytes: usize,
}

impl<'a> ShardWriter<'a> {
    /// Writes into the folder `to`, which exists.
    pub fn new(to: &'a Path) -> ShardWriter<'a> {
        ShardWriter {
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

    /// Adds a tensor.
    ///
    /// # Errors
    /// A file that was full could not be written.
    pub fn push(&mut self, tensor: Writing<'a>) -> Result<()> {
        let bytes = tensor.bytes.len();
        if self.open_bytes + bytes > SHARD_BYTES && self.open_bytes > 0 {
            self.close()?;
        }
        self.open_bytes += bytes;
        self.bytes += bytes;
        self.open.push(tensor);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let path = self.part(self.written.len());
        let wrong = |error: SafeTensorError| match error {
            SafeTensorError::IoError(error) => failed(&path, error),
            other => Error::Safetensors {
                file: path.display().to_string(),
                problem: other.to_string(),
            },
        };
        let tensors = (self.open.iter())
            .map(|tensor| {
                let dtype = written(&tensor.dtype);
                let view = TensorView::new(dtype, tensor.shape.clone(), &tensor.bytes);
                Ok((tensor.name.as_str(), view.map_err(wrong)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata = [("format".to_string(), "pt".to_string())].into();
        serialize_to_file(tensors, Some(metadata), &path).map_err(wrong)?;
        let names = self.open.drain(..).map(|tensor| tensor.name);
        self.written.push(names.collect());
        self.open_bytes = 0;
        Ok(())
    }

    /// Names the files, writes the index where there are several, and returns the bytes of all.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn finish(mut self) -> Result<usize> {
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

/// [`stored`]'s inverse, for the types that a checked checkpoint has.
fn written(dtype: &StoredDtype) -> safetensors::Dtype {
    match dtype {
        StoredDtype::Float(Dtype::F32) => safetensors::Dtype::F32,
        StoredDtype::Float(Dtype::Bf16) => safetensors::Dtype::BF16,
        StoredDtype::Float(Dtype::F16) => safetensors::Dtype::F16,
        StoredDtype::I32 => safetensors::Dtype::I32,
        StoredDtype::I64 => safetensors::Dtype::I64,
        StoredDtype::Other(name) => unreachable!("a checked tensor of type {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    const CASE: &str = "llama-g1-tied-f32";

    fn read(case: &str, file: &str) -> Vec<u8> {
        let bytes = golden(case).read(file).expect("readable");
        bytes.expect("there").to_vec()
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
