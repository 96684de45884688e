//! Special tokens outside of `tokenizer.json`: in `tokenizer_config.json`, and where older
//! checkpoints have them, `special_tokens_map.json` and `added_tokens.json`.
//!
//! What transformers 5 reads and in which order (`tokenization_utils_base.py::_from_pretrained`,
//! `tokenization_utils_tokenizers.py::__init__`), so that ids and flags are the same:
//!
//! 1. *Roles* (`bos_token`, ...) and the model's own named tokens (`image_token`, or an object
//!    `extra_special_tokens`) of `tokenizer_config.json`; *extra* tokens from the list
//!    `extra_special_tokens`, else `additional_special_tokens`.
//! 2. *Listed* tokens are those of `added_tokens_decoder`. Without that field the two older files
//!    are read: `special_tokens_map.json` replaces what the config says (to a list of extra tokens
//!    it adds), and listed tokens are those of `added_tokens.json`.
//! 3. Listed tokens that `tokenizer.json` lacks, or has with other flags, are added in the order of
//!    their ids; then roles, then extra tokens that are no added tokens yet. The tokenizers crate
//!    gives ids: a token's own where the vocabulary has it, else the next one. The id in the file
//!    is only an order.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::AddedToken;

use crate::checkpoint::json::Fields;
use crate::checkpoint::source::{Source, TOKENIZER_CONFIG};
use crate::error::Result;

/// Roles of older checkpoints.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// Added tokens of older checkpoints, with their ids.
const ADDED_TOKENS: &str = "added_tokens.json";
/// The roles that every tokenizer has, in the order in which their tokens are added.
const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";
const LISTED: &str = "added_tokens_decoder";
const EXPECTED: &str = "a token: a string or an object with `content`";

/// What the files beside `tokenizer.json` say.
#[derive(Default)]
pub(super) struct Declared {
    /// Tokens by role, in the order of [`ROLES`], then the model's own.
    pub roles: Vec<(String, AddedToken)>,
    extra: Vec<AddedToken>,
    listed: BTreeMap<u32, AddedToken>,
    /// Whether special tokens written out in a text are spelled (`split_special_tokens`).
    split: bool,
}

impl Declared {
    /// Reads the files of `source`.
    ///
    /// # Errors
    /// A file that cannot be read, a field that is no token or no list of tokens.
    pub fn open(source: &Source) -> Result<Declared> {
        let open = |file: &str| {
            let bytes = source.read(file)?;
            let parse = |bytes: &[u8]| Fields::parse(source.place(file), bytes);
            bytes.map(|bytes| parse(&bytes)).transpose()
        };
        let mut declared = Declared::default();
        let config = open(TOKENIZER_CONFIG)?;
        if let Some(config) = &config {
            declared.read_named(config, false)?;
            declared.split = config.boolean("split_special_tokens")?.unwrap_or(false);
            if config.get(LISTED).is_some() {
                declared.read_listed(config)?;
                return Ok(declared.in_order());
            }
        }
        if let Some(map) = open(SPECIAL_TOKENS)? {
            declared.read_named(&map, true)?;
        }
        if let Some(map) = open(ADDED_TOKENS)? {
            declared.read_added(&map)?;
        }
        Ok(declared.in_order())
    }

    /// Adds the tokens to a tokenizer that lacks them.
    pub fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) {
        let existing = tokenizer.get_added_tokens_decoder();
        let existing: Vec<&AddedToken> = existing.values().collect();
        let mut added: Vec<AddedToken> = (self.listed.values())
            .filter(|token| !existing.contains(token))
            .cloned()
            .collect();
        let listed = added.len();
        let named = self.roles.iter().map(|(_, token)| token);
        for token in named.chain(&self.extra) {
            let known = (existing.iter().copied())
                .chain(&added[..listed])
                .any(|other| other.content == token.content);
            if !known && !added.contains(token) {
                added.push(token.clone());
            }
        }
        for token in &mut added {
            let has_role = |(_, other): &(_, AddedToken)| other.content == token.content;
            token.special |= self.roles.iter().any(has_role);
        }
        tokenizer.add_tokens(&added);
        tokenizer.set_encode_special_tokens(self.split);
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        let named = self.roles.iter().map(|(_, token)| token);
        let all = named.chain(&self.extra).chain(self.listed.values());
        all.map(|token| token.content.len()).max().unwrap_or(0)
    }

    /// Roles and extra tokens of one file, in place of what an earlier one says. In
    /// `tokenizer_config.json` a name of the model's own has a text; `objects`: or flags.
    fn read_named(&mut self, fields: &Fields, objects: bool) -> Result<()> {
        for (name, value) in fields.entries() {
            let is_role = ROLES.contains(&name.as_str());
            let named = name.ends_with("_token") && (value.is_string() || objects);
            if value.is_null() {
                self.roles.retain(|(role, _)| role != name);
            } else if is_role || named {
                let token = token(value).ok_or_else(|| fields.wrong(name, EXPECTED))?;
                self.set_role(name, token);
            }
        }
        let full = |field: &&str| match fields.get(field) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            other => other.is_some(),
        };
        let Some(field) = [EXTRA, ADDITIONAL].into_iter().find(full) else {
            return Ok(());
        };
        const LIST: &str = "a list of tokens, or an object of tokens by name";
        let wrong = || fields.wrong(field, LIST);
        match fields.get(field) {
            Some(Value::Array(list)) => {
                let tokens = list.iter().map(token).collect::<Option<Vec<_>>>();
                let tokens = tokens.ok_or_else(wrong)?;
                // A later file adds to a list of the new name and does not replace it by one of the
                // old name.
                if field == EXTRA || self.extra.is_empty() {
                    let new = |token: &AddedToken| !self.extra.contains(token);
                    let new: Vec<AddedToken> = tokens.into_iter().filter(new).collect();
                    self.extra.extend(new);
                }
            }
            Some(Value::Object(map)) => {
                for (name, value) in map {
                    self.set_role(name, token(value).ok_or_else(wrong)?);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn set_role(&mut self, name: &str, token: AddedToken) {
        // An empty text is no token.
        if !token.content.is_empty() {
            self.roles.retain(|(role, _)| role != name);
            self.roles.push((name.to_string(), token));
        }
    }

    /// `added_tokens_decoder`: tokens by id.
    fn read_listed(&mut self, fields: &Fields) -> Result<()> {
        let wrong = || fields.wrong(LISTED, "an object of tokens by id");
        let map = fields.get(LISTED).and_then(Value::as_object);
        for (id, value) in map.ok_or_else(wrong)? {
            let id = id.parse().map_err(|_| wrong())?;
            let token = Some(value).filter(|value| value.is_object());
            let token = token.and_then(with_flags).ok_or_else(wrong)?;
            self.listed.insert(id, token);
        }
        Ok(())
    }

    /// `added_tokens.json`: ids by token. Those that have a role or are extra are special.
    fn read_added(&mut self, fields: &Fields) -> Result<()> {
        for (text, id) in fields.entries() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| fields.wrong(text, "a token id"))?;
            let named = self.roles.iter().map(|(_, token)| token);
            let special = named.chain(&self.extra).any(|token| token.content == *text);
            self.listed
                .insert(id, AddedToken::from(text.as_str(), special));
        }
        Ok(())
    }

    /// Puts the roles in order, with the flags of the listed tokens.
    fn in_order(mut self) -> Declared {
        let place = |(role, _): &(String, AddedToken)| {
            let place = ROLES.iter().position(|known| known == role);
            place.unwrap_or(ROLES.len())
        };
        self.roles.sort_by_key(place);
        for (role, token) in &mut self.roles {
            let listed = self.listed.values();
            let same = listed.rev().find(|other| other.content == token.content);
            if let Some(same) = same.filter(|_| ROLES.contains(&role.as_str())) {
                *token = same.clone();
            }
        }
        self
    }
}

/// A special token: a text, or an object with flags.
fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.as_str(), true)),
        object => with_flags(object),
    }
}

/// A token with its flags; those that are missing have the tokenizers library's defaults.
fn with_flags(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_string(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, json};

    use super::*;
    use crate::checkpoint::config::ModelConfig;
    use crate::checkpoint::source::TOKENIZER;
    use crate::testing::embedded;
    use crate::text::chat::{ChatTemplate, Message};
    use crate::text::tokenizer::Tokenizer;

    fn nano(file: &str) -> Vec<u8> {
        let folder = "../session/src/embedded/nano-small";
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(folder)
            .join(file);
        std::fs::read(path).expect("an embedded model")
    }

    /// nano-small's tokenizer with the changes of a row.
    fn changed(row: &Map<String, Value>) -> Source {
        let mut config: Value =
            serde_json::from_slice(&nano(TOKENIZER_CONFIG)).expect("embedded JSON");
        let fields = config.as_object_mut().expect("an object");
        fields.extend(row["config"].as_object().expect("fields").clone());
        for name in row["without"].as_array().expect("names") {
            fields.shift_remove(name.as_str().expect("a name"));
        }
        // The golden file's own reader has made a text of the number.
        let config = config.to_string().replace("\"Infinity\"", "Infinity");
        let mut files = vec![
            (TOKENIZER, nano(TOKENIZER)),
            (TOKENIZER_CONFIG, config.into_bytes()),
        ];
        for file in [SPECIAL_TOKENS, ADDED_TOKENS] {
            if let Some(content) = row["files"].get(file) {
                files.push((file, content.to_string().into_bytes()));
            }
        }
        embedded(files)
    }

    fn config(vocab: usize) -> ModelConfig {
        let mut config: Value =
            serde_json::from_slice(&nano(ModelConfig::FILE)).expect("embedded JSON");
        config["vocab_size"] = vocab.into();
        ModelConfig::parse("c".into(), config.to_string().as_bytes()).expect("a config")
    }

    #[test]
    fn as_transformers() {
        let path = "../tests/golden/data/tokenizers/special_tokens.json";
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let golden = Fields::parse(path.into(), &bytes.expect("golden")).expect("golden JSON");
        let text = golden.string("text").expect("a text").expect("a text");
        let messages = [Message::new("user", text)];
        let rows = golden.get("rows").and_then(Value::as_array).expect("rows");
        assert!(rows.len() >= 45);
        let mut failures = Vec::new();
        for row in rows {
            let row = row.as_object().expect("a row");
            let source = changed(row);
            let found = Tokenizer::open(&source, Some(&config(512))).and_then(|tokenizer| {
                let ids = tokenizer.encode(text, true)?;
                let chat = ChatTemplate::open(&source, &tokenizer)?;
                let chat = chat.render(&messages, true, false)?;
                Ok(json!({
                    "decoded": tokenizer.decode(&ids, false)?,
                    "decoded_skip_special": tokenizer.decode(&ids, true)?,
                    "ids": ids,
                    "chat_ids": tokenizer.encode(&chat, false)?,
                    "chat": chat,
                }))
            });
            let name = &row["name"];
            match found {
                Err(error) => failures.push(format!("{name}: {error}")),
                Ok(Value::Object(found)) => failures.extend(
                    (found.iter().filter(|(field, value)| row[*field] != **value)).map(
                        |(field, value)| {
                            format!("{name}, {field}:\n{value}\nexpected\n{}", row[field])
                        },
                    ),
                ),
                Ok(_) => unreachable!("an object was made"),
            }
        }
        assert!(
            failures.is_empty(),
            "{}:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }

    /// Tokens that the model has no room for do no harm until a text has one.
    #[test]
    fn tokens_without_room() {
        let open = |config: Value| {
            let row = json!({"config": config, "files": {}, "without": []});
            let source = changed(row.as_object().expect("a row"));
            Tokenizer::open(&source, Some(&self::config(480)))
        };
        for harmless in [
            json!({"pad_token": "[PAD]"}),
            json!({"unk_token": "[U]", "sep_token": "[S]", "cls_token": "[C]", "mask_token": "[M]"}),
            json!({"extra_special_tokens": ["<x>"]}),
            json!({"added_tokens_decoder": {"480": {"content": "<x>"}}}),
        ] {
            let tokenizer = open(harmless.clone()).unwrap_or_else(|e| panic!("{harmless}: {e}"));
            assert!(tokenizer.vocab_size() > 480, "{harmless}");
            let ids = tokenizer.encode("1 + 1", false).expect("encodes");
            assert!(ids.iter().all(|&id| id < 480), "{harmless}");
        }
        for (needed, role) in [
            (json!({"bos_token": "<s>"}), "bos_token"),
            (json!({"eos_token": "</s>"}), "eos_token"),
        ] {
            let error = open(needed).expect_err(role).to_string();
            let says = format!("{TOKENIZER_CONFIG} of the embedded test: `{role}` is ");
            assert!(
                error.starts_with(&says) && error.contains("vocab_size of 480"),
                "{error}"
            );
        }
    }

    #[test]
    fn refused() {
        let long = json!({"pad_token": "x".repeat(2000)});
        for (config, says) in [
            (
                json!({"eos_token": 3}),
                "`eos_token` is 3; expected a token: a string or an object",
            ),
            (
                json!({"added_tokens_decoder": []}),
                "`added_tokens_decoder` is []; expected an object",
            ),
            (
                json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
                "expected an object of tokens",
            ),
            (
                json!({"added_tokens_decoder": {"1": "a"}}),
                "expected an object of tokens by id",
            ),
            (
                json!({"extra_special_tokens": 3}),
                "`extra_special_tokens` is 3; expected a list",
            ),
            (
                json!({"extra_special_tokens": [3]}),
                "`extra_special_tokens` is [3]; expected a list",
            ),
            (
                json!({"additional_special_tokens": "x"}),
                "`additional_special_tokens` is \"x\"",
            ),
            (long, "an added token has 2000 bytes; expected at most 1024"),
        ] {
            let row = json!({"config": config, "files": {}, "without": []});
            let source = changed(row.as_object().expect("a row"));
            let error = Tokenizer::open(&source, None).expect_err(says).to_string();
            assert!(error.contains(says), "{error}\nexpected {says}");
        }
        for (file, content, says) in [
            (
                ADDED_TOKENS,
                json!({"a": "b"}),
                "added_tokens.json of the embedded test: `a` is \"b\"",
            ),
            (
                ADDED_TOKENS,
                json!([]),
                "`(whole file)` is []; expected an object",
            ),
            (
                SPECIAL_TOKENS,
                json!({"pad_token": 1}),
                "special_tokens_map.json of the embedded test",
            ),
        ] {
            let row = json!({"config": {}, "files": {file: content}, "without": []});
            let source = changed(row.as_object().expect("a row"));
            let error = Tokenizer::open(&source, None).expect_err(says).to_string();
            assert!(error.contains(says), "{error}\nexpected {says}");
        }
    }
}
