//! The tokenizer's class, where it does not fit `tokenizer.json`.
//!
//! transformers up to 4 takes `tokenizer.json` as it stands. From 5 on, some classes take only the
//! vocabulary and the merges from it and set normalizer and pre-tokenizer themselves
//! (`Qwen2Tokenizer` and `GemmaTokenizer`, `models/*/tokenization_*.py::__init__` of 5.23; which
//! class: `models/auto/tokenization_auto.py`). `LlamaTokenizer` does so too, but is not taken for a
//! byte-level `tokenizer.json`, and what it sets splits texts as the files it was made for do. Here
//! the file holds. Where such a class would split texts in another way, one sentence says so.

use serde_json::Value;

use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::json::Fields;
use crate::checkpoint::source::{Source, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::Result;

/// A class that sets how texts are split.
struct Class {
    name: &'static str,
    /// Whether what it sets is what a `tokenizer.json` has.
    fits: fn(&Value) -> bool,
    /// What it sets, in words.
    sets: &'static str,
}

/// Qwen's pattern of words: the regular expression of its `tokenizer.json`.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN: Class = Class {
    name: "Qwen2Tokenizer",
    fits: |file| {
        let parts = parts(&file["pre_tokenizer"], "pretokenizers");
        let words = |part: &&Value| part["pattern"]["Regex"] == QWEN_WORDS;
        let splits = parts.iter().any(words) && parts.iter().any(|p| p["type"] == "ByteLevel");
        let normalizers = self::parts(&file["normalizer"], "normalizers");
        splits && matches!(normalizers[..], [only] if only["type"] == "NFC")
    },
    sets: "byte-level BPE over Qwen's words in NFC",
};

const GEMMA: Class = Class {
    name: "GemmaTokenizer",
    fits: |file| {
        let parts = parts(&file["normalizer"], "normalizers");
        matches!(parts[..], [only] if only["type"] == "Replace" && only["content"] == "\u{2581}")
    },
    sets: "BPE over texts whose spaces are \u{2581}",
};

/// A component, or those of a sequence of them.
fn parts<'a>(component: &'a Value, of_sequence: &str) -> Vec<&'a Value> {
    match component[of_sequence].as_array() {
        Some(parts) => parts.iter().collect(),
        None if component.is_null() => Vec::new(),
        None => vec![component],
    }
}

/// The class that transformers 5 takes for a model: the one that `tokenizer_config.json` names,
/// except for Qwen2 and Mistral, whose checkpoints name wrong ones; without a name, the
/// architecture's.
fn class(named: Option<&str>, architecture: &str) -> Option<&'static Class> {
    let of_architecture = || match architecture {
        a if a.starts_with("Qwen") => Some(&QWEN),
        a if a.starts_with("Gemma") => Some(&GEMMA),
        _ => None,
    };
    let named = named.map(|name| name.trim_end_matches("Fast"));
    match named {
        _ if architecture.starts_with("Qwen2") => Some(&QWEN),
        _ if architecture.starts_with("Mistral") => None,
        Some(name) => [&QWEN, &GEMMA].into_iter().find(|c| c.name == name),
        None => of_architecture(),
    }
}

/// The sentence about a class that does not fit; `file`: the parsed `tokenizer.json`. None about an
/// embedded model, which transformers cannot open.
///
/// # Errors
/// A `tokenizer_config.json` that cannot be read, or whose `tokenizer_class` is no text.
pub(super) fn mismatch(
    source: &Source,
    file: &Value,
    config: Option<&ModelConfig>,
) -> Result<Option<String>> {
    if matches!(source, Source::Embedded { .. }) {
        return Ok(None);
    }
    let bytes = source.read(TOKENIZER_CONFIG)?;
    let fields = bytes.map(|bytes| Fields::parse(source.place(TOKENIZER_CONFIG), &bytes));
    let named = match &fields.transpose()? {
        Some(fields) => fields.string("tokenizer_class")?.map(str::to_string),
        None => None,
    };
    let architecture = config.map_or("", |config| &config.architecture);
    let class = class(named.as_deref(), architecture).filter(|class| !(class.fits)(file));
    Ok(class.map(|Class { name, sets, .. }| {
        format!(
            "{}: transformers 5 makes a {name} of this model's vocabulary ({sets}), which is not what \
             {TOKENIZER} says; {TOKENIZER} is followed, so that token ids may differ",
            source.place(TOKENIZER_CONFIG)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;
    use serde_json::json;

    fn file(case: &str, name: &str) -> Value {
        let bytes = golden(case).read(name).expect("readable");
        serde_json::from_slice(&bytes.expect("there")).expect("JSON")
    }

    /// A warning where transformers 5 gives other ids, and nowhere else.
    #[test]
    fn classes_that_do_not_fit_are_those_whose_ids_differ_in_transformers() {
        let made = file("tokenizers", "classes.json");
        let rows = made["rows"].as_array().expect("rows");
        assert!(rows.len() > 50);
        for row in rows {
            let kind = row["file"].as_str().expect("a folder");
            let file = file(&format!("tokenizers/{kind}"), TOKENIZER);
            let architecture = row["architecture"].as_str().expect("a name");
            let class = class(row["named"].as_str(), architecture);
            let fits = class.is_none_or(|class| (class.fits)(&file));
            assert_eq!(Some(fits), row["same_ids"].as_bool(), "{row}");
            if !fits {
                assert_eq!(
                    class.map(|class| class.name),
                    row["taken"].as_str(),
                    "{row}"
                );
            }
        }
    }

    #[test]
    fn a_pattern_of_words_that_is_not_qwens_does_not_fit() {
        let pattern = |pattern: &str| {
            json!({"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}}, {"type": "ByteLevel"}]}})
        };
        assert!((QWEN.fits)(&pattern(QWEN_WORDS)));
        assert!(!(QWEN.fits)(&pattern("\\p{N}{1,3}")));
        assert!(!(QWEN.fits)(&json!({"pre_tokenizer": null})));
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        assert!((GEMMA.fits)(&json!({"normalizer": spaces})));
    }
}
