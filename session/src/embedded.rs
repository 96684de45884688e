//! The nano family and its held-out problems, inside the program.

use std::path::{Path, PathBuf};

use engine::Setting;
use engine::checkpoint::new_folder::NewFolder;
use engine::checkpoint::source::Source;

use crate::Error;

macro_rules! model {
    ($name:literal) => {
        (
            $name,
            &[
                (
                    "config.json",
                    include_bytes!(concat!("embedded/", $name, "/config.json")) as &[u8],
                ),
                (
                    "generation_config.json",
                    include_bytes!(concat!("embedded/", $name, "/generation_config.json")),
                ),
                (
                    "tokenizer.json",
                    include_bytes!(concat!("embedded/", $name, "/tokenizer.json")),
                ),
                (
                    "tokenizer_config.json",
                    include_bytes!(concat!("embedded/", $name, "/tokenizer_config.json")),
                ),
                (
                    "model.safetensors",
                    include_bytes!(concat!("embedded/", $name, "/model.safetensors")),
                ),
            ],
        )
    };
}

type Files = &'static [(&'static str, &'static [u8])];

static MODELS: [(&str, Files); 3] = [model!("nano-small"), model!("nano-big"), model!("nano-prm")];

/// The bundled problems: 200 of the nano family's domain that no training saw.
pub static PROBLEMS: &[u8] = include_bytes!("embedded/nano-heldout.jsonl");

/// The words of the embedded models.
pub fn words() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(word, _)| *word)
}

/// The embedded model of this word.
pub fn find(word: &str) -> Option<Source> {
    let (name, files) = *MODELS.iter().find(|(w, _)| *w == word)?;
    Some(Source::Embedded { name, files })
}

/// Writes the embedded model of this word as a directory in Hugging Face's layout: `config.json`,
/// `generation_config.json`, `tokenizer.json`, `tokenizer_config.json`, `model.safetensors`. The directory
/// appears only when all of it is written. Returns the files.
///
/// # Errors
/// No such model, `to` exists already, or a file that cannot be written.
pub fn export(word: &str, to: &Path) -> Result<Vec<PathBuf>, Error> {
    let Some((_, files)) = MODELS.iter().find(|(w, _)| *w == word) else {
        let expected = format!("one of {}", words().collect::<Vec<_>>().join(", "));
        return Err(Setting::new("model", word, expected).into());
    };
    let write = || -> std::io::Result<()> {
        let folder = NewFolder::new(to)?;
        for (name, bytes) in *files {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        folder.finish()
    };
    write().map_err(|error| Error::File {
        setting: "to",
        file: to.display().to_string(),
        line: None,
        problem: error.to_string(),
    })?;
    Ok(files.iter().map(|(name, _)| to.join(name)).collect())
}
