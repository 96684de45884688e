//! Tokenizers: text to ids and ids to text.

use std::sync::Arc;

use super::special::Declared;
use super::stream::TokenStream;
use super::tokenizer_class;
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::source::{Source, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::{Error, Result};

/// The role of the token a text begins with.
const BOS: &str = "bos_token";
/// The role of the token a text ends with.
const EOS: &str = "eos_token";

/// A special token with its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its role: `bos_token`, `eos_token`, ..., or a name of the model's own.
    pub role: String,
    /// Its text.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// Whether a file of the tokenizer names it; else the model's config does, by its id.
    pub named: bool,
}

/// A model's tokenizer. Cloning shares it.
///
/// Special tokens written out in a text become their ids, as in transformers. Decoding never
/// cleans up spaces (transformers' `clean_up_tokenization_spaces`): the text is the tokens' own.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    file: String,
    special: Vec<SpecialToken>,
    vocab_size: usize,
    warning: Option<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the special tokens of `source`. `config` adds the bos and eos of
    /// models whose tokenizer names none, and its `vocab_size` must hold every id.
    pub fn open(source: &Source, config: Option<&ModelConfig>) -> Result<Tokenizer> {
        let file = source.place(TOKENIZER);
        let wrong = |problem: String| Error::Tokenizer {
            file: file.clone(),
            problem,
        };
        let bytes = source.read(TOKENIZER)?.ok_or_else(|| Error::MissingFile {
            place: source.name(),
            file: TOKENIZER.to_string(),
            expected: "expected a tokenizer in the format of the tokenizers library".to_string(),
        })?;
        let not = |error: String| wrong(format!("not a tokenizer: {error}"));
        let value = serde_json::from_slice(&bytes).map_err(|error| not(error.to_string()))?;
        let mut inner = parse(&bytes, &value).map_err(not)?;
        let warning = tokenizer_class::mismatch(source, &value, config)?;
        // The file's padding and truncation are for batches; transformers ignores them too.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| wrong(error.to_string()))?;

        // Tokens added beyond the model's vocabulary do no harm until a text has one.
        let vocab = inner.get_vocab(false);
        let last = vocab.iter().max_by_key(|(_, id)| **id);
        if let (Some(config), Some((token, &id))) = (config, last)
            && id as usize >= config.vocab
        {
            return Err(Error::TokenizerMismatch {
                file,
                token: token.clone(),
                id,
                vocab: config.vocab,
            });
        }
        let declared = Declared::open(source)?;
        check_length(declared.longest()).map_err(wrong)?;
        guarded(|| {
            declared.add_to(&mut inner);
            Ok(())
        })
        .map_err(|error| wrong(format!("cannot add special tokens: {error}")))?;
        let special = special_tokens(source, &inner, &declared, config)?;
        let Some(&last) = inner.get_vocab(true).values().max() else {
            return Err(wrong("its vocabulary is empty".to_string()));
        };
        Ok(Tokenizer {
            inner: Arc::new(inner),
            file,
            special,
            vocab_size: last as usize + 1,
            warning,
        })
    }

    /// The ids of a text; with `add_special` also those the tokenizer puts around every text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        guarded(|| {
            Ok(self
                .inner
                .encode_fast(text, add_special)?
                .get_ids()
                .to_vec())
        })
        .map_err(|error| self.failed("cannot encode a text", &error))
    }

    /// The text of ids; with `skip_special` without special tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special))
            .map_err(|error| self.failed("cannot decode tokens", &error))
    }

    /// The id of a token by its exact text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token's text in the vocabulary (for byte-level tokenizers in their own alphabet).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What its user should know: a sentence about files that contradict each other.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The token a text begins with.
    pub fn bos(&self) -> Option<&SpecialToken> {
        self.special.iter().find(|token| token.role == BOS)
    }

    /// The token a text ends with. A model may end on others: see [`Tokenizer::end_tokens`].
    pub fn eos(&self) -> Option<&SpecialToken> {
        self.special.iter().find(|token| token.role == EOS)
    }

    /// The tokens that end a model's texts: `named` by its files
    /// ([`crate::checkpoint::Checkpoint::eos`]), else the tokenizer's own.
    pub fn end_tokens(&self, named: &[u32]) -> Vec<u32> {
        match (named, self.eos()) {
            ([], Some(token)) => vec![token.id],
            _ => named.to_vec(),
        }
    }

    /// All special tokens that have a role.
    pub fn special(&self) -> &[SpecialToken] {
        &self.special
    }

    /// A stream that turns ids into text as they come.
    pub fn stream(&self, skip_special: bool) -> TokenStream {
        TokenStream::new(self.clone(), skip_special)
    }

    /// Whether decoding drops the token: it is unknown, or special and `skip_special` says so.
    pub(super) fn is_silent(&self, id: u32, skip_special: bool) -> bool {
        match self.inner.id_to_token(id) {
            None => true,
            Some(token) => {
                skip_special && self.inner.get_added_vocabulary().is_special_token(&token)
            }
        }
    }

    fn failed(&self, what: &str, error: &str) -> Error {
        Error::Tokenizer {
            file: self.file.clone(),
            problem: format!("{what}: {error}"),
        }
    }
}

/// Bytes that an added token, or a text that a normalizer or decoder inserts, may have: far more
/// than any has.
const LONGEST_TOKEN: usize = 1024;

/// A tokenizer of a `tokenizer.json` and its parsed syntax. The tokenizers crate (0.22) panics on a
/// syntax error inside a pre-tokenizer or decoder, so the syntax is checked before. The automaton that
/// finds added tokens takes time quadratic in a repetitive token's length, and the replacement of a
/// space takes memory for every space of a text, so these are bounded.
fn parse(bytes: &[u8], value: &serde_json::Value) -> Result<tokenizers::Tokenizer, String> {
    let added = value["added_tokens"].as_array().into_iter().flatten();
    let longest = added
        .filter_map(|token| token["content"].as_str())
        .map(str::len)
        .max();
    check_length(longest.unwrap_or(0))?;
    for part in ["normalizer", "decoder"] {
        let longest = longest_piece(&value[part]);
        if longest > LONGEST_TOKEN {
            return Err(format!(
                "its {part} puts {longest} bytes into a text at once; expected at most \
                 {LONGEST_TOKEN}"
            ));
        }
    }
    guarded(|| tokenizers::Tokenizer::from_bytes(bytes))
}

/// Refuses an added token of more than [`LONGEST_TOKEN`] bytes.
fn check_length(longest: usize) -> Result<(), String> {
    if longest > LONGEST_TOKEN {
        return Err(format!(
            "an added token has {longest} bytes; expected at most {LONGEST_TOKEN}"
        ));
    }
    Ok(())
}

/// Bytes of the longest text that a normalizer or decoder, or one inside of it, puts into a text.
fn longest_piece(part: &serde_json::Value) -> usize {
    let own = ["content", "prepend", "replacement"].map(|field| part[field].as_str());
    let own = own.iter().flatten().map(|text| text.len());
    let inner = ["normalizers", "decoders"].map(|field| part[field].as_array());
    let inner = inner.into_iter().flatten().flatten().map(longest_piece);
    own.chain(inner).max().unwrap_or(0)
}

/// Runs a call into the tokenizers crate, which panics on some files that contradict themselves (a
/// merge of tokens that don't exist, a decoder that strips characters that aren't there): such a
/// file is an error like any other. The calls only read, so that nothing is left half changed.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file contradicts itself".to_string()),
    }
}

/// Special tokens by role: those that the tokenizer's files declare; bos and eos else by the
/// config's ids.
///
/// # Errors
/// A bos or eos that the model has no embedding for. Other roles are never needed (a `[PAD]` set by
/// hand, say), and a text that has such a token in it is refused.
fn special_tokens(
    source: &Source,
    tokenizer: &tokenizers::Tokenizer,
    declared: &Declared,
    config: Option<&ModelConfig>,
) -> Result<Vec<SpecialToken>> {
    let mut special = Vec::new();
    for (role, token) in &declared.roles {
        let Some(id) = tokenizer.token_to_id(&token.content) else {
            continue;
        };
        let outside = config.filter(|config| id as usize >= config.vocab);
        if let Some(config) = outside
            && [BOS, EOS].contains(&role.as_str())
        {
            return Err(Error::Field {
                file: source.place(TOKENIZER_CONFIG),
                field: role.clone(),
                found: format!("{:?}", token.content),
                expected: format!(
                    "a token of {TOKENIZER}, as the model's vocab_size of {} has no room for more",
                    config.vocab
                ),
            });
        }
        special.push(SpecialToken {
            role: role.clone(),
            text: token.content.clone(),
            id,
            named: true,
        });
    }
    let ids = [
        (BOS, config.and_then(|config| config.bos)),
        (EOS, config.and_then(|config| config.eos.first().copied())),
    ];
    for (role, id) in ids {
        if special.iter().any(|token| token.role == role) {
            continue;
        }
        if let Some((id, text)) = id.and_then(|id| Some((id, tokenizer.id_to_token(id)?))) {
            special.push(SpecialToken {
                role: role.to_string(),
                text,
                id,
                named: false,
            });
        }
    }
    Ok(special)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::{Files, embedded, golden};
    use serde_json::{Value, json};

    pub const BOTH: [&str; 2] = ["tokenizers/bpe", "tokenizers/byte-fallback"];

    pub fn open(case: &str) -> Tokenizer {
        Tokenizer::open(&golden(case), None).expect("a golden tokenizer opens")
    }

    fn ids(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).expect("golden ids")
    }

    pub fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
        let mut stream = tokenizer.stream(skip_special);
        let mut pieces: Vec<String> = ids
            .iter()
            .map(|&id| stream.push(id).expect("decodes").to_string())
            .collect();
        pieces.push(stream.finish().expect("decodes").to_string());
        pieces
    }

    #[test]
    fn as_transformers() {
        for case in BOTH {
            let source = golden(case);
            let tokenizer = open(case);
            let bytes = source
                .read("round_trips.json")
                .expect("readable")
                .expect("there");
            let rows: Vec<Value> = serde_json::from_slice(&bytes).expect("golden JSON");
            assert!(rows.len() >= 15);
            for row in rows {
                let text = row["text"].as_str().expect("golden text");
                let plain = ids(&row["ids"]);
                assert_eq!(
                    tokenizer.encode(text, false).expect("encodes"),
                    plain,
                    "{case} {row}"
                );
                let with = tokenizer.encode(text, true).expect("encodes");
                assert_eq!(with, ids(&row["ids_with_special"]), "{case} {row}");
                for (field, skip) in [("decoded", false), ("decoded_skip_special", true)] {
                    let decoded = tokenizer.decode(&plain, skip).expect("decodes");
                    assert_eq!(decoded, row[field], "{case} {row}");
                    let streamed = streamed(&tokenizer, &plain, skip).concat();
                    assert_eq!(streamed, row[field], "{case} streamed {row}");
                }
            }
        }
    }

    #[test]
    fn special_tokens_from_every_place() {
        let tokenizer = golden("tokenizers/bpe")
            .read(TOKENIZER)
            .expect("readable")
            .expect("there");
        let config = br#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 96,
            "vocab_size": 320, "max_position_embeddings": 128, "eos_token_id": 5}"#;
        let config = ModelConfig::parse("c".into(), config).expect("a config");
        let cases = [
            (json!({}), json!({}), None, Some("<|im_end|>")),
            (
                json!({"eos_token": "<|pad|>"}),
                json!({}),
                None,
                Some("<|pad|>"),
            ),
            (
                json!({"bos_token": {"content": "<|bos|>"}}),
                json!({"eos_token": "<|eos|>"}),
                Some("<|bos|>"),
                Some("<|eos|>"),
            ),
            (
                json!({"bos_token": null}),
                json!({"bos_token": "<|eos|>"}),
                Some("<|eos|>"),
                Some("<|im_end|>"),
            ),
        ];
        for (first, second, bos, eos) in cases {
            let source = embedded(vec![
                (TOKENIZER, tokenizer.to_vec()),
                (TOKENIZER_CONFIG, first.to_string().into_bytes()),
                ("special_tokens_map.json", second.to_string().into_bytes()),
            ]);
            let opened = Tokenizer::open(&source, Some(&config)).expect("opens");
            let text = |token: Option<&SpecialToken>| token.map(|t| t.text.clone());
            assert_eq!(text(opened.bos()).as_deref(), bos, "{first} {second}");
            assert_eq!(text(opened.eos()).as_deref(), eos, "{first} {second}");
        }
    }

    #[test]
    fn refused() {
        let good = golden("tokenizers/bpe")
            .read(TOKENIZER)
            .expect("readable")
            .expect("there")
            .to_vec();
        let broken_inside = || {
            let text = String::from_utf8(good.clone()).expect("UTF-8");
            text.replacen("\"use_regex\": false", "\"use_regex\": fal\nse", 1)
                .into_bytes()
        };
        let long_token = || {
            let mut file: Value = serde_json::from_slice(&good).expect("JSON");
            file["added_tokens"][0]["content"] = "x".repeat(70_000).into();
            file.to_string().into_bytes()
        };
        let long_piece = || {
            let mut file: Value = serde_json::from_slice(&good).expect("JSON");
            let replace = json!({"type": "Replace", "pattern": {"String": " "},
                "content": "x".repeat(70_000)});
            file["normalizer"] = json!({"type": "Sequence", "normalizers": [replace]});
            file.to_string().into_bytes()
        };
        let config = |vocab: usize| {
            let text = json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 96,
                "vocab_size": vocab, "max_position_embeddings": 128});
            ModelConfig::parse("c".into(), text.to_string().as_bytes()).expect("a config")
        };
        #[rustfmt::skip]
        let cases: Vec<(Files, usize, &str)> = vec![
            (vec![], 320, "test has no tokenizer.json"),
            (vec![(TOKENIZER, b"{".to_vec())], 320, "tokenizer.json of the embedded test: not a tokenizer: "),
            (vec![(TOKENIZER, b"{\"model\": {\"type\": \"What\"}}".to_vec())], 320, "tokenizer.json of the embedded test: not a tokenizer: "),
            // A syntax error inside the pre-tokenizer, where the crate itself panics.
            (vec![(TOKENIZER, broken_inside())], 320, "tokenizer.json of the embedded test: not a tokenizer: "),
            // A token that takes minutes to look for.
            (vec![(TOKENIZER, long_token())], 320, "not a tokenizer: an added token has 70000 bytes; expected at most 1024"),
            // As much memory again for every space of a text.
            (vec![(TOKENIZER, long_piece())], 320, "not a tokenizer: its normalizer puts 70000 bytes into a text at once; expected at most 1024"),
            (vec![(TOKENIZER, good[..good.len() / 2].to_vec())], 320, "tokenizer.json of the embedded test: not a tokenizer: "),
            (vec![(TOKENIZER, good.clone())], 319, "has id 319, but the model's vocab_size is 319; the tokenizer belongs to another model"),
            (vec![(TOKENIZER, good.clone()), (TOKENIZER_CONFIG, b"[]".to_vec())], 320,
             "tokenizer_config.json of the embedded test: `(whole file)` is []; expected an object"),
            (vec![(TOKENIZER, good.clone()), (TOKENIZER_CONFIG, br#"{"eos_token": "</none>"}"#.to_vec())], 320,
             "tokenizer_config.json of the embedded test: `eos_token` is \"</none>\"; expected a token of tokenizer.json"),
            (vec![(TOKENIZER, good.clone()), (TOKENIZER_CONFIG, br#"{"eos_token": 3}"#.to_vec())], 320,
             "`eos_token` is 3; expected a token: a string or an object with `content`"),
        ];
        for (files, vocab, expected) in cases {
            let error =
                Tokenizer::open(&embedded(files), Some(&config(vocab))).expect_err(expected);
            assert!(
                error.to_string().contains(expected),
                "{error}\nexpected {expected}"
            );
        }
    }
}
