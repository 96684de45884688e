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
        let parsed = serde_json::from_slice(bytes).or_else(|error| {
            let quoted = with_python_numbers_quoted(bytes);
            quoted.map_or(Err(error), |quoted| serde_json::from_slice(&quoted))
        });
        match parsed {
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

    /// The object itself.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// The object's own entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// Token ids: one number or a list of them; nothing gives an empty list. A negative id, which
    /// some configs have for "none", is none.
    pub(crate) fn token_ids(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| match value.as_i64() {
            Some(id) if id < 0 => Some(None),
            _ => u32::try_from(value.as_u64()?).ok().map(Some),
        };
        let ids = self.typed(
            field,
            "a token id or a list of token ids",
            |value| match value {
                Value::Array(list) => list.iter().map(id).collect(),
                one => Some(vec![id(one)?]),
            },
        )?;
        Ok(ids.into_iter().flatten().flatten().collect())
    }
}

/// `NaN`, `Infinity` and `-Infinity`, which Python's `json` writes and reads although JSON has no
/// such numbers, as strings: nobody minds where the field is not used, and where it is used the
/// error shows it. `None` if there is none.
fn with_python_numbers_quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    let words: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut out = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_string, mut any) = (bytes, false, false);
    while let Some(&first) = rest.first() {
        let word = words
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        let taken = match word {
            Some(word) => word.len(),
            None if in_string && first == b'\\' => 2.min(rest.len()),
            None => 1,
        };
        let (piece, after) = rest.split_at(taken);
        in_string ^= first == b'"';
        if word.is_some() {
            any = true;
            out.extend([b"\"", piece, b"\""].concat());
        } else {
            out.extend(piece);
        }
        rest = after;
    }
    any.then_some(out)
}

/// A value for a message: short, on one line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python reads and writes numbers that JSON does not have.
    #[test]
    fn numbers_of_python() {
        for (text, field, shown) in [
            (r#"{"a": NaN}"#, "a", r#""NaN""#),
            (
                r#"{"b": [Infinity, -Infinity], "a": 1}"#,
                "b",
                r#"["Infinity","-Infinity"]"#,
            ),
            (
                r#"{"a": "a NaN \" Infinity", "b": NaN}"#,
                "a",
                r#""a NaN \" Infinity""#,
            ),
            (
                r#"{"model_max_length": 1000000000000000019884624838656}"#,
                "model_max_length",
                "1e+30",
            ),
        ] {
            let fields = Fields::parse("f".into(), text.as_bytes()).expect(text);
            let value = fields.get(field).map(ToString::to_string);
            assert_eq!(value.as_deref(), Some(shown), "{text}");
        }
        for text in [
            r#"{"a": Nan}"#,
            r#"{"a": NaN"#,
            r#"{"a": "\"#,
            "NaN",
            r#"{"a": NaNNaN}"#,
        ] {
            assert!(
                Fields::parse("f".into(), text.as_bytes()).is_err(),
                "{text}"
            );
        }
        let fields = Fields::parse("f".into(), br#"{"x": Infinity}"#).expect("an object");
        let error = fields.number_above("x", 0.0).expect_err("no number");
        assert_eq!(
            error.to_string(),
            "f: `x` is \"Infinity\"; expected a number above 0"
        );
    }
}
