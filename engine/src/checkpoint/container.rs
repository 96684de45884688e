//! Tensors by name, whichever file format holds them.
//!
//! A format says where tensors lie ([`Entry`]); everything else is here. [`super::safetensors`] is
//! the one format read today. Another (GGUF, say) is a file beside it that fills
//! [`Tensors::add_file`].

use std::collections::HashMap;
use std::ops::Range;

use kernels::{Dtype, MatrixView};

use super::layout::TensorSpec;
use super::source::Bytes;
use crate::error::{Error, Result};

/// How a tensor's numbers are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredDtype {
    /// A type the engine computes with.
    Float(Dtype),
    /// 32-bit integers: the packed values of a quantised matrix.
    I32,
    /// 64-bit integers: the shape of a quantised matrix.
    I64,
    /// Any other type, by its name in the file.
    Other(String),
}

impl StoredDtype {
    /// Its name in messages.
    pub fn name(&self) -> &str {
        match self {
            StoredDtype::Float(Dtype::F32) => "F32",
            StoredDtype::Float(Dtype::Bf16) => "BF16",
            StoredDtype::Float(Dtype::F16) => "F16",
            StoredDtype::I32 => "I32",
            StoredDtype::I64 => "I64",
            StoredDtype::Other(name) => name,
        }
    }
}

/// Where a tensor lies in its file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub dtype: StoredDtype,
    pub shape: Vec<usize>,
    /// Bytes of the file; they lie inside it.
    pub range: Range<usize>,
}

/// The tensors of one or several files.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensors {
    files: Vec<File>,
    /// Each with the index of its file.
    tensors: HashMap<String, (usize, Entry)>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    /// The name for messages.
    place: String,
    bytes: Bytes,
}

/// A tensor of the shape that was expected, in a type the engine computes with.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub dtype: Dtype,
    pub bytes: &'a [u8],
}

impl Tensors {
    /// Adds a file and the tensors that lie in it.
    ///
    /// # Errors
    /// The name of a tensor that another file has too.
    pub fn add_file(
        &mut self,
        name: String,
        place: String,
        bytes: Bytes,
        entries: impl IntoIterator<Item = (String, Entry)>,
    ) -> std::result::Result<(), String> {
        let index = self.files.len();
        for (tensor, entry) in entries {
            if let Some((other, _)) = self.tensors.insert(tensor.clone(), (index, entry)) {
                let other = self.files.get(other).map_or(&name, |file| &file.name);
                return Err(format!("tensor {tensor} is in it and in {other} too"));
            }
        }
        self.files.push(File { name, place, bytes });
        Ok(())
    }

    /// The names of the files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str())
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor of that name and shape.
    ///
    /// # Errors
    /// A tensor that is missing (`needed_by` names its user in the message) or has another shape.
    pub fn find(&self, name: &str, shape: &[usize], needed_by: &str) -> Result<(&Entry, &[u8])> {
        let (file, entry) = self.tensors.get(name).ok_or_else(|| {
            let files: Vec<&str> = self.files.iter().map(|file| file.place.as_str()).collect();
            Error::MissingTensor {
                name: name.to_string(),
                files: files.join(", "),
                architecture: needed_by.to_string(),
            }
        })?;
        let file = &self.files[*file];
        if entry.shape != shape {
            return Err(Error::TensorShape {
                file: file.place.clone(),
                name: name.to_string(),
                found: entry.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok((entry, &file.bytes[entry.range.clone()]))
    }

    /// The error of a tensor, found before, that has another type than those `expected`.
    pub fn wrong_dtype(&self, name: &str, expected: &str) -> Error {
        let (file, entry) = &self.tensors[name];
        Error::TensorDtype {
            file: self.files[*file].place.clone(),
            name: name.to_string(),
            found: entry.dtype.name().to_string(),
            expected: expected.to_string(),
        }
    }

    /// A tensor in floating point, as `spec` describes it.
    ///
    /// # Errors
    /// As [`Tensors::find`]; a tensor of another type.
    pub fn float(&self, spec: &TensorSpec, needed_by: &str) -> Result<Tensor<'_>> {
        let (entry, bytes) = self.find(&spec.name, &spec.shape, needed_by)?;
        match entry.dtype {
            StoredDtype::Float(dtype) => Ok(Tensor { dtype, bytes }),
            _ => Err(self.wrong_dtype(&spec.name, "F32, BF16 or F16")),
        }
    }

    /// A matrix, as it lies in the file.
    ///
    /// # Errors
    /// As [`Tensors::float`].
    pub fn matrix(&self, spec: &TensorSpec) -> Result<MatrixView<'_>> {
        let tensor = self.float(spec, "the model")?;
        let &[rows, cols] = &spec.shape[..] else {
            unreachable!("{} is a matrix", spec.name)
        };
        Ok(MatrixView {
            rows,
            cols,
            dtype: tensor.dtype,
            bytes: tensor.bytes,
        })
    }

    /// A vector, converted to f32.
    ///
    /// # Errors
    /// As [`Tensors::float`].
    pub fn vector(&self, spec: &TensorSpec) -> Result<Vec<f32>> {
        let tensor = self.float(spec, "the model")?;
        Ok(to_f32(tensor.dtype, tensor.bytes))
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
