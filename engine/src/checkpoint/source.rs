//! The source of a checkpoint's files: a directory, or bytes inside the program.

use std::borrow::Cow;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::file::MappedFile;

use crate::error::{Error, Result};

/// The name of a tokenizer's file.
pub const TOKENIZER: &str = "tokenizer.json";
/// The name of the file with its special tokens and chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// How a pointer of Git LFS begins
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The files of one checkpoint.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory in Hugging Face's layout.
    Directory(PathBuf),
    /// Files embedded in the program.
    Embedded {
        /// The word that names the model.
        name: &'static str,
        /// File names and their bytes.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl Source {
    /// The directory at `path`, which must exist.
    pub fn directory(path: impl AsRef<Path>) -> Result<Source> {
        let path = path.as_ref();
        let reason = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Ok(Source::Directory(path.to_path_buf())),
            Ok(_) => "it is a file".to_string(),
            Err(error) => error.to_string(),
        };
        Err(Error::NotADirectory {
            path: path.display().to_string(),
            reason,
        })
    }

    /// The checkpoint's name in messages and results: the path as given, or the model's word.
    pub fn name(&self) -> String {
        match self {
            Source::Directory(path) => path.display().to_string(),
            Source::Embedded { name, .. } => (*name).to_string(),
        }
    }

    /// One of its files, for messages.
    pub fn place(&self, file: &str) -> String {
        match self {
            Source::Directory(path) => path.join(file).display().to_string(),
            Source::Embedded { name, .. } => format!("{file} of the embedded {name}"),
        }
    }

    /// The whole content of a small file; `None` if there is no such file.
    ///
    /// # Errors
    /// A file that cannot be read, or a pointer of Git LFS in its place.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>> {
        let found = match self {
            Source::Directory(path) => read_regular(&path.join(file)).map(Cow::Owned),
            Source::Embedded { .. } => (self.embedded(file).map(Cow::Borrowed))
                .ok_or_else(|| std::io::ErrorKind::NotFound.into()),
        };
        self.checked(file, found)
    }

    /// A large file's content without copying it; `None` if there is no such file.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn map(&self, file: &str) -> Result<Option<Bytes>> {
        let found = match self {
            Source::Directory(path) => {
                MappedFile::open(&path.join(file)).map(|map| Bytes::Mapped(Arc::new(map)))
            }
            Source::Embedded { .. } => (self.embedded(file).map(Bytes::Static))
                .ok_or_else(|| std::io::ErrorKind::NotFound.into()),
        };
        self.checked(file, found)
    }

    /// What was read of a file, if it is there and is the file itself.
    fn checked<B: Deref<Target = [u8]>>(
        &self,
        file: &str,
        found: std::io::Result<B>,
    ) -> Result<Option<B>> {
        match found {
            Ok(bytes) if bytes.starts_with(LFS_POINTER) => Err(Error::LfsPointer {
                file: self.place(file),
            }),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read {
                file: self.place(file),
                source,
            }),
        }
    }

    /// The names of all files, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Source::Directory(path) => std::fs::read_dir(path)
                .and_then(|entries| {
                    entries
                        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                        .collect::<std::io::Result<Vec<_>>>()
                })
                .map_err(|source| Error::Read {
                    file: path.display().to_string(),
                    source,
                })?,
            Source::Embedded { files, .. } => {
                files.iter().map(|(name, _)| (*name).to_string()).collect()
            }
        };
        names.sort();
        Ok(names)
    }

    fn embedded(&self, file: &str) -> Option<&'static [u8]> {
        match self {
            Source::Directory(_) => None,
            Source::Embedded { files, .. } => files
                .iter()
                .find(|(name, _)| *name == file)
                .map(|(_, bytes)| *bytes),
        }
    }
}

/// Reads a regular file: never a pipe, which could block for ever.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    std::fs::read(path)
}

/// A file's bytes, shared and never copied.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// Part of the program.
    Static(&'static [u8]),
    /// Mapped from a file.
    Mapped(Arc<MappedFile>),
    /// Made by the program.
    Owned(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Static(bytes) => bytes,
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}
