//! The Jinja dialect of chat templates: transformers' settings, functions and filters, Python's
//! spelling of values, and bounds on size and stack.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State};

use super::bounds::{self, Budget};
use crate::error::{Error, Result};

/// Bytes that a template may have; the longest in use have some 20,000. It bounds the time too:
/// minijinja folds constants again at every level of a chain such as `--------1`.
pub(super) const MAX_BYTES: usize = 32 << 10;
/// minijinja parses and drops by recursion, without a limit for chains such as `a.a.a` or
/// `--------1`: the stack of parsing, for every byte of a template.
const STACK_PER_BYTE: usize = 4 << 10;
/// The stack of rendering: a list can be put into itself for as long as the fuel lasts.
const RENDER_STACK: usize = 512 << 20;

/// Finds out whether a template parses; `file` names it in errors.
pub(super) fn check(file: &str, text: &str) -> Result<()> {
    run(file, text, None).map(|_| ())
}

/// Renders a template with `context`, whose messages have `input` bytes.
pub(super) fn render(file: &str, text: &str, context: Value, input: usize) -> Result<String> {
    run(file, text, Some((context, input)))
}

fn run(file: &str, text: &str, context: Option<(Value, usize)>) -> Result<String> {
    let parsing = (1 << 20) + STACK_PER_BYTE * text.len();
    let stack = match context {
        None => parsing,
        Some(_) => parsing.max(RENDER_STACK),
    };
    let text = without_generation_tags(text);
    on_stack(file, stack, || bounds::run(&text, context, dialect))?
        .map_err(|error| template_error(file, &error))
}

/// transformers' functions and filters, and Python's spelling of printed values.
fn dialect(environment: &mut Environment<'_>, budget: Budget) {
    environment.set_formatter(move |out: &mut Output, state: &State, value: &Value| {
        budget.charge_printed(value)?;
        print_as_python(out, state, value)
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime);
}

/// Runs `work` on a thread with a stack of `bytes`; only the pages that are used take memory. A
/// panic is an error of the template in `file`.
fn on_stack<T: Send>(file: &str, bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    let failed = |problem: String| Error::Template {
        file: file.to_string(),
        line: None,
        problem,
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(bytes)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(format!("no room for a stack of {bytes} bytes: {error}")))?
            .join()
            .map_err(|_| failed("the template cannot be used".to_string()))
    })
}

fn template_error(file: &str, error: &minijinja::Error) -> Error {
    let problem = match error.kind() {
        ErrorKind::OutOfFuel => "it runs without end".to_string(),
        kind => match error.detail() {
            Some(detail) => detail.to_string(),
            None => kind.to_string(),
        },
    };
    Error::Template {
        file: file.to_string(),
        line: error.line(),
        problem,
    }
}

/// Removes `{% generation %}` tags: they mark text that a model was trained on and do not change
/// the text.
fn without_generation_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let word = tag[2..end]
            .trim_end_matches("%}")
            .trim_matches(['-', '+'])
            .trim();
        match word {
            "generation" => out.push_str(&tag[..end].replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag[..end].replace("endgeneration", "endif")),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out + rest
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `strftime` of the fixed day: Friday, 26 July 2024, midnight.
fn strftime(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str("2024"),
            Some('y') => out.push_str("24"),
            Some('m') => out.push_str("07"),
            Some('d' | 'e') => out.push_str("26"),
            Some('b' | 'h') => out.push_str("Jul"),
            Some('B') => out.push_str("July"),
            Some('a') => out.push_str("Fri"),
            Some('A') => out.push_str("Friday"),
            Some('j') => out.push_str("208"),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('I') => out.push_str("12"),
            Some('p') => out.push_str("AM"),
            Some('F') => out.push_str("2024-07-26"),
            Some('T') => out.push_str("00:00:00"),
            Some('-') => match chars.next() {
                Some('d') => out.push_str("26"),
                Some('m') => out.push('7'),
                Some('H' | 'M' | 'S') => out.push('0'),
                Some(other) => out.extend(['%', '-', other]),
                None => out.push_str("%-"),
            },
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// `json.dumps` as transformers offers it: no HTML escapes, Python's separators, `indent`.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for the sake of templates that name the default.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(&value).map_err(|error| {
        minijinja::Error::new(ErrorKind::BadSerialization, format!("tojson: {error}"))
    })?;
    let mut out = String::new();
    write_json(&mut out, &json, indent.map(|width| width.min(16)), 0);
    Ok(Value::from(out))
}

fn write_json(out: &mut String, json: &serde_json::Value, indent: Option<usize>, depth: usize) {
    use serde_json::Value::{Array, Object};
    let line = |out: &mut String, depth: usize| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let comma = |out: &mut String, first: bool| match (first, indent) {
        (true, _) => {}
        (false, Some(_)) => out.push(','),
        (false, None) => out.push_str(", "),
    };
    match json {
        Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                comma(out, i == 0);
                line(out, depth + 1);
                write_json(out, item, indent, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                comma(out, i == 0);
                line(out, depth + 1);
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                write_json(out, item, indent, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

/// `{{ value }}` prints what Python's `str` gives: `None`, `True`, `['a', 1]`.
fn print_as_python(out: &mut Output, state: &State, value: &Value) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            let mut text = String::new();
            python_repr(&mut text, value)?;
            out.write_str(&text).map_err(minijinja::Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn python_repr(out: &mut String, value: &Value) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') {
                '"'
            } else {
                '\''
            };
            out.push(quote);
            for c in text.chars() {
                match c {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    '\\' => out.push_str("\\\\"),
                    c if c == quote => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        ValueKind::Seq => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                python_repr(out, &item)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                python_repr(out, &key)?;
                out.push_str(": ");
                python_repr(out, &value.get_item(&key)?)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}
