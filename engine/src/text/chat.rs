//! Chat templates: messages as the text a model was trained on.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State};
use serde::{Deserialize, Serialize};

use crate::checkpoint::json::Fields;
use crate::checkpoint::source::Source;
use crate::error::{Error, Result};
use crate::text::tokenizer::{TOKENIZER_CONFIG, Tokenizer};

/// A template in a file of its own; it wins over the one in `tokenizer_config.json`.
const TEMPLATE: &str = "chat_template.jinja";
/// What transformers appends to a message that is to be continued, in order to find its end.
const END_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// Instructions a rendering may take: many times what long conversations need.
const FUEL: u64 = 1_000_000;
/// Bytes a template may have; the longest in use have some 20,000. It bounds the time too:
/// minijinja folds constants anew at every level of a chain such as `--------1`.
const LONGEST: usize = 32 << 10;
/// minijinja parses and drops by recursion, without a limit for chains such as `a.a.a` or
/// `--------1`: the stack of parsing, for every byte of a template.
const STACK_PER_BYTE: usize = 4 << 10;
/// The stack of rendering: a list can be put into itself for as long as the fuel lasts.
const RENDER_STACK: usize = 512 << 20;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A model's chat template, rendered as transformers renders it, except that every day is
/// 26 July 2024 (the date Llama 3.1's template falls back to): a text must not depend on the day.
///
/// A model without a template gets the plain form: the contents, joined by a newline, with one
/// more newline at the end where a generation prompt is asked for.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Option<Template>,
}

#[derive(Debug)]
struct Template {
    /// Where it is from, for messages.
    file: String,
    environment: Environment<'static>,
    special: Vec<(&'static str, String)>,
    mentions_content: bool,
}

/// The name under which the environment knows the template.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// The template of `source`: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (one, or a list in which the one named `default` counts), else the
    /// plain form.
    pub fn open(source: &Source, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let special = tokenizer
            .special()
            .iter()
            .map(|token| (token.role, token.text.clone()))
            .collect();
        if let Some(bytes) = source.read(TEMPLATE)? {
            let file = source.place(TEMPLATE);
            return match std::str::from_utf8(&bytes) {
                Ok(text) => ChatTemplate::parse(file, text, special),
                Err(error) => {
                    let problem = format!("not UTF-8: {error}");
                    Err(Error::Template {
                        file,
                        line: None,
                        problem,
                    })
                }
            };
        }
        let Some(bytes) = source.read(TOKENIZER_CONFIG)? else {
            return Ok(ChatTemplate::plain());
        };
        let fields = Fields::parse(source.place(TOKENIZER_CONFIG), &bytes)?;
        const EXPECTED: &str =
            "a template, or a list of {\"name\", \"template\"} with one named default";
        let text = match fields.get("chat_template") {
            None => return Ok(ChatTemplate::plain()),
            Some(serde_json::Value::String(text)) => text.as_str(),
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str())
                .ok_or_else(|| fields.wrong("chat_template", EXPECTED))?,
            Some(_) => return Err(fields.wrong("chat_template", EXPECTED)),
        };
        ChatTemplate::parse(format!("{}: chat_template", fields.file()), text, special)
    }

    /// The plain form.
    pub fn plain() -> ChatTemplate {
        ChatTemplate { template: None }
    }

    /// Whether the model has a template of its own.
    pub fn is_plain(&self) -> bool {
        self.template.is_none()
    }

    /// Parses a template's text; `file` names it in messages, `special` are the special tokens it
    /// may name.
    pub fn parse(
        file: String,
        text: &str,
        special: Vec<(&'static str, String)>,
    ) -> Result<ChatTemplate> {
        if text.len() > LONGEST {
            return Err(Error::Template {
                problem: format!("it has {} bytes; expected at most {LONGEST}", text.len()),
                file,
                line: None,
            });
        }
        let stack = (1 << 20) + STACK_PER_BYTE * text.len();
        let environment = on_stack(&file, stack, || environment(text))?
            .map_err(|error| template_error(&file, &error))?;
        let mentions_content = text.contains("content");
        Ok(ChatTemplate {
            template: Some(Template {
                file,
                environment,
                special,
                mentions_content,
            }),
        })
    }

    /// The text of a conversation. `add_generation_prompt` ends it where the assistant begins to
    /// write. `continue_final` ends it inside the last message, at the end of its content, so that
    /// the model goes on with it. Both together are refused.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final: bool,
    ) -> Result<String> {
        if add_generation_prompt && continue_final {
            let problem = "a final message can't be continued and followed by a new one at once";
            return Err(Error::Chat(problem.to_string()));
        }
        if continue_final && messages.is_empty() {
            return Err(Error::Chat(
                "there is no final message to continue".to_string(),
            ));
        }
        let Some(template) = &self.template else {
            let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
            let end = if add_generation_prompt { "\n" } else { "" };
            return Ok(contents.join("\n") + end);
        };
        if !continue_final {
            return template.render(messages, add_generation_prompt);
        }
        if !template.mentions_content {
            return Err(template.cannot_continue());
        }
        let mut marked = messages.to_vec();
        let mut content = "";
        if let (Some(last), Some(original)) = (marked.last_mut(), messages.last()) {
            last.content.push_str(END_TAG);
            content = original.content.trim();
        }
        let mut text = template.render(&marked, false)?;
        let tag = END_TAG.trim_end();
        let end = text.rfind(tag).filter(|_| text.contains(content));
        let end = end.ok_or_else(|| template.cannot_continue())?;
        // A template that trims contents would have trimmed the unmarked content's end too.
        let trimmed = !text[end..].starts_with(END_TAG);
        text.truncate(end);
        if trimmed {
            text.truncate(text.trim_end().len());
        }
        Ok(text)
    }
}

impl Template {
    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        on_stack(&self.file, RENDER_STACK, || {
            self.render_here(messages, add_generation_prompt)
        })?
    }

    fn render_here(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut context: Vec<(&str, Value)> = vec![
            ("messages", Value::from_serialize(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        for (role, text) in &self.special {
            context.push((role, Value::from(text.as_str())));
        }
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from_iter(context)))
            .map_err(|error| template_error(&self.file, &error))
    }

    fn cannot_continue(&self) -> Error {
        Error::Template {
            file: self.file.clone(),
            line: None,
            problem:
                "the final message can't be continued: its content is not in the rendered text"
                    .to_string(),
        }
    }
}

/// The dialect, with one template of this text.
fn environment(text: &str) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print_as_python);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime);
    environment.add_filter("tojson", tojson);
    environment.add_template_owned(NAME, without_generation_tags(text))?;
    Ok(environment)
}

/// Runs `work` on a thread of its own with a stack of `bytes`, of which only what is used is
/// memory. A template of the file that makes it panic is an error.
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

/// `{% generation %}` blocks mark what a model was trained on; for the text they mean nothing.
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
fn tojson(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{embedded, golden};
    use serde_json::json;

    fn tokenizer() -> Tokenizer {
        Tokenizer::open(&golden("tokenizers/bpe"), None).expect("a golden tokenizer opens")
    }

    #[test]
    fn as_transformers() {
        let source = golden("chat");
        let read = |file: &str| {
            source
                .read(file)
                .expect("readable")
                .expect("there")
                .to_vec()
        };
        let golden: serde_json::Value =
            serde_json::from_slice(&read("rendered.json")).expect("golden JSON");
        let special: Vec<(&'static str, String)> = ["bos_token", "eos_token", "pad_token"]
            .into_iter()
            .map(|role| {
                (
                    role,
                    golden["special_tokens"][role]
                        .as_str()
                        .expect("text")
                        .to_string(),
                )
            })
            .collect();
        let rows = golden["rows"].as_array().expect("rows");
        assert!(rows.len() >= 100);
        let mut failures = Vec::new();
        for row in rows {
            let file = row["template"].as_str().expect("a template").to_string();
            let text = String::from_utf8(read(&file)).expect("UTF-8");
            let messages: Vec<Message> =
                serde_json::from_value(row["messages"].clone()).expect("messages");
            let rendered = ChatTemplate::parse(file, &text, special.clone()).and_then(|template| {
                let flag = |name: &str| row[name].as_bool().expect("a flag");
                template.render(
                    &messages,
                    flag("add_generation_prompt"),
                    flag("continue_final"),
                )
            });
            let right = match (&rendered, row["text"].as_str(), row["error"].as_str()) {
                (Ok(text), Some(expected), None) => text == expected,
                (Err(error), None, Some(expected)) => error.to_string().contains(expected),
                _ => false,
            };
            if !right {
                failures.push(format!("{row:#}\n{rendered:?}"));
            }
        }
        assert!(
            failures.is_empty(),
            "{} rows:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }

    #[test]
    fn templates_from_every_place() {
        let config = |value: serde_json::Value| (TOKENIZER_CONFIG, value.to_string().into_bytes());
        let file = |text: &str| (TEMPLATE, text.as_bytes().to_vec());
        #[rustfmt::skip]
        let cases = [
            (vec![], "hi\n"),
            (vec![config(json!({}))], "hi\n"),
            (vec![config(json!({"chat_template": "one {{ bos_token }}"}))], "one <|bos|>"),
            (vec![config(json!({"chat_template": [{"name": "tool", "template": "no"}, {"name": "default", "template": "two"}]}))], "two"),
            (vec![config(json!({"chat_template": "one"})), file("three {{ messages[0].content }}\n")], "three hi"),
        ];
        for (files, expected) in cases {
            let shown = format!("{files:?}");
            let template = ChatTemplate::open(&embedded(files), &tokenizer()).expect(&shown);
            let text = template
                .render(&[Message::new("user", "hi")], true, false)
                .expect(&shown);
            assert_eq!(text, expected, "{shown}");
        }
    }

    /// Neither parsing nor values of any depth overflow a stack.
    #[test]
    fn deep_templates() {
        let chains = [
            "not ",
            "-",
            "a.",
            "a[0].",
            "a|b|",
            "a~",
            "1+",
            "a if b else ",
            "a and ",
            "a is b and ",
            "1**",
            "a(1).",
        ];
        for chain in chains {
            let text = format!("{{{{ {}a }}}}", chain.repeat(8_000 / chain.len()));
            let rendered = ChatTemplate::parse("t".into(), &text, vec![])
                .and_then(|template| template.render(&[], false, false));
            // That it ends is the point; most have nothing to print.
            assert!(
                rendered.is_err() || rendered.is_ok_and(|text| text.len() < 100),
                "{chain}"
            );
        }
        let elif = format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(2500));
        let deeper = "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}";
        let values = ["", "{{ n.x }}", "{{ n.x|tojson }}", "{{ n.x == n.x }}"];
        let values = values.map(|end| format!("{deeper}{end}"));
        for text in std::iter::once(&elif).chain(&values) {
            let template = ChatTemplate::parse("t".into(), text, vec![]).expect("parses");
            let _ = template.render(&[], false, false);
        }
        let long = " ".repeat(LONGEST + 1);
        let error = ChatTemplate::parse("t".into(), &long, vec![]).expect_err("too long");
        assert_eq!(
            error.to_string(),
            "t: it has 32769 bytes; expected at most 32768"
        );
    }

    #[test]
    fn the_plain_form() {
        let plain = ChatTemplate::plain();
        let messages = [Message::new("system", "s"), Message::new("user", "u\n")];
        assert_eq!(
            plain.render(&messages, false, false).expect("renders"),
            "s\nu\n"
        );
        assert_eq!(
            plain.render(&messages, true, false).expect("renders"),
            "s\nu\n\n"
        );
        assert_eq!(
            plain.render(&messages, false, true).expect("renders"),
            "s\nu\n"
        );
    }

    #[test]
    fn refused() {
        let config = |value: serde_json::Value| (TOKENIZER_CONFIG, value.to_string().into_bytes());
        let file = |text: &str| (TEMPLATE, text.as_bytes().to_vec());
        let jinja = "chat_template.jinja of the embedded test";
        #[rustfmt::skip]
        let cases = [
            (file("a\n{% if %}"), format!("{jinja}, line 2: unexpected end of block")),
            (file("a\nb\n{% for m in messages %}"), format!("{jinja}, line 3: unexpected end of input, expected end of block")),
            (file("a\n{{ messages[0].content | nofilter }}"), format!("{jinja}, line 2: ")),
            (file("{{ messages[0].a.b }}"), format!("{jinja}, line 1: undefined value")),
            (file("\n{{ raise_exception('no ' + messages[0].role) }}"), format!("{jinja}, line 2: no user")),
            (file("{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}"),
             format!("{jinja}, line 1: it runs without end")),
            (file("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), format!("{jinja}, line 1: ")),
            ((TEMPLATE, vec![0xff, 0xfe]), format!("{jinja}: not UTF-8")),
            (config(json!({"chat_template": "{{"})), "tokenizer_config.json of the embedded test: chat_template, line 1: ".to_string()),
            (config(json!({"chat_template": 3})), "`chat_template` is 3; expected a template, or a list".to_string()),
            (config(json!({"chat_template": [{"name": "a", "template": "b"}]})), "with one named default".to_string()),
        ];
        for (bad, expected) in cases {
            let rendered = ChatTemplate::open(&embedded(vec![bad]), &tokenizer())
                .and_then(|template| template.render(&[Message::new("user", "hi")], true, false));
            let error = rendered.expect_err(&expected).to_string();
            assert!(error.contains(&expected), "{error}\nexpected {expected}");
        }
        let hidden = ChatTemplate::parse("t".into(), "content", vec![]).expect("parses");
        let message = [Message::new("assistant", "hi")];
        for (template, messages, prompt, expected) in [
            (
                &hidden,
                &message[..],
                false,
                "t: the final message can't be continued",
            ),
            (
                &hidden,
                &message[..],
                true,
                "a final message can't be continued and followed by",
            ),
            (
                &ChatTemplate::plain(),
                &[][..],
                false,
                "there is no final message to continue",
            ),
        ] {
            let error = template
                .render(messages, prompt, true)
                .expect_err(expected)
                .to_string();
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        }
    }
}
