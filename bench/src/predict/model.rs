//! The models that predictions are made for: a shape's word, or a config on disk.

use std::path::Path;

use engine::checkpoint::config::{HeadKind, ModelConfig};
use engine::checkpoint::layout::{HeadLayout, LinearSpec, ModelLayout};
use engine::checkpoint::source::Source;

use super::attention::Heads;
use crate::shapes::Shape;

/// A model by its config.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its word, or the name of its folder.
    pub name: String,
    /// Shapes and constants.
    pub config: ModelConfig,
    /// Its tensors.
    pub layout: ModelLayout,
}

impl Model {
    /// The model that a word names, or whose `config.json` or folder is at a path.
    ///
    /// # Errors
    /// No such shape or file; a config that cannot be read; a model that the CUDA backend cannot decode.
    pub fn find(text: &str) -> Result<Model, String> {
        let unknown = match Shape::parse(text) {
            Ok(shape) => {
                let config = ModelConfig::open(&shape.source()).map_err(|e| e.to_string())?;
                return Model::new(shape.name.into(), config);
            }
            Err(expected) => expected,
        };
        let path = Path::new(text);
        let config = if path.is_dir() {
            let source = Source::directory(path).map_err(|e| e.to_string())?;
            ModelConfig::open(&source).map_err(|e| e.to_string())?
        } else if path.is_file() {
            let bytes = std::fs::read(path).map_err(|e| format!("{text}: {e}"))?;
            ModelConfig::parse(text.into(), &bytes).map_err(|e| e.to_string())?
        } else {
            return Err(format!(
                "{text}: {unknown}, a config.json or a folder that has one"
            ));
        };
        // A name stands in a line's case, whose words are separated by blanks.
        let folder = if path.is_file() {
            path.parent()
        } else {
            Some(path)
        };
        let folder = folder.and_then(|folder| folder.canonicalize().ok());
        let name = folder.as_deref().and_then(Path::file_name);
        let name = name.map_or(text.into(), |name| name.to_string_lossy());
        Model::new(
            name.to_lowercase().replace(char::is_whitespace, "-"),
            config,
        )
    }

    fn new(name: String, config: ModelConfig) -> Result<Model, String> {
        if config.head != HeadKind::Causal {
            return Err(format!("{name}: a reward model, expected one that writes"));
        }
        if config.quantization.is_some() {
            return Err(format!(
                "{name}: quantized weights, expected bfloat16: no card runs others yet"
            ));
        }
        if !config.head_dim.is_multiple_of(16) || config.head_dim > 256 {
            return Err(format!(
                "{name}: heads of {} elements, expected a multiple of 16 up to 256",
                config.head_dim
            ));
        }
        let layout = ModelLayout::new(&config);
        Ok(Model {
            name,
            config,
            layout,
        })
    }

    /// The heads of its attention.
    pub fn heads(&self) -> Heads {
        let c = &self.config;
        (c.heads, c.kv_heads, c.head_dim)
    }

    /// Its linear layers by output and input features, each shape once, in the order of the pass.
    pub fn linear_shapes(&self) -> Vec<(usize, usize)> {
        let mut all: Vec<(usize, usize)> = Vec::new();
        let layers = self
            .layout
            .layers
            .iter()
            .flat_map(|layer| layer.linear_layers());
        let head = self.head();
        for (rows, cols) in layers.map(shape).chain([head]) {
            if !all.contains(&(rows, cols)) {
                all.push((rows, cols));
            }
        }
        all
    }

    /// Output and input features of the LM head.
    pub fn head(&self) -> (usize, usize) {
        match &self.layout.head {
            HeadLayout::Linear(linear) => shape(linear),
            HeadLayout::Tied | HeadLayout::TwoLayer { .. } => {
                (self.config.vocab, self.config.hidden)
            }
        }
    }

    /// The distinct windows of its layers.
    pub fn windows(&self) -> Vec<Option<u32>> {
        let mut all = Vec::new();
        for &window in &self.config.windows {
            if !all.contains(&window) {
                all.push(window);
            }
        }
        all
    }
}

fn shape(linear: &LinearSpec) -> (usize, usize) {
    (linear.rows(), linear.cols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root;

    #[test]
    fn models_are_words_files_and_folders() {
        let by_word = Model::find("llama-3.2-1b").expect("a shape");
        assert_eq!(by_word.heads(), (32, 8, 64));
        assert_eq!(
            by_word.linear_shapes(),
            [
                (3072, 2048),
                (2048, 2048),
                (16_384, 2048),
                (2048, 8192),
                (128_256, 2048)
            ]
        );
        let folder = root().join("tests/golden/configs/Llama-3.2-1B-Instruct");
        for path in [folder.clone(), folder.join("config.json")] {
            let found = Model::find(&path.display().to_string()).expect("a config");
            assert_eq!(found.name, "llama-3.2-1b-instruct");
            assert_eq!(found.layout, by_word.layout);
        }
    }

    #[test]
    fn what_cannot_be_predicted_is_one_sentence() {
        let configs = root().join("tests/golden/configs");
        let at = |name: &str| configs.join(name).display().to_string();
        for (text, words) in [
            ("gpt-5".to_string(), "expected one of nano, "),
            (at("Qwen2.5-Math-PRM-7B"), "expected one that writes"),
            (configs.display().to_string(), "config.json"),
        ] {
            let error = Model::find(&text).expect_err("no model to predict");
            assert!(error.contains(words), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
