//! Chat templates: messages as the text a model was trained on.

use minijinja::value::Value;
use serde::{Deserialize, Serialize};

use super::jinja::{self, MAX_BYTES};
use super::tokenizer::Tokenizer;
use crate::checkpoint::json::Fields;
use crate::checkpoint::source::{Source, TOKENIZER_CONFIG};
use crate::error::{Error, Result};

/// A template in a file of its own; it wins over the one in `tokenizer_config.json`.
const TEMPLATE: &str = "chat_template.jinja";
/// Transformers appends this to a message that is to be continued, in order to find its end.
const END_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

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
/// more newline at the end for a generation prompt.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Option<Template>,
}

#[derive(Debug)]
struct Template {
    /// Where it is from, for messages.
    file: String,
    text: String,
    special: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The template of `source`: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (one, or several by name of which the one named `default` counts),
    /// else the plain form. It may name the special tokens that the tokenizer's files name.
    pub fn open(source: &Source, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let special = tokenizer
            .special()
            .iter()
            .filter(|token| token.named)
            .map(|token| (token.role.clone(), token.text.clone()))
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
        const EXPECTED: &str = "a template, a list of {\"name\", \"template\"} with one named \
                                default, or an object with one of that name";
        let text = match fields.get("chat_template") {
            None => return Ok(ChatTemplate::plain()),
            Some(serde_json::Value::String(text)) => text.as_str(),
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str())
                .ok_or_else(|| fields.wrong("chat_template", EXPECTED))?,
            Some(serde_json::Value::Object(named)) => (named.get("default"))
                .and_then(|template| template.as_str())
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
    pub fn parse(file: String, text: &str, special: Vec<(String, String)>) -> Result<ChatTemplate> {
        if text.len() > MAX_BYTES {
            return Err(Error::Template {
                problem: format!("it has {} bytes; expected at most {MAX_BYTES}", text.len()),
                file,
                line: None,
            });
        }
        jinja::check(&file, text)?;
        Ok(ChatTemplate {
            template: Some(Template {
                file,
                text: text.to_string(),
                special,
            }),
        })
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant begins
    /// to write; with `continue_final` it ends inside the last message, at the end of its content,
    /// so that the model continues it.
    ///
    /// # Errors
    /// Both flags together; no message to continue; a template that fails on the messages.
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
        if !template.text.contains("content") {
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
        let mut context: Vec<(&str, Value)> = vec![
            ("messages", Value::from_serialize(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        for (role, text) in &self.special {
            context.push((role, Value::from(text.as_str())));
        }
        let bytes = messages
            .iter()
            .map(|m| m.role.len() + m.content.len())
            .sum();
        jinja::render(&self.file, &self.text, Value::from_iter(context), bytes)
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
        let special: Vec<(String, String)> = ["bos_token", "eos_token", "pad_token"]
            .into_iter()
            .map(|role| {
                (
                    role.to_string(),
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

    /// What is charged gives what minijinja gives.
    #[test]
    fn charged_operators_compute_the_same() {
        let list = "{{ [3, 1] + [2] }}{{ ([1, 2] * 2)|list }}{{ (1, 2) + (3,) }}";
        #[rustfmt::skip]
        let cases = [
            ("{{ 'ab' * 3 }}{{ 2 * 'c' }}{{ 2 * 3 * 4 }}{{ 2 * 1.5 }}{{ 2**3 * 2 }}", "abababcc243.016"),
            ("{{ 'a' + 'b' }}{{ 1 + 2 }}{{ 1 ~ 2 ~ none ~ true }}{{ 7 // 2 * 2 }}", "ab312NoneTrue6"),
            (list, "[3, 1, 2][1, 2, 1, 2][1, 2, 3]"),
            ("{{ 'abcdef'[1:4] }}{{ 'abcdef'[::-1] }}{{ [1, 2, 3][:-1] }}{{ 'abc'[-1:] }}", "bcdfedcba[1, 2]c"),
            ("{{ 'a' == 'a' }}{{ 1 != 1 }}{{ 1 < 2 }}{{ 'b' >= 'a' }}{{ 'a' in 'ba' }}{{ 3 not in [1] }}", "TrueFalseTrueTrueTrueTrue"),
            ("{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}", "12"),
            ("{{ messages[0]['content'].split('i')[0] }}{{ 'a-b'|replace('-', '+') }}{{ ['a', 'b']|join(', ') }}", "ha+ba, b"),
            ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ '%03d %s'|format(7, 'x') }}", "1007 x"),
            ("{% set x = '\n  y' %}{{ x | trim }}{{ ['b', 'a'] | sort | first }}{{ [1, 2] | map('string') | join }}", "ya12"),
        ];
        for (text, expected) in cases {
            let template = ChatTemplate::parse("t".into(), text, vec![]).expect(text);
            let rendered = template.render(&[Message::new("user", "hi")], true, false);
            assert_eq!(rendered.expect(text), expected, "{text}");
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
        let long = " ".repeat(MAX_BYTES + 1);
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
            (config(json!({"chat_template": 3})), "`chat_template` is 3; expected a template, a list".to_string()),
            (config(json!({"chat_template": [{"name": "a", "template": "b"}]})), "with one named default".to_string()),
            (config(json!({"chat_template": {"a": "b"}})), "an object with one of that name".to_string()),
            (file("{{ 'x' * 10**9 }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ ('x' * 9999999) * 9999999 }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='x') %}\n{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"),
             format!("{jinja}, line 2: it builds far more text")),
            (file("{% set n = namespace(x=[1]) %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x|length }}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = [n.x, n.x]|join %}{% endfor %}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == n.x }}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = {1: n.x, 2: n.x} %}{% endfor %}{{ n.x }}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set n.x = n.x|replace('a', 'aaa') %}{% endfor %}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{% set n = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set n.x = n.x.replace('a', 'aaa') %}{% endfor %}"),
             format!("{jinja}, line 1: it builds far more text")),
            (file("{{ '%999999999d'|format(1) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ '%.999999999f'|format(1.5) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ '{:>999999999}'.format(1) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ '%*d'|format(999999999, 1) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ 'a\\nb'|indent(999999999) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ [1]|batch(9999999999, 2) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ [1]|slice(9999999999) }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ ['a\\nb']|map('indent', 999999999)|list }}"), format!("{jinja}, line 1: it builds far more text")),
            (file("{{ ([1] * 99999999)|tojson }}"), format!("{jinja}, line 1: it builds far more text")),
            (file(&format!("{}{}{}", "{% for a in range(99999) %}", "x".repeat(30_000), "{% endfor %}")),
             format!("{jinja}, line 1: it runs without end")),
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
