//! `generation_config.json`: the tokens that end a text, and the sampling that its authors
//! recommend.

use super::json::Fields;
use super::source::Source;
use crate::error::Result;

/// A model's generation defaults. Everything may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text; empty if the file names none (see [`super::Checkpoint::eos`]).
    pub eos: Vec<u32>,
    /// The token a text begins with.
    pub bos: Option<u32>,
    /// Whether to sample (`do_sample`); false recommends greedy decoding.
    pub do_sample: Option<bool>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Nucleus sampling's mass.
    pub top_p: Option<f32>,
    /// How many tokens are candidates; 0 means all.
    pub top_k: Option<usize>,
    /// Smallest probability of a candidate, relative to the likeliest.
    pub min_p: Option<f32>,
    /// Penalty on tokens that are already there; 1 is none.
    pub repetition_penalty: Option<f32>,
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
        let fraction = |field: &str| match fields.get(field).map(|value| value.as_f64()) {
            None => Ok(None),
            Some(Some(x)) if (0.0..=1.0).contains(&x) => Ok(Some(x as f32)),
            Some(_) => Err(fields.wrong(field, "a number from 0 to 1")),
        };
        let temperature = match fields.get("temperature").map(|value| value.as_f64()) {
            None => None,
            Some(Some(x)) if x >= 0.0 && x.is_finite() => Some(x as f32),
            Some(_) => return Err(fields.wrong("temperature", "a number from 0 up")),
        };
        let top_k = match fields.get("top_k").map(|value| value.as_u64()) {
            None => None,
            Some(Some(k)) => Some(usize::try_from(k).unwrap_or(usize::MAX)),
            Some(None) => return Err(fields.wrong("top_k", "a whole number from 0 up")),
        };
        Ok(GenerationConfig {
            eos: fields.token_ids("eos_token_id")?,
            bos: fields.token_ids("bos_token_id")?.first().copied(),
            do_sample: fields.boolean("do_sample")?,
            temperature,
            top_p: fraction("top_p")?,
            top_k,
            min_p: fraction("min_p")?,
            repetition_penalty: fields
                .number_above("repetition_penalty", 0.0)?
                .map(|x| x as f32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let none = GenerationConfig::default();
        #[rustfmt::skip]
        let cases = [
            ("{}", Ok(none.clone())),
            (r#"{"eos_token_id": 2, "bos_token_id": 1}"#, Ok(GenerationConfig { eos: vec![2], bos: Some(1), ..none.clone() })),
            (r#"{"eos_token_id": [7, 5], "top_k": 50, "top_p": 0.5, "temperature": 0.25}"#,
             Ok(GenerationConfig { eos: vec![7, 5], top_k: Some(50), top_p: Some(0.5), temperature: Some(0.25), ..none.clone() })),
            (r#"{"eos_token_id": null, "do_sample": false, "min_p": 0, "repetition_penalty": 1.5}"#,
             Ok(GenerationConfig { do_sample: Some(false), min_p: Some(0.0), repetition_penalty: Some(1.5), ..none.clone() })),
            (r#"{"eos_token_id": "x"}"#, Err("g: `eos_token_id` is \"x\"; expected a token id or a list of token ids")),
            (r#"{"eos_token_id": [1, -2]}"#, Err("g: `eos_token_id` is [1,-2]; expected a token id or a list of token ids")),
            (r#"{"top_p": 1.5}"#, Err("g: `top_p` is 1.5; expected a number from 0 to 1")),
            (r#"{"top_k": -1}"#, Err("g: `top_k` is -1; expected a whole number from 0 up")),
            (r#"{"temperature": "hot"}"#, Err("g: `temperature` is \"hot\"; expected a number from 0 up")),
            (r#"{"repetition_penalty": 0}"#, Err("g: `repetition_penalty` is 0; expected a number above 0")),
            ("[1]", Err("g: `(whole file)` is [1]; expected an object")),
            ("{", Err("g is not valid JSON: EOF while parsing an object at line 1 column 1")),
        ];
        for (text, expected) in cases {
            let found =
                GenerationConfig::parse("g".into(), text.as_bytes()).map_err(|e| e.to_string());
            assert_eq!(found, expected.map_err(str::to_string), "{text}");
        }
    }
}
