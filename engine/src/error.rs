//! What the engine can fail with.

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
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {file}: {source}")]
    Write {
        /// The file or folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A model's name is not a directory.
    #[error("{path} is not a model directory: {reason}")]
    NotADirectory {
        /// The path as it was given.
        path: String,
        /// What is there instead.
        reason: String,
    },
    /// A model of the hub that cannot be had.
    #[error("{name}: {problem}")]
    Hub {
        /// `org/name[@revision]`.
        name: String,
        /// Why not, and what would help.
        problem: String,
    },
    /// A file that every checkpoint must have is not there.
    #[error("{place} has no {file}; {expected}")]
    MissingFile {
        /// Directory or embedded model.
        place: String,
        /// The file looked for.
        file: String,
        /// What was expected of the directory.
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
    /// A field of a JSON file holds what it must not.
    #[error("{file}: `{field}` is {found}; expected {expected}")]
    Field {
        /// The file.
        file: String,
        /// The field's name, with dots for nesting.
        field: String,
        /// Its value, shortened, or `missing`.
        found: String,
        /// What may stand there.
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
        /// What is wrong with it.
        problem: String,
    },
    /// Only PyTorch pickles are there.
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
    /// A tensor of the model is in none of the files.
    #[error("tensor {name} is missing from {files}; {architecture} needs it")]
    MissingTensor {
        /// The tensor.
        name: String,
        /// Where it was looked for.
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
        /// What is wrong.
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
        /// What is wrong; what the template said, if it raised the error itself.
        problem: String,
    },
    /// The messages can't be rendered as asked.
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
    /// More tokens than the model has positions.
    #[error("{tokens} tokens do not fit the model's context of {limit}")]
    ContextFull {
        /// Tokens the branch would have.
        tokens: usize,
        /// Positions of the model.
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
    /// A reading at a place where there is no token.
    #[error("a reading at offset {offset} of {tokens} tokens")]
    NoSuchOffset {
        /// The offset asked for.
        offset: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// Nothing to continue.
    #[error("a branch without tokens cannot be continued")]
    EmptyBranch,
    /// A future waits for something the engine does not do.
    #[error("a task waits for something that no device step will bring")]
    Stalled,
    /// The engine ended before the answer came.
    #[error("the engine stopped before the answer came")]
    Stopped,
    /// A setting that cannot be honoured.
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

    /// Whether a checkpoint's weights are not there, or only in a form that is never read.
    pub fn is_missing_weights(&self) -> bool {
        match self {
            Error::PytorchWeights { .. } => true,
            Error::MissingFile { file, .. } => file.ends_with(".safetensors"),
            _ => false,
        }
    }
}
