//! The nano family and its held-out problems, inside the binary.

use engine::checkpoint::source::Source;

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
