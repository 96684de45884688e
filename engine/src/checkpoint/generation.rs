//! `generation_config.json`: the tokens that end a text.
//!
//! The rest of the file recommends how to sample. Offshoot's options say how to sample, so the rest
//! is not read, whatever it holds (vLLM's `"top_k": -1`, say).

use super::json::Fields;
use super::source::Source;
use crate::error::Result;

/// What is read of a model's generation defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text; empty if the file names none (see [`super::Checkpoint::eos`]).
    pub eos: Vec<u32>,
}

impl GenerationConfig {
    /// The name of the file.
    pub const FILE: &str = "generation_config.json";

    /// Reads the file of `source`; without one everything is absent.
    pub fn open(source: &Source) -> Result<GenerationConfig> {
        match source.read(Self::FILE)? {
            Some(bytes) => GenerationConfig::parse(source.place(Self::FILE), &bytes),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// Reads the content of a `generation_config.json`; `file` names it in messages.
    pub fn parse(file: String, bytes: &[u8]) -> Result<GenerationConfig> {
        let fields = Fields::parse(file, bytes)?;
        Ok(GenerationConfig {
            eos: fields.token_ids("eos_token_id")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        #[rustfmt::skip]
        let cases = [
            ("{}", Ok(vec![])),
            (r#"{"eos_token_id": 2, "bos_token_id": 1}"#, Ok(vec![2])),
            (r#"{"eos_token_id": [7, 5], "top_k": 50, "top_p": 0.5, "temperature": 0.25}"#, Ok(vec![7, 5])),
            (r#"{"eos_token_id": null, "do_sample": false}"#, Ok(vec![])),
            (r#"{"eos_token_id": -1}"#, Ok(vec![])),
            (r#"{"eos_token_id": [1, -2]}"#, Ok(vec![1])),
            (r#"{"eos_token_id": 3, "top_k": -1, "top_p": 1.5, "temperature": "hot", "min_p": NaN}"#, Ok(vec![3])),
            (r#"{"bos_token_id": "x", "repetition_penalty": 0, "max_length": Infinity}"#, Ok(vec![])),
            (r#"{"eos_token_id": "x"}"#, Err("g: `eos_token_id` is \"x\"; expected a token id or a list of token ids")),
            ("[1]", Err("g: `(whole file)` is [1]; expected an object")),
            ("{", Err("g is not valid JSON: EOF while parsing an object at line 1 column 1")),
        ];
        for (text, expected) in cases {
            let found = GenerationConfig::parse("g".into(), text.as_bytes());
            let found = found.map(|config| config.eos).map_err(|e| e.to_string());
            assert_eq!(found, expected.map_err(str::to_string), "{text}");
        }
    }
}
