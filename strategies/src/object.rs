//! JSON objects as they are written, and the files that hold them.
//!
//! A field's value stays the text it is in the file until it is asked for. So a number keeps its
//! digits (an f64 has 15 to 17 of them; an answer or an id may have more), and a line that is
//! passed on comes back as it was. serde_json's `arbitrary_precision` would keep them as well, but
//! it changes how every crate of the program reads numbers inside flattened and tagged types, those
//! of `safetensors` and `tokenizers` among them.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::fmt;

/// UTF-8's byte order mark, which some editors write at the beginning of a file.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A JSON object: its fields in their order, each value as it is written.
#[derive(Debug, Clone, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

/// An object of a file, or what is wrong there.
#[derive(Debug)]
pub struct Record {
    /// The line it begins on, counted from 1.
    pub line: usize,
    /// Its place in the file's list, counted from 1; `None` where every line is an object.
    pub item: Option<usize>,
    /// The object.
    pub object: Result<Object, String>,
}

/// The JSON object on a line of a file; the error says how the line is malformed. A byte order mark
/// and the line's end are no part of it.
pub fn read_object(line: &[u8]) -> Result<Object, String> {
    let text = utf8(line)?;
    let value: &RawValue = serde_json::from_str(text)
        .map_err(|e| format!("is not JSON at column {}: {}", e.column(), sentence(&e)))?;
    Object::read(value)
}

/// Whether objects span lines, by the file's first line that is not blank: so it is in a file that
/// is one list, and in one of objects that are printed over several lines.
pub fn spans_lines(first: &[u8]) -> bool {
    let first = without_bom(first).trim_ascii();
    first.starts_with(b"[") || first == b"{"
}

/// The objects of a whole file: one a line, those of a list, or several that are printed over more
/// than a line. Lines that are blank are no objects. A list that is not JSON throughout gives one
/// error and no object.
pub fn read_objects(file: &[u8]) -> Vec<Record> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return vec![wrong(1, "is UTF-16, expected text in UTF-8".into())];
    }
    let file = without_bom(file);
    let lines = || (1..).zip(file.split(|&b| b == b'\n'));
    let not_blank = |(_, line): &(usize, &[u8])| !line.trim_ascii().is_empty();
    match lines().find(not_blank) {
        Some((_, first)) if spans_lines(first) => spanning(file),
        _ => (lines().filter(not_blank))
            .map(|(line, bytes)| Record {
                line,
                item: None,
                object: read_object(bytes),
            })
            .collect(),
    }
}

fn wrong(line: usize, what: String) -> Record {
    Record {
        line,
        item: None,
        object: Err(what),
    }
}

/// The objects of a file in which they span lines.
fn spanning(file: &[u8]) -> Vec<Record> {
    let text = match str::from_utf8(file) {
        Ok(text) => text,
        Err(error) => return vec![wrong(lines(&file[..error.valid_up_to()]), NOT_UTF8.into())],
    };
    let values: serde_json::Result<Vec<&RawValue>> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text),
        false => serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect(),
    };
    let values = match values {
        Ok(values) => values,
        Err(e) => {
            let what = format!("is not JSON at column {}: {}", e.column(), sentence(&e));
            return vec![wrong(e.line(), what)];
        }
    };
    let (mut line, mut counted) = (1, 0);
    let records = (1..).zip(values).map(|(item, value)| {
        // A value is a part of the text.
        let start = value.get().as_ptr().addr() - text.as_ptr().addr();
        line += lines(&file[counted..start]) - 1;
        counted = start;
        Record {
            line,
            item: Some(item),
            object: Object::read(value),
        }
    });
    records.collect()
}

/// The number of the line on which the text after `before` begins.
fn lines(before: &[u8]) -> usize {
    1 + before.iter().filter(|&&b| b == b'\n').count()
}

const NOT_UTF8: &str = "is not UTF-8 text";

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(without_bom(bytes)).map_err(|_| NOT_UTF8.into())
}

fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// What a parser says, without " at line 1 column 7": the place is ours to name.
fn sentence(error: &serde_json::Error) -> String {
    let sentence = error.to_string();
    sentence
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .into()
}

impl Object {
    fn read(value: &RawValue) -> Result<Object, String> {
        if !value.get().starts_with('{') {
            return Err(format!("expected a JSON object, found {}", kind(value)));
        }
        serde_json::from_str(value.get()).map_err(|e| format!("is not JSON: {}", sentence(&e)))
    }

    /// The value of a field; the last one, if there are several of that name.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.find(|key| key == name).map(|(_, value)| value)
    }

    /// The last field whose name is `wanted`.
    pub(crate) fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<(&str, &RawValue)> {
        let field = self.0.iter().rev().find(|(key, _)| wanted(key))?;
        Some((&field.0, &field.1))
    }

    /// The names of the fields.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Puts `value` in place of the field of this name, else at the end.
    ///
    /// # Errors
    /// A value that has no JSON.
    pub fn insert(&mut self, name: &str, value: &impl Serialize) -> serde_json::Result<()> {
        let value = to_raw_value(value)?;
        match self.0.iter_mut().rev().find(|(key, _)| key == name) {
            Some(field) => field.1 = value,
            None => self.0.push((name.into(), value)),
        }
        Ok(())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A value that spans lines is put onto one.
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    let value = match value.get().contains(['\n', '\r']) {
                        true => RawValue::from_string(compact(value.get()))
                            .map_err(serde::de::Error::custom)?,
                        false => value,
                    };
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        let drop = !inside && c.is_ascii_whitespace();
        if c == '"' && !escaped {
            inside = !inside;
        }
        escaped = inside && c == '\\' && !escaped;
        !drop
    });
    kept.collect()
}

/// A text or a number, as text; `None` for anything else. A number keeps its digits: 27.0 is 27,
/// 2e3 is 2000, and where zeros would fill a line, 2e90 is LaTeX.
pub fn text_of(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'-' | b'0'..=b'9' => Some(plain(value.get())),
        _ => None,
    }
}

/// The most zeros that an exponent may stand for.
const MOST_ZEROS: i64 = 60;

/// A JSON number without an exponent, and without a fraction that is zero.
fn plain(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shift = exponent.parse().unwrap_or(i64::MAX);
    if !(-MOST_ZEROS..=MOST_ZEROS).contains(&shift) {
        return format!("{sign}{mantissa} \\times 10^{{{exponent}}}").replace("{+", "{");
    }
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i64 + shift;
    if point < 1 {
        digits.insert_str(0, &"0".repeat((1 - point) as usize));
        point = 1;
    }
    let point = point as usize;
    if digits.len() < point {
        digits.push_str(&"0".repeat(point - digits.len()));
    }
    let (whole, fraction) = digits.split_at(point);
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    match fraction.bytes().all(|b| b == b'0') {
        true => format!("{sign}{whole}"),
        false => format!("{sign}{whole}.{fraction}"),
    }
}

/// What a value is, in words.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "text",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (number, text) in [
            ("27", "27"),
            ("27.0", "27"),
            ("27.50", "27.50"),
            ("-0.0", "-0"),
            ("123456789012345678901", "123456789012345678901"),
            ("0.1234567890123456789", "0.1234567890123456789"),
            ("2e3", "2000"),
            ("1.5E+2", "150"),
            ("1.234e2", "123.4"),
            ("12e-3", "0.012"),
            ("-1.5e-1", "-0.15"),
            ("0e5", "0"),
            ("2e90", "2 \\times 10^{90}"),
            ("-1.5e+400", "-1.5 \\times 10^{400}"),
            (
                "1e-99999999999999999999",
                "1 \\times 10^{-99999999999999999999}",
            ),
        ] {
            let value: Box<RawValue> = serde_json::from_str(number).expect("a number");
            assert_eq!(text_of(&value).as_deref(), Some(text), "{number}");
        }
    }

    #[test]
    fn a_line_comes_back_as_it_was() {
        for line in [
            r#"{"a":12345678901234567890123,"b":0.10,"c":{"x": 1e5},"é":"\u00e9"}"#,
            r#"{"a":1,"a":2}"#,
            "{}",
        ] {
            let object = read_object(line.as_bytes()).expect("an object");
            assert_eq!(serde_json::to_string(&object).expect("its JSON"), line);
        }
        let mut object = read_object(br#"{"a":1.50,"b":2}"#).expect("an object");
        object.insert("a", &"x").expect("a text");
        object.insert("c", &[1]).expect("a list");
        let text = serde_json::to_string(&object).expect("its JSON");
        assert_eq!(text, r#"{"a":"x","b":2,"c":[1]}"#);
    }

    /// `line item object` of every record.
    fn brief(file: &[u8]) -> Vec<String> {
        let records = read_objects(file).into_iter().map(|record| {
            let what = match record.object {
                Ok(object) => serde_json::to_string(&object).expect("its JSON"),
                Err(why) => why,
            };
            let item = record.item.map_or("-".into(), |item| item.to_string());
            format!("{} {item} {what}", record.line)
        });
        records.collect()
    }

    #[test]
    fn files_of_every_layout() {
        for (file, expected) in [
            ("", vec![]),
            (
                "\u{feff}\r\n \r\n{\"a\":1}\r\n\r\n{\"a\":2}\r\n",
                vec!["3 - {\"a\":1}", "5 - {\"a\":2}"],
            ),
            ("[]", vec![]),
            (
                "\u{feff}[{\"a\":1},{\"a\":2}]\n",
                vec!["1 1 {\"a\":1}", "1 2 {\"a\":2}"],
            ),
            (
                "\n[\r\n {\r\n  \"a\": [\r\n   \"x \\\" [\",\r\n   2.50\r\n  ]\r\n },\r\n 7\r\n]\r\n",
                vec![
                    "3 1 {\"a\":[\"x \\\" [\",2.50]}",
                    "9 2 expected a JSON object, found a number",
                ],
            ),
            (
                "{\n \"a\": 1\n}\n{\n \"a\": 2\n}\n",
                vec!["1 1 {\"a\":1}", "4 2 {\"a\":2}"],
            ),
            (
                "[\n {\"a\": 1},\n {\"a\": ",
                vec!["3 - is not JSON at column 7: EOF while parsing a value"],
            ),
            (
                "[1]\n{\"a\":1}\n",
                vec!["2 - is not JSON at column 1: trailing characters"],
            ),
            (
                "{\"a\":1}\n[1]\n",
                vec!["1 - {\"a\":1}", "2 - expected a JSON object, found a list"],
            ),
            (
                "{\"a\"\n{\"a\":1}\n",
                vec![
                    "1 - is not JSON at column 4: EOF while parsing an object",
                    "2 - {\"a\":1}",
                ],
            ),
        ] {
            assert_eq!(brief(file.as_bytes()), expected, "{file:?}");
        }
        let utf16 = brief(b"\xff\xfe{\0}\0");
        assert_eq!(utf16, ["1 - is UTF-16, expected text in UTF-8"]);
        assert_eq!(brief(b"[\n\"\xff\"]"), ["2 - is not UTF-8 text"]);
    }
}
