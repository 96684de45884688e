//! The engine's errors.

use std::io;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, as one sentence: the file or field, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that exists could not be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {file}: {}{source}", full(source))]
    Write {
        /// The file or folder.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// A pointer that Git LFS leaves in place of a file it has not fetched.
    #[error(
        "{file} is a pointer of Git LFS in place of the file itself; `git lfs pull` in its folder \
         fetches it"
    )]
    LfsPointer {
        /// The file.
        file: String,
    },
    /// A model's name is not a directory.
    #[error("{path} is not a model directory: {reason}")]
    NotADirectory {
        /// The path as it was given.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A model of the hub that cannot be fetched.
    #[error("{name}: {problem}")]
    Hub {
        /// `org/name[@revision]`.
        name: String,
        /// Why not, and a remedy.
        problem: String,
    },
    /// A file that every checkpoint must have is missing.
    #[error("{place} has no {file}; {expected}")]
    MissingFile {
        /// Directory or embedded model.
        place: String,
        /// The file looked for.
        file: String,
        /// The directory's expected content.
        expected: String,
    },
    /// A file is not JSON at all.
    #[error("{file} is not valid JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// Where and why, with line and column.
        source: serde_json::Error,
    },
    /// A field of a JSON file has a value that is not allowed.
    #[error("{file}: `{field}` is {found}; expected {expected}")]
    Field {
        /// The file.
        file: String,
        /// The field's name, with dots for nesting.
        field: String,
        /// Its value, shortened, or `missing`.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// No architecture file serves this model.
    #[error("{file}: the architecture {found} is not supported; known are {known}")]
    UnknownArchitecture {
        /// The config file.
        file: String,
        /// The names in `architectures`.
        found: String,
        /// All names served.
        known: String,
    },
    /// A safetensors file whose header contradicts itself or the file.
    #[error("{file} is not a valid safetensors file: {problem}")]
    Safetensors {
        /// The file.
        file: String,
        /// The contradiction.
        problem: String,
    },
    /// A checkpoint whose weights are PyTorch pickles only.
    #[error(
        "{place} has its weights only as {file}, a PyTorch pickle, which is never read; convert \
         it once with: {command}"
    )]
    PytorchWeights {
        /// Directory of the checkpoint.
        place: String,
        /// The first pickle found.
        file: String,
        /// One line that writes safetensors beside it.
        command: String,
    },
    /// None of the files has a tensor that the model needs.
    #[error("tensor {name} is missing from {files}; {architecture} needs it")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// The files.
        files: String,
        /// The architecture that needs it.
        architecture: String,
    },
    /// A tensor's shape is not the one the config implies.
    #[error("{file}: tensor {name} has shape {found:?}; expected {expected:?} from config.json")]
    TensorShape {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the config implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type the engine doesn't compute with.
    #[error("{file}: tensor {name} is stored as {found}; expected {expected}")]
    TensorDtype {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// The type's name in the header.
        found: String,
        /// The types it may have.
        expected: String,
    },
    /// A tokenizer file that the tokenizer crate can't use, or text it can't handle.
    #[error("{file}: {problem}")]
    Tokenizer {
        /// The file.
        file: String,
        /// The error.
        problem: String,
    },
    /// The tokenizer writes ids that the model has no embedding for.
    #[error(
        "{file}: token {token:?} has id {id}, but the model's vocab_size is {vocab}; the tokenizer \
         belongs to another model"
    )]
    TokenizerMismatch {
        /// The tokenizer file.
        file: String,
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// The model's vocabulary.
        vocab: usize,
    },
    /// A chat template that doesn't parse or fails on the messages given.
    #[error("{file}{}: {problem}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Template {
        /// The file the template is from.
        file: String,
        /// The line inside the template, where known.
        line: Option<usize>,
        /// The error; the template's own message, if it raised one.
        problem: String,
    },
    /// Messages that can't be rendered with the options given.
    #[error("{0}")]
    Chat(String),
    /// The KV memory cannot hold one branch.
    #[error(
        "the KV cache of {blocks} blocks is too small for one branch, which needs {needed} blocks of \
         {block_bytes} bytes; give more memory (`kv_memory`)"
    )]
    PoolTooSmall {
        /// Blocks the branch needs.
        needed: usize,
        /// Blocks there are, if all memory is this model's.
        blocks: usize,
        /// Bytes of a block.
        block_bytes: usize,
    },
    /// More tokens than the model's context length.
    #[error("{tokens} tokens do not fit the model's context of {limit}")]
    ContextFull {
        /// Tokens the branch would have.
        tokens: usize,
        /// The context length.
        limit: usize,
    },
    /// A token id the model has no embedding for.
    #[error("token {token} is outside the model's vocabulary of {vocab}")]
    TokenOutOfVocabulary {
        /// The id.
        token: u32,
        /// Entries of the vocabulary.
        vocab: usize,
    },
    /// A read at an offset past the last token.
    #[error("a reading at offset {offset} of {tokens} tokens")]
    NoSuchOffset {
        /// The offset.
        offset: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// A generation on a branch without tokens.
    #[error("a branch without tokens cannot be continued")]
    EmptyBranch,
    /// A future waits for something that is not the engine's.
    #[error("a task waits for something that no batch computes")]
    Stalled,
    /// The engine ended before the answer came.
    #[error("the engine stopped before the answer came")]
    Stopped,
    /// A setting that is refused.
    #[error(transparent)]
    Setting(#[from] kernels::Setting),
    /// A device operation failed.
    #[error(transparent)]
    Kernels(#[from] kernels::Error),
}

impl Error {
    /// Whether the names in backticks in this error's text are those of settings.
    pub fn names_settings(&self) -> bool {
        match self {
            Error::PoolTooSmall { .. } | Error::Setting(_) => true,
            Error::Kernels(error) => error.names_settings(),
            _ => false,
        }
    }

    /// Whether a checkpoint's weights are missing, or stored only in a form that is never read.
    pub fn is_missing_weights(&self) -> bool {
        match self {
            Error::PytorchWeights { .. } => true,
            Error::MissingFile { file, .. } => file.ends_with(".safetensors"),
            _ => false,
        }
    }
}

/// What a system's error comes to, where it says that there is no room.
fn full(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full: ",
        io::ErrorKind::QuotaExceeded => "the disk is full for this user: ",
        io::ErrorKind::FileTooLarge => "the disk is full for files of this size: ",
        _ => "",
    }
}
