//! A JSON object read field by field; every error names file and field.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One JSON object of a file.
pub(crate) struct Fields {
    file: String,
    /// Prefix of nested fields in messages, with its dot.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Parses `bytes`, which must hold one object. `file` is its name in messages.
    pub(crate) fn parse(file: String, bytes: &[u8]) -> Result<Fields> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Fields {
                file,
                path: String::new(),
                map,
            }),
            Ok(other) => Err(Error::Field {
                file,
                field: "(whole file)".to_string(),
                found: shown(&other),
                expected: "an object".to_string(),
            }),
            Err(source) => Err(Error::Json { file, source }),
        }
    }

    /// The file's name in messages.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The error of a field that is not as `expected`.
    pub(crate) fn wrong(&self, field: &str, expected: impl Into<String>) -> Error {
        Error::Field {
            file: self.file.clone(),
            field: format!("{}{field}", self.path),
            found: self
                .map
                .get(field)
                .map_or_else(|| "missing".to_string(), shown),
            expected: expected.into(),
        }
    }

    /// A field's value; absent and `null` are the same.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn typed<'a, T>(
        &'a self,
        field: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| self.wrong(field, expected)),
        }
    }

    /// Whether the field exists, `null` included.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// A whole number from 0 on, or nothing.
    pub(crate) fn whole(&self, field: &str) -> Result<Option<usize>> {
        self.typed(field, "a whole number", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    /// A count between 1 and `limit`, or nothing.
    pub(crate) fn count(&self, field: &str, limit: usize) -> Result<Option<usize>> {
        self.typed(
            field,
            &format!("a whole number from 1 to {limit}"),
            |value| {
                let n = usize::try_from(value.as_u64()?).ok()?;
                (1..=limit).contains(&n).then_some(n)
            },
        )
    }

    /// A count that must exist.
    pub(crate) fn needed_count(&self, field: &str, limit: usize) -> Result<usize> {
        self.count(field, limit)?
            .ok_or_else(|| self.wrong(field, format!("a whole number from 1 to {limit}")))
    }

    /// A number above `above` and below infinity, or nothing.
    pub(crate) fn number_above(&self, field: &str, above: f64) -> Result<Option<f64>> {
        self.typed(field, &format!("a number above {above}"), |value| {
            value.as_f64().filter(|&x| x > above && x.is_finite())
        })
    }

    /// A boolean, or nothing.
    pub(crate) fn boolean(&self, field: &str) -> Result<Option<bool>> {
        self.typed(field, "true or false", Value::as_bool)
    }

    /// A string, or nothing.
    pub(crate) fn string(&self, field: &str) -> Result<Option<&str>> {
        self.typed(field, "a string", Value::as_str)
    }

    /// A nested object, or nothing.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Fields>> {
        self.typed(field, "an object", |value| {
            Some(Fields {
                file: self.file.clone(),
                path: format!("{}{field}.", self.path),
                map: value.as_object()?.clone(),
            })
        })
    }

    /// The object's own entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// Token ids: one number or a list of them; nothing gives an empty list.
    pub(crate) fn token_ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let ids = self.typed(
            field,
            "a token id or a list of token ids",
            |value| match value {
                Value::Array(list) => list.iter().map(id).collect(),
                one => Some(vec![id(one)?]),
            },
        )?;
        Ok(ids.unwrap_or_default())
    }

    /// A special token as tokenizer files have it: a string, or an object with `content`.
    pub(crate) fn token(&self, field: &str) -> Result<Option<String>> {
        self.typed(
            field,
            "a token: a string or an object with `content`",
            |value| {
                let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
                Some(text.to_string())
            },
        )
    }
}

/// A value for a message: short, on one line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
