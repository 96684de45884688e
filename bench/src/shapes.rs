//! Shapes of published models, for measurements without their weights.

use engine::checkpoint::source::Source;

use crate::named;

/// File names and their bytes.
type Files = &'static [(&'static str, &'static [u8])];

/// Words, and the config of each shape.
const SHAPES: [(&str, Files); 6] = [
    (
        "nano",
        &[(
            "config.json",
            include_bytes!("../../session/src/embedded/nano-small/config.json"),
        )],
    ),
    (
        "qwen2.5-0.5b",
        &[(
            "config.json",
            include_bytes!("../../tests/golden/configs/Qwen2.5-0.5B-Instruct/config.json"),
        )],
    ),
    (
        "llama-3.2-1b",
        &[(
            "config.json",
            include_bytes!("../../tests/golden/configs/Llama-3.2-1B-Instruct/config.json"),
        )],
    ),
    (
        "qwen2.5-1.5b",
        &[(
            "config.json",
            include_bytes!("../../tests/golden/configs/Qwen2.5-1.5B-Instruct/config.json"),
        )],
    ),
    (
        "qwen2.5-7b",
        &[(
            "config.json",
            include_bytes!("../../tests/golden/configs/Qwen2.5-7B-Instruct/config.json"),
        )],
    ),
    (
        "llama-3.1-8b",
        &[(
            "config.json",
            include_bytes!("../../tests/golden/configs/Llama-3.1-8B-Instruct/config.json"),
        )],
    ),
];

/// A model's shape, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The word.
    pub name: &'static str,
    files: Files,
}

impl Shape {
    /// The shape that `word` names.
    ///
    /// # Errors
    /// No such word: the known ones.
    pub fn parse(word: &str) -> Result<Shape, String> {
        named(word, &SHAPES).map(|(name, files)| Shape { name, files })
    }

    /// [`Shape::parse`] for flags that are kept as the word.
    ///
    /// # Errors
    /// No such word: the known ones.
    pub fn word(word: &str) -> Result<String, String> {
        Shape::parse(word).map(|shape| shape.name.to_string())
    }

    /// Its config, as files of a model.
    pub fn source(self) -> Source {
        Source::Embedded {
            name: self.name,
            files: self.files,
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::checkpoint::config::ModelConfig;

    use super::*;

    #[test]
    fn every_word_is_a_shape() {
        for (word, hidden, layers) in [
            ("nano", 32, 3),
            ("qwen2.5-0.5b", 896, 24),
            ("llama-3.2-1b", 2048, 16),
            ("qwen2.5-1.5b", 1536, 28),
            ("qwen2.5-7b", 3584, 28),
            ("llama-3.1-8b", 4096, 32),
        ] {
            let shape = Shape::parse(word).expect("a shape");
            let config = ModelConfig::open(&shape.source()).expect("a config");
            assert_eq!(
                (shape.name, config.hidden, config.layers),
                (word, hidden, layers)
            );
        }
        let error = Shape::parse("gpt-5").expect_err("no such shape");
        assert!(error.starts_with("expected one of nano, "), "{error}");
    }
}
